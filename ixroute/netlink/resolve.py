"""From a path to an adjacency: what packets do whose route ends in it.

Forward only what is certainly the kernel's own answer; everything else keeps an action that gives the packet
to the kernel. One function without state of its own, `resolve`, so that its rules are a table of tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from ixroute.fib.adjacency import MAX_BUCKETS, MAX_LEGS, GroupLeg
from ixroute.fib.rib import RouteType
from ixroute.netlink.contract import FAMILY_IP4, FAMILY_IP6, NO_MAC, Actions, PathLike
from ixroute.netlink.links import Link, LinkTable
from ixroute.netlink.neighbours import Key, NeighbourTable
from ixroute.netlink.nexthops import NextHopObject, NextHopTable
from ixroute.netlink.resilient import BucketTables
from ixroute.netlink.sysctls import InterfaceSysctls, MultipathSysctls

_NO_SYSCTLS = InterfaceSysctls()


@dataclass
class Tables:
    """What a path's resolution depends on besides the path."""

    links: LinkTable = field(default_factory=LinkTable)
    neighbours: NeighbourTable = field(default_factory=NeighbourTable)
    nexthops: NextHopTable = field(default_factory=NextHopTable)
    ports: dict[int, int] = field(default_factory=dict)  # a TAP's ifindex -> port
    interfaces: dict[int, int] = field(default_factory=dict)
    """ifindex -> number in the dataplane, of all that it can send by: TAPs (port i is number i) and VLAN
    sub-interfaces."""
    sysctls: dict[int, InterfaceSysctls] = field(default_factory=dict)  # by ifindex
    bared: set[int] = field(default_factory=set)
    """Interfaces whose last IPv4 address was deleted. The kernel declared the legs of IPv4 routes by them dead then
    (fib_disable_ip), but not those of routes that came later; and tells neither when it happens."""
    multipath: MultipathSysctls = field(default_factory=MultipathSysctls)
    buckets: BucketTables = field(default_factory=BucketTables)


@dataclass(frozen=True, slots=True)
class Adjacency:
    action: int
    interface: int = 0  # of the dataplane
    mac: bytes = NO_MAC
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Several legs, of which a packet's hash chooses one: by the parts (weights) of its range, or by buckets. A leg
    can be there twice. hops: whose each of `legs` is. buckets: position in `legs` for each, None: none."""

    legs: tuple[GroupLeg, ...]
    hops: tuple[Leg, ...]
    buckets: tuple[int, ...] | None = None


class Choice(Enum):
    """Who has several legs, and so by which rules one is chosen."""

    ROUTE = 0
    GROUP = 1  # a nexthop object
    BUCKETS = 2  # a resilient one


@dataclass(frozen=True, slots=True)
class Leg:
    ifindex: int
    gateway: bytes = b""  # 4 or 16 bytes: its family need not be the route's (RFC 8950)
    weight: int = 1
    nhid: int = 0  # of the member of a group

    @property
    def neighbour(self) -> Key | None:
        """The neighbour that packets are handed to; None: each packet's own destination."""
        if not self.gateway:
            return None
        return (self.ifindex, FAMILY_IP4 if len(self.gateway) == 4 else FAMILY_IP6, self.gateway)


@dataclass(frozen=True, slots=True)
class Route:
    """A path with its nexthop object looked up. legs is empty when `action` decides alone."""

    legs: tuple[Leg, ...] = ()
    action: int | None = None
    nhids: tuple[int, ...] = ()  # the path's object, then its members
    choice: Choice = Choice.ROUTE


def flatten(path: PathLike, nexthops: NextHopTable, actions: Actions) -> Route:
    """The path's legs. A nexthop object's own legs count, not those the route message repeated: objects can
    be replaced without a word about their routes (net.ipv4.nexthop_compat_mode=0)."""
    if path.nhid and path.type in (RouteType.UNICAST, RouteType.BLACKHOLE):
        return _flatten_object(path.nhid, nexthops, actions)
    action = _type_actions(actions).get(path.type, actions.external_route)
    if path.type != RouteType.UNICAST or path.kernel_only or not path.legs:
        return Route(action=action)
    return Route(legs=tuple(Leg(leg.ifindex, leg.gateway or b"", leg.weight) for leg in path.legs))


