"""What packets do on a path of several next hops: which legs count, whose the flows of the others become, and when
the kernel must choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from netlink_fakes import ACTIONS, MAC, FakePath, ip, nexthop_message
from netlink_fakes import Leg as PathLeg

from ixroute.fib.adjacency import MAX_LEGS, MAX_WEIGHT, GroupLeg
from ixroute.netlink import nexthops
from ixroute.netlink.links import IFF_NOARP, IFF_UP, Link
from ixroute.netlink.neighbours import (
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_REACHABLE,
    NUD_STALE,
    Neighbour,
)
from ixroute.netlink.nexthops import Member, NextHopObject
from ixroute.netlink.resolve import Adjacency, Group, Tables, flatten, resolve
from ixroute.netlink.sysctls import InterfaceSysctls, MultipathSysctls

A, B, C, NOT_A_PORT = 10, 11, 12, 19
PORT_OF = {A: 1, B: 2, C: 3}
GW4 = {A: ip("10.1.0.1"), B: ip("10.2.0.1"), C: ip("10.3.0.1")}
GW6 = {A: ip("fe80::1"), B: ip("fe80::2"), C: ip("fe80::3")}
MACS = {ifindex: bytes([2, 0, 0, 0, ifindex, 1]) for ifindex in (A, B, C)}

LEGS4 = tuple(PathLeg(ifindex, GW4[ifindex], weight) for ifindex, weight in ((A, 1), (B, 2), (C, 3)))
LEGS6 = tuple(PathLeg(ifindex, GW6[ifindex], weight) for ifindex, weight in ((A, 1), (B, 2), (C, 3)))
PATH4 = FakePath(legs=LEGS4)
PATH6 = FakePath(family=6, legs=LEGS6)
BY_ID = FakePath(nhid=20, legs=LEGS4)

EXTERNAL, MULTIPATH = Adjacency(ACTIONS.external_route), Adjacency(ACTIONS.multipath_route)

Change = Callable[[Tables], object]
Answer = Adjacency | list[tuple[int, int]]
"""What is forwarded by whom: (interface, weight) of each leg in order; or one adjacency."""


def ordinary() -> Tables:
    """Three ports up, a reachable gateway of each family on each, and nexthop objects 7, 8, 9 by them."""
    tables = Tables(ports=dict(PORT_OF), interfaces=dict(PORT_OF))
    for ifindex in (A, B, C, NOT_A_PORT):
        tables.links.put(Link(ifindex, f"if{ifindex}", flags=IFF_UP, mtu=1500, carrier=True))
    for ifindex in (A, B, C):
        tables.neighbours.put(Neighbour(ifindex, 4, GW4[ifindex], MACS[ifindex], NUD_REACHABLE))
        tables.neighbours.put(Neighbour(ifindex, 6, GW6[ifindex], MACS[ifindex], NUD_REACHABLE))
    for number, ifindex in ((7, A), (8, B), (9, C)):
        tables.nexthops.put(NextHopObject(number, ifindex=ifindex, gateway=GW4[ifindex]))
    tables.nexthops.put(NextHopObject(20, is_group=True, members=(Member(7), Member(8, 2), Member(9, 3))))
    return tables


def leg(ifindex: int, weight: int, mtu: int = 1500) -> GroupLeg:
    return GroupLeg(MACS[ifindex], PORT_OF[ifindex], ACTIONS.forward, mtu, weight)


def one(ifindex: int) -> Adjacency:
    return Adjacency(ACTIONS.forward, PORT_OF[ifindex], MACS[ifindex], 1500)


def neighbour(ifindex: int, state: int, family: int = 4, mac: bytes = MAC) -> Change:
    gateway = (GW4 if family == 4 else GW6)[ifindex]
    return lambda tables: tables.neighbours.put(Neighbour(ifindex, family, gateway, mac, state))


def no_neighbour(ifindex: int) -> Change:
    return lambda tables: tables.neighbours.remove((ifindex, 4, GW4[ifindex]))


def link(ifindex: int, **changes: object) -> Change:
    return lambda tables: tables.links.put(replace(tables.links.get(ifindex), **changes))


def gone(ifindex: int) -> Change:
    return lambda tables: (tables.links.remove(ifindex), tables.interfaces.pop(ifindex))


def sysctl(ifindex: int, **values: object) -> Change:
    return lambda tables: tables.sysctls.update({ifindex: InterfaceSysctls(**values)})


def use_neigh(tables: Tables) -> None:
    tables.multipath = MultipathSysctls(use_neigh=True)


def bared(ifindex: int) -> Change:
    return lambda tables: tables.bared.add(ifindex)


def group(**changes: object) -> Change:
    def change(tables: Tables) -> None:
        before = tables.nexthops.get(20)
        assert before is not None
        tables.nexthops.put(replace(before, **changes))

    return change


def member(number: int, **changes: object) -> Change:
    def change(tables: Tables) -> None:
        before = tables.nexthops.get(number)
        assert before is not None
        tables.nexthops.put(replace(before, **changes))

    return change


def both(*changes: Change) -> Change:
    return lambda tables: [change(tables) for change in changes]


def nothing(tables: Tables) -> None:
    pass


FAILED_B = neighbour(B, NUD_FAILED)
NO_CARRIER_B = link(B, carrier=False)
ALL_DEAD = both(*(link(ifindex, flags=0) for ifindex in (A, B, C)))
ALL_FAILED = both(*(neighbour(ifindex, NUD_FAILED) for ifindex in (A, B, C)))
EVERY_LEG = [(A, 1), (B, 2), (C, 3)]
WITHOUT_B = [(A, 1), (C, 3)]
B_TO_C = [(A, 1), (C, 2), (C, 3)]

CASES: list[tuple[str, FakePath, Change, Answer]] = [
    ("all legs of an IPv4 route, by their weights", PATH4, nothing, EVERY_LEG),
    ("all siblings of an IPv6 route", PATH6, nothing, EVERY_LEG),
    ("all members of a group", BY_ID, nothing, EVERY_LEG),
    ("IPv6 gateways of an IPv4 route (RFC 8950)", FakePath(legs=LEGS6), nothing, EVERY_LEG),
    (
        "one of each family",
        FakePath(legs=(LEGS6[0], LEGS4[1])),
        nothing,
        [(A, 1), (B, 2)],
    ),
    ("a leg's interface lost its last IPv4 address", PATH4, bared(B), MULTIPATH),
    ("the same by an IPv6 gateway", FakePath(legs=LEGS6), bared(B), MULTIPATH),
    ("the same of an IPv6 route", PATH6, bared(B), EVERY_LEG),
    ("the same of members of a group", BY_ID, bared(B), EVERY_LEG),
    ("the same of a leg that is dead anyhow", PATH4, both(bared(B), link(B, flags=0)), WITHOUT_B),
    ("two by one port", FakePath(legs=(LEGS4[0], PathLeg(A, GW4[A]))), nothing, [(A, 1), (A, 1)]),
    # dead legs
    ("a leg whose interface is down", PATH4, link(B, flags=0), WITHOUT_B),
    ("a sibling whose interface is down", PATH6, link(B, flags=0), WITHOUT_B),
    ("a leg whose interface is gone", PATH4, gone(B), WITHOUT_B),
    ("a leg without carrier still counts", PATH4, NO_CARRIER_B, EVERY_LEG),
    ("a sibling without carrier still counts", PATH6, NO_CARRIER_B, EVERY_LEG),
    (
        "a leg without carrier that is to be ignored",
        PATH4,
        both(NO_CARRIER_B, sysctl(B, ignore_linkdown4=True)),
        WITHOUT_B,
    ),
    (
        "a sibling without carrier that is to be ignored",
        PATH6,
        both(NO_CARRIER_B, sysctl(B, ignore_linkdown6=True)),
        WITHOUT_B,
    ),
    (
        "IPv6's ignore_routes_with_linkdown is not IPv4's",
        PATH4,
        both(NO_CARRIER_B, sysctl(B, ignore_linkdown6=True)),
        EVERY_LEG,
    ),
    (
        "another interface's ignore_routes_with_linkdown",
        PATH4,
        both(NO_CARRIER_B, sysctl(A, ignore_linkdown4=True)),
        EVERY_LEG,
    ),
    ("one leg alive is that leg", PATH4, both(link(A, flags=0), link(B, flags=0)), one(C)),
    ("no leg alive: another route's turn", PATH4, ALL_DEAD, EXTERNAL),
    ("no sibling alive", PATH6, ALL_DEAD, EXTERNAL),
    # neighbours
    ("a failed neighbour's leg keeps its flows without use_neigh", PATH4, FAILED_B, [(A, 1), (B, 2), (C, 3)]),
    ("with use_neigh its flows are the next leg's", PATH4, both(use_neigh, FAILED_B), B_TO_C),
    (
        "the last leg's flows are the first good one's",
        PATH4,
        both(use_neigh, neighbour(C, NUD_INCOMPLETE, mac=bytes(6))),
        [(A, 1), (B, 2), (A, 3)],
    ),
    (
        "the first good one is not the first",
        PATH4,
        both(use_neigh, neighbour(A, NUD_FAILED), neighbour(C, NUD_FAILED)),
        one(B),
    ),
    ("no neighbour entry is no bad sign", PATH4, both(use_neigh, no_neighbour(B)), EVERY_LEG),
    (
        "all failed: the first, whose packets the kernel gets",
        PATH4,
        both(use_neigh, ALL_FAILED),
        Adjacency(ACTIONS.unresolved_neigh, PORT_OF[A], mtu=1500),
    ),
    ("siblings are not asked about their neighbours", PATH6, both(use_neigh, neighbour(B, NUD_FAILED, 6)), EVERY_LEG),
    ("members of a group are always asked", BY_ID, FAILED_B, B_TO_C),
    ("stale is good", BY_ID, neighbour(B, NUD_STALE, mac=MACS[B]), EVERY_LEG),
    ("permanent is good", BY_ID, neighbour(B, NUD_PERMANENT, mac=MACS[B]), EVERY_LEG),
    ("noarp is good", BY_ID, neighbour(B, NUD_NOARP, mac=MACS[B]), EVERY_LEG),
    # what only the kernel can choose from
    ("a leg without gateway", FakePath(legs=(*LEGS4, PathLeg(A))), nothing, MULTIPATH),
    ("a dead leg without gateway", FakePath(legs=(*LEGS4[1:], PathLeg(A))), link(A, flags=0), [(B, 2), (C, 3)]),
    ("a leg that is not ours", FakePath(legs=(*LEGS4, PathLeg(NOT_A_PORT, GW4[A]))), nothing, MULTIPATH),
    ("a leg by an interface without ARP", PATH4, link(B, flags=IFF_UP | IFF_NOARP), MULTIPATH),
    ("a path that only the kernel follows", replace(PATH4, kernel_only=True), nothing, EXTERNAL),
    ("a member without gateway", BY_ID, member(8, gateway=b""), MULTIPATH),
    ("a member with an encapsulation", BY_ID, member(8, encapsulated=True), EXTERNAL),
    ("a member for a bridge", BY_ID, member(8, fdb=True), EXTERNAL),
    ("a group for a bridge", BY_ID, group(fdb=True), EXTERNAL),
    ("a group of an unknown kind", BY_ID, group(unknown_kind=True), EXTERNAL),
    ("a member that is a blackhole", BY_ID, member(8, blackhole=True), MULTIPATH),
    ("a member that is a group", BY_ID, member(8, is_group=True), EXTERNAL),
    ("a member that is not there", BY_ID, lambda tables: tables.nexthops.remove(8), EXTERNAL),
    ("a resilient group whose buckets are not dealt out", BY_ID, group(buckets=8), MULTIPATH),
    (
        "more legs than a group can hold",
        FakePath(legs=tuple(PathLeg(A, GW4[A]) for _ in range(MAX_LEGS + 1))),
        nothing,
        MULTIPATH,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "change", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_path_of_several_legs_resolves_to(path: FakePath, change: Change, expected: Answer) -> None:
    tables = ordinary()
    change(tables)
    answer = resolve(path, flatten(path, tables.nexthops, ACTIONS), tables, ACTIONS)
    if isinstance(expected, Adjacency):
        assert answer == expected
        return
    assert isinstance(answer, Group)
    assert [(leg.interface, leg.weight) for leg in answer.legs] == [
        (PORT_OF[i], weight) for i, weight in expected
    ]
    assert [hop.ifindex for hop in answer.hops] == [i for i, _ in expected]


def resolved(path: FakePath, tables: Tables) -> Group:
    answer = resolve(path, flatten(path, tables.nexthops, ACTIONS), tables, ACTIONS)
    assert isinstance(answer, Group)
    return answer


def test_each_leg_has_its_own_mac_and_all_have_one_mtu() -> None:
    tables = ordinary()
    for ifindex in (A, B, C):
        link(ifindex, mtu=1400)(tables)
    assert resolved(PATH4, tables).legs == (leg(A, 1, 1400), leg(B, 2, 1400), leg(C, 3, 1400))
    assert [leg.mtu for leg in resolved(replace(PATH4, mtu=1300), tables).legs] == [1300] * 3


def test_legs_of_different_mtus_are_the_kernels_to_choose_from() -> None:
    """It would send what is too big for the one by the other."""
    tables = ordinary()
    link(B, mtu=1400)(tables)
    for path, mtu, answer in (
        (PATH4, 0, Adjacency(ACTIONS.multipath_route)),
        (PATH4, 1450, Adjacency(ACTIONS.multipath_route)),
        (PATH4, 1400, None),
        (PATH6, 0, Adjacency(ACTIONS.multipath_route)),
        (PATH6, 1400, None),
    ):
        one = replace(path, mtu=mtu)
        found = resolve(one, flatten(one, tables.nexthops, ACTIONS), tables, ACTIONS)
        assert found == answer or (answer is None and isinstance(found, Group)), (path, mtu)
    sysctl(C, mtu6=1300)(tables)
    one = replace(PATH6, mtu=1400)
    found = resolve(one, flatten(one, tables.nexthops, ACTIONS), tables, ACTIONS)
    assert found == Adjacency(ACTIONS.multipath_route)


def test_an_unresolved_leg_gives_its_share_and_no_more_to_the_kernel() -> None:
    tables = ordinary()
    FAILED_B(tables)
    unresolved = GroupLeg(bytes(6), PORT_OF[B], ACTIONS.unresolved_neigh, 1500, 2)
    assert resolved(PATH4, tables).legs == (leg(A, 1), unresolved, leg(C, 3))


def test_a_member_whose_interface_has_just_lost_its_carrier_gives_its_share_to_the_kernel() -> None:
    """The kernel has deleted the object, and what became of the group is on its way to us."""
    tables = ordinary()
    both(NO_CARRIER_B, sysctl(B, ignore_linkdown4=True))(tables)
    assert [leg.action for leg in resolved(BY_ID, tables).legs] == [
        ACTIONS.forward,
        ACTIONS.external_route,
        ACTIONS.forward,
    ]


def test_the_largest_weights_fit_also_when_flows_are_inherited() -> None:
    tables = ordinary()
    both(group(members=tuple(Member(n, 65535) for n in (7, 8, 9))), FAILED_B)(tables)
    weights = [leg.weight for leg in resolved(BY_ID, tables).legs]
    assert weights == [65535, 65535, 65535]
    assert max(weights) <= MAX_WEIGHT


def test_a_resilient_group_is_dealt_out_by_its_buckets_whatever_its_neighbours_are() -> None:
    tables = ordinary()
    both(group(buckets=12), FAILED_B)(tables)
    tables.buckets.follow(tables.nexthops, 0.0)
    answer = resolved(BY_ID, tables)
    assert [leg.action for leg in answer.legs] == [ACTIONS.forward, ACTIONS.unresolved_neigh, ACTIONS.forward]
    assert answer.buckets is not None
    assert [answer.buckets.count(position) for position in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("weight", [1, 2, 255, 256, 257, 1000, 65535])
def test_weights_of_a_group_are_read_in_both_their_bytes(weight: int) -> None:
    parsed = nexthops.parse(nexthop_message(20, group=((7, weight), (8, 1))))
    assert parsed.members == (Member(7, weight), Member(8, 1))
    assert not parsed.resilient
    assert not parsed.unknown_kind


def test_a_resilient_group_is_parsed_with_its_timers() -> None:
    parsed = nexthops.parse(nexthop_message(20, group=(7, 8), resilient=(64, 12000, 50)))
    assert (parsed.buckets, parsed.idle_s, parsed.unbalanced_s) == (64, 120.0, 0.5)
    assert parsed.resilient


def test_a_group_type_without_its_description_is_of_no_known_kind() -> None:
    message = nexthop_message(20, group=(7, 8), resilient=(0, 0, 0))
    assert nexthops.parse(message).unknown_kind
