"""A device served over vfio-user: one socket, one client at a time, any number of clients in turn.

Nothing here blocks and nothing a client does ends the loop: what is wrong is answered with an errno, what cannot be
answered ends the connection, and the next client finds the device reset. While a client is connected others wait in
the socket's backlog.

Access to trapped registers is the hot path: _work cuts REGION_READ and REGION_WRITE out of the receive buffer with one
unpack each, all that one receive brought, and answers them with one send.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import stat
from collections.abc import Sequence

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.answers import Answers, ServerCounters
from ixroute.vfio_user.channel import DisconnectedError, Inbox, close_fds, send
from ixroute.vfio_user.device import Device
from ixroute.vfio_user.protocol import ProtocolError

log = logging.getLogger(__name__)

_OUT_LIMIT = 2 * p.MAX_MESSAGE
"""Replies held for a client that does not read them; nothing more of it is read until they have gone."""
_ACCEPT_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """Serves device at a path (made here, mode 0600, removed by close) or on a socket: one that listens, or one end
    of a connection. OSError when the path cannot be had.

    For a selectors loop: register fileno() for reading, call handle() whenever it is readable. All calls of the
    device come from handle() and close(). The device is not closed here.
    """

    def __init__(self, where: str | socket.socket, device: Device) -> None:
        self.device = device
        self.counters = ServerCounters()
        self.path = ""
        self.name = "vfio-user"
        self._path_id = (0, 0)
        self._client: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._closed = False
        self._accept_failed = False
        with contextlib.ExitStack() as undo:
            sock = self._listen(where) if isinstance(where, str) else where
            undo.callback(sock.close)
            sock.setblocking(False)
            self._epoll = select.epoll()
            undo.callback(self._epoll.close)
            self._stop_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.pop_all()
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._listener = sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)
        else:
            self._begin(sock)

    def fileno(self) -> int:
        """Readable when handle() has something to do. The same for the server's whole life."""
        return self._epoll.fileno()

    @property
    def connected(self) -> bool:
        return self._client is not None

    def handle(self) -> None:
        """Does what there is to do, at most one receive's worth; never waits, never raises."""
        why = ""
        try:
            if self._client is None:
                self._accept()
            elif self._out:
                self._drain(self._client)
                self._work(self._client)
            else:
                self._inbox.receive(self._client)
                self._work(self._client)
        except BlockingIOError:
            return
        except DisconnectedError as e:
            why = str(e)
        except ProtocolError as e:
            self.counters.broken += 1
            log.warning("%s: the client is disconnected: %s", self.name, e)
            why = str(e)
        except Exception as e:
            # A mistake of ours must not take the other cards of this process along.
            log.exception("%s: the client is disconnected", self.name)
            why = repr(e)
        if why:
            self._end(why)

    def serve_forever(self) -> None:
        """handle() in a loop until stop() is called, by any thread."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(self._stop_event, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._stop_event in ready:
                return
            self.handle()

    def stop(self) -> None:
        """serve_forever returns soon, now or when it is called."""
        os.eventfd_write(self._stop_event, 1)

    def close(self) -> None:
        """The client is disconnected, the path removed if it still is this server's. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._client is not None:
            self._end("the server closes")
        if self._listener is not None:
            self._listener.close()
        if self.path:
            with contextlib.suppress(OSError):
                found = os.stat(self.path)
                if (found.st_dev, found.st_ino) == self._path_id:
                    os.unlink(self.path)
        self._epoll.close()
        os.close(self._stop_event)

    # ---- connections ----

    def _listen(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            try:
                sock.bind(path)
            except OSError as e:
                if e.errno != errno.EADDRINUSE or _somebody_listens(path):
                    raise
                os.unlink(path)  # what a killed server left
                sock.bind(path)
            os.chmod(path, 0o600)  # before listen: nobody can have connected yet
            found = os.stat(path)
            self._path_id = (found.st_dev, found.st_ino)
            sock.listen(8)
        except OSError as e:
            sock.close()
            raise OSError(e.errno, f"{path}: {e.strerror or e}") from e
        self.path = self.name = path
        return sock

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError as e:
            if e.errno in _ACCEPT_ERRORS and not self._accept_failed:
                log.warning("%s: clients have to wait: %s", self.name, e.strerror)
                self._accept_failed = True
            return
        self._accept_failed = False
        client.setblocking(False)
        self._epoll.unregister(self._listener.fileno())
        self._begin(client)

    def _begin(self, client: socket.socket) -> None:
        self._client = client
        self._epoll.register(client.fileno(), select.EPOLLIN)
        self._inbox = Inbox()
        self._out: list[tuple[bytes, list[int]]] = []
        self._replies: list[bytes] = []
        self._held_bytes = 0
        self._answers = Answers(self.device, self.counters, self.name)
        self.counters.clients += 1
        log.info("%s: a client has connected", self.name)

    def _end(self, why: str) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self._epoll.unregister(client.fileno())
        client.close()
        self._inbox.close()
        for _, fds in self._out:
            close_fds(fds)
        self._out = []
        try:
            self.device.disconnected()
        except Exception:
            log.exception("%s: the device at its client's end", self.name)
        if self._listener is not None and not self._closed:
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        log.info("%s: the client has gone: %s", self.name, why)

    # ---- replies ----

    def _send(self, client: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
        """Now, or when the client has read what waits. The descriptors stay the caller's."""
        n = 0
        if not self._out:
            with contextlib.suppress(BlockingIOError):
                n = send(client, data, fds)
            if n == len(data):
                return
            self._epoll.modify(client.fileno(), select.EPOLLOUT)
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0) for fd in fds] if not n else []
        self._out.append((data[n:], kept))

    def _drain(self, client: socket.socket) -> None:
        """BlockingIOError while some is left."""
        while self._out:
            data, fds = self._out[0]
            n = send(client, data, fds)
            close_fds(fds)
            self._out[0] = (data[n:], [])
            if n == len(data):
                del self._out[0]
        self._epoll.modify(client.fileno(), select.EPOLLIN)

    def _flush(self, client: socket.socket) -> None:
        if self._replies:
            data = b"".join(self._replies)
            self._replies.clear()
            self._held_bytes = 0
            self._send(client, data)

    # ---- messages ----

    def _work(self, client: socket.socket) -> None:
        """Every whole message in the buffer, until replies wait that the client does not take."""
        try:
            while not self._out:
                if self._answers.negotiated and not self._inbox.fds:
                    self._accesses(self._inbox)
                if self._held_bytes > _OUT_LIMIT:
                    self._flush(client)
                    continue
                message = self._inbox.next()
                if message is None:
                    break
                self._command(client, *message)
        finally:
            self._flush(client)

    def _accesses(self, inbox: Inbox) -> None:
        """As many well-formed REGION_READ and REGION_WRITE as come next: the trapped registers."""
        buffer, view, at, end = inbox.buffer, inbox.view, inbox.start, inbox.end
        unpack, pack, size_of = p.ACCESS.unpack_from, p.ACCESS.pack, p.ACCESS.size
        read, write = self._answers.read, self._answers.write
        replies, n = self._replies, 0
        while end - at >= size_of and self._held_bytes <= _OUT_LIMIT:
            number, command, size, flags, _, offset, region, count = unpack(buffer, at)
            after = at + size
            data = b""
            if flags & p.TYPE_MASK or after > end or size > p.MAX_MESSAGE:
                break
            if command == p.REGION_WRITE and size == size_of + count:
                error = write(region, offset, bytes(view[at + size_of : after]))
            elif command == p.REGION_READ and size == size_of:
                data, error = read(region, offset, count)
            else:
                break
            at = after
            n += 1
            if flags & p.NO_REPLY:
                continue
            if error:
                replies.append(p.HEADER.pack(number, command, p.HEADER.size, p.REPLY | p.ERROR, error))
            else:
                replies.append(
                    pack(number, command, size_of + len(data), p.REPLY, 0, offset, region, count) + data
                )
            self._held_bytes += size_of + len(data)
        inbox.start = at
        self.counters.messages += n

    def _command(
        self, client: socket.socket, number: int, command: int, flags: int, _error: int, body: memoryview
    ) -> None:
        """Any message. ProtocolError when nothing after it can make sense."""
        fds = self._inbox.take_fds()
        self.counters.messages += 1
        name = p.command_name(command)
        try:
            if flags & p.TYPE_MASK != p.COMMAND:
                raise ProtocolError(f"a reply to {name}, which was never asked")
            error, reply, reply_fds = 0, b"", list[int]()
            try:
                reply, reply_fds = self._answers.answer(command, body, fds)
            except Exception as e:
                error = self._answers.code(e, name)
            if error:
                flags_out, reply, reply_fds = p.REPLY | p.ERROR, b"", []
            else:
                flags_out = p.REPLY
            if not flags & p.NO_REPLY:
                self._answer(client, p.message(number, command, reply, flags_out, error), reply_fds)
            if not self._answers.negotiated:
                raise ProtocolError(f"no version was agreed on: {self.counters.last_refused}")
        finally:
            close_fds(fds)

    def _answer(self, client: socket.socket, message: bytes, fds: Sequence[int]) -> None:
        if fds:
            self._flush(client)
            self._send(client, message, fds)
        else:
            self._replies.append(message)
            self._held_bytes += len(message)


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return not stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            return True
    return True