def _type_actions(actions: Actions) -> Mapping[int, int]:
    return {
        RouteType.LOCAL: actions.local_route,
        RouteType.ANYCAST: actions.local_route,
        RouteType.BROADCAST: actions.broadcast,
        RouteType.MULTICAST: actions.multicast,
        RouteType.BLACKHOLE: actions.blackhole_route,
        RouteType.UNREACHABLE: actions.reject_route,
        RouteType.PROHIBIT: actions.reject_route,
        RouteType.THROW: actions.no_route,
    }


def _flatten_object(nhid: int, nexthops: NextHopTable, actions: Actions) -> Route:
    nexthop = nexthops.get(nhid)
    if nexthop is None:
        return Route(action=actions.external_route, nhids=(nhid,))
    if not nexthop.is_group:
        return _flatten_members((nhid,), [(nexthop, 1)], actions)
    nhids = (nhid, *(member.id for member in nexthop.members))
    found = [(nexthops.get(member.id), member.weight) for member in nexthop.members]
    known = [(member, weight) for member, weight in found if member is not None]
    whole = known and len(known) == len(found) and not any(member.is_group for member, _ in known)
    if not whole or nexthop.fdb or nexthop.unknown_kind:
        return Route(action=actions.external_route, nhids=nhids)
    choice = Choice.BUCKETS if nexthop.resilient else Choice.GROUP
    return replace(_flatten_members(nhids, known, actions), choice=choice)


def _flatten_members(
    nhids: tuple[int, ...], members: list[tuple[NextHopObject, int]], actions: Actions
) -> Route:
    if any(member.fdb or member.encapsulated for member, _ in members):
        return Route(action=actions.external_route, nhids=nhids)
    if any(member.blackhole for member, _ in members):
        alone = len(members) == 1
        return Route(action=actions.blackhole_route if alone else actions.multipath_route, nhids=nhids)
    legs = tuple(Leg(member.ifindex, member.gateway, weight, member.id) for member, weight in members)
    return Route(legs=legs, nhids=nhids)


def resolve(path: PathLike, route: Route, tables: Tables, actions: Actions) -> Adjacency | Group:
    """What packets on this path do now. route: flatten(path)."""
    if path.kernel_only:
        return Adjacency(actions.external_route)
    if route.action is not None:
        return Adjacency(route.action)
    if len(route.legs) == 1:
        return _resolve_leg(path, route.legs[0], tables, actions)
    return _resolve_group(path, route, tables, actions)


def _resolve_leg(path: PathLike, leg: Leg, tables: Tables, actions: Actions) -> Adjacency:
    link, number = tables.links.get(leg.ifindex), tables.interfaces.get(leg.ifindex)
    sysctls = tables.sysctls.get(leg.ifindex, _NO_SYSCTLS)
    if link is None or number is None or link.noarp:
        return Adjacency(actions.external_route)
    if not _alive(path.family, leg, tables) or not _carried(link, tables):
        return Adjacency(actions.external_route)
    mtu = _mtu(path, link, sysctls)
    neighbour = tables.neighbours.get(leg.neighbour) if leg.neighbour else None
    if neighbour is None or not neighbour.usable:
        # without a gateway this is a connected route: resolved hosts have host prefixes of their own (rib.h,
        # rule 3)
        return Adjacency(actions.unresolved_neigh, interface=number, mtu=mtu)
    return Adjacency(actions.forward, interface=number, mac=neighbour.mac, mtu=mtu)


def _resolve_group(path: PathLike, route: Route, tables: Tables, actions: Actions) -> Adjacency | Group:
    """Several legs. Either all of those alive are ours to send by, or the kernel chooses: a share for it alone
    would be chosen from again, and the others' shares would grow.

    Dead legs are passed over and their part is everybody's (fib_rebalance, rt6_multipath_rebalance). Members of an
    object never are: the kernel deletes an object whose interface goes down or loses its carrier, and until that is
    known here its packets go to the kernel.
    """
    legs = list(route.legs)
    if route.choice is Choice.ROUTE:
        legs = [leg for leg in legs if _alive(path.family, leg, tables)]
    if not legs:
        return Adjacency(actions.external_route)  # the kernel takes another route, if it has one
    if not all(_ours(leg, tables) for leg in legs):
        return Adjacency(actions.multipath_route)
    if (
        route.choice is Choice.ROUTE
        and path.family == FAMILY_IP4
        and any(leg.ifindex in tables.bared for leg in legs)
    ):
        return Adjacency(actions.multipath_route)  # whether such a leg is dead only the kernel knows
    if route.choice is Choice.BUCKETS:
        return _resolve_buckets(path, route, tables, actions)
    if route.choice is Choice.GROUP or (path.family == FAMILY_IP4 and tables.multipath.use_neigh):
        parts = _pass_over_invalid(legs, tables)
    else:
        parts = [(leg, leg.weight) for leg in legs]
    if len(parts) == 1:
        return _resolve_leg(path, parts[0][0], tables, actions)
    return _group(path, parts, tables, actions)


