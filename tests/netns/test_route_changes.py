"""Routes change under traffic: packets follow the kernel's tables within a second, and none goes to the dead.

A stream flows to 10.8.0.1 (fd08::1), by the server at first; after the change the kernel sends it to the
third host, or to nobody. Each change is played at Linux too, which shows that it means what the test takes it
to mean.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from ixroute.demo.probes import ping
from lab.packets import ETH_IP4, ETH_IP6, ethernet, ip4, ip6, udp
from lab.routers import Router
from lab.support import wait_until
from lab.wires import Flood, Wire

pytestmark = pytest.mark.netns

BY_SERVER4 = "route add 10.8.0.0/16 via 10.0.2.2 dev {wan}"
ELSE_THIRD4 = "route add 10.8.0.0/16 via 10.0.3.2 dev {dmz} metric 100"
BY_SERVER6 = "-6 route add fd08::/32 via fd00:2::2 dev {wan} metric 50"
ELSE_THIRD6 = "-6 route add fd08::/32 via fd00:3::2 dev {dmz} metric 100"


@dataclass(frozen=True)
class Change:
    """`before` and `event` are what is typed after `ip` on the router ("server: …": on the server)."""

    name: str
    before: tuple[str, ...]
    event: tuple[str, ...]
    then: str = "third"  # who hears the stream afterwards: server, third or nobody
    version: int = 4
    sysctls: tuple[str, ...] = ()


BY_OBJECT4 = ("nexthop add id 7 via 10.0.2.2 dev {wan}", "route add 10.8.0.0/16 nhid 7", ELSE_THIRD4)
BY_OBJECT6 = (
    "-6 nexthop add id 8 via fd00:2::2 dev {wan}",
    "-6 route add fd08::/32 nhid 8 metric 50",
    ELSE_THIRD6,
)

CHANGES = [
    Change("route deleted", (BY_SERVER4, ELSE_THIRD4), ("route del 10.8.0.0/16 via 10.0.2.2 dev {wan}",)),
    Change("route replaced", (BY_SERVER4,), ("route replace 10.8.0.0/16 via 10.0.3.2 dev {dmz}",)),
    Change("more specific route", (BY_SERVER4,), ("route add 10.8.0.0/24 via 10.0.3.2 dev {dmz}",)),
    Change(
        "better metric",
        (ELSE_THIRD4.replace("100", "500"), BY_SERVER4.replace("10.8", "10.8") + " metric 400"),
        ("route add 10.8.0.0/16 via 10.0.3.2 dev {dmz} metric 10",),
    ),
    Change("host route", (BY_SERVER4,), ("route add 10.8.0.1/32 via 10.0.3.2 dev {dmz}",)),
    Change("blackhole", (BY_SERVER4,), ("route add blackhole 10.8.0.1/32",), "nobody"),
    Change("last route deleted", (BY_SERVER4,), ("route del 10.8.0.0/16",), "nobody"),
    Change("interface down", (BY_SERVER4, ELSE_THIRD4), ("link set {wan} down",)),
    Change("interface down, no other way", (BY_SERVER4,), ("link set {wan} down",), "nobody"),
    Change("address removed", (BY_SERVER4, ELSE_THIRD4), ("addr del 10.0.2.1/24 dev {wan}",)),
    Change("interface deleted", (BY_SERVER4, ELSE_THIRD4), ("link del {wan}",)),
    Change(
        "only member of a nexthop group deleted",
        (
            "nexthop add id 7 via 10.0.2.2 dev {wan}",
            "nexthop add id 70 group 7",
            "route add 10.8.0.0/16 nhid 70",
            ELSE_THIRD4,
        ),
        ("nexthop del id 7",),
    ),
    Change("nexthop deleted", BY_OBJECT4, ("nexthop del id 7",)),
    Change("interface of a nexthop down", BY_OBJECT4, ("link set {wan} down",)),
    # Linux keeps a nexthop object, and its routes, when the address of its gateway's network goes.
    Change("address beside a nexthop removed", BY_OBJECT4, ("addr del 10.0.2.1/24 dev {wan}",), "server"),
    Change("interface of a nexthop deleted", BY_OBJECT4, ("link del {wan}",)),
    Change(
        "nexthop replaced",
        ("nexthop add id 7 via 10.0.2.2 dev {wan}", "route add 10.8.0.0/16 nhid 7"),
        ("nexthop replace id 7 via 10.0.3.2 dev {dmz}",),
    ),
    Change(
        "carrier lost",
        (BY_SERVER4, ELSE_THIRD4),
        ("server: link set eth0 down",),
        sysctls=("net.ipv4.conf.{wan}.ignore_routes_with_linkdown",),
    ),
    Change(
        "card deleted",
        (BY_SERVER4, ELSE_THIRD4),
        ("link del r1",),  # the router's end of the cable; where Linux routes it is {wan} itself
        sysctls=("net.ipv4.conf.{wan}.ignore_routes_with_linkdown",),
    ),
    Change(
        "IPv6 route deleted",
        (BY_SERVER6, ELSE_THIRD6),
        ("-6 route del fd08::/32 via fd00:2::2 dev {wan}",),
        version=6,
    ),
    Change(
        "IPv6 host route", (BY_SERVER6,), ("-6 route add fd08::1/128 via fd00:3::2 dev {dmz}",), version=6
    ),
    Change("IPv6 blackhole", (BY_SERVER6,), ("-6 route add blackhole fd08::1/128",), "nobody", 6),
    Change("IPv6 interface down", (BY_SERVER6, ELSE_THIRD6), ("link set {wan} down",), version=6),
    Change("IPv6 interface deleted", (BY_SERVER6, ELSE_THIRD6), ("link del {wan}",), version=6),
    Change("IPv6 nexthop deleted", BY_OBJECT6, ("nexthop del id 8",), version=6),
    Change("interface of an IPv6 nexthop down", BY_OBJECT6, ("link set {wan} down",), version=6),
    Change("interface of an IPv6 nexthop deleted", BY_OBJECT6, ("link del {wan}",), version=6),
    # Linux keeps a route whose gateway it has resolved, though the gateway's network is gone.
    Change(
        "IPv6 address removed",
        (BY_SERVER6, ELSE_THIRD6),
        ("-6 addr del fd00:2::1/64 dev {wan}",),
        "server",
        version=6,
    ),
]


class Stream:
    """Frames from the client to 10.8.0.1 or fd08::1, and who hears them."""

    MARK = b"where do I go"

    def __init__(self, router: Router, version: int) -> None:
        link = router.lab.links[0]
        if version == 4:
            src, dst = link.host4, "10.8.0.1"
            packet, kind = ip4(src, dst, udp(src, dst, self.MARK, dport=9)), ETH_IP4
        else:
            src, dst = link.host6, "fd08::1"
            packet, kind = ip6(src, dst, udp(src, dst, self.MARK, dport=9)), ETH_IP6
        self.wires = {name: Wire(host) for name, host in router.lab.hosts.items()}
        self.flood = Flood(
            self.wires["client"], [ethernet(link.router_mac, link.host_mac, kind, packet)], 1000
        )

    def heard(self, name: str) -> int:
        """How many of the stream's packets that host was sent since it was asked last."""
        return sum(self.MARK in frame for frame in self.wires[name].take())

    def moved_to(self, name: str) -> bool:
        """Whether the last 40 ms of the stream went there and nowhere else."""
        hosts = ("server", "third")
        for host in hosts:
            self.heard(host)
        time.sleep(0.04)
        heard = {host: self.heard(host) for host in hosts}
        return all((count > 0) == (host == name) for host, count in heard.items())

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()


