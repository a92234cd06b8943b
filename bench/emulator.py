"""What a router does on two emulated 82599s, stage by stage: 64-byte UDP (60 and the FCS) played from memory as fast
as the engine can, or at a rate; what leaves by the other card is counted and gone. The engine has the first core, what
is measured beside it the second.

receive   wire -> card 0, whose client only takes packets and gives new buffers (pktgen's second port)
send      pktgen -> card 1 -> wire, the other way
fwd       `ixroute fwd`: card 0 -> card 1, nothing looked at
router    `ixroute run` in a namespace: 64 destinations by one route, and 16,384 by 4,096
light     fwd at 5,000 packets a second: what sleeping and waking costs
tcp       a router between two hosts on TAP wires; all of it shares the two cores

A figure of CPU is the thread's own, so that it holds on a machine that does other work too; packets a second do not.
Cycles are the worker's busy ones of the time-stamp counter for each packet (`ixroute stats -j`): waiting for packets of
a burst that has begun counts, and so does time in which the core was given to somebody else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import signal
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common import routed_lab
from ixroute.demo.daemon import IXROUTE, Daemon
from ixroute.demo.netns import Namespace, run_command
from ixroute.demo.probes import tcp_transfer
from ixroute.demo.topology import PREFIX
from lab.packets import ETH_IP4, ethernet, ip4, udp

STAGES = ("receive", "send", "fwd", "router", "light", "tcp")
MACS = ("02:00:00:00:01:01", "02:00:00:00:02:01")
NEIGHBOUR_MAC = "02:00:00:00:02:02"
FEW, MANY, ROUTES = 64, 16384, 4096
RATE = 1_000_000
PATIENCE = 30.0


def destination(n: int) -> str:
    """In 10.128.0.0/9, every fourth in the next /24."""
    return f"10.{128 + (n >> 10)}.{n >> 2 & 255}.{1 + (n & 3)}"


def write_pcap(path: Path, flows: int) -> None:
    with path.open("wb") as out:
        out.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for n in range(flows):
            data = udp("10.0.1.2", destination(n), bytes(18), sport=1024 + n % 64)
            frame = ethernet(MACS[0], "02:00:00:00:01:02", ETH_IP4, ip4("10.0.1.2", destination(n), data))
            out.write(struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame)


def thread_times(pid: int) -> dict[int, tuple[str, int]]:
    """By thread: its name, and the time it had a core, ns."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            spent = int((task / "schedstat").read_text().split()[0])
            found[int(task.name)] = ((task / "comm").read_text().strip(), spent)
    return found


class Emulator:
    """`ixroute emulate` with a player and a sink, on one core."""

    def __init__(self, folder: Path, wires: Sequence[str], core: int) -> None:
        self.sockets = [str(folder / f"card{n}.sock") for n in range(len(wires))]
        argv = [*IXROUTE, "emulate", "--socket", str(folder / "card{n}.sock"), "--cores", str(core)]
        argv += [word for wire in wires for word in ("--wire", wire)]
        argv += [word for mac in MACS for word in ("--mac", mac)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout
        if not self.process.stdout.readline().startswith(b"ready"):
            raise SystemExit(f"bench emulator: {self.process.communicate()[1].decode()}")

    def counters(self) -> dict[str, int]:
        """From its report: of card 0 and 1 (card0_rx_packets, wire0_rx_packets, …), of the engine (passes, …)."""
        self.process.send_signal(signal.SIGUSR1)
        found: dict[str, int] = {}
        card = ""
        for line in self._report():
            if match := re.match(r"card (\d)", line):
                card = match[1]
            if match := re.match(r" *(packets|wire|clients|engine)", line):
                names = {"packets": f"card{card}_", "wire": f"wire{card}_", "clients": f"server{card}_"}
                prefix = names.get(match[1], "engine_")
                found.update((prefix + key, int(n)) for key, n in re.findall(r"(\w+) (\d+)", line))
        return found

    def _report(self) -> list[str]:
        """Up to the engine's line, which is the last."""
        assert self.process.stderr
        said = b""
        while not re.search(rb"^engine: .*\n", said, re.MULTILINE):
            if not select.select([self.process.stderr], [], [], PATIENCE)[0]:
                raise SystemExit(f"bench emulator: no counters in {PATIENCE:g} s")
            more = os.read(self.process.stderr.fileno(), 65536)
            if not more:
                raise SystemExit(f"bench emulator: the emulator has ended: {said.decode()}")
            said += more
        return said.decode().splitlines()

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)


