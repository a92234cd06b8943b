"""Frames made by dice: sound packets of every kind, then edits that break them. A seed always makes the same ones.

The dice are a random.Random: of a seed when there are to be many, of hypothesis when a failure is to be made small. A
frame keeps its recipe, a base and its edits, so that those can be left out that a difference does not need.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from ixroute.demo.probes import internet_checksum
from lab import generated_ip4, generated_ip6
from lab.frames import all_cases
from lab.generated_places import OWN4, Senders, destination4
from lab.packets import ETH_ARP, ETH_IP4, ETH_IP6, arp, mac_bytes

KIND_ARP = struct.pack("!H", ETH_ARP)
ROUTER_MACS = {"lan": "02:00:00:00:01:01", "wan": "02:00:00:00:02:01", "dmz": "02:00:00:00:03:01"}
HOST_MACS = {"lan": "02:00:00:00:01:02", "wan": "02:00:00:00:02:02", "dmz": "02:00:00:00:03:02"}
PORTS = ("lan", "lan", "lan", "wan", "dmz")
LONGEST_OF = {"lan": 1514, "wan": 1414, "dmz": 1514}
STRANGE_TARGETS = (
    *(
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "33:33:00:00:00:01",
        "02:99:99:99:99:99",
        "00:00:00:00:00:00",
    ),
    *("01:80:c2:00:00:00", "01:80:c2:00:00:0e", "01:80:c2:00:00:21", *ROUTER_MACS.values()),
)
STRANGE_SENDERS = ("03:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", *ROUTER_MACS.values())
OTHER_TYPES = (
    0x0000,
    0x0026,
    0x05DC,
    0x0600,
    0x0801,
    0x0805,
    0x0835,
    0x6558,
    0x8847,
    0x8863,
    0x8864,
    0x888E,
    0x88CC,
)
Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Edit:
    """name: what is done, with its numbers."""

    name: str
    apply: Change


@dataclass(frozen=True)
class Recipe:
    """A frame that comes in by `port`. sums: whether the header checksum is made right after the edits (IPv4)."""

    base: str
    start: bytes
    port: str
    edits: tuple[Edit, ...] = ()
    sums: bool = True

    @property
    def name(self) -> str:
        return "; ".join((f"{self.base} on {self.port}", *(edit.name for edit in self.edits)))

    @functools.cached_property
    def frame(self) -> bytes:
        frame = self.start
        for edit in self.edits:
            frame = edit.apply(frame)
        if self.edits and self.sums:
            frame = with_checksum(frame)
        if self.start[12:14] == KIND_ARP:
            frame = with_sender(frame, self.start[28:32])
        longest = LONGEST_OF[self.port] + (4 if frame[12:14] == b"\x81\0" else 0)
        return frame[:longest].ljust(14, b"\0")

    def simpler(self) -> Iterator[Recipe]:
        """The same without one of its edits."""
        for i in range(len(self.edits)):
            yield Recipe(self.base, self.start, self.port, self.edits[:i] + self.edits[i + 1 :], self.sums)


def with_checksum(frame: bytes) -> bytes:
    """The IPv4 header's, when it is all there; behind tags too."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    size = (frame[at + 2] & 15) * 4 if len(frame) > at + 2 else 0
    if frame[at : at + 2] != b"\x08\x00" or size < 20 or len(frame) < at + 2 + size:
        return frame
    head = frame[at + 2 : at + 12] + b"\0\0" + frame[at + 14 : at + 2 + size]
    return frame[: at + 12] + struct.pack("!H", internet_checksum(head)) + frame[at + 14 :]


