"""Cards for tests of the emulator: the register model with a twin for its engine, and the packet engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_rig import Rig
from engine_twin import Bench, MakeBench

from ixroute.emulator.card import CardOptions
from ixroute.emulator.faults import Faults


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(faults: Faults | None = None, **options: object) -> Bench:
        bench = Bench(CardOptions(**options), faults)  # type: ignore[arg-type]
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()
