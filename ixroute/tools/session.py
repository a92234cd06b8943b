"""What every tool begins with: memory, ports, and for each thread its queues and its frames (lane.h)."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.kinds import frame_bytes_wanted, frames_wanted, mtu_of, open_port
from ixroute.driver.port import Port, PortOptions
from ixroute.driver.umem import Umem

SLICE_NS = 100_000_000
"""How long C runs before Python looks whether it is to end."""
SPARE_FRAMES = 512
NEVER_SLEEP = 2**64 - 1
DEFAULT_IDLE_US = 50


@dataclass(frozen=True)
class Wait:
    """When nothing comes: polls for idle_ns in vain, then sleeps until a packet comes."""

    idle_ns: int = DEFAULT_IDLE_US * 1000


ADAPTIVE = Wait()


class Session(contextlib.ExitStack):
    """Ports opened for `threads` threads, each with its queue of every port. A context manager.

    Raises PortError, MemoryError, ValueError.
    """

    def __init__(
        self, specs: Sequence[str], threads: int = 1, options: PortOptions | None = None, mtu: int = 0
    ) -> None:
        """mtu: the largest packet the tool wants to make, when that is more than the devices' own."""
        super().__init__()
        self.options = options or PortOptions()
        self.threads = threads
        self.frames_per_thread = SPARE_FRAMES + sum(
            frames_wanted(spec, threads, self.options) for spec in specs
        )
        frame_bytes = max(frame_bytes_wanted(spec, max(mtu, mtu_of(spec))) for spec in specs)
        self.umem = Umem(self.frames_per_thread * threads, frame_bytes)
        self.callback(self.umem.close)
        self.ports: list[Port] = []
        try:
            for index, spec in enumerate(specs):
                port = open_port(spec, index, spec, self.umem, threads, self.options)
                self.callback(port.close)
                self.ports.append(port)
        except BaseException:
            self.close()
            raise

    def fill_lane(self, lane: Any, thread: int, burst: int, wait: Wait) -> None:
        """Gives a `struct lane` the queues and frames of one thread."""
        for number, port in enumerate(self.ports):
            queues = port.queues()[thread :: self.threads]
            if len(queues) > lib.LANE_QUEUES:
                raise ValueError(
                    f"{port.spec}: {len(queues)} queues for one thread; at most {lib.LANE_QUEUES}"
                )
            for i, queue in enumerate(queues):
                lane.side[number].queue[i] = queue
            lane.side[number].n = len(queues)
        lane.pool = self.umem.pool(self.frames_per_thread)
        lane.burst = burst
        lane.idle_ns = wait.idle_ns

    def wait_for_link(self, seconds: float) -> bool:
        """Whether every port has a link, after at most so long."""
        end = time.monotonic() + seconds
        while not (up := all(port.link().up for port in self.ports)) and time.monotonic() < end:
            time.sleep(0.05)
            for port in self.ports:
                port.service()
        return up


def run_threads(
    calls: Sequence[Callable[[int], bool]],
    seconds: float | None,
    every_second: Callable[[], None],
    cores: Sequence[int] = (),
) -> None:
    """Each call in a thread of its own, again and again with the time (CLOCK_MONOTONIC, ns) until which it may run,
    until one returns False (there is no more to do), `seconds` have passed, or Ctrl-C. cores: where they run."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run(number: int, call: Callable[[int], bool]) -> None:
        try:
            if cores:
                os.sched_setaffinity(0, {cores[number % len(cores)]})
            while not stop.is_set():
                if not call(time.monotonic_ns() + SLICE_NS):
                    stop.set()
        except BaseException as error:  # told to the one who waits below
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    for thread in threads:
        thread.start()
    try:
        while not stop.wait(min(1.0, max(0.0, end - time.monotonic()))) and time.monotonic() < end:
            every_second()
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def new(kind: str) -> Any:
    """A zeroed C structure."""
    return ffi.new(f"{kind} *")
