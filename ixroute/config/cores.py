"""Which cores carry the workers."""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from ixroute.config.sections import Config


def choose_cores(
    config: Config, sysfs: Path = Path("/sys"), allowed: Set[int] | None = None
) -> tuple[int, ...]:
    """The cores of the workers: those configured, else one: the first isolated core that we may use, else the
    last core that we may use (the first ones carry most of the system's own work)."""
    if config.workers.cores:
        return config.workers.cores
    allowed = os.sched_getaffinity(0) if allowed is None else allowed
    try:
        isolated = core_list((sysfs / "devices/system/cpu/isolated").read_text())
    except OSError:
        isolated = set()
    return (min(isolated & allowed) if isolated & allowed else max(allowed),)


def core_list(text: str) -> set[int]:
    """The kernel's way to write core lists: "1-3,7", or nothing."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores
