"""Receives a dump in a thread of its own while what came before is applied.

The kernel makes the answers of a dump inside recvmsg(2): of a full table that is more than half of the work, and
another core can do it. Python sees a few thousand datagrams of 32 KiB; both the receiving and the applying run
without the interpreter lock.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
import threading
from contextlib import suppress

from ixroute.netlink import sockets

MOST_AHEAD = 64  # datagrams: 2 MiB


class DumpReader:
    """The datagrams of the dump that was asked for on `sock`, in order; non-blocking from now on.

    next() gives them; ahead() lets a thread fetch them from then on, which ends with the block:
    `with DumpReader(sock, 5000) as reader`.
    """

    def __init__(self, sock: socket.socket, timeout_ms: int) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._timeout_ms = timeout_ms
        self._stop = -1
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._queue: queue.Queue[bytes | OSError] = queue.Queue(MOST_AHEAD)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> DumpReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        os.eventfd_write(self._stop, 1)
        with suppress(queue.Empty):  # it may wait for room; a whole queue is enough for what it still puts
            while True:
                self._queue.get_nowait()
        self._thread.join()
        os.close(self._stop)
        self._thread = None

    def ahead(self) -> None:
        """Starts the thread. Once."""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._stop, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="ixroute-dump", daemon=True)
        self._thread.start()

    def next(self) -> bytes:
        """OSError: ETIMEDOUT, none came in time; else the errno of recv."""
        item = self._receive() if self._thread is None else self._queue.get()
        if isinstance(item, OSError):
            raise item
        assert item is not None, "only stop makes it None"
        return item

    def _run(self) -> None:
        item: bytes | OSError | None = b""
        while isinstance(item, bytes):
            try:
                item = self._receive()
            except OSError as error:
                item = error
            if item is not None:
                self._queue.put(item)

    def _receive(self) -> bytes | None:
        """None: told to stop."""
        while True:
            ready = self._poll.poll(self._timeout_ms)
            if any(fd == self._stop for fd, _ in ready):
                return None
            if not ready:
                raise OSError(errno.ETIMEDOUT, f"route dump: no answer for {self._timeout_ms} ms")
            datagram = sockets.receive(self._sock)
            if datagram is not None:
                return datagram
