"""What an emulated card's port can be plugged into: specs, and the wires they open (wire.h, wire_kinds.h).

Python opens devices and files and closes them; the packets go through C only.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.errors import UserError

KINDS = """\
tap:NAME                       a TAP interface, made when it is not there
if:NAME                        an existing interface (AF_PACKET)
pcap:in=FILE,out=FILE          files: what comes, what was sent (either may be missing)
     ,loop ,rate=PPS           in again from its start when it ends; at so many packets a second
pair:LABEL                     back to back with the other card of the same label
discard                        a link, and nobody there
none                           no cable"""

_COUNTERS = ("rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes", "tx_dropped", "syscalls")
_HIGHEST_RATE = 1_000_000_000


class WireError(UserError):
    """One line: what is wrong and the command that mends it."""


@dataclass(frozen=True)
class WireSpec:
    """A spec, taken apart: `name` is an interface or a label, `options` those of pcap."""

    text: str
    kind: str
    name: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def parse(text: str) -> WireSpec:
    """Takes a spec apart. WireError when it cannot be one; nothing is opened."""
    kind, colon, rest = text.partition(":")
    if kind in ("none", "discard"):
        if colon:
            raise WireError(f"wire {text!r}: {kind} takes nothing behind it: write --wire {kind}")
        return WireSpec(text, kind)
    if kind in ("tap", "if"):
        _check_interface(text, rest)
        return WireSpec(text, kind, rest)
    if kind == "pair":
        if not rest:
            raise WireError(f"wire {text!r}: name the cable: --wire pair:a --wire pair:a")
        return WireSpec(text, kind, rest)
    if kind == "pcap":
        return WireSpec(text, kind, options=_pcap_options(text, rest))
    raise WireError(
        f"wire {text!r}: no such kind: choose tap:NAME, if:NAME, pcap:in=FILE,out=FILE, pair:LABEL, discard or none"
    )


def _check_interface(text: str, name: str) -> None:
    bad = not 0 < len(name.encode(errors="replace")) < 16 or name in (".", "..")
    if bad or any(c in "/:%\0" or c.isspace() for c in name):
        raise WireError(
            f"wire {text!r}: {name!r} cannot name an interface: "
            "1 to 15 characters, none of them '/', ':', '%' or space"
        )


def _pcap_options(text: str, rest: str) -> Mapping[str, str]:
    """in, out, loop, rate. `once` is what a file does that does not loop."""
    options: dict[str, str] = {}
    for word in rest.split(",") if rest else ():
        key, equals, value = word.partition("=")
        takes_value = key in ("in", "out", "rate")
        if not takes_value and key not in ("loop", "once"):
            raise WireError(f"wire {text!r}: no option {key!r}: in=FILE, out=FILE, loop, once, rate=PPS")
        if takes_value != bool(equals and value) or "\0" in value:
            raise WireError(
                f"wire {text!r}: {f'{key}= wants a value' if takes_value else f'{key} takes none'}"
            )
        if key in options:
            raise WireError(f"wire {text!r}: {key} is there twice: write it once")
        options[key] = value
    if "in" not in options and "out" not in options:
        raise WireError(f"wire {text!r}: name a file: pcap:in=FILE, pcap:out=FILE, or both")
    if options.keys() & {"loop", "once", "rate"} and "in" not in options:
        raise WireError(f"wire {text!r}: loop, once and rate are about in=FILE: add it")
    if {"loop", "once"} <= options.keys():
        raise WireError(f"wire {text!r}: loop and once contradict each other: keep one")
    rate = options.get("rate", "1")
    if not (rate.isascii() and rate.isdigit() and len(rate) < 12 and 0 < int(rate) <= _HIGHEST_RATE):
        raise WireError(f"wire {text!r}: rate={rate} is no number of packets a second: rate=100000")
    return MappingProxyType(options)


class Wire(abc.ABC):
    """An open wire. It is plugged into one card, and unplugged from it before `close`."""

    c: Any
    """struct wire *, or NULL for no cable at all."""
    carrier_fd: int = -1
    """Readable when `carrier` may have changed; -1: it never does."""

    def __init__(self, spec: WireSpec) -> None:
        self.spec = spec
        self.c = ffi.NULL

    @abc.abstractmethod
    def carrier(self) -> bool:
        """Whether there is a link now; makes carrier_fd unreadable until the next change."""

    def stats(self) -> dict[str, int]:
        """struct wire's counters by name: rx is towards the card. After close: nothing."""
        return {name: int(getattr(self.c, name)) for name in _COUNTERS} if self.c != ffi.NULL else {}

    def hints(self) -> Sequence[str]:
        """What its counters say that somebody should mend: a line each."""
        return ()

    @abc.abstractmethod
    def close(self) -> None:
        """Closes what it opened and removes what it made. A second close does nothing."""


