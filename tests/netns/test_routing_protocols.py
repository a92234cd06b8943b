"""FRR with several peers that announce the same: BGP over three ports, BFD beside it, and IS-IS, which is no IP.

    client, lan       sends; has no routing daemon
    server, wan       AS 65002, IS-IS on a broadcast circuit         10.22.2.0/24, fd22:2::/64
    third, dmz        AS 65003, IS-IS on a point-to-point circuit    10.22.3.0/24, fd22:3::/64
    fourth, spare     AS 65004
    all three         BGP: 10.20.0.0/16 by IPv4, fd20::/32 by IPv6 and 10.21.0.0/16 by IPv6 next hops
    server and third  IS-IS: 10.22.0.0/24, fd22::/64

BGP's hold time is a minute: what goes away earlier, BFD took away (3 times 300 ms).
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ixroute.demo.netns import Namespace
from ixroute.demo.probes import ping
from lab.packets import ETH_ARP, ETH_IP4, ETH_IP6, arp, ethernet, ip4, ip6, udp
from lab.routers import Router, start_router
from lab.routing import Frr, an_address, kernel_routes
from lab.support import changes, verdicts, wait_until
from lab.wires import Flood, Wire

pytestmark = [pytest.mark.netns, pytest.mark.frr]

PEERS = {"wan": "server", "dmz": "third", "spare": "fourth"}
NUMBERS = {"wan": 2, "dmz": 3, "spare": 4}
BGP4, BGP6, BY_IP6 = "10.20.0.0/16", "fd20::/32", "10.21.0.0/16"
BGP = (BGP4, BGP6, BY_IP6)
ISIS_SHARED = ("10.22.0.0/24", "fd22::/64")
ISIS_OWN = {
    "wan": ("10.22.2.0/24", "fd22:0:0:2::/64"),
    "dmz": ("10.22.3.0/24", "fd22:0:0:3::/64"),
}
ISIS = (*ISIS_SHARED, *ISIS_OWN["wan"], *ISIS_OWN["dmz"])
N_FLOWS = 600
WITHIN = 0.09  # of a share
MARK, STREAM = b"one of the flows", b"goes on all the time"

BFD = """
bfd
 profile fast
  detect-multiplier 3
  receive-interval 300
  transmit-interval 300
"""


def neighbor(address: str, autonomous_system: int) -> str:
    about = (f"remote-as {autonomous_system}", "timers connect 1", "bfd", "bfd profile fast")
    text = "".join(f" neighbor {address} {what}\n" for what in about)
    return text + (f" neighbor {address} capability extended-nexthop\n" if ":" in address else "")


def router_bgp() -> str:
    text = """
router bgp 65000
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 20 60
"""
    for n in NUMBERS.values():
        text += neighbor(f"10.0.{n}.2", 65000 + n) + neighbor(f"fd00:{n}::2", 65000 + n)
    text += " address-family ipv4 unicast\n  maximum-paths 8\n"
    for n in NUMBERS.values():
        text += f"  neighbor 10.0.{n}.2 activate\n  neighbor fd00:{n}::2 activate\n"
    text += " exit-address-family\n address-family ipv6 unicast\n  maximum-paths 8\n"
    return text + "".join(f"  neighbor fd00:{n}::2 activate\n" for n in NUMBERS.values())


def peer_bgp(n: int) -> str:
    return f"""
ip prefix-list by-four permit {BGP4}
ip prefix-list by-six permit {BY_IP6}
router bgp {65000 + n}
 bgp router-id 10.0.{n}.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 timers bgp 20 60
{neighbor(f"10.0.{n}.1", 65000)}{neighbor(f"fd00:{n}::1", 65000)}
 address-family ipv4 unicast
  network {BGP4}
  network {BY_IP6}
  neighbor 10.0.{n}.1 activate
  neighbor 10.0.{n}.1 prefix-list by-four out
  neighbor fd00:{n}::1 activate
  neighbor fd00:{n}::1 prefix-list by-six out
 exit-address-family
 address-family ipv6 unicast
  network {BGP6}
  neighbor fd00:{n}::1 activate
"""


def circuit(interface: str, point_to_point: bool) -> str:
    return f"""
interface {interface}
 ip router isis net
 ipv6 router isis net
 isis circuit-type level-2-only
 isis hello-interval 1
 isis hello-multiplier 4
 isis csnp-interval 1
 isis psnp-interval 1
 {"isis network point-to-point" if point_to_point else ""}
"""


def isis(number: int, redistribute: str = "") -> str:
    return f"""
router isis net
 is-type level-2-only
 metric-style wide
 lsp-gen-interval 1
 spf-interval 1
 net 49.0001.0000.0000.{number:04}.00
 {redistribute}
