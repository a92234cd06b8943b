"""The engine's end of an emulated card's wire, played by a test."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

from ixroute._dataplane import ffi, lib

BURST = int(lib.WIRE_BURST)
LONGEST = int(lib.WIRE_LONGEST)


def receive(wire: Any, n: int = BURST) -> list[bytes]:
    """One burst towards the card."""
    packets = ffi.new("struct wire_packet[]", max(n, 1))
    got = lib.wire_receive(wire, packets, n)
    assert got <= n
    return [bytes(ffi.buffer(packets[i].data, packets[i].len)) for i in range(got)]


def receive_all(wire: Any, limit: int = 100_000) -> list[bytes]:
    """Bursts until one is empty."""
    frames: list[bytes] = []
    while len(frames) < limit and (burst := receive(wire)):
        frames += burst
    return frames


def receive_count(wire: Any, wanted: int, seconds: float = 5.0) -> list[bytes]:
    """Frames until there are `wanted`, sleeping as an engine does; fails when they do not come."""
    frames: list[bytes] = []
    until = time.monotonic() + seconds
    while len(frames) < wanted:
        frames += receive(wire)
        assert time.monotonic() < until, f"{len(frames)} of {wanted} frames came in {seconds:g} s"
        if len(frames) < wanted and not lib.wire_arm(wire):
            if wire.wait_fd >= 0:
                select.select([wire.wait_fd], [], [], 0.1)
            lib.wire_disarm(wire)
    return frames


def send(wire: Any, frames: Sequence[bytes]) -> int:
    """One burst from the card: how many were taken."""
    held = [ffi.from_buffer(frame) for frame in frames]
    packets = ffi.new("struct wire_packet[]", max(len(frames), 1))
    for packet, data, frame in zip(packets, held, frames, strict=False):
        packet.data, packet.len = data, len(frame)
    return int(lib.wire_send(wire, packets, len(frames)))


def send_all(wire: Any, frames: Sequence[bytes], seconds: float = 5.0) -> None:
    """Offers again what was not taken; fails when that does not end."""
    until = time.monotonic() + seconds
    while frames:
        frames = frames[send(wire, frames[:BURST]) :]
        assert time.monotonic() < until, f"{len(frames)} frames were not taken in {seconds:g} s"
