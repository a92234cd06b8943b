"""Further named frames: the corners of what lab.frames_link, frames_ip4 and frames_ip6 show in one or two examples."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lab.frames import (
    CLIENT,
    DMZ_MTU,
    FORWARD,
    ROUTER_DMZ,
    ROUTER_LAN,
    SERVER,
    THIRD,
    WAN_MTU,
    Case,
    Sources,
    from_client,
)
from lab.packets import (
    DEST_OPTIONS,
    ETH_ARP,
    ETH_IP4,
    ETH_IP6,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMP6,
    ROUTING,
    UDP,
    arp,
    ethernet,
    extension,
    icmp4,
    icmp6,
    ip4,
    ip4_with_checksum,
    ip6,
    udp,
)

SERVER4, SERVER6 = "10.0.2.2", "fd00:2::2"
DF, MF = 0x4000, 0x2000
BROADCAST = "ff:ff:ff:ff:ff:ff"
TTL, TOO_BIG = "ttl_value_is_too_small", "mtu_value_is_too_small"
Source = Callable[[], tuple[str, str]]
Make = Callable[..., Case]


def cases() -> Iterator[Case]:
    source: Source = partial(next, Sources(8))

    def four(name: str, verdict: str, dst: str = SERVER4, **more: Any) -> Case:
        src = more.pop("src", "") or source()[0]
        size = more.pop("size", 0) - 28 - len(more.get("options", b""))
        packet = ip4(src, dst, udp(src, dst, name.encode().ljust(max(size, 0), b".")), **more)
        return Case(f"IPv4 {name}", from_client(packet), verdict)

    def six(name: str, verdict: str, dst: str = SERVER6, **more: Any) -> Case:
        src = more.pop("src", "") or source()[1]
        size = more.pop("size", 0) - 48
        packet = ip6(src, dst, udp(src, dst, name.encode().ljust(max(size, 0), b".")), **more)
        return Case(f"IPv6 {name}", from_client(packet), verdict)

    yield from _hop_counts(four, six, source)
    yield from _headers(four, source)
    yield from _checksums(source)
    yield from _options(four)
    yield from _addresses(four, six)
    yield from _frames(source)
    yield from _fragments4(four)
    yield from _sizes(four, six, source)
    yield from _extensions(source)
    yield from _ingress(source)


def _hop_counts(four: Make, six: Make, source: Source) -> Iterator[Case]:
    """Whom time exceeded is told, and of what (RFC 1812 4.3.2.7, RFC 4443 2.4)."""
    yield four("TTL 1 to a gateway's network", TTL, "10.8.3.3", ttl=1)
    yield four("TTL 1 by an IPv6 gateway", TTL, "10.5.3.3", ttl=1)
    yield four("TTL 1 back to the port it came in by", TTL, "10.9.200.9", ttl=1)
    yield four("TTL 1 with a type of service", TTL, ttl=1, tos=0x10)
    yield four("TTL 1 from the sender's own link", TTL, ttl=1, src="10.0.1.21")
    yield four("TTL 1, longer than an error may quote", TTL, ttl=1, size=1400)
    yield four("TTL 1, too big, no DF", TTL, ttl=1, size=1450)
    yield four("TTL 1 with options", "ipv4_options", ttl=1, options=bytes.fromhex("01010100"))
    yield four("TTL 1 to a blackhole", "blackhole_route", "10.66.1.9", ttl=1)
    yield four("TTL 1 to an unreachable network", "reject_route", "10.66.2.9", ttl=1)
    yield four("TTL 1 to nowhere", "no_route", "198.51.100.9", ttl=1)
    yield six("hop limit 1 to a gateway's network", TTL, "fd08::3", hop=1)
    yield six("hop limit 1 back to the port it came in by", TTL, "fd09::c8:9", hop=1)
    yield six("hop limit 1, longer than an error may quote", TTL, hop=1, size=1380)
    yield six("hop limit 1 to a blackhole", "blackhole_route", "fd66:1::9", hop=1)
    yield six("hop limit 1 to an unreachable network", "reject_route", "fd66:2::9", hop=1)
    for kind, name in (
        (0, "echo reply"),
        (3, "unreachable"),
        (5, "redirect"),
        (11, "time exceeded"),
        (12, "problem"),
    ):
        src, _ = source()
        inner = ip4(SERVER4, src, udp(SERVER4, src, b"quoted"))[:28]
        packet = ip4(src, SERVER4, icmp4(kind, 0, bytes(4) + inner), proto=ICMP, ttl=1)
        yield Case(f"IPv4 TTL 1, ICMP {name}", from_client(packet), TTL)
    for kind in (1, 2, 3, 4, 127, 129, 137):
        _, src = source()
        inner = ip6(SERVER6, src, udp(SERVER6, src, b"quoted"))
        packet = ip6(src, SERVER6, icmp6(src, SERVER6, kind, 0, bytes(4) + inner), proto=ICMP6, hop=1)
        yield Case(f"IPv6 hop limit 1, ICMPv6 type {kind}", from_client(packet), TTL)


def _headers(four: Make, source: Source) -> Iterator[Case]:
    for version in (0, 6, 15):
        yield Case(
            f"IPv4 version {version} with a right checksum",
            ethernet(ROUTER_LAN, CLIENT, ETH_IP4, ip4("10.9.8.200", SERVER4, bytes(20), version=version)),
            "ip_header_corrupted",
        )
    for ihl in (0, 1):
        yield four(f"IHL {ihl}", "ip_header_corrupted", ihl=ihl)
    yield four("total length 20, bytes behind it", FORWARD, length=20)
    yield four("total length 21", FORWARD, length=21)
    yield four("total length 65535", "ip_truncated", length=65535)
    src, _ = source()
    whole = from_client(ip4(src, SERVER4, udp(src, SERVER4, b"one byte short " * 4)))
    yield Case("IPv4 total length one above the frame", whole[:-1], "ip_truncated")
    yield Case("IPv4 short packet and 1000 bytes behind it", whole + bytes(1000), FORWARD)
    options = bytes.fromhex("0101010101010101")
    cut = from_client(ip4(src, SERVER4, udp(src, SERVER4, b"cut"), options=options))[: 14 + 24]
    yield Case("IPv4 cut in its options", cut, "ip_header_corrupted")


def _checksums(source: Source) -> Iterator[Case]:
    """RFC 1624: carries, for TTLs that are decremented across a byte's border."""
    for wanted in (0xFF01, 0xFFFD, 0xFE00, 0x00FF, 0x0100, 0x8000):
        for ttl in (2, 128):
            src, _ = source()
            head = ip4_with_checksum(src, SERVER4, udp(src, SERVER4, b"carry"), wanted)
            # the TTL stands above the protocol: what it loses, the identification gains
            ident = struct.unpack_from("!H", head, 4)[0] + (64 - ttl) * 256
            ident = ident % 65535
            packet = ip4(src, SERVER4, udp(src, SERVER4, b"carry"), ttl=ttl, ident=ident)
            yield Case(f"IPv4 header checksum {wanted:04x}, TTL {ttl}", from_client(packet), FORWARD)


