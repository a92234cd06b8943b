"""Packets longer than the way out: what is said of them, and the pieces of those that may be cut, are Linux's byte by
byte for every kind of route that has an MTU; TCP finds the MTU across the router."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from ixroute.demo.daemon import Daemon
from ixroute.demo.netns import Namespace
from ixroute.demo.probes import ping
from lab.frames import ANY, Case, from_client
from lab.packets import FRAGMENT, ip4, ip6, udp
from lab.routers import Router, start_router
from lab.support import changes, wait_until
from lab.wires import Stage, told

pytestmark = pytest.mark.netns

DF, MF = 0x4000, 0x2000
NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Way:
    """A route, typed after `ip`, to 10.X/16 or fdX::/16. border: the longest packet that Linux forwards by it."""

    name: str
    to: str
    commands: tuple[str, ...]
    border: int

    @property
    def version(self) -> int:
        return 6 if ":" in self.to else 4


def way(name: str, number: int, route: str, border: int, *before: str) -> Way:
    """`route` is what follows the destination; with "6 " in front it is one of IPv6."""
    version, route = (6, route[2:]) if route.startswith("6 ") else (4, route)
    net, to = (
        (f"10.{number}.0.0/16", f"10.{number}.0.1")
        if version == 4
        else (f"fd{number}::/16", f"fd{number}::1")
    )
    return Way(name, to, (*before, f"-{version} route replace {net} {route}"), border)


WAYS = [
    way("the interface's", 40, "via 10.0.2.2 dev {wan}", 1400),
    way("the route's", 41, "via 10.0.2.2 dev {wan} mtu 1001", 1001),
    way("the route's, locked", 42, "via 10.0.2.2 dev {wan} mtu lock 1000", 1000),
    way("the route's, below what every host takes", 44, "via 10.0.2.2 dev {wan} mtu 500", 500),
    way("by an IPv6 gateway", 45, "via inet6 fd00:2::2 dev {wan}", 1400),
    way("the route's, by an IPv6 gateway", 46, "via inet6 fd00:2::2 dev {wan} mtu 1100", 1100),
    way(
        "the route's, by a nexthop object",
        47,
        "nhid 47 mtu 900",
        900,
        "nexthop replace id 47 via 10.0.2.2 dev {wan}",
    ),
    way("of several ways", 48, "nexthop via 10.0.2.2 dev {wan} nexthop via 10.0.2.7 dev {wan}", 1400),
    way(
        "the route's, of several ways",
        49,
        "mtu 1200 nexthop via 10.0.2.2 dev {wan} nexthop via 10.0.2.7 dev {wan}",
        1200,
    ),
    way(
        "locked, of several ways",
        50,
        "mtu lock 1200 nexthop via 10.0.2.2 dev {wan} nexthop via 10.0.2.7 dev {wan}",
        1200,
    ),
    way("the interface's", 40, "6 via fd00:2::2 dev {wan}", 1400),
    way("the route's", 41, "6 via fd00:2::2 dev {wan} mtu 1301", 1301),
    way("the route's, locked", 42, "6 via fd00:2::2 dev {wan} mtu lock 1300", 1300),
    way("the route's, above the interface's", 43, "6 via fd00:2::2 dev {wan} mtu 1450", 1400),
    way(
        "the route's, by a nexthop object",
        47,
        "6 nhid 48 mtu 1290",
        1290,
        "-6 nexthop replace id 48 via fd00:2::2 dev {wan}",
    ),
    way(
        "the route's, of several ways",
        49,
        "6 mtu 1299 nexthop via fd00:2::2 dev {wan} nexthop via fd00:2::7 dev {wan}",
        1299,
    ),
]

FURNITURE = (
    "neigh replace 10.0.2.7 lladdr 02:00:00:00:02:02 nud permanent dev {wan}",
    "neigh replace fd00:2::7 lladdr 02:00:00:00:02:02 nud permanent dev {wan}",
)


def ip(stage: Stage, command: str) -> None:
    stage.lab.router.ip(command.format(**stage.lab.interfaces))


@pytest.fixture(scope="module")
def ways(linux: Stage, ours: tuple[Stage, Daemon]) -> None:
    """All of them, at both."""
    commands = [*FURNITURE, *(command for one in WAYS for command in one.commands)]
    for stage in (linux, ours[0]):
        for command in commands:
            ip(stage, command)


def packets(one: Way, border: int) -> Iterator[tuple[str, bytes]]:
    """Around the border, with all that decides about cutting: may it, is it a piece already, options, headers."""
    n = next(NUMBERS)
    if one.version == 4:
        src = f"10.9.{70 + n // 250}.{1 + n % 250}"
        for size in sorted({border, border + 1, 1500}):
            data = udp(src, one.to, bytes(range(256)) * 6)[: size - 20]
            yield f"{size} bytes", ip4(src, one.to, data)
            yield f"{size} bytes, DF", ip4(src, one.to, data, fragment=DF)
            yield f"{size} bytes, first piece", ip4(src, one.to, data, fragment=MF)
            yield f"{size} bytes, last piece", ip4(src, one.to, data, fragment=40)
            yield f"{size} bytes, options", ip4(src, one.to, data[4:], options=b"\x94\x04\0\0")
    else:
        src = f"fd09::70:{n:x}"
        for size in sorted({border, border + 1, 1500}):
            data = udp(src, one.to, bytes(range(256)) * 6)[: size - 40]
            yield f"{size} bytes", ip6(src, one.to, data)
            piece = b"\x11\0\0\x01\0\0\0\x07" + data[8:]
            yield f"{size} bytes, a piece", ip6(src, one.to, piece, proto=FRAGMENT)


def compare(linux: Stage, ours: tuple[Stage, Daemon], one: Way, border: int) -> None:
    """Both make the same of packets around `border`, and Linux forwards no longer ones whole."""
    stage, daemon = ours
    for name, packet in packets(one, border):
        case = Case(name, from_client(packet), ANY)
        before = daemon.stats()
        expected, heard = linux.play(case), stage.play(case)
        assert heard == expected, (
            f"{name}\nLinux:\n{told(expected)}\nixroute:\n{told(heard)}\n{changes(before, daemon.stats())}"
        )
        whole = any(len(frame) == 14 + len(packet) for frame in expected["wan"])
        assert whole == (len(packet) <= border), f"{name}: the border is not {border}"


@pytest.mark.parametrize("one", WAYS, ids=lambda one: f"IPv{one.version} {one.name}")
def test_what_is_too_long_is_cut_or_told_of_as_linux_does(
    linux: Stage, ours: tuple[Stage, Daemon], ways: None, one: Way
) -> None:
    compare(linux, ours, one, one.border)


def follows(stage: Stage, one: Way, border: int) -> Callable[[], bool]:
    """Whether a packet of that many bytes passes whole and one more does not."""

    def holds() -> bool:
        found: list[bool] = []
        for size in (border, border + 1):
            n = next(NUMBERS)
            src = f"10.9.{70 + n // 250}.{1 + n % 250}" if one.version == 4 else f"fd09::70:{n:x}"
            data = bytes(size - (20 if one.version == 4 else 40))
            packet = ip4(src, one.to, data, fragment=DF) if one.version == 4 else ip6(src, one.to, data)
            heard = stage.play(Case("", from_client(packet), ANY))
            found.append(any(len(frame) == 14 + size for frame in heard["wan"]))
        return found == [True, False]

    return holds


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_an_mtu_that_is_changed_holds_for_the_next_packets(
    linux: Stage, ours: tuple[Stage, Daemon], ways: None, version: int
) -> None:
    plain = next(one for one in WAYS if one.version == version)
    routed = [one for one in WAYS if one.version == version][1]
    route = routed.commands[-1].split(" mtu ")[0]
    stages = (linux, ours[0])
    try:
        for command, one, border in (
            ("link set {wan} mtu 1350", plain, 1350),
            (f"{route} mtu 1333", routed, 1333),
            (route, routed, 1350),
            ("link set {wan} mtu 1400", routed, 1400),
        ):
            for stage in stages:
                ip(stage, command)
                wait_until(
                    follows(stage, one, border), 3, f"{command}: {border} bytes do not pass, or more do"
                )
            compare(linux, ours, one, border)
    finally:
        for stage in stages:
            ip(stage, "link set {wan} mtu 1400")
            ip(stage, routed.commands[-1])


PORT = 7007
EACH = 300_000


class Answering:
    """A host that answers on `address` with how many bytes came, connection by connection."""

    def __init__(self, host: Namespace, address: str) -> None:
        self.served = 0
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = host.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, PORT))
        self._listener.listen(32)
        self._listener.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="answering")
        self._thread.start()

    def _serve(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(5)
                    count = 0
                    while data := connection.recv(65536):
                        count += len(data)
                    self.served += 1
                    connection.sendall(b"%d" % count)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()


def delivered(client: Namespace, address: str) -> int:
    """Bytes of EACH that arrive on a new connection; its segments may not be cut on the way."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect((address, PORT))
        sock.sendall(bytes(EACH))
        sock.shutdown(socket.SHUT_WR)
        return int(sock.recv(64))


