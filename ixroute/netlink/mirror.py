"""The mirror: the kernel's tables, followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ixroute.netlink.contract import (
    Actions,
    AdjacenciesLike,
    AdjacencyView,
    FibLike,
    NeighbourView,
    Port,
    RibLike,
    Sink,
    StreamLike,
)


class Mirror:
    """Keeps RIB, FIB and adjacencies equal to the kernel's tables, from one thread of its own.

    rib, stream, fib and adjacencies are the caller's and must outlive stop(); while the mirror runs nobody else may
    touch rib or stream except under `locked()`.
    watch: names of interfaces whose link changes the sink wants (Sink.on_link).
    audit_s: seconds between background dumps that look for drift; 0: none.
    """

    def __init__(
        self,
        rib: RibLike,
        stream: StreamLike,
        fib: FibLike,
        adjacencies: AdjacenciesLike,
        ports: Sequence[Port],
        actions: Actions,
        sink: Sink,
        *,
        watch: Sequence[str] = (),
        audit_s: float = 300.0,
    ) -> None: ...

    def start(self) -> None:
        """Opens the sockets (OSError when that fails: not even one netlink socket) and starts the thread."""

    def stop(self) -> None:
        """Ends the thread, removes the managed marks that this mirror set, closes the sockets. Idempotent."""

    def wait_synced(self, timeout: float) -> bool:
        """True as soon as the first complete dump is in the FIB."""

    def resync(self, reason: str) -> None:
        """Wants a fresh dump of everything (SIGHUP). From any thread; returns at once."""

    def status(self) -> dict[str, Any]:
        """Counters and state, plain values."""

    def neighbours(self) -> list[NeighbourView]:
        """For `show neighbors`, sorted by interface and address."""

    def adjacencies(self) -> list[AdjacencyView]:
        """For `show adjacencies`: every path in use."""

    def describe(self, index: int) -> str:
        """Next hops of an adjacency for people: "via 10.0.0.1 dev lan"."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The mirror stands still: for RIB lookups from another thread. Keep it short."""
