"""Policy rules mean what they mean in Linux: each set of rules is made at Linux and at ixroute; the same frames then
have the same outcome, and what ixroute counts tells whether it followed the rules itself."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ixroute.client import ControlError, request
from ixroute.demo.daemon import Daemon
from lab.frames import FORWARD, Case, from_client
from lab.packets import TCP, ip4, ip6, tcp_syn, udp
from lab.reasons import DROPS
from lab.support import changes, verdicts, wait_until
from lab.wires import Flood, Stage, told

pytestmark = pytest.mark.netns

SERVER4, SERVER6, NOWHERE4, NOWHERE6 = "10.0.2.2", "fd00:2::2", "198.51.100.1", "2001:db8::1"
MARK_REASONS = {4: "ipv4_options", 6: "ipv6_hop_by_hop"}

TABLES = """
route add default via 10.0.3.2 dev {dmz} table 100
route add throw 10.0.2.64/26 table 100
route add blackhole 10.0.2.128/26 table 100
route add default via 10.0.1.20 dev {lan} table 101
-6 route add default via fd00:3::2 dev {dmz} table 100
-6 route add throw fd00:2::1:0/112 table 100
""".strip().splitlines()


def four(src: str, dst: str = SERVER4, *, sport: int = 5000, dport: int = 5001, **more: int) -> bytes:
    return from_client(ip4(src, dst, udp(src, dst, b"rule", sport, dport), **more))


def six(src: str, dst: str = SERVER6, *, sport: int = 5000, dport: int = 5001, **more: int) -> bytes:
    return from_client(ip6(src, dst, udp(src, dst, b"rule", sport, dport), **more))


@dataclass(frozen=True)
class Rules:
    """Typed after `ip [-6] rule`; undo: taken away, and added again afterwards. Frames with their verdicts."""

    name: str
    rules: tuple[str, ...]
    frames: tuple[tuple[bytes, str], ...]
    family: int = 4
    undo: tuple[str, ...] = ()

    @property
    def mark(self) -> int:
        return 10 - self.family


A, B = "10.9.40.1", "10.9.40.2"
A6, B6 = "fd09::40:1", "fd09::40:2"
OWN = ("pref 50 from 10.9.40.99 blackhole",)  # makes no difference but that there are rules

SETS = [
    Rules("from", (f"pref 100 from {A} lookup 100",),
          ((four(A), FORWARD), (four(B), FORWARD), (four(A, NOWHERE4), FORWARD))),
    Rules("to", ("pref 100 to 10.0.2.0/30 lookup 100",), ((four(A), FORWARD), (four(A, "10.8.0.1"), FORWARD))),
    Rules("from and to", (f"pref 100 from {A} to 10.0.2.2 lookup 100",), ((four(A), FORWARD), (four(B), FORWARD))),
    Rules("iif", ("pref 100 iif {lan} lookup 100",), ((four(A), FORWARD),)),
    Rules("another iif", ("pref 100 iif {wan} lookup 100", *OWN), ((four(A), FORWARD),)),
    Rules("not iif", ("pref 100 not iif {wan} lookup 100",), ((four(A), FORWARD),)),
    Rules("oif", ("pref 100 oif {wan} blackhole", "pref 101 oif {dmz} lookup 100"), ((four(A), FORWARD),)),
    Rules("tos", ("pref 100 tos 0x10 lookup 100",), ((four(A, tos=0x10), FORWARD), (four(A, tos=0x13), FORWARD),
          (four(A, tos=0x30), FORWARD), (four(A), FORWARD))),
    Rules("ipproto", ("pref 100 ipproto 6 lookup 100",),
          ((from_client(ip4(A, SERVER4, tcp_syn(A, SERVER4, 80), proto=TCP)), FORWARD), (four(A), FORWARD))),
    Rules("ports", ("pref 100 ipproto 17 dport 53 lookup 100", "pref 101 sport 1000-2000 blackhole"),
          ((four(A, dport=53), FORWARD), (four(A, dport=54), FORWARD), (four(A, sport=1999), "blackhole_route"),
           (four(A, dport=53, fragment=0x2000), FORWARD), (four(A, sport=1999, fragment=0x0010), FORWARD))),
    Rules("not", (f"pref 100 not from {A} lookup 100",), ((four(B), FORWARD), (four(A), FORWARD))),
    Rules("goto", (f"pref 100 from {A} goto 300", "pref 200 blackhole", "pref 300 nop", "pref 301 lookup 100"),
          ((four(B), "blackhole_route"), (four(A), FORWARD))),
    Rules("goto that leads nowhere", (f"pref 100 from {A} goto 300", *OWN, "pref 200 lookup 100"),
          ((four(A), FORWARD),)),
    Rules("blackhole", (f"pref 100 from {A} blackhole",), ((four(A), "blackhole_route"), (four(B), FORWARD))),
    Rules("unreachable", (f"pref 100 from {A} unreachable",), ((four(A), "reject_route"), (four(B), FORWARD))),
    Rules("prohibit", (f"pref 100 from {A} prohibit",), ((four(A), "reject_route"), (four(B), FORWARD))),
    Rules("throw and blackhole in the table", (f"pref 100 from {A} lookup 100",),
          ((four(A, "10.0.2.130"), "blackhole_route"), (four(A, "10.0.2.70"), "unresolved_neigh"))),
    Rules("suppress_prefixlength", ("pref 100 lookup 101 suppress_prefixlength 0", "pref 101 lookup 100"),
          ((four(A), FORWARD), (four(A, NOWHERE4), FORWARD))),
    Rules("WireGuard's", ("pref 100 lookup main suppress_prefixlength 0", "pref 101 not fwmark 0xca6c lookup 100"),
          ((four(A, NOWHERE4), "policy_rule"), (four(A), FORWARD))),
    Rules("fwmark", ("pref 100 fwmark 1 lookup 100",), ((four(A), "policy_rule"),)),
    Rules("from and fwmark", (f"pref 100 from {A} fwmark 1 lookup 100",),
          ((four(A), "policy_rule"), (four(B), FORWARD))),
    Rules("not fwmark", ("pref 100 not fwmark 1 lookup 100",), ((four(A), "policy_rule"),)),
    Rules("uidrange", ("pref 100 uidrange 0-5 lookup 100",), ((four(A), "policy_rule"),)),
    Rules("uidrange of others", ("pref 100 uidrange 1-5 blackhole", *OWN), ((four(A), FORWARD),)),
    Rules("no main", (), ((four(A), "no_route"),), undo=("pref 32766 lookup main",)),
    Rules("behind default", ("pref 40000 lookup 100",), ((four(A, NOWHERE4), FORWARD), (four(A), FORWARD))),
    Rules("a broadcast address as source", (f"pref 100 from {A} blackhole",),
          ((four(A), "blackhole_route"), (four("10.0.1.255"), "source_validation"),
           (four("10.0.2.255"), "source_validation"))),
    Rules("IPv6 from", (f"pref 100 from {A6} lookup 100",), ((six(A6), FORWARD), (six(B6), FORWARD)), 6),
    Rules("IPv6 to", ("pref 100 to fd00:2::/64 lookup 100",), ((six(A6), FORWARD), (six(A6, "fd08::1"), FORWARD)), 6),
    Rules("IPv6 iif", ("pref 100 iif {lan} lookup 100",), ((six(A6), FORWARD), (six(A6, NOWHERE6), FORWARD)), 6),
    Rules("IPv6 tos", ("pref 100 tos 0x10 lookup 100",),
          ((six(A6, traffic_class=0x10), FORWARD), (six(A6, traffic_class=0x30), FORWARD),
          (six(A6, traffic_class=0x11), FORWARD)), 6),
    Rules("IPv6 ports", ("pref 100 ipproto 17 dport 53 lookup 100",),
          ((six(A6, dport=53), FORWARD), (six(A6), FORWARD)), 6),
    Rules("IPv6 blackhole", (f"pref 100 from {A6} blackhole",), ((six(A6), "blackhole_route"),), 6),
    Rules("IPv6 unreachable", (f"pref 100 from {A6} unreachable",), ((six(A6), "reject_route"),), 6),
    Rules("IPv6 prohibit", (f"pref 100 from {A6} prohibit",), ((six(A6), "reject_route"),), 6),
    Rules("IPv6 suppress", ("pref 100 lookup main suppress_prefixlength 0", "pref 101 lookup 100"),
          ((six(A6, NOWHERE6), FORWARD), (six(A6), FORWARD)), 6),
    Rules("IPv6 fwmark", (f"pref 100 from {A6} fwmark 1 lookup 100",),
          ((six(A6), "policy_rule"), (six(B6), FORWARD)), 6),
]  # fmt: skip


@pytest.fixture(scope="module")
def stages(linux: Stage, ours: tuple[Stage, Daemon]) -> tuple[Stage, Stage, Daemon]:
    """Linux, ixroute and its daemon, with the tables that the rules lead to."""
    stage, daemon = ours
    for one in (linux, stage):
        for command in TABLES:
            one.lab.router.ip(command.format(**one.lab.interfaces))
    return linux, stage, daemon


@contextmanager
def followed(stage: Stage, rules: Rules) -> Iterator[None]:
    ip, names = stage.lab.router.ip, stage.lab.interfaces
    six_ = "-6 " if rules.family == 6 else ""
    made: list[str] = []
    try:
        for again in rules.undo:
            ip(f"{six_}rule del {again}")
        for rule in rules.rules:
            ip(f"{six_}rule add {rule.format(**names)}")
            made.append(rule.format(**names))
        yield
    finally:
        for rule in made:
            ip(f"{six_}rule del {rule}")
        for again in rules.undo:
            ip(f"{six_}rule add {again}")


def shown(daemon: Daemon) -> Any:
    return request(os.fspath(daemon.control), "rules")


def programs(daemon: Daemon) -> dict[tuple[str, int], list[str]]:
    """By interface and family."""
    return {(one["interface"], one["family"]): one["steps"] for one in shown(daemon)["programs"]}


@pytest.mark.parametrize("rules", SETS, ids=lambda rules: rules.name)
def test_rules_mean_what_they_mean_in_linux(stages: tuple[Stage, Stage, Daemon], rules: Rules) -> None:
    linux, stage, daemon = stages
    count = len(shown(daemon)["rules"])
    there = count + len(rules.rules) - len(rules.undo)
    with followed(linux, rules), followed(stage, rules):
        wait_until(lambda: len(shown(daemon)["rules"]) == there, 3, "rules not followed")
        for number, (frame, verdict) in enumerate(rules.frames):
            case = Case(f"{rules.name} {number}", frame, verdict)
            expected = linux.play(case, rules.mark)
            before = daemon.stats()
            heard = stage.play(case, rules.mark)
            assert heard == expected, f"{case.name}\nLinux:\n{told(expected)}\nixroute:\n{told(heard)}"
            counts = Counter([f"punted {MARK_REASONS[rules.mark]}"])
            if verdict != FORWARD:
                counts[f"{'dropped' if verdict in DROPS else 'punted'} {verdict}"] += 1
            assert verdicts(before, daemon.stats()) == counts, (
                f"{case.name}\n{changes(before, daemon.stats())}"
            )
    wait_until(lambda: len(shown(daemon)["rules"]) == count, 3, "rules still there")


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ("pref 100 lookup 101 suppress_prefixlength 0", FORWARD),
        ("pref 100 iif {lan} lookup 101 suppress_prefixlength 0", "source_validation"),
        ("pref 100 from 10.9.40.99 lookup 101", "source_validation"),
    ],
    ids=["for all", "iif", "from"],
)
def test_sources_are_checked_as_in_linux_where_there_are_rules(
    stages: tuple[Stage, Stage, Daemon], rule: str, verdict: str
) -> None:
    """rp_filter 1. What rules could answer differently for the way back is the kernel's to check."""
    linux, stage, _ = stages
    right, wrong = four(A), four("10.8.40.1")
    rules = Rules("", (rule,), ((right, verdict), (wrong, "source_validation")))
    try:
        for one in (linux, stage):
            one.lab.router.sysctl(f"net.ipv4.conf.{one.lab.interfaces['lan']}.rp_filter", 1)
        test_rules_mean_what_they_mean_in_linux(stages, rules)
    finally:
        for one in (linux, stage):
            one.lab.router.sysctl(f"net.ipv4.conf.{one.lab.interfaces['lan']}.rp_filter", 0)


