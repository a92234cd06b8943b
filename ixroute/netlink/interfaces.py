"""Which of the kernel's interfaces the dataplane can serve, and the numbers it knows them by: the ports' TAPs, and
VLAN sub-interfaces stacked on them.

A number stays with its sub-interface as long as that is where it is. A released one is not given away at once:
adjacencies that name it must have been resolved anew, and workers must have ended the pass they are in.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from ixroute.netlink.links import Link, LinkTable

log = logging.getLogger("ixroute.netlink")

FIRST_SUB = 64  # numbers below are the ports (forward/worker.h)
LAST_SUB = 1023
MOST_TAGS = 2
QUARANTINE_TICKS = 2  # of about a second each: many times what a worker's pass takes

Tag = tuple[int, int]
"""(TPID, VLAN id)"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an interface of the dataplane is: packets of `port` with these tags, outer first."""

    number: int
    port: int
    tags: tuple[Tag, ...] = ()


class Interfaces:
    """Places by ifindex. Knows no time: `age` is called about once a second."""

    def __init__(self, numbers: dict[int, int], first: int = FIRST_SUB, last: int = LAST_SUB) -> None:
        """numbers: ifindex -> number, kept equal to the places (Tables.interfaces)."""
        self._numbers = numbers
        self._places: dict[int, Place] = {}
        self._free = deque(range(first, last + 1))
        self._released: deque[tuple[int, int]] = deque()  # number, age at which it is free
        self._age = 0
        self._waiting: dict[int, None] = {}  # could be served if there were a number
        self._moved: dict[
            int, set[int]
        ] = {}  # by parent: VLAN ids whose sub-interface went to another namespace
        self.refused = 0  # times there was no number for a sub-interface

    def get(self, ifindex: int) -> Place | None:
        return self._places.get(ifindex)

    def subs(self) -> dict[int, Place]:
        """Sub-interfaces by ifindex."""
        return {ifindex: place for ifindex, place in self._places.items() if place.tags}

    def put_port(self, ifindex: int, port: int) -> None:
        """This interface is the port's TAP. What is stacked on it comes with `follow`."""
        self._put(ifindex, Place(port, port))

    def follow(self, links: LinkTable, ifindex: int) -> list[int]:
        """An interface came, went or changed: places it and all that is stacked on it anew. Returns those
        whose place changed."""
        changed, queue = [], [ifindex]
        if links.get(ifindex) is None:
            self._moved.pop(ifindex, None)
        for index in queue:
            if self._follow_one(links, index):
                changed.append(index)
            queue += [link.index for link in links.stacked_on(index) if link.index not in queue]
        return changed

    def _follow_one(self, links: LinkTable, ifindex: int) -> bool:
        link, before = links.get(ifindex), self._places.get(ifindex)
        if link is not None and link.is_vlan:
            self._moved.get(link.parent, set()).discard(link.vlan_id)
        if before is not None and not before.tags:  # a TAP: found once by its name, lost with its index
            if link is None:
                self._drop(ifindex)
            return link is None
        wanted = self._wanted(link)
        if before is not None and wanted == (before.port, before.tags):
            return False
        if before is not None:
            self._released.append((before.number, self._age + QUARANTINE_TICKS))
            self._drop(ifindex)
        self._waiting.pop(ifindex, None)
        return (wanted is not None and self._take(ifindex, *wanted)) or before is not None

    def _wanted(self, link: Link | None) -> tuple[int, tuple[Tag, ...]] | None:
        """Port and tags; None when only the kernel can serve it.

        An egress-qos-map needs the priority that the kernel gives packets. The other settings change nothing on
        the wire: reorder_hdr how the kernel shows packets to sniffers, loose_binding and bridge_binding when the
        interface is up, ingress-qos-map a priority that only an egress-qos-map or a queueing discipline reads.
        """
        if link is None or not link.is_vlan or link.egress_qos:
            return None
        below = self._places.get(link.parent)
        if below is None or len(below.tags) >= MOST_TAGS:
            return None
        return below.port, (*below.tags, (link.vlan_protocol, link.vlan_id))

    def _take(self, ifindex: int, port: int, tags: tuple[Tag, ...]) -> bool:
        if not self._free:
            if not self.refused:
                log.warning(
                    "more VLAN sub-interfaces than can be forwarded fast: the kernel routes the others"
                )
            self.refused += 1
            self._waiting[ifindex] = None
            return False
        self._put(ifindex, Place(self._free.popleft(), port, tags))
        return True

    def _put(self, ifindex: int, place: Place) -> None:
        self._places[ifindex] = place
        self._numbers[ifindex] = place.number

    def _drop(self, ifindex: int) -> None:
        del self._places[ifindex]
        del self._numbers[ifindex]

    def age(self, links: LinkTable) -> list[int]:
        """Once a second, when every path that was touched is resolved: numbers long released are free again.
        Returns interfaces that waited for one and have it now."""
        self._age += 1
        while self._released and self._released[0][1] <= self._age:
            self._free.append(self._released.popleft()[0])
        changed: list[int] = []
        for ifindex in list(self._waiting) if self._free else ():
            if self._free:
                changed += self.follow(links, ifindex)
        return changed

    def moved_away(self, link: Link) -> None:
        """A sub-interface went to another network namespace: its parent still gives it its packets, so they
        must keep going to the kernel. Until something else has the id; nothing tells of its end there."""
        if link.is_vlan and link.parent in self._places:
            self._moved.setdefault(link.parent, set()).add(link.vlan_id)

    def kernels_vids(self, links: LinkTable, ifindex: int) -> frozenset[int]:
        """VLAN ids on this interface that have a sub-interface which only the kernel serves."""
        unserved = {
            link.vlan_id
            for link in links.stacked_on(ifindex)
            if link.is_vlan and link.index not in self._places
        }
        return frozenset(unserved | self._moved.get(ifindex, set()))
