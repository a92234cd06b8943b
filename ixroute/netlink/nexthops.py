"""Nexthop objects (`ip nexthop`), and the groups made of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ixroute.netlink import messages
from ixroute.netlink.sockets import Message

_GROUP_ENTRY = struct.Struct("=IBBH")  # struct nexthop_grp: id, weight - 1 (low), weight (high), reserved


@dataclass(frozen=True, slots=True)
class NextHopObject:
    """Of ifindex/gateway, blackhole and group exactly one says what it is."""

    id: int
    ifindex: int = 0
    gateway: bytes = b""
    blackhole: bool = False
    group: tuple[int, ...] = ()
    is_group: bool = False
    fdb: bool = False
    encapsulated: bool = False


def parse(message: Message) -> NextHopObject:
    """RTM_NEWNEXTHOP or RTM_DELNEXTHOP. ValueError: malformed."""
    decoded = messages.decode(messages.NextHopMessage, message.data)
    present = messages.names(decoded)
    identity = decoded.get_attr("NHA_ID")
    if not identity:
        raise ValueError("nexthop without an id")
    gateway = bytes(decoded.get_attr("NHA_GATEWAY") or b"")
    if len(gateway) not in (0, 4, 16):
        raise ValueError(f"gateway of {len(gateway)} bytes")
    members = bytes(decoded.get_attr("NHA_GROUP") or b"")
    return NextHopObject(
        id=identity,
        ifindex=decoded.get_attr("NHA_OIF") or 0,
        gateway=gateway,
        blackhole="NHA_BLACKHOLE" in present,
        group=tuple(entry[0] for entry in _GROUP_ENTRY.iter_unpack(members[: len(members) & ~7])),
        is_group="NHA_GROUP" in present or "NHA_GROUP_TYPE" in present,
        fdb="NHA_FDB" in present,
        encapsulated="NHA_ENCAP_TYPE" in present,
    )


def dump_request() -> tuple[int, bytes]:
    return messages.RTM_GETNEXTHOP, struct.pack("=BBBBI", 0, 0, 0, 0, 0)


class NextHopTable:
    """By id."""

    def __init__(self) -> None:
        self._objects: dict[int, NextHopObject] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[NextHopObject]:
        return iter(self._objects.values())

    def get(self, identity: int) -> NextHopObject | None:
        return self._objects.get(identity)

    def put(self, nexthop: NextHopObject) -> NextHopObject | None:
        """Returns what was there before."""
        before = self._objects.get(nexthop.id)
        self._objects[nexthop.id] = nexthop
        return before

    def remove(self, identity: int) -> NextHopObject | None:
        return self._objects.pop(identity, None)

    def ids(self) -> set[int]:
        return set(self._objects)
