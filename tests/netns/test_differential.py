"""The same frames for a router that is Linux and for one that is ixroute: what leaves every port is the same,
byte by byte. Masked: the IPv4 identification of packets that the kernel makes, and its time stamps.

Each test plays all frames, one by one, and names every one that went wrong.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from ixroute.demo.daemon import Daemon
from lab.frames import FORWARD, Case, all_cases
from lab.reasons import DROPS
from lab.support import changes, verdicts
from lab.wires import Stage, tags_of, told

pytestmark = pytest.mark.netns

Heard = dict[str, Counter[bytes]]

CASES = all_cases()
ONCE = [case for case in CASES if not case.repeats]
REPEATING = [case for case in CASES if case.repeats]
ANSWERS_END_S = 4.5  # ARP and neighbour solicitations: three, a second apart, then the kernel gives up


@pytest.fixture(scope="module")
def expected(linux: Stage) -> dict[str, Heard]:
    """What Linux sends for each frame, by the frame's name."""
    heard = {case.name: played(linux, case) for case in ONCE}
    assert len(heard) == len(ONCE), "names of frames are unique"
    return heard


def listed(wrong: list[str]) -> str:
    return f"{len(ONCE)} frames played, wrong:\n" + "\n".join(wrong)


def compared(case: Case, expected: Heard, heard: Heard, one: str = "Linux", other: str = "ixroute") -> str:
    """Empty where nothing differs."""
    if heard == expected:
        return ""
    return f"{case.name}\n {one}:\n{told(expected)}\n {other}:\n{told(heard)}"


def test_two_linux_routers_do_the_same_with_every_frame(
    expected: dict[str, Heard], other_linux: Stage
) -> None:
    """The stage itself: what differs between two routers of one kind would be chance, not behaviour."""
    wrong = [compared(case, expected[case.name], played(other_linux, case), "one", "other") for case in ONCE]
    assert not any(wrong), listed([*filter(None, wrong)])


def as_its_verdict_says(case: Case, heard: Heard) -> bool:
    frames = [frame for counter in heard.values() for frame in counter.elements()]
    if case.verdict in DROPS:
        return not frames
    if case.verdict != FORWARD:
        return True
    hops = 8 if frames and frames[0][12] == 0x08 else 7
    at = 14 + 4 * tags_of(case.frame)
    return len(frames) == 1 and frames[0][14 + hops] == case.frame[at + hops] - 1


def test_linux_forwards_what_is_to_be_forwarded_and_is_silent_about_what_is_dropped(
    expected: dict[str, Heard],
) -> None:
    wrong = [
        f"{case.name}, {case.verdict}\n{told(expected[case.name])}"
        for case in ONCE
        if not as_its_verdict_says(case, expected[case.name])
    ]
    assert not wrong, listed(wrong)


def played(stage: Stage, case: Case) -> Heard:
    try:
        return stage.play(case)
    except AssertionError as error:  # the router is stuck, or gone: there is no use in going on
        raise AssertionError(f"{case.name}: {error}") from None


def counted(daemon: Daemon, before: Any, wanted: Counter[str], seconds: float) -> Any:
    """The daemon's books as soon as these verdicts, and no others, came to them; or as they are at the end."""
    deadline = time.monotonic() + seconds
    while verdicts(before, after := daemon.stats()) != wanted and time.monotonic() < deadline:
        time.sleep(0.005)
    return after


@pytest.mark.timeout(300)
def test_ixroute_sends_what_linux_sends_and_counts_each_frame_under_its_verdict_and_no_other(
    expected: dict[str, Heard], ours: tuple[Stage, Daemon]
) -> None:
    stage, daemon = ours
    wrong: list[str] = []
    before = daemon.stats()
    for case in ONCE:
        if differs := compared(case, expected[case.name], played(stage, case)):
            wrong.append(differs)
        wanted = Counter({"punted ipv4_options": 1})  # the mark that is played behind the frame
        if case.verdict != FORWARD:
            wanted[f"{'dropped' if case.verdict in DROPS else 'punted'} {case.verdict}"] += 1
        after = counted(daemon, before, wanted, 2 if len(wrong) < 50 else 0.1)
        if verdicts(before, after) != wanted:
            wrong.append(f"{case.name}\n expected {dict(wanted)}, moved:\n{changes(before, after)}")
        before = after
    assert not wrong, listed(wrong)


def test_ixroute_asks_for_neighbours_as_linux_does(linux: Stage, ours: tuple[Stage, Daemon]) -> None:
    for stage in (linux, ours[0]):
        stage.ask(REPEATING)
    expected, heard = linux.listen(ANSWERS_END_S), ours[0].listen(0)
    assert heard == expected, f"Linux:\n{told(expected)}\nixroute:\n{told(heard)}"


def on_a_wire(heard: Heard) -> Heard:
    """As a card puts frames on its wire: none is shorter than 60 bytes without its checksum (IEEE 802.3 4.2.3.3)."""
    return {
        port: Counter(frame.ljust(60, b"\0") for frame in frames.elements()) for port, frames in heard.items()
    }


def test_ixroute_on_emulated_cards_sends_what_linux_sends(
    expected: dict[str, Heard], on_cards: tuple[Stage, Daemon]
) -> None:
    wrong = [
        compared(case, on_a_wire(expected[case.name]), played(on_cards[0], case), other="ixroute on cards")
        for case in ONCE
    ]
    assert not any(wrong), listed([*filter(None, wrong)])
