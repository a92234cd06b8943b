"""Random policy rules in a real kernel: the programs made of them answer as `ip route get ... iif` does, which asks the
kernel as a packet that comes in would."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import subprocess
from collections.abc import Iterator

import pytest
from kernel_bench import Bench, namespaces, run
from rule_rig import DEFAULTS, PROTOCOLS, TABLES, random_rule

from ixroute.fib.adjacency import ADJ_BLACKHOLE, ADJ_NO_ROUTE, ADJ_POLICY, ADJ_REJECT
from ixroute.lookups import Question, walk
from ixroute.netlink.views import Packet

pytestmark = pytest.mark.netns

SETS = int(os.environ.get("IXROUTE_RULE_SETS", "6"))
PACKETS = 12
SOURCES = {4: ["10.0.0.1", "10.0.0.2", "203.0.113.9"], 6: ["2001:db8:a::1", "2001:db8:a::2", "2001:db9::9"]}
TARGETS = {4: ["198.51.100.7", "198.51.100.8", "203.0.113.1", "10.1.0.3"],
           6: ["2001:db8:5::7", "2001:db8:5:1::8", "2001:db7::1", "2001:db8:b::3"]}  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Tables with a default route each, by another host behind wan; one has more, and one a blackhole."""
    with namespaces() as hosts:
        made = Bench(hosts)
        for number in TABLES:
            host = number - 98
            run(f"ip route add default via 10.1.0.{host} dev wan table {number}")
            run(f"ip -6 route add default via 2001:db8:b::{host} dev wan table {number}")
        run("ip route add 198.51.100.0/24 via 10.1.0.6 dev wan")
        run("ip -6 route add 2001:db8:5::/48 via 2001:db8:b::6 dev wan")
        run("ip route add blackhole 203.0.0.0/8 table 101")
        run("ip -6 route add blackhole 2001:db7::/32 table 101")
        run("ip route add throw 198.51.100.8/32 table 102")
        run("ip -6 route add throw 2001:db8:5:1::/64 table 102")
        made.start()
        try:
            yield made
        finally:
            made.close()


def kernel(family: int, packet: dict[str, str]) -> str:
    words = [word for pair in packet.items() for word in pair]
    command = ["ip", f"-{family}", "-j", "route", "get", *words, "iif", "lan"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    if result.returncode == 0:
        route = json.loads(result.stdout)[0]
        return str(route.get("gateway", route.get("dev")))
    refusals = {
        "Invalid argument": "blackhole",
        "Permission denied": "prohibit",
        "unreachable": "unreachable",
    }
    return next(meaning for said, meaning in refusals.items() if said in result.stderr)


def ours(bench: Bench, packet: dict[str, str]) -> set[str]:
    """What the kernel may say, going by our program. Empty: it is asked."""
    assert bench.mirror is not None
    source, target = (ipaddress.ip_address(packet[key]).packed for key in ("from", "to"))
    asked = Packet(
        source, target, int(packet["tos"], 0), PROTOCOLS[packet["ipproto"]],
        int(packet.get("sport", 0)), int(packet.get("dport", 0)),
    )  # fmt: skip
    with bench.mirror.locked():
        found = walk(Question(packet["to"], asked, iif="lan"), bench.mirror, bench.rib)
        path = bench.rib.path(found.index)
    words = {
        ADJ_POLICY: set(), ADJ_BLACKHOLE: {"blackhole"}, ADJ_REJECT: {"unreachable", "prohibit"},
        ADJ_NO_ROUTE: {"unreachable"},
    }  # fmt: skip
    if path is None:
        return words[found.index]
    gateway = path.legs[0].gateway
    text = str(ipaddress.ip_address(gateway)) if gateway else "wan"
    return {text, "wan"} if text == packet["to"] else {text}


def random_packet(rng: random.Random, family: int) -> dict[str, str]:
    protocol = rng.choice(("tcp", "udp", "icmp" if family == 4 else "ipv6-icmp"))
    ports = (
        {key: rng.choice(("53", "99", "1000")) for key in ("sport", "dport")}
        if "icmp" not in protocol
        else {}
    )
    return {
        "to": rng.choice(TARGETS[family]), "from": rng.choice(SOURCES[family]),
        "tos": rng.choice(("0", "0x10", "0x8", "0x30")), "ipproto": protocol, **ports,
    }  # fmt: skip


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("seed", range(SETS))
def test_random_rules_are_answered_as_by_the_kernel(bench: Bench, seed: int, family: int) -> None:
    rng = random.Random(seed * 10 + family)
    rules = [random_rule(rng, family) for _ in range(rng.randrange(1, 9))]
    assert bench.mirror is not None
    known = bench.mirror.follower.rules
    before = len(known.get(family) or ())
    run(f"ip -force -{family} -batch -", stdin="\n".join(f"rule add {rule}" for rule in dict.fromkeys(rules)))
    try:
        there = len(run(f"ip -{family} rule").splitlines())
        bench.until(lambda: len(known.get(family) or ()) == there, "rules not followed")
        bench.until(lambda: not bench.mirror.follower.changed, "views not made")
        wrong = []
        for _ in range(PACKETS):
            packet = random_packet(rng, family)
            expected, said = ours(bench, packet), kernel(family, packet)
            if expected and said not in expected:
                wrong.append(f"{packet}: {expected}, kernel {said}")
        assert not wrong, "\n".join([*rules, *wrong])
    finally:
        run(f"ip -{family} rule flush")
        run(f"ip -{family} -batch -", stdin=DEFAULTS[family])
    bench.until(lambda: len(known.get(family) or ()) == before, "rules still there")
