"""`ixroute emulate` as a process, as a user starts it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ixroute.driver.vfio_user import VfioUserTransport

START_SECONDS = 30.0
END_SECONDS = 15.0


class Emulated:
    """The process; `sockets` are its cards' paths, in order. What it says goes to `log`."""

    def __init__(
        self, directory: Path, wires: Sequence[str], *options: str, prefix: Sequence[str] = ()
    ) -> None:
        """prefix: before the command, like `ip netns exec NAME`."""
        self.log = directory / "emulate.log"
        words = [word for wire in wires for word in ("--wire", wire)]
        argv = [*prefix, sys.executable, "-m", "ixroute", "emulate", *words, "--socket"]
        argv += [f"{directory}/card{{n}}.sock", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        self.sockets: list[str] = []

    def wait_ready(self) -> None:
        """Fails with its log when it does not come to that."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        said = b""
        while not said.endswith(b"\n"):
            left = deadline - time.monotonic()
            assert left > 0, f"not ready:\n{self.said()}"
            if not select.select([self.process.stdout], [], [], left)[0]:
                continue
            more = os.read(self.process.stdout.fileno(), 4096)
            assert more, f"ended at once:\n{self.said()}"
            said += more
        word, *self.sockets = said.decode().split()
        assert word == "ready"

    def transport(self, number: int = 0) -> VfioUserTransport:
        """A new client of a card."""
        return VfioUserTransport(self.sockets[number])

    def tool(self, command: str, *options: str) -> subprocess.Popen[str]:
        """`ixroute COMMAND` on the first card, started."""
        argv = [sys.executable, "-m", "ixroute", command, f"vfio-user:{self.sockets[0]}", *options]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def cpu_seconds(self) -> float:
        """User and system time of all its threads until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal; the exit code. Kills it when it does not end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()


@contextlib.contextmanager
def emulated(
    directory: Path, wires: Sequence[str], *options: str, prefix: Sequence[str] = ()
) -> Iterator[Emulated]:
    """Ready, and ended by SIGTERM with exit code 0 if it still runs."""
    cards = Emulated(directory, wires, *options, prefix=prefix)
    try:
        cards.wait_ready()
        yield cards
    except BaseException:
        cards.end(signal.SIGKILL)
        print(cards.said())
        raise
    if cards.process.poll() is None:
        code = cards.end()
        assert code == 0, cards.said()
    else:
        cards.end()
