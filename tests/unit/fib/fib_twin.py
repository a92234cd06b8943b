"""The FIB's slow twin, with the same face, and what the FIB's tests share. Addresses as numbers are plain ints."""

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np

from ixroute.fib.fib import MAX_INDEX, Address, Fib, Match, Prefix, update_dtype

Network = IPv4Network | IPv6Network

# Behind the installed packages: only for `bench`, which reads the tables in tests/data.
sys.path.append(str(Path(__file__).parents[3]))


class LinearScan:
    """Longest-prefix match by looking at every prefix."""

    def __init__(self) -> None:
        self.table: dict[Network, int] = {}

    def __enter__(self) -> "LinearScan":
        return self

    def __exit__(self, *exc: object) -> None:
        self.table.clear()

    def insert(self, prefix: Prefix, index: int) -> None:
        if not 0 <= index <= MAX_INDEX:
            raise ValueError(index)
        self.table[ip_network(prefix)] = index

    def remove(self, prefix: Prefix) -> None:
        del self.table[ip_network(prefix)]

    def match(self, address: Address) -> Match | None:
        address = ip_address(address)
        covering = [p for p in self.table if p.version == address.version and address in p]
        if not covering:
            return None
        best = max(covering, key=lambda p: p.prefixlen)
        return Match(best, self.table[best])

    def lookup(self, address: Address) -> int:
        match = self.match(address)
        return match.index if match else 0

    def check(self) -> None:
        pass


def network(family: int, number: int, length: int) -> Network:
    """The prefix of a length that holds the address `number`."""
    bits = 32 if family == 4 else 128
    number = number >> (bits - length) << (bits - length)
    return IPv4Network((number, length)) if family == 4 else IPv6Network((number, length))


def updates(rows: list[tuple[Prefix, int | None]]) -> "np.ndarray[Any, Any]":
    """What Fib.apply takes, from (prefix, index) rows; None removes."""
    out = np.zeros(len(rows), update_dtype())
    for row, (prefix, index) in zip(out, rows, strict=True):
        net = ip_network(prefix)
        row["family"], row["len"] = net.version, net.prefixlen
        row["addr"][: net.max_prefixlen // 8] = list(net.network_address.packed)
        row["remove"], row["index"] = index is None, index or 0
    return out


def wire(family: int, numbers: list[int]) -> "np.ndarray[Any, Any]":
    """Addresses as Fib.lookup_burst takes them."""
    if family == 4:
        return np.array(numbers, ">u4")
    return np.frombuffer(b"".join(n.to_bytes(16, "big") for n in numbers), np.uint8).reshape(-1, 16)


def edges(prefixes: list[Network]) -> list[IPv4Address | IPv6Address]:
    """For each prefix its first and last address and their neighbours outside: where an off-by-one would show."""
    out = set()
    for p in prefixes:
        first, last = int(p.network_address), int(p.broadcast_address)
        for number in (first - 1, first, (first + last) // 2, last, last + 1):
            if 0 <= number < 1 << p.max_prefixlen:
                out.add(type(p.network_address)(number))
    return sorted(out, key=int)


def assert_same(fib: Fib, twin: LinearScan, addresses: list[IPv4Address | IPv6Address]) -> None:
    """Burst, single lookup and writer's match all say what the twin says."""
    for family in (4, 6):
        asked = [a for a in addresses if a.version == family]
        want = [twin.lookup(a) for a in asked]
        assert fib.lookup_burst(wire(family, [int(a) for a in asked])).tolist() == want
    for a in addresses[:20]:
        assert fib.match(a) == twin.match(a)
        assert fib.lookup(a) == twin.lookup(a)
