"""A card for each test of the packet engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()
