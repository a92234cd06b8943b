"""Generated frames for Linux and for ixroute: whatever comes in, the same goes out, on every port.

IXROUTE_DIFFERENTIAL=full plays 200,000 frames at ports on veth pairs and 20,000 at emulated cards; a number plays that
many. IXROUTE_DIFFERENTIAL_SEED=2 plays others. What may differ is listed in docs/differences.md.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ixroute.demo.daemon import Daemon
from ixroute.demo.topology import CARDS
from ixroute.forward.policers import DEFAULT_POLICERS
from lab.differential import Pair, Player, set_everywhere
from lab.generated import HOST_MACS, PORTS, ROUTER_MACS, Generator, Recipe
from lab.generated_places import Senders
from lab.packets import ETH_IP6, ICMP6, ethernet, icmp6, ip6, udp
from lab.routers import check_cards
from lab.support import port_arguments, verdicts
from lab.wires import Stage, stages

pytestmark = pytest.mark.netns

FULL, SHORT = 200_000, 4_000
WANTED = os.environ.get("IXROUTE_DIFFERENTIAL", "")
FRAMES = FULL if WANTED == "full" else int(WANTED or SHORT)
SEED = int(os.environ.get("IXROUTE_DIFFERENTIAL_SEED", "1"))
LATE_S = 1.5
"""The kernel's last answers: a neighbour did not answer, a fragment stayed alone (lab.generated_places)."""
NOTICED_S = 1.3
"""ixroute reads sysctls that the kernel does not announce once a second."""


@dataclass(frozen=True)
class World:
    """share: of all frames. sysctls, commands (after `ip`): {lan}, {wan}, {dmz} are the interfaces. ports: those that
    forward."""

    name: str
    share: float
    sysctls: dict[str, int] = field(default_factory=dict)
    ports: tuple[str, ...] = PORTS
    commands: tuple[str, ...] = ()


WORLDS = [
    World("as Linux starts", 0.5),
    World("strict rp_filter", 0.1, {"net.ipv4.conf.all.rp_filter": 1}),
    World(
        "accepts local sources, routes 127/8, forwards broadcasts and source routes",
        0.12,
        {
            "net.ipv4.conf.all.accept_local": 1,
            "net.ipv4.conf.all.route_localnet": 1,
            "net.ipv4.conf.all.bc_forwarding": 1,
            "net.ipv4.conf.{lan}.bc_forwarding": 1,
            "net.ipv4.conf.{wan}.bc_forwarding": 1,
            "net.ipv4.conf.all.accept_source_route": 1,
        },
    ),
    World(
        "loose rp_filter, one port does not forward, no redirects",
        0.18,
        {
            "net.ipv4.conf.all.rp_filter": 2,
            "net.ipv4.conf.{dmz}.forwarding": 0,
            "net.ipv6.conf.{dmz}.forwarding": 0,
            "net.ipv4.conf.all.send_redirects": 0,
            "net.ipv4.conf.{lan}.send_redirects": 0,
            "net.ipv4.conf.{wan}.send_redirects": 0,
        },
        ("lan", "lan", "wan"),
    ),
    World(  # the last: Linux checks sources in full from then on, with or without rules
        "rules",
        0.1,
        commands=(
            "route add default via 10.0.3.2 dev {dmz} table 101",
            "route add 10.8.0.0/18 via 10.0.2.2 dev {wan} table 101",
            "route add throw 10.7.0.0/16 table 101",
            "-6 route add default via fd00:3::2 dev {dmz} table 101",
            "rule add from 10.9.64.0/18 lookup 101 pref 101",
            "rule add to 10.8.0.0/17 tos 0x10 lookup 101 pref 102",
            "rule add to 10.11.0.0/16 ipproto tcp dport 179 lookup 101 pref 103",
            "rule add iif {lan} to 10.4.0.0/17 prohibit pref 104",
            "rule add to 10.5.0.0/16 lookup main suppress_prefixlength 16 pref 105",
            "rule add from 10.8.0.0/17 unreachable pref 106",
            "-6 rule add from fd09::/64 ipproto udp dport 1024-9999 lookup 101 pref 101",
            "-6 rule add to fd04::/16 iif {wan} blackhole pref 102",
            "-6 rule add to fd08::/16 lookup main suppress_prefixlength 0 pref 103",
        ),
    ),
]


