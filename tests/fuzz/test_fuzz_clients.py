"""Clients that mean harm, against a card as `ixroute emulate` serves it: none ends it, none makes it hang."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_clients import Served, Wild

from ixroute._dataplane import lib  # noqa: F401 - built before a test's time runs

ROUNDS = 8


@pytest.fixture(params=[False, True], ids=["tails with events", "queue registers mapped"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    served = Served(f"{tmp_path}/card", map_bar=request.param)
    yield served
    served.close()


@pytest.mark.timeout(1200)
def test_nothing_a_client_does_ends_a_card_or_makes_it_hang(served: Served, messages: int, seed: int) -> None:
    wild = Wild(served, random.Random(seed))
    try:
        for _ in range(ROUNDS):
            wild.run(messages // 2 // ROUNDS)
            wild._leave()
            served.check()
    finally:
        wild.close()
    counts = served.card.counters()
    print(dict(wild.did), counts, vars(served.server.counters), file=sys.stderr)
    assert wild.did["memory taken back"]
    assert wild.did["image words"]
    assert counts["rx_packets"]
    assert counts["tx_packets"]
    assert counts["interrupts"]
    assert counts["dma_faults"]
