"""FRR routes over the ports' interfaces: sessions come up through them, and what it learns is what forwards.

    client: FRR, AS 65001      BGP, a session for each family                10.11.n.0/24, fd11:n::/64
    server: FRR, AS 65002      OSPF and OSPFv3                               10.12.n.0/24, fd12:n::/64
                               BGP over IPv6, IPv4 by IPv6 next hops         10.13.n.0/24
    third:  BIRD, AS 65003     BGP                                           10.15.n.0/24
    server and third, both                                                   10.14.0.0/24

The router between them runs FRR on `lan`, `wan` and `dmz`, the interfaces of a running ixroute. All tests share the
network, and each begins when it has converged. Hold time 9 s, OSPF's dead interval 4 s.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ixroute.demo.probes import UdpFlow, ping, udp_flow
from lab.packets import ETH_ARP, ETH_IP4, ETH_IP6, arp, ethernet, ip4, ip6, udp
from lab.routers import Router, start_router
from lab.routing import Bird, Frr, an_address, assert_equal_tables, kernel_routes
from lab.support import changes, verdicts, wait_until
from lab.wires import Flood, Wire

pytestmark = [pytest.mark.netns, pytest.mark.frr]

N = 20  # prefixes of each kind
HOLD_S, DEAD_S = 9, 4
BGP4 = [f"10.11.{n}.0/24" for n in range(N)]
BGP6 = [f"fd11:{n:x}::/64" for n in range(1, N + 1)]
OSPF4 = [f"10.12.{n}.0/24" for n in range(N)]
OSPF6 = [f"fd12:{n:x}::/64" for n in range(1, N + 1)]
BY_IP6 = [f"10.13.{n}.0/24" for n in range(N)]
BIRD4 = [f"10.15.{n}.0/24" for n in range(N)]
SHARED = "10.14.0.0/24"
ALL = [*BGP4, *BGP6, *OSPF4, *OSPF6, *BY_IP6, *BIRD4]
OF_SERVER = [*OSPF4, *OSPF6, *BY_IP6]
N_SESSIONS = 4

ROUTER_BGP = f"""
router bgp 65000
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 3 {HOLD_S}
 neighbor 10.0.1.2 remote-as 65001
 neighbor 10.0.1.2 timers connect 1
 neighbor fd00:1::2 remote-as 65001
 neighbor fd00:1::2 timers connect 1
 neighbor fd00:2::2 remote-as 65002
 neighbor fd00:2::2 timers connect 1
 neighbor fd00:2::2 capability extended-nexthop
 neighbor 10.0.3.2 remote-as 65003
 neighbor 10.0.3.2 timers connect 1
 address-family ipv4 unicast
  maximum-paths 4
  neighbor 10.0.1.2 activate
  neighbor 10.0.1.2 default-originate
  neighbor fd00:2::2 activate
  neighbor 10.0.3.2 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor fd00:1::2 activate
  neighbor fd00:1::2 default-originate
"""
ROUTER_OSPF = f"""
interface wan
 ip ospf area 0
 ip ospf hello-interval 1
 ip ospf dead-interval {DEAD_S}
router ospf
 ospf router-id 10.0.0.1
 default-information originate always
 timers throttle spf 10 100 500
 timers throttle lsa all 0
 timers lsa min-arrival 0
"""
ROUTER_OSPF6 = f"""
interface wan
 ipv6 ospf6 area 0
 ipv6 ospf6 network point-to-point
 ipv6 ospf6 hello-interval 1
 ipv6 ospf6 dead-interval {DEAD_S}
router ospf6
 ospf6 router-id 10.0.0.1
 default-information originate always
 timers throttle spf 10 100 500
"""
CLIENT_BGP = f"""
router bgp 65001
 bgp router-id 10.0.1.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 timers bgp 3 {HOLD_S}
 neighbor 10.0.1.1 remote-as 65000
 neighbor 10.0.1.1 timers connect 1
 neighbor fd00:1::1 remote-as 65000
 neighbor fd00:1::1 timers connect 1
 address-family ipv4 unicast
  neighbor 10.0.1.1 activate
  {{networks4}}
 exit-address-family
 address-family ipv6 unicast
  neighbor fd00:1::1 activate
  {{networks6}}
