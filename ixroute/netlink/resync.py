"""When to dump again: what is wanted, why, and how soon. Pure: time comes in as an argument.

The kernel forgets to announce deletions, so a dump follows every event that may hide one. At once when it was
quiet; then no more often than every 200 ms, or twice as long as the last dump took, up to 2 s: a storm of
events costs a bounded share of a core, and what it ends in is dumped for certain.
"""

from __future__ import annotations

from collections import Counter
from enum import IntFlag

SHORTEST_S = 0.2
LONGEST_S = 2.0


class Scope(IntFlag):
    """Tables to dump."""

    LINKS = 1
    ADDRESSES = 2
    RULES = 4
    NEXTHOPS = 8
    NEIGHBOURS = 16
    ROUTES4 = 32
    ROUTES6 = 64
    STATE = LINKS | ADDRESSES | RULES | NEXTHOPS
    ROUTES = NEXTHOPS | ROUTES4 | ROUTES6
    ALL = STATE | NEIGHBOURS | ROUTES


class ResyncPlan:
    def __init__(self) -> None:
        self._wanted = Scope(0)
        self._running = Scope(0)
        self._since = 0.0
        self._reasons: dict[str, None] = {}
        self._not_before = 0.0
        self._backoff = SHORTEST_S
        self.last_ms = 0.0
        self.counts: Counter[str] = Counter()
        """Dumps by reason; one dump may have several."""
        self.failures = 0

    def want(self, scope: Scope, reason: str) -> None:
        self._wanted |= scope
        self._reasons[reason] = None

    @property
    def wanted(self) -> Scope:
        return self._wanted

    def wait(self, now: float) -> float | None:
        """Seconds until the wanted dump may start, None when none is wanted."""
        return max(0.0, self._not_before - now) if self._wanted else None

    def begin(self, now: float) -> tuple[Scope, tuple[str, ...]]:
        """Takes what is wanted. Events from here on ask for another dump."""
        scope, reasons = self._wanted, tuple(self._reasons)
        self._running, self._since = scope, now
        self._wanted, self._reasons = Scope(0), {}
        return scope, reasons

    def absorb(self) -> Scope:
        """What the running dump itself found wanting, and can still do: taken into it."""
        scope = self._wanted
        self._running |= scope
        self._wanted, self._reasons = Scope(0), {}
        return scope

    def done(self, now: float, reasons: tuple[str, ...]) -> None:
        took = max(0.0, now - self._since)
        self.last_ms = took * 1000
        self.counts.update(reasons)
        self._backoff = SHORTEST_S
        self._not_before = now + min(LONGEST_S, max(SHORTEST_S, 2 * took))

    def failed(self, now: float, reasons: tuple[str, ...]) -> None:
        """It did not work out: the same again, each time after a longer pause."""
        self.failures += 1
        self._wanted |= self._running
        self._reasons = dict.fromkeys((*reasons, *self._reasons))
        self._not_before = now + self._backoff
        self._backoff = min(LONGEST_S, self._backoff * 2)