def _options(four: Make) -> Iterator[Case]:
    for name, options in (
        ("end alone", "00000000"),
        ("no-operation to the last byte", "01010101"),
        ("record route with room for three", "070f04" + "00" * 12 + "00"),
        ("record route that is full", "070708" + "0a000101" + "00"),
        ("record route, pointer within a slot", "070705" + "00000000" + "00"),
        ("record route, pointer below four", "070703" + "00000000" + "00"),
        ("time stamps with addresses", "440c0501" + "00" * 8),
        ("time stamps of named routers", "440c0503" + "0a000101" + "00000000"),
        ("time stamps, of others", "440c0503" + "0a000202" + "00000000"),
        ("time stamps that are full", "4408090000000000"),
        ("time stamps that overflowed", "44080900"[:6] + "f0" + "00000000"),
        ("time stamps, overflow is full", "440809f000000000"[:6] + "f0" + "00000000"),
        ("router alert of another value", "94040001"),
        ("router alert of a wrong length", "94030000"),
        ("security", "820b0000000000000000000000"[:22] + "00"),
        ("stream id", "88040000"),
        ("length 0", "9a000000"),
        ("length 1", "9a010000"),
        ("length beyond the header", "9a280000"),
        ("40 bytes of record route", "0727041" + "0" + "00" * 36),
        ("two record routes", "0707040000000007070400000000000000"[:32]),
        ("loose source route that is used up", "830708" + "0a000202" + "00"),
        ("loose source route, malformed", "830604" + "0a0002" + "0000"),
    ):
        data = bytes.fromhex(options if len(options) % 2 == 0 else options + "0")
        data = data.ljust((len(data) + 3) // 4 * 4, b"\0")[:40]
        yield four(f"option: {name}", "ipv4_options", options=data)


def _addresses(four: Make, six: Make) -> Iterator[Case]:
    for src, verdict in (
        ("127.255.255.255", "sip_is_loopback_address"),
        ("239.255.255.255", "sip_is_mc"),
        ("10.0.3.1", "sip_is_own"),
        ("10.1.1.1", "sip_is_own"),
        ("10.0.2.255", FORWARD),
        ("255.255.255.254", FORWARD),
        ("10.66.1.1", FORWARD),
        ("10.66.2.1", FORWARD),
    ):
        yield four(f"from {src}", verdict, src=src)
    for dst, verdict in (
        ("127.255.255.255", "dip_is_loopback_address"),
        ("10.0.3.255", "ipv4_broadcast"),
        ("224.0.0.251", "ipv4_multicast"),
        ("232.1.1.1", "ipv4_multicast"),
        ("239.255.255.250", "ipv4_multicast"),
        ("10.1.0.0", "local_route"),
        ("10.1.1.1", "local_route"),
    ):
        yield four(f"to {dst}", verdict, dst)
    yield four("from and to the same host", FORWARD, "10.8.8.8", src="10.8.8.8")
    for src, verdict in (
        ("::2", FORWARD),
        ("fd00:2::1", FORWARD),
        ("fd66:1::1", FORWARD),
        ("febf::1", "ipv6_link_local"),
        ("ff0e::1", "sip_is_mc"),
    ):
        yield six(f"from {src}", verdict, src=src)
    for dst, verdict in (
        ("ff11::1", "ipv6_mc_dip_interface_local_scope"),
        ("ff12::1", "ipv6_multicast"),
        ("ff3e::1", "ipv6_multicast"),
        ("ff02::5", "ipv6_multicast"),
        ("fd00:2::", "local_route"),
        ("fd00:128::1", "local_route"),
        ("fe80::ff:fe00:101", "local_route"),
    ):
        yield six(f"to {dst}", verdict, dst)
    yield six("from and to the same host", FORWARD, "fd08::8", src="fd08::8")


def _frames(source: Source) -> Iterator[Case]:
    """Tags, group MACs, frames of other protocols, ARP of all sorts."""
    src4, src6 = source()
    four = ip4(src4, SERVER4, udp(src4, SERVER4, b"tagged"))
    six = ip6(src6, SERVER6, udp(src6, SERVER6, b"tagged"))
    for family, kind, packet in (("IPv4", ETH_IP4, four), ("IPv6", ETH_IP6, six)):

        def tagged(
            *tags: tuple[int, int], kind: int = kind, packet: bytes = packet, dst: str = ROUTER_LAN
        ) -> bytes:
            stack = b"".join(struct.pack("!HH", *tag) for tag in tags)
            frame = ethernet(dst, CLIENT, kind, packet)
            return frame[:12] + stack + frame[12:]

        yield Case(f"{family} with a VLAN tag of id 1", tagged((0x8100, 1)), "vlan_tag_mismatch")
        yield Case(f"{family} with a service tag (802.1ad)", tagged((0x88A8, 7)), "vlan_tag_mismatch")
        yield Case(f"{family} with a priority tag, drop eligible", tagged((0x8100, 0x1000)), FORWARD)
        yield Case(f"{family} with a priority tag of 802.1ad", tagged((0x88A8, 0x6000)), FORWARD)
        yield Case(f"{family} with two priority tags", tagged((0x8100, 0), (0x8100, 0)), FORWARD)
        yield Case(
            f"{family} with a tag behind a priority tag",
            tagged((0x8100, 0), (0x8100, 7)),
            "vlan_tag_mismatch",
        )
        yield Case(
            f"{family} with a priority tag, to another MAC",
            tagged((0x8100, 0), dst="02:99:99:99:99:99"),
            "other_host",
        )
        yield Case(
            f"{family} in a frame from 00:00:00:00:00:00",
            from_client(packet, src="00:00:00:00:00:00"),
            FORWARD,
        )
        yield Case(f"{family} in a frame from everybody", from_client(packet, src=BROADCAST), FORWARD)
    for name, dst, kind in (
        ("loopback (CTP)", ROUTER_LAN, 0x9000),
        ("PPPoE discovery", BROADCAST, 0x8863),
        ("MPLS multicast", ROUTER_LAN, 0x8848),
        ("reverse ARP", BROADCAST, 0x8035),
        ("IPX", BROADCAST, 0x8137),
        ("PTP", "01:1b:19:00:00:00", 0x88F7),
        ("another protocol's group address", "09:00:2b:00:00:0f", 100),
    ):
        yield Case(name, ethernet(dst, CLIENT, kind, bytes(100)), "non_ip")
    yield Case(
        "flow control pause", ethernet("01:80:c2:00:00:01", CLIENT, 0x8808, bytes(46)), "link_local_frame"
    )
    yield Case(
        "IS-IS, all level 1",
        ethernet("01:80:c2:00:00:14", CLIENT, 100, bytes(100)),
        "link_local_frame",
    )
    for last, name in ((4, "IS-IS, all end systems"), (5, "IS-IS, all intermediate systems")):
        yield Case(name, ethernet(f"09:00:2b:00:00:{last:02}", CLIENT, 100, bytes(100)), "link_local_frame")
    for name, operation, target in (
        ("reverse ARP operation", 3, "10.0.1.1"),
        ("inverse ARP operation", 8, "10.0.1.1"),
    ):
        body = arp(operation, CLIENT, "10.0.1.2", ROUTER_LAN, target)
        yield Case(name, ethernet(ROUTER_LAN, CLIENT, ETH_ARP, body), "arp_request")
    for name, sender, target in (
        ("ARP request for the broadcast address", "10.0.1.2", "10.0.1.255"),
        ("ARP request for a peer link's own address", "10.0.1.2", "10.1.1.1"),
        ("ARP request from another link's host", "10.0.2.2", "10.0.1.1"),
        ("ARP request from a host behind a gateway", "10.9.8.1", "10.0.1.1"),
    ):
        body = arp(1, CLIENT, sender, "00:00:00:00:00:00", target)
        yield Case(name, ethernet(BROADCAST, CLIENT, ETH_ARP, body), "arp_request")


def _fragments4(four: Make) -> Iterator[Case]:
    for name, bits in (
        ("highest offset", 0x1FFF),
        ("offset 1 and MF", MF | 1),
        ("DF and an offset", DF | 100),
        ("all flags", 0xE000),
    ):
        yield four(f"fragment, {name}", FORWARD, fragment=bits)
    yield four("fragment, not first, to the router", "local_route", "10.0.1.1", fragment=0x1000)


def _sizes(four: Make, six: Make, source: Source) -> Iterator[Case]:
    for size in (WAN_MTU - 1, WAN_MTU):
        yield four(f"{size} bytes, DF", FORWARD, size=size, fragment=DF)
    yield four("1500 bytes to the third port", FORWARD, "10.0.3.2", size=DMZ_MTU)
    yield four("above the MTU by an IPv6 gateway", TOO_BIG, "10.5.1.2", size=1450)
    yield four("above the MTU by an IPv6 gateway, DF", TOO_BIG, "10.5.1.2", size=1450, fragment=DF)
    yield four("above the MTU on a /31", TOO_BIG, "10.1.0.1", size=1450, fragment=DF)
    yield four("1001 bytes, route with MTU 1000, DF", TOO_BIG, "10.7.1.2", size=1001, fragment=DF)
    yield four("1001 bytes, route with MTU 1000", TOO_BIG, "10.7.1.2", size=1001)
    yield four("above the MTU, last fragment", TOO_BIG, size=1450, fragment=100)
    yield four("above the MTU, DF and MF", TOO_BIG, size=1450, fragment=DF | MF)
    yield four("above the MTU, DF, to a blackhole", "blackhole_route", "10.66.1.1", size=1450, fragment=DF)
    route = bytes.fromhex("070704" + "00" * 5)
    yield four("above the MTU, record route", "ipv4_options", size=1480, options=route)
    yield four(
        "above the MTU, router alert, DF",
        "ipv4_options",
        size=1480,
        options=bytes.fromhex("94040000"),
        fragment=DF,
    )
    for kind in (0, 5, 11, 12):
        src, _ = source()
        body = bytes(4) + ip4(SERVER4, src, bytes(8))[:28] + bytes(1400)
        packet = ip4(src, SERVER4, icmp4(kind, 0, body), proto=ICMP, fragment=DF)
        yield Case(f"IPv4 above the MTU, DF, ICMP type {kind}", from_client(packet), TOO_BIG)
    yield six("1399 bytes", FORWARD, size=WAN_MTU - 1)
    yield six("1500 bytes to the third port", FORWARD, "fd00:3::2", size=DMZ_MTU)
    yield six("1301 bytes, route with MTU 1300", TOO_BIG, "fd07::2", size=1301)
    yield six("above the MTU to a /127", TOO_BIG, "fd00:127::1", size=1450)
    yield six("above the MTU to a blackhole", "blackhole_route", "fd66:1::1", size=1450)
    yield six("above the MTU, a payload length beyond the frame", "ip_truncated", size=1450, length=1500)
    for kind in (2, 128, 137):
        _, src = source()
        packet = ip6(src, SERVER6, icmp6(src, SERVER6, kind, 0, bytes(1420)), proto=ICMP6)
        yield Case(f"IPv6 above the MTU, ICMPv6 type {kind}", from_client(packet), TOO_BIG)


def _extensions(source: Source) -> Iterator[Case]:
    def chain(name: str, verdict: str, *headers: tuple[int, bytes], dst: str = SERVER6, **more: Any) -> Case:
        _, src = source()
        following, payload = UDP, udp(src, dst, name.encode())
        for kind, body in reversed(headers):
            following, payload = kind, extension(following, body) + payload
        return Case(f"IPv6 {name}", from_client(ip6(src, dst, payload, proto=following, **more)), verdict)

    pad, unknown = bytes.fromhex("010400000000"), bytes.fromhex("9e0400000000")
    route0 = bytes.fromhex("0001") + bytes(20)
    hop = "ipv6_hop_by_hop"
    yield chain("hop-by-hop: Pad1 six times", hop, (HOP_BY_HOP, bytes(6)))
    yield chain("hop-by-hop: two of them", hop, (HOP_BY_HOP, pad), (HOP_BY_HOP, pad))
    yield chain("hop-by-hop: longer, 14 bytes of PadN", hop, (HOP_BY_HOP, b"\x01\x0c" + bytes(12)))
    yield chain("hop-by-hop: PadN that is not zero", hop, (HOP_BY_HOP, bytes.fromhex("010400000001")))
    yield chain("hop-by-hop: option beyond the header", hop, (HOP_BY_HOP, bytes.fromhex("1e2000000000")))
    yield chain("hop-by-hop: router alert for MLD", hop, (HOP_BY_HOP, bytes.fromhex("050200000000")))
    yield chain("hop-by-hop and hop limit 1", hop, (HOP_BY_HOP, pad), hop=1)
    yield chain("hop-by-hop to the router", "local_route", (HOP_BY_HOP, pad), dst="fd00:1::1")
    yield chain("hop-by-hop behind destination options", FORWARD, (DEST_OPTIONS, pad), (HOP_BY_HOP, pad))
    yield chain("destination options with an unknown one", FORWARD, (DEST_OPTIONS, unknown))
    yield chain(
        "destination options with an unknown one, to the router",
        "local_route",
        (DEST_OPTIONS, unknown),
        dst="fd00:1::1",
    )
    yield chain("routing header 4 in transit", FORWARD, (ROUTING, bytes.fromhex("0401") + bytes(20)))
    yield chain(
        "routing header 2 to the router",
        "local_route",
        (ROUTING, bytes.fromhex("0201") + bytes(20)),
        dst="fd00:1::1",
    )
    yield chain(
        "destination options, routing header, hop limit 1", TTL, (DEST_OPTIONS, pad), (ROUTING, route0), hop=1
    )
    for name, bits, verdict, dst in (
        ("fragment, offset 1", 1 << 3 | 1, FORWARD, SERVER6),
        ("fragment, highest offset", 0xFFF8, FORWARD, SERVER6),
        ("fragment, reserved bits", 6, FORWARD, SERVER6),
        ("atomic fragment to the router", 0, "local_route", "fd00:1::1"),
        ("last fragment to the router, no first", 0x7FF8, "local_route", "fd00:1::1"),
    ):
        _, src = source()
        payload = struct.pack("!BBHI", UDP, 0, bits, 0xABCD) + udp(src, dst, name.encode())
        yield Case(f"IPv6 {name}", from_client(ip6(src, dst, payload, proto=FRAGMENT)), verdict)


def _ingress(source: Source) -> Iterator[Case]:
    """By the other ports, and out by the one it came in by."""
    for number, (router, host, port) in enumerate(
        ((ROUTER_DMZ, THIRD, "dmz"), ("02:00:00:00:02:01", SERVER, "wan")), start=1
    ):
        for family, dst in (("IPv4", f"10.9.8.{240 + number}"), ("IPv6", f"fd09::8:f{number}")):
            src = ("10.0.3.2", "fd00:3::2") if port == "dmz" else (SERVER4, SERVER6)
            own = src[0] if family == "IPv4" else src[1]
            data = udp(own, dst, b"the other way")
            packet = ip4(own, dst, data) if family == "IPv4" else ip6(own, dst, data)
            kind = ETH_IP4 if family == "IPv4" else ETH_IP6
            yield Case(f"{family} in by {port}", ethernet(router, host, kind, packet), FORWARD, port=port)
    src4, src6 = source()
    for family, packet in (
        ("IPv4", ip4(src4, "10.9.200.77", udp(src4, "10.9.200.77", b"x" * 1400), fragment=DF)),
        ("IPv6", ip6(src6, "fd09::c8:77", udp(src6, "fd09::c8:77", b"x" * 1400))),
    ):
        yield Case(
            f"{family} out by the port it came in by, 1400 bytes", from_client(packet), "ingress_is_egress"
        )
