"""The mirror over a real kernel: after each change, announced or silent, the FIB answers as `ip route get`
does."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator

import pytest
from kernel_bench import ACTIONS, Bench, ip, namespaces, run, sysctl

pytestmark = pytest.mark.netns

FAR4 = ("20.1.1.1", "20.2.0.1", "30.1.1.1", "40.1.1.1", "50.1.1.1")
FAR6 = ("2001:db8:20::1", "2001:db8:30::1", "2001:db8:40::1")
NEAR = ("10.0.0.254", "10.0.0.255", "10.0.0.3", "10.1.0.3", "10.9.0.3", "2001:db8:a::3", "2001:db8:b::fe")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with namespaces() as hosts:
        bench = Bench(hosts)
        yield bench
        bench.close()


@pytest.fixture
def routed(bench: Bench) -> Bench:
    """A few far routes, followed and resolved."""
    ip(
        "route add 20.0.0.0/8 via 10.0.0.1",
        "route add 30.0.0.0/8 via 10.1.0.1",
        "route add 2001:db8:20::/48 via 2001:db8:a::1",
        "route add 2001:db8:30::/48 via 2001:db8:b::1",
    )
    bench.start()
    bench.check(*FAR4, *FAR6, *NEAR)
    bench.forwards("20.1.1.1")
    bench.forwards("2001:db8:30::1")
    return bench


def test_what_was_there_before_is_known_when_synced(bench: Bench) -> None:
    ip(
        "route add 20.0.0.0/8 via 10.0.0.1",
        "route add blackhole 30.0.0.0/8",
        "route add unreachable 40.0.0.0/8",
        "route add prohibit 50.0.0.0/8",
        "route add 60.0.0.0/8 via 10.9.0.1",
        "route add 2001:db8:20::/48 via 2001:db8:a::1",
        "route add blackhole 2001:db8:40::/48",
        "route add 70.0.0.0/8 via inet6 2001:db8:a::2 dev lan",
        "route add throw 80.0.0.0/8",
    )
    bench.start()
    bench.check(*FAR4, *FAR6, *NEAR, "60.1.1.1", "80.1.1.1")
    assert bench.action("60.1.1.1") == ACTIONS.external_route
    assert bench.action("30.1.1.1") == ACTIONS.blackhole_route
    assert bench.action("40.1.1.1") == ACTIONS.reject_route
    bench.forwards("70.1.1.1")


def test_routes_added_replaced_and_deleted(routed: Bench) -> None:
    ip("route add 20.2.0.0/16 via 10.1.0.2")
    routed.check(*FAR4)
    ip("route replace 20.2.0.0/16 via 10.0.0.2")
    routed.check(*FAR4)
    routed.forwards("20.2.0.1")
    ip("route change 20.2.0.0/16 via 10.9.0.2")
    routed.check(*FAR4)
    assert routed.action("20.2.0.1") == ACTIONS.external_route
    ip("route del 20.2.0.0/16", "route add default via 10.1.0.3")
    routed.check(*FAR4)
    ip("-6 route replace 2001:db8:20::/48 via 2001:db8:b::2", "-6 route add default via 2001:db8:a::3")
    routed.check(*FAR6)


def test_the_lowest_metric_wins_and_the_next_one_follows(routed: Bench) -> None:
    ip("route add 20.0.0.0/8 via 10.1.0.5 metric 50", "route add 20.0.0.0/8 via 10.0.0.6 metric 20")
    routed.check(*FAR4)
    ip("route del 20.0.0.0/8 via 10.0.0.1")
    routed.check(*FAR4)
    assert "10.0.0.6" in routed.ours("20.1.1.1")[0]
    ip("route del 20.0.0.0/8 via 10.0.0.6 metric 20")
    routed.check(*FAR4)
    assert "10.1.0.5" in routed.ours("20.1.1.1")[0]


def test_appended_and_prepended_routes_of_equal_metric(routed: Bench) -> None:
    ip("route append 20.0.0.0/8 via 10.1.0.5", "route prepend 20.0.0.0/8 via 10.1.0.6")
    routed.check(*FAR4)
    ip("route del 20.0.0.0/8 via 10.1.0.6")
    routed.check(*FAR4)
    ip("route del 20.0.0.0/8 via 10.0.0.1")
    routed.check(*FAR4)


def test_several_next_hops_are_a_group_and_ipv6_loses_them_one_by_one(routed: Bench) -> None:
    ip(
        "route add 40.0.0.0/8 nexthop via 10.0.0.1 nexthop via 10.1.0.1",
        "-6 route add 2001:db8:40::/48 nexthop via 2001:db8:a::1 nexthop via 2001:db8:b::1",
        "-6 route append 2001:db8:40::/48 via 2001:db8:b::2",
    )
    routed.chooses("40.1.1.1", "10.0.0.1", "10.1.0.1")
    routed.chooses("2001:db8:40::1", "2001:db8:a::1", "2001:db8:b::1", "2001:db8:b::2")
    routed.check(*FAR4, *FAR6)
    ip("-6 route del 2001:db8:40::/48 via 2001:db8:b::1")
    routed.chooses("2001:db8:40::1", "2001:db8:a::1", "2001:db8:b::2")
    routed.check(*FAR6)
    ip("-6 route del 2001:db8:40::/48 via 2001:db8:a::1")
    routed.forwards("2001:db8:40::1")
    routed.check(*FAR6)


def test_several_next_hops_are_the_kernels_when_one_is_not_ours(routed: Bench) -> None:
    ip("route add 40.0.0.0/8 nexthop via 10.0.0.1 nexthop via 10.9.0.1")
    routed.becomes("40.1.1.1", ACTIONS.multipath_route)
    ip("route replace 40.0.0.0/8 nexthop via 10.0.0.1 nexthop dev wan")
    routed.becomes("40.1.1.1", ACTIONS.multipath_route)
    routed.check(*FAR4)


def test_sysctls_of_several_next_hops_are_followed(routed: Bench) -> None:
    assert routed.sink.multipath == {4: (0, 7), 6: (0, 7)}
    sysctl("ipv4/fib_multipath_hash_policy", 1)
    sysctl("ipv6/fib_multipath_hash_policy", 3)
    sysctl("ipv6/fib_multipath_hash_fields", 0x37)
    routed.until(lambda: routed.sink.multipath == {4: (1, 7), 6: (3, 0x37)}, "the sysctls were not followed")


def test_link_down_ends_forwarding_and_link_up_brings_back_what_the_kernel_brings_back(routed: Bench) -> None:
    ip("route add default via 10.1.0.3")
    routed.check(*FAR4)
    ip("link set lan down")
    routed.becomes("20.1.1.1", ACTIONS.forward)  # by the default route
    routed.check(*FAR4, *FAR6, *NEAR)
    assert not routed.sink.ports[0].up
    ip("link set lan up")
    routed.check(*FAR4, *FAR6, *NEAR)
    routed.until(lambda: routed.sink.ports[0].up, "the port stays down")


def test_a_deleted_address_takes_its_routes_along(routed: Bench) -> None:
    ip("addr del 10.0.0.254/24 dev lan")
    routed.check(*FAR4, *FAR6, *NEAR)
    assert bytes([10, 0, 0, 254]) not in routed.sink.local4
    ip("-6 addr flush dev wan scope global")
    routed.check(*FAR4, *FAR6, *NEAR)


def test_a_deleted_nexthop_takes_its_routes_along(routed: Bench) -> None:
    ip(
        "nexthop add id 7 via 10.0.0.2 dev lan",
        "nexthop add id 8 via 10.1.0.2 dev wan",
        "nexthop add id 100 group 7/8",
        "nexthop add id 6 via 2001:db8:a::2 dev lan",
        "route add 40.0.0.0/8 nhid 7",
        "route add 50.0.0.0/8 nhid 100",
        "-6 route add 2001:db8:40::/48 nhid 6",
    )
    routed.forwards("40.1.1.1")
    routed.forwards("2001:db8:40::1")
    routed.chooses("50.1.1.1", "10.0.0.2", "10.1.0.2")
    ip("nexthop del id 7")
    routed.check(*FAR4, *FAR6)
    routed.forwards("50.1.1.1")  # a group of one is its member
    ip("nexthop del id 8", "nexthop del id 6")
    routed.check(*FAR4, *FAR6)
    assert routed.action("50.1.1.1") == ACTIONS.no_route


@pytest.mark.parametrize("compat", [1, 0])
def test_a_replaced_nexthop_moves_its_routes(bench: Bench, compat: int) -> None:
    sysctl("ipv4/nexthop_compat_mode", compat)
    ip(
        "nexthop add id 7 via 10.0.0.2 dev lan",
        "nexthop add id 100 group 7",
        "route add 40.0.0.0/8 nhid 7",
        "route add 50.0.0.0/8 nhid 100",
    )
    bench.start()
    bench.forwards("40.1.1.1")
    ip("nexthop replace id 7 via 10.1.0.3 dev wan")
    bench.until(lambda: "dev wan" in bench.ours("50.1.1.1")[0], "the group stays where it was")
    bench.check(*FAR4)
    bench.forwards("40.1.1.1")
    bench.forwards("50.1.1.1")
    ip("nexthop replace id 7 blackhole")
    bench.becomes("40.1.1.1", ACTIONS.blackhole_route)
    bench.becomes("50.1.1.1", ACTIONS.blackhole_route)
    ip("nexthop replace id 7 via 10.0.0.4 dev lan")
    bench.forwards("40.1.1.1")
    bench.check(*FAR4)


def test_lost_carrier_takes_nexthop_objects_along_and_leaves_other_routes(routed: Bench) -> None:
    ip("nexthop add id 7 via 10.0.0.2 dev lan", "route add 40.0.0.0/8 nhid 7")
    routed.forwards("40.1.1.1")
    routed.host("ip link set lan-h down")
    routed.until(lambda: not routed.sink.taps[0].carrier, "the carrier is still there")
    routed.check(*FAR4, *FAR6)
    assert routed.sink.ports[0].up
    routed.host("ip link set lan-h up")
    routed.check(*FAR4)
    routed.forwards("20.1.1.1")


def test_linkdown_routes_are_ignored_where_the_sysctl_says_so(routed: Bench) -> None:
    sysctl("ipv4/conf/lan/ignore_routes_with_linkdown", 1)
    ip("route add 20.0.0.0/8 via 10.1.0.1 metric 100")
    routed.check(*FAR4)
    routed.host("ip link set lan-h down")
    routed.becomes("20.1.1.1", ACTIONS.external_route)


def test_a_deleted_interface_takes_its_routes_along_and_its_return_is_noticed(routed: Bench) -> None:
    ip("nexthop add id 7 via 10.0.0.2 dev lan", "route add 40.0.0.0/8 nhid 7", "link del lan")
    routed.check(*FAR4, *FAR6, *NEAR)
    routed.until(lambda: not routed.sink.taps[0].present, "nobody noticed")
    assert not routed.sink.ports[0].up
    routed.wire("lan", 0)
    ip("route add 20.0.0.0/8 via 10.0.0.1")
    routed.check(*FAR4, *FAR6, *NEAR)
    routed.forwards("20.1.1.1")
    assert routed.sink.ports[0].up


def test_a_gateways_new_mac_is_used(routed: Bench) -> None:
    routed.host("ip link set lan-h address 02:00:00:00:00:77")
    ip("neigh replace 10.0.0.1 lladdr 02:00:00:00:00:77 dev lan nud reachable")
    index = routed.rib.lookup(bytes([20, 1, 1, 1])).index
    routed.until(
        lambda: routed.table.get(index).mac.hex(":") == "02:00:00:00:00:77", "the old MAC is still used"
    )


def test_a_silent_gateway_becomes_unresolved_and_returns_by_itself(routed: Bench) -> None:
    routed.host("ip link set lan-h arp off")
    ip("neigh del 10.0.0.1 dev lan")
    routed.becomes("20.1.1.1", ACTIONS.unresolved_neigh)
    routed.check(*FAR4)
    routed.host("ip link set lan-h arp on")
    routed.forwards("20.1.1.1")


def test_hosts_on_a_connected_network_forward_once_the_kernel_knows_them(routed: Bench) -> None:
    assert routed.action("10.0.0.5") == ACTIONS.unresolved_neigh
    ip("neigh replace 10.0.0.5 dev lan use nud none", "neigh replace 2001:db8:a::5 dev lan use nud none")
    routed.forwards("10.0.0.5")
    routed.forwards("2001:db8:a::5")
    routed.check(*NEAR, "10.0.0.5", "2001:db8:a::5")
    ip("neigh flush dev lan")
    routed.becomes("10.0.0.5", ACTIONS.unresolved_neigh)


def neighbour(address: str) -> str:
    return run(f"ip neigh show {address}")


def test_gateways_are_managed_while_routes_use_them(routed: Bench) -> None:
    for gateway in ("10.0.0.1", "2001:db8:b::1"):
        assert "managed" in neighbour(gateway)
    ip("neigh replace 10.0.0.5 dev lan use nud none")
    routed.forwards("10.0.0.5")
    assert "managed" not in neighbour("10.0.0.5"), "a host is no gateway"
    ip("route del 20.0.0.0/8")
    routed.until(lambda: "managed" not in neighbour("10.0.0.1"), "the mark stays")
    assert neighbour("10.0.0.1"), "the entry itself is the kernel's"
    ip("neigh flush all")
    routed.until(lambda: "managed" in neighbour("10.1.0.1"), "a flushed gateway is not resolved again")


def test_what_users_set_is_left_alone(bench: Bench) -> None:
    ip(
        "neigh add 10.0.0.1 lladdr 02:00:00:00:00:55 dev lan nud permanent",
        "neigh add 10.0.0.2 dev lan managed",
        "route add 20.0.0.0/8 via 10.0.0.1",
        "route add 30.0.0.0/8 via 10.0.0.2",
    )
    mirror = bench.start()
    bench.forwards("20.1.1.1")
    bench.forwards("30.1.1.1")
    ip("route del 20.0.0.0/8", "route del 30.0.0.0/8")
    bench.becomes("30.1.1.1", ACTIONS.no_route)
    mirror.stop()
    assert "PERMANENT" in neighbour("10.0.0.1")
    assert "managed" not in neighbour("10.0.0.1")
    assert "managed" in neighbour("10.0.0.2")


def test_an_entry_that_users_set_while_ixroute_asks_for_it_stays_theirs(bench: Bench) -> None:
    """A static neighbour follows its route at once: ixroute has heard of the route, and not of the neighbour."""
    bench.start()
    for host in range(60, 160):
        run(
            "ip -batch -",
            stdin=f"route add 20.{host}.0.0/16 via 10.0.0.{host}\n"
            f"neigh replace 10.0.0.{host} lladdr 02:00:00:00:00:55 dev lan nud permanent\n",
        )
    bench.forwards("20.159.0.1")
    lost = [host for host in range(60, 160) if "PERMANENT" not in neighbour(f"10.0.0.{host}")]
    assert not lost


def test_stop_takes_its_marks_back(routed: Bench) -> None:
    assert "managed" in neighbour("10.1.0.1")
    assert routed.mirror is not None
    routed.mirror.stop()
    assert "managed" not in neighbour("10.1.0.1")
    assert "managed" not in neighbour("2001:db8:a::1")


def test_a_stale_host_in_use_is_probed_and_one_that_is_not_stays_stale(routed: Bench) -> None:
    mac = json.loads(routed.host("ip -j link show lan-h"))[0]["address"]
    for host in (5, 6):
        ip(f"neigh replace 10.0.0.{host} lladdr {mac} dev lan nud stale")
        routed.forwards(f"10.0.0.{host}")
    index = routed.rib.lookup(bytes([10, 0, 0, 5])).index
    routed.sink.used = bytes(index // 8) + bytes([1 << index % 8])
    routed.until(lambda: "STALE" not in neighbour("10.0.0.5"), "nobody probed it")
    assert "STALE" in neighbour("10.0.0.6")
    routed.forwards("10.0.0.5")


def test_an_overrun_is_cured_by_a_dump(bench: Bench) -> None:
    mirror = bench.start(buffer_bytes=4096)
    batch = [f"route add 20.{i >> 8}.{i & 255}.0/24 via 10.{i & 1}.0.{i % 9 + 1}" for i in range(8000)]
    batch += [f"route del 20.{i >> 8}.{i & 255}.0/24" for i in range(0, 8000, 3)]
    batch += [f"route replace 20.{i >> 8}.{i & 255}.0/24 via 10.1.0.9" for i in range(1, 8000, 3)]
    with mirror.locked():  # the mirror is busy elsewhere while the kernel runs over
        run("ip -batch -", stdin="\n".join(batch))
    bench.until(lambda: mirror.status()["resyncs"].get("overrun"), "no overrun was noticed")
    sample = random.Random(1).sample(range(8000), 40)
    bench.check(*[f"20.{i >> 8}.{i & 255}.1" for i in sample])
    assert mirror.status()["overruns"] >= 1


def test_rules_become_views_of_the_ports(routed: Bench) -> None:
    rib = routed.rib
    usual = [rib.main, rib.fib(253)]
    fibs = lambda port, family: [step.fib for step in routed.sink.views[port, family][0]]  # noqa: E731
    assert fibs(0, 4) == usual
    ip("route add 10.0.0.0/8 via 10.1.0.1 table 100", "rule add table 100")
    routed.until(
        lambda: fibs(0, 4) == [rib.fib(255), rib.fib(100), rib.fib(254), rib.fib(253)], "rule not noticed"
    )
    assert fibs(0, 6) == [rib.main]
    assert rib.fib(100).read(bytes((10, 0, 0, 1))) >= 8, "the table's routes are there with the rule"
    ip("rule del table 100", "-6 rule add from 2001:db8::/32 fwmark 1 table 100")
    routed.until(lambda: fibs(1, 4) == usual and None in fibs(1, 6), "rules not noticed")


@pytest.mark.parametrize("split", [False, True])
def test_main_below_a_shorter_local_prefix_is_left_to_the_kernel(routed: Bench, split: bool) -> None:
    """The kernel's IPv4 tables local and main are one until a rule was made, then local comes first for good."""
    if split:
        ip("rule add table 100", "rule del table 100")
    ip(
        "route add local 20.0.0.0/6 dev lo",  # 20 to 23
        "route add 21.1.0.0/16 via 10.1.0.1",
        "route add 21.2.0.0/16 dev lan",
        "neigh replace 21.2.0.1 lladdr 02:00:00:00:00:44 dev lan",
        "-6 route add local 2001:db8:20::/46 dev lo",
        "-6 route add 2001:db8:21::/48 via 2001:db8:a::1",
    )
    for address in ("20.1.1.1", "21.1.1.1", "21.2.0.1", "21.2.0.2"):
        routed.until(lambda a=address: routed.ours(a)[0] == "kernel", f"{address} is decided")
    assert routed.kernel("21.1.1.1") == ("local" if split else "via 10.1.0.1 dev wan")
    routed.becomes("22.1.1.1", ACTIONS.local_route)
    assert routed.kernel("22.1.1.1") == "local"
    routed.check(*FAR4, *FAR6, "21.1.1.1", "21.2.0.1", "22.1.1.1", "2001:db8:21::1", "2001:db8:22::1")
    routed.becomes("2001:db8:21::1", ACTIONS.local_route)
    ip("route del local 20.0.0.0/6 dev lo", "-6 route del local 2001:db8:20::/46 dev lo")
    for address in ("20.1.1.1", "21.1.1.1", "21.2.0.1", "2001:db8:21::1"):
        routed.forwards(address)
    routed.check(*FAR4, *FAR6, "21.1.1.1", "21.2.0.1", "22.1.1.1", "2001:db8:21::1", "2001:db8:22::1")