"""
SERVER_BGP = f"""
router bgp 65002
 bgp router-id 10.0.2.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 timers bgp 3 {HOLD_S}
 neighbor fd00:2::1 remote-as 65000
 neighbor fd00:2::1 timers connect 1
 neighbor fd00:2::1 capability extended-nexthop
 address-family ipv4 unicast
  neighbor fd00:2::1 activate
  {{networks4}}
"""
SERVER_OSPF = f"""
ip prefix-list ours permit 10.12.0.0/16 le 32
route-map ours permit 10
 match ip address prefix-list ours
interface eth0
 ip ospf area 0
 ip ospf hello-interval 1
 ip ospf dead-interval {DEAD_S}
router ospf
 ospf router-id 10.0.2.2
 redistribute connected route-map ours
 timers throttle spf 10 100 500
 timers throttle lsa all 0
 timers lsa min-arrival 0
"""
SERVER_OSPF6 = f"""
ipv6 prefix-list ours permit fd12::/16 le 128
route-map ours permit 10
 match ipv6 address prefix-list ours
interface eth0
 ipv6 ospf6 area 0
 ipv6 ospf6 network point-to-point
 ipv6 ospf6 hello-interval 1
 ipv6 ospf6 dead-interval {DEAD_S}
router ospf6
 ospf6 router-id 10.0.2.2
 redistribute connected route-map ours
 timers throttle spf 10 100 500
"""
THIRD_BIRD = """
router id 10.0.3.2;
protocol device {{ }}
protocol static announced {{ ipv4; {routes} }}
protocol bgp peer {{
  local 10.0.3.2 as 65003; neighbor 10.0.3.1 as 65000;
  hold time 9; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import none; export all; }};
}}
"""


def networks(prefixes: list[str]) -> str:
    return "\n".join(f"network {prefix}" for prefix in prefixes)


@dataclass
class Network:
    router: Router
    frr: Frr
    client: Frr
    server: Frr
    third: Bird

    def learned(self) -> list[str]:
        """What the kernel has of all that is announced."""
        there = {route["dst"] for route in kernel_routes(self.router.lab.router, "bgp", "ospf")}
        return [prefix for prefix in [*ALL, SHARED] if prefix in there]

    def converged(self) -> bool:
        return len(self.learned()) == len(ALL) + 1 and len(self.frr.established()) == N_SESSIONS

    def converge(self, seconds: float = 40) -> None:
        """Every route is in the kernel, and ixroute forwards as the kernel does."""
        wait_until(self.converged, seconds, self.tell)
        self.check_equal(ALL)

    def tell(self) -> str:
        """What a failed test prints."""
        missing = sorted({*ALL, SHARED} - set(self.learned()))
        nexthops = self.router.lab.router.ip("nexthop show")
        return f"the kernel lacks {missing} and has the nexthops\n{nexthops}\n{self.frr.tell()}"

    def check_equal(self, prefixes: list[str]) -> None:
        assert_equal_tables(self.router, [an_address(prefix) for prefix in prefixes])

    def check_reaches(self, prefix: str) -> None:
        """From the client, and back: the hosts' own daemons may be later than the router's (RFC 2328 MinLSInterval)."""
        client, address = self.router.lab.client, an_address(prefix)
        wait_until(
            lambda: ping(client, address, 1, patience=0.3).all_back,
            15,
            lambda: f"{prefix}\n{self.tell()}",
        )
        assert ping(client, address, 3).all_back, prefix

    def gone(self, prefixes: list[str]) -> bool:
        """From the kernel, and from zebra: 8.4 leaves a route for ever at a nexthop object that the kernel threw away,
        when the interface is back before the protocol has taken the route from zebra."""
        return not set(prefixes) & (set(self.learned()) | self.frr.prefixes())

    def back(self, prefixes: list[str]) -> bool:
        return set(prefixes) <= set(self.learned())


def addresses_on(router: Router) -> None:
    """Each host has the first address of what it announces; wan's peer keeps its own when its cable flaps."""
    lab = router.lab
    for host, prefixes in (
        (lab.client, [*BGP4, *BGP6]),
        (lab.server, [*OSPF4, *OSPF6, *BY_IP6, SHARED]),
        (lab.hosts["third"], [*BIRD4, SHARED]),
    ):
        for prefix in prefixes:
            host.ip(f"addr add {an_address(prefix)}/{prefix.partition('/')[2]} dev lo")
    for host in (lab.client, lab.server):  # these learn their default routes
        host.ip("route del default")
        host.ip("-6 route del default")
    lab.server.sysctl("net.ipv6.conf.eth0.keep_addr_on_down", 1)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    router = start_router(hosts=3, label="frr")
    routing: list[Frr | Bird] = []
    try:
        addresses_on(router)
        lab = router.lab
        frr = Frr(lab.router, {"bgpd": ROUTER_BGP, "ospfd": ROUTER_OSPF, "ospf6d": ROUTER_OSPF6})
        client = Frr(
            lab.client, {"bgpd": CLIENT_BGP.format(networks4=networks(BGP4), networks6=networks(BGP6))}
        )
        server = Frr(
            lab.server,
            {
                "bgpd": SERVER_BGP.format(networks4=networks([*BY_IP6, SHARED])),
                "ospfd": SERVER_OSPF,
                "ospf6d": SERVER_OSPF6,
            },
        )
        announced = " ".join(f"route {prefix} blackhole;" for prefix in [*BIRD4, SHARED])
        third = Bird(lab.hosts["third"], THIRD_BIRD.format(routes=announced))
        routing += [frr, client, server, third]
        for daemons in (frr, client, server, third):
            daemons.start()
        yield Network(router, frr, client, server, third)
    finally:
        for daemons in routing:
            daemons.close()
        router.close()


