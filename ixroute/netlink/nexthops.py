"""Nexthop objects (`ip nexthop`), and the groups made of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ixroute.netlink import messages
from ixroute.netlink.sockets import Message

_GROUP_ENTRY = struct.Struct("=IBBH")  # struct nexthop_grp: id, weight - 1 (low and high byte), reserved
_GROUP_TYPE_MPATH, _GROUP_TYPE_RESILIENT = 0, 1  # NEXTHOP_GRP_TYPE_*
_RES_BUCKETS, _RES_IDLE_TIMER, _RES_UNBALANCED_TIMER = 1, 2, 3  # NHA_RES_GROUP_*
_USER_HZ = 100  # of clock_t in messages, on every architecture we run on


@dataclass(frozen=True, slots=True)
class Member:
    """One of a group, and its weight (1..65535)."""

    id: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class NextHopObject:
    """Of ifindex/gateway, blackhole and members exactly one says what it is. unknown_kind: a group of a type that
    only the kernel knows. The last three are a resilient group's."""

    id: int
    ifindex: int = 0
    gateway: bytes = b""
    blackhole: bool = False
    members: tuple[Member, ...] = ()
    is_group: bool = False
    fdb: bool = False
    encapsulated: bool = False
    unknown_kind: bool = False
    buckets: int = 0
    idle_s: float = 0.0
    unbalanced_s: float = 0.0  # 0: never forced

    @property
    def resilient(self) -> bool:
        return self.buckets > 0


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
    kind = decoded.get_attr("NHA_GROUP_TYPE") or _GROUP_TYPE_MPATH
    resilient = bytes(decoded.get_attr("NHA_RES_GROUP") or b"") if kind == _GROUP_TYPE_RESILIENT else b""
    buckets = _number(resilient, _RES_BUCKETS, "=H")
    return NextHopObject(
        id=identity,
        ifindex=decoded.get_attr("NHA_OIF") or 0,
        gateway=gateway,
        blackhole="NHA_BLACKHOLE" in present,
        members=_members(bytes(decoded.get_attr("NHA_GROUP") or b"")),
        is_group="NHA_GROUP" in present or "NHA_GROUP_TYPE" in present,
        fdb="NHA_FDB" in present,
        encapsulated="NHA_ENCAP_TYPE" in present,
        unknown_kind=kind != _GROUP_TYPE_MPATH and not buckets,
        buckets=buckets,
        idle_s=_number(resilient, _RES_IDLE_TIMER, "=I") / _USER_HZ,
        unbalanced_s=_number(resilient, _RES_UNBALANCED_TIMER, "=I") / _USER_HZ,
    )


def _members(entries: bytes) -> tuple[Member, ...]:
    """Weights have a high byte since Linux 6.12; it was reserved, and 0, before."""
    whole = entries[: len(entries) & ~7]
    return tuple(
        Member(identity, (high << 8 | low) + 1) for identity, low, high, _ in _GROUP_ENTRY.iter_unpack(whole)
    )


def _number(attributes: bytes, kind: int, fmt: str) -> int:
    payload = messages.attribute(attributes, kind)
    return int(struct.unpack_from(fmt, payload)[0]) if payload and len(payload) >= struct.calcsize(fmt) else 0


def dump_request() -> tuple[int, bytes]:
    return messages.RTM_GETNEXTHOP, struct.pack("=BBBBI", 0, 0, 0, 0, 0)


class NextHopTable:
    """By id."""

    def __init__(self) -> None:
        self._objects: dict[int, NextHopObject] = {}
        self.resilient_changes = 0
        """Moves when a resilient group comes, goes or changes."""

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
        if before != nexthop and (nexthop.resilient or (before is not None and before.resilient)):
            self.resilient_changes += 1
        return before

    def remove(self, identity: int) -> NextHopObject | None:
        removed = self._objects.pop(identity, None)
        if removed is not None and removed.resilient:
            self.resilient_changes += 1
        return removed

    def ids(self) -> set[int]:
        return set(self._objects)
