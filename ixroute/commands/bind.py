"""`ixroute bind`, `ixroute unbind`: which driver has a card."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ixroute.commands import parsing
from ixroute.errors import UserError

if TYPE_CHECKING:
    from ixroute.driver.pci import PciDevice
    from ixroute.driver.pci_bind import PciBinder

_BIND = """\
Takes network cards from the kernel and gives them to vfio-pci, so that ixroute
can drive them. The cards' interfaces disappear. Refuses a card whose interface
is up, has addresses or routes, or belongs to a bridge or bond. Lasts until the
next boot, or `ixroute unbind`; for every boot see docs/operations.md.
"""

_BIND_EXAMPLES = """\
  ixroute bind 0000:03:00.0 0000:03:00.1
  ixroute bind --force 03:00.0
"""

_UNBIND = """\
Gives cards back to their kernel drivers; their interfaces come back, without
addresses. Refuses while a program drives the card.
"""

_UNBIND_EXAMPLES = """\
  ixroute unbind 0000:03:00.0
"""

ROOT = Path("/")


def add(commands: parsing.Commands) -> None:
    """Adds both parsers."""
    parser = parsing.new(
        commands,
        "bind",
        bind,
        help="take cards from the kernel",
        description=_BIND,
        examples=_BIND_EXAMPLES,
    )
    _add_addresses(parser)
    parser.add_argument(
        "--force", action="store_true", help="though the card is in use: what uses it is cut off"
    )
    parser.add_argument(
        "--driver", default="vfio-pci", metavar="NAME", help="the driver to give it to (default: %(default)s)"
    )
    parser = parsing.new(
        commands,
        "unbind",
        unbind,
        help="give cards back to the kernel",
        description=_UNBIND,
        examples=_UNBIND_EXAMPLES,
    )
    _add_addresses(parser)


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", nargs="+", metavar="ADDRESS", help="PCI address, like 0000:03:00.0")


def binder() -> PciBinder:
    """Of this machine."""
    from ixroute.driver.pci import PciBus
    from ixroute.driver.pci_bind import PciBinder

    return PciBinder(PciBus(ROOT))


def bind(args: argparse.Namespace) -> int:
    """Binds all that can be; an error for the first that cannot, after the others."""
    from ixroute.driver.transport import TransportError

    made = binder()
    errors: list[str] = []
    done: list[PciDevice] = []
    for address in args.address:
        try:
            before = made.bus.device(address)
            now = made.bind(address, args.driver, force=args.force)
        except TransportError as error:
            errors.append(str(error))
            continue
        print(f"{now.address}: {_changed(before, now)}")
        done.append(now)
    for device in done:
        for line in hints(made, device):
            print(line)
    if errors:
        raise UserError("; ".join(errors))
    return 0


def _changed(before: PciDevice, now: PciDevice) -> str:
    if before.driver == now.driver:
        return f"{now.driver} has it already"
    return f"{now.driver} has it now (before: {before.driver or 'no driver'})"


def hints(made: PciBinder, device: PciDevice) -> Iterator[str]:
    """What still stands between the card and a port."""
    if not device.has_vfio:
        return
    others = made.bus.hindrances(device)
    if others:
        names = " ".join(other.address for other in others)
        yield f"{device.address}: its IOMMU group {device.iommu_group} can be used when these are bound too: {names}"
    if device.group_file is None or not (made.bus.root / device.group_file).exists():
        yield f"{device.address}: there is no /{device.group_file or 'dev/vfio/GROUP'} yet; see dmesg"


def unbind(args: argparse.Namespace) -> int:
    """Gives back all that can be; an error for those that cannot, after the others."""
    from ixroute.driver.transport import TransportError

    made = binder()
    errors: list[str] = []
    for address in args.address:
        try:
            now = made.unbind(address)
        except TransportError as error:
            errors.append(str(error))
            continue
        names = ", ".join(interface.name for interface in now.interfaces)
        if now.driver is None:
            print(f"{now.address}: no kernel driver takes it (is its module installed?)")
        else:
            print(f"{now.address}: {now.driver} has it" + (f", as {names}" if names else ""))
    if errors:
        raise UserError("; ".join(errors))
    return 0