def test_what_punts_is_said(stages: tuple[Stage, Stage, Daemon]) -> None:
    _, stage, daemon = stages
    marked = "pref 100 from 10.9.0.0/16 fwmark 1 lookup 100"
    rules = Rules("", (marked, "pref 101 iif {lan} lookup 100", "pref 102 oif {lan} nop"), ())
    with followed(stage, rules):
        wait_until(lambda: daemon.stats()["mirror"]["policy_rules"], 3, "not in stats")
        said = "IPv4 rule 100: from 10.9.0.0/16 fwmark 0x1 lookup 100 (fwmark)"
        assert daemon.stats()["mirror"]["policy_rules"] == [said]
        wait_until(lambda: len(shown(daemon)["rules"]) == 8, 3, "not shown")
        found = [(r["priority"], r["state"], r["why"], r["interfaces"]) for r in shown(daemon)["rules"]]
        assert found[1:4] == [
            (100, "punts", "fwmark", []),
            (101, "honoured", "", ["lan"]),
            (102, "never", "", []),
        ]
        assert programs(daemon)["lan", 4] == [
            "lookup local", "from 10.9.0.0/16: kernel (policy rule)", "lookup 100", "lookup main", "lookup default",
        ]  # fmt: skip
        assert said in daemon.log_tail(50)
    wait_until(lambda: not daemon.stats()["mirror"]["policy_rules"], 3, "still in stats")


