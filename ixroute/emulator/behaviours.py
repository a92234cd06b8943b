"""Small behaviours of registers, each one's own: reset and bus master disable, semaphores, MDIO, DMA and queue
enables, the security blocks' handshake, the flow director's, indirect tables, clocks."""

from __future__ import annotations

import time
from collections.abc import Callable

from ixroute.emulator.faults import Faults, Settling
from ixroute.emulator.register_file import RegisterFile

CTRL_GIO_DIS, CTRL_LRST, CTRL_RST = 1 << 2, 1 << 3, 1 << 26
STATUS_GIO = 1 << 19
STATUS_LAN_SHIFT = 2


class Control:
    """CTRL and STATUS (8.2.3.1.1, 8.2.3.1.2): resets, and the end of bus mastering (5.2.5.3.2)."""

    def __init__(
        self,
        registers: RegisterFile,
        faults: Faults,
        settling: Settling,
        reset: Callable[[], None],
        moved: Callable[[], None],
    ) -> None:
        self._registers = registers
        self._faults = faults
        self._settling = settling
        self._reset = reset
        self._moved = moved
        self.resets = 0
        self._pending = 0
        registers.on_read("CTRL", self._read_control)
        registers.on_write("CTRL", self._write_control)
        registers.on_read("STATUS", self._read_status)

    @property
    def master_disabled(self) -> bool:
        return bool(self._registers.get("CTRL") & CTRL_GIO_DIS)

    def reset(self) -> None:
        self._pending = 0

    def _write_control(self, _: int, value: int) -> None:
        resets = value & (CTRL_RST | CTRL_LRST)
        if resets:
            self.resets += 1
            self._reset()
            self._pending = resets
            self._settling.start("reset")
        was = self.master_disabled
        self._registers.store_named("CTRL", 0 if resets else value)
        if self.master_disabled != was:
            self._settling.start("master")
            self._moved()

    def _read_control(self, _: int) -> int:
        if self._pending and not self._faults.reset_never_clears and self._settling.ready("reset"):
            self._pending = 0
        return self._registers.get("CTRL") | self._pending

    def _read_status(self, _: int) -> int:
        value = self._registers.get("STATUS") | STATUS_GIO
        if self.master_disabled and not self._faults.master_never_stops and self._settling.ready("master"):
            value &= ~STATUS_GIO
        return value


class Semaphores:
    """SWSM and SW_FW_SYNC (10.5.4): what functions and firmware share; no reset by software touches them."""

    SMBI, SWESMBI = 1, 2

    def __init__(self, registers: RegisterFile, faults: Faults) -> None:
        self._registers = registers
        self._faults = faults
        registers.on_read("SWSM", self._read)
        registers.on_write("SWSM", self._write)
        registers.on_read("FWSM", self._firmware)

    def _read(self, _: int) -> int:
        """SMBI reads as it was and is then set: who reads 0 has it."""
        value = self._registers.get("SWSM")
        self._registers.put("SWSM", value | self.SMBI)
        return value | (self.SMBI if self._faults.semaphore_held else 0)

    def _write(self, _: int, value: int) -> None:
        """SWESMBI takes only while firmware does not hold the resource; SMBI can only be given back."""
        kept = self._registers.get("SWSM") & self.SMBI & value
        if value & self.SWESMBI and not self._faults.firmware_holds_semaphore:
            kept |= self.SWESMBI
        self._registers.put("SWSM", kept)

    def _firmware(self, _: int) -> int:
        return 0x0008_0000 if self._faults.firmware_error else self._registers.get("FWSM")


class Mdio:
    """MSCA and MSRWD (8.2.3.22.11): a bus on which nobody answers, so that every read gives ones."""

    COMMAND = 1 << 30
    READS = (2, 3)

    def __init__(self, registers: RegisterFile, faults: Faults, settling: Settling) -> None:
        self._registers = registers
        self._faults = faults
        self._settling = settling
        registers.on_read("MSCA", self._read)
        registers.on_write("MSCA", self._write)

    def _write(self, _: int, value: int) -> None:
        self._registers.store_named("MSCA", value)
        if not value & self.COMMAND:
            return
        self._settling.start("mdio")
        if value >> 26 & 3 in self.READS:
            self._registers.put("MSRWD", 0xFFFF_0000 | (self._registers.get("MSRWD") & 0xFFFF))

    def _read(self, _: int) -> int:
        value = self._registers.get("MSCA")
        if value & self.COMMAND and not self._faults.mdio_never_ready and self._settling.ready("mdio"):
            value &= ~self.COMMAND
            self._registers.put("MSCA", value)
        return value


