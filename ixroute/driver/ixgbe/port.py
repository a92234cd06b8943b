"""A port on an Intel 82599, X540 or X550: brought up in Python, run in C.

The order of bringing up is the datasheet's (4.6.3): everything stopped and reset, EEPROM and DMA ready, tables
cleared, link asked for (never waited for), receive, RSS, transmit, interrupts, queues. Whatever fails on the way is a
PortError, and leaves the card in reset, without interrupts, unable to reach memory.

A reset while packets flow (reset(), and service() when a link does not come): queues are parked first (park.h), so
that workers go on with their other ports and touch neither rings nor card meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar, cast

from ixroute._dataplane import lib
from ixroute.driver.ixgbe import filters, interrupts, receive, reset, rss, statistics, transmit
from ixroute.driver.ixgbe.card import Card, CardError
from ixroute.driver.ixgbe.ids import UnknownCard, identify
from ixroute.driver.ixgbe.link import LinkControl
from ixroute.driver.ixgbe.regfile import CardGone, Clock, RegisterError, RegisterFile, Timeout
from ixroute.driver.ixgbe.rings import MOST_SLOTS, Rings, buffer_kib
from ixroute.driver.port import Link, PortError, PortOptions
from ixroute.driver.transport import Reconnectable, Transport, TransportError
from ixroute.driver.umem import FRAME_BYTES, Umem

F = TypeVar("F", bound=Callable[..., Any])

_HEADER = 14 + 4  # Ethernet, one VLAN tag
_CRC = 4  # the card takes it off, but has it meanwhile
_LEAST_BUFFER_KIB = 2
_COLLECT_SECONDS = 10.0  # between two readings of the counters; they fill in 288
_RESET_AGAIN_SECONDS = 30.0  # after one that failed
_CONNECT_AGAIN_SECONDS = 2.0
_DRAIN_SECONDS = 0.2
_LET_GO_AT_ONCE_SECONDS = 0.01  # workers that poll or sleep need microseconds
_LET_GO_SECONDS = 1.0
_LET_GO_AT_LAST_SECONDS = 5.0  # a program that calls service() between two bursts
_QUEUE_COUNTERS = ("rx_no_frame", "rx_kicks", "rx_bad", "tx_kicks", "tx_refused", "tx_bad")
_DEFAULT_MTU = 1500
_RETA_ENTRIES = 128  # beyond them in ERETA, which X550 alone has


def max_mtu(frame_bytes: int) -> int:
    """The largest MTU with frames of this size; less than 68 when the cards cannot use them at all."""
    kib = buffer_kib(frame_bytes)
    if kib < _LEAST_BUFFER_KIB:
        return 0
    return min(kib * 1024 - _CRC, receive.LONGEST_FRAME) - _HEADER


def frame_bytes_for(mtu: int) -> int:
    """The smallest frame that a card of this family needs for packets of this MTU; the largest there is when none is
    large enough."""
    return next((size for size in FRAME_BYTES if max_mtu(size) >= mtu), FRAME_BYTES[-1])


def _control(method: F) -> F:
    """One control call at a time; what the card or the transport says against it is a PortError."""

    @functools.wraps(method)
    def guarded(self: IxgbePort, *args: Any, **kwargs: Any) -> Any:
        with self._lock, self._errors():
            if self._closed:
                raise PortError(self.spec, "is closed", self.name)
            return method(self, *args, **kwargs)

    return cast(F, guarded)


class IxgbePort:
    """Implements Port. Owns the transport from the call on: closes it at the end, and when bringing up fails.

    One queue for each worker, at most as many as RSS can reach (16; 64 on X550).
    """

    def __init__(
        self,
        name: str,
        index: int,
        spec: str,
        umem: Umem,
        workers: int,
        options: PortOptions,
        transport: Transport,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.index = index
        self.spec = spec
        self.kind = transport.kind
        self.n_queues = workers
        self.max_mtu = max_mtu(umem.frame_bytes)
        self.wire_ifindex: int | None = None
        self.link_fd = -1
        self.promiscuous = False
        self._umem = umem
        self._options = options
        self._transport = transport
        self._clock = clock or Clock()
        self._lock = threading.RLock()
        self._closed = False
        self._card: Card | None = None
        self._rings: Rings | None = None
        self._vectors: Sequence[int] = ()
        self._vector_of = list(range(workers))
        self._mtu = min(_DEFAULT_MTU, self.max_mtu)
        self._mac = bytes(6)
        self._resets = 0
        self._reset_again_at: float | None = None
        self._gone = False  # the card, from behind its transport
        self._connect_again_at = 0.0
        self._parked_at: float | None = None  # the queues, for a reset that is still to come
        self._collect_at = 0.0
        self._last_stats: dict[str, int] = {}
        self._zero_stats: dict[str, int] = {}
        self._last_words = ""
        umem.hold()
        try:
            with self._errors():
                self._bring_up()
        except BaseException:
            self.close()
            raise

    # ---- bringing up

    def _bring_up(self) -> None:
        self._check_options()
        config = self._transport.config
        model = identify(config.read(0, 2), config.read(2, 2), self._options.force_id)
        limit = model.mac.rss_queues
        if self.n_queues > limit:
            raise CardError(
                f"{self.n_queues} workers, but {model.mac.name} spreads packets to {limit} queues at most:"
                f" configure {limit} workers or fewer"
            )
        nic = RegisterFile(self._transport.map_bar(0), self._clock, model.mac.moved)
        card = self._card = Card(nic, config, model, self.name)
        self._link = LinkControl(card, self._options.unsupported_module)
        self._statistics = statistics.Statistics(card, self.n_queues)
        reset.bus_master(config, True)
        self._make_ready(card)
        self._mac = reset.read_mac(card)
        self._start_interrupts()
        self._rings = Rings(
            self.index, self._umem, self._transport, nic.region, self.n_queues, self._slots, self._vectors
        )
        self._program(card, self._rings)
        self._collect_at = self._clock.now() + _COLLECT_SECONDS
        card.info(f"{model.text}, MAC {self._mac.hex(':')}, {self.n_queues} queues")

    @property
    def _slots(self) -> tuple[int, int]:
        return self._options.slots(1)

    def _check_options(self) -> None:
        if self.max_mtu == 0:
            raise CardError(
                f"memory.frame_bytes is {self._umem.frame_bytes}: a card of this family needs 4096 or more, since it"
                " writes packets in whole KiB behind 256 bytes of headroom"
            )
        if max(self._slots) > MOST_SLOTS:
            raise CardError(
                f"rings of {max(self._slots)} slots: a card of this family has {MOST_SLOTS} at most"
            )

    def _make_ready(self, card: Card) -> None:
        """Steps 1 to 8 of seeing a card for the first time, and after every reset."""
        reset.reset(card)
        reset.wait_until_ready(card)
        reset.take(card, True)
        filters.clear_tables(card)
        statistics.set_up(card)

    def _start_interrupts(self) -> None:
        """A vector for each queue, and one for the link if the card has another one. With none, workers look again
        after a millisecond, and the link is looked at once a second."""
        irq = self._transport.irq
        if irq.count < self.n_queues:
            self._checked_card().warn(
                f"{irq.count} interrupt vectors for {self.n_queues} queues: none is used"
            )
            return
        n = min(self.n_queues + 1, irq.count, interrupts.VECTORS)
        fds = irq.start(n)
        self._vectors = fds[: self.n_queues]
        if n > self.n_queues:
            self.link_fd = fds[self.n_queues]

    def _program(self, card: Card, rings: Rings) -> None:
        """The card is ready and its tables are clear; afterwards packets come and go."""
        self._link.start()
        receive.set_up(card, self._mtu, self.promiscuous)
        rss.set_up(card, range(self.n_queues), self._options.rss_key or rss.SYMMETRIC_KEY)
        transmit.set_up(card)
        for q in range(self.n_queues):
            receive.set_queue(card, q, rings.rx(q), buffer_kib(self._umem.frame_bytes))
            transmit.set_queue(card, q, rings.tx(q))
        misc = self.n_queues if self.link_fd >= 0 else None
        vectors = self._vector_of[: len(self._vectors)]
        interrupts.set_up(card, vectors, misc, self._options.interrupt_us)
        for q in range(self.n_queues):
            transmit.enable_queue(card, q)
            receive.enable_queue(card, q)
        filters.enable_receive(card)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What goes wrong below is a PortError."""
        try:
            yield
        except TransportError as error:
            raise PortError(self.spec, error.message, self.name) from error
        except (RegisterError, UnknownCard, MemoryError) as error:
            raise PortError(self.spec, str(error), self.name) from error
        except OSError as error:
            raise PortError(self.spec, error.strerror or str(error), self.name) from error

    def _checked_rings(self) -> Rings:
        if self._rings is None:
            raise CardError("is not up")
        return self._rings

    def _checked_card(self) -> Card:
        if self._card is None:
            raise CardError("is not up")
        return self._card

    # ---- Port

    @property
    def mac(self) -> bytes:
        return self._mac

    @property
    def mtu(self) -> int:
        return self._mtu

    @property
    def rx_slots(self) -> int:
        """Of each queue's receive ring."""
        return self._slots[0]

    @property
    def tx_slots(self) -> int:
        """Of each queue's transmit ring."""
        return self._slots[1]

    @property
    def vectors(self) -> Sequence[int]:
        """An eventfd for each queue; empty when the card has no interrupts."""
        return self._vectors

    def queues(self) -> list[Any]:
        return self._rings.queues() if self._rings is not None else []

    @_control
    def link(self) -> Link:
        if self._gone or self._reset_again_at is not None:
            return Link(up=False)
        return self._link.read()

    @_control
    def service(self) -> None:
        """Takes the event of link_fd, reads the counters before they fill, asks anew for a link that does not come,
        and resets a card that needs it. Again after a while when that fails."""
        now = self._clock.now()
        if self.link_fd >= 0:  # drained whatever follows: readable for ever, it would keep the caller awake
            lib.shared_event_take(self.link_fd)
        if isinstance(self._transport, Reconnectable) and (self._gone or not self._transport.alive()):
            self._come_back(self._transport, now)
            return
        if self._reset_again_at is not None:  # the queues are parked since the one that failed
            if now >= self._reset_again_at:
                self._reset_parked()
            return
        if self._parked_at is None and (self._fatal_error() or self._link.service()):
            self._checked_rings().park()
            self._parked_at = now
        if self._parked_at is not None:
            self._reset_when_parked(now, self._parked_at)
        if now >= self._collect_at:
            self._statistics.collect()
            self._collect_at = now + _COLLECT_SECONDS

    def _come_back(self, transport: Reconnectable, now: float) -> None:
        """The card has gone from the transport: its queues are parked until there is one again, which is then set as
        this one was. TransportError says why not yet."""
        card, rings = self._checked_card(), self._rings
        if rings is None:
            raise CardError("is not up")
        if not self._gone:
            rings.park()
            self._gone, self._parked_at = True, None
            card.warn("the card is gone: packets for it are dropped until it comes back")
        elif now < self._connect_again_at:
            return
        if held := rings.held(_LET_GO_AT_ONCE_SECONDS):
            raise CardError(f"the card is gone, and the workers of queues {held} have not let go of it yet")
        self._connect_again_at = now + _CONNECT_AGAIN_SECONDS
        transport.reconnect()
        config = card.config
        if identify(config.read(0, 2), config.read(2, 2), self._options.force_id) != card.model:
            raise CardError("another kind of card answers there now: restart ixroute")
        self._gone = False
        self._reset_parked()
        card.info("the card is back, and set up as it was")

    def _fatal_error(self) -> bool:
        """Whether the card reports an error that only a reset ends. Takes what the link's interrupt was for."""
        card = self._checked_card()
        causes = card.nic.EICR.read()  # clears what concerns no queue (GPIE.OCD)
        if card.nic.EICR.spec.fields["ECC"].of(causes):
            card.warn("reports a memory error (EICR.ECC): resetting it")
            return True
        return False

    @_control
    def set_mtu(self, mtu: int) -> None:
        if not 68 <= mtu <= self.max_mtu:
            larger = self.max_mtu < mtu <= receive.LONGEST_FRAME - _HEADER
            help_ = "; memory.frame_bytes says how much a frame holds" if larger else ""
            raise CardError(f"MTU {mtu} is not from 68 to {self.max_mtu}{help_}")
        receive.set_frame_limit(self._checked_card(), mtu)
        self._mtu = mtu

    @_control
    def set_mac(self, mac: bytes) -> None:
        if len(mac) != 6 or mac[0] & 1 or not any(mac):
            raise CardError(f"{mac.hex(':')} is not a unicast MAC address")
        reset.write_mac(self._checked_card(), mac)
        self._mac = bytes(mac)

    @_control
    def set_promiscuous(self, on: bool) -> None:
        if on == self.promiscuous:
            return
        card = self._checked_card()
        with filters.receive_stopped(card):
            filters.accept(card, on)
        self.promiscuous = on

    def set_allmulticast(self, on: bool) -> None:
        """Always on: groups (OSPF's, neighbour discovery's) are joined on the TAP, which the card's filter does not
        know of."""

    def stats(self) -> dict[str, int]:
        """The card's counters (statistics.py), read now, and what the queues counted. Of a port that is closed or
        whose card is gone: as they were last."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(RegisterError, TransportError, OSError):
                    self._statistics.collect()
                totals = self._statistics.read()
                queues = self.queues()
                for key in _QUEUE_COUNTERS:
                    totals[key] = sum(getattr(queue, key) for queue in queues)
                totals["resets"] = self._resets
                self._last_stats = totals
            return {key: value - self._zero_stats.get(key, 0) for key, value in self._last_stats.items()}

    def reset_stats(self) -> None:
        """Counters count from 0 again."""
        with self._lock:
            self.stats()
            self._zero_stats = dict(self._last_stats)

    def features(self) -> dict[str, Any]:
        """What the card offers and what is on."""
        card, options = self._checked_card(), self._options
        return {
            "mode": self.kind,
            "zero_copy": True,
            "need_wakeup": False,
            "queues": self.n_queues,
            "driver": "ixgbe",
            "card": card.model.text,
            "media": card.model.media,
            "module": str(self._link.module) if self._link.module else None,
            "queues_max": card.model.mac.rss_queues,
            "rx_slots": self.rx_slots,
            "tx_slots": self.tx_slots,
            "slots_max": MOST_SLOTS,
            "max_frame_bytes": self.max_mtu + _HEADER,
            "rx_buffer_kib": card.model.mac.rx_buffer_kib,
            "rss": "symmetric" if options.rss_key in (b"", rss.SYMMETRIC_KEY) else "own key",
            "rx_checksum": True,
            "tx_head_write_back": True,
            "drop_when_full": True,
            "pause": False,
            "promiscuous": self.promiscuous,
            "allmulticast": True,
            "interrupts": len(self._vectors),
            "interrupt_us": options.interrupt_us,
            "link_interrupt": self.link_fd >= 0,
        }

    # ---- beyond Port

    @_control
    def reset(self, workers_run: bool = True) -> None:
        """Resets the card and brings it up again with all its settings, while packets of other ports flow; its own
        are lost meanwhile. workers_run: False when no worker has the queues; else this waits until each has let go
        (PortError, and nothing is done, when one does not within a second)."""
        self._reset(workers_run)

    def _reset(self, workers_run: bool) -> None:
        if self._reset_again_at is None:
            rings = self._checked_rings()
            rings.park()
            if workers_run and (held := rings.held(_LET_GO_SECONDS)):
                self._give_up(held)
        self._reset_parked()

    def _reset_when_parked(self, now: float, parked_at: float) -> None:
        """Does not wait for workers: the caller may be one. Its next calls of the queues let go, and the next
        service() resets."""
        held = self._checked_rings().held(_LET_GO_AT_ONCE_SECONDS)
        if not held:
            self._reset_parked()
        elif now - parked_at > _LET_GO_AT_LAST_SECONDS:
            self._give_up(held)

    def _give_up(self, held: list[int]) -> NoReturn:
        self._parked_at = None
        self._checked_rings().unpark(reset=False)
        raise CardError(f"the workers of queues {held} do not let go of them: the card is not reset")

    def _reset_parked(self) -> None:
        self._parked_at = None
        card, rings = self._checked_card(), self._checked_rings()
        with contextlib.suppress(CardError):
            self._statistics.collect()
        try:
            self._make_ready(card)
            reset.write_mac(card, self._mac)
            self._program(card, rings)
        except CardGone:
            raise
        except (RegisterError, TransportError, OSError):
            self._reset_again_at = self._clock.now() + _RESET_AGAIN_SECONDS
            self._on_the_way_out(lambda: reset.leave_in_reset(card))
            raise
        self._reset_again_at = None
        self._resets += 1
        rings.unpark(reset=True)

    @_control
    def event(self, q: int) -> int:
        """The eventfd of queue q's interrupt, which any thread may wait for. PortError when there is none."""
        return self._vectors[self._vector(q)]

    @_control
    def event_check(self, q: int) -> bool:
        """Whether the interrupt came since it was last looked at; it is masked then, until event_ack."""
        return bool(lib.shared_event_take(self._vectors[self._vector(q)]))

    @_control
    def event_ack(self, q: int) -> None:
        """Queue q's interrupt may come again. Look at the queue once more after this: what came before raises
        none."""
        vector = self._vector(q)
        self._checked_card().nic.EIMS_EX[vector >> 5].write(1 << (vector & 31))

    @_control
    def event_rebind(self, q: int, to: int) -> None:
        """Queue q raises the interrupt that queue `to` had at first: one event for several queues. For whoever waits
        by event() itself; a worker waits for its own queue's."""
        self._vector(q)
        self._vector(to)
        interrupts.set_vector(self._checked_card(), q, to)
        self._vector_of[q] = to

    def _vector(self, q: int) -> int:
        if not self._vectors:
            raise CardError("its queues have no interrupts: the machine gives too few")
        if not 0 <= q < len(self._vectors):
            raise CardError(f"queues with an event are 0 to {len(self._vectors) - 1}, not {q}")
        return self._vector_of[q]

    @_control
    def dump(self) -> list[str]:
        """Every register that can be read without changing anything, a line each: "RXDCTL[0] = 0x02000000 ENABLE=1"."""
        card = self._checked_card()
        absent = () if card.model.mac.reta_entries > _RETA_ENTRIES else ("ERETA",)
        return card.nic.dump(self.n_queues, absent)

    # ---- the end

    def close(self, pools: Sequence[Any] = ()) -> None:
        with self._lock:
            if self._closed:
                return
            if self._rings is not None:
                self.stats()
            self._closed = True
            self.link_fd = -1
            card = self._card
            if card is not None:
                self._on_the_way_out(lambda: self._quiet(card))
            self._on_the_way_out(lambda: reset.bus_master(self._transport.config, False))
            self._on_the_way_out(self._transport.irq.stop)
            if self._rings is not None:
                rings, self._rings = self._rings, None
                # a server that is gone has nothing mapped any more
                self._on_the_way_out(lambda: rings.close(pools))
            self._transport.close()
            self._umem.release()

    def _quiet(self, card: Card) -> None:
        """Receive stopped, what was handed over sent, queues off, the firmware told, the card reset."""
        try:
            if self._rings is not None and self._reset_again_at is None:
                filters.disable_receive(card)
                self._drain(self._rings)
                for q in range(self.n_queues):
                    receive.disable_queue(card, q)
                    transmit.disable_queue(card, q)
                self._link.stop()
            reset.take(card, False)
        except Timeout as error:  # the reset ends it all the same
            card.warn(f"on the way out: {error}")
        reset.leave_in_reset(card)

    def _drain(self, rings: Rings) -> None:
        end = self._clock.now() + _DRAIN_SECONDS
        while self._link.read().up and rings.in_flight() and self._clock.now() < end:
            self._clock.sleep(1e-3)

    def _on_the_way_out(self, step: Callable[[], object]) -> None:
        """Whatever happens is no more than a line in the log, and one that is not the line before."""
        try:
            step()
        except (RegisterError, TransportError, OSError) as error:
            if self._card is not None and str(error) != self._last_words:
                self._card.warn(f"on the way out: {error}")
            self._last_words = str(error)
