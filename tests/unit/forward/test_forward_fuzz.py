"""Many mutated frames, fast and without a twin: no crash, no lost frame, every count adds up.

IXROUTE_FUZZ_FRAMES says how many (20000 when unset); meant for sanitizer builds with a million or more.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace

from forward_rig import USUAL, Context, Rig
from test_forward_packets import TABLE

FRAMES = int(os.environ.get("IXROUTE_FUZZ_FRAMES", "20000"))
SEED = int(os.environ.get("IXROUTE_FUZZ_SEED", "1"))
BURST = 64


def mutate(dice: random.Random, packet: bytes) -> bytes:
    changed = bytearray(packet)
    for _ in range(dice.randrange(5)):
        changed[dice.randrange(min(len(changed), 64))] = dice.choice((0, 255, dice.randrange(256)))
    cut = dice.randrange(4)
    if cut == 0:
        return bytes(changed[: dice.randrange(1, len(changed) + 1)])
    if cut == 1:
        return bytes(changed) + bytes(dice.randrange(60))
    return bytes(changed)


def test_mutated_frames_all_end_and_all_counts_add_up() -> None:
    dice = random.Random(SEED)
    rig = Rig()
    seeds = [case.packet for case in TABLE]
    delivered = out = 0
    for turn in range(FRAMES // BURST):
        if turn % 50 == 0:
            flags = USUAL if dice.randrange(2) else dice.randrange(2048)
            rig.set_context(replace(Context(), flags=flags, redirect_tokens=bool(turn % 100)))
        for _ in range(BURST):
            packet = mutate(dice, dice.choice(seeds))
            if turn % 3 == 0:
                rig.inject(packet, dice.randrange(3))
            else:
                rig.deliver(packet, dice.randrange(2))
            delivered += 1
        assert rig.worker.poll_once() == BURST
        out += len(rig.sent()) + len(rig.punted())
        rig.worker.poll_once()
    rig.check_conservation()
    assert delivered == rig.worker.counters()["packets"] == out + sum(rig.dropped().values())
    rig.close()
