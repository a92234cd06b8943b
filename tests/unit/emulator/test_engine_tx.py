"""Transmit: from the client's descriptors onto the wire."""

from __future__ import annotations

import struct
import zlib

import pytest
from engine_rig import (
    BASE,
    BROADCAST,
    DMATXCTL,
    HLREG0,
    IFCS,
    IXSM,
    MEMORY,
    RS,
    TSE,
    TX_EOP,
    TXSM,
    VLE,
    Rig,
    ethernet,
    ip4,
    ip6,
    pseudo,
    slow_sum,
    tcp,
    tcp4,
    udp4,
    udp6,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import lib

GPTC, QPTC, QBTC, GOTC = 0x4080, 0x8680, 0x8700, 0x4090
LEGACY_IC, LEGACY_VLE = 1 << 26, 1 << 30


def test_a_packet_goes_out_as_it_is_and_its_descriptor_is_done(rig: Rig) -> None:
    queue = rig.tx()
    frame = ethernet(udp4())
    at = queue.send(frame, RS)
    silent = queue.send(frame)
    rig.settle()
    assert rig.sent() == [frame, frame]
    assert queue.done(at)
    assert not queue.done(silent)
    assert queue.head == 2


@given(st.lists(st.tuples(st.integers(60, 1514), st.lists(st.integers(1, 1500), max_size=5)), max_size=150))
@settings(max_examples=30, deadline=None)
def test_packets_leave_whole_and_in_order_however_they_are_cut(shapes: list[tuple[int, list[int]]]) -> None:
    rig = Rig()
    queue = rig.tx(n=16)
    frames, sent = [], []
    for i, (size, cuts) in enumerate(shapes):
        frame = (bytes(12) + b"\x12\x34" + i.to_bytes(46, "big")).ljust(size, bytes([i % 256]))
        frames.append(frame)
        queue.send(frame, RS, sorted({cut for cut in cuts if cut < size}))
        rig.settle()
        sent += rig.sent()
    rig.close()
    assert sent == frames


def test_sixteen_queues_and_the_last_one_are_all_served(rig: Rig) -> None:
    numbers = [*range(16), 127]
    queues = [rig.tx(number, n=8) for number in numbers]
    frames = [ethernet(bytes([number]) * 46) for number in numbers]
    for queue, frame in zip(queues, frames, strict=True):
        queue.send(frame)
    rig.settle()
    assert sorted(rig.sent()) == sorted(frames)
    assert [queue.head for queue in queues] == [1] * 17


def test_short_packets_are_padded_when_padding_is_on(rig: Rig) -> None:
    queue = rig.tx()
    queue.send(b"x" * 20)
    rig.settle()
    assert rig.sent() == [b"x" * 20 + bytes(40)]
    rig.set(HLREG0, 1 | 2)
    queue.send(b"x" * 20)
    rig.settle()
    assert rig.sent() == [b"x" * 20]


def test_half_a_packet_waits_for_its_end(rig: Rig) -> None:
    queue = rig.tx()
    where = rig.take(64, 16)
    rig.poke(where, b"a" * 64)
    queue.descriptor(BASE + where, 32 | 3 << 20 | 1 << 29 | IFCS | 64 << 46)
    queue.doorbell()
    rig.settle()
    assert rig.sent() == []
    queue.descriptor(BASE + where + 32, 32 | 3 << 20 | 1 << 29 | IFCS | TX_EOP | RS)
    queue.doorbell()
    rig.settle()
    assert rig.sent() == [b"a" * 64]
    assert queue.done(1)
    assert not queue.done(0)


def test_nothing_is_sent_without_a_link_or_the_transmitter(rig: Rig) -> None:
    queue = rig.tx()
    rig.card.set_link(False)
    queue.send(ethernet(b""))
    rig.settle()
    rig.card.set_link(True)
    rig.set(DMATXCTL, 0x8100 << 16)
    rig.settle()
    assert (rig.sent(), queue.head) == ([], 0)
    rig.set(DMATXCTL, 1 | 0x8100 << 16)
    rig.settle()
    assert (len(rig.sent()), queue.head) == (1, 1)


def test_a_full_wire_keeps_packets_in_their_descriptors(rig: Rig) -> None:
    queue = rig.tx()
    lib.wire_memory_hold(rig.wire, 1)
    frames = [ethernet(bytes([i]) * 46) for i in range(5)]
    ats = [queue.send(frame, RS) for frame in frames]
    rig.settle()
    assert queue.head == 0
    assert not any(queue.done(at) for at in ats)
    lib.wire_memory_hold(rig.wire, 0)
    rig.settle()
    assert rig.sent() == frames
    assert all(queue.done(at) for at in ats)


def test_heads_are_written_back_instead_of_descriptors_when_asked(rig: Rig) -> None:
    queue = rig.tx()
    head = rig.take(64, 64)
    rig.set(queue.regs + 0x38, (BASE + head) & 0xFFFFFFFF | 1)
    rig.set(queue.regs + 0x3C, BASE >> 32)
    ats = [queue.send(ethernet(b""), RS) for _ in range(3)]
    rig.settle()
    assert rig.peek(head, 4) == struct.pack("<I", 3)
    assert not any(queue.done(at) for at in ats)
    queue.send(ethernet(b""))
    rig.settle()
    assert rig.peek(head, 4) == struct.pack("<I", 3)
    assert queue.head == 4


def test_a_head_that_may_not_be_written_is_a_fault(rig: Rig) -> None:
    queue = rig.tx()
    rig.set(queue.regs + 0x38, 0x1000 | 1)
    queue.send(ethernet(b""), RS)
    rig.settle()
    assert rig.card.counters()["last_fault_iova"] == 0x1000


@pytest.mark.parametrize("cuts", [(), (50,)])
def test_checksums_are_inserted_where_the_context_says(rig: Rig, cuts: tuple[int, ...]) -> None:
    queue = rig.tx()
    for frame, l3, kind, ip4_bit in [
        (ethernet(udp4(b"odd" * 15)), 20, 0, True),
        (ethernet(tcp4(b"data" * 100)), 20, 1, True),
        (ethernet(udp6(b"odd" * 15), kind=0x86DD), 40, 0, False),
    ]:
        field = 14 + l3 + (16 if kind else 6)
        # The client leaves the header checksum 0 and the pseudo header's sum in the field.
        length = len(frame) - 14 - l3
        seed = ~slow_sum(pseudo(frame[14:], 6 if kind else 17, length)) & 0xFFFF
        raw = frame[:24] + b"\0\0" + frame[26:] if ip4_bit else frame
        raw = raw[:field] + struct.pack("!H", seed) + raw[field + 2 :]
        queue.context(14, l3, ip4=ip4_bit, kind=kind)
        queue.send(raw, RS | TXSM | (IXSM if ip4_bit else 0), cuts)
        rig.settle()
        assert rig.sent() == [frame]


def test_a_udp_checksum_that_comes_out_as_zero_is_sent_as_ones(rig: Rig) -> None:
    queue = rig.tx()
    frame = ethernet(ip4(struct.pack("!HHHH", 0, 0, 8, 0), 17))[:42]
    queue.context(14, 20, kind=0)
    raw = frame[:34] + struct.pack("!HHHH", 0, 0, 8, 0xFFF7)
    queue.send(raw, TXSM)
    rig.settle()
    assert rig.sent()[0][40:42] == b"\xff\xff"


def test_both_contexts_of_a_queue_are_kept(rig: Rig) -> None:
    queue = rig.tx()
    queue.context(14, 20, vlan=5, at=0)
    queue.context(14, 20, vlan=6, at=1)
    frame = ethernet(udp4())
    for at in (0, 1, 0):
        queue.send(frame, VLE | at << 36)
    rig.settle()
    assert [packet[12:16].hex() for packet in rig.sent()] == ["81000005", "81000006", "81000005"]


def test_a_tag_is_inserted_behind_the_addresses_after_the_checksums(rig: Rig) -> None:
    queue = rig.tx()
    frame = ethernet(udp4(b"x" * 30))
    queue.context(14, 20, kind=0, vlan=0xE123)
    queue.send(frame[:24] + b"\0\0" + frame[26:], VLE | IXSM)
    rig.settle()
    assert rig.sent() == [frame[:12] + b"\x81\x00\xe1\x23" + frame[12:]]


def test_legacy_descriptors_send_insert_checksums_and_tags(rig: Rig) -> None:
    queue = rig.tx()
    frame = ethernet(udp4(b"x" * 30))
    where = rig.take(2048, 16)
    rig.poke(
        where,
        frame[:40]
        + struct.pack("!H", ~slow_sum(pseudo(frame[14:], 17, len(frame) - 34)) & 0xFFFF)
        + frame[42:],
    )
    queue.descriptor(BASE + where, len(frame) | TX_EOP | IFCS | RS)
    queue.descriptor(
        BASE + where,
        len(frame) | 40 << 16 | TX_EOP | IFCS | RS | LEGACY_IC | LEGACY_VLE | 34 << 40 | 0x2345 << 48,
    )
    queue.doorbell()
    rig.settle()
    plain, worked = rig.sent()
    assert plain == rig.peek(where, len(frame))
    assert worked == frame[:12] + b"\x81\x00\x23\x45" + frame[12:]
    assert queue.done(0)
    assert queue.done(1)


def test_without_ifcs_the_clients_own_check_sequence_must_be_right(rig: Rig) -> None:
    queue = rig.tx()
    frame = ethernet(udp4())
    where = rig.take(2048, 16)
    rig.poke(where, frame + zlib.crc32(frame).to_bytes(4, "little"))
    rig.poke(where + 512, frame + b"none")
    for at in (where, where + 512):
        queue.descriptor(BASE + at, len(frame) + 4 | 3 << 20 | 1 << 29 | TX_EOP | RS | (len(frame) + 4) << 46)
    queue.doorbell()
    rig.settle()
    assert rig.sent() == [frame]
    assert queue.done(1)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("no length", 0 | 3 << 20 | 1 << 29 | TX_EOP | IFCS),
        ("shorter than 17", 16 | 3 << 20 | 1 << 29 | TX_EOP | IFCS | 16 << 46),
        ("PAYLEN is another", 64 | 3 << 20 | 1 << 29 | TX_EOP | IFCS | 60 << 46),
        ("longer than 15.5 KiB", 16000 | 3 << 20 | 1 << 29 | TX_EOP | IFCS | 16000 << 46),
        ("type 5", 64 | 5 << 20 | 1 << 29 | TX_EOP | IFCS | 64 << 46),
        ("options without a context", 64 | 3 << 20 | 1 << 29 | TX_EOP | IFCS | 64 << 46 | TXSM),
        ("segments without a context", 64 | 3 << 20 | 1 << 29 | TX_EOP | IFCS | 64 << 46 | TSE),
        ("a sum beyond the end", 64 | 200 << 16 | TX_EOP | IFCS | LEGACY_IC),
    ],
)
def test_what_the_datasheet_forbids_stops_the_queue_behind_what_was_right(
    rig: Rig, name: str, second: int
) -> None:
    queue = rig.tx()
    at = queue.send(ethernet(b""), RS)
    queue.descriptor(BASE, second)
    queue.send(ethernet(b""))
    rig.settle()
    assert len(rig.sent()) == 1, name
    assert queue.done(at)
    assert queue.head == 1
    assert rig.card.counters()["bad_descriptors"] == 1
    again = rig.tx()
    assert again.head == 0


