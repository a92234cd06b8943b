"""Any sequence of `ip addr|route|rule|nexthop|neigh|link` commands: afterwards our tables, and the programs made of the
rules, say what the kernel says. Again with sockets so small that they overrun all the time, and with notifications that
never arrive.

What cannot be equal (docs/differences.md): IPv6 routes that stand between the siblings of a multipath route are in no
dump. They are among the sequences where every notification arrives, and not where some are lost (Chance, mixed).

IXROUTE_DIFFERENTIAL=full: ten thousand sequences instead of a few hundred.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from kernel_bench import Bench, ip, namespaces, run
from table_rig import ASKED, REPAIR, Chance, Comparison, ProgramComparison, do, reset_rules

from ixroute.netlink import resync

pytestmark = [pytest.mark.netns, pytest.mark.timeout(3600)]

FULL = os.environ.get("IXROUTE_DIFFERENTIAL") == "full"
SO_ATTACH_FILTER = 26
SMALLEST_BUFFER = 1


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Dumps follow each other at once: what is asked here is what they come to, not how seldom they are."""
    monkeypatch.setattr(resync, "SHORTEST_S", 0.0)
    with namespaces() as hosts:
        bench = Bench(hosts)
        yield bench
        bench.close()


def follow(
    bench: Bench, chance: Chance, comparison: Comparison, sequences: int, seconds: float = 3.0
) -> None:
    """Does `sequences` at random and compares after each."""
    done: list[str] = []
    try:
        for number in range(sequences):
            commands = chance.sequence()
            if number % 10 == 9:
                commands += REPAIR
            do(commands)
            done = [*done, f"sequence {number}:", *commands][-100:]
            comparison.check(done, seconds)
            if number % 20 == 19 and chance.rules:
                reset_rules()
        bench.rib_is_sound()
    finally:
        comparison.close()
    print(f"{sequences} sequences: {dict(comparison.asked)}; {comparison.late} settled late")


def decided(comparison: Comparison) -> float:
    """The share of answers that were ours: a router that leaves all to the kernel would agree with it always."""
    return 1 - comparison.asked["left to the kernel"] / comparison.asked.total()


@pytest.mark.parametrize("split", [False, True])
def test_after_any_sequence_the_tables_are_the_kernels(bench: Bench, split: bool) -> None:
    """Of every table alone too where the kernel can be asked, which for IPv4 splits its tables local and main."""
    bench.start()
    comparison = Comparison(bench, ASKED, alone=(4, 6) if split else (6,))
    follow(bench, Chance(1 + split), comparison, 3500 if FULL else 120)
    assert decided(comparison) > 0.8


def test_after_any_sequence_of_rules_and_routes_the_programs_are_the_kernels(bench: Bench) -> None:
    bench.start()
    comparison = ProgramComparison(bench, ASKED, 5)
    follow(bench, Chance(5, rules=True), comparison, 1500 if FULL else 80)
    assert decided(comparison) > 0.5


def test_overruns_cost_dumps_and_nothing_else(bench: Bench) -> None:
    mirror = bench.start(buffer_bytes=SMALLEST_BUFFER)
    comparison = Comparison(bench, ASKED)
    follow(bench, Chance(2, mixed=False), comparison, 1000 if FULL else 25)
    print(f"{mirror.status()['overruns']} overruns, {mirror.status()['resyncs']}")
    assert mirror.status()["overruns"] > 10
    assert decided(comparison) > 0.8


def drop_at_random(sock: socket.socket, share: float) -> None:
    """The kernel passes over that share of what it would deliver, without a word (a classic BPF filter)."""
    code = [
        (0x20, 0, 0, 0xFFFFF000 + 56),  # A = a random number (SKF_AD_RANDOM)
        (0x35, 0, 1, int((1 - share) * 0xFFFFFFFF)),  # if A is at least this
        (0x06, 0, 0, 0),  # nothing is delivered
        (0x06, 0, 0, 0xFFFFFFFF),
    ]
    import ctypes

    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in code))
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    )


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_lost_notifications_are_found_by_the_audit(bench: Bench, share: float) -> None:
    mirror = bench.start(audit_s=0.1)
    with mirror.locked():
        for sock in mirror._events.values():
            drop_at_random(sock, share)
    comparison = Comparison(bench, ASKED)
    follow(bench, Chance(3, mixed=False), comparison, 500 if FULL else 10, seconds=10.0)
    print(f"{mirror.status()['drift']} differences found by dumps")
    assert mirror.status()["drift"] > 0 or share < 0.5
    assert comparison.asked.total() > 0


def test_bursts_over_a_large_table(bench: Bench) -> None:
    """Fifty thousand routes that come and go in bursts between the sequences, with their device or by themselves."""
    bench.start()
    chance, comparison = Chance(4), Comparison(bench, [*ASKED, "40.1.2.3", "40.77.0.1"])
    routes = "\n".join(
        f"route replace 40.{i >> 8}.{i & 255}.0/24 via 10.0.0.{1 + i % 4}" for i in range(50000)
    )
    removed = routes.replace("replace", "del")
    for number in range(20 if FULL else 2):
        run("ip -force -batch -", stdin=routes)
        do(chance.sequence())
        comparison.check([f"burst {number}"], 20.0)
        if number % 2:
            ip("link set lan down", "link set lan up")
        else:
            do([*removed.split("\n")])
        do([*chance.sequence(), *REPAIR])
        comparison.check([f"after burst {number}"], 20.0)
    comparison.close()
    bench.rib_is_sound()
