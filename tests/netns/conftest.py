"""Fixtures of the tests with real kernels: namespaces of their own, removed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ixroute.demo.daemon import Daemon
from ixroute.demo.topology import CARDS
from lab.routers import Router, check_cards, start_router
from lab.support import port_arguments
from lab.wires import Stage, stages


@pytest.fixture
def make_router() -> Iterator[Callable[..., Router]]:
    """See lab.routers.start_router for the arguments. The books must balance when the test ends."""
    made: list[Router] = []

    def make(kind: str = "ixroute", **options: Any) -> Router:
        made.append(start_router(kind, label=f"{len(made)}", **options))
        return made[-1]

    yield make
    failures = []
    for router in made:
        try:
            router.close()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture(params=["linux", "ixroute"])
def kind(request: pytest.FixtureRequest) -> str:
    """Who routes. Linux is there to show that the test asks for what a Linux router does."""
    return str(request.param)


@pytest.fixture
def router(make_router: Callable[..., Router]) -> Router:
    """An ixroute router between client and server."""
    return make_router()


@pytest.fixture(scope="module")
def linux() -> Iterator[Stage]:
    """Linux as the router on which frames are played: the reference."""
    for stage in stages(True, "linux"):
        stage.furnish()
        stage.settle()
        yield stage


@pytest.fixture(scope="module")
def other_linux() -> Iterator[Stage]:
    """Another one, to show that two of a kind do not differ."""
    for stage in stages(True, "other"):
        stage.furnish()
        stage.settle()
        yield stage


@pytest.fixture(scope="module")
def ours() -> Iterator[tuple[Stage, Daemon]]:
    """ixroute as the router on which frames are played."""
    for stage in stages(False, "ours"):
        with Daemon(stage.lab.router, port_arguments(stage.lab)) as daemon:
            daemon.start()
            stage.furnish()
            stage.settle()
            yield stage, daemon


@pytest.fixture(scope="module")
def on_cards() -> Iterator[tuple[Stage, Daemon]]:
    """The same on emulated 82599s. None of them may have been led beyond its memory at the end."""
    for stage in stages(False, "cards", CARDS):
        with Daemon(stage.lab.router, port_arguments(stage.lab)) as daemon:
            daemon.start()
            stage.furnish()
            stage.settle()
            yield stage, daemon
            assert daemon.stop() == 0
        check_cards(stage.lab)
