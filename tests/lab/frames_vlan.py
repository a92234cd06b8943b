"""Frames for VLAN sub-interfaces, and the places they come from and go to.

A Place is what a packet comes in by and goes out by: a port and the tags on it. Each has a subnet with the router at
.1 and one host at .2, and networks behind that host, from which the cases take a source address each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lab.frames import ANY, CLIENT, FORWARD, ROUTER_LAN, ROUTER_WAN, SERVER, THIRD, Case
from lab.packets import (
    ETH_ARP,
    ETH_IP4,
    ETH_IP6,
    ICMP,
    ICMP6,
    address_bytes,
    arp,
    ethernet,
    icmp4,
    icmp6,
    ip4,
    ip6,
    mac_bytes,
    udp,
)

Q, AD = 0x8100, 0x88A8  # IEEE 802.1Q: customer tag, service tag
ROUTER_DMZ = "02:00:00:00:03:01"
OWN_MAC = "02:00:00:00:01:99"
BROADCAST = "ff:ff:ff:ff:ff:ff"
DF = 0x4000

Tags = tuple[tuple[int, int], ...]
"""(protocol, identifier) or (protocol, tag control information), outermost first."""


@dataclass(frozen=True)
class Place:
    name: str
    """The interface's name; of ports in braces."""
    number: int
    port: str = "lan"
    tags: Tags = ()
    parent: str = "{lan}"
    router_mac: str = ROUTER_LAN
    host_mac: str = CLIENT
    mtu: int = 1500
    vrf: str = ""
    table: int = 254
    """Of the VRF; main's otherwise."""

    @property
    def told(self) -> str:
        """For names of cases."""
        return f"{self.vrf} {self.name.strip('{}')}".strip()

    @property
    def sub(self) -> bool:
        return bool(self.tags)

    @property
    def router4(self) -> str:
        return f"10.{self.number}.0.1"

    @property
    def host4(self) -> str:
        return f"10.{self.number}.0.2"

    @property
    def router6(self) -> str:
        return f"fd00:{self.number}::1"

    @property
    def host6(self) -> str:
        return f"fd00:{self.number}::2"

    def behind4(self, number: int) -> str:
        return f"10.{self.number}.{1 + number // 250}.{2 + number % 250}"

    def behind6(self, number: int) -> str:
        return f"fd10:{self.number}::{number:x}"

    def makes(self) -> Iterator[str]:
        """The interface."""
        protocol, vid = self.tags[-1]
        word = "802.1ad" if protocol == AD else "802.1Q"
        yield f"link add link {self.parent} name {self.name} type vlan protocol {word} id {vid}"

    def furnishes(self) -> Iterator[str]:
        """Addresses, up, the host's MAC, and what lies behind it."""
        if self.vrf:
            yield f"link set {self.name} master {self.vrf}"
        if self.sub:
            yield f"link set {self.name} mtu {self.mtu} up"
        yield f"addr replace {self.router4}/24 dev {self.name}"
        yield f"addr replace {self.router6}/64 dev {self.name} nodad"
        for host in (self.host4, self.host6):
            yield f"neigh replace {host} lladdr {self.host_mac} nud permanent dev {self.name}"
        table = f"dev {self.name} table {self.table}"
        yield f"route replace 10.{self.number}.0.0/16 via {self.host4} {table}"
        yield f"route replace fd10:{self.number}::/32 via {self.host6} {table}"

    def frame(self, packet: bytes, *, dst: str = "", src: str = "", pcp: int = 0) -> bytes:
        """pcp: priority and DEI, the upper four bits of each tag."""
        tags = tuple((protocol, pcp << 12 | vid) for protocol, vid in self.tags)
        return tagged(tags, packet, dst or self.router_mac, src or self.host_mac)


def tagged(tags: Tags, packet: bytes, dst: str, src: str) -> bytes:
    kind = ETH_IP6 if packet[0] >> 4 == 6 else ETH_IP4
    return stacked(tags, kind, packet, dst, src)


def stacked(tags: Tags, kind: int, payload: bytes, dst: str, src: str) -> bytes:
    if not tags:
        return ethernet(dst, src, kind, payload)
    stack = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return (mac_bytes(dst) + mac_bytes(src) + stack + struct.pack("!H", kind) + payload).ljust(60, b"\0")


LAN = Place("{lan}", 31)
WAN = Place("{wan}", 32, "wan", router_mac=ROUTER_WAN, host_mac=SERVER, mtu=1400)
DMZ = Place("{dmz}", 33, "dmz", router_mac=ROUTER_DMZ, host_mac=THIRD)
V7 = Place("v7", 41, tags=((Q, 7),))
V8 = Place("v8", 42, tags=((Q, 8),), mtu=1300)
V9 = Place("v9", 43, tags=((Q, 9),), router_mac=OWN_MAC)
W7 = Place("w7", 44, "wan", ((Q, 7),), "{wan}", ROUTER_WAN, SERVER, 1400)
D4094 = Place("d4094", 45, "dmz", ((Q, 4094),), "{dmz}", ROUTER_DMZ, THIRD)
S7 = Place("s7", 46, tags=((AD, 7),))
S100 = Place("s100", 47, tags=((AD, 100),))
S100C5 = Place("s100c5", 48, tags=((AD, 100), (Q, 5)), parent="s100")
W200 = Place("w200", 49, "wan", ((Q, 200),), "{wan}", ROUTER_WAN, SERVER, 1400)
W200C6 = Place("w200c6", 50, "wan", ((Q, 200), (Q, 6)), "w200", ROUTER_WAN, SERVER, 1396)
THREE = Place("three", 51, tags=((AD, 100), (Q, 5), (Q, 4)), parent="s100c5")

