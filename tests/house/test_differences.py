"""docs/differences.md lists what the differential tests let pass, and nothing else passes."""

from __future__ import annotations

import re

from tree import TOP

from lab.differences import RULES


def listed() -> list[str]:
    """The names of the table under "Frames"."""
    text = (TOP / "docs/differences.md").read_text()
    section = text.partition("\n## Frames\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)


def test_every_difference_that_the_tests_let_pass_is_listed_once() -> None:
    assert sorted(listed()) == sorted(RULES)


def test_every_table_of_differences_says_why() -> None:
    text = (TOP / "docs/differences.md").read_text()
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert all(cells), row
