"""Frames by the hundred for two routers at once, and where what comes out of them differs: found, made small, judged.

A batch comes in by one port, back to back; behind it marks, one for each port that frames may leave by, which take
the slow path as the last. What came out before the marks is compared as a multiset per port. What a kernel says
seconds later (a neighbour did not answer, a fragment's rest did not come) is compared for the whole run.
"""

from __future__ import annotations

import contextlib
import select
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import ClassVar

from lab.differences import rule_of
from lab.generated import HOST_MACS, PORTS, ROUTER_MACS, Generator, Recipe
from lab.generated_places import LEGS, SYSCTLS, TABLES, Senders, is_multipath, is_on_link, neighbours
from lab.masks import KIND_IP4, KIND_IP6, OWN4, icmp_of_router, masked
from lab.packets import ETH_ARP, ETH_IP4, ethernet, ip4, udp
from lab.wires import Stage, told

Heard = dict[str, Counter[bytes]]
SIDES = {"lan": "10.9.255", "wan": "10.8.255", "dmz": "10.4.255"}
"""By port: addresses behind it, .1 to send marks from and .2 to send them to."""
MARK = b"mark behind the batch "
AT_ONCE = 200
"""Frames in a batch: no queue on their way is shorter."""
ENOUGH = 40
KIND_ARP = struct.pack("!H", ETH_ARP)


class Player:
    """Plays batches at one router. padded: no frame is shorter than a card's wire carries (60 bytes), neither of those
    that are sent nor of those that are heard."""

    PATIENCE_S = 3.0
    QUIET_S = 0.003

    def __init__(self, stage: Stage, *, padded: bool = False) -> None:
        self.stage = stage
        self.padded = padded
        self.late: Counter[bytes] = Counter()
        """What came when it came: answers that the kernel gives after seconds."""
        self.lost = 0
        """Batches whose marks had to be sent again."""
        self._marks = 0

    def furnish(self) -> None:
        """The tables of lab.generated_places, beside those of lab.frames."""
        router, interfaces = self.stage.lab.router, self.stage.lab.interfaces
        for key, value in SYSCTLS.items():
            for port in interfaces.values() if "{port}" in key else ("",):
                router.sysctl(key.format(port=port), value)
        for command in TABLES:
            router.ip(command.format(**interfaces))
        batch = router.directory / "neighbours"
        batch.write_text("\n".join(neighbours(interfaces)) + "\n")
        router.ip(f"-batch {batch}")

    def play(self, port: str, frames: Iterable[bytes]) -> Heard:
        """Everything that came out, by port, masked and without what is compared later."""
        heard: dict[str, list[bytes]] = {name: [] for name in self.stage.wires}
        self._take(heard)
        for taken in heard.values():
            self._keep_late(taken)
            taken.clear()
        wire = self.stage.wires[port]
        for frame in frames:
            wire.send(self._padded(frame))
        self._until_marks(port, heard)
        return {name: Counter(self._compared(taken)) for name, taken in heard.items()}

    def _take(self, heard: dict[str, list[bytes]]) -> None:
        for name, wire in self.stage.wires.items():
            heard[name] += wire.take()

    def _until_marks(self, port: str, heard: dict[str, list[bytes]]) -> None:
        for _ in range(3):
            self._marks += 1
            awaited = self._send_marks(port)
            deadline = time.monotonic() + self.PATIENCE_S
            seen = dict.fromkeys(heard, 0)
            while awaited and time.monotonic() < deadline:
                self._wait(0.05)
                self._take(heard)
                for name, taken in heard.items():
                    if any(awaited.get(name, b"\0no") in frame for frame in taken[seen[name] :]):
                        del awaited[name]
                    seen[name] = len(taken)
            if not awaited:
                break
            self.lost += 1
        else:
            raise AssertionError(f"the router does not forward what comes in by {port}")
        quiet_from = time.monotonic()
        while time.monotonic() - quiet_from < self.QUIET_S:
            if self._wait(self.QUIET_S):
                quiet_from = time.monotonic()
            self._take(heard)

    def _wait(self, seconds: float) -> bool:
        sockets = [wire.socket for wire in self.stage.wires.values()]
        return bool(select.select(sockets, [], [], seconds)[0])

    def _send_marks(self, port: str) -> dict[str, bytes]:
        """One by each port; an option sends them the slow way. Returns what to look for, by port."""
        awaited = {}
        for name, side in SIDES.items():
            awaited[name] = MARK + struct.pack("!I", self._marks)
            src, dst = f"{SIDES[port]}.1", f"{side}.2"
            packet = ip4(src, dst, udp(src, dst, awaited[name]), options=bytes.fromhex("01010100"))
            self.stage.wires[port].send(ethernet(ROUTER_MACS[port], HOST_MACS[port], ETH_IP4, packet))
        return awaited

    def _keep_late(self, taken: Iterable[bytes]) -> None:
        for frame in taken:
            if MARK not in frame and is_late(frame):
                self.late[self._padded(without_leg(masked(frame)))] += 1

    def _compared(self, taken: Iterable[bytes]) -> Iterable[bytes]:
        for frame in taken:
            if MARK in frame or is_unasked(frame):
                continue
            if is_late(frame):
                self.late[self._padded(without_leg(masked(frame)))] += 1
            elif not depends_on_time(frame):
                yield self._padded(without_leg(masked(frame)))

    def _padded(self, frame: bytes) -> bytes:
        return frame.ljust(60, b"\0") if self.padded else frame

    def listen(self, seconds: float) -> None:
        """For what is late."""
        time.sleep(seconds)
        heard: dict[str, list[bytes]] = {name: [] for name in self.stage.wires}
        self._take(heard)
        for taken in heard.values():
            self._keep_late(taken)


