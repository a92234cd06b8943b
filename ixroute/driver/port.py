"""A port: what the router knows of a network card, whichever kind it is.

A port is brought up and owned by Python; its queues are C (driver/queue.h) and are lent to the workers.
Nobody but the port's own class knows what is behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class PortError(Exception):
    """A port that cannot do what was asked. One line: what is wrong, and the command that mends it.

    `port` is the port's name in the router, `spec` what was asked for ("af_xdp:eth1").
    """

    def __init__(self, spec: str, message: str, port: str = "") -> None:
        super().__init__(f"port {port or spec}: {message}")
        self.spec = spec
        self.port = port
        self.message = message


@dataclass(frozen=True)
class Link:
    """The state of the wire. `up` is the carrier; speed and duplex are None when the device does not say."""

    up: bool
    speed_mbps: int | None = None
    duplex: str | None = None  # "full" or "half"


@dataclass(frozen=True)
class PortOptions:
    """How to bring a port up; the same for every kind, which uses what concerns it.

    mode: "auto" (native XDP, else generic), "native", "generic".
    zero_copy: "auto" (when the driver can), "on" (or fail), "off".
    rx_slots, tx_slots: packets that one worker's rings of the port hold, each way; powers of two, 64 to
    32768. A worker that has to serve several of the device's queues gets smaller rings for each.
    state_dir: where what was changed on an interface is noted, so that the next start can undo what a killed
    process left; not being able to write there is no error.

    Of cards driven through their registers:
    force_id: a device id to take the card for, when its own is not known.
    rss_key: 40 bytes; empty: one that puts both directions of a flow on the same queue.
    interrupt_us: the shortest time between two interrupts of a queue, 2 to 1022.
    restore_driver: give the card back to its kernel driver at close.
    unsupported_module: use an SFP+ module of a kind that the card's EEPROM has no settings for.
    """

    mode: str = "auto"
    zero_copy: str = "auto"
    rx_slots: int = 2048
    tx_slots: int = 2048
    state_dir: str = "/run/ixroute"
    force_id: int | None = None
    rss_key: bytes = b""
    interrupt_us: int = 10
    restore_driver: bool = False
    unsupported_module: bool = False

    def slots(self, queues: int) -> tuple[int, int]:
        """Receive and transmit slots of each of one worker's queues."""
        return _share(self.rx_slots, queues), _share(self.tx_slots, queues)

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "native", "generic"):
            raise ValueError(f"mode is {self.mode!r}: must be auto, native or generic")
        if self.zero_copy not in ("auto", "on", "off"):
            raise ValueError(f"zero_copy is {self.zero_copy!r}: must be auto, on or off")
        for key in ("rx_slots", "tx_slots"):
            slots = getattr(self, key)
            if not 64 <= slots <= 32768 or slots & (slots - 1):
                raise ValueError(f"{key} is {slots}: must be a power of two from 64 to 32768")
        if len(self.rss_key) not in (0, 40):
            raise ValueError(f"rss_key has {len(self.rss_key)} bytes: must have 40")
        if not 2 <= self.interrupt_us <= 1022:
            raise ValueError(f"interrupt_us is {self.interrupt_us}: must be from 2 to 1022")


class Port(Protocol):
    """What every kind of port has. Methods raise PortError; none blocks longer than a system call.

    Control calls come from one Python thread at a time; the queues belong to their workers meanwhile.
    """

    name: str
    """In the router: "lan"."""
    index: int
    """In the router: 0, 1, …; frames carry it."""
    spec: str
    """As configured: "af_xdp:eth1"."""
    kind: str
    """The part of spec before the colon."""
    n_queues: int
    max_mtu: int
    """The largest MTU whose packets (with Ethernet header and one VLAN tag) fit a frame."""
    wire_ifindex: int | None
    """The kernel interface behind the port; None for hardware that the kernel does not see."""
    link_fd: int
    """Readable when link() may answer something new (the caller then calls service()); -1: ask now and then."""

    @property
    def rx_slots(self) -> int:
        """Packets that the receive ring of each queue holds."""

    @property
    def tx_slots(self) -> int:
        """Of each queue's transmit ring."""

    @property
    def mac(self) -> bytes:
        """6 bytes, wire order, as the device has it now."""

    @property
    def mtu(self) -> int:
        """Largest IP packet in bytes, as the device has it now."""

    def queues(self) -> list[Any]:
        """`struct queue *`, number 0 first; worker i of W takes i, i+W, … Valid until close()."""

    def link(self) -> Link: ...

    def service(self) -> None:
        """What a port does by the clock: retries a link that does not come, reads counters before they overflow,
        takes events from link_fd. The router calls it once a second and when link_fd is readable."""

    def set_mtu(self, mtu: int) -> None: ...

    def set_mac(self, mac: bytes) -> None: ...

    def set_promiscuous(self, on: bool) -> None: ...

    def set_allmulticast(self, on: bool) -> None: ...

    def stats(self) -> dict[str, int]:
        """Counters since the port was opened, or reset_stats() was called, summed over its queues. Readable while
        workers run."""

    def reset_stats(self) -> None:
        """Counters count from 0 again, for all who read them."""

    def features(self) -> dict[str, Any]:
        """What was obtained: mode, zero_copy, need_wakeup, queues; driver where there is one."""

    def close(self, pools: Sequence[Any] = ()) -> None:
        """Gives the device back. No worker may touch the queues any more. Idempotent.

        pools: the workers' frame pools, in order, when they go on without this port: each gets back the
        frames that its queues' rings hold.
        """


def _share(slots: int, queues: int) -> int:
    """A power of two, so that `queues` such rings hold what one of `slots` would; never less than 64."""
    share = slots
    while share * queues > slots and share > 64:
        share //= 2
    return share
