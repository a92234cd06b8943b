"""The ixgbe queue's cycles per packet, receiving and sending, on a stand-in card; beside ixy's driver when told where
it is.

The stand-in (bench/standin) is the card's side in shared memory: it marks receive descriptors done and consumes
transmit descriptors. Nothing crosses PCIe, so a figure is what the driver itself costs. Both drivers have rings of 512,
take a burst, write a byte of each packet, send them. A measurement is 64 packets of each queue, there before it
begins; a run's figure is the median of its measurements, a table's the median of the runs, in which the drivers take
turns. "same": the engine works between measurements, on the core of the driver; "other": all the time, on another
core. Several queues are served in turn by one worker.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "standin"
PACKAGE = HERE.parents[1] / "ixroute"
OURS = [
    "driver/ixgbe/ring.c",
    "driver/ixgbe/ring_life.c",
    "driver/frame.c",
    "driver/doorbell.c",
    "vfio_user/shared_event.c",
]
COMMON = ["-fPIC", "-std=gnu11", "-fvisibility=hidden", "-DNDEBUG", f"-I{HERE}"]
RELEASE = ["-O3", f"-I{PACKAGE}"]  # what meson's release build uses
IXY = [
    "-O2",
    "-march=native",
    "-fomit-frame-pointer",
    "-D_XOPEN_SOURCE=700",
    "-D_DEFAULT_SOURCE",
    "-w",
]  # its own


@dataclass(frozen=True)
class Layout:
    """struct layout of bench/standin/standin.h; by default what a port chooses (ixroute/driver/ixgbe/rings.py)."""

    frame_bytes: int = 4096
    headroom: int = 256
    buffer_bytes: int = 3072
    head_write_back: int = 1
    pages: int = 0


LAYOUTS = {
    "ixroute": Layout(),
    "done bits instead of head write-back": Layout(head_write_back=0),
    "all packets at the same place of a frame": Layout(buffer_bytes=4096 - 256),
    "frames of 2048 bytes, no headroom": Layout(2048, 0, 1536),
    "addresses by a table of pages": Layout(pages=1),
}


class Standin:
    """One forwarder on the stand-in card, and its engine."""

    def __init__(self, library: Path, layout: Layout, queues: int, data: bool) -> None:
        self._c: Any = ctypes.CDLL(str(library))
        self._c.standin_create.restype = ctypes.c_void_p
        self._c.standin_create.argtypes = [ctypes.c_uint, ctypes.c_void_p, ctypes.c_int]
        self._c.standin_run.restype = ctypes.c_double
        self._c.standin_run.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int]
        self._c.standin_start.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        self._c.standin_stop.argtypes = [ctypes.c_void_p]
        words = (ctypes.c_uint32 * 5)(*astuple(layout))
        self._standin = self._c.standin_create(queues, words, int(data))
        if not self._standin:
            raise SystemExit("bench ixgbe: no memory")

    def run(self, burst: int, rounds: int, engine_core: int | None) -> float:
        """TSC cycles per packet; the engine on that core, or on this one."""
        other = engine_core is not None
        if other and self._c.standin_start(self._standin, engine_core):
            raise SystemExit("bench ixgbe: no thread for the engine")
        self._c.standin_run(self._standin, burst, 20, other)
        cycles = float(self._c.standin_run(self._standin, burst, rounds, other))
        if other:
            self._c.standin_stop(self._standin)
        if cycles < 0:
            raise SystemExit("bench ixgbe: the engine did not keep up, or a packet was lost")
        return cycles


def compile_into(folder: Path, ixy: Path | None) -> dict[str, Path]:
    """The libraries: ours, and ixy's. SystemExit with the compiler's words."""
    sources = [HERE / "engine.c", HERE / "ours.c", *(PACKAGE / name for name in OURS)]
    libraries = {"ixroute": folder / "ours.so"}
    cc("-shared", *RELEASE, "-DFORWARDER=forwarder_ours", *sources, "-lpthread", "-o", libraries["ixroute"])
    if ixy is not None:
        includes = [f"-I{ixy / 'src'}", f"-I{ixy / 'src' / 'driver'}"]
        objects = [folder / "ixy.o", folder / "ixy_memory.o", folder / "engine.o"]
        for made in objects[:2]:
            cc("-c", *IXY, *includes, HERE / f"{made.stem}.c", "-o", made)
        cc("-c", *RELEASE, "-DFORWARDER=forwarder_ixy", HERE / "engine.c", "-o", objects[2])
        libraries["ixy"] = folder / "ixy.so"
        cc("-shared", *objects, "-lpthread", "-o", libraries["ixy"])
    return libraries


def cc(*arguments: Path | str) -> None:
    done = subprocess.run(["cc", *COMMON, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench ixgbe: {done.stderr}")


@dataclass
class Row:
    """Cycles per packet of each contender, run by run."""

    queues: int
    engine: str
    burst: int
    cycles: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.cycles[name])

    def ratio(self, name: str, to: str) -> float:
        """The median of the runs' ratios: each pair shares the machine's mood."""
        pairs = zip(self.cycles[name], self.cycles[to], strict=True)
        return statistics.median(a / b for a, b in pairs)


def measure(contenders: dict[str, Standin], row: Row, runs: int, rounds: int, core: int | None) -> Row:
    row.cycles = {name: [] for name in contenders}
    for _ in range(runs):
        for name, standin in contenders.items():
            row.cycles[name].append(standin.run(row.burst, rounds, core))
    return row


def print_row(row: Row, first: str, width: int) -> None:
    cells = [f"{row.queues:6}  {row.engine:6} {row.burst:5} "]
    for name in row.cycles:
        cells.append(f"{row.median(name):{width}.1f}")
        if name != first:
            cells.append(f"{row.ratio(first, name):6.2f}")
    print(" ".join(cells), flush=True)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench ixgbe", description=__doc__)
    parser.add_argument("--ixy", type=Path, metavar="DIR", help="a checkout of github.com/emmericp/ixy")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=1000, help="measurements a run (default 1000)")
    parser.add_argument("--queues", type=int, choices=(1, 2, 4), action="append", help="default: 1, 2, 4")
    parser.add_argument("--burst", type=int, choices=(1, 8, 32, 64), action="append", help="default: all")
    parser.add_argument("--data", action="store_true", help="the engine also writes 64 bytes of each packet")
    parser.add_argument("--layouts", action="store_true", help="compare ixroute's own ways instead")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.ixy is not None and not (args.ixy / "src/driver/ixgbe.c").is_file():
        parser.error(f"{args.ixy} is no checkout of ixy: src/driver/ixgbe.c is missing")
    return args


def main(argv: list[str]) -> int:
    args = parse(argv)
    cores = sorted(os.sched_getaffinity(0))
    places = {"same": None} | ({"other": cores[0]} if len(cores) > 1 else {})
    os.sched_setaffinity(0, {cores[-1]})
    rows = []
    with tempfile.TemporaryDirectory(prefix="ixroute-bench-") as folder:
        libraries = compile_into(Path(folder), args.ixy)
        chosen = LAYOUTS if args.layouts else {"ixroute": LAYOUTS["ixroute"]}
        if not args.json:
            print("TSC cycles per packet, receiving and sending; each name with ixroute's ratio to it")
            print("queues  engine burst  " + " ".join([*chosen, *(["ixy"] if args.ixy else [])]))
        for queues in args.queues or (1, 2, 4):
            contenders = {
                n: Standin(libraries["ixroute"], lay, queues, args.data) for n, lay in chosen.items()
            }
            if args.ixy:
                contenders["ixy"] = Standin(libraries["ixy"], Layout(), queues, args.data)
            for place, core in places.items():
                for burst in args.burst or (1, 8, 32, 64):
                    row = measure(contenders, Row(queues, place, burst), args.runs, args.rounds, core)
                    rows.append(row)
                    if not args.json:
                        print_row(row, "ixroute", 8)
    if args.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
    elif not (args.ixy or args.layouts):
        print("beside ixy: git clone https://github.com/emmericp/ixy, then --ixy ixy", file=sys.stderr)
    return 0