def test_sysctls_reach_the_port(routed: Bench) -> None:
    assert routed.sink.ports[0].ip4_forward
    assert routed.sink.ports[0].ip6_forward
    sysctl("ipv4/conf/lan/forwarding", 0)
    sysctl("ipv4/conf/all/rp_filter", 2)
    sysctl("ipv4/conf/lan/accept_local", 1)
    sysctl("ipv6/conf/all/forwarding", 0)
    routed.until(
        lambda: (
            routed.sink.ports[0].rpf == 2
            and routed.sink.ports[0].accept_local
            and not routed.sink.ports[0].ip4_forward
            and not routed.sink.ports[0].ip6_forward
        ),
        lambda: repr(routed.sink.ports[0]),
    )
    assert routed.sink.ports[1].ip4_forward


def test_changes_of_the_tap_reach_port_and_adjacencies(routed: Bench) -> None:
    index = routed.rib.lookup(bytes([20, 1, 1, 1])).index
    ip("link set lan mtu 1300", "link set lan address 02:00:00:00:00:99", "link set lan promisc on")
    routed.until(lambda: routed.sink.taps[0].promisc, "promisc")
    assert routed.sink.ports[0].mtu == 1300
    assert routed.sink.ports[0].mac.hex(":") == "02:00:00:00:00:99"
    routed.until(lambda: routed.table.get(index).mtu == 1300, "the adjacency keeps its MTU")


