"""Routers to test, waiting with an end, and what moved in their counters."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ixroute.demo.topology import Lab


def port_arguments(lab: Lab, workers: str = "") -> list[str]:
    """`ixroute run` arguments for a lab's cables: one worker, on the last core, unless other cores are named."""
    ports = [word for link in lab.links for word in ("--port", f"{link.port}={link.spec}")]
    return [*ports, "--workers", workers or str(max(os.sched_getaffinity(0)))]


def wait_until(holds: Callable[[], bool], seconds: float, why: Callable[[], str] | str) -> float:
    """Waits until `holds()`; fails with `why` when that takes longer. Returns how long it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {why if isinstance(why, str) else why()}")
        time.sleep(0.005)
    return time.monotonic() - began


def verdicts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Counter[str]:
    """How often each reason was counted between two `stats -j`, as "punted arp_request"; all ports."""
    moved: Counter[str] = Counter()
    for was, now in zip(before["ports"], after["ports"], strict=True):
        for kind in ("punted", "dropped", "policed"):
            for reason, count in now[kind].items():
                moved[f"{kind} {reason}"] += count - was[kind].get(reason, 0)
    return +moved


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The counters that moved between two `ixroute stats -j`, for a failed test to print."""
    lines = [f"  {verdict} +{count}" for verdict, count in verdicts(before, after).items()]
    for was, now in zip(before["ports"], after["ports"], strict=True):
        for key, value in now.items():
            if key.endswith("_packets") and value != was[key]:
                lines.append(f"  {now['name']} {key} +{value - was[key]}")
    return "\n".join(lines) or "  nothing moved"
