"""Groups in the adjacency table: what is set is what is got, and memory lives as long as a reader may need it."""

from __future__ import annotations

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.fib.adjacency import (
    ADJ_ACTION_GROUP,
    MAX_BUCKETS,
    MAX_LEGS,
    MAX_WEIGHT,
    Adjacency,
    AdjacencyTable,
    Group,
    GroupLeg,
)
from ixroute.fib.fib import Fib

MAC = bytes.fromhex("0a0b0c0d0e0f")
LEGS = (GroupLeg(MAC, 1023, 0, 1500, 3), GroupLeg(bytes(6), 2, 62, 0xFFFFFFFF, MAX_WEIGHT))


def test_a_group_is_got_as_it_was_set() -> None:
    with AdjacencyTable(16, 1) as table:
        assert table.get_group(9) is None
        table.set_group(9, LEGS)
        assert table.get_group(9) == Group(LEGS, None)
        assert table.get(9).action == ADJ_ACTION_GROUP
        table.set_group(9, LEGS, [0, 1, 1, 0, 1])
        assert table.get_group(9) == Group(LEGS, (0, 1, 1, 0, 1))
        assert table.get_group(8) is table.get_group(10) is None


def test_one_adjacency_in_its_place_ends_a_group() -> None:
    with AdjacencyTable(16, 1) as table:
        table.set_group(9, LEGS, [0])
        table.set(9, mac=MAC, mtu=1280)
        assert table.get_group(9) is None
        assert table.get(9) == Adjacency(MAC, 0, 0, 1280)
        assert table.take_buckets_used(9) == table.take_legs_used(9) == b""


def test_limits_can_be_reached() -> None:
    with AdjacencyTable(16, 1) as table:
        legs = tuple(LEGS[i % 2] for i in range(MAX_LEGS))
        buckets = tuple(i % MAX_LEGS for i in range(MAX_BUCKETS))
        table.set_group(15, legs, buckets)
        assert table.get_group(15) == Group(legs, buckets)
        assert table.take_legs_used(15) == bytes(MAX_LEGS)
        assert table.take_buckets_used(15) == bytes(MAX_BUCKETS)


@pytest.mark.parametrize(
    ("legs", "buckets"),
    [
        ([], None),
        ([GroupLeg()] * (MAX_LEGS + 1), None),
        ([GroupLeg(weight=0)], None),
        ([GroupLeg(weight=MAX_WEIGHT + 1)], None),
        ([GroupLeg(weight=-1)], None),
        ([GroupLeg(interface=1024)], None),
        ([GroupLeg(interface=1 << 16)], None),
        ([GroupLeg(action=ADJ_ACTION_GROUP)], None),
        ([GroupLeg(mac=b"12345")], None),
        ([GroupLeg(mac=b"1234567")], None),
        ([GroupLeg(mtu=1 << 32)], None),
        ([GroupLeg()], []),
        ([GroupLeg()], [1]),
        ([GroupLeg()], [-1]),
        ([GroupLeg()], [0] * (MAX_BUCKETS + 1)),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    legs: list[GroupLeg], buckets: list[int] | None
) -> None:
    with AdjacencyTable(16, 1) as table:
        table.set_group(9, LEGS)
        with pytest.raises(ValueError, match="adjacency 9"):
            table.set_group(9, legs, buckets)
        assert table.get_group(9) == Group(LEGS, None)


@pytest.mark.parametrize("index", [-1, 0, 7, 16, 1 << 32])
def test_only_entries_of_paths_can_be_groups(index: int) -> None:
    with AdjacencyTable(16, 1) as table, pytest.raises(IndexError):
        table.set_group(index, LEGS)


def test_a_replaced_group_is_kept_while_a_reader_is_in_the_middle_of_a_pass() -> None:
    with Fib() as fib, AdjacencyTable(16, 1, fib) as table:
        epoch, reader = lib.fib_epoch(fib.c), 3
        table.set_group(9, LEGS)
        table.set_group(9, LEGS)
        assert table.retired() == 0, "nobody reads: freed at once"
        lib.epoch_quiesce(epoch, reader)
        for _ in range(3):
            table.set_group(9, LEGS)
        table.set(9)
        assert table.retired() == 4
        lib.epoch_quiesce(epoch, reader)
        table.collect()
        assert table.retired() == 0
        table.set_group(9, LEGS)
        lib.epoch_quiesce(epoch, reader)
        table.set(9)
        assert table.retired() == 1
        lib.epoch_idle(epoch, reader)
        table.set_group(10, LEGS)
        table.set_group(10, LEGS)
        assert table.retired() == 0


def test_without_readers_to_ask_groups_are_kept() -> None:
    with AdjacencyTable(16, 1) as table:
        for _ in range(5):
            table.set_group(9, LEGS)
        table.collect()
        assert table.retired() == 4


def test_c_refuses_what_python_would_not_pass_on() -> None:
    with AdjacencyTable(16, 1) as table:
        legs = ffi.new("struct group_leg[]", [tuple(GroupLeg())])
        assert lib.adjacency_set_group(table.c, 16, legs, 1, ffi.NULL, 0) < 0
        assert lib.adjacency_set_group(table.c, 15, legs, 1, ffi.NULL, 0) == 0
