"""A client that means harm: whatever it writes, the card keeps to the memory it was given."""

from __future__ import annotations

import mmap
import struct
from typing import Any

from engine_rig import (
    BASE,
    ENABLE,
    FCTRL,
    HLREG0,
    MAXFRS,
    MRQC,
    RXCSUM,
    VLNCTRL,
    Rig,
    ethernet,
    tcp4,
    tcp6,
    udp4,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import ffi, lib

AREA, GUARD = 64 << 10, 4096
START = 0x9_0000_0000
"""The client's memory as the card sees it: AREA bytes, with guards around that are not mapped."""

edges = st.sampled_from(
    [0, 1, 2, 15, 16, 60, 64, 1514, 4096, AREA // 2, AREA - 64, AREA - 60, AREA - 1, AREA, AREA + 1]
)
addresses = st.one_of(
    edges.map(lambda offset: START + offset),
    st.integers(0, AREA).map(lambda offset: START + offset),
    st.sampled_from([0, 1, 2**64 - 1, 2**64 - 60, START - 1, START - 60, BASE]),
)
lengths = st.one_of(
    st.sampled_from([0, 1, 16, 17, 54, 60, 64, 1514, 9000, 15868, 65535]), st.integers(0, 65535)
)
options = st.integers(0, 2**46 - 1)


FILTERS = [HLREG0, MAXFRS, FCTRL, VLNCTRL, RXCSUM, MRQC, 0x5090, 0xEA00]


@st.composite
def descriptors(draw: st.DrawFn) -> bytes:
    """Transmit descriptors that are nearly right, or random."""
    kind = draw(st.sampled_from(["data", "context", "legacy", "random"]))
    if kind == "random":
        return draw(st.binary(min_size=16, max_size=16))
    length = draw(lengths)
    flags = draw(st.sampled_from([0, 1 << 24, 1 << 24 | 1 << 25, 0xFF << 24, 1 << 24 | 1 << 25 | 1 << 27]))
    if kind == "legacy":
        rest = (
            draw(st.integers(0, 255)) << 16
            | draw(st.integers(0, 255)) << 40
            | draw(st.integers(0, 65535)) << 48
        )
        return struct.pack("<QQ", draw(addresses), (length | flags | rest) & ~(1 << 29))
    if kind == "data":
        payload = draw(st.sampled_from([length, max(length - 54, 0), 0, 2**18 - 1]))
        second = length | 3 << 20 | flags | 1 << 29 | draw(st.integers(0, 3)) << 40 | payload << 46
        return struct.pack(
            "<QQ", draw(addresses), second | draw(st.sampled_from([0, 1 << 30, 1 << 31, 3 << 30]))
        )
    mac, ip = draw(st.sampled_from([14, 18, 0, 127])), draw(st.sampled_from([20, 40, 0, 511]))
    l4, mss = draw(st.sampled_from([20, 8, 0, 255])), draw(st.sampled_from([1, 8, 1460, 0, 65535]))
    second = (
        2 << 20
        | 1 << 29
        | draw(st.integers(0, 7)) << 10
        | l4 << 40
        | mss << 48
        | draw(st.integers(0, 1)) << 36
    )
    return struct.pack("<QQ", 0x1234 << 16 | mac << 9 | ip, second)


class Guarded:
    """A card with AREA bytes mapped at START; the guards around them are nobody's and must never change."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.memory = mmap.mmap(-1, AREA + 2 * GUARD)
        self.memory[:] = b"\xa5" * len(self.memory)
        self.pinned: Any = ffi.from_buffer(self.memory)
        self.rig.card.dma_map(START, AREA, int(ffi.cast("uintptr_t", self.pinned)) + GUARD)

    def poke(self, at: int, data: bytes) -> None:
        self.memory[GUARD + at : GUARD + at + len(data)] = data

    def check(self) -> None:
        assert self.memory[:GUARD] == self.memory[GUARD + AREA :] == b"\xa5" * GUARD
        self.rig.close()
        ffi.release(self.pinned)
        self.memory.close()

    def ring(self, regs: int, base: int, n: int, head: int, tail: int) -> None:
        for register, value in (
            (0, base & 0xFFFFFFFF),
            (4, base >> 32),
            (8, 16 * n),
            (0x10, head),
            (0x18, tail),
        ):
            self.rig.set(regs + register, value)
        self.rig.set(regs + 0x28, self.rig.get(regs + 0x28) | ENABLE)
        self.rig.card.queue_changed(regs >= 0x6000, regs >> 6 & 63)


@given(
    st.lists(descriptors(), min_size=1, max_size=24),
    st.binary(max_size=200),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 64, AREA - 128, AREA - 256]),
)
@settings(max_examples=120, deadline=None)
def test_transmit_descriptors_of_any_kind(
    ring: list[bytes], content: bytes, hlreg0: int, offset: int
) -> None:
    guarded = Guarded()
    rig = guarded.rig
    guarded.poke(0, content * (AREA // max(len(content), 1)))
    rig.set(HLREG0, hlreg0 & ~(1 << 15))
    guarded.poke(offset, b"".join(ring)[: AREA - offset])
    guarded.ring(0x6000, START + offset, 32, 0, len(ring))
    rig.settle()
    assert all(len(packet) <= 15868 + 4 for packet in rig.sent())
    guarded.check()


@given(
    buffers=st.lists(st.tuples(addresses, addresses), min_size=7, max_size=7),
    srrctl=st.integers(0, 2**32 - 1),
    rxdctl=st.sampled_from([0, 1 << 30]),
    registers=st.lists(st.tuples(st.sampled_from(FILTERS), st.integers(0, 2**32 - 1)), max_size=4),
    head=st.sampled_from([0, 3, 7, 8, 0xFFFF]),
    tail=st.sampled_from([0, 7, 8, 0xFFFF]),
    size=st.sampled_from([60, 64, 1514, 9000, 15868]),
)
@settings(max_examples=120, deadline=None)
def test_receive_rings_of_any_kind(
    buffers: list[tuple[int, int]],
    srrctl: int,
    rxdctl: int,
    registers: list[tuple[int, int]],
    head: int,
    tail: int,
    size: int,
) -> None:
    guarded = Guarded()
    rig = guarded.rig
    for offset, value in registers:
        rig.set(offset, value)
    rig.filters()
    guarded.poke(0, b"".join(struct.pack("<QQ", *pair) for pair in buffers))
    rig.set(0x1014, srrctl)
    rig.set(0x1028, rxdctl)
    guarded.ring(0x1000, START, 8, head, tail)
    for packet in (udp4(bytes(size)), tcp4(bytes(size)), b"\x45" + bytes(size)):
        rig.arrive(
            ethernet(packet, tag=7)[:size],
            ethernet(packet)[:size],
            ethernet(tcp6(bytes(size)), kind=0x86DD)[:size],
        )
    rig.step(20)
    guarded.check()


@given(st.lists(st.tuples(st.integers(0, 0x1FFFF), st.integers(0, 2**32 - 1)), max_size=60), st.randoms())
@settings(max_examples=100, deadline=None)
def test_registers_of_any_value(writes: list[tuple[int, int]], random: object) -> None:
    """The whole image, those of queues too, with queues running and packets in both directions."""
    guarded = Guarded()
    rig = guarded.rig
    receive, transmit = rig.rx(), rig.tx()
    rig.wire_vectors(64)
    for anywhere, value in writes:
        offset = anywhere & ~3
        if not rig.card.write(offset, value):
            rig.set(offset, value)
        rig.card.read(offset)
        rig.card.queue_changed(bool(value & 1), offset >> 6 & 127)
        rig.card.filters_changed()
        rig.arrive(ethernet(udp4()))
        transmit.send(ethernet(b""))
        rig.step()
    receive.take_all()
    rig.step(10)
    guarded.check()


STARTS = [
    ethernet(udp4(bytes(900))),
    ethernet(tcp4(bytes(900)), tag=1),
    ethernet(tcp6(bytes(900)), kind=0x86DD),
    ethernet(b"\x60\0\0\0\x01\0\0\x40" + bytes(900), kind=0x86DD),
    ethernet(b"\x4f\0\x02\0" + bytes(900)),
]


@given(
    st.sampled_from(STARTS),
    st.integers(8, 100),
    st.lists(st.tuples(st.integers(12, 100), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_headers_that_promise_more_than_there_is(
    frame: bytes, eighths: int, changes: list[tuple[int, int]]
) -> None:
    """The packet ends where the wire's memory does: the address sanitizer shows a parser that reads on."""
    rig = Rig()
    wire = lib.wire_memory_create(65536, -1)
    rig.card.plug(wire)
    queue = rig.rx()
    packet = bytearray(frame[: 8 * eighths])
    for at, value in changes:
        packet[at % len(packet)] = value
    left = 65536 - 8 - len(packet)
    while left:
        step = min(left, 8200) if left - min(left, 8200) != 8 else 8192
        assert lib.wire_memory_put(wire, bytes(step - 8), step - 8) == 1
        left -= step
    assert lib.wire_memory_put(wire, bytes(packet), len(packet)) == 1
    rig.settle()
    assert queue.take_all()[-1].bytes == packet
    rig.card.plug(None)
    lib.wire_memory_destroy(wire)
    rig.close()
