"""The TAP's and the packet socket's wires on a pair of UNIX sockets, which also give one packet per call: what the
kernel's devices would say, and what they never should."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import lib
from ixroute.demo.probes import internet_checksum
from lab.engine_side import BURST, LONGEST, receive, receive_all, send
from lab.packets import ETH_IP4, ETH_IP6, TCP, UDP, ethernet, ip4, ip6, pseudo_header

# struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CSUM = 1
GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_ECN = 0, 1, 4, 5, 0x80
DST, SRC = "02:00:00:00:00:02", "02:00:00:00:00:01"
FIN, PSH, ACK, CWR = 1, 8, 16, 128


def hdr(flags: int = 0, kind: int = 0, size: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return struct.pack("=BBHHHH", flags, kind, 0, size, start, offset)


class Rig:
    """A wire on one end of a socket pair; `far` is the other."""

    def __init__(self, create: Callable[[int], Any], destroy: Callable[[Any], None]) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.near, self.far):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.wire = create(self.near.fileno())
        self._destroy = destroy

    def close(self) -> None:
        self._destroy(self.wire)
        self.near.close()
        self.far.close()


@pytest.fixture
def tap() -> Iterator[Rig]:
    rig = Rig(lib.wire_tap_create, lib.wire_tap_destroy)
    yield rig
    rig.close()


@pytest.fixture
def packet() -> Iterator[Rig]:
    rig = Rig(lib.wire_packet_create, lib.wire_packet_destroy)
    yield rig
    rig.close()


def test_a_tap_gives_frames_padded_and_takes_them(tap: Rig) -> None:
    for size in (14, 59, 60, 1514, LONGEST):
        tap.far.send(b"\x07" * size)
    got = receive(tap.wire)
    assert got == [(b"\x07" * size).ljust(60, b"\0") for size in (14, 59, 60, 1514, LONGEST)]
    assert receive(tap.wire) == []
    assert send(tap.wire, [b"a" * 60, b"b" * 1514]) == 2
    assert [tap.far.recv(65536) for _ in range(2)] == [b"a" * 60, b"b" * 1514]
    assert (tap.wire.rx_packets, tap.wire.tx_packets, tap.wire.tx_bytes) == (5, 2, 1574)
    assert tap.wire.wait_fd == tap.near.fileno()


def test_a_tap_drops_what_is_too_long_for_any_card(tap: Rig) -> None:
    tap.far.send(bytes(LONGEST + 1))
    tap.far.send(bytes(40_000))
    tap.far.send(b"\x01" * 60)
    assert receive(tap.wire) == [b"\x01" * 60]
    assert tap.wire.rx_dropped == 2


@pytest.mark.parametrize("kind", ["tap", "packet"])
def test_a_device_that_is_full_takes_what_fits_and_the_rest_later(
    kind: str, request: pytest.FixtureRequest
) -> None:
    rig = request.getfixturevalue(kind)
    frames = [bytes([i]) * 60 for i in range(BURST)]
    taken = sent = 0
    while (taken := send(rig.wire, frames)) == BURST:
        sent += BURST
        assert sent < 1_000_000
    sent += taken
    assert rig.wire.tx_dropped == 0
    assert rig.wire.tx_packets == sent
    rig.far.recv(2048)
    assert send(rig.wire, frames) >= 1


@pytest.mark.parametrize("kind", ["tap", "packet"])
def test_a_device_that_is_gone_is_counted_and_stops_nobody(kind: str, request: pytest.FixtureRequest) -> None:
    rig = request.getfixturevalue(kind)
    rig.far.close()
    assert send(rig.wire, [bytes(60)] * BURST) == BURST
    assert rig.wire.tx_dropped == BURST
    assert receive(rig.wire) == []


def test_finished_packets_pass_a_packet_socket_as_they_are(packet: Rig) -> None:
    frames = [os.urandom(random.randrange(60, 1515)) for _ in range(100)]
    for frame in frames:
        packet.far.send(hdr() + frame)
    assert receive_all(packet.wire) == frames
    assert send(packet.wire, frames[:BURST]) == BURST
    assert [packet.far.recv(65536) for _ in range(BURST)] == [hdr() + frame for frame in frames[:BURST]]
    assert packet.wire.syscalls < 10, "bursts, not packets, are system calls"


def udp_packet(family: int, data: bytes) -> tuple[bytes, int]:
    """(frame with a right checksum, where UDP starts)."""
    src, dst = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::1", "2001:db8::2")
    datagram = struct.pack("!HHHH", 5000, 5001, 8 + len(data), 0) + data
    total = internet_checksum(pseudo_header(src, dst, len(datagram), UDP) + datagram) or 0xFFFF
    datagram = datagram[:6] + struct.pack("!H", total) + datagram[8:]
    if family == 4:
        return ethernet(DST, SRC, ETH_IP4, ip4(src, dst, datagram)), 34
    return ethernet(DST, SRC, ETH_IP6, ip6(src, dst, datagram)), 54


def unfinished(frame: bytes, l4: int, field: int) -> bytes:
    """As the kernel leaves it to hardware: the checksum field holds the pseudo header's sum."""
    src_dst = frame[26:34] if l4 == 34 else frame[22:54]
    proto = frame[23] if l4 == 34 else frame[20]
    end = 14 + (
        struct.unpack_from("!H", frame, 16)[0] if l4 == 34 else 40 + struct.unpack_from("!H", frame, 18)[0]
    )
    pseudo = src_dst + struct.pack("!I", end - l4) + bytes((0, 0, 0, proto))
    partial = internet_checksum(pseudo) ^ 0xFFFF
    return frame[: l4 + field] + struct.pack("!H", partial) + frame[l4 + field + 2 : end]


