"""Bytes and descriptors of a UNIX stream socket, cut into whole messages.

A stream knows no messages, and the kernel only promises that descriptors arrive with a byte of the piece they were
sent with: a receive ends behind the piece whose descriptors it returns (net/unix/af_unix.c, unix_stream_read_generic).
So descriptors belong to the last message of which that receive brought a byte, provided that no message with
descriptors is sent together with another; every known implementation keeps to that, and so does send() here.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Sequence

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.protocol import ProtocolError

SCM_MAX_FD = 253
"""The most that Linux passes with one piece: with room for so many no descriptor is ever cut off."""
_ANCILLARY_BYTES = socket.CMSG_SPACE(SCM_MAX_FD * 4)
_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
ATOMIC_BYTES = 2048
"""A message up to this size enters the socket whole or not at all, and never between two halves of another one.

Linux makes one buffer of all that is sent at once, up to half of SO_SNDBUF less 64 bytes (unix_stream_sendmsg), and
SO_SNDBUF is never below 4608: one buffer is put in the queue under its lock, or EAGAIN is returned. Several threads, C
and Python, may therefore send messages of this size on one socket without a lock of their own.
"""


class DisconnectedError(Exception):
    """The other side has closed the connection, or is gone."""


def close_fds(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


class Inbox:
    """buffer[start:end] are bytes not yet taken.

    receive() and then next() until it gives None; a server's hot path cuts messages out by itself and moves start.
    Whoever takes a message takes its descriptors too (take_fds).
    """

    def __init__(self, max_message: int = p.MAX_MESSAGE) -> None:
        self.max_message = max_message
        self.buffer = bytearray(2 * max_message)
        self.view = memoryview(self.buffer)
        self.start = 0
        self.end = 0
        self.fds: list[tuple[int, list[int]]] = []
        """(where the message begins that they came with, descriptors); seldom more than one."""
        self._taken = 0

    def receive(self, sock: socket.socket) -> None:
        """One system call on a non-blocking socket. BlockingIOError when there is nothing, DisconnectedError at the
        end of the stream.

        ProtocolError when descriptors are lost or too many. All whole messages must have been taken before.
        """
        if self.start:
            self._move_to_front()
        try:
            n, ancillary, flags, _ = sock.recvmsg_into([self.view[self.end :]], _ANCILLARY_BYTES, _FLAGS)
        except BlockingIOError:
            raise
        except OSError as e:
            raise DisconnectedError(e.strerror) from e
        self.end += n
        got = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                got.frombytes(data[: len(data) - len(data) % got.itemsize])
        if got:
            self.fds.append((self._last_begins(), list(got)))
        if not n:
            raise DisconnectedError("the connection was closed")
        if flags & socket.MSG_CTRUNC or sum(len(fds) for _, fds in self.fds) > SCM_MAX_FD:
            raise ProtocolError("more descriptors than one message may have")

    def _move_to_front(self) -> None:
        left = self.end - self.start
        self.view[:left] = self.view[self.start : self.end]
        self.fds = [(at - self.start, fds) for at, fds in self.fds]
        self.start, self.end = 0, left

    def _last_begins(self) -> int:
        at = self.start
        while self.end - at >= p.HEADER.size:
            size = p.HEADER.unpack_from(self.buffer, at)[2]
            if size < p.HEADER.size or at + size >= self.end:
                break
            at += size
        return at

    def next(self) -> tuple[int, int, int, int, memoryview] | None:
        """(id, command, flags, errno, body) of the next whole message. The body is valid until receive().

        ProtocolError when what follows is no message: nothing after it can be trusted.
        """
        have = self.end - self.start
        if have < p.HEADER.size:
            return None
        number, command, size, flags, error = p.HEADER.unpack_from(self.buffer, self.start)
        if not p.HEADER.size <= size <= self.max_message:
            raise ProtocolError(
                f"a message of {size} bytes, must be from {p.HEADER.size} to {self.max_message}"
            )
        if have < size:
            return None
        body = self.view[self.start + p.HEADER.size : self.start + size]
        self._taken = self.start
        self.start += size
        return number, command, flags, error, body

    def take_fds(self, begins: int | None = None) -> list[int]:
        """The descriptors of the message that begins there (None: that next() gave): the caller's from now on."""
        at = self._taken if begins is None else begins
        got = [fd for owner, fds in self.fds if owner == at for fd in fds]
        if got:
            self.fds = [entry for entry in self.fds if entry[0] != at]
        return got

    def close(self) -> None:
        """Closes the descriptors that nobody took."""
        for _, fds in self.fds:
            close_fds(fds)
        self.fds = []
        self.start = self.end = 0


def send(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> int:
    """One system call: how many bytes went, the descriptors with the first of them. BlockingIOError when none
    would, DisconnectedError when nobody is there any more."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        return sock.sendmsg([data], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except BlockingIOError:
        raise
    except OSError as e:
        raise DisconnectedError(e.strerror) from e