def test_a_bridged_tap_is_the_kernels(routed: Bench) -> None:
    ip("link add br0 type bridge", "link set lan master br0")
    routed.until(lambda: routed.sink.ports[0].kernel_all, "in a bridge")
    ip("link set lan nomaster")
    routed.until(lambda: not routed.sink.ports[0].kernel_all, "out of the bridge")
    ip("link add mv link wan type macvlan")
    routed.until(lambda: routed.sink.ports[1].kernel_all, "below a macvlan")
    routed.check(*FAR4, *FAR6)


def test_a_watched_interface_is_reported(routed: Bench) -> None:
    ip("link set eth9 down")
    routed.until(lambda: routed.sink.links and not routed.sink.links[-1].up, "not reported")
    assert routed.sink.links[-1].name == "eth9"


def test_the_audit_finds_nothing_wrong_in_a_quiet_kernel(routed: Bench) -> None:
    assert routed.mirror is not None
    with routed.mirror.locked():
        routed.mirror._audit_s = 0.3
    routed.until(lambda: routed.mirror.status()["resyncs"].get("audit", 0) >= 2, "no audit")
    assert routed.mirror.status()["drift"] == 0


def test_a_restart_finds_the_same_answers(routed: Bench) -> None:
    routed.close()
    ip("route replace 20.0.0.0/8 via 10.1.0.4", "route del 30.0.0.0/8")
    routed.build()
    routed.start()
    routed.check(*FAR4, *FAR6, *NEAR)
    routed.forwards("20.1.1.1")


