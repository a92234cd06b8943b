"""The FIB when memory fails, and what is left of it after churn."""

import random
from ipaddress import ip_address

import pytest
from fib_twin import LinearScan, Network, assert_same, edges, network

from ixroute._dataplane import lib
from ixroute.fib.fib import Fib

START = [
    "10.0.0.0/8",
    "10.1.2.0/24",
    "10.1.3.128/25",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1:2::/64",
]


def filled() -> tuple[Fib, LinearScan]:
    fib, twin = Fib(), LinearScan()
    for i, prefix in enumerate(START):
        fib.insert(prefix, i + 1)
        twin.insert(prefix, i + 1)
    fib.collect()
    return fib, twin


@pytest.mark.parametrize(
    ("prefix", "index"),
    [
        ("10.1.2.3/32", 9),
        ("10.1.2.0/24", 300),
        ("10.1.2.128/25", 9),
        ("10.77.0.0/19", 70_000),
        ("2001:db8:1::1/128", 9),
        ("2001:db8:1::/49", 9),
        ("2a00::/48", 70_000),
    ],
)
def test_an_insert_that_finds_no_memory_leaves_the_table_as_it_was(prefix: str, index: int) -> None:
    fib, twin = filled()
    places = edges([*twin.table, network(4, 0x0A4D0000, 19), network(6, 0x2A00 << 112, 48)])
    with fib:
        for nth in range(1, 200):
            before = fib.stats()
            lib.fib_fail_allocation(fib.c, nth)
            try:
                fib.insert(prefix, index)
            except MemoryError:
                lib.fib_fail_allocation(fib.c, 0)
                fib.check()
                assert_same(fib, twin, places)
                assert fib.stats().prefixes4 == before.prefixes4
                continue
            break
        else:
            pytest.fail("an insert that needs 200 allocations")
        lib.fib_fail_allocation(fib.c, 0)
        assert nth > 1, "no allocation was made to fail"
        twin.insert(prefix, index)
        fib.check()
        assert_same(fib, twin, places)


@pytest.mark.parametrize("prefix", [p for p in START if not p.endswith("/8")])
def test_a_removal_that_finds_no_memory_leaves_the_table_as_it_was(prefix: str) -> None:
    fib, twin = filled()
    places = edges(list(twin.table))
    with fib:
        for nth in range(1, 50):
            lib.fib_fail_allocation(fib.c, nth)
            try:
                fib.remove(prefix)
            except MemoryError:
                lib.fib_fail_allocation(fib.c, 0)
                fib.check()
                assert_same(fib, twin, places)
                continue
            break
        lib.fib_fail_allocation(fib.c, 0)
        twin.remove(prefix)
        fib.check()
        assert_same(fib, twin, places)


def test_a_prefix_of_the_direct_tables_needs_no_memory_at_all() -> None:
    with Fib() as fib:
        lib.fib_fail_allocation(fib.c, 1)
        for prefix in ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/18", "::/0", "fe80::/10", "2001:d00::/24"):
            fib.insert(prefix, 1)
            fib.remove(prefix)


def some_prefixes(rng: random.Random, n: int) -> list[Network]:
    out: list[Network] = []
    for _ in range(n):
        if rng.random() < 0.5:
            out.append(
                network(
                    4,
                    rng.getrandbits(20) << 12 | rng.getrandbits(12),
                    rng.choice([16, 20, 22, 24, 24, 24, 28, 32]),
                )
            )
        else:
            number = 0x2001 << 112 | rng.getrandbits(16) << 96 | rng.getrandbits(16) << 80
            out.append(network(6, number, rng.choice([29, 32, 36, 44, 48, 48, 64])))
    return out


def test_memory_after_churn_is_close_to_a_fresh_table() -> None:
    rng = random.Random(7)
    content = dict.fromkeys(some_prefixes(rng, 6000), 1)
    with Fib() as churned, Fib() as fresh:
        for prefix in content:
            churned.insert(prefix, 1)
        for _ in range(6):
            for prefix in rng.sample(list(content), len(content) // 2):
                churned.remove(prefix)
                del content[prefix]
            for prefix in some_prefixes(rng, 3000):
                index = rng.randrange(1, 70_000)
                churned.insert(prefix, index)
                content[prefix] = index
        for prefix, index in content.items():
            fresh.insert(prefix, index)
        churned.collect()
        fresh.collect()
        churned.check()
        after, want = churned.stats(), fresh.stats()
        assert (after.prefixes4, after.prefixes6) == (want.prefixes4, want.prefixes6)
        assert after.lookup_bytes4 + after.lookup_bytes6 < 1.25 * (want.lookup_bytes4 + want.lookup_bytes6)
        for prefix in content:
            assert churned.lookup(prefix.network_address) == fresh.lookup(prefix.network_address)


def test_what_stats_say_of_an_empty_table() -> None:
    with Fib() as fib:
        stats = fib.stats()
        assert (stats.prefixes4, stats.prefixes6, stats.updates, stats.retired_bytes) == (0, 0, 0, 0)
        fib.insert("10.1.2.0/24", 1)
        assert fib.stats().updates == 1
        assert fib.stats().lookup_bytes4 > stats.lookup_bytes4
        assert fib.lookup(ip_address("10.1.2.3")) == 1
