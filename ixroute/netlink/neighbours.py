"""Neighbours, as far as next hops need them: on ports, and on VLAN sub-interfaces of ports."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ixroute.netlink import messages
from ixroute.netlink.contract import FAMILY_IP4, FAMILY_IP6, NO_MAC
from ixroute.netlink.sockets import Message

NUD_INCOMPLETE = 0x01
NUD_REACHABLE = 0x02
NUD_STALE = 0x04
NUD_DELAY = 0x08
NUD_PROBE = 0x10
NUD_FAILED = 0x20
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
_USABLE = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_NOARP | NUD_PERMANENT
_STATES = {
    NUD_INCOMPLETE: "incomplete",
    NUD_REACHABLE: "reachable",
    NUD_STALE: "stale",
    NUD_DELAY: "delay",
    NUD_PROBE: "probe",
    NUD_FAILED: "failed",
    NUD_NOARP: "noarp",
    NUD_PERMANENT: "permanent",
}

NTF_USE = 0x01
NTF_PROXY = 0x08
NTF_EXT_LEARNED = 0x10
NTF_ROUTER = 0x80
NTF_EXT_MANAGED = 0x01  # in NDA_FLAGS_EXT

_NDA_DST = 1
_NDA_FLAGS_EXT = 15

AF_OF_FAMILY: dict[int, int] = {FAMILY_IP4: socket.AF_INET, FAMILY_IP6: socket.AF_INET6}
FAMILY_OF_AF: dict[int, int] = {af: family for family, af in AF_OF_FAMILY.items()}

Key = tuple[int, int, bytes]
"""(ifindex, family, address)"""

NO_NEIGHBOUR = (b"", True)
"""Neighbour.matters of one that there is no entry of."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    ifindex: int
    family: int
    address: bytes
    mac: bytes = NO_MAC
    state: int = 0
    flags: int = 0
    ext_flags: int = 0

    @property
    def key(self) -> Key:
        return (self.ifindex, self.family, self.address)

    @property
    def usable(self) -> bool:
        """Packets may be sent to its MAC. A group or empty MAC is nobody's (NOARP entries of broadcasts have
        one)."""
        return bool(self.state & _USABLE) and self.mac != NO_MAC and not self.mac[0] & 1

    @property
    def valid(self) -> bool:
        """NUD_VALID: the kernel would choose it among several next hops (fib_good_nh, nexthop_is_good_nh). One without
        an entry counts as valid too."""
        return bool(self.state & _USABLE)

    @property
    def matters(self) -> tuple[bytes, bool]:
        """What a path's resolution depends on: the MAC when there is one to use, and `valid`."""
        return (self.mac if self.usable else b"", self.valid)

    @property
    def managed(self) -> bool:
        return bool(self.ext_flags & NTF_EXT_MANAGED)

    @property
    def users_own(self) -> bool:
        """Set by a person or another daemon, not by ARP or ND: nothing of it is ours to change."""
        return bool(self.state & (NUD_PERMANENT | NUD_NOARP) or self.flags & NTF_EXT_LEARNED)

    @property
    def state_name(self) -> str:
        return _STATES.get(self.state, "none")


def is_host(family: int, address: bytes) -> bool:
    """Could be one host: no group, no limited broadcast, not unspecified. The kernel keeps entries for groups
    too."""
    if family == FAMILY_IP4:
        return address[0] < 224 and any(address)
    return address[0] != 0xFF and any(address)


def is_link_local(family: int, address: bytes) -> bool:
    """fe80::/10: a next hop, but never what a forwarded packet is sent to (RFC 4291 2.5.6)."""
    return family == FAMILY_IP6 and address[0] == 0xFE and address[1] & 0xC0 == 0x80


def parse(message: Message) -> Neighbour | None:
    """RTM_NEWNEIGH or RTM_DELNEIGH; None for what is no neighbour of IP: bridge entries, proxies, groups.
    ValueError: malformed."""
    family = FAMILY_OF_AF.get(message.family)
    if family is None:
        return None
    decoded = messages.decode(messages.NeighbourMessage, message.data)
    address = bytes(decoded.get_attr("NDA_DST") or b"")
    if len(address) != (4 if family == FAMILY_IP4 else 16):
        raise ValueError(f"neighbour's address of {len(address)} bytes")
    if decoded["flags"] & NTF_PROXY or not is_host(family, address):
        return None
    mac = bytes(decoded.get_attr("NDA_LLADDR") or b"")
    return Neighbour(
        ifindex=decoded["ifindex"],
        family=family,
        address=address,
        mac=mac if len(mac) == 6 else NO_MAC,
        state=decoded["state"],
        flags=decoded["flags"],
        ext_flags=decoded.get_attr("NDA_FLAGS_EXT") or 0,
    )


def ifindex_of(message: Message) -> int:
    """The interface of a neighbour message without decoding it: on a busy bridge most are not for us."""
    return int(struct.unpack_from("=i", message.data, 20)[0]) if len(message.data) >= 28 else 0


def dump_request(family: int) -> tuple[int, bytes]:
    return messages.RTM_GETNEIGH, struct.pack("=B3xiHBB", AF_OF_FAMILY[family], 0, 0, 0, 0)


def use_request(key: Key, managed: bool) -> bytes:
    """Body of an RTM_NEWNEIGH that asks the kernel to resolve the neighbour, and to keep it resolved when
    `managed`.

    NTF_USE goes along with NTF_MANAGED: it says the same to kernels that know no managed entries (before
    5.16), and makes __neigh_update (net/core/neighbour.c) leave state and MAC as they are, but for NUD_PERMANENT, which
    it takes away.
    """
    ifindex, family, address = key
    body = struct.pack("=B3xiHBB", AF_OF_FAMILY[family], ifindex, 0, NTF_USE, 0)
    body += struct.pack("=HH", 4 + len(address), _NDA_DST) + address
    if managed:
        body += struct.pack("=HHI", 8, _NDA_FLAGS_EXT, NTF_EXT_MANAGED)
    return body


class NeighbourTable:
    """By (ifindex, family, address)."""

    def __init__(self) -> None:
        self._neighbours: dict[Key, Neighbour] = {}

    def __len__(self) -> int:
        return len(self._neighbours)

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._neighbours.values())

    def get(self, key: Key) -> Neighbour | None:
        return self._neighbours.get(key)

    def put(self, neighbour: Neighbour) -> Neighbour | None:
        """Returns what was there before."""
        before = self._neighbours.get(neighbour.key)
        self._neighbours[neighbour.key] = neighbour
        return before

    def remove(self, key: Key) -> Neighbour | None:
        return self._neighbours.pop(key, None)

    def keys(self) -> set[Key]:
        return set(self._neighbours)

    def on_interface(self, ifindex: int) -> list[Neighbour]:
        return [neighbour for neighbour in self._neighbours.values() if neighbour.ifindex == ifindex]
