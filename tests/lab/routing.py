"""Routing daemons in namespaces, FRR and BIRD, and whether ixroute forwards as the kernel's tables say."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ixroute.demo.netns import CommandError, Namespace, run_command
from lab.routers import Router
from lab.support import wait_until

FRR = Path("/usr/lib/frr")


class Program:
    """A daemon of a namespace that is started, stopped, paused and killed by its process id."""

    def __init__(self, namespace: Namespace, argv: list[str], log: Path) -> None:
        self._namespace = namespace
        self._argv = argv
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        with self._log.open("ab") as output:
            self._process = self._namespace.popen([*self._argv, *more], output)

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> None:
        """However it is: paused programs end too."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def said(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Frr:
    """FRR's daemons in one namespace, as user frr, with files and sockets of their own.

    config: by daemon, in the order of starting; zebra is always there and always first.
    options: by daemon, what it is started with besides.
    """

    def __init__(
        self,
        namespace: Namespace,
        config: Mapping[str, str],
        options: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.namespace = namespace
        self._options = options or {}
        self.directory = namespace.directory / "frr"
        namespace.directory.chmod(0o711)  # user frr passes through
        self.directory.mkdir(mode=0o755)
        shutil.chown(self.directory, "frr", "frr")
        self.daemons = {name: self._daemon(name, text) for name, text in {"zebra": "", **config}.items()}

    def _daemon(self, name: str, text: str) -> Program:
        file = self.directory / f"{name}.conf"
        file.write_text(f"hostname {self.namespace.name}\n{text}\n")
        shutil.chown(file, "frr", "frr")
        argv = [
            os.fspath(FRR / name),
            *("-f", os.fspath(file)),
            *("-i", os.fspath(self.directory / f"{name}.pid")),
            *("-z", os.fspath(self.directory / "zserv.api")),
            *("--vty_socket", os.fspath(self.directory)),
            *("-A", "127.0.0.1", "-P", "0", "--limit-fds", "1024", "--log", "stdout"),
            *self._options.get(name, ()),
        ]
        return Program(self.namespace, argv, self.namespace.directory / f"{name}.log")

    def start(self) -> Frr:
        for name in self.daemons:
            self.start_one(name)
        return self

    def start_one(self, name: str) -> None:
        vty = self.directory / f"{name}.vty"
        vty.unlink(missing_ok=True)
        self.daemons[name].start()
        wait_until(vty.exists, 10, lambda: f"{name} does not listen:\n{self.daemons[name].said()}")

    def close(self) -> None:
        for daemon in reversed(self.daemons.values()):
            daemon.end()

    def vtysh(self, *commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        return run_command(["vtysh", "--vty_socket", os.fspath(self.directory), *words])

    def show(self, command: str) -> Any:
        """`show COMMAND json`; {} while the daemon has no answer."""
        try:
            return json.loads(self.vtysh(f"show {command} json"))
        except (ValueError, CommandError):
            return {}

    def configure(self, *commands: str) -> None:
        self.vtysh("configure terminal", *commands)

    def established(self) -> dict[str, int]:
        """By address family and BGP peer that is up: how often it came up so far."""
        summary = self.show("bgp summary")
        return {
            f"{family} {peer}": int(about["connectionsEstablished"])
            for family, part in summary.items()
            for peer, about in part.get("peers", {}).items()
            if about["state"] == "Established"
        }

    def prefixes(self) -> set[str]:
        """Of all routes that zebra knows, installed or not."""
        return {*self.show("ip route"), *self.show("ipv6 route")}

    def tell(self) -> str:
        """What a failed test prints."""
        shows = (
            "show bgp summary",
            "show ip ospf neighbor",
            "show ipv6 ospf6 neighbor",
            "show ip route summary",
            "show ipv6 route summary",
            "show ipv6 ospf6 route",
        )
        told = []
        for show in shows:
            with contextlib.suppress(CommandError):  # a daemon that does not run
                told.append(self.vtysh(show))
        return "\n".join(told)


class Bird:
    """BIRD 2 in one namespace."""

    def __init__(self, namespace: Namespace, config: str) -> None:
        self.directory = namespace.directory
        file = self.directory / "bird.conf"
        file.write_text(config)
        self._socket = self.directory / "bird.ctl"
        self._bird = Program(
            namespace,
            ["bird", "-f", "-c", os.fspath(file), "-s", os.fspath(self._socket)],
            self.directory / "bird.log",
        )

    def start(self, *more: str) -> Bird:
        """more: -R recovers from a graceful restart."""
        self._bird.start(*more)
        wait_until(self._answers, 10, lambda: f"BIRD does not answer:\n{self._bird.said()}")
        return self

    def _answers(self) -> bool:
        try:
            return "Daemon is up" in self.ask("show status")
        except CommandError:
            return False

    def close(self, number: int = signal.SIGTERM) -> None:
        self._bird.end(number)

    def ask(self, command: str) -> str:
        return run_command(["birdc", "-s", os.fspath(self._socket), *command.split()])


def kernel_routes(namespace: Namespace, *protocols: str) -> list[dict[str, Any]]:
    """IPv4 and IPv6 routes of the main table that these protocols made (`ip -j route`)."""
    found: list[dict[str, Any]] = []
    for family in ("-4", "-6"):
        for protocol in protocols:
            found += json.loads(namespace.ip(f"{family} -j route show proto {protocol}") or "[]")
    return found


def an_address(prefix: str) -> str:
    """The first host of a prefix as `ip route` writes it."""
    net, _, _ = prefix.partition("/")
    if net == "default":
        return "192.0.2.1"
    head, dot, last = net.rpartition(".")
    return f"{head}{dot}{int(last) + 1}" if dot else f"{net}1" if net.endswith("::") else net


def ways_of_kernel(namespace: Namespace, addresses: Iterable[str]) -> dict[str, str]:
    """By address: "DEV GATEWAY" as `ip route get` answers ("DEV" when it is on the link, "" when unreachable)."""
    wanted = list(addresses)
    answers = {}
    batch = namespace.directory / "route-get"
    for address in wanted:
        answers[address] = ""
    batch.write_text("".join(f"route get {address}\n" for address in wanted))
    done = subprocess.run(
        ["ip", "-n", namespace.name, "-o", "-force", "-batch", os.fspath(batch)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        words = line.split()
        if not words or words[0] in ("unreachable", "blackhole", "prohibit", "RTNETLINK"):
            continue
        gateway = ""
        if "via" in words:
            at = words.index("via") + 1
            gateway = words[at + 1] if words[at] in ("inet", "inet6") else words[at]
        answers[words[0]] = f"{words[words.index('dev') + 1]} {gateway}".strip()
    return answers


def way_of_ixroute(lookup: Mapping[str, Any]) -> str:
    """The same of `ixroute lookup`; a punt with its reason."""
    if lookup["verdict"] == "forward":
        legs = lookup["adjacency"]["legs"]
        assert len(legs) == 1, lookup
        gateway = lookup["address"] if lookup["neighbor"] else legs[0]["gateway"]
        return f"{lookup['adjacency']['port']} {gateway}".strip()
    return "" if lookup["reason"] == "no_route" else f"{lookup['verdict']} {lookup['reason']}"


def disagreements(router: Router, addresses: Iterable[str]) -> list[str]:
    """Where `ixroute lookup` and `ip route get` differ, one line each."""
    kernel = ways_of_kernel(router.lab.router, addresses)
    found = []
    for address, way in kernel.items():
        ours = way_of_ixroute(router.ixroute.lookup(address))
        if ours != way:
            found.append(f"{address}: kernel {way or 'unreachable'!r}, ixroute {ours or 'no route'!r}")
    return found


def assert_equal_tables(router: Router, addresses: Iterable[str], seconds: float = 5) -> None:
    """ixroute forwards each address as the kernel would; it may take some time to get there."""
    wanted = list(addresses)
    deadline = time.monotonic() + seconds
    while found := disagreements(router, wanted):
        if time.monotonic() > deadline:
            raise AssertionError(f"{len(found)} of {len(wanted)} differ:\n" + "\n".join(found[:20]))
        time.sleep(0.05)
