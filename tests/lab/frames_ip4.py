"""IPv4 frames, in the order in which a router looks: header, addresses, lookup, TTL, size."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lab.frames import CLIENT, FORWARD, ROUTER_LAN, ROUTER_WAN, SERVER, WAN_MTU, Case, Sources, from_client
from lab.packets import (
    ETH_IP4,
    ICMP,
    TCP,
    ethernet,
    icmp4,
    ip4,
    ip4_with_checksum,
    tcp_syn,
    udp,
)

SERVER4 = "10.0.2.2"
DF, MF = 0x4000, 0x2000
Build = Callable[..., bytes]


def cases() -> Iterator[Case]:
    sources = Sources(4)

    def packet(name: str, dst: str = SERVER4, *, src: str = "", size: int = 0, **fields: Any) -> bytes:
        """A UDP packet that carries its name; size: of the whole packet, when it matters."""
        own, _ = next(sources)
        src = src or own
        overhead = 28 + len(fields.get("options", b""))
        return ip4(src, dst, udp(src, dst, name.encode().ljust(max(size - overhead, 0), b".")), **fields)

    def case(name: str, verdict: str, dst: str = SERVER4, **more: Any) -> Case:
        repeats = more.pop("repeats", False)
        return Case(f"IPv4 {name}", from_client(packet(name, dst, **more)), verdict, repeats=repeats)

    yield from _plain(case)
    yield from _headers(case, packet)
    yield from _checksums(partial(next, sources))
    yield from _options(case)
    yield from _sources(case)
    yield from _destinations(case)
    yield from _local(partial(next, sources), packet)
    yield from _time_to_live(case, partial(next, sources))
    yield from _sizes(case, partial(next, sources), packet)
    yield from _lookups(case)


def _plain(case: Callable[..., Case]) -> Iterator[Case]:
    yield case("plain", FORWARD)
    yield case("TOS and ECN kept", FORWARD, tos=0xBA)
    yield case("TTL 2", FORWARD, ttl=2)
    yield case("TTL 255", FORWARD, ttl=255)
    yield case("unknown protocol", FORWARD, proto=253)
    yield case("to a host behind a gateway", FORWARD, "10.8.1.1")
    yield case("by an IPv6 gateway", FORWARD, "10.5.1.1")
    yield case("on a /31 link", FORWARD, "10.1.0.1")
    yield case("on a /32 peer link", FORWARD, "10.1.1.2")
    yield case("out by the third port", FORWARD, "10.0.3.2")
    yield case("fragment, first", FORWARD, fragment=MF)
    yield case("fragment, tiny offset", FORWARD, fragment=1)
    yield case("fragment, last", FORWARD, fragment=100)
    yield case("reserved bit", FORWARD, fragment=0x8000)
    yield case("DF and MF", FORWARD, fragment=DF | MF)
    back = "10.9.4.250"
    frame = ethernet(ROUTER_WAN, SERVER, ETH_IP4, ip4(SERVER4, back, udp(SERVER4, back, b"back")))
    yield Case("IPv4 the other way", frame, FORWARD, port="wan")


def _headers(case: Callable[..., Case], packet: Build) -> Iterator[Case]:
    yield case("version 5", "ip_header_corrupted", version=5)
    frame = ethernet(ROUTER_LAN, CLIENT, ETH_IP4, packet("version 6", version=6))
    yield Case("IPv4 version 6 in an IPv4 frame", frame, "ip_header_corrupted")
    yield case("IHL 4", "ip_header_corrupted", ihl=4)
    yield case("IHL 15 beyond total length", "ip_header_corrupted", ihl=15, length=40)
    yield case("total length 19", "ip_header_corrupted", length=19)
    yield case("total length 0", "ip_header_corrupted", length=0)
    yield case("total length beyond the frame", "ip_truncated", length=1000)
    src = "10.9.4.252"
    yield Case("IPv4 header alone", from_client(ip4(src, SERVER4, b"")), FORWARD)
    whole = from_client(packet("padded by the cable"))
    yield Case("IPv4 short packet in a 60-byte frame", from_client(packet("short")), FORWARD)
    yield Case("IPv4 with bytes behind it", whole + b"behind it", FORWARD)
    for size in (0, 10, 19):
        runt = whole[: 14 + size]
        yield Case(f"IPv4 runt with {size} header bytes", runt, "ip_header_corrupted")
    yield Case("IPv4 cut in its payload", whole[:45], "ip_truncated")


def _checksums(source: Callable[[], tuple[str, str]]) -> Iterator[Case]:
    """RFC 1141, RFC 1624: where an incremental update can go wrong."""
    for wanted in (0xFEFF, 0xFF00, 0x0000, 0xFFFE, 0xFEFE, 0x0001, 0x7FFF):
        src, _ = source()
        data = udp(src, SERVER4, b"checksum")
        frame = from_client(ip4_with_checksum(src, SERVER4, data, wanted))
        yield Case(f"IPv4 header checksum {wanted:04x}", frame, FORWARD)
    src, _ = source()
    zero = ip4_with_checksum(src, SERVER4, udp(src, SERVER4, b"ffff for 0"), 0)
    negative_zero = zero[:10] + b"\xff\xff" + zero[12:]
    yield Case("IPv4 header checksum ffff where 0000 is right", from_client(negative_zero), FORWARD)
    for name, wrong in (("wrong", 0x1111), ("missing", 0)):
        src, _ = source()
        frame = from_client(ip4(src, SERVER4, udp(src, SERVER4, b"wrong"), checksum=wrong))
        yield Case(f"IPv4 header checksum {name}", frame, "ip_header_corrupted")


def _options(case: Callable[..., Case]) -> Iterator[Case]:
    for name, options in (
        ("NOP and end", "01010100"),
        ("record route", "0707040000000000"),
        ("time stamps", "440c0500000000000000000000000000"),
        ("router alert", "94040000"),
        ("unknown", "9a040000"),
        ("loose source route", "830704" + "0a000202" + "00"),
        ("strict source route", "890704" + "0a000202" + "00"),
        ("malformed", "07ff0400"),
    ):
        yield case(f"option: {name}", "ipv4_options", options=bytes.fromhex(options))


def _sources(case: Callable[..., Case]) -> Iterator[Case]:
    for src, verdict in (
        ("0.0.0.0", "sip_is_unspecified"),
        ("255.255.255.255", "ipv4_sip_is_limited_bc"),
        ("224.0.0.1", "sip_is_mc"),
        ("239.1.2.3", "sip_is_mc"),
        ("127.0.0.1", "sip_is_loopback_address"),
        ("10.0.1.1", "sip_is_own"),
        ("10.0.2.1", "sip_is_own"),
        ("0.1.2.3", FORWARD),
        ("240.1.2.3", FORWARD),
        ("169.254.1.1", FORWARD),
        ("10.0.1.255", FORWARD),
        ("10.0.1.0", FORWARD),
        ("10.0.2.2", FORWARD),
        ("203.0.113.9", FORWARD),
    ):
        yield case(f"from {src}", verdict, src=src)


def _destinations(case: Callable[..., Case]) -> Iterator[Case]:
    yield case("to 0.0.0.0", "dip_is_unspecified", "0.0.0.0")
    yield case("to 127.0.0.1", "dip_is_loopback_address", "127.0.0.1")
    for dst in ("0.1.2.3", "240.1.2.3", "169.254.1.1", "100.64.1.1", "192.0.0.8"):
        yield case(f"to {dst}", FORWARD, dst)
    yield case("to 255.255.255.255", "ipv4_broadcast", "255.255.255.255")
    yield case("to the broadcast address of this link", "ipv4_broadcast", "10.0.1.255")
    yield case("to the broadcast address of another link", "ipv4_broadcast", "10.0.2.255")
    yield case("to 224.0.0.1", "ipv4_multicast", "224.0.0.1")
    yield case("to 224.1.2.3", "ipv4_multicast", "224.1.2.3")
    yield case("to 239.1.2.3", "ipv4_multicast", "239.1.2.3")


def _local(source: Callable[[], tuple[str, str]], packet: Build) -> Iterator[Case]:
    echo = icmp4(8, 0, struct.pack("!HH", 7, 1) + b"echo")
    for dst, where in (("10.0.1.1", "on this port"), ("10.0.2.1", "on another port")):
        src, _ = source()
        yield Case(
            f"IPv4 ping to the router {where}", from_client(ip4(src, dst, echo, proto=ICMP)), "local_route"
        )
    src, _ = source()
    frame = from_client(ip4(src, "10.0.1.1", echo, proto=ICMP, ttl=1))
    yield Case("IPv4 ping to the router, TTL 1", frame, "local_route")
    yield Case("IPv4 closed UDP port of the router", from_client(packet("closed", "10.0.1.1")), "local_route")
    frame = from_client(packet("protocol", "10.0.1.1", proto=253))
    yield Case("IPv4 unknown protocol to the router", frame, "local_route")
    for port, verdict in ((81, "local_route"), (179, "routing_protocol")):
        src, _ = source()
        frame = from_client(ip4(src, "10.0.1.1", tcp_syn(src, "10.0.1.1", port), proto=TCP))
        yield Case(f"IPv4 TCP port {port} of the router", frame, verdict)
    src, _ = source()
    frame = ethernet("ff:ff:ff:ff:ff:ff", CLIENT, ETH_IP4, ip4(src, "10.0.1.1", echo, proto=ICMP))
    yield Case("IPv4 ping to the router in a broadcast frame", frame, "local_route")
    hello = bytes.fromhex("0201002c0a0001020000000000000000") + bytes(28)
    frame = ethernet(
        "01:00:5e:00:00:05", CLIENT, ETH_IP4, ip4("10.0.1.2", "224.0.0.5", hello, proto=89, ttl=1)
    )
    yield Case("IPv4 OSPF hello", frame, "routing_protocol")


def _icmp_error(source: str, quoted: bytes) -> bytes:
    return ip4(source, SERVER4, icmp4(3, 1, bytes(4) + quoted[:28]), proto=ICMP)


def _time_to_live(case: Callable[..., Case], source: Callable[[], tuple[str, str]]) -> Iterator[Case]:
    for ttl in (1, 0):
        yield case(f"TTL {ttl}", "ttl_value_is_too_small", ttl=ttl)
    yield case("TTL 1, long", "ttl_value_is_too_small", ttl=1, size=1300)
    yield case("TTL 1 and too big and DF", "ttl_value_is_too_small", ttl=1, size=1450, fragment=DF)
    yield case("TTL 1, fragment, first", "ttl_value_is_too_small", ttl=1, fragment=MF)
    yield case("TTL 1, fragment, not first", "ttl_value_is_too_small", ttl=1, fragment=64)
    yield case("TTL 1 from 0.0.0.0", "sip_is_unspecified", ttl=1, src="0.0.0.0")
    yield case("TTL 1 from a source without a route", "ttl_value_is_too_small", ttl=1, src="203.0.113.7")
    src, _ = source()
    quoted = ip4(SERVER4, src, udp(SERVER4, src, b"quoted"))
    error = icmp4(3, 1, bytes(4) + quoted[:28])
    frame = from_client(ip4(src, SERVER4, error, proto=ICMP, ttl=1))
    yield Case("IPv4 TTL 1 with an ICMP error inside", frame, "ttl_value_is_too_small")
    src, _ = source()
    echo = icmp4(8, 0, struct.pack("!HH", 7, 2))
    frame = from_client(ip4(src, SERVER4, echo, proto=ICMP, ttl=1))
    yield Case("IPv4 TTL 1 with an echo request inside", frame, "ttl_value_is_too_small")
    src, _ = source()
    data = udp(src, SERVER4, b"TTL 1 in a broadcast frame")
    frame = ethernet("ff:ff:ff:ff:ff:ff", CLIENT, ETH_IP4, ip4(src, SERVER4, data, ttl=1))
    yield Case("IPv4 TTL 1 in a broadcast frame", frame, "uc_dip_over_mc_dmac")


def _sizes(case: Callable[..., Case], source: Callable[[], tuple[str, str]], packet: Build) -> Iterator[Case]:
    yield case("exactly the MTU", FORWARD, size=WAN_MTU)
    whole = from_client(packet("exact", size=WAN_MTU))
    yield Case("IPv4 exactly the MTU, and padding", whole + bytes(8), FORWARD)
    too_big = "mtu_value_is_too_small"
    yield case("one byte above the MTU, DF", too_big, size=WAN_MTU + 1, fragment=DF)
    yield case("above the MTU, DF", too_big, size=1500, fragment=DF)
    yield case("one byte above the MTU", too_big, size=WAN_MTU + 1)
    yield case("above the MTU", too_big, size=1500)
    yield case("above the MTU, a fragment with MF", too_big, size=1500, fragment=MF | 200)
    yield case("above the MTU, options", "ipv4_options", size=1500, options=bytes.fromhex("01010100"))
    yield case("above the route's MTU, DF", too_big, "10.7.1.1", size=1200, fragment=DF)
    yield case("above the route's MTU", too_big, "10.7.1.1", size=1200)
    yield case("exactly the route's MTU", FORWARD, "10.7.1.1", size=1000)
    src, _ = source()
    quoted = ip4(SERVER4, src, udp(SERVER4, src, b"quoted"))
    error = icmp4(3, 1, bytes(4) + quoted[:28] + bytes(1400))
    frame = from_client(ip4(src, SERVER4, error, proto=ICMP, fragment=DF))
    yield Case("IPv4 above the MTU, DF, an ICMP error inside", frame, too_big)


def _lookups(case: Callable[..., Case]) -> Iterator[Case]:
    yield case("blackhole route", "blackhole_route", "10.66.1.1")
    yield case("unreachable route", "reject_route", "10.66.2.1")
    yield case("prohibit route", "reject_route", "10.66.3.1")
    yield case("throw route", "no_route", "10.66.4.1")
    yield case("no route", "no_route", "198.51.100.1")
    yield case("out by the port it came in by, redirect", "ingress_is_egress", "10.9.200.1", src="10.0.1.20")
    yield case("out by the port it came in by, source behind", "ingress_is_egress", "10.9.200.2")
    yield case("unresolved neighbour", "unresolved_neigh", "10.0.2.99", repeats=True)
    yield case("to the network address", "unresolved_neigh", "10.0.2.0", repeats=True)
