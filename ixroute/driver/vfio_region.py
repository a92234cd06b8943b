"""The regions of a VFIO device: BARs, mapped where the kernel allows it, and the configuration space."""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver import vfio_abi as abi
from ixroute.driver.transport import TransportError
from ixroute.driver.vfio_abi import Kernel


@dataclass(frozen=True)
class RegionInfo:
    """VFIO_DEVICE_GET_REGION_INFO: where a region lies in the device's file, and which parts of it may be mapped."""

    index: int
    size: int
    offset: int
    areas: tuple[tuple[int, int], ...]
    """(offset in the region, bytes)."""


def region_info(kernel: Kernel, fd: int, device: str, index: int) -> RegionInfo:
    """TransportError when the kernel does not say."""
    try:
        answer = abi.ask(kernel, fd, abi.VFIO_DEVICE_GET_REGION_INFO, abi.REGION_INFO, 0, index)
    except OSError as e:
        raise TransportError(device, f"VFIO does not describe region {index}: {e.strerror}") from e
    _, flags, _, chain, size, offset = abi.REGION_INFO.unpack_from(answer)
    areas: list[tuple[int, int]] = []
    if flags & abi.VFIO_REGION_INFO_FLAG_MMAP:
        areas = [(0, size)]
        if flags & abi.VFIO_REGION_INFO_FLAG_CAPS:
            # Before Linux 4.16 the page with the MSI-X table was left out of what may be mapped.
            for name, place in abi.capabilities(answer, chain):
                if name == abi.VFIO_REGION_INFO_CAP_SPARSE_MMAP:
                    areas = abi.pairs(answer, place)
    inside = tuple((first, length) for first, length in areas if length and first + length <= size)
    return RegionInfo(index, size, offset, inside)


class VfioRegion:
    """A BAR. Implements Region: a register that is not in a mapped part is reached by system calls, but has no bell."""

    def __init__(self, device: str, fd: int, info: RegionInfo) -> None:
        """TransportError when the kernel refuses a mapping that it said was possible."""
        self.size = info.size
        self._device = device
        self._fd = fd
        self._info = info
        self._areas: list[tuple[int, int, Any]] = []  # offset, end, uint8_t *
        self._bells: list[Any] = []
        self._closed = False
        with contextlib.ExitStack() as undo:
            for first, length in info.areas:
                self._areas.append((first, first + length, self._map(undo, first, length)))
            self._undo = undo.pop_all()

    def _map(self, undo: contextlib.ExitStack, first: int, length: int) -> Any:
        try:
            area = mmap.mmap(
                self._fd,
                length,
                mmap.MAP_SHARED,
                mmap.PROT_READ | mmap.PROT_WRITE,
                offset=self._info.offset + first,
            )
        except (OSError, ValueError) as e:
            raise TransportError(
                self._device,
                f"BAR {self._info.index} cannot be mapped: {e}; is another program using the card?",
            ) from e
        undo.callback(area.close)
        registers = ffi.from_buffer("uint8_t[]", area, require_writable=True)
        undo.callback(ffi.release, registers)
        return registers

    def read32(self, offset: int) -> int:
        found = self._find(offset)
        if found is not None:
            return int(lib.mmio_read32(*found))
        return read_at(self._device, self._fd, self._info, offset, 4)

    def write32(self, offset: int, value: int) -> None:
        found = self._find(offset)
        if found is not None:
            lib.mmio_write32(*found, value & 0xFFFFFFFF)
        else:
            write_at(self._device, self._fd, self._info, offset, 4, value & 0xFFFFFFFF)

    def bell(self, offset: int, value: int | None = None) -> Any:
        """See Region; a new one each time, since a bell has one writer. TransportError for a register that cannot be
        mapped: C could not reach it."""
        found = self._find(offset)
        if found is None:
            raise TransportError(
                self._device,
                f"register {offset:#x} of BAR {self._info.index} cannot be mapped, which queues need",
            )
        bell = ffi.new("struct doorbell *")
        lib.doorbell_to_register(bell, found[0] + found[1], -1, ffi.NULL)
        self._bells.append(bell)
        return bell

    def _find(self, offset: int) -> tuple[Any, int] | None:
        """(mapping, offset in it) of a register; None when it is not mapped."""
        if offset % 4 or not 0 <= offset <= self.size - 4:
            raise ValueError(f"BAR {self._info.index} of {self.size} bytes has no register at {offset:#x}")
        if self._closed:
            raise TransportError(self._device, "is closed")
        for first, end, registers in self._areas:
            if first <= offset and offset + 4 <= end:
                return registers, offset - first
        return None

    def close(self) -> None:
        """Unmaps. A bell that is rung afterwards is refused, and counts that."""
        self._closed = True
        for bell in self._bells:
            lib.doorbell_silence(bell)
        self._areas.clear()
        self._undo.close()


class VfioConfig:
    """Implements Config. The kernel guards some fields; a write that it refuses silently reads back as before."""

    def __init__(self, device: str, fd: int, info: RegionInfo) -> None:
        self._device = device
        self._fd = fd
        self._info = info

    def read(self, offset: int, size: int) -> int:
        self._check(offset, size)
        return read_at(self._device, self._fd, self._info, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._check(offset, size)
        write_at(self._device, self._fd, self._info, offset, size, value)

    def _check(self, offset: int, size: int) -> None:
        if size not in (1, 2, 4) or offset % size or not 0 <= offset <= self._info.size - size:
            raise ValueError(f"configuration space has no field of {size} bytes at {offset:#x}")


def read_at(device: str, fd: int, info: RegionInfo, offset: int, size: int) -> int:
    """By a system call, little-endian."""
    try:
        data = os.pread(fd, size, info.offset + offset)
    except OSError as e:
        raise TransportError(device, f"region {info.index}, {offset:#x}: {e.strerror}") from e
    if len(data) != size:
        raise TransportError(device, f"region {info.index}, {offset:#x}: nothing is there; is the card gone?")
    return int.from_bytes(data, "little")


def write_at(device: str, fd: int, info: RegionInfo, offset: int, size: int, value: int) -> None:
    """By a system call, little-endian."""
    try:
        done = os.pwrite(fd, value.to_bytes(size, "little"), info.offset + offset)
    except OSError as e:
        raise TransportError(device, f"region {info.index}, {offset:#x}: {e.strerror}") from e
    if done != size:
        raise TransportError(
            device, f"region {info.index}, {offset:#x}: cannot be written; is the card gone?"
        )
