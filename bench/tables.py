"""The real tables in tests/data/ris, and traces of addresses made from them, as numpy arrays for Fib.

Tables and updates: ixroute.fib.fib.update_dtype(). Traces: IPv4 (n,) '>u4', IPv6 (n, 16) uint8. Everything is
the same on every run: the generators are seeded.
"""

import lzma
import socket
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ixroute.fib.fib import update_dtype

RIS = Path(__file__).parent.parent / "tests" / "data" / "ris"
DAY = "ris20260511"

Array = NDArray[Any]


def load_table(family: int) -> Array:
    """The full table of a family (4 or 6), sorted by prefix."""
    return _parse(family, [("A", *line.split()) for line in _lines(f"v{family}-{DAY}.txt.xz")])


def load_updates(family: int) -> Array:
    """A day's first updates of a family, in order of arrival."""
    return _parse(family, [(*line.split(), "0")[:3] for line in _lines(f"v{family}-updates-{DAY}.txt.xz")])


def _lines(name: str) -> list[str]:
    with lzma.open(RIS / name, "rt") as file:
        return file.read().splitlines()


def _parse(family: int, rows: list[Any]) -> Array:
    af, size = (socket.AF_INET, 4) if family == 4 else (socket.AF_INET6, 16)
    split = [row[1].split("/") for row in rows]
    packed = b"".join(socket.inet_pton(af, addr) for addr, _ in split)
    out = np.zeros(len(rows), update_dtype())
    out["family"] = family
    out["len"] = np.array([n for _, n in split], np.uint8)
    out["addr"][:, :size] = np.frombuffer(packed, np.uint8).reshape(-1, size)
    out["remove"] = np.array([row[0] == "W" for row in rows], np.uint8)
    out["index"] = np.array([row[2] for row in rows], np.uint32)
    return out


def trace(kind: str, table: Array, n: int, seed: int = 1) -> Array:
    """n addresses. kind a: uniform over all addresses; b: a prefix at random, then a host in it at random; c: as b,
    with prefixes picked by Zipf's law (exponent 1, in random order)."""
    rng = np.random.default_rng(seed)
    size = 4 if table["family"][0] == 4 else 16
    host = rng.integers(0, 256, (n, size), np.uint8)
    if kind != "a":
        if kind == "b":
            pick = rng.integers(0, len(table), n)
        else:
            weight = np.cumsum(1 / np.arange(1, len(table) + 1))
            rank = np.searchsorted(weight, rng.random(n) * weight[-1])
            pick = rng.permutation(len(table))[rank]
        bit = np.arange(8 * size)[None, :] < table["len"][pick][:, None]
        mask = np.packbits(bit, axis=1)
        host = (host & ~mask) | table["addr"][pick][:, :size]
    return np.ascontiguousarray(host).view(">u4").reshape(n) if size == 4 else host
