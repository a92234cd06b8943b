"""What packets do on a path, rule by rule: name, path, change to an ordinary world, adjacency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from netlink_fakes import ACTIONS, MAC, FakePath, Leg, ip

from ixroute.netlink.links import IFF_NOARP, IFF_UP, Link
from ixroute.netlink.neighbours import (
    NUD_DELAY,
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_PROBE,
    NUD_REACHABLE,
    NUD_STALE,
    Neighbour,
)
from ixroute.netlink.nexthops import Member, NextHopObject
from ixroute.netlink.resolve import Adjacency, Tables, flatten, resolve
from ixroute.netlink.sysctls import InterfaceSysctls

TAP, OTHER_TAP, NOT_A_PORT = 10, 11, 12
GW4, GW6 = ip("10.0.0.1"), ip("fe80::1")
VIA4 = FakePath(legs=(Leg(TAP, GW4),))
VIA6 = FakePath(family=6, legs=(Leg(TAP, GW6),))
FORWARD = Adjacency(ACTIONS.forward, 3, MAC, 1500)
UNRESOLVED = Adjacency(ACTIONS.unresolved_neigh, 3, mtu=1500)
EXTERNAL = Adjacency(ACTIONS.external_route)
MULTIPATH = Adjacency(ACTIONS.multipath_route)
BLACKHOLE = Adjacency(ACTIONS.blackhole_route)

Change = Callable[[Tables], object]


def ordinary() -> Tables:
    """Ports 3 and 4 up on their TAPs, both gateways reachable on the first."""
    tables = Tables(ports={TAP: 3, OTHER_TAP: 4}, interfaces={TAP: 3, OTHER_TAP: 4})
    for index, name in ((TAP, "lan"), (OTHER_TAP, "wan"), (NOT_A_PORT, "eth9")):
        tables.links.put(Link(index, name, flags=IFF_UP, mtu=1500, carrier=True))
    for family, address in ((4, GW4), (6, GW6)):
        tables.neighbours.put(Neighbour(TAP, family, address, MAC, NUD_REACHABLE))
    return tables


def neighbour(state: int, mac: bytes = MAC) -> Change:
    return lambda tables: tables.neighbours.put(Neighbour(TAP, 4, GW4, mac, state))


def link(**changes: object) -> Change:
    return lambda tables: tables.links.put(replace(tables.links.get(TAP), **changes))


def sysctl(**values: object) -> Change:
    return lambda tables: tables.sysctls.update({TAP: InterfaceSysctls(**values)})


def objects(*nexthops: NextHopObject) -> Change:
    return lambda tables: [tables.nexthops.put(nexthop) for nexthop in nexthops]


def both(*changes: Change) -> Change:
    return lambda tables: [change(tables) for change in changes]


def nothing(tables: Tables) -> None:
    pass


BY_ID = FakePath(nhid=7, legs=(Leg(TAP, GW4),))
SEVEN = NextHopObject(7, ifindex=TAP, gateway=GW4)
EIGHT = NextHopObject(8, ifindex=OTHER_TAP, gateway=ip("10.1.0.1"))
HOLE = NextHopObject(9, blackhole=True)

CASES: list[tuple[str, FakePath, Change, Adjacency]] = [
    ("a reachable gateway forwards", VIA4, nothing, FORWARD),
    ("an IPv6 gateway forwards", VIA6, nothing, FORWARD),
    ("IPv4 by an IPv6 gateway forwards (RFC 8950)", FakePath(legs=(Leg(TAP, GW6),)), nothing, FORWARD),
    ("a stale gateway forwards", VIA4, neighbour(NUD_STALE), FORWARD),
    ("a gateway in delay forwards", VIA4, neighbour(NUD_DELAY), FORWARD),
    ("a gateway being probed forwards", VIA4, neighbour(NUD_PROBE), FORWARD),
    ("a permanent gateway forwards", VIA4, neighbour(NUD_PERMANENT), FORWARD),
    ("a noarp gateway forwards", VIA4, neighbour(NUD_NOARP), FORWARD),
    ("an incomplete gateway is unresolved", VIA4, neighbour(NUD_INCOMPLETE, bytes(6)), UNRESOLVED),
    ("a failed gateway is unresolved, even with its old MAC", VIA4, neighbour(NUD_FAILED), UNRESOLVED),
    ("a gateway without MAC is unresolved", VIA4, neighbour(NUD_REACHABLE, bytes(6)), UNRESOLVED),
    ("a gateway with a group MAC is unresolved", VIA4, neighbour(NUD_NOARP, b"\xff" * 6), UNRESOLVED),
    ("an unknown gateway is unresolved", FakePath(legs=(Leg(TAP, ip("10.0.0.9")),)), nothing, UNRESOLVED),
    (
        "a gateway known on another port is unresolved",
        FakePath(legs=(Leg(OTHER_TAP, GW4),)),
        nothing,
        Adjacency(ACTIONS.unresolved_neigh, 4, mtu=1500),
    ),
    (
        "a connected route is unresolved: its hosts have prefixes",
        FakePath(legs=(Leg(TAP),)),
        nothing,
        UNRESOLVED,
    ),
    (
        "a route over another interface is the kernel's",
        FakePath(legs=(Leg(NOT_A_PORT, GW4),)),
        nothing,
        EXTERNAL,
    ),
    ("a route over an unknown interface is the kernel's", FakePath(legs=(Leg(99, GW4),)), nothing, EXTERNAL),
    ("an interface that is down is the kernel's", VIA4, link(flags=0), EXTERNAL),
    ("an interface without ARP is the kernel's", VIA4, link(flags=IFF_UP | IFF_NOARP), EXTERNAL),
    ("without carrier it still forwards, as Linux does", VIA4, link(carrier=False), FORWARD),
    (
        "without carrier and ignore_routes_with_linkdown the kernel chooses",
        VIA4,
        both(link(carrier=False), sysctl(ignore_linkdown4=True)),
        EXTERNAL,
    ),
    ("ignore_routes_with_linkdown of IPv6 is not IPv4's", VIA4, sysctl(ignore_linkdown6=True), FORWARD),
    (
        "IPv6 without carrier and its own ignore_routes_with_linkdown",
        VIA6,
        both(link(carrier=False), sysctl(ignore_linkdown6=True)),
        EXTERNAL,
    ),
    ("a route's smaller MTU counts", replace(VIA4, mtu=1000), nothing, replace(FORWARD, mtu=1000)),
    ("a route's larger MTU does not", replace(VIA4, mtu=9000), nothing, FORWARD),
    ("an IPv6 route's smaller MTU counts", replace(VIA6, mtu=1300), nothing, replace(FORWARD, mtu=1300)),
    ("the interface's IPv6 MTU counts for IPv6", VIA6, sysctl(mtu6=1280), replace(FORWARD, mtu=1280)),
    ("the interface's IPv6 MTU does not count for IPv4", VIA4, sysctl(mtu6=1280), FORWARD),
    (
        "a port's MTU counts for unresolved ones too",
        FakePath(legs=(Leg(TAP),)),
        link(mtu=900),
        replace(UNRESOLVED, mtu=900),
    ),
    (
        "several legs are the kernel's to choose when one has no gateway",
        FakePath(legs=(Leg(TAP, GW4), Leg(OTHER_TAP))),
        nothing,
        MULTIPATH,
    ),
    ("a path that only the kernel follows", replace(VIA4, kernel_only=True), nothing, EXTERNAL),
    ("a unicast path without legs", FakePath(), nothing, EXTERNAL),
    ("blackhole", FakePath(type=6), nothing, BLACKHOLE),
    ("unreachable", FakePath(type=7), nothing, Adjacency(ACTIONS.reject_route)),
    ("prohibit", FakePath(type=8), nothing, Adjacency(ACTIONS.reject_route)),
    ("throw", FakePath(type=9), nothing, Adjacency(ACTIONS.no_route)),
    ("local", FakePath(type=2), nothing, Adjacency(ACTIONS.local_route)),
    ("anycast", FakePath(type=4), nothing, Adjacency(ACTIONS.local_route)),
    ("broadcast", FakePath(type=3), nothing, Adjacency(ACTIONS.broadcast)),
    ("multicast", FakePath(type=5), nothing, Adjacency(ACTIONS.multicast)),
    ("a type from the future", FakePath(type=77), nothing, EXTERNAL),
    ("a nexthop object forwards", BY_ID, objects(SEVEN), FORWARD),
    (
        "an object's own leg counts, not what the route repeated",
        BY_ID,
        objects(replace(EIGHT, id=7)),
        Adjacency(8, 4, mtu=1500),
    ),
    ("an object that is not there", BY_ID, nothing, EXTERNAL),
    ("an object that is a blackhole", BY_ID, objects(replace(HOLE, id=7)), BLACKHOLE),
    (
        "a route that called its object a blackhole before it changed",
        replace(BY_ID, type=6),
        objects(SEVEN),
        FORWARD,
    ),
    ("an object for a bridge", BY_ID, objects(replace(SEVEN, fdb=True)), EXTERNAL),
    ("an object with an encapsulation", BY_ID, objects(replace(SEVEN, encapsulated=True)), EXTERNAL),
    (
        "a group of one is its member",
        replace(BY_ID, nhid=20),
        objects(SEVEN, NextHopObject(20, is_group=True, members=(Member(7),))),
        FORWARD,
    ),
    (
        "a group of one blackhole",
        replace(BY_ID, nhid=20),
        objects(HOLE, NextHopObject(20, is_group=True, members=(Member(9),))),
        BLACKHOLE,
    ),
    (
        "a group with an unknown member",
        replace(BY_ID, nhid=20),
        objects(SEVEN, NextHopObject(20, is_group=True, members=(Member(7), Member(8)))),
        EXTERNAL,
    ),
    ("a group without members", replace(BY_ID, nhid=20), objects(NextHopObject(20, is_group=True)), EXTERNAL),
]


@pytest.mark.parametrize(
    ("path", "change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_path_resolves_to(path: FakePath, change: Change, expected: Adjacency) -> None:
    tables = ordinary()
    change(tables)
    assert resolve(path, flatten(path, tables.nexthops, ACTIONS), tables, ACTIONS) == expected


def test_a_path_depends_on_its_object_and_the_members_of_a_group() -> None:
    tables = ordinary()
    objects(SEVEN, EIGHT, NextHopObject(20, is_group=True, members=(Member(7), Member(8))))(tables)
    route = flatten(replace(BY_ID, nhid=20), tables.nexthops, ACTIONS)
    assert set(route.nhids) == {20, 7, 8}
    assert {leg.ifindex for leg in route.legs} == {TAP, OTHER_TAP}
