"""PCI devices as sysfs shows them. Reads only; pci_bind.py changes."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ixroute.driver.specs import pci_address
from ixroute.driver.transport import TransportError

CLASS_ETHERNET = 0x0200
CLASS_BRIDGE = 0x06  # the upper byte: bridges of all kinds
IFF_UP = 0x1
NOIOMMU_GROUP = "vfio-noiommu"
"""Name of the groups that vfio makes up for devices without an IOMMU (drivers/vfio/group.c)."""


@dataclass(frozen=True)
class Interface:
    """A network interface of the kernel that a device is behind."""

    name: str
    up: bool
    """Administratively."""
    carrier: bool
    speed_mbps: int | None
    master: str | None
    """The bridge, bond or VRF it belongs to."""
    uppers: tuple[str, ...]
    """VLANs, macvlans and the like on top of it."""


@dataclass(frozen=True)
class PciDevice:
    """A function of a card."""

    address: str
    vendor: int
    device: int
    class_code: int
    """Class and subclass: 0x0200 is Ethernet."""
    driver: str | None
    override: str | None
    """driver_override: the one driver that may have it."""
    iommu_group: int | None
    noiommu: bool
    """The group was made up by vfio: there is no IOMMU."""
    numa_node: int | None
    bars: tuple[tuple[int, int], ...]
    """(number, bytes) of each base address register that has memory or ports."""
    interfaces: tuple[Interface, ...]

    @property
    def is_ethernet(self) -> bool:
        return self.class_code == CLASS_ETHERNET

    @property
    def is_bridge(self) -> bool:
        return self.class_code >> 8 == CLASS_BRIDGE

    @property
    def has_vfio(self) -> bool:
        """A driver of the vfio family has it."""
        return self.driver is not None and "vfio" in self.driver

    @property
    def group_file(self) -> str | None:
        """Relative to the root: what opens its group."""
        if self.iommu_group is None:
            return None
        return f"dev/vfio/{'noiommu-' if self.noiommu else ''}{self.iommu_group}"


class PciBus:
    """The PCI devices of the machine whose files lie under `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._devices = root / "sys/bus/pci/devices"

    def device(self, address: str) -> PciDevice:
        """One device. TransportError when the address is none, or nothing is there."""
        whole = pci_address(address)
        if whole is None:
            raise TransportError(
                address, "is not a PCI address: write it as in 0000:03:00.0 (`ixroute devices`)"
            )
        if not (self._devices / whole).is_dir():
            raise TransportError(
                whole, "no PCI device has this address: `ixroute devices` lists the network cards"
            )
        return self._read(whole)

    def ethernet_devices(self) -> list[PciDevice]:
        """Every network card, by address."""
        return [device for device in map(self._read, self._names(self._devices)) if device.is_ethernet]

    def group_members(self, group: int) -> list[PciDevice]:
        """All devices of an IOMMU group: they can be given away only together."""
        members = self._names(self.root / f"sys/kernel/iommu_groups/{group}/devices")
        return [self._read(name) for name in members if (self._devices / name).is_dir()]

    def hindrances(self, device: PciDevice) -> list[PciDevice]:
        """Devices of its IOMMU group that kernel drivers hold: as long as they do, VFIO gives nobody a device of the
        group (drivers/vfio/group.c, vfio_dev_viable)."""
        if device.iommu_group is None:
            return []
        return [
            other
            for other in self.group_members(device.iommu_group)
            if other.driver not in (None, "pci-stub") and not other.has_vfio and not other.is_bridge
        ]

    def has_iommu(self) -> bool:
        """Whether any IOMMU is on."""
        groups = self.root / "sys/kernel/iommu_groups"
        return any(self._text(groups / name / "name") != NOIOMMU_GROUP for name in self._names(groups))

    def iommu_bits(self, address: str) -> int | None:
        """The widest address that the device's Intel IOMMU translates: the capability register's MGAW, cut to what
        its page tables of 3, 4 or 5 levels reach (VT-d specification, CAP_REG). None: not an Intel IOMMU."""
        text = self._text(self._devices / address / "iommu/intel-iommu/cap")
        try:
            capability = int(text or "", 16)
        except ValueError:
            return None
        widths = [30 + 9 * bit for bit in range(1, 4) if capability >> 8 & 1 << bit]
        return min([(capability >> 16 & 0x3F) + 1, *([max(widths)] if widths else [])])

    def _read(self, address: str) -> PciDevice:
        base = self._devices / address
        group = self._link(base / "iommu_group")
        node = self._number(base / "numa_node")
        override = self._text(base / "driver_override")
        return PciDevice(
            address=address,
            vendor=self._number(base / "vendor") or 0,
            device=self._number(base / "device") or 0,
            class_code=(self._number(base / "class") or 0) >> 8,
            driver=self._link(base / "driver"),
            override=None if override in (None, "", "(null)") else override,
            iommu_group=int(group) if group is not None and group.isdigit() else None,
            noiommu=self._text(base / "iommu_group/name") == NOIOMMU_GROUP,
            numa_node=node if node is not None and node >= 0 else None,
            bars=self._bars(base / "resource"),
            interfaces=self._interfaces(base),
        )

    def _bars(self, path: Path) -> tuple[tuple[int, int], ...]:
        found = []
        for number, line in enumerate((self._text(path) or "").splitlines()[:6]):
            fields = line.split()
            with contextlib.suppress(ValueError, IndexError):
                first, last = int(fields[0], 16), int(fields[1], 16)
                if last:
                    found.append((number, last - first + 1))
        return tuple(found)

    def _interfaces(self, base: Path) -> tuple[Interface, ...]:
        """In the network namespace of the sysfs mount. A virtio card has its interface one level deeper."""
        places = [
            base / "net",
            *(base / name / "net" for name in self._names(base) if name.startswith("virtio")),
        ]
        return tuple(self._interface(place / name) for place in places for name in self._names(place))

    def _interface(self, base: Path) -> Interface:
        speed = self._number(base / "speed")
        return Interface(
            name=base.name,
            up=bool((self._number(base / "flags") or 0) & IFF_UP),
            carrier=self._text(base / "carrier") == "1",
            speed_mbps=speed if speed is not None and speed > 0 else None,
            master=self._link(base / "master"),
            uppers=tuple(name[6:] for name in self._names(base) if re.match(r"upper_.", name)),
        )

    @staticmethod
    def _names(path: Path) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    @staticmethod
    def _text(path: Path) -> str | None:
        try:
            return path.read_text(errors="replace").strip()
        except OSError:
            return None

    @staticmethod
    def _link(path: Path) -> str | None:
        try:
            return os.path.basename(os.readlink(path))
        except OSError:
            return None

    def _number(self, path: Path) -> int | None:
        try:
            return int(self._text(path) or "", 0)
        except ValueError:
            return None


def card_name(vendor: int, device: int, root: Path = Path("/")) -> str:
    """By the system's list of names (pci.ids); "8086:10fb" when it has none, or does not know it."""
    number = f"{vendor:04x}:{device:04x}"
    for place in ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"):
        with contextlib.suppress(OSError), open(root / place, encoding="utf-8", errors="replace") as lines:
            inside = False
            for line in lines:
                if line.startswith(f"{vendor:04x}  "):
                    inside = True
                elif inside and line.startswith(f"\t{device:04x}  "):
                    return line[7:].strip()
                elif inside and not line.startswith(("\t", "#", "\n")):
                    break
    return number
