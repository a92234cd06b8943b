"""Two hosts, and the real daemon between them: what people do with a router works, as it does with Linux."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from ixroute.demo.probes import path_mtu, ping, tcp_transfer, traceroute, udp_flow
from lab.packets import ETH_IP4, ethernet, ip4, udp
from lab.routers import Router, start_router
from lab.support import wait_until
from lab.wires import Wire

pytestmark = pytest.mark.netns

SERVER4, SERVER6 = "10.0.2.2", "fd00:2::2"
CLIENT4, CLIENT6 = "10.0.1.2", "fd00:1::2"
both_families = pytest.mark.parametrize("target", [SERVER4, SERVER6], ids=["IPv4", "IPv6"])
both_ways = pytest.mark.parametrize(
    "target", [SERVER4, SERVER6, CLIENT4, CLIENT6], ids=["IPv4", "IPv6", "IPv4 back", "IPv6 back"]
)


@pytest.fixture(scope="module", params=["linux", "ixroute", "cards"])
def shared(request: pytest.FixtureRequest) -> Iterator[Router]:
    """One router for the tests that leave it as it was."""
    router = start_router(str(request.param), label="shared")
    yield router
    router.close()


@both_ways
def test_every_echo_comes_back(shared: Router, target: str) -> None:
    source = shared.lab.client if target in (SERVER4, SERVER6) else shared.lab.server
    assert ping(source, target, 10, size=56).all_back
    assert ping(source, target, 3, size=1400).all_back


@pytest.mark.parametrize(
    ("near", "target"), [("10.0.1.1", SERVER4), ("fd00:1::1", SERVER6)], ids=["IPv4", "IPv6"]
)
def test_the_router_is_a_hop_of_traceroute(shared: Router, near: str, target: str) -> None:
    assert traceroute(shared.lab.client, target) == [near, target]


@pytest.mark.parametrize("address", ["10.0.1.1", "10.0.2.1", "fd00:1::1", "fd00:2::1"])
def test_the_router_itself_answers_at_all_its_addresses(shared: Router, address: str) -> None:
    assert ping(shared.lab.client, address, 5).all_back


def test_the_router_reaches_the_hosts(shared: Router) -> None:
    for target in (CLIENT4, SERVER4, CLIENT6, SERVER6):
        assert ping(shared.lab.router, target, 3).all_back, target


@both_ways
def test_tcp_delivers_the_same_bytes(shared: Router, target: str) -> None:
    hosts = (shared.lab.client, shared.lab.server)
    source, receiver = hosts if target in (SERVER4, SERVER6) else hosts[::-1]
    transfer = tcp_transfer(source, receiver, target, size=30 << 20, digest=True)
    assert transfer.whole, transfer


@both_families
def test_udp_loses_and_reorders_nothing(shared: Router, target: str) -> None:
    ping(shared.lab.client, target, 1)
    flow = udp_flow(shared.lab.client, shared.lab.server, target, rate=3000, seconds=1)
    assert (flow.lost, flow.reordered) == (0, 0), flow
    assert flow.sent > 1000


def test_a_packet_arrives_once_and_with_one_hop_less(shared: Router) -> None:
    ping(shared.lab.client, SERVER4, 1)
    client, server = Wire(shared.lab.client), Wire(shared.lab.server)
    try:
        packet = ip4(CLIENT4, SERVER4, udp(CLIENT4, SERVER4, b"once and only once", dport=9), ttl=7)
        link = shared.lab.links[0]
        for _ in range(50):
            client.send(ethernet(link.router_mac, link.host_mac, ETH_IP4, packet))
        time.sleep(0.3)
        heard = [frame for frame in server.take() if b"once and only once" in frame]
        assert len(heard) == 50
        assert {frame[22] for frame in heard} == {6}
    finally:
        client.close()
        server.close()


@both_families
def test_the_path_mtu_is_found(make_router: Callable[..., Router], kind: str, target: str) -> None:
    router = make_router(kind, mtu=(1500, 1400))
    assert ping(router.lab.client, target, 2).all_back
    mtu, error = path_mtu(router.lab.client, target)
    assert mtu == 1400
    assert error is not None
    assert error.sender == ("10.0.1.1" if target == SERVER4 else "fd00:1::1")
    assert (error.type, error.code, error.info) == ((3, 4, 1400) if target == SERVER4 else (2, 0, 1400))


def test_tcp_crosses_a_smaller_mtu(make_router: Callable[..., Router], kind: str) -> None:
    router = make_router(kind, mtu=(1500, 1400))
    for target in (SERVER4, SERVER6):
        assert tcp_transfer(router.lab.client, router.lab.server, target, size=4 << 20, digest=True).whole


def test_large_packets_are_fragmented_on_the_way(make_router: Callable[..., Router], kind: str) -> None:
    router = make_router(kind, mtu=(1500, 1400))
    # raw sockets set no DF: the echo of 1500 bytes comes back in fragments
    assert ping(router.lab.client, SERVER4, 3, size=1472).all_back


def test_a_neighbour_with_a_new_mac_is_followed(make_router: Callable[..., Router], kind: str) -> None:
    router = make_router(kind)
    server = router.lab.server
    for target in (SERVER4, SERVER6):
        assert ping(router.lab.client, target, 2).all_back
    server.sysctl(
        "net.ipv4.conf.eth0.arp_notify", 1
    )  # the host says so itself, with gratuitous ARP and an NA
    server.sysctl("net.ipv6.conf.eth0.ndisc_notify", 1)
    server.sysctl("net.ipv6.conf.eth0.keep_addr_on_down", 1)
    for command in (
        "link set eth0 down",
        "link set eth0 address 02:00:00:00:02:77",
        "link set eth0 up",
        "route replace default via 10.0.2.1",
        "-6 route replace default via fd00:2::1 dev eth0",
    ):
        server.ip(command)
    for target in (SERVER4, SERVER6):
        wait_until(lambda t=target: ping(router.lab.client, t, 1, patience=0.2).all_back, 5, f"{target} lost")
        assert ping(router.lab.client, target, 3).all_back