class Enables:
    """Bits that show when a part has done what it was told: RDRXCTL.DMAIDONE, RXDCTL and TXDCTL.ENABLE, SECRXSTAT and
    SECTXSTAT.RDY, FDIRCTRL.INIT_DONE."""

    ENABLE = 1 << 25
    FLUSH = 1 << 26
    DMA_DONE = 1 << 3
    PATH_OFF = 1 << 1
    INIT_DONE = 1 << 3

    def __init__(self, registers: RegisterFile, faults: Faults, settling: Settling) -> None:
        self._registers = registers
        self._faults = faults
        self._settling = settling
        registers.on_read("RDRXCTL", self._read_dma)
        for name in ("RXDCTL", "TXDCTL"):
            registers.on_read(name, self._queue_reader(name))
            registers.on_write(name, self._queue_writer(name))
        for direction in ("RX", "TX"):
            registers.on_read(f"SEC{direction}STAT", self._path_reader(direction))
            registers.on_write(f"SEC{direction}CTRL", self._path_writer(direction))
        registers.on_read("FDIRCTRL", self._read_director)
        registers.on_write("FDIRCTRL", self._write_director)
        for name in ("RDH", "TDH"):
            registers.on_write(name, self._head_writer(name))

    def reset(self) -> None:
        self._settling.start("dma")

    def _read_dma(self, _: int) -> int:
        value = self._registers.get("RDRXCTL")
        if not self._faults.dma_never_ready and self._settling.ready("dma"):
            value |= self.DMA_DONE
        return value

    def _queue_reader(self, name: str) -> Callable[[int], int]:
        def read(queue: int) -> int:
            value = self._registers.get(name, queue)
            asked = bool(value & self.ENABLE)
            shown = asked
            if name == "TXDCTL":
                # 4.6.8: the first queue comes up only after DMATXCTL.TE.
                shown = shown and bool(self._registers.get("DMATXCTL") & 1)
                shown = shown and not self._faults.tx_queue_never_enables
            else:
                shown = shown and not self._faults.rx_queue_never_enables
            if shown == asked and not self._settling.ready((name, queue)):
                shown = not asked
            return (value & ~self.ENABLE) | (self.ENABLE if shown else 0)

        return read

    def _queue_writer(self, name: str) -> Callable[[int, int], None]:
        def write(queue: int, value: int) -> None:
            was = self._registers.get(name, queue)
            # SWFLSH is a command: descriptors written back early, which this card always does.
            self._registers.store_named(name, value & ~self.FLUSH if name == "TXDCTL" else value, queue)
            if (was ^ value) & self.ENABLE:
                self._settling.start((name, queue))

        return write

    def _head_writer(self, name: str) -> Callable[[int, int], None]:
        """A head is the card's while its queue runs (8.2.3.8.4: written by software only before)."""
        control = "RXDCTL" if name == "RDH" else "TXDCTL"

        def write(queue: int, value: int) -> None:
            if self._registers.get(control, queue) & self.ENABLE:
                self._registers.counters["writes_to_running_heads"] += 1
            else:
                self._registers.store_named(name, value, queue)

        return write

    def _path_reader(self, direction: str) -> Callable[[int], int]:
        def read(_: int) -> int:
            value = self._registers.get(f"SEC{direction}STAT") & ~1
            stopped = self._registers.get(f"SEC{direction}CTRL") & self.PATH_OFF
            broken = direction == "RX" and self._faults.rx_path_never_stops
            if stopped and not broken and self._settling.ready(f"path {direction}"):
                value |= 1
            return value

        return read

    def _path_writer(self, direction: str) -> Callable[[int, int], None]:
        def write(_: int, value: int) -> None:
            self._registers.store_named(f"SEC{direction}CTRL", value)
            if value & self.PATH_OFF:
                self._settling.start(f"path {direction}")

        return write

    def _write_director(self, _: int, value: int) -> None:
        """A write of FDIRCTRL with a table size starts the initialisation of the table (7.1.2.7.2)."""
        self._registers.store_named("FDIRCTRL", value)
        if value & 3:
            self._settling.start("director")
            self._registers.put("FDIRFREE", (1 << (12 + (value & 3))) - 2)

    def _read_director(self, _: int) -> int:
        value = self._registers.get("FDIRCTRL")
        if value & 3 and not self._faults.flow_director_never_ready and self._settling.ready("director"):
            value |= self.INIT_DONE
        return value


