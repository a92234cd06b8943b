"""The fuzz tier: hostile input in numbers. It borrows the rig, the twin and the message builders of the unit tier.

IXROUTE_FUZZ=full runs a million frames and a hundred thousand messages of each kind; a number is the share of
that in percent. IXROUTE_FUZZ_SEED: another sequence (1 when unset).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[1] / "unit"
sys.path[:0] = [str(UNIT / room) for room in ("forward", "netlink")]

SHARE = float(os.environ.get("IXROUTE_FUZZ", "20").replace("full", "100")) / 100


@pytest.fixture(scope="session")
def seed() -> int:
    return int(os.environ.get("IXROUTE_FUZZ_SEED", "1"))


@pytest.fixture(scope="session")
def frames() -> int:
    """How many frames to send."""
    return int(1_000_000 * SHARE)


@pytest.fixture(scope="session")
def messages() -> int:
    """How many netlink datagrams to mutate, of each kind."""
    return int(100_000 * SHARE)
