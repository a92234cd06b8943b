"""Memory that clients lend, with clients that lie about it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator

import pytest
from engine_twin import Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute.emulator.dma import DmaMemory
from ixroute.vfio_user.device import DeviceError

MIB = 1 << 20


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("lent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4 * MIB)
    yield fd
    os.close(fd)


def refused(bench: Bench, *wanted: object) -> int | None:
    with pytest.raises(DeviceError) as error:
        bench.card.dma_map(*wanted)  # type: ignore[arg-type]
    return error.value.errno


def test_the_engine_gets_the_memory_itself(bench: Bench, memory: int) -> None:
    bench.card.dma_map(0x7000_0000, MIB, memory, 2 * MIB, True, True)
    length, address, readable, writable = bench.engine.maps[0x7000_0000]
    assert (length, readable, writable) == (MIB, True, True)
    os.pwrite(memory, b"frame", 2 * MIB + 100)
    assert ctypes.string_at(address + 100, 5) == b"frame"
    ctypes.memmove(address + 200, b"reply", 5)
    assert os.pread(memory, 5, 2 * MIB + 200) == b"reply"


def test_a_file_shorter_than_the_range_is_refused(bench: Bench, memory: int) -> None:
    assert refused(bench, 0, 4 * MIB + 1, memory, 0, True, True) == errno.EINVAL
    assert refused(bench, 0, MIB, memory, 4 * MIB - 4096, True, True) == errno.EINVAL
    assert refused(bench, 0, MIB, memory, 1 << 62, True, True) == errno.EINVAL
    assert bench.engine.maps == {}


def test_a_file_cannot_shrink_while_it_is_lent(bench: Bench, memory: int) -> None:
    bench.card.dma_map(0, MIB, memory, 0, True, True)
    assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)
    assert bench.card.counters()["dma_files_that_may_shrink"] == 0


def test_a_file_that_may_shrink_is_taken_and_counted(bench: Bench) -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(MIB)
        bench.card.dma_map(0, MIB, file.fileno(), 0, True, True)
    assert bench.card.counters()["dma_files_that_may_shrink"] == 1


def test_what_is_no_file_is_refused(bench: Bench) -> None:
    reader, writer = os.pipe()
    assert refused(bench, 0, 4096, reader, 0, True, True) == errno.EINVAL
    os.close(reader)
    assert refused(bench, 0, 4096, reader, 0, True, True) == errno.EBADF
    os.close(writer)


def test_memory_that_cannot_be_written_is_not_lent_for_writing(bench: Bench, memory: int) -> None:
    read_only = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY)
    assert refused(bench, 0, 4096, read_only, 0, True, True) == errno.EACCES
    bench.card.dma_map(0, 4096, read_only, 0, True, False)
    assert bench.engine.maps[0][2:] == (True, False)
    os.close(read_only)


def test_ranges_must_not_overlap(bench: Bench, memory: int) -> None:
    bench.card.dma_map(0x2000, 0x2000, memory, 0, True, True)
    for iova, length in ((0x2000, 0x2000), (0x1000, 0x1001), (0x3FFF, 1), (0, 0x10000), (0x2800, 0x100)):
        assert refused(bench, iova, length, memory, 0, True, True) == errno.EEXIST
    bench.card.dma_map(0x1000, 0x1000, memory, 0, True, True)
    bench.card.dma_map(0x4000, 0x1000, memory, 0, True, True)


@pytest.mark.parametrize(("iova", "length"), [(0, 0), (0, -1), ((1 << 64) - 4096, 4097), (-4096, 4096)])
def test_a_range_that_cannot_be_is_refused(bench: Bench, memory: int, iova: int, length: int) -> None:
    assert refused(bench, iova, length, memory, 0, True, True) == errno.EINVAL


def test_the_last_page_of_all_can_be_lent(bench: Bench, memory: int) -> None:
    bench.card.dma_map((1 << 64) - 4096, 4096, memory, 0, True, True)
    bench.card.dma_unmap((1 << 64) - 4096, 4096)
    assert bench.engine.maps == {}


def test_a_range_without_memory_is_remembered_and_never_reached(bench: Bench, memory: int) -> None:
    bench.card.dma_map(0x1000, 0x1000, None, 0, True, True)
    assert bench.engine.maps == {}
    assert refused(bench, 0x1000, 0x1000, memory, 0, True, True) == errno.EEXIST
    bench.card.dma_unmap(0x1000, 0x1000)
    bench.card.dma_map(0x1000, 0x1000, memory, 0, True, True)


def test_unmapping_takes_whole_ranges_only(bench: Bench, memory: int) -> None:
    for iova in (0x1000, 0x3000, 0x5000):
        bench.card.dma_map(iova, 0x1000, memory, 0, True, True)
    for iova, length in ((0x1800, 0x100), (0x800, 0x900), (0x1800, 0x4000)):
        with pytest.raises(DeviceError) as error:
            bench.card.dma_unmap(iova, length)
        assert error.value.errno == errno.EINVAL
    assert len(bench.engine.maps) == 3
    bench.card.dma_unmap(0, 0x4000)
    assert set(bench.engine.maps) == {0x5000}
    bench.card.dma_unmap(0x8000, 0x1000)
    bench.card.dma_unmap(0, 1 << 64)
    assert bench.engine.maps == {}


def test_an_engine_that_is_full_passes_its_error_on(bench: Bench, memory: int) -> None:
    bench.engine.refuse_maps = errno.ENOSPC
    assert refused(bench, 0, 4096, memory, 0, True, True) == errno.ENOSPC
    bench.engine.refuse_maps = 0
    bench.card.dma_map(0, 4096, memory, 0, True, True)
    assert bench.card.counters()["dma_ranges"] == 1


def test_thousands_of_pieces_of_one_file_need_few_descriptors(bench: Bench, memory: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for i in range(1000):
        bench.card.dma_map(i * 8192, 4096, memory, i * 4096, True, True)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    bench.card.dma_unmap(0, 1 << 40)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_file_that_grew_is_mapped_anew_and_old_ranges_stay(bench: Bench, memory: int) -> None:
    bench.card.dma_map(0, MIB, memory, 0, True, True)
    os.ftruncate(memory, 8 * MIB)
    bench.card.dma_map(8 * MIB, MIB, memory, 7 * MIB, True, True)
    os.pwrite(memory, b"old", 0)
    os.pwrite(memory, b"new", 7 * MIB)
    assert ctypes.string_at(bench.engine.maps[0][1], 3) == b"old"
    assert ctypes.string_at(bench.engine.maps[8 * MIB][1], 3) == b"new"
    bench.card.dma_unmap(0, MIB)
    assert ctypes.string_at(bench.engine.maps[8 * MIB][1], 3) == b"new"


PAGES = st.tuples(st.booleans(), st.integers(0, 15), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(PAGES, max_size=40))
def test_ranges_behave_as_a_table_of_pages(steps: list[tuple[bool, int, int]]) -> None:
    """Twin: which pages are mapped, by which map call."""
    bench = Bench()
    fd = os.memfd_create("lent")
    os.ftruncate(fd, MIB)
    pages: dict[int, int] = {}
    try:
        table: DmaMemory = bench.card.memory
        for number, (maps, first, count) in enumerate(steps):
            asked = set(range(first, first + count))
            if maps:
                allowed = not asked & set(pages)
                call = lambda: table.map(first * 4096, count * 4096, fd, 0, True, True)  # noqa: E731, B023
            else:
                owners = {pages[page] for page in asked & set(pages)}
                allowed = all(page in asked for page, owner in pages.items() if owner in owners)
                call = lambda: table.unmap(first * 4096, count * 4096)  # noqa: E731, B023
            if not allowed:
                with pytest.raises(DeviceError):
                    call()
                continue
            call()
            for page in asked:
                if maps:
                    pages[page] = number
                else:
                    pages.pop(page, None)
            assert len(table) == len(bench.engine.maps) == len(set(pages.values()))
    finally:
        bench.close()
        os.close(fd)
