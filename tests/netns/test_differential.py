"""The same frames for a router that is Linux and for one that is ixroute: what leaves every port is the same,
byte by byte. Masked: the IPv4 identification of packets that the kernel makes, and its time stamps."""

from __future__ import annotations

from collections import Counter

import pytest

from ixroute.demo.daemon import Daemon
from lab.frames import FORWARD, Case, all_cases
from lab.reasons import DROPS
from lab.support import changes, verdicts, wait_until
from lab.wires import Stage, tags_of, told

pytestmark = pytest.mark.netns

CASES = all_cases()
ONCE = [case for case in CASES if not case.repeats]
REPEATING = [case for case in CASES if case.repeats]
ANSWERS_END_S = 4.5  # ARP and neighbour solicitations: three, a second apart, then the kernel gives up


def test_two_linux_routers_do_the_same_with_every_frame(linux: Stage, other_linux: Stage) -> None:
    """The stage itself: what differs between two routers of one kind would be chance, not behaviour."""
    differing = {case.name: (linux.play(case), other_linux.play(case)) for case in ONCE}
    wrong = [
        f"{name}\n one\n{told(one)}\n other\n{told(other)}"
        for name, (one, other) in differing.items()
        if one != other
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.name)
def test_linux_forwards_what_is_to_be_forwarded_and_is_silent_about_what_is_dropped(
    linux: Stage, case: Case
) -> None:
    heard = linux.play(case)
    frames = [frame for counter in heard.values() for frame in counter.elements()]
    if case.verdict == FORWARD:
        assert len(frames) == 1, told(heard)
        hops = 8 if frames[0][12] == 0x08 else 7
        at = 14 + 4 * tags_of(case.frame)
        assert frames[0][14 + hops] == case.frame[at + hops] - 1
    elif case.verdict in DROPS:
        assert not frames, told(heard)


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.name)
def test_ixroute_sends_what_linux_sends(linux: Stage, ours: tuple[Stage, Daemon], case: Case) -> None:
    expected, heard = linux.play(case), ours[0].play(case)
    assert heard == expected, f"Linux:\n{told(expected)}\nixroute:\n{told(heard)}"


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.name)
def test_every_frame_is_counted_under_its_verdict_and_no_other(
    ours: tuple[Stage, Daemon], case: Case
) -> None:
    stage, daemon = ours
    expected = Counter({"punted ipv4_options": 1})  # the mark that is played behind the frame
    if case.verdict != FORWARD:
        expected[f"{'dropped' if case.verdict in DROPS else 'punted'} {case.verdict}"] += 1
    before = daemon.stats()
    stage.play(case)
    wait_until(
        lambda: verdicts(before, daemon.stats()) == expected,
        2,
        lambda: f"expected {dict(expected)}, moved:\n{changes(before, daemon.stats())}",
    )


def test_ixroute_asks_for_neighbours_as_linux_does(linux: Stage, ours: tuple[Stage, Daemon]) -> None:
    expected = linux.listen(REPEATING, ANSWERS_END_S)
    heard = ours[0].listen(REPEATING, ANSWERS_END_S)
    assert heard == expected, f"Linux:\n{told(expected)}\nixroute:\n{told(heard)}"


def on_a_wire(heard: dict[str, Counter[bytes]]) -> dict[str, Counter[bytes]]:
    """As a card puts frames on its wire: none is shorter than 60 bytes without its checksum (IEEE 802.3 4.2.3.3)."""
    return {
        port: Counter(frame.ljust(60, b"\0") for frame in frames.elements()) for port, frames in heard.items()
    }


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.name)
def test_ixroute_on_emulated_cards_sends_what_linux_sends(
    linux: Stage, on_cards: tuple[Stage, Daemon], case: Case
) -> None:
    expected, heard = on_a_wire(linux.play(case)), on_cards[0].play(case)
    assert heard == expected, f"Linux:\n{told(expected)}\nixroute:\n{told(heard)}"
