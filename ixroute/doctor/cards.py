"""The cards of ports that ixroute drives itself: by PCI address, or emulated behind a socket."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ixroute.config import Config, PortConfig
from ixroute.config.cores import choose_cores, core_list
from ixroute.doctor.machine import FAIL, OK, WARN, Finding, Machine
from ixroute.driver.ixgbe.ids import UnknownCard, identify
from ixroute.driver.pci import PciBus, PciDevice
from ixroute.driver.specs import NOIOMMU, VFIO, VFIO_USER
from ixroute.driver.transport import TransportError

_IOMMU = "kernel command line: intel_iommu=on iommu=pt (and VT-d or AMD-Vi in the firmware)"
_RULES = "install extra/udev/70-ixroute.rules, then: ixroute unbind {0}; ixroute bind {0}"
_UNSAFE = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


def cards(machine: Machine, config: Config) -> Iterator[Finding]:
    """Each such port's card: there, known, bound to vfio-pci, and its group free to be opened."""
    bus = PciBus(machine.root)
    running = machine.answers(config.control.socket)  # then a group in use is its own
    workers = choose_cores(config, machine.path("sys"), machine.cores)
    for port in config.ports:
        if port.kind == VFIO_USER:
            yield _socket(machine, port)
        elif port.kind in (VFIO, NOIOMMU):
            try:
                device = bus.device(port.device)
            except TransportError as error:
                yield Finding("cards", FAIL, f"{port.name}: {error}", "ixroute devices")
                continue
            found = [
                *_identity(port, device),
                *_isolation(machine, port, device),
                *_driver(bus, port, device),
            ]
            yield from found
            if all(finding.level != FAIL for finding in found):
                yield _group(machine, port, device, running)
            yield from _numa(machine, port, device, workers)


def _socket(machine: Machine, port: PortConfig) -> Finding:
    """Without connecting: a card has one client at a time."""
    if machine.exists(port.device.lstrip("/")):
        return Finding("cards", OK, f"{port.name}: the card's socket {port.device} is there")
    text = f"{port.name}: no socket {port.device}: nobody emulates a card there"
    return Finding("cards", FAIL, text, f"ixroute emulate --wire SPEC --socket {port.device}")


def _identity(port: PortConfig, device: PciDevice) -> Iterator[Finding]:
    try:
        identify(device.vendor, device.device, port.force_id)
    except UnknownCard as error:
        yield Finding(
            "cards", FAIL, f"{port.name}: {error}", f"--port {port.name}=af_xdp:INTERFACE drives any card"
        )


def _isolation(machine: Machine, port: PortConfig, device: PciDevice) -> Iterator[Finding]:
    """An IOMMU, or the explicit will to do without."""
    if port.kind == NOIOMMU:
        text = f"{port.name}: {device.address} without an IOMMU can overwrite all memory of this machine"
        yield Finding("cards", WARN, text, f"with an IOMMU name the port {device.address}; {_IOMMU}")
        if machine.read(_UNSAFE) not in ("Y", "1"):
            text = f"{port.name}: DMA without an IOMMU is off"
            yield Finding(
                "cards", FAIL, text, f"modprobe vfio-pci; echo Y > /{_UNSAFE} (CONFIG_VFIO_NOIOMMU)"
            )
        elif device.iommu_group is not None and not device.noiommu:
            text = f"{port.name}: {device.address} has an IOMMU"
            yield Finding("cards", FAIL, text, f"--port {port.name}={device.address}")
    elif device.iommu_group is None or device.noiommu:
        yield Finding("cards", FAIL, f"{port.name}: {device.address} is behind no IOMMU", _IOMMU)


def _driver(bus: PciBus, port: PortConfig, device: PciDevice) -> Iterator[Finding]:
    if not device.has_vfio:
        text = f"{port.name}: {device.address} has the driver {device.driver or 'none'}, not vfio-pci"
        yield Finding("cards", FAIL, text, f"ixroute bind {device.address}")
    others = [other for other in bus.hindrances(device) if other != device]
    if others:
        names = ", ".join(f"{other.address} ({other.driver})" for other in others)
        text = f"{port.name}: IOMMU group {device.iommu_group} also holds {names}"
        yield Finding("cards", FAIL, text, f"ixroute bind {' '.join(other.address for other in others)}")


def _group(machine: Machine, port: PortConfig, device: PciDevice, running: bool) -> Finding:
    """Whether this process may open it; run the doctor as the daemon's user to see what the daemon sees."""
    file = device.group_file or "dev/vfio/vfio"
    error = machine.open_error(file)
    if error is None or (error.errno == errno.EBUSY and running):
        return Finding("cards", OK, f"{port.name}: {device.address}, group {device.iommu_group}, /{file}")
    if error.errno == errno.EBUSY:
        return Finding("cards", FAIL, f"{port.name}: /{file} is in use", f"end the program: fuser -v /{file}")
    fix = _RULES.format(device.address) if error.errno in (errno.EACCES, errno.EPERM) else "see dmesg"
    return Finding("cards", FAIL, f"{port.name}: /{file}: {error.strerror}", fix)


def _numa(
    machine: Machine, port: PortConfig, device: PciDevice, workers: tuple[int, ...]
) -> Iterator[Finding]:
    if device.numa_node is None:
        return
    near = machine.read(f"sys/devices/system/node/node{device.numa_node}/cpulist") or ""
    far = [core for core in workers if near and core not in core_list(near)]
    if far:
        text = f"{port.name}: {device.address} hangs on node {device.numa_node}, core {far[0]} does not"
        yield Finding("numa", WARN, text, f"put the workers on cores {near}")
