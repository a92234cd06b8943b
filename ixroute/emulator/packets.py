"""What the register model asks of the packet engine (card.h): one card in an engine. Unit tests have a small twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class PacketEngine(Protocol):
    event_fd: int
    """An eventfd: written, it wakes the engine. The engine's; shared by its cards."""
    sleep_fd: int
    """One page of memory whose first word is not 0 while the engine sleeps."""

    def plug(self, wire: Any) -> None:
        """wire: a `struct wire *`, or None. The model never asks for it; whoever owns the wires does."""

    def read(self, offset: int) -> int | None:
        """The value of a register of the engine's own (interrupts, statistics); None: an ordinary register."""

    def write(self, offset: int, value: int) -> bool:
        """True: the engine's own register, and done. False: an ordinary register."""

    def cause(self, eicr_bits: int) -> None: ...

    def queue_changed(self, is_tx: bool, queue: int) -> None: ...

    def filters_changed(self) -> None: ...

    def kick(self) -> None: ...

    def set_link(self, up: bool) -> None: ...

    def reset(self) -> None: ...

    def dma_map(self, iova: int, length: int, address: int, readable: bool, writable: bool) -> None:
        """address: where the memory is in this process; it stays there until dma_unmap has returned. OSError."""

    def dma_unmap(self, iova: int, length: int) -> int:
        """How many mappings went. No access is under way when it returns."""

    def set_vectors(self, first: int, fds: Sequence[int]) -> None:
        """-1: not wired. The caller closes what was there before, afterwards."""

    def raise_vector(self, vector: int) -> None: ...

    def counters(self) -> Mapping[str, int]: ...

    def close(self) -> None: ...
