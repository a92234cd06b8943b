"""umem: the one piece of memory that the packets of all ports lie in (driver/frame.h)."""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
from typing import Any

from ixroute._dataplane import ffi, lib

log = logging.getLogger(__name__)

HUGE_PAGE_BYTES = 2 << 20
FRAME_BYTES = (2048, 4096)
"""What AF_XDP takes: powers of two from 2048 to a page."""
HEADROOM = 256
"""Bytes before a received packet (XDP_PACKET_HEADROOM)."""
_MADV_POPULATE_WRITE = 23  # linux/mman.h, 5.14: unlike MAP_POPULATE it says when there is no memory


def max_mtu(frame_bytes: int) -> int:
    """The largest MTU whose packets fit, with Ethernet header and one VLAN tag."""
    return frame_bytes - HEADROOM - 14 - 4


def frame_bytes_for(mtu: int) -> int:
    """The smallest frame for packets of this MTU; the largest there is when none is large enough."""
    return next((size for size in FRAME_BYTES if max_mtu(size) >= mtu), FRAME_BYTES[-1])


class Umem:
    """n_frames frames of frame_bytes (2048 or 4096), mapped, in memory, shared between all ports and workers.

    hugepages: "auto" takes 2 MiB pages when the system has enough of them and says once in the log when not;
    "require" raises MemoryError instead; "off" does not try.

    `c` is the `struct umem *`, `fd` the memfd behind it, `address` where it is mapped. Frames are handed out
    once, by pool(). Ports hold the memory (hold, release): close() while a port is open takes effect when the
    last port lets go, so the order of closing does not matter.
    """

    def __init__(self, n_frames: int, frame_bytes: int = 2048, hugepages: str = "auto") -> None:
        if frame_bytes not in FRAME_BYTES:
            raise ValueError(f"frame_bytes is {frame_bytes}: must be 2048 or 4096")
        if not 0 < n_frames < 1 << 31:
            raise ValueError(f"n_frames is {n_frames}: must be from 1 to {(1 << 31) - 1}")
        if hugepages not in ("auto", "require", "off"):
            raise ValueError(f"hugepages is {hugepages!r}: must be auto, require or off")
        self.n_frames = n_frames
        self.frame_bytes = frame_bytes
        self.bytes = _round_up(n_frames * frame_bytes, mmap.PAGESIZE)
        self.hugepages = False
        self.sockets: list[Any] = []  # bound AF_XDP sockets, kept by af_xdp.py: later ones share with these
        self._carved = 0
        self._holders = 0
        self._closing = False
        self._pools: list[Any] = []
        self.fd, self._map = self._obtain(hugepages)
        self._bytes = ffi.from_buffer("uint8_t[]", self._map, require_writable=True)
        self.address = int(ffi.cast("uintptr_t", self._bytes))
        self.c: Any = ffi.new("struct umem *")
        self.c.base = self._bytes
        self.c.bytes = n_frames * frame_bytes
        self.c.frame_bytes = frame_bytes
        self.c.n_frames = n_frames

    def _obtain(self, hugepages: str) -> tuple[int, mmap.mmap]:
        """The memory, of huge pages if wanted and there; sets hugepages."""
        if hugepages != "off":
            huge_bytes = _round_up(self.bytes, HUGE_PAGE_BYTES)
            try:
                got = _map_shared(huge_bytes, os.MFD_HUGETLB | os.MFD_HUGE_2MB)
            except OSError as e:
                pages = huge_bytes // HUGE_PAGE_BYTES
                advice = (
                    f"umem: {pages} huge pages are not free ({e.strerror}): "
                    f"`sysctl vm.nr_hugepages={pages}` adds them"
                )
                if hugepages == "require":
                    raise MemoryError(advice) from e
                log.warning("%s; going on with ordinary pages", advice)
            else:
                self.hugepages = True
                self.bytes = huge_bytes
                return got
        try:
            _check_available(self.bytes)
            return _map_shared(self.bytes, 0)
        except OSError as e:
            raise MemoryError(
                f"umem: no {self.bytes >> 20} MiB of memory for {self.n_frames} frames ({e.strerror}):"
                " configure fewer frames"
            ) from e

    def pool(self, n: int) -> Any:
        """Carves n frames that nobody had yet into a new `struct frame_pool *`, full; one per worker.

        A frame stays with the worker it was carved for: it goes round the rings of that worker's queues, its
        bursts and its lane to the kernel, and comes back to this pool. So n is also the pool's capacity.
        """
        if self._closing:
            raise ValueError("umem is closed")
        if not 0 < n <= self.n_frames - self._carved:
            left = self.n_frames - self._carved
            raise ValueError(f"{n} frames wanted, {left} of umem's {self.n_frames} are left")
        pool = lib.frame_pool_create(n)
        if pool == ffi.NULL:
            raise MemoryError(f"no memory for a pool of {n} frames")
        for i in reversed(range(self._carved, self._carved + n)):
            lib.frame_pool_put(pool, self.c, i * self.frame_bytes)
        self._carved += n
        self._pools.append(pool)
        return pool

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
        self._map.close()
        os.close(self.fd)


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _check_available(length: int) -> None:
    """Populating more than there is would not fail: the kernel would kill processes to make room. OSError."""
    with contextlib.suppress(FileNotFoundError), open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:") and length > int(line.split()[1]) * 1024:
                raise OSError(errno.ENOMEM, "not enough memory")


def _map_shared(length: int, flags: int) -> tuple[int, mmap.mmap]:
    """A memfd of length bytes and its mapping, every page present. Raises OSError."""
    fd = os.memfd_create("ixroute-umem", os.MFD_CLOEXEC | flags)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        os.ftruncate(fd, length)
        area = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        undo.callback(area.close)
        try:
            area.madvise(_MADV_POPULATE_WRITE)
        except OSError as e:
            if e.errno != errno.EINVAL:  # before 5.14: pages come at first touch
                raise OSError(e.errno, "not enough memory") from e
        undo.pop_all()
    return fd, area
