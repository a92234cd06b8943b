"""Buckets of resilient groups: who has how many, which move when, against a slow twin that does as the kernel's text
says, a bucket at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute.netlink.nexthops import Member, NextHopObject, NextHopTable
from ixroute.netlink.resilient import BucketTable, BucketTables, shares


def group(
    weights: dict[int, int], buckets: int = 16, idle: float = 10, unbalanced: float = 0
) -> NextHopObject:
    members = tuple(Member(identity, weight) for identity, weight in weights.items())
    return NextHopObject(
        20, is_group=True, members=members, buckets=buckets, idle_s=idle, unbalanced_s=unbalanced
    )


def counts(table: BucketTable) -> dict[int, int]:
    return dict(Counter(table.owners()))


EVEN = group({1: 1, 2: 1, 3: 1, 4: 1})


@pytest.mark.parametrize(
    ("weights", "buckets", "expected"),
    [
        ({1: 1, 2: 1}, 16, {1: 8, 2: 8}),
        ({1: 1, 2: 3}, 16, {1: 4, 2: 12}),
        ({1: 1, 2: 1, 3: 1}, 16, {1: 5, 2: 6, 3: 5}),
        ({1: 1, 2: 1000}, 4, {1: 0, 2: 4}),
        ({1: 65535, 2: 1}, 65535, {1: 65534, 2: 1}),
        ({1: 7}, 9, {1: 9}),
    ],
)
def test_shares_are_the_bounds_of_the_weights_rounded(
    weights: dict[int, int], buckets: int, expected: dict[int, int]
) -> None:
    assert shares(group(weights).members, buckets) == expected


def test_a_new_table_is_dealt_out_by_the_weights() -> None:
    table = BucketTable(group({1: 1, 2: 3}), 0.0)
    assert counts(table) == {1: 4, 2: 12}
    assert table.balanced


def test_the_buckets_of_a_removed_member_move_at_once_and_no_others() -> None:
    table = BucketTable(EVEN, 0.0)
    before = table.owners()
    table.use(range(16), 1.0)
    assert table.replace(group({1: 1, 2: 1, 4: 1}), 1.0)
    moved = [i for i, (was, now) in enumerate(zip(before, table.owners(), strict=True)) if was != now]
    assert moved == [i for i, owner in enumerate(before) if owner == 3]
    assert set(table.owners()) == {1, 2, 4}


def test_a_new_member_gets_what_is_idle_and_waits_for_the_rest() -> None:
    table = BucketTable(group({1: 1, 2: 1}), 0.0)
    busy = [i for i, owner in enumerate(table.owners()) if owner == 1]
    table.use(busy, 5.0)
    table.replace(group({1: 1, 2: 1, 3: 2}), 6.0)
    assert counts(table) == {1: 8, 2: 4, 3: 4}
    assert not table.balanced
    assert not table.upkeep(14.9)
    assert table.upkeep(15.0)
    assert counts(table) == {1: 4, 2: 4, 3: 8}
    assert table.balanced


def test_busy_buckets_never_move_without_an_unbalanced_timer() -> None:
    table = BucketTable(group({1: 1}), 0.0)
    table.use(range(16), 1.0)
    table.replace(group({1: 1, 2: 1}), 1.0)
    for second in range(2, 500):
        table.use(range(16), float(second))
        assert not table.upkeep(float(second))
    assert counts(table) == {1: 16}


def test_busy_buckets_are_forced_when_the_unbalanced_timer_has_run_out() -> None:
    table = BucketTable(group({1: 1}, unbalanced=60), 0.0)
    table.use(range(16), 100.0)
    table.replace(group({1: 1, 2: 1}, unbalanced=60), 100.0)
    for second in range(101, 161):
        table.use(range(16), float(second))
        assert not table.upkeep(float(second))
    table.use(range(16), 161.0)
    assert table.upkeep(161.0)
    assert counts(table) == {1: 8, 2: 8}


def test_the_unbalanced_time_begins_with_the_first_imbalance_not_with_the_last_replacement() -> None:
    table = BucketTable(group({1: 1}, unbalanced=60), 0.0)
    table.use(range(16), 100.0)
    table.replace(group({1: 1, 2: 1}, unbalanced=60), 100.0)
    table.use(range(16), 150.0)
    table.replace(group({1: 1, 2: 2}, unbalanced=60), 150.0)
    table.use(range(16), 160.5)
    assert table.upkeep(160.5)
    assert table.balanced


def test_a_group_without_members_or_buckets_has_no_table() -> None:
    with pytest.raises(ValueError, match="no resilient group"):
        BucketTable(replace(EVEN, buckets=0), 0.0)
    with pytest.raises(ValueError, match="no resilient group"):
        BucketTable(replace(EVEN, members=()), 0.0)


def test_tables_come_and_go_with_their_objects() -> None:
    objects, tables = NextHopTable(), BucketTables()
    objects.put(NextHopObject(1, ifindex=3))
    assert not tables.outdated(objects)
    objects.put(EVEN)
    assert tables.outdated(objects)
    assert tables.follow(objects, 0.0) == [20]
    assert not tables.outdated(objects)
    assert tables.follow(objects, 0.0) == []
    objects.put(replace(EVEN, idle_s=99))
    assert tables.outdated(objects)
    assert tables.follow(objects, 1.0) == []  # nothing moved
    table = tables.get(20)
    assert table is not None
    assert table.group.idle_s == 99
    objects.put(replace(EVEN, buckets=32))
    assert tables.follow(objects, 1.0) == [20]
    tables.use(20, bytes([1] * 40), 2.0)  # more marks than buckets
    tables.use(99, b"\1", 2.0)
    objects.remove(20)
    assert tables.outdated(objects)
    assert tables.follow(objects, 2.0) == []
    assert (len(tables), tables.upkeep(3.0)) == (0, [])


# ---- the slow twin


@dataclass
class Twin:
    """Looks at everything anew for every bucket, and keeps no sums."""

    members: tuple[Member, ...]
    idle: float
    unbalanced: float
    since: float = 0.0
    owner: list[int | None] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    migrated: list[float] = field(default_factory=list)

    def wants(self, identity: int) -> int:
        total = sum(m.weight for m in self.members)
        position = [m.id for m in self.members].index(identity)

        def bound(n: int) -> int:
            exact = len(self.owner) * sum(m.weight for m in self.members[:n])
            return exact // total + (1 if 2 * (exact % total) >= total else 0)

        return bound(position + 1) - bound(position)

    def underweight(self) -> list[int]:
        return [m.id for m in self.members if self.owner.count(m.id) < self.wants(m.id)]

    def move(self, now: float, order: list[int]) -> None:
        """order: members that lack buckets, as they were when this began; the last is filled first."""
        for i, owner in enumerate(self.owner):
            lacking = [m for m in order if self.owner.count(m) < self.wants(m)]
            if not lacking:
                return
            if owner is not None:
                if self.owner.count(owner) <= self.wants(owner):
                    continue
                idle = self.used[i] == self.migrated[i] or now - self.used[i] >= self.idle
                forced = self.unbalanced > 0 and now > self.since + self.unbalanced
                if not idle and not forced:
                    continue
            self.owner[i] = lacking[-1]
            self.used[i] = self.migrated[i] = now

    def replace(self, new: NextHopObject, now: float) -> None:
        was_balanced = not self.underweight()
        self.members, self.idle, self.unbalanced = new.members, new.idle_s, new.unbalanced_s
        there = {m.id for m in self.members}
        self.owner = [owner if owner in there else None for owner in self.owner]
        if was_balanced and self.underweight():
            self.since = now
        self.move(now, self.underweight())


weights = st.dictionaries(
    st.integers(1, 6), st.integers(1, 9) | st.integers(1, 65535), min_size=1, max_size=6
)
steps = st.lists(
    st.tuples(st.just("replace"), weights, st.integers(0, 12), st.integers(0, 20))
    | st.tuples(st.just("use"), st.sets(st.integers(0, 40)))
    | st.tuples(st.just("wait"), st.integers(1, 8)),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(first=weights, buckets=st.integers(1, 40), steps=steps)
def test_a_table_is_what_the_twin_is_after_each_step(
    first: dict[int, int], buckets: int, steps: list[tuple[object, ...]]
) -> None:
    now = 1.0
    start = group(first, buckets)
    table = BucketTable(start, now)
    twin = Twin(start.members, start.idle_s, start.unbalanced_s, now, [None] * buckets)
    twin.used, twin.migrated = [0.0] * buckets, [0.0] * buckets
    twin.move(now, twin.underweight())
    assert list(table.owners()) == twin.owner
    for step in steps:
        before = table.owners()
        match step:
            case ("replace", dict(new), int(idle), int(unbalanced)):
                wanted = group(new, buckets, idle, unbalanced)
                moved = table.replace(wanted, now)
                twin.replace(wanted, now)
            case ("use", set(marks)):
                now += 0.5
                table.use(marks, now)
                twin.used = [now if i in marks else used for i, used in enumerate(twin.used)]
                moved = False
            case ("wait", int(seconds)):
                now += seconds
                moved = table.upkeep(now)
                twin.move(now, twin.underweight())
        assert list(table.owners()) == twin.owner
        assert moved == (before != table.owners())
        assert table.balanced == (not twin.underweight())
