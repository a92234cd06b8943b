"""The Internet's tables of a day (tests/data/ris): all answers compared with a search by hash; a day's updates."""

from typing import Any

import numpy as np
import pytest
from fib_twin import wire

from ixroute.fib.fib import Fib, lookup_variants, use_lookup_variant

pytestmark = pytest.mark.tables

ADDRESSES = 100_000
Content = list[dict[int, int]]


def content_of(bits: int, rows: Any, content: Content) -> None:
    """content[length][bits of the prefix] = index, after the updates in rows."""
    size = bits // 8
    for length, addr, remove, index in zip(
        rows["len"].tolist(),
        rows["addr"][:, :size],
        rows["remove"].tolist(),
        rows["index"].tolist(),
        strict=True,
    ):
        key = int.from_bytes(addr.tobytes(), "big") >> (bits - length)
        if remove:
            content[length].pop(key, None)
        else:
            content[length][key] = index


def by_hash(bits: int, content: Content, number: int) -> int:
    for length in range(bits, -1, -1):
        index = content[length].get(number >> (bits - length))
        if index is not None:
            return index
    return 0


def addresses_for(bits: int, content: Content, rng: np.random.Generator) -> list[int]:
    """Half anywhere, half inside the table's prefixes."""
    anywhere = [int.from_bytes(rng.bytes(bits // 8), "big") for _ in range(ADDRESSES // 2)]
    flat = [(length, key) for length, keys in enumerate(content) for key in keys]
    inside = []
    for pick in rng.integers(0, len(flat), ADDRESSES // 2).tolist():
        length, key = flat[pick]
        host = int.from_bytes(rng.bytes(bits // 8), "big") & ((1 << (bits - length)) - 1)
        inside.append(key << (bits - length) | host)
    return anywhere + inside


def assert_all_answers(fib: Fib, family: int, content: Content, rng: np.random.Generator) -> None:
    bits = 32 if family == 4 else 128
    numbers = addresses_for(bits, content, rng)
    want = np.array([by_hash(bits, content, number) for number in numbers], np.uint32)
    for variant in lookup_variants():
        use_lookup_variant(variant)
        assert np.array_equal(fib.lookup_burst(wire(family, numbers)), want), variant


@pytest.mark.parametrize("family", [4, 6])
def test_the_full_table_and_a_days_updates_give_every_answer_right(family: int) -> None:
    from bench.tables import load_table, load_updates

    bits = 32 if family == 4 else 128
    rng = np.random.default_rng(family)
    content: Content = [{} for _ in range(bits + 1)]
    table, updates = load_table(family), load_updates(family)
    with Fib() as fib:
        assert fib.apply(table)[0] == 0
        content_of(bits, table, content)
        fib.check()
        assert_all_answers(fib, family, content, rng)
        fib.apply(updates)
        content_of(bits, updates, content)
        fib.check()
        assert_all_answers(fib, family, content, rng)
        churned = fib.stats()
    with Fib() as fresh:
        rows = np.concatenate([table, updates])
        fresh.apply(rows[last_words(rows)])
        anew = fresh.stats()
    assert (churned.prefixes4, churned.prefixes6) == (anew.prefixes4, anew.prefixes6)
    assert churned.lookup_bytes4 + churned.lookup_bytes6 < 1.1 * (anew.lookup_bytes4 + anew.lookup_bytes6)
    assert churned.lookup_bytes4 < 16 << 20
    assert churned.lookup_bytes6 < 16 << 20


def last_words(rows: Any) -> Any:
    """Which rows say the last word on their prefix, and it is not its removal."""
    keys = (
        np.ascontiguousarray(np.concatenate([rows["len"][:, None], rows["addr"]], axis=1)).view("V17").ravel()
    )
    last = {key.tobytes(): i for i, key in enumerate(keys)}
    keep = np.array(sorted(last.values()))
    return keep[rows["remove"][keep] == 0]