def furnished(stage: Stage, *, padded: bool = False) -> Player:
    player = Player(stage, padded=padded)
    stage.furnish()
    player.furnish()
    stage.settle()
    return player


def open_policers(stage: Stage) -> list[str]:
    """Arguments of `ixroute run`: as Linux is without its limits (lab.frames), so is ixroute without its own."""
    config = stage.lab.router.directory / "policers.toml"
    config.write_text(
        "".join(f"[policers.{reason}]\nrate = 100000000\nburst = 1000000\n" for reason in DEFAULT_POLICERS)
    )
    return ["--config", str(config)]


@pytest.fixture(scope="module")
def linux() -> Iterator[Player]:
    for stage in stages(True, "genlinux"):
        yield furnished(stage)


@pytest.fixture(scope="module")
def ours() -> Iterator[tuple[Player, Daemon]]:
    for stage in stages(False, "genours"):
        with Daemon(stage.lab.router, [*port_arguments(stage.lab), *open_policers(stage)]) as daemon:
            daemon.start()
            yield furnished(stage), daemon


@pytest.fixture(scope="module")
def on_cards() -> Iterator[Player]:
    for stage in stages(False, "gencards", CARDS):
        with Daemon(stage.lab.router, [*port_arguments(stage.lab), *open_policers(stage)]) as daemon:
            daemon.start()
            yield furnished(stage, padded=True)
            assert daemon.stop() == 0
        check_cards(stage.lab)


@pytest.fixture(scope="module")
def other_linux() -> Iterator[Player]:
    for stage in stages(True, "genother"):
        yield furnished(stage)


SENDERS = Senders()
"""Of all tests here: the router is the same, and remembers whom it told something."""


def judge(pair: Pair, name: str, began: float) -> None:
    unlisted = pair.unlisted()
    print(
        f"{name}, seed {SEED}: {pair.frames} frames in {time.monotonic() - began:.1f} s,"
        f" {len(pair.differences)} differences of which {len(unlisted)} are not listed,"
        f" {len(pair.passing)} batches differed once"
    )
    assert not unlisted, "\n".join(map(str, unlisted))
    # a busy machine may lose a frame between two programs; a router that loses some does so again
    assert len(pair.passing) <= 1 + pair.frames // 20_000, "\n".join(pair.passing)


def judge_late(pair: Pair) -> None:
    """A kernel that gives up a neighbour loses what waits for it when something new arrives meanwhile
    (neigh_invalidate): of the answers a few may be missing, on either side."""
    missing = pair.compare_late(LATE_S)
    total = pair.linux.late.total()
    print(f"  {total} late answers, {len(missing)} differences")
    assert len(missing) <= 1 + total // 100, "\n".join(missing)


def test_the_same_seed_makes_the_same_frames() -> None:
    one, other = (Generator(Random(f"{SEED} twice"), Senders()) for _ in range(2))
    assert [one.recipe().frame for _ in range(500)] == [other.recipe().frame for _ in range(500)]


