"""VLAN sub-interfaces and VRFs: Linux and ixroute as routers side by side, the same frames played at both."""

from __future__ import annotations

import sys
import time

from lab import frames_vlan
from lab.frames import FORWARD
from lab.guest.inside import checking, ok, value
from lab.twins import Scene, Twins, twins


def play(pair: Twins, scene: Scene) -> None:
    """ok when what came out is equal; a value tells how it was done."""
    began = time.monotonic()
    with checking(scene.name):
        outcome = pair.play(scene)
        plain = sum(case.verdict == FORWARD for case in scene.cases)
        value(
            f"{scene.name}_counts",
            f"{time.monotonic() - began:.1f} s, {len(scene.cases)} frames, heard"
            f" {sum(c.total() for c in outcome.linux.values())}, {plain} to be forwarded, {outcome.forwarded} were;"
            f" {dict(outcome.counted)} expected {dict(outcome.expected)}",
        )
        for line in outcome.differences[:40]:
            print("    ", line)
        assert not outcome.differences, f"{len(outcome.differences)} differences: {outcome.differences[0]}"


def vlan(pair: Twins) -> None:
    places = (*frames_vlan.PORTS, *frames_vlan.SUBS)
    play(pair, Scene("vlan_every_way", frames_vlan.makes(places), tuple(frames_vlan.every_way(places))))


def main() -> None:
    began = time.monotonic()
    value("python_started", f"{began:.1f}")
    with twins(["--workers", "1"]) as pair:
        value("twins_ready", f"{time.monotonic():.1f}")
        for name in sys.argv[1:]:
            globals()[name](pair)
        value("scenes_done", f"{time.monotonic():.1f}")
        with checking("the_router_ends"):
            status = pair.daemon.stop(30)
            assert status == 0, status
        print(pair.daemon.log_tail(60))
    value("end", f"{time.monotonic():.1f}")
    ok("ended")


if __name__ == "__main__":
    main()
