"""The guest and its scenarios, on cards that QEMU emulates by itself: what fails here is the test's own fault."""

from __future__ import annotations

import platform
from collections.abc import Callable

import pytest

from lab.guest.machine import Model, Result

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

Boot = Callable[..., Result]


def test_a_guest_boots_with_its_tools_and_the_cards_it_was_given(boot: Boot) -> None:
    result = boot("boot.sh", devices=[Model("igb"), Model("e1000e")], modules=["igb", "e1000e"])
    assert result.values["kernel"].startswith("6.12.")
    assert "0000:01:00.0 0x8086:0x10c9" in result.log
    assert "0000:02:00.0 0x8086:0x10d3" in result.log
    assert not result.complaints()


def test_the_python_of_the_tests_runs_the_package_under_test_in_the_guest(boot: Boot) -> None:
    result = boot("python_runs.py")
    assert result.values["python"] == platform.python_version()


def test_the_traffic_scenario_holds_on_a_card_nobody_doubts(boot: Boot) -> None:
    result = boot(
        "linux_traffic.sh",
        devices=[Model("igb"), Model("igb")],
        modules=["igb", "8021q"],
        arguments=["igb"],
    )
    assert int(result.values["queues_used"]) > 1
    assert not result.complaints()
