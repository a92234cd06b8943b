"""Frames for VLAN sub-interfaces, and the places they come from and go to.

A Place is what a packet comes in by and goes out by: a port and the tags on it. Each has a subnet with the router at
.1 and one host at .2, and networks behind that host, from which the cases take a source address each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.frames import CLIENT, FORWARD, ROUTER_LAN, ROUTER_WAN, SERVER, THIRD, Case
from lab.packets import ETH_IP4, ETH_IP6, ethernet, ip4, ip6, mac_bytes, udp

Q, AD = 0x8100, 0x88A8  # IEEE 802.1Q: customer tag, service tag
ROUTER_DMZ = "02:00:00:00:03:01"
OWN_MAC = "02:00:00:00:01:99"

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
        if self.sub:
            yield f"link set {self.name} mtu {self.mtu} up"
        yield f"addr add {self.router4}/24 dev {self.name}"
        yield f"addr add {self.router6}/64 dev {self.name} nodad"
        for host in (self.host4, self.host6):
            yield f"neigh replace {host} lladdr {self.host_mac} nud permanent dev {self.name}"
        yield f"route add 10.{self.number}.0.0/16 via {self.host4} dev {self.name}"
        yield f"route add fd10:{self.number}::/32 via {self.host6} dev {self.name}"

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
        build = ip4 if version == 4 else ip6
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
        self, name: str, a: Place, b: Place, verdict: str = FORWARD, *, pcp: int = 0, dst: str = "", **fields: int
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
                yield from make.cases(f"{a.name.strip('{}')} to {b.name.strip('{}')}", a, b)
