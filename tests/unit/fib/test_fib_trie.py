"""What a FIB answers. Behaviours are stated once and hold for the trie and for its linear-scan twin."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fib_twin import LinearScan, Network, assert_same, edges, network, wire
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute.fib.fib import MAX_INDEX, Fib, Match, lookup_variants, use_lookup_variant

Table = Fib | LinearScan


@pytest.fixture(params=[LinearScan, Fib], ids=["twin", "trie"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    make: Callable[[], Table] = request.param
    with make() as made:
        yield made
        made.check()


@pytest.fixture(params=lookup_variants())
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    use_lookup_variant(request.param)
    yield request.param
    use_lookup_variant(lookup_variants()[-1])


def test_an_empty_table_answers_no_route(table: Table) -> None:
    for address in ("0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "2001:db8::1", "ff02::1"):
        assert table.lookup(address) == 0
        assert table.match(address) is None


def test_the_longest_of_nested_prefixes_wins_and_the_next_one_takes_over_when_it_goes(table: Table) -> None:
    nested = [(network(4, 0x0A000000, n), n + 1) for n in range(33)]
    for prefix, index in reversed(nested):
        table.insert(prefix, index)
    for _, index in reversed(nested):
        assert table.lookup("10.0.0.0") == index
        table.check()
        table.remove(nested[index - 1][0])
    assert table.lookup("10.0.0.0") == 0


def test_every_ipv6_length_nests_too(table: Table) -> None:
    for n in range(129):
        table.insert(network(6, 0x20010DB8_0000_0001_0000_0000_0000_0001, n), n + 1)
    for n in range(128, -1, -1):
        assert table.lookup("2001:db8:0:1::1") == n + 1
        table.remove(network(6, 0x20010DB8_0000_0001_0000_0000_0000_0001, n))
    assert table.lookup("2001:db8:0:1::1") == 0


def test_the_worked_example_of_the_header(table: Table) -> None:
    for prefix, index in (("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.0/24", 3), ("10.1.3.128/25", 4)):
        table.insert(prefix, index)
    asked = ("10.1.2.9", "10.1.3.7", "10.1.3.129", "10.1.9.9", "10.9.9.9", "11.0.0.1")
    assert [table.lookup(a) for a in asked] == [3, 2, 4, 2, 1, 0]
    table.remove("10.1.0.0/16")
    assert [table.lookup(a) for a in asked] == [3, 1, 4, 1, 1, 0]


def test_inserting_a_prefix_again_changes_its_index(table: Table) -> None:
    for length in (0, 8, 18, 19, 24, 25, 30, 31, 32):
        prefix = network(4, 0x0A010203, length)
        table.insert(prefix, 7)
        table.insert(prefix, 70_000)
        assert table.match("10.1.2.3") == Match(prefix, 70_000)
        table.check()


def test_a_throw_route_hides_what_covers_it(table: Table) -> None:
    for outer, inner in (
        ("10.0.0.0/8", "10.1.2.0/24"),
        ("10.0.0.0/8", "10.1.0.0/16"),
        ("2001::/16", "2001:db8::/32"),
    ):
        table.insert(outer, 5)
        table.insert(inner, 0)
        inside = inner.split("/", maxsplit=1)[0]
        assert table.lookup(inside) == 0
        match = table.match(inside)
        assert match is not None
        assert match.index == 0


@pytest.mark.parametrize("length", [0, 8, 14, 15, 18, 24, 25, 32])
def test_the_largest_index_comes_back(table: Table, length: int) -> None:
    table.insert(network(4, 0xC0A80101, length), MAX_INDEX)
    table.insert(network(6, 0xFE80 << 112, length), MAX_INDEX)
    assert table.lookup("192.168.1.1") == MAX_INDEX
    assert table.lookup("fe80::") == MAX_INDEX


def test_families_do_not_meet(table: Table) -> None:
    table.insert("0.0.0.0/0", 4)
    assert table.lookup("::") == 0
    table.insert("::/0", 6)
    assert table.lookup("0.0.0.0") == 4
    table.remove("0.0.0.0/0")
    assert table.lookup("::ffff:1.2.3.4") == 6


@pytest.mark.parametrize("prefix", ["10.0.0.1/8", "10.0.0.0/33", "2001:db8::1/64", "::/129", "nonsense"])
def test_what_is_not_a_prefix_is_refused(table: Table, prefix: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        table.insert(prefix, 1)


def test_an_index_out_of_range_is_refused(table: Table) -> None:
    for index in (-1, MAX_INDEX + 1):
        with pytest.raises(ValueError, match=str(index)):
            table.insert("10.0.0.0/8", index)


def test_removing_what_is_not_there_is_a_key_error(table: Table) -> None:
    table.insert("10.1.2.0/24", 1)
    for absent in (
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.2.0/25",
        "10.1.2.0/32",
        "10.1.3.0/24",
        "::/0",
        "2001:db8::/48",
    ):
        with pytest.raises(KeyError):
            table.remove(absent)
    assert table.lookup("10.1.2.3") == 1


# Addresses in few places, so that prefixes nest and share nodes; mostly lengths at the borders of the tables.
PLACES = {
    4: [0, 0x0A010203, 0x0A01FFFF, 0xC0A80001, 0xFFFFFFFF],
    6: [0, 0x20010DB8 << 96 | 1, 0x20010DB8_FFFF_0001_8000_0000_0000_0001, 0xFE80 << 112, (1 << 128) - 1],
}
BORDERS = {
    4: [0, 8, 16, 18, 19, 24, 25, 30, 31, 32],
    6: [0, 14, 15, 24, 25, 30, 48, 60, 61, 64, 65, 70, 124, 127, 128],
}
INDEXES = st.sampled_from([0, 1, 2, 3, 254, 255, 256, 65_534, 65_535, 65_536, MAX_INDEX])


@st.composite
def prefixes(draw: st.DrawFn) -> Network:
    family = draw(st.sampled_from([4, 6]))
    bits = 32 if family == 4 else 128
    length = draw(st.one_of(st.sampled_from(BORDERS[family]), st.integers(0, bits)))
    number = draw(st.sampled_from(PLACES[family]))
    if length:
        number ^= draw(st.integers(0, 7)) << draw(st.integers(bits - length, bits - 1))
    return network(family, number & ((1 << bits) - 1), length)


@given(st.dictionaries(prefixes(), INDEXES, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_table_answers_as_its_twin_does(content: dict[Network, int]) -> None:
    with Fib() as fib, LinearScan() as twin:
        for prefix, index in content.items():
            fib.insert(prefix, index)
            twin.insert(prefix, index)
        fib.check()
        assert_same(fib, twin, edges(list(content)))


UPDATES = st.lists(
    st.tuples(st.sampled_from(["insert", "remove", "replace"]), prefixes(), INDEXES), max_size=30
)


@given(UPDATES)
@settings(max_examples=60, deadline=None)
def test_after_each_update_the_table_is_sound_and_answers_as_its_twin_does(
    updates: list[tuple[str, Network, int]],
) -> None:
    with Fib() as fib, LinearScan() as twin:
        for what, prefix, index in updates:
            known = list(twin.table)
            old = known[index % len(known)] if known and what != "insert" else prefix
            if what == "remove" and old in twin.table:
                fib.remove(old)
                twin.remove(old)
            else:
                fib.insert(old, index)
                twin.insert(old, index)
            fib.check()
            assert_same(fib, twin, edges([prefix, old]))
        stats = fib.stats()
        assert stats.prefixes4 + stats.prefixes6 == len(twin.table)
        assert_same(fib, twin, edges(list(twin.table)))


@given(UPDATES)
@settings(max_examples=20, deadline=None)
def test_a_table_emptied_in_any_order_is_as_new(updates: list[tuple[str, Network, int]]) -> None:
    with Fib() as fib:
        for _, prefix, index in updates:
            fib.insert(prefix, index)
        for prefix in sorted({u[1] for u in updates}, key=hash):
            fib.remove(prefix)
            fib.check()
        fib.collect()
        fib.check()
        stats = fib.stats()
        assert (stats.prefixes4, stats.prefixes6, stats.retired_bytes) == (0, 0, 0)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 63, 64, 65, 200])
def test_a_burst_of_any_size_answers_each_address_in_every_variant(variant: str, n: int) -> None:
    rng = np.random.default_rng(n)
    with Fib() as fib, LinearScan() as twin:
        for _ in range(150):
            family = int(rng.choice([4, 6]))
            place = int(rng.choice(len(PLACES[family])))
            prefix = network(family, PLACES[family][place], int(rng.choice(BORDERS[family])))
            index = int(rng.integers(0, 70_000))
            fib.insert(prefix, index)
            twin.insert(prefix, index)
        for family, bits in ((4, 32), (6, 128)):
            numbers = [
                PLACES[family][int(rng.integers(5))]
                ^ int(rng.integers(0, 4)) << int(rng.integers(0, bits - 2))
                for _ in range(n)
            ]
            numbers = [number & ((1 << bits) - 1) for number in numbers]
            want = [twin.lookup(network(family, number, bits).network_address) for number in numbers]
            assert fib.lookup_burst(wire(family, numbers)).tolist() == want, variant


def test_addresses_of_the_wrong_shape_are_refused() -> None:
    with Fib() as fib:
        for wrong in (np.zeros(4, np.uint64), np.zeros((4, 4), np.uint8), np.zeros((4, 16), np.uint16)):
            with pytest.raises(ValueError, match="shape"):
                fib.lookup_burst(wrong)


def test_a_lookup_variant_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="portable"):
        use_lookup_variant("abacus")


def test_a_closed_table_says_so() -> None:
    fib = Fib()
    fib.close()
    fib.close()
    with pytest.raises(ValueError, match="closed"):
        fib.insert("10.0.0.0/8", 1)
