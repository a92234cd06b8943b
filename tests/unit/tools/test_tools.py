"""fwd, pktgen and dump over ports made of memory: the same calls that drive a card."""

from __future__ import annotations

import io
import ipaddress
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ixroute._dataplane import lib
from ixroute.driver.mem import MemPort
from ixroute.driver.port import PortError, PortOptions
from ixroute.tools.describe import describe
from ixroute.tools.dump import Dump
from ixroute.tools.pktgen import IMIX, Counts, Generator, Plan, shape
from ixroute.tools.session import Session, Wait, new, run_threads
from lab import packets as p

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
SMALL = PortOptions(rx_slots=64, tx_slots=64)
V4 = (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("198.51.100.7"))
V6 = (ipaddress.ip_address("2001:db8::1"), ipaddress.ip_address("2001:db8:1::7"))


def soon(ms: int = 20) -> int:
    return time.monotonic_ns() + ms * 1_000_000


@pytest.fixture
def pair() -> Iterator[tuple[Session, MemPort, MemPort]]:
    with Session(("mem:a", "mem:b"), options=SMALL) as session:
        first, second = session.ports
        assert isinstance(first, MemPort)
        assert isinstance(second, MemPort)
        yield session, first, second


def ones_sum(data: bytes) -> int:
    """The Internet checksum's sum, as slowly as it can be done (RFC 1071)."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = total % 0x10000 + total // 0x10000
    return total


def check_sums(packet: bytes) -> None:
    """A checksum is right when everything it covers sums to ffff; UDP's is never 0, which would mean none."""
    head = 20 if packet[14] == 0x45 else 40
    if head == 20:
        assert ones_sum(packet[14:34]) == 0xFFFF
    udp = packet[14 + head :]
    addresses = packet[14 + head - (8 if head == 20 else 32) : 14 + head]
    assert ones_sum(addresses + struct.pack(">HH", 17, len(udp)) + udp) == 0xFFFF
    assert udp[6:8] != b"\0\0"


def make_fwd(session: Session, burst: int = 32) -> Any:
    fwd = new("struct fwd")
    session.fill_lane(fwd.lane, 0, burst, Wait(0))
    lib.fwd_run(fwd, 0)  # fills the receive rings
    return fwd


def test_fwd_sends_each_packet_out_by_the_other_port_unchanged_and_in_order(
    pair: tuple[Session, MemPort, MemPort],
) -> None:
    session, a, b = pair
    fwd = make_fwd(session)
    packets = [bytes([i]) * (60 + i) for i in range(50)]
    assert all(a.deliver(packet) for packet in packets)
    assert b.deliver(b"back" * 20)
    lib.fwd_run(fwd, soon())
    assert [b.collect() for _ in packets] == packets
    assert b.collect() is None
    assert a.collect() == b"back" * 20
    assert fwd.way[0].rx_packets == fwd.way[0].tx_packets == 50
    assert fwd.way[0].rx_bytes == sum(map(len, packets))
    assert (fwd.way[1].rx_packets, fwd.way[1].dropped) == (1, 0)


def test_fwd_counts_what_a_full_transmit_ring_refuses_and_loses_no_frame(
    pair: tuple[Session, MemPort, MemPort],
) -> None:
    session, a, b = pair
    fwd = make_fwd(session)
    for round_ in range(20):  # nobody collects from b: its ring holds 64
        for i in range(32):
            assert a.deliver(bytes([round_, i]) * 40)
        lib.fwd_run(fwd, soon(1))
    assert fwd.way[0].rx_packets == 640
    assert fwd.way[0].tx_packets == 64
    assert fwd.way[0].dropped == 576
    while b.collect():
        pass
    lib.fwd_run(fwd, soon(1))
    in_rings = 2 * 64  # both receive rings are full of free frames again
    assert fwd.lane.pool.n == fwd.lane.pool.capacity - in_rings


def test_a_sleeping_fwd_wakes_when_a_packet_comes(pair: tuple[Session, MemPort, MemPort]) -> None:
    session, a, b = pair
    fwd = make_fwd(session)
    got: list[bytes] = []

    def call(until_ns: int) -> bool:
        lib.fwd_run(fwd, until_ns)
        return len(got) < 200

    def feed(_until_ns: int) -> bool:
        a.deliver(b"x" * 60)
        end = time.monotonic() + 5
        while (packet := b.collect()) is None and time.monotonic() < end:
            time.sleep(0.0002)
        assert packet == b"x" * 60
        got.append(packet)
        return len(got) < 200

    run_threads([call, feed], 60, lambda: None)
    assert len(got) == 200


