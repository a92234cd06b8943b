"""A client of one emulated card, all of it in this process: memory, rings, registers, and the far end of the wire.

Register offsets and descriptor layouts are written here once more, from the datasheet, not taken from the engine.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.emulator.engine import BAR_BYTES, CardEngine, Engine

BASE = 0x7_0000_0000
MEMORY = 4 << 20
RINGS = 0x10_0000
"""Memory below holds packet buffers, rings are above."""

HLREG0, MAXFRS, RXCTRL, DMATXCTL, FCTRL, VLNCTRL = 0x4240, 0x4268, 0x3000, 0x4A80, 0x5080, 0x5088
RXPBSIZE, RXCSUM, MRQC, RETA, RSSRK, RAL, GPIE = 0x3C00, 0x5000, 0xEC80, 0x5C00, 0x5C80, 0xA200, 0x898
IVAR, IVAR_MISC, EITR, EICR, EICS, EIAC = 0x900, 0xA00, 0x820, 0x800, 0x808, 0x810
EIMS, EIMC, EIAM, EIMS_EX, EIMC_EX, EIAM_EX, EICS_EX = 0x880, 0x888, 0x890, 0xAA0, 0xAB0, 0xAD0, 0xA90
BAM, UPE, MPE = 1 << 10, 1 << 9, 1 << 8
ENABLE, DROP_EN, VME = 1 << 25, 1 << 28, 1 << 30
DD, EOP = 1, 2
VP, UDPCS, L4CS, IPCS, UDPV, TCPE, IPE = 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 10, 1 << 30, 1 << 31
IFCS, RS, DEXT, VLE, TSE = 1 << 25, 1 << 27, 1 << 29, 1 << 30, 1 << 31
TX_EOP, DATA, CONTEXT = 1 << 24, 3 << 20, 2 << 20
IXSM, TXSM = 1 << 40, 2 << 40

MAC = bytes.fromhex("02aabbccddee")
PEER = bytes.fromhex("025566778899")
BROADCAST = b"\xff" * 6


@dataclass
class Received:
    """A packet in the client's memory and what its last descriptor says."""

    bytes: bytes
    low: int
    high: int
    descriptors: int

    @property
    def status(self) -> int:
        """Status and errors, as in the upper quadword's bits 31:0."""
        return self.high & 0xFFFFFFFF

    @property
    def hash(self) -> int:
        return self.low >> 32

    @property
    def rss_type(self) -> int:
        return self.low & 15

    @property
    def type(self) -> int:
        return self.low & 0xFFF0

    @property
    def vlan(self) -> int:
        return self.high >> 48


