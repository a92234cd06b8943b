"""The emulator as a process: one engine, N cards, each with its wire and its socket; one loop for all of it.

The engine's thread moves packets; this one, the main thread, does everything else: registers that clients write, links,
signals. Nothing a client or a wire does ends it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ixroute.emulator import report
from ixroute.emulator.card import Card, CardOptions
from ixroute.emulator.engine import CardEngine, Engine
from ixroute.emulator.image import BarImage
from ixroute.emulator.plan import Plan
from ixroute.emulator.wires import Wire, close_wires, open_wires
from ixroute.errors import UserError
from ixroute.vfio_user.device import Device
from ixroute.vfio_user.server import Server

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often faults are looked at: they are counted in C, which tells nobody."""


@dataclass(frozen=True)
class Slot:
    """A card and what it is connected to."""

    name: str
    card: Card
    wire: Wire
    server: Server
    faults: report.FaultWatch

    def lines(self) -> Iterator[str]:
        counters = dataclasses.asdict(self.server.counters)
        server = {key: value for key, value in counters.items() if isinstance(value, int)}
        hints = [
            *self.wire.hints(),
            *(
                f"accesses to unknown registers: {report.described(unknown)}"
                for unknown in [self.card.unknown_registers()]
                if unknown
            ),
        ]
        return report.card_lines(self.name, self.card.counters(), self.wire.stats(), server, hints)


class Service:
    """Everything is open from construction to `close`."""

    def __init__(self, plan: Plan) -> None:
        """Opens wires and sockets; nothing moves yet. UserError (WireError), OSError, MemoryError."""
        self.slots: list[Slot] = []
        self._stop = self._ask = False
        self._next_tick = 0.0
        self._cores = plan.cores
        self._selector = selectors.DefaultSelector()
        self._opened = contextlib.ExitStack()
        try:
            self._opened.callback(self._selector.close)
            wires = open_wires([card.wire for card in plan.cards])
            self._opened.callback(close_wires, wires)
            self.engine = self._opened.enter_context(contextlib.closing(Engine(scan=plan.map_bar)))
            for number, wire in enumerate(wires):
                self._add(number, plan, wire)
        except BaseException:
            self.close()
            raise

    def _add(self, number: int, plan: Plan, wire: Wire) -> None:
        card_plan = plan.cards[number]
        name = f"card {number} ({card_plan.socket}, {card_plan.wire})"
        options = CardOptions(plan.device_id, card_plan.mac, map_bar=plan.map_bar, name=f"card {number}")

        def attach(image: BarImage) -> CardEngine:
            packets = self.engine.card(image.memory)
            packets.plug(wire.c)
            return packets

        card = self._opened.enter_context(contextlib.closing(Card(attach, options)))
        server = self._opened.enter_context(contextlib.closing(_listen(card_plan.socket, card)))
        slot = Slot(name, card, wire, server, report.FaultWatch(name))
        self.slots.append(slot)
        self._selector.register(server, selectors.EVENT_READ, server.handle)
        if wire.carrier_fd >= 0:
            self._selector.register(wire.carrier_fd, selectors.EVENT_READ, lambda: _connect(slot))
        _connect(slot)

    def run(self, ready: Callable[[], None]) -> int:
        """Serves until SIGTERM or SIGINT; `ready` is called when clients may come. Only in the main thread. The exit
        code: 1 when the engine ended by itself."""
        with _signals(self._signal) as wake:
            self._selector.register(wake, selectors.EVENT_READ, lambda: _forget(wake))
            self.engine.start(cores=self._cores)
            try:
                ready()
                while not self._stop and self.engine.running:
                    for key, _ in self._selector.select(TICK_SECONDS):
                        key.data()
                    if self._ask or time.monotonic() >= self._next_tick:
                        self._tell()
            finally:
                self._selector.unregister(wake)
                died = not self._stop and not self.engine.running
                self.engine.stop()
        if died:
            log.error("the packet engine has ended by itself: please report it")
        self.print_report()
        return int(died)

    def _signal(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self._ask = True
        else:
            self._stop = True

    def _tell(self) -> None:
        self._next_tick = time.monotonic() + TICK_SECONDS
        for slot in self.slots:
            for line in slot.faults.look(slot.card.counters()):
                log.error("%s", line)
        if self._ask:
            self._ask = False
            self.print_report()

    def print_report(self) -> None:
        """Counters of cards, wires and clients on standard error."""
        lines = [line for slot in self.slots for line in slot.lines()]
        lines.append(f"engine: {report.described(self.engine.counters())}")
        with contextlib.suppress(OSError):  # nobody reads it any more
            print("\n".join(lines), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends clients, removes sockets and what the wires made. Idempotent."""
        self._opened.close()


def _connect(slot: Slot) -> None:
    up = slot.wire.carrier()
    log.debug("%s: carrier %s", slot.name, "on" if up else "off")
    slot.card.set_carrier(up)


def _listen(path: str, card: Device) -> Server:
    try:
        return Server(path, card)
    except OSError as error:
        raise UserError(f"{path}: {_why_not(Path(path), error)}") from error


def _why_not(path: Path, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process listens there: end it, or choose another --socket"
        case errno.EEXIST | errno.ENOTSOCK:
            return "something that is no socket is there: choose another --socket"
        case errno.ENOENT:
            return f"no such directory: run `mkdir -p {path.parent}`"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"no permission to make a socket in {path.parent}: choose another --socket"
        case None:
            return f"{error}: choose a shorter --socket"
    return f"{error.strerror}: choose another --socket"


def _forget(wake: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(wake, 4096)


@contextlib.contextmanager
def _signals(handler: Callable[[int], None]) -> Iterator[int]:
    """Calls `handler` for the signals of a service. Yields a descriptor that is readable when one came, so that
    nothing that sleeps on it misses it."""

    def handle(number: int, _: FrameType | None) -> None:
        handler(number)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    old_wake = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    old = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield reader
    finally:
        for number, was in old.items():
            signal.signal(number, was)
        signal.set_wakeup_fd(old_wake)
        os.close(reader)
        os.close(writer)