class FlowDirector:
    """FDIRCMD: filters are taken and counted, and never match (a difference from silicon)."""

    ADD, REMOVE, UPDATE = 1, 2, 1 << 3

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        registers.on_write("FDIRCMD", self._command)

    def _command(self, _: int, value: int) -> None:
        """The command field reads 0 again when it is done, which is at once."""
        self._registers.store_named("FDIRCMD", value)
        command = value & 3
        if command not in (self.ADD, self.REMOVE):
            return
        shift = 0 if command == self.ADD else 16
        counts = self._registers.get("FDIRUSTAT")
        one = min((counts >> shift & 0xFFFF) + 1, 0xFFFF)
        self._registers.put("FDIRUSTAT", (counts & ~(0xFFFF << shift)) | one << shift)


class IndirectTables:
    """Registers of a queue that RTTDQSEL chooses (8.2.3.10): rate limiters and credits of 128 queues."""

    NAMES = ("RTTDT1C", "RTTBCNRC")

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        self._values: dict[tuple[str, int], int] = {}
        for name in self.NAMES:
            registers.on_read(name, self._reader(name))
            registers.on_write(name, self._writer(name))

    def clear(self) -> None:
        self._values.clear()

    def _reader(self, name: str) -> Callable[[int], int]:
        return lambda _: self._values.get((name, self._registers.get("RTTDQSEL")), 0)

    def _writer(self, name: str) -> Callable[[int, int], None]:
        def write(_: int, value: int) -> None:
            self._registers.store_named(name, value)
            self._values[name, self._registers.get("RTTDQSEL")] = self._registers.get(name)

        return write


class Clocks:
    """FRTIMER counts milliseconds; SYSTIM runs at what TIMINCA adds every 6.4 ns (7.9.2)."""

    PERIOD_PS = 6400

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        self._start_ns = 0
        self._system = 0
        self._since_ns = 0
        registers.on_read("FRTIMER", self._milliseconds)
        registers.on_read("SYSTIML", self._low)
        registers.on_read("SYSTIMH", lambda _: registers.get("SYSTIMH"))
        registers.on_write("SYSTIML", self._write_low)
        registers.on_write("SYSTIMH", self._write_high)
        registers.on_write("TIMINCA", self._write_increment)

    def reset(self) -> None:
        self._start_ns = self._since_ns = time.monotonic_ns()
        self._system = 0

    def _milliseconds(self, _: int) -> int:
        return (time.monotonic_ns() - self._start_ns) // 1_000_000 & 0xFFFF_FFFF

    def _advance(self) -> None:
        now = time.monotonic_ns()
        increment = self._registers.get("TIMINCA")
        value, period = increment & 0x00FF_FFFF, increment >> 24
        if value and period:
            ticks = (now - self._since_ns) * 1000 // (self.PERIOD_PS * period)
            self._system = (self._system + ticks * value) & (1 << 64) - 1
        self._since_ns = now

    def _low(self, _: int) -> int:
        """Reading the low half latches the high one."""
        self._advance()
        self._registers.put("SYSTIMH", self._system >> 32)
        return self._system & 0xFFFF_FFFF

    def _write_low(self, _: int, value: int) -> None:
        self._advance()
        self._system = (self._system & ~0xFFFF_FFFF) | value

    def _write_high(self, _: int, value: int) -> None:
        self._advance()
        self._system = (self._system & 0xFFFF_FFFF) | value << 32
        self._registers.put("SYSTIMH", value)

    def _write_increment(self, _: int, value: int) -> None:
        self._advance()
        self._registers.store_named("TIMINCA", value)
