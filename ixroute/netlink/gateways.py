"""Next hops stay resolved because the kernel keeps them so.

A packet that a worker forwards never touches the kernel's neighbour entry: left alone it would age, and then
every packet to it would be punted. So gateways are marked managed (the kernel probes them for ever), and
other neighbours are probed when they are stale and in use.

A mark shows in the entry itself, so nothing is remembered of the kernel's abilities: a gateway without the
mark is asked for again every few seconds, which on kernels that know no managed entries (before 5.16) is the
probe they need.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ixroute.netlink.neighbours import Key, NeighbourTable

log = logging.getLogger("ixroute.netlink")

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 5.0
MOST_PER_PASS = (
    256  # requests; a kernel that gets more of them drops ARP requests at its own rate limits anyway
)

Ask = Callable[[Key, bool, bool], None]
"""(neighbour, managed, create): use it once, managed or not; create: there is no entry, make it, and leave one alone
that somebody made meanwhile."""


@dataclass(slots=True)
class _Mark:
    due: float
    retry: float = FIRST_RETRY_S


class GatewayKeeper:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._wanted: dict[Key, _Mark] = {}
        self._ours: set[Key] = set()
        self._leaving: dict[Key, None] = {}
        self.marks_refused = False  # this kernel takes no NDA_FLAGS_EXT at all
        self.urgent = False  # run() has something to ask for that nothing else will remind of

    @property
    def ours(self) -> frozenset[Key]:
        """Entries that carry our mark, or are about to."""
        return frozenset(self._ours)

    @property
    def count(self) -> int:
        return len(self._ours)

    def wants(self, key: Key) -> bool:
        return key in self._wanted

    def want(self, keys: Iterable[Key], now: float) -> None:
        """These are gateways too."""
        for key in keys:
            if key not in self._wanted:
                self._wanted[key] = _Mark(now)
                self._leaving.pop(key, None)
                self.urgent = True

    def want_exactly(self, keys: set[Key], now: float) -> None:
        """These are all the gateways there are."""
        for key in self._wanted.keys() - keys:
            del self._wanted[key]
            if key in self._ours:
                self._leaving[key] = None
                self.urgent = True
        self.want(keys, now)

    def run(self, now: float, neighbours: NeighbourTable) -> None:
        """Asks for what is due, a bounded number of times: after changes (`urgent`), and about once a
        second."""
        asked, self.urgent = 0, True
        for key, mark in self._wanted.items():
            if asked >= MOST_PER_PASS:
                return
            if mark.due <= now and self._lacks_mark(key, neighbours):
                self._ours.add(key)
                self._ask(key, not self.marks_refused, neighbours.get(key) is None)
                mark.due, mark.retry = now + mark.retry, min(LONGEST_RETRY_S, mark.retry * 2)
                asked += 1
        while self._leaving and asked < MOST_PER_PASS:
            self._unmark(next(iter(self._leaving)), neighbours)
            asked += 1
        self.urgent = bool(self._leaving)

    def _lacks_mark(self, key: Key, neighbours: NeighbourTable) -> bool:
        neighbour = neighbours.get(key)
        if neighbour is None:
            return True
        if neighbour.users_own:
            self._ours.discard(key)
            return False
        return not neighbour.managed

    def _unmark(self, key: Key, neighbours: NeighbourTable) -> None:
        """An administrative update without NTF_MANAGED takes the mark away (neigh_update_flags); what
        somebody made their own meanwhile stays."""
        self._leaving.pop(key, None)
        self._ours.discard(key)
        neighbour = neighbours.get(key)
        if neighbour is not None and neighbour.managed and not neighbour.users_own:
            self._ask(key, False, False)

    def unmark_all(self, neighbours: NeighbourTable) -> None:
        """The end: every mark of ours goes."""
        self._wanted.clear()
        for key in list(self._ours):
            self._unmark(key, neighbours)

    def refused(self, code: int) -> bool:
        """The kernel's answer to a mark was this errno. True: it takes no marks, asking without them goes
        on."""
        if code in (errno.EINVAL, errno.EOPNOTSUPP) and not self.marks_refused:
            self.marks_refused = True
            log.warning(
                "this kernel keeps no managed neighbours (Linux 5.16 does): gateways are probed every %d s",
                LONGEST_RETRY_S,
            )
            return True
        return False


def stale_in_use(
    neighbours: NeighbourTable, paths_of: Callable[[Key], Iterable[int]], used: bytes, gateways: GatewayKeeper
) -> list[Key]:
    """Neighbours to probe: stale, packets went to them lately, and nobody keeps them resolved."""
    found = []
    for neighbour in neighbours:
        if neighbour.state_name != "stale" or neighbour.managed or neighbour.users_own:
            continue
        if gateways.wants(neighbour.key):
            continue
        if any(_bit(used, index) for index in paths_of(neighbour.key)):
            found.append(neighbour.key)
    return found


def _bit(bitmap: bytes, index: int) -> bool:
    return index >> 3 < len(bitmap) and bool(bitmap[index >> 3] >> (index & 7) & 1)
