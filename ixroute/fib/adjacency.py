"""Adjacencies: what a FIB lookup yields an index of (the layout and its reasons: adjacency.h)."""

from types import TracebackType
from typing import Any, NamedTuple, Self

from ixroute._dataplane import ffi, lib

ADJ_NO_ROUTE: int = lib.ADJ_NO_ROUTE
ADJ_LOCAL: int = lib.ADJ_LOCAL
ADJ_BROADCAST: int = lib.ADJ_BROADCAST
ADJ_MULTICAST: int = lib.ADJ_MULTICAST
ADJ_BLACKHOLE: int = lib.ADJ_BLACKHOLE
ADJ_REJECT: int = lib.ADJ_REJECT
ADJ_KERNEL: int = lib.ADJ_KERNEL
ADJ_POLICY: int = lib.ADJ_POLICY
ADJ_RESERVED: int = lib.ADJ_RESERVED
ADJ_ACTION_FORWARD: int = lib.ADJ_ACTION_FORWARD

MAC_BYTES = 6


class Adjacency(NamedTuple):
    """One entry. `mac` is 6 bytes in wire order; `action` 0 forwards, else a reason number; `mtu` in bytes."""

    mac: bytes
    interface: int
    action: int
    mtu: int


class AdjacencyTable:
    """Owns the C array that all workers read. One writer thread; readers need no lock.

    `capacity` entries, all with `action` at first. ValueError: capacity 0 or action not 0..63. MemoryError.
    `.c` is the `struct adjacency_table *`, valid until close(); whoever borrows it must be gone by then.
    """

    def __init__(self, capacity: int, action: int) -> None:
        if not 0 < capacity <= 0xFFFFFFFF:
            raise ValueError(f"adjacency table: capacity {capacity} is not 1..2^32-1")
        if not 0 <= action <= lib.ADJ_ACTION_MAX:
            raise ValueError(f"adjacency table: action {action} is not 0..{lib.ADJ_ACTION_MAX}")
        self.capacity = capacity
        self._table: Any = lib.adjacency_table_create(capacity, action)
        if self._table == ffi.NULL:
            raise MemoryError(f"adjacency table: no memory for {capacity} entries")

    @property
    def c(self) -> Any:
        if self._table is None:
            raise ValueError("adjacency table: closed")
        return self._table

    def set(
        self, index: int, *, mac: bytes = bytes(MAC_BYTES), interface: int = 0, action: int = 0, mtu: int = 0
    ) -> None:
        """Changes one entry in one store. IndexError: no such entry. ValueError: a value that does not fit."""
        if (
            len(mac) != MAC_BYTES
            or not 0 <= interface <= lib.ADJ_INTERFACE_MAX
            or not 0 <= action <= lib.ADJ_ACTION_MAX
            or not 0 <= mtu <= 0xFFFFFFFF
        ):
            raise ValueError(
                f"adjacency {index}: mac {mac!r}, interface {interface}, action {action} or mtu {mtu} does not fit"
            )
        self._check(index)
        lib.adjacency_set(self.c, index, mac, interface, action, mtu)

    def get(self, index: int) -> Adjacency:
        """IndexError: no such entry."""
        self._check(index)
        word = ffi.new("uint64_t *")
        mtu = ffi.new("uint32_t *")
        lib.adjacency_get(self.c, index, word, mtu)
        value = int(word[0])
        mac = value.to_bytes(8, "little")[:MAC_BYTES]
        return Adjacency(mac, value >> 48 & lib.ADJ_INTERFACE_MAX, value >> 58, int(mtu[0]))

    def _check(self, index: int) -> None:
        if not 0 <= index < self.capacity:
            raise IndexError(f"adjacency {index}: the table has {self.capacity}")

    def close(self) -> None:
        """Frees the array. Harmless when closed already."""
        if self._table is not None:
            lib.adjacency_table_destroy(self._table)
            self._table = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
