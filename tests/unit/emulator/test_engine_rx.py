"""Receive: from the wire into the client's memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from engine_rig import (
    BASE,
    BROADCAST,
    DD,
    DROP_EN,
    EOP,
    HLREG0,
    IPCS,
    IPE,
    L4CS,
    MAXFRS,
    MEMORY,
    RXCSUM,
    RXCTRL,
    RXPBSIZE,
    TCPE,
    UDPCS,
    UDPV,
    VME,
    VP,
    Rig,
    RxQueue,
    ethernet,
    ip4,
    ip6,
    tcp4,
    tcp6,
    udp4,
    udp6,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import lib

QPRC, QBRC, QPRDC, MPC, GPRC, ROC, RUC = 0x1030, 0x1034, 0x1430, 0x3FA0, 0x4074, 0x40AC, 0x40A4
IP4_TYPE, IP6_TYPE, TCP_TYPE, UDP_TYPE = 0x10, 0x40, 0x100, 0x200


def test_a_packet_lands_in_the_first_buffer_with_its_descriptor_written_back(rig: Rig) -> None:
    queue = rig.rx()
    frame = ethernet(udp4())
    (packet,) = rig.receive(queue, frame)
    assert packet.bytes == frame
    assert packet.status == DD | EOP | IPCS | L4CS | UDPCS
    assert packet.type == IP4_TYPE | UDP_TYPE
    assert queue.head == 1


@given(st.lists(st.integers(60, 1514), max_size=200))
@settings(max_examples=30, deadline=None)
def test_packets_arrive_whole_and_in_order_around_the_ring(sizes: list[int]) -> None:
    rig = Rig()
    queue = rig.rx(n=8)
    got, frames = [], [bytes([i % 251]) * 12 + b"\x12\x34" + i.to_bytes(46, "big") for i in range(len(sizes))]
    frames = [frame[:60].ljust(size, bytes([size % 256])) for frame, size in zip(frames, sizes, strict=True)]
    for i in range(0, len(frames), 7):
        got += [packet.bytes for packet in rig.receive(queue, *frames[i : i + 7])]
        queue.post()
    rig.close()
    assert got == frames


def test_the_last_queue_receives_too_when_a_filter_names_it(rig: Rig) -> None:
    rig.rx()
    queue = rig.rx(127)
    rig.set(0x5128, 1 << 31 | 0x88CC)
    rig.set(0xEC00, 1 << 31 | 127 << 16)
    rig.filters()
    (packet,) = rig.receive(queue, ethernet(b"lldp", kind=0x88CC))
    assert packet.type == 0x8000


def test_a_legacy_descriptor_has_status_and_errors_in_its_own_places(rig: Rig) -> None:
    queue = rig.rx(kind=0)
    good = ethernet(tcp4())
    bad = good[:24] + b"\xee\xee" + good[26:]
    rig.arrive(good, bad)
    rig.settle()
    address = rig.peek(queue.ring, 8)
    assert int.from_bytes(address, "little") == BASE + queue.buffers[0]
    upper = int.from_bytes(rig.peek(queue.ring + 8, 8), "little")
    assert upper & 0xFFFF == len(good)
    assert upper >> 32 & 0xFF == DD | EOP | L4CS | IPCS
    assert upper >> 40 & 0xFF == 0
    assert int.from_bytes(rig.peek(queue.ring + 24, 8), "little") >> 40 & 0xFF == 0x80


def test_a_jumbo_packet_takes_as_many_buffers_as_it_needs(rig: Rig) -> None:
    queue = rig.rx(buffer_bytes=2048)
    rig.set(HLREG0, 1 | 2 | 4)
    rig.set(MAXFRS, 9018 << 16)
    frame = ethernet(udp4(bytes(i * 7 % 256 for i in range(8972))))
    assert len(frame) == 9014
    (packet,) = rig.receive(queue, frame)
    assert packet.bytes == frame
    assert packet.descriptors == 5
    assert packet.status & L4CS
    assert not packet.status & TCPE


def test_frames_longer_than_the_limit_are_counted_as_oversized(rig: Rig) -> None:
    queue = rig.rx()
    rig.set(MAXFRS, 9018 << 16)  # without JUMBOEN: 1518
    rig.arrive(
        ethernet(bytes(1500)),
        ethernet(bytes(1501)),
        ethernet(bytes(1500), tag=5),
        ethernet(bytes(1501), tag=5),
    )
    rig.settle()
    assert [len(packet.bytes) for packet in queue.take_all()] == [1514, 1518]
    assert rig.read(ROC) == 2
    rig.set(HLREG0, 1 | 2 | 4)
    assert len(rig.receive(queue, ethernet(bytes(9000)), ethernet(bytes(9001)))) == 1
    assert rig.read(ROC) == 1


def test_a_frame_shorter_than_ethernet_allows_is_counted_and_lost(rig: Rig) -> None:
    queue = rig.rx()
    assert rig.receive(queue, b"x" * 59, b"y") == []
    assert rig.read(RUC) == 2


def test_a_full_queue_with_drop_enabled_loses_packets_and_says_so(rig: Rig) -> None:
    queue = rig.rx(n=8)
    frames = [ethernet(bytes([i]) * 46) for i in range(10)]
    assert [packet.bytes for packet in rig.receive(queue, *frames)] == frames[:7]
    assert rig.read(QPRDC) == 3
    assert rig.read(QPRC) == 7
    assert rig.read(MPC) == 0


def test_a_full_queue_without_it_holds_the_port_until_there_are_descriptors(rig: Rig) -> None:
    blocked = rig.rx(0, n=8, flags=0)
    other = rig.rx(1, flags=0)
    rig.set(0x5128, 1 << 31 | 0x88CC)
    rig.set(0xEC00, 1 << 31 | 1 << 16)
    rig.filters()
    frames = [ethernet(bytes([i]) * 46) for i in range(10)]
    assert len(rig.receive(blocked, *frames)) == 7
    assert rig.receive(other, ethernet(b"", kind=0x88CC)) == []
    blocked.post()
    rig.settle()
    assert [packet.bytes for packet in blocked.take_all()] == frames[7:]
    assert len(other.take_all()) == 1
    assert rig.read(QPRDC) == 0
    assert rig.read(MPC) == 0


def test_what_finds_the_packet_buffer_full_is_missed(rig: Rig) -> None:
    queue = rig.rx(n=8, flags=0)
    rig.set(RXPBSIZE, 16 << 10)
    frames = [ethernet(i.to_bytes(2, "big") * 500) for i in range(50)]
    rig.receive(queue, *frames[:7])
    rig.arrive(*frames[7:])
    rig.settle()
    missed = rig.read(MPC)
    assert 43 - 16 <= missed <= 43 - 14
    got = []
    for _ in range(5):
        queue.post()
        rig.settle()
        got += queue.take_all()
    assert [packet.bytes for packet in got] == frames[7 : 50 - missed]


def test_a_packet_for_a_queue_that_is_off_is_dropped_there(rig: Rig) -> None:
    rig.arrive(ethernet(b""))
    rig.settle()
    assert rig.read(GPRC) == 1
    assert rig.read(QPRDC) == 1


def test_without_a_receiver_or_a_link_nothing_is_counted(rig: Rig) -> None:
    queue = rig.rx()
    rig.set(RXCTRL, 0)
    assert rig.receive(queue, ethernet(b"")) == []
    rig.set(RXCTRL, 1)
    rig.card.set_link(False)
    assert rig.receive(queue, ethernet(b"")) == []
    rig.card.set_link(True)
    assert rig.read(GPRC) == 0
    assert len(rig.receive(queue, ethernet(b""))) == 1


def test_a_tag_is_taken_off_when_the_queue_is_told_to(rig: Rig) -> None:
    plain, stripping = rig.rx(0), rig.rx(1, flags=DROP_EN | VME)
    rig.set(0x5128, 1 << 31 | 0x0800)
    rig.filters()
    frame = ethernet(udp4(), tag=0xA123)
    (packet,) = rig.receive(plain, frame)
    assert (packet.bytes, packet.vlan, packet.status & VP) == (frame, 0, VP)
    rig.set(0xEC00, 1 << 31 | 1 << 16)
    rig.filters()
    (packet,) = rig.receive(stripping, frame)
    assert packet.bytes == frame[:12] + frame[16:]
    assert (packet.vlan, packet.status & VP) == (0xA123, VP)
    (packet,) = rig.receive(stripping, ethernet(udp4()))
    assert packet.status & VP == 0


def test_without_crc_stripping_the_host_gets_the_frame_check_sequence(rig: Rig) -> None:
    queue = rig.rx()
    rig.set(HLREG0, 1)
    frame = ethernet(udp4())
    (packet,) = rig.receive(queue, frame)
    assert packet.bytes == frame + zlib.crc32(frame).to_bytes(4, "little")
    assert rig.read(QBRC) == len(frame) + 4


@pytest.mark.parametrize(
    ("packet", "kind"), [(udp4(), 0x800), (tcp4(), 0x800), (udp6(), 0x86DD), (tcp6(), 0x86DD)]
)
def test_a_wrong_checksum_is_an_error_in_the_descriptor(rig: Rig, packet: bytes, kind: int) -> None:
    queue = rig.rx()
    frame = ethernet(packet, kind=kind)
    for tag in (None, 3):
        frame = ethernet(packet, kind=kind, tag=tag)
        end = len(frame.rstrip(b"\0"))
        good, bad = rig.receive(queue, frame, frame[: end - 1] + bytes([frame[end - 1] ^ 1]) + frame[end:])
        assert good.status & (L4CS | TCPE | IPE) == L4CS
        assert bad.status & (L4CS | TCPE | IPE) == L4CS | TCPE


def test_a_wrong_ip_header_checksum_is_an_error_of_its_own(rig: Rig) -> None:
    queue = rig.rx()
    frame = ethernet(udp4())
    (packet,) = rig.receive(queue, frame[:22] + b"\x01" + frame[23:])
    assert packet.status & (IPCS | IPE | L4CS | TCPE) == IPCS | IPE | L4CS


def test_udp_without_a_checksum_is_reported_as_wrong_as_silicon_does(rig: Rig) -> None:
    queue = rig.rx()
    frame = ethernet(udp4())
    (packet,) = rig.receive(queue, frame[:40] + b"\0\0" + frame[42:])
    assert packet.status & (L4CS | TCPE) == L4CS | TCPE


def test_sctp_has_its_crc_verified(rig: Rig) -> None:
    queue = rig.rx()
    # RFC 9260's CRC-32C over an INIT-less packet of 12 bytes, made bit by bit.
    body = b"\x0b\x59\x0b\x59\0\0\0\x01" + bytes(4)
    crc = slow_crc32c(body)
    frame = ethernet(ip4(body[:8] + crc.to_bytes(4, "little"), 132))
    good, bad = rig.receive(queue, frame, frame[:36] + b"\x99" + frame[37:])
    assert good.status & (L4CS | TCPE) == L4CS
    assert bad.status & (L4CS | TCPE) == L4CS | TCPE
    assert good.type == IP4_TYPE | 0x400


def slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if (crc ^ byte >> bit) & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_fragments_have_an_ip_checksum_and_no_other(rig: Rig) -> None:
    queue = rig.rx()
    for fragment in (0x2000, 0x0010):
        (packet,) = rig.receive(queue, ethernet(ip4(udp4()[20:], frag=fragment)))
        assert packet.status & (IPCS | L4CS) == IPCS


def test_a_udp_fragments_checksum_is_there_when_it_is_asked_for(rig: Rig) -> None:
    queue = rig.rx()
    rig.set(RXCSUM, 1 << 12)
    payload = udp4(b"x" * 64)[20:]
    (packet,) = rig.receive(queue, ethernet(ip4(payload, frag=0x2000, ident=0x1234)))
    assert packet.status & UDPV
    assert packet.hash & 0xFFFF == 0x1234
    total = sum(int.from_bytes(payload[i : i + 2], "little") for i in range(0, len(payload), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert packet.hash >> 16 == total


def test_the_parser_tells_options_and_extension_headers(rig: Rig) -> None:
    queue = rig.rx()
    hop = b"\x11\0\x01\x04\0\0\0\0" + udp6()[40:]
    frames = [ethernet(ip4(udp4()[20:], options=b"\x01" * 4)), ethernet(ip6(hop, 0), kind=0x86DD)]
    first, second = rig.receive(queue, *frames)
    assert first.type == IP4_TYPE | 0x20 | UDP_TYPE
    assert second.type == IP6_TYPE | 0x80 | UDP_TYPE
    assert second.status & (L4CS | TCPE) == L4CS


@given(st.binary(min_size=60, max_size=120), st.sampled_from([0x0800, 0x86DD, 0x8100]))
@settings(max_examples=200, deadline=None)
def test_rubbish_arrives_as_it_is(shared: tuple[Rig, RxQueue], rubbish: bytes, kind: int) -> None:
    rig, queue = shared
    frame = rubbish[:12] + kind.to_bytes(2, "big") + rubbish[14:]
    (packet,) = rig.receive(queue, frame)
    assert packet.bytes == frame
    queue.post()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Rig, RxQueue]]:
    """One card for many examples."""
    rig = Rig()
    yield rig, rig.rx()
    rig.close()


def test_a_header_is_split_from_its_payload(rig: Rig) -> None:
    queue = rig.rx(kind=2)
    rig.set(queue.regs + 0x14, 2 | 4 << 8 | 2 << 25)
    rig.set(0xEA00, 1 << 4)
    header = rig.take(256, 64)
    rig.poke(queue.ring + 8, (BASE + header).to_bytes(8, "little"))
    frame = ethernet(tcp4(b"d" * 100))
    (packet,) = rig.receive(queue, frame)
    assert rig.peek(header, 54) == frame[:54]
    assert packet.bytes == frame[54:]
    assert packet.low >> 31 & 1
    assert packet.low >> 21 & 0x3FF == 54


def test_a_descriptor_type_that_does_not_exist_stops_the_queue(rig: Rig) -> None:
    queue = rig.rx(kind=3)
    assert rig.receive(queue, ethernet(b"")) == []
    assert rig.card.counters()["bad_descriptors"] == 1
    rig.set(queue.regs + 0x14, 2 | 1 << 25)
    assert rig.receive(queue, ethernet(b"")) == []
    rig.set(queue.regs + 0x28, 0)
    rig.card.queue_changed(False, 0)
    rig.set(queue.regs + 0x28, 1 << 25)
    rig.card.queue_changed(False, 0)
    assert len(rig.receive(queue, ethernet(b""))) == 1


def test_a_buffer_outside_of_mapped_memory_is_a_fault_and_stops_the_queue(rig: Rig) -> None:
    queue = rig.rx()
    rig.poke(queue.ring + 16, (BASE + MEMORY - 30).to_bytes(8, "little"))
    assert len(rig.receive(queue, *[ethernet(b"")] * 5)) == 1
    counters = rig.card.counters()
    assert counters["dma_faults"] == 1
    assert counters["last_fault_iova"] == BASE + MEMORY
    assert queue.head == 1


def test_a_ring_that_is_unmapped_under_way_is_a_fault(rig: Rig) -> None:
    queue = rig.rx()
    assert len(rig.receive(queue, ethernet(b""))) == 1
    assert rig.card.dma_unmap(BASE, MEMORY) == 1
    assert rig.receive(queue, ethernet(b"")) == []
    assert rig.card.counters()["last_fault_iova"] == BASE + queue.ring + 16


def test_a_tail_outside_of_the_ring_is_no_tail(rig: Rig) -> None:
    queue = rig.rx(post=False)
    for tail in (64, 65, 0xFFFF, 0xFFFFFFFF):
        rig.set(queue.regs + 0x18, tail)
        rig.arrive(ethernet(b""))
        rig.settle()
    assert queue.head == 0
    assert rig.read(QPRDC) == 4


def test_a_queue_that_is_disabled_and_enabled_starts_anew(rig: Rig) -> None:
    queue = rig.rx()
    assert len(rig.receive(queue, *[ethernet(b"")] * 3)) == 3
    rig.set(queue.regs + 0x28, 0)
    rig.card.queue_changed(False, 0)
    assert rig.receive(queue, ethernet(b"")) == []
    again = rig.rx()
    assert len(rig.receive(again, ethernet(b""))) == 1
    assert again.head == 1


def test_statistics_count_sizes_and_kinds_once(rig: Rig) -> None:
    queue = rig.rx()
    sizes = [60, 123, 124, 251, 252, 507, 508, 1019, 1020, 1514]
    multicast = ethernet(b"", dst=bytes.fromhex("01005e000001"))
    rig.receive(queue, *[ethernet(b"").ljust(size, b"\0") for size in sizes])
    rig.receive(queue, ethernet(b"", dst=BROADCAST), multicast, multicast)
    assert [rig.read(0x405C + 4 * i) for i in range(6)] == [4, 1, 2, 2, 2, 2]
    assert (rig.read(GPRC), rig.read(0x40D0), rig.read(0x4078), rig.read(0x407C)) == (13, 13, 1, 2)
    total = sum(sizes) + 180 + 4 * 13
    assert rig.read(0x4088) + (rig.read(0x408C) << 32) == total
    assert rig.read(0x40C0) + (rig.read(0x40C4) << 32) == total
    assert rig.read(QPRC) == rig.read(0x2F50) == 13
    assert rig.read(QBRC) == total - 4 * 13
    assert [rig.read(offset) for offset in (GPRC, 0x4088, QPRC, QBRC, 0x405C)] == [0] * 5


def test_bytes_beyond_32_bits_are_read_in_two_halves(rig: Rig) -> None:
    rig.set(HLREG0, 1 | 2 | 4)
    rig.set(MAXFRS, 15872 << 16)
    lib.wire_memory_repeat(rig.wire, 64)
    rig.arrive(*[ethernet(b"", kind=0x88B5).ljust(15000, b"\0")] * 32)
    packets = 0
    while packets * 15004 < 2**32 + 2**20:
        packets += rig.step(50)
    low, high = rig.read(0x4088), rig.read(0x408C)
    assert high == 1
    assert low + (high << 32) == packets * 15004
    assert (rig.read(0x4088), rig.read(0x408C)) == (0, 0)
    rig.step()
    assert rig.read(0x408C) == 0


def test_queues_count_where_their_map_says(rig: Rig) -> None:
    queue = rig.rx(5)
    rig.set(0x5128, 1 << 31 | 0x0800)
    rig.set(0xEC00, 1 << 31 | 5 << 16)
    rig.set(0x2300 + 4, 9 << 8)
    rig.filters()
    rig.receive(queue, ethernet(udp4()))
    assert [rig.read(QPRC + 0x40 * i) for i in range(16)] == [int(i == 9) for i in range(16)]


def test_the_card_does_not_touch_memory_it_may_only_read(rig: Rig) -> None:
    queue = rig.rx()
    rig.card.dma_unmap(BASE, MEMORY)
    rig.card.dma_map(BASE, MEMORY, rig.address, True, False)
    assert rig.receive(queue, ethernet(b"")) == []
    assert rig.card.counters()["dma_faults"] == 1


def test_reset_forgets_queues_and_counts(rig: Rig) -> None:
    queue = rig.rx()
    rig.receive(queue, ethernet(b""))
    rig.card.reset()
    assert rig.read(GPRC) == 0
    rig.set(queue.regs + 0x28, 0)
    assert rig.receive(queue, ethernet(b"")) == []


def test_a_queue_without_a_ring_is_no_mistake_until_receive_is_on(rig: Rig) -> None:
    """Linux's register test enables queues whose length is 0, with the receiver off."""
    rig.set(0x3000, 0)
    rig.set(0x1008, 0)  # RDLEN(0)
    rig.set(0x1028, 1 << 25)
    rig.card.queue_changed(False, 0)
    assert rig.card.counters()["bad_descriptors"] == 0
    rig.set(0x3000, 1)
    rig.arrive(ethernet(b"x"))
    rig.step()
    assert rig.card.counters()["bad_descriptors"] == 1