@pytest.mark.parametrize(("ends", "sizes"), [(V4, (60, 61, 590, 1514)), (V6, (78, 79, 1514)), (V4, IMIX)])
def test_pktgen_sends_numbered_packets_whose_checksums_are_right(
    pair: tuple[Session, MemPort, MemPort], ends: Any, sizes: tuple[int, ...]
) -> None:
    session, a, _ = pair
    plan = Plan(*ends, sizes=sizes, flows=7, packets=100)
    generator = Generator(plan, session, 16, Wait(0))
    packets: list[bytes] = []
    while len(packets) < 100:
        generator.run_until(soon(1))
        while packet := a.collect():
            packets.append(packet)
    assert generator.counts().tx_packets == 100
    for number, packet in enumerate(packets):
        assert len(packet) == sizes[number % len(sizes)]
        at = 34 if packet[14] == 0x45 else 54
        udp = struct.pack(">HHH", plan.first_port + number % 7, 9, len(packet) - at)
        assert packet[at : at + 6] == udp
        assert packet[at + 8 : at + 24] == struct.pack(">QQ", lib.PKTGEN_MARK, number)
        check_sums(packet)


@given(st.integers(0, 2**64 - 1), st.integers(60, 1514))
def test_pktgens_checksum_is_right_for_every_number(number: int, size: int) -> None:
    with Session(("mem:a",), options=SMALL) as session:
        port = session.ports[0]
        assert isinstance(port, MemPort)
        generator = Generator(Plan(*V4, sizes=(size,), flows=100), session, 1, Wait(0))
        generator.c.tx_packets = number
        generator.run_until(0)
        packet = port.collect()
    assert packet is not None
    check_sums(packet)


def test_pktgen_counts_lost_late_and_foreign_packets(pair: tuple[Session, MemPort, MemPort]) -> None:
    session, a, b = pair
    generator = Generator(Plan(*V4, packets=10), session, 16, Wait(0))
    generator.run_until(soon(1))
    packets = [a.collect() for _ in range(10)]
    order = [0, 1, 3, 2, 4, 5, 6, 7, 8]
    for i in order:
        packet = packets[i]
        assert packet is not None
        assert b.deliver(packet)
    assert b.deliver(b"\0" * 60)
    generator.run_until(soon())
    counts = generator.counts()
    assert (counts.rx_packets, counts.lost, counts.rx_late, counts.rx_foreign) == (9, 1, 1, 1)


def test_an_error_names_the_port_as_it_was_written() -> None:
    with pytest.raises(PortError, match=r"^port vfio-user:/proc/none: .* no card is emulated there"):
        Session(("mem:a", "vfio-user:/proc/none"), options=SMALL)


def test_pktgen_keeps_to_its_rate(pair: tuple[Session, MemPort, MemPort]) -> None:
    session, a, _ = pair
    generator = Generator(Plan(*V4, rate_pps=1000), session, 16, Wait(0))
    started = time.monotonic()
    generator.run_until(soon(300))
    elapsed = time.monotonic() - started
    sent = generator.counts().tx_packets
    assert 0 < sent <= elapsed * 1000 + 1  # never above the rate; a busy machine sends less
    collected = 0
    while a.collect():
        collected += 1
    assert collected == sent


def test_pktgen_keeps_to_its_rate_for_more_packets_than_nanoseconds_fit_64_bits(
    pair: tuple[Session, MemPort, MemPort],
) -> None:
    session, _, _ = pair
    generator = Generator(Plan(*V4, rate_pps=10_000_000), session, 16, Wait(0))
    before = 19_000_000_000  # half an hour's
    generator.c.tx_packets = before
    generator.c.started_ns = (time.monotonic_ns() - before * 100) % (1 << 64)
    generator.run_until(soon(50))
    assert generator.counts().tx_packets > before


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": ()},
        {"sizes": (59,)},
        {"sizes": (9725,)},
        {"flows": 0},
        {"flows": 70000},
        {"sizes": (60,) * 17},
    ],
)
def test_a_plan_that_cannot_be_sent_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|possible"):
        Plan(*V4, **wrong)


def test_a_plan_of_two_families_is_refused() -> None:
    with pytest.raises(ValueError, match="different families"):
        Plan(V4[0], V6[0])


def test_counts_of_nothing() -> None:
    assert Counts().lost == 0


