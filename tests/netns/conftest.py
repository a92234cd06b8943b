"""Fixtures of the tests with real kernels: every test its own namespaces, removed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lab.routers import Router, start_router


@pytest.fixture()
def make_router() -> Iterator[Callable[..., Router]]:
    """make_router(kind, hosts=…, mtu=…): see lab.routers.start_router. Books must balance when the test ends."""
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


@pytest.fixture()
def router(make_router: Callable[..., Router]) -> Router:
    """An ixroute router between client and server."""
    return make_router()