@contextlib.contextmanager
def flowing(router: Router, version: int) -> Iterator[Stream]:
    stream = Stream(router, version)
    try:
        with stream.flood:
            yield stream
    finally:
        stream.close()


def prepared(router: Router, change: Change) -> None:
    for link in router.lab.links:  # neighbours are resolved beforehand
        assert ping(router.lab.router, link.host4, 1).all_back
        assert ping(router.lab.router, link.host6, 1).all_back
    for key in change.sysctls:
        router.lab.router.sysctl(key.format(**router.lab.interfaces), 1)
    for command in change.before:
        router.ip(command)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_forwarding_follows_the_kernel_within_a_second(
    make_router: Callable[..., Router], kind: str, change: Change
) -> None:
    router = make_router(kind, hosts=3)
    prepared(router, change)
    with flowing(router, change.version) as stream:
        wait_until(lambda: stream.moved_to("server"), 2, "the stream never went to the server")
        for command in change.event:
            if command.startswith("server: "):
                router.lab.server.ip(command.removeprefix("server: "))
            else:
                router.ip(command)
        wait_until(lambda: stream.moved_to(change.then), 1, f"{change.name}: not to {change.then}")
        for host in ("server", "third"):
            stream.heard(host)  # what came before it moved
        time.sleep(0.3)
        heard = {host: stream.heard(host) > 0 for host in ("server", "third")}
        assert heard == {host: host == change.then for host in heard}


def test_a_port_comes_back_with_its_interface(make_router: Callable[..., Router], kind: str) -> None:
    router = make_router(kind, hosts=3)
    prepared(router, Change("", (BY_SERVER4, ELSE_THIRD4), ()))
    with flowing(router, 4) as stream:
        wait_until(lambda: stream.moved_to("server"), 2, "the stream never went to the server")
        router.ip("link set {wan} down")
        wait_until(lambda: stream.moved_to("third"), 1, "the stream stayed")
        router.ip("link set {wan} up")
        router.ip(BY_SERVER4)  # the kernel threw it away with the link
        wait_until(lambda: stream.moved_to("server"), 3, "the stream did not come back")
