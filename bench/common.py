"""What the benchmarks share: the tests' lab, and both kinds of router beside each other."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ixroute.demo.daemon import Daemon
from ixroute.demo.topology import AF_XDP, CARDS, Lab
from lab.support import port_arguments

KINDS = ("linux", "ixroute")


@contextlib.contextmanager
def routed_lab(kind: str, hosts: int = 2, mute: bool = False) -> Iterator[Lab]:
    """A lab whose router has its addresses and forwards: by Linux itself, or by ixroute with one worker,
    over veth or (`cards`) on emulated 82599s."""
    ports = CARDS if kind == "cards" else AF_XDP
    lab_of = Lab(hosts, kernel=kind == "linux", ports=ports, mute=mute)
    with lab_of as lab, contextlib.ExitStack() as stack:
        if kind != "linux":
            stack.enter_context(Daemon(lab.router, port_arguments(lab))).start()
        lab.address_router()
        yield lab