def test_no_packet_is_lost_or_doubled_while_rules_change(stages: tuple[Stage, Stage, Daemon]) -> None:
    _, stage, daemon = stages
    ip = stage.lab.router.ip

    def leaves_by(port: str) -> bool:
        return lookup(daemon, SERVER4, **{"from": A})[1] == port

    for wire in stage.wires.values():
        wire.take()
    with Flood(stage.wires["lan"], [four(A)], 2000) as flood:
        for table in range(200, 212):
            ip(f"route add default via 10.0.3.2 dev {stage.lab.interfaces['dmz']} table {table}")
            ip(f"rule add pref 100 from {A} lookup {table}")
            if table % 2:  # else it may be gone again before anybody saw it
                wait_until(lambda: leaves_by("dmz"), 3, "the new rule is not followed")
            ip("rule del pref 100")
            ip(f"route flush table {table}")
            wait_until(lambda: leaves_by("wan"), 3, "the rule that went is still followed")
    heard: Counter[str] = Counter()

    def arrived() -> int:
        for name in ("wan", "dmz"):
            heard[name] += sum(b"rule" in frame for frame in stage.wires[name].take())
        return heard.total()

    wait_until(lambda: arrived() >= flood.sent, 3, lambda: f"{flood.sent} sent, heard {heard}")
    time.sleep(0.1)
    assert arrived() == flood.sent
    assert min(heard["wan"], heard["dmz"]) > 0, "each way was taken"


