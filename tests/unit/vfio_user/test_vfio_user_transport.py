"""The vfio-user transport (driver/vfio_user.py) against the server (vfio_user/server.py), over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_user_rig import BAR_BYTES, driven, open_fds


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """And nothing stays open behind the test's back."""
    before = open_fds()
    yield tmp_path / "card"
    assert open_fds() == before
    assert not (tmp_path / "card").exists()


def test_a_trapped_register_keeps_what_is_written(path: Path) -> None:
    with driven(path) as (transport, _, _):
        bar = transport.map_bar(0)
        assert bar.size == BAR_BYTES
        bar.write32(0x40, 0x12345678)
        bar.write32(BAR_BYTES - 4, 0xFFFFFFFF)
        assert bar.read32(0x40) == 0x12345678
        assert bar.read32(BAR_BYTES - 4) == 0xFFFFFFFF
        assert [bar.read32(0) for _ in range(3)] == [1, 2, 3]
