"""umem and its pools."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.driver.umem import Umem, frame_bytes_for, max_mtu


def frames_of(pool: object, n: int) -> list[int]:
    out = ffi.new("uint64_t[]", n)
    return [out[i] for i in range(lib.frame_pool_get(pool, out, n))]


def no_huge_page_is_free() -> bool:
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        return any(line.split() == ["HugePages_Free:", "0"] for line in meminfo)


def test_pools_are_carved_from_different_frames_until_none_is_left() -> None:
    umem = Umem(100, 2048, "off")
    first, second = umem.pool(30), umem.pool(70)
    assert (first.n, first.capacity, second.n, second.capacity) == (30, 30, 70, 70)
    addrs = frames_of(first, 100) + frames_of(second, 100)
    assert sorted(addrs) == [i * 2048 for i in range(100)]
    with pytest.raises(ValueError, match="1 frames wanted, 0 of umem's 100 are left"):
        umem.pool(1)
    umem.close()


def test_a_frame_goes_back_by_any_address_inside_it() -> None:
    umem = Umem(4, 4096, "off")
    pool = umem.pool(4)
    taken = frames_of(pool, 4)
    for addr in taken:
        lib.frame_pool_put(pool, umem.c, addr + 4095)
    assert sorted(frames_of(pool, 4)) == sorted(taken)
    umem.close()


def test_the_frame_used_last_is_handed_out_first() -> None:
    umem = Umem(8, 2048, "off")
    pool = umem.pool(8)
    assert frames_of(pool, 2) == [0, 2048]
    lib.frame_pool_put(pool, umem.c, 2048)
    assert frames_of(pool, 1) == [2048]
    umem.close()


def test_the_memory_is_one_file_mapping_that_c_sees_too() -> None:
    umem = Umem(16, 2048, "off")
    assert (umem.c.bytes, umem.c.frame_bytes, umem.c.n_frames) == (16 * 2048, 2048, 16)
    umem.c.base[16 * 2048 - 1] = 77
    assert os.pread(umem.fd, 1, 16 * 2048 - 1) == b"M"
    assert umem.address == int(ffi.cast("uintptr_t", umem.c.base))
    umem.close()


def test_closing_waits_for_the_last_port_and_happens_once() -> None:
    umem = Umem(16, 2048, "off")
    umem.hold()
    umem.hold()
    umem.close()
    umem.close()
    umem.c.base[0] = 1  # still mapped
    umem.release()
    umem.c.base[0] = 2
    umem.release()
    assert umem.c.base == ffi.NULL
    umem.close()
    with pytest.raises(ValueError, match="closed"):
        umem.hold()
    with pytest.raises(ValueError, match="closed"):
        umem.pool(1)


@pytest.mark.skipif(not no_huge_page_is_free(), reason="this machine has free huge pages")
def test_without_huge_pages_it_goes_on_and_names_the_sysctl_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        umem = Umem(2048, 2048, "auto")
    assert not umem.hugepages
    assert [r.getMessage() for r in caplog.records if "vm.nr_hugepages=2" in r.getMessage()]
    assert len(caplog.records) == 1
    umem.close()


@pytest.mark.skipif(not no_huge_page_is_free(), reason="this machine has free huge pages")
def test_required_huge_pages_that_are_not_there_are_an_error() -> None:
    with pytest.raises(MemoryError, match=r"vm\.nr_hugepages=1"):
        Umem(16, 2048, "require")


@pytest.mark.parametrize(
    ("n", "frame_bytes", "hugepages", "word"),
    [
        (16, 1024, "off", "frame_bytes"),
        (16, 3000, "off", "frame_bytes"),
        (0, 2048, "off", "n_frames"),
        (1 << 31, 2048, "off", "n_frames"),
        (16, 2048, "maybe", "hugepages"),
    ],
)
def test_impossible_sizes_are_refused(n: int, frame_bytes: int, hugepages: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Umem(n, frame_bytes, hugepages)


def test_memory_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(MemoryError, match="configure fewer frames"):
        Umem((1 << 31) - 1, 4096, "off")


@pytest.mark.parametrize(
    ("mtu", "frame_bytes"), [(68, 2048), (1500, 2048), (1774, 2048), (1775, 4096), (9000, 16384)]
)
def test_the_frame_for_an_mtu_is_the_smallest_that_holds_it(mtu: int, frame_bytes: int) -> None:
    assert frame_bytes_for(mtu) == frame_bytes
    assert max_mtu(frame_bytes) >= mtu


def test_an_mtu_too_large_for_any_frame_gets_the_largest() -> None:
    assert frame_bytes_for(65535) == 16384


@pytest.fixture
def umem_of() -> Iterator[Callable[[int], Umem]]:
    made: list[Umem] = []

    def make(n: int) -> Umem:
        made.append(Umem(n, 2048, "off"))
        return made[-1]

    yield make
    for umem in made:
        umem.close()


def test_a_pool_grows_by_frames_that_nobody_has(umem_of: Callable[[int], Umem]) -> None:
    umem = umem_of(10)
    first, second = umem.pool(4), umem.pool(2)
    grown = umem.grow(first, 3)
    assert (grown.n, grown.capacity, umem.left) == (7, 7, 1)
    everything = frames_of(grown, 10) + frames_of(second, 10)
    assert len(set(everything)) == 9
    with pytest.raises(ValueError, match="2 frames wanted, 1 of umem's 10 are left"):
        umem.grow(second, 2)


def test_frames_taken_from_a_pool_go_to_another_and_none_is_in_two(umem_of: Callable[[int], Umem]) -> None:
    umem = umem_of(8)
    first, second = umem.pool(6), umem.pool(2)
    in_a_ring = ffi.new("uint64_t[2]")
    assert lib.frame_pool_get(first, in_a_ring, 2) == 2
    assert umem.shrink(first, 100) == 4  # the two in the ring stay the pool's
    assert (first.n, first.capacity, umem.left) == (0, 2, 4)
    second = umem.grow(second, 4)
    for address in in_a_ring:
        lib.frame_pool_put(first, umem.c, address)
    everything = frames_of(first, 10) + frames_of(second, 10)
    assert sorted(everything) == [i * umem.frame_bytes for i in range(8)]
    assert umem.shrink(first, 5) == 0


def test_a_pool_of_another_umem_is_not_taken(umem_of: Callable[[int], Umem]) -> None:
    stranger = umem_of(4).pool(2)
    with pytest.raises(ValueError, match="is not in list"):
        umem_of(4).grow(stranger, 1)
