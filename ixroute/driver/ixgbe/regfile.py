"""The card's registers by name, over a transport's Region:

    nic.RXDCTL[q].set(ENABLE=1)         read, change, write
    nic.RXDCTL[q].wait(ENABLE=1)        with a limit; Timeout says what was waited for
    nic.SRRCTL[q].write(BSIZEPACKET=2, DESCTYPE=1, DROP_EN=1)
    nic.RDT[q].write(511)

A write that the table forbids (a reserved bit, a value wider than its field, a read-only register) is refused with
ForbiddenWrite before the card sees it. A card that was pulled out reads as all ones: CardGone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping

from ixroute.driver.ixgbe.registers import ALL, Spec, table
from ixroute.driver.transport import Region

WAIT_SECONDS = 1.0
"""Where the datasheet names no limit."""
_STATUS = 0x00008
_LONGEST_NAP = 0.001


class RegisterError(Exception):
    """What went wrong with a register, in one line."""


class ForbiddenWrite(RegisterError, ValueError):  # noqa: N818 - it is a refusal, not a state of the card
    """The driver's own mistake: nothing was written."""


class Timeout(RegisterError):  # noqa: N818
    """A bit that did not come in time."""


_SPIN_SECONDS = 20e-6


class CardGone(RegisterError):  # noqa: N818
    """Every register reads as all ones."""

    def __init__(self) -> None:
        super().__init__("the card is gone: its registers read as all ones")


class Clock:
    """Time, so that a test can make it pass."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """The shortest are spun: a module's bus asks for 5 us thousands of times, and a sleep takes ten times that."""
        if seconds > _SPIN_SECONDS:
            time.sleep(seconds)
            return
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass


class Register:
    """One register of one card."""

    __slots__ = ("_file", "_index", "offset", "spec")

    def __init__(self, file: RegisterFile, spec: Spec, index: int) -> None:
        self._file = file
        self._index = index
        self.spec = spec
        self.offset = file.moved.get(spec.name) or spec.offset(index)

    @property
    def name(self) -> str:
        return f"{self.spec.name}[{self._index}]" if self.spec.is_array else self.spec.name

    def read(self) -> int:
        if self.spec.mode == "WO":
            raise RegisterError(f"{self.name} cannot be read")
        return self._file.read32(self.offset)

    def get(self, name: str) -> int:
        """The field's value, read now."""
        return self.spec.fields[name].of(self.read())

    def write(self, value: int = 0, **fields: int) -> None:
        """value and the fields; all else 0."""
        self._write(self._with(value, fields), 0)

    def set(self, **fields: int) -> None:
        """The fields; all else stays as it is read, reserved bits too."""
        before = self.read()
        self._write(self._with(before, fields), before)

    def _write(self, value: int, allowed: int) -> None:
        if self.spec.mode in {"RO", "RC"}:
            raise ForbiddenWrite(f"{self.name} is read only")
        if not 0 <= value <= ALL:
            raise ForbiddenWrite(f"{self.name}: {value:#x} is not a 32-bit value")
        reserved = value & ~self.spec.writable_bits & ~allowed
        if reserved:
            raise ForbiddenWrite(f"{self.name} := {value:#010x}: bits {reserved:#010x} are reserved")
        self._file.write32(self.offset, value)

    def _with(self, value: int, fields: Mapping[str, int]) -> int:
        for name, number in fields.items():
            field = self.spec.fields.get(name)
            if field is None:
                raise ForbiddenWrite(f"{self.name} has no field {name}")
            if not 0 <= number <= field.limit:
                raise ForbiddenWrite(f"{self.name}.{name}: {number} is not from 0 to {field.limit}")
            value = value & ~field.mask | number << field.low
        return value

    def shows(self, value: int, **fields: int) -> bool:
        """Whether these fields of value are so."""
        return all(self.spec.fields[name].of(value) == number for name, number in fields.items())

    def wait(self, timeout: float = WAIT_SECONDS, **fields: int) -> int:
        """Until the fields read so; the value read. Timeout when that takes longer than `timeout` seconds."""
        clock = self._file.clock
        end = clock.now() + timeout
        nap = 10e-6
        while True:
            last_look = clock.now() >= end
            value = self.read()
            if self.shows(value, **fields):
                return value
            if last_look:
                break
            clock.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)
        wanted = ", ".join(f"{name}={number}" for name, number in fields.items())
        raise Timeout(
            f"{self.name} ({self.offset:#07x}, datasheet {self.spec.section}) does not show {wanted}"
            f" within {timeout:g} s: it reads {value:#010x}"
        )

    def text(self, value: int) -> str:
        """ "RXDCTL[3] = 0x02000000 ENABLE=1": fields that are not 0."""
        parts = [
            f"{name}={field.of(value):#x}" if field.of(value) > 9 else f"{name}={field.of(value)}"
            for name, field in self.spec.fields.items()
            if field.of(value)
        ]
        return " ".join((f"{self.name} = {value:#010x}", *parts))