class RxQueue:
    def __init__(self, rig: Rig, number: int, n: int, buffer_bytes: int, flags: int, kind: int) -> None:
        self.rig, self.number, self.n, self.buffer_bytes = rig, number, n, buffer_bytes
        self.regs = 0x1000 + 0x40 * number if number < 64 else 0xD000 + 0x40 * (number - 64)
        self.ring = rig.take(16 * n, 128)
        self.buffers = [rig.take(buffer_bytes, 64) for _ in range(n)]
        self.tail = self.next = 0
        rig.set(self.regs, (BASE + self.ring) & 0xFFFFFFFF)
        rig.set(self.regs + 4, (BASE + self.ring) >> 32)
        rig.set(self.regs + 8, 16 * n)
        rig.set(self.regs + 0x10, 0)
        rig.set(self.regs + 0x18, 0)
        rig.set(self.regs + 0x14, buffer_bytes // 1024 | kind << 25 | flags & DROP_EN)
        rig.set(self.regs + 0x28, ENABLE | flags & VME)
        rig.card.queue_changed(False, number)

    def post(self, n: int | None = None) -> None:
        """n buffers more (default: as many as the ring holds)."""
        n = self.n - 1 - self.posted if n is None else n
        for _ in range(n):
            self.rig.poke(self.ring + 16 * self.tail, struct.pack("<QQ", BASE + self.buffers[self.tail], 0))
            self.tail = (self.tail + 1) % self.n
        self.rig.set(self.regs + 0x18, self.tail)
        self.rig.card.kick()

    @property
    def posted(self) -> int:
        return (self.tail - self.next) % self.n

    @property
    def head(self) -> int:
        return self.rig.get(self.regs + 0x10)

    def take(self) -> Received | None:
        """The next packet, when all its descriptors are there."""
        data, at, count = b"", self.next, 0
        while True:
            low, high = struct.unpack("<QQ", self.rig.peek(self.ring + 16 * at, 16))
            if at == self.tail or not high & DD:
                return None
            length = high >> 32 & 0xFFFF
            data += self.rig.peek(self.buffers[at], length)
            at, count = (at + 1) % self.n, count + 1
            if high & EOP:
                self.next = at
                return Received(data, low, high, count)

    def take_all(self) -> list[Received]:
        out = []
        while packet := self.take():
            out.append(packet)
        return out


POPTS = 0x3F << 40  # counts in a packet's first descriptor (7.2.3.2.4)


class TxQueue:
    def __init__(self, rig: Rig, number: int, n: int) -> None:
        self.rig, self.number, self.n = rig, number, n
        self.regs = 0x6000 + 0x40 * number
        self.ring = rig.take(16 * n, 128)
        self.tail = 0
        rig.set(self.regs, (BASE + self.ring) & 0xFFFFFFFF)
        rig.set(self.regs + 4, (BASE + self.ring) >> 32)
        rig.set(self.regs + 8, 16 * n)
        rig.set(self.regs + 0x10, 0)
        rig.set(self.regs + 0x18, 0)
        rig.set(self.regs + 0x28, ENABLE)
        rig.card.queue_changed(True, number)

    def descriptor(self, first: int, second: int) -> int:
        """Writes one; where it is in the ring."""
        at = self.tail
        self.rig.poke(self.ring + 16 * at, struct.pack("<QQ", first, second))
        self.tail = (at + 1) % self.n
        return at

    def doorbell(self) -> None:
        self.rig.set(self.regs + 0x18, self.tail)
        self.rig.card.kick()

    def send(
        self, packet: bytes, flags: int = 0, cuts: Sequence[int] = (), payload: int | None = None
    ) -> int:
        """An advanced data descriptor, or several: cut at these offsets. flags: of every descriptor but RS, which is of
        the last, and POPTS, which is of the first. Where the last descriptor is. The doorbell is rung."""
        edges = [0, *cuts, len(packet)]
        payload = len(packet) if payload is None else payload
        last = 0
        for i, (start, end) in enumerate(itertools.pairwise(edges)):
            where = self.rig.take(max(end - start, 1), 1)
            self.rig.poke(where, packet[start:end])
            second = end - start | DATA | DEXT | IFCS | flags & ~(RS | POPTS)
            if i == 0:
                second |= payload << 46 | flags & POPTS
            if i == len(edges) - 2:
                second |= TX_EOP | flags & RS
            last = self.descriptor(BASE + where, second)
        self.doorbell()
        return last

    def context(
        self,
        mac: int,
        ip: int,
        l4: int = 0,
        mss: int = 0,
        *,
        ip4: bool = True,
        kind: int = 1,
        vlan: int = 0,
        at: int = 0,
    ) -> None:
        """kind: 0 UDP, 1 TCP, 2 SCTP."""
        first = vlan << 16 | mac << 9 | ip
        second = mss << 48 | l4 << 40 | at << 36 | DEXT | CONTEXT | kind << 11 | int(ip4) << 10
        self.descriptor(first, second)

    def done(self, at: int) -> bool:
        return bool(self.rig.peek(self.ring + 16 * at + 12, 1)[0] & DD)

    @property
    def head(self) -> int:
        return self.rig.get(self.regs + 0x10)


class Rig:
    """A card with its receiver and transmitter on, link up, promiscuous unless told otherwise."""

    def __init__(self, *, engine: Engine | None = None, poll_ns: int = 0, scan: bool = False) -> None:
        self.engine = engine or Engine(poll_ns=poll_ns, scan=scan)
        self.own_engine = engine is None
        self.memory = mmap.mmap(-1, MEMORY)
        self.bar = mmap.mmap(-1, BAR_BYTES)
        self.pinned: Any = ffi.from_buffer(self.memory)
        self.address = int(ffi.cast("uintptr_t", self.pinned))
        self.free = 0
        self.card: CardEngine = self.engine.card(self.bar)
        self.card.dma_map(BASE, MEMORY, self.address)
        self.wire_event = os.eventfd(0, os.EFD_NONBLOCK)
        self.wire: Any = lib.wire_memory_create(1 << 20, self.wire_event)
        assert self.wire != ffi.NULL
        self.card.plug(self.wire)
        self.card.set_link(True)
        self.vectors: list[int] = []
        self.out: Any = ffi.new("uint8_t[]", 65536)
        self.set(RXCTRL, 1)
        self.set(DMATXCTL, 1 | 0x8100 << 16)
        self.set(HLREG0, 1 | 2 | 1 << 10)
        self.set(RXPBSIZE, 0x80000)
        self.set(FCTRL, BAM | UPE | MPE)
        self.set(VLNCTRL, 0x8100)
        self.set(RXCSUM, 1 << 13)
        self.filters()

    def set(self, offset: int, value: int) -> None:
        """An ordinary register, in the image."""
        struct.pack_into("<I", self.bar, offset, value)

    def get(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.bar, offset)[0])

    def read(self, offset: int) -> int:
        """A register of the engine's own."""
        value = self.card.read(offset)
        assert value is not None, hex(offset)
        return value

    def write(self, offset: int, value: int) -> None:
        assert self.card.write(offset, value), hex(offset)

    def filters(self) -> None:
        self.card.filters_changed()

    def mac(self, index: int, address: bytes | None) -> None:
        low, high = struct.unpack("<IH", address or bytes(6))
        self.set(RAL + 8 * index, low)
        self.set(RAL + 8 * index + 4, high | (1 << 31 if address else 0))
        self.filters()

    def take(self, n: int, align: int) -> int:
        """n bytes of the client's memory."""
        at = -(-self.free // align) * align
        if at + n > MEMORY:
            raise MemoryError("the rig's memory is used up")
        self.free = at + n
        return at

    def poke(self, at: int, data: bytes) -> None:
        self.memory[at : at + len(data)] = data

    def peek(self, at: int, n: int) -> bytes:
        return self.memory[at : at + n]

    def rx(
        self,
        number: int = 0,
        n: int = 64,
        buffer_bytes: int = 2048,
        flags: int = DROP_EN,
        kind: int = 1,
        post: bool = True,
    ) -> RxQueue:
        queue = RxQueue(self, number, n, buffer_bytes, flags, kind)
        if post:
            queue.post()
        return queue

    def tx(self, number: int = 0, n: int = 64) -> TxQueue:
        return TxQueue(self, number, n)

    def arrive(self, *packets: bytes) -> None:
        for packet in packets:
            assert lib.wire_memory_put(self.wire, packet, len(packet)) == 1

    def step(self, n: int = 1) -> int:
        return sum(self.engine.step() for _ in range(n))

    def settle(self) -> None:
        """Steps until nothing moves."""
        for _ in range(10000):
            if not self.engine.step():
                return
        raise AssertionError("the card never comes to rest")

    def receive(self, queue: RxQueue, *packets: bytes) -> list[Received]:
        self.arrive(*packets)
        self.settle()
        return queue.take_all()

    def sent(self) -> list[bytes]:
        """What the card has put on the wire."""
        out = []
        while n := lib.wire_memory_take(self.wire, self.out, 65536):
            out.append(bytes(ffi.buffer(self.out, n)))
        return out

    def wire_vectors(self, n: int) -> None:
        self.vectors = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(n)]
        self.card.set_vectors(0, self.vectors)

    def fired(self, vector: int = 0) -> int:
        """How many messages the vector had since the last call."""
        try:
            return os.eventfd_read(self.vectors[vector])
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self.engine.stop()
        self.card.close()
        lib.wire_memory_destroy(self.wire)
        if self.own_engine:
            self.engine.close()
        for fd in (*self.vectors, self.wire_event):
            os.close(fd)
        ffi.release(self.pinned)
        self.memory.close()
        self.bar.close()