@pytest.mark.parametrize("family", [4, 6])
@given(data=st.binary(min_size=18, max_size=200))
@settings(deadline=None, max_examples=50)
def test_an_unfinished_checksum_is_finished(family: int, data: bytes) -> None:
    with contextlib.closing(Rig(lib.wire_packet_create, lib.wire_packet_destroy)) as rig:
        frame, l4 = udp_packet(family, data)
        rig.far.send(hdr(NEEDS_CSUM, start=l4, offset=6) + unfinished(frame, l4, 6))
        assert receive(rig.wire) == [frame]


# ---- Segments ----


def checked(src: str, dst: str, segment: bytes, proto: int, field: int) -> bytes:
    blank = segment[:field] + b"\0\0" + segment[field + 2 :]
    total = internet_checksum(pseudo_header(src, dst, len(blank), proto) + blank) or 0xFFFF
    return blank[:field] + struct.pack("!H", total) + blank[field + 2 :]


def tcp_segment(src: str, dst: str, seq: int, flags: int, data: bytes, options: bytes) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack("!HHIIBBHHH", 5000, 80, seq & 0xFFFFFFFF, 7, offset, flags, 512, 0, 0)
    return checked(src, dst, head + options + data, TCP, 16)


def built(family: int, src: str, dst: str, proto: int, payload: bytes, ident: int) -> bytes:
    if family == 4:
        packet = bytearray(ip4(src, dst, payload, proto=proto))
        packet[4:6] = struct.pack("!H", ident & 0xFFFF)
        packet[10:12] = b"\0\0"
        packet[10:12] = struct.pack("!H", internet_checksum(bytes(packet[:20])))
        return bytes.fromhex("0200000000020200000000010800") + bytes(packet)
    return bytes.fromhex("02000000000202000000000186dd") + ip6(src, dst, payload, proto=proto)


@st.composite
def trains(draw: st.DrawFn) -> tuple[bytes, bytes, list[bytes]]:
    """(virtio header, packet of segments, the frames it stands for: built one by one)."""
    family = draw(st.sampled_from([4, 6]))
    src, dst = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::1", "2001:db8::2")
    size = draw(st.integers(100, 1400))
    data = random.Random(draw(st.integers(0, 99))).randbytes(draw(st.integers(size + 1, 60_000)))
    l4 = 34 if family == 4 else 54
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    ident = draw(st.sampled_from([0, 1, 0xFFFE])) if family == 4 else 0
    if draw(st.booleans()):
        datagram = checked(src, dst, struct.pack("!HHHH", 1, 2, 8 + len(data), 0) + data, UDP, 6)
        whole = built(family, src, dst, UDP, datagram, ident)
        frames = [
            built(family, src, dst, UDP,
                  checked(src, dst, struct.pack("!HHHH", 1, 2, 8 + len(piece), 0) + piece, UDP, 6), ident + i)
            for i, piece in enumerate(pieces)
        ]  # fmt: skip
        return hdr(NEEDS_CSUM, GSO_UDP, size, l4, 6), whole, frames
    seq = draw(st.sampled_from([0, 1000, 0xFFFFFF00]))
    flags = ACK | draw(st.sampled_from([0, PSH, FIN, FIN | PSH])) | draw(st.sampled_from([0, CWR]))
    options = draw(st.sampled_from([b"", b"\x01\x01\x08\x0a" + bytes(8)]))
    whole = built(family, src, dst, TCP, tcp_segment(src, dst, seq, flags, data, options), ident)
    frames = []
    for i, piece in enumerate(pieces):
        own = flags & ~(CWR if i else 0) & ~(0 if i == len(pieces) - 1 else FIN | PSH)
        segment = tcp_segment(src, dst, seq + i * size, own, piece, options)
        frames.append(built(family, src, dst, TCP, segment, ident + i))
    kind = (GSO_TCP4 if family == 4 else GSO_TCP6) | (GSO_ECN if flags & CWR else 0)
    return hdr(NEEDS_CSUM, kind, size, l4, 16), whole, frames