CHANGES4 = (
    "route replace 20.0.0.0/8 via 10.0.0.{host}",
    "route append 20.0.0.0/8 via 10.1.0.{host}",
    "route prepend 20.0.0.0/8 via 10.0.0.{host}",
    "route replace 20.1.0.0/16 via 10.1.0.{host} metric {host}",
    "route del 20.0.0.0/8",
    "route del 20.1.0.0/16",
    "route replace blackhole 30.1.0.0/16",
    "route del 30.1.0.0/16",
    "route replace 40.0.0.0/8 nexthop via 10.0.0.{host} nexthop via 10.1.0.{host}",
    "route replace 50.0.0.0/8 nhid {host}",
    "nexthop replace id {host} via 10.0.0.{host} dev lan",
    "nexthop replace id 20 group 1/2",
    "nexthop del id {host}",
    "-6 route replace 2001:db8:20::/48 via 2001:db8:a::{host}",
    "-6 route append 2001:db8:20::/48 via 2001:db8:b::{host}",
    "-6 route del 2001:db8:20::/48",
    "-6 route del 2001:db8:20::/48 via 2001:db8:b::{host}",
    "addr del 10.0.0.254/24 dev lan",
    "addr add 10.0.0.254/24 dev lan",
    "link set lan down",
    "link set lan up",
    "link set wan down",
    "link set wan up",
    "neigh flush dev lan",
)


