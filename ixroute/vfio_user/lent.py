"""A mapping of another process's file, which survives what the file's owner does to it (lent.h)."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import Any

from ixroute._dataplane import ffi, lib

_MAP_NORESERVE = 0x4000


class LentMemory:
    """[offset, offset+size) of the file behind fd, which stays the caller's. OSError: it cannot be mapped, or there
    is less behind fd; ENOSPC, when too many are mapped.

    `bytes` is a `uint8_t[]`. Is the file made shorter later, the memory turns to zeros at the next access that would
    have failed, nobody sees any more what is written there, and `lost` tells.
    """

    def __init__(self, fd: int, size: int, offset: int = 0, *, writable: bool = True) -> None:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and offset + size > found.st_size:
            raise OSError(errno.EINVAL, f"the memory ends before {offset + size:#x}")
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        flags = mmap.MAP_SHARED | _MAP_NORESERVE
        try:
            self._map = mmap.mmap(fd, size, flags=flags, prot=protection, offset=offset)
        except (ValueError, OverflowError) as e:
            raise OSError(errno.EINVAL, str(e)) from e
        self.size = size
        self.bytes: Any = ffi.from_buffer("uint8_t[]", self._map, require_writable=False)
        self.address = int(ffi.cast("uintptr_t", self.bytes))
        self._place = int(lib.lent_add(self.bytes, size))
        if self._place < 0:
            self._unmap()
            raise OSError(-self._place, f"memory of another process: {os.strerror(-self._place)}")

    @property
    def lost(self) -> bool:
        return self._place >= 0 and bool(lib.lent_lost(self._place))

    def close(self) -> None:
        """Nothing touches it any more. Idempotent."""
        if self._place >= 0:
            lib.lent_remove(self._place)
            self._place = -1
            self._unmap()

    def _unmap(self) -> None:
        ffi.release(self.bytes)
        self._map.close()
