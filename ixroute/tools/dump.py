"""A packet dump: what arrives at a port, as lines of text or as a pcap file (pcap.c)."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ixroute._dataplane import ffi, lib
from ixroute.tools.session import ADAPTIVE, Session, Wait, new

PCAP_NS_MAGIC = 0xA1B23C4D  # draft-ietf-opsawg-pcap §4: timestamps in nanoseconds
LINKTYPE_ETHERNET = 1


@dataclass
class Seen:
    """Counters: packets taken, and what the card could not give because nobody took it in time."""

    packets: int = 0
    bytes: int = 0


Show = Callable[[bytes, int, int], None]
"""Called with a packet's bytes (at most the snap length), its whole length, and its time (ns since 1970)."""


class Dump:
    """Packets of one port, burst by burst. A context manager; raises PortError, MemoryError."""

    def __init__(self, spec: str, snap_bytes: int = 65535, burst: int = 64, wait: Wait = ADAPTIVE) -> None:
        self.seen = Seen()
        self._session = Session((spec,))
        self._lane = new("struct lane")
        try:
            self._session.fill_lane(self._lane, 0, burst, wait)
            self._session.ports[0].set_promiscuous(True)
            self._session.ports[0].set_allmulticast(True)
        except BaseException:
            self._session.close()
            raise
        self._frames = ffi.new("struct frame[]", burst)
        self._umem = self._session.umem.c
        self._snap_bytes = min(snap_bytes, self._session.umem.frame_bytes)
        self._records = ffi.new("uint8_t[]", burst * (lib.PCAP_RECORD_BYTES + self._snap_bytes))
        self._serviced = time.monotonic()

    def __enter__(self) -> Dump:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def take(self, use: Callable[[int, int], None], limit: int, timeout_ms: int) -> None:
        """Waits at most so long, then hands each queue's burst (`use(n, time_ns)`, frames in self._frames) on. At most
        `limit` packets in all."""
        side = self._lane.side[0]
        lib.lane_tidy(self._lane)
        lib.queues_wait(side.queue, side.n, timeout_ms)
        for i in range(side.n):
            n = lib.queue_rx_burst(side.queue[i], self._frames, min(len(self._frames), limit))
            if n:
                limit -= n
                self.seen.packets += n
                self.seen.bytes += sum(self._frames[k].len for k in range(n))
                use(n, time.time_ns())
                lib.lane_free(self._lane, self._umem, self._frames, n)
            if limit == 0:
                break
        if time.monotonic() - self._serviced > 1:
            self._serviced = time.monotonic()
            self._session.ports[0].service()

    def show(self, show: Show) -> Callable[[int, int], None]:
        """For `take`: each packet to `show`."""

        def use(n: int, time_ns: int) -> None:
            for k in range(n):
                frame = self._frames[k]
                kept = min(frame.len, self._snap_bytes)
                show(bytes(ffi.buffer(self._umem.base + frame.addr, kept)), frame.len, time_ns)

        return use

    def write(self, file: BinaryIO) -> Callable[[int, int], None]:
        """For `take`: packets to a pcap file, whose header is written at once."""
        file.write(struct.pack("=IHHiIII", PCAP_NS_MAGIC, 2, 4, 0, 0, self._snap_bytes, LINKTYPE_ETHERNET))

        def use(n: int, time_ns: int) -> None:
            used = lib.pcap_append(
                self._umem, self._frames, n, self._snap_bytes, time_ns, self._records, len(self._records)
            )
            file.write(ffi.buffer(self._records, used))

        return use
