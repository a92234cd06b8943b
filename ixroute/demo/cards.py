"""Emulated cards for a lab: `ixroute emulate` as a child, a TAP for each card's wire."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from ixroute.demo.netns import CommandError, Namespace

READY_SECONDS = 20.0
_CARD = re.compile(r"card \d+ \(")
_COUNTER = re.compile(r"(\w+) (\d+)")


class Cards:
    """`ixroute emulate` in `namespace` (whose directory holds sockets and log): card i's wire is the TAP `wires[i]`,
    made there, for the caller to move to a host."""

    def __init__(self, namespace: Namespace, wires: Sequence[str], macs: Sequence[str]) -> None:
        self.namespace = namespace
        self.sockets = [os.fspath(namespace.directory / f"card{i}.sock") for i in range(len(wires))]
        self.log = namespace.directory / "cards.log"
        self._wires = wires
        self._macs = macs
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def arguments(self) -> list[str]:
        """What follows `ixroute`."""
        words = ["emulate", "--count", str(len(self._wires))]
        for wire, mac in zip(self._wires, self._macs, strict=True):
            words += ["--wire", f"tap:{wire}", "--mac", mac]
        return [*words, "--socket", os.fspath(self.namespace.directory / "card{n}.sock")]

    def start(self) -> Cards:
        """Returns when the sockets listen. CommandError when that does not come about."""
        argv = [sys.executable, "-m", "ixroute", *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.namespace.command(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        deadline = time.monotonic() + READY_SECONDS
        said = b""
        while b"ready" not in said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise CommandError(
                    f"the emulated cards are not ready after {READY_SECONDS:g} s\n{self.log_tail()}"
                )
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                raise CommandError(f"the emulated cards ended at once:\n{self.log_tail()}")
            said += more
        self.process.stdout.close()
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends the process; its TAPs go with it. Its exit code, 0 when it does not run."""
        if self.process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process = None
        return code

    def close(self) -> None:
        self.end()

    def report(self) -> list[dict[str, int]]:
        """The last counters that it printed for each card: rx_packets, tx_packets, dma_faults, … It does when it ends,
        and when it gets SIGUSR1."""
        found: list[dict[str, int]] = []
        with contextlib.suppress(OSError):
            for line in self.log.read_text(errors="replace").splitlines():
                if _CARD.match(line):
                    found.append({})
                elif found and line.startswith("  packets  "):
                    found[-1] = {
                        name: int(n) for name, n in _COUNTER.findall(line.removeprefix("  packets  "))
                    }
        return found[-len(self.sockets) :]

    def release(self) -> None:
        """Lets it run on after this process."""
        self.process = None

    def log_tail(self, lines: int = 20) -> str:
        """The end of what it said."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"