@pytest.fixture
def converged(network: Network) -> Network:
    network.converge()
    return network


def test_sessions_come_up_over_the_ports_and_what_they_bring_is_forwarded(converged: Network) -> None:
    router = converged.router
    print(converged.tell())
    routes = {route["dst"]: route for route in kernel_routes(router.lab.router, "bgp", "ospf")}
    assert all(routes[prefix].get("nhid") for prefix in ALL), "FRR was thought to use nexthop objects"
    assert router.ixroute.lookup("10.12.3.1")["route"]["nhid"] == routes["10.12.3.0/24"]["nhid"]
    before = router.ixroute.stats()
    for prefix in (OSPF4[0], OSPF4[-1], OSPF6[0], OSPF6[-1], BY_IP6[0], BY_IP6[-1], BIRD4[0]):
        assert ping(router.lab.client, an_address(prefix), 3).all_back, prefix
    for prefix in (BGP4[0], BGP6[-1]):
        assert ping(router.lab.server, an_address(prefix), 3).all_back, prefix
    sent = 0
    for prefix in (OSPF4[1], OSPF6[1], BY_IP6[1]):
        flow = udp_flow(router.lab.client, router.lab.server, an_address(prefix), rate=3000, seconds=0.5)
        assert flow.lost == 0, (prefix, flow)
        sent += flow.sent
    after = router.ixroute.stats()
    moved = verdicts(before, after)
    assert sum(port["sent_packets"] for port in after["ports"]) >= sent
    assert (
        moved["punted unresolved_neigh"] + moved["punted external_route"] + moved["punted no_route"] == 0
    ), moved
    assert after["ports"][0]["sent_packets"] - before["ports"][0]["sent_packets"] >= sent
    print(changes(before, after))


def test_ipv4_by_ipv6_next_hops_is_forwarded(converged: Network) -> None:
    """RFC 8950."""
    for prefix in BY_IP6:
        lookup = converged.router.ixroute.lookup(an_address(prefix))
        assert lookup["verdict"] == "forward", lookup
        assert ":" in lookup["route"]["legs"][0]["gateway"], lookup


