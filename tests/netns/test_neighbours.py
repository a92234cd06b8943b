"""Neighbours of a router under traffic: they are resolved, age, move and go as the kernel says, and no packet that
could have been delivered is lost or overtaken for it. Linux itself as the router shows what to expect."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ixroute.demo.probes import ping, udp_flow
from lab.packets import ETH_IP4, ETH_IP6, ICMP6, address_bytes, arp, ethernet, icmp6, ip4, ip6, mac_bytes, udp
from lab.routers import Router
from lab.support import wait_until
from lab.twins import batch
from lab.wires import Flood, Wire

pytestmark = pytest.mark.netns

SERVER4, SERVER6 = "10.0.2.2", "fd00:2::2"
ARP = 0x0806
CROWD = 10_000
AGEING_S = float(os.environ.get("IXROUTE_AGEING_S", "4"))
ROUNDS = int(os.environ.get("IXROUTE_NEIGHBOUR_ROUNDS", "2"))
MARK = b"to a neighbour"
Make = Callable[..., Router]


@contextmanager
def wires(router: Router) -> Iterator[tuple[Wire, Wire]]:
    client, server = Wire(router.lab.client), Wire(router.lab.server)
    try:
        yield client, server
    finally:
        client.close()
        server.close()


def frame_to(router: Router, address: str, data: bytes = MARK) -> bytes:
    near = router.lab.links[0]
    if ":" in address:
        packet, kind = ip6(near.host6, address, udp(near.host6, address, data, dport=9)), ETH_IP6
    else:
        packet, kind = ip4(near.host4, address, udp(near.host4, address, data, dport=9)), ETH_IP4
    return ethernet(near.router_mac, near.host_mac, kind, packet)


def macs_reached(router: Router, address: str, wire_in: Wire, wire_out: Wire) -> set[str]:
    """The MACs that one packet to this address is sent to."""
    return reached_by(router, [address], wire_in, wire_out)[address]


def reached_by(
    router: Router, addresses: Sequence[str], wire_in: Wire, wire_out: Wire
) -> dict[str, set[str]]:
    """By address: the MACs that one packet to it is sent to. All are sent at once."""
    wire_out.take()
    for address in addresses:
        wire_in.send(frame_to(router, address))
    reached: dict[str, set[str]] = {address: set() for address in addresses}
    of_bytes = {address_bytes(address): address for address in addresses}
    deadline = time.monotonic() + 0.5
    while not all(reached.values()) and time.monotonic() < deadline:
        wire_out.wait(0.1)
        time.sleep(0.01)
        for frame in wire_out.take():
            if frame.endswith(MARK):
                to = frame[38:54] if frame[14] >> 4 == 6 else frame[30:34]
                reached[of_bytes[to]].add(frame[:6].hex(":"))
    return reached


def test_a_days_ageing_loses_nothing_that_is_in_use(make_router: Make, kind: str) -> None:
    """With entries that age within a second: several rounds of going stale, being probed and confirmed, for a host on
    the link and for gateways, IPv4 and IPv6. Ordinary entries live 30 s: each second is as good as minutes."""
    router = make_router(kind)
    for interface in router.lab.interfaces.values():
        for family in ("ipv4", "ipv6"):
            where = f"net.{family}.neigh.{interface}"
            settings = {"base_reachable_time_ms": 300, "gc_stale_time": 1, "delay_first_probe_time": 1}
            for name, value in settings.items():
                router.lab.router.sysctl(f"{where}.{name}", value)
    router.ip("route add 20.0.0.0/8 via 10.0.2.2")
    router.ip("-6 route add 2001:db8:20::/48 via fd00:2::2")
    addresses = [SERVER4, SERVER6, "20.1.1.1", "2001:db8:20::1"]
    for address in (SERVER4, SERVER6):
        assert ping(router.lab.client, address, 1).all_back
    heard = 0
    with wires(router) as (client, server):
        with Flood(client, [frame_to(router, address) for address in addresses], 400) as flood:
            end = time.monotonic() + AGEING_S
            while time.monotonic() < end:
                server.wait(0.1)
                heard += sum(frame.endswith(MARK) for frame in server.take())
        time.sleep(0.3)
        heard += sum(frame.endswith(MARK) for frame in server.take())
    assert flood.sent > 250 * AGEING_S
    assert heard == flood.sent
    if router.daemon:
        forwarded = sum(
            port["tx_packets"] - port["injected_packets"] for port in router.ixroute.stats()["ports"]
        )
        assert forwarded > 0.95 * flood.sent, "most of it by the fast path"


@pytest.mark.parametrize("target", [SERVER4, SERVER6], ids=["IPv4", "IPv6"])
def test_the_first_packets_to_a_host_are_neither_lost_nor_overtaken(
    make_router: Make, kind: str, target: str
) -> None:
    router = make_router(kind)
    wan = router.lab.interfaces["wan"]
    ping(router.lab.client, target, 1)
    for _ in range(ROUNDS):
        router.ip(f"neigh flush to {target} dev {wan}")
        if target in router.ip(f"neigh show dev {wan}"):  # what is managed is only emptied by a flush
            router.ip(f"neigh del {target} dev {wan}")
        flow = udp_flow(router.lab.client, router.lab.server, target, rate=1000, seconds=0.3)
        assert flow.sent > 100
        assert (flow.lost, flow.reordered) == (0, 0), flow


def test_ten_thousand_neighbours_at_once(make_router: Make, tmp_path: Path) -> None:
    """All of them set, moved to another MAC, and deleted by one command each."""
    router = make_router()
    lab = router.lab
    lab.router.ip("addr add 10.9.0.1/16 dev wan")
    crowd = [f"10.9.{1 + i // 250}.{1 + i % 250}" for i in range(CROWD)]
    some = random.Random(7).sample(crowd, 300)
    commands = tmp_path / "commands"

    def batch(text: str) -> None:
        commands.write_text("\n".join(text.format(a) for a in crowd))
        lab.router.run(["ip", "-batch", str(commands)])

    with wires(router) as (client, server):
        for mac in ("02:00:00:00:44:01", "02:00:00:00:44:02"):
            batch("neigh replace {} lladdr " + mac + " nud permanent dev wan")

            def lost(m: str = mac) -> list[str]:
                """Sent elsewhere, or nowhere."""
                reached = reached_by(router, some, client, server)
                return [address for address, macs in reached.items() if macs != {m}]

            wait_until(lambda: not lost(), 30, lambda: f"not sent to their MAC: {len(lost())} {lost()}")
        neighbours = router.ixroute.stats()["mirror"]["neighbors"]
        assert neighbours >= CROWD
        batch("neigh del {} dev wan")
        wait_until(
            lambda: router.ixroute.stats()["mirror"]["neighbors"] < 300,
            5,
            "neighbours that are gone are kept",
        )
        assert macs_reached(router, some[0], client, server) == set()


def announce(wire: Wire, mac: str) -> None:
    """Of both addresses of the server: a gratuitous ARP request (RFC 5227 3), an unsolicited advertisement
    with the override flag (RFC 4861 7.2.6)."""
    wire.send(ethernet("ff:ff:ff:ff:ff:ff", mac, ARP, arp(1, mac, SERVER4, "00:00:00:00:00:00", SERVER4)))
    body = b"\x20\x00\x00\x00" + address_bytes(SERVER6) + b"\x02\x01" + mac_bytes(mac)
    packet = ip6(SERVER6, "ff02::1", icmp6(SERVER6, "ff02::1", 136, 0, body), hop=255, proto=ICMP6)
    wire.send(ethernet("33:33:00:00:00:01", mac, ETH_IP6, packet))


def test_whoever_announces_an_address_gets_its_packets(make_router: Make, kind: str) -> None:
    """Gratuitous ARP and unsolicited advertisements, of one host and then of another with the same address: packets go
    where the kernel's entry says after each."""
    router = make_router(kind)
    lab = router.lab
    wan = lab.interfaces["wan"]
    for address in (SERVER4, SERVER6):
        assert ping(lab.client, address, 1).all_back
    lab.server.ip("link set eth0 arp off")  # from here on only what is announced below
    lab.server.sysctl("net.ipv6.conf.eth0.disable_ipv6", 1)
    with wires(router) as (client, server):
        for mac in ("02:00:00:00:55:01", "02:00:00:00:55:02"):
            time.sleep(1.05)  # an entry that was just confirmed is not moved (locktime)
            announce(server, mac)
            for address in (SERVER4, SERVER6):

                def kernel_knows(a: str = address, m: str = mac) -> bool:
                    return f"lladdr {m}" in router.ip(f"neigh show {a} dev {wan}")

                def is_sent_there(a: str = address, m: str = mac) -> bool:
                    return macs_reached(router, a, client, server) == {m}

                wait_until(kernel_knows, 2, f"{address}: the kernel does not believe {mac}")
                wait_until(is_sent_there, 2, f"{address}: packets do not go to {mac}")


