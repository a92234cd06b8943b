"""A card of the ixgbe family that is nothing but registers: what clears itself clears itself, what is to be waited for
comes at once, and anything can be made to fail. No packets. For tests of bring-up (the emulator does the rest).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.ixgbe.regfile import Clock
from ixroute.driver.transport import DmaMapping, DmaMemory

MAC = bytes.fromhex("001b21a00102")
SFP_SR = (
    bytes((3, 4, 7, 0x10, 0, 0, 0, 0, 0))
    + bytes(11)
    + b"Intel Corp".ljust(16)
    + bytes(4)
    + b"FTLX8571D3BCV-IT"
    + bytes(5)
)
PHY_ID = 0x01540223
CAUSE_LSC = 1 << 20

CTRL, STATUS, I2CCTL, EEC, EERD, EEMNGCTL = 0x0, 0x8, 0x28, 0x10010, 0x10014, 0x10110
SWSM, FWSM, SW_FW_SYNC, EICR, RAL0, RAH0 = 0x10140, 0x10148, 0x10160, 0x800, 0xA200, 0xA204
SECRXCTRL, SECRXSTAT, RDRXCTL, MSCA, MSRWD = 0x8D00, 0x8D04, 0x2F00, 0x425C, 0x4260
AUTOC, ANLP1, LINKS = 0x42A0, 0x42B0, 0x42A4
RST, LRST, GIO_DIS = 1 << 26, 1 << 3, 1 << 2
LINK_UP_10G = 0x7000_0000
COUNTERS = frozenset(range(0x3FA0, 0x3FC0, 4)) | frozenset(range(0x4000, 0x4124, 4))


class FakeClock(Clock):
    """Passes only when somebody sleeps, and a little at every look."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        self.time += 1e-6
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class FakeModule:
    """An SFP+ module on two wires: a slave at 0xA0 whose memory is `content`; empty: nobody answers."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._clk = self._data = 1
        self._pull = 1  # what the slave does to the data wire
        self._bits: list[int] = []
        self._state = "idle"
        self._at = 0

    def wires(self) -> tuple[int, int]:
        return self._clk, self._data & self._pull

    def drive(self, clk: int, data: int) -> None:
        if self._clk and clk and self._data != data:  # start or stop: data changes while the clock is high
            self._state, self._bits, self._pull = ("idle" if data else "address"), [], 1
        elif clk and not self._clk:
            self._rise(data)
        elif self._clk and not clk:
            self._fall()
        self._clk, self._data = clk, data

    def _rise(self, data: int) -> None:
        self._bits.append(data & self._pull if self._state != "read" else data)

    def _fall(self) -> None:
        if not self.content or self._state == "idle":
            return
        n = len(self._bits)
        if self._state == "read":
            if n == 9:
                if self._bits[8]:  # not acknowledged: the master has enough
                    self._state, self._pull = "idle", 1
                    return
                self._at, self._bits, n = self._at + 1, [], 0
            byte = self.content[self._at] if self._at < len(self.content) else 0
            self._pull = byte >> (7 - n) & 1 if n < 8 else 1
            return
        self._pull = 1
        if n == 8:
            self._pull = 0  # acknowledged
        elif n == 9:
            self._take(int("".join(map(str, self._bits[:8])), 2))
            self._bits = []

    def _take(self, byte: int) -> None:
        if self._state == "address" and byte == 0xA0:
            self._state = "offset"
        elif self._state == "address" and byte == 0xA1:
            self._state = "read"
            self._bits = []
            self._fall()
        elif self._state == "offset":
            self._at, self._state = byte, "written"


def good_eeprom() -> list[int]:
    """64 words whose sum is right, and behind them settings for optical modules of both ports."""
    words = [0xFFFF] * 256
    words[0x2B] = 0x80
    words[0x80:0x86] = [0, 5, 0x90, 6, 0x90, 0xFFFF]
    words[0x90:0x94] = [0, 0x1111, 0x2222, 0xFFFF]
    words[0x3F] = (0xBABA - sum(words[:0x3F])) & 0xFFFF
    return words


class FakeRegion:
    """512 KiB of registers. log: every access, ("R" or "W", offset, value)."""

    size = 0x80000

    def __init__(self, sfp: bytes = SFP_SR) -> None:
        self.values: dict[int, int] = {}
        self.log: list[tuple[str, int, int]] = []
        self.eeprom = good_eeprom()
        self.module = FakeModule(sfp)
        self.phy: dict[tuple[int, int], int] = {(1, 2): PHY_ID >> 16, (1, 3): PHY_ID & 0xFFFF}
        self.phy_address = 1
        self.links = LINK_UP_10G
        self.gone = False
        self.moved: dict[int, int] = {}
        self.forced: dict[int, tuple[int, int]] = {}  # offset -> bits that read as 1, as 0
        self.on_write: Callable[[int, int], None] = lambda offset, value: None
        self._bells = ffi.new("uint32_t[]", self.size // 4)
        self._keep: list[Any] = []
        self._mdio_address = 0
        self._reset()

    def force(self, offset: int, one: int = 0, zero: int = 0) -> None:
        """From now on these bits of a register read as 1 and 0, whatever is written."""
        self.forced[offset] = (one, zero)

    def _reset(self) -> None:
        self.values = {
            RAL0: int.from_bytes(MAC[:4], "little"),
            RAH0: int.from_bytes(MAC[4:], "little") | 1 << 31,
            EEC: 0x300,
            EEMNGCTL: 3 << 18,
            FWSM: 0x8000,
            RDRXCTL: 1 << 3,
            AUTOC: 3 << 13,
            ANLP1: 1 << 16,
        } | {at: self.values[at] for at in (SWSM, SW_FW_SYNC) if at in self.values}

    def peek(self, offset: int) -> int:
        return self.values.get(self.moved.get(offset, offset), 0)

    def tail(self, offset: int) -> int:
        """What C wrote to a doorbell."""
        return int(self._bells[offset // 4])

    def read32(self, offset: int) -> int:
        if self.gone:
            return 0xFFFF_FFFF
        value = self._read(self.moved.get(offset, offset))
        one, zero = self.forced.get(offset, (0, 0))
        value = (value | one) & ~zero
        self.log.append(("R", offset, value))
        return value

    def _read(self, offset: int) -> int:
        value = self.values.get(offset, 0)
        if offset == STATUS:
            return 0 if self.values.get(CTRL, 0) & GIO_DIS else 1 << 19
        if offset == SECRXSTAT:
            return self.values.get(SECRXCTRL, 0) >> 1 & 1
        if offset == LINKS:
            return self.links
        if offset == I2CCTL:
            clk, data = self.module.wires()
            return value & 0xA | clk | data << 2
        if offset == SWSM:
            self.values[SWSM] = value | 1
        elif offset == EICR or offset in COUNTERS:
            self.values[offset] = 0
        return value

    def write32(self, offset: int, value: int) -> None:
        self.log.append(("W", offset, value))
        if self.gone:
            return
        self.on_write(offset, value)
        self._write(self.moved.get(offset, offset), value)

    def _write(self, offset: int, value: int) -> None:
        if offset == CTRL and value & (RST | LRST):
            self._reset()
            return
        if offset == EERD:
            word = self.eeprom[value >> 2 & 0x3FFF]
            value = word << 16 | value & ~1 | 2
        elif offset == MSCA:
            self._mdio(value)
            value &= ~(1 << 30)
        elif offset == I2CCTL:
            self.module.drive(value >> 1 & 1, value >> 3 & 1)
        elif offset == AUTOC:
            value &= ~(1 << 12)
        elif offset == RDRXCTL:
            value |= 1 << 3
        self.values[offset] = value

    def _mdio(self, value: int) -> None:
        operation, device, address = value >> 26 & 3, value >> 16 & 31, value & 0xFFFF
        there = (value >> 21 & 31) == self.phy_address
        if operation == 0:
            self._mdio_address = address
        elif operation == 1 and there:
            self.phy[device, self._mdio_address] = self.values.get(MSRWD, 0) & 0xFFFF
        elif operation == 3:
            data = self.phy.get((device, self._mdio_address), 0) if there else 0xFFFF
            self.values[MSRWD] = data << 16

    def bell(self, offset: int, value: int | None = None) -> Any:
        bell = ffi.new("struct doorbell *")
        lib.doorbell_to_register(bell, self._bells + offset // 4, -1, ffi.NULL)
        self._keep.append(bell)
        return bell


class FakeConfig:
    """Configuration space: ids, the command register, and a PCIe capability at A0."""

    def __init__(self, device: int) -> None:
        self.bytes = bytearray(256)
        self.bytes[0:4] = (0x8086 | device << 16).to_bytes(4, "little")
        self.bytes[0x34] = 0xA0
        self.bytes[0xA0] = 0x10

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def bus_master(self) -> bool:
        return bool(self.bytes[4] & 4)


class FakeIrq:
    def __init__(self, count: int) -> None:
        self.count = count
        self.fds: list[int] = []

    def start(self, n: int) -> Sequence[int]:
        assert not self.fds
        assert n <= self.count
        self.fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(n)]
        return self.fds

    def stop(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class FakeTransport:
    """Implements Transport. mapped: what the card may reach."""

    kind = "fake"

    def __init__(self, device: int = 0x10FB, vectors: int = 64, sfp: bytes = SFP_SR) -> None:
        self.device = "fake"
        self.config = FakeConfig(device)
        self.irq = FakeIrq(vectors)
        self.region = FakeRegion(sfp)
        self.mapped: list[DmaMemory] = []
        self.closed = False

    def map_bar(self, number: int) -> FakeRegion:
        assert number == 0
        return self.region

    def dma_map(self, memory: DmaMemory) -> DmaMapping:
        self.mapped.append(memory)
        return DmaMapping(0x1_0000_0000 * len(self.mapped))

    def dma_unmap(self, memory: DmaMemory) -> None:
        self.mapped.remove(memory)

    def reset(self) -> bool:
        return False

    def close(self) -> None:
        self.irq.stop()
        self.closed = True


@contextlib.contextmanager
def in_reset(transport: FakeTransport) -> Iterator[None]:
    """At the end of the block the card has been left in reset: nothing on, no interrupts, no way to memory."""
    yield
    region = transport.region
    resets = [
        i
        for i, (way, offset, value) in enumerate(region.log)
        if way == "W" and offset == CTRL and value & RST
    ]
    assert resets, "it was never reset"
    after = [entry for entry in region.log[resets[-1] + 1 :] if entry[0] == "W"]
    assert {offset for _, offset, _ in after} <= {0x888, 0xAB0, 0xAB4}, "written after the last reset"
    assert (0x888, 0x7FFF_FFFF) in [(offset, value) for _, offset, value in after], (
        "interrupts are not masked"
    )
    assert not transport.config.bus_master
    assert not transport.irq.fds
    assert not transport.mapped
    assert transport.closed
