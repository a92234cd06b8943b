"""Interfaces flap, many times in a row: after each the tables are the kernel's, and in the end nothing has grown.

A flap is an event at random on one of three ports: the interface goes down and up, its wire does, an address or a
nexthop object is deleted, the MTU or the MAC changes. Somebody then sets up again what the kernel threw away with it,
as a routing daemon would. IXROUTE_FLAPS: how many, in a row.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from ixroute import client
from ixroute.demo.netns import CommandError
from ixroute.demo.probes import ping
from ixroute.demo.topology import Link
from lab.oracle import daemon_answers, differences, kernel_answers
from lab.routers import Router
from lab.routing import an_address
from lab.steady import frame_to
from lab.support import wait_until
from lab.wires import Flood, Wire

pytestmark = pytest.mark.netns

FLAPS = int(os.environ.get("IXROUTE_FLAPS", "15"))
SEED = int(os.environ.get("IXROUTE_FLAPS_SEED", "1"))
AT_ONCE = 4
"""As many flaps without a look in between, now and then."""
N_ROUTES = 20


class Scene:
    """A router with routes by each port, by several, and by nexthop objects, in both families."""

    def __init__(self, router: Router, rng: random.Random) -> None:
        self.router = router
        self.rng = rng
        self.links = router.lab.links[1:]
        self.addresses = {4: self._addresses(4), 6: self._addresses(6)}

    def _addresses(self, version: int) -> list[str]:
        links = self.router.lab.links
        if version == 4:
            own = [a for link in links for a in (link.host4, link.router4, link.net4.replace("0/24", "77"))]
            far = [f"10.{30 + n}.{i}.1" for n in (2, 3, 4) for i in range(N_ROUTES)]
            return [*own, *far, "10.40.0.1", "10.41.0.1", "10.42.0.1", "203.0.113.1"]
        own = [a for link in links for a in (link.host6, link.router6, f"fd00:{link.number}::77")]
        far = [f"fd30:{n}:{i:x}::1" for n in (2, 3, 4) for i in range(N_ROUTES)]
        return [*own, *far, "fd40::1", "fd41::1", "fd42::1", "2001:db8::1"]

    def ip(self, *commands: str) -> None:
        """What is there already is no mistake, nor is what cannot be there as things are."""
        for command in commands:
            with contextlib.suppress(CommandError):
                self.router.ip(command)

    def furnish(self) -> None:
        """All addresses, routes and objects; twice, since the kernel takes its time over an IPv6 address."""
        for link in self.links:
            self.router.lab.hosts[link.host].ip("link set eth0 up")
            host = self.router.lab.hosts[link.host]
            host.ip(f"-6 addr replace {link.host6}/64 dev eth0 nodad")
            host.ip(f"route replace default via {link.router4}")
            host.ip(f"-6 route replace default via {link.router6} dev eth0")
            self.ip(
                f"link set {link.interface} up mtu {link.mtu}",
                f"addr replace {link.router4}/24 dev {link.interface}",
                f"addr replace {link.router6}/64 dev {link.interface} nodad",
            )
        for link in self.links:
            wait_until(lambda i=link.interface: self.carrier(i), 5, f"no carrier on {link.interface}")
        batch = self.router.lab.router.directory / "furnish"
        batch.write_text("\n".join(self._routes()) + "\n")
        self.router.ip(f"-batch {batch}")

    def carrier(self, interface: str) -> bool:
        return "LOWER_UP" in self.router.ip(f"-br link show {interface}")

    def _routes(self) -> list[str]:
        lines = []
        for link in self.links:
            n = link.number
            for i in range(N_ROUTES):
                lines.append(f"route replace 10.{30 + n}.{i}.0/24 via {link.host4}")
                lines.append(f"route replace fd30:{n}:{i:x}::/48 via {link.host6} dev {link.interface}")
            lines.append(f"nexthop replace id {n} via {link.host4} dev {link.interface}")
            lines.append(f"nexthop replace id {n + 10} via {link.host6} dev {link.interface}")
        for head, gateways in (
            ("10.40.0.0/16", [link.host4 for link in self.links]),
            ("fd40::/32", [link.host6 for link in self.links]),
        ):
            legs = " ".join(
                f"nexthop via {gateway} dev {link.interface}"
                for gateway, link in zip(gateways, self.links, strict=True)
            )
            lines.append(f"route replace {head} {legs}")
        lines += ["nexthop replace id 20 group 2/3/4", "nexthop replace id 21 group 12/13/14"]
        lines += ["route replace 10.41.0.0/16 nhid 20", "route replace fd41::/32 nhid 21"]
        return [*lines, "route replace 10.42.0.0/16 nhid 21", "route replace fd42::/32 nhid 12"]

    def flap(self) -> str:
        link = self.rng.choice(self.links)
        name, event = self.rng.choice(list(EVENTS.items()))
        event(self, link)
        return f"{name} of {link.interface}"

    def differences(self) -> list[str]:
        """Of routes with one next hop; which of several `ip route get` names is the hash's matter."""
        found = []
        for addresses in self.addresses.values():
            single = [a for a in addresses if a.split(".")[:2] not in GROUPS4 and a[:4] not in GROUPS6]
            kernel = kernel_answers(self.router.lab.router, single)
            found += differences(single, kernel, daemon_answers(self.router.ixroute, single))
        for address, prefix in GROUPS:
            legs, ours = self.legs_of_kernel(prefix), self.legs(address)
            if ours is not None and legs != ours:
                found.append(f"{address}: the kernel's legs are {sorted(legs)}, the daemon's {sorted(ours)}")
        return found

    def legs_of_kernel(self, prefix: str) -> set[str]:
        """Interfaces that are not dead for it. A route by an object that lost members shows those that are left."""
        family = "-6" if ":" in prefix else "-4"
        shown = self.router.ip(f"{family} route show {prefix}").splitlines()
        words = [line.split() for line in shown if "dead" not in line.split()]
        return {after for line in words for before, after in itertools.pairwise(line) if before == "dev"}

    def legs(self, address: str) -> set[str] | None:
        """None: the kernel chooses."""
        found = self.router.ixroute.lookup(address)
        if found["reason"] == "multipath_route":
            return None
        if found["route"] is None:
            return set()
        if found["verdict"] == "forward":
            group = found["adjacency"]["group"]
            return {leg["port"] for leg in group} if group else {found["adjacency"]["port"]}
        return {leg["dev"] for leg in found["route"]["legs"]}

    def check_equal(self, what: str) -> None:
        wait_until(lambda: not self.differences(), 5, lambda: f"{what}:\n" + "\n".join(self.differences()))

    def resolve(self) -> None:
        """Every neighbour is known, on both sides."""
        for link in self.router.lab.links:
            for address in (link.host4, link.host6):
                wait_until(
                    lambda a=address: ping(self.router.lab.router, a, 1, patience=0.3).all_back, 10,
                    f"{address} does not answer",
                )  # fmt: skip

    def counts(self) -> dict[str, Any]:
        """What must not grow. Neighbours besides the hosts' own come and go as the kernel likes."""
        stats, daemon = self.router.ixroute.stats(), self.router.ixroute
        mirror, fib = stats["mirror"], stats["fib"]
        adjacencies = client.request(os.fspath(daemon.control), "adjacencies")
        return {
            "routes": (mirror["routes4"], mirror["routes6"]),
            "paths": mirror["paths"],
            "managed": mirror["managed"],
            "prefixes": (fib["prefixes4"], fib["prefixes6"]),
            "adjacencies": len(adjacencies),
            "groups": sum(adjacency["action"] == "group" for adjacency in adjacencies),
            "marks": self.marks(),
        }

    def marks(self) -> int:
        """Neighbours that the kernel itself keeps resolved for somebody."""
        lines = [line for f in ("-4", "-6") for line in self.router.ip(f"{f} neigh show").splitlines()]
        return sum("managed" in line for line in lines)


