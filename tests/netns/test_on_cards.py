"""The router on emulated 82599s: what is set on an interface reaches the card's registers, what happens on the wire
reaches the interface, and cards survive the router as the router survives its cards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from ixroute.demo.netns import Namespace
from ixroute.demo.probes import UdpFlow, path_mtu, ping
from ixroute.demo.readings import port_of
from lab.packets import ETH_IP4, ethernet, ip4, udp
from lab.routers import Router, start_router
from lab.support import wait_until
from lab.wires import Wire

pytestmark = pytest.mark.netns

CLIENT4, SERVER4, SERVER6 = "10.0.1.2", "10.0.2.2", "fd00:2::2"
ROUTER_MAC = "02:00:00:00:01:01"


@pytest.fixture(scope="module")
def shared() -> Iterator[Router]:
    """For tests that leave it as it was. MTU 1400 on the server's side."""
    router = start_router("cards", label="shared", mtu=(1500, 1400))
    yield router
    router.close()


def forwards(router: Router) -> bool:
    return all(ping(router.lab.client, target, 2, patience=0.3).all_back for target in (SERVER4, SERVER6))


def port(router: Router, name: str) -> Any:
    return port_of(router.ixroute.stats(), name)


def reads(router: Router, name: str, key: str) -> int:
    return int(port(router, name)["driver"][key])


def link_of(router: Router, interface: str) -> str:
    return router.ip(f"link show dev {interface}")


def carriers(router: Router) -> list[bool]:
    return ["NO-CARRIER" not in link_of(router, link.port) for link in router.lab.links]


def datagram(size: int, mac: str) -> bytes:
    """A frame from the client to the server, `size` bytes of IP long."""
    return ethernet(mac, "02:00:00:00:01:02", ETH_IP4, _packet(size, 64))


def forwarded(size: int) -> bytes:
    """The same as the server's wire has it: one hop less, and no frame shorter than 60 bytes."""
    return ethernet("02:00:00:00:02:02", "02:00:00:00:02:01", ETH_IP4, _packet(size, 63)).ljust(60, b"\0")


def _packet(size: int, ttl: int) -> bytes:
    data = Random(size).randbytes(size - 28)
    return ip4(CLIENT4, SERVER4, udp(CLIENT4, SERVER4, data, dport=9), ttl=ttl)


def assert_books_equal_the_cards(router: Router) -> None:
    """Every packet that the card's own counters saw is one that a worker took or that had no room, exactly."""

    def differing() -> list[str]:
        return [
            f"{p['name']}: {p['driver']}"
            for p in router.ixroute.stats()["ports"]
            if p["driver"]["rx_packets_mac"] != p["rx_packets"] + p["driver"]["rx_missed"]
            or p["driver"]["tx_packets_mac"] != p["tx_packets"]
        ]

    wait_until(lambda: not differing(), 5, lambda: "\n".join(differing()))


# ---- the interface's settings reach the card


@pytest.mark.parametrize("target", [SERVER4, SERVER6], ids=["IPv4", "IPv6"])
def test_the_path_mtu_is_found(shared: Router, target: str) -> None:
    assert ping(shared.lab.client, target, 2).all_back
    mtu, error = path_mtu(shared.lab.client, target)
    assert mtu == 1400
    assert error is not None
    assert error.sender == ("10.0.1.1" if target == SERVER4 else "fd00:1::1")


def test_the_card_takes_frames_up_to_the_interfaces_mtu_and_counts_longer_ones(shared: Router) -> None:
    """MAXFRS: two VLAN tags come on top."""
    ping(shared.lab.client, SERVER4, 1)
    client = Wire(shared.lab.client)
    shared.lab.client.ip("link set eth0 mtu 2000")
    try:
        before = port(shared, "lan")
        longest = datagram(1500, ROUTER_MAC)
        client.send(longest[:12] + b"\x81\0\0\0" + longest[12:])  # of no VLAN, by its tag (802.1Q 9.6)
        for size in (1509, 1900, 1500):
            client.send(datagram(size, ROUTER_MAC))

        def moved(kind: str, name: str) -> int:
            return int(port(shared, "lan")[kind][name] - before[kind][name])

        # what arrives is too large for the server's side
        wait_until(
            lambda: moved("punted", "mtu_value_is_too_small") == 2, 3, lambda: str(port(shared, "lan"))
        )
        assert moved("driver", "rx_oversize") == 2
    finally:
        client.close()
        shared.lab.client.ip("link set eth0 mtu 1500")


