"""Buckets of resilient nexthop groups (`ip nexthop … type resilient`): which member each bucket belongs to.

Pure: time comes in as an argument, and so does what packets used. The rules are those of the kernel's
nh_res_table_upkeep (net/ipv4/nexthop.c): the buckets of a removed member go to others at once; those of a member
with more than its share go to one with less when they have been idle for idle_timer, or are forced to when the
table has been out of balance for unbalanced_timer; no other bucket ever moves.

Why not the kernel's own bucket table, which a dump would show: the kernel sees none of the packets that workers
forward, so that to it every bucket is idle. It would move flows under traffic, and its timers would mean nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ixroute.netlink.nexthops import Member, NextHopObject, NextHopTable

NOBODY = 0  # no nexthop object has this id


@dataclass(slots=True)
class _Bucket:
    member: int = NOBODY
    used: float = 0.0
    migrated: float = 0.0

    def idle_since_it_moved(self) -> bool:
        return self.used == self.migrated


def shares(members: Sequence[Member], n_buckets: int) -> dict[int, int]:
    """How many buckets each member shall have: bounds of the running sum of weights, rounded to the nearest
    (nh_res_group_rebalance)."""
    total = sum(member.weight for member in members)
    wants: dict[int, int] = {}
    weight, before = 0, 0
    for member in members:
        weight += member.weight
        bound = (2 * n_buckets * weight + total) // (2 * total)
        wants[member.id] = bound - before
        before = bound
    return wants


class BucketTable:
    """One group's. `members` below are the object's, in its order."""

    def __init__(self, group: NextHopObject, now: float) -> None:
        """ValueError: not a resilient group with members."""
        if not group.resilient or not group.members:
            raise ValueError(f"nexthop {group.id} is no resilient group with members")
        self.group = group
        self._buckets = [_Bucket() for _ in range(group.buckets)]
        self._unbalanced_since = now
        self._wants = shares(group.members, len(self._buckets))
        self._has: Counter[int] = Counter()
        self._move(now)

    def __len__(self) -> int:
        return len(self._buckets)

    def owners(self) -> tuple[int, ...]:
        """The id of the member that each bucket belongs to."""
        return tuple(bucket.member for bucket in self._buckets)

    @property
    def balanced(self) -> bool:
        """Nobody has less than its share (so nobody has more)."""
        return not self._underweight()

    def replace(self, group: NextHopObject, now: float) -> bool:
        """The object has other members, weights or timers, and as many buckets (the kernel refuses another number).
        True when a bucket moved."""
        was_balanced = self.balanced
        self.group = group
        self._wants = shares(group.members, len(self._buckets))
        for bucket in self._buckets:
            if bucket.member not in self._wants:
                bucket.member = NOBODY
        self._has = Counter(bucket.member for bucket in self._buckets if bucket.member != NOBODY)
        if was_balanced and not self.balanced:
            self._unbalanced_since = now
        return self._move(now)

    def use(self, buckets: Iterable[int], now: float) -> None:
        """Packets went through these lately. Numbers beyond the table are ignored."""
        for index in buckets:
            if index < len(self._buckets):
                self._buckets[index].used = now

    def upkeep(self, now: float) -> bool:
        """What time allows to move. True when a bucket moved."""
        return self._move(now)

    def _underweight(self) -> list[int]:
        return [member for member, wants in self._wants.items() if self._has[member] < wants]

    def _move(self, now: float) -> bool:
        waiting = self._underweight()
        moved = False
        for bucket in self._buckets:
            if not waiting:
                break
            if not self._may_move(bucket, now):
                continue
            if bucket.member != NOBODY:
                self._has[bucket.member] -= 1
            # the kernel puts each on the head of its list, so that the last member comes first
            bucket.member = waiting[-1]
            bucket.used = bucket.migrated = now
            self._has[bucket.member] += 1
            moved = True
            if self._has[bucket.member] == self._wants[bucket.member]:
                waiting.pop()
        return moved

    def _may_move(self, bucket: _Bucket, now: float) -> bool:
        if bucket.member == NOBODY:
            return True
        if self._has[bucket.member] <= self._wants[bucket.member]:
            return False
        if bucket.idle_since_it_moved() or now >= bucket.used + self.group.idle_s:
            return True
        unbalanced_s = self.group.unbalanced_s
        return bool(unbalanced_s) and now > self._unbalanced_since + unbalanced_s


class BucketTables:
    """By the id of the group; kept equal to the objects there are."""

    def __init__(self) -> None:
        self._tables: dict[int, BucketTable] = {}
        self._changes = 0

    def __len__(self) -> int:
        return len(self._tables)

    def get(self, identity: int) -> BucketTable | None:
        return self._tables.get(identity)

    def ids(self) -> list[int]:
        return list(self._tables)

    def outdated(self, nexthops: NextHopTable) -> bool:
        """follow() has something to do. Whoever can tell what was used lately does so before."""
        return nexthops.resilient_changes != self._changes

    def follow(self, nexthops: NextHopTable, now: float) -> list[int]:
        """Makes, changes and removes tables as the objects say. Ids of groups whose buckets moved."""
        self._changes = nexthops.resilient_changes
        groups = {nexthop.id: nexthop for nexthop in nexthops if nexthop.resilient and nexthop.members}
        for identity in self._tables.keys() - groups.keys():
            del self._tables[identity]
        return [identity for identity, group in groups.items() if self._follow_one(group, now)]

    def _follow_one(self, group: NextHopObject, now: float) -> bool:
        table = self._tables.get(group.id)
        if table is None or len(table) != group.buckets:
            self._tables[group.id] = BucketTable(group, now)
            return True
        return table.group != group and table.replace(group, now)

    def use(self, identity: int, marks: bytes, now: float) -> None:
        """marks: a byte for each bucket, not 0 when packets went through it lately."""
        table = self._tables.get(identity)
        if table is not None:
            table.use((index for index, mark in enumerate(marks) if mark), now)

    def upkeep(self, now: float) -> list[int]:
        """Ids of groups whose buckets moved."""
        return [identity for identity, table in self._tables.items() if table.upkeep(now)]
