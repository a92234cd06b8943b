"""From a path to an adjacency: what packets do whose route ends in it.

Forward only what is certainly the kernel's own answer; everything else keeps an action that gives the packet
to the kernel. One function without state of its own, `resolve`, so that its rules are a table of tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ixroute.fib.rib import RouteType
from ixroute.netlink.contract import FAMILY_IP4, FAMILY_IP6, NO_MAC, Actions, PathLike
from ixroute.netlink.links import Link, LinkTable
from ixroute.netlink.neighbours import Key, NeighbourTable
from ixroute.netlink.nexthops import NextHopObject, NextHopTable
from ixroute.netlink.sysctls import InterfaceSysctls

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


@dataclass(frozen=True, slots=True)
class Adjacency:
    action: int
    interface: int = 0  # of the dataplane
    mac: bytes = NO_MAC
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Leg:
    ifindex: int
    gateway: bytes = b""  # 4 or 16 bytes: its family need not be the route's (RFC 8950)

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
    nhids: tuple[int, ...] = ()


def flatten(path: PathLike, nexthops: NextHopTable, actions: Actions) -> Route:
    """The path's legs. A nexthop object's own legs count, not those the route message repeated: objects can
    be replaced without a word about their routes (net.ipv4.nexthop_compat_mode=0)."""
    if path.nhid and path.type in (RouteType.UNICAST, RouteType.BLACKHOLE):
        return _flatten_object(path.nhid, nexthops, actions)
    action = _type_actions(actions).get(path.type, actions.external_route)
    if path.type != RouteType.UNICAST or path.kernel_only or not path.legs:
        return Route(action=action)
    return Route(legs=tuple(Leg(leg.ifindex, leg.gateway or b"") for leg in path.legs))


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
        return _flatten_members((nhid,), [nexthop], actions)
    nhids = (nhid, *nexthop.group)
    members = [nexthops.get(member) for member in nexthop.group]
    known = [member for member in members if member is not None]
    if len(known) != len(members) or not known or any(member.is_group for member in known):
        return Route(action=actions.external_route, nhids=nhids)
    return _flatten_members(nhids, known, actions)


def _flatten_members(nhids: tuple[int, ...], members: list[NextHopObject], actions: Actions) -> Route:
    if any(member.fdb or member.encapsulated for member in members):
        return Route(action=actions.external_route, nhids=nhids)
    if any(member.blackhole for member in members):
        alone = len(members) == 1
        return Route(action=actions.blackhole_route if alone else actions.multipath_route, nhids=nhids)
    legs = tuple(Leg(member.ifindex, member.gateway) for member in members)
    return Route(legs=legs, nhids=nhids)


def resolve(path: PathLike, route: Route, tables: Tables, actions: Actions) -> Adjacency:
    """What packets on this path do now. route: flatten(path)."""
    if path.kernel_only:
        return Adjacency(actions.external_route)
    if route.action is not None:
        return Adjacency(route.action)
    if len(route.legs) != 1:
        return Adjacency(actions.multipath_route)
    leg = route.legs[0]
    link, number = tables.links.get(leg.ifindex), tables.interfaces.get(leg.ifindex)
    sysctls = tables.sysctls.get(leg.ifindex, _NO_SYSCTLS)
    if (
        link is None
        or number is None
        or not _passes(link, path.family, sysctls)
        or not _carried(link, tables)
    ):
        return Adjacency(actions.external_route)
    mtu = _mtu(path, link, sysctls)
    neighbour = tables.neighbours.get(leg.neighbour) if leg.neighbour else None
    if neighbour is None or not neighbour.usable:
        # without a gateway this is a connected route: resolved hosts have host prefixes of their own (rib.h,
        # rule 3)
        return Adjacency(actions.unresolved_neigh, interface=number, mtu=mtu)
    return Adjacency(actions.forward, interface=number, mac=neighbour.mac, mtu=mtu)


def _passes(link: Link, family: int, sysctls: InterfaceSysctls) -> bool:
    """The kernel would send by this interface. Down, or without carrier where that makes it ignore the route:
    it takes another route, if it has one (fib_lookup, rt6_score_route); without ARP: MACs are its own
    business."""
    ignores = sysctls.ignore_linkdown4 if family == FAMILY_IP4 else sysctls.ignore_linkdown6
    return link.up and not link.noarp and (link.carrier or not ignores)


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
