"""linux/vfio.h: requests, structures and flags, by their names there; and the few system calls that use them.

All structures are in the machine's byte order, without padding ("=").
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

BYTE_ORDER = sys.byteorder


def _io(number: int) -> int:
    """_IO(VFIO_TYPE, VFIO_BASE + number)."""
    return ord(";") << 8 | 100 + number


VFIO_API_VERSION = 0

# VFIO_CHECK_EXTENSION, VFIO_SET_IOMMU
VFIO_TYPE1_IOMMU = 1
VFIO_TYPE1V2_IOMMU = 3  # VFIO_TYPE1v2_IOMMU
VFIO_NOIOMMU_IOMMU = 8

# /dev/vfio/vfio
VFIO_GET_API_VERSION = _io(0)
VFIO_CHECK_EXTENSION = _io(1)
VFIO_SET_IOMMU = _io(2)
VFIO_IOMMU_GET_INFO = _io(12)
VFIO_IOMMU_MAP_DMA = _io(13)
VFIO_IOMMU_UNMAP_DMA = _io(14)

# /dev/vfio/GROUP
VFIO_GROUP_GET_STATUS = _io(3)
VFIO_GROUP_SET_CONTAINER = _io(4)
VFIO_GROUP_UNSET_CONTAINER = _io(5)
VFIO_GROUP_GET_DEVICE_FD = _io(6)

# a device
VFIO_DEVICE_GET_INFO = _io(7)
VFIO_DEVICE_GET_REGION_INFO = _io(8)
VFIO_DEVICE_GET_IRQ_INFO = _io(9)
VFIO_DEVICE_SET_IRQS = _io(10)
VFIO_DEVICE_RESET = _io(11)

GROUP_STATUS = struct.Struct("=II")  # argsz, flags
VFIO_GROUP_FLAGS_VIABLE = 1 << 0
VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1

DEVICE_INFO = struct.Struct("=IIIII")  # argsz, flags, num_regions, num_irqs, cap_offset
VFIO_DEVICE_FLAGS_RESET = 1 << 0
VFIO_DEVICE_FLAGS_PCI = 1 << 1

REGION_INFO = struct.Struct("=IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
VFIO_REGION_INFO_FLAG_READ = 1 << 0
VFIO_REGION_INFO_FLAG_WRITE = 1 << 1
VFIO_REGION_INFO_FLAG_MMAP = 1 << 2
VFIO_REGION_INFO_FLAG_CAPS = 1 << 3
VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1
VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3

IRQ_INFO = struct.Struct("=IIII")  # argsz, flags, index, count
VFIO_IRQ_INFO_EVENTFD = 1 << 0

IRQ_SET = struct.Struct("=IIIII")  # argsz, flags, index, start, count; then the data
VFIO_IRQ_SET_DATA_NONE = 1 << 0
VFIO_IRQ_SET_DATA_EVENTFD = 1 << 2
VFIO_IRQ_SET_ACTION_TRIGGER = 1 << 5

TYPE1_INFO = struct.Struct("=IIQI4x")  # argsz, flags, iova_pgsizes, cap_offset
VFIO_IOMMU_INFO_PGSIZES = 1 << 0
VFIO_IOMMU_INFO_CAPS = 1 << 1
VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1

DMA_MAP = struct.Struct("=IIQQQ")  # argsz, flags, vaddr, iova, size
VFIO_DMA_MAP_FLAG_READ = 1 << 0
VFIO_DMA_MAP_FLAG_WRITE = 1 << 1

DMA_UNMAP = struct.Struct("=IIQQ")  # argsz, flags, iova, size

# Numbers of a PCI device's regions and kinds of interrupt.
VFIO_PCI_CONFIG_REGION_INDEX = 7
VFIO_PCI_MSIX_IRQ_INDEX = 2

_CAP_HEADER = struct.Struct("=HHI")  # id, version, next
_ARRAY = struct.Struct("=II")  # how many, reserved
_PAIR = struct.Struct("=QQ")
_MOST_BYTES = 1 << 20  # of a structure with its capabilities


class Kernel:
    """What this room asks of the system, in one place; a test makes one up."""

    root = Path("/")
    """Where /sys, /proc and /dev are."""

    def open(self, path: str) -> int:
        """A file under root, for reading and writing."""
        return os.open(self.root / path, os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0) -> int:
        """Returns what the call returns; a structure is changed in place. OSError."""
        return fcntl.ioctl(fd, request, argument)


def ask(kernel: Kernel, fd: int, request: int, layout: struct.Struct, *fields: int) -> bytearray:
    """A structure that the kernel fills in, with the capabilities behind it. `fields` follow argsz. OSError."""
    size = layout.size
    while True:
        answer = bytearray(size)
        given = [size, *fields]
        layout.pack_into(answer, 0, *given, *[0] * (len(layout.unpack(bytes(layout.size))) - len(given)))
        kernel.ioctl(fd, request, answer)
        needed = int.from_bytes(answer[:4], BYTE_ORDER)
        if not size < needed <= _MOST_BYTES:
            return answer
        size = needed


def capabilities(answer: bytearray, offset: int) -> Iterator[tuple[int, int]]:
    """(id, offset of what follows the header) along the chain that begins at `offset`; ends at nonsense."""
    seen: set[int] = set()
    while offset and offset + _CAP_HEADER.size <= len(answer) and offset not in seen:
        seen.add(offset)
        name, _, following = _CAP_HEADER.unpack_from(answer, offset)
        yield name, offset + _CAP_HEADER.size
        offset = following


def pairs(answer: bytearray, offset: int) -> list[tuple[int, int]]:
    """The array of two 64-bit numbers each, headed by its length, at `offset`; what is not there is left out."""
    if offset + _ARRAY.size > len(answer):
        return []
    count, _ = _ARRAY.unpack_from(answer, offset)
    room = (len(answer) - offset - _ARRAY.size) // _PAIR.size
    first = offset + _ARRAY.size
    return [_PAIR.unpack_from(answer, first + i * _PAIR.size) for i in range(min(count, room))]
