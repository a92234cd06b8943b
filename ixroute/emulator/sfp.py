"""The cage: a two-wire bus bit-banged through I2CCTL, and the module on it (SFF-8472: identity at address A0,
diagnostics at A2; datasheet 3.7.x, 8.2.3.1.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ixroute.emulator.faults import Faults
from ixroute.emulator.register_file import RegisterFile

IDENTITY, DIAGNOSTICS = 0x50, 0x51
"""The addresses A0 and A2 as the bus has them, without the direction bit."""
CLOCK_IN, CLOCK_OUT, DATA_IN, DATA_OUT = 1, 2, 4, 8

INTEL_OUI = bytes((0x00, 0x1B, 0x21))
FOREIGN_OUI = bytes((0x02, 0x1B, 0x21))


def _text(text: str, size: int) -> bytes:
    return text.encode().ljust(size)


@dataclass(frozen=True)
class ModuleKind:
    """What a module says of itself; bytes as in SFF-8472, table 4-1."""

    part: str
    connector: int
    ethernet_codes: int
    """Byte 3: 0x10 10GBASE-SR, 0x20 LR."""
    cable: int = 0
    """Byte 8: 0x04 passive copper, 0x08 active."""
    reach: bytes = bytes(6)
    """Bytes 14-19: single mode in km and 100 m, then OM2, OM1, copper or OM4, OM3."""
    wavelength: int = 0
    laser: bool = True
    """TX_DISABLE darkens it; a copper cable has nothing to darken."""


MODULES = {
    "sr": ModuleKind("EMU-10G-SR", 0x07, 0x10, reach=bytes((0, 0, 8, 3, 0, 30)), wavelength=850),
    "lr": ModuleKind("EMU-10G-LR", 0x07, 0x20, reach=bytes((10, 100, 0, 0, 0, 0)), wavelength=1310),
    "da": ModuleKind("EMU-10G-DA", 0x21, 0x00, cable=0x04, reach=bytes((0, 0, 0, 0, 3, 0)), laser=False),
}
UNSUPPORTED = ModuleKind("EMU-1G-SX", 0x07, 0x00, wavelength=850)


def identity(kind: ModuleKind, oui: bytes = INTEL_OUI) -> bytearray:
    """256 bytes of A0."""
    page = bytearray(256)
    page[0:4] = bytes((0x03, 0x04, kind.connector, kind.ethernet_codes))
    page[8] = kind.cable
    page[11:13] = bytes((0x06, 103))  # 64B/66B, 10.3 GBd
    page[14:20] = kind.reach
    page[20:36] = _text("IXROUTE", 16)
    page[37:40] = oui
    page[40:56] = _text(kind.part, 16)
    page[56:60] = _text("A", 4)
    page[60:62] = kind.wavelength.to_bytes(2, "big")
    page[63] = sum(page[0:63]) & 0xFF
    page[65] = 0x1A if kind.laser else 0x00  # TX_DISABLE, TX_FAULT and LOS pins
    page[68:84] = _text("IXR0000001", 16)
    page[84:92] = _text("240101", 8)
    if kind.laser:
        # Diagnostics, internally calibrated, average power; SFF-8472 10.2.
        page[92:95] = bytes((0x68, 0xB0, 0x03))
    page[95] = sum(page[64:95]) & 0xFF
    return page


def diagnostics() -> bytearray:
    """256 bytes of A2: thresholds, calibration constants, and room for the values of the moment."""
    page = bytearray(256)
    thresholds = (
        (90 << 8, -5 << 8, 85 << 8, 0 << 8),  # temperature, 1/256 degree C
        (36000, 30000, 35000, 31000),  # supply, 100 uV
        (6000, 500, 5500, 1000),  # laser bias, 2 uA
        (10000, 1000, 7900, 1500),  # transmitted, 0.1 uW
        (12000, 300, 10000, 600),  # received
    )
    for i, limits in enumerate(thresholds):
        for j, limit in enumerate(limits):
            page[8 * i + 2 * j : 8 * i + 2 * j + 2] = (limit & 0xFFFF).to_bytes(2, "big")
    page[68:72] = bytes((0x3F, 0x80, 0, 0))  # external calibration: 1.0, unused
    for slope in (76, 80, 84, 88):
        page[slope : slope + 2] = b"\x01\x00"
    page[95] = sum(page[0:95]) & 0xFF
    return page


class Module:
    """What is in the cage. laser and light: whether it sends, and whether it sees the other end's light."""

    def __init__(self, kind: ModuleKind, laser: Callable[[], bool], light: Callable[[], bool]) -> None:
        self.kind = kind
        self._laser = laser
        self._light = light
        self.identity = identity(kind)
        self._diagnostics = diagnostics()

    def read(self, address: int, offset: int) -> int:
        if address == IDENTITY:
            return self.identity[offset]
        if 96 <= offset < 111:
            return self._now()[offset - 96]
        return self._diagnostics[offset]

    def write(self, address: int, offset: int, value: int) -> None:
        """Only the user area of A2 (128-247) can be written."""
        if address == DIAGNOSTICS and 128 <= offset < 248:
            self._diagnostics[offset] = value

    def _now(self) -> bytes:
        """Bytes 96-110: temperature 35.5 C, 3.3 V, laser bias, transmitted and received power, status."""
        laser, light = self._laser(), self._light()
        values = (0x2380, 33000, 3000 if laser else 0, 5500 if laser else 0, 5000 if light else 0)
        status = (0 if laser else 0x80) | (0 if light else 0x02)
        return b"".join(value.to_bytes(2, "big") for value in values) + bytes((0, 0, 0, 0, status))


