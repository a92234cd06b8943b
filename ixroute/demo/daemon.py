"""`ixroute run` as a child of this process, inside a lab's router: started, waited for, asked, ended.

Readiness comes the way systemd gets it: READY=1 on the socket named by NOTIFY_SOCKET. Its answers come
from the control socket, as those of `ixroute stats -j` do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from ixroute import client
from ixroute.demo.netns import CommandError, Namespace, run_command

IXROUTE = [sys.executable, "-m", "ixroute"]


class DaemonError(RuntimeError):
    """The daemon did not do what it was to do; the end of its log is part of the message."""


class Daemon:
    """`ixroute run ARGUMENTS --socket …` in `namespace`, whose directory holds its socket and log."""

    def __init__(self, namespace: Namespace, arguments: Sequence[str], *, watchdog_s: float = 0) -> None:
        """watchdog_s: as WatchdogSec= in a systemd unit (0: none)."""
        self.namespace = namespace
        self.arguments = list(arguments)
        self.watchdog_s = watchdog_s
        self.control = namespace.directory / "ixroute.sock"
        self.log = namespace.directory / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._notify: socket.socket | None = None
        self.released = False

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.released:
            self.close()

    @property
    def pid(self) -> int:
        if self.process is None:
            raise DaemonError("the daemon is not started")
        return self.process.pid

    def start(self, patience: float = 15) -> Daemon:
        """Returns when the daemon says READY=1. Raises DaemonError when it ends first or needs longer."""
        self._close_notify()
        path = self.namespace.directory / "notify.sock"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._notify.bind(os.fspath(path))
        env = dict(os.environ, NOTIFY_SOCKET=os.fspath(path), PYTHONUNBUFFERED="1")
        if self.watchdog_s:
            env["WATCHDOG_USEC"] = str(int(self.watchdog_s * 1e6))
        argv = [*IXROUTE, "run", *self.arguments, "--socket", os.fspath(self.control)]
        with self.log.open("ab") as output:
            self.process = self.namespace.popen(argv, output, env)
        if "READY=1" not in self.notified("READY=1", patience):
            state = (
                "not ready" if self.process.poll() is None else f"ended with code {self.process.returncode}"
            )
            raise DaemonError(
                f"the daemon is {state} after {patience:g} s at most; its log:\n{self.log_tail()}"
            )
        return self

    def notified(self, wanted: str, patience: float) -> list[str]:
        """What the daemon tells its supervisor until it says `wanted`, or for `patience` seconds."""
        lines: list[str] = []
        deadline = time.monotonic() + patience
        assert self._notify is not None
        while time.monotonic() < deadline:
            self._notify.settimeout(0.05)
            try:
                lines += self._notify.recv(4096).decode().splitlines()
            except TimeoutError:
                if self.process is None or self.process.poll() is not None:
                    break
            if wanted in lines:
                break
        return lines

    def drain_notifications(self) -> None:
        """Forgets what the daemon told its supervisor so far."""
        assert self._notify is not None
        self._notify.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._notify.recv(4096)

    def signal(self, number: int) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def stop(self, patience: float = 10) -> int:
        """SIGTERM, and the exit code. Raises DaemonError (and kills it) when it does not end in time."""
        return self.end(signal.SIGTERM, patience)

    def kill(self) -> None:
        self.end(signal.SIGKILL, 10)

    def end(self, number: int, patience: float) -> int:
        if self.process is None:
            return 0
        self.signal(number)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            name = signal.Signals(number).name
            raise DaemonError(
                f"the daemon did not end {patience:g} s after {name}:\n{self.log_tail()}"
            ) from None

    def close(self) -> None:
        """Ends it, whatever state it is in."""
        with contextlib.suppress(DaemonError):
            self.stop()
        self._close_notify()

    def release(self) -> None:
        """Lets it run on after this process."""
        self.released = True
        self._close_notify()

    def _close_notify(self) -> None:
        if self._notify:
            self._notify.close()
            self._notify = None

    def ask(self, *arguments: str) -> str:
        """`ixroute ARGUMENTS -s SOCKET`: what it printed. Raises CommandError when it fails."""
        return run_command([*IXROUTE, *arguments, "-s", os.fspath(self.control)])

    def stats(self) -> Any:
        """schema.Stats."""
        return client.request(os.fspath(self.control), "stats")

    def lookup(self, address: str) -> Any:
        """schema.Lookup."""
        return client.request(os.fspath(self.control), "lookup", address=address)

    def log_tail(self, lines: int = 20) -> str:
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])


__all__ = ["IXROUTE", "CommandError", "Daemon", "DaemonError"]
