"""A kernel network interface through its ioctls (netdevice(7)): MTU, MAC, flags, up."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

SIOCGIFNAME = 0x8910
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCGIFADDR = 0x8915
SIOCGIFMTU = 0x8921
SIOCSIFMTU = 0x8922
SIOCSIFHWADDR = 0x8924
SIOCGIFHWADDR = 0x8927
SIOCGIFINDEX = 0x8933

IFF_UP = 0x1
IFF_RUNNING = 0x40
ARPHRD_ETHER = 1

SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_DROP_MEMBERSHIP = 2
PACKET_MR_PROMISC = 1
PACKET_MR_ALLMULTI = 2


class NetDevice:
    """An interface of the network namespace that the calling thread is in now, also when called later from
    another.

    Known by its index, so that renaming it does no harm. Every method raises OSError; ENODEV when it is gone.
    """

    def __init__(self, name: str) -> None:
        if not 0 < len(name.encode()) < 16:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            ifreq = fcntl.ioctl(self._socket, SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
        except BaseException:
            self._socket.close()
            raise
        (self.ifindex,) = struct.unpack_from("=i", ifreq, 16)

    def name(self) -> str:
        ifreq = fcntl.ioctl(self._socket, SIOCGIFNAME, struct.pack("=16xi20x", self.ifindex))
        return ifreq[:16].rstrip(b"\0").decode()

    def ioctl(self, request: int, value: bytes = b"") -> bytes:
        """An ioctl on struct ifreq: what goes into its union, and the union (24 bytes) as it comes back."""
        ifreq = struct.pack("16s24s", self.name().encode(), value)
        return fcntl.ioctl(self._socket, request, ifreq)[16:]

    def flags(self) -> int:
        """IFF_* of the first 16 bits."""
        return int.from_bytes(self.ioctl(SIOCGIFFLAGS)[:2], "little" if _LITTLE else "big")

    def set_up(self) -> None:
        self.ioctl(SIOCSIFFLAGS, struct.pack("=H", self.flags() | IFF_UP))

    def mtu(self) -> int:
        return int(struct.unpack_from("=i", self.ioctl(SIOCGIFMTU))[0])

    def set_mtu(self, mtu: int) -> None:
        self.ioctl(SIOCSIFMTU, struct.pack("=i", mtu))

    def hardware_type(self) -> int:
        """ARPHRD_*."""
        return int(struct.unpack_from("=H", self.ioctl(SIOCGIFHWADDR))[0])

    def mac(self) -> bytes:
        return self.ioctl(SIOCGIFHWADDR)[2:8]

    def set_mac(self, mac: bytes) -> None:
        self.ioctl(SIOCSIFHWADDR, struct.pack("=H6s", ARPHRD_ETHER, mac))

    def ipv4_address(self) -> str | None:
        """Its first address, if it has one."""
        try:
            return socket.inet_ntoa(self.ioctl(SIOCGIFADDR)[4:8])
        except OSError as e:
            if e.errno == errno.EADDRNOTAVAIL:
                return None
            raise

    def close(self) -> None:
        self._socket.close()


_LITTLE = struct.pack("=H", 1)[0] == 1


class Membership:
    """Promiscuous and all-multicast reception for as long as this object, or the process, lives: the kernel
    counts packet sockets that ask for it, so nothing is left behind and nobody else's wish is undone
    (packet(7))."""

    def __init__(self, ifindex: int) -> None:
        self._ifindex = ifindex
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: receives nothing
        self._on: set[int] = set()

    def set(self, what: int, on: bool) -> None:
        """PACKET_MR_PROMISC or PACKET_MR_ALLMULTI."""
        if on == (what in self._on):
            return
        option = PACKET_ADD_MEMBERSHIP if on else PACKET_DROP_MEMBERSHIP
        self._socket.setsockopt(SOL_PACKET, option, struct.pack("=iHH8x", self._ifindex, what, 0))
        self._on ^= {what}

    def close(self) -> None:
        self._socket.close()
