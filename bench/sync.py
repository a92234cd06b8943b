"""python -m bench sync: the Internet's tables by `ip -batch` into the kernel, and how the router follows.

Four parts, each with its figures: loading both tables into a running router; answers for random addresses beside the
kernel's; a day's updates while packets flow to prefixes that they do not touch; starting anew with the tables there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench.common  # noqa: F401 (its import makes the tests' lab one's own)
from ixroute.client import pages
from ixroute.demo.daemon import Daemon
from lab.generator import Generator
from lab.oracle import daemon_answers, differences, kernel_answers
from lab.routers import Router, start_router
from lab.steady import SteadyStream, frame_to
from lab.tables import (
    Row,
    address_of,
    after,
    has_mark,
    load_table,
    load_updates,
    make_gateways,
    mark_prefix,
    random_addresses,
    run_batch,
    stable_destinations,
    write_batch,
)

FAMILIES = (4, 6)
PATIENCE_S = 60.0
RATE, DESTINATIONS = 2000, 200
RESTARTS = 5

Figures = dict[str, Any]


class Run:
    """A router, what it was given so far, and the figures."""

    def __init__(self, router: Router, tables: dict[int, list[Row]], updates: dict[int, list[Row]]) -> None:
        self.router, self.tables, self.updates = router, tables, updates
        self.marks = 0

    @property
    def daemon(self) -> Daemon:
        return self.router.ixroute

    def play(self, version: int, rows: list[Row], verb: str) -> Figures:
        """`ip -batch`, until the daemon has it all."""
        self.marks += 1
        path = write_batch(self.router.lab, version, rows, self._file(version), verb=verb, mark=self.marks)
        before, began = self.daemon.stats(), time.monotonic()
        run_batch(self.router.lab, version, path, force=verb == "replace", patience=600)
        ended = time.monotonic()
        until(lambda: has_mark(self.daemon, version, self.marks))
        seconds, behind = time.monotonic() - began, time.monotonic() - ended
        moved = {key: self._mirror()[key] - before["mirror"][key] for key in ("overruns", "resyncs", "drift")}
        return {
            "family": version,
            "lines": len(rows),
            "batch_s": round(ended - began, 2),
            "synced_after_batch_ms": round(behind * 1e3, 1),
            "routes_per_s": round(len(rows) / seconds),
            **moved,
        }

    def compare(self, version: int, count: int, seed: int) -> Figures:
        """Random addresses to the kernel and the daemon."""
        rows = [*self.tables[version], *self.updates[version]]
        addresses = random_addresses(rows, version, count, seed)
        kernel = kernel_answers(self.router.lab.router, addresses)
        wrong = differences(addresses, kernel, daemon_answers(self.daemon, addresses))
        routed = sum(found.type == "unicast" for found in kernel)
        return {
            "family": version,
            "addresses": count,
            "routed": routed,
            "differences": len(wrong),
            "first": wrong[:5],
        }

    def whole(self, version: int, updates: list[Row]) -> Figures:
        """Every route that the daemon has, beside what was typed."""
        there = after(self.tables[version], updates)
        via = {n: address_of(self.router.lab, version, n) for n in set(there.values())}
        marks = {mark_prefix(version, number) for number in range(1, self.marks + 1)}
        ours = {
            route["prefix"]: route["legs"][0]["gateway"]
            for route in pages(str(self.daemon.control), "routes", "routes", None, family=version, prefix="")
            if route["protocol"] == 186 and route["prefix"] not in marks  # RTPROT_BGP
        }
        wrong = {
            prefix
            for prefix in there.keys() | ours.keys()
            if via.get(there.get(prefix, 0)) != ours.get(prefix)
        }
        return {
            "family": version,
            "routes": len(there),
            "differences": len(wrong),
            "first": sorted(wrong)[:5],
        }

    def update(self) -> Figures:
        """All updates, while packets flow to what they do not touch."""
        targets: dict[str, int] = {}
        for version in FAMILIES:
            targets |= stable_destinations(self.tables[version], self.updates[version], version, DESTINATIONS)
        with SteadyStream(self.router.lab, targets, RATE) as stream:
            until(lambda: stream.heard > 0)
            batches = [self.play(version, self.updates[version], "replace") for version in FAMILIES]
        out = stream.outcome
        traffic = {"sent": out.sent, "lost": out.lost, "astray": out.astray, "unheard": out.unheard}
        return {"batches": batches, "traffic": traffic}

    def restart(self) -> Figures:
        """Ended by kill -9 under all the packets one core can send; then the time from the start of the program on."""
        ready, forwards, dump = [], [], []
        targets = stable_destinations(self.tables[4], self.updates[4], 4, DESTINATIONS)
        load = [frame_to(self.router.lab, address, b"load") for address in targets]
        for _ in range(RESTARTS):
            with Generator(self.router.lab.client, load):
                time.sleep(0.5)
                self.daemon.kill()
            with SteadyStream(self.router.lab, targets, RATE) as stream:
                began = time.monotonic()
                self.daemon.start(60)
                ready.append(time.monotonic() - began)
                until(lambda: stream.first_heard > 0)
                forwards.append(stream.first_heard - began)
            dump.append(self._mirror()["resync_us"] / 1e6)
        return {
            "first_packet_s": spread(forwards),
            "ready_s": spread(ready),
            "of_it_first_dump_s": spread(dump),
            "memory": self.memory(),
        }

    def memory(self) -> Figures:
        fib = self.daemon.stats()["fib"]
        lookup = (fib["lookup_bytes4"] + fib["lookup_bytes6"]) >> 10
        return {
            **process_memory(self.daemon.pid),
            "rib_mib": self._mirror()["rib_bytes"] >> 20,
            "fib_lookup_kib": lookup,
            "fib_update_mib": fib["update_bytes"] >> 20,
        }

    def _mirror(self) -> Any:
        return self.daemon.stats()["mirror"]

    def _file(self, version: int) -> Path:
        return self.router.lab.router.directory / f"batch{version}"


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"the router did not follow within {PATIENCE_S:g} s")
        time.sleep(0.005)


def process_memory(pid: int) -> Figures:
    """MiB. Shared: the packets' memory, which does not grow with the tables."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {
        line.split(":")[0]: int(line.split()[1])
        for line in lines
        if line.startswith(("VmHWM", "VmRSS", "Rss"))
    }
    return {
        "rss_mib": kib["VmRSS"] >> 10,
        "peak_mib": kib["VmHWM"] >> 10,
        "own_mib": kib["RssAnon"] >> 10,
        "shared_mib": kib["RssShmem"] >> 10,
    }