@dataclass(frozen=True)
class Crossing:
    """routes: typed after `ip` on the router. hosts: who answers. mtu: what the client learns."""

    name: str
    address: str
    routes: Sequence[str]
    mtu: int
    hosts: Sequence[str] = ("server",)
    connections: int = 1


CROSSINGS = [
    Crossing("plain", "10.99.0.1", ("route add 10.99.0.1 via 10.0.2.2",), 1400),
    Crossing("IPv6, plain", "fd99::1", ("-6 route add fd99::1 via fd00:2::2",), 1400),
    Crossing("the route's", "10.99.0.1", ("route add 10.99.0.1 via 10.0.2.2 mtu 1280",), 1280),
    Crossing("the route's, locked", "10.99.0.1", ("route add 10.99.0.1 via 10.0.2.2 mtu lock 1270",), 1270),
    Crossing("IPv6, the route's", "fd99::1", ("-6 route add fd99::1 via fd00:2::2 mtu 1300",), 1300),
    Crossing("by an IPv6 gateway", "10.99.0.1", ("route add 10.99.0.1 via inet6 fd00:2::2 dev {wan}",), 1400),
    Crossing(
        "by an IPv6 gateway, the route's",
        "10.99.0.1",
        ("route add 10.99.0.1 via inet6 fd00:2::2 dev {wan} mtu 1280",),
        1280,
    ),
    Crossing(
        "of two ways, one of them narrow",
        "10.99.0.1",
        ("route add 10.99.0.1 nexthop via 10.0.2.2 dev {wan} nexthop via 10.0.3.2 dev {dmz}",),
        1400,
        ("server", "third"),
        16,
    ),
    Crossing(
        "IPv6, of two ways, one of them narrow",
        "fd99::1",
        ("-6 route add fd99::1 nexthop via fd00:2::2 dev {wan} nexthop via fd00:3::2 dev {dmz}",),
        1400,
        ("server", "third"),
        16,
    ),
    Crossing(
        "the route's, of two ways",
        "10.99.0.1",
        ("route add 10.99.0.1 mtu 1300 nexthop via 10.0.2.2 dev {wan} nexthop via 10.0.3.2 dev {dmz}",),
        1300,
        ("server", "third"),
        16,
    ),
    Crossing(
        "of two ways by IPv6 gateways, one of them narrow",
        "10.99.0.1",
        ("route add 10.99.0.1 nexthop via inet6 fd00:2::2 dev {wan} nexthop via inet6 fd00:3::2 dev {dmz}",),
        1400,
        ("server", "third"),
        16,
    ),
]


