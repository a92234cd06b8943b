"""Adjacencies: what a FIB lookup yields an index of (the layout and its reasons: adjacency.h)."""

import errno
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from ixroute._dataplane import ffi, lib
from ixroute.fib.fib import Fib

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

ADJ_ACTION_GROUP: int = lib.ADJ_ACTION_GROUP
MAX_LEGS: int = lib.ADJ_LEGS_MAX
MAX_WEIGHT: int = lib.ADJ_WEIGHT_MAX
MAX_BUCKETS: int = lib.ADJ_BUCKETS_MAX

MAC_BYTES = 6


class Adjacency(NamedTuple):
    """One entry. `mac` is 6 bytes in wire order; `action` 0 forwards, else a reason number; `mtu` in bytes."""

    mac: bytes
    interface: int
    action: int
    mtu: int


class GroupLeg(NamedTuple):
    """One way out of several: an adjacency (a leg that is not resolved keeps its punting action, and its packets
    go to the kernel), and its weight, 1..MAX_WEIGHT (in a resilient group it is kept for show alone)."""

    mac: bytes = bytes(MAC_BYTES)
    interface: int = 0
    action: int = 0
    mtu: int = 0
    weight: int = 1


class Group(NamedTuple):
    """`buckets` None: hash-threshold by the weights. Else resilient: the leg's number for each bucket."""

    legs: tuple[GroupLeg, ...]
    buckets: tuple[int, ...] | None


class AdjacencyTable:
    """Owns the C array that all workers read. One writer thread; readers need no lock.

    `capacity` entries, all with `action` at first. ValueError: capacity 0 or action not 0..63. MemoryError.
    `fib`: the one whose readers read this table too, and whose writer is this one's; groups that nobody can be reading
    any more are then freed, else all are kept until close(). It must outlive the table.
    `.c` is the `struct adjacency_table *`, valid until close(); whoever borrows it must be gone by then.
    """

    def __init__(self, capacity: int, action: int, fib: Fib | None = None) -> None:
        if not 0 < capacity <= 0xFFFFFFFF:
            raise ValueError(f"adjacency table: capacity {capacity} is not 1..2^32-1")
        if not 0 <= action <= lib.ADJ_ACTION_MAX:
            raise ValueError(f"adjacency table: action {action} is not 0..{lib.ADJ_ACTION_MAX}")
        self.capacity = capacity
        self._table: Any = lib.adjacency_table_create(
            capacity, action, ffi.NULL if fib is None else lib.fib_epoch(fib.c)
        )
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
        """Changes one entry in one store. IndexError: no such entry. ValueError: a value that does not fit.

        A group that was there is no more.
        """
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

    def set_group(self, index: int, legs: Sequence[GroupLeg], buckets: Sequence[int] | None = None) -> None:
        """Makes the entry a group: several legs at once, seen by workers before or after, never in between.

        `buckets` None: each leg gets its share of the flows by weight. Else it is resilient: bucket i's flows leave by
        leg number buckets[i]. When the entry was a group with as many buckets, marks not taken yet stay.
        IndexError: no such entry, or a reserved one. ValueError: no leg or more than MAX_LEGS, no bucket or more than
        MAX_BUCKETS, a value that does not fit. MemoryError: nothing changed.
        """
        self._check(index)
        if index < ADJ_RESERVED:
            raise IndexError(f"adjacency {index} is reserved")
        if buckets is not None and not 0 < len(buckets) <= MAX_BUCKETS:
            raise ValueError(f"adjacency {index}: {len(buckets)} buckets, 1..{MAX_BUCKETS} are possible")
        if not 0 < len(legs) <= MAX_LEGS:
            raise ValueError(f"adjacency {index}: {len(legs)} legs, 1..{MAX_LEGS} are possible")
        try:
            legs_c = ffi.new("struct group_leg[]", [tuple(leg) for leg in legs])
            buckets_c = ffi.NULL if buckets is None else ffi.new("uint16_t[]", list(buckets))
        except (OverflowError, TypeError, IndexError) as why:
            raise ValueError(f"adjacency {index}: a leg or bucket does not fit: {why}") from None
        if any(len(leg.mac) != MAC_BYTES for leg in legs):
            raise ValueError(f"adjacency {index}: a MAC has {MAC_BYTES} bytes")
        result = lib.adjacency_set_group(self.c, index, legs_c, len(legs), buckets_c, len(buckets or ()))
        if result == -errno.ENOMEM:
            raise MemoryError(f"adjacency {index}: no memory for a group of {len(legs)} legs")
        if result != 0:
            raise ValueError(f"adjacency {index}: a leg's interface, action, weight or a bucket does not fit")

    def get_group(self, index: int) -> Group | None:
        """What set_group put there; None when the entry is no group. IndexError: no such entry."""
        n_legs, n_buckets = self._group_size(index)
        if n_legs == 0:
            return None
        legs = ffi.new("struct group_leg[]", n_legs)
        buckets = ffi.new("uint16_t[]", n_buckets)
        lib.adjacency_get_group(self.c, index, legs, buckets)
        return Group(
            tuple(
                GroupLeg(bytes(ffi.buffer(leg.mac)), leg.interface, leg.action, leg.mtu, leg.weight)
                for leg in legs
            ),
            tuple(ffi.unpack(buckets, n_buckets)) if n_buckets else None,
        )

    def take_legs_used(self, index: int) -> bytes:
        """Legs that packets chose since the last call (or since the group was set): a byte each, 1 or 0, and clears
        the marks. Empty when the entry is no group. IndexError: no such entry."""
        n_legs, _ = self._group_size(index)
        used = ffi.new("uint8_t[]", n_legs)
        lib.adjacency_take_legs_used(self.c, index, used)
        return bytes(ffi.buffer(used))

    def take_buckets_used(self, index: int) -> bytes:
        """Buckets of a resilient group that packets chose since the last call: a byte each, 1 or 0, and clears the
        marks. Empty when the entry is no such group. IndexError: no such entry."""
        _, n_buckets = self._group_size(index)
        used = ffi.new("uint8_t[]", n_buckets)
        lib.adjacency_take_buckets_used(self.c, index, used)
        return bytes(ffi.buffer(used))

    def collect(self) -> None:
        """Frees the groups that nobody can be reading any more; cheap when there is none. set_group does it too."""
        lib.adjacency_collect(self.c)

    def retired(self) -> int:
        """Replaced groups that are not freed yet."""
        return int(lib.adjacency_retired(self.c))

    def _group_size(self, index: int) -> tuple[int, int]:
        self._check(index)
        n_buckets = ffi.new("uint32_t *")
        n_legs = int(lib.adjacency_group_size(self.c, index, n_buckets))
        return n_legs, int(n_buckets[0])

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
