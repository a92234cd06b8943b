"""Memory that a device can be given: files without a name, mapped, every page present (transport.py, DmaMemory).

A file, so that a card emulated by another process can map it too; sealed, so that nobody who is given the descriptor
can make it shorter under our feet: touching what is gone would be a SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi

HUGE_PAGE_BYTES = 2 << 20
HUGEPAGES = ("auto", "require", "off")
_MADV_POPULATE_WRITE = 23  # linux/mman.h, 5.14: unlike MAP_POPULATE it says when there is no memory


class HugePagesError(OSError):
    """Not enough huge pages are free; `pages` were wanted."""

    def __init__(self, error: OSError, pages: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.pages = pages

    @property
    def advice(self) -> str:
        """What is missing and what to do."""
        what = f"{self.pages} huge pages are not free ({self.strerror})"
        return f"{what}: `sysctl vm.nr_hugepages={self.pages}` adds them"


@dataclass
class SharedMemory:
    """`bytes` of memory in whole pages of page_bytes, mapped by this process, and the file behind it."""

    fd: int
    map: mmap.mmap
    bytes: int
    page_bytes: int

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


def obtain(name: str, length: int, *, huge: bool) -> SharedMemory:
    """At least `length` bytes, zeroed and present. HugePagesError, or OSError when there is no memory."""
    if huge:
        rounded = round_up(length, HUGE_PAGE_BYTES)
        try:
            return _map(name, rounded, HUGE_PAGE_BYTES, os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        except OSError as e:
            raise HugePagesError(e, rounded // HUGE_PAGE_BYTES) from e
    rounded = round_up(length, mmap.PAGESIZE)
    _check_available(rounded)
    return _map(name, rounded, mmap.PAGESIZE, 0)


class DmaBuffer:
    """Memory for rings and what else a driver shares with its card. Implements DmaMemory.

    hugepages: "auto" takes 2 MiB pages when enough are free, else ordinary ones; "require" raises MemoryError
    instead; "off" does not try. A transport without an IOMMU maps huge pages only.

    fd, address, bytes (a multiple of page_bytes, at least what was asked for), page_bytes. The device must have been
    stopped, and the memory unmapped from it, before close().
    """

    def __init__(self, length: int, hugepages: str = "auto") -> None:
        if length <= 0:
            raise ValueError(f"{length} bytes: must be more than 0")
        if hugepages not in HUGEPAGES:
            raise ValueError(f"hugepages is {hugepages!r}: must be auto, require or off")
        self._memory: SharedMemory | None = _buffer(length, hugepages)
        self.fd = self._memory.fd
        self.bytes = self._memory.bytes
        self.page_bytes = self._memory.page_bytes
        self._bytes = ffi.from_buffer("uint8_t[]", self._memory.map, require_writable=True)
        self.address = int(ffi.cast("uintptr_t", self._bytes))

    def pointer(self, offset: int = 0, length: int = 1) -> Any:
        """`uint8_t *` to the byte at offset, for C, valid until close(). ValueError unless `length` bytes from there
        are inside."""
        if self._memory is None:
            raise ValueError("the buffer is closed")
        if offset < 0 or length < 0 or offset + length > self.bytes:
            raise ValueError(f"{length} bytes at {offset} are not inside a buffer of {self.bytes}")
        return self._bytes + offset

    def close(self) -> None:
        """Gives the memory back. Idempotent."""
        if self._memory is None:
            return
        ffi.release(self._bytes)
        self._memory.close()
        self._memory = None


def _buffer(length: int, hugepages: str) -> SharedMemory:
    if hugepages != "off":
        try:
            return obtain("ixroute-dma", length, huge=True)
        except HugePagesError as e:
            if hugepages == "require":
                raise MemoryError(f"DMA memory: {e.advice}") from e
    try:
        return obtain("ixroute-dma", length, huge=False)
    except OSError as e:
        raise MemoryError(f"DMA memory: no {length >> 10} KiB ({e.strerror})") from e


def round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _check_available(length: int) -> None:
    """Populating more than there is would not fail: the kernel would kill processes to make room. OSError."""
    with contextlib.suppress(FileNotFoundError), open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:") and length > int(line.split()[1]) * 1024:
                raise OSError(errno.ENOMEM, "not enough memory")


def _map(name: str, length: int, page_bytes: int, flags: int) -> SharedMemory:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        os.ftruncate(fd, length)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        area = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        undo.callback(area.close)
        try:
            area.madvise(_MADV_POPULATE_WRITE)
        except OSError as e:
            if e.errno != errno.EINVAL:  # before 5.14: pages come at first touch
                raise OSError(e.errno, "not enough memory") from e
        undo.pop_all()
    return SharedMemory(fd, area, length, page_bytes)