def allocated(pointer: Any) -> Any:
    """The pointer that C gave, or MemoryError."""
    if pointer == ffi.NULL:
        raise MemoryError("a wire")
    return pointer


class NoWire(Wire):
    """No cable: never a link."""

    def carrier(self) -> bool:
        return False

    def close(self) -> None:
        pass


class DiscardWire(Wire):
    """A link and nobody there."""

    def __init__(self, spec: WireSpec) -> None:
        super().__init__(spec)
        self.c = allocated(lib.wire_discard_create())

    def carrier(self) -> bool:
        return bool(self.c != ffi.NULL)

    def close(self) -> None:
        if self.c != ffi.NULL:
            lib.wire_discard_destroy(self.c)
            self.c = ffi.NULL


class Cable:
    """A pair's memory and how many of its ends are in use."""

    def __init__(self) -> None:
        """MemoryError."""
        self.ends = ffi.new("struct wire *[2]")
        if lib.wire_pair_create(self.ends):
            raise MemoryError("a wire")
        self.taken = 0
        self.open = 0

    def take(self) -> Any:
        end = self.ends[self.taken]
        self.taken += 1
        self.open += 1
        return end

    def release(self) -> None:
        self.open -= 1
        if not self.open:
            lib.wire_pair_destroy(self.ends)


class PairWire(Wire):
    """One end of a cable between two cards. There is a link while both ends are open."""

    def __init__(self, spec: WireSpec, cable: Cable) -> None:
        super().__init__(spec)
        self._cable = cable
        self.c = cable.take()

    def carrier(self) -> bool:
        return bool(self.c != ffi.NULL) and self._cable.open == 2

    def close(self) -> None:
        if self.c != ffi.NULL:
            self.c = ffi.NULL
            self._cable.release()


def open_wire(spec: str, cables: dict[str, Cable] | None = None) -> Wire:
    """Opens one wire. WireError; MemoryError. cables: labels of pairs that have one end so far; the same dict
    for all wires of a process."""
    parsed = parse(spec)
    if parsed.kind == "none":
        return NoWire(parsed)
    if parsed.kind == "discard":
        return DiscardWire(parsed)
    if parsed.kind == "pair":
        return _open_pair(parsed, {} if cables is None else cables)
    if parsed.kind == "pcap":
        from ixroute.emulator.wire_files import PcapWire

        return PcapWire(parsed)
    from ixroute.emulator.wire_interfaces import PacketWire, TapWire

    try:
        return TapWire(parsed) if parsed.kind == "tap" else PacketWire(parsed)
    except OSError as error:
        raise WireError(f"wire {spec}: {error.strerror or error}") from error


def _open_pair(spec: WireSpec, cables: dict[str, Cable]) -> PairWire:
    if spec.name not in cables:
        cables[spec.name] = Cable()
    cable = cables[spec.name]
    if cable.taken == 2:
        raise WireError(f"wire {spec.text}: a cable has two ends: choose another label for a third card")
    return PairWire(spec, cable)


def open_wires(specs: Sequence[str]) -> list[Wire]:
    """Opens all of them, or none. WireError, also for a pair with one end only; MemoryError."""
    cables: dict[str, Cable] = {}
    opened: list[Wire] = []
    try:
        for spec in specs:
            opened.append(open_wire(spec, cables))
        for label, cable in cables.items():
            if cable.taken != 2:
                raise WireError(f"wire pair:{label}: nobody at the other end: give --wire pair:{label} twice")
    except BaseException:
        close_wires(opened)
        raise
    return opened


def close_wires(wires: Sequence[Wire]) -> None:
    """Closes all of them."""
    for wire in wires:
        wire.close()
