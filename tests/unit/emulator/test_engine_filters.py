"""Which packets a card takes, and into which queue they go."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

import pytest
from engine_rig import (
    BAM,
    BROADCAST,
    FCTRL,
    MAC,
    MPE,
    MRQC,
    RETA,
    RSSRK,
    RXCSUM,
    UPE,
    VLNCTRL,
    Rig,
    ethernet,
    ip4,
    tcp4,
    tcp6,
    udp4,
    udp6,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

MCSTCTRL, MTA, VFTA, PFUTA = 0x5090, 0x5200, 0xA000, 0xF400
SAQF, DAQF, SDPQF, FTQF, L34 = 0xE000, 0xE200, 0xE400, 0xE600, 0xE800
TCP4, IP4, IP6, TCP6, UDP4, UDP6 = 1 << 16, 1 << 17, 1 << 20, 1 << 21, 1 << 22, 1 << 23
# "Verifying the RSS hash calculation", Windows driver documentation: the key and its vectors.
KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
VECTORS = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2CC18CD5, 0x40207D3D),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0F0C461C, 0xDDE51BBF),
    ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4B61E985, 0x02D1FEEF),
]


def slow_toeplitz(key: bytes, data: bytes) -> int:
    """Bit by bit: for every set bit of the input the 32 bits of the key that begin there."""
    stream = int.from_bytes(key, "big")
    result = 0
    for i in range(8 * len(data)):
        if data[i // 8] >> (7 - i % 8) & 1:
            result ^= stream >> (8 * len(key) - 32 - i) & 0xFFFFFFFF
    return result


def set_rss(rig: Rig, key: bytes, kinds: int, table: bytes = bytes(128)) -> None:
    for i in range(10):
        rig.set(RSSRK + 4 * i, int.from_bytes(key[4 * i : 4 * i + 4], "little"))
    for i in range(32):
        rig.set(RETA + 4 * i, int.from_bytes(table[4 * i : 4 * i + 4], "little"))
    rig.set(MRQC, 1 | kinds)
    rig.filters()


def accepted(rig: Rig, frame: bytes) -> bool:
    """Whether it reaches a queue; none is enabled, so that each that does is a drop."""
    rig.arrive(frame)
    rig.settle()
    return rig.read(0x1430) == 1


def test_unicast_is_taken_by_exact_address_or_all_of_it(rig: Rig) -> None:
    rig.set(FCTRL, 0)
    other = bytes.fromhex("020000000001")
    rig.mac(0, MAC)
    rig.mac(127, other)
    assert accepted(rig, ethernet(b"", dst=MAC))
    assert accepted(rig, ethernet(b"", dst=other))
    stranger = ethernet(b"", dst=bytes.fromhex("020000000002"))
    assert not accepted(rig, stranger)
    rig.mac(127, None)
    assert not accepted(rig, ethernet(b"", dst=other))
    rig.set(FCTRL, UPE)
    assert accepted(rig, stranger)


def test_an_address_counts_only_while_its_valid_bit_is_set(rig: Rig) -> None:
    rig.set(FCTRL, 0)
    rig.mac(5, MAC)
    assert accepted(rig, ethernet(b"", dst=MAC))
    rig.set(0xA204 + 8 * 5, int.from_bytes(MAC[4:], "little"))  # RAH[5] without AV
    rig.card.filters_changed()
    assert not accepted(rig, ethernet(b"", dst=MAC))


def test_broadcast_needs_its_bit(rig: Rig) -> None:
    rig.set(FCTRL, UPE | MPE)
    assert not accepted(rig, ethernet(b"", dst=BROADCAST))
    rig.set(FCTRL, BAM)
    assert accepted(rig, ethernet(b"", dst=BROADCAST))


@pytest.mark.parametrize("offset", range(4))
def test_multicast_is_hashed_by_the_bits_that_are_selected(rig: Rig, offset: int) -> None:
    rig.set(FCTRL, 0)
    address = bytes.fromhex("01005e7f5a37")
    bits = int.from_bytes(address, "little")
    # Bits 47:36, 46:35, 45:34 or 43:32 of the address, whose first byte is the lowest.
    hashed = bits >> [36, 35, 34, 32][offset] & 0xFFF
    rig.set(MTA + 4 * (hashed >> 5), 1 << (hashed & 31))
    rig.set(MCSTCTRL, offset)
    assert not accepted(rig, ethernet(b"", dst=address))
    rig.set(MCSTCTRL, offset | 4)
    assert accepted(rig, ethernet(b"", dst=address))
    assert not accepted(rig, ethernet(b"", dst=bytes.fromhex("01005e000001")))
    rig.set(FCTRL, MPE)
    assert accepted(rig, ethernet(b"", dst=bytes.fromhex("01005e000001")))


def test_a_multicast_address_may_be_an_exact_one(rig: Rig) -> None:
    rig.set(FCTRL, 0)
    rig.mac(3, bytes.fromhex("0180c2000000"))
    assert accepted(rig, ethernet(b"", dst=bytes.fromhex("0180c2000000")))


def test_unicast_has_a_hash_table_too(rig: Rig) -> None:
    rig.set(FCTRL, 0)
    assert not accepted(rig, ethernet(b""))
    hashed = int.from_bytes(MAC, "little") >> 36
    rig.set(PFUTA + 4 * (hashed >> 5), 1 << (hashed & 31))
    assert accepted(rig, ethernet(b""))


def test_tags_are_filtered_when_the_filter_is_on(rig: Rig) -> None:
    assert accepted(rig, ethernet(b"", tag=100))
    rig.set(VLNCTRL, 0x8100 | 1 << 30)
    assert not accepted(rig, ethernet(b"", tag=100))
    rig.set(VFTA + 4 * 3, 1 << 4)
    assert accepted(rig, ethernet(b"", tag=0xE000 | 100))
    assert not accepted(rig, ethernet(b"", tag=101))
    assert accepted(rig, ethernet(b""))


def test_the_canonical_form_bit_can_be_filtered(rig: Rig) -> None:
    rig.set(VLNCTRL, 0x8100 | 1 << 29)
    assert accepted(rig, ethernet(b"", tag=5))
    assert not accepted(rig, ethernet(b"", tag=0x1005))
    rig.set(VLNCTRL, 0x8100 | 1 << 29 | 1 << 28)
    assert accepted(rig, ethernet(b"", tag=0x1005))


@pytest.mark.parametrize(("src", "sport", "dst", "dport", "address_hash", "tcp_hash"), VECTORS)
def test_the_published_rss_vectors(
    rig: Rig, src: str, sport: int, dst: str, dport: int, address_hash: int, tcp_hash: int
) -> None:
    queue = rig.rx()
    six = ":" in src
    packet = (tcp6 if six else tcp4)(b"x", sport, dport, src=src, dst=dst)
    frame = ethernet(packet, kind=0x86DD if six else 0x800)
    for kinds, kind, wanted in [
        (IP4 | IP6, 5 if six else 2, address_hash),
        (TCP4 | TCP6, 3 if six else 1, tcp_hash),
    ]:
        set_rss(rig, KEY, kinds)
        (received,) = rig.receive(queue, frame)
        assert (received.rss_type, received.hash) == (kind, wanted)


@pytest.fixture(scope="module")
def sixteen() -> Iterator[tuple[Rig, list]]:  # type: ignore[type-arg]
    rig = Rig()
    yield rig, [rig.rx(number, n=16) for number in range(16)]
    rig.close()


@given(
    key=st.binary(min_size=40, max_size=40),
    table=st.binary(min_size=128, max_size=128),
    six=st.booleans(),
    udp=st.booleans(),
    src=st.integers(1, 2**32 - 1),
    dst=st.integers(1, 2**32 - 1),
    sport=st.integers(0, 65535),
    dport=st.integers(0, 65535),
)
@settings(max_examples=100, deadline=None)
def test_any_key_and_table_agree_with_the_bit_by_bit_hash(
    sixteen: tuple[Rig, list],  # type: ignore[type-arg]
    key: bytes, table: bytes, six: bool, udp: bool, src: int, dst: int, sport: int, dport: int,
) -> None:  # fmt: skip
    rig, queues = sixteen
    set_rss(rig, key, TCP4 | IP4 | IP6 | TCP6 | UDP4 | UDP6, table)
    kind = ipaddress.IPv6Address if six else ipaddress.IPv4Address
    scale = 2**96 + 1 if six else 1
    source, destination = kind(src * scale), kind(dst * scale)
    make = (udp6 if udp else tcp6) if six else (udp4 if udp else tcp4)
    packet = make(b"data", sport, dport, src=str(source), dst=str(destination))
    wanted = slow_toeplitz(key, source.packed + destination.packed + struct.pack("!HH", sport, dport))
    number = table[wanted & 127] & 15
    (received,) = rig.receive(queues[number], ethernet(packet, kind=0x86DD if six else 0x800))
    assert received.hash == wanted
    assert received.rss_type == {(0, 0): 1, (0, 1): 7, (1, 0): 3, (1, 1): 8}[six, udp]
    queues[number].post()


def test_fragments_and_other_protocols_are_hashed_by_addresses(rig: Rig) -> None:
    queue = rig.rx()
    set_rss(rig, KEY, TCP4 | IP4 | UDP4)
    addresses = slow_toeplitz(
        KEY, ipaddress.IPv4Address("10.0.0.1").packed + ipaddress.IPv4Address("10.0.0.2").packed
    )
    for packet in (ip4(udp4()[20:], frag=0x2000), ip4(bytes(20), 1)):
        (received,) = rig.receive(queue, ethernet(packet))
        assert (received.rss_type, received.hash) == (2, addresses)


def test_what_is_not_hashed_goes_to_queue_0(rig: Rig) -> None:
    queue = rig.rx()
    set_rss(rig, KEY, TCP4, bytes([5] * 128))
    for frame in (ethernet(b"", kind=0x0806), ethernet(udp4())):
        (received,) = rig.receive(queue, frame)
        assert (received.rss_type, received.hash) == (0, 0)


def test_without_pcsd_queues_are_chosen_and_the_hash_is_not_shown(rig: Rig) -> None:
    queue = rig.rx(5)
    set_rss(rig, KEY, UDP4, bytes([5] * 128))
    rig.set(RXCSUM, 0)
    (received,) = rig.receive(queue, ethernet(udp4()))
    assert (received.rss_type, received.hash) == (0, 7)


def raw(address: str) -> int:
    return int.from_bytes(ipaddress.IPv4Address(address).packed, "little")


def test_a_five_tuple_filter_names_a_queue(rig: Rig) -> None:
    normal, special = rig.rx(0), rig.rx(9)
    rig.set(SAQF + 4 * 100, raw("10.0.0.1"))
    rig.set(SDPQF + 4 * 100, int.from_bytes(struct.pack("!HH", 0, 179), "little"))
    rig.set(L34 + 4 * 100, 9 << 21)
    rig.set(FTQF + 4 * 100, 1 << 31 | 1 << 30 | 0b00110 << 25)  # TCP; not compared: destination, source port
    rig.filters()
    assert len(rig.receive(special, ethernet(tcp4(dport=179)))) == 1
    for packet in (tcp4(dport=180), udp4(dport=179), tcp4(dport=179, src="10.0.0.3", dst="10.0.0.2")):
        assert len(rig.receive(normal, ethernet(packet))) == 1


def test_the_filter_with_the_highest_priority_wins(rig: Rig) -> None:
    queues = [rig.rx(number) for number in range(4)]
    for number, priority in ((1, 2), (2, 7), (3, 5)):
        rig.set(L34 + 4 * number, number << 21)
        rig.set(FTQF + 4 * number, 1 << 31 | 1 << 30 | 0b01111 << 25 | priority << 2 | 1)
    rig.filters()
    assert len(rig.receive(queues[2], ethernet(udp4()))) == 1
