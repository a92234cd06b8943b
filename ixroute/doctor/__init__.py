"""What on this machine would stop or slow the router, and the command that mends each.

Every check is a function from a Machine (and the configuration) to Findings. A check reads, and never changes
anything; it works without privilege and says so where it cannot see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ixroute.config import Config
from ixroute.doctor import cards, kernel, network, ports, processors, service
from ixroute.doctor.machine import FAIL, LEVELS, NOTE, OK, WARN, Finding, Machine

__all__ = ["CHECKS", "FAIL", "LEVELS", "NOTE", "OK", "WARN", "Finding", "Machine", "examine"]

CHECKS: tuple[Callable[[Machine, Config], Iterator[Finding]], ...] = (
    kernel.version,
    kernel.af_xdp,
    kernel.tun,
    kernel.capabilities,
    kernel.memlock,
    kernel.hugepages,
    kernel.receive_buffer,
    processors.cores,
    processors.governor,
    processors.irqbalance,
    network.forwarding,
    network.reverse_path,
    network.policy_rules,
    network.firewall,
    ports.devices,
    cards.cards,
    ports.names,
    service.unit,
    service.vfio,
)


def examine(machine: Machine, config: Config) -> Iterator[Finding]:
    """All findings, in the order of CHECKS."""
    for check in CHECKS:
        yield from check(machine, config)