def ethernet(
    payload: bytes, *, dst: bytes = MAC, src: bytes = PEER, kind: int = 0x0800, tag: int | None = None
) -> bytes:
    """A frame without FCS, padded to 60 bytes."""
    shim = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    return (dst + src + shim + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def slow_sum(data: bytes) -> int:
    """The Internet checksum, word by word (RFC 1071)."""
    total = 0
    for i in range(0, len(data), 2):
        total += data[i] << 8 | (data[i + 1] if i + 1 < len(data) else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(
    payload: bytes,
    proto: int = 17,
    *,
    src: str = "10.0.0.1",
    dst: str = "10.0.0.2",
    frag: int = 0,
    options: bytes = b"",
    ident: int = 7,
) -> bytes:
    import ipaddress

    head = struct.pack(
        "!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), ident, frag, 64, proto, 0
    )
    head += ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + options
    return head[:10] + struct.pack("!H", slow_sum(head)) + head[12:] + payload


def ip6(payload: bytes, proto: int = 17, *, src: str = "fd00::1", dst: str = "fd00::2") -> bytes:
    import ipaddress

    return (
        struct.pack("!IHBB", 6 << 28, len(payload), proto, 64)
        + ipaddress.ip_address(src).packed
        + ipaddress.ip_address(dst).packed
        + payload
    )


def pseudo(ip: bytes, proto: int, length: int) -> bytes:
    """The pseudo header of what `ip` carries (RFC 9293 3.1, RFC 8200 8.1)."""
    if ip[0] >> 4 == 4:
        return ip[12:20] + struct.pack("!BBH", 0, proto, length)
    return ip[8:40] + struct.pack("!II", length, proto)


def udp(data: bytes, ip: bytes, sport: int = 1000, dport: int = 2000) -> bytes:
    """ip: any header with the right addresses."""
    head = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
    total = slow_sum(pseudo(ip, 17, 8 + len(data)) + head + data) or 0xFFFF
    return head[:6] + struct.pack("!H", total) + data


def tcp(
    data: bytes,
    ip: bytes,
    sport: int = 1000,
    dport: int = 2000,
    seq: int = 1,
    flags: int = 0x10,
    options: bytes = b"",
) -> bytes:
    offset = 5 + len(options) // 4
    head = struct.pack("!HHIIHHHH", sport, dport, seq, 99, offset << 12 | flags, 512, 0, 0) + options
    total = slow_sum(pseudo(ip, 6, len(head) + len(data)) + head + data)
    return head[:16] + struct.pack("!H", total) + head[18:] + data


def udp4(data: bytes = b"payload", sport: int = 1000, dport: int = 2000, **address: str) -> bytes:
    return ip4(udp(data, ip4(b"", **address), sport, dport), 17, **address)


def tcp4(data: bytes = b"payload", sport: int = 1000, dport: int = 2000, **address: str) -> bytes:
    return ip4(tcp(data, ip4(b"", **address), sport, dport), 6, **address)


def udp6(data: bytes = b"payload", sport: int = 1000, dport: int = 2000, **address: str) -> bytes:
    return ip6(udp(data, ip6(b"", **address), sport, dport), 17, **address)


def tcp6(data: bytes = b"payload", sport: int = 1000, dport: int = 2000, **address: str) -> bytes:
    return ip6(tcp(data, ip6(b"", **address), sport, dport), 6, **address)