def without_leg(frame: bytes) -> bytes:
    """The next hop that a router chose of several is its own business."""
    return bytes(6) + frame[6:] if frame[:6] in LEGS and is_multipath(frame[14:]) else frame


def is_unasked(frame: bytes) -> bool:
    """What the kernel says when it likes to: it looks for neighbours or reports its groups (IGMP, MLD)."""
    kind = frame[12:14]
    if kind == KIND_ARP:
        return frame[20:22] == b"\0\1"
    if kind == KIND_IP4:
        return frame[23] == 2 and frame[22] == 1 and frame[26:30] in OWN4  # RFC 3376 4: TTL 1
    if kind == KIND_IP6:
        at = 54 + (8 + 8 * frame[55] if frame[20] == 0 and len(frame) > 55 else 0)
        ours = frame[22:24] == b"\xfe\x80" or frame[21] == 255
        return ours and len(frame) > at and frame[at] in (131, 132, 133, 135, 143) and frame[20] in (0, 58)
    return False


def is_late(frame: bytes) -> bool:
    """An answer that the kernel gives after a time of its own."""
    icmp = icmp_of_router(frame)
    if icmp in ((4, 11, 1), (6, 3, 1)):
        return True  # reassembly gave up
    if icmp == (4, 3, 1):
        at = 14 + (frame[14] & 15) * 4 + 8
        return is_on_link(frame[at:])
    return icmp == (6, 1, 3)


def asks_once(address: bytes) -> bool:
    """One of those that send one generated frame each (lab.generated_places.Senders)."""
    if len(address) == 4:
        return (address[:2] == b"\x0a\x09" and 16 <= address[2] < 251) or address[:2] == b"\x0a\x14"
    behind = address[:12] == b"\xfd\x09" + bytes(10) and address[12] >= 0x10
    return behind or address[:4] == b"\xfd\0\0\x20"


def is_limited(frame: bytes) -> bool:
    """An answer of which the kernel gives each host a few a second, whatever the sysctls say: redirects
    (ip_rt_send_redirect, ndisc_send_redirect), and that there is no way (ip_error)."""
    limited = {(4, 5, 0), (4, 5, 1), (6, 137, 0), (4, 3, 0), (4, 3, 1), (4, 3, 13)}
    return icmp_of_router(frame) in limited


def depends_on_time(frame: bytes) -> bool:
    """A limited answer to a host that may have had some before."""
    if not is_limited(frame):
        return False
    if frame[12:14] == KIND_IP4:
        return not asks_once(frame[30:34])
    # IPv6 redirects are limited by the destination that is redirected, too
    return not (asks_once(frame[38:54]) and frame[78:80] == b"\xfd\x09")


@dataclass
class Difference:
    """One frame, or as few as it takes, and what came out of both routers."""

    recipes: list[Recipe]
    expected: Heard
    heard: Heard
    rule: str | None = None
    """The entry of docs/differences.md that says why."""

    def __str__(self) -> str:
        frames = "\n".join(f"  {recipe.name}\n  {recipe.frame.hex()}" for recipe in self.recipes)
        only = f"Linux alone:\n{told(minus(self.expected, self.heard))}"
        return f"{frames}\n {only}\n ixroute alone:\n{told(minus(self.heard, self.expected))}"


def minus(one: Heard, other: Heard) -> Heard:
    return {port: frames - other[port] for port, frames in one.items()}


