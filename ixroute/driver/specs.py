"""How a port's device is written: `af_xdp:eth1`, `0000:03:00.0`, `vfio-user:/run/x.sock`, `noiommu:0000:03:00.0`."""

from __future__ import annotations

import re

VFIO = "vfio"
VFIO_USER = "vfio-user"
NOIOMMU = "noiommu"
PCI_KINDS = (VFIO, VFIO_USER, NOIOMMU)
"""Kinds whose device is a card with registers, driven by a driver of this room."""

_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])", re.IGNORECASE)


def pci_address(text: str) -> str | None:
    """As sysfs writes it: "3:00.0" is none, "03:00.0" -> "0000:03:00.0", and in lower case."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    domain, bus, slot, function = match.groups(default="0000")
    return f"{domain}:{bus}:{slot}.{function}".lower()


def split_spec(spec: str) -> tuple[str, str]:
    """(kind, device); a PCI address alone is of the kind vfio and is completed. ValueError when it has no kind."""
    address = pci_address(spec)
    if address is not None:
        return VFIO, address
    kind, colon, device = spec.partition(":")
    if not colon or not kind or not device:
        raise ValueError(f"{spec!r} is no port: write KIND:DEVICE, as in af_xdp:eth1, or a PCI address")
    if kind in (VFIO, NOIOMMU):
        device = pci_address(device) or device
    return kind, device


def join_spec(kind: str, device: str) -> str:
    """The one way to write it: the reverse of split_spec."""
    return device if kind == VFIO and pci_address(device) else f"{kind}:{device}"
