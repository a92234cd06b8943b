"""Whether a kernel interface is up, and a descriptor that tells when that may have changed (rtnetlink(7))."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

_NETLINK_ROUTE = 0
_RTMGRP_LINK = 1
# linux/sockios.h, linux/if.h, linux/if_arp.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCGIFHWADDR = 0x8927
_SIOCGIFINDEX = 0x8933
_IFF_UP = 0x1
_IFF_RUNNING = 0x40
ARPHRD_ETHER = 1


class LinkWatch:
    """An interface of the network namespace that the calling thread is in now, by its name.

    The interface need not exist: it may come, go, and come again under the same name.
    """

    def __init__(self, name: str) -> None:
        """OSError when there are no descriptors left."""
        self.name = name
        self._netlink = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE
        )
        try:
            self._netlink.bind((0, _RTMGRP_LINK))
            self._any = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # keeps the namespace
        except OSError:
            self._netlink.close()
            raise

    def fileno(self) -> int:
        """Readable when the state of any interface may have changed; `drain` then."""
        return self._netlink.fileno()

    def drain(self) -> None:
        """Forgets what was told. What it was is asked for again: messages may have been lost (ENOBUFS)."""
        for _ in range(1000):  # a flood of changes ends this; the descriptor stays readable
            try:
                self._netlink.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return

    def _ioctl(self, request: int, value: bytes = b"") -> bytes:
        ifreq = struct.pack("16s24s", self.name.encode(), value)
        return fcntl.ioctl(self._any, request, ifreq)[16:]

    def ifindex(self) -> int | None:
        """Its number; None when there is no such interface."""
        try:
            return int(struct.unpack_from("=i", self._ioctl(_SIOCGIFINDEX))[0])
        except OSError:
            return None

    def hardware_type(self) -> int:
        """ARPHRD_*. OSError when it is gone."""
        return int(struct.unpack_from("=H", self._ioctl(_SIOCGIFHWADDR))[0])

    def _flags(self) -> int:
        try:
            return int(struct.unpack_from("=H", self._ioctl(_SIOCGIFFLAGS))[0])
        except OSError:
            return 0

    def is_up(self) -> bool:
        """`ip link set NAME up` was said."""
        return bool(self._flags() & _IFF_UP)

    def is_running(self) -> bool:
        """It is up, and has a carrier."""
        return self._flags() & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING

    def set_up(self) -> None:
        """`ip link set NAME up`. OSError."""
        self._ioctl(_SIOCSIFFLAGS, struct.pack("=H", self._flags() | _IFF_UP))

    def close(self) -> None:
        self._netlink.close()
        self._any.close()
