"""VFIO's container and groups (linux/vfio.h, "group/type1" API): who may use a card, and what its DMA may reach.

One container serves all ports of the process, so that umem is mapped, and counted as locked memory, once.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import pwd
import stat
import struct
from dataclasses import dataclass, field

from ixroute.driver import vfio_abi as abi
from ixroute.driver.dma import HUGE_PAGE_BYTES
from ixroute.driver.iova import WIDTH_BITS, IovaSpace
from ixroute.driver.memlock import memlock_text, raise_memlock
from ixroute.driver.pci import PciBus, PciDevice
from ixroute.driver.pci_bind import PciBinder
from ixroute.driver.transport import DmaMapping, DmaMemory, TransportError
from ixroute.driver.vfio_abi import Kernel

log = logging.getLogger(__name__)

CONTAINER_FILE = "dev/vfio/vfio"
IOMMU_ON = (
    "switch it on in the firmware (VT-d, AMD-Vi) and on the kernel's command line (intel_iommu=on iommu=pt), or, with"
    " all the danger of that, name the port noiommu:{address}"
)
# Below the window of message interrupts (0xfee00000), for kernels before 5.4, which do not say what is allowed.
_ALLOWED_UNTOLD = [(0, 0xFEDFFFFF)]


@dataclass
class _Group:
    fd: int
    file: str
    users: set[str] = field(default_factory=set)
    restore: set[str] = field(default_factory=set)


@dataclass
class _Mapped:
    iova: int
    bytes: int
    count: int


class VfioContainer:
    """Opened with the first device, closed with the last. All methods raise TransportError."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel or Kernel()
        self.bus = PciBus(self._kernel.root)
        self.binder = PciBinder(self.bus)
        self._fd = -1
        self._groups: dict[str, _Group] = {}
        self._space: IovaSpace | None = None
        self._page_sizes = 0
        self._mapped: dict[int, _Mapped] = {}  # by address

    @property
    def kernel(self) -> Kernel:
        return self._kernel

    # ---- devices

    def open_device(self, address: str) -> int:
        """The device's descriptor, which close_device closes."""
        device = self.bus.device(address)
        self._check_bound(device)
        group = self._groups.get(device.group_file or "") or self._open_group(device)
        try:
            if device.address in group.users:
                raise TransportError(device.address, "is already a port of this router")
            name = bytearray(device.address.encode() + b"\0")
            try:
                fd = self._kernel.ioctl(group.fd, abi.VFIO_GROUP_GET_DEVICE_FD, name)
            except OSError as e:
                why = f"/{group.file} does not give it ({e.strerror}): see `dmesg`; `ixroute bind {device.address}`"
                raise TransportError(device.address, why) from e
            group.users.add(device.address)
            return fd
        finally:
            self._close_if_unused(group)

    def close_device(self, address: str, fd: int, restore_driver: bool = False) -> None:
        """restore_driver: the kernel gets it back as soon as nothing of its group is in use (until then the kernel
        would refuse)."""
        os.close(fd)
        for group in list(self._groups.values()):
            if address in group.users:
                group.users.discard(address)
                if restore_driver:
                    group.restore.add(address)
                self._close_if_unused(group)

    def _close_if_unused(self, group: _Group) -> None:
        if group.users:
            return
        os.close(group.fd)
        del self._groups[group.file]
        if not self._groups:
            os.close(self._fd)
            self._fd = -1
            self._mapped.clear()  # went with the container
            self._space = None
        for address in sorted(group.restore):
            try:
                self.binder.unbind(address)
            except TransportError as e:
                log.warning("%s; it stays without a kernel driver: `ixroute unbind %s`", e, address)

    def _check_bound(self, device: PciDevice) -> None:
        address = device.address
        if device.iommu_group is None or device.noiommu:
            what = (
                "belongs to no IOMMU group" if self.bus.has_iommu() else "cannot be isolated: no IOMMU is on"
            )
            if device.noiommu:
                what = "is bound without an IOMMU"
            raise TransportError(address, f"{what}; {IOMMU_ON.format(address=address)}")
        check_driver(device)

    def _open_group(self, device: PciDevice) -> _Group:
        file = device.group_file or ""
        with contextlib.ExitStack() as undo:
            if self._fd < 0:
                self._fd = self._open_file(device, CONTAINER_FILE)
                undo.callback(self._drop_container)
                self._check_api(device)
            fd = self._open_file(device, file)
            undo.callback(os.close, fd)
            self._check_viable(device, fd)
            self._join(device, fd, file)
            self._learn_limits(device)
            undo.pop_all()
        group = self._groups[file] = _Group(fd, file)
        return group

    def _drop_container(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._space = None

    def _open_file(self, device: PciDevice, file: str) -> int:
        try:
            return self._kernel.open(file)
        except OSError as e:
            raise TransportError(device.address, self._why_not_opened(device, file, e)) from e

    def _why_not_opened(self, device: PciDevice, file: str, error: OSError) -> str:
        if error.errno == errno.EBUSY:
            return f"/{file} is in use: another program drives a card of group {device.iommu_group}; end it first"
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"/{file}: no permission{self._owner(file)}; {NO_ROOT}"
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            if file == CONTAINER_FILE:
                return (
                    f"there is no /{file}: `modprobe vfio-pci` (a kernel with CONFIG_VFIO, CONFIG_VFIO_PCI)"
                )
            return f"there is no /{file} (CONFIG_VFIO_GROUP): `ixroute bind {device.address}` again, and see `dmesg`"
        return f"/{file}: {error.strerror}"

    def _owner(self, file: str) -> str:
        try:
            status = os.stat(self._kernel.root / file)
        except OSError:
            return ""
        user: str | int = status.st_uid
        group: str | int = status.st_gid
        with contextlib.suppress(KeyError):
            user = pwd.getpwuid(status.st_uid).pw_name
        with contextlib.suppress(KeyError):
            group = grp.getgrgid(status.st_gid).gr_name
        return f" (it is {user}:{group}, mode {stat.S_IMODE(status.st_mode):04o})"

    def _check_api(self, device: PciDevice) -> None:
        try:
            version = self._kernel.ioctl(self._fd, abi.VFIO_GET_API_VERSION)
        except OSError as e:
            raise TransportError(device.address, f"/{CONTAINER_FILE} is not VFIO's: {e.strerror}") from e
        if version != abi.VFIO_API_VERSION:
            raise TransportError(device.address, f"this kernel's VFIO has version {version}, not 0")

    def _check_viable(self, device: PciDevice, fd: int) -> None:
        try:
            answer = abi.ask(self._kernel, fd, abi.VFIO_GROUP_GET_STATUS, abi.GROUP_STATUS)
        except OSError as e:
            raise TransportError(device.address, f"the group's status: {e.strerror}") from e
        _, flags = abi.GROUP_STATUS.unpack_from(answer)
        if flags & abi.VFIO_GROUP_FLAGS_VIABLE:
            return
        others = self.bus.hindrances(device)
        names = (
            ", ".join(f"{other.address} ({other.driver})" for other in others) or "devices of kernel drivers"
        )
        mend = (
            f"`ixroute bind {' '.join(other.address for other in others)}`, or put the card into another slot"
        )
        raise TransportError(
            device.address,
            f"IOMMU group {device.iommu_group} is not viable: it also holds {names}, out of the IOMMU's sight; {mend}",
        )

    def _join(self, device: PciDevice, fd: int, file: str) -> None:
        try:
            self._kernel.ioctl(fd, abi.VFIO_GROUP_SET_CONTAINER, bytearray(struct.pack("=i", self._fd)))
            if not self._groups:
                self._kernel.ioctl(self._fd, abi.VFIO_SET_IOMMU, self._iommu_type(device))
        except OSError as e:
            why = f"/{file} does not join the router's container ({e.strerror})"
            if e.errno in (errno.EPERM, errno.EINVAL):
                why += (
                    '; if the kernel says "No interrupt remapping": `modprobe vfio_iommu_type1'
                    " allow_unsafe_interrupts=1`, or switch interrupt remapping on in the firmware"
                )
            raise TransportError(device.address, f"{why}; see `dmesg`") from e

    def _iommu_type(self, device: PciDevice) -> int:
        for kind in (abi.VFIO_TYPE1V2_IOMMU, abi.VFIO_TYPE1_IOMMU):
            if self._kernel.ioctl(self._fd, abi.VFIO_CHECK_EXTENSION, kind):
                return kind
        why = "this kernel has no type 1 IOMMU: `modprobe vfio_iommu_type1` (CONFIG_VFIO_IOMMU_TYPE1)"
        raise TransportError(device.address, why)

    def _learn_limits(self, device: PciDevice) -> None:
        """What DMA addresses there are, now that this group has come in: never more than before."""
        try:
            answer = abi.ask(self._kernel, self._fd, abi.VFIO_IOMMU_GET_INFO, abi.TYPE1_INFO)
        except OSError as e:
            raise TransportError(device.address, f"the IOMMU's limits: {e.strerror}") from e
        _, flags, page_sizes, chain = abi.TYPE1_INFO.unpack_from(answer)
        self._page_sizes = page_sizes if flags & abi.VFIO_IOMMU_INFO_PGSIZES and page_sizes else 4096
        allowed = _ALLOWED_UNTOLD
        if flags & abi.VFIO_IOMMU_INFO_CAPS:
            for name, place in abi.capabilities(answer, chain):
                if name == abi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE:
                    allowed = abi.pairs(answer, place)
        bits = self.bus.iommu_bits(device.address) or WIDTH_BITS
        if self._space is None:
            self._space = IovaSpace(allowed, bits)
        else:
            self._space.allow(allowed, bits)

    # ---- memory

    def map(self, device: str, memory: DmaMemory) -> DmaMapping:
        """Every device of the container may use the memory from now on; again: it is counted."""
        mapped = self._mapped.get(memory.address)
        if mapped is None:
            mapped = self._mapped[memory.address] = _Mapped(self._map(device, memory), memory.bytes, 0)
        elif mapped.bytes != memory.bytes:
            raise TransportError(
                device, f"memory at {memory.address:#x} is mapped with another length: unmap it first"
            )
        mapped.count += 1
        return DmaMapping(mapped.iova)

    def _map(self, device: str, memory: DmaMemory) -> int:
        assert self._space is not None
        smallest = self._page_sizes & -self._page_sizes
        if memory.bytes % smallest or memory.address % smallest:
            why = f"the IOMMU maps {smallest} bytes at least, the memory is in smaller pages: use huge pages"
            raise TransportError(
                device, f'{why} (`sysctl vm.nr_hugepages=128`, memory.hugepages = "require")'
            )
        iova = self._space.take(memory.bytes, max(smallest, HUGE_PAGE_BYTES if _is_large(memory) else 4096))
        if iova is None:
            raise TransportError(
                device,
                f"no free DMA addresses for {memory.bytes >> 20} MiB: configure fewer frames (memory.frames)",
            )
        raise_memlock()
        flags = abi.VFIO_DMA_MAP_FLAG_READ | abi.VFIO_DMA_MAP_FLAG_WRITE
        fields = (abi.DMA_MAP.size, flags, memory.address, iova, memory.bytes)
        try:
            self._kernel.ioctl(self._fd, abi.VFIO_IOMMU_MAP_DMA, bytearray(abi.DMA_MAP.pack(*fields)))
        except OSError as e:
            self._space.give(iova)
            raise TransportError(device, _why_not_mapped(memory, iova, e)) from e
        return iova

    def unmap(self, memory: DmaMemory) -> None:
        """Never raises: what the kernel does not unmap ends with the container, and its addresses are not used
        again."""
        mapped = self._mapped.get(memory.address)
        if mapped is None:
            return
        mapped.count -= 1
        if mapped.count:
            return
        del self._mapped[memory.address]
        unmap = bytearray(abi.DMA_UNMAP.pack(abi.DMA_UNMAP.size, 0, mapped.iova, mapped.bytes))
        try:
            self._kernel.ioctl(self._fd, abi.VFIO_IOMMU_UNMAP_DMA, unmap)
        except OSError as e:
            log.warning("VFIO does not unmap %#x, %d bytes: %s", mapped.iova, mapped.bytes, e.strerror)
        else:
            if self._space is not None:
                self._space.give(mapped.iova)


NO_ROOT = (
    "install extra/udev/70-ixroute.rules, join the group ixroute and bind the card again, or run as root"
)


def check_driver(device: PciDevice) -> None:
    """TransportError unless VFIO has it."""
    if not device.has_vfio:
        holder = f"the kernel's driver {device.driver} has it" if device.driver else "no driver has it"
        raise TransportError(device.address, f"{holder}, not vfio-pci: `ixroute bind {device.address}`")


def _is_large(memory: DmaMemory) -> bool:
    return memory.bytes >= HUGE_PAGE_BYTES  # at such addresses the IOMMU can use large pages too


def _why_not_mapped(memory: DmaMemory, iova: int, error: OSError) -> str:
    what = f"{max(1, memory.bytes >> 20)} MiB cannot be mapped for DMA"
    if error.errno == errno.ENOMEM:
        return (
            f"{what}: this process may lock {memlock_text()} (RLIMIT_MEMLOCK): LimitMEMLOCK=infinity in the unit,"
            " `ulimit -l unlimited` as root, or CAP_IPC_LOCK"
        )
    if error.errno == errno.ENOSPC:
        return f"{what}: too many mappings; raise /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
    return f"{what} at {iova:#x}: {error.strerror}; see `dmesg`"
