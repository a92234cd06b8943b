"""`ixroute demo`: a client, a router and a server on this machine, and real traffic between them."""

from __future__ import annotations

import os
import sys


def run(keep: bool = False, quiet: bool = False, ports: str = "vfio-user:") -> int:
    """The demo, from the first namespace to the last cleaned up. Returns 0, or 1 when a step failed.

    ports: "vfio-user:" for emulated 82599 cards, "af_xdp:" for veth pairs. keep: leave it running and print what to
    try next. quiet: only the verdict of each step.
    """
    from ixroute.demo.story import run as tell

    return tell(keep=keep, quiet=quiet, ports=ports)


def stop() -> int:
    """Ends and removes what `ixroute demo --keep` left. Returns 0, or 1 when that needs root."""
    if os.geteuid() != 0:
        print("ixroute demo: network namespaces need root: run it with sudo", file=sys.stderr)
        return 1
    from ixroute.demo.topology import stop_kept

    names = stop_kept()
    print(f"removed {len(names)} namespaces: {', '.join(names)}" if names else "nothing was kept")
    return 0