@pytest.mark.parametrize("seed", range(4))
def test_after_any_sequence_of_changes_the_answers_are_the_kernels(routed: Bench, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(6):
        changes = [source.choice(CHANGES4).format(host=source.randint(1, 4)) for _ in range(12)]
        run_some(changes)
        routed.check(*FAR4, *FAR6, *NEAR)


def run_some(commands: list[str]) -> None:
    """Commands that may fail (what they delete may not be there), as fast as one process can."""
    for family in ("-4", "-6"):
        mine = [command for command in commands if command.startswith("-6 ") == (family == "-6")]
        text = "\n".join(command.removeprefix("-6 ") for command in mine)
        subprocess.run(
            ["ip", family, "-force", "-batch", "-"], input=text, capture_output=True, text=True, check=False
        )


def test_a_crowd_of_neighbours_comes_and_goes(routed: Bench) -> None:
    assert routed.mirror is not None
    crowd = [f"10.0.0.{host}" for host in range(20, 250)]
    run("ip -batch -", stdin="\n".join(f"neigh replace {a} lladdr 02:00:00:00:00:44 dev lan" for a in crowd))
    for address in (crowd[0], crowd[-1]):
        routed.forwards(address)
    views = [view for view in routed.mirror.neighbours() if view.mac == "02:00:00:00:00:44"]
    assert [view.port for view in views] == [0] * len(crowd)
    run("ip -batch -", stdin="\n".join(f"neigh del {a} dev lan" for a in crowd))
    routed.until(lambda: len(routed.mirror.neighbours()) < 20, "neighbours that are gone are kept")
    assert routed.action(crowd[0]) == ACTIONS.unresolved_neigh
    routed.rib_is_sound()


def test_one_dump_after_a_deleted_address_leaves_nothing_behind(routed: Bench) -> None:
    """The kernel tells of the address before it deletes the routes: a dump that came too early would keep
    some."""
    mirror = routed.mirror
    assert mirror is not None
    batch = "\n".join(f"route add 40.{i >> 8}.{i & 255}.0/24 via 10.0.0.1" for i in range(20000))
    for round_ in range(1, 4):
        run("ip -batch -", stdin=batch)
        routed.until(lambda: routed.rib.stats().routes4 >= 20000, "the routes never came")
        ip("addr del 10.0.0.254/24 dev lan")
        routed.until(lambda dumps=round_: mirror.plan.counts["address"] == dumps, "no dump")
        with mirror.locked():
            assert routed.rib.stats().routes4 < 100
        ip("addr add 10.0.0.254/24 dev lan")