def test_a_larger_mtu_lets_larger_packets_through(make_router: Callable[..., Router]) -> None:
    router = make_router("cards")
    for host in (router.lab.client, router.lab.server):
        host.ip("link set eth0 mtu 3000")
    assert ping(router.lab.client, SERVER4, 1).all_back
    assert not ping(router.lab.client, SERVER4, 1, size=2900, patience=0.3).all_back
    for interface in ("lan", "wan"):
        router.ip(f"link set {interface} mtu 3000")
    wait_until(lambda: ping(router.lab.client, SERVER4, 1, size=2972, patience=0.3).all_back, 5, "not 3000")
    assert ping(router.lab.client, SERVER6, 3, size=2952).all_back
    router.ip("link set lan mtu 9000")  # more than the memory's frames hold
    wait_until(lambda: "mtu 3000" in link_of(router, "lan"), 5, lambda: link_of(router, "lan"))
    assert "goes back to MTU 3000" in router.ixroute.log_tail()
    assert forwards(router)


def test_packets_of_every_length_up_to_a_jumbo_arrive_unchanged(make_router: Callable[..., Router]) -> None:
    """Around the shortest frame, the ends of buffers, and the MTU, which was set while the router was stopped."""
    router = make_router("cards")
    router.ixroute.stop()
    for interface in ("lan", "wan"):
        router.ip(f"link set {interface} mtu 9000")
    for host in (router.lab.client, router.lab.server):
        host.ip("link set eth0 mtu 9100")
    router.ixroute.start()
    wait_until(lambda: forwards(router), 5, "no forwarding")
    sizes = [*range(28, 64), *range(250, 260), *range(1016, 1032), *range(2032, 2052), *range(8984, 9001)]
    client, server = Wire(router.lab.client), Wire(router.lab.server)
    try:
        for size in [*sizes, 9009]:
            client.send(datagram(size, ROUTER_MAC))
            if size % 8 == 0:  # no burst fills the server's socket
                time.sleep(0.002)
        heard: list[bytes] = []
        end = forwarded(sizes[-1])

        def arrived() -> bool:
            heard.extend(frame for frame in server.take() if frame[23:24] == b"\x11")
            return end in heard

        wait_until(arrived, 5, lambda: f"{len(heard)} of {len(sizes)} arrived")
        assert [len(frame) for frame in heard] == [max(60, 14 + size) for size in sizes]
        assert heard == [forwarded(size) for size in sizes]
        wait_until(lambda: reads(router, "lan", "rx_oversize") == 1, 3, lambda: str(port(router, "lan")))
    finally:
        client.close()
        server.close()


def test_a_new_mac_of_the_interface_is_what_the_card_listens_to(make_router: Callable[..., Router]) -> None:
    old, new = ROUTER_MAC, "02:00:00:00:01:77"
    router = make_router("cards")
    assert forwards(router)
    router.ip(f"link set lan address {new}")
    router.lab.client.ip("neigh flush dev eth0")
    wait_until(lambda: forwards(router), 5, "not reachable by its new MAC")
    client = Wire(router.lab.client)
    before = port(router, "lan")["rx_packets"]
    for _ in range(20):
        client.send(datagram(100, old))
    client.send(datagram(100, new))
    client.close()
    wait_until(
        lambda: port(router, "lan")["rx_packets"] == before + 1, 3, "RAR0: only the frame to the new MAC"
    )
    router.ip("link set lan promisc on")
    wait_until(lambda: promiscuous(router, "lan"), 3, "FCTRL.UPE")
    client = Wire(router.lab.client)
    before = port(router, "lan")["rx_packets"]
    for _ in range(20):
        client.send(datagram(100, old))
    client.close()
    wait_until(lambda: port(router, "lan")["rx_packets"] >= before + 20, 3, "promiscuous")
    router.ip("link set lan promisc off")
    wait_until(lambda: not promiscuous(router, "lan"), 3, "FCTRL.UPE")
    assert forwards(router)


def promiscuous(router: Router, name: str) -> bool:
    from ixroute import client

    ports = client.request(os.fspath(router.ixroute.control), "ports")
    return any(p["name"] == name and p["features"]["promiscuous"] for p in ports)


# ---- the wire reaches the interface


def test_the_interfaces_carrier_follows_the_far_end_of_the_wire(shared: Router) -> None:
    assert forwards(shared)
    for _ in range(2):
        shared.lab.client.ip("link set eth0 down")
        wait_until(lambda: "NO-CARRIER" in link_of(shared, "lan"), 3, lambda: link_of(shared, "lan"))
        assert "NO-CARRIER" not in link_of(shared, "wan")
        shared.lab.client.ip("link set eth0 up")
        wait_until(lambda: "NO-CARRIER" not in link_of(shared, "lan"), 3, lambda: link_of(shared, "lan"))
    shared.lab.client.ip("addr replace fd00:1::2/64 dev eth0 nodad")
    shared.lab.client.ip("route replace default via 10.0.1.1")
    shared.lab.client.ip("-6 route replace default via fd00:1::1 dev eth0")
    wait_until(lambda: forwards(shared), 5, "no forwarding after the link came back")


