"""An emulated card in this process with a wire in memory, and our driver's port on it."""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.ixgbe.port import IxgbePort
from ixroute.driver.port import PortOptions
from ixroute.driver.transport import Transport
from ixroute.driver.umem import Umem
from ixroute.driver.vfio_user import VfioUserTransport
from ixroute.emulator.card import Card, CardOptions
from ixroute.emulator.engine import Engine
from ixroute.emulator.faults import Faults
from ixroute.vfio_user.device import IoEvent
from ixroute.vfio_user.server import Server
from lab.inprocess import InProcess

WIRE_BYTES = 1 << 20


class EventlessCard(Card):
    """Tells clients of no event: a tail is a mapped register that the engine looks at, or a message."""

    def io_events(self, region: int) -> Sequence[IoEvent]:
        return ()


class EmulatedPort:
    """card, port, and what a test does with them. The engine moves packets when step() is called, in this thread.

    Worker q is this test: receive(q), send(q, …).
    """

    def __init__(
        self,
        queues: int = 1,
        options: PortOptions | None = None,
        card: CardOptions | None = None,
        faults: Faults | None = None,
        frame_bytes: int = 4096,
        socket: bool = False,
        events: bool = True,
    ) -> None:
        """socket: the card is served over vfio-user by a thread of its own, else called in this one. events:
        clients may write tails past the socket; else they are mapped (CardOptions.map_bar) or messages."""
        options = options or PortOptions(rx_slots=64, tx_slots=64)
        with contextlib.ExitStack() as undo:
            self.engine = Engine(scan=bool(card and card.map_bar))
            undo.callback(self.engine.close)
            self.wire = lib.wire_memory_create(WIRE_BYTES, -1)
            undo.callback(lib.wire_memory_destroy, self.wire)
            self.card = (Card if events else EventlessCard)(self._attach, card, faults)
            undo.callback(self.card.close)
            self.card.set_carrier(True)
            each = 2 * sum(options.slots(1)) + 256
            self.umem = Umem(each * queues, frame_bytes, "off")
            undo.callback(self.umem.close)
            self.pools = [self.umem.pool(each) for _ in range(queues)]
            self.transport = self._serve(undo) if socket else InProcess(self.card)
            self.port = IxgbePort("p", 0, "vfio-user:here", self.umem, queues, options, self.transport)
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

    def collect(self) -> list[bytes]:
        """What the card has put on the wire."""
        return list(self._collect())

    def _collect(self) -> Iterator[bytes]:
        room = ffi.new("uint8_t[]", 16384)
        while length := lib.wire_memory_take(self.wire, room, 16384):
            yield bytes(ffi.buffer(room, length))

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
                lib.frame_pool_put(self.pools[q], self.umem.c, frame.addr)
        return packets

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
        return taken

    def free_frames(self) -> int:
        return sum(int(pool.n) for pool in self.pools)
