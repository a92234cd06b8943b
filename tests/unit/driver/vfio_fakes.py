"""A machine with PCI cards, made up: its sysfs and /dev as files in a directory, what its kernel does when they are
written, and VFIO's ioctls on descriptors that can really be mapped, read and written.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ixroute.driver import vfio_abi as abi
from ixroute.driver.pci import PciBus
from ixroute.driver.pci_bind import PciBinder

DEVICE = "0000:03:00.0"
SIBLING = "0000:03:00.1"
BAR0_BYTES = 0x20000
CONFIG_OFFSET = 7 << 24


class Machine:
    """Cards and drivers; write() is what the kernel does with a write to sysfs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bus = PciBus(root)
        self.native: dict[str, str] = {}
        self.refusing: set[str] = set()  # drivers that take nothing
        self.stuck: set[str] = set()  # devices whose driver does not let go
        self.loadable: set[str] = {"vfio-pci"}
        self.written: list[tuple[str, str]] = []
        self.addresses: dict[str, str] = {}
        (root / "sys/bus/pci/devices").mkdir(parents=True)
        (root / "sys/bus/pci/drivers").mkdir()
        self.add_driver("ixgbe")

    def add_driver(self, name: str) -> None:
        (self.root / "sys/bus/pci/drivers" / name).mkdir(exist_ok=True)

    def add(
        self,
        address: str = DEVICE,
        *,
        driver: str | None = "vfio-pci",
        group: int | None = 12,
        noiommu: bool = False,
        class_code: int = 0x020000,
        device: int = 0x10FB,
        native: str = "ixgbe",
    ) -> Path:
        base = self.root / "sys/bus/pci/devices" / address
        base.mkdir()
        (base / "vendor").write_text("0x8086\n")
        (base / "device").write_text(f"{device:#06x}\n")
        (base / "class").write_text(f"{class_code:#08x}\n")
        (base / "numa_node").write_text("0\n")
        (base / "driver_override").write_text("(null)\n")
        (base / "modalias").write_text("pci:made-up\n")
        (base / "resource").write_text(
            "0x00000000fe000000 0x00000000fe01ffff 0x0000000000140204\n"
            "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
        )
        if group is not None:
            self.join(address, group, noiommu)
        self.native[address] = native
        if driver is not None:
            self._attach(address, driver)
        return base

    def join(self, address: str, group: int, noiommu: bool = False) -> None:
        folder = self.root / f"sys/kernel/iommu_groups/{group}"
        (folder / "devices").mkdir(parents=True, exist_ok=True)
        (folder / "devices" / address).symlink_to(self.root / "sys/bus/pci/devices" / address)
        if noiommu:
            (folder / "name").write_text("vfio-noiommu\n")
        (self.root / "sys/bus/pci/devices" / address / "iommu_group").symlink_to(folder)

    def add_interface(self, address: str, name: str, **files: str) -> Path:
        place = self.root / "sys/bus/pci/devices" / address / "net" / name
        place.mkdir(parents=True)
        for file, text in {"flags": "0x1002", "carrier": "0", "speed": "-1", **files}.items():
            (place / file).write_text(text + "\n")
        return place

    def _attach(self, address: str, driver: str) -> None:
        self.add_driver(driver)
        base = self.root / "sys/bus/pci/devices" / address
        (base / "driver").symlink_to(self.root / "sys/bus/pci/drivers" / driver)
        found = self.bus.device(address)
        if driver == "vfio-pci" and found.group_file is not None:
            (self.root / "dev/vfio").mkdir(parents=True, exist_ok=True)
            (self.root / "dev/vfio/vfio").write_text("")
            (self.root / found.group_file).write_text("")
        elif driver == self.native[address]:
            self.add_interface(address, f"enp{address[5:7]}f{address[-1]}")

    def write(self, path: Path, text: str) -> None:
        self.written.append((str(path.relative_to(self.root)), text))
        if path.name == "driver_override":
            path.write_text(text if text.strip() else "(null)\n")
        elif path.name == "unbind":
            assert (path.parent).is_symlink(), "unbind of a device without a driver"
            if text not in self.stuck:
                base = self.root / "sys/bus/pci/devices" / text
                (base / "driver").unlink()
                shutil.rmtree(base / "net", ignore_errors=True)
        elif path.name == "drivers_probe":
            found = self.bus.device(text)
            wanted = found.override or self.native[text]
            there = (self.root / "sys/bus/pci/drivers" / wanted).is_dir()
            if found.driver is None and wanted not in self.refusing and there:
                self._attach(text, wanted)
        else:
            raise AssertionError(f"nobody writes {path}")

    def load(self, module: str) -> None:
        if module in self.loadable:
            self.add_driver(module)
        if module == "pci:made-up" and "ixgbe" in self.loadable:
            self.add_driver("ixgbe")

    def binder(self) -> PciBinder:
        return PciBinder(
            self.bus, load=self.load, address_of=self.addresses.get, write=self.write, wait_seconds=0.2
        )


