"""The wire whose far end is calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from engine_rig import Rig, ethernet
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import ffi, lib


@pytest.fixture
def small(rig: Rig) -> Iterator[Any]:
    """64 KiB each way, plugged into a card."""
    wire = lib.wire_memory_create(65536, -1)
    rig.card.plug(wire)
    yield wire
    rig.card.plug(None)
    lib.wire_memory_destroy(wire)


def test_sizes_that_are_no_ring_are_refused() -> None:
    for size in (0, 4096, 65537, 3 << 16, 1 << 31):
        assert lib.wire_memory_create(size, -1) == ffi.NULL


def test_a_full_wire_says_so_and_a_packet_has_a_limit(small: Any) -> None:
    assert lib.wire_memory_put(small, bytes(8193), 8193) < 0
    assert lib.wire_memory_put(small, b"", 0) < 0
    n = 0
    while lib.wire_memory_put(small, bytes(8000), 8000) == 1:
        n += 1
    assert n == 65536 // 8008


@given(st.lists(st.one_of(st.integers(60, 8192), st.just(None)), max_size=120))
@settings(max_examples=50, deadline=None)
def test_the_card_gets_what_was_put_in_order_around_the_end(steps: list[int | None]) -> None:
    rig = Rig()
    wire = lib.wire_memory_create(65536, -1)
    rig.card.plug(wire)
    rig.set(0x4240, 1 | 2 | 4)
    rig.set(0x4268, 9728 << 16)
    queue = rig.rx(n=128, buffer_bytes=16384)
    waiting: deque[bytes] = deque()
    got: list[bytes] = []
    put: list[bytes] = []
    for i, step in enumerate(steps):
        if step is None:
            rig.settle()
            got += [packet.bytes for packet in queue.take_all()]
            queue.post()
            continue
        packet = bytes([i]) * step
        if lib.wire_memory_put(wire, packet, step) == 1:
            put.append(packet)
            waiting.append(packet)
    rig.settle()
    got += [packet.bytes for packet in queue.take_all()]
    rig.card.plug(None)
    lib.wire_memory_destroy(wire)
    rig.close()
    assert got == put


def test_what_does_not_fit_the_taker_is_cut(rig: Rig) -> None:
    rig.tx().send(ethernet(b"abc"))
    rig.settle()
    room = ffi.new("uint8_t[4]")
    assert lib.wire_memory_take(rig.wire, room, 4) == 60
    assert lib.wire_memory_take(rig.wire, room, 4) == 0


def test_a_repeating_wire_plays_the_same_packets_for_ever(rig: Rig, small: Any) -> None:
    queue = rig.rx()
    frames = [ethernet(bytes([i]) * 46) for i in range(3)]
    for frame in frames:
        lib.wire_memory_put(small, frame, 60)
    lib.wire_memory_repeat(small, 2)
    rig.step(8)
    got = [packet.bytes for packet in queue.take_all()]
    assert got == (frames * 5)[: len(got)]
    assert len(got) > 9
