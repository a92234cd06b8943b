"""Policy rules mean what they mean in Linux: each set of rules is made at Linux and at ixroute; the same frames then
have the same outcome, and what ixroute counts tells whether it followed the rules itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ixroute.demo.daemon import Daemon
from lab.frames import FORWARD, Case, from_client
from lab.packets import TCP, ip4, ip6, tcp_syn, udp
from lab.reasons import DROPS
from lab.support import changes, verdicts, wait_until
from lab.wires import Stage, told

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
    """Typed after `ip [-6] rule`. Each frame has its verdict; the first one's differs from what it is without rules,
    unless `first` says by what it can be told that the rules are followed."""

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
    Rules("from", (f"pref 100 from {A} lookup 100",), ((four(A), FORWARD), (four(B), FORWARD), (four(A, NOWHERE4), FORWARD))),
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
    Rules("goto that leads nowhere", (f"pref 100 from {A} goto 300", *OWN, "pref 200 lookup 100"), ((four(A), FORWARD),)),
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
    Rules("from and fwmark", (f"pref 100 from {A} fwmark 1 lookup 100",), ((four(A), "policy_rule"), (four(B), FORWARD))),
    Rules("not fwmark", ("pref 100 not fwmark 1 lookup 100",), ((four(A), "policy_rule"),)),
    Rules("uidrange", ("pref 100 uidrange 0-5 lookup 100",), ((four(A), "policy_rule"),)),
    Rules("uidrange of others", ("pref 100 uidrange 1-5 blackhole", *OWN), ((four(A), FORWARD),)),
    Rules("no main", (), ((four(A), "no_route"),), undo=("pref 32766 lookup main",)),
    Rules("behind default", ("pref 40000 lookup 100",), ((four(A, NOWHERE4), FORWARD), (four(A), FORWARD))),
    Rules("a broadcast address as source", (f"pref 100 from {A} blackhole",),
          ((four(A), "blackhole_route"), (four("10.0.1.255"), "source_validation"), (four("10.0.2.255"), "source_validation"))),
    Rules("IPv6 from", (f"pref 100 from {A6} lookup 100",), ((six(A6), FORWARD), (six(B6), FORWARD)), 6),
    Rules("IPv6 to", ("pref 100 to fd00:2::/64 lookup 100",), ((six(A6), FORWARD), (six(A6, "fd08::1"), FORWARD)), 6),
    Rules("IPv6 iif", ("pref 100 iif {lan} lookup 100",), ((six(A6), FORWARD), (six(A6, NOWHERE6), FORWARD)), 6),
    Rules("IPv6 tos", ("pref 100 tos 0x10 lookup 100",), ((six(A6, traffic_class=0x10), FORWARD), (six(A6, traffic_class=0x30), FORWARD),
          (six(A6, traffic_class=0x11), FORWARD)), 6),
    Rules("IPv6 ports", ("pref 100 ipproto 17 dport 53 lookup 100",), ((six(A6, dport=53), FORWARD), (six(A6), FORWARD)), 6),
    Rules("IPv6 blackhole", (f"pref 100 from {A6} blackhole",), ((six(A6), "blackhole_route"),), 6),
    Rules("IPv6 unreachable", (f"pref 100 from {A6} unreachable",), ((six(A6), "reject_route"),), 6),
    Rules("IPv6 prohibit", (f"pref 100 from {A6} prohibit",), ((six(A6), "reject_route"),), 6),
    Rules("IPv6 suppress", ("pref 100 lookup main suppress_prefixlength 0", "pref 101 lookup 100"),
          ((six(A6, NOWHERE6), FORWARD), (six(A6), FORWARD)), 6),
    Rules("IPv6 fwmark", (f"pref 100 from {A6} fwmark 1 lookup 100",), ((six(A6), "policy_rule"), (six(B6), FORWARD)), 6),
]  # fmt: skip


@contextmanager
def followed(stage: Stage, rules: Rules) -> Iterator[None]:
    """The rules are there, with the tables that they lead to."""
    ip, names = stage.lab.router.ip, stage.lab.interfaces
    six_ = "-6 " if rules.family == 6 else ""
    made: list[str] = []
    try:
        for command in TABLES:
            ip(command.format(**names))
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
        for table in (100, 101):
            ip(f"route flush table {table}")
        ip("-6 route flush table 100")


def programs(daemon: Daemon) -> dict[str, Any]:
    """By interface and family."""
    shown = json.loads(daemon.ask("show", "rules", "-j"))
    return {(one["interface"], one["family"]): one["steps"] for one in shown["programs"]}


@pytest.mark.parametrize("rules", SETS, ids=lambda rules: rules.name)
def test_rules_mean_what_they_mean_in_linux(linux: Stage, ours: tuple[Stage, Daemon], rules: Rules) -> None:
    stage, daemon = ours
    plain = programs(daemon)
    with followed(linux, rules), followed(stage, rules):
        wait_until(lambda: programs(daemon) != plain or rules.name in UNSEEN, 3, lambda: f"still {plain}")
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
    wait_until(lambda: programs(daemon) == plain, 3, lambda: f"{programs(daemon)} instead of {plain}")


UNSEEN = {"oif"}
"""Rules that change no program."""
