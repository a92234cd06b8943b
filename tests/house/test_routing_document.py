"""docs/routing.md says what the code does: its tables are made by asking it, and leave no kind of route, rule,
neighbour, sysctl or reason out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields

import pytest

from ixroute.fib.rib import Path, Route, RouteType
from ixroute.forward.reasons import REASONS, Reason
from ixroute.netlink import neighbours, rules
from ixroute.netlink.nexthops import NextHopObject
from ixroute.netlink.rules import Rule
from lab import routing_document as document

TEXT = document.DOCUMENT.read_text()


def set_in(cases: Sequence[object]) -> set[str]:
    """Fields that some case has something in."""
    return {
        field.name
        for case in cases
        for field in fields(case)  # type: ignore[arg-type]
        if getattr(case, field.name) != field.default
    }


def test_the_tables_are_what_the_code_says_now() -> None:
    assert document.remade(TEXT) == TEXT, "PYTHONPATH=tests python -m lab.routing_document writes them anew"


def test_every_table_that_can_be_made_is_there_once() -> None:
    assert sorted(document.blocks_of(TEXT)) == sorted(document.BLOCKS)


def test_every_type_of_route_is_there() -> None:
    assert {path.type for case in document.ROUTES for _, path in case.add} == set(RouteType)


def test_every_field_of_routes_and_nexthop_objects_is_there() -> None:
    added = [pair for case in document.ROUTES + document.OBJECTS for pair in case.add]
    of_paths = {field.name for field in fields(Path)} - {"kernel_only"}  # those come as messages
    assert set_in([path for _, path in added]) >= of_paths
    for_people = {"scope", "other"}
    assert set_in([route for route, _ in added]) >= {field.name for field in fields(Route)} - for_people
    assert set_in([one for case in document.OBJECTS for one in case.objects]) >= {
        field.name for field in fields(NextHopObject)
    }


def test_every_selector_of_rules_is_there() -> None:
    shown = [rule for _, rule, _ in document.RULES + document.RESULTS]
    assert set_in(shown) >= {field.name for field in fields(Rule)}
    assert {rule.family for rule in shown} == {4, 6}


def test_every_action_of_rules_is_there() -> None:
    known = {rules.TO_TABLE, rules.GOTO, rules.NOP, rules.BLACKHOLE, rules.UNREACHABLE, rules.PROHIBIT}
    assert {rule.action for _, rule, _ in document.RESULTS} > known


def test_every_state_of_a_neighbour_is_there() -> None:
    known = {value for name, value in vars(neighbours).items() if name.startswith("NUD_")}
    assert set(document.STATES) == known


def test_every_sysctl_that_is_read_is_there_and_no_other() -> None:
    assert sorted(document.sysctls_read()) == sorted(document.SYSCTLS)


def test_every_hash_policy_and_field_is_there() -> None:
    policies, bits = document.hash_constants()
    assert list(policies) == list(document.POLICIES)
    assert sorted(policies.values()) == [0, 1, 2, 3]
    assert list(bits) == list(document.FIELDS)


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_every_reason_is_there_with_its_kind(reason: Reason) -> None:
    assert re.search(rf"^\| `{reason.name}` \| {reason.kind.name.lower()} \|", TEXT, re.M)


def test_only_reasons_that_there_are_are_named() -> None:
    named = set(re.findall(r"(?:kernel|dropped): `(\w+)`", TEXT))
    assert named <= {reason.name for reason in REASONS}


def test_a_change_of_the_code_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ixroute.netlink.views._ROOT", 5000)  # forwarded packets are root's no more
    assert document.remade(TEXT) != TEXT
