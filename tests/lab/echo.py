"""A worker in C, without the interpreter's lock: what a queue receives it sends again. tools/fwd.c with one queue."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from types import TracebackType
from typing import Any

from ixroute._dataplane import ffi, lib

NEVER_SLEEPS = (1 << 64) - 1
LONGEST_NS = 110 * 10**9


class Echo:
    """Runs from enter to exit. idle_ns: so long without packets, and it sleeps until there is one; NEVER_SLEEPS."""

    def __init__(self, queue: Any, pool: Any, idle_ns: int = NEVER_SLEEPS, burst: int = 32) -> None:
        self._fwd = ffi.new("struct fwd *")
        lane = self._fwd.lane
        lane.side[0].queue[0] = lane.side[1].queue[0] = queue
        lane.side[0].n = 1  # nothing is received by the other side, whose first queue sends
        lane.pool, lane.burst, lane.idle_ns = pool, burst, idle_ns
        self._queue = queue
        until = time.monotonic_ns() + LONGEST_NS
        self._thread = threading.Thread(target=lib.fwd_run, args=(self._fwd, until), daemon=True)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lib.lane_stop(ffi.addressof(self._fwd.lane))
        if self._queue.wait_fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self._queue.wait_fd, 1)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the worker does not end"

    @property
    def received(self) -> int:
        return int(self._fwd.way[0].rx_packets)

    @property
    def sent(self) -> int:
        return int(self._fwd.way[0].tx_packets)

    @property
    def dropped(self) -> int:
        """Received and not sent: the transmit ring was full."""
        return int(self._fwd.way[0].dropped)
