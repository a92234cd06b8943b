"""A RIB over a real FIB and adjacency table, straight through the door."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.fib.fib import Fib
from ixroute.fib.rib import Path, Rib

NEW_PATH_ACTION = 57


class Owner:
    """Something with a `c`."""

    def __init__(self, c: Any) -> None:
        assert c != ffi.NULL
        self.c = c


@contextmanager
def rib_bench(paths: int = 1024) -> Iterator[Rib]:
    with Fib() as main:
        adjacencies = Owner(lib.adjacency_table_create(paths, 1, ffi.NULL))
        with Rib(main, adjacencies, NEW_PATH_ACTION) as rib:
            yield rib
        lib.adjacency_table_destroy(adjacencies.c)


def shown(rib: Rib, index: int) -> int | Path:
    """What an index means: itself when reserved, else the path (that of a nexthop object without its
    legs).
    """
    if index < 8:
        return index
    path = rib.path(index)
    assert path is not None
    return replace(path, legs=()) if path.nhid else path


def adjacency(rib: Rib, index: int) -> tuple[int, int, int, int]:
    """(mac, interface, action, mtu)."""
    word, mtu = ffi.new("uint64_t *"), ffi.new("uint32_t *")
    assert lib.adjacency_get(rib._borrowed[1].c, index, word, mtu) == 0
    return word[0] & (1 << 48) - 1, word[0] >> 48 & 0x3FF, word[0] >> 58, mtu[0]