def finished(frame: bytes) -> bytes:
    """0 and 0xffff are the same checksum; the padding is the wire's."""
    l4 = 34 if frame[12:14] == b"\x08\x00" else 54
    field = l4 + (6 if frame[23 if l4 == 34 else 20] == UDP else 16)
    if frame[field : field + 2] == b"\0\0":
        frame = frame[:field] + b"\xff\xff" + frame[field + 2 :]
    return frame.ljust(60, b"\0")


@settings(deadline=None, max_examples=150)
@given(st.lists(trains(), min_size=1, max_size=3), st.integers(1, BURST))
def test_a_packet_of_segments_becomes_the_frames_it_stands_for(
    packets: list[tuple[bytes, bytes, list[bytes]]], burst: int
) -> None:
    with contextlib.closing(Rig(lib.wire_packet_create, lib.wire_packet_destroy)) as rig:
        for header, whole, _ in packets:
            rig.far.send(header + whole)
        got: list[bytes] = []
        while frames := receive(rig.wire, burst):
            got += frames
        assert [finished(f) for f in got] == [finished(f) for _, _, frames in packets for f in frames]
        assert lib.wire_packet_segmented(rig.wire) == len(packets)
        assert rig.wire.rx_dropped == 0


def test_a_burst_that_ends_within_a_packet_of_segments_goes_on_with_it(packet: Rig) -> None:
    data = bytes(1000)
    whole = built(4, "192.0.2.1", "192.0.2.2", UDP, struct.pack("!HHHH", 1, 2, 1008, 0) + data, 1)
    packet.far.send(hdr(NEEDS_CSUM, GSO_UDP, 100, 34, 6) + whole)
    assert len(receive(packet.wire, 3)) == 3
    assert lib.wire_arm(packet.wire), "the socket is empty, and yet there is more"
    lib.wire_disarm(packet.wire)
    assert len(receive(packet.wire, BURST)) == 7
    assert not lib.wire_arm(packet.wire)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (hdr(NEEDS_CSUM, start=70, offset=6), "the checksum lies behind the packet"),
        (hdr(NEEDS_CSUM, start=60, offset=65535), "so does this one"),
        (hdr(NEEDS_CSUM, 3, 100, 34, 6), "UDP fragmentation offload: nobody knows how"),
        (hdr(0, GSO_UDP, 100, 34, 6), "segments without a checksum to finish"),
        (hdr(NEEDS_CSUM, GSO_UDP, 0, 34, 6), "no size"),
        (hdr(NEEDS_CSUM, GSO_TCP4, 20, 30, 16), "TCP within the IP header"),
        (hdr(NEEDS_CSUM, GSO_TCP4, 20, 34, 16), "a TCP header length of 0"),
        (hdr(NEEDS_CSUM, GSO_UDP, 20, 60, 6), "no payload"),
    ],
)
def test_a_packet_that_contradicts_itself_is_dropped_and_counted(
    packet: Rig, header: bytes, why: str
) -> None:
    frame = bytes.fromhex("0200000000020200000000010800" + "45").ljust(64, b"\0")
    packet.far.send(header + frame)
    packet.far.send(hdr() + bytes(64))
    assert receive_all(packet.wire) == [bytes(64)], why
    assert packet.wire.rx_dropped == 1


@pytest.mark.parametrize(
    "content", [b"", b"x", hdr(), hdr() + bytes(13), hdr() + bytes(70_000), hdr() + bytes(16_000)]
)
def test_what_is_no_frame_is_dropped_and_counted(packet: Rig, content: bytes) -> None:
    packet.far.send(content)
    assert receive(packet.wire) == []
    assert packet.wire.rx_dropped == 1


@settings(deadline=None, max_examples=300)
@given(
    st.builds(
        hdr,
        st.sampled_from([0, NEEDS_CSUM]),
        st.sampled_from([0, GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_TCP4 | GSO_ECN, 2, 77]),
        st.one_of(st.integers(0, 300), st.integers(0, 65535)),
        st.one_of(st.integers(10, 80), st.integers(0, 65535)),
        st.one_of(st.integers(0, 20), st.integers(0, 65535)),
    ),
    st.sampled_from(["0800", "86dd", "8100000a0800", "8100000a86dd", "88a8000181000002", "0806"]),
    st.binary(min_size=0, max_size=400),
)
def test_no_header_and_no_packet_leads_out_of_bounds(header: bytes, kind: str, rest: bytes) -> None:
    with contextlib.closing(Rig(lib.wire_packet_create, lib.wire_packet_destroy)) as rig:
        rig.far.send(header + bytes.fromhex("020000000002020000000001" + kind) + rest)
        got = receive_all(rig.wire)
        assert all(60 <= len(frame) <= LONGEST for frame in got)
        assert bool(got) != bool(rig.wire.rx_dropped)