def test_two_linux_routers_do_the_same_with_generated_frames(linux: Player, other_linux: Player) -> None:
    """The proof's own premise: what would differ here is chance."""
    began = time.monotonic()
    pair = Pair(linux, other_linux)
    pair.forget_late()
    pair.play(Random(f"{SEED} linux"), SENDERS, FRAMES // 4)
    judge(pair, "Linux and Linux", began)
    judge_late(pair)
    assert not pair.differences


def test_a_router_that_differs_in_one_route_is_told_by_single_frames_without_edits(
    linux: Player, other_linux: Player
) -> None:
    """The proof would see a difference, and say which frame makes it."""
    router = other_linux.stage.lab.router
    router.ip("route add blackhole 10.8.0.0/17")
    try:
        pair = Pair(linux, other_linux)
        pair.play(Random(f"{SEED} blackhole"), SENDERS, 600, ("lan",))
        pair.compare_late(LATE_S)
    finally:
        router.ip("route del blackhole 10.8.0.0/17")
    assert len(pair.differences) >= 5
    for difference in pair.differences:
        (recipe,) = difference.recipes
        assert difference.expected != difference.heard
        assert difference.rule is None
        to = bytes(recipe.frame[-20 + 34 : 34]) if recipe.base == "IPv4" else b""
        assert not to or b"\x0a\x08" in recipe.frame, difference


def recipe_of(dice: Random) -> Recipe:
    return Generator(dice, SENDERS, "lan").recipe()


@settings(
    max_examples=60 if FRAMES > SHORT else 15,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(st.randoms(use_true_random=False).map(recipe_of), min_size=1, max_size=40))
def test_hypothesis_finds_no_frame_that_ixroute_treats_otherwise(
    linux: Player, ours: tuple[Player, Daemon], recipes: list[Recipe]
) -> None:
    pair = Pair(linux, ours[0])
    pair.check(recipes)
    assert not pair.unlisted(), "\n".join(map(str, pair.unlisted()))


def test_a_listed_difference_is_there_and_told_by_its_name(
    linux: Player, ours: tuple[Player, Daemon]
) -> None:
    """The router itself is told of a smaller MTU on the way to a host behind the wan."""
    own, host, far, client = "fd00:2::1", "fd00:2::9", "fd08::77:1", "fd09::77:2"
    quoted = ip6(own, far, icmp6(own, far, 128, 0, bytes(600)), proto=ICMP6)
    told = icmp6(host, own, 2, 0, struct.pack("!I", 1280) + quoted)
    packets = [
        ("wan", ip6(host, own, told, proto=ICMP6)),
        ("lan", ip6(client, far, udp(client, far, bytes(1300)))),
    ]
    pair = Pair(linux, ours[0])
    for port, packet in packets:
        frame = ethernet(ROUTER_MACS[port], HOST_MACS[port], ETH_IP6, packet)
        pair.check([Recipe("path MTU", frame, port)])
    assert [difference.rule for difference in pair.differences] == ["ip6-path-mtu-exception"]
    assert not pair.unlisted()


@pytest.mark.timeout(120 + FRAMES / 500)
def test_ixroute_on_emulated_cards_does_with_generated_frames_what_linux_does(
    linux: Player, on_cards: Player
) -> None:
    began = time.monotonic()
    linux.padded = True
    try:
        pair = Pair(linux, on_cards)
        pair.forget_late()
        pair.play(Random(f"{SEED} cards"), SENDERS, FRAMES // 10)
        judge(pair, "emulated cards", began)
        judge_late(pair)
    finally:
        linux.padded = False


@pytest.mark.timeout(120 + FRAMES / 500)
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_ixroute_does_with_generated_frames_what_linux_does(
    linux: Player, ours: tuple[Player, Daemon], world: World
) -> None:
    began = time.monotonic()
    player, daemon = ours
    before = daemon.stats()
    pair = Pair(linux, player)
    pair.forget_late()
    with set_everywhere((linux.stage, player.stage), world.sysctls, world.commands, NOTICED_S):
        dice = Random(f"{SEED} {world.name}")
        pair.play(dice, SENDERS, round(FRAMES * world.share), world.ports)
        judge(pair, world.name, began)
        judge_late(pair)
    moved = verdicts(before, daemon.stats())
    assert len(moved) > 20, "the frames must be of many kinds"
    assert not [verdict for verdict in moved if verdict.startswith("policed") or "ring_full" in verdict], (
        moved
    )
