"""docs/hardware.md says what the emulated card does otherwise than silicon: all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ixroute.emulator.differences import KNOWN_DIFFERENCES

DOCUMENT = Path(__file__).parents[3] / "docs" / "hardware.md"


@pytest.mark.parametrize("difference", KNOWN_DIFFERENCES, ids=lambda text: text[:30])
def test_every_known_difference_is_documented(difference: str) -> None:
    assert difference in " ".join(DOCUMENT.read_text().split())