def test_every_packet_that_the_cards_count_has_a_verdict(shared: Router) -> None:
    before = [p["rx_packets"] for p in shared.ixroute.stats()["ports"]]
    flows = [
        UdpFlow(shared.lab.client, shared.lab.server, target, rate=1000).start()
        for target in (SERVER4, SERVER6)
    ]
    time.sleep(0.5)
    for flow in flows:
        assert flow.stop().received > 100
    assert_books_equal_the_cards(shared)
    shared.check_balance()
    assert all(p["rx_packets"] >= was for p, was in zip(shared.ixroute.stats()["ports"], before, strict=True))


def test_two_workers_share_a_card_and_flows_stay_in_order(make_router: Callable[..., Router]) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core: there is none for a second worker")
    router = make_router("cards", workers=f"{cores[0]},{cores[-1]}")
    assert forwards(router)
    flows = [
        UdpFlow(router.lab.client, router.lab.server, target, rate=150).start()
        for target in (SERVER4, SERVER6) * 4
    ]
    time.sleep(1)
    for flow in flows:
        result = flow.stop(settle=0.1)
        assert (result.lost, result.reordered) == (0, 0), result
        assert result.received > 20
    lan = port(router, "lan")["driver"]
    assert min(lan["rx_queue_0_packets"], lan["rx_queue_1_packets"]) > 20, "RSS reaches both queues"
    assert all(worker["packets"] > 20 for worker in router.ixroute.stats()["workers"])
    assert_books_equal_the_cards(router)


# ---- cards outlive routers


def more_than(flow: UdpFlow, number: int) -> Callable[[], bool]:
    return lambda: flow.result.received > number


def addresses(router: Router) -> str:
    return router.ip("-br addr show dev lan") + router.ip("-br addr show dev wan")


def test_after_sigterm_and_after_kill_the_next_router_takes_the_cards(
    make_router: Callable[..., Router],
) -> None:
    router = make_router("cards")
    assert forwards(router)
    flow = UdpFlow(router.lab.client, router.lab.server, SERVER4, rate=1000).start()
    try:
        for end in (router.ixroute.stop, router.ixroute.kill):
            end()
            for address in ("10.0.1.1/24", "10.0.2.1/24", "fd00:1::1/64", "fd00:2::1/64"):
                assert address in addresses(router)
            router.ixroute.start()
            wait_until(more_than(flow, flow.result.received + 100), 10, "the stream did not come back")
    finally:
        flow.stop()
    wait_until(lambda: forwards(router), 5, "no forwarding")


def lay_wires(router: Router) -> None:
    """The far ends of new cards' wires become the hosts' interfaces."""
    lab = router.lab
    for link in lab.links:
        host: Namespace = lab.hosts[link.host]
        lab.router.ip(f"link set wire{link.number - 1} netns {host.name} name eth0")
        host.ip(f"link set eth0 address {link.host_mac} up")
        host.offloads_off("eth0")
        for command in (
            f"addr add {link.host4}/24 dev eth0",
            f"addr add {link.host6}/64 dev eth0 nodad",
            f"route add default via {link.router4}",
            f"route add default via {link.router6} dev eth0",
        ):
            host.ip(command)


def rx_total(router: Router) -> int:
    return sum(int(p["rx_packets"]) for p in router.ixroute.stats()["ports"])


def test_the_router_outlives_its_cards_and_takes_those_that_come_back(
    make_router: Callable[..., Router],
) -> None:
    router = make_router("cards")
    cards = router.lab.cards
    assert cards is not None
    assert forwards(router)
    router.ip("link set lan mtu 1600")
    wait_until(lambda: "lan: MTU 1600" in router.ixroute.log_tail(), 3, router.ixroute.log_tail)
    stream = UdpFlow(router.lab.client, router.lab.server, SERVER4, rate=500).start()
    try:
        cards.end(signal.SIGKILL)
        wait_until(lambda: carriers(router) == [False, False], 10, router.ixroute.log_tail)
    finally:
        stream.stop()
    wait_until(lambda: "the card is gone" in router.ixroute.log_tail(), 5, router.ixroute.log_tail)
    assert "start it with `ixroute emulate" in router.ixroute.log_tail()
    assert router.ixroute.process is not None
    assert router.ixroute.process.poll() is None
    before = router.ixroute.stats()  # it answers
    cards.start()
    lay_wires(router)
    wait_until(lambda: carriers(router) == [True, True], 10, router.ixroute.log_tail)
    wait_until(lambda: forwards(router), 5, router.ixroute.log_tail)
    lan = port(router, "lan")
    assert lan["mtu"] == 1600
    assert lan["driver"]["rx_packets_mac"] >= before["ports"][0]["driver"]["rx_packets_mac"]
    assert router.ixroute.log_tail(200).count("the card is back") == 2
    router.check_balance()
