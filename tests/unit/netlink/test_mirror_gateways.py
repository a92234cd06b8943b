"""Which neighbours are kept resolved, and whose marks are whose."""

from __future__ import annotations

import errno
import itertools

import pytest
from netlink_fakes import MAC, FakePath, FakeRib, Leg, ip

from ixroute.netlink.gateways import GatewayKeeper, stale_in_use
from ixroute.netlink.links import IFF_UP, Link
from ixroute.netlink.neighbours import (
    NTF_EXT_LEARNED,
    NTF_EXT_MANAGED,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_REACHABLE,
    NUD_STALE,
    Neighbour,
    NeighbourTable,
    use_request,
)
from ixroute.netlink.paths import Known, PathIndex
from ixroute.netlink.resolve import Adjacency, Route, Tables
from ixroute.netlink.resolve import Leg as ResolvedLeg
from ixroute.netlink.wanted import wanted_gateways

KEY = (10, 4, ip("10.0.0.1"))
OTHER = (10, 4, ip("10.0.0.2"))


class Asked(list[tuple[object, bool, bool]]):
    """What the kernel was asked: (neighbour, managed, create)."""

    def __call__(self, key: object, managed: bool, create: bool) -> None:
        self.append((key, managed, create))

    def take(self) -> list[tuple[object, bool, bool]]:
        taken = list(self)
        self.clear()
        return taken


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def keeper(asked: Asked) -> GatewayKeeper:
    return GatewayKeeper(asked)


def entry(
    key: tuple[int, int, bytes] = KEY, state: int = NUD_REACHABLE, *, managed: bool = False, flags: int = 0
) -> Neighbour:
    return Neighbour(*key, MAC, state, flags, NTF_EXT_MANAGED if managed else 0)


def table(*neighbours: Neighbour) -> NeighbourTable:
    neighbour_table = NeighbourTable()
    for neighbour in neighbours:
        neighbour_table.put(neighbour)
    return neighbour_table


def test_an_unknown_gateway_is_created_managed(keeper: GatewayKeeper, asked: Asked) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table())
    assert asked.take() == [(KEY, True, True)]


def test_only_an_entry_that_nobody_has_is_created(keeper: GatewayKeeper, asked: Asked) -> None:
    keeper.want_exactly({KEY, OTHER}, 0.0)
    keeper.run(0.0, table(entry()))
    assert sorted(asked.take(), key=str) == [(KEY, True, False), (OTHER, True, True)]


def test_a_known_gateway_is_marked_once_and_then_left_alone(keeper: GatewayKeeper, asked: Asked) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table(entry()))
    assert asked.take() == [(KEY, True, False)]
    for now in (0.1, 1.0, 10.0, 100.0):
        keeper.run(now, table(entry(managed=True)))
    assert asked.take() == []


def test_a_mark_that_does_not_appear_is_asked_for_again_ever_more_slowly(
    keeper: GatewayKeeper, asked: Asked
) -> None:
    keeper.want_exactly({KEY}, 0.0)
    times = []
    for tenths in range(300):
        keeper.run(tenths / 10, table(entry()))
        times += [tenths / 10] * len(asked.take())
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < 1
    assert max(gaps) <= 5.01
    assert gaps == sorted(gaps) or gaps[-1] >= 4.9


@pytest.mark.parametrize(
    "own",
    [entry(state=NUD_PERMANENT), entry(state=NUD_NOARP), entry(flags=NTF_EXT_LEARNED)],
    ids=["permanent", "noarp", "learned by another daemon"],
)
def test_what_users_made_is_never_touched(keeper: GatewayKeeper, asked: Asked, own: Neighbour) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table(own))
    keeper.want_exactly(set(), 1.0)
    keeper.run(1.0, table(own))
    assert asked.take() == []
    assert keeper.count == 0


def test_the_mark_of_a_gateway_no_longer_used_is_taken_back(keeper: GatewayKeeper, asked: Asked) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table())
    asked.take()
    keeper.want_exactly(set(), 1.0)
    keeper.run(1.0, table(entry(managed=True)))
    assert asked.take() == [(KEY, False, False)]
    assert keeper.count == 0


def test_a_mark_that_somebody_else_set_stays(keeper: GatewayKeeper, asked: Asked) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table(entry(managed=True)))
    keeper.want_exactly(set(), 1.0)
    keeper.run(1.0, table(entry(managed=True)))
    assert asked.take() == []


def test_an_entry_a_user_made_permanent_meanwhile_keeps_what_the_user_gave_it(
    keeper: GatewayKeeper, asked: Asked
) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table())
    asked.take()
    keeper.want_exactly(set(), 1.0)
    keeper.run(1.0, table(entry(state=NUD_PERMANENT, managed=True)))
    assert asked.take() == []


