"""Netlink sockets: opening, asking, and cutting datagrams into messages.

The sockets live in the network namespace of the thread that opens them. They are plain: a datagram's bytes go
either to pyroute2's decoders (messages.py) or to the route stream in C, and pyroute2's own socket objects
cannot do the second.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

log = logging.getLogger("ixroute.netlink")

# linux/rtnetlink.h, enum rtnetlink_groups: Python's socket module does not have them
RTNLGRP_LINK = 1
RTNLGRP_NEIGH = 3
RTNLGRP_IPV4_IFADDR = 5
RTNLGRP_IPV4_ROUTE = 7
RTNLGRP_IPV4_RULE = 8
RTNLGRP_IPV6_IFADDR = 9
RTNLGRP_IPV6_ROUTE = 11
RTNLGRP_IPV6_RULE = 19
RTNLGRP_IPV4_NETCONF = 24
RTNLGRP_IPV6_NETCONF = 25
RTNLGRP_NEXTHOP = 32

STATE_GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_NEXTHOP,
)
NEIGHBOUR_GROUPS = (RTNLGRP_NEIGH,)
ROUTE_GROUPS = (RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE)

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

AF_BRIDGE = 7
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33

RECEIVE_BUFFER_BYTES = 64 << 20
_DATAGRAM_BYTES = 64 << 10  # the kernel's dumps come in datagrams of 32 KiB at most
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_told: set[str] = set()


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message. data: header included, exactly the message's length."""

    type: int
    flags: int
    sequence: int
    data: bytes

    @property
    def family(self) -> int:
        """First byte after the header: the address family in every rtnetlink message."""
        return self.data[16] if len(self.data) > 16 else 0


def split(datagram: bytes) -> Iterator[Message]:
    """The messages of a datagram. ValueError at the first whose length cannot be: what is before it was
    yielded."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > len(datagram):
            raise ValueError(
                f"netlink message of {length} bytes in the {len(datagram) - offset} that are left"
            )
        yield Message(kind, flags, sequence, datagram[offset : offset + length])
        offset += (length + 3) & ~3


def open_events(groups: Iterable[int], buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> socket.socket:
    """A non-blocking socket that is a member of `groups`."""
    sock = _open()
    try:
        _set_receive_buffer(sock, buffer_bytes)
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def open_requests() -> socket.socket:
    """A socket for dumps and changes; dumps are strictly checked, so that a request the kernel does not
    understand is an error and not an answer to some other question."""
    sock = _open()
    for option in (_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
        with suppress(OSError):  # before Linux 4.12 / 4.20: answers are the same, only less checked
            sock.setsockopt(_SOL_NETLINK, option, 1)
    return sock


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, 0))
    except OSError:
        sock.close()
        raise
    return sock


def _set_receive_buffer(sock: socket.socket, buffer_bytes: int) -> None:
    """A burst of routes is 832 bytes of kernel memory each: the default buffer holds 250 of them."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:  # in a user namespace, or without CAP_NET_ADMIN: capped by net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        got = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        if got < buffer_bytes and "buffer" not in _told:
            _told.add("buffer")
            log.warning(
                "netlink receive buffer is %d KiB instead of %d KiB: bursts of routes will cost full dumps; "
                "run with CAP_NET_ADMIN or set sysctl net.core.rmem_max=%d",
                got >> 10,
                buffer_bytes >> 10,
                buffer_bytes,
            )


def receive(sock: socket.socket) -> bytes | None:
    """One datagram from the kernel, or None when nothing waits. Others' datagrams are skipped (anyone may
    send to a netlink socket). OSError(ENOBUFS): the kernel threw messages away; the socket goes on
    working."""
    while True:
        try:
            data, address = sock.recvfrom(_DATAGRAM_BYTES)
        except BlockingIOError:
            return None
        if address[0] == 0:
            return data


def request(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message: header and body (attributes included, padded to 4)."""
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, sequence, 0) + body


def dump(kind: int, body: bytes, timeout: float = 5.0, attempts: int = 5) -> list[Message]:
    """Everything the kernel answers to an RTM_GET* dump, in its order; done again when the table changed
    meanwhile.

    OSError: the kernel refused (its errno), stayed silent for `timeout` seconds (ETIMEDOUT), or the table
    never stood still for `attempts` dumps (EINTR).
    """
    for attempt in range(attempts):
        with open_requests() as sock:
            sock.settimeout(timeout)
            sock.send(request(kind, NLM_F_DUMP, attempt + 1, body))
            answers, consistent = _receive_dump(sock, attempt + 1)
        if consistent:
            return answers
    raise InterruptedError(4, "the table changed during every dump")


def _receive_dump(sock: socket.socket, sequence: int) -> tuple[list[Message], bool]:
    answers: list[Message] = []
    consistent = True
    while True:
        datagram = receive(sock)
        for message in split(datagram or b""):
            if message.sequence != sequence:
                continue
            if message.flags & NLM_F_DUMP_INTR:
                consistent = False
            if message.type in (NLMSG_ERROR, NLMSG_DONE):
                # a dump's errno comes in either: NLMSG_DONE carries it when some of the dump was sent
                code = error_of(message)
                if code:
                    raise OSError(code, os.strerror(code))
                return answers, consistent
            answers.append(message)


def error_of(message: Message) -> int:
    """errno of an NLMSG_ERROR or NLMSG_DONE: 0 is success."""
    if len(message.data) < 20:
        return 0
    return -int(struct.unpack_from("=i", message.data, 16)[0])