@dataclass
class Sample:
    """What changed in one interval."""

    seconds: float
    counters: dict[str, int]
    threads: dict[str, float]
    """Name -> cores used, those of a name together."""

    def rate(self, key: str) -> float:
        return self.counters.get(key, 0) / self.seconds

    def lost(self) -> float:
        """Share of the packets on the wire that the card had no descriptor for."""
        came = self.counters.get("wire0_rx_packets", 0)
        return max(0.0, 1 - self.counters.get("card0_rx_packets", 0) / came) if came else 0.0

    def ns(self, thread: str, key: str) -> float:
        n = self.rate(key)
        return self.threads.get(thread, 0.0) * 1e9 / n if n else 0.0


def sample(emulator: Emulator, client: int, seconds: float) -> Sample:
    """The emulator's threads are `engine` and `python`; the client's by name, the busiest is `worker`."""
    pids = (emulator.process.pid, client)
    before = [thread_times(pid) for pid in pids]
    first, began = emulator.counters(), time.monotonic()
    time.sleep(seconds)
    last, ended = emulator.counters(), time.monotonic()
    after = [thread_times(pid) for pid in pids]
    elapsed = ended - began
    spent = [
        {tid: (name, (ns - was[tid][1]) * 1e-9 / elapsed) for tid, (name, ns) in now.items() if tid in was}
        for was, now in zip(before, after, strict=True)
    ]
    threads = {"engine": 0.0, "python": 0.0, "worker": max((x for _, x in spent[1].values()), default=0.0)}
    for name, share in spent[0].values():
        threads["engine" if name == "engine" else "python"] += share
    return Sample(elapsed, {key: last[key] - first.get(key, 0) for key in last}, threads)


