"""The RIB from Python: every route the kernel told of, which is best, and the FIBs kept equal to that.

The policy is C (`rib.h` says what a FIB shows); this module owns the C object and turns its structs into
dataclasses. It is for decisions, tests and people: the bulk of routes goes from the netlink socket
straight into the C side (`ixroute.netlink.route_stream`).

Addresses are `bytes` in wire order, 4 (IPv4) or 16 (IPv6) long; the length tells the family.
One thread uses a Rib (the mirror's).
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from ixroute._dataplane import ffi, lib
from ixroute.fib.fib import Fib

MAX_FIBS: int = lib.RIB_FIBS_MAX

TABLE_MAIN = 254
TABLE_LOCAL = 255

FAMILY_IP4 = 4
FAMILY_IP6 = 6

PATH_MAX_LEGS = 64
RTNH_F_ONLINK = 4
_PATH_KERNEL_ONLY = 1
_ADDRESS_BYTES = {FAMILY_IP4: 4, FAMILY_IP6: 16}
_WALK_BATCH = 1024
_PATH_BATCH = 256


class HasC(Protocol):
    """An object that owns a C object and shows it as `c` (AdjacencyTable)."""

    @property
    def c(self) -> Any: ...


class RouteType(IntEnum):
    """`RTN_*` of linux/rtnetlink.h."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9


class How(IntEnum):
    """How a new route meets those that are there under its identity."""

    ADD = 0
    APPEND = 1
    REPLACE = 2


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """An IPv4 or IPv6 prefix; bits of `addr` after `length` are 0."""

    addr: bytes
    length: int

    @property
    def family(self) -> int:
        return FAMILY_IP4 if len(self.addr) == 4 else FAMILY_IP6

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """From "10.0.0.0/8" or "2001:db8::/32". ValueError: no prefix, or bits after its length."""
        network = ipaddress.ip_network(text)
        return cls(network.network_address.packed, network.prefixlen)

    def __str__(self) -> str:
        return f"{ipaddress.ip_address(self.addr)}/{self.length}"


