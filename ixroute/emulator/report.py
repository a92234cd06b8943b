"""What a person is told about emulated cards: faults as they happen, counters at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


@dataclass(frozen=True)
class Fault:
    """A counter that should stay 0, and what it means that it moved."""

    counter: str
    text: str


FAULTS = (
    Fault(
        "dma_faults",
        "DMA FAULT: the driver had it access {last_fault_iova:#x}, which is not mapped for that; "
        "the queue has stopped ({n} such accesses)",
    ),
    Fault(
        "bad_descriptors",
        "BAD DESCRIPTOR: the driver wrote one that no card takes; its queue has stopped ({n})",
    ),
    Fault(
        "dma_files_lost",
        "LOST MEMORY: the driver took back memory that the card still uses; what the card writes there, nobody reads "
        "({n} files)",
    ),
)


class FaultWatch:
    """Sees a card's fault counters move, and says so; less and less often while they keep moving."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._seen = {fault.counter: 0 for fault in FAULTS}
        self._quiet_until = {fault.counter: 0.0 for fault in FAULTS}
        self._pause = {fault.counter: _FIRST_PAUSE for fault in FAULTS}

    def look(self, counters: Mapping[str, int]) -> Iterator[str]:
        """Lines to print, for what is new since the last line about it."""
        now = self._clock()
        for fault in FAULTS:
            key, n = fault.counter, counters.get(fault.counter, 0)
            if n == self._seen[key] or now < self._quiet_until[key]:
                continue
            if now > self._quiet_until[key] + self._pause[key]:
                self._pause[key] = _FIRST_PAUSE
            self._quiet_until[key] = now + self._pause[key]
            self._pause[key] = min(2 * self._pause[key], _LONGEST_PAUSE)
            line = fault.text.format(
                n=n - self._seen[key], last_fault_iova=counters.get("last_fault_iova", 0)
            )
            self._seen[key] = n
            yield f"{self._name}: {line}"


def described(counters: Mapping[str, int], always: Sequence[str] = ()) -> str:
    """ "rx_packets 5, tx_packets 0": those that are not 0, and those named."""
    return (
        ", ".join(f"{key} {value}" for key, value in counters.items() if value or key in always) or "nothing"
    )


def card_lines(
    name: str,
    card: Mapping[str, int],
    wire: Mapping[str, int],
    server: Mapping[str, int],
    hints: Sequence[str],
) -> Iterator[str]:
    """A card's report."""
    yield f"{name}"
    yield f"  packets  {described(card, ('rx_packets', 'tx_packets', 'dma_faults'))}"
    yield f"  wire     {described(wire, ('rx_packets', 'tx_packets')) if wire else 'none'}"
    yield f"  clients  {described(server, ('clients',))}"
    for hint in hints:
        yield f"  hint     {hint}"