PORTS = (LAN, WAN, DMZ)
SUBS = (V7, V8, V9, W7, D4094, S7, S100, S100C5, W200, W200C6)
SMALLER = ((LAN, V8), (V7, V8), (V7, W7), (V9, WAN), (S7, W200C6), (DMZ, W200))


def makes(places: Sequence[Place]) -> tuple[str, ...]:
    """Commands that make the sub-interfaces (in order: parents first) and furnish all places."""
    out: list[str] = []
    for place in places:
        if place.sub:
            out += place.makes()
        if place.router_mac == OWN_MAC:
            out.append(f"link set {place.name} address {OWN_MAC}")
        out += place.furnishes()
    return tuple(out)


class Maker:
    """Packets from behind one place to behind another, each with a source of its own."""

    def __init__(self) -> None:
        self._next = 0

    def addresses(self, a: Place, b: Place, version: int) -> tuple[str, str]:
        self._next += 1
        if version == 4:
            return a.behind4(self._next), b.behind4(self._next)
        return a.behind6(self._next), b.behind6(self._next)

    def packet(self, name: str, a: Place, b: Place, version: int, **fields: int) -> bytes:
        """fields: of lab.packets.ip4 or ip6; `size`: of the whole packet."""
        size = fields.pop("size", 0)
        src, dst = self.addresses(a, b, version)
        head = 28 if version == 4 else 48
        data = f"[{name} IPv{version}]".encode().ljust(max(0, size - head), b".")
        build: Callable[..., bytes] = ip4 if version == 4 else ip6
        return build(src, dst, udp(src, dst, data), **fields)

    def both(
        self, name: str, a: Place, b: Place, verdict: str = FORWARD, **fields: int
    ) -> Iterator[tuple[str, bytes, str]]:
        for version in (4, 6):
            words = dict(fields)
            if version == 6:
                words = {{"ttl": "hop", "tos": "traffic_class"}.get(k, k): v for k, v in words.items()}
                words.pop("fragment", None)
            yield f"{name} IPv{version}", self.packet(name, a, b, version, **words), verdict

    def cases(
        self,
        name: str,
        a: Place,
        b: Place,
        verdict: str = FORWARD,
        *,
        pcp: int = 0,
        dst: str = "",
        **fields: int,
    ) -> Iterator[Case]:
        """One IPv4 and one IPv6 packet that come in at `a` and belong behind `b`."""
        for told, packet, said in self.both(name, a, b, verdict, **fields):
            yield Case(told, a.frame(packet, pcp=pcp, dst=dst), said, a.port)


def every_way(places: Sequence[Place]) -> Iterator[Case]:
    """From each place to each other."""
    make = Maker()
    for a in places:
        for b in places:
            if a is not b:
                yield from make.cases(f"{a.told} to {b.told}", a, b)


def judged(places: Sequence[Place]) -> Iterator[Case]:
    """What a router says no to, or answers itself, from each place: where the answer goes is what is compared."""
    make = Maker()
    for number, a in enumerate(places):
        b = places[(number + 1) % len(places)]
        name = a.told
        yield from make.cases(f"{name}: TTL 1", a, b, "ttl_value_is_too_small", ttl=1)
        yield from make.cases(f"{name}: TTL 2", a, b, ttl=2)
        yield from make.cases(f"{name}: back where it came from", a, a, "ingress_is_egress")
        yield from make.cases(f"{name}: priority 5, drop eligible", a, b, pcp=0xB, tos=0xB8)
        yield from make.cases(
            f"{name}: broadcast frame", a, b, "uc_dip_over_mc_dmac", dst="ff:ff:ff:ff:ff:ff"
        )
        yield from make.cases(f"{name}: another MAC", a, b, "other_host", dst="02:99:99:99:99:99")
        yield from _asks(a)
        yield from _pings(a, a, make)
        yield from _pings(a, b, make)


def _asks(a: Place) -> Iterator[Case]:
    """ARP and neighbour solicitations for the router, by broadcast and multicast as a host asks first."""
    name = a.told
    body = arp(1, a.host_mac, a.host4, "00:00:00:00:00:00", a.router4)
    yield Case(
        f"{name}: ARP request", stacked(a.tags, ETH_ARP, body, BROADCAST, a.host_mac), "arp_request", a.port
    )
    low = address_bytes(a.router6)[-3:]
    group = "ff02::1:ff" + low[:1].hex() + ":" + low[1:].hex()
    option = bytes((1, 1)) + mac_bytes(a.host_mac)
    ask = icmp6(a.host6, group, 135, 0, bytes(4) + address_bytes(a.router6) + option)
    packet = ip6(a.host6, group, ask, hop=255, proto=ICMP6)
    mac = "33:33:ff:" + low.hex(":")
    yield Case(
        f"{name}: neighbour solicitation", a.frame(packet, dst=mac), "ipv6_neighbour_discovery", a.port
    )


