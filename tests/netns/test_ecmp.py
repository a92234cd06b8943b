"""Several next hops: which get the flows, how many each, and what becomes of them when one goes.

Every test is played to a Linux router first and to ixroute then, and asks both for the same: flows come in at `lan`
and leave by `wan`, `dmz` and `spare`, where mute hosts listen. Neighbours are permanent, so that what is heard
depends on routes alone. Both routers hash with a seed of their own: a single flow's leg may differ, shares may not.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from ixroute.client import request
from ixroute.demo.netns import CommandError, run_command
from ixroute.demo.topology import Link
from lab.packets import ETH_IP4, ETH_IP6, ICMP, ICMP6, ethernet, icmp4, icmp6, ip4, ip6, udp
from lab.routers import Router, start_router
from lab.support import changes, verdicts, wait_until
from lab.twins import batch
from lab.wires import Flood, Wire

pytestmark = pytest.mark.netns

FLOWS = int(os.environ.get("IXROUTE_ECMP_FLOWS", "2000"))
WITHIN = 0.05  # of a share
LEGS = ("wan", "dmz", "spare")
CLIENT4, CLIENT6 = "10.9.0.9", "fd09::9"
NET4, NET6 = "198.18.0.0/15", "2001:db8:18::/48"
BATCH = 250
LATE_S, QUIET_S = 1.0, 0.1  # how long to wait for packets where all should come, and where some do not
MARK = b"one of many flows "

Shares = dict[str, float]
THIRDS: Shares = {"wan": 1 / 6, "dmz": 2 / 6, "spare": 3 / 6}
WITHOUT_DMZ: Shares = {"wan": 1 / 4, "spare": 3 / 4}


@dataclass(frozen=True)
class Flow:
    """A UDP flow through the router."""

    number: int
    src: str
    dst: str
    sport: int = 5000
    dport: int = 5001

    def packet(self, data: bytes = b"") -> bytes:
        segment = udp(
            self.src, self.dst, MARK + struct.pack("!I", self.number) + data, self.sport, self.dport
        )
        return (ip6 if ":" in self.dst else ip4)(self.src, self.dst, segment)


def number_of(frame: bytes) -> int | None:
    at = frame.find(MARK)
    return None if at < 0 else int(struct.unpack_from("!I", frame, at + len(MARK))[0])


class Scene:
    """A router and its four cables."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.links: dict[str, Link] = {link.port: link for link in router.lab.links}
        self.wires = {port: Wire(router.lab.hosts[link.host]) for port, link in self.links.items()}
        self.cut: set[str] = set()
        self._sysctls: dict[str, int] = {}
        self._sysctls_changed = False

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()

    @property
    def is_linux(self) -> bool:
        return self.router.daemon is None

    def ip(self, *commands: str) -> None:
        for command in commands:
            self.router.ip(command)

    def sysctl(self, key: str, value: int) -> None:
        """{wan} and so on stand for the interfaces with the addresses."""
        if self._sysctls.get(key) != value:
            self._sysctls[key] = value
            self._sysctls_changed = True
            self.router.lab.router.sysctl(key.format(**self.router.lab.interfaces), value)

    def furnish(self) -> None:
        """Addresses, neighbours, sysctls as every test finds them. What is there already is no mistake."""
        for name in ("ipv4", "ipv6"):
            self.sysctl(f"net.{name}.fib_multipath_hash_policy", 0)
            for port in LEGS:
                self.sysctl(f"net.{name}.conf.{{{port}}}.ignore_routes_with_linkdown", 0)
        self.sysctl("net.ipv4.fib_multipath_use_neigh", 0)
        commands = [f"route replace {CLIENT4} dev {{lan}}", f"-6 route replace {CLIENT6} dev {{lan}}"]
        for port, link in self.links.items():
            if port in self.cut:
                self.mend(port)
            commands += [
                f"link set {{{port}}} up",
                f"addr replace {link.router4}/24 dev {{{port}}}",
                f"addr replace {link.router6}/64 dev {{{port}}} nodad",
            ]
            for address in (link.host4, link.host6):
                commands.append(
                    f"neigh replace {address} lladdr {link.host_mac} nud permanent dev {{{port}}}"
                )
        batch(self.router.lab.router, [line.format(**self.router.lab.interfaces) for line in commands])

    def clear(self) -> None:
        """No routes of a test, no nexthop objects."""
        router = self.router.lab.router
        lines = [*(f"nexthop del id {n}" for n in (20, 1, 2, 3)), f"route del {NET4}", f"route del {NET6}"]
        commands = router.directory / "clear"
        commands.write_text("\n".join([*lines, ""]))
        with contextlib.suppress(CommandError):  # some are not there
            run_command(["ip", "-n", router.name, "-force", "-batch", os.fspath(commands)])

    def cut_off(self, port: str) -> None:
        """The carrier goes."""
        self.cut.add(port)
        self.router.lab.hosts[self.links[port].host].ip("link set eth0 down")

    def mend(self, port: str) -> None:
        self.router.lab.hosts[self.links[port].host].ip("link set eth0 up")
        self.cut.discard(port)

    def settle(self) -> None:
        """ixroute knows what the kernel knows, sysctls included (they are read once a second)."""
        if self.is_linux:
            return
        before = self.router.ixroute.stats()["mirror"]["resyncs"]
        request(os.fspath(self.router.ixroute.control), "resync")
        wait_until(lambda: self.router.ixroute.stats()["mirror"]["resyncs"] > before, 5, "no dump was made")
        time.sleep(1.3 if self._sysctls_changed else 0.1)
        self._sysctls_changed = False

    def send(self, frames: Sequence[bytes], patience: float = LATE_S) -> dict[str, list[bytes]]:
        """Sends packets from the client; what was heard on each leg. A batch at a time, so that no ring overflows."""
        for wire in self.wires.values():
            wire.take()
        heard: dict[str, list[bytes]] = {port: [] for port in LEGS}
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            for frame in batch:
                self.wires["lan"].send(frame)
            if not self._hear(heard, len(batch), patience):
                patience = QUIET_S  # some are lost: not all of the other batches will be whole either
        return heard

    def _hear(self, heard: dict[str, list[bytes]], expected: int, patience: float) -> bool:
        """Until that many came, or none for `patience` seconds. True: all came."""
        last = time.monotonic()
        while expected > 0 and time.monotonic() - last < patience:
            select.select([wire.socket for port, wire in self.wires.items() if port != "lan"], [], [], 0.02)
            for port in LEGS:
                frames = [frame for frame in self.wires[port].take() if MARK in frame]
                heard[port] += frames
                expected -= len(frames)
                last = time.monotonic() if frames else last
        return expected <= 0

    def frame(self, packet: bytes) -> bytes:
        kind = ETH_IP4 if packet[0] >> 4 == 4 else ETH_IP6
        return ethernet(self.links["lan"].router_mac, self.links["lan"].host_mac, kind, packet)

    def play(self, flows: Sequence[Flow], patience: float = LATE_S) -> dict[int, str]:
        """A packet of each flow: the leg that it left by. None is heard twice, nor on another leg's behalf."""
        heard = self.send([self.frame(flow.packet()) for flow in flows], patience)
        legs: dict[int, str] = {}
        for port, frames in heard.items():
            for frame in frames:
                number = number_of(frame)
                assert number is not None
                assert number not in legs, f"flow {number} was heard twice"
                assert frame[0:6].hex(":") == self.links[port].host_mac
                legs[number] = port
        return legs

    def shares(self, flows: Sequence[Flow], patience: float = LATE_S) -> Shares:
        """What part of the flows each leg had. What was lost is nobody's."""
        counted = Counter(self.play(flows, patience).values())
        return {port: count / len(flows) for port, count in counted.items()}

    def expect(self, flows: Sequence[Flow], expected: Shares) -> None:
        some_are_lost = sum(expected.values()) < 0.99
        shares = self.shares(flows, QUIET_S if some_are_lost else LATE_S)
        far = {port for port in LEGS if abs(shares.get(port, 0) - expected.get(port, 0)) > WITHIN}
        assert not far, f"{shares}, expected {expected}{self.tell()}"
        assert {port for port in shares if shares[port]} == set(expected)

    def becomes(self, flows: Sequence[Flow], expected: Shares, seconds: float = 6) -> None:
        """As expect, within a time: links and sysctls are followed, not waited for."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.expect(flows, expected)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def tell(self) -> str:
        if self.is_linux:
            return ""
        return f"\n{self.router.ixroute.ask('show', 'adjacencies')}\n{self.router.ixroute.log_tail()}"


@pytest.fixture(scope="module", params=["linux", "ixroute"])
def stage(request: pytest.FixtureRequest) -> Iterator[Scene]:
    router = start_router(str(request.param), hosts=4, mute=True, label="ecmp")
    scene = Scene(router)
    yield scene
    scene.close()
    router.close()


@pytest.fixture
def scene(stage: Scene) -> Scene:
    """As every test finds it, whatever the one before left."""
    stage.furnish()
    stage.clear()
    return stage


# ---- flows


def by_address(version: int, n: int = FLOWS, first: int = 0) -> list[Flow]:
    """Every flow has a destination of its own."""
    if version == 4:
        return [Flow(i, CLIENT4, f"198.18.{i >> 8 & 255}.{i & 255}") for i in range(first, first + n)]
    return [Flow(i, CLIENT6, f"2001:db8:18::{i:x}") for i in range(first, first + n)]


def by_port(version: int, n: int = FLOWS) -> list[Flow]:
    """All between the same two hosts."""
    src, dst = (CLIENT4, "198.18.7.7") if version == 4 else (CLIENT6, "2001:db8:18::7")
    return [Flow(i, src, dst, 1024 + i % 60000, 7 + i // 60000) for i in range(n)]


# ---- routes of weights 1, 2, 3


def legs_of_route(scene: Scene, version: int, via: int) -> str:
    words = []
    for weight, port in enumerate(LEGS, 1):
        link = scene.links[port]
        gateway = link.host4 if via == 4 else f"{'inet6 ' if version == 4 else ''}{link.host6}"
        words.append(f"nexthop via {gateway} dev {{{port}}} weight {weight}")
    return " ".join(words)


def add_route(scene: Scene, version: int, via: int) -> None:
    scene.ip(
        f"-{version} route replace {NET4 if version == 4 else NET6} {legs_of_route(scene, version, via)}"
    )


def add_members(scene: Scene, via: int) -> None:
    for number, port in enumerate(LEGS, 1):
        link = scene.links[port]
        scene.ip(f"nexthop replace id {number} via {link.host4 if via == 4 else link.host6} dev {{{port}}}")


def add_group(scene: Scene, version: int, via: int, kind: str = "") -> None:
    add_members(scene, via)
    scene.ip(f"nexthop replace id 20 group 1,1/2,2/3,3 {kind}")
    scene.ip(f"-{version} route replace {NET4 if version == 4 else NET6} nhid 20")


RESILIENT = "type resilient buckets 240 idle_timer 120"
ROUTES: dict[str, tuple[int, Callable[[Scene], None]]] = {
    "IPv4 route": (4, lambda scene: add_route(scene, 4, 4)),
    "IPv6 siblings": (6, lambda scene: add_route(scene, 6, 6)),
    "IPv4 route by IPv6 gateways": (4, lambda scene: add_route(scene, 4, 6)),
    "IPv4 group": (4, lambda scene: add_group(scene, 4, 4)),
    "IPv6 group": (6, lambda scene: add_group(scene, 6, 6)),
    "IPv4 by a group of IPv6 gateways": (4, lambda scene: add_group(scene, 4, 6)),
    "IPv4 resilient group": (4, lambda scene: add_group(scene, 4, 4, RESILIENT)),
    "IPv6 resilient group": (6, lambda scene: add_group(scene, 6, 6, RESILIENT)),
}
every_route = pytest.mark.parametrize("name", ROUTES)
plain_routes = pytest.mark.parametrize("name", ["IPv4 route", "IPv6 siblings"])
groups = pytest.mark.parametrize("name", ["IPv4 group", "IPv6 group"])


def add(scene: Scene, name: str) -> int:
    """Its IP version."""
    version, make = ROUTES[name]
    make(scene)
    scene.settle()
    return version


@every_route
def test_every_leg_has_its_share_of_the_flows_and_keeps_each(scene: Scene, name: str) -> None:
    version = add(scene, name)
    before = None if scene.is_linux else scene.router.ixroute.stats()
    flows = by_address(version)
    scene.expect(flows, THIRDS)
    few = flows[:100]
    first = scene.play(few)
    assert len(first) == len(few)
    for _ in range(5):
        assert scene.play(few) == first
    if before is not None:
        after = scene.router.ixroute.stats()
        punted = {key: n for key, n in verdicts(before, after).items() if key.startswith("punted")}
        assert punted.keys() <= {"punted ipv6_link_local", "punted multicast"}, changes(before, after)


@pytest.mark.parametrize("names", [("IPv4 route", "IPv6 siblings"), ("IPv4 group", "IPv6 group")])
def test_ports_tell_flows_apart_when_the_policy_says_so(scene: Scene, names: tuple[str, str]) -> None:
    flows = {}
    for name in names:
        version = add(scene, name)
        flows[version] = by_port(version)

    def goes_one_way(version: int) -> bool:
        return len({*scene.play(flows[version][:200]).values()}) == 1

    assert all(map(goes_one_way, flows)), "policy 0 looks at addresses alone"
    for version in flows:
        scene.sysctl(f"net.ipv{version}.fib_multipath_hash_policy", 1)
    for several in flows.values():
        scene.becomes(several, THIRDS)
    for version in flows:
        scene.sysctl(f"net.ipv{version}.fib_multipath_hash_policy", 0)
    wait_until(lambda: all(map(goes_one_way, flows)), 5, "the policy was not followed back")


def test_fields_of_the_hash_are_followed(scene: Scene) -> None:
    add(scene, "IPv4 route")
    scene.sysctl("net.ipv4.fib_multipath_hash_fields", 0x0010)  # source port
    scene.sysctl("net.ipv4.fib_multipath_hash_policy", 3)
    try:
        scene.becomes(by_port(4), THIRDS)
        assert len({*scene.play(by_address(4, 200)).values()}) == 1
    finally:
        scene.sysctl("net.ipv4.fib_multipath_hash_fields", 0x0007)


@plain_routes
@pytest.mark.parametrize("policy", [0, 1])
def test_all_fragments_of_a_flow_leave_by_one_leg(scene: Scene, name: str, policy: int) -> None:
    version = add(scene, name)
    scene.sysctl(f"net.ipv{version}.fib_multipath_hash_policy", policy)
    scene.settle()
    flows = by_address(version, 40, first=5000)
    heard = scene.send([scene.frame(packet) for flow in flows for packet in fragments(flow)])
    legs: dict[int | None, list[str]] = {flow.number: [] for flow in flows}
    for port, frames in heard.items():
        for frame in frames:
            legs[number_of(frame)].append(port)
    assert not {number: ports for number, ports in legs.items() if len(ports) != 3 or len({*ports}) != 1}


def fragments(flow: Flow) -> list[bytes]:
    """Three, each with the mark in it; the first has the ports."""
    data = MARK + struct.pack("!I", flow.number)
    segment = udp(flow.src, flow.dst, data.ljust(40, b".") * 3, flow.sport, flow.dport)
    out = []
    for place, part in ((0, segment[0:48]), (6, segment[48:88]), (11, segment[88:])):
        more = place < 11
        if version_of(flow) == 4:
            word = place | (0x2000 if more else 0)
            out.append(ip4(flow.src, flow.dst, part, fragment=word, ident=flow.number & 0xFFFF))
        else:
            head = struct.pack("!BBHI", 17, 0, place << 3 | more, flow.number)
            out.append(ip6(flow.src, flow.dst, head + part, proto=44))
    return out


def version_of(flow: Flow) -> int:
    return 6 if ":" in flow.dst else 4


@plain_routes
def test_an_icmp_error_follows_the_flow_it_is_about(scene: Scene, name: str) -> None:
    """Behind the legs is a service of one address: what a router on the way says of its answers must reach the same
    instance as the questions."""
    version = add(scene, name)
    flows = by_address(version, 60, first=8000)
    legs = scene.play(flows)
    answers = [Flow(flow.number, flow.dst, flow.src, flow.dport, flow.sport).packet() for flow in flows]
    errors = [error_about(answer, flow.dst) for answer, flow in zip(answers, flows, strict=True)]
    heard = scene.send([scene.frame(error) for error in errors])
    followed = sorted((number_of(frame), port) for port, frames in heard.items() for frame in frames)
    assert followed == sorted(legs.items())
    assert set(legs.values()) == set(LEGS)


def error_about(packet: bytes, to: str) -> bytes:
    """Destination unreachable, from a router elsewhere."""
    if ":" in to:
        sender = "fd09::99"
        return ip6(sender, to, icmp6(sender, to, 1, 0, bytes(4) + packet), proto=ICMP6)
    return ip4("10.9.0.99", to, icmp4(3, 1, bytes(4) + packet), proto=ICMP)


# ---- a leg dies


@plain_routes
def test_a_leg_without_carrier_keeps_its_flows(scene: Scene, name: str) -> None:
    """They are lost: nobody said that such routes are to be ignored."""
    version = add(scene, name)
    scene.cut_off("dmz")
    scene.becomes(by_address(version), {"wan": 1 / 6, "spare": 3 / 6})


@plain_routes
def test_a_leg_without_carrier_that_is_to_be_ignored_leaves_its_flows_to_all(scene: Scene, name: str) -> None:
    version = ROUTES[name][0]
    scene.sysctl(f"net.ipv{version}.conf.{{dmz}}.ignore_routes_with_linkdown", 1)
    add(scene, name)
    scene.cut_off("dmz")
    scene.becomes(by_address(version), WITHOUT_DMZ)
    scene.mend("dmz")
    scene.becomes(by_address(version), THIRDS)


@groups
def test_a_member_without_carrier_is_deleted_with_its_object(scene: Scene, name: str) -> None:
    version = add(scene, name)
    scene.cut_off("dmz")
    scene.becomes(by_address(version), WITHOUT_DMZ)


@pytest.mark.parametrize("name", ["IPv4 route", "IPv6 siblings", "IPv4 group", "IPv6 group"])
def test_a_leg_whose_interface_goes_down_leaves_its_flows_to_all(scene: Scene, name: str) -> None:
    version = add(scene, name)
    scene.ip("link set {dmz} down")
    scene.becomes(by_address(version), WITHOUT_DMZ)


@groups
def test_a_deleted_member_leaves_its_flows_to_all(scene: Scene, name: str) -> None:
    version = add(scene, name)
    scene.ip("nexthop del id 2")
    scene.becomes(by_address(version), WITHOUT_DMZ)


def test_siblings_go_one_by_one(scene: Scene) -> None:
    add(scene, "IPv6 siblings")
    scene.ip(f"-6 route del {NET6} via {scene.links['dmz'].host6} dev {{dmz}}")
    scene.becomes(by_address(6), WITHOUT_DMZ)
    scene.ip(f"-6 route del {NET6} via {scene.links['wan'].host6} dev {{wan}}")
    scene.becomes(by_address(6), {"spare": 1.0})


def fail(scene: Scene, port: str, version: int) -> None:
    """A neighbour that does not answer: the hosts are mute."""
    link = scene.links[port]
    address = link.host4 if version == 4 else link.host6
    scene.ip(f"neigh replace {address} dev {{{port}}} nud failed")


@plain_routes
def test_a_leg_whose_neighbour_fails_keeps_its_flows(scene: Scene, name: str) -> None:
    """With Linux they are lost. ixroute gives such packets to the kernel, which chooses once more, by a hash of its
    own: what it chooses the same leg for is lost, the rest arrives."""
    version = add(scene, name)
    flows = by_address(version, 1200)
    before = scene.play(flows)
    fail(scene, "dmz", version)
    if scene.is_linux:
        scene.becomes(flows, {"wan": 1 / 6, "spare": 3 / 6})
    else:
        scene.becomes(flows, {"wan": 1 / 6 + 2 / 6 * 1 / 6, "spare": 3 / 6 + 2 / 6 * 3 / 6})
    after = scene.play(flows)
    assert not [n for n, leg in before.items() if leg != "dmz" and after.get(n) != leg]


@pytest.mark.parametrize("name", ["IPv4 route", "IPv4 group", "IPv6 group"])
def test_a_failed_neighbours_flows_go_to_the_next_leg_and_no_others_move(scene: Scene, name: str) -> None:
    """Routes are asked to by fib_multipath_use_neigh, objects always do."""
    scene.sysctl("net.ipv4.fib_multipath_use_neigh", int(name == "IPv4 route"))
    version = add(scene, name)
    flows = by_address(version, 1200)
    before = scene.play(flows)
    fail(scene, "dmz", version)
    scene.becomes(flows, {"wan": 1 / 6, "spare": 5 / 6})
    after = scene.play(flows)
    assert {n for n in before if before[n] != after[n]} == {n for n in before if before[n] == "dmz"}
    fail(scene, "spare", version)
    scene.becomes(flows, {"wan": 1.0})


# ---- nexthop objects change


def test_a_dead_member_of_a_resilient_group_moves_only_its_own_flows(scene: Scene) -> None:
    add(scene, "IPv4 resilient group")
    flows = by_address(4, 1200)
    before = scene.play(flows)
    scene.ip("nexthop del id 2")
    scene.becomes(flows, WITHOUT_DMZ)
    after = scene.play(flows)
    assert {n for n in before if before[n] != after[n]} == {n for n in before if before[n] == "dmz"}


def test_busy_flows_of_a_resilient_group_stay_when_a_member_joins_and_idle_ones_move(scene: Scene) -> None:
    add_members(scene, 4)
    scene.ip("nexthop replace id 20 group 1/2 type resilient buckets 64 idle_timer 2")
    scene.ip(f"route replace {NET4} nhid 20")
    scene.settle()
    flows = by_address(4, 1200)
    before = scene.play(flows)
    assert set(before.values()) == {"wan", "dmz"}
    scene.ip("nexthop replace id 20 group 1/2/3 type resilient buckets 64 idle_timer 2")
    busy_until = time.monotonic() + 3.5
    while time.monotonic() < busy_until:
        assert scene.play(flows) == before
    # a bucket moves when it was idle for 2 s; with ixroute, what was used is asked once a second
    wait_until(lambda: buckets_of(scene, "spare") == 21, 12, scene.tell)
    after = scene.play(flows)
    moved = {n for n in before if after[n] != before[n]}
    assert {after[n] for n in moved} == {"spare"}
    assert abs(len(moved) / len(flows) - 1 / 3) < WITHIN


def buckets_of(scene: Scene, port: str) -> int:
    """The kernel's, or ixroute's."""
    if scene.is_linux:
        return scene.router.ip(f"nexthop bucket list id 20 nhid {1 + LEGS.index(port)}").count("index")
    group = scene.router.ixroute.lookup("198.18.1.1")["adjacency"]["group"]
    return sum(int(leg["buckets"]) for leg in group if leg["port"] == port)


def test_a_member_replaced_under_traffic_loses_nothing(scene: Scene) -> None:
    add(scene, "IPv4 group")
    ours, other = scene.links["dmz"], scene.links["spare"]
    frames = [scene.frame(flow.packet()) for flow in by_address(4, 300)]
    for wire in scene.wires.values():
        wire.take()
    with Flood(scene.wires["lan"], frames, 3000) as sender:
        for i in range(40):
            link, port = (other, "spare") if i % 2 == 0 else (ours, "dmz")
            scene.ip(f"nexthop replace id 2 via {link.host4} dev {{{port}}}")
            time.sleep(0.03)
            scene.ip(
                "nexthop replace id 20 group 1,1/2,2/3,3" if i % 3 else "nexthop replace id 20 group 1/2"
            )
    time.sleep(0.3)
    heard = sum(MARK in frame for port in LEGS for frame in scene.wires[port].take())
    assert sender.sent > 1000
    assert heard == sender.sent


def test_a_group_is_not_followed_where_its_shares_would_be_wrong(scene: Scene) -> None:
    """A leg without a gateway: the kernel chooses, for all."""
    scene.ip(f"route replace {NET4} nexthop via {scene.links['wan'].host4} dev {{wan}} nexthop dev {{lan}}")
    scene.settle()
    flows = by_address(4, 600)
    before = None if scene.is_linux else scene.router.ixroute.stats()
    assert abs(scene.shares(flows)["wan"] - 0.5) < 0.1
    if before is not None:
        assert verdicts(before, scene.router.ixroute.stats())["punted multipath_route"] == len(flows)


def test_weights_have_sixteen_bits(scene: Scene) -> None:
    """Since Linux 6.12; ip does not know of it everywhere."""
    add_members(scene, 4)
    if not replace_group(scene, 20, {1: 1000, 3: 3000}):
        pytest.skip("this kernel's weights have 8 bits")
    scene.ip(f"route replace {NET4} nhid 20")
    scene.settle()
    scene.expect(by_address(4), WITHOUT_DMZ)


def replace_group(scene: Scene, identity: int, weights: dict[int, int]) -> bool:
    """RTM_NEWNEXTHOP with weights in both bytes of struct nexthop_grp. False: the kernel refused."""
    entries = b"".join(struct.pack("=IBBH", n, w - 1 & 255, w - 1 >> 8, 0) for n, w in weights.items())
    body = struct.pack("=BBBBI", 0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 1, identity)
    body += struct.pack("=HH", 4 + len(entries), 2) + entries
    create_replace_ack = 0x1 | 0x4 | 0x100 | 0x400
    message = struct.pack("=IHHII", 16 + len(body), 104, create_replace_ack, 1, 0) + body
    with scene.router.lab.router.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(message)
        return bool(struct.unpack_from("=i", sock.recv(4096), 16)[0] == 0)


def test_lookup_tells_the_legs_and_their_shares(scene: Scene) -> None:
    if scene.is_linux:
        pytest.skip("Linux tells no shares")
    add(scene, "IPv4 resilient group")
    found = scene.router.ixroute.lookup("198.18.1.1")
    assert (found["verdict"], found["adjacency"]["action"], found["adjacency"]["buckets"]) == (
        "forward",
        "group",
        240,
    )
    told = {leg["port"]: (leg["weight"], leg["share"], leg["buckets"]) for leg in found["adjacency"]["group"]}
    assert told == {"wan": (1, round(1 / 6, 6), 40), "dmz": (2, round(2 / 6, 6), 80), "spare": (3, 0.5, 120)}
    assert "240 buckets" in scene.router.ixroute.ask("show", "adjacencies")


def test_a_hundred_random_changes_end_in_what_the_kernel_has(scene: Scene) -> None:
    """Members and groups replaced, deleted and made again at random: in the end every flow leaves by a leg that the
    kernel's route has, in its share."""
    random.seed(7)
    add_members(scene, 4)
    scene.ip("nexthop replace id 20 group 1/2/3", f"route replace {NET4} nhid 20")
    for _ in range(100):
        members = random.sample((1, 2, 3), random.randint(1, 3))
        what = random.choice(("group", "member", "type"))
        if what == "member":
            port = random.choice(LEGS)
            scene.ip(
                f"nexthop replace id {random.choice((1, 2, 3))} via {scene.links[port].host4} dev {{{port}}}"
            )
        elif what == "group":
            scene.ip(
                "nexthop replace id 20 group " + "/".join(f"{n},{random.randint(1, 9)}" for n in members)
            )
        else:
            scene.ip("nexthop del id 20", "nexthop add id 20 group 1/2/3", f"route replace {NET4} nhid 20")
    add_members(scene, 4)
    scene.ip("nexthop replace id 20 group 1,1/2,2/3,3")
    scene.becomes(by_address(4), THIRDS)