def test_several_next_hops_are_chosen_from_in_the_fast_path(converged: Network) -> None:
    """FRR makes a group of nexthop objects (`nhid`) of them."""
    router = converged.router
    lookup = router.ixroute.lookup(an_address(SHARED))
    assert lookup["verdict"] == "forward", lookup
    assert lookup["route"]["nhid"] != 0, lookup
    assert {leg["port"]: leg["share"] for leg in lookup["adjacency"]["group"]} == {"wan": 0.5, "dmz": 0.5}, (
        lookup
    )
    before = router.ixroute.stats()
    assert ping(router.lab.client, an_address(SHARED), 10).all_back
    assert verdicts(before, router.ixroute.stats())["punted multipath_route"] == 0
    converged.third.ask("disable announced")
    try:  # one next hop is left
        wait_until(
            lambda: not router.ixroute.lookup(an_address(SHARED))["adjacency"]["group"], 5, "still a group"
        )
        converged.check_equal([SHARED])
        assert ping(router.lab.client, an_address(SHARED), 3).all_back
    finally:
        converged.third.ask("enable announced")


def test_what_is_withdrawn_and_announced_again_is_followed(converged: Network) -> None:
    for prefixes, family in ((BGP4[5:15], "ipv4"), (BGP6[5:15], "ipv6")):
        where = ("router bgp 65001", f"address-family {family} unicast")
        converged.client.configure(*where, *[f"no network {prefix}" for prefix in prefixes])
        wait_until(lambda p=prefixes: converged.gone(p), 5, "withdrawn, and still in the kernel")
        converged.check_equal([*BGP4, *BGP6])
        for prefix in prefixes:
            assert converged.router.ixroute.lookup(an_address(prefix))["reason"] == "no_route"
        converged.client.configure(*where, *[f"network {prefix}" for prefix in prefixes])
        wait_until(lambda p=prefixes: converged.back(p), 5, "announced, and not in the kernel")
        converged.check_equal([*BGP4, *BGP6])


def test_routes_of_a_silent_bgp_neighbour_go_with_its_hold_time(converged: Network) -> None:
    bgpd = converged.client.daemons["bgpd"]
    bgpd.send(signal.SIGSTOP)
    try:
        wait_until(lambda: converged.gone([*BGP4, *BGP6]), HOLD_S + 5, converged.tell)
        converged.check_equal(ALL)
    finally:
        bgpd.send(signal.SIGCONT)
    wait_until(lambda: converged.back([*BGP4, *BGP6]), 20, converged.tell)


def test_routes_of_killed_neighbours_go_and_come_back(converged: Network) -> None:
    """bgpd's session ends with its process; ospfd and ospf6d are missed when their hellos are."""
    for daemons, name, prefixes in (
        (converged.client, "bgpd", [*BGP4, *BGP6]),
        (converged.server, "ospfd", OSPF4),
        (converged.server, "ospf6d", OSPF6),
    ):
        daemons.daemons[name].end(signal.SIGKILL)
        wait_until(
            lambda p=prefixes: converged.gone(p), DEAD_S + 5, lambda n=name: f"{n} killed, routes stay"
        )
        converged.check_equal(ALL)
        daemons.start_one(name)
    wait_until(lambda: converged.back(ALL), 30, converged.tell)


def carrier(router: Router, interface: str) -> bool:
    return "NO-CARRIER" not in router.ip(f"-br link show {interface}")


def test_a_flapping_wire_takes_its_routes_away_and_brings_them_back(converged: Network) -> None:
    router, server = converged.router, converged.router.lab.server
    for pause in (0.0, 0.02, 0.1, 0.3, 1.2, 0.05):
        server.ip("link set eth0 down")
        time.sleep(pause)
        server.ip("link set eth0 up")
        time.sleep(pause)
        converged.check_equal(ALL)
    server.ip("link set eth0 down")
    wait_until(lambda: not carrier(router, "wan"), 2, "the interface never lost its carrier")
    wait_until(lambda: converged.gone(OF_SERVER), DEAD_S + 5, converged.tell)
    converged.check_equal(ALL)
    server.ip("link set eth0 up")
    wait_until(lambda: carrier(router, "wan"), 3, "the carrier did not come back")
    converged.converge()
    for prefix in (OSPF4[0], OSPF6[0], BY_IP6[0]):
        converged.check_reaches(prefix)


