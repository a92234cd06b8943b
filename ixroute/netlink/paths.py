"""Which paths a change touches: an index from links, neighbours and nexthop objects to the paths that depend
on them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

from ixroute.netlink.contract import PathLike
from ixroute.netlink.neighbours import Key
from ixroute.netlink.resolve import Adjacency, Group, Route

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Known:
    """A path as it was resolved last."""

    path: PathLike
    route: Route
    adjacency: Adjacency | Group


class PathIndex:
    """Known paths by id, and the ids that have to be resolved again."""

    def __init__(self) -> None:
        self._known: dict[int, Known] = {}
        self._by_link: dict[int, set[int]] = {}
        self._by_neighbour: dict[Key, set[int]] = {}
        self._by_nexthop: dict[int, set[int]] = {}
        self._dirty: dict[int, None] = {}  # a set that keeps its order: nobody waits for ever

    def __len__(self) -> int:
        return len(self._known)

    def ids(self) -> list[int]:
        return list(self._known)

    def get(self, path_id: int) -> Known | None:
        return self._known.get(path_id)

    def put(self, path_id: int, known: Known) -> None:
        self.drop(path_id)
        self._known[path_id] = known
        for leg in known.route.legs:
            self._by_link.setdefault(leg.ifindex, set()).add(path_id)
            if leg.neighbour:
                self._by_neighbour.setdefault(leg.neighbour, set()).add(path_id)
        for nhid in known.route.nhids:
            self._by_nexthop.setdefault(nhid, set()).add(path_id)

    def drop(self, path_id: int) -> None:
        known = self._known.pop(path_id, None)
        if known is None:
            return
        for leg in known.route.legs:
            _discard(self._by_link, leg.ifindex, path_id)
            if leg.neighbour:
                _discard(self._by_neighbour, leg.neighbour, path_id)
        for nhid in known.route.nhids:
            _discard(self._by_nexthop, nhid, path_id)

    def of_neighbour(self, key: Key) -> frozenset[int]:
        return frozenset(self._by_neighbour.get(key, ()))

    def of_nexthop(self, nhid: int) -> frozenset[int]:
        return frozenset(self._by_nexthop.get(nhid, ()))

    def touch(self, path_id: int) -> None:
        self._dirty[path_id] = None

    def touch_link(self, ifindex: int) -> None:
        self._dirty.update(dict.fromkeys(self._by_link.get(ifindex, ())))

    def touch_neighbour(self, key: Key) -> None:
        self._dirty.update(dict.fromkeys(self._by_neighbour.get(key, ())))

    def touch_nexthop(self, nhid: int) -> None:
        self._dirty.update(dict.fromkeys(self._by_nexthop.get(nhid, ())))

    def touch_all(self) -> None:
        self._dirty.update(dict.fromkeys(self._known))

    @property
    def dirty(self) -> int:
        return len(self._dirty)

    def take(self, most: int) -> list[int]:
        """At most `most` ids to resolve, oldest first; they are no longer dirty."""
        taken: list[int] = []
        while self._dirty and len(taken) < most:
            path_id = next(iter(self._dirty))
            del self._dirty[path_id]
            taken.append(path_id)
        return taken


def _discard(index: dict[K, set[int]], key: K, path_id: int) -> None:
    ids = index.get(key)
    if ids is not None:
        ids.discard(path_id)
        if not ids:
            del index[key]
