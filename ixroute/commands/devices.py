"""`ixroute devices`: the machine's network cards, and who has them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ixroute.commands import parsing
from ixroute.present import plain_table, speed, style_for

if TYPE_CHECKING:
    from ixroute.driver.pci import PciBus, PciDevice

_DESCRIPTION = """\
Lists the network cards on the PCI bus: address, name, driver, IOMMU group,
NUMA node, the kernel's interface and its link, and how to write the card as a
port. Changes nothing; needs no privilege.

A card that the kernel has is a port as af_xdp:INTERFACE. An Intel 82599, X540
or X550 can also be driven by ixroute itself: `ixroute bind` takes it from the
kernel, `ixroute unbind` gives it back.
"""

_EXAMPLES = """\
  ixroute devices
  ixroute devices -j | jq -r '.devices[] | select(.drivable) | .address'
"""

HEAD = ("ADDRESS", "CARD", "DRIVER", "GROUP", "NODE", "INTERFACE", "LINK", "PORT")
ROOT = Path("/")
_WIDEST_NAME = 42


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands,
        "devices",
        run,
        help="list network cards and their drivers",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parsing.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the cards."""
    from ixroute.driver.pci import PciBus

    bus = PciBus(ROOT)
    found = [describe(bus, device) for device in bus.ethernet_devices()]
    if args.json:
        print(json.dumps({"schema": 1, "iommu": bus.has_iommu(), "devices": found}))
        return 0
    if not found:
        print("no network card is on this machine's PCI bus; any interface can be a port: af_xdp:eth1")
        return 0
    print("\n".join(plain_table(HEAD, [row(device) for device in found], style_for())))
    if not bus.has_iommu():
        print(
            "\nno IOMMU is on: cards cannot be bound to vfio-pci (kernel command line: intel_iommu=on iommu=pt)"
        )
    return 0


def describe(bus: PciBus, device: PciDevice) -> dict[str, Any]:
    """A card as JSON has it (docs/stats-json.md)."""
    from ixroute.driver.ixgbe.ids import INTEL, MODELS
    from ixroute.driver.pci import card_name

    drivable = device.vendor == INTEL and device.device in MODELS
    return {
        "address": device.address,
        "vendor": f"{device.vendor:04x}",
        "device": f"{device.device:04x}",
        "name": card_name(device.vendor, device.device, bus.root),
        "drivable": drivable,
        "driver": device.driver,
        "iommu_group": device.iommu_group,
        "noiommu": device.noiommu,
        "group_file": f"/{device.group_file}" if device.has_vfio and device.group_file else None,
        "in_the_way": [other.address for other in bus.hindrances(device) if other != device],
        "numa_node": device.numa_node,
        "interfaces": [
            {"name": one.name, "up": one.up, "carrier": one.carrier, "speed_mbps": one.speed_mbps or 0}
            for one in device.interfaces
        ],
        "spec": _spec(device, drivable),
    }


def _spec(device: PciDevice, drivable: bool) -> str | None:
    """How the card is written as a port, as things are."""
    if device.has_vfio and drivable:
        return f"noiommu:{device.address}" if device.noiommu else device.address
    return f"af_xdp:{device.interfaces[0].name}" if device.interfaces else None


def row(device: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    name = device["name"]
    interfaces = device["interfaces"]
    return (
        device["address"],
        name if len(name) <= _WIDEST_NAME else f"{name[: _WIDEST_NAME - 3]}...",
        device["driver"] or "-",
        "none" if device["noiommu"] else _or_dash(device["iommu_group"]),
        _or_dash(device["numa_node"]),
        ",".join(interface["name"] for interface in interfaces) or "-",
        _link(interfaces[0]) if interfaces else "-",
        device["spec"] or "-",
    )


def _link(interface: dict[str, Any]) -> str:
    if not interface["up"]:
        return "off"
    return speed(interface["speed_mbps"]) if interface["carrier"] else "no link"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
