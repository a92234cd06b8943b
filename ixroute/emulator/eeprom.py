"""The EEPROM: its words, and the two ways to them: EERD, and the four pins of its SPI bus through EEC (datasheet
3.1.2, 6; chip: a 128 Kbit part of the AT25 kind).

Words lie low byte first. Sections that pointers lead to begin with their length; a pointer of FFFF leads nowhere.
"""

from __future__ import annotations

from enum import Enum

from ixroute.emulator.faults import Faults, Settling
from ixroute.emulator.register_file import RegisterFile

WORDS = 8192
CHECKSUM_WORD = 0x3F
CHECKSUM = 0xBABA

# Words with a meaning to drivers (datasheet 6.1 to 6.4).
CORE0, CORE1 = 0x09, 0x0A
FIRMWARE = 0x0F
PBA_FLAG, PBA_POINTER = 0x15, 0x16
SFP_LIST = 0x2B
CAPABILITIES = 0x2C
ETRACK_LOW, ETRACK_HIGH = 0x2D, 0x2E

# Sections of this EEPROM.
_CORE0_AT, _CORE1_AT = 0x100, 0x110
_FIRMWARE_AT, _PASS_THROUGH_AT = 0x120, 0x130
_PBA_AT = 0x140
_SFP_LIST_AT = 0x150
_SFP_DATA_AT = 0x180

PBA = "IXR599-000"
FIRMWARE_VERSION = 6
"""Patch version of the pass-through firmware; 5 and below are pre-production."""
SFP_KINDS = (3, 4, 5, 6, 9, 10, 11, 12)
"""Modules with an initialisation list: direct attach, SR/LR, active cable, 1G, for core 0 and core 1."""
SFP_VALUES = (0x4001, 0x4402, 0x4503)
"""Written to CORECTL one after the other."""


def build(mac: bytes, any_module: bool = True) -> list[int]:
    """All words, with a valid checksum."""
    words = [0xFFFF] * WORDS
    words[0x00:0x03] = [0x5A40, 0x0000, 0x0000]  # signature 01b in 7:6
    words[0x10:0x15] = [0xFFFF] * 5
    _section(words, CORE0, _CORE0_AT, _mac_words(mac))
    _section(words, CORE1, _CORE1_AT, _mac_words(mac[:5] + bytes(((mac[5] + 1) & 0xFF,))))
    words[FIRMWARE] = _FIRMWARE_AT
    words[_FIRMWARE_AT + 2] = 0xFFFF  # no link establishment state machine
    words[_FIRMWARE_AT + 4] = _PASS_THROUGH_AT
    words[_PASS_THROUGH_AT + 7] = FIRMWARE_VERSION
    words[PBA_FLAG], words[PBA_POINTER] = 0xFAFA, _PBA_AT
    text = PBA.encode()
    pairs = [text[i] << 8 | text[i + 1] for i in range(0, len(text), 2)]
    words[_PBA_AT : _PBA_AT + 1 + len(pairs)] = [len(pairs) + 1, *pairs]
    words[SFP_LIST] = _SFP_LIST_AT
    entries = [word for kind in SFP_KINDS for word in (kind, _SFP_DATA_AT)]
    words[_SFP_LIST_AT : _SFP_LIST_AT + len(entries) + 2] = [len(entries), *entries, 0xFFFF]
    words[_SFP_DATA_AT : _SFP_DATA_AT + 5] = [len(SFP_VALUES), *SFP_VALUES, 0xFFFF]
    words[CAPABILITIES] = 0x0001 if any_module else 0x0000
    words[ETRACK_LOW], words[ETRACK_HIGH] = 0x0599, 0x8000
    words[CHECKSUM_WORD] = (CHECKSUM - checksum(words)) & 0xFFFF
    return words


def _mac_words(mac: bytes) -> list[int]:
    return [mac[i] | mac[i + 1] << 8 for i in (0, 2, 4)]


def _section(words: list[int], pointer: int, at: int, content: list[int]) -> None:
    words[pointer] = at
    words[at : at + 1 + len(content)] = [len(content), *content]