def test_a_daemon_killed_under_frr_forwards_its_routes_again(converged: Network) -> None:
    """The interfaces lose their carrier with the process, and the kernel FRR's nexthop objects with it."""
    router = converged.router
    router.ixroute.kill()
    wait_until(lambda: not carrier(router, "lan"), 3, "the interface of a dead daemon has a carrier")
    wait_until(lambda: converged.gone([*ALL, SHARED]), HOLD_S + 5, converged.tell)
    router.ixroute.start()
    converged.converge()
    for prefix in (OSPF4[0], OSPF6[0], BY_IP6[0], BIRD4[0]):
        converged.check_reaches(prefix)


# ---- floods

CLIENT_MAC, ROUTER_MAC = "02:00:00:00:01:02", "02:00:00:00:01:01"
CLIENT4, CLIENT6 = "10.0.1.2", "fd00:1::2"
FLOOD_PPS = 20_000
FLOOD_S = 16  # beyond the hold time, with something to spare


def frame4(dst: str, ttl: int = 64, dport: int = 5001) -> bytes:
    packet = ip4(CLIENT4, dst, udp(CLIENT4, dst, b"flood", dport=dport), ttl=ttl)
    return ethernet(ROUTER_MAC, CLIENT_MAC, ETH_IP4, packet)


def frame6(dst: str, hop: int = 64) -> bytes:
    return ethernet(ROUTER_MAC, CLIENT_MAC, ETH_IP6, ip6(CLIENT6, dst, udp(CLIENT6, dst, b"flood"), hop=hop))


def arp_question(target: str) -> bytes:
    question = arp(1, CLIENT_MAC, CLIENT4, "00:00:00:00:00:00", target)
    return ethernet("ff:ff:ff:ff:ff:ff", CLIENT_MAC, ETH_ARP, question)


FLOODS = {
    "TTL 1": [frame4("10.0.2.2", 1), frame6("fd00:2::2", 1)],
    "unresolved next hops": [
        frame for n in range(50, 200) for frame in (frame4(f"10.0.2.{n}"), frame6(f"fd00:2::{n:x}"))
    ],
    "to the router itself": [frame4("10.0.1.1"), frame6("fd00:1::1")],
    "ARP storm": [arp_question(f"10.0.1.{n}") for n in range(1, 255)],
}


@pytest.mark.parametrize("flood", FLOODS)
def test_sessions_stay_up_and_forwarding_loses_nothing_beside_a_flood(converged: Network, flood: str) -> None:
    router = converged.router
    client, server = router.lab.client, router.lab.server
    targets = [an_address(OSPF4[2]), an_address(OSPF6[2])]
    for prefix in (OSPF4[2], OSPF6[2]):
        converged.check_reaches(prefix)
    sessions, before = converged.frr.established(), router.ixroute.stats()
    wire = Wire(client)
    streams = [UdpFlow(client, server, target, rate=1000) for target in targets]
    try:
        for stream in streams:
            stream.start()
        with Flood(wire, FLOODS[flood], FLOOD_PPS) as sender:
            time.sleep(FLOOD_S)
        results = [stream.stop() for stream in streams]
    finally:
        wire.close()
    after = router.ixroute.stats()
    moved = verdicts(before, after)
    print(f"{flood}: {sender.sent} in {FLOOD_S} s; streams {results}\n{changes(before, after)}")
    assert sender.sent > FLOOD_S * FLOOD_PPS / 4
    assert moved["dropped tx_ring_full"] == 0, moved
    # What found no room in the receive ring never came in (on a shared machine a worker may be without its core for
    # longer than the ring holds); all that came in left.
    overrun = after["ports"][0]["driver"]["rx_dropped"] - before["ports"][0]["driver"]["rx_dropped"]
    assert sum(result.lost for result in results) <= overrun, results
    assert moved["policed routing_protocol"] + moved["policed arp_response"] == 0, moved
    assert converged.frr.established() == sessions, converged.tell()
    assert converged.learned() == [*ALL, SHARED]
    converged.check_equal(ALL)
