"""Sums over what `ixroute stats -j` says: by reason, by port, and whether the books balance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Stats = Mapping[str, Any]


def port_of(stats: Stats, name: str) -> Mapping[str, Any]:
    for port in stats["ports"]:
        if port["name"] == name:
            return dict(port)
    raise KeyError(f"no port {name} among {[port['name'] for port in stats['ports']]}")


def by_reason(stats: Stats, kind: str, reason: str) -> int:
    """kind: punted, dropped or policed; summed over all ports."""
    return sum(int(port[kind].get(reason, 0)) for port in stats["ports"])


def dropped_total(stats: Stats, reason: str) -> int:
    return by_reason(stats, "dropped", reason)


def punted_total(stats: Stats, reason: str | None = None) -> int:
    """Packets given to the kernel: for one reason, or for all."""
    if reason is not None:
        return by_reason(stats, "punted", reason)
    return sum(sum(port["punted"].values()) for port in stats["ports"])


def unbalanced(stats: Stats) -> list[str]:
    """One sentence for each port, and for the router, whose packets do not add up (forward/counters.h):
    received + injected = sent + punted + dropped + policed, and over all ports sent = transmitted.
    """
    wrong = []
    for port in stats["ports"]:
        came = port["rx_packets"] + port["injected_packets"]
        went = port["sent_packets"] + sum(
            sum(port[kind].values()) for kind in ("punted", "dropped", "policed")
        )
        if came != went:
            wrong.append(f"{port['name']}: {came} packets came, {went} went")
    sent = sum(port["sent_packets"] for port in stats["ports"])
    transmitted = sum(port["tx_packets"] for port in stats["ports"])
    if sent != transmitted:
        wrong.append(f"sent {sent} packets, transmitted {transmitted}")
    return wrong
