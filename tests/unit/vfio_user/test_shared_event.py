"""Eventfds whose other holder plays with them (vfio_user/shared_event.h)."""

from __future__ import annotations

import errno
import os

import pytest

from ixroute._dataplane import lib

FULL = (1 << 64) - 2


@pytest.mark.parametrize("blocking", [False, True])
def test_an_event_is_given_and_taken_and_neither_ever_waits(blocking: bool) -> None:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    os.set_blocking(fd, blocking)
    assert lib.shared_event_take(fd) == 0
    assert [lib.shared_event_give(fd) for _ in range(3)] == [0, 0, 0]
    assert lib.shared_event_take(fd) == 3
    os.eventfd_write(fd, FULL)
    assert lib.shared_event_give(fd) == -errno.EAGAIN
    assert lib.shared_event_take(fd) == FULL
    assert lib.shared_event_take(fd) == 0
    os.close(fd)


def test_what_is_no_event_is_an_error_and_nothing_more() -> None:
    with open("/dev/null", "rb") as null:
        assert lib.shared_event_take(null.fileno()) == 0
        assert lib.shared_event_give(null.fileno()) < 0
    assert lib.shared_event_take(-1) == 0
    assert lib.shared_event_give(-1) < 0
