"""The card's side of an ixgbe queue, played slowly on its memory: heads, descriptors, two tails, a vector's mask.

Obvious on purpose: one packet at a time, everything read back from the memory that the driver wrote. It reads the
descriptors' formats by itself (datasheet 331520: 7.1.6, 7.2.3.2.4) and checks what the driver promises about them.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.umem import Umem

DD, EOP, L4CS, IPCS = 1, 2, 1 << 5, 1 << 6
RXE, L4E, IPE = 1 << 29, 1 << 30, 1 << 31
TYPE_IP4, TYPE_TCP, TYPE_UDP, TYPE_FILTERED = 1 << 4, 1 << 8, 1 << 9, 1 << 15
IOVA = 0x7_0000_0000
PAGE = 2 << 20


@dataclass
class Registers:
    """What the card has in its BAR for one queue."""

    words: Any

    RDT, TDT, EIMS = 0, 16, 32  # indexes; a cache line each

    def __getitem__(self, index: int) -> int:
        return int(self.words[index])

    def __setitem__(self, index: int, value: int) -> None:
        self.words[index] = value


class RingNic:
    """A queue (`queue`, `ring`) and the card behind it. Frames of the pool are what the caller refills with."""

    def __init__(
        self,
        umem: Umem,
        *,
        rx_slots: int = 64,
        tx_slots: int = 64,
        buffer_bytes: int = 1024,
        headroom: int = 256,
        head_write_back: bool = False,
        pages: bool = False,
        interrupts: bool = False,
        port: int = 3,
    ) -> None:
        self.umem, self.buffer_bytes, self.headroom = umem, buffer_bytes, headroom
        self.rx_slots, self.tx_slots = rx_slots, tx_slots
        self._room: Any = ffi.new("uint8_t[]", (rx_slots + tx_slots) * 16 + 256)
        skip = -int(ffi.cast("uintptr_t", self._room)) % 128
        self._rx, self._tx = self._room + skip, self._room + skip + rx_slots * 16
        self.rx = ffi.buffer(self._rx, rx_slots * 16)
        self.tx = ffi.buffer(self._tx, tx_slots * 16)
        self.head: Any = ffi.new("uint32_t[16]") if head_write_back else ffi.NULL
        self.registers = Registers(ffi.new("uint32_t[64]"))
        self.event = os.eventfd(0, os.EFD_NONBLOCK) if interrupts else -1
        self._pages = None
        if pages:  # backwards, so that no two neighbours are neighbours
            n = -(-umem.bytes // PAGE)
            self._pages = [IOVA + (n - i) * 2 * PAGE for i in range(n)]
        self.rx_head = self.tx_head = 0
        self._make(port, interrupts)

    def _make(self, port: int, interrupts: bool) -> None:
        self.bells: list[Any] = [ffi.new("struct doorbell *") for _ in range(3)]
        indexes = (Registers.RDT, Registers.TDT, Registers.EIMS)
        for bell, index in zip(self.bells, indexes, strict=True):
            lib.doorbell_to_register(bell, self.registers.words + index, -1, ffi.NULL)
        config = self.config = ffi.new("struct ixgbe_ring_config *")
        config.umem = self.umem.c
        config.frames.base = IOVA
        if self._pages:
            self._page_table = ffi.new("uint64_t[]", self._pages)
            config.frames.pages = self._page_table
        config.rx_ring, config.tx_ring, config.tx_head = self._rx, self._tx, self.head
        config.rx_slots, config.tx_slots = self.rx_slots, self.tx_slots
        config.buffer_bytes, config.headroom = self.buffer_bytes, self.headroom
        config.port, config.event, config.vector_bit = port, self.event, 4
        config.rx_tail, config.tx_tail = self.bells[0], self.bells[1]
        if interrupts:
            config.unmask = self.bells[2]
        self.ring = lib.ixgbe_ring_create(config)
        assert self.ring != ffi.NULL
        self.queue = lib.ixgbe_ring_queue(self.ring)

    def offset(self, iova: int) -> int:
        """Of umem, for an address that the driver wrote into a descriptor."""
        if self._pages is None:
            return iova - IOVA
        page = self._pages.index(iova & ~(PAGE - 1))
        return page * PAGE + iova % PAGE

    # ---- receiving

    def posted(self) -> int:
        """Descriptors that the card may use."""
        return (self.registers[Registers.RDT] - self.rx_head) % self.rx_slots

    def write_back(self, slot: int, low: int, high: int) -> None:
        """high first would be a card that says done too early; 8 bytes at a time, as the driver reads them."""
        struct.pack_into("<Q", self.rx, slot * 16, low)
        struct.pack_into("<Q", self.rx, slot * 16 + 8, high)

    def deliver(self, packet: bytes, status: int = 0, packet_type: int = 0) -> int | None:
        """A packet from the wire into as many buffers as it needs. Returns where in umem it begins; None when the
        ring has too few descriptors (it is lost, as on a wire). Status and type are those of its last descriptor."""
        parts = [packet[i : i + self.buffer_bytes] for i in range(0, len(packet), self.buffer_bytes)]
        if len(parts) > self.posted():
            return None
        first = None
        for part in parts:
            address, header = struct.unpack_from("<QQ", self.rx, self.rx_head * 16)
            assert header == 0, "hdr_addr must be written 0: it is where DD is"
            at = self.offset(address)
            assert self._is_buffer(at), f"a buffer at {at:#x}"
            first = at if first is None else first
            copy_in(self.umem, at, part)
            last = part is parts[-1]
            bits = DD | (EOP | status if last else 0)
            self.write_back(self.rx_head, packet_type | 0x5EED << 32, bits | len(part) << 32)
            self.rx_head = (self.rx_head + 1) % self.rx_slots
        return first

    def _is_buffer(self, at: int) -> bool:
        into = at % self.umem.frame_bytes
        return (
            at < self.umem.n_frames * self.umem.frame_bytes
            and into >= self.headroom
            and into + self.buffer_bytes <= self.umem.frame_bytes
            and into % 64 == 0
        )

    # ---- sending

    def transmit(self, limit: int | None = None) -> list[bytes]:
        """Sends what the tail says, up to limit packets."""
        sent = []
        while self.tx_head != self.registers[Registers.TDT] and (limit is None or len(sent) < limit):
            address, word = struct.unpack_from("<QQ", self.tx, self.tx_head * 16)
            length = word & 0xFFFF
            assert word >> 20 & 0xF == 3, "DTYP: advanced data"
            assert word >> 24 & 1, "EOP"
            assert word >> 25 & 1, "IFCS"
            assert word >> 29 & 1, "DEXT"
            assert word >> 46 == length, "PAYLEN"
            assert word & ~(0xFFFF | 3 << 20 | 0x2B << 24 | 0x3FFFF << 46) == 0
            assert length >= 17, "the card takes no shorter packet"
            at = self.offset(address)
            sent.append(bytes(ffi.buffer(self.umem.c.base + at, length)))
            self.tx_head = (self.tx_head + 1) % self.tx_slots
            if word >> 27 & 1:  # RS
                if self.head == ffi.NULL:
                    struct.pack_into("<Q", self.tx, (self.tx_head - 1) % self.tx_slots * 16 + 8, 1 << 32)
                else:
                    self.head[0] = self.tx_head
        return sent

    # ---- interrupts

    def interrupt(self) -> bool:
        """Raises the vector if it is not masked, which masks it (EIAM). Returns whether it did."""
        if not self.registers[Registers.EIMS]:
            return False
        self.registers[Registers.EIMS] = 0
        os.eventfd_write(self.event, 1)
        return True

    # ---- life

    def reset(self) -> None:
        """As the driver does around ixgbe_ring_restart: the card's registers begin anew."""
        self.rx_head = self.tx_head = 0
        for index in range(64):
            self.registers[index] = 0

    def close(self, pool: Any = ffi.NULL) -> None:
        lib.ixgbe_ring_destroy(self.ring, pool)
        if self.event >= 0:
            os.close(self.event)


def copy_in(umem: Umem, at: int, data: bytes) -> None:
    ffi.memmove(umem.c.base + at, data, len(data))
