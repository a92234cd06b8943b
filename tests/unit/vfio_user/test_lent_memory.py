"""Memory that another process lent and takes back (vfio_user/lent.py): an access to it ends nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.vfio_user.lent import LentMemory

PAGE = 4096


@contextlib.contextmanager
def lent(size: int = 4 * PAGE) -> Iterator[tuple[int, LentMemory]]:
    fd = os.memfd_create("lent", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    memory = LentMemory(fd, size)
    yield fd, memory
    memory.close()
    os.close(fd)


def test_it_is_the_file_until_the_file_is_cut_and_zeros_afterwards() -> None:
    with lent() as (fd, memory):
        os.pwrite(fd, b"here", PAGE)
        assert bytes(memory.bytes[PAGE : PAGE + 4]) == b"here"
        memory.bytes[0] = 7
        assert os.pread(fd, 1, 0) == b"\7"
        os.ftruncate(fd, PAGE)
        assert memory.bytes[0] == 7
        assert not memory.lost
        assert memory.bytes[PAGE] == 0
        assert memory.lost
        memory.bytes[3 * PAGE] = 9
        assert memory.bytes[3 * PAGE] == 9
        assert memory.bytes[0] == 0


def test_other_memory_is_as_it_was() -> None:
    with lent() as (fd, gone), lent() as (_, kept):
        kept.bytes[PAGE] = 5
        os.ftruncate(fd, 0)
        gone.bytes[PAGE] = 1
        assert (gone.lost, kept.lost) == (True, False)
        assert kept.bytes[PAGE] == 5


def test_less_than_is_asked_for_is_refused() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGE)
        for size, offset in ((PAGE + 1, 0), (PAGE, PAGE), (1, 1 << 62)):
            with pytest.raises(OSError, match="ends before"):
                LentMemory(file.fileno(), size, offset)
        with pytest.raises(OSError, match="Invalid argument"):
            LentMemory(file.fileno(), 16, 8)


def test_too_many_are_refused_and_places_are_used_again() -> None:
    page = ffi.new("uint8_t[]", 2 * PAGE)
    places = []
    while (place := lib.lent_add(page, PAGE)) >= 0:
        places.append(place)
    assert place == -28  # ENOSPC
    for taken in places:
        lib.lent_remove(taken)
    again = lib.lent_add(page, PAGE)
    assert again == places[0]
    lib.lent_remove(again)


def test_many_threads_meet_the_hole_at_once() -> None:
    for _ in range(20):
        with lent(64 * PAGE) as (fd, memory):
            os.ftruncate(fd, 0)
            start = threading.Barrier(4)

            def touch(first: int, memory: LentMemory = memory, start: threading.Barrier = start) -> None:
                start.wait(10)
                for page in range(first, 64, 4):
                    memory.bytes[page * PAGE] = page

            threads = [threading.Thread(target=touch, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            assert [memory.bytes[page * PAGE] for page in range(64)] == list(range(64))


OWN_FAULT = """
import mmap, os
from ixroute.vfio_user.lent import LentMemory
fd = os.memfd_create("lent")
os.ftruncate(fd, 4096)
lent = LentMemory(fd, 4096)
other = mmap.mmap(fd, 4096)
os.ftruncate(fd, 0)
lent.bytes[0] = 1
print("alive", flush=True)
"""


@pytest.mark.parametrize("what", ["other[0]", "os.kill(os.getpid(), 7)"])
def test_a_bus_error_of_something_else_still_ends_the_process(what: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    if "LD_PRELOAD" in os.environ:
        pytest.skip("the sanitizer has a handler of its own")
    done = subprocess.run(
        [sys.executable, "-c", OWN_FAULT + what],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
        check=False,
    )
    assert done.stdout == "alive\n", done.stderr
    assert done.returncode == -signal.SIGBUS


def test_a_handler_that_was_there_before_is_asked_for_the_rest() -> None:
    code = "import signal\nsignal.signal(signal.SIGBUS, lambda *_: print('mine', flush=True))\n"
    if "LD_PRELOAD" in os.environ:
        pytest.skip("the sanitizer has a handler of its own")
    done = subprocess.run(
        [sys.executable, "-c", code + OWN_FAULT + "os.kill(os.getpid(), 7)"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("alive\nmine\n", 0), done.stderr