GROUPS = [
    (an_address(prefix), prefix)
    for prefix in ("10.40.0.0/16", "10.41.0.0/16", "10.42.0.0/16", "fd40::/32", "fd41::/32")
]
GROUPS4 = [["10", "40"], ["10", "41"], ["10", "42"]]
GROUPS6 = ("fd40", "fd41")


def tap_down(scene: Scene, link: Link) -> None:
    scene.router.ip(f"link set {link.interface} down")
    _pause(scene)
    scene.router.ip(f"link set {link.interface} up")


def wire_down(scene: Scene, link: Link) -> None:
    host = scene.router.lab.hosts[link.host]
    host.ip("link set eth0 down")
    _pause(scene)
    host.ip("link set eth0 up")


def device_down(scene: Scene, link: Link) -> None:
    scene.router.ip(f"link set {link.device} down")
    _pause(scene)
    scene.router.ip(f"link set {link.device} up")


def address_deleted(scene: Scene, link: Link) -> None:
    scene.ip(f"addr del {link.router4}/24 dev {link.interface}")
    _pause(scene)


def address6_deleted(scene: Scene, link: Link) -> None:
    scene.ip(f"-6 addr del {link.router6}/64 dev {link.interface}")
    _pause(scene)


def object_deleted(scene: Scene, link: Link) -> None:
    scene.ip(f"nexthop del id {scene.rng.choice((link.number, link.number + 10, 20, 21))}")
    _pause(scene)


