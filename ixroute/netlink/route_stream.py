"""The kernel's route messages, from a netlink socket's file descriptor into the RIB, parsed in C.

A full table is a million messages a second; Python sees only how many there were and how a dump ended.
The socket is the caller's: an AF_NETLINK/NETLINK_ROUTE socket, subscribed to the route groups (events) or
with a dump requested on it. Use different sockets for the two, and one thread.

A dump, as a diff::

    rib.dump_begin(FAMILY_IP4)
    try:
        stream.receive_dump(fd, timeout_ms=5000)
    except OSError:             # EINTR: the tables changed under the dump; do it again
        rib.dump_abort(FAMILY_IP4)
        raise
    differences = rib.dump_end(FAMILY_IP4)
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.fib.rib import Rib
from ixroute.netlink.read_ahead import DumpReader

SMALL_DUMP = 8  # datagrams, some three hundred routes each: with fewer a second thread is not worth its start


@dataclass(frozen=True, slots=True)
class RouteStreamStats:
    """`messages`: given to the RIB. `ignored`: well-formed, not for us. `malformed`: skipped, nothing else
    lost.
    `overruns`: the kernel threw messages away (resync). `refused`: the RIB returned an error."""

    datagrams: int = 0
    messages: int = 0
    ignored: int = 0
    malformed: int = 0
    overruns: int = 0
    refused: int = 0


class RouteStream:
    """Feeds `rib`. MemoryError when there is no memory (it takes 2 MiB of receive buffers)."""

    def __init__(self, rib: Rib) -> None:
        self._rib = rib
        self._c = lib.route_stream_create(rib.c)
        if self._c == ffi.NULL:
            raise MemoryError("route_stream_create")

    @property
    def c(self) -> Any:
        """`struct route_stream *`, valid until `close`."""
        return self._c

    def close(self) -> None:
        """Frees the C object; the socket is the caller's. May be called twice."""
        if self._c != ffi.NULL:
            lib.route_stream_destroy(self._c)
            self._c = ffi.NULL

    def __enter__(self) -> RouteStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self, fd: int, max: int = 1024) -> int:  # noqa: A002 (as in route_stream.h)
        """Applies the events that are there, at most `max` datagrams, without blocking. How many were
        received.

        OSError ENOBUFS: the kernel threw messages away: resync (the socket goes on working). Else the
        errno of recv.
        """
        return _checked(lib.route_stream_receive(self._c, fd, max), "route events")

    def receive_dump(self, fd: int, timeout_ms: int) -> None:
        """Applies the answers of a dump until its end.

        OSError ETIMEDOUT: no datagram for timeout_ms; EINTR: the tables changed meanwhile, dump again;
        ENOBUFS: answers were lost; any other errno: what the kernel answered. The socket is non-blocking
        afterwards.
        """
        lib.route_stream_dump_begin(self._c)
        with (
            socket.socket(fileno=os.dup(fd)) as sock,
            DumpReader(sock, timeout_ms) as reader,
        ):
            done, datagrams = False, 0
            while not done:
                if datagrams == SMALL_DUMP:
                    reader.ahead()
                done = self.feed(reader.next(), dump=True)
                datagrams += 1

    def feed(self, datagram: bytes | bytearray | memoryview, dump: bool = False) -> bool:
        """Applies one datagram (`dump`: of a dump). True when it ended the dump. OSError as receive_dump."""
        data = ffi.from_buffer("uint8_t[]", datagram)
        return _checked(lib.route_stream_feed(self._c, data, len(data), dump), "route dump") == 1

    def stats(self) -> RouteStreamStats:
        out = ffi.new("struct route_stream_stats *")
        lib.route_stream_stats_read(self._c, out)
        return RouteStreamStats(
            **{name: int(getattr(out, name)) for name in RouteStreamStats.__dataclass_fields__}
        )


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return int(result)
