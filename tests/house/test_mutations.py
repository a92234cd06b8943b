"""Every mutation of ./dev mutants still fits the tree."""

from __future__ import annotations

from collections import Counter

import pytest
from tree import PACKAGE, TOP

from mutations import Mutation, mutations

ALL = mutations()


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


def test_the_recorded_run_knows_every_mutation_and_no_other() -> None:
    recorded = (TOP / "docs" / "mutations.md").read_text()
    names = {line.split("`")[1] for line in recorded.splitlines() if line.startswith("| `")}
    assert names == {mutation.name for mutation in ALL}
