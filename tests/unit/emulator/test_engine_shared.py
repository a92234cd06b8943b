"""What clients are given of the engine's own: an event and a page. None can stop the engine by it."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
from collections.abc import Iterator

import pytest
from engine_rig import BASE, Rig, ethernet

from ixroute._dataplane import lib
from ixroute.emulator.card import Card
from ixroute.emulator.engine import Engine

FULL = (1 << 64) - 2
MIB = 1 << 20


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.engine.start()
    yield rig
    rig.close()


def until(what: object) -> None:
    limit = time.monotonic() + 20
    while not what():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.001)


def sleeps(rig: Rig) -> bool:
    return bool(int.from_bytes(os.pread(rig.engine.sleep_fd, 4, 0), "little"))


@pytest.mark.parametrize("fill", [0, FULL])
def test_an_event_that_a_client_made_blocking_stops_nobody(rig: Rig, fill: int) -> None:
    """Empty, a read of it would wait for ever; full, a write."""
    fd = rig.engine.event_fd
    os.set_blocking(fd, True)
    transmit = rig.tx()
    for i in range(20):
        if fill:
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(fd, fill)
            os.set_blocking(fd, True)
        until(lambda: sleeps(rig) or fill)
        transmit.send(ethernet(bytes([i])))
        until(rig.sent)
    assert rig.engine.running


def test_the_page_with_the_sleep_word_is_for_reading_and_stays() -> None:
    engine = Engine()
    with pytest.raises(PermissionError):
        os.ftruncate(engine.sleep_fd, 0)
    with pytest.raises(PermissionError):
        os.pwrite(engine.sleep_fd, b"\1", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(engine.sleep_fd, 4096)
    mmap.mmap(engine.sleep_fd, 4096, prot=mmap.PROT_READ).close()
    engine.close()


@pytest.mark.parametrize("kind", ["memfd", "file"])
def test_memory_taken_back_under_running_queues_is_counted_and_the_engine_goes_on(kind: str) -> None:
    """Memory that cannot be sealed. The engine meets the hole in its own thread."""
    engine = Engine()
    card = Card(lambda image: engine.card(image.memory))
    wire = lib.wire_memory_create(65536, -1)
    card.engine.plug(wire)
    engine.start()
    with tempfile.TemporaryFile() as file:
        fd = os.memfd_create("lent", os.MFD_CLOEXEC) if kind == "memfd" else os.dup(file.fileno())
        os.ftruncate(fd, MIB)
        card.dma_map(BASE, MIB, fd, 0, True, True)
        card.engine.set_link(True)
        os.ftruncate(fd, 0)
        ring = ((0x6000, 0), (0x6004, BASE >> 32), (0x6008, 1024), (0x6028, 1 << 25), (0x6018, 8))
        for offset, value in ((0x4A80, 1), *ring):
            card.write(0, offset, value.to_bytes(4, "little"))
        until(lambda: card.counters()["dma_files_lost"] == 1)
        assert engine.running
        card.dma_unmap(BASE, MIB)
        assert card.counters()["dma_files_lost"] == 1
        os.ftruncate(fd, MIB)
        card.dma_map(BASE, MIB, fd, 0, True, True)
        os.close(fd)
    card.close()
    lib.wire_memory_destroy(wire)
    engine.close()