@dataclass
class Card:
    """What a device's descriptor is."""

    name: str
    vectors: list[int] = field(default_factory=list)
    resets: int = 0


class FakeKernel(abi.Kernel):
    """VFIO on a Machine. `log` has every request in order, with what it carried."""

    def __init__(self, machine: Machine) -> None:
        self.root = machine.root
        self.machine = machine
        self.log: list[tuple[object, ...]] = []
        self.errors: dict[int | str, int] = {}  # request or path -> errno
        self.viable = True
        self.ranges: list[tuple[int, int]] | None = [(0, 0xFEDFFFFF), (0xFEF00000, (1 << 57) - 1)]
        self.page_sizes = 0x40201000
        self.extensions = {abi.VFIO_TYPE1V2_IOMMU, abi.VFIO_TYPE1_IOMMU, abi.VFIO_NOIOMMU_IOMMU}
        self.msix = 64
        self.free_vectors = 64
        self.sparse: list[tuple[int, int]] | None = None
        self.mappable = True
        self.can_reset = True
        self.cards: dict[str, Card] = {}
        self.mapped: dict[int, tuple[int, int]] = {}  # iova: (address, bytes)
        self._at: dict[int, tuple[str, str]] = {}  # descriptor: (what, name)

    # ---- what a test looks at

    def said(self, request: int) -> list[tuple[object, ...]]:
        return [entry[1:] for entry in self.log if entry[0] == request]

    def open_descriptors(self, what: str) -> list[str]:
        return [name for fd, (kind, name) in self._at.items() if kind == what and _is_open(fd)]

    def registers(self, name: str = DEVICE) -> mmap.mmap:
        """The device's BAR 0, as the card sees it."""
        fd = next(fd for fd, at in self._at.items() if at == ("device", name) and _is_open(fd))
        return mmap.mmap(fd, BAR0_BYTES)

    def config(self, offset: int, size: int, name: str = DEVICE) -> int:
        fd = next(fd for fd, at in self._at.items() if at == ("device", name) and _is_open(fd))
        return int.from_bytes(os.pread(fd, size, CONFIG_OFFSET + offset), "little")

    # ---- the system calls

    def open(self, path: str) -> int:
        if path in self.errors:
            raise OSError(self.errors[path], os.strerror(self.errors[path]), path)
        if not (self.root / path).exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        what = "container" if path == "dev/vfio/vfio" else "group"
        if what == "group" and path in self.open_descriptors("group"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        return self._descriptor(what, path)

    def _descriptor(self, what: str, name: str) -> int:
        fd = os.memfd_create(what, os.MFD_CLOEXEC)
        self._at[fd] = (what, name)
        return fd

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0) -> int:
        what, name = self._at[fd]
        assert _is_open(fd), f"{what} {name} is closed"
        if request in self.errors:
            raise OSError(self.errors[request], os.strerror(self.errors[request]))
        answer: Callable[..., int] = {
            abi.VFIO_GET_API_VERSION: lambda *_: 0,
            abi.VFIO_CHECK_EXTENSION: lambda fd, kind: int(kind in self.extensions),
            abi.VFIO_SET_IOMMU: lambda fd, kind: self._note(request, kind),
            abi.VFIO_IOMMU_GET_INFO: self._iommu_info,
            abi.VFIO_IOMMU_MAP_DMA: self._map,
            abi.VFIO_IOMMU_UNMAP_DMA: self._unmap,
            abi.VFIO_GROUP_GET_STATUS: self._status,
            abi.VFIO_GROUP_SET_CONTAINER: self._set_container,
            abi.VFIO_GROUP_GET_DEVICE_FD: self._device_fd,
            abi.VFIO_DEVICE_GET_INFO: self._device_info,
            abi.VFIO_DEVICE_GET_REGION_INFO: self._region_info,
            abi.VFIO_DEVICE_GET_IRQ_INFO: self._irq_info,
            abi.VFIO_DEVICE_SET_IRQS: self._set_irqs,
            abi.VFIO_DEVICE_RESET: self._reset,
        }[request]
        return answer(fd, argument)

    def _note(self, *entry: object) -> int:
        self.log.append(entry)
        return 0

    def _fill(self, argument: bytearray, whole: bytes) -> int:
        """As the kernel: as much as argsz leaves room for; argsz becomes what would be needed."""
        (argsz,) = struct.unpack_from("=I", argument)
        assert argsz == len(argument)
        argument[4 : len(whole)] = whole[4:argsz]
        struct.pack_into("=I", argument, 0, len(whole))
        return 0

    def _iommu_info(self, fd: int, argument: bytearray) -> int:
        caps = self.ranges is not None
        flags = abi.VFIO_IOMMU_INFO_PGSIZES | (abi.VFIO_IOMMU_INFO_CAPS if caps else 0)
        whole = abi.TYPE1_INFO.pack(0, flags, self.page_sizes, abi.TYPE1_INFO.size if caps else 0)
        if self.ranges is not None:
            body = struct.pack("=II", len(self.ranges), 0) + b"".join(
                struct.pack("=QQ", *pair) for pair in self.ranges
            )
            other = struct.pack("=HHIII", 3, 1, len(whole) + 16, 65535, 0)  # DMA_AVAIL comes before it
            whole += other + struct.pack("=HHI", abi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1, 0) + body
        return self._fill(argument, whole)

    def _map(self, fd: int, argument: bytearray) -> int:
        size, flags, address, iova, length = abi.DMA_MAP.unpack(argument)
        assert (size, flags) == (len(argument), 3)
        assert not any(iova < at + n and at < iova + length for at, (_, n) in self.mapped.items()), "EEXIST"
        self.mapped[iova] = (address, length)
        return self._note(abi.VFIO_IOMMU_MAP_DMA, address, iova, length)

    def _unmap(self, fd: int, argument: bytearray) -> int:
        _, _, iova, length = abi.DMA_UNMAP.unpack(argument)
        assert self.mapped.pop(iova)[1] == length
        return self._note(abi.VFIO_IOMMU_UNMAP_DMA, iova, length)

    def _status(self, fd: int, argument: bytearray) -> int:
        return self._fill(argument, abi.GROUP_STATUS.pack(0, int(self.viable)))

    def _set_container(self, fd: int, argument: bytearray) -> int:
        (container,) = struct.unpack("=i", argument)
        assert self._at[container][0] == "container"
        return self._note(abi.VFIO_GROUP_SET_CONTAINER, self._at[fd][1])

    def _device_fd(self, fd: int, argument: bytearray) -> int:
        name = bytes(argument).rstrip(b"\0").decode()
        device = self._descriptor("device", name)
        os.ftruncate(device, CONFIG_OFFSET + 4096)
        os.pwrite(device, struct.pack("=HHH", 0x8086, 0x10FB, 0x0100), CONFIG_OFFSET)
        self.cards[name] = Card(name)
        return device

    def _device_info(self, fd: int, argument: bytearray) -> int:
        flags = abi.VFIO_DEVICE_FLAGS_PCI | (abi.VFIO_DEVICE_FLAGS_RESET if self.can_reset else 0)
        return self._fill(argument, abi.DEVICE_INFO.pack(0, flags, 9, 5, 0))

    def _region_info(self, fd: int, argument: bytearray) -> int:
        _, _, index, *_ = abi.REGION_INFO.unpack_from(argument)
        size = {0: BAR0_BYTES, 2: 32, 7: 4096}.get(index, 0)
        flags = abi.VFIO_REGION_INFO_FLAG_READ | abi.VFIO_REGION_INFO_FLAG_WRITE
        extra = b""
        chain = 0
        if index == 0 and self.mappable:
            flags |= abi.VFIO_REGION_INFO_FLAG_MMAP
            if self.sparse is not None:
                flags |= abi.VFIO_REGION_INFO_FLAG_CAPS
                chain = abi.REGION_INFO.size
                areas = b"".join(struct.pack("=QQ", *area) for area in self.sparse)
                extra = struct.pack("=HHIII", 1, 1, 0, len(self.sparse), 0) + areas
        whole = abi.REGION_INFO.pack(0, flags, index, chain, size, index << 24) + extra
        return self._fill(argument, whole)

    def _irq_info(self, fd: int, argument: bytearray) -> int:
        _, _, index, _ = abi.IRQ_INFO.unpack(argument)
        assert index == abi.VFIO_PCI_MSIX_IRQ_INDEX
        return self._fill(argument, abi.IRQ_INFO.pack(0, abi.VFIO_IRQ_INFO_EVENTFD, index, self.msix))

    def _set_irqs(self, fd: int, argument: bytearray) -> int:
        size, flags, index, start, count = abi.IRQ_SET.unpack_from(argument)
        assert size == len(argument)
        events = list(struct.unpack(f"={(size - abi.IRQ_SET.size) // 4}i", argument[abi.IRQ_SET.size :]))
        self._note(abi.VFIO_DEVICE_SET_IRQS, flags, index, start, count, len(events))
        if count > self.free_vectors:
            return self.free_vectors
        self.cards[self._at[fd][1]].vectors = [os.dup(event) for event in events]
        return 0

    def _reset(self, fd: int, argument: object) -> int:
        self.cards[self._at[fd][1]].resets += 1
        os.pwrite(fd, bytes(2), CONFIG_OFFSET + 4)
        return 0


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def drop_vectors(cards: Sequence[Card]) -> None:
    for card in cards:
        for event in card.vectors:
            os.close(event)
        card.vectors = []
