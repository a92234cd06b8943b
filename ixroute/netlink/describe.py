"""Next hops and neighbours in words, as `ip` writes them."""

from __future__ import annotations

import ipaddress

from ixroute.fib.rib import RouteType
from ixroute.netlink.contract import NO_MAC, NeighbourView
from ixroute.netlink.interfaces import Interfaces
from ixroute.netlink.neighbours import NTF_ROUTER
from ixroute.netlink.paths import Known
from ixroute.netlink.resolve import Leg, Tables

_RESERVED = ("no route", "local", "broadcast", "multicast", "blackhole", "unreachable", "kernel", "reserved")


def mac_text(mac: bytes) -> str:
    """ "" for a MAC that is not known."""
    return "" if mac == NO_MAC else mac.hex(":")


def describe_path(index: int, known: Known | None, tables: Tables) -> str:
    if index < len(_RESERVED):
        return _RESERVED[index]
    if known is None:
        return "unused"
    path, route = known.path, known.route
    words = [f"nhid {path.nhid}"] if path.nhid else []
    if path.type != RouteType.UNICAST:
        words.append(RouteType(path.type).name.lower())
    elif path.kernel_only:
        words.append("kernel only")
    elif not route.legs:
        words.append("nexthop object that only the kernel follows" if path.nhid else "no next hop")
    words += _legs(route.legs, tables)
    if path.mtu:
        words.append(f"mtu {path.mtu}")
    return " ".join(words)


def _legs(legs: tuple[Leg, ...], tables: Tables) -> list[str]:
    if len(legs) == 1:
        return [_leg(legs[0], tables)]
    return [f"nexthop {_leg(leg, tables)} weight {leg.weight}" for leg in legs]


def _leg(leg: Leg, tables: Tables) -> str:
    via = f"via {ipaddress.ip_address(leg.gateway)} " if leg.gateway else ""
    return f"{via}dev {tables.links.name(leg.ifindex)}"


def neighbour_views(tables: Tables, interfaces: Interfaces) -> list[NeighbourView]:
    neighbours = sorted(tables.neighbours, key=lambda n: (tables.links.name(n.ifindex), n.family, n.address))
    places = {neighbour.ifindex: interfaces.get(neighbour.ifindex) for neighbour in neighbours}
    return [
        NeighbourView(
            port=place.port if (place := places[neighbour.ifindex]) else None,
            interface=tables.links.name(neighbour.ifindex),
            address=str(ipaddress.ip_address(neighbour.address)),
            mac=mac_text(neighbour.mac),
            state=neighbour.state_name,
            managed=neighbour.managed,
            router=bool(neighbour.flags & NTF_ROUTER),
        )
        for neighbour in neighbours
    ]
