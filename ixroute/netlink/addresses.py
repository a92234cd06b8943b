"""Addresses of the router: only which IPv4 addresses are its own. What a packet to one of them does is a
route's (table local) to say."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from dataclasses import dataclass

from ixroute.netlink import messages
from ixroute.netlink.contract import FAMILY_IP4, FAMILY_IP6
from ixroute.netlink.sockets import Message

_FAMILIES: dict[int, tuple[int, int]] = {socket.AF_INET: (FAMILY_IP4, 4), socket.AF_INET6: (FAMILY_IP6, 16)}


@dataclass(frozen=True, slots=True)
class Address:
    ifindex: int
    family: int
    address: bytes
    length: int
    broadcast: bytes = b""  # as it was given, if it was


def parse(message: Message) -> Address | None:
    """RTM_NEWADDR or RTM_DELADDR; None for other families. ValueError: malformed."""
    if message.family not in _FAMILIES:
        return None
    family, size = _FAMILIES[message.family]
    decoded = messages.decode(messages.AddressMessage, message.data)
    # IFA_ADDRESS is the peer's on a point-to-point link; IPv6 without a peer has no IFA_LOCAL
    address = bytes(decoded.get_attr("IFA_LOCAL") or decoded.get_attr("IFA_ADDRESS") or b"")
    if len(address) != size:
        raise ValueError(f"address of {len(address)} bytes")
    broadcast = bytes(decoded.get_attr("IFA_BROADCAST") or b"")
    return Address(decoded["index"], family, address, decoded["prefixlen"], broadcast)


def dump_request() -> tuple[int, bytes]:
    return messages.RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)


class AddressTable:
    def __init__(self) -> None:
        self._addresses: set[Address] = set()
        self._ip4: Counter[int] = Counter()  # IPv4 addresses by interface
        self.bared: set[int] = set()
        """Interfaces whose last IPv4 address was deleted, and that got none since."""

    def add(self, address: Address) -> bool:
        """True when it is new."""
        if address in self._addresses:
            return False
        self._addresses.add(address)
        if address.family == FAMILY_IP4:
            self._ip4[address.ifindex] += 1
            self.bared.discard(address.ifindex)
        return True

    def remove(self, address: Address) -> bool:
        if address not in self._addresses:
            return False
        self._addresses.remove(address)
        if address.family == FAMILY_IP4:
            self._ip4[address.ifindex] -= 1
            if not self.has_ip4(address.ifindex):
                self.bared.add(address.ifindex)
        return True

    def replace(self, addresses: set[Address]) -> int:
        """The whole table, from a dump. Returns how many entries differ."""
        different = len(addresses ^ self._addresses)
        before = {ifindex for ifindex, count in self._ip4.items() if count > 0}
        self._addresses = addresses
        self._ip4 = Counter(a.ifindex for a in addresses if a.family == FAMILY_IP4)
        self.bared.update(before)
        self.bared.difference_update(self._ip4)
        return different

    def remove_interface(self, ifindex: int) -> None:
        self.replace({address for address in self._addresses if address.ifindex != ifindex})
        self.bared.discard(ifindex)

    def has_ip4(self, ifindex: int) -> bool:
        """Whether the interface has any IPv4 address."""
        return self._ip4[ifindex] > 0

    def broadcasts_ip4(self) -> set[bytes]:
        """The broadcast addresses of the router's subnets, 4 bytes each (net/ipv4/fib_frontend.c, fib_add_ifaddr)."""
        found = set()
        for address in self._addresses:
            if address.family != FAMILY_IP4:
                continue
            if len(address.broadcast) == 4:
                found.add(address.broadcast)
            if address.length < 31:
                last = int.from_bytes(address.address, "big") | 0xFFFFFFFF >> address.length
                found.add(last.to_bytes(4, "big"))
        return found

    def own_ip4(self) -> list[bytes]:
        return sorted({address.address for address in self._addresses if address.family == FAMILY_IP4})
