"""Every mutation of ./dev mutants still fits the tree."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tree import PACKAGE, TOP

from mutations import Mutation, mutations
from mutations.copy import MutantError, Verdict, verdict_of

ALL = mutations()
Y = Verdict(True, "tests/a/test_x.py::test_y")


@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name)
def test_a_mutation_fits_its_file_at_exactly_one_place(mutation: Mutation) -> None:
    text = (PACKAGE / mutation.file).read_text()
    assert mutation.apply(text) != text
    assert mutation.sheet


def test_names_are_unique_and_the_list_has_both_sides() -> None:
    assert max(Counter(mutation.name for mutation in ALL).values()) == 1
    rooms = Counter(mutation.room for mutation in ALL)
    assert rooms["emulator"] >= 24
    assert rooms["driver"] >= 8


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        (0, "tests/a/test_x.py::test_y PASSED [ 1%]\n", Verdict(False)),
        (1, "tests/a/test_x.py::test_y[1 2] FAILED\nFAILED tests/a/test_x.py::test_y[1 2]\n", Y),
        (None, "tests/a/test_x.py::test_z PASSED\ntests/a/test_x.py::test_y[3] ", replace(Y, how=" (hangs)")),
        (1, "tests/a/test_x.py::test_y \n+++ Timeout +++\n", replace(Y, how=" (hangs)")),
        (-11, "tests/a/test_x.py::test_y Fatal Python error", replace(Y, how=" (dies of SIGSEGV)")),
    ],
)
def test_what_pytest_says_is_understood(code: int | None, said: str, verdict: Verdict) -> None:
    assert verdict_of(code, said) == verdict


def test_a_run_without_a_test_is_no_verdict() -> None:
    with pytest.raises(MutantError, match="did not come to a test"):
        verdict_of(4, "ERROR: file or directory not found: tests/none\n")


def test_the_recorded_run_knows_every_mutation_and_no_other() -> None:
    recorded = (TOP / "docs" / "mutations.md").read_text()
    names = {line.split("`")[1] for line in recorded.splitlines() if line.startswith("| `")}
    assert names == {mutation.name for mutation in ALL}
