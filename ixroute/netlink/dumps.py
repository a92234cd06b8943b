"""A resync: the kernel's tables dumped in an order that leaves nothing out, applied as differences."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ixroute.netlink import addresses, links, messages, neighbours, nexthops, rules, sockets
from ixroute.netlink.contract import FAMILY_IP4, FAMILY_IP6, RibLike, StreamLike
from ixroute.netlink.follow import Follower
from ixroute.netlink.neighbours import AF_OF_FAMILY
from ixroute.netlink.resync import ResyncPlan, Scope
from ixroute.netlink.sockets import Message

ROUTE_DUMP_TIMEOUT_MS = 5000
_ROUTE_DUMP_ATTEMPTS = 5
_UNSETTLED_ATTEMPTS = 3
_FAMILIES = ((FAMILY_IP4, Scope.ROUTES4), (FAMILY_IP6, Scope.ROUTES6))

Dump = Callable[[int, bytes], list[Message]]


class Dumper:
    """drain: applies all route events that are waiting, returns how many datagrams that was."""

    def __init__(
        self,
        *,
        follower: Follower,
        rib: RibLike,
        stream: StreamLike,
        plan: ResyncPlan,
        drain: Callable[[], int],
        dump: Dump,
    ) -> None:
        self._follower = follower
        self._rib = rib
        self._stream = stream
        self._plan = plan
        self._drain = drain
        self._dump = dump
        self._unsettled = 0

    def run(self, scope: Scope) -> int:
        """Dumps `scope`. Returns how many entries differed. OSError, ValueError: not all of it was done."""
        different = 0
        if scope & Scope.LINKS:
            different += self._follower.replace_links(self._dump(*links.dump_request()))
            scope |= self._plan.absorb()
        elif scope & Scope.ROUTES:
            self._barrier()
        if scope & Scope.ADDRESSES:
            different += self._follower.replace_addresses(self._dump(*addresses.dump_request()))
        if scope & Scope.RULES:
            different += self._rules()
        if scope & Scope.NEXTHOPS:
            different += self._follower.replace_nexthops(self._dump(*nexthops.dump_request()))
        if scope & Scope.NEIGHBOURS:
            dumped = [message for family, _ in _FAMILIES for message in self._neighbours(family)]
            different += self._follower.replace_neighbours(dumped)
        for family, wanted in _FAMILIES:
            if scope & wanted:
                different += self._routes(family)
        return different

    def _barrier(self) -> None:
        """Waits until the kernel has finished what it announced. It tells of a link or address before it
        deletes the routes, all under its rtnl lock, and dumps routes without that lock; a link is answered
        under it."""
        self._dump(*links.barrier_request())

    def _rules(self) -> int:
        different = sum(
            self._follower.replace_rules(family, self._dump(*rules.dump_request(family)))
            for family, _ in _FAMILIES
        )
        if different:  # a table's routes are all there before a rule that was made after them leads there
            self._drain()
        return different

    def _neighbours(self, family: int) -> list[Message]:
        return self._dump(*neighbours.dump_request(family))

    def _routes(self, family: int) -> int:
        """Events from before the dump are applied before it, or they would bring back what it has swept."""
        self._drain()
        for _ in range(_ROUTE_DUMP_ATTEMPTS):
            try:
                different = self._dump_routes(family)
            except InterruptedError:
                continue
            self._settle(family, different, self._drain())
            return different
        raise OSError(errno.EINTR, f"IPv{family} routes changed during every dump")

    def _dump_routes(self, family: int) -> int:
        header = bytes([AF_OF_FAMILY[family]]) + bytes(11)  # struct rtmsg: every table, type and protocol
        with sockets.open_requests() as sock:
            sock.send(sockets.request(messages.RTM_GETROUTE, sockets.NLM_F_DUMP, 1, header))
            self._rib.dump_begin(family)
            try:
                self._stream.receive_dump(sock.fileno(), ROUTE_DUMP_TIMEOUT_MS)
            except BaseException:
                self._rib.dump_abort(family)
                raise
            return self._rib.dump_end(family)

    def _settle(self, family: int, different: int, events: int) -> None:
        """When its tree changes under an IPv6 dump the kernel starts again and skips as many routes as it had
        shown (fib6_dump_table): it can leave out routes that are there. So such a dump is done again, a few
        times."""
        if family == FAMILY_IP6 and events and different and self._unsettled < _UNSETTLED_ATTEMPTS:
            self._unsettled += 1
            self._plan.want(Scope.ROUTES6, "unsettled")
        else:
            self._unsettled = 0


def explain(error: BaseException) -> str:
    """What to do about a failed dump or socket."""
    code = getattr(error, "errno", None)
    if code == errno.EPERM:
        return "it needs CAP_NET_ADMIN in this network namespace"
    if code in (errno.ENOMEM, errno.ENOBUFS):
        return "the machine is short of memory"
    if code in (errno.EMFILE, errno.ENFILE):
        return "too many open files: raise LimitNOFILE"
    return f"it is tried again ({os.strerror(code)})" if code else "it is tried again"
