"""How ixroute is installed, and what else the machine has for it."""

from __future__ import annotations

from collections.abc import Iterator

from ixroute.config import Config
from ixroute.doctor.machine import FAIL, NOTE, OK, Finding, Machine
from ixroute.driver.specs import NOIOMMU, VFIO

_UNIT_DIRECTORIES = (
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)


def unit(machine: Machine, config: Config) -> Iterator[Finding]:
    """Whether systemd knows ixroute."""
    if not machine.exists("run/systemd/system"):
        yield Finding("service", NOTE, "systemd does not run this machine; ixroute runs in the foreground")
        return
    found = [place for place in _UNIT_DIRECTORIES if machine.exists(f"{place}/ixroute.service")]
    if not found:
        fix = "docs/operations.md, Installing the service"
        yield Finding(
            "service", NOTE, "ixroute.service is not installed: nothing starts ixroute at boot", fix
        )
        return
    state = (machine.command("systemctl", "is-enabled", "ixroute.service") or "").strip()
    if state == "enabled":
        yield Finding("service", OK, f"/{found[0]}/ixroute.service, enabled")
    else:
        yield Finding("service", NOTE, "ixroute.service is not enabled", "systemctl enable --now ixroute")


def vfio(machine: Machine, config: Config) -> Iterator[Finding]:
    """For cards that are driven without the kernel; information only when there is no such port."""
    kinds = {port.kind for port in config.ports}
    level = FAIL if kinds & {VFIO, NOIOMMU} else NOTE
    others = "" if level == FAIL else " (AF_XDP ports do without)"
    groups = machine.list("sys/kernel/iommu_groups")
    device = machine.exists("dev/vfio/vfio")
    if groups and device:
        yield Finding("vfio", OK, f"IOMMU with {len(groups)} groups, VFIO is there")
    elif groups:
        yield Finding("vfio", level, f"IOMMU is on, VFIO is not loaded{others}", "modprobe vfio-pci")
    elif kinds & {NOIOMMU} and not kinds & {VFIO} and device:
        yield Finding("vfio", NOTE, "VFIO is there, without an IOMMU")
    else:
        yield Finding("vfio", level, f"no IOMMU{others}", "kernel command line: intel_iommu=on iommu=pt")
