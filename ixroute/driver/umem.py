"""umem: the one piece of memory that the packets of all ports lie in (driver/frame.h)."""

from __future__ import annotations

import logging
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.dma import HUGE_PAGE_BYTES, HUGEPAGES, HugePagesError, SharedMemory, obtain

log = logging.getLogger(__name__)

FRAME_BYTES = (2048, 4096, 8192, 16384)
"""What a frame may be. AF_XDP takes the first two (af_xdp.FRAME_BYTES); kinds.frame_bytes_wanted chooses."""
HEADROOM = 256
"""Bytes before a received packet (XDP_PACKET_HEADROOM)."""


def max_mtu(frame_bytes: int) -> int:
    """The largest MTU whose packets fit, with Ethernet header and one VLAN tag."""
    return frame_bytes - HEADROOM - 14 - 4


def frame_bytes_for(mtu: int) -> int:
    """The smallest frame for packets of this MTU; the largest there is when none is large enough."""
    return next((size for size in FRAME_BYTES if max_mtu(size) >= mtu), FRAME_BYTES[-1])


class Umem:
    """n_frames frames of frame_bytes (2048 to 16384), mapped, in memory, shared between all ports and workers.

    hugepages: "auto" takes 2 MiB pages when the system has enough of them and says once in the log when not;
    "require" raises MemoryError instead; "off" does not try.

    `c` is the `struct umem *`, `fd` the memfd behind it, `address` where it is mapped, `bytes` (whole pages) and
    `page_bytes` how: Umem implements DmaMemory (transport.py). Frames are handed out
    once, by pool(). Ports hold the memory (hold, release): close() while a port is open takes effect when the last
    port lets go, so the order of closing does not matter.
    """

    def __init__(self, n_frames: int, frame_bytes: int = 2048, hugepages: str = "auto") -> None:
        if frame_bytes not in FRAME_BYTES:
            raise ValueError(f"frame_bytes is {frame_bytes}: must be 2048, 4096, 8192 or 16384")
        if not 0 < n_frames < 1 << 31:
            raise ValueError(f"n_frames is {n_frames}: must be from 1 to {(1 << 31) - 1}")
        if hugepages not in HUGEPAGES:
            raise ValueError(f"hugepages is {hugepages!r}: must be auto, require or off")
        self.n_frames = n_frames
        self.frame_bytes = frame_bytes
        self.sockets: list[Any] = []  # bound AF_XDP sockets, kept by af_xdp.py: later ones share with these
        self._carved = 0  # frames 0 to here were given out
        self._returned: list[int] = []  # addresses of those that came back
        self._holders = 0
        self._closing = False
        self._pools: list[Any] = []
        self._memory = self._obtain(hugepages)
        self.fd = self._memory.fd
        self.bytes = self._memory.bytes
        self.page_bytes = self._memory.page_bytes
        self._bytes = ffi.from_buffer("uint8_t[]", self._memory.map, require_writable=True)
        self.address = int(ffi.cast("uintptr_t", self._bytes))
        self.c: Any = ffi.new("struct umem *")
        self.c.base = self._bytes
        self.c.bytes = n_frames * frame_bytes
        self.c.frame_bytes = frame_bytes
        self.c.n_frames = n_frames

    def _obtain(self, hugepages: str) -> SharedMemory:
        """The memory, of huge pages if wanted and there."""
        wanted = self.n_frames * self.frame_bytes
        if hugepages != "off":
            try:
                return obtain("ixroute-umem", wanted, huge=True)
            except HugePagesError as e:
                if hugepages == "require":
                    raise MemoryError(f"umem: {e.advice}") from e
                log.warning("umem: %s; going on with ordinary pages", e.advice)
        try:
            return obtain("ixroute-umem", wanted, huge=False)
        except OSError as e:
            raise MemoryError(
                f"umem: no {wanted >> 20} MiB of memory for {self.n_frames} frames ({e.strerror}):"
                " configure fewer frames"
            ) from e

    @property
    def hugepages(self) -> bool:
        """Whether it is made of 2 MiB pages."""
        return self.page_bytes == HUGE_PAGE_BYTES

    def pool(self, n: int) -> Any:
        """Carves n frames that nobody had yet into a new `struct frame_pool *`, full; one per worker.

        A frame stays with the worker it was carved for: it goes round the rings of that worker's queues, its
        bursts and its lane to the kernel, and comes back to this pool. So n is also the pool's capacity.
        """
        self._check_left(n)
        pool = lib.frame_pool_create(n)
        if pool == ffi.NULL:
            raise MemoryError(f"no memory for a pool of {n} frames")
        self._carve(pool, n)
        self._pools.append(pool)
        return pool

    @property
    def left(self) -> int:
        """Frames that are in no pool's share: for pool() and grow()."""
        return self.n_frames - self._carved + len(self._returned)

    def grow(self, pool: Any, n: int) -> Any:
        """Gives a pool n more frames. Returns the pool, which may lie elsewhere from then on: no worker may run with
        it meanwhile. ValueError when umem has no n frames left, MemoryError."""
        self._check_left(n)
        place = self._pools.index(pool)
        larger = lib.frame_pool_resize(pool, pool.capacity + n)
        if larger == ffi.NULL:
            raise MemoryError(f"no memory for a pool of {pool.capacity + n} frames")
        self._pools[place] = larger
        self._carve(larger, n)
        return larger

    def shrink(self, pool: Any, n: int) -> int:
        """Takes at most n of the frames that lie in the pool back, for others to have; returns how many. Those in
        rings and bursts stay the pool's. No worker may run with it meanwhile."""
        self._pools.index(pool)
        addresses = ffi.new("uint64_t[]", max(1, min(n, pool.n)))
        got = int(lib.frame_pool_get(pool, addresses, max(0, n)))
        self._returned += ffi.unpack(addresses, got) if got else []
        pool.capacity -= got
        return got

    def _check_left(self, n: int) -> None:
        if self._closing:
            raise ValueError("umem is closed")
        if not 0 < n <= self.left:
            raise ValueError(f"{n} frames wanted, {self.left} of umem's {self.n_frames} are left")

    def _carve(self, pool: Any, n: int) -> None:
        """First those that nobody ever had: they lie side by side."""
        fresh = min(n, self.n_frames - self._carved)
        for i in reversed(range(self._carved, self._carved + fresh)):
            lib.frame_pool_put(pool, self.c, i * self.frame_bytes)
        self._carved += fresh
        for _ in range(n - fresh):
            lib.frame_pool_put(pool, self.c, self._returned.pop())

    def hold(self) -> None:
        """A port uses the memory from now on."""
        if self._closing:
            raise ValueError("umem is closed")
        self._holders += 1

    def release(self) -> None:
        """The port does not any more."""
        self._holders -= 1
        if self._closing and not self._holders:
            self._unmap()

    def close(self) -> None:
        """Gives the memory back, now or when the last port lets go. Idempotent.

        The workers must have ended.
        """
        if self._closing:
            return
        self._closing = True
        if not self._holders:
            self._unmap()

    def _unmap(self) -> None:
        for pool in self._pools:
            lib.frame_pool_destroy(pool)
        self._pools.clear()
        self.c.base = ffi.NULL
        ffi.release(self._bytes)
        self._memory.close()