class Array:
    """Registers of one name; nic.X[i], or nic.X itself when there is only one."""

    __slots__ = ("_file", "spec")

    def __init__(self, file: RegisterFile, spec: Spec) -> None:
        self._file = file
        self.spec = spec

    def __getitem__(self, index: int) -> Register:
        if not self.spec.is_array:
            raise IndexError(f"{self.spec.name} is one register")
        return Register(self._file, self.spec, index)

    def __iter__(self) -> Iterator[Register]:
        first = self.spec.spans[0].first
        return (Register(self._file, self.spec, i) for i in range(first, self.spec.count))

    def _one(self) -> Register:
        if self.spec.is_array:
            raise IndexError(f"{self.spec.name} has an index from 0 to {self.spec.count - 1}")
        return Register(self._file, self.spec, 0)

    @property
    def offset(self) -> int:
        return self._one().offset

    def read(self) -> int:
        return self._one().read()

    def get(self, name: str) -> int:
        return self._one().get(name)

    def write(self, value: int = 0, **fields: int) -> None:
        self._one().write(value, **fields)

    def set(self, **fields: int) -> None:
        self._one().set(**fields)

    def wait(self, timeout: float = WAIT_SECONDS, **fields: int) -> int:
        return self._one().wait(timeout, **fields)


class RegisterFile:
    """The registers of one card. moved: those that this kind of card has at another offset (ids.py)."""

    def __init__(
        self, region: Region, clock: Clock | None = None, moved: Mapping[str, int] | None = None
    ) -> None:
        self.region = region
        self.clock = clock or Clock()
        self.moved = moved or {}

    def __getattr__(self, name: str) -> Array:
        spec = table().get(name)
        if spec is None:
            raise AttributeError(f"the table has no register {name}")
        return Array(self, spec)

    def read32(self, offset: int) -> int:
        value = self.region.read32(offset)
        if value == ALL and self.region.read32(_STATUS) == ALL:
            raise CardGone
        return value

    def write32(self, offset: int, value: int) -> None:
        self.region.write32(offset, value)

    def flush(self) -> None:
        """What was written has arrived (PCIe keeps reads behind writes)."""
        self.read32(_STATUS)

    def dump(self, queues: int, absent: Collection[str] = ()) -> list[str]:
        """What every register says whose reading changes nothing, arrays as far as they are not 0; registers of
        queues for the first `queues` only. absent: those that this kind of card does not have."""
        lines = []
        for spec in table().values():
            if spec.mode in {"WO", "RC", "RS"} or spec.name in absent:
                continue
            if not spec.is_array:
                one = Register(self, spec, 0)
                lines.append(one.text(one.read()))
                continue
            last = (
                min(spec.count, queues) if spec.count == 128 and spec.spans[0].stride == 0x40 else spec.count
            )
            for index in range(spec.spans[0].first, last):
                one = Register(self, spec, index)
                if value := one.read():
                    lines.append(one.text(value))
        return lines
