"""The rings of a port: their memory, which the card shares, and the C side that workers run (ring.h, park.h)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.dma import DmaBuffer
from ixroute.driver.ixgbe.card import CardError
from ixroute.driver.ixgbe.receive import Ring
from ixroute.driver.ixgbe.registers import table
from ixroute.driver.transport import DmaMapping, Region, Transport
from ixroute.driver.umem import HEADROOM, Umem

DESCRIPTOR_BYTES = 16
FEWEST_SLOTS, MOST_SLOTS = 64, 4096
_HEAD_BYTES = 64  # a transmit head has a cache line of its own
HUGE_PAGE = 2 << 20


def buffer_kib(frame_bytes: int) -> int:
    """How much of a frame the card may write, which it can be told in whole KiB only (SRRCTL): at most 16."""
    return min((frame_bytes - HEADROOM) // 1024, 16)


class Layout:
    """Where the rings of each queue lie in their memory. A ring is aligned to its own size, so that none crosses
    the end of a huge page: memory is contiguous for the card no further."""

    def __init__(self, queues: int, rx_slots: int, tx_slots: int) -> None:
        rx, tx = rx_slots * DESCRIPTOR_BYTES, tx_slots * DESCRIPTOR_BYTES
        large, small = max(rx, tx), min(rx, tx)
        larger = [i * large for i in range(queues)]
        smaller = [queues * large + i * small for i in range(queues)]
        self.rx, self.tx = (larger, smaller) if rx >= tx else (smaller, larger)
        heads = queues * (large + small)
        self.heads = [heads + i * _HEAD_BYTES for i in range(queues)]
        self.bytes = heads + queues * _HEAD_BYTES


class Rings:
    """All rings of one port. vectors: an eventfd for each queue, or none at all: then workers cannot sleep on it.

    Made before the card is told of them, closed after it was reset.
    """

    def __init__(
        self,
        port: int,
        umem: Umem,
        transport: Transport,
        region: Region,
        queues: int,
        slots: tuple[int, int],
        vectors: Sequence[int],
    ) -> None:
        self.slots = slots
        self._transport = transport
        self._layout = Layout(queues, *slots)
        self._keep: list[Any] = []
        self._rings: list[Any] = []
        self._parks: list[Any] = []
        with contextlib.ExitStack() as undo:
            self.memory = DmaBuffer(self._layout.bytes)
            undo.callback(self.memory.close)
            frames = transport.dma_map(umem)
            undo.callback(transport.dma_unmap, umem)
            self._mapping = transport.dma_map(self.memory)
            undo.callback(transport.dma_unmap, self.memory)
            undo.callback(self._destroy)
            frames_map = self._c_map(frames)
            for q in range(queues):
                self._create(port, umem, region, q, frames_map, vectors[q] if vectors else -1)
            self._undo = undo.pop_all()

    def _c_map(self, mapping: DmaMapping) -> Any:
        c_map = ffi.new("struct dma_map *", {"base": mapping.base})
        if mapping.pages is not None:
            pages = ffi.new("uint64_t[]", list(mapping.pages))
            self._keep.append(pages)
            c_map.pages = pages
        return c_map

    def _create(self, port: int, umem: Umem, region: Region, q: int, frames: Any, event: int) -> None:
        registers = table()
        config = ffi.new("struct ixgbe_ring_config *")
        config.umem = umem.c
        config.frames = frames[0]
        config.rx_slots, config.tx_slots = self.slots
        config.rx_ring = self.memory.pointer(self._layout.rx[q])
        config.tx_ring = self.memory.pointer(self._layout.tx[q])
        config.tx_head = ffi.cast("uint32_t *", self.memory.pointer(self._layout.heads[q]))
        config.buffer_bytes = buffer_kib(umem.frame_bytes) * 1024
        config.headroom = HEADROOM
        config.port, config.number = port, q
        config.rx_tail = region.bell(registers["RDT"].offset(q))
        config.tx_tail = region.bell(registers["TDT"].offset(q))
        if event >= 0:
            config.vector_bit = 1 << (q & 31)
            config.unmask = region.bell(registers["EIMS_EX"].offset(q >> 5), config.vector_bit)
        config.event = event
        ring = lib.ixgbe_ring_create(config)
        if ring == ffi.NULL:
            raise CardError(f"no memory for the rings of queue {q}")
        self._rings.append(ring)
        park = lib.ixgbe_park_create(ring)
        if park == ffi.NULL:
            raise CardError(f"no memory for the rings of queue {q}")
        self._parks.append(park)

    def queues(self) -> list[Any]:
        """`struct queue *` of each."""
        return [lib.ixgbe_ring_queue(ring) for ring in self._rings]

    def rx(self, q: int) -> Ring:
        """As the card is told of it."""
        return Ring(self._mapping.iova(self._layout.rx[q]), self.slots[0])

    def tx(self, q: int) -> Ring:
        return Ring(
            self._mapping.iova(self._layout.tx[q]), self.slots[1], self._mapping.iova(self._layout.heads[q])
        )

    def in_flight(self) -> int:
        """Packets handed over and not yet seen sent."""
        return sum(lib.ixgbe_ring_in_flight(ring) for ring in self._rings)

    # ---- out of service

    def park(self) -> None:
        """Each worker lets go of its queue in its next call of it."""
        for park in self._parks:
            lib.ixgbe_park_begin(park)
        self._wake()

    def held(self, patience: float = 0.0) -> list[int]:
        """Queues, once parked, that their workers have not let go of within so many seconds. None: no worker touches a
        ring or the card from now on."""
        end = time.monotonic() + patience
        while late := [q for q, park in enumerate(self._parks) if not lib.ixgbe_park_seen(park)]:
            if time.monotonic() >= end:
                break
            time.sleep(100e-6)
        return late

    def unpark(self, reset: bool) -> None:
        """In service again. reset: the card was, so each worker begins its ring anew."""
        for park in self._parks:
            lib.ixgbe_park_end(park, int(reset))
        self._wake()

    def _wake(self) -> None:
        for queue in self.queues():
            if queue.wait_fd >= 0:
                lib.shared_event_give(queue.wait_fd)

    # ---- the end

    def _destroy(self, pools: Sequence[Any] = ()) -> None:
        for park in self._parks:
            lib.ixgbe_park_destroy(park)
        for q, ring in enumerate(self._rings):
            lib.ixgbe_ring_destroy(ring, pools[q % len(pools)] if pools else ffi.NULL)
        self._parks.clear()
        self._rings.clear()

    def close(self, pools: Sequence[Any] = ()) -> None:
        """The card reaches nothing any more. Each pool gets back the frames that its queues' rings held. Idempotent."""
        self._destroy(pools)
        self._undo.close()
