"""FIBs of single tables: what each shows, how many there may be, what they cost, and their readers."""

from __future__ import annotations

import errno
import ipaddress
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from rib_bench import rib_bench, shown

from ixroute._dataplane import ffi, lib
from ixroute.fib.fib import Fib
from ixroute.fib.rib import (
    FAMILY_IP4,
    FAMILY_IP6,
    MAX_FIBS,
    How,
    NextHop,
    Path,
    Prefix,
    Rib,
    Route,
    RouteType,
)

NO_ROUTE, LOCAL, BROADCAST, MULTICAST, BLACKHOLE, REJECT, KERNEL = range(7)
VRF = 100


@pytest.fixture
def rib() -> Iterator[Rib]:
    with rib_bench() as rib:
        yield rib
        rib.check()
        for fib in (rib.main, *rib.fibs().values()):
            fib.check()


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def route(prefix: str, table: int = VRF, **fields: int) -> Route:
    return Route(Prefix.parse(prefix), table=table, **fields)


def via(gateway: str, link: int = 2) -> Path:
    packed = ip(gateway)
    return Path(FAMILY_IP4 if len(packed) == 4 else FAMILY_IP6, (NextHop(link, packed),))


def on_link(link: int = 2, family: int = FAMILY_IP4) -> Path:
    return Path(family, (NextHop(link),))


def of_type(kind: RouteType, family: int = FAMILY_IP4) -> Path:
    return Path(family, (), kind)


def seen(rib: Rib, fib: Fib, addr: str) -> int | Path:
    return shown(rib, fib.lookup(addr))


@pytest.mark.parametrize("table", [1, VRF, 253, 254, 255, 70_000, 2**32 - 1])
def test_a_fib_shows_the_routes_of_its_table_and_of_no_other(rib: Rib, table: int) -> None:
    early = rib.fib(table)
    rib.add(route("10.1.0.0/16", table), via("192.0.2.1"))
    rib.add(route("10.1.0.0/16", 42), via("192.0.2.9"))
    rib.add(route("10.0.0.0/8", 42), via("192.0.2.9"))
    for fib in (early, rib.fib(table)):
        assert seen(rib, fib, "10.1.2.3") == via("192.0.2.1")
        assert fib.lookup("10.2.0.1") == NO_ROUTE
    assert rib.lookup(ip("10.1.2.3"), table).route == route("10.1.0.0/16", table)


def test_a_fib_asked_for_late_is_filled_at_once_neighbours_included(rib: Rib) -> None:
    rib.add(route("10.1.0.0/24"), on_link())
    rib.add(route("2001:db8::/64"), on_link(family=FAMILY_IP6))
    rib.add(route("0.0.0.0/0"), via("10.1.0.5"))
    rib.neighbour_add(ip("10.1.0.5"), 2)
    rib.neighbour_add(ip("2001:db8::5"), 2)
    rib.neighbour_add(ip("10.1.0.6"), 3)
    fib = rib.fib(VRF)
    assert fib.stats().prefixes4 == 3
    assert fib.stats().prefixes6 == 2
    assert seen(rib, fib, "10.1.0.5") == via("10.1.0.5")
    assert seen(rib, fib, "10.1.0.6") == on_link()
    assert seen(rib, fib, "2001:db8::5") == via("2001:db8::5")
    answer = rib.lookup(ip("10.1.0.5"), VRF)
    assert (answer.neighbour, answer.route) == (True, route("10.1.0.0/24"))


def test_asking_again_gives_the_same_fib_and_what_suppresses_is_another(rib: Rib) -> None:
    assert rib.fib(VRF) is rib.fib(VRF)
    assert rib.fib(VRF, 1) is not rib.fib(VRF)
    assert rib.fib(254) is not rib.main
    assert set(rib.fibs()) == {(VRF, 0), (VRF, 1), (254, 0)}
    assert rib.stats().fibs == 4


def test_main_alone_does_not_know_of_local(rib: Rib) -> None:
    rib.add(route("10.0.0.0/8", 255), of_type(RouteType.LOCAL))
    rib.add(route("10.1.0.0/16", 254), via("192.0.2.1"))
    assert rib.main.lookup("10.1.0.1") == KERNEL
    assert seen(rib, rib.fib(254), "10.1.0.1") == via("192.0.2.1")
    assert rib.fib(255).lookup("10.1.0.1") == LOCAL


@pytest.mark.parametrize("table", [VRF, 254, 255])
def test_a_thrown_address_goes_to_the_next_rule(rib: Rib, table: int) -> None:
    rib.add(route("0.0.0.0/0", table), via("192.0.2.1"))
    rib.add(route("10.1.0.0/16", table), of_type(RouteType.THROW))
    assert rib.fib(table).lookup("10.1.0.1") == NO_ROUTE
    assert rib.main.lookup("10.1.0.1") == {VRF: NO_ROUTE, 254: NO_ROUTE, 255: KERNEL}[table]


