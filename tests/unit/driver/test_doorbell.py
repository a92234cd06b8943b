"""Doorbells (driver/doorbell.h): each kind, and that no ring is slept through."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ixroute._dataplane import ffi, lib

HERE = Path(__file__).parent
PACKAGE = HERE.parents[2] / "ixroute"
EAGAIN, EINVAL = -11, -22


@pytest.fixture
def bell() -> Any:
    return ffi.new("struct doorbell *")


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_a_mapped_register_gets_the_value_and_nothing_else_happens(bell: Any) -> None:
    reg = ffi.new("uint32_t[3]")
    lib.doorbell_to_register(bell, reg + 1, -1, ffi.NULL)
    assert lib.doorbell_ring(bell, 0xFFFFFFFE) == 0
    assert list(reg) == [0, 0xFFFFFFFE, 0]
    assert (bell.kicks, bell.failed) == (0, 0)


def test_a_register_with_an_event_writes_it_each_time(bell: Any, event: int) -> None:
    reg = ffi.new("uint32_t *")
    lib.doorbell_to_register(bell, reg, event, ffi.NULL)
    for i in range(5):
        assert lib.doorbell_ring(bell, i) == 0
    assert (reg[0], os.eventfd_read(event), bell.kicks) == (4, 5, 5)


def test_a_register_of_a_device_that_may_sleep_writes_the_event_only_while_it_does(
    bell: Any, event: int
) -> None:
    reg, asleep = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    lib.doorbell_to_register(bell, reg, event, asleep)
    lib.doorbell_ring(bell, 1)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(event)
    asleep[0] = 0x80000000
    lib.doorbell_ring(bell, 2)
    assert (reg[0], os.eventfd_read(event), bell.kicks) == (2, 1, 1)


def test_an_event_that_can_count_no_further_is_no_failure(bell: Any, event: int) -> None:
    reg = ffi.new("uint32_t *")
    os.eventfd_write(event, 0xFFFFFFFFFFFFFFFE)
    lib.doorbell_to_register(bell, reg, event, ffi.NULL)
    assert lib.doorbell_ring(bell, 1) == 0
    assert (bell.kicks, bell.failed) == (1, 0)


def test_an_event_that_is_gone_is_a_failure_with_the_register_written(bell: Any) -> None:
    reg = ffi.new("uint32_t *")
    gone = os.eventfd(0)
    os.close(gone)
    lib.doorbell_to_register(bell, reg, gone, ffi.NULL)
    assert lib.doorbell_ring(bell, 9) == EAGAIN
    assert (reg[0], bell.failed) == (9, 1)


@pytest.mark.parametrize(("size", "at"), [(4, 0), (36, 32), (64, 60), (64, 13)])
def test_a_trapped_register_is_a_message_with_the_value_in_its_place(bell: Any, size: int, at: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message = os.urandom(size)
        assert lib.doorbell_to_socket(bell, ours.fileno(), message, size, at) == 0
        for value in (1, 0xFFFFFFFF):
            assert lib.doorbell_ring(bell, value) == 0
            assert theirs.recv(1000) == message[:at] + struct.pack("=I", value) + message[at + 4 :]
        assert (bell.kicks, bell.failed) == (2, 0)


@pytest.mark.parametrize(("size", "at"), [(65, 0), (3, 0), (0, 0), (36, 33), (4, 0xFFFFFFFF)])
def test_a_value_that_does_not_fit_its_message_is_refused(bell: Any, size: int, at: int) -> None:
    assert lib.doorbell_to_socket(bell, 0, bytes(80), size, at) == EINVAL


def test_a_full_socket_is_counted_and_loses_no_part_of_a_message(bell: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        lib.doorbell_to_socket(bell, ours.fileno(), bytes(36), 36, 32)
        results = [int(lib.doorbell_ring(bell, i)) for i in range(1000)]
        rung = [i for i, result in enumerate(results) if result == 0]
        assert set(results) == {0, EAGAIN}
        assert (bell.kicks, bell.failed) == (1000, 1000 - len(rung))
        got = theirs.recv(1 << 20)
        assert [value for (value,) in struct.iter_unpack("=32xI", got)] == rung
        assert lib.doorbell_ring(bell, 7) == 0


def test_a_socket_whose_other_end_is_gone_is_counted_and_kills_nobody(bell: Any) -> None:
    ours, theirs = socket.socketpair()
    lib.doorbell_to_socket(bell, ours.fileno(), bytes(36), 36, 32)
    theirs.close()
    assert lib.doorbell_ring(bell, 1) == EAGAIN
    ours.close()
    assert lib.doorbell_ring(bell, 1) == EAGAIN
    assert bell.failed == 2


def test_a_silenced_bell_touches_nothing(bell: Any, event: int) -> None:
    reg = ffi.new("uint32_t *")
    lib.doorbell_to_register(bell, reg, event, ffi.NULL)
    lib.doorbell_silence(bell)
    assert lib.doorbell_ring(bell, 1) == EAGAIN
    assert (reg[0], bell.failed) == (0, 1)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(event)


def test_no_ring_is_slept_through_in_ten_thousand_sleeps(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed: the package is built with one"
    program = tmp_path / "sleeper"
    sources = [
        HERE / "doorbell_sleeper.c",
        PACKAGE / "driver/doorbell.c",
        PACKAGE / "vfio_user/shared_event.c",
    ]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    built = subprocess.run(
        [compiler, *flags, f"-I{PACKAGE}", "-o", program, *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program, "10000"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
