"""What every test tier shares: which of them this machine can run, and a loud word about those it cannot.

IXROUTE_REQUIRE names the tiers that must run (`netns,frr,tables,guest`, or `all`): a test of theirs that cannot run
fails instead of being skipped.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# A busy machine, or a build with sanitizers, may stop any example for a while: that is no failure.
hypothesis.settings.register_profile("ixroute", deadline=None)
hypothesis.settings.load_profile("ixroute")

TIERS = ("house", "unit", "model", "fuzz", "netns", "guest")


@functools.cache
def _no_namespaces() -> str:
    """Why network namespaces cannot be made here; empty when they can."""
    from ixroute.demo.netns import CommandError, Namespace

    if os.geteuid() != 0:
        return "needs root (sudo ./dev test)"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    probe = Namespace(f"ixr{os.getpid()}-probe")
    try:
        probe.create()
    except (CommandError, OSError) as error:
        return f"network namespaces cannot be made here: {error}"
    finally:
        probe.destroy()
    return ""


def _no_frr() -> str:
    there = os.path.exists("/usr/lib/frr/zebra") and shutil.which("bird")
    return _no_namespaces() or ("" if there else "needs the daemons of FRR and BIRD: apt install frr bird2")


def _no_tables() -> str:
    return _no_namespaces() or ("" if shutil.which("ip") else "needs iproute2")


@functools.cache
def _no_guest() -> str:
    """Fetches what is missing (tests/lab/guest/packages.py)."""
    from lab.guest import packages

    try:
        packages.obtain()
    except packages.UnavailableError as reason:
        return f"QEMU and its guest cannot be had: {reason}"
    return ""


NEEDS: dict[str, Callable[[], str]] = {
    "netns": _no_namespaces,
    "frr": _no_frr,
    "tables": _no_tables,
    "guest": _no_guest,
}


def _required(tier: str) -> bool:
    words = os.environ.get("IXROUTE_REQUIRE", "").replace(",", " ").split()
    return tier in words or "all" in words


def pytest_runtest_setup(item: pytest.Item) -> None:
    for tier, reason_of in NEEDS.items():
        if item.get_closest_marker(tier) and (reason := reason_of()):
            if _required(tier):
                pytest.fail(f"tier {tier} is required and cannot run: {reason}", pytrace=False)
            pytest.skip(f"tier {tier}: {reason}")


def _tier_of(nodeid: str) -> str:
    parts = Path(nodeid.partition("::")[0]).parts
    return next((part for part in parts if part in TIERS), "other")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            counts.setdefault(_tier_of(report.nodeid), Counter())[outcome] += 1
    if not counts:
        return
    terminalreporter.section("tiers")
    for tier in (*TIERS, "other"):
        if tier not in counts:
            continue
        count = counts[tier]
        words = ", ".join(f"{count[outcome]} {outcome}" for outcome in count)
        ran = count["passed"] + count["failed"] + count["error"]
        terminalreporter.write_line(
            f"{tier:>6}: {words}" if ran else f"{tier:>6}: DID NOT RUN ({words})",
            yellow=not ran,
            green=bool(ran),
        )
