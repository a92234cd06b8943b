"""The RIB's slow twin: lists, linear scans, no memory of what was shown. What rib.h promises, and nothing
clever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ixroute.fib.rib import (
    FAMILY_IP4,
    FAMILY_IP6,
    TABLE_LOCAL,
    TABLE_MAIN,
    How,
    NextHop,
    Path,
    Prefix,
    Route,
    RouteType,
)

# fib/adjacency.h
NO_ROUTE, LOCAL, BROADCAST, MULTICAST, BLACKHOLE, REJECT, KERNEL = range(7)
FIRST_PATH = 8
PROTOCOL_RA = 9

_RESERVED = {
    RouteType.LOCAL: LOCAL,
    RouteType.ANYCAST: LOCAL,
    RouteType.BROADCAST: BROADCAST,
    RouteType.MULTICAST: MULTICAST,
    RouteType.BLACKHOLE: BLACKHOLE,
    RouteType.UNREACHABLE: REJECT,
    RouteType.PROHIBIT: REJECT,
}
Shown = int | Path
Identity = tuple[int, Prefix, int, int]
Told = tuple[Route, Path]


def bits(addr: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in addr)


def covers(prefix: Prefix, addr: bytes) -> bool:
    return len(prefix.addr) == len(addr) and bits(prefix.addr)[: prefix.length] == bits(addr)[: prefix.length]


def host_length(addr: bytes) -> int:
    return 8 * len(addr)


def leg_key(leg: NextHop) -> tuple[int, bytes]:
    return (leg.ifindex, leg.gateway or b"")


def canonical(path: Path) -> Path:
    if len(path.legs) == 1:
        return replace(path, legs=(replace(path.legs[0], weight=1),))
    if path.family == FAMILY_IP6 and path.nhid == 0:
        return replace(
            path, legs=tuple(sorted(path.legs, key=lambda leg: (*leg_key(leg), leg.weight, leg.onlink)))
        )
    return path


REFUSALS = (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT)


def shown_for(path: Path) -> Shown:
    """A reserved index, or the path."""
    if path.kernel_only:
        return KERNEL
    if path.nhid and path.type in (RouteType.UNICAST, RouteType.BLACKHOLE):
        return replace(path, legs=())  # the object's id is all that counts
    if path.type == RouteType.THROW:
        return NO_ROUTE
    if path.type != RouteType.UNICAST:
        return _RESERVED[path.type]
    return path if path.legs and all(leg.ifindex for leg in path.legs) else KERNEL


def has_gateways(path: Path) -> bool:
    return path.type == RouteType.UNICAST and path.nhid == 0 and any(leg.gateway for leg in path.legs)


@dataclass
class Answer:
    prefix: Prefix | None
    shown: Shown
    neighbour: bool = False


def identity(route: Route) -> Identity:
    return (route.table, route.prefix, route.metric, route.tos)


def same_source(a: Route, b: Route) -> bool:
    return (a.source_len, a.other) == (b.source_len, b.other)


def content(path: Path) -> Path:
    return replace(path, legs=()) if path.nhid else path


def equal(a: Told, b: Told) -> bool:
    if content(a[1]) != content(b[1]) or not same_source(a[0], b[0]):
        return False
    return a[0].prefix.family == FAMILY_IP6 or (a[0].protocol, a[0].scope) == (b[0].protocol, b[0].scope)


class Twin:
    def __init__(self) -> None:
        self.groups: dict[Identity, list[Told]] = {}
        self.neighbours: set[tuple[bytes, int]] = set()

    # ---- routes ----

    def add(self, route: Route, path: Path, how: How) -> None:
        told = (route, canonical(path))
        group = self.groups.setdefault(identity(route), [])
        if route.prefix.family == FAMILY_IP4:
            _add4(group, told, how)
        else:
            _add6(group, told, how)

    def remove(self, route: Route, path: Path | None) -> bool:
        group = self.groups.get(identity(route), [])
        if not group:
            return False
        told = None if path is None else (route, canonical(path))
        if told is None:
            del group[0]
        elif any(equal(a, told) for a in group):
            del group[next(i for i, a in enumerate(group) if equal(a, told))]
        elif route.prefix.family == FAMILY_IP4:
            same = [i for i, a in enumerate(group) if content(a[1]) == content(told[1])]
            del group[same[0] if same else 0]
        else:
            _remove6(group, told)
        return True

    def routes(self, family: int) -> list[Told]:
        return [told for group in self.groups.values() for told in group if told[0].prefix.family == family]

    def dump(self, family: int, told: list[Told]) -> None:
        hidden = self.hidden(family, told)
        self.groups = {key: group for key, group in self.groups.items() if key[1].family != family}
        for route, path in [*told, *hidden]:
            self.groups.setdefault(identity(route), []).append((route, canonical(path)))

    def hidden(self, family: int, told: list[Told]) -> list[Told]:
        """The routes that a dump does not tell and that may be there all the same."""
        canonically = [(route, canonical(path)) for route, path in told]
        return [
            known
            for known in self.routes(family)
            if family == FAMILY_IP6
            and not any(identity(t[0]) == identity(known[0]) and equal(t, known) for t in canonically)
            and any(identity(t[0]) == identity(known[0]) and _may_hide(t, known) for t in canonically)
        ]

    # ---- what packets see ----

    def _section(self, table: int, prefix: Prefix) -> list[Told]:
        keys = sorted(key[2:] for key in self.groups if key[:2] == (table, prefix))
        return [told for metric, tos in keys for told in self.groups[(table, prefix, metric, tos)]]

    def _longest(self, addr: bytes, table: int, shortest: int) -> tuple[Prefix, Shown] | None:
        matching = [
            key[1] for key, group in self.groups.items() if key[0] == table and group and covers(key[1], addr)
        ]
        if not matching:
            return None
        prefix = max(matching, key=lambda p: p.length)
        return prefix, _decide(self._section(table, prefix), prefix.length < shortest)

    def _merged(self, addr: bytes) -> tuple[Prefix, Shown] | None:
        local, main = self._longest(addr, TABLE_LOCAL, 0), self._longest(addr, TABLE_MAIN, 0)
        if local is None:
            return main
        if main is not None and len(addr) == 4 and main[0].length > local[0].length:
            return main[0], KERNEL
        return local[0], KERNEL if local[1] == NO_ROUTE else local[1]

    def lookup(self, addr: bytes, table: int | None = None, shortest: int = 0) -> Answer:
        match = self._merged(addr) if table is None else self._longest(addr, table, shortest)
        if match is None:
            return Answer(None, NO_ROUTE)
        prefix, shown = match
        if (
            isinstance(shown, Path)
            and shown.type == RouteType.UNICAST
            and shown.nhid == 0
            and len(shown.legs) == 1
        ):
            link = shown.legs[0]
            if link.gateway is None and (addr, link.ifindex) in self.neighbours:
                path = Path(shown.family, (NextHop(link.ifindex, addr),), mtu=shown.mtu)
                return Answer(Prefix(addr, host_length(addr)), path, neighbour=True)
        return Answer(prefix, shown)


def _decide(section: list[Told], suppressed: bool) -> Shown:
    if any(route.tos or route.source_len for route, _ in section):
        return KERNEL
    best = section[0]
    equals = [told for told in section if told[0].metric == best[0].metric]
    shown = [NO_ROUTE if suppressed and path.type not in REFUSALS else shown_for(path) for _, path in equals]
    if best[0].prefix.family == FAMILY_IP6 and any(s != shown[0] for s in shown):
        return KERNEL
    return shown[0]


def _add4(group: list[Told], told: Told, how: How) -> None:
    if any(equal(a, told) for a in group):
        return
    if how == How.REPLACE and group:
        group[0] = told
    elif how == How.APPEND:
        group.append(told)
    else:
        group.insert(0, told)


def _is_told_by(a: Told, told: Told) -> bool:
    """Is `a` (part of) the set of siblings that `told` tells whole?"""
    if not (has_gateways(a[1]) and has_gateways(told[1]) and same_source(a[0], told[0])):
        return False
    if PROTOCOL_RA not in (a[0].protocol, told[0].protocol):
        return True
    known = {leg_key(leg) for leg in a[1].legs} if isinstance(shown_for(a[1]), Path) else set()
    return any(leg_key(leg) in known for leg in told[1].legs)


def _may_hide(told: Told, known: Told) -> bool:
    """Is `told` perhaps several siblings, none of which is (part of) `known`?"""
    held = isinstance(shown_for(told[1]), Path)
    several = told[1].nhid == 0 and len(told[1].legs) > 1
    if not held:
        several = shown_for(told[1]) == KERNEL and has_gateways(told[1])
    if not several or not same_source(told[0], known[0]):
        return False
    if not (has_gateways(told[1]) and has_gateways(known[1])):
        return True
    if PROTOCOL_RA not in (told[0].protocol, known[0].protocol):
        return False
    met = {leg_key(leg) for leg in told[1].legs} & {leg_key(leg) for leg in known[1].legs}
    return not (held and isinstance(shown_for(known[1]), Path) and met)


def _add6(group: list[Told], told: Told, how: How) -> None:
    mine = [a for a in group if same_source(a[0], told[0])]
    instead: Told | None
    if how == How.REPLACE:
        alike = [a for a in mine if has_gateways(a[1]) == has_gateways(told[1])]
        instead = next(iter(alike or mine), None)
    else:
        instead = next((a for a in group if _is_told_by(a, told)), None)
    known = next((a for a in group if equal(a, told)), None)
    if known is not None and (how != How.REPLACE or known is instead):
        return
    if instead is None:
        group.append(told)
        return
    kept = [told if a is instead else a for a in group]
    group[:] = [a for a in kept if a is told or not (equal(a, told) or _is_told_by(a, told))]


def _remove6(group: list[Told], told: Told) -> None:
    gone = {leg_key(leg) for leg in told[1].legs}
    for i, (route, path) in enumerate(group):
        shown = shown_for(path)
        if not isinstance(shown, Path) or path.nhid or told[1].type != RouteType.UNICAST:
            continue
        if not same_source(route, told[0]) or not gone or not gone <= {leg_key(leg) for leg in path.legs}:
            continue
        rest = tuple(leg for leg in path.legs if leg_key(leg) not in gone)
        if rest:
            group[i] = (route, canonical(replace(path, legs=rest)))
        else:
            del group[i]
        return
    if not any(shown_for(a[1]) == KERNEL for a in group):
        del group[0]
