"""Requests about neighbours: sent without waiting, their answers read when they come."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Callable

from ixroute.netlink import messages, neighbours, sockets
from ixroute.netlink.gateways import GatewayKeeper
from ixroute.netlink.neighbours import Key, NeighbourTable
from ixroute.netlink.sockets import Message

log = logging.getLogger("ixroute.netlink")

_MOST_PENDING = 4096
_ADVICE = {
    errno.EPERM: "it needs CAP_NET_ADMIN",
    errno.ENOBUFS: "its neighbour table is full, raise net.ipv4.neigh.default.gc_thresh3 (and ipv6's)",
    errno.ENOMEM: "the machine is short of memory",
}
# The entry came or went meanwhile, or its interface is down: what comes next will say so.
_HARMLESS = frozenset({errno.ENOENT, errno.EEXIST, errno.ENODEV, errno.ENETDOWN})


class Asker:
    """failed(what, advice) is called for answers that somebody should know of."""

    def __init__(self, failed: Callable[[str, str], None]) -> None:
        self._tell = failed
        self._socket: socket.socket | None = None
        self._sequence = 0
        self._pending: OrderedDict[int, tuple[Key, bool]] = OrderedDict()
        self.failed = 0

    def sockets(self) -> list[socket.socket]:
        return [self._socket] if self._socket is not None else []

    def ask(self, key: Key, managed: bool, create: bool) -> None:
        """The kernel shall use the neighbour (resolve it if it must), keep it resolved when `managed`, and
        make an entry for it when `create`. Never blocks; what cannot be sent is counted.

        An entry that is there already is refused with `create` (EEXIST): it may be a permanent one, set since the
        mirror last read, and __neigh_update (net/core/neighbour.c) takes NUD_PERMANENT and the MAC from an entry that
        is to be used or managed.
        """
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        flags = sockets.NLM_F_ACK | (sockets.NLM_F_CREATE | sockets.NLM_F_EXCL if create else 0)
        body = neighbours.use_request(key, managed)
        try:
            if self._socket is None:
                self._socket = sockets.open_requests()
                self._socket.setblocking(False)
            self._socket.send(sockets.request(messages.RTM_NEWNEIGH, flags, self._sequence, body))
        except OSError as error:
            self._fail(error.errno or 0)
            self.close()
            return
        self._pending[self._sequence] = (key, managed)
        if len(self._pending) > _MOST_PENDING:
            self._pending.popitem(last=False)

    def receive(self, gateways: GatewayKeeper, table: NeighbourTable) -> None:
        """Reads the answers that are there."""
        while self._socket is not None:
            try:
                datagram = sockets.receive(self._socket)
                if datagram is None:
                    return
                for message in sockets.split(datagram):
                    self._answer(message, gateways, table)
            except (OSError, ValueError):  # answers lost: they are asked for again
                self._pending.clear()

    def _answer(self, message: Message, gateways: GatewayKeeper, table: NeighbourTable) -> None:
        key, managed = self._pending.pop(message.sequence, (None, False))
        code = sockets.error_of(message)
        if message.type != sockets.NLMSG_ERROR or code == 0 or key is None or code in _HARMLESS:
            return
        if managed and not any(neighbour.managed for neighbour in table) and gateways.refused(code):
            return
        self._fail(code)

    def _fail(self, code: int) -> None:
        self.failed += 1
        self._tell(os.strerror(code), _ADVICE.get(code, "packets to it go through the kernel meanwhile"))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._pending.clear()
