"""The machine as the checks see it: everything comes through here, so that a test can make one up."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

OK, NOTE, WARN, FAIL = "ok", "note", "warn", "fail"
LEVELS = (OK, NOTE, WARN, FAIL)

AF_XDP = 44  # not in Python's socket module
COMMAND_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table. ok: as it should be; note: good to know; warn: slower than it could be,
    or surprising; fail: the router would not start, or not route. `fix` is a command, or short advice."""

    check: str
    level: str
    text: str
    fix: str = ""


@dataclass
class Machine:
    """Files under `root`, the answers of commands, and what this process may do."""

    root: Path = Path("/")
    uname_release: str = field(default_factory=lambda: os.uname().release)
    cores: frozenset[int] = field(default_factory=lambda: frozenset(os.sched_getaffinity(0)))
    memlock: int = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_MEMLOCK)[1])

    def path(self, path: str) -> Path:
        """A path under the root: "proc/meminfo"."""
        return self.root / path

    def read(self, path: str) -> str | None:
        """A file's text without white space around it; None when it is not there or not readable."""
        try:
            return self.path(path).read_text(errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file that holds a number."""
        try:
            return int(self.read(path) or "")
        except ValueError:
            return None

    def exists(self, path: str) -> bool:
        """Whether it is there."""
        return self.path(path).exists()

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted; none when it is not there."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def link_name(self, path: str) -> str | None:
        """The last part of what a symbolic link points to."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return None

    def command(self, *words: str) -> str | None:
        """What a command prints; None when it is not installed, fails, or takes too long."""
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def socket_error(self, family: int) -> OSError | None:
        """What is in the way of a raw socket of `family`; None: it can be made."""
        try:
            socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC).close()
        except OSError as error:
            return error
        return None

    def open_error(self, path: str) -> OSError | None:
        """What is in the way of opening a file for reading and writing."""
        try:
            os.close(os.open(self.path(path), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            return error
        return None

    def answers(self, path: str) -> bool:
        """Whether somebody listens at a UNIX socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(1)
            try:
                probe.connect(path)
            except OSError as error:
                return isinstance(error, BlockingIOError)  # its backlog is full
        return True

    def has_capability(self, number: int) -> bool:
        """Whether this process has it (linux/capability.h)."""
        for line in (self.read("proc/self/status") or "").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
        return False

    def in_user_namespace(self) -> bool:
        """Whether "root" here is root of a user namespace only."""
        return (self.read("proc/self/uid_map") or "0 0 4294967295").split() != ["0", "0", "4294967295"]

    def processes(self) -> Sequence[str]:
        """Names of all processes."""
        names = [self.read(f"proc/{pid}/comm") for pid in self.list("proc") if pid.isdigit()]
        return [name for name in names if name]
