"""What is configured on the interfaces decides about packets as it does in Linux: VLAN sub-interfaces, rules,
rp_filter, multipath, other interfaces, forwarding off. Each setting is made at Linux and at ixroute; the same
frame then has the same outcome, and is counted under the reason that names the setting."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from ixroute.demo.daemon import Daemon
from ixroute.demo.netns import CommandError
from lab.frames import CLIENT, FORWARD, ROUTER_LAN, Case, from_client
from lab.packets import ETH_IP4, ETH_IP6, ETH_VLAN, ethernet, ip4, ip6, udp
from lab.reasons import DROPS
from lab.support import changes, verdicts, wait_until
from lab.wires import Stage, normalised, told

pytestmark = pytest.mark.netns

SERVER4, SERVER6 = "10.0.2.2", "fd00:2::2"


def four(src: str, dst: str, name: str) -> bytes:
    return ip4(src, dst, udp(src, dst, name.encode()))


def six(src: str, dst: str, name: str) -> bytes:
    return ip6(src, dst, udp(src, dst, name.encode()))


def tagged(packet: bytes, vid: int) -> bytes:
    kind = ETH_IP6 if packet[0] >> 4 == 6 else ETH_IP4
    return ethernet(ROUTER_LAN, CLIENT, kind, packet, (ETH_VLAN, vid))


@dataclass(frozen=True)
class Setting:
    """`before`, `after`: typed after `ip` to make and to undo it. sysctls: key, value, value afterwards.
    mark: the IP version that the setting leaves working, for the packet that is played behind the frame.
    """

    case: Case
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, int, int], ...] = ()
    mark: int = 4


SETTINGS = [
    Setting(
        Case("VLAN sub-interface", tagged(four("10.9.20.1", SERVER4, "vlan"), 7), FORWARD),
        ("link add link {lan} name lan7 type vlan id 7", "link set lan7 up"),
        ("link del lan7",),
    ),
    Setting(
        Case(
            "strict rp_filter, another way back",
            from_client(four("10.8.20.2", SERVER4, "rpf")),
            "source_validation",
        ),
        sysctls=(("net.ipv4.conf.{lan}.rp_filter", 1, 0),),
    ),
    Setting(
        Case("strict rp_filter, right way back", from_client(four("10.9.20.3", SERVER4, "rpf")), FORWARD),
        sysctls=(("net.ipv4.conf.{lan}.rp_filter", 1, 0),),
    ),
    Setting(
        Case(
            "loose rp_filter, no way back",
            from_client(four("203.0.113.4", SERVER4, "rpf")),
            "source_validation",
        ),
        sysctls=(("net.ipv4.conf.{lan}.rp_filter", 2, 0),),
    ),
    Setting(
        Case("loose rp_filter, another way back", from_client(four("10.8.20.5", SERVER4, "rpf")), FORWARD),
        sysctls=(("net.ipv4.conf.{lan}.rp_filter", 2, 0),),
    ),
    Setting(
        Case(
            "route by an interface that is no port",
            from_client(four("10.9.20.6", "10.0.50.2", "out")),
            "external_route",
        ),
        (
            "link add ext0 type veth peer name ext1",
            "link set ext0 up",
            "link set ext1 up",
            "addr add 10.0.50.1/24 dev ext0",
            "neigh replace 10.0.50.2 lladdr 02:00:00:00:50:02 nud permanent dev ext0",
        ),
        ("link del ext0",),
    ),
    Setting(
        Case(
            "multipath route, legs to one host",
            from_client(four("10.9.20.7", "10.4.0.1", "legs")),
            FORWARD,
        ),
        (
            "neigh replace 10.0.2.7 lladdr 02:00:00:00:02:02 nud permanent dev {wan}",
            "route add 10.4.0.0/16 nexthop via 10.0.2.2 dev {wan} nexthop via 10.0.2.7 dev {wan}",
        ),
        ("route del 10.4.0.0/16",),
    ),
    Setting(
        Case("IPv4 forwarding off", from_client(four("10.9.20.8", SERVER4, "off")), "forwarding_disabled"),
        sysctls=(("net.ipv4.conf.{lan}.forwarding", 0, 1),),
        mark=6,
    ),
    Setting(
        Case("IPv6 forwarding off", from_client(six("fd09::20:9", SERVER6, "off")), "forwarding_disabled"),
        sysctls=(("net.ipv6.conf.all.forwarding", 0, 1),),
    ),
    Setting(
        # net.ipv6.conf.IF.forwarding makes a host or a router of the interface; ip6_forward() does not ask it
        Case("IPv6 forwarding off on one interface", from_client(six("fd09::20:9", SERVER6, "off")), FORWARD),
        sysctls=(("net.ipv6.conf.{lan}.forwarding", 0, 1),),
    ),
    Setting(
        Case(
            "ip rule that leads to a route",
            from_client(four("10.9.20.10", SERVER4, "rule")),
            "blackhole_route",
        ),
        ("rule add from 10.9.20.10/32 lookup 100 priority 100", "route add blackhole default table 100"),
        ("rule del from 10.9.20.10/32 lookup 100 priority 100", "route del blackhole default table 100"),
        mark=6,
    ),
    Setting(
        Case("ip rule on marks", from_client(four("10.9.20.12", SERVER4, "rule")), "policy_rule"),
        ("rule add from 10.9.20.12/32 fwmark 1 lookup 100 priority 100",),
        ("rule del from 10.9.20.12/32 fwmark 1 lookup 100 priority 100",),
        mark=6,
    ),
    Setting(
        Case("IPv6 ip rule", from_client(six("fd09::20:11", SERVER6, "rule")), "blackhole_route"),
        (
            "-6 rule add from fd09::20:11/128 lookup 100 priority 100",
            "-6 route add blackhole default table 100",
        ),
        (
            "-6 rule del from fd09::20:11/128 lookup 100 priority 100",
            "-6 route del blackhole default table 100",
        ),
    ),
]


MARK_REASONS = {4: "ipv4_options", 6: "ipv6_hop_by_hop"}  # of the packet that is played behind the frame


def make(stage: Stage, setting: Setting) -> None:
    for key, value, _ in setting.sysctls:
        stage.lab.router.sysctl(key.format(**stage.lab.interfaces), value)
    for command in setting.before:
        stage.lab.router.ip(command.format(**stage.lab.interfaces))


def undo(stage: Stage, setting: Setting) -> None:
    for key, _, value in setting.sysctls:
        stage.lab.router.sysctl(key.format(**stage.lab.interfaces), value)
    for command in setting.after:
        stage.lab.router.ip(command.format(**stage.lab.interfaces))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.case.name)
def test_a_setting_means_what_it_means_in_linux(
    linux: Stage, ours: tuple[Stage, Daemon], setting: Setting
) -> None:
    stage, daemon = ours
    verdict = setting.case.verdict
    expected_counts = Counter([f"punted {MARK_REASONS[setting.mark]}"])
    if verdict != FORWARD:
        expected_counts[f"{'dropped' if verdict in DROPS else 'punted'} {verdict}"] += 1

    def counted() -> bool:
        before = daemon.stats()
        stage.play(setting.case, setting.mark)
        return verdicts(before, daemon.stats()) == expected_counts

    plain = daemon.stats()
    try:
        make(linux, setting)
        make(stage, setting)
    except CommandError as error:
        if "Unknown device type" in str(error):
            pytest.skip(f"this kernel has none (tests/guest/test_like_linux.py asks one that has): {error}")
        raise
    try:
        wait_until(counted, 3, lambda: f"{verdict} not counted:\n{changes(plain, daemon.stats())}")
        expected, heard = linux.play(setting.case, setting.mark), stage.play(setting.case, setting.mark)
        assert heard == expected, f"Linux:\n{told(expected)}\nixroute:\n{told(heard)}"
    finally:
        undo(linux, setting)
        undo(stage, setting)


def test_a_port_whose_interface_is_down_drops(ours: tuple[Stage, Daemon]) -> None:
    stage, daemon = ours
    frame = ethernet("02:00:00:00:03:01", "02:00:00:00:03:02", ETH_IP4, four("10.0.3.2", SERVER4, "down"))
    router = stage.lab.router
    router.ip("link set dmz down")
    before = daemon.stats()

    def counted() -> bool:
        stage.wires["dmz"].send(frame)
        return verdicts(before, daemon.stats())["dropped port_down"] > 0

    try:
        wait_until(counted, 2, "port_down not counted")
        assert not normalised(stage.wires["wan"].take())
    finally:
        router.ip("link set dmz up")


def test_an_interface_in_a_bridge_is_the_kernels(ours: tuple[Stage, Daemon]) -> None:
    stage, daemon = ours
    frame = ethernet("02:00:00:00:99:99", "02:00:00:00:03:02", ETH_IP4, four("10.0.3.2", SERVER4, "bridge"))
    router = stage.lab.router
    router.ip("link add br0 type bridge")
    router.ip("link set dmz master br0")
    before = daemon.stats()

    def counted() -> bool:
        stage.wires["dmz"].send(frame)
        return verdicts(before, daemon.stats())["punted kernel_interface"] > 0

    try:
        wait_until(counted, 2, "kernel_interface not counted")
    finally:
        router.ip("link del br0")
