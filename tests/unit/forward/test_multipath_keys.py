"""What is hashed of a packet: the same as the twin says, for any packet; and said outright for those that matter."""

from __future__ import annotations

import struct

import pytest
from forward_packets import ip4, ip6, tcp, udp
from hypothesis import given, settings
from hypothesis import strategies as st
from multipath_twin import Key, keys, keys_in_c

SETTINGS = settings(deadline=None, max_examples=600)

A4, B4, C4, D4 = "10.0.0.1", "10.0.0.2", "172.16.0.1", "172.16.0.2"
A6, B6, C6, D6 = "2001:db8::1", "2001:db8::2", "2001:db8:c::1", "2001:db8:d::2"
HOSTS4 = st.sampled_from([A4, B4, C4, D4])
HOSTS6 = st.sampled_from([A6, B6, C6, D6])


def gre(kind: int, payload: bytes, flags: int = 0) -> bytes:
    fields = bytes(4 * sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000)))
    if flags & 7 == 1:
        fields += bytes(4) if flags & 0x80 else b""
        fields += bytes((0xFF, 3)) + struct.pack(">H", {0x0800: 0x21, 0x86DD: 0x57}.get(kind, 0xC021))
        kind = 0x880B
    return struct.pack(">HH", flags, kind) + fields + payload


def bridged(kind: int, payload: bytes) -> bytes:
    return bytes(12) + struct.pack(">H", kind) + payload


def fragment6(nxt: int, payload: bytes, offset: int = 0, more: int = 1) -> bytes:
    return struct.pack(">BBHI", nxt, 0, offset << 3 | more, 7) + payload


def options6(nxt: int, payload: bytes) -> bytes:
    return bytes((nxt, 0)) + bytes(6) + payload


def ah(nxt: int, payload: bytes) -> bytes:
    return bytes((nxt, 4, 0, 0)) + b"SPI!" + bytes(16) + payload


def icmp(kind: int, payload: bytes) -> bytes:
    return bytes((kind, 0, 0, 0)) + b"\x12\x34\x56\x78" + payload


# ---- Any packet ----

leaves = st.one_of(
    st.builds(lambda s, d: (17, udp(d, s)), st.integers(0, 65535), st.integers(0, 65535)),
    st.builds(lambda s: (6, tcp(80, s)), st.integers(0, 65535)),
    st.builds(lambda p, body: (p, body), st.sampled_from([1, 33, 50, 58, 132, 136, 137, 89]), st.binary(max_size=40)),
    st.builds(lambda p, body: (p, body), st.integers(0, 255), st.binary(max_size=40)),
)  # fmt: skip


@st.composite
def wrapped4(draw: st.DrawFn, inside: tuple[int, bytes]) -> bytes:
    fragment = draw(st.sampled_from([0, 0, 0, 0x2000, 0x4000, 0x00B9, 0x20B9]))
    options = draw(st.sampled_from([b"", b"", b"\1\1\1\0"]))
    return ip4(draw(HOSTS4), draw(HOSTS4), inside[1], proto=inside[0], fragment=fragment, options=options)


@st.composite
def wrapped6(draw: st.DrawFn, inside: tuple[int, bytes]) -> bytes:
    flow = draw(st.sampled_from([0, 1, 0xFFFFF]))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 16]))):
        inside = (draw(st.sampled_from([0, 43, 60])), options6(*inside))
        if draw(st.integers(0, 7)) == 0:
            inside = (44, fragment6(*inside, draw(st.integers(0, 3)), draw(st.integers(0, 1))))
    return ip6(draw(HOSTS6), draw(HOSTS6), inside[1], nxt=inside[0], flow=flow)


