"""VRRP: FRR's vrrpd on the router and on another one share the address of a LAN.

    user, backup router --- (br0) third's host --- (dmz) router --- (wan) server

vrrpd holds the virtual MAC on a macvlan. On a port's interface that makes the port the kernel's: its packets are
punted as `kernel_interface`, and the kernel forwards them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ixroute.demo.netns import Namespace
from ixroute.demo.probes import ping
from lab.routers import Router
from lab.routing import Frr
from lab.support import verdicts, wait_until

pytestmark = [pytest.mark.netns, pytest.mark.frr]

VIRTUAL, VIRTUAL_MAC = "10.0.3.254", "00:00:5e:00:01:07"
SERVICE = "10.99.0.1"  # beyond either router


def vrrp(interface: str, priority: int) -> str:
    return f"""
interface {interface}
 vrrp 7 version 3
 vrrp 7 priority {priority}
 vrrp 7 advertisement-interval 100
 vrrp 7 ip {VIRTUAL}
"""


def macvlan(namespace: Namespace, interface: str) -> None:
    namespace.sysctl("net.ipv4.conf.all.arp_ignore", 1)  # the interface below must not answer for it
    namespace.ip(f"link add vrrp4 link {interface} address {VIRTUAL_MAC} type macvlan mode bridge")
    namespace.ip(f"addr add {VIRTUAL}/24 dev vrrp4")
    namespace.ip("link set vrrp4 up")


@dataclass
class Lan:
    router: Router
    user: Namespace
    ours: Frr
    theirs: Frr


@pytest.fixture
def lan(make_router: Callable[..., Router]) -> Iterator[Lan]:
    router = make_router(hosts=3)
    switch = router.lab.hosts["third"]
    user, backup = Namespace(f"{switch.name}u").create(), Namespace(f"{switch.name}b").create()
    daemons: list[Frr] = []
    try:
        switch.ip("addr flush dev eth0")
        switch.ip("link add br0 type bridge")
        switch.ip("link set br0 up")
        switch.ip("link set eth0 master br0")
        for name, namespace, address in (("u", user, "10.0.3.7"), ("b", backup, "10.0.3.8")):
            switch.ip(f"link add to-{name} type veth peer name eth0 netns {namespace.name}")
            switch.ip(f"link set to-{name} master br0 up")
            namespace.ip(f"addr add {address}/24 dev eth0")
            namespace.ip("link set eth0 up")
            namespace.offloads_off("eth0")
        user.ip(f"route add default via {VIRTUAL}")
        for where in (router.lab.server, backup):
            where.ip(f"addr add {SERVICE}/32 dev lo")
        router.ip(f"route add {SERVICE} via 10.0.2.2")
        macvlan(router.lab.router, "dmz")
        macvlan(backup, "eth0")
        daemons.append(Frr(router.lab.router, {"vrrpd": vrrp("dmz", 200)}))
        daemons.append(Frr(backup, {"vrrpd": vrrp("eth0", 100)}))
        for daemon in daemons:
            daemon.start()
        yield Lan(router, user, *daemons)
    finally:
        for daemon in daemons:
            daemon.close()
        user.destroy()
        backup.destroy()


def state(frr: Frr) -> str:
    return next(
        (line.split()[-1] for line in frr.vtysh("show vrrp").splitlines() if "Status (v4)" in line), ""
    )


def forwarded(stats: dict[str, Any]) -> int:
    """Packets that came in by one wire and left by another."""
    return sum(int(port["sent_packets"] - port["injected_packets"]) for port in stats["ports"])


def test_the_master_forwards_what_comes_to_the_virtual_mac_and_the_backup_when_it_is_gone(lan: Lan) -> None:
    def tell() -> str:
        return lan.ours.vtysh("show vrrp") + lan.theirs.vtysh("show vrrp")

    ixroute = lan.router.ixroute
    wait_until(lambda: (state(lan.ours), state(lan.theirs)) == ("Master", "Backup"), 15, tell)
    wait_until(lambda: ping(lan.user, SERVICE, 1, patience=0.3).all_back, 5, tell)
    before = ixroute.stats()
    assert ping(lan.user, VIRTUAL, 3).all_back
    assert ping(lan.user, SERVICE, 5).all_back
    assert VIRTUAL_MAC in lan.user.ip(f"neigh show {VIRTUAL}")
    assert verdicts(before, ixroute.stats())["punted kernel_interface"] >= 8
    lan.ours.daemons["vrrpd"].end(signal.SIGTERM)
    wait_until(lambda: state(lan.theirs) == "Master", 10, lambda: lan.theirs.vtysh("show vrrp"))
    lan.router.ip("link set vrrp4 down")  # vrrpd leaves it up
    wait_until(lambda: ping(lan.user, SERVICE, 1, patience=0.3).all_back, 5, tell)
    before = ixroute.stats()
    assert ping(lan.user, SERVICE, 5).all_back
    after = ixroute.stats()
    # What the kernel itself says meanwhile (it asks its neighbours) is no packet of the backup's.
    assert forwarded(after) == forwarded(before), "the backup's packets went by the router"
