"""Two routers with the same configuration, one Linux itself and one ixroute, and scenes that are played at both: a
batch of frames, then everything that came out of every port of each, byte by byte.

Where a round trip costs much (in a guest, thirty times slower than the host) frames are played together, not one by
one: each has its name in its payload, so that what differs still says which frame it was. Addresses of the router
itself end in .1 or :1 by convention here.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ixroute.demo.daemon import Daemon
from ixroute.demo.netns import CommandError, Namespace
from ixroute.demo.topology import Lab
from lab.frames import ANY, FORWARD, ROUTER_SYSCTLS, Case
from lab.reasons import DROPS
from lab.support import changes, verdicts, wait_until
from lab.wires import Stage, normalised, tags_of

MTUS = (1500, 1400, 1500)
PATIENCE_S = 4.0  # for what one of the two has said and the other not yet
QUIET_S = 0.12
AT_ONCE = 48  # frames sent without a pause: a veth keeps 256
SETTLED_S = 0.12

Heard = dict[str, Counter[bytes]]


@dataclass(frozen=True)
class Scene:
    """commands: after `ip`, on both routers; {lan}, {wan}, {dmz} are the interfaces of the ports. sysctls likewise.
    cases: played together, in order. asks: ARP and neighbour solicitations of the router are compared too; as sets,
    since the kernel asks again by itself."""

    name: str
    commands: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    asks: bool = False


@dataclass
class Outcome:
    scene: Scene
    linux: Heard
    ours: Heard
    counted: Counter[str]
    """How often each verdict was: "punted local_route"."""
    forwarded: int
    """Packets that ixroute sent on by itself."""
    moved: str
    differences: list[str]

    def amiss(self) -> str:
        """What was done by the kernel and should not have been, or not as expected; "" when all is well. How cases of
        verdict ANY are done is open."""
        cases = self.scene.cases
        plain = sum(case.verdict == FORWARD for case in cases)
        open_cases = sum(case.verdict == ANY for case in cases)
        expected = Counter(
            f"{'dropped' if case.verdict in DROPS else 'punted'} {case.verdict}"
            for case in cases
            if case.verdict not in (FORWARD, ANY)
        )
        if (
            plain <= self.forwarded
            and expected <= self.counted
            and (self.counted - expected).total() <= open_cases
        ):
            return ""
        return (
            f"{plain} to be forwarded, {self.forwarded} were; besides {open_cases} that are open"
            f" expected {dict(expected - self.counted)}, counted {dict(self.counted - expected)}"
        )


class Twins:
    def __init__(self, linux: Stage, ours: Stage, daemon: Daemon) -> None:
        self.linux, self.ours, self.daemon = linux, ours, daemon
        self._changes = 0
        self._sentinel = ""

    def configure(self, commands: Sequence[str], sysctls: Sequence[tuple[str, str]] = ()) -> None:
        """At both; then waits until ixroute has followed, and forgets what was heard meanwhile."""
        self.change(commands, sysctls)
        self.settle()

    def change(self, commands: Sequence[str], sysctls: Sequence[tuple[str, str]] = ()) -> None:
        """At both, and does not wait. The last thing changed is a route that nobody uses, by which `settle` knows."""
        self._changes += 1
        number = f"{self._changes // 250}.{self._changes % 250}"
        self._sentinel = f"10.254.{number}/32"
        for stage in (self.linux, self.ours):
            names = stage.lab.interfaces
            route = f"route add blackhole {self._sentinel}"
            batch(stage.lab.router, [*(command.format(**names) for command in commands), route])
            for key, value in sysctls:
                stage.lab.router.sysctl(key.format(**names), value)

    def settle(self) -> None:
        """Waits until the mirror has followed the last change, and a little longer for what it decides with a delay."""
        wait_until(self._followed, 15, f"the mirror has not followed {self._sentinel}")
        last, since = self._mirror(), time.monotonic()
        end = since + 10
        while time.monotonic() - since < SETTLED_S and time.monotonic() < end:
            time.sleep(0.04)
            if (now := self._mirror()) != last:
                last, since = now, time.monotonic()
        for stage in (self.linux, self.ours):
            for wire in stage.wires.values():
                wire.take()

    def _followed(self) -> bool:
        if not self._sentinel:
            return True
        route = self.daemon.lookup(self._sentinel.partition("/")[0])["route"]
        return route is not None and route["prefix"] == self._sentinel

    def _mirror(self) -> tuple[Any, ...]:
        stats = self.daemon.stats()
        return stats["mirror"]["resyncs"], stats["fib"]["updates"]

    def play(self, scene: Scene) -> Outcome:
        """Configures both, plays the frames at both, and says what differs."""
        if scene.commands or scene.sysctls:
            self.configure(scene.commands, scene.sysctls)
        before = self.daemon.stats()
        heard = self._send(scene)
        found = self._hear(scene, heard)
        after = self.daemon.stats()
        return Outcome(
            scene,
            *heard,
            verdicts(before, after),
            _sum(after, "sent_packets")
            - _sum(before, "sent_packets")
            # what the kernel sent is among it
            - _sum(after, "injected_packets")
            + _sum(before, "injected_packets"),
            changes(before, after),
            found,
        )

    def _send(self, scene: Scene) -> tuple[Heard, Heard]:
        heard: tuple[Heard, Heard] = ({}, {})
        cases = scene.cases
        for start in range(0, len(cases), AT_ONCE):
            for case in cases[start : start + AT_ONCE]:
                self.linux.wires[case.port].send(case.frame)
                self.ours.wires[case.port].send(case.frame)
            if start + AT_ONCE < len(cases):
                time.sleep(0.05)
            self._take(scene, heard)
        return heard

    def _take(self, scene: Scene, heard: tuple[Heard, Heard]) -> bool:
        """Whether there was anything."""
        some = False
        for stage, said in zip((self.linux, self.ours), heard, strict=True):
            for port, wire in stage.wires.items():
                frames = [masked(frame) for frame in wire.take() if scene.asks or not asks(frame)]
                said.setdefault(port, Counter()).update(frame for frame in frames if frame is not None)
                some |= bool(frames)
        return some

    def _hear(self, scene: Scene, heard: tuple[Heard, Heard]) -> list[str]:
        began = quiet = time.monotonic()
        while True:
            if self._take(scene, heard):
                quiet = time.monotonic()
            now = time.monotonic()
            if now - quiet >= QUIET_S:
                found = differences(*heard, scene.asks)
                if not found or now - began > PATIENCE_S:
                    return found
            time.sleep(0.01)


def _sum(stats: Mapping[str, Any], key: str) -> int:
    return sum(int(port[key]) for port in stats["ports"])


def asks(frame: bytes) -> bool:
    """An ARP request or a neighbour solicitation. ixroute has the kernel keep gateways resolved, used or not."""
    at = 14 + 4 * tags_of(frame)
    kind = frame[at - 2 : at]
    if kind == b"\x08\x06":
        return frame[at + 6 : at + 8] == b"\x00\x01"
    return kind == b"\x86\xdd" and frame[at + 6 : at + 7] == b"\x3a" and frame[at + 40 : at + 41] == b"\x87"


def masked(frame: bytes) -> bytes | None:
    """None: what the kernel says unasked, IGMP reports among it."""
    at = 14 + 4 * tags_of(frame)
    if frame[at - 2 : at] == b"\x08\x00" and frame[at + 9 : at + 10] == b"\x02":
        return None
    own = (frame[at + 12 : at + 16],) if frame[at + 15 : at + 16] == b"\x01" else ()
    return next(iter(normalised([frame], own)), None)


def differences(linux: Heard, ours: Heard, as_sets: bool = False) -> list[str]:
    """One line for each frame that only one of them sent, with the name of the case it belongs to."""
    lines = []
    for port in linux:
        there, here = linux[port], ours[port]
        if as_sets:
            there, here = Counter(set(there)), Counter(set(here))
        for who, more in (("Linux", there - here), ("ixroute", here - there)):
            lines += [f"only {who}, by {port}: {described(frame)} {frame.hex()}" for frame in more.elements()]
    return sorted(lines, key=lambda line: line.partition(": ")[2])


def described(frame: bytes) -> str:
    """The case's name, the tags and the kind of packet."""
    name = re.search(rb"\[([^\]]+)\]", frame)
    tags = tags_of(frame)
    told = [f"{frame[12 + 4 * i : 16 + 4 * i].hex()}" for i in range(tags)]
    at = 12 + 4 * tags
    kind = struct.unpack_from("!H", frame, at)[0]
    what = {0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP"}.get(kind, f"{kind:#06x}")
    if kind == 0x0800 and frame[at + 11] == 1:
        what += f" ICMP {frame[at + 22]}/{frame[at + 23]}"
    if kind == 0x86DD and frame[at + 8] == 58:
        what += f" ICMPv6 {frame[at + 42]}/{frame[at + 43]}"
    return f"[{name[1].decode() if name else '-'}] {' '.join([*told, what])}"


def batch(namespace: Namespace, commands: Sequence[str]) -> None:
    """All of them, in order, in few `ip`s: one for each stretch without `-6`, or with it (a batch knows no options).
    CommandError with the command that failed, and what it said."""
    for six, stretch in itertools.groupby(commands, lambda command: command.startswith("-6 ")):
        lines = [command.removeprefix("-6 ") for command in stretch]
        argv = ["ip", "-n", namespace.name, *(["-6"] if six else []), "-batch", "-"]
        done = subprocess.run(
            argv, input="\n".join([*lines, ""]), capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            at = re.search(r"Command failed -:(\d+)", done.stderr)
            line = lines[int(at[1]) - 1] if at else "?"
            raise CommandError(f"{' '.join(argv[:-2])} {line}: {' '.join(done.stderr.split())}")


@contextlib.contextmanager
def twins(arguments: Sequence[str], *, patience: float = 90) -> Iterator[Twins]:
    """arguments: of `ixroute run` besides its ports. Both have addresses on three ports, and forward."""
    with contextlib.ExitStack() as stack:
        stages = []
        for kernel, label in ((True, "linux"), (False, "ours")):
            lab = stack.enter_context(Lab(3, kernel=kernel, mtu=MTUS, mute=True, label=label))
            stages.append(Stage(lab))
            stack.callback(stages[-1].close)
        linux, ours = stages
        ports = [word for link in ours.lab.links for word in ("--port", f"{link.port}={link.spec}")]
        daemon = stack.enter_context(Daemon(ours.lab.router, [*ports, *arguments]))
        daemon.start(patience)
        pair = Twins(linux, ours, daemon)
        for stage in stages:
            batch(stage.lab.router, stage.lab.router_commands())
            stage.lab.forwarding_on()
            for key, value in ROUTER_SYSCTLS.items():
                stage.lab.router.sysctl(key, value)
        pair.settle()
        yield pair