@pytest.fixture
def dump() -> Iterator[tuple[Dump, MemPort]]:
    with Dump("mem:a", snap_bytes=100) as dump:
        port = dump._session.ports[0]
        assert isinstance(port, MemPort)
        dump.take(dump.show(lambda *_: None), 1, 0)  # fills the receive ring
        yield dump, port


def test_dump_writes_a_pcap_file_that_others_read(dump: tuple[Dump, MemPort]) -> None:
    taken, port = dump
    packets = [bytes([i]) * (60 + i) for i in range(80)]
    assert all(port.deliver(packet) for packet in packets)
    file = io.BytesIO()
    use = taken.write(file)
    while taken.seen.packets < 80:
        taken.take(use, 1000, 100)
    file.seek(0)
    magic, major, minor, _zone, _figures, snap, link = struct.unpack("=IHHiIII", file.read(24))
    assert (magic, major, minor, snap, link) == (0xA1B23C4D, 2, 4, 100, 1)
    for packet in packets:
        _seconds, nanoseconds, kept, length = struct.unpack("=IIII", file.read(16))
        assert (kept, length) == (min(100, len(packet)), len(packet))
        assert nanoseconds < 1_000_000_000
        assert file.read(kept) == packet[:100]
    assert file.read() == b""


def test_dump_takes_no_more_than_it_is_told(dump: tuple[Dump, MemPort]) -> None:
    taken, port = dump
    for _ in range(10):
        assert port.deliver(b"x" * 60)
    lengths: list[int] = []
    taken.take(taken.show(lambda _packet, length, _time: lengths.append(length)), 3, 100)
    assert lengths == [60, 60, 60]


@given(st.binary(max_size=200))
def test_describe_takes_any_bytes(packet: bytes) -> None:
    assert describe(packet)


@given(st.integers(0, 1514))
def test_describe_takes_a_packet_cut_anywhere(cut: int) -> None:
    packet, _ = shape(Plan(*V6, sizes=(1514,)), b"\2" * 6, 1514)
    assert describe(packet[:cut])


A4, B4, A6, B6 = "192.0.2.1", "198.51.100.9", "2001:db8::1", "2001:db8::2"


@pytest.mark.parametrize(
    ("kind", "payload", "line"),
    [
        (p.ETH_IP4, p.ip4(A4, B4, p.udp(A4, B4, b"abc", 5, 9)), f"IPv4 {A4}.5 > {B4}.9: UDP, 3 bytes"),
        (p.ETH_IP4, p.ip4(A4, B4, p.tcp_syn(A4, B4, 179, 5), proto=p.TCP), f"{A4}.5 > {B4}.179: TCP [S] "),
        (p.ETH_IP4, p.ip4(A4, B4, p.icmp4(8, 0, bytes(8)), proto=p.ICMP), "ICMP echo request, 12 bytes"),
        (p.ETH_IP4, p.ip4(A4, B4, bytes(64), fragment=0x2001), f"{A4} > {B4}: fragment at 8, 64 bytes"),
        (p.ETH_IP6, p.ip6(A6, B6, p.udp(A6, B6, b"abc", 5, 9)), f"IPv6 {A6}.5 > {B6}.9: UDP, 3 bytes"),
        (
            p.ETH_IP6,
            p.ip6(A6, B6, p.icmp6(A6, B6, 135, 0, bytes(20)), proto=p.ICMP6),
            "neighbor solicitation",
        ),
        (p.ETH_ARP, p.arp(1, MACS[0], A4, MACS[1], B4), f"ARP who has {B4}, tell {A4}"),
        (p.ETH_ARP, p.arp(2, MACS[0], A4, MACS[1], B4), f"ARP {A4} is at {MACS[0]}"),
        (0x88CC, bytes(46), "LLDP, 46 bytes"),
        (0x1234, bytes(46), "ethertype 0x1234, 46 bytes"),
    ],
)
def test_describe_says_what_a_packet_is(kind: int, payload: bytes, line: str) -> None:
    assert line in describe(p.ethernet(MACS[1], MACS[0], kind, payload))


def test_describe_names_the_vlan() -> None:
    packet = p.ethernet(MACS[1], MACS[0], p.ETH_IP4, p.ip4(A4, B4, b"", proto=89), vlan=(0x8100, 0x2007))
    assert describe(packet) == f"{MACS[0]} > {MACS[1]} vlan 7 IPv4 {A4} > {B4}: OSPF, 0 bytes"
