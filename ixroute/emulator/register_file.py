"""Accesses to BAR 0: decodes an offset, does what the register's mode says, and asks whoever has an opinion.

Order of an access: a behaviour registered by name (on_read, on_write), the packet engine if it owns the register,
then the table's mode. Behaviours store what they want to keep.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import cache

from ixroute.emulator.image import BarImage
from ixroute.emulator.packets import PacketEngine
from ixroute.emulator.registers import ALL, Mode, Place, count_of, describe, offset_of, places, registers

log = logging.getLogger(__name__)

ReadBehaviour = Callable[[int], int]
"""index -> value"""
WriteBehaviour = Callable[[int, int], None]
"""index, all 32 bits as they were written"""
UNKNOWN_LISTED = 256


class RegisterFile:
    def __init__(self, image: BarImage, engine: PacketEngine) -> None:
        self.image = image
        self.engine = engine
        self.counters: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        """Accesses to offsets that the table does not have, "read 0x2004" -> how many; at most UNKNOWN_LISTED."""
        self.ignored: Counter[str] = Counter()
        """Writes to read-only registers, by their name."""
        self._reads: dict[int, tuple[ReadBehaviour, int]] = {}
        self._writes: dict[int, tuple[WriteBehaviour, int]] = {}
        self._places = places()

    def on_read(self, name: str, behaviour: ReadBehaviour) -> None:
        for index in range(count_of(name)):
            self._reads[offset_of(name, index)] = (behaviour, index)

    def on_write(self, name: str, behaviour: WriteBehaviour) -> None:
        for index in range(count_of(name)):
            self._writes[offset_of(name, index)] = (behaviour, index)

    def get(self, name: str, index: int = 0) -> int:
        """As stored, without effects."""
        return self.image.load(offset_of(name, index))

    def engine_value(self, name: str, index: int = 0) -> int:
        """Of a register that the engine may own: not of one whose reading has effects."""
        value = self.engine.read(offset_of(name, index))
        return self.get(name, index) if value is None else value

    def put(self, name: str, value: int, index: int = 0) -> None:
        """Stored as it is, without effects."""
        self.image.store(offset_of(name, index), value & ALL)

    def change(self, name: str, *, set_bits: int = 0, clear: int = 0, index: int = 0) -> None:
        self.put(name, (self.get(name, index) & ~clear) | set_bits, index)

    def read32(self, offset: int) -> int:
        self.counters["reads"] += 1
        place = self._places.get(offset)
        if place is None:
            self._unknown("read", offset)
            return 0
        behaviour = self._reads.get(place.offset)
        if behaviour is not None:
            return behaviour[0](behaviour[1])
        register = place.register
        if register.owned:
            value = self.engine.read(place.offset)
            if value is not None:
                return value
        match register.mode:
            case Mode.WO | Mode.OLD:
                return 0
            case Mode.RC:
                value = self.image.load(place.offset)
                self.image.store(place.offset, 0)
                return value
        return self.image.load(place.offset)

    def write32(self, offset: int, value: int) -> None:
        self.counters["writes"] += 1
        place = self._places.get(offset)
        if place is None:
            self._unknown("write", offset)
            return
        behaviour = self._writes.get(place.offset)
        if behaviour is not None:
            behaviour[0](behaviour[1], value)
        elif not (place.register.owned and self.engine.write(place.offset, value)):
            self.store(place, value)
        self._tell(place)

    def stored(self, offset: int) -> int:
        """What is in the image for any offset, without effects; 0 where nothing is."""
        place = self._places.get(offset)
        return self.image.load(place.offset) if place else 0

    def store_named(self, name: str, value: int, index: int = 0) -> None:
        """What a write does where nobody has an opinion: for behaviours."""
        self.store(self._places[offset_of(name, index)], value)

    def store(self, place: Place, value: int) -> None:
        register = place.register
        match register.mode:
            case Mode.RW | Mode.MEM | Mode.WO:
                old = self.image.load(place.offset)
                self.image.store(place.offset, (old & ~register.writable & ALL) | (value & register.writable))
            case Mode.W1C:
                self.image.store(place.offset, self.image.load(place.offset) & ~(value & register.writable))
            case Mode.RO | Mode.RC:
                self.counters["writes_to_read_only"] += 1
                self.ignored[str(place)] += 1
                log.debug("%s is read-only: %#x is ignored", place, value)

    def _tell(self, place: Place) -> None:
        match place.register.effect:
            case "tail":
                self.engine.kick()
            case "rxq":
                self.engine.queue_changed(False, place.index)
            case "txq":
                self.engine.queue_changed(True, place.index)
            case "filters":
                self.engine.filters_changed()

    def _unknown(self, what: str, offset: int) -> None:
        self.counters["unknown_registers"] += 1
        name = f"{what} {offset:#07x}"
        if name in self.unknown or len(self.unknown) < UNKNOWN_LISTED:
            self.unknown[name] += 1
            if self.unknown[name] == 1:
                log.debug("no such register: %s", name)

    def fill(self, power_on: bool, rubbish: bool = False) -> None:
        """Reset values everywhere; tables that only power-on clears keep their content otherwise."""
        for offset, value in _reset_values(False, False):
            self.image.store(offset, value)
        if power_on:
            for offset, value in _reset_values(True, rubbish):
                self.image.store(offset, value)

    def dump(self) -> dict[str, int]:
        """Name -> value of all that is not 0, for people."""
        shown: dict[str, int] = {}
        for register in registers():
            for place in register.places():
                value = self.image.load(place.offset)
                if value:
                    shown[describe(place.offset)] = value
        return shown


@cache
def _reset_values(tables: bool, rubbish: bool) -> tuple[tuple[int, int], ...]:
    """(offset, value) of the tables that only power-on clears, or of all other registers."""
    chosen = [register for register in registers() if (register.mode is Mode.MEM) == tables]
    return tuple(
        (place.offset, 0xA5A5_A5A5 & register.writable if rubbish else register.reset)
        for register in chosen
        for place in register.places()
    )
