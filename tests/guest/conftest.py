"""What the guest tier has: the packages, once; boots; emulated cards served by the command that people use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.guest import packages
from lab.guest.machine import Guest, Result


def pytest_report_header() -> str:
    return f"guest: packages in {packages.cache_folder()}"


@pytest.fixture(scope="session")
def fetched() -> packages.Packages:
    return packages.obtain()


@pytest.fixture
def boot(fetched: packages.Packages) -> Callable[..., Result]:
    """boot(scenario, …): Guest's arguments; runs it and prints its console, which pytest shows when the test fails."""

    def run(scenario: str, timeout: float = 90.0, **options: Any) -> Result:
        result = Guest(fetched, scenario, **options).run(timeout)
        print(result.log)
        result.check()
        return result

    return run
