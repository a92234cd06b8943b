"""A card through VFIO without an IOMMU: it reaches all of the machine's memory, by physical addresses.

Only by the explicit spec `noiommu:ADDRESS`, and with a loud warning. A driver's mistake, or a card that still writes
after its process died, overwrites anything. Physical addresses are those of huge pages: within one they are
contiguous, and hugetlbfs neither swaps them nor moves them but for an administrator's offlining of memory.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import struct

from ixroute.driver import vfio_abi as abi
from ixroute.driver.dma import HUGE_PAGE_BYTES
from ixroute.driver.memlock import memlock_text, raise_memlock
from ixroute.driver.pci import PciDevice
from ixroute.driver.transport import DmaMapping, DmaMemory, TransportError
from ixroute.driver.vfio import VfioTransport, process_container
from ixroute.driver.vfio_abi import Kernel
from ixroute.driver.vfio_group import VfioContainer, check_driver

log = logging.getLogger(__name__)

UNSAFE_MODE = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
PAGEMAP = "proc/self/pagemap"
# An entry of pagemap (Documentation/admin-guide/mm/pagemap.rst).
_PRESENT = 1 << 63
_SWAPPED = 1 << 62
_FRAME_NUMBER = (1 << 55) - 1

_libc = ctypes.CDLL(None, use_errno=True)


class NoIommuContainer(VfioContainer):
    """Groups that vfio makes up for devices without an IOMMU. Nothing is mapped: addresses are looked up."""

    def _check_bound(self, device: PciDevice) -> None:
        address = device.address
        mode = self.bus.root / UNSAFE_MODE
        if device.iommu_group is not None and not device.noiommu:
            raise TransportError(address, f"has an IOMMU: name the port {address}, without noiommu:")
        try:
            enabled = mode.read_text().strip() in ("Y", "1")
        except OSError as e:
            raise TransportError(
                address,
                f"vfio knows no mode without IOMMU (no /{UNSAFE_MODE}): `modprobe vfio-pci`; a kernel with"
                " CONFIG_VFIO_NOIOMMU is needed (Debian's have it not)",
            ) from e
        if not enabled:
            raise TransportError(
                address,
                f"DMA without an IOMMU is off: `echo Y > /{UNSAFE_MODE}`, then `ixroute bind {address}`",
            )
        check_driver(device)
        if device.iommu_group is None:
            why = "was bound before DMA without an IOMMU was switched on"
            raise TransportError(address, f"{why}: `ixroute unbind {address}`, then `ixroute bind {address}`")

    def _iommu_type(self, device: PciDevice) -> int:
        return abi.VFIO_NOIOMMU_IOMMU

    def _learn_limits(self, device: PciDevice) -> None:
        """There is nothing between the card and the memory."""

    def map(self, device: str, memory: DmaMemory) -> DmaMapping:
        pages = physical_pages(device, memory, self.kernel)
        return DmaMapping(pages[0], pages)

    def unmap(self, memory: DmaMemory) -> None:
        """Nothing to do: closing the memory gives its pages back, so the device must have been stopped."""


class NoIommuTransport(VfioTransport):
    """Implements Transport, as VfioTransport does, without an IOMMU."""

    kind = "noiommu"

    def __init__(
        self, address: str, container: NoIommuContainer | None = None, *, restore_driver: bool = False
    ) -> None:
        super().__init__(address, container, restore_driver=restore_driver)
        log.warning(
            "%s: DMA WITHOUT AN IOMMU: this card can read and overwrite all memory of the machine, the kernel's too;"
            " use it on machines that may crash, and never with a card that others control",
            self.device,
        )

    @classmethod
    def _default_container(cls) -> VfioContainer:
        return process_container(cls.kind, NoIommuContainer)


def physical_pages(device: str, memory: DmaMemory, kernel: Kernel | None = None) -> tuple[int, ...]:
    """The physical address of each 2 MiB of memory, which is locked first. TransportError unless it is made of huge
    pages, all are there, and the process may know their addresses."""
    if memory.page_bytes != HUGE_PAGE_BYTES or memory.bytes % HUGE_PAGE_BYTES:
        pages = -(-memory.bytes // HUGE_PAGE_BYTES)
        raise TransportError(
            device,
            f"without an IOMMU memory must be of huge pages: `sysctl vm.nr_hugepages={pages}` or more (of 2 MiB), and"
            ' memory.hugepages = "auto" or "require"',
        )
    raise_memlock()
    if _libc.mlock(ctypes.c_void_p(memory.address), ctypes.c_size_t(memory.bytes)):
        error = ctypes.get_errno()
        advice = f"this process may lock {memlock_text()}: `ulimit -l unlimited` as root, or CAP_IPC_LOCK"
        raise TransportError(device, f"memory cannot be locked ({os.strerror(error)}): {advice}")
    try:
        with open((kernel or Kernel()).root / PAGEMAP, "rb", buffering=0) as pagemap:
            return tuple(
                _physical(device, pagemap.fileno(), memory.address + offset)
                for offset in range(0, memory.bytes, HUGE_PAGE_BYTES)
            )
    except OSError as e:
        raise TransportError(device, f"/{PAGEMAP}: {e.strerror}; run as root (CAP_SYS_ADMIN)") from e


def _physical(device: str, pagemap: int, address: int) -> int:
    """Of one huge page, by its first and its last small page."""
    first = _entry(pagemap, address)
    last = _entry(pagemap, address + HUGE_PAGE_BYTES - mmap.PAGESIZE)
    if not first & _PRESENT or first & _SWAPPED:
        raise TransportError(
            device, f"the huge page at {address:#x} is not in memory: are enough of them free?"
        )
    number = first & _FRAME_NUMBER
    if not number:
        raise TransportError(device, f"/{PAGEMAP} hides physical addresses: run as root (CAP_SYS_ADMIN)")
    if (last & _FRAME_NUMBER) - number != HUGE_PAGE_BYTES // mmap.PAGESIZE - 1:
        raise TransportError(device, f"the page at {address:#x} is not contiguous: not a huge page of 2 MiB")
    return number * mmap.PAGESIZE


def _entry(pagemap: int, address: int) -> int:
    data = os.pread(pagemap, 8, address // mmap.PAGESIZE * 8)
    if len(data) != 8:
        raise OSError(errno.EIO, "too short")
    return int(struct.unpack("=Q", data)[0])