@dataclass
class Pair:
    """Two routers, of which the first is right. told: gets a line for each difference as it is found."""

    PATIENCE_S: ClassVar[float] = 3.0

    linux: Player
    other: Player
    frames: int = 0
    passing: list[str] = field(default_factory=list)
    """Differences of a batch that were not there when it was played again."""
    differences: list[Difference] = field(default_factory=list)
    _limited: bool = True

    def differ(self, recipes: Sequence[Recipe]) -> tuple[Heard, Heard] | None:
        """What came out of both, if that is not the same. All recipes are of one port."""
        port, frames = recipes[0].port, [recipe.frame for recipe in recipes]
        expected, heard = self.linux.play(port, frames), self.other.play(port, frames)
        if not self._limited:  # these hosts had an answer before
            expected, heard = without_limited(expected), without_limited(heard)
        return None if expected == heard else (expected, heard)

    def check(self, recipes: Sequence[Recipe]) -> list[Difference]:
        """Plays a batch; the differences, each made small. They are kept, too."""
        self.frames += len(recipes)
        found: list[Difference] = []
        first = self.differ(recipes)
        if first is None:
            return found
        expected, heard = without_limited(first[0]), without_limited(first[1])
        if expected == heard:
            found.append(Difference([], *first))
            self.differences += found
            return found
        left = list(recipes)
        self._limited = False
        try:
            while left and len(found) < 20:
                outcome = self.differ(left)
                if outcome is None:
                    break
                difference = self._small(left, outcome)
                found.append(difference)
                left = [recipe for recipe in left if recipe not in difference.recipes]
        finally:
            self._limited = True
        if not found:
            self.passing.append(str(Difference(list(recipes[:0]), *first)))
        for difference in found:
            self._simplify(difference)
        self.differences += found
        return found

    def _small(self, recipes: list[Recipe], outcome: tuple[Heard, Heard]) -> Difference:
        """Halves as long as one half differs by itself."""
        while len(recipes) > 1:
            middle = len(recipes) // 2
            for half in (recipes[:middle], recipes[middle:]):
                less = self.differ(half)
                if less is not None:
                    recipes, outcome = half, less
                    break
            else:
                break
        return Difference(recipes, *outcome)

    def _simplify(self, difference: Difference) -> None:
        if len(difference.recipes) != 1:
            return
        self._limited = False
        recipe = difference.recipes[0]
        difference.rule = rule_of(recipe.frame, difference.expected, difference.heard)
        simpler = True
        while simpler and difference.rule is None:
            simpler = False
            for less in recipe.simpler():
                outcome = self.differ([less])
                if outcome is not None:
                    recipe, simpler = less, True
                    difference.recipes, (difference.expected, difference.heard) = [less], outcome
                    break
        self._limited = True

    def forget_late(self) -> None:
        for player in (self.linux, self.other):
            player.listen(0)
            player.late.clear()

    def compare_late(self, seconds: float) -> list[str]:
        """Waits for what is late and compares all since forget_late(); the differences in words."""
        self.linux.listen(seconds)
        self.other.listen(0.1)
        deadline = time.monotonic() + self.PATIENCE_S
        while self.linux.late != self.other.late and time.monotonic() < deadline:  # a busy machine is later
            self.linux.listen(0.1)
            self.other.listen(0.1)
        words = []
        for who, only in (
            ("Linux", self.linux.late - self.other.late),
            ("ixroute", self.other.late - self.linux.late),
        ):
            words += [f"late, {who} alone: {frame.hex()}" for frame in only.elements()]
        return words

    def play(self, dice: Random, senders: Senders, frames: int, ports: Sequence[str] = PORTS) -> None:
        """Generated frames, AT_ONCE at a time, until there are `frames` or too many differences to go on."""
        until = self.frames + frames
        while self.frames < until and len(self.differences) < ENOUGH:
            generator = Generator(dice, senders, dice.choice(ports))
            self.check([generator.recipe() for _ in range(min(AT_ONCE, until - self.frames))])

    def unlisted(self) -> list[Difference]:
        return [difference for difference in self.differences if difference.rule is None]


def without_limited(heard: Heard) -> Heard:
    return {
        port: Counter({frame: n for frame, n in frames.items() if not is_limited(frame)})
        for port, frames in heard.items()
    }


@contextlib.contextmanager
def set_everywhere(
    stages: Sequence[Stage], sysctls: Mapping[str, int], commands: Sequence[str], seconds: float
) -> Iterator[None]:
    """Sets sysctls and runs commands (`ip ... add ...`) at all routers; ixroute gets `seconds` to have noticed.
    Sets them back and undoes them at the end, without waiting."""
    undo: list[Callable[[], object]] = []
    try:
        for stage in stages:
            router, names = stage.lab.router, stage.lab.interfaces
            for template, value in sysctls.items():
                key = template.format(**names)
                undo.append(partial(router.sysctl, key, router.sysctl_value(key)))
                router.sysctl(key, value)
            for template in commands:
                command = template.format(**names)
                router.ip(command)
                undo.append(partial(router.ip, command.replace(" add ", " del ", 1)))
        time.sleep(seconds if undo else 0)
        yield
    finally:
        for back in reversed(undo):
            back()
