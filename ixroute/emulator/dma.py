"""Memory the client lent: its files, mapped once each, and the ranges of it that the packet engine may reach.

A file is mapped whole at its first use and again only when it has grown, since a guest behind an IOMMU maps and unmaps
pieces of one file thousands of times a second; what the device can reach is the engine's list of ranges, never the
mapping. A file is asked not to shrink any more (F_SEAL_SHRINK), and only ranges inside it as it is now are taken. One
that cannot promise it (no memfd, or one made without seals) may be cut under the engine: the card then works on zeros
that nobody sees (vfio_user/lent.py), and it is counted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass

from ixroute.emulator.packets import PacketEngine
from ixroute.vfio_user.device import DeviceError
from ixroute.vfio_user.lent import LentMemory

LIMIT = 1 << 64
RANGES_MAX = 65536
"""Ranges a client may map: more are refused (VFIO's own default is 65,535)."""
FILES_MAX = 1024
"""Files these ranges may be of."""


class _File(LentMemory):
    """One mapping of a file's whole content, kept while a range uses it."""

    users = 0


@dataclass(frozen=True)
class _Range:
    iova: int
    length: int
    file: _File | None
    address: int
    readable: bool
    writable: bool

    @property
    def end(self) -> int:
        return self.iova + self.length


_Key = tuple[int, int, bool]


class DmaMemory:
    def __init__(self, engine: PacketEngine) -> None:
        self._engine = engine
        self._starts: list[int] = []
        self._ranges: list[_Range] = []
        self._files: dict[_Key, _File] = {}
        self._keys: dict[_File, _Key] = {}
        self._lost_before = 0
        self.counters: Counter[str] = Counter()

    @property
    def lost_files(self) -> int:
        """How many were made shorter under the card, ever."""
        return self._lost_before + sum(file.lost for file in self._keys)

    def map(self, iova: int, length: int, fd: int | None, fd_offset: int, read: bool, write: bool) -> None:
        """DeviceError: EINVAL for a range that cannot be, EEXIST where one is already, ENOSPC for too many."""
        if length <= 0 or iova < 0 or iova + length > LIMIT or fd_offset < 0:
            raise DeviceError(errno.EINVAL, f"no {length} bytes at {iova:#x} can be mapped")
        at = bisect_right(self._starts, iova)
        if (at and self._ranges[at - 1].end > iova) or (
            at < len(self._starts) and self._starts[at] < iova + length
        ):
            raise DeviceError(errno.EEXIST, f"{iova:#x}+{length:#x} overlaps what is mapped")
        if len(self._ranges) >= RANGES_MAX:
            raise DeviceError(errno.ENOSPC, f"{RANGES_MAX} ranges are mapped already")
        file: _File | None = None
        address = 0
        if fd is not None and (read or write):
            file = self._file(fd, fd_offset + length, write)
            address = file.address + fd_offset
            try:
                self._engine.dma_map(iova, length, address, read, write)
            except OSError as error:
                self._drop_if_unused(file)
                raise DeviceError(
                    error.errno or errno.EIO, f"{iova:#x}+{length:#x}: {error.strerror}"
                ) from error
            file.users += 1
        self._starts.insert(at, iova)
        self._ranges.insert(at, _Range(iova, length, file, address, read, write))
        self.counters["dma_maps"] += 1

    def unmap(self, iova: int, length: int) -> None:
        """All ranges in [iova, iova+length). DeviceError EINVAL for one that lies only partly in it."""
        if length <= 0 or iova < 0 or iova + length > LIMIT:
            raise DeviceError(errno.EINVAL, f"no {length} bytes at {iova:#x} can be unmapped")
        first, last = bisect_left(self._starts, iova), bisect_left(self._starts, iova + length)
        cut_before = first > 0 and self._ranges[first - 1].end > iova
        cut_after = last > first and self._ranges[last - 1].end > iova + length
        if cut_before or cut_after:
            raise DeviceError(errno.EINVAL, f"{iova:#x}+{length:#x} would cut a range in two")
        gone = self._ranges[first:last]
        if not gone:
            return
        self._engine.dma_unmap(iova, length)
        del self._starts[first:last], self._ranges[first:last]
        for piece in gone:
            if piece.file:
                piece.file.users -= 1
                self._drop_if_unused(piece.file)
        self.counters["dma_unmaps"] += len(gone)

    def clear(self) -> None:
        """Everything: the client has gone."""
        if self._ranges:
            first, end = self._ranges[0].iova, self._ranges[-1].end
            self.unmap(first, end - first)

    def __len__(self) -> int:
        return len(self._ranges)

    def _file(self, fd: int, needed: int, write: bool) -> _File:
        with contextlib.suppress(OSError):  # before its size is looked at, so that what is seen stays true
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise DeviceError(errno.EBADF, f"descriptor for DMA: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise DeviceError(errno.EINVAL, "memory for DMA must be a file (memfd, hugetlbfs, tmpfs)")
        if needed > status.st_size:
            message = f"the file for DMA has {status.st_size} bytes, the range ends at {needed}"
            raise DeviceError(errno.EINVAL, message)
        key = (status.st_dev, status.st_ino, write)
        file = self._files.get(key)
        if file and file.size >= needed and not file.lost:
            return file
        if len(self._keys) >= FILES_MAX:
            raise DeviceError(errno.ENOSPC, f"{FILES_MAX} files are mapped already")
        if not self._cannot_shrink(fd):
            self.counters["dma_files_that_may_shrink"] += 1
        try:
            file = _File(fd, status.st_size, writable=write)
        except OSError as error:
            code = error.errno or errno.EINVAL
            raise DeviceError(code, f"the file for DMA cannot be mapped: {error}") from error
        self._files[key] = file
        self._keys[file] = key
        return file

    @staticmethod
    def _cannot_shrink(fd: int) -> bool:
        try:
            return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
        except OSError:
            return False

    def _drop_if_unused(self, file: _File) -> None:
        if file.users:
            return
        key = self._keys.pop(file)
        if self._files.get(key) is file:
            del self._files[key]
        self._lost_before += file.lost
        file.close()
