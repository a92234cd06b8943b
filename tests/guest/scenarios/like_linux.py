"""VLAN sub-interfaces and VRFs: Linux and ixroute as routers side by side, the same frames played at both."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ixroute.demo.readings import unbalanced
from lab import frames_vlan, scenes_vlan, scenes_vrf
from lab.frames_vlan import every_way
from lab.guest.inside import checking, ok, value
from lab.oracle import KERNEL, daemon_answers, kernel_answers
from lab.support import wait_until
from lab.twins import Scene, Twins, twins
from lab.wires import Flood

TRIES = 3
COUNTS: Counter[str] = Counter()
SETTINGS = {"chance": "600", "seed": "1"}


def play(pair: Twins, scene: Scene) -> None:
    """ok when what came out is equal, each time, and was done as expected, within TRIES: sysctls are followed late."""
    began = time.monotonic()
    name = "_".join(scene.name.replace(":", "").replace(",", "").split())
    with checking(name):
        for number in range(TRIES):
            outcome = pair.play(scene if not number else replace(scene, commands=(), sysctls=()))
            for line in outcome.differences[:40]:
                print("    ", line)
            assert not outcome.differences, (
                f"{len(outcome.differences)} differences: {outcome.differences[0]}"
            )
            if not outcome.amiss():
                break
            time.sleep(1)
        heard = sum(frames.total() for frames in outcome.linux.values())
        print(
            f"    {time.monotonic() - began:.1f} s, {len(scene.cases)} frames, {heard} heard, try {number + 1};"
        )
        print(f"    forwarded fast {outcome.forwarded}, {dict(outcome.counted)}")
        COUNTS["frames_played"] += len(scene.cases)
        COUNTS["frames_forwarded"] += outcome.forwarded
        assert not outcome.amiss(), outcome.amiss()


def vlan(pair: Twins) -> None:
    first, *scenes = scenes_vlan.scenes()
    play(pair, first)
    sub_interfaces_count(pair, first)
    play(pair, scenes_vlan.chance(random.Random(int(SETTINGS["seed"])), int(SETTINGS["chance"])))
    for scene in scenes:
        play(pair, scene)
    churn(pair, "vlan", scenes_vlan.CHURN, scenes_vlan.FLOOD)
    play(pair, Scene("vlan: after changes under traffic", (), tuple(every_way(scenes_vlan.SOME))))
    play(pair, scenes_vlan.unresolved())
    gone = [f"link del {place.name}" for place in frames_vlan.SUBS if place.name not in ("s100c5", "w200c6")]
    pair.configure(gone)


def sub_interfaces_count(pair: Twins, scene: Scene) -> None:
    """Every sub-interface counts what came in and went out by it: as many as the scene plays there, and comes back."""
    with checking("vlan_sub_interfaces_count"):
        places = {place.name for place in frames_vlan.SUBS}

        def counters() -> dict[str, tuple[int, int]]:
            there = pair.daemon.stats()["sub_interfaces"]
            return {sub["name"]: (sub["rx_packets"], sub["tx_packets"]) for sub in there}

        before = counters()
        play(pair, replace(scene, name=f"{scene.name}, again", commands=()))
        moved = {name: (rx - before[name][0], tx - before[name][1]) for name, (rx, tx) in counters().items()}
        each = 2 * (len(scenes_vlan.PLACES) - 1)
        assert moved == dict.fromkeys(places, (each, each)), moved


def vrf(pair: Twins) -> None:
    for scene in scenes_vrf.scenes():
        play(pair, scene)
        if scene.name in scenes_vrf.TABLES_COMPARED_AFTER:
            compare_tables(pair, scene.name)
    churn(pair, "vrf", scenes_vrf.CHURN, scenes_vrf.FLOOD)
    cases = tuple(case for group in scenes_vrf.GROUPS[:2] for case in every_way(group))
    play(pair, Scene("vrf: after changes under traffic", (), cases))


def compare_tables(pair: Twins, when: str) -> None:
    """What the kernel's tables say of an address is what `ixroute lookup --iif` says, for each interface."""
    router = pair.ours.lab.router
    with checking("_".join(["tables", *when.replace(":", "").replace(",", "").split()])):
        wrong = []
        for place in scenes_vrf.PLACES:
            name = place.name.format(**pair.ours.lab.interfaces)
            for addresses, source in (
                (scenes_vrf.addresses4(), place.behind4(1)),
                (scenes_vrf.addresses6(), place.behind6(1)),
            ):
                theirs = kernel_answers(router, addresses, name, source)
                ours = daemon_answers(pair.daemon, addresses, name, source)
                COUNTS["lookups"] += len(addresses)
                COUNTS["lookups_left_to_the_kernel"] += sum(found.type == KERNEL for found in ours)
                wrong += [
                    f"{address} by {name}: kernel {there}, ixroute {here}"
                    for address, there, here in zip(addresses, theirs, ours, strict=True)
                    if not scenes_vrf.agree(there, here)
                ]
        print("\n".join(wrong[:40]))
        assert not wrong, f"{len(wrong)}: {wrong[0]}"


def churn(pair: Twins, name: str, steps: Sequence[Sequence[str]], frames: Sequence[bytes]) -> None:
    """Changes, one after the other, while frames come in all the time: the router stays alive and its books balance."""
    with (
        checking(f"{name}_changes_under_traffic"),
        Flood(pair.ours.wires["lan"], frames, 400),
        Flood(pair.linux.wires["lan"], frames, 50),
    ):
        for step in steps:
            pair.change(step)
    with checking(f"{name}_books_balance"):
        pair.settle()
        wait_until(
            lambda: not unbalanced(pair.daemon.stats()), 5, lambda: str(unbalanced(pair.daemon.stats()))
        )


def main() -> None:
    """Arguments: parts to play, and settings as name=value."""
    value("python_started", f"{time.monotonic():.1f}")
    parts = [word for word in sys.argv[1:] if "=" not in word]
    for word in sys.argv[1:]:
        name, _, text = word.partition("=")
        if text:
            SETTINGS[name] = text
    with twins(["--workers", "1"]) as pair:
        value("twins_ready", f"{time.monotonic():.1f}")
        for part in parts:
            {"vlan": vlan, "vrf": vrf}[part](pair)
        value("scenes_done", f"{time.monotonic():.1f}")
        with checking("the_router_ends"):
            status = pair.daemon.stop(30)
            assert status == 0, status
        print(pair.daemon.log_tail(60))
    for name, count in COUNTS.items():
        value(name, count)
    value("end", f"{time.monotonic():.1f}")
    ok("ended")


if __name__ == "__main__":
    main()
