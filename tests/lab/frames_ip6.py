"""IPv6 frames, in the order in which a router looks: header, addresses, extension headers, lookup, size."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lab.frames import CLIENT, FORWARD, ROUTER_WAN, SERVER, WAN_MTU, Case, Sources, from_client
from lab.packets import (
    DEST_OPTIONS,
    ETH_IP6,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP6,
    NO_NEXT,
    ROUTING,
    TCP,
    UDP,
    address_bytes,
    ethernet,
    extension,
    icmp6,
    ip6,
    mac_bytes,
    tcp_syn,
    udp,
)

SERVER6 = "fd00:2::2"
Source = Callable[[], tuple[str, str]]


def cases() -> Iterator[Case]:
    sources = Sources(6)

    def packet(name: str, dst: str = SERVER6, *, src: str = "", size: int = 0, **fields: Any) -> bytes:
        """A UDP packet that carries its name; size: of the whole packet, when it matters."""
        _, own = next(sources)
        src = src or own
        return ip6(src, dst, udp(src, dst, name.encode().ljust(max(size - 48, 0), b".")), **fields)

    def case(name: str, verdict: str, dst: str = SERVER6, **more: Any) -> Case:
        repeats = more.pop("repeats", False)
        return Case(f"IPv6 {name}", from_client(packet(name, dst, **more)), verdict, repeats=repeats)

    source = partial(next, sources)
    yield from _plain(case)
    yield from _headers(case, packet)
    yield from _addresses(case)
    yield from _extensions(source)
    yield from _hop_limits(case, source)
    yield from _local(source, packet)
    yield from _neighbour_discovery()
    yield from _sizes(case, source)
    yield from _lookups(case)


def _plain(case: Callable[..., Case]) -> Iterator[Case]:
    yield case("plain", FORWARD)
    yield case("traffic class and flow label kept", FORWARD, traffic_class=0xBA, flow=0xABCDE)
    yield case("hop limit 2", FORWARD, hop=2)
    yield case("hop limit 255", FORWARD, hop=255)
    yield case("to a host behind a gateway", FORWARD, "fd08::1")
    yield case("on a /127 link", FORWARD, "fd00:127::1")
    yield case("to a /128 route on the link", FORWARD, "fd00:128::2")
    yield case("out by the third port", FORWARD, "fd00:3::2")
    back = "fd09::6:fa"
    frame = ethernet(ROUTER_WAN, SERVER, ETH_IP6, ip6(SERVER6, back, udp(SERVER6, back, b"back")))
    yield Case("IPv6 the other way", frame, FORWARD, port="wan")


def _headers(case: Callable[..., Case], packet: Callable[..., bytes]) -> Iterator[Case]:
    src = "fd09::6:fb"
    for version in (4, 7):
        wrong = ip6(src, SERVER6, udp(src, SERVER6, b"version"), version=version)
        frame = ethernet("02:00:00:00:01:01", CLIENT, ETH_IP6, wrong)
        yield Case(f"IPv6 version {version}", frame, "ip_header_corrupted")
    whole = from_client(packet("cut off"))
    for size in (0, 20, 39):
        yield Case(f"IPv6 runt with {size} header bytes", whole[: 14 + size], "ip_header_corrupted")
    yield case("payload length beyond the frame", "ip_truncated", length=1000)
    yield Case("IPv6 with bytes behind it", whole + b"behind it", FORWARD)
    yield case("payload length 0", FORWARD, length=0)
    yield Case("IPv6 header alone", from_client(ip6(src, SERVER6, b"", proto=NO_NEXT)), FORWARD)


def _addresses(case: Callable[..., Case]) -> Iterator[Case]:
    for src, verdict in (
        ("::", "sip_is_unspecified"),
        ("::1", "sip_is_loopback_address"),
        ("ff02::1", "sip_is_mc"),
        ("fe80::2", "ipv6_link_local"),
        ("fd00:1::1", FORWARD),
        ("fec0::1", FORWARD),
        ("fc00::1", FORWARD),
        ("::ffff:10.0.0.1", FORWARD),
        ("2001:db8::1", FORWARD),
    ):
        yield case(f"from {src}", verdict, src=src)
    for dst, verdict in (
        ("::1", "dip_is_loopback_address"),
        ("ff00::1", "ipv6_mc_dip_reserved_scope"),
        ("ff01::1", "ipv6_mc_dip_interface_local_scope"),
        ("ff02::1", "ipv6_multicast"),
        ("ff02::1:2", "ipv6_multicast"),
        ("ff05::2", "ipv6_multicast"),
        ("ff0e::1", "ipv6_multicast"),
        ("::", FORWARD),
        ("fec0::1", FORWARD),
        ("::ffff:10.0.0.1", FORWARD),
        ("64:ff9b::1", FORWARD),
        ("100::1", FORWARD),
    ):
        yield case(f"to {dst}", verdict, dst)
    yield case("to a stranger's link-local address", "ipv6_link_local", "fe80::99", repeats=True)


def _extensions(source: Source) -> Iterator[Case]:
    def with_header(name: str, kind: int, body: bytes, verdict: str, dst: str = SERVER6) -> Case:
        _, src = source()
        payload = extension(UDP, body) + udp(src, dst, name.encode())
        return Case(f"IPv6 {name}", from_client(ip6(src, dst, payload, proto=kind)), verdict)

    pad = bytes.fromhex("010400000000")
    for name, option in (
        ("PadN", "010400000000"),
        ("unknown option 00", "1e0400000000"),
        ("unknown option 01", "5e0400000000"),
        ("unknown option 10", "9e0400000000"),
        ("unknown option 11", "de0400000000"),
        ("bad jumbo", "c20400000010"),
        ("router alert", "050200000100"),
    ):
        yield with_header(f"hop-by-hop: {name}", HOP_BY_HOP, bytes.fromhex(option), "ipv6_hop_by_hop")
        _, src = source()
        payload = extension(UDP, bytes.fromhex(option)) + udp(src, SERVER6, name.encode())
        frame = from_client(ip6(src, SERVER6, payload, proto=HOP_BY_HOP), "33:33:00:00:00:01")
        yield Case(f"IPv6 hop-by-hop: {name}, in a multicast frame", frame, "ipv6_hop_by_hop")
    yield with_header("destination options", DEST_OPTIONS, pad, FORWARD)
    yield with_header("routing header 0", ROUTING, bytes.fromhex("0001") + bytes(20), FORWARD)
    yield with_header(
        "routing header 0 to the router",
        ROUTING,
        bytes.fromhex("0001") + bytes(20),
        "local_route",
        "fd00:1::1",
    )
    _, src = source()
    cut = ip6(src, SERVER6, b"\x11\x05\x01\x04", proto=HOP_BY_HOP)
    yield Case("IPv6 hop-by-hop: truncated", from_client(cut), "ipv6_hop_by_hop")
    for name, bits in (("fragment, first", 1), ("fragment, last", 100 << 3), ("atomic fragment", 0)):
        _, src = source()
        header = struct.pack("!BBHI", UDP, 0, bits, 0xABCD)
        payload = header + udp(src, SERVER6, name.encode())
        yield Case(f"IPv6 {name}", from_client(ip6(src, SERVER6, payload, proto=FRAGMENT)), FORWARD)
    for proto in (NO_NEXT, 253):
        _, src = source()
        frame = from_client(ip6(src, SERVER6, b"next header", proto=proto))
        yield Case(f"IPv6 next header {proto}", frame, FORWARD)


def _hop_limits(case: Callable[..., Case], source: Source) -> Iterator[Case]:
    for hop in (1, 0):
        yield case(f"hop limit {hop}", "ttl_value_is_too_small", hop=hop)
    yield case("hop limit 1, long", "ttl_value_is_too_small", hop=1, size=1390)
    yield case("hop limit 1 and too big", "ttl_value_is_too_small", hop=1, size=1450)
    yield case("hop limit 1 from ::", "sip_is_unspecified", hop=1, src="::")
    _, src = source()
    quoted = ip6(SERVER6, src, udp(SERVER6, src, b"quoted"))
    error = icmp6(src, SERVER6, 1, 0, bytes(4) + quoted)
    frame = from_client(ip6(src, SERVER6, error, proto=ICMP6, hop=1))
    yield Case("IPv6 hop limit 1 with an ICMPv6 error inside", frame, "ttl_value_is_too_small")
    _, src = source()
    data = udp(src, SERVER6, b"hop limit 1 in a multicast frame")
    frame = from_client(ip6(src, SERVER6, data, hop=1), "33:33:00:00:00:01")
    yield Case("IPv6 hop limit 1 in a multicast frame", frame, "uc_dip_over_mc_dmac")


def _local(source: Source, packet: Callable[..., bytes]) -> Iterator[Case]:
    for dst, where in (
        ("fd00:1::1", "on this port"),
        ("fd00:2::1", "on another port"),
        ("fd00:1::", "by the subnet-router anycast address"),
    ):
        _, src = source()
        echo = icmp6(src, dst, 128, 0, struct.pack("!HH", 7, 1) + b"echo")
        frame = from_client(ip6(src, dst, echo, proto=ICMP6))
        yield Case(f"IPv6 ping to the router {where}", frame, "local_route")
    frame = from_client(packet("closed", "fd00:1::1"))
    yield Case("IPv6 closed UDP port of the router", frame, "local_route")
    frame = from_client(packet("next header", "fd00:1::1", proto=253))
    yield Case("IPv6 unknown next header to the router", frame, "local_route")
    for port, verdict in ((81, "local_route"), (179, "routing_protocol")):
        _, src = source()
        frame = from_client(ip6(src, "fd00:1::1", tcp_syn(src, "fd00:1::1", port), proto=TCP))
        yield Case(f"IPv6 TCP port {port} of the router", frame, verdict)


def _neighbour_discovery() -> Iterator[Case]:
    """RFC 4861: hop limit 255 in all of them."""
    discovery = "ipv6_neighbour_discovery"
    host, router, group = "fd00:1::2", "fd00:1::1", "ff02::1:ff00:1"
    link_address = b"\x01\x01" + mac_bytes(CLIENT)
    ask = bytes(4) + address_bytes(router) + link_address

    def frame(dst_mac: str, src: str, dst: str, message: bytes, hop: int = 255) -> bytes:
        return from_client(ip6(src, dst, message, proto=ICMP6, hop=hop), dst_mac)

    message = icmp6(host, group, 135, 0, ask)
    yield Case("neighbour solicitation", frame("33:33:ff:00:00:01", host, group, message), discovery)
    message = icmp6(host, router, 135, 0, ask)
    yield Case(
        "neighbour solicitation by unicast", frame("02:00:00:00:01:01", host, router, message), discovery
    )
    message = icmp6("::", group, 135, 0, bytes(4) + address_bytes(router))
    yield Case("duplicate address detection", frame("33:33:ff:00:00:01", "::", group, message), discovery)
    answer = struct.pack("!I", 0x60000000) + address_bytes(host) + b"\x02\x01" + mac_bytes(CLIENT)
    message = icmp6(host, router, 136, 0, answer)
    yield Case("neighbour advertisement", frame("02:00:00:00:01:01", host, router, message), discovery)
    message = icmp6(host, "ff02::2", 133, 0, bytes(4) + link_address)
    yield Case("router solicitation", frame("33:33:00:00:00:02", host, "ff02::2", message), discovery)


def _sizes(case: Callable[..., Case], source: Source) -> Iterator[Case]:
    too_big = "mtu_value_is_too_small"
    yield case("exactly the MTU", FORWARD, size=WAN_MTU)
    yield case("one byte above the MTU", too_big, size=WAN_MTU + 1)
    yield case("above the MTU", too_big, size=1500)
    yield case("above the route's MTU", too_big, "fd07::1", size=1390)
    yield case("exactly the route's MTU", FORWARD, "fd07::1", size=1300)
    yield case("above the MTU, to a multicast group", "ipv6_multicast", "ff0e::1", size=1500)
    _, src = source()
    header = struct.pack("!BBHI", UDP, 0, 1, 0xABCE)
    frame = from_client(ip6(src, SERVER6, header + bytes(1440), proto=FRAGMENT))
    yield Case("IPv6 above the MTU, a fragment", frame, too_big)
    _, src = source()
    error = icmp6(src, SERVER6, 1, 0, bytes(4) + ip6(SERVER6, src, bytes(1380)))
    frame = from_client(ip6(src, SERVER6, error, proto=ICMP6))
    yield Case("IPv6 above the MTU, an ICMPv6 error inside", frame, too_big)


def _lookups(case: Callable[..., Case]) -> Iterator[Case]:
    yield case("blackhole route", "blackhole_route", "fd66:1::1")
    yield case("unreachable route", "reject_route", "fd66:2::1")
    yield case("prohibit route", "reject_route", "fd66:3::1")
    yield case("throw route", "no_route", "fd66:4::1")
    yield case("no route", "no_route", "2001:db8:1::1")
    yield case("out by the port it came in by, redirect", "ingress_is_egress", "fd09::c8:1", src="fd00:1::20")
    yield case("out by the port it came in by, source behind", "ingress_is_egress", "fd09::c8:2")
    yield case("out by the port it came in by, from ::", "ingress_is_egress", "fd09::c8:3", src="::")
    yield case("unresolved neighbour", "unresolved_neigh", "fd00:2::99", repeats=True)