class _Phase(Enum):
    IDLE = 0
    RECEIVE = 1
    ACKNOWLEDGE = 2
    SEND = 3
    MASTER_ACKNOWLEDGE = 4


class I2cSlave:
    """The module's end of the bus. `data` is what it lets SDA be: 0 pulls it down."""

    def __init__(self, module: Callable[[], Module | None]) -> None:
        self._module = module
        self._clock = True
        self._line = True
        self.idle()
        self._pointer = {IDENTITY: 0, DIAGNOSTICS: 0}

    def idle(self) -> None:
        self.data = True
        self._phase = _Phase.IDLE
        self._bits = 0
        self._shift = 0
        self._expect = "address"
        self._address = 0
        self._reading = False
        self._refused = False

    def pins(self, clock: bool, line: bool) -> None:
        """clock and line as the master drives them (SDA as the master lets it be)."""
        if clock and self._clock and line != self._line:
            self.idle()
            if not line:  # START: SDA falls while SCL is high
                self._phase = _Phase.RECEIVE
        elif clock and not self._clock:
            self._rise(line)
        elif not clock and self._clock:
            self._fall()
        self._clock, self._line = clock, line

    def _rise(self, line: bool) -> None:
        if self._phase is _Phase.RECEIVE:
            self._shift = (self._shift << 1 | int(line)) & 0xFF
            self._bits += 1
        elif self._phase is _Phase.MASTER_ACKNOWLEDGE:
            self._refused = line

    def _fall(self) -> None:
        match self._phase:
            case _Phase.RECEIVE if self._bits == 8:
                if self._byte(self._shift):
                    self._phase = _Phase.ACKNOWLEDGE
                    self.data = False
                else:
                    self.idle()
            case _Phase.ACKNOWLEDGE:
                self.data = True
                self._bits = self._shift = 0
                if self._reading:
                    self._next()
                else:
                    self._phase = _Phase.RECEIVE
            case _Phase.SEND:
                self._bits += 1
                if self._bits < 8:
                    self.data = bool(self._shift >> (7 - self._bits) & 1)
                else:
                    self.data = True
                    self._phase = _Phase.MASTER_ACKNOWLEDGE
            case _Phase.MASTER_ACKNOWLEDGE:
                if self._refused:
                    self.idle()
                else:
                    self._next()

    def _next(self) -> None:
        """The byte at the pointer begins to go out."""
        module = self._module()
        pointer = self._pointer[self._address]
        self._shift = module.read(self._address, pointer) if module else 0xFF
        self._pointer[self._address] = (pointer + 1) & 0xFF
        self._bits = 0
        self._phase = _Phase.SEND
        self.data = bool(self._shift >> 7)

    def _byte(self, byte: int) -> bool:
        """A byte has come: whether to acknowledge it."""
        module = self._module()
        if module is None:
            return False
        if self._expect == "address":
            self._address, self._reading = byte >> 1, bool(byte & 1)
            self._expect = "pointer"
            return self._address == IDENTITY or (self._address == DIAGNOSTICS and module.kind.laser)
        if self._expect == "pointer":
            self._pointer[self._address] = byte
            self._expect = "data"
            return True
        pointer = self._pointer[self._address]
        module.write(self._address, pointer, byte)
        self._pointer[self._address] = (pointer + 1) & 0xFF
        return True


class Cage:
    """I2CCTL and what is plugged in."""

    def __init__(self, registers: RegisterFile, faults: Faults, module: Module, exists: bool) -> None:
        self._registers = registers
        self._faults = faults
        self._fitted = module
        self._exists = exists
        self._shown = (module.kind, INTEL_OUI)
        self.plugged = True
        self.bus = I2cSlave(lambda: self.module)
        registers.on_read("I2CCTL", self._read)
        registers.on_write("I2CCTL", self._write)

    @property
    def module(self) -> Module | None:
        """The module, as its fault says; None: the cage is empty, or a backplane has none."""
        if not self._exists or not self.plugged or self._faults.no_module:
            return None
        wanted = (
            UNSUPPORTED if self._faults.module_unsupported else self._fitted.kind,
            FOREIGN_OUI if self._faults.module_foreign else INTEL_OUI,
        )
        if wanted != self._shown:
            self._shown = wanted
            self._fitted.identity = identity(*wanted)
        return self._fitted

    def reset(self) -> None:
        self.bus.pins(True, True)

    def _read(self, _: int) -> int:
        value = self._registers.get("I2CCTL") & (CLOCK_OUT | DATA_OUT)
        if value & CLOCK_OUT:
            value |= CLOCK_IN
        if value & DATA_OUT and self.bus.data and not self._faults.i2c_stuck:
            value |= DATA_IN
        return value

    def _write(self, _: int, value: int) -> None:
        self._registers.store_named("I2CCTL", value)
        self.bus.pins(bool(value & CLOCK_OUT), bool(value & DATA_OUT))
