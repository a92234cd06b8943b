"""How numbers and tables look on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Style:
    """ANSI attributes, or nothing."""

    colour: bool = False

    def bold(self, text: str) -> str:
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        return self._wrap("2", text)

    def red(self, text: str) -> str:
        return self._wrap("31", text)

    def yellow(self, text: str) -> str:
        return self._wrap("33", text)

    def green(self, text: str) -> str:
        return self._wrap("32", text)

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text


def style_for(stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Style:
    """Colour on a terminal that can, unless $NO_COLOR (no-color.org) says not to."""
    stream = sys.stdout if stream is None else stream
    return Style(stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], style: Style, left: int = 1) -> list[str]:
    """Lines of a table; the first `left` columns are flush left, the rest (numbers) flush right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return [style.bold(line(head)), *(line(row) for row in rows)]


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> list[str]:
    """A table of words: everything flush left."""
    return table(head, rows, style, left=len(head))


def count(number: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{number:,}"


def rate(number: float) -> str:
    """Three figures and a decimal prefix: 1234567.0 -> "1.23M"."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5 or prefix == "T":
            break
        number /= 1000
    if not prefix:
        return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}{prefix}"


def size(number: int) -> str:
    """Bytes with a binary prefix: 4404019 -> "4.2 MiB"."""
    value = float(number)
    for prefix in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.95 or prefix == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {prefix}" if prefix == "B" else f"{value:.1f} {prefix}"


def duration(seconds: float) -> str:
    """The two largest units: 7980 -> "2h 13m"."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{n}{unit}" for n, unit in parts[:2])


def speed(mbps: int) -> str:
    """A link's speed: 10000 -> "10G"."""
    if mbps <= 0:
        return "up"
    return f"{mbps / 1000:g}G" if mbps >= 1000 else f"{mbps}M"
