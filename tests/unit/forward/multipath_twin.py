"""What of a packet is hashed to choose among several legs, said slowly: the twin of flow.c and multipath.c.

A packet is peeled layer by layer; `rest` is always what has not been looked at yet, already cut to the packet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ixroute._dataplane import ffi, lib

IP4, IP6 = 0x0800, 0x86DD
PORTS_AT = {6: 0, 17: 0, 33: 0, 50: 0, 51: 4, 132: 0, 136: 0}
LIMIT = 15
FIELDS = ("source", "destination", "protocol", "label", "source_port", "destination_port")


class Key(NamedTuple):
    """Addresses and ports as on the wire; zeros are fields that do not count."""

    source: bytes = b""
    destination: bytes = b""
    ports: bytes = bytes(4)
    label: int = 0
    protocol: int = 0
    version: int = 0


@dataclass
class Found:
    kind: int = 0
    source: bytes = b""
    destination: bytes = b""
    label: int = 0
    protocol: int = 0
    ports: bytes = field(default=bytes(4))
    encapsulated: bool = False


def word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def dissect(packet: bytes, outermost: bool) -> Found:
    found = Found()
    network(IP4 if packet[0] >> 4 == 4 else IP6, packet, found, outermost, LIMIT)
    return found


def network(kind: int, rest: bytes, found: Found, outermost: bool, more: int) -> None:
    if kind in (0x8100, 0x88A8):
        if len(rest) >= 4 and more:
            network(word(rest, 2), rest[4:], found, outermost, more - 1)
    elif kind == IP4 and len(rest) >= 20 and rest[0] & 15 >= 5:
        found.kind, found.protocol = IP4, rest[9]
        found.source, found.destination = rest[12:16], rest[16:20]
        if not word(rest, 6) & 0x3FFF:
            protocol(IP4, rest[(rest[0] & 15) * 4 :], found, outermost, more)
    elif kind == IP6 and len(rest) >= 40:
        found.kind, found.protocol = IP6, rest[6]
        found.source, found.destination = rest[8:24], rest[24:40]
        found.label = int.from_bytes(rest[1:4], "big") & 0xFFFFF or found.label
        protocol(IP6, rest[40:], found, outermost, more)


def protocol(kind: int, rest: bytes, found: Found, outermost: bool, more: int) -> None:
    found.ports = bytes(4)
    if found.protocol in (0, 43, 44, 60) and kind == IP6:
        extension(rest, found, outermost, more)
        return
    if found.protocol in (4, 41):
        inner = tunnel(IP4 if found.protocol == 4 else IP6, rest)
    elif found.protocol == 47:
        inner = gre(rest)
    else:
        read_ports(rest, found)
        return
    if inner is None:
        return
    found.encapsulated = True
    if not outermost and more:
        network(*inner, found, outermost, more - 1)


def read_ports(rest: bytes, found: Found) -> None:
    at = PORTS_AT.get(found.protocol)
    if at is not None and len(rest) >= at + 4:
        found.ports = rest[at : at + 4]


def extension(rest: bytes, found: Found, outermost: bool, more: int) -> None:
    fragment = found.protocol == 44
    if len(rest) < (8 if fragment else 2):
        return
    found.protocol = rest[0]
    if fragment:
        return
    rest = rest[(rest[1] + 1) * 8 :]
    if more:
        protocol(IP6, rest, found, outermost, more - 1)
    else:
        read_ports(rest, found)


def tunnel(kind: int, rest: bytes) -> tuple[int, bytes]:
    return kind, rest


def gre(rest: bytes) -> tuple[int, bytes] | None:
    """The EtherType of what is inside, and that; None when it is not looked into."""
    if len(rest) < 4:
        return None
    flags, kind = word(rest, 0), word(rest, 2)
    version = flags & 7
    if flags & 0x4000 or version > 1 or (version == 1 and not (kind == 0x880B and flags & 0x2000)):
        return None
    size = 4 + (4 if flags & 0x8000 else 0)
    if flags & 0x2000:
        size += 4
        if len(rest) < size:
            return None
    size += 4 if flags & 0x1000 else 0
    if version == 1:
        size += 4 if flags & 0x80 else 0
        if len(rest) < size + 4:
            return None
        return {0x21: IP4, 0x57: IP6}.get(word(rest, size + 2), kind), rest[size + 4 :]
    if kind == 0x6558:
        if len(rest) < size + 14:
            return None
        return word(rest, size + 12), rest[size + 14 :]
    return kind, rest[size:]


def key(found: Found, *wanted: str) -> Key:
    return Key(
        found.source if "source" in wanted else bytes(len(found.source)),
        found.destination if "destination" in wanted else bytes(len(found.destination)),
        (found.ports[:2] if "source_port" in wanted else bytes(2))
        + (found.ports[2:] if "destination_port" in wanted else bytes(2)),
        found.label if "label" in wanted and found.kind == IP6 else 0,
        found.protocol if "protocol" in wanted else 0,
        4 if found.kind == IP4 else 6,
    )


def addresses(packet: bytes) -> Key:
    """Policy 0."""
    if packet[0] >> 4 == 4:
        icmp = packet[(packet[0] & 15) * 4 :]
        error = packet[9] == 1 and not word(packet, 6) & 0x1FFF and icmp[:1] in map(chr_, (3, 4, 5, 11, 12))
        of = icmp[8:] if error and len(icmp) >= 28 else packet
        return Key(of[12:16], of[16:20], version=4)
    icmp = packet[40:]
    error = packet[6] == 58 and icmp[:1] in map(chr_, (1, 2, 3, 4))
    of = icmp[8:] if error and len(icmp) >= 48 else packet
    label = int.from_bytes(of[1:4], "big") & 0xFFFFF
    return Key(of[8:24], of[24:40], label=label, protocol=of[6], version=6)


def chr_(number: int) -> bytes:
    return bytes((number,))


def keys(policy: int, fields: int, packet: bytes) -> list[Key]:
    if policy == 0:
        return [addresses(packet)]
    if policy == 1:
        return [key(dissect(packet, True), *(name for name in FIELDS if name != "label"))]
    if policy == 2:
        return [key(found := dissect(packet, False), *FIELDS[: 2 if found.kind == IP4 else 4])]
    outer = [name for bit, name in enumerate(FIELDS) if fields >> bit & 1]
    inner = [name for bit, name in enumerate(FIELDS) if fields >> bit + 6 & 1]
    out = [Key(), Key()]
    if outer:
        found = dissect(packet, True)
        out[0] = key(found, *outer)
        if not found.encapsulated:
            return out
    if inner and (found := dissect(packet, False)).encapsulated:
        out[1] = key(found, *inner)
    return out


def keys_in_c(policy: int, fields: int, packet: bytes, behind: bytes = b"") -> list[Key]:
    """What C says; `behind`: bytes of the frame that are not the packet's."""
    found = ffi.new("struct multipath_key[2]")
    version = lib.VERSION_4 if packet[0] >> 4 == 4 else lib.VERSION_6
    n = lib.multipath_keys(policy, fields, packet + behind, len(packet), version, found)
    out = []
    for one in found[0:n]:
        version = {lib.VERSION_4: 4, lib.VERSION_6: 6}.get(one.version, 0)
        size = {0: 0, 4: 4, 6: 16}[version]
        source, destination = bytes(ffi.buffer(one.source)), bytes(ffi.buffer(one.destination))
        assert not any(source[size:] + destination[size:] + bytes(ffi.buffer(one.unused)))
        out.append(
            Key(
                source[:size],
                destination[:size],
                bytes(ffi.buffer(one.ports)),
                one.label,
                one.protocol,
                version,
            )
        )
    return out
