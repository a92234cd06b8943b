"""Random histories of routes, dumps and neighbours: after each step the RIB shows what its slow twin
shows, in the merged FIB and in those of single tables.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from rib_bench import rib_bench, shown
from rib_twin import Told, Twin, canonical, equal

from ixroute._dataplane import lib
from ixroute.fib.fib import Fib
from ixroute.fib.rib import FAMILY_IP4, FAMILY_IP6, How, NextHop, Path, Prefix, Rib, Route, RouteType

BASE = {FAMILY_IP4: bytes([10, 0, 0, 0]), FAMILY_IP6: bytes.fromhex("20010db8") + bytes(12)}
LENGTHS = {FAMILY_IP4: [0, 8, 28, 29, 30, 31, 32], FAMILY_IP6: [0, 32, 64, 124, 125, 127, 128]}
HOSTS = 16  # the last four bits: few enough that everything meets everything
LINKS = [2, 3]


def host(family: int, last: int) -> bytes:
    return BASE[family][:-1] + bytes([last])


def prefix_at(family: int, last: int, length: int) -> Prefix:
    width = 8 * len(BASE[family])
    value = int.from_bytes(host(family, last), "big") >> (width - length) << (width - length)
    return Prefix(value.to_bytes(width // 8, "big"), length)


def prefixes(family: int) -> st.SearchStrategy[Prefix]:
    return st.builds(prefix_at, st.just(family), st.integers(0, HOSTS - 1), st.sampled_from(LENGTHS[family]))


def legs(family: int) -> st.SearchStrategy[NextHop]:
    gateways = st.one_of(st.none(), st.builds(host, st.just(family), st.integers(0, 3)))
    return st.builds(
        NextHop, st.sampled_from([*LINKS, *LINKS, 0]), gateways, st.sampled_from([1, 1, 1, 5]), st.booleans()
    )


def paths(family: int) -> st.SearchStrategy[Path]:
    some_legs = st.lists(legs(family), max_size=3, unique_by=lambda leg: (leg.ifindex, leg.gateway)).map(
        tuple
    )
    on_link = st.sampled_from(LINKS).map(lambda link: Path(family, (NextHop(link),)))
    one_gateway = st.builds(
        NextHop, st.sampled_from(LINKS), st.builds(host, st.just(family), st.integers(0, 3))
    )
    return st.one_of(
        on_link,
        st.lists(one_gateway, min_size=1, max_size=3, unique=True).map(
            lambda hops: Path(family, tuple(hops))
        ),
        st.builds(
            Path,
            st.just(family),
            some_legs,
            st.sampled_from(RouteType),
            st.sampled_from([0, 0, 0, 7]),
            st.sampled_from([0, 0, 1300]),
            st.sampled_from([False, False, False, True]),
        ),
    )


@st.composite
def routes(draw: st.DrawFn, family: int) -> Route:
    return Route(
        draw(prefixes(family)),
        table=draw(st.sampled_from([254, 254, 255, 253, 1000, 1000, 1256])),
        metric=draw(st.sampled_from([0, 0, 20])),
        tos=draw(st.sampled_from([0] * 9 + [16])) if family == FAMILY_IP4 else 0,
        protocol=draw(st.sampled_from([4, 4, 4, 9])),
        scope=draw(st.sampled_from([0, 0, 253])),
        source_len=draw(st.sampled_from([0] * 9 + [64])) if family == FAMILY_IP6 else 0,
        other=draw(st.sampled_from([0, 0, 0, 5])) if family == FAMILY_IP4 else 0,
    )


def told(family: int) -> st.SearchStrategy[Told]:
    return st.tuples(routes(family), paths(family))


# Some whose tables share a bucket of the RIB's, some that suppress.
SHOWN = [
    (1000, 0),
    (1000, 1),
    (1000, 30),
    (1000, 129),
    (1256, 0),
    (254, 0),
    (254, 9),
    (255, 0),
    (253, 0),
    (7, 0),
]
PICK = st.integers(0, 1000)
FAMILY = st.sampled_from([FAMILY_IP4, FAMILY_IP6])
STEP = FAMILY.flatmap(
    lambda family: st.one_of(
        st.tuples(st.just("add"), told(family), st.sampled_from(How)),
        st.tuples(st.just("add"), told(family), st.sampled_from(How)),
        st.tuples(st.just("remove"), told(family), st.sampled_from(["that", "first", "leg", "known"]), PICK),
        st.tuples(st.just("remove"), told(family), st.just("known"), PICK),
        st.tuples(
            st.just("neighbour"),
            st.just(family),
            st.integers(0, HOSTS - 1),
            st.sampled_from(LINKS),
            st.booleans(),
        ),
        st.tuples(st.just("show"), st.sampled_from(SHOWN)),
        st.tuples(
            st.just("dump"), st.just(family), st.lists(told(family), max_size=3), st.integers(0, 2**32)
        ),
    )
)


def distinct(routes_told: list[Told]) -> list[Told]:
    """A kernel never tells two routes it would call the same."""
    kept: list[Told] = []
    for route, path in routes_told:
        mine = (route, canonical(path))
        group = [a for a in kept if (a[0].table, a[0].prefix, a[0].metric, a[0].tos) == _key(route)]
        if not any(equal(a, mine) for a in group):
            kept.append(mine)
    return kept


def _key(route: Route) -> tuple[int, Prefix, int, int]:
    return (route.table, route.prefix, route.metric, route.tos)


def grouped(routes_told: list[Told]) -> dict[tuple[int, Prefix, int, int], list[tuple[Route, Path]]]:
    groups: dict[tuple[int, Prefix, int, int], list[tuple[Route, Path]]] = {}
    for route, path in routes_told:
        groups.setdefault(_key(route), []).append((route, replace(path, legs=()) if path.nhid else path))
    return groups


def same_shape(before: list[Told], after: list[Told]) -> bool:
    """Equal as far as the kernel would call them the same, alternatives in the same order."""
    a, b = grouped(before), grouped(after)
    return a.keys() == b.keys() and all(
        len(a[key]) == len(b[key]) and all(equal(x, y) for x, y in zip(a[key], b[key], strict=True))
        for key in a
    )


class History:
    def __init__(self, rib: Rib) -> None:
        self.rib, self.twin = rib, Twin()

    def add(self, what: Told, how: How) -> None:
        self.rib.add(*what, how)
        self.twin.add(*what, how)

    def remove(self, what: Told, which: str, pick: int) -> None:
        route, path = what
        known = self.twin.routes(route.prefix.family)
        if which != "that" and known:
            route, path = known[pick % len(known)]
        given_path = None if which == "first" else path
        if which == "leg" and path.legs:
            given_path = replace(path, legs=path.legs[:1])
        assert self.rib.remove(route, given_path) == self.twin.remove(route, given_path)

    def neighbour(self, family: int, last: int, link: int, present: bool) -> None:
        addr = host(family, last)
        if present:
            self.rib.neighbour_add(addr, link)
            self.twin.neighbours.add((addr, link))
        else:
            assert self.rib.neighbour_remove(addr, link) == ((addr, link) in self.twin.neighbours)
            self.twin.neighbours.discard((addr, link))

    def show(self, key: tuple[int, int]) -> None:
        assert self.rib.fib(*key) is self.rib.fib(*key)

    def dump(self, family: int, more: list[Told], seed: int) -> None:
        before = self.twin.routes(family)
        choice = random.Random(seed)
        after = [t for t in before if choice.random() < 0.8] if seed % 3 else list(before)
        if seed % 2:
            choice.shuffle(after)
            after += more
        after = distinct(after)
        self.rib.dump_begin(family)
        for route, path in after:
            self.rib.dumped(route, path)
        differences = self.rib.dump_end(family)
        hidden = self.twin.hidden(family, after)
        before = [t for t in before if t not in hidden]
        assert (differences == 0) == same_shape(before, after)
        if after == [t for t in before if t in after]:
            assert differences == len(before) - len(after)
        self.twin.dump(family, after)

    def agree(self) -> None:
        self.rib.check()
        for family in (FAMILY_IP4, FAMILY_IP6):
            for addr in [host(family, last) for last in range(HOSTS)] + [
                bytes(4 if family == FAMILY_IP4 else 16)
            ]:
                self.same_answer(addr, None, 0, self.rib.main)
                for (table, shortest), fib in self.rib.fibs().items():
                    self.same_answer(addr, table, shortest, fib)

    def same_answer(self, addr: bytes, table: int | None, shortest: int, fib: Fib) -> None:
        want, got = self.twin.lookup(addr, table, shortest), self.rib.lookup(addr, table, shortest)
        meant = shown(self.rib, got.index)
        if isinstance(meant, Path):
            meant = canonical(meant)  # siblings have no order; the twin sorts them its own way
        assert (got.prefix, meant) == (want.prefix, want.shown), (addr.hex(), table, shortest)
        assert got.neighbour == want.neighbour
        assert fib.read(addr) == got.index, "what packets see"


FIBS = st.lists(st.sampled_from(SHOWN), max_size=4, unique=True)
SANITIZED = "IXROUTE_SANITIZED" in os.environ  # each FIB costs ten times as much then
EXAMPLES = int(os.environ.get("IXROUTE_RIB_EXAMPLES", "6" if SANITIZED else "20"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(FIBS, st.lists(STEP, min_size=1, max_size=20))
def test_after_any_history_every_address_shows_what_the_twin_shows(
    fibs: list[tuple[int, int]], steps: list[tuple[object, ...]]
) -> None:
    with rib_bench() as rib:
        history = History(rib)
        for key in fibs:
            history.show(key)
        for name, *arguments in steps:
            getattr(history, str(name))(*arguments)
            history.agree()


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(FIBS, st.lists(st.tuples(STEP, PICK, st.integers(0, 12)), min_size=1, max_size=15))
def test_what_a_fib_refused_is_there_after_the_next_settling(
    fibs: list[tuple[int, int]], steps: list[tuple[tuple[object, ...], int, int]]
) -> None:
    """Before each step one FIB is told to fail an allocation soon."""
    with rib_bench() as rib:
        history = History(rib)
        for key in fibs:
            history.show(key)
        for (name, *arguments), which, nth in steps:
            those = [rib.main, *rib.fibs().values()]
            lib.fib_fail_allocation(those[which % len(those)].c, nth)
            getattr(history, str(name))(*arguments)
            rib.check()
        for fib in (rib.main, *rib.fibs().values()):
            lib.fib_fail_allocation(fib.c, 0)
        rib.settle()
        history.agree()
        for fib in (rib.main, *rib.fibs().values()):
            fib.check()


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    FIBS, st.lists(STEP, min_size=1, max_size=8), FAMILY, st.data(), st.lists(STEP, min_size=1, max_size=4)
)
def test_what_happens_during_a_dump_is_shown_by_its_end(
    fibs: list[tuple[int, int]],
    steps: list[tuple[object, ...]],
    family: int,
    data: st.DataObject,
    meanwhile: list[tuple[object, ...]],
) -> None:
    """Part of the routes is told again, FIBs are made and neighbours come; then the dump ends, or is given up."""
    with rib_bench() as rib:
        history = History(rib)
        for key in fibs:
            history.show(key)
        for name, *arguments in steps:
            getattr(history, str(name))(*arguments)
        after = data.draw(st.permutations(history.twin.routes(family)))
        after = after[: data.draw(st.integers(0, len(after)))]
        rib.dump_begin(family)
        for route, path in after:
            rib.dumped(route, path)
            rib.check()
            for name, *arguments in meanwhile:
                if name in ("show", "neighbour"):
                    getattr(history, str(name))(*arguments)
                    rib.check()
        rib.dump_end(family)
        history.twin.dump(family, after)
        history.agree()


@settings(max_examples=max(1, EXAMPLES * 3 // 4), deadline=None)
@given(st.lists(STEP, min_size=1, max_size=20), FAMILY)
def test_a_dump_of_what_the_rib_walks_is_no_difference(steps: list[tuple[object, ...]], family: int) -> None:
    with rib_bench() as rib:
        history = History(rib)
        for name, *arguments in steps:
            getattr(history, str(name))(*arguments)
        changes = rib.stats().best_changes
        history.dump(family, [], 0)
        assert rib.stats().best_changes == changes
        history.agree()


@settings(max_examples=max(1, EXAMPLES * 3 // 4), deadline=None)
@given(st.lists(STEP, min_size=1, max_size=20), st.integers(9, 12))
def test_with_too_few_path_ids_routes_go_to_the_kernel_and_nothing_breaks(
    steps: list[tuple[object, ...]], ids: int
) -> None:
    with rib_bench(ids) as rib:
        history = History(rib)
        for name, *arguments in steps:
            getattr(rib_only(history), str(name))(*arguments)
            rib.check()
            assert rib.path_limit <= ids


class rib_only:  # noqa: N801 (reads as a preposition)
    """The same steps without comparing: the twin has no limit on paths."""

    def __init__(self, history: History) -> None:
        self.history, self.rib = history, history.rib

    def add(self, what: Told, how: How) -> None:
        self.rib.add(*what, how)

    def remove(self, what: Told, which: str, _pick: int) -> None:
        self.rib.remove(what[0], None if which == "first" else what[1])

    def neighbour(self, family: int, last: int, link: int, present: bool) -> None:
        if present:
            self.rib.neighbour_add(host(family, last), link)
        else:
            self.rib.neighbour_remove(host(family, last), link)

    def show(self, key: tuple[int, int]) -> None:
        self.history.show(key)

    def dump(self, family: int, more: list[Told], _seed: int) -> None:
        self.rib.dump_begin(family)
        for route, path in distinct(more):
            self.rib.dumped(route, path)
        self.rib.dump_end(family)
        there = sum(1 for entry in self.rib.walk() if entry.route.prefix.family == family)
        assert there >= len(distinct(more))
        assert there == len(distinct(more)) or family == FAMILY_IP6, "what may be hidden from dumps is kept"
