"""Every row of the specification has named frames or a test, and every named frame belongs to a row."""

from __future__ import annotations

import re

import pytest
from tree import TOP

from lab.frames import all_cases
from lab.rows import ROWS, Row

NAMES = [case.name for case in all_cases()]


def named_by(row: Row) -> set[str]:
    found: set[str] = set()
    for pattern in row.frames:
        expression = re.compile(".*".join(map(re.escape, pattern.split("*"))))
        found |= {name for name in NAMES if expression.fullmatch(name)}
    return found


def test_there_are_enough_frames_and_no_name_twice() -> None:
    assert len(NAMES) >= 250
    assert len(set(NAMES)) == len(NAMES)


def test_all_rows_are_there() -> None:
    assert list(ROWS) == list(range(1, 85))


@pytest.mark.parametrize("number", ROWS)
def test_a_row_has_frames_or_says_which_test_shows_it(number: int) -> None:
    row = ROWS[number]
    for pattern in row.frames:
        assert named_by(Row("", (pattern,))), f"row {number}: no frame is called {pattern!r}"
    for test in row.tests:
        file, _, function = test.partition("::")
        text = (TOP / file).read_text()
        assert not function or f"def {function}(" in text, f"row {number}: there is no {test}"
    assert row.frames or row.tests
    assert bool(row.tests) == bool(row.why), f"row {number}: why is a frame not enough?"
