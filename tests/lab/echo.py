"""A worker in a thread of its own: what a queue receives it sends again."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from types import TracebackType
from typing import Any

from ixroute._dataplane import ffi, lib

NEVER_SLEEPS = (1 << 64) - 1
SLICE_NS = 20_000_000


class Echo:
    """Runs from enter to exit. idle_ns: so long without packets, and it sleeps until there is one; NEVER_SLEEPS.

    With 0 it sleeps without any limit whenever a burst was empty, so that nothing but an event wakes it: a wake-up that
    is lost stays lost. Else it is C (tools/fwd.c with one queue), in slices of 20 ms.
    """

    def __init__(self, queue: Any, pool: Any, idle_ns: int = NEVER_SLEEPS, burst: int = 32) -> None:
        self._fwd = ffi.new("struct fwd *")
        lane = self._fwd.lane
        lane.side[0].queue[0] = lane.side[1].queue[0] = queue
        lane.side[0].n = 1  # nothing is received by the other side, whose first queue sends
        lane.pool, lane.burst, lane.idle_ns = pool, burst, idle_ns
        self._queue = queue
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(idle_ns == 0,), daemon=True)

    def _run(self, sleeps: bool) -> None:
        while not self._stop.is_set():
            before = self.received
            lib.fwd_run(self._fwd, 0 if sleeps else time.monotonic_ns() + SLICE_NS)  # 0: one pass
            if sleeps and self.received == before:
                lib.queues_wait([self._queue], 1, -1)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
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
