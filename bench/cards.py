"""A router on emulated cards that has nothing to do, and one that is woken: CPU time of the daemon and of the emulator
while idle, and a ping through both after a second without packets, beside pings that follow each other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

from bench.common import KINDS, routed_lab
from ixroute.demo.probes import UdpFlow, ping
from ixroute.demo.topology import Lab

IDLE_S = 1.05


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def program(pid: int) -> str:
    """ "run" or "emulate"."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[3]


def idle(lab: Lab, seconds: float) -> None:
    """In each thing that runs in the router's namespace."""
    pids = lab.router.pids()
    before = {pid: cpu_seconds(pid) for pid in pids}
    time.sleep(seconds)
    for pid in pids:
        share = (cpu_seconds(pid) - before[pid]) / seconds
        print(f"  idle for {seconds:g} s: ixroute {program(pid)}: {100 * share:.2f} % of a core", flush=True)


def latency(lab: Lab, count: int) -> None:
    target = lab.links[1].host4
    ping(lab.client, target, 3)
    after = [ms for _ in range(count) for ms in _one_after(lab, target)]
    _tell(f"after {IDLE_S:g} s without packets", after)
    _tell("20 ms after the last", _answers(ping(lab.client, target, count, interval=0.02).rtts_ms))
    _tell("one after the other", _answers(ping(lab.client, target, count, interval=0).rtts_ms))
    flow = UdpFlow(lab.client, lab.server, target, rate=5000).start()
    _tell("beside 5000 packets/s", _answers(ping(lab.client, target, count, interval=0.02).rtts_ms))
    lost = flow.stop().lost
    print(f"    of the stream {lost} were lost", flush=True)


def _one_after(lab: Lab, target: str) -> list[float]:
    time.sleep(IDLE_S)
    return _answers(ping(lab.client, target, 1).rtts_ms)


def _answers(rtts_ms: list[float | None]) -> list[float]:
    return [ms for ms in rtts_ms if ms is not None]


def _tell(when: str, rtts_ms: list[float]) -> None:
    found = sorted(rtts_ms)
    print(
        f"  ping {when}: median {statistics.median(found):.3f} ms, best {found[0]:.3f}, "
        f"nine of ten within {found[len(found) * 9 // 10]:.3f}  ({len(found)} answers)",
        flush=True,
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench cards", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of idleness")
    parser.add_argument("--count", type=int, default=50, help="pings of each kind")
    parser.add_argument("--kind", choices=[*KINDS, "cards"], action="append", help="all three when not given")
    args = parser.parse_args(argv)
    for kind in args.kind or ["cards", "ixroute", "linux"]:
        print(kind, flush=True)
        with routed_lab(kind) as lab:
            time.sleep(3)
            idle(lab, args.seconds)
            latency(lab, args.count)
    return 0