@pytest.fixture(scope="module", params=["linux", "ixroute"])
def crossed(request: pytest.FixtureRequest) -> Iterator[Router]:
    """A router whose way to the server is narrower than the server knows: no host limits its segments to it."""
    router = start_router(str(request.param), hosts=3, label="mtu")
    try:
        lab = router.lab
        router.ip("link set {wan} mtu 1400")
        for version in (4, 6):
            lab.router.sysctl(f"net.ipv{version}.fib_multipath_hash_policy", 1)
        for host in ("server", "third"):
            lab.hosts[host].ip("addr add 10.99.0.1/32 dev lo")
            lab.hosts[host].ip("addr add fd99::1/128 dev lo nodad")
        for target in ("10.0.2.2", "10.0.3.2", "fd00:2::2", "fd00:3::2"):
            assert ping(lab.client, target, 2).all_back
        yield router
    finally:
        router.close()


@pytest.mark.parametrize("crossing", CROSSINGS, ids=lambda crossing: crossing.name)
def test_tcp_finds_the_mtu_across_the_router(crossed: Router, crossing: Crossing) -> None:
    client = crossed.lab.client
    version = 6 if ":" in crossing.address else 4
    for route in crossing.routes:
        crossed.ip(route)
    answering = [Answering(crossed.lab.hosts[host], crossing.address) for host in crossing.hosts]
    try:
        wait_until(lambda: ping(client, crossing.address, 1, patience=0.3).all_back, 3, "no way there")
        counts = Counter(delivered(client, crossing.address) for _ in range(crossing.connections))
        assert counts == {EACH: crossing.connections}
        assert all(host.served for host in answering), [host.served for host in answering]
        assert f"mtu {crossing.mtu}" in client.ip(f"route get {crossing.address}")
    finally:
        for host in answering:
            host.close()
        crossed.ip(f"-{version} route del {crossing.address}")
        client.ip(f"-{version} route flush cache")
