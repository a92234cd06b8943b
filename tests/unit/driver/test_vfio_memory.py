"""Memory for devices, its addresses for them: DmaBuffer, IOVA ranges, physical pages."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfio_fakes import DEVICE, FakeKernel, Machine

from ixroute._dataplane import ffi
from ixroute.driver import noiommu
from ixroute.driver import vfio_abi as abi
from ixroute.driver.dma import DmaBuffer, HugePagesError, obtain
from ixroute.driver.iova import LOWEST, IovaSpace
from ixroute.driver.noiommu import NoIommuContainer, NoIommuTransport, physical_pages
from ixroute.driver.transport import DmaMemory, TransportError
from ixroute.driver.umem import Umem

HUGE = 2 << 20


def seals(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS)


# ---- DmaBuffer, Umem


def test_a_buffer_is_whole_zeroed_pages_that_the_file_shows_too() -> None:
    buffer = DmaBuffer(5000, "off")
    assert (buffer.bytes, buffer.page_bytes) == (8192, 4096)
    assert bytes(ffi.buffer(buffer.pointer(), 8192)) == bytes(8192)
    buffer.pointer(4999)[0] = 7
    assert os.pread(buffer.fd, 1, 4999) == b"\7"
    assert int(ffi.cast("uintptr_t", buffer.pointer(4096))) == buffer.address + 4096
    fd = buffer.fd
    buffer.close()
    buffer.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        buffer.pointer()


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (4096, 1), (4090, 7), (0, 4097), (0, -1)])
def test_a_pointer_outside_of_the_buffer_is_refused(offset: int, length: int) -> None:
    buffer = DmaBuffer(4096, "off")
    with pytest.raises(ValueError, match="not inside a buffer of 4096"):
        buffer.pointer(offset, length)
    buffer.pointer(4089, 7)
    buffer.close()


@pytest.mark.parametrize("length", [0, -1])
def test_a_buffer_of_nothing_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        DmaBuffer(length)
    with pytest.raises(ValueError, match="auto, require or off"):
        DmaBuffer(1, "maybe")


def test_nobody_can_shorten_or_seal_the_memory() -> None:
    umem = Umem(16, 2048, "off")
    buffer = DmaBuffer(4096, "off")
    for memory in (umem, buffer):
        assert seals(memory.fd) & fcntl.F_SEAL_SHRINK
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, 4096 if memory is umem else 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(memory.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    umem.close()
    buffer.close()


def huge_pages_free() -> int:
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        return next((int(line.split()[1]) for line in meminfo if line.startswith("HugePages_Free:")), 0)


def test_huge_pages_are_taken_when_there_are_any_and_missed_aloud_when_required() -> None:
    if huge_pages_free():
        buffer = DmaBuffer(1, "require")
        assert (buffer.page_bytes, buffer.bytes, buffer.address % HUGE) == (HUGE, HUGE, 0)
    else:
        with pytest.raises(MemoryError, match=r"DMA memory: 1 huge pages are not free .*vm.nr_hugepages=1"):
            DmaBuffer(1, "require")
        with pytest.raises(HugePagesError):
            obtain("test", HUGE + 1, huge=True)
        buffer = DmaBuffer(1, "auto")
        assert buffer.page_bytes == mmap.PAGESIZE
    buffer.close()


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(MemoryError, match="DMA memory: no "):
        DmaBuffer(1 << 50, "off")


def test_umem_is_dma_memory_and_may_have_frames_of_16_kib() -> None:
    umem = Umem(3, 16384, "off")
    memory: DmaMemory = umem
    assert (memory.bytes, memory.page_bytes) == (3 * 16384, 4096)
    pool = umem.pool(3)
    assert pool.n == 3
    umem.close()


# ---- IOVA


def test_addresses_are_aligned_and_lowest_first() -> None:
    space = IovaSpace([(0, 0xFEDFFFFF), (0xFEF00000, (1 << 48) - 1)])
    assert space.take(4096, 4096) == LOWEST
    assert space.take(HUGE, HUGE) == HUGE
    assert space.take(4096, 4096) == LOWEST + 4096
    assert space.take(1 << 32, HUGE) == 0xFF000000
    space.give(LOWEST)
    assert space.take(4096, 4096) == LOWEST
    assert space.take(1 << 39, 4096) is None


def test_a_group_that_comes_later_narrows_what_is_given_out_from_then_on() -> None:
    space = IovaSpace([(0, 1 << 38)])
    assert space.take(4096, 4096) == LOWEST
    space.allow([(0, 1 << 38)], 30)
    assert space.take(1 << 30, 4096) is None
    space.allow([(1 << 29, 1 << 38)])
    assert space.take(4096, 4096) == 1 << 29


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), min_size=1, max_size=4),
    st.lists(
        st.one_of(st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 4, 8])), st.integers(0, 20)),
        max_size=30,
    ),
)
def test_ranges_are_those_that_a_map_of_every_page_would_find(
    allowed: list[tuple[int, int]], steps: list[tuple[int, int] | int]
) -> None:
    """The slow twin: a set of free pages."""
    page = 4096
    lowest = LOWEST // page
    pairs = [(LOWEST + first * page, LOWEST + (first + n) * page - 1) for first, n in allowed if n]
    runs = [range(lowest + first, lowest + first + n) for first, n in allowed]
    space = IovaSpace(pairs)
    free = {p for run in runs for p in run}
    given_out: list[tuple[int, int]] = []
    for step in steps:
        if isinstance(step, int):
            if given_out:
                start, n = given_out.pop(step % len(given_out))
                space.give(start * page)
                free |= set(range(start, start + n))
            continue
        n, align = step
        # Ranges that touch or overlap are still two: a mapping lies in one.
        fits = [
            p
            for run in runs
            for p in run
            if p % align == 0 and p + n <= run.stop and all(q in free for q in range(p, p + n))
        ]
        found = space.take(n * page, align * page)
        assert (found is None) == (not fits)
        if found is not None:
            assert found // page in fits
            free -= set(range(found // page, found // page + n))
            given_out.append((found // page, n))


# ---- without an IOMMU


@dataclass
class Huge:
    """Looks like huge pages, and is ordinary memory that can be locked."""

    address: int
    bytes: int
    fd: int = -1
    page_bytes: int = HUGE


@pytest.fixture
def unsafe(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.add(noiommu=True)
    mode = machine.root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    mode.parent.mkdir(parents=True)
    mode.write_text("Y\n")
    return machine


@pytest.fixture
def huge(monkeypatch: pytest.MonkeyPatch) -> Huge:
    class Libc:
        @staticmethod
        def mlock(address: ctypes.c_void_p, length: ctypes.c_size_t) -> int:
            return 0

    monkeypatch.setattr(noiommu, "_libc", Libc)
    return Huge(4 * HUGE, 2 * HUGE)


def pagemap(machine: Machine, entries: dict[int, int]) -> FakeKernel:
    """/proc/self/pagemap with these entries, by address."""
    path = machine.root / "proc/self/pagemap"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for address, entry in entries.items():
            os.pwrite(file.fileno(), struct.pack("=Q", entry), address // 4096 * 8)
    return FakeKernel(machine)


PRESENT = 1 << 63
FIRST, SECOND = 4 * HUGE, 5 * HUGE
GOOD = {
    FIRST: PRESENT | 1 << 55 | 0x12200,
    FIRST + HUGE - 4096: PRESENT | 0x123FF,
    SECOND: PRESENT | 0x8000,
    SECOND + HUGE - 4096: PRESENT | 0x81FF,
}


def test_without_an_iommu_addresses_are_the_huge_pages_own(
    unsafe: Machine, huge: Huge, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = pagemap(unsafe, GOOD)
    card = NoIommuTransport(DEVICE, NoIommuContainer(kernel))
    assert card.kind == "noiommu"
    assert "DMA WITHOUT AN IOMMU" in caplog.text
    assert kernel.said(abi.VFIO_SET_IOMMU) == [(abi.VFIO_NOIOMMU_IOMMU,)]
    mapping = card.dma_map(huge)
    assert mapping.pages == (0x12200000, 0x8000000)
    assert (mapping.base, mapping.iova(HUGE + 5)) == (0x12200000, 0x8000005)
    assert not kernel.said(abi.VFIO_IOMMU_MAP_DMA)
    card.close()
    assert not kernel.open_descriptors("device")


BAD = {
    "not there": ({FIRST: 0}, "is not in memory"),
    "swapped": ({FIRST: PRESENT | 1 << 62 | 7}, "is not in memory"),
    "hidden": ({FIRST: PRESENT}, "hides physical addresses: run as root"),
    "not contiguous": ({FIRST + HUGE - 4096: PRESENT | 0x99}, "not a huge page"),
    "the second": ({SECOND: 0}, "is not in memory"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=list(BAD))
def test_a_page_that_is_not_surely_where_it_seems_is_refused(
    unsafe: Machine, huge: Huge, change: dict[int, int], message: str
) -> None:
    kernel = pagemap(unsafe, GOOD | change)
    with pytest.raises(TransportError, match=message):
        physical_pages(DEVICE, huge, kernel)


def test_ordinary_pages_are_refused_without_an_iommu(unsafe: Machine) -> None:
    buffer = DmaBuffer(4096, "off")
    with pytest.raises(TransportError, match=r"must be of huge pages: `sysctl vm.nr_hugepages=1`"):
        physical_pages(DEVICE, buffer, FakeKernel(unsafe))
    buffer.close()


def test_memory_that_cannot_be_locked_names_the_limit(huge: Huge, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        @staticmethod
        def mlock(address: ctypes.c_void_p, length: ctypes.c_size_t) -> int:
            ctypes.set_errno(errno.ENOMEM)
            return -1

    monkeypatch.setattr(noiommu, "_libc", Libc)
    with pytest.raises(TransportError, match=r"cannot be locked \(Cannot allocate memory\).*ulimit -l"):
        physical_pages(DEVICE, huge)


def test_a_missing_pagemap_is_told(unsafe: Machine, huge: Huge) -> None:
    with pytest.raises(TransportError, match="/proc/self/pagemap: No such file"):
        physical_pages(DEVICE, huge, FakeKernel(unsafe))


def test_what_is_missing_for_no_iommu_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add(driver="ixgbe", group=None)
    mode = machine.root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"

    def message() -> str:
        with pytest.raises(TransportError) as caught:
            NoIommuTransport(DEVICE, NoIommuContainer(FakeKernel(machine)))
        return str(caught.value)

    assert "CONFIG_VFIO_NOIOMMU" in message()
    mode.parent.mkdir(parents=True)
    mode.write_text("N\n")
    assert f"echo Y > /{mode.relative_to(machine.root)}" in message()
    mode.write_text("Y\n")
    assert "`ixroute bind 0000:03:00.0`" in message()
    machine.binder().bind(DEVICE, force=True)
    assert "was bound before" in message()
    machine.join(DEVICE, 3)
    assert "has an IOMMU: name the port 0000:03:00.0" in message()