def lookup(daemon: Daemon, address: str, **more: object) -> tuple[str, str, str]:
    found = request(os.fspath(daemon.control), "lookup", address=address, **more)
    return found["verdict"], found["adjacency"]["port"], found["table"]


def test_lookup_answers_as_a_packet_would_be(stages: tuple[Stage, Stage, Daemon]) -> None:
    _, stage, daemon = stages
    rules = Rules(
        "",
        (
            f"pref 100 from {A} lookup 100",
            "pref 101 iif {lan} ipproto 17 dport 53 lookup 101",
            "pref 102 tos 8 prohibit",
        ),
        (),
    )
    with followed(stage, rules):
        wait_until(lambda: len(shown(daemon)["rules"]) == 8, 3, "not followed")
        assert lookup(daemon, SERVER4) == ("forward", "wan", "main")
        assert lookup(daemon, SERVER4, **{"from": A}) == ("forward", "dmz", "100")
        asked = {"protocol": 17, "dport": 53}
        assert lookup(daemon, SERVER4, iif="lan", **asked) == ("forward", "lan", "101")
        assert lookup(daemon, SERVER4, iif="wan", **asked) == ("forward", "wan", "main")
        assert lookup(daemon, SERVER4, tos=8) == ("punt", "", "")
        assert lookup(daemon, NOWHERE4, table=100) == ("forward", "dmz", "100")
        assert lookup(daemon, NOWHERE4, table=77) == ("punt", "", "")
        for refused in (
            {"iif": "none"},
            {"vrf": "none"},
            {"iif": "lan", "table": 1},
            {"tos": 256},
            {"from": "x"},
        ):
            with pytest.raises(ControlError):
                lookup(daemon, SERVER4, **refused)