def checksum(words: list[int]) -> int:
    """Sum of words 00-3E and of the sections that pointers 03-0E lead to (datasheet 6.2.21)."""
    total = sum(words[:CHECKSUM_WORD])
    for pointer in words[0x03:0x0F]:
        if pointer in (0, 0xFFFF) or pointer >= len(words):
            continue
        length = words[pointer]
        if length not in (0, 0xFFFF):
            total += sum(words[pointer + 1 : pointer + 1 + length])
    return total & 0xFFFF


class _Spi(Enum):
    IDLE = 0
    COMMAND = 1
    ADDRESS = 2
    READ = 3
    WRITE = 4
    STATUS = 5
    IGNORE = 6


class SpiMemory:
    """The chip: mode 0, takes a bit at each rising clock, shows the next after the falling one."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.writable = False
        """The write-enable latch (WREN)."""
        self.out = 1
        self._selected = False
        self._clock = False
        self._state = _Spi.IDLE
        self._restart()

    def _restart(self) -> None:
        self._state = _Spi.COMMAND
        self._shift = 0
        self._bits = 0
        self._opcode = 0
        self._address = 0
        self._sending = 0
        self._page: list[tuple[int, int]] = []
        self.out = 1

    def pins(self, selected: bool, clock: bool, data_in: bool) -> None:
        if selected and not self._selected:
            self._restart()
        if not selected and self._selected:
            self._finish()
        rising, falling = clock and not self._clock, self._clock and not clock
        self._selected, self._clock = selected, clock
        if not selected:
            return
        if rising:
            self._take(int(data_in))
        elif falling:
            self._give()

    def _finish(self) -> None:
        """Chip select rises: a write is done now, whole bytes only."""
        for address, byte in self._page:
            self.data[address] = byte
        if self._page:
            self.writable = False
        self._state = _Spi.IDLE
        self.out = 1

    def _take(self, bit: int) -> None:
        if self._state in (_Spi.READ, _Spi.STATUS, _Spi.IGNORE):
            return
        self._shift = (self._shift << 1 | bit) & 0xFFFF
        self._bits += 1
        if self._state is _Spi.COMMAND and self._bits == 8:
            self._command(self._shift & 0xFF)
        elif self._state is _Spi.ADDRESS and self._bits == 16:
            self._address = self._shift % len(self.data)
            self._bits = 0
            if self._opcode == 3:
                self._state = _Spi.READ
            else:
                self._state = _Spi.WRITE if self.writable else _Spi.IGNORE
        elif self._state is _Spi.WRITE and self._bits == 8:
            self._bits = 0
            self._page.append((self._address, self._shift & 0xFF))
            # A page is 64 bytes; the address wraps inside it.
            self._address = (self._address & ~63) | ((self._address + 1) & 63)

    def _command(self, opcode: int) -> None:
        self._bits = 0
        self._opcode = opcode
        match opcode:
            case 0x02 | 0x03:
                self._state = _Spi.ADDRESS
            case 0x05:
                self._state = _Spi.STATUS
            case 0x06 | 0x04:
                self.writable = opcode == 0x06
                self._state = _Spi.IGNORE
            case _:
                self._state = _Spi.IGNORE

    def _give(self) -> None:
        if self._state not in (_Spi.READ, _Spi.STATUS):
            return
        if self._bits % 8 == 0:
            if self._state is _Spi.READ:
                self._sending = self.data[self._address]
                self._address = (self._address + 1) % len(self.data)
            else:
                self._sending = 0x02 if self.writable else 0x00
        self.out = self._sending >> (7 - self._bits % 8) & 1
        self._bits += 1


EEC_CLOCK, EEC_SELECT, EEC_DATA_IN, EEC_DATA_OUT = 1, 2, 4, 8
EEC_WRITE_ENABLE = 0x20
EEC_REQUEST, EEC_GRANT, EEC_PRESENT, EEC_AUTO_READ = 0x40, 0x80, 0x100, 0x200
EERD_START, EERD_DONE = 1, 2


class Eeprom:
    """EEC, EERD and EEWR."""

    def __init__(self, registers: RegisterFile, faults: Faults, settling: Settling, mac: bytes) -> None:
        self._registers = registers
        self._faults = faults
        self._settling = settling
        self._data = bytearray(2 * WORDS)
        self._spoilt = False
        self.spi = SpiMemory(self._data)
        self.load(mac)
        registers.on_read("EEC", self._read_control)
        registers.on_write("EEC", self._write_control)
        registers.on_read("EERD", self._read_word)
        registers.on_write("EERD", self._start_word)
        registers.on_write("EEWR", self._write_word)

    def load(self, mac: bytes) -> None:
        """New contents, as from the factory."""
        any_module = not self._faults.module_foreign
        words = build(mac, any_module)
        self._data[:] = b"".join(word.to_bytes(2, "little") for word in words)
        self.spi.writable = False
        self._spoilt = False

    def _spoil(self) -> None:
        """One bit is wrong while the fault says so, whichever way the word is read."""
        if self._spoilt != self._faults.eeprom_checksum:
            self._spoilt = not self._spoilt
            self._data[2 * 0x12 + 1] ^= 1

    def word(self, address: int) -> int:
        self._spoil()
        return int.from_bytes(self._data[2 * address : 2 * address + 2], "little")

    def mac(self, port: int) -> bytes:
        """The address of LAN port 0 or 1, from its core section."""
        at = self.word(CORE1 if port else CORE0)
        if at >= WORDS - 4:
            return bytes(6)
        return b"".join(self.word(at + 1 + i).to_bytes(2, "little") for i in range(3))

    def reset(self) -> None:
        """After any reset of the card: the MAC reads the EEPROM by itself, then sets AUTO_RD."""
        self._settling.start("eeprom")
        self.spi.pins(False, False, False)

    def _read_control(self, _: int) -> int:
        value = self._registers.get("EEC") & ~(EEC_DATA_OUT | EEC_GRANT | EEC_PRESENT | EEC_AUTO_READ)
        if value & EEC_REQUEST:
            value |= EEC_GRANT
        if self.spi.out:
            value |= EEC_DATA_OUT
        if not self._faults.eeprom_absent:
            value |= EEC_PRESENT
        if self._settling.ready("eeprom") and not self._faults.eeprom_never_ready:
            value |= EEC_AUTO_READ
        return value

    def _write_control(self, _: int, value: int) -> None:
        self._registers.store_named("EEC", value)
        self._spoil()
        # The pins are the driver's only while the bus was granted to it.
        granted = bool(value & EEC_REQUEST)
        self.spi.pins(granted and not value & EEC_SELECT, bool(value & EEC_CLOCK), bool(value & EEC_DATA_IN))

    def _start_word(self, _: int, value: int) -> None:
        self._registers.put("EERD", value & 0xFFFC)
        if value & EERD_START:
            self._settling.start("eerd")
            self._registers.change("EERD", set_bits=EERD_START)

    def _read_word(self, _: int) -> int:
        value = self._registers.get("EERD")
        if not value & EERD_START:
            return value
        if self._faults.eeprom_never_ready or self._faults.eeprom_absent or not self._settling.ready("eerd"):
            return value
        address = (value >> 2 & 0x3FFF) % WORDS
        value = (value & 0xFFFC) | EERD_DONE | self.word(address) << 16
        self._registers.put("EERD", value)
        return value

    def _write_word(self, _: int, value: int) -> None:
        """Laid out as EERD; writes only while EEC.FWE says so."""
        done = (value & 0xFFFF_FFFC) | EERD_DONE
        if value & EERD_START and self._registers.get("EEC") & EEC_WRITE_ENABLE:
            address = (value >> 2 & 0x3FFF) % WORDS
            self._data[2 * address : 2 * address + 2] = (value >> 16).to_bytes(2, "little")
        self._registers.put("EEWR", done)
