"""The table of registers, read once from registers.txt, whose opening comment tells its form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

MODES = frozenset({"RO", "RW", "WO", "RC", "RS"})
ALL = 0xFFFF_FFFF


@dataclass(frozen=True)
class Field:
    """Bits low to high of a register."""

    name: str
    low: int
    high: int
    text: str = ""

    @property
    def limit(self) -> int:
        """The largest value."""
        return (1 << (self.high - self.low + 1)) - 1

    @property
    def mask(self) -> int:
        return self.limit << self.low

    def of(self, value: int) -> int:
        return (value >> self.low) & self.limit


@dataclass(frozen=True)
class Span:
    """Where registers first to last of an array lie; first is last for one that is no array."""

    offset: int
    stride: int
    first: int
    last: int

    def offset_of(self, index: int) -> int:
        return self.offset + self.stride * (index - self.first)

    def index_of(self, offset: int) -> int | None:
        if self.first == self.last:
            return self.first if offset == self.offset else None
        steps, rest = divmod(offset - self.offset, self.stride)
        return self.first + steps if not rest and 0 <= steps <= self.last - self.first else None


@dataclass
class Spec:
    """A register, or an array of them: all that the datasheet says of it."""

    name: str
    mode: str
    section: str
    text: str
    is_array: bool
    spans: list[Span] = field(default_factory=list)
    aliases: list[Span] = field(default_factory=list)
    fields: dict[str, Field] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.spans[-1].last + 1

    @property
    def writable_bits(self) -> int:
        """The others are reserved."""
        return sum(one.mask for one in self.fields.values()) if self.fields else ALL

    def offset(self, index: int) -> int:
        for span in self.spans:
            if span.first <= index <= span.last:
                return span.offset_of(index)
        raise IndexError(
            f"there is no {self.name}[{index}]: they are {self.spans[0].first} to {self.count - 1}"
        )


class TableError(ValueError):
    """The table contradicts itself; says the line."""


@cache
def table() -> Mapping[str, Spec]:
    """All registers by name, in the table's order."""
    return parse(files(__package__).joinpath("registers.txt").read_text(encoding="ascii"))


def parse(text: str) -> dict[str, Spec]:
    specs: dict[str, Spec] = {}
    last: Spec | None = None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if not line[0].isspace():
                last = _add_register(specs, words)
            elif last is None:
                raise TableError("belongs to no register")
            elif words[0] == "=":
                last.aliases.append(_span(words[1], words[2]))
            else:
                _add_field(last, words)
        except (TableError, ValueError, IndexError) as error:
            raise TableError(f"line {number}: {line.strip()!r}: {error}") from error
    _check_overlaps(specs)
    return specs


def _add_register(specs: dict[str, Spec], words: list[str]) -> Spec:
    name, offset, array, mode, section, *text = words
    if mode not in MODES:
        raise TableError(f"no mode is called {mode}")
    span = _span(offset, array)
    spec = specs.get(name)
    if spec is None:
        spec = specs[name] = Spec(name, mode, section, " ".join(text), array != "-")
    elif not spec.is_array or array == "-" or span.first != spec.count or mode != spec.mode:
        raise TableError("a second line of the same name that does not go on where the first ended")
    spec.spans.append(span)
    return spec


def _span(offset: str, array: str) -> Span:
    at = int(offset, 16)
    if at % 4:
        raise TableError("an offset that is no multiple of 4")
    if array == "-":
        return Span(at, 0, 0, 0)
    stride, _, indices = array.removeprefix("+").partition("*")
    first, _, last = indices.partition("..")
    return Span(at, int(stride, 16), int(first), int(last))


def _add_field(spec: Spec, words: list[str]) -> None:
    name, bits, *text = words
    low, _, high = bits.partition("..")
    one = Field(name.removeprefix("."), int(low), int(high or low), " ".join(text))
    if not name.startswith(".") or one.name in spec.fields or not 0 <= one.low <= one.high < 32:
        raise TableError("no field, or a second one of that name")
    if spec.fields and spec.writable_bits & one.mask:
        raise TableError("its bits are another field's too")
    spec.fields[one.name] = one


def _addresses(spec: Spec) -> Iterator[int]:
    for span in (*spec.spans, *spec.aliases):
        for index in range(span.first, span.last + 1):
            yield span.offset_of(index)


def _check_overlaps(specs: Mapping[str, Spec]) -> None:
    owner: dict[int, str] = {}
    for spec in specs.values():
        for offset in _addresses(spec):
            if offset in owner:
                raise TableError(f"{spec.name} and {owner[offset]} both lie at {offset:#07x}")
            owner[offset] = spec.name


@cache
def _names() -> Mapping[int, str]:
    names = {}
    for spec in table().values():
        for span in (*spec.spans, *spec.aliases):
            for index in range(span.first, span.last + 1):
                names[span.offset_of(index)] = f"{spec.name}[{index}]" if spec.is_array else spec.name
    return names


def name_of(offset: int) -> str:
    """ "RXDCTL[3]" for 0x010E8; the number itself for what the table does not have."""
    return _names().get(offset, f"{offset:#07x}")
