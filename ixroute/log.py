"""Logging: standard library, standard error; with the journal's priorities when systemd listens there."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def setup(level: str = "info", stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Sets up the root logger to write lines of `level` and above to `stream` (standard error)."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Journal() if _is_journal(stream, environ) else _Plain())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is what $JOURNAL_STREAM names (systemd.exec(5)), and not a terminal or file put
    there."""
    try:
        device, inode = (int(part) for part in environ["JOURNAL_STREAM"].split(":"))
        found = os.fstat(stream.fileno())
    except (KeyError, ValueError, OSError):
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


class _Plain(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")


class _Journal(logging.Formatter):
    """sd-daemon(3): `<N>` before each line; the journal keeps the time itself."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


class Limited:
    """Says a thing at most once per `seconds`, and how often it was not said. For events that may come in
    floods.

    complain = Limited(log, logging.WARNING)
    complain("route %s: %s", prefix, error)
    """

    def __init__(self, logger: logging.Logger, level: int, seconds: float = 10.0) -> None:
        self._logger = logger
        self._level = level
        self._seconds = seconds
        self._lock = threading.Lock()
        self._next = 0.0
        self._held = 0

    def __call__(self, message: str, *args: object) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                self._held += 1
                return
            held, self._held, self._next = self._held, 0, now + self._seconds
        if held:
            message, args = message + " (and %d more like this in between)", (*args, held)
        self._logger.log(self._level, message, *args)
