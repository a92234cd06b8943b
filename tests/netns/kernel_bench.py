"""A mirror over a real kernel: the calling thread in a network namespace of its own, hosts in a second one,
veth standing in for TAPs; and the question that decides everything: does our FIB answer as `ip route get`
does?"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ixroute.fib.adjacency import ADJ_ACTION_GROUP, AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.fib.rib import Rib
from ixroute.netlink.contract import Actions, InterfaceState, LinkState, Port, PortState, Step, TapState
from ixroute.netlink.mirror import Mirror
from ixroute.netlink.route_stream import RouteStream

ACTIONS = Actions(
    no_route=1,
    local_route=2,
    broadcast=3,
    multicast=4,
    blackhole_route=5,
    reject_route=6,
    external_route=7,
    unresolved_neigh=8,
    multipath_route=9,
    policy_rule=10,
)
PATIENCE_S = 15.0
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# What `ip route get` says on stderr when the answer is no way out.
_REFUSALS = {
    "Invalid argument": "blackhole",
    "No route to host": "unreachable",
    "Permission denied": "unreachable",
    "Network is unreachable": "no route",
    "Resource temporarily unavailable": "no route",  # throw
}


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def namespaces() -> Iterator[str]:
    """The calling thread in a new namespace, and the path of a second one. Nameless: nothing is left behind
    however the process ends."""
    old = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(CLONE_NEWNET))
        hosts = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _check(_libc.unshare(CLONE_NEWNET))
        try:
            yield f"/proc/{os.getpid()}/fd/{hosts}"
        finally:
            os.close(hosts)
    finally:
        _check(_libc.setns(old, CLONE_NEWNET))
        os.close(old)


def run(command: str, *, stdin: str | None = None) -> str:
    """One command in the router's namespace. AssertionError with what it said when it fails."""
    result = subprocess.run(
        command.split(), input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, f"{command}: {result.stderr.strip()}"
    return result.stdout


def ip(*commands: str) -> None:
    for command in commands:
        run(f"ip {command}")


def sysctl(name: str, value: int) -> None:
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(str(value))


@dataclass
class Sink:
    ports: dict[int, PortState] = field(default_factory=dict)
    vlans: dict[int, frozenset[int]] = field(default_factory=dict)
    views: dict[tuple[int, int], tuple[tuple[Step, ...], bool]] = field(default_factory=dict)
    subs: dict[int, InterfaceState] = field(default_factory=dict)
    local4: list[bytes] = field(default_factory=list)
    taps: dict[int, TapState] = field(default_factory=dict)
    links: list[LinkState] = field(default_factory=list)
    multipath: dict[int, tuple[int, int]] = field(default_factory=dict)
    used: bytes = b""

    def set_port(self, port: int, state: PortState) -> None:
        self.ports[port] = state

    def set_interface(self, number: int, state: InterfaceState) -> bool:
        self.subs[number] = state
        return True

    def drop_interface(self, number: int) -> None:
        del self.subs[number]

    def set_vlans(self, interface: int, vids: frozenset[int]) -> None:
        self.vlans[interface] = vids

    def set_view(self, interface: int, family: int, steps: Sequence[Step], same_source: bool) -> bool:
        self.views[interface, family] = (tuple(steps), same_source)
        return True

    def set_local4(self, addresses: Sequence[bytes]) -> None:
        self.local4 = list(addresses)

    def set_multipath(self, family: int, policy: int, fields: int) -> None:
        self.multipath[family] = (policy, fields)

    def on_tap(self, port: int, tap: TapState) -> None:
        self.taps[port] = tap

    def on_link(self, link: LinkState) -> None:
        self.links.append(link)

    def take_used(self) -> bytes:
        return self.used


class Bench:
    """lan (10.0.0.254/24, 2001:db8:a::fe/64) and wan (10.1.0.254/24, 2001:db8:b::fe/64) are ports 0 and 1;
    eth9 is an interface that is no port. Hosts .1 to .9 and ::1 to ::9 live behind each."""

    def __init__(self, hosts: str) -> None:
        self.hosts = hosts
        self.build()
        sysctl("ipv4/ip_forward", 1)
        sysctl("ipv6/conf/all/forwarding", 1)
        ip("link set lo up")
        for name, number in (("lan", 0), ("wan", 1), ("eth9", 9)):
            self.wire(name, number)

    def build(self) -> None:
        """The rooms around a mirror, empty as after a start of the daemon."""
        self.sink = Sink()
        self.fib = Fib()
        self.table = AdjacencyTable(65536, ACTIONS.external_route)
        self.rib = Rib(self.fib, self.table, ACTIONS.external_route)
        self.stream = RouteStream(self.rib)
        self.mirror: Mirror | None = None

    def wire(self, name: str, number: int) -> None:
        """A veth with hosts at its other end."""
        ip(f"link add {name} type veth peer name {name}-h netns {self.hosts}")
        letter = "abcdef"[min(number, 5)]
        sysctl(f"ipv6/conf/{name}/accept_dad", 0)
        ip(
            f"link set {name} up",
            f"addr add 10.{number}.0.254/24 dev {name}",
            f"addr add 2001:db8:{letter}::fe/64 dev {name} nodad",
        )
        self.host(f"ip link set {name}-h up")
        for host in range(1, 10):
            self.host(f"ip addr add 10.{number}.0.{host}/24 dev {name}-h")
            self.host(f"ip addr add 2001:db8:{letter}::{host}/64 dev {name}-h nodad")

    def host(self, command: str) -> str:
        """A command where the hosts are."""
        return run(f"nsenter --net={self.hosts} {command}")

    def start(self, **options: Any) -> Mirror:
        self.mirror = Mirror(
            self.rib,
            self.stream,
            self.table,
            ports=[Port(0, "lan"), Port(1, "wan")],
            actions=ACTIONS,
            sink=self.sink,
            watch=["eth9"],
            **{"audit_s": 0.0, **options},
        )
        self.mirror.start()
        assert self.mirror.wait_synced(PATIENCE_S)
        return self.mirror

    def close(self) -> None:
        if self.mirror is not None:
            self.mirror.stop()
        self.stream.close()
        self.rib.close()
        self.table.close()
        self.fib.close()

    # ---- answers ----

    def ours(self, address: str) -> tuple[str, int]:
        """In words like kernel()'s, and the action."""
        assert self.mirror is not None
        with self.mirror.locked():
            answer = self.rib.lookup(ipaddress.ip_address(address).packed)
            text = self.mirror.describe(answer.index)
            if answer.index < 8:
                return text, self.table.get(answer.index).action
            path = self.rib.path(answer.index)
            assert path is not None
            if answer.neighbour:
                text = f"dev {self.mirror.follower.tables.links.name(path.legs[0].ifindex)}"
            return text, self.table.get(answer.index).action

    def kernel(self, address: str) -> str:
        family = "-6" if ":" in address else "-4"
        result = subprocess.run(
            ["ip", family, "-j", "route", "get", address],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        if result.returncode != 0:
            for message, meaning in _REFUSALS.items():
                if message in result.stderr:
                    return meaning
            raise AssertionError(result.stderr)
        route = json.loads(result.stdout)[0]
        kind = route.get("type", "unicast")
        if kind != "unicast":
            return str(kind)
        via = route.get("via", {}).get("host") or route.get("gateway")
        return (f"via {via} " if via else "") + f"dev {route['dev']}"

    def agree(self, address: str) -> bool:
        ours, action = self.ours(address)
        kernel = self.kernel(address)
        if ours in ("kernel", "kernel only"):
            return True  # it decides packet by packet
        if ours == "no route":
            return kernel in ("no route", "unreachable")
        if action in (ACTIONS.multipath_route, ADJ_ACTION_GROUP) or "nexthop" in ours.split():
            return kernel in ours  # by a hash; or one is left of several
        words = ours.split()
        if words[0] == "nhid":
            words = words[2:]
        if "mtu" in words:
            words = words[: words.index("mtu")]
        return " ".join(words) == kernel

    def check(self, *addresses: str) -> None:
        """Within PATIENCE_S ours and the kernel's answers are the same for all of these."""
        wrong: list[str] = []
        self.until(lambda: not self._wrong(addresses, wrong), lambda: "; ".join(wrong))
        self.rib_is_sound()

    def _wrong(self, addresses: Sequence[str], wrong: list[str]) -> list[str]:
        wrong[:] = [f"{a}: {self.ours(a)}, kernel {self.kernel(a)}" for a in addresses if not self.agree(a)]
        return wrong

    def rib_is_sound(self) -> None:
        assert self.mirror is not None
        with self.mirror.locked():
            self.rib.check()

    def action(self, address: str) -> int:
        return self.ours(address)[1]

    def until(self, condition: Callable[[], object], why: Callable[[], str] | str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, why if isinstance(why, str) else why()
            time.sleep(0.01)

    def forwards(self, address: str) -> None:
        """Within PATIENCE_S packets to this address are forwarded."""
        self.until(
            lambda: self.action(address) == ACTIONS.forward, lambda: f"{address}: {self.ours(address)}"
        )

    def chooses(self, address: str, *gateways: str) -> None:
        """Within PATIENCE_S packets to this address go to one of several next hops, and these are all."""

        def legs() -> set[str]:
            assert self.mirror is not None
            with self.mirror.locked():
                group = self.mirror.group(self.rib.lookup(ipaddress.ip_address(address).packed).index)
            return {str(ipaddress.ip_address(hop.gateway)) for hop in group.hops} if group else set()

        self.until(lambda: legs() == set(gateways), lambda: f"{address}: {legs()}, {self.ours(address)}")
        assert self.action(address) == ADJ_ACTION_GROUP

    def becomes(self, address: str, action: int) -> None:
        self.until(
            lambda: self.action(address) == action, lambda: f"{address}: {self.ours(address)}, not {action}"
        )
