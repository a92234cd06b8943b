"""Which neighbours are gateways: next hops of routes, on ports and their VLANs. A host that is only itself reached is
none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ixroute.fib.rib import RouteType
from ixroute.netlink.contract import RibLike
from ixroute.netlink.neighbours import Key
from ixroute.netlink.paths import Known, PathIndex
from ixroute.netlink.resolve import Tables

InRib = Callable[[Key], bool]


def gateway_of_path(path_id: int, known: Known, tables: Tables, rib: RibLike, in_rib: InRib) -> Iterator[Key]:
    """The gateways of one path that the kernel shall keep resolved."""
    users: int | None = None
    for leg in known.route.legs:
        link = tables.links.get(leg.ifindex)
        if (
            leg.neighbour is None
            or leg.ifindex not in tables.interfaces
            or link is None
            or not link.up
            or link.noarp
        ):
            continue
        if users is None:
            users = rib.path_routes(path_id) - _is_a_hosts(known, leg.neighbour, in_rib)
        if users > 0:
            yield leg.neighbour


def _is_a_hosts(known: Known, key: Key, in_rib: InRib) -> bool:
    """A neighbour's own host prefix has this very path (rib.h: a single leg with itself as gateway, of the
    neighbour's family), and path_routes counts it."""
    path = known.path
    if (
        path.type != RouteType.UNICAST
        or path.family != key[1]
        or path.nhid
        or path.mtu
        or path.kernel_only
        or len(path.legs) != 1
        or path.legs[0].onlink
    ):
        return False
    return in_rib(key)


def wanted_gateways(paths: PathIndex, tables: Tables, rib: RibLike, in_rib: InRib) -> set[Key]:
    """The gateways of all paths."""
    wanted: set[Key] = set()
    for path_id in paths.ids():
        known = paths.get(path_id)
        if known is not None:
            wanted.update(gateway_of_path(path_id, known, tables, rib, in_rib))
    return wanted