def spread(seconds: list[float]) -> Figures:
    return {"median": round(statistics.median(seconds), 2), "worst": round(max(seconds), 2)}


def measure(args: argparse.Namespace, tell: Callable[[str, Figures], None]) -> Figures:
    tables = {version: load_table(version, args.routes) for version in FAMILIES}
    updates = {version: load_updates(version, args.updates) for version in FAMILIES}
    router = start_router(hosts=3, label="sync")
    out: Figures = {}

    def keep(name: str, figures: Figures) -> None:
        out.setdefault(name, []).append(figures)
        tell(name, figures)

    try:
        make_gateways(router.lab)
        run = Run(router, tables, updates)
        for version in FAMILIES:
            keep("load", run.play(version, tables[version], "add"))
        keep("memory", run.memory())
        for version in FAMILIES:
            keep("whole table", run.whole(version, []))
            keep("answers", run.compare(version, args.addresses, seed=1))
        keep("updates", run.update())
        for version in FAMILIES:
            keep("whole table after updates", run.whole(version, updates[version]))
            keep("answers after updates", run.compare(version, args.addresses, seed=2))
        keep("restart", run.restart())
    finally:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the daemon's log
            router.close()
    return out


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench sync", description=__doc__)
    parser.add_argument("--routes", type=int, help="about so many of each table (default: all)")
    parser.add_argument("--addresses", type=int, default=100_000, help="per family and comparison")
    parser.add_argument("--updates", type=int, default=100_000, help="per family, at most 100000")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)

    def tell(name: str, figures: Figures) -> None:
        if not args.json:
            print(f"{name}:", ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)

    if not args.json:
        print(f"cores {len(os.sched_getaffinity(0))}, load {os.getloadavg()[0]:.1f}")
    out = measure(args, tell)
    if args.json:
        print(json.dumps(out, indent=1))
    return 0
