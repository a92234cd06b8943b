"""Sums over what the workers count. Each worker writes its own block; forward/worker.py reads them.

A cell is read whole, but the cells one after the other: while packets flow, a sum may be ahead of another
by a burst. When nothing is under way the equations of docs/counters.md hold exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ixroute.schema import PortStats, Totals


def with_zeros(cells: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    """Every name, zeros included, and any other that is not zero, so that nothing is left out of a sum."""
    return dict.fromkeys(names, 0) | dict(cells)


def totals(ports: Iterable[PortStats]) -> Totals:
    """All ports together, and how many packets have no verdict yet."""
    total = Totals(rx=0, injected=0, sent=0, tx=0, punted=0, dropped=0, policed=0, in_flight=0)
    for port in ports:
        total["rx"] += port["rx_packets"]
        total["injected"] += port["injected_packets"]
        total["sent"] += port["sent_packets"]
        total["tx"] += port["tx_packets"]
        total["punted"] += sum(port["punted"].values())
        total["dropped"] += sum(port["dropped"].values())
        total["policed"] += sum(port["policed"].values())
    done = total["sent"] + total["punted"] + total["dropped"] + total["policed"]
    total["in_flight"] = total["rx"] + total["injected"] - done
    return total
