"""Datagrams of a dump, fetched by a thread ahead of their reader: none lost, none out of order, and it ends."""

from __future__ import annotations

import errno
import itertools
import socket
import threading
from collections.abc import Iterator

import pytest

from ixroute.netlink import sockets
from ixroute.netlink.messages import RTM_GETLINK
from ixroute.netlink.read_ahead import MOST_AHEAD, DumpReader

NOBODY_WAITS_SO_LONG_MS = 3_600_000


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with sockets.open_requests() as opened:
        yield opened


def ask(sock: socket.socket) -> None:
    body = bytes(16)  # struct ifinfomsg: all links
    sock.send(sockets.request(RTM_GETLINK, sockets.NLM_F_DUMP, 7, body))


def fetchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ixroute-dump"]


@pytest.mark.parametrize("ahead", [False, True])
def test_a_dump_comes_whole(sock: socket.socket, ahead: bool) -> None:
    ask(sock)
    types = []
    with DumpReader(sock, 5000) as reader:
        if ahead:
            reader.ahead()
        while sockets.NLMSG_DONE not in types:
            types += [message.type for message in sockets.split(reader.next())]
    assert len(types) > 1
    assert types[-1] == sockets.NLMSG_DONE
    assert not fetchers()


def test_order_is_kept_and_no_more_than_a_queue_is_fetched_ahead(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(sock)  # never received: the socket stays readable
    numbers = itertools.count()
    monkeypatch.setattr(sockets, "receive", lambda _: b"%d" % next(numbers))
    with DumpReader(sock, 5000) as reader:
        reader.ahead()
        assert [int(reader.next()) for _ in range(1000)] == list(range(1000))
    assert not fetchers()
    assert next(numbers) <= 1000 + 2 * MOST_AHEAD + 2


@pytest.mark.parametrize("ahead", [False, True])
def test_silence_is_an_error(sock: socket.socket, ahead: bool) -> None:
    with DumpReader(sock, 10) as reader:
        if ahead:
            reader.ahead()
        with pytest.raises(OSError, match="no answer") as failure:
            reader.next()
    assert failure.value.errno == errno.ETIMEDOUT
    assert not fetchers()


def test_the_blocks_end_ends_a_thread_that_waits(sock: socket.socket) -> None:
    with DumpReader(sock, NOBODY_WAITS_SO_LONG_MS) as reader:
        reader.ahead()
        assert fetchers()
    assert not fetchers()


def test_what_recv_refuses_comes_in_its_place(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(sock)
    answers: Iterator[bytes | OSError] = iter([b"first", OSError(errno.ENOBUFS, "lost")])

    def receive(_: socket.socket) -> bytes:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(sockets, "receive", receive)
    with DumpReader(sock, 5000) as reader:
        reader.ahead()
        assert reader.next() == b"first"
        with pytest.raises(OSError, match="lost"):
            reader.next()
    assert not fetchers()
