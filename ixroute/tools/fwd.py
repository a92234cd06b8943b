"""A forwarder between two ports: what comes in by one goes out by the other, unchanged (fwd.c)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ixroute._dataplane import lib
from ixroute.tools.session import ADAPTIVE, Session, Wait, new, run_threads


@dataclass
class Way:
    """Counters of one direction, summed over threads."""

    name: str
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    dropped: int = 0


def run(
    specs: tuple[str, str],
    *,
    cores: Sequence[int] = (),
    burst: int = 32,
    wait: Wait = ADAPTIVE,
    seconds: float | None = None,
    report: Callable[[list[Way], float], None] = lambda ways, elapsed: None,
) -> list[Way]:
    """Forwards until Ctrl-C or `seconds` have passed. report is called every second with totals and the time since
    the start. Promiscuous: packets for anybody are forwarded. Raises PortError, MemoryError."""
    threads = max(1, len(cores))
    with Session(specs, threads) as session:
        for port in session.ports:
            port.set_promiscuous(True)
            port.set_allmulticast(True)
        fwds = [new("struct fwd") for _ in range(threads)]
        for number, fwd in enumerate(fwds):
            session.fill_lane(fwd.lane, number, burst, wait)

        def ways() -> list[Way]:
            return [_sum(fwds, side, f"{specs[side]} -> {specs[1 - side]}") for side in (0, 1)]

        started = time.monotonic()

        def every_second() -> None:
            for port in session.ports:
                port.service()
            report(ways(), time.monotonic() - started)

        run_threads([partial(_run_until, fwd) for fwd in fwds], seconds, every_second, cores)
        return ways()


def _run_until(fwd: object, until_ns: int) -> bool:
    lib.fwd_run(fwd, until_ns)
    return True


def _sum(fwds: Sequence[object], side: int, name: str) -> Way:
    total = Way(name)
    for fwd in fwds:
        way = fwd.way[side]  # type: ignore[attr-defined]
        total.rx_packets += way.rx_packets
        total.rx_bytes += way.rx_bytes
        total.tx_packets += way.tx_packets
        total.dropped += way.dropped
    return total
