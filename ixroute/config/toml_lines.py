"""Where each key of a TOML text stands, which tomllib does not tell.

Only for texts that tomllib has accepted: this reads just enough TOML to keep its place.
"""

from __future__ import annotations

import re

Path = tuple[str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def key_lines(text: str) -> dict[Path, int]:
    """Line number (from 1) of every table header and key, by its full path. Keys inside inline tables and
    arrays are not listed: ask `line_of`, which answers with the nearest key around them."""
    return _Scanner(text).scan()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest table that contains it; 1 when there is none."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip_to_statement():
            line = self.line
            if self.text[self.at] == "[":
                self.at += 2 if self.text.startswith("[[", self.at) else 1
                table = self._key()
                self.lines.setdefault(table, line)
                self._skip_line()
            else:
                path = table + self._key()
                for length in range(len(table) + 1, len(path) + 1):
                    self.lines.setdefault(path[:length], line)
                self._skip_value()
        return self.lines

    def _skip_to_statement(self) -> bool:
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "#":
                self._skip_line()
            elif char in " \t\r\n":
                self._step()
            else:
                return True
        return False

    def _step(self) -> None:
        if self.text[self.at] == "\n":
            self.line += 1
        self.at += 1

    def _skip_line(self) -> None:
        while self.at < len(self.text) and self.text[self.at] != "\n":
            self.at += 1

    def _blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _key(self) -> Path:
        parts: list[str] = []
        while True:
            self._blank()
            parts.append(self._key_part())
            self._blank()
            if not self.text.startswith(".", self.at):
                return tuple(parts)
            self.at += 1

    def _key_part(self) -> str:
        quote = self.text[self.at : self.at + 1]
        if quote in ("'", '"') and quote:
            start = self.at + 1
            self._skip_string()
            body = self.text[start : self.at - 1]
            return body if quote == "'" else _unescape(body)
        match = _BARE.match(self.text, self.at)
        if match is None:  # not TOML: tomllib would have refused it
            self._skip_line()
            return ""
        self.at = match.end()
        return match.group()

    def _skip_string(self) -> None:
        quote = self.text[self.at]
        fence = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(fence)
        while self.at < len(self.text) and not self.text.startswith(fence, self.at):
            if quote == '"' and self.text[self.at] == "\\":
                self._step()
            if self.at < len(self.text):
                self._step()
        self.at = min(self.at + len(fence), len(self.text))
        while len(fence) == 3 and self.text.startswith(quote, self.at):  # up to two quotes may end the body
            self.at += 1

    def _skip_value(self) -> None:
        """From before the `=` to the end of the value's line, brackets and strings whole."""
        depth = 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\n" and depth == 0:
                return
            if char in "'\"":
                self._skip_string()
            elif char == "#":
                self._skip_line()
            else:
                depth += (char in "[{") - (char in "]}")
                self._step()


def _unescape(body: str) -> str:
    def plain(match: re.Match[str]) -> str:
        found = match.group(1)
        return _ESCAPES[found] if found in _ESCAPES else chr(int(found[1:], 16))

    return re.sub(r"\\([btnfr\"\\]|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})", plain, body)
