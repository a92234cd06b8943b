"""The FIB seen from Python: owner of the C structure, its writer, and a reader among the workers (see fib.h)."""

import errno
import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ixroute._dataplane import ffi, lib

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Prefix = str | IPv4Network | IPv6Network
Address = str | IPv4Address | IPv6Address

MAX_INDEX: int = lib.fib_max_index()


@dataclass(frozen=True, slots=True)
class Match:
    """The longest prefix that covers an address, and its adjacency index."""

    prefix: IPv4Network | IPv6Network
    index: int


class FibStats(NamedTuple):
    """Prefixes per family, bytes of memory, and how many updates changed something (fib.h: fib_stats)."""

    prefixes4: int
    prefixes6: int
    lookup_bytes4: int
    lookup_bytes6: int
    update_bytes: int
    retired_bytes: int
    updates: int


def update_dtype() -> "np.dtype[Any]":
    """The elements of Fib.apply's array: struct fib_update."""
    import numpy as np

    fields = [
        ("family", "u1"),
        ("len", "u1"),
        ("addr", "u1", (16,)),
        ("remove", "u1"),
        ("unused", "u1"),
        ("index", "u4"),
    ]
    return np.dtype(fields)


class Fib:
    """Prefixes to adjacency indexes, IPv4 and IPv6. MemoryError when there is no memory.

    One thread at a time may write (insert, remove, apply, collect, match, stats, check); any number of threads
    may look up meanwhile. `.c` is the `struct fib *`, valid until close(); workers must have ended by then.
    `beside`: another FIB whose readers are this one's too (they pass through one quiescent point for both); it must
    outlive this one.
    """

    def __init__(self, beside: "Fib | None" = None) -> None:
        self._beside = beside
        self._fib: Any = lib.fib_create(ffi.NULL if beside is None else lib.fib_epoch(beside.c))
        if self._fib == ffi.NULL:
            raise MemoryError("FIB: no memory")
        # Lookups from Python need an epoch cell each while they run; workers have those below.
        self._readers: SimpleQueue[int] = SimpleQueue() if beside is None else beside._readers
        if beside is None:
            for reader in range(lib.EPOCH_WORKERS, lib.EPOCH_READERS):
                self._readers.put(reader)

    @property
    def c(self) -> Any:
        if self._fib is None:
            raise ValueError("FIB: closed")
        return self._fib

    def insert(self, prefix: Prefix, index: int) -> None:
        """Adds a prefix or changes its index, 0..MAX_INDEX.

        ValueError: not a prefix (host bits set, …) or index too large. MemoryError: not stored, table as before.
        """
        if not 0 <= index <= MAX_INDEX:
            raise ValueError(f"FIB: index {index} is not 0..{MAX_INDEX}")
        _raise(lib.fib_insert(self.c, _c_prefix(prefix), index), prefix)

    def apply(self, updates: "NDArray[Any]") -> tuple[int, int]:
        """Many updates in one C call, without the GIL, then collect: (how many were refused, worst one in ns).

        Shape (n,), dtype update_dtype(): family 4 or 6, len, addr (16 bytes, wire order), remove 0 or 1, index.
        """
        import numpy as np

        if updates.ndim != 1 or updates.dtype != update_dtype():
            raise ValueError(f"FIB: updates of shape {updates.shape} and type {updates.dtype}")
        data = np.ascontiguousarray(updates)
        worst = ffi.new("uint64_t *")
        refused = lib.fib_apply(self.c, ffi.from_buffer("struct fib_update[]", data), len(data), worst)
        return int(refused), int(worst[0])

    def remove(self, prefix: Prefix) -> None:
        """KeyError: not there. MemoryError: still there, table as before."""
        _raise(lib.fib_remove(self.c, _c_prefix(prefix)), prefix)

    def lookup(self, address: Address) -> int:
        """The adjacency index for one address, as a packet would get it; 0 (ADJ_NO_ROUTE) when nothing matches."""
        return self.read(ip_address(address).packed)

    def read(self, packed: bytes) -> int:
        """As lookup, for 4 or 16 bytes in wire order; without numpy."""
        out = ffi.new("uint32_t[1]")
        reader = self._readers.get()
        try:
            if len(packed) == 4:
                lib.fib4_read(self.c, reader, ffi.from_buffer("uint32_t[]", packed), out, 1)
            else:
                lib.fib6_read(self.c, reader, ffi.from_buffer("uint8_t[]", packed), out, 1)
        finally:
            self._readers.put(reader)
        return int(out[0])

    def lookup_burst(self, addresses: "NDArray[Any]") -> "NDArray[np.uint32]":
        """Adjacency indexes of n addresses, shape (n,), without the GIL.

        IPv4: shape (n,), dtype '>u4', or uint32 whose bytes in memory are in wire order (as cut from packets).
        IPv6: shape (n, 16), dtype uint8, wire order. ValueError for anything else.
        """
        import numpy as np

        out = np.empty(len(addresses), np.uint32)
        out_c = ffi.from_buffer("uint32_t[]", out, require_writable=True)
        fib = self.c
        ip4 = addresses.ndim == 1 and addresses.dtype in (np.dtype(">u4"), np.dtype("<u4"))
        if not ip4 and not (addresses.ndim == 2 and addresses.shape[1] == 16 and addresses.dtype == np.uint8):
            raise ValueError(f"FIB: addresses of shape {addresses.shape} and type {addresses.dtype}")
        data = np.ascontiguousarray(addresses)
        reader = self._readers.get()
        try:
            if ip4:
                lib.fib4_read(fib, reader, ffi.from_buffer("uint32_t[]", data), out_c, len(data))
            else:
                lib.fib6_read(fib, reader, ffi.from_buffer("uint8_t[]", data), out_c, len(data))
        finally:
            self._readers.put(reader)
        return out

    def match(self, address: Address) -> Match | None:
        """Which prefix decides for an address, from the writer's store; None when nothing matches."""
        packed = ip_address(address).packed
        prefix = ffi.new("struct prefix *")
        index = ffi.new("uint32_t *")
        if not lib.fib_match(self.c, 4 if len(packed) == 4 else 6, packed, prefix, index):
            return None
        raw = bytes(ffi.buffer(prefix.addr))[: len(packed)]
        network: IPv4Network | IPv6Network
        network = IPv4Network((raw, prefix.len)) if len(packed) == 4 else IPv6Network((raw, prefix.len))
        return Match(network, int(index[0]))

    def stats(self) -> FibStats:
        out = ffi.new("struct fib_stats *")
        lib.fib_stats_read(self.c, out)
        return FibStats(*(int(getattr(out, name)) for name in FibStats._fields))

    def check(self) -> None:
        """Walks the whole structure and recomputes every invariant. AssertionError says what is wrong."""
        why = ffi.new("char[]", 256)
        if lib.fib_check(self.c, why, len(why)) != 0:
            raise AssertionError(f"FIB: {ffi.string(why).decode()}")

    def collect(self) -> None:
        """Frees what no reader can see any more."""
        lib.fib_collect(self.c)

    def close(self) -> None:
        """Frees everything. Harmless when closed already."""
        if self._fib is not None:
            lib.fib_destroy(self._fib)
            self._fib = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lookup_variants() -> list[str]:
    """Names of the lookups this CPU can run, from the plainest to the fastest; the last is what a Fib uses."""
    return [name for _, name in _usable_variants()]