"""


OURS = """
ip prefix-list ours permit 10.22.0.0/16 le 32
ipv6 prefix-list ours permit fd22::/16 le 128
route-map ours4 permit 10
 match ip address prefix-list ours
route-map ours6 permit 10
 match ipv6 address prefix-list ours
"""
REDISTRIBUTE = """redistribute ipv4 connected level-2 route-map ours4
 redistribute ipv6 connected level-2 route-map ours6"""


@dataclass
class Network:
    router: Router
    frr: Frr
    peers: dict[str, Frr]
    wires: dict[str, Wire]

    def learned(self) -> set[str]:
        return {route["dst"] for route in kernel_routes(self.router.lab.router, "bgp", "isis")}

    def legs(self, prefix: str) -> dict[str, float]:
        """By port, the share that ixroute gives it of the packets to a prefix."""
        found = self.router.ixroute.lookup(an_address(prefix))
        if found["verdict"] != "forward":
            return {}
        group = found["adjacency"]["group"]
        return {leg["port"]: leg["share"] for leg in group} if group else {found["adjacency"]["port"]: 1.0}

    def legs_of_kernel(self, prefix: str) -> set[str]:
        family = "-6" if ":" in prefix else "-4"
        text = self.router.lab.router.ip(f"{family} route show {prefix}").split()
        return {word for before, word in itertools.pairwise(text) if before == "dev"}

    def bfd(self) -> dict[str, str]:
        return {peer["peer"]: peer["status"] for peer in self.frr.show("bfd peers") or []}

    def equal(self) -> bool:
        """Where the kernel has legs, ixroute has the same, all of them resolved."""
        return all(set(self.legs(prefix)) == self.legs_of_kernel(prefix) for prefix in (*BGP, *ISIS))

    def check_equal(self, seconds: float = 5) -> None:
        wait_until(self.equal, seconds, self.tell)

    def converged(self) -> bool:
        wanted = {**{key: set(PEERS) for key in BGP}, **{key: {"wan", "dmz"} for key in ISIS_SHARED}}
        return (
            self.learned() >= {*BGP, *ISIS}
            and all(self.legs_of_kernel(prefix) == ports for prefix, ports in wanted.items())
            and list(self.bfd().values()) == ["up"] * 6
        )

    def converge(self) -> None:
        wait_until(self.converged, 40, self.tell)
        self.check_equal()

    def tell(self) -> str:
        lines = [f"{prefix}: kernel {self.legs_of_kernel(prefix)}, ixroute {self.legs(prefix)}" for prefix in
                 (*BGP, *ISIS)]  # fmt: skip
        shows = ("show bgp summary", "show isis neighbor", "show bfd peers brief", "show ip route")
        return "\n".join([*lines, *(self.frr.vtysh(show) for show in shows)])

    def frame(self, address: str, data: bytes) -> bytes:
        link = self.router.lab.links[0]
        if ":" in address:
            packet = ip6(link.host6, address, udp(link.host6, address, data, dport=9))
            return ethernet(link.router_mac, link.host_mac, ETH_IP6, packet)
        packet = ip4(link.host4, address, udp(link.host4, address, data, dport=9))
        return ethernet(link.router_mac, link.host_mac, ETH_IP4, packet)

    def play(self, prefix: str) -> dict[int, str]:
        """A packet each of many flows (policy 0: destinations): the port it left by, of those that arrived."""
        head = an_address(prefix).rpartition(":" if ":" in prefix else ".")[0]
        head = head if ":" in prefix else head.rpartition(".")[0]
        frames = []
        for i in range(N_FLOWS):
            address = f"{head}:{i + 2:x}" if ":" in prefix else f"{head}.{i >> 8}.{i & 255}"
            frames.append(self.frame(address, MARK + i.to_bytes(2, "big")))
        self.heard()
        for start in range(0, N_FLOWS, 100):
            for frame in frames[start : start + 100]:
                self.wires["lan"].send(frame)
            time.sleep(0.01)
        time.sleep(0.2)
        found: dict[int, str] = {}
        for port, heard in self.heard().items():
            for frame in heard:
                number = int.from_bytes(frame.partition(MARK)[2][:2], "big")
                assert number not in found, f"flow {number} was heard twice"
                found[number] = port
        return found

    def heard(self, mark: bytes = MARK) -> dict[str, list[bytes]]:
        """What with the mark each peer was sent since it was asked last."""
        return {port: [f for f in self.wires[port].take() if mark in f] for port in PEERS}


def shares(legs: dict[int, str]) -> dict[str, float]:
    return {port: count / N_FLOWS for port, count in Counter(legs.values()).items()}


@contextlib.contextmanager
def made_network() -> Iterator[Network]:
    router = start_router(hosts=4, label="protocols")
    daemons: list[Frr] = []
    wires: dict[str, Wire] = {}
    try:
        lab = router.lab
        for port, prefixes in ISIS_OWN.items():
            for prefix in (*prefixes, *ISIS_SHARED):
                lab.hosts[PEERS[port]].ip(f"addr add {an_address(prefix)}/{prefix.partition('/')[2]} dev lo")
        circuits = circuit("wan", False) + circuit("dmz", True)
        frr = Frr(lab.router, {"bfdd": BFD, "bgpd": router_bgp(), "isisd": circuits + isis(1)})
        peers = {}
        for port, host in PEERS.items():
            n = NUMBERS[port]
            config = {"bfdd": BFD, "bgpd": peer_bgp(n)}
            if port in ISIS_OWN:
                config["isisd"] = OURS + circuit("eth0", port == "dmz") + isis(n, REDISTRIBUTE)
            peers[port] = Frr(lab.hosts[host], config)
        daemons += [frr, *peers.values()]
        for one in daemons:
            one.start()
        wires.update({link.port: Wire(lab.hosts[link.host]) for link in lab.links})
        yield Network(router, frr, peers, wires)
    finally:
        for wire in wires.values():
            wire.close()
        for one in daemons:
            one.close()
        router.close()


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with made_network() as network:
        yield network


@pytest.fixture
def converged(network: Network) -> Network:
    network.converge()
    return network


# ---- BGP


@pytest.mark.parametrize("prefix", BGP)
def test_three_bgp_peers_share_the_flows_and_one_that_withdraws_leaves_its_own_to_the_others(
    converged: Network, prefix: str
) -> None:
    before = converged.router.ixroute.stats()
    first = converged.play(prefix)
    assert len(first) == N_FLOWS, f"lost {N_FLOWS - len(first)}\n{converged.tell()}"
    assert shares(first) == pytest.approx(dict.fromkeys(PEERS, 1 / 3), abs=WITHIN)
    moved = verdicts(before, converged.router.ixroute.stats())
    assert moved["punted multipath_route"] + moved["punted unresolved_neigh"] == 0, moved
    legs = converged.router.ixroute.lookup(an_address(prefix))["route"]["legs"]
    assert {":" in leg["gateway"] for leg in legs} == {prefix != BGP4}

    family = "ipv6" if prefix == BGP6 else "ipv4"
    where = ("router bgp 65003", f"address-family {family} unicast")
    converged.peers["dmz"].configure(*where, f"no network {prefix}")
    try:
        wait_until(lambda: converged.legs_of_kernel(prefix) == {"wan", "spare"}, 5, converged.tell)
        converged.check_equal()
        second = converged.play(prefix)
        assert len(second) == N_FLOWS
        assert shares(second) == pytest.approx({"wan": 0.5, "spare": 0.5}, abs=WITHIN)
    finally:
        converged.peers["dmz"].configure(*where, f"network {prefix}")
    wait_until(lambda: converged.legs_of_kernel(prefix) == set(PEERS), 5, converged.tell)
    converged.check_equal()
    assert converged.play(prefix) == first, "the same legs and seed, and other ways"


# ---- IS-IS


def test_isis_comes_up_through_the_ports_and_its_routes_are_forwarded(converged: Network) -> None:
    """LLC frames to 01:80:c2:00:00:14 and :15 on the broadcast circuit, to 09:00:2b:00:00:05 on the other."""
    router = converged.router
    before = router.ixroute.stats()
    for prefixes in ISIS_OWN.values():
        for prefix in prefixes:
            assert ping(router.lab.client, an_address(prefix), 3).all_back, converged.tell()
    for prefix in ISIS_SHARED:
        assert converged.legs(prefix) == {"wan": 0.5, "dmz": 0.5}, converged.tell()
        assert ping(router.lab.client, an_address(prefix), 3).all_back, converged.tell()
    routes = {route["dst"]: route for route in kernel_routes(router.lab.router, "isis")}
    assert set(ISIS) <= set(routes)
    wait_until(lambda: hellos(before, router.ixroute.stats()) >= {"wan", "dmz"}, 5, "no hellos were punted")


def hellos(before: Any, after: Any) -> set[str]:
    """Ports by which frames of IS-IS came, by the reasons that they have."""
    reasons = dict.fromkeys(("wan", "dmz"), "link_local_frame")
    return {
        was["name"]
        for was, now in zip(before["ports"], after["ports"], strict=True)
        if (reason := reasons.get(was["name"])) and now["punted"][reason] > was["punted"][reason]
    }


def test_routes_of_a_killed_isisd_go_with_its_hellos_and_come_back(converged: Network) -> None:
    for port, other in (("wan", "dmz"), ("dmz", "wan")):
        daemons = converged.peers[port]
        daemons.daemons["isisd"].end(signal.SIGKILL)
        wait_until(lambda p=port: not {*ISIS_OWN[p]} & converged.learned(), 12, converged.tell)
        wait_until(lambda o=other: converged.legs_of_kernel(ISIS_SHARED[0]) == {o}, 5, converged.tell)
        converged.check_equal()
        daemons.start_one("isisd")
    converged.converge()


# ---- BFD


@contextlib.contextmanager
def silently_cut(host: Namespace) -> Iterator[None]:
    """Nothing gets in or out; the link stays up, and only a daemon that misses answers can know."""
    host.run(["nft", "add table netdev cut"])
    try:
        hook = "{ type filter hook ingress device eth0 priority 0; policy drop; }"
        host.run(["nft", f"add chain netdev cut in {hook}"])
        host.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "pfifo", "limit", "0"])
        yield
    finally:
        host.run(["nft", "delete table netdev cut"])
        host.run(["tc", "qdisc", "del", "dev", "eth0", "root"])


def test_bfd_takes_a_silently_cut_peer_out_of_the_groups_long_before_bgp_would(converged: Network) -> None:
    router = converged.router
    up = dict.fromkeys(PEERS, 1 / 3)
    frames = [converged.frame(f"10.{net}.9.{n}", STREAM) for net in (20, 21) for n in range(1, 100)]
    with Flood(converged.wires["lan"], frames, 1000):
        with silently_cut(router.lab.server):
            took = wait_until(
                lambda: all(set(converged.legs(prefix)) == {"dmz", "spare"} for prefix in BGP),
                15, converged.tell,
            )  # fmt: skip
            print(f"BFD took {took:.2f} s")
            converged.heard()
            time.sleep(0.3)
            heard = {port: len(frames) for port, frames in converged.heard(STREAM).items()}
            assert heard["wan"] == 0, heard
            assert heard["dmz"] > 0, heard
            assert heard["spare"] > 0, heard
            assert "NO-CARRIER" not in router.ip("-br link show wan")
            converged.check_equal()
            for prefix in BGP:
                assert len(converged.play(prefix)) == N_FLOWS
        wait_until(
            lambda: all(converged.legs(prefix).keys() == up.keys() for prefix in BGP), 20, converged.tell
        )
    converged.converge()


FLOOD_PPS, FLOOD_S = 20_000, 4  # more than four detection times


def floods(network: Network) -> dict[str, list[bytes]]:
    link = network.router.lab.links[0]
    head, nobody = (link.router_mac, link.host_mac), "00:00:00:00:00:00"
    expired = ip4(link.host4, "10.0.2.2", udp(link.host4, "10.0.2.2", b"flood"), ttl=1)
    ours = ip4(link.host4, link.router4, udp(link.host4, link.router4, b"flood"))
    unresolved = [
        ip4(link.host4, f"10.0.2.{n}", udp(link.host4, f"10.0.2.{n}", b"flood")) for n in range(50, 200)
    ]
    question = arp(1, link.host_mac, link.host4, nobody, "10.0.1.77")
    lldp = ethernet("01:80:c2:00:00:0e", link.host_mac, 0x88CC, bytes(60))
    return {
        "IP for the kernel": [ethernet(*head, ETH_IP4, p) for p in (expired, ours, *unresolved)],
        "frames for the kernel": [ethernet("ff:ff:ff:ff:ff:ff", link.host_mac, ETH_ARP, question), lldp],
    }


@pytest.mark.parametrize("name", ["IP for the kernel", "frames for the kernel"])
def test_no_session_goes_down_beside_a_flood(converged: Network, name: str) -> None:
    """BFD's hold is 900 ms; BGP, IS-IS over its circuits, and the groups stay as they are, too."""
    before = converged.router.ixroute.stats()
    downs = {peer["peer"]: peer["session-down"] for peer in counters(converged)}
    assert len(downs) == 6
    with Flood(converged.wires["lan"], floods(converged)[name], FLOOD_PPS) as flood:
        time.sleep(FLOOD_S)
    after = converged.router.ixroute.stats()
    print(f"{flood.sent} frames\n{changes(before, after)}")
    assert flood.sent > FLOOD_PPS * FLOOD_S / 4
    assert {peer["peer"]: peer["session-down"] for peer in counters(converged)} == downs, converged.tell()
    moved = verdicts(before, after)
    assert moved["policed routing_protocol"] == 0, moved
    assert converged.converged(), converged.tell()
    converged.check_equal()


def counters(network: Network) -> list[dict[str, Any]]:
    return list(network.frr.show("bfd peers counters"))
