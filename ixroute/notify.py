"""Telling systemd how the daemon is (sd_notify(3)), and the watchdog that tells it only while the workers
live."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

Heartbeat = Callable[[], int]


class Notifier:
    """Messages to the socket in $NOTIFY_SOCKET; does nothing where there is none, and never raises."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address: str | None = None
        if address.startswith("@"):  # abstract
            self._address = "\0" + address[1:]
        elif address.startswith("/"):
            self._address = address
        self.watchdog_seconds = _watchdog_seconds(environ)

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is over."""
        self._send("READY=1", status and f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """A reload begins; ready() ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """The daemon is on its way out."""
        self._send("STOPPING=1", status and f"STATUS={_line(status)}")

    def watchdog(self) -> None:
        """All is well; WatchdogSec starts anew."""
        self._send("WATCHDOG=1")

    def _send(self, *fields: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(filter(None, fields)).encode(), self._address)
        except OSError as error:  # a service manager that does not listen is no reason to stop forwarding
            log.debug("sd_notify: %s", error)


def _line(text: str) -> str:
    return " ".join(text.split("\n"))


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Seconds within which a ping is due (sd_watchdog_enabled(3)); None: no watchdog, or not for us."""
    try:
        seconds = int(environ["WATCHDOG_USEC"]) / 1e6
        owner = int(environ.get("WATCHDOG_PID") or os.getpid())
    except (KeyError, ValueError):
        return None
    return seconds if seconds > 0 and owner == os.getpid() else None


class Watchdog:
    """Pings while every heartbeat moves. A heartbeat is a callable that returns a number which changes as
    long as what it stands for lives (a worker's polls, the door's passes, the mirror's loops).

    Each has to move once between two pings, and pings go out three times per WatchdogSec: a worker that
    sleeps must wake up, or be woken, more often than that (`interval` seconds)."""

    def __init__(self, notifier: Notifier, heartbeats: Mapping[str, Heartbeat]) -> None:
        self._notifier = notifier
        self._heartbeats = dict(heartbeats)
        self._last: dict[str, int | None] = dict.fromkeys(heartbeats)
        self._silent: set[str] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        seconds = notifier.watchdog_seconds
        self.interval = None if seconds is None else seconds / 3

    def start(self) -> None:
        """Starts pinging from a thread of its own; does nothing when systemd wants no pings."""
        if self.interval is not None:
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stops pinging."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self.check()

    def check(self) -> Sequence[str]:
        """Looks at every heartbeat and pings when all have moved since the last look. Returns the names of
        those that have not."""
        silent = []
        for name, beat in self._heartbeats.items():
            now = beat()
            if now == self._last[name]:
                silent.append(name)
            self._last[name] = now
        self._tell(set(silent))
        if not silent:
            self._notifier.watchdog()
        return silent

    def _tell(self, silent: set[str]) -> None:
        """One line per change, not per look."""
        for name in sorted(silent - self._silent):
            log.error("%s has stopped moving: no more watchdog pings until it does", name)
        for name in sorted(self._silent - silent):
            log.warning("%s moves again", name)
        self._silent = silent
