"""Messages and descriptors cut out of a stream (vfio_user/channel.py)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vfio_user_rig import open_fds

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.channel import ATOMIC_BYTES, SCM_MAX_FD, DisconnectedError, Inbox, send


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    before = open_fds()
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()
    assert open_fds() == before


def received(inbox: Inbox, sock: socket.socket) -> list[tuple[int, bytes, list[int]]]:
    """(id, body, descriptors) of all messages that can be had now."""
    found = []
    while True:
        while (got := inbox.next()) is not None:
            found.append((got[0], bytes(got[4]), inbox.take_fds()))
        try:
            inbox.receive(sock)
        except BlockingIOError:
            return found


# Each message: length of its body, its descriptors, where it is cut in pieces, whether the other side reads first.
MESSAGES = st.lists(
    st.tuples(st.integers(0, 48), st.integers(0, 3), st.lists(st.integers(1, 63), max_size=3), st.booleans()),
    max_size=12,
)


@settings(deadline=None)
@given(MESSAGES)
def test_each_message_gets_its_own_descriptors_however_it_is_cut(
    messages: list[tuple[int, int, list[int], bool]],
) -> None:
    before = open_fds()
    a, b = socket.socketpair()
    inbox = Inbox(max_message=64)
    wanted = []
    got = []
    for number, (length, n_fds, cuts, read_first) in enumerate(messages):
        if read_first:
            got += received(inbox, b)
        fds = [os.memfd_create(f"{number}-{i}") for i in range(n_fds)]
        names = [os.fstat(fd).st_ino for fd in fds]
        data = p.message(number, 9, os.urandom(length))
        wanted.append((number, data[16:], names))
        at = 0
        for cut in [*sorted(set(cuts)), len(data)]:
            if at < min(cut, len(data)):
                send(a, data[at:cut], fds if not at else ())
                at = cut
        for fd in fds:
            os.close(fd)
    got += received(inbox, b)
    seen = []
    for number, body, fds in got:
        seen.append((number, body, [os.fstat(fd).st_ino for fd in fds]))
        assert not any(os.get_inheritable(fd) for fd in fds)
        for fd in fds:
            os.close(fd)
    a.close()
    b.close()
    assert seen == wanted
    assert open_fds() == before


def test_descriptors_that_nobody_takes_are_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    a, b = ends
    inbox = Inbox()
    send(a, p.message(1, 9, b"half a message")[:20], [a.fileno(), b.fileno()])
    inbox.receive(b)
    assert inbox.next() is None
    inbox.close()


@pytest.mark.parametrize("size", [0, 15, 65, 0xFFFFFFFF])
def test_a_message_of_an_impossible_size_ends_the_stream(
    ends: tuple[socket.socket, socket.socket], size: int
) -> None:
    a, b = ends
    inbox = Inbox(max_message=64)
    send(a, p.HEADER.pack(1, 9, size, 0, 0))
    inbox.receive(b)
    with pytest.raises(p.ProtocolError):
        inbox.next()


def test_more_descriptors_than_a_message_can_have_are_refused(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    a, b = ends
    inbox = Inbox()
    data = p.message(1, 9, bytes(64))
    send(a, data[:20], [a.fileno()] * SCM_MAX_FD)
    inbox.receive(b)
    send(a, data[20:40], [a.fileno()])
    with pytest.raises(p.ProtocolError):
        inbox.receive(b)
    inbox.close()


def test_the_end_of_the_stream_is_told_after_its_last_message(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    a, b = ends
    inbox = Inbox()
    send(a, p.message(1, 9))
    a.shutdown(socket.SHUT_RDWR)
    inbox.receive(b)
    assert inbox.next() is not None
    with pytest.raises(DisconnectedError):
        inbox.receive(b)
    with pytest.raises(DisconnectedError):
        send(b, b"1")


def test_a_short_message_enters_the_smallest_socket_whole_or_not_at_all() -> None:
    a, b = socket.socketpair()
    with a, b:
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel makes its minimum of it
        for size in (36, 64, 1000, ATOMIC_BYTES):
            sent = 0
            while (n := sent_now(a, size)) is not None:
                assert n == size
                sent += n
            assert sent
            while sent:
                sent -= len(b.recv(sent))


def sent_now(sock: socket.socket, size: int) -> int | None:
    try:
        return send(sock, bytes(size))
    except BlockingIOError:
        return None
