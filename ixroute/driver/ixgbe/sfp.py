"""The SFP+ module: what it is, read over the two wires of I2CCTL (datasheet 8.2.3.1.5; SFF-8472), and the analog
settings that the EEPROM has for its kind.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from ixroute.driver.ixgbe import eeprom
from ixroute.driver.ixgbe.card import Card, CardError
from ixroute.driver.ixgbe.regfile import RegisterError
from ixroute.driver.ixgbe.semaphores import EEPROM, MAC_CSR, phy_of, resource

_MODULE = 0xA0  # the module's address on the bus (SFF-8472 table 2-1)
_HALF_CLOCK = 5e-6  # 100 kHz
_STRETCH_SECONDS = 500e-6
_TRIES = 3
_IDENTITY_BYTES = 61  # up to the cable's compliance code

# Kinds, as the EEPROM's list of settings numbers them, for port 0; port 1 has the next number.
PASSIVE_COPPER = 3
OPTICAL = 5
_END = 0xFFFF


class I2cError(RegisterError):
    """Nobody answers on the module's wires, or not as a module does."""


class I2c:
    """The bus, bit by bit. The card's driver is the only master."""

    def __init__(self, card: Card) -> None:
        self._register = card.nic.I2CCTL
        self._clock = card.clock

    def _set(self, clk: int, data: int) -> None:
        self._register.write(CLK_OUT=clk, DATA_OUT=data)
        self._clock.sleep(_HALF_CLOCK)

    def _raise_clock(self, data: int) -> None:
        """A slave may hold the clock low for a while (stretching)."""
        self._set(1, data)
        end = self._clock.now() + _STRETCH_SECONDS
        while not self._register.get("CLK_IN"):
            if self._clock.now() >= end:
                raise I2cError("the clock wire of the module's bus stays low")
            self._clock.sleep(_HALF_CLOCK)

    def _start(self) -> None:
        self._set(0, 1)
        self._raise_clock(1)
        self._set(1, 0)
        self._set(0, 0)

    def _stop(self) -> None:
        self._set(0, 0)
        self._set(1, 0)
        self._set(1, 1)

    def _put_bit(self, bit: int) -> None:
        self._set(0, bit)
        self._raise_clock(bit)
        self._set(0, bit)

    def _take_bit(self) -> int:
        self._set(0, 1)
        self._raise_clock(1)
        bit = self._register.get("DATA_IN")
        self._set(0, 1)
        return bit

    def _put_byte(self, byte: int) -> None:
        for i in reversed(range(8)):
            self._put_bit(byte >> i & 1)
        if self._take_bit():
            raise I2cError("no module answers")

    def _take_byte(self, more: bool) -> int:
        byte = 0
        for _ in range(8):
            byte = byte << 1 | self._take_bit()
        self._put_bit(0 if more else 1)
        return byte

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes of the module's memory. Raises I2cError."""
        try:
            self._start()
            self._put_byte(_MODULE)
            self._put_byte(address)
            self._start()
            self._put_byte(_MODULE | 1)
            return bytes(self._take_byte(more=i < length - 1) for i in range(length))
        finally:
            self._stop()


@dataclass(frozen=True)
class Module:
    """What a module says of itself."""

    kind: str
    vendor: str
    part: str
    gigabit_only: bool = False
    both_speeds: bool = False
    settings: int | None = OPTICAL
    """Which of the EEPROM's settings it needs; None: there are none for its kind."""

    def __str__(self) -> str:
        return f"{self.kind} module {self.vendor} {self.part}".rstrip()


def _text(raw: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in raw).strip() or "?"


def parse(raw: bytes) -> Module:
    """SFF-8472 table 4-1, from its first 61 bytes."""
    vendor, part = _text(raw[20:36]), _text(raw[40:56])
    identifier, ten, one, cable = raw[0], raw[3], raw[6], raw[8]
    if identifier != 0x03:
        return Module(f"unknown (identifier {identifier:#04x})", vendor, part, settings=None)
    if cable & 0x04:
        return Module("passive copper cable", vendor, part, settings=PASSIVE_COPPER)
    if cable & 0x08:
        limiting = raw[60] & 0x04
        return Module("active copper cable", vendor, part, settings=OPTICAL if limiting else None)
    kinds = ((0x10, "10GBASE-SR"), (0x20, "10GBASE-LR"), (0x40, "10GBASE-LRM"), (0x80, "10GBASE-ER"))
    for bit, kind in kinds:
        if ten & bit:
            settings = OPTICAL if bit in {0x10, 0x20} else None
            return Module(kind, vendor, part, both_speeds=bool(one & 0x03), settings=settings)
    for bit, kind in ((0x01, "1000BASE-SX"), (0x02, "1000BASE-LX"), (0x08, "1000BASE-T")):
        if one & bit:
            return Module(kind, vendor, part, gigabit_only=True)
    return Module("unknown", vendor, part, settings=None)


def _read(card: Card, length: int) -> bytes:
    with resource(card, phy_of(card)):
        bus = I2c(card)
        for _ in range(_TRIES - 1):
            with contextlib.suppress(I2cError):
                return bus.read(0, length)
        return bus.read(0, length)


def identify(card: Card) -> Module:
    """8.2.3.1.5 Reads the module. Raises I2cError when there is none."""
    return parse(_read(card, _IDENTITY_BYTES))


def present(card: Card) -> bool:
    """Whether a module answers; cheaper than identify."""
    try:
        _read(card, 1)
    except I2cError:
        return False
    return True


def settings_of(card: Card, kind: int) -> list[int] | None:
    """6.3 The words that CORECTL gets for a kind of module; [] when the EEPROM has no list at all (none are needed),
    None when its list does not have this kind."""
    with resource(card, EEPROM):
        at = eeprom.read_word(card, eeprom.SFP_SETTINGS)
        if at in (0, _END):
            return []
        for i in range(32):
            number = eeprom.read_word(card, at + 1 + 2 * i)
            if number == _END:
                return None
            if number == kind:
                data = eeprom.read_word(card, at + 2 + 2 * i)
                return None if data in (0, _END) else _words_until_end(card, data + 1)
        return None


def _words_until_end(card: Card, at: int) -> list[int]:
    words: list[int] = []
    for i in range(64):
        word = eeprom.read_word(card, at + i)
        if word == _END:
            return words
        words.append(word)
    raise CardError("the EEPROM's settings for SFP+ modules have no end: its contents are damaged")


def apply_settings(card: Card, words: list[int]) -> None:
    """8.2.3.22 Into the analog core, which the other port's driver and the firmware also write."""
    with resource(card, MAC_CSR):
        for word in words:
            card.nic.CORECTL.write(word)
        card.nic.flush()
