"""What a running router consists of: made by router.py, read by answers.py."""

from __future__ import annotations

from dataclasses import dataclass

from ixroute.config import Config
from ixroute.driver.port import Port
from ixroute.driver.umem import Umem
from ixroute.fib.adjacency import AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.fib.rib import Rib
from ixroute.forward.worker import Dataplane, Worker
from ixroute.netlink.mirror import Mirror
from ixroute.netlink.route_stream import RouteStream
from ixroute.ports import Pairs
from ixroute.tap.door import Door
from ixroute.tap.tap import Tap


@dataclass
class Parts:
    """The parts, in the order of their making."""

    config: Config
    cores: tuple[int, ...]
    umem: Umem
    fib: Fib
    adjacencies: AdjacencyTable
    rib: Rib
    stream: RouteStream
    ports: list[Port]
    taps: list[Tap]
    door: Door
    dataplane: Dataplane
    workers: list[Worker]
    pairs: Pairs
    mirror: Mirror
    started: float  # time.monotonic()
