"""The FIB under readers: what they may see while it changes, and when the memory they might hold is freed."""

import threading
from collections.abc import Callable
from ipaddress import ip_network

import numpy as np
import pytest
from fib_twin import network, updates, wire

from ixroute._dataplane import lib
from ixroute.fib.fib import Fib, Prefix

READER = 3


def churn_while_reading(
    fib: Fib, family: int, numbers: list[int], churn: Callable[[int], object], rounds: int
) -> set[int]:
    """All answers that two threads got for the addresses while churn(0), churn(1) ... ran."""
    addresses = wire(family, numbers * 64)
    done = threading.Event()
    seen: list[set[int]] = [set(), set()]

    def read(mine: set[int]) -> None:
        while not done.is_set():
            mine.update(np.unique(fib.lookup_burst(addresses)).tolist())

    readers = [threading.Thread(target=read, args=(mine,)) for mine in seen]
    for reader in readers:
        reader.start()
    try:
        for i in range(rounds):
            churn(i)
            if i % 50 == 0:
                fib.collect()
    finally:
        done.set()
        for reader in readers:
            reader.join()
    fib.check()
    return seen[0] | seen[1]


@pytest.mark.parametrize(
    ("family", "lengths"), [(4, (0, 8, 16, 20, 24, 28, 32)), (6, (0, 12, 20, 32, 48, 64, 128))]
)
def test_readers_only_see_answers_that_some_moment_of_the_table_gave(
    family: int, lengths: tuple[int, ...]
) -> None:
    """One prefix always covers the address; the longer ones come and go, each with its own index."""
    number = 0x0A010203 if family == 4 else 0x20010DB8_0001_0002_0003_0004_0005_0006
    with Fib() as fib:
        base, *others = lengths
        fib.insert(network(family, number, base), 100)

        def churn(i: int) -> None:
            length = others[i % len(others)]
            fib.insert(network(family, number, length), 100 + length)
            if i % 3 == 0:
                fib.remove(network(family, number, others[i % len(others)]))

        seen = churn_while_reading(fib, family, [number], churn, 3000)
    assert seen <= {100 + length for length in others} | {100}


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("10.1.0.0/18", "10.1.2.0/24"),
        ("10.1.2.0/24", "10.1.2.3/32"),
        ("2000::/14", "2001:d00::/24"),
        ("2001:d00::/24", "2001:db8::/32"),
        ("2001:db8::/32", "2001:db8::/48"),
        ("2001:db8::/48", "2001:db8::/64"),
    ],
)
def test_a_value_under_a_more_specific_prefix_never_shows(outer: str, inner: str) -> None:
    """The covering prefix is 1 whenever the longer one is away. A reader held up between the two must not combine
    what the one was while it was hidden with the other's absence. The updates come from C, several to a block of
    lookups.
    """
    family = ip_network(outer).version
    number = int(ip_network(inner).network_address)
    hidden: list[tuple[Prefix, int | None]] = [(outer, index) for index in range(3, 8)]
    round_trip = updates([(inner, 2), *hidden, (outer, 1), (inner, None)] * 500)
    with Fib() as fib:
        fib.insert(outer, 1)
        seen = churn_while_reading(fib, family, [number], lambda _: fib.apply(round_trip), 60)
    assert seen
    assert seen <= {1, 2}


def test_memory_that_a_reader_may_hold_is_freed_only_after_it_quiesced() -> None:
    with Fib() as fib:
        epoch = lib.fib_epoch(fib.c)
        fib.insert("10.1.2.0/24", 1)
        fib.collect()
        assert fib.stats().retired_bytes == 0
        lib.epoch_quiesce(epoch, READER)
        fib.insert("10.1.3.0/24", 2)
        for _ in range(5):
            fib.collect()
        held = fib.stats().retired_bytes
        assert held > 0
        fib.check()
        lib.epoch_quiesce(epoch, READER)
        fib.collect()
        assert fib.stats().retired_bytes == 0


def test_a_reader_that_went_idle_holds_nothing() -> None:
    with Fib() as fib:
        epoch = lib.fib_epoch(fib.c)
        lib.epoch_quiesce(epoch, READER)
        fib.insert("2001:db8::/32", 1)
        fib.remove("2001:db8::/32")
        fib.collect()
        assert fib.stats().retired_bytes > 0
        lib.epoch_idle(epoch, READER)
        fib.collect()
        assert fib.stats().retired_bytes == 0


def test_the_slowest_of_several_readers_decides() -> None:
    with Fib() as fib:
        epoch = lib.fib_epoch(fib.c)
        for reader in (0, 1, lib.EPOCH_READERS - 1):
            lib.epoch_quiesce(epoch, reader)
        fib.insert("10.1.2.0/24", 1)
        fib.remove("10.1.2.0/24")
        fib.collect()
        for reader in (0, 1):
            lib.epoch_quiesce(epoch, reader)
            fib.collect()
            assert fib.stats().retired_bytes > 0
        lib.epoch_quiesce(epoch, lib.EPOCH_READERS - 1)
        fib.collect()
        assert fib.stats().retired_bytes == 0


def test_a_writer_who_never_collects_does_not_pile_up_memory() -> None:
    with Fib() as fib:
        for i in range(20_000):
            fib.insert("10.1.2.0/24", i)
        assert fib.stats().retired_bytes < 2048 * 64


def test_lookups_from_python_leave_their_epoch_cells_idle() -> None:
    with Fib() as fib:
        fib.lookup("10.1.2.3")
        fib.lookup("2001:db8::1")
        fib.insert("10.1.2.0/24", 1)
        fib.insert("10.1.2.0/24", 2)
        fib.collect()
        assert fib.stats().retired_bytes == 0
