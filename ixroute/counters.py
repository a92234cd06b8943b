"""Summing the workers' counters. Each worker writes its own block; this reads them all, whenever it likes.

A cell is read whole, but the cells one after the other: while packets flow, a sum may be ahead of another
by a burst. When nothing is under way the equations of docs/counters.md hold exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from ixroute._dataplane import ffi, lib
from ixroute.schema import PortStats, Totals

Block = Any  # bytes-like: what ffi.buffer(pointer, size) gives

# The words of the C structs, in their order (a test holds them against the headers).
REASON_CELLS = 64  # COUNTER_REASONS
PORT_FIELDS = (
    "rx_packets",
    "rx_bytes",
    "injected_packets",
    "injected_bytes",
    "sent_packets",
    "tx_packets",
    "tx_bytes",
    "reserved",
)
PORT_BYTES = 8 * (len(PORT_FIELDS) + 3 * REASON_CELLS)
WORKER_FIELDS = (
    "polls",
    "busy_polls",
    "packets",
    "busy_cycles",
    "sleeps",
    "rx_no_frame",
    "heartbeat_ns",
    "free_frames",
)
WORKER_BYTES = 8 * len(WORKER_FIELDS)
DOOR_FIELDS = (
    "written_packets",
    "written_bytes",
    "write_failed",
    "read_packets",
    "read_bytes",
    "read_failed",
    "read_too_long",
    "reserved",
)
DOOR_BYTES = 8 * len(DOOR_FIELDS)


@dataclass(frozen=True)
class Reason:
    """A line of forward/reasons.h."""

    number: int
    name: str
    kind: Literal["drop", "punt"]
    text: str


@cache
def reasons() -> tuple[Reason, ...]:
    """Every reason, in the C list's order,."""
    kinds: Mapping[int, Literal["drop", "punt"]] = {1: "drop", 2: "punt"}  # enum reason_kind
    return tuple(
        Reason(
            number,
            ffi.string(lib.reason_name(number)).decode(),
            kinds[lib.reason_kind(number)],
            ffi.string(lib.reason_text(number)).decode(),
        )
        for number in range(1, lib.reason_count())
    )


@dataclass
class PortCounters:
    """struct port_counters of all workers together. The three tables are by reason number."""

    rx_packets: int = 0
    rx_bytes: int = 0
    injected_packets: int = 0
    injected_bytes: int = 0
    sent_packets: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    punted: list[int] = field(default_factory=lambda: [0] * REASON_CELLS)
    dropped: list[int] = field(default_factory=lambda: [0] * REASON_CELLS)
    policed: list[int] = field(default_factory=lambda: [0] * REASON_CELLS)


def _words(block: Block, size: int) -> list[int]:
    view = memoryview(block).cast("B")
    if len(view) != size:
        raise ValueError(f"a counter block of {len(view)} bytes; expected {size}")
    return view.cast("Q").tolist()


def sum_port(blocks: Iterable[Block]) -> PortCounters:
    """The sum of one port's blocks, one for each worker: `ffi.buffer(worker_port_counters(w, port),
    PORT_BYTES)`."""
    total = [0] * (PORT_BYTES // 8)
    for block in blocks:
        total = [a + b for a, b in zip(total, _words(block, PORT_BYTES), strict=True)]
    head = len(PORT_FIELDS)
    named = {name: n for name, n in zip(PORT_FIELDS, total[:head], strict=True) if name != "reserved"}
    tables = [total[head + i * REASON_CELLS : head + (i + 1) * REASON_CELLS] for i in range(3)]
    return PortCounters(**named, punted=tables[0], dropped=tables[1], policed=tables[2])


def read_worker(block: Block) -> dict[str, int]:
    """struct worker_counters as WORKER_FIELDS -> number."""
    return dict(zip(WORKER_FIELDS, _words(block, WORKER_BYTES), strict=True))


def read_door(block: Block) -> dict[str, int]:
    """struct door_counters as DOOR_FIELDS -> number, without `reserved`."""
    words = zip(DOOR_FIELDS, _words(block, DOOR_BYTES), strict=True)
    return {name: n for name, n in words if name != "reserved"}


def by_reason(cells: Sequence[int], kind: Literal["drop", "punt"]) -> dict[str, int]:
    """Every reason of `kind`, zeros included, and any other that is not zero, so that nothing is left out
    of a sum."""
    return {r.name: cells[r.number] for r in reasons() if r.kind == kind or cells[r.number]}


def totals(ports: Iterable[PortStats]) -> Totals:
    """All ports together, and how many packets have no verdict yet."""
    total = Totals(rx=0, injected=0, sent=0, tx=0, punted=0, dropped=0, policed=0, in_flight=0)
    for port in ports:
        total["rx"] += port["rx_packets"]
        total["injected"] += port["injected_packets"]
        total["sent"] += port["sent_packets"]
        total["tx"] += port["tx_packets"]
        total["punted"] += sum(port["punted"].values())
        total["dropped"] += sum(port["dropped"].values())
        total["policed"] += sum(port["policed"].values())
    done = total["sent"] + total["punted"] + total["dropped"] + total["policed"]
    total["in_flight"] = total["rx"] + total["injected"] - done
    return total
