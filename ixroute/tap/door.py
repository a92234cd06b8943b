"""The kernel's door from Python: lanes, event descriptors, and the thread that serves them (door.h)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.tap.loop import CLoop

_COUNTER_CELLS = (
    "written_packets",
    "written_bytes",
    "write_failed",
    "read_packets",
    "read_bytes",
    "read_failed",
    "read_too_long",
)


class Door(CLoop):
    """One thread that writes punted packets to the TAPs and reads what the kernel sends.

    It owns the lanes (one per worker) and all event descriptors; the TAPs' descriptors stay their owner's.
    """

    def __init__(self, umem: Any, n_lanes: int) -> None:
        """umem: a struct umem pointer that outlives the door; n_lanes: workers, 1..64.

        ValueError, MemoryError, OSError (no descriptors left).
        """
        if not 1 <= n_lanes <= lib.DOOR_LANES:
            raise ValueError(f"{n_lanes} lanes: 1..{lib.DOOR_LANES} are possible")
        self._events: list[int] = []
        self._lanes: list[Any] = []
        self._ports: list[int] = []
        self.c: Any = ffi.NULL
        try:
            event = self._new_event()
            self.c = _allocated(lib.tap_door_create(umem, event))
            for _ in range(n_lanes):
                lane = _allocated(lib.tap_lane_create(self._new_event(), event))
                self._lanes.append(lane)
                lib.tap_door_add_lane(self.c, lane)
        except BaseException:
            self.close()
            raise

    def _new_event(self) -> int:
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._events.append(event)
        return event

    @property
    def lanes(self) -> Sequence[Any]:
        """struct tap_lane pointers; lane i is worker i's."""
        return tuple(self._lanes)

    def add_port(self, port: int, fds: Sequence[int]) -> None:
        """The TAP of a port: one non-blocking descriptor per lane (`Tap.fds`). Before `start`.

        ValueError: port number out of range or added before, or not one descriptor per lane.
        """
        if self._thread is not None:
            raise RuntimeError("ports are added before the door opens")
        if lib.tap_door_add_port(self.c, port, list(fds), len(fds)) != 0:
            raise ValueError(f"port {port} with {len(fds)} descriptors for {len(self._lanes)} lanes")
        self._ports.append(port)

    def start(self) -> None:
        """Serves the lanes in a thread of its own until `stop`."""
        if self._thread is not None:
            raise RuntimeError("the door is open already")
        self._begin("ixroute-door", lambda: lib.tap_door_run(self.c))

    def _end(self) -> None:
        lib.tap_door_stop(self.c)

    def poll_once(self, timeout_ms: int = 0) -> int:
        """One pass in the calling thread; how many packets it moved. Not while the thread runs."""
        if self._thread is not None:
            raise RuntimeError("the door has a thread")
        return int(lib.tap_door_poll_once(self.c, timeout_ms))

    @property
    def passes(self) -> int:
        """Its heartbeat: moves at least every half second as long as the thread lives."""
        return int(lib.tap_door_passes(self.c))

    def counters(self, port: int) -> dict[str, int]:
        """struct door_counters of a port by field name."""
        if port not in self._ports:
            raise ValueError(f"the door has no port {port}")
        block = lib.tap_door_counters(self.c, port)
        return {name: int(getattr(block, name)) for name in _COUNTER_CELLS}

    def close(self) -> None:
        """Frees lanes and descriptors. RuntimeError while its thread runs. Workers are closed first."""
        if self.alive:
            raise RuntimeError("the door is still open")
        if self.c != ffi.NULL:
            lib.tap_door_destroy(self.c)
            self.c = ffi.NULL
        while self._lanes:
            lib.tap_lane_destroy(self._lanes.pop())
        while self._events:
            os.close(self._events.pop())


def _allocated(pointer: Any) -> Any:
    if pointer == ffi.NULL:
        raise MemoryError("the kernel's door")
    return pointer
