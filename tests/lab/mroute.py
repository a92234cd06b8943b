"""A multicast routing daemon of a few lines: virtual interfaces and static entries in the kernel's own forwarding cache
(<linux/mroute.h>, <linux/mroute6.h>), which is empty again when the socket is closed."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence

from ixroute.demo.netns import Namespace
from lab.packets import address_bytes

MRT_INIT, MRT_ADD_VIF, MRT_ADD_MFC = 200, 202, 204  # of IPv6 the same
IPPROTO_IGMP = 2
VIFF_USE_IFINDEX = 8
MAXVIFS = 32


class MulticastRoutes:
    """Of one family in one namespace. interfaces: by their number there. OSError ENOPROTOOPT when the kernel has no
    multicast routing."""

    def __init__(self, namespace: Namespace, version: int, interfaces: Sequence[str]) -> None:
        self._version = version
        family, protocol, self._level = (
            (socket.AF_INET, IPPROTO_IGMP, socket.IPPROTO_IP)
            if version == 4
            else (socket.AF_INET6, socket.IPPROTO_ICMPV6, socket.IPPROTO_IPV6)
        )
        self._socket = namespace.socket(family, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(self._level, MRT_INIT, struct.pack("=i", 1))
        for number, name in enumerate(interfaces):
            ifindex = namespace.call(lambda name=name: socket.if_nametoindex(name))
            if version == 4:  # struct vifctl
                vif = struct.pack("=HBBIi4x", number, VIFF_USE_IFINDEX, 1, 0, ifindex)
            else:  # struct mif6ctl
                vif = struct.pack("=HBBHxxI", number, 0, 1, ifindex, 0)
            self._socket.setsockopt(self._level, MRT_ADD_VIF, vif)

    def add(self, source: str, group: str, parent: int, out: Sequence[int]) -> None:
        """parent, out: numbers of the interfaces."""
        if self._version == 4:  # struct mfcctl
            thresholds = bytes(1 if number in out else 0 for number in range(MAXVIFS))
            addresses = address_bytes(source) + address_bytes(group)
            entry = addresses + struct.pack("=H32sxxIIIi", parent, thresholds, 0, 0, 0, 0)
        else:  # struct mf6cctl: two struct sockaddr_in6, the parent, struct if_set
            ends = b"".join(
                struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, address_bytes(address), 0)
                for address in (source, group)
            )
            bits = sum(1 << number for number in out)
            entry = ends + struct.pack("=HxxI28x", parent, bits)
        self._socket.setsockopt(self._level, MRT_ADD_MFC, entry)

    def close(self) -> None:
        self._socket.close()


def is_missing(error: OSError) -> bool:
    """Whether the kernel was built without it."""
    return error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