def median(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    return statistics.median(figure(one) for one in samples)


@contextlib.contextmanager
def child(argv: Sequence[str]) -> Iterator[int]:
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(argv, stdout=said, stderr=said)
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until_packets_move(emulator: Emulator, key: str) -> None:
    deadline = time.monotonic() + PATIENCE
    before = emulator.counters().get(key, 0)
    while emulator.counters().get(key, 0) < before + 100:
        if time.monotonic() > deadline:
            raise SystemExit(f"bench emulator: {key} does not move")
        time.sleep(0.1)
    time.sleep(0.3)


class Bench:
    def __init__(self, folder: Path, rounds: int, seconds: float) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.folder, self.rounds, self.seconds = folder, rounds, seconds
        self.engine_core, self.worker_core = cores[0], cores[-1]
        self.pcaps = {flows: folder / f"{flows}.pcap" for flows in (FEW, MANY)}
        for flows, path in self.pcaps.items():
            write_pcap(path, flows)

    @contextlib.contextmanager
    def emulator(self, player: str) -> Iterator[Emulator]:
        emulator = Emulator(self.folder, [player, "discard"], self.engine_core)
        try:
            yield emulator
        finally:
            emulator.close()

    def player(self, rate: int = 0, flows: int = FEW) -> str:
        return f"pcap:in={self.pcaps[flows]},loop" + (f",rate={rate}" if rate else "")

    def measure(self, emulator: Emulator, client: int, key: str) -> list[Sample]:
        until_packets_move(emulator, key)
        return [sample(emulator, client, self.seconds) for _ in range(self.rounds)]

    def print(self, stage: str, offered: str, key: str, samples: list[Sample], more: str = "") -> None:
        mpps = median(samples, lambda s: s.rate(key)) / 1e6
        came = median(samples, lambda s: s.rate("wire0_rx_packets")) / 1e6
        shares = " ".join(
            f"{median(samples, lambda s, t=name: s.threads[t]):5.2f}"  # type: ignore[misc]
            for name in ("engine", "worker", "python")
        )
        cost = " ".join(
            f"{median(samples, lambda s, t=name: s.ns(t, key)):6.0f}"  # type: ignore[misc]
            for name in ("engine", "worker")
        )
        lost = median(samples, Sample.lost)
        print(
            f"{stage:16} {offered:8} {came:7.2f} {mpps:7.3f} {100 * lost:6.1f}   {shares}   {cost}  {more}",
            flush=True,
        )

    def tool(
        self, stage: str, key: str, words: Callable[[list[str]], list[str]], rates: Sequence[int]
    ) -> None:
        """A stage whose client is one of ixroute's tools."""
        for rate in rates:
            player = self.player(rate) if stage != "send" else "none"
            with self.emulator(player) as emulator:
                argv = [*IXROUTE, *words(emulator.sockets)]
                with child(argv) as client:
                    samples = self.measure(emulator, client, key)
                    self.print(stage, f"{rate / 1e6:g}" if rate else "flat out", key, samples)

    def receive(self) -> None:
        self.tool(
            "receive",
            "card0_rx_packets",
            lambda s: (["pktgen", f"vfio-user:{s[1]}", f"vfio-user:{s[0]}", "--rate", "10", *self.on_core()]),
            (0,),
        )

    def send(self) -> None:
        self.tool(
            "send",
            "card1_tx_packets",
            lambda s: ["pktgen", f"vfio-user:{s[1]}", *self.on_core()],
            (0,),
        )

    def on_core(self) -> list[str]:
        return ["--core", str(self.worker_core)]

    def fwd_words(self, sockets: list[str]) -> list[str]:
        return ["fwd", *map("vfio-user:{}".format, sockets), "--cores", str(self.worker_core)]

    def fwd(self) -> None:
        self.tool("fwd", "card1_tx_packets", self.fwd_words, (0, RATE))

    def router(self) -> None:
        for flows, rate in ((FEW, 0), (FEW, RATE), (MANY, 0)):
            namespace = Namespace(f"{PREFIX}{os.getpid()}-bench").create()
            try:
                with self.emulator(self.player(rate, flows)) as emulator:
                    self._routed(namespace, emulator, flows, rate)
            finally:
                namespace.destroy()

    def _routed(self, namespace: Namespace, emulator: Emulator, flows: int, rate: int) -> None:
        ports = zip(("lan", "wan"), emulator.sockets, strict=True)
        arguments = [word for name, path in ports for word in ("--port", f"{name}=vfio-user:{path}")]
        with Daemon(namespace, [*arguments, "--workers", str(self.worker_core)]) as daemon:
            daemon.start(PATIENCE)
            for n, name in enumerate(("lan", "wan"), 1):
                namespace.ip(f"addr add 10.0.{n}.1/24 dev {name}")
                namespace.ip(f"link set {name} up")
            namespace.sysctl("net.ipv4.ip_forward", 1)
            namespace.ip(f"neigh replace 10.0.2.2 lladdr {NEIGHBOUR_MAC} nud permanent dev wan")
            self._routes(namespace, flows)
            until_packets_move(emulator, "card1_tx_packets")
            samples, cycles = [], []
            for _ in range(self.rounds):
                before = daemon.stats()["workers"][0]
                samples.append(sample(emulator, daemon.pid, self.seconds))
                after = daemon.stats()["workers"][0]
                cycles.append(
                    (after["busy_cycles"] - before["busy_cycles"])
                    / max(1, after["packets"] - before["packets"])
                )
            self.print(
                f"router {flows}",
                f"{rate / 1e6:g}" if rate else "flat out",
                "card1_tx_packets",
                samples,
                f"{statistics.median(cycles):.0f} cycles",
            )

    def _routes(self, namespace: Namespace, flows: int) -> None:
        """One for all of 10.128.0.0/9, or one for each /24 of it that is used."""
        if flows == FEW:
            namespace.ip("route add 10.128.0.0/9 via 10.0.2.2")
            return
        batch = self.folder / "routes"
        lines = (f"route add {destination(4 * n)[:-2]}.0/24 via 10.0.2.2\n" for n in range(ROUTES))
        batch.write_text("".join(lines))
        run_command(["ip", "-n", namespace.name, "-batch", str(batch)])
        time.sleep(0.5)

    def light(self) -> None:
        with self.emulator(self.player(5000)) as emulator:
            argv = [*IXROUTE, *self.fwd_words(emulator.sockets)]
            with child(argv) as client:
                samples = self.measure(emulator, client, "card1_tx_packets")
                messages = median(samples, lambda s: s.rate("server0_messages") + s.rate("server1_messages"))
                events = median(samples, lambda s: s.rate("card0_interrupts") + s.rate("card1_interrupts"))
                more = f"{events:.0f} interrupts/s, {messages:.0f} messages/s"
                self.print("light", "0.005", "card1_tx_packets", samples, more)

    def tcp(self) -> None:
        with routed_lab("cards") as lab:
            target = lab.links[1].host4
            tcp_transfer(lab.client, lab.server, target, seconds=0.3)
            rates = [
                tcp_transfer(lab.client, lab.server, target, seconds=self.seconds).bits_per_second
                for _ in range(self.rounds)
            ]
            print(f"tcp over TAP wires: {statistics.median(rates) / 1e9:.2f} Gbit/s")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench emulator", description=__doc__)
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this one; may be given again")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, the median counts (3)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a measurement (0.5)")
    args = parser.parse_args(argv)
    load = os.getloadavg()[0]
    print(f"medians of {args.rounds} measurements of {args.seconds:g} s; load before it began: {load:.1f}")
    print("                 offered  wire    through  lost   cores used          ns of CPU a packet")
    print("                 Mpps     Mpps    Mpps     %      engine wrk  python  engine worker")
    with tempfile.TemporaryDirectory(prefix="ixroute-bench-") as folder:
        bench = Bench(Path(folder), args.rounds, args.seconds)
        for stage in args.stage or STAGES:
            getattr(bench, stage)()
    return 0