def use_lookup_variant(name: str) -> None:
    """Makes every Fib of this process look up by it; not while workers run. ValueError: not on this CPU."""
    for number, known in _usable_variants():
        if known == name:
            lib.fib_variant_use(number)
            return
    raise ValueError(f"FIB: no lookup variant {name!r} here, only {', '.join(lookup_variants())}")


def _usable_variants() -> list[tuple[int, str]]:
    used = lib.fib_variant_used()
    found = []
    number = 0
    while (name := lib.fib_variant_name(number)) != ffi.NULL:
        if lib.fib_variant_use(number) == 0:
            found.append((number, ffi.string(name).decode()))
        number += 1
    lib.fib_variant_use(used)
    return found


def _c_prefix(prefix: Prefix) -> Any:
    network = ip_network(prefix) if isinstance(prefix, str) else prefix
    return ffi.new(
        "struct prefix *",
        (network.version, network.prefixlen, network.network_address.packed.ljust(16, b"\0")),
    )


def _raise(code: int, prefix: Prefix) -> None:
    if code == 0:
        return
    if code == -errno.ENOENT:
        raise KeyError(str(prefix))
    if code in (-errno.ENOMEM, -errno.ENOSPC):
        raise MemoryError(f"FIB: {prefix}: {os.strerror(-code)}")
    raise ValueError(f"FIB: {prefix}: {os.strerror(-code)}")