@st.composite
def carried(draw: st.DrawFn, depth: int) -> tuple[int, bytes]:
    """A protocol number and its payload, with up to `depth` tunnels in it."""
    if depth == 0 or draw(st.booleans()):
        return draw(leaves)
    four = draw(st.booleans())
    inside = draw(carried(depth - 1))
    inner = draw(wrapped4(inside) if four else wrapped6(inside))
    kind = 0x0800 if four else 0x86DD
    how = draw(st.sampled_from(["ip", "gre", "bridged", "tagged", "icmp"]))
    if how == "ip":
        return (4 if four else 41), inner
    if how == "icmp":
        return draw(st.sampled_from([1, 58])), icmp(draw(st.integers(0, 14)), inner)
    if how == "tagged":
        for _ in range(draw(st.sampled_from([1, 2, 17]))):
            inner, kind = struct.pack(">HH", 5, kind) + inner, draw(st.sampled_from([0x8100, 0x88A8]))
    if how != "gre":
        inner, kind = bridged(kind, inner), 0x6558
    flags = draw(st.sampled_from([0, 0, 0x2000, 0x8000, 0xB000, 0x4000, 0x2001, 0x3081, 1, 2]))
    return 47, gre(kind, inner, flags)


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    inside = draw(carried(4))
    packet = bytearray(draw(wrapped4(inside) if draw(st.booleans()) else wrapped6(inside)))
    first = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        packet[draw(st.integers(1, min(len(packet), 120) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 3)) == 0:
        packet = packet[: draw(st.integers(first, len(packet)))]
    return bytes(packet)


@SETTINGS
@given(packet=packets(), behind=st.binary(max_size=60), fields=st.integers(1, 0xFFF))
def test_any_packet_has_the_keys_that_the_twin_says(packet: bytes, behind: bytes, fields: int) -> None:
    for policy in range(4):
        assert keys_in_c(policy, fields, packet, behind) == keys(policy, fields, packet), policy


# ---- Packets that matter ----


def packed4(host: str) -> bytes:
    return bytes(int(part) for part in host.split("."))


def packed6(host: str) -> bytes:
    import ipaddress

    return ipaddress.ip_address(host).packed


PORTS = b"\x0f\xa0\0\x50"  # 4000 to 80
INNER4 = ip4(C4, D4, udp(80), proto=17)
INNER6 = ip6(C6, D6, udp(80), flow=0xABCDE)
OUTER = Key(packed4(A4), packed4(B4), version=4)
INNER = Key(packed4(C4), packed4(D4), version=4)
OUTER6 = Key(packed6(A6), packed6(B6), version=6)
IN_6 = Key(packed6(C6), packed6(D6), label=0xABCDE, protocol=17, version=6)


@pytest.mark.parametrize(
    ("policy", "packet", "expected"),
    [
        pytest.param(0, ip4(A4, B4, udp(80)), OUTER, id="policy 0: addresses alone"),
        pytest.param(0, ip4(A4, B4, icmp(8, INNER4), proto=1), OUTER, id="an echo is no error"),
        pytest.param(0, ip4(A4, B4, icmp(3, INNER4), proto=1), INNER, id="an ICMP error follows its flow"),
        pytest.param(0, ip4(A4, B4, icmp(5, INNER4), proto=1), INNER, id="so does a redirect"),
        pytest.param(0, ip4(A4, B4, icmp(3, INNER4[:19]), proto=1), OUTER, id="too little of it"),
        pytest.param(0, ip4(A4, B4, icmp(3, INNER4[:20]), proto=1), INNER, id="just its header"),
        pytest.param(
            0, ip4(A4, B4, icmp(3, INNER4), proto=1, fragment=0x2000), INNER, id="a first fragment of one"
        ),
        pytest.param(0, ip4(A4, B4, icmp(3, INNER4), proto=1, fragment=9), OUTER, id="a later fragment"),
        pytest.param(
            0,
            ip6(A6, B6, udp(80), flow=5),
            OUTER6._replace(label=5, protocol=17),
            id="IPv6: label and next header",
        ),
        pytest.param(0, ip6(A6, B6, icmp(1, INNER6), nxt=58, flow=5), IN_6, id="an ICMPv6 error"),
        pytest.param(0, ip6(A6, B6, icmp(1, INNER6[:40]), nxt=58), IN_6, id="of a packet, just its header"),
        pytest.param(
            0,
            ip6(A6, B6, icmp(1, INNER6[:39]), nxt=58),
            OUTER6._replace(protocol=58),
            id="too little of a packet",
        ),
        pytest.param(
            0,
            ip6(A6, B6, icmp(128, INNER6), nxt=58),
            OUTER6._replace(protocol=58),
            id="an ICMPv6 echo",
        ),
        pytest.param(
            0,
            ip6(A6, B6, fragment6(17, udp(80)), nxt=44),
            OUTER6._replace(protocol=44),
            id="the next header is the first, whatever it is",
        ),
        pytest.param(
            1,
            ip4(A4, B4, tcp(80), proto=6),
            OUTER._replace(ports=PORTS, protocol=6),
            id="policy 1: five-tuple",
        ),
        pytest.param(
            1,
            ip4(A4, B4, tcp(80), proto=6, fragment=0x2000),
            OUTER._replace(protocol=6),
            id="no ports of a first fragment",
        ),
        pytest.param(
            1, ip4(A4, B4, icmp(8, b""), proto=1), OUTER._replace(protocol=1), id="no id of an echo"
        ),
        pytest.param(
            1,
            ip4(A4, B4, icmp(3, INNER4), proto=1),
            OUTER._replace(protocol=1),
            id="policy 1 does not look into ICMP errors",
        ),
        pytest.param(
            1, ip4(A4, B4, b"SPI!....", proto=50), OUTER._replace(ports=b"SPI!", protocol=50), id="ESP's SPI"
        ),
        pytest.param(
            1,
            ip4(A4, B4, ah(6, tcp(80)), proto=51),
            OUTER._replace(ports=b"SPI!", protocol=51),
            id="AH's SPI",
        ),
        pytest.param(
            1, ip4(A4, B4, INNER4, proto=4), OUTER._replace(protocol=4), id="policy 1 stops at a tunnel"
        ),
        pytest.param(
            1,
            ip6(A6, B6, options6(60, options6(17, udp(80))), nxt=43, flow=3),
            OUTER6._replace(ports=PORTS, protocol=17),
            id="extension headers are walked, and no label counts",
        ),
        pytest.param(
            1,
            ip6(A6, B6, fragment6(17, udp(80)), nxt=44),
            OUTER6._replace(protocol=17),
            id="an IPv6 first fragment has no ports",
        ),
        pytest.param(
            1,
            ip6(A6, B6, fragment6(17, b"87654321", offset=9), nxt=44),
            OUTER6._replace(protocol=17),
            id="nor has a later one",
        ),
        pytest.param(2, ip4(A4, B4, INNER4, proto=4), INNER, id="policy 2: IP in IP"),
        pytest.param(2, ip4(A4, B4, INNER6, proto=41), IN_6, id="policy 2: 6in4"),
        pytest.param(2, ip6(A6, B6, INNER4, nxt=4), INNER, id="policy 2: 4in6"),
        pytest.param(2, ip6(A6, B6, INNER6, nxt=41), IN_6, id="policy 2: IPv6 in IPv6"),
        pytest.param(2, ip4(A4, B4, gre(0x0800, INNER4, 0xB000), proto=47), INNER, id="policy 2: GRE"),
        pytest.param(2, ip4(A4, B4, gre(0x86DD, INNER6, 0x2081), proto=47), IN_6, id="policy 2: PPTP"),
        pytest.param(
            2, ip4(A4, B4, gre(0x6558, bridged(0x0800, INNER4)), proto=47), INNER, id="policy 2: bridged GRE"
        ),
        pytest.param(
            2,
            ip6(A6, B6, ip6(C6, D6, udp(80)), nxt=41, flow=3),
            IN_6._replace(label=3),
            id="the innermost label that there is",
        ),
        pytest.param(2, ip4(A4, B4, udp(80)), OUTER, id="policy 2: nothing inside"),
        pytest.param(2, ip4(A4, B4, icmp(3, INNER4), proto=1), OUTER, id="policy 2: an ICMP error"),
        pytest.param(2, ip4(A4, B4, gre(0x0800, INNER4, 0x4000), proto=47), OUTER, id="routed GRE"),
        pytest.param(2, ip4(A4, B4, INNER4[:19], proto=4), OUTER, id="too little inside"),
    ],
)
def test_what_a_policy_looks_at(policy: int, packet: bytes, expected: Key) -> None:
    assert keys_in_c(policy, 7, packet) == [expected]
    assert keys(policy, 7, packet) == [expected]


def test_custom_fields_choose_of_the_outer_and_of_the_inner_packet() -> None:
    packet = ip6(A6, B6, ip4(C4, D4, tcp(80), proto=6), nxt=4, flow=9)
    none4, none6 = Key(bytes(4), bytes(4), version=4), Key(bytes(16), bytes(16), version=6)
    for bit, outer, inner in (
        (0, {"source": packed6(A6)}, {"source": packed4(C4)}),
        (1, {"destination": packed6(B6)}, {"destination": packed4(D4)}),
        (2, {"protocol": 4}, {"protocol": 6}),
        (3, {"label": 9}, {}),
        (4, {}, {"ports": PORTS[:2] + bytes(2)}),
        (5, {}, {"ports": bytes(2) + PORTS[2:]}),
    ):
        assert keys_in_c(3, 1 << bit, packet) == [none6._replace(**outer), Key()]
        assert keys_in_c(3, 1 << bit + 6, packet) == [Key(), none4._replace(**inner)]
        assert keys_in_c(3, 0x41 << bit, packet) == [none6._replace(**outer), none4._replace(**inner)]
    assert keys_in_c(3, 0xFC1, ip4(A4, B4, udp(80))) == [OUTER._replace(destination=bytes(4)), Key()]


@pytest.mark.parametrize(
    "header", [gre(0x0800, b"", 0x2000)[:7], gre(0x6558, bytes(13)), gre(0x0800, b"")[:3]]
)
def test_a_tunnel_whose_own_header_is_cut_carries_nothing(header: bytes) -> None:
    assert keys_in_c(3, 0x41, ip4(A4, B4, header, proto=47)) == [OUTER._replace(destination=bytes(4)), Key()]
    assert keys_in_c(3, 0x40, ip4(A4, B4, header, proto=47)) == [Key(), Key()]
    whole = gre(0x0800, b"", 0x2000)
    assert keys_in_c(3, 0x40, ip4(A4, B4, whole, proto=47)) == [Key(), OUTER._replace(destination=bytes(4))]


def test_a_packet_of_nothing_but_headers_is_looked_at_a_bounded_number_of_times() -> None:
    def behind(headers: int) -> bytes:
        payload, nxt = udp(80), 17
        for _ in range(headers):
            payload, nxt = options6(nxt, payload), 60
        return ip6(A6, B6, payload, nxt=nxt)

    assert keys_in_c(1, 7, behind(16))[0].ports == PORTS
    assert keys_in_c(1, 7, behind(17))[0] == OUTER6._replace(protocol=60)