def with_sender(frame: bytes, address: bytes) -> bytes:
    """ARP's: the kernel learns it, and for how long it then believes in a neighbour that is mute depends on time."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return frame if len(frame) < at + 20 else frame[: at + 16] + address + frame[at + 20 :]


class Generator:
    """`recipe()`: the next frame. senders: shared with other generators that play at the same router."""

    def __init__(self, dice: Random, senders: Senders, port: str = "") -> None:
        """port: all frames come in there; "" lets the dice choose for each."""
        self._dice = dice
        self._senders = senders
        self._port = port

    def recipe(self) -> Recipe:
        dice = self._dice
        port = self._port or dice.choice(PORTS)
        base, start = self._start(port)
        edits: list[Edit] = []
        if dice.random() < 0.08:
            edits.append(tags(dice))
        if dice.random() < 0.3:
            edits += [_edit(dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
        return Recipe(base, start, port, tuple(edits), sums=dice.random() < 0.9)

    def _start(self, port: str) -> tuple[str, bytes]:
        dice = self._dice
        pick = dice.random()
        if pick < 0.08:
            return dice.choice(named(port))
        if pick < 0.52:
            return "IPv4", self._framed(port, ETH_IP4, generated_ip4.packet(dice, port, self._senders))
        if pick < 0.95:
            return "IPv6", self._framed(port, ETH_IP6, generated_ip6.packet(dice, port, self._senders))
        if pick < 0.98:
            return "ARP", self._framed(port, ETH_ARP, self._arp(port))
        kind = dice.choice((*OTHER_TYPES, dice.randrange(65536)))
        return f"type {kind:04x}", self._framed(port, kind, dice.randbytes(dice.randrange(0, 80)))

    def _framed(self, port: str, kind: int, packet: bytes) -> bytes:
        dice = self._dice
        target, sender = ROUTER_MACS[port], HOST_MACS[port]
        if dice.random() < 0.06:
            target = dice.choice(STRANGE_TARGETS)
        if dice.random() < 0.03:
            sender = dice.choice(STRANGE_SENDERS)
        frame = mac_bytes(target) + mac_bytes(sender) + struct.pack("!H", kind) + packet
        return frame[: LONGEST_OF[port]].ljust(60 if dice.random() < 0.9 else 14, b"\0")

    def _arp(self, port: str) -> bytes:
        dice = self._dice
        mac = HOST_MACS[port]
        sender = dice.choice((f"10.0.{dice.randrange(1, 4)}.2", "0.0.0.0", "10.9.99.1", *OWN4))
        target = dice.choice((*OWN4, destination4(dice)))
        return arp(dice.choice((1, 1, 1, 2, 2, 3, 8)), mac, sender, dice.choice(STRANGE_TARGETS), target)


@functools.cache
def named(port: str) -> tuple[tuple[str, bytes], ...]:
    """Those of lab.frames that come in there, but for what the kernel goes on with by itself."""
    return tuple(
        (case.name, case.frame) for case in all_cases() if case.port == port and not case.repeats
    ) or (named("lan"))


def tags(dice: Random) -> Edit:
    """One to three VLAN tags before the EtherType."""
    stack = b""
    for _ in range(dice.choice((1, 1, 1, 1, 2, 2, 3))):
        kind = dice.choice((0x8100, 0x8100, 0x8100, 0x88A8, 0x9100))
        vid = dice.choice((0, 0, 0, 7, 1, 4095, dice.randrange(4096)))
        stack += struct.pack("!HH", kind, dice.randrange(16) << 12 | vid)
    return Edit(f"tags {stack.hex()}", lambda frame: frame[:12] + stack + frame[12:])


def _edit(dice: Random) -> Edit:
    return dice.choice(
        (_byte, _byte, _byte, _byte, _bit, _bit, _cut, _cut, _longer, _length, _length, _copy, _checksum)
    )(dice)


def _put(at: int, value: bytes) -> Change:
    return lambda frame: (
        frame[:at] + value + frame[at + len(value) :] if at + len(value) <= len(frame) else frame
    )


def _place(dice: Random) -> int:
    """Mostly in the headers."""
    return dice.choice((dice.randrange(12, 34), dice.randrange(12, 60), dice.randrange(0, 120)))


def _byte(dice: Random) -> Edit:
    at, value = _place(dice), dice.choice((0, 1, 255, dice.randrange(256)))
    return Edit(f"byte {at} = {value:02x}", _put(at, bytes((value,))))


def _bit(dice: Random) -> Edit:
    at, bit = _place(dice), 1 << dice.randrange(8)
    return Edit(
        f"byte {at} ^ {bit:02x}",
        lambda frame: frame if at >= len(frame) else frame[:at] + bytes((frame[at] ^ bit,)) + frame[at + 1 :],
    )


def _cut(dice: Random) -> Edit:
    size = dice.choice((dice.randrange(14, 64), dice.randrange(14, 120), 14, 34, 54))
    return Edit(f"cut to {size}", lambda frame: frame[:size])


def _longer(dice: Random) -> Edit:
    more = dice.randbytes(dice.choice((1, 2, 4, 8, 46, 500)))
    return Edit(f"{len(more)} bytes behind", lambda frame: frame + more)


def _length(dice: Random) -> Edit:
    """total_length, payload_length: a little or much beside the truth."""
    little = dice.choice((-20, -9, -8, -4, -1, 1, 2, 8, 40))
    much = dice.randrange(65536) if dice.random() < 0.3 else None

    def change(frame: bytes) -> bytes:
        at = {b"\x08\x00": 16, b"\x86\xdd": 18}.get(frame[12:14])
        if at is None or len(frame) < at + 2:
            return frame
        was = struct.unpack_from("!H", frame, at)[0]
        return _put(at, struct.pack("!H", (was + little) & 0xFFFF if much is None else much))(frame)

    return Edit(f"length {little:+d}" if much is None else f"length {much}", change)


def _copy(dice: Random) -> Edit:
    """One part over another: source and destination equal, headers within headers."""
    start, to, size = dice.choice(
        ((26, 30, 4), (30, 26, 4), (22, 38, 16), (38, 22, 16), (0, 6, 6), (14, 34, 20))
    )
    return Edit(
        f"{size} bytes from {start} to {to}", lambda frame: _put(to, frame[start : start + size])(frame)
    )


def _checksum(dice: Random) -> Edit:
    """Of the payload or the header: whatever stands there. A header's own is mostly repaired afterwards."""
    at, value = dice.choice((24, 36, 40, 56, 60)), dice.choice((b"\0\0", b"\xff\xff", dice.randbytes(2)))
    return Edit(f"bytes {at} = {value.hex()}", _put(at, value))