def test_suppressed_prefixes_answer_no_route_and_refusals_are_never_suppressed(rib: Rib) -> None:
    """As Linux does it (6.18, `suppress_prefixlength 24`): the longest match decides, then it is suppressed."""
    rib.add(route("0.0.0.0/0"), of_type(RouteType.UNREACHABLE))
    rib.add(route("20.0.0.0/8"), via("192.0.2.1"))
    rib.add(route("20.1.1.0/25"), via("192.0.2.2"))
    rib.add(route("20.2.0.0/16"), of_type(RouteType.BLACKHOLE))
    fib = rib.fib(VRF, 25)
    assert fib.lookup("8.8.8.8") == REJECT
    assert fib.lookup("20.1.2.3") == NO_ROUTE
    assert fib.lookup("20.2.2.3") == BLACKHOLE
    assert seen(rib, fib, "20.1.1.3") == via("192.0.2.2")
    assert rib.lookup(ip("20.1.2.3"), VRF, 25).route == route("20.0.0.0/8")


def test_a_suppressed_connected_route_shows_no_neighbours(rib: Rib) -> None:
    rib.add(route("10.1.0.0/24"), on_link())
    rib.neighbour_add(ip("10.1.0.5"), 2)
    assert rib.fib(VRF, 25).lookup("10.1.0.5") == NO_ROUTE
    assert seen(rib, rib.fib(VRF, 24), "10.1.0.5") == via("10.1.0.5")


def test_source_routes_stay_the_kernels_where_suppression_would_hide_them(rib: Rib) -> None:
    rib.add(route("::/0", source_len=64, other=5), via("fe80::1"))
    rib.add(route("10.0.0.0/8", tos=16), via("192.0.2.1"))
    fib = rib.fib(VRF, 33)
    assert (fib.lookup("2001:db8::1"), fib.lookup("10.0.0.1")) == (KERNEL, KERNEL)


def test_the_next_alternative_follows_and_the_last_leaves_nothing(rib: Rib) -> None:
    fib = rib.fib(VRF)
    rib.add(route("10.0.0.0/8", metric=20), via("192.0.2.20"))
    rib.add(route("10.0.0.0/8", metric=10), via("192.0.2.10"))
    assert seen(rib, fib, "10.0.0.1") == via("192.0.2.10")
    rib.remove(route("10.0.0.0/8", metric=10))
    assert seen(rib, fib, "10.0.0.1") == via("192.0.2.20")
    rib.add(route("10.0.0.0/8", metric=20), via("192.0.2.21"), How.REPLACE)
    assert seen(rib, fib, "10.0.0.1") == via("192.0.2.21")
    rib.remove(route("10.0.0.0/8", metric=20))
    assert fib.lookup("10.0.0.1") == NO_ROUTE
    assert rib.stats().paths == 0


def test_neighbours_of_a_table_come_and_go_with_their_route(rib: Rib) -> None:
    fib = rib.fib(VRF)
    rib.neighbour_add(ip("10.1.0.5"), 2)
    rib.add(route("10.0.0.0/8"), on_link())
    assert seen(rib, fib, "10.1.0.5") == via("10.1.0.5")
    assert rib.main.lookup("10.1.0.5") == NO_ROUTE
    rib.add(route("10.1.0.0/16"), via("192.0.2.1"))
    assert seen(rib, fib, "10.1.0.5") == via("192.0.2.1")
    rib.remove(route("10.1.0.0/16"))
    assert seen(rib, fib, "10.1.0.5") == via("10.1.0.5")
    rib.remove(route("10.0.0.0/8"))
    assert fib.lookup("10.1.0.5") == NO_ROUTE
    assert rib.stats().paths == 0


def test_a_path_tells_of_its_neighbour_once_wherever_that_is_shown(rib: Rib) -> None:
    """The mirror takes the neighbour's own use off (netlink/wanted.py) and drops paths that nobody uses."""
    rib.neighbour_add(ip("10.1.0.5"), 2)
    rib.add(route("10.1.0.0/24"), on_link())
    index = rib.fib(VRF).lookup("10.1.0.5")
    assert rib.path_routes(index) == 1
    rib.add(route("10.1.0.0/24", 254), on_link())
    assert rib.main.lookup("10.1.0.5") == index
    assert rib.path_routes(index) == 1
    rib.add(route("0.0.0.0/0"), via("10.1.0.5"))
    assert rib.path_routes(index) == 2
    rib.neighbour_remove(ip("10.1.0.5"), 2)
    assert rib.path_routes(index) == 1


