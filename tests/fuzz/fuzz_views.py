"""Random views for mutated frames: conditions that some of them meet."""

from __future__ import annotations

import numpy as np
from forward_rig import OTHER_TABLES
from forward_view_twin import VERDICTS, SlowStep, SlowView

from ixroute.forward.view import ALL, Match

Prefix = tuple[bytes, int]


def random_view(dice: np.random.Generator, family: int) -> SlowView:
    """Up to ten steps; a third of the views without any condition, and of those half look sources up too."""
    n, plain = int(dice.integers(0, 11)), bool(dice.random() < 0.3)
    steps = []
    for number in range(n):
        match = ALL if plain or dice.random() < 0.3 else random_match(dice, family)
        kind = dice.random()
        if kind < 0.6:
            steps.append(SlowStep(match, table=int(dice.integers(0, len(OTHER_TABLES) + 1))))
        elif kind < 0.8:
            steps.append(SlowStep(match, verdict=str(dice.choice(sorted(VERDICTS)))))
        else:
            steps.append(SlowStep(match, goto=int(dice.integers(number + 1, n + 1))))
    return SlowView(tuple(steps), plain and bool(dice.random() < 0.5))


def random_match(dice: np.random.Generator, family: int) -> Match:
    return Match(
        source=random_prefix(dice, family) if dice.random() < 0.2 else None,
        destination=random_prefix(dice, family) if dice.random() < 0.2 else None,
        tos=0,
        tos_mask=int(dice.choice([0, 0, 0x1C, 0x80])),
        protocol=int(dice.choice([0, 0, 1, 6, 17, 44, 58])),
        source_ports=random_ports(dice) if dice.random() < 0.2 else None,
        destination_ports=random_ports(dice) if dice.random() < 0.2 else None,
        inverted=bool(dice.random() < 0.3),
    )


def random_prefix(dice: np.random.Generator, family: int) -> Prefix:
    known = {4: ["0a000000", "c0000200", "ac100000"], 6: ["20010db8" + "0" * 24, "fc00" + "0" * 28]}
    length = int(dice.integers(0, 9)) if family == 4 else int(dice.integers(0, 33))
    address = bytes.fromhex(str(dice.choice(known[family])))
    bits = 8 * len(address)
    return (int.from_bytes(address, "big") >> (bits - length) << (bits - length)).to_bytes(
        bits // 8, "big"
    ), length


def random_ports(dice: np.random.Generator) -> tuple[int, int]:
    first, last = sorted(int(port) for port in dice.integers(1, 65536, 2))
    return first, last