def _pings(a: Place, b: Place, make: Maker) -> Iterator[Case]:
    """Of the router's address at b."""
    name = f"{a.told}: ping of {b.told}'s address"
    for version, dst in ((4, b.router4), (6, b.router6)):
        src, _ = make.addresses(a, b, version)
        data = struct.pack("!HH", 1, 1) + f"[{name} IPv{version}]".encode()
        if version == 4:
            packet = ip4(src, dst, icmp4(8, 0, data), proto=ICMP)
        else:
            packet = ip6(src, dst, icmp6(src, dst, 128, 0, data), proto=ICMP6)
        yield Case(f"{name} IPv{version}", a.frame(packet), "local_route", a.port)


def sizes(ways: Sequence[tuple[Place, Place]]) -> Iterator[Case]:
    """Each way, into something with a smaller MTU: what just fits, and one byte more."""
    make = Maker()
    for a, b in ways:
        assert b.mtu < a.mtu
        name = f"{a.told} to {b.told} of {b.mtu}"
        yield from make.cases(f"{name}: fits", a, b, size=b.mtu, fragment=DF)
        yield from make.cases(f"{name}: too big", a, b, "mtu_value_is_too_small", size=b.mtu + 1, fragment=DF)
        packet = make.packet(f"{name}: in fragments IPv4", a, b, 4, size=b.mtu + 1)
        yield Case(f"{name}: in fragments IPv4", a.frame(packet), "mtu_value_is_too_small", a.port)


def tags_and_macs() -> Iterator[Case]:
    """Tags that mean something else than they seem to, or nothing; and whose MAC a sub-interface answers to."""
    make = Maker()

    def by(name: str, tags: Tags, verdict: str, dst: str = ROUTER_LAN, a: Place = V7) -> Iterator[Case]:
        for told, packet, said in make.both(name, a, WAN, verdict):
            yield Case(told, tagged(tags, packet, dst, CLIENT), said)

    unknown = "vlan_tag_mismatch"
    yield from by("no such id", ((Q, 77),), unknown)
    yield from by("id 4095", ((Q, 4095),), unknown)
    yield from by("id of the other protocol", ((AD, 8),), unknown)
    yield from by("id 7 of 802.1Q", ((Q, 7),), FORWARD)
    yield from by("id 7 of 802.1ad", ((AD, 7),), FORWARD)
    yield from by("known inside unknown", ((Q, 77), (Q, 7)), unknown)
    yield from by("unknown inside known", ((Q, 7), (Q, 77)), unknown)
    yield from by("unknown inside a known stack", ((AD, 100), (Q, 77)), unknown)
    yield from by("a stack in the other protocol", ((Q, 100), (Q, 5)), unknown)
    yield from by("a third tag", ((AD, 100), (Q, 5), (Q, 9)), unknown)
    yield from by("priority tag", ((Q, 5 << 13),), FORWARD, a=LAN)
    yield from by("priority tag of 802.1ad", ((AD, 5 << 13),), FORWARD, a=LAN)
    yield from by("two priority tags", ((Q, 5 << 13), (Q, 3 << 13)), ANY, a=LAN)
    yield from by("priority tag before a tag", ((Q, 5 << 13), (Q, 7)), ANY)
    yield from by("priority tag before a service tag", ((Q, 0), (AD, 7)), ANY)
    yield from by("priority tag before an unknown tag", ((Q, 0), (Q, 77)), ANY)
    yield from by("priority tag in a VLAN", ((Q, 7), (Q, 5 << 13)), ANY)
    yield from by("priority tag in a stack", ((AD, 100), (Q, 5), (Q, 5 << 13)), ANY)
    yield from by("to the MAC of VLAN 9 without tag", (), "other_host", OWN_MAC, a=LAN)
    yield from by("to the MAC of VLAN 9 in VLAN 7", ((Q, 7),), "other_host", OWN_MAC)
    yield from by("to the MAC of VLAN 9 in VLAN 9", ((Q, 9),), FORWARD, OWN_MAC, a=V9)
    yield from by("to the port's MAC in VLAN 9", ((Q, 9),), FORWARD, ROUTER_LAN, a=V9)
    yield from by("to another port's MAC in VLAN 7", ((Q, 7),), "other_host", ROUTER_WAN)
    for name, payload in (("LLC", bytes(46)), ("MPLS", bytes(46))):
        kind = 0x0026 if name == "LLC" else 0x8847
        yield Case(f"{name} in VLAN 7", stacked(V7.tags, kind, payload, ROUTER_LAN, CLIENT), "non_ip")
    short = mac_bytes(ROUTER_LAN) + mac_bytes(CLIENT) + struct.pack("!HH", Q, 7)
    yield Case("a tag and no more", short, ANY)
    yield Case("half a tag", short[:15], ANY)