def test_a_dump_without_a_tables_routes_empties_its_fib(rib: Rib) -> None:
    fib = rib.fib(VRF)
    for i in range(50):
        rib.add(route(f"10.0.{i}.0/24"), via("192.0.2.1"))
        rib.add(route(f"10.0.{i}.0/24", 254), via("192.0.2.2"))
    rib.dump_begin(FAMILY_IP4)
    for i in range(50):
        rib.dumped(route(f"10.0.{i}.0/24", 254), via("192.0.2.2"))
    assert fib.stats().prefixes4 == 50
    assert rib.dump_end(FAMILY_IP4) == 50
    assert fib.stats().prefixes4 == 0
    assert rib.main.stats().prefixes4 == 50


def test_a_dump_shows_a_changed_order_when_all_of_it_was_told(rib: Rib) -> None:
    """Half told, a list is neither what was nor what is: packets stay where they were."""
    where, first, second = route("10.0.0.0/8"), via("192.0.2.1"), via("192.0.2.2")
    rib.add(where, first)
    rib.add(where, second, How.APPEND)
    fib = rib.fib(VRF)
    rib.dump_begin(FAMILY_IP4)
    rib.dumped(where, second)
    assert shown(rib, fib.lookup("10.0.0.1")) == first
    rib.dumped(where, first)
    assert shown(rib, fib.lookup("10.0.0.1")) == second
    assert rib.dump_end(FAMILY_IP4) > 0
    assert shown(rib, fib.lookup("10.0.0.1")) == second


def test_there_are_as_many_fibs_as_promised_and_then_an_error() -> None:
    with rib_bench() as rib:
        for i in range(MAX_FIBS - 1):
            rib.add(route("10.0.0.0/8", 1000 + i), via(f"192.0.2.{i}"))
            rib.fib(1000 + i)
        with pytest.raises(OSError, match="table 5000") as raised:
            rib.fib(5000)
        assert raised.value.errno == errno.ENOSPC
        assert rib.stats().fibs == MAX_FIBS == 256
        for i in (0, 100, MAX_FIBS - 2):
            assert seen(rib, rib.fib(1000 + i), "10.0.0.1") == via(f"192.0.2.{i}")
        rib.check()


@pytest.mark.parametrize(("table", "shortest"), [(-1, 0), (2**32, 0), (1, -1), (1, 130)])
def test_what_is_no_table_or_length_is_refused(rib: Rib, table: int, shortest: int) -> None:
    with pytest.raises(ValueError, match="no FIB for table"):
        rib.fib(table, shortest)


def test_an_answer_is_only_given_for_fibs_that_were_asked_for(rib: Rib) -> None:
    with pytest.raises(LookupError, match="table 100"):
        rib.lookup(ip("10.0.0.1"), VRF)


def test_c_refuses_fibs_that_are_filled_twice_there_or_have_readers_of_their_own(rib: Rib) -> None:
    with Fib() as stranger, Fib(beside=rib.main) as filled, Fib(beside=rib.main) as again:
        filled.insert("10.0.0.0/8", 1)
        rib.fib(VRF)
        assert lib.rib_show_table(rib.c, 7, 0, stranger.c) == -errno.EINVAL
        assert lib.rib_show_table(rib.c, 7, 0, filled.c) == -errno.EINVAL
        assert lib.rib_show_table(rib.c, 7, 130, again.c) == -errno.EINVAL
        assert lib.rib_show_table(rib.c, VRF, 0, again.c) == -errno.EEXIST
        assert rib.stats().fibs == 2


def test_readers_of_several_tables_only_see_what_some_moment_showed() -> None:
    """Two threads read two tables and main while routes, dumps and neighbours change them."""
    with rib_bench() as rib:
        tables = {VRF: rib.fib(VRF), 200: rib.fib(200), 254: rib.main}
        for table in tables:
            rib.add(route("10.0.0.0/8", table), via(f"192.0.2.{table}"))
        base = {table: fib.lookup("10.1.0.5") for table, fib in tables.items()}
        seen_by: dict[int, set[int]] = {table: set() for table in tables}
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                for table, fib in tables.items():
                    seen_by[table].add(fib.lookup("10.1.0.5"))

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        allowed: dict[int, set[int]] = {table: {index} for table, index in base.items()}
        try:
            dice = random.Random(1)
            for _ in range(1500):
                table = dice.choice(list(tables))
                change = dice.randrange(4)
                if change == 0:
                    rib.add(route("10.1.0.0/24", table), on_link(), How.REPLACE)
                elif change == 1:
                    rib.remove(route("10.1.0.0/24", table))
                elif change == 2:
                    rib.neighbour_add(ip("10.1.0.5"), 2)
                else:
                    rib.neighbour_remove(ip("10.1.0.5"), 2)
                for each, fib in tables.items():
                    allowed[each].add(fib.lookup("10.1.0.5"))
        finally:
            done.set()
            for reader in readers:
                reader.join()
        rib.check()
        for table, indexes in seen_by.items():
            assert indexes
            assert indexes <= allowed[table]