@dataclass(frozen=True, slots=True)
class NextHop:
    """One leg of a path. `gateway` None: the destination itself is on the link. Weight 1..256."""

    ifindex: int
    gateway: bytes | None = None
    weight: int = 1
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """A set of next hops; two routes with equal paths share a path id (= adjacency index).

    `family` is that of the routes, not of the gateways. `nhid` 0: no nexthop object. `mtu` 0: none given.
    """

    family: int
    legs: tuple[NextHop, ...] = ()
    type: RouteType = RouteType.UNICAST
    nhid: int = 0
    mtu: int = 0
    kernel_only: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A route's identity (table, prefix, tos, metric) and what people want to see of it.

    `other` is a digest of what else tells alternatives apart in the kernel (preferred source, metrics, the
    source prefix of an IPv6 source route); 0 when there is nothing else.
    """

    prefix: Prefix
    table: int = TABLE_MAIN
    metric: int = 0
    tos: int = 0
    protocol: int = 0
    scope: int = 0
    source_len: int = 0
    other: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a FIB shows for an address and why.

    `prefix` is that of the FIB entry, None when nothing matches (index is then ADJ_NO_ROUTE = 0). `route`
    is the route behind it; when `neighbour` is true, the connected route that covers the neighbour.
    """

    index: int
    prefix: Prefix | None = None
    route: Route | None = None
    neighbour: bool = False
    type: RouteType | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One alternative. `path_id` may be reserved (below ADJ_RESERVED = 8). `best`: the merged FIB shows it."""

    route: Route
    path_id: int
    best: bool
    type: RouteType


@dataclass(frozen=True, slots=True)
class RibStats:
    """`routes*`: alternatives of all tables. `failed`: times a FIB or memory refused (retried by itself).
    `paths_exhausted`: times a route was given to the kernel because no path id was left.
    `bytes`: memory of the RIB without its FIBs. `fibs`: how many these are, the merged one included.
    """

    routes4: int = 0
    routes6: int = 0
    paths: int = 0
    neighbours: int = 0
    best_changes: int = 0
    failed: int = 0
    paths_exhausted: int = 0
    bytes: int = 0
    fibs: int = 0


@dataclass(slots=True)
class _Scratch:
    """C structs used again by every call: allocating them would cost more than the calls."""

    route: Any = field(default_factory=lambda: ffi.new("struct route *"))
    path: Any = field(default_factory=lambda: ffi.new("struct path *"))
    answer: Any = field(default_factory=lambda: ffi.new("struct rib_answer *"))
    stats: Any = field(default_factory=lambda: ffi.new("struct rib_stats *"))


class Rib:
    """Routes in, FIBs kept right. Owns the C object and the FIBs of `fib()`; borrows `main` and `adjacencies` for as
    long as it lives.

    `adjacencies` bounds the number of paths; a fresh path's adjacency gets `new_path_action` (a reason
    number) before any packet can see it. MemoryError when there is no memory.
    """

    def __init__(self, main: Fib, adjacencies: HasC, new_path_action: int) -> None:
        self._main = main
        self._borrowed = (main, adjacencies)
        self._fibs: dict[tuple[int, int], Fib] = {}
        self._c = lib.rib_create(main.c, adjacencies.c, new_path_action)
        if self._c == ffi.NULL:
            raise MemoryError("rib_create")
        self._scratch = _Scratch()

    @property
    def c(self) -> Any:
        """`struct rib *`, valid until `close`."""
        return self._c

    @property
    def main(self) -> Fib:
        """The merged FIB: what the default rules say of tables local and main (fib/rib.h says how they meet)."""
        return self._main

    def fib(self, table: int, shortest: int = 0) -> Fib:
        """The FIB that shows exactly the routes of one table (any number, 253, 254 and 255 included).

        Routes of prefixes shorter than `shortest`, 0..129, answer ADJ_NO_ROUTE, as throw routes do
        (`suppress_prefixlength N` is shortest = N + 1). Neighbours of the table's connected routes have their
        host prefixes.
        Made and filled at the first asking, followed from then on; asking again gives the same object, which lives
        until the Rib closes and has the readers of `main`. ValueError: no table number (0..2**32-1) or `shortest`;
        OSError ENOSPC: MAX_FIBS are there; MemoryError.
        """
        if not 0 <= table < 1 << 32 or not 0 <= shortest <= 129:
            raise ValueError(f"no FIB for table {table} without prefixes shorter than {shortest}")
        known = self._fibs.get((table, shortest))
        if known is not None:
            return known
        made = Fib(beside=self._main)
        code = lib.rib_show_table(self._c, table, shortest, made.c)
        if code < 0:
            made.close()
            _check(code, f"a FIB for table {table}")
        self._fibs[(table, shortest)] = made
        return made

    def fibs(self) -> dict[tuple[int, int], Fib]:
        """The FIBs made so far, by (table, shortest); the merged one is not among them."""
        return dict(self._fibs)

    def close(self) -> None:
        """Frees the C object and the FIBs of `fib()`: workers must not use them any more. `main` keeps what it
        shows. May be called twice.
        """
        if self._c != ffi.NULL:
            lib.rib_destroy(self._c)
            self._c = ffi.NULL
            for made in self._fibs.values():
                made.close()
            self._fibs.clear()

    def __enter__(self) -> Rib:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, route: Route, path: Path, how: How = How.ADD) -> None:
        """A route the kernel announced. Changing nothing is not an error. OSError EINVAL, ENOMEM."""
        _check(lib.rib_add(self._c, self._route(route), self._path(path), how), "rib_add")

    def remove(self, route: Route, path: Path | None = None) -> bool:
        """Takes the alternative with an equal path, else the first. False when there is no such route.

        IPv6: a path with fewer legs than the alternative's takes only these legs.
        """
        c_path = ffi.NULL if path is None else self._path(path)
        return _found(lib.rib_remove(self._c, self._route(route), c_path), "rib_remove")

    def dump_begin(self, family: int) -> None:
        """A dump of `family` begins: every route that still exists is told again by `dumped`."""
        lib.rib_dump_begin(self._c, family)

    def dumped(self, route: Route, path: Path) -> None:
        _check(lib.rib_dumped(self._c, self._route(route), self._path(path)), "rib_dumped")

    def dump_end(self, family: int) -> int:
        """Removes what was not told. How many routes the dump added, moved or removed (0: all was right)."""
        return int(lib.rib_dump_end(self._c, family))

    def dump_abort(self, family: int) -> None:
        """Forgets the dump; removes nothing."""
        lib.rib_dump_abort(self._c, family)

    def neighbour_add(self, addr: bytes, ifindex: int) -> None:
        """A neighbour with a known link-layer address. Twice is once. OSError ENOMEM."""
        _check(lib.rib_neighbour_add(self._c, _family(addr), addr, ifindex), "rib_neighbour_add")

    def neighbour_remove(self, addr: bytes, ifindex: int) -> bool:
        """False when it was not there."""
        return _found(lib.rib_neighbour_remove(self._c, _family(addr), addr, ifindex), "rib_neighbour_remove")

    def settle(self) -> None:
        """After a batch of changes: frees what no worker can see any more, retries what the FIBs refused."""
        lib.rib_settle(self._c)

    def take_new_paths(self) -> list[int]:
        """Ids of paths new since the last call, or whose legs (under a nhid) were told differently."""
        taken: list[int] = []
        ids = ffi.new("uint32_t[]", _PATH_BATCH)
        while n := lib.rib_take_new_paths(self._c, ids, _PATH_BATCH):
            taken += ffi.unpack(ids, n)
        return taken

    def path(self, path_id: int) -> Path | None:
        """None when the id is reserved or unused."""
        c_path = lib.rib_path(self._c, path_id)
        return None if c_path == ffi.NULL else _path_of(c_path)

    def path_routes(self, path_id: int) -> int:
        """How many alternatives use it, and one more when it leads to a known neighbour itself."""
        return int(lib.rib_path_routes(self._c, path_id))

    @property
    def path_limit(self) -> int:
        """All path ids ever given are below this."""
        return int(lib.rib_path_limit(self._c))

    def lookup(self, addr: bytes, table: int | None = None, shortest: int = 0) -> Answer:
        """What a FIB shows for an address, and the route behind it: the merged FIB, or that of (table, shortest).

        LookupError: nobody asked for such a FIB yet (`fib`).
        """
        out = self._scratch.answer
        if table is None:
            lib.rib_lookup(self._c, _family(addr), addr, out)
        elif (table, shortest) not in self._fibs:
            raise LookupError(f"no FIB shows table {table} without prefixes shorter than {shortest}")
        else:
            lib.rib_lookup_table(self._c, table, shortest, _family(addr), addr, out)
        if not out.found:
            return Answer(int(out.index))
        prefix = _prefix_of(out.prefix)
        kind = RouteType(out.type) if out.type else None
        return Answer(int(out.index), prefix, _route_of(out.route), bool(out.neighbour), kind)

    def walk(self) -> Iterator[Entry]:
        """All alternatives, in no particular order. The RIB must not change meanwhile."""
        cursor = ffi.new("uint64_t *")
        out = ffi.new("struct rib_entry[]", _WALK_BATCH)
        while n := lib.rib_walk(self._c, cursor, out, _WALK_BATCH):
            for entry in out[0:n]:
                yield _entry_of(entry)

    def page(self, cursor: int, n: int) -> tuple[list[Entry], int]:
        """At most n alternatives from `cursor` (0 at first) on, and the next cursor; none at the end. The RIB may
        change between pages: then routes may be missed or told twice."""
        at = ffi.new("uint64_t *", cursor)
        out = ffi.new("struct rib_entry[]", n)
        got = lib.rib_walk(self._c, at, out, n)
        entries = [_entry_of(e) for e in out[0:got]]
        return entries, int(at[0])

    def stats(self) -> RibStats:
        out = self._scratch.stats
        lib.rib_stats_read(self._c, out)
        return RibStats(**{name: int(getattr(out, name)) for name in RibStats.__dataclass_fields__})

    def check(self) -> None:
        """For tests: recomputes all slowly, the FIBs included. AssertionError that says what is wrong."""
        why = ffi.new("char[]", 256)
        if lib.rib_check(self._c, why, 256) != 0:
            raise AssertionError(ffi.string(why).decode())

    def _route(self, route: Route) -> Any:
        out = self._scratch.route
        _fill_prefix(out.prefix, route.prefix)
        for name in ("table", "metric", "tos", "protocol", "scope", "source_len", "other"):
            setattr(out, name, getattr(route, name))
        return out

    def _path(self, path: Path) -> Any:
        if len(path.legs) > PATH_MAX_LEGS:
            raise ValueError(f"a path has at most {PATH_MAX_LEGS} legs, not {len(path.legs)}")
        out = self._scratch.path
        out.family, out.type, out.nhid, out.mtu = path.family, path.type, path.nhid, path.mtu
        out.flags = _PATH_KERNEL_ONLY if path.kernel_only else 0
        out.n_legs = len(path.legs)
        for leg, c_leg in zip(path.legs, out.leg, strict=False):
            gateway = leg.gateway or b""
            c_leg.ifindex, c_leg.weight = leg.ifindex, leg.weight
            c_leg.gateway_family = _family(gateway) if gateway else 0
            c_leg.flags = RTNH_F_ONLINK if leg.onlink else 0
            ffi.memmove(c_leg.gateway, gateway.ljust(16, b"\0"), 16)
        return out


def _family(addr: bytes) -> int:
    if len(addr) not in (4, 16):
        raise ValueError(f"an address has 4 or 16 bytes, not {len(addr)}")
    return FAMILY_IP4 if len(addr) == 4 else FAMILY_IP6


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")


def _found(result: int, what: str) -> bool:
    if result == -errno.ENOENT:
        return False
    _check(result, what)
    return True


def _fill_prefix(out: Any, prefix: Prefix) -> None:
    out.family = _family(prefix.addr)
    out.len = prefix.length
    ffi.memmove(out.addr, prefix.addr.ljust(16, b"\0"), 16)


def _prefix_of(c_prefix: Any) -> Prefix:
    return Prefix(bytes(ffi.buffer(c_prefix.addr))[: _ADDRESS_BYTES[c_prefix.family]], int(c_prefix.len))


def _route_of(c_route: Any) -> Route:
    return Route(
        prefix=_prefix_of(c_route.prefix),
        table=int(c_route.table),
        metric=int(c_route.metric),
        tos=int(c_route.tos),
        protocol=int(c_route.protocol),
        scope=int(c_route.scope),
        source_len=int(c_route.source_len),
        other=int(c_route.other),
    )


def _entry_of(c_entry: Any) -> Entry:
    return Entry(_route_of(c_entry.route), int(c_entry.path_id), bool(c_entry.best), RouteType(c_entry.type))


def _path_of(c_path: Any) -> Path:
    return Path(
        family=int(c_path.family),
        legs=tuple(_leg_of(c_path.leg[i]) for i in range(c_path.n_legs)),
        type=RouteType(c_path.type),
        nhid=int(c_path.nhid),
        mtu=int(c_path.mtu),
        kernel_only=bool(c_path.flags & _PATH_KERNEL_ONLY),
    )


def _leg_of(c_leg: Any) -> NextHop:
    gateway = None
    if c_leg.gateway_family:
        gateway = bytes(ffi.buffer(c_leg.gateway))[: _ADDRESS_BYTES[c_leg.gateway_family]]
    return NextHop(int(c_leg.ifindex), gateway, int(c_leg.weight), bool(c_leg.flags & RTNH_F_ONLINK))