def test_a_packet_in_more_than_forty_pieces_is_forbidden(rig: Rig) -> None:
    queue = rig.tx(n=128)
    queue.send(bytes(40 * 2), 0, range(2, 80, 2))
    queue.send(bytes(41 * 2), 0, range(2, 82, 2))
    rig.settle()
    assert len(rig.sent()) == 1
    assert rig.card.counters()["bad_descriptors"] == 1


def test_memory_that_is_not_mapped_is_a_fault_and_stops_the_queue(rig: Rig) -> None:
    queue = rig.tx()
    queue.descriptor(BASE + MEMORY - 10, 64 | 3 << 20 | 1 << 29 | TX_EOP | IFCS | 64 << 46)
    queue.send(ethernet(b""))
    rig.settle()
    assert rig.sent() == []
    counters = rig.card.counters()
    assert (counters["dma_faults"], counters["last_fault_iova"]) == (1, BASE + MEMORY)


def segments_of(
    rig: Rig, frame: bytes, l3: int, l4: int, mss: int, *, flags: int = 0, vlan: int = 0
) -> list[bytes]:
    """What the card makes of a TCP packet with headers 14 + l3 + l4."""
    queue = rig.tx(n=64)
    headers = 14 + l3 + l4
    version4 = l3 == 20
    seed = ~slow_sum(pseudo(frame[14:], 6, 0)) & 0xFFFF
    raw = frame[: 14 + l3 + 16] + struct.pack("!H", seed) + frame[14 + l3 + 18 :]
    if version4:
        raw = raw[:16] + b"\0\0" + raw[18:24] + b"\0\0" + raw[26:]
    queue.context(14, l3, l4, mss, ip4=version4, vlan=vlan)
    at = queue.send(
        raw,
        RS | TSE | TXSM | flags | (IXSM if version4 else 0),
        range(300, len(raw), 9000),
        payload=len(raw) - headers,
    )
    rig.settle()
    assert queue.done(at)
    return rig.sent()