def test_a_path_id_waits_for_readers_of_all_tables() -> None:
    """All FIBs have one epoch: an id that a worker may have read from any of them is not given again."""
    with rib_bench() as rib:
        fib = rib.fib(VRF)
        epoch = lib.fib_epoch(fib.c)
        assert epoch == lib.fib_epoch(rib.main.c)
        lib.epoch_quiesce(epoch, 3)
        rib.add(route("10.0.0.0/8"), via("192.0.2.1"))
        first = fib.lookup("10.0.0.1")
        rib.remove(route("10.0.0.0/8"))
        rib.add(route("10.0.0.0/8"), via("192.0.2.2"))
        assert fib.lookup("10.0.0.1") != first
        lib.epoch_idle(epoch, 3)


MEMORY = """
from ixroute.fib.adjacency import AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.fib.rib import NextHop, Path, Prefix, Rib, Route

def resident():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss"))

def path(family):
    return Path(family, (NextHop(2, bytes([10, 0, 0, 1]) if family == 4 else bytes([32] * 16)),))

def report(what, n):
    global before
    print(what, (resident() - before) // n)
    before = resident()

with Fib() as main, Rib(main, AdjacencyTable(1024, 1), 9) as rib:
    rib.add(Route(Prefix.parse("0.0.0.0/0"), table=99), path(4))
    rib.fib(99)
    before = resident()
    for i in range(50):
        rib.fib(100 + i)
    report("empty", 50)
    for i in range(50):
        rib.add(Route(Prefix.parse("0.0.0.0/0"), table=100 + i), path(4))
        rib.add(Route(Prefix.parse("::/0"), table=100 + i), path(6))
    report("default", 50)
    for i in range(50):
        for third in range(40):
            rib.add(Route(Prefix(bytes([10, 5 * third, third, 0]), 24), table=100 + i), path(4))
        for third in range(8):
            prefix = Prefix(bytes([0x20, 1, 0xd, 0xb8, 0, third] + [0] * 10), 48)
            rib.add(Route(prefix, table=100 + i), path(6))
    report("fifty", 50)
"""


def test_many_small_tables_take_little_memory() -> None:
    """KiB of resident memory for each FIB, seen 8, 96 and 130; in a process of its own, huge pages or not."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=60, check=True
    )
    taken = {what: int(kib) for what, kib in (line.split() for line in done.stdout.splitlines())}
    assert taken["empty"] < 40
    assert taken["default"] < 200
    assert taken["fifty"] < 500


def exact(fib: Fib, prefix: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int | None:
    index = ffi.new("uint32_t *")
    packed = prefix.network_address.packed.ljust(16, b"\0")
    asked = ffi.new("struct prefix *", (prefix.version, prefix.prefixlen, packed))
    return int(index[0]) if lib.fib_get(fib.c, asked, index) else None


@pytest.mark.parametrize("family", [4, 6])
def test_the_fib_tells_its_prefixes_one_by_one_and_the_longest_up_to_a_length(family: int) -> None:
    bits = 32 if family == 4 else 128
    kind = ipaddress.IPv4Network if family == 4 else ipaddress.IPv6Network
    base = int(
        ipaddress.ip_address("10.85.170.85" if family == 4 else "2001:db8:5555:aaaa:5555:aaaa:5555:aaaa")
    )
    dice = random.Random(family)
    prefix, index = ffi.new("struct prefix *"), ffi.new("uint32_t *")
    with Fib() as fib:
        for _ in range(20):
            held = {length: length + 1 for length in range(bits + 1) if dice.random() < 0.2}
            for length, value in held.items():
                fib.insert(kind((base >> (bits - length) << (bits - length), length)), value)
            for length in range(bits + 1):
                network = kind((base >> (bits - length) << (bits - length), length))
                assert exact(fib, network) == held.get(length)
                want = max((known for known in held if known <= length), default=None)
                found = lib.fib_match_at_most(
                    fib.c, family, base.to_bytes(bits // 8, "big"), length, prefix, index
                )
                assert (
                    (int(prefix.len), int(index[0])) == (want, held[want]) if want is not None else not found
                )
            for length in held:
                fib.remove(kind((base >> (bits - length) << (bits - length), length)))