def test_a_gateway_wanted_again_before_its_mark_went_keeps_it(keeper: GatewayKeeper, asked: Asked) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table())
    asked.take()
    keeper.want_exactly(set(), 1.0)
    keeper.want({KEY}, 1.0)
    keeper.run(1.0, table(entry(managed=True)))
    assert asked.take() == []
    assert keeper.count == 1


def test_at_the_end_all_our_marks_go_and_only_ours(keeper: GatewayKeeper, asked: Asked) -> None:
    theirs = entry(OTHER, managed=True)
    keeper.want_exactly({KEY, OTHER}, 0.0)
    keeper.run(0.0, table(theirs))
    asked.take()
    keeper.unmark_all(table(theirs, entry(managed=True)))
    assert asked.take() == [(KEY, False, False)]


def test_a_kernel_without_managed_entries_gets_probes(keeper: GatewayKeeper, asked: Asked) -> None:
    keeper.want_exactly({KEY}, 0.0)
    keeper.run(0.0, table())
    asked.take()
    assert keeper.refused(errno.EOPNOTSUPP)
    keeper.run(10.0, table(entry()))
    assert asked.take() == [(KEY, False, False)]


def test_an_error_that_is_not_about_marks_changes_nothing(keeper: GatewayKeeper) -> None:
    assert not keeper.refused(errno.EPERM)
    assert not keeper.marks_refused


def test_one_pass_asks_a_bounded_number_of_times(keeper: GatewayKeeper, asked: Asked) -> None:
    keys = {(10, 4, (index + 1).to_bytes(4, "big")) for index in range(1000)}
    keeper.want_exactly(keys, 0.0)
    keeper.run(0.0, table())
    assert len(asked) == 256
    for _ in range(3):
        keeper.run(0.0, table())
    assert {key for key, _, _ in asked} == keys


def test_a_request_says_use_even_where_managed_is_not_known() -> None:
    with_mark, without = use_request(KEY, True), use_request(KEY, False)
    assert with_mark[10] & 1
    assert without[10] & 1
    assert len(with_mark) == len(without) + 8


@pytest.mark.parametrize(
    ("neighbour", "used", "probed"),
    [
        (entry(state=NUD_STALE), b"\x00\x01", True),
        (entry(state=NUD_STALE), b"\x00\x02", False),
        (entry(state=NUD_STALE), b"", False),
        (entry(state=NUD_REACHABLE), b"\x00\x01", False),
        (entry(state=NUD_STALE, managed=True), b"\x00\x01", False),
        (entry(state=NUD_STALE, flags=NTF_EXT_LEARNED), b"\x00\x01", False),
    ],
    ids=["in use", "not in use", "nothing known", "reachable", "managed", "a user's"],
)
def test_hosts_are_probed_when_stale_and_in_use(
    keeper: GatewayKeeper, neighbour: Neighbour, used: bytes, probed: bool
) -> None:
    found = stale_in_use(table(neighbour), lambda key: [8], used, keeper)
    assert found == ([KEY] if probed else [])


def test_a_gateway_is_what_routes_use_beyond_the_neighbours_own_prefix() -> None:
    rib, paths, tables = FakeRib(), PathIndex(), Tables(ports={10: 3}, interfaces={10: 3})
    tables.links.put(Link(10, "lan", flags=IFF_UP, mtu=1500, carrier=True))

    def put(path_id: int, leg: Leg, users: int, mtu: int = 0) -> None:
        path = FakePath(legs=(leg,), mtu=mtu)
        rib.put(path_id, path, users)
        paths.put(
            path_id, Known(path, Route(legs=(ResolvedLeg(leg.ifindex, leg.gateway or b""),)), Adjacency(0))
        )

    put(8, Leg(10, ip("10.0.0.1")), users=1)  # only the neighbour's own prefix
    put(9, Leg(10, ip("10.0.0.2")), users=2)  # and a route
    put(10, Leg(10, ip("10.0.0.3")), users=1, mtu=1400)  # a route: no prefix of a neighbour has an MTU
    put(11, Leg(10), users=1)  # connected
    put(13, Leg(10, ip("fe80::1")), users=1)  # an IPv4 route over an IPv6 gateway
    put(12, Leg(99, ip("10.9.0.1")), users=1)  # not a port
    assert wanted_gateways(paths, tables, rib, lambda key: True) == {
        (10, 4, ip("10.0.0.2")),
        (10, 4, ip("10.0.0.3")),
        (10, 6, ip("fe80::1")),
    }
    tables.links.put(Link(10, "lan", flags=0))
    assert wanted_gateways(paths, tables, rib, lambda key: True) == set()
