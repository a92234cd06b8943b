"""Which driver has a PCI device: taken from the kernel's for vfio-pci, and given back.

Through driver_override, which concerns this one device only, unlike new_id (Documentation/ABI/testing/sysfs-bus-pci).
It lasts until the next boot; extra/udev/70-ixroute.rules does it at every boot.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ixroute.driver.netdev import NetDevice
from ixroute.driver.pci import Interface, PciBus, PciDevice
from ixroute.driver.transport import TransportError

VFIO_PCI = "vfio-pci"
WAIT_SECONDS = 10.0
_MODPROBE_SECONDS = 20.0
_WITHOUT_INTERFACE = ("pci-stub", "uio_pci_generic", "igb_uio")  # drivers that never show an interface


def modprobe(name: str) -> None:
    """Loads a module, if it can be; whether it worked is seen by what is there afterwards."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["modprobe", "--quiet", "--", name],
            timeout=_MODPROBE_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def ipv4_address(interface: str) -> str | None:
    """Of an interface of this network namespace."""
    try:
        device = NetDevice(interface)
    except OSError:
        return None
    try:
        return device.ipv4_address()
    except OSError:
        return None
    finally:
        device.close()


class PciBinder:
    """Changes drivers of devices of `bus`. All methods raise TransportError; none waits longer than WAIT_SECONDS for
    each step."""

    def __init__(
        self,
        bus: PciBus,
        *,
        load: Callable[[str], None] = modprobe,
        address_of: Callable[[str], str | None] = ipv4_address,
        write: Callable[[Path, str], object] = Path.write_text,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.bus = bus
        self._load = load
        self._address_of = address_of
        self._put = write
        self._wait_seconds = wait_seconds
        self._devices = bus.root / "sys/bus/pci/devices"
        self._drivers = bus.root / "sys/bus/pci/drivers"

    # ---- is it free?

    def uses(self, device: PciDevice) -> list[tuple[str, str]]:
        """What it is in use for, each with what ends that; empty: nobody will miss it."""
        found = [use for interface in device.interfaces for use in self._interface_uses(interface)]
        if (
            device.driver
            and not device.interfaces
            and not device.has_vfio
            and device.driver not in _WITHOUT_INTERFACE
        ):
            why = f"driver {device.driver} has it, and no interface is seen from here"
            found.append((why, "look for it in other network namespaces (`ip netns`)"))
        return found

    def _interface_uses(self, interface: Interface) -> list[tuple[str, str]]:
        name = interface.name
        found = []
        if interface.up:
            found.append((f"interface {name} is up", f"ip link set {name} down"))
        if interface.master:
            found.append((f"{name} belongs to {interface.master}", f"ip link set {name} nomaster"))
        found += [(f"{upper} lies on {name}", f"ip link del {upper}") for upper in interface.uppers]
        addresses = [*filter(None, [self._address_of(name)]), *self._ipv6_addresses(name)]
        if addresses:
            found.append((f"{name} has the address {addresses[0]}", f"ip addr flush dev {name}"))
        routes = self._routes(name)
        if routes:
            found.append((f"{routes} routes go by {name}", f"ip route show dev {name}"))
        return found

    def _lines(self, path: str) -> list[list[str]]:
        try:
            return [line.split() for line in (self.bus.root / path).read_text().splitlines()]
        except OSError:
            return []

    def _ipv6_addresses(self, name: str) -> list[str]:
        """But link-local ones, which every interface that is up has."""
        found = [line[0] for line in self._lines("proc/net/if_inet6") if len(line) == 6 and line[5] == name]
        return [":".join(text[i : i + 4] for i in range(0, 32, 4)) for text in found if text[:3] != "fe8"]

    def _routes(self, name: str) -> int:
        """Of IPv4's main table, and of IPv6's but for link-local and multicast."""
        four = sum(line[:1] == [name] for line in self._lines("proc/net/route"))
        six = [line[0] for line in self._lines("proc/net/ipv6_route") if line[-1:] == [name]]
        return four + sum(text[:3] not in ("fe8", "ff0") for text in six)

    # ---- bind

    def bind(self, address: str, driver: str = VFIO_PCI, *, force: bool = False) -> PciDevice:
        """Takes the device from whoever has it and gives it to `driver`. `force`: though it is in use. Returns the
        device as it is then; it is given back as it was when the driver does not take it."""
        device = self.bus.device(address)
        if device.driver == driver:
            return device
        self._check_free(device, force)
        self._check_iommu(device, driver)
        if not (self._drivers / driver).is_dir():
            self._load(driver)
        if not (self._drivers / driver).is_dir():
            raise TransportError(
                device.address,
                f"this kernel has no driver {driver}: `modprobe {driver}` (CONFIG_VFIO_PCI), see `dmesg`",
            )
        self._override(device, driver)
        try:
            self._release(device)
            self._probe(device)
            if not self._wait(lambda: self.bus.device(device.address).driver == driver):
                raise TransportError(device.address, f"{driver} does not take it; see `dmesg`")
        except TransportError:
            with contextlib.suppress(TransportError):
                self._override(device, device.override or "")
                self._probe(device)
            raise
        now = self.bus.device(device.address)
        group_file = now.group_file
        if group_file is not None:  # udev makes it, and sets its owner, a little later
            self._wait((self.bus.root / group_file).exists)
        return now

    def _check_free(self, device: PciDevice, force: bool) -> None:
        if force:
            return
        if not device.is_ethernet:
            raise TransportError(
                device.address,
                f"is not a network card (class {device.class_code:04x}): --force takes it all the same",
            )
        uses = self.uses(device)
        if uses:
            why = ", ".join(why for why, _ in uses)
            mend = "; ".join(f"`{end}`" if end.startswith("ip ") else end for _, end in uses)
            raise TransportError(device.address, f"is in use: {why}. {mend}; or --force, which cuts it off")

    def _check_iommu(self, device: PciDevice, driver: str) -> None:
        if driver != VFIO_PCI or device.iommu_group is not None:
            return
        mode = self.bus.root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        with contextlib.suppress(OSError):
            if mode.read_text().strip() in ("Y", "1"):
                return
        raise TransportError(
            device.address,
            "has no IOMMU group, so vfio-pci would not take it: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and"
            " on the kernel's command line (intel_iommu=on iommu=pt), or see docs/operations.md, Without an IOMMU",
        )

    # ---- unbind

    def unbind(self, address: str) -> PciDevice:
        """Gives the device back to its kernel driver. Returns the device as it is then: `driver` is None when no
        driver of the kernel's knows it."""
        device = self.bus.device(address)
        if device.driver is not None and not device.has_vfio and device.override is None:
            return device  # has it already
        self._check_idle(device)
        self._override(device, "")
        if device.has_vfio or device.driver is None or device.override == device.driver:
            self._release(device)
            self._probe(device)
        if not self._wait(lambda: self.bus.device(device.address).driver is not None, 1.0):
            with contextlib.suppress(OSError):
                self._load((self._devices / device.address / "modalias").read_text().strip())
            self._probe(device)
        now = self.bus.device(device.address)
        if now.driver is not None:
            self._wait(lambda: bool(self.bus.device(device.address).interfaces), 2.0)
        return self.bus.device(device.address)

    def _check_idle(self, device: PciDevice) -> None:
        """vfio-pci lets go of a device only when its user does: the write would wait for that, without end."""
        if not device.has_vfio or device.group_file is None:
            return
        try:
            os.close(os.open(self.bus.root / device.group_file, os.O_RDWR | os.O_CLOEXEC))
        except OSError as e:
            if e.errno == errno.EBUSY:
                why = f"a program drives a card of group {device.iommu_group} (/{device.group_file}): end it first"
                raise TransportError(device.address, why) from e

    # ---- steps

    def _override(self, device: PciDevice, driver: str) -> None:
        self._write(device, self._devices / device.address / "driver_override", driver + "\n")

    def _release(self, device: PciDevice) -> None:
        """From the driver that has it now, if any."""
        if self.bus.device(device.address).driver is None:
            return
        self._write(device, self._devices / device.address / "driver/unbind", device.address)
        if not self._wait(lambda: self.bus.device(device.address).driver is None):
            raise TransportError(device.address, f"driver {device.driver} does not let go of it; see `dmesg`")

    def _probe(self, device: PciDevice) -> None:
        self._write(device, self.bus.root / "sys/bus/pci/drivers_probe", device.address)

    def _write(self, device: PciDevice, path: Path, text: str) -> None:
        """In a thread of its own: a driver may take its time, or never return."""
        failed: list[OSError] = []

        def write() -> None:
            try:
                self._put(path, text)
            except OSError as e:
                failed.append(e)

        writer = threading.Thread(target=write, name="sysfs", daemon=True)
        writer.start()
        writer.join(self._wait_seconds)
        if writer.is_alive():
            raise TransportError(device.address, f"{path}: the kernel does not answer; see `dmesg`")
        if failed:
            if failed[0].errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise TransportError(device.address, f"{path}: {failed[0].strerror}: run as root")
            raise TransportError(device.address, f"{path}: {failed[0].strerror}; see `dmesg`")

    def _wait(self, true: Callable[[], bool], seconds: float | None = None) -> bool:
        deadline = time.monotonic() + (
            self._wait_seconds if seconds is None else min(seconds, self._wait_seconds)
        )
        while not true():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True