@pytest.mark.parametrize("v6", [False, True])
@given(
    size=st.integers(1, 20000),
    mss=st.integers(200, 9000),
    flags=st.integers(0, 0x1FF),
    sequence=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_segments_put_together_again_are_the_packet(
    v6: bool, size: int, mss: int, flags: int, sequence: int
) -> None:
    rig = Rig()
    data = bytes(i * 31 % 256 for i in range(size))
    l3, options = (40 if v6 else 20), b"\x01" * 12
    empty = ip6(b"", 6) if v6 else ip4(b"", 6)
    segment = tcp(data, empty, seq=sequence, flags=flags, options=options)
    ip = ip6(b"", 6) if v6 else ip4(b"", 6, ident=0xFFFE)
    frame = ethernet(ip + segment, kind=0x86DD if v6 else 0x0800)[: 14 + l3 + len(segment)]
    sent = segments_of(rig, frame, l3, 32, mss)
    counted = rig.card.counters()["tx_segments"]
    rig.close()
    n = -(-size // mss)
    assert len(sent) == n == counted
    for i, one in enumerate(sent):
        piece = data[i * mss : (i + 1) * mss]
        last = i == n - 1
        head = one[14 : 14 + l3]
        if v6:
            assert struct.unpack("!H", head[4:6])[0] == 32 + len(piece)
        else:
            assert slow_sum(head) == 0
            assert struct.unpack("!HH", head[2:6]) == (52 + len(piece), (0xFFFE + i) % 65536)
        kept = flags if last else flags & ~0x09
        if i:
            kept &= ~0x80
        wanted = tcp(piece, empty, seq=(sequence + i * mss) % 2**32, flags=kept, options=options)
        assert one[14 + l3 : 14 + l3 + len(wanted)] == wanted
        assert one[14 + l3 + len(wanted) :].strip(b"\0") == b""


def test_segments_are_tagged_and_wait_for_a_wire_that_is_full(rig: Rig) -> None:
    lib.wire_memory_hold(rig.wire, 1)
    data = bytes(200000)
    queue = rig.tx(n=64)
    frame = ethernet(tcp4(b""))[:54]
    queue.context(14, 20, 20, 1000, vlan=0x123)
    queue.send(frame + data, RS | TSE | TXSM | IXSM | VLE, range(16000, 200000, 16000), payload=200000)
    after = ethernet(udp4())
    queue.send(after)
    rig.settle()
    assert rig.sent() == []
    lib.wire_memory_hold(rig.wire, 0)
    rig.settle()
    sent = rig.sent()
    assert len(sent) == 201
    assert sent[-1] == after
    assert {packet[12:16].hex() for packet in sent[:-1]} == {"81000123"}
    assert rig.read(QPTC) == 201


def test_contexts_alone_move_the_head(rig: Rig) -> None:
    queue = rig.tx()
    queue.context(14, 20)
    queue.context(14, 20)
    queue.doorbell()
    rig.settle()
    assert queue.head == 2


def test_loopback_brings_packets_back_and_keeps_them_off_the_wire(rig: Rig) -> None:
    rig.set(HLREG0, 1 | 2 | 1 << 10 | 1 << 15)
    receive, transmit = rig.rx(), rig.tx()
    frames = [ethernet(bytes([i]) * 46) for i in range(20)]
    for frame in frames:
        transmit.send(frame)
    rig.arrive(ethernet(b"from outside"))
    rig.settle()
    assert [packet.bytes for packet in receive.take_all()] == frames
    assert rig.sent() == []


def test_statistics_count_what_was_sent(rig: Rig) -> None:
    queue = rig.tx(3)
    rig.set(0x8600, 7 << 24)
    multicast = ethernet(b"", dst=bytes.fromhex("01005e000001"))
    for frame in (ethernet(b"").ljust(1000), ethernet(b"", dst=BROADCAST), multicast, multicast):
        queue.send(frame)
    rig.settle()
    total = 1000 + 3 * 60
    assert [rig.read(0x40D8 + 4 * i) for i in range(6)] == [3, 0, 0, 0, 1, 0]
    assert (rig.read(GPTC), rig.read(0x40D4), rig.read(0x40F4), rig.read(0x40F0)) == (4, 4, 1, 2)
    assert rig.read(GOTC) + (rig.read(GOTC + 4) << 32) == total + 16
    assert (rig.read(QPTC + 28), rig.read(QBTC + 56), rig.read(0x87A0)) == (4, total, 4)
    assert rig.read(QPTC) == rig.read(GPTC) == 0
