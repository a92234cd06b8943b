"""One network namespace: made, entered, emptied, removed.

A thread enters a namespace with setns(2) and ends there, so nothing else of this process ever changes
namespace; a socket keeps the namespace it was made in for its whole life. Programs are started with `ip netns
exec`, which also mounts the namespace's own /sys.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from ixroute.errors import UserError

RUN = Path("/run/netns")
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO = 0x17, 0x1F  # <linux/ethtool.h>: set TX checksums, TCP segmentation

Result = TypeVar("Result")


class CommandError(UserError):
    """A program that was to succeed did not: the command, and what it said."""


def run_command(argv: Sequence[str], timeout: float = 20) -> str:
    """Runs a program and returns its output. CommandError when it fails, is missing or takes too long."""
    try:
        done = subprocess.run(list(argv), capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise CommandError(f"{argv[0]} is not installed (needed: {' '.join(argv)})") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"no answer in {timeout:g} s: {' '.join(argv)}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CommandError(f"{' '.join(argv)}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


class Namespace:
    """A network namespace (`ip netns add NAME`), its loopback up, and a directory for files of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path("/run") / name

    def create(self) -> Namespace:
        run_command(["ip", "netns", "add", self.name])
        self.directory.mkdir(mode=0o700, exist_ok=True)
        # IPv6 addresses are usable at once: duplicate address detection would take two seconds per interface.
        self.sysctl("net.ipv6.conf.default.accept_dad", 0)
        self.sysctl("net.ipv6.conf.default.router_solicitations", 0)
        self.ip("link set lo up")
        return self

    def exists(self) -> bool:
        return (RUN / self.name).exists()

    def destroy(self) -> None:
        """Ends what runs inside, removes it and its directory. Nothing happens when it is gone already."""
        if self.exists():
            _end_processes(self.pids())
            with contextlib.suppress(CommandError):
                run_command(["ip", "netns", "del", self.name])
        shutil.rmtree(self.directory, ignore_errors=True)

    def pids(self) -> list[int]:
        with contextlib.suppress(CommandError):
            return [int(pid) for pid in run_command(["ip", "netns", "pids", self.name]).split()]
        return []

    def call(self, function: Callable[[], Result]) -> Result:
        """Calls `function` in a thread inside the namespace; its result or exception comes back."""
        box: list[Result] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                _setns(self.name)
                box.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside, name=f"in {self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return box[0]

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return self.call(lambda: socket.socket(family, kind, protocol))

    def ip(self, arguments: str) -> str:
        """`ip ARGUMENTS` inside; returns what it printed."""
        return run_command(["ip", "-n", self.name, *arguments.split()])

    def sysctl(self, key: str, value: int | str) -> None:
        path = Path("/proc/sys") / key.replace(".", "/")
        self.call(lambda: path.write_text(f"{value}\n"))

    def sysctl_value(self, key: str) -> str:
        path = Path("/proc/sys") / key.replace(".", "/")
        return self.call(lambda: path.read_text().strip())

    def command(self, argv: Iterable[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, argv: Sequence[str], timeout: float = 20) -> str:
        return run_command(self.command(argv), timeout)

    def popen(
        self,
        argv: Sequence[str],
        output: IO[bytes] | int = subprocess.DEVNULL,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a program inside, in a session of its own (a Ctrl-C at the terminal is ours, not its)."""
        return subprocess.Popen(
            self.command(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )

    def offloads_off(self, interface: str) -> None:
        """Full checksums and no segments larger than the MTU leave `interface` (as `ethtool -K … tx off`).

        A veth hands packets over with their checksum still to be computed; whoever reads the frame itself, as
        AF_XDP does, would send them on broken. Real cables have no such packets.
        """

        def off() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                for command in (ETHTOOL_STSO, ETHTOOL_STXCSUM):
                    value = ctypes.create_string_buffer(
                        struct.pack("=II", command, 0), 8
                    )  # struct ethtool_value
                    request = struct.pack(
                        "=16sQ8x", interface.encode(), ctypes.addressof(value)
                    )  # struct ifreq
                    fcntl.ioctl(control, SIOCETHTOOL, request)

        self.call(off)


def _setns(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(RUN / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, f"cannot enter the namespace {name}: {os.strerror(error)}")
    finally:
        os.close(fd)


def _end_processes(pids: Sequence[int], patience: float = 3.0) -> None:
    """SIGTERM, then SIGKILL for what is still there after `patience` seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while pids and time.monotonic() < deadline:
            pids = [pid for pid in pids if _alive(pid)]
            time.sleep(0.02)
        if not pids:
            return


def _alive(pid: int) -> bool:
    """A zombie counts as ended: its parent will read its exit code when it likes."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def reap_leftovers(prefix: str) -> list[str]:
    """Removes the namespaces PREFIX<pid>-… whose process is gone: killed before it could clean up."""
    removed = []
    pattern = re.compile(re.escape(prefix) + r"(\d+)-\w+")
    for path in sorted(RUN.glob(f"{prefix}*")):
        match = pattern.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            Namespace(path.name).destroy()
            removed.append(path.name)
    return removed
