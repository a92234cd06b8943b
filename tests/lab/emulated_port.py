"""An emulated card in this process with a wire in memory, and our driver's port on it."""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.ixgbe.port import IxgbePort
from ixroute.driver.ixgbe.regfile import Clock
from ixroute.driver.port import PortOptions
from ixroute.driver.transport import Transport
from ixroute.driver.umem import Umem
from ixroute.driver.vfio_user import VfioUserTransport
from ixroute.emulator.card import Card, CardOptions
from ixroute.emulator.engine import POLL_NS, Engine
from ixroute.emulator.faults import Faults
from ixroute.emulator.registers import offset_of
from ixroute.vfio_user.device import IoEvent
from ixroute.vfio_user.server import Server
from lab.inprocess import InProcess
from lab.support import wait_until

WIRE_BYTES = 1 << 20
MAC = bytes.fromhex("025990000001")
"""Of an emulated card, unless it is told another."""
OTHER = bytes.fromhex("025990000099")


def numbered(number: int, length: int = 64, to: bytes = MAC) -> bytes:
    """A packet of UDP over IPv4, without checksums; the number is in its source address and content."""
    head = to + bytes.fromhex("021122334455") + b"\x08\x00"
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, length - 14, 0, 0, 64, 17, 0, number & 0xFFFFFFFF, 0x0A000001)
    udp = struct.pack(">HHHH", 5000, 80, length - 34, 0)
    content = (number & 0xFFFFFFFF).to_bytes(4, "big") * (length // 4 + 1)
    return (head + ip + udp + content)[:length]


MISDEEDS = (
    "unknown_registers",
    "writes_to_read_only",
    "writes_to_running_heads",
    "dma_faults",
    "bad_descriptors",
)
"""Counters of the card that stay 0 with a driver that does nothing wrong."""


@dataclass
class Tally:
    packets: int = 0
    bytes: int = 0

    def add(self, packet: bytes) -> None:
        self.packets += 1
        self.bytes += len(packet)


class CardClock(Clock):
    """Time that passes only while the driver sleeps, so that no limit of its waits depends on how long it computes; an
    engine that no thread runs works meanwhile, as a card does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._now = 1000.0

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        if self._engine.running:
            time.sleep(min(seconds, 1e-3))  # on a busy machine its thread needs time of its own
        else:
            self._engine.step()

    def pass_by(self, seconds: float) -> None:
        self._now += seconds


class Hands:
    """The workers of a port, played by a test: receive(q), send(q, …). What goes through their hands is counted."""

    umem: Umem
    pools: list[Any]
    port: IxgbePort
    queues: list[Any]

    def __init__(self) -> None:
        self.received = Tally()
        self.sent = Tally()

    def refill(self) -> None:
        for q, queue in enumerate(self.queues):
            lib.queue_reclaim(queue, self.pools[q])
            lib.queue_refill(queue, self.pools[q])
            lib.queue_tx_doorbell(queue)

    def receive(self, q: int = 0) -> list[bytes]:
        """What queue q has; its frames go back to the pool."""
        frames = ffi.new("struct frame[]", 64)
        packets = []
        while n := lib.queue_rx_burst(self.queues[q], frames, 64):
            for frame in frames[0:n]:
                packets.append(bytes(ffi.buffer(self.umem.c.base + frame.addr, frame.len)))
                self.received.add(packets[-1])
                lib.frame_pool_put(self.pools[q], self.umem.c, frame.addr)
        return packets

    def receive_all(self) -> list[list[bytes]]:
        """By queue; the rings are filled again."""
        packets = [self.receive(q) for q in range(len(self.queues))]
        self.refill()
        return packets

    def receive_any(self) -> list[bytes]:
        """Of all queues, those of queue 0 first."""
        return [packet for packets in self.receive_all() for packet in packets]

    def send(self, q: int, *packets: bytes) -> int:
        """Hands packets to queue q and rings; how many it took."""
        frames = ffi.new("struct frame[]", len(packets))
        for frame, packet in zip(frames, packets, strict=True):
            at = ffi.new("uint64_t[1]")
            assert lib.frame_pool_get(self.pools[q], at, 1) == 1
            frame.addr, frame.len = at[0] + 256, len(packet)
            ffi.buffer(self.umem.c.base + frame.addr, len(packet))[:] = packet
        taken = int(lib.queue_tx_burst(self.queues[q], frames, len(packets)))
        for frame in frames[taken : len(packets)]:
            lib.frame_pool_put(self.pools[q], self.umem.c, frame.addr)
        lib.queue_tx_doorbell(self.queues[q])
        for packet in packets[:taken]:
            self.sent.add(packet)
        return taken

    def free_frames(self) -> int:
        return sum(int(pool.n) for pool in self.pools)

    def close(self) -> None:
        """Closes the port: every frame comes back, each once."""
        self.port.close(self.pools)
        assert [int(pool.n) for pool in self.pools] == [int(pool.capacity) for pool in self.pools]
        frames = ffi.new("uint64_t[]", self.free_frames())
        each = 0
        for pool in self.pools:
            each += lib.frame_pool_get(pool, frames + each, pool.n)
        assert len(set(frames)) == each == len(frames), "some frame is there twice"
        for i, pool in enumerate(self.pools):
            for frame in frames[i * each // len(self.pools) : (i + 1) * each // len(self.pools)]:
                lib.frame_pool_put(pool, self.umem.c, frame)


class EventlessCard(Card):
    """Tells clients of no event: a tail is a mapped register that the engine looks at, or a message."""

    def io_events(self, region: int) -> Sequence[IoEvent]:
        return ()


class EmulatedPort(Hands):
    """card, port, and what a test does with them. The engine moves packets when step() is called, in this thread.

    What is put on the wire and collected from it is counted too, for settle().
    """

    def __init__(
        self,
        queues: int = 1,
        options: PortOptions | None = None,
        card: CardOptions | None = None,
        faults: Faults | None = None,
        frame_bytes: int = 4096,
        spare_frames: int = 256,
        sleeps: bool = False,
        poll_ns: int = POLL_NS,
        socket: bool = False,
        events: bool = True,
    ) -> None:
        """socket: the card is served over vfio-user by a thread of its own, else called in this one. spare_frames: of
        each worker, beyond what its rings hold. sleeps: the engine, once started, may sleep until a packet is put on
        the wire; poll_ns: after so long without work. events: clients may write tails past the socket; else they are
        mapped (CardOptions.map_bar) or messages."""
        options = options or PortOptions(rx_slots=64, tx_slots=64)
        super().__init__()
        self._rx_slots = options.slots(1)[0]
        self.delivered = Tally()
        self.collected = Tally()
        with contextlib.ExitStack() as undo:
            self.engine = Engine(poll_ns=poll_ns, scan=bool(card and card.map_bar))
            undo.callback(self.engine.close)
            event = -1
            if sleeps:
                event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                undo.callback(os.close, event)
            self.wire = lib.wire_memory_create(WIRE_BYTES, event)
            undo.callback(lib.wire_memory_destroy, self.wire)
            self.card = (Card if events else EventlessCard)(self._attach, card, faults)
            undo.callback(self.card.close)
            self.card.set_carrier(True)
            each = sum(options.slots(1)) + spare_frames
            self.umem = Umem(each * queues, frame_bytes, "off")
            undo.callback(self.umem.close)
            self.pools = [self.umem.pool(each) for _ in range(queues)]
            self.transport = self._serve(undo) if socket else InProcess(self.card)
            self.clock = CardClock(self.engine)
            self.port = IxgbePort(
                "p", 0, "vfio-user:here", self.umem, queues, options, self.transport, clock=self.clock
            )
            undo.callback(self.port.close)
            self.queues = self.port.queues()
            self._undo = undo.pop_all()

    def _serve(self, undo: contextlib.ExitStack) -> Transport:
        ours, theirs = sockets.socketpair()
        self.server = server = Server(theirs, self.card)
        undo.callback(server.close)
        thread = threading.Thread(target=server.serve_forever, name="vfio-user server")
        thread.start()
        undo.callback(thread.join)
        undo.callback(server.stop)
        return VfioUserTransport(self.between(undo, ours), self.timeout_s)

    timeout_s = 5.0

    def between(self, undo: contextlib.ExitStack, server: sockets.socket) -> sockets.socket:
        """The client's socket, when somebody stands between it and the server's."""
        return server

    def _attach(self, image: Any) -> Any:
        engine = self.engine.card(image.memory)
        engine.plug(self.wire)
        return engine

    def __enter__(self) -> EmulatedPort:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def step(self, n: int = 4) -> None:
        """Lets the card do what it has to do."""
        for _ in range(n):
            self.engine.step()

    def deliver(self, *packets: bytes) -> None:
        """Packets arrive on the wire."""
        for packet in packets:
            assert lib.wire_memory_put(self.wire, packet, len(packet)) == 1
            self.delivered.add(packet)

    def until_room(self, packets: int = 1, q: int = 0) -> None:
        """Waits until a worker in a thread of its own has given the card buffers for so many packets: what comes
        before it did, after a reset or a burst, is lost, as it is with any card."""
        image, slots = self.card.image, self._rx_slots

        def room() -> int:
            return (image.load(offset_of("RDT", q)) - image.load(offset_of("RDH", q))) % slots

        wait_until(lambda: room() >= packets, 30, lambda: f"room for {room()} packets, not {packets}")

    def collect(self) -> list[bytes]:
        """What the card has put on the wire."""
        return list(self._collect())

    def _collect(self) -> Iterator[bytes]:
        room = ffi.new("uint8_t[]", 16384)
        while length := lib.wire_memory_take(self.wire, room, 16384):
            packet = bytes(ffi.buffer(room, length))
            self.collected.add(packet)
            yield packet

    def healthy(self) -> None:
        """The card met nothing that a driver must not do."""
        counts = self.card.counters()
        assert {name: counts[name] for name in MISDEEDS} == dict.fromkeys(MISDEEDS, 0)

    def settle(self, filtered: int = 0, oversize: int = 0) -> dict[str, int]:
        """The end of a scenario without resets: all packets and bytes are accounted for by the port's statistics, all
        frames are back once it is closed, and the card met nothing wrong. filtered, oversize: packets delivered that
        the card was not to take. Returns the statistics."""
        stats = self.port.stats()
        queues = range(min(len(self.queues), 16))
        lost = filtered + oversize + stats["rx_missed"]
        assert self.delivered.packets == self.received.packets + lost + stats["rx_bad"]
        assert stats["rx_total_packets"] == self.delivered.packets
        assert stats["rx_total_bytes"] == self.delivered.bytes + 4 * self.delivered.packets
        assert stats["rx_packets_mac"] == self.delivered.packets - oversize
        assert stats["rx_oversize"] == oversize
        in_queues = sum(stats[f"rx_queue_{q}_packets"] for q in queues)
        assert in_queues == self.received.packets + stats["rx_bad"]
        if not stats["rx_bad"]:
            assert sum(stats[f"rx_queue_{q}_bytes"] for q in queues) == self.received.bytes
        assert sum(stats[f"rx_queue_{q}_dropped"] for q in queues) == stats["rx_no_descriptor"]
        assert self.sent == self.collected
        assert stats["tx_packets_mac"] == stats["tx_total_packets"] == self.sent.packets
        assert stats["tx_bytes_mac"] == self.sent.bytes + 4 * self.sent.packets
        assert sum(stats[f"tx_queue_{q}_packets"] for q in queues) == self.sent.packets
        assert sum(stats[f"tx_queue_{q}_bytes"] for q in queues) == self.sent.bytes
        self.close()
        return stats

    def close(self) -> None:
        """And the card has no memory of ours any more, and met nothing wrong."""
        super().close()
        assert self.card.counters()["dma_ranges"] == 0
        self.healthy()