def test_a_neighbour_in_any_state_is_sent_to_as_the_kernel_sends(make_router: Make, kind: str) -> None:
    """With addresses of nobody: usable states send at once to the MAC that was set, the others resolve in vain."""
    router = make_router(kind)
    wan = router.lab.interfaces["wan"]
    mac = "02:00:00:00:66:01"
    states = ("stale", "delay", "probe", "reachable", "noarp", "permanent", "failed", "incomplete", "none")
    with wires(router) as (client, server):
        for number, state in enumerate(states):
            address = f"10.0.2.{70 + number}"
            router.ip(f"neigh replace {address} lladdr {mac} nud {state} dev {wan}")
            time.sleep(0.1)
            reached = macs_reached(router, address, client, server)
            assert reached == (set() if state in ("failed", "incomplete", "none") else {mac}), state


def test_a_static_neighbour_set_right_after_its_route_stays_static(make_router: Make, kind: str) -> None:
    """Routes are typed first, or come from a daemon; the gateway is then asked for while its entry is being made."""
    router = make_router(kind)
    hosts = [f"10.0.2.{n}" for n in range(10, 130)]
    wan = router.lab.interfaces["wan"]
    for host in hosts:
        route = f"route add 10.9.{host.rpartition('.')[2]}.0/24 via {host} dev {wan}"
        static = f"neigh replace {host} lladdr 02:00:00:00:02:77 nud permanent dev {wan}"
        batch(router.lab.router, [route, static])
    time.sleep(1)  # what would be asked for again is asked for
    static = router.ip("neigh show nud permanent dev {wan}")
    assert [host for host in hosts if f"{host} lladdr 02:00:00:00:02:77" not in static] == []