def _group(
    path: PathLike, parts: list[tuple[Leg, int]], tables: Tables, actions: Actions
) -> Adjacency | Group:
    if len(parts) > MAX_LEGS:
        return Adjacency(actions.multipath_route)
    legs = tuple(_group_leg(_resolve_leg(path, leg, tables, actions), weight) for leg, weight in parts)
    if len({leg.mtu for leg in legs if leg.mtu}) > 1:
        # What is too big for one leg the kernel would send by another, whose host never saw the flow: its hash is
        # not ours.
        return Adjacency(actions.multipath_route)
    return Group(legs, tuple(leg for leg, _ in parts))


def _group_leg(adjacency: Adjacency, weight: int) -> GroupLeg:
    return GroupLeg(adjacency.mac, adjacency.interface, adjacency.action, adjacency.mtu, weight)


def _resolve_buckets(path: PathLike, route: Route, tables: Tables, actions: Actions) -> Adjacency | Group:
    """A resilient group: its table says whose a bucket is, whatever became of the neighbour
    (nexthop_select_path_res)."""
    table = tables.buckets.get(route.nhids[0])
    positions = {leg.nhid: position for position, leg in enumerate(route.legs)}
    if table is None or not positions.keys() >= set(table.owners()):
        return Adjacency(actions.multipath_route)  # the object changed, and its table is about to
    if len(table) > MAX_BUCKETS:
        return Adjacency(actions.multipath_route)
    group = _group(path, [(leg, leg.weight) for leg in route.legs], tables, actions)
    if isinstance(group, Adjacency):
        return group
    return replace(group, buckets=tuple(positions[owner] for owner in table.owners()))


def _pass_over_invalid(legs: list[Leg], tables: Tables) -> list[tuple[Leg, int]]:
    """Whose each leg's part of the hash is, when a leg whose neighbour is known to be no use is passed over: the next
    good one's, the last one's the first good one's, and when none is good all are the first's
    (fib_select_multipath, nexthop_select_path_hthr). So no other flow moves. One part: all are one leg's."""
    good = [leg for leg in legs if _valid(leg, tables)]
    if not good:
        return [(legs[0], 1)]
    parts: list[tuple[Leg, int]] = []
    heir = good[0]
    for leg in reversed(legs):
        if leg in good:
            heir = leg
        parts.append((heir, leg.weight))
    parts.reverse()
    return parts if len(good) > 1 else parts[:1]


def _valid(leg: Leg, tables: Tables) -> bool:
    neighbour = tables.neighbours.get(leg.neighbour) if leg.neighbour else None
    return neighbour is None or neighbour.valid


def _ours(leg: Leg, tables: Tables) -> bool:
    """A gateway by a port. Without a gateway each packet's own destination is the neighbour, which no leg can say."""
    link = tables.links.get(leg.ifindex)
    return bool(leg.gateway) and leg.ifindex in tables.interfaces and link is not None and not link.noarp


def _alive(family: int, leg: Leg, tables: Tables) -> bool:
    """The kernel would send by this interface. Not when it is gone or down, nor without carrier where that makes the
    kernel ignore the route (fib_lookup_good_nhc, find_match)."""
    link = tables.links.get(leg.ifindex)
    if link is None or not link.up:
        return False
    sysctls = tables.sysctls.get(leg.ifindex, _NO_SYSCTLS)
    ignores = sysctls.ignore_linkdown4 if family == FAMILY_IP4 else sysctls.ignore_linkdown6
    return link.carrier or not ignores


def _carried(link: Link, tables: Tables) -> bool:
    """What a VLAN sub-interface is stacked on is up: with loose_binding it may be up while that is not."""
    while link.is_vlan:
        parent = tables.links.get(link.parent)
        if parent is None or not parent.up:
            return False
        link = parent
    return True


def _mtu(path: PathLike, link: Link, sysctls: InterfaceSysctls) -> int:
    limits = [link.mtu, path.mtu, sysctls.mtu6 if path.family == FAMILY_IP6 else 0]
    return min(limit for limit in limits if limit) if any(limits) else 0
