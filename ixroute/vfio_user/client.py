"""A client's end of a vfio-user connection: a request goes out, its reply comes back, within a time limit.

Every request is short enough to enter the socket whole or not at all (channel.ATOMIC_BYTES): C may send prepared
messages on the same socket at any time, from any thread, and needs no lock of ours. The lock here keeps a reply with
the thread that asked for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Sequence

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.channel import ATOMIC_BYTES, SCM_MAX_FD, DisconnectedError, Inbox, close_fds, send
from ixroute.vfio_user.protocol import ProtocolError


class RefusedError(Exception):
    """The server's answer was an errno."""

    def __init__(self, command: int, code: int) -> None:
        super().__init__(f"the server refuses {p.command_name(command)}: {os.strerror(code)}")
        self.errno = code


class GoneError(Exception):
    """There is no server any more, or it was silent for too long, or what it says is not the protocol.

    Final: after the first one every call raises it at once, and the server sees the connection end.
    """


class Client:
    """Takes over a connected socket, also when it raises: GoneError when no version can be agreed on in timeout_s."""

    def __init__(self, sock: socket.socket, timeout_s: float = 5.0) -> None:
        self.socket = sock
        self.timeout_s = timeout_s
        self.gone = ""
        """Why there is no server any more; empty while there is."""
        self._number = 0
        self._lock = threading.Lock()
        self._inbox = Inbox()
        self._readable = select.poll()
        self._writable = select.poll()
        sock.setblocking(False)
        self._readable.register(sock.fileno(), select.POLLIN)
        self._writable.register(sock.fileno(), select.POLLOUT)
        try:
            self.server = self._negotiate()
            """What the server can take."""
        except GoneError:
            self.close()
            raise

    def _negotiate(self) -> p.Capabilities:
        ours = p.Capabilities(max_msg_fds=SCM_MAX_FD, max_data_xfer_size=p.MAX_TRANSFER)
        try:
            body, _ = self.call(p.VERSION, p.Version(capabilities=ours).pack())
            answer = p.Version.unpack(body)
        except (RefusedError, ProtocolError) as e:
            raise self._fail(str(e)) from e
        if answer.major != p.MAJOR or answer.minor > p.MINOR:
            raise self._fail(f"the server speaks version {answer.major}.{answer.minor} of the protocol")
        return answer.capabilities

    def call(
        self, command: int, body: bytes = b"", fds: Sequence[int] = (), want_fds: int = 0
    ) -> tuple[bytes, list[int]]:
        """The reply's body and descriptors (at most want_fds; the caller's). RefusedError, GoneError."""
        with self._lock:
            deadline = time.monotonic() + self.timeout_s
            self._number = number = (self._number + 1) & 0xFFFF
            self._put(p.message(number, command, body), fds, deadline, command)
            while True:
                got = self._next(deadline, command)
                if got[0] != number or got[2] & p.TYPE_MASK != p.REPLY:
                    self._aside(got, deadline)
                    continue
                return self._reply(command, got, want_fds)

    def _reply(
        self, command: int, got: tuple[int, int, int, int, memoryview], want_fds: int
    ) -> tuple[bytes, list[int]]:
        _, answered, flags, error, body = got
        fds = self._inbox.take_fds()
        if answered != command or len(fds) > want_fds:
            close_fds(fds)
            raise self._fail(f"a strange reply to {p.command_name(command)}")
        if flags & p.ERROR:
            close_fds(fds)
            raise RefusedError(command, error or errno.EIO)
        return bytes(body), fds

    def _aside(self, got: tuple[int, int, int, int, memoryview], deadline: float) -> None:
        """What is no reply to us. A server may ask for memory that it cannot map; all of ours can be."""
        number, command, flags, _, _ = got
        close_fds(self._inbox.take_fds())
        if flags & p.TYPE_MASK == p.COMMAND and not flags & p.NO_REPLY:
            refusal = p.message(number, command, b"", p.REPLY | p.ERROR, errno.ENOTSUP)
            self._put(refusal, (), deadline, command)

    def post(self, message: bytes) -> None:
        """Sends a whole message that wants no reply; waits only while the socket is full. GoneError."""
        try:
            if not self.gone:
                send(self.socket, message)
                return
        except (BlockingIOError, DisconnectedError):
            pass
        self._put(message, (), time.monotonic() + self.timeout_s, p.REGION_WRITE)

    def _put(self, message: bytes, fds: Sequence[int], deadline: float, command: int) -> None:
        if len(message) > ATOMIC_BYTES:
            raise ValueError(f"a message of {len(message)} bytes: {ATOMIC_BYTES} at most")
        while True:
            if self.gone:
                raise GoneError(self.gone)
            try:
                send(self.socket, message, fds)
                return
            except BlockingIOError:
                self._wait(self._writable, deadline, command)
            except DisconnectedError as e:
                raise self._fail(f"the server has gone ({e})") from e

    def _next(self, deadline: float, command: int) -> tuple[int, int, int, int, memoryview]:
        while True:
            try:
                got = self._inbox.next()
                if got is not None:
                    return got
                self._wait(self._readable, deadline, command)
                self._inbox.receive(self.socket)
            except BlockingIOError:
                continue
            except DisconnectedError as e:
                raise self._fail(f"the server has gone ({e})") from e
            except ProtocolError as e:
                raise self._fail(f"the server does not speak the protocol: {e}") from e

    def _wait(self, poll: select.poll, deadline: float, command: int) -> None:
        left_ms = (deadline - time.monotonic()) * 1000
        if left_ms <= 0 or not poll.poll(left_ms):
            raise self._fail(f"the server did not answer {p.command_name(command)} in {self.timeout_s:g} s")

    def _fail(self, why: str) -> GoneError:
        """From now on nothing is sent or received. The descriptor stays open until close(): C may still ring
        doorbells on its number."""
        if not self.gone:
            self.gone = why
            with contextlib.suppress(OSError):  # the other side was quicker
                self.socket.shutdown(socket.SHUT_RDWR)
        return GoneError(self.gone)

    def give_up(self, why: str) -> GoneError:
        """The connection is ended: the server is not what it said it is."""
        return self._fail(why)

    def alive(self) -> bool:
        """Asks the socket, without waiting, whether the server still holds its end."""
        if not self.gone and self._readable.poll(0):
            try:
                if not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    self._fail("the server has gone (the connection was closed)")
            except BlockingIOError:
                pass
            except OSError as e:
                self._fail(f"the server has gone ({e.strerror})")
        return not self.gone

    def close(self) -> None:
        """No doorbell of C may use the socket any more. Idempotent."""
        self.gone = self.gone or "the connection was closed here"
        self._inbox.close()
        self.socket.close()