def mtu_changed(scene: Scene, link: Link) -> None:
    scene.ip(f"link set {link.interface} mtu 1400")
    _pause(scene)


def neighbours_flushed(scene: Scene, link: Link) -> None:
    scene.ip(f"neigh flush dev {link.interface}")
    _pause(scene)


def _pause(scene: Scene) -> None:
    time.sleep(scene.rng.choice((0, 0, 0.01, 0.05, 0.2)))


EVENTS: dict[str, Callable[[Scene, Link], None]] = {
    "down and up": tap_down,
    "the wire": wire_down,
    "the device": device_down,
    "IPv4 address": address_deleted,
    "IPv6 address": address6_deleted,
    "objects": object_deleted,
    "MTU": mtu_changed,
    "neighbours": neighbours_flushed,
}


def test_tables_are_the_kernels_after_each_of_many_flaps_and_nothing_grows(
    make_router: Callable[..., Router],
) -> None:
    rng = random.Random(SEED)
    router = make_router(hosts=4)
    scene = Scene(router, rng)
    for link in scene.links:
        router.lab.hosts[link.host].sysctl("net.ipv6.conf.eth0.keep_addr_on_down", 1)
    scene.furnish()
    scene.resolve()
    scene.check_equal("before any flap")
    wait_until(lambda: scene.counts() == scene.counts(), 5, "the counts do not stand still")
    bare = scene.counts()
    print(bare)
    pid = router.ixroute.pid
    wire, link = Wire(router.lab.client), router.lab.links[0]
    done = 0
    try:
        frames = [frame_to(router.lab, a, b"beside flaps") for v in (4, 6) for a in scene.addresses[v]]
        with Flood(wire, frames, 500):
            while done < FLAPS:
                batch = min(FLAPS - done, AT_ONCE if rng.random() < 0.2 else 1)
                happened = [scene.flap() for _ in range(batch)]
                scene.check_equal(f"flap {done}, after {happened}")
                done += batch
                scene.furnish()
                scene.check_equal(f"flap {done}, mended after {happened}")
    finally:
        wire.close()
    scene.resolve()
    assert router.ixroute.pid == pid
    assert router.ixroute.process is not None
    assert router.ixroute.process.poll() is None
    wait_until(lambda: scene.counts() == bare, 15, lambda: f"was {bare}\nis {scene.counts()}")
    router.check_balance()
    for link in scene.links:
        assert ping(router.lab.client, link.host4, 3).all_back
        assert ping(router.lab.client, link.host6, 3).all_back
