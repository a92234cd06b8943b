"""Kernel interfaces as a wire: a TAP, or an existing interface through AF_PACKET."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Sequence

from ixroute._dataplane import ffi, lib
from ixroute.emulator.link_watch import ARPHRD_ETHER, LinkWatch
from ixroute.emulator.wires import Wire, WireError, WireSpec, allocated

_log = logging.getLogger(__name__)

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETCARRIER = 0x400454E2
_TUNGETIFF = 0x800454D2
_TUNGETDEVNETNS = 0x54E3
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_CLONE_NEWNET = 0x40000000  # linux/sched.h
# linux/if_packet.h, linux/if_ether.h
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_PACKET_VNET_HDR = 15
_PACKET_QDISC_BYPASS = 20
_PACKET_IGNORE_OUTGOING = 23
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_RECEIVE_BYTES = 8 << 20


class TapWire(Wire):
    """A TAP: the kernel is the card's link partner. The link is up while the interface is (`ip link set NAME up`).

    The interface may be renamed and moved to another network namespace (`ip link set NAME netns OTHER`).
    """

    def __init__(self, spec: WireSpec) -> None:
        """Makes the TAP, or attaches to the one that is there, and brings it up. WireError, OSError, MemoryError."""
        super().__init__(spec)
        self._fd = -1
        self._gone = False
        self._watch = LinkWatch(spec.name)
        self._epoll = select.epoll()  # the same descriptor whichever namespace is watched
        try:
            existed = self._watch.ifindex() is not None
            self._fd = _attach(spec.name, existed)
            self._ifindex = self._watch.ifindex()
            self._watch.set_up()
            self._epoll.register(self._watch.fileno(), select.EPOLLIN)
            self.c = allocated(lib.wire_tap_create(self._fd))
        except BaseException:
            self.close()
            raise
        self.carrier_fd = self._epoll.fileno()

    def carrier(self) -> bool:
        if self.c == ffi.NULL:
            return False
        self._watch.drain()
        ifindex = self._watch.ifindex()
        if (ifindex is None or ifindex != self._ifindex) and not self._gone:
            self._follow()
        return self._ifindex is not None and self._watch.is_up()

    def _follow(self) -> None:
        """The interface has another name or namespace, or is gone: then there is no link any more."""
        self._ifindex = None
        try:
            request = fcntl.ioctl(self._fd, _TUNGETIFF, bytes(40))
            space = fcntl.ioctl(self._fd, _TUNGETDEVNETNS, 0)
        except OSError as error:
            self._gone = error.errno == errno.EBADFD
            _log.warning("wire %s: the interface is gone: %s", self.spec.text, error.strerror)
            return
        name = request[:16].split(b"\0")[0].decode()
        try:
            watch = _watch_in(space, name)
        except OSError as error:
            _log.warning(
                "wire %s: the interface is in a network namespace that cannot be entered (%s): the link stays down",
                *(self.spec.text, error.strerror),
            )
            return
        finally:
            os.close(space)
        self._epoll.unregister(self._watch.fileno())
        self._watch.close()
        self._watch = watch
        self._epoll.register(watch.fileno(), select.EPOLLIN)
        self._ifindex = watch.ifindex()

    def hints(self) -> Sequence[str]:
        if self._gone:
            return [f"the interface {self.spec.name} was deleted: start again to make it anew"]
        return ()

    def close(self) -> None:
        if self.c != ffi.NULL:
            lib.wire_tap_destroy(self.c)
            self.c = ffi.NULL
        if self._fd >= 0:
            os.close(self._fd)  # removes the interface, unless it is persistent: then somebody else made it
            self._fd = -1
        self._epoll.close()
        self._watch.close()
        self.carrier_fd = -1


def _watch_in(space: int, name: str) -> LinkWatch:
    """A watch on an interface of another network namespace. OSError."""
    found: list[LinkWatch | OSError] = []

    def inside() -> None:  # a thread ends where it has gone; this process stays where it is
        try:
            _setns(space)
            found.append(LinkWatch(name))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=inside, name="namespace")
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _setns(space: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _attach(name: str, existed: bool) -> int:
    """A descriptor of the TAP, non-blocking, no offloads. WireError."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise WireError(
            f"wire tap:{name}: /dev/net/tun: {error.strerror}: run `modprobe tun` as root"
        ) from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)
        for on in (0, 1):  # a fresh TAP's operstate stays "unknown" until its carrier has changed once
            fcntl.ioctl(fd, _TUNSETCARRIER, struct.pack("=i", on))
    except OSError as error:
        os.close(fd)
        raise WireError(f"wire tap:{name}: {_why_not(name, existed, error)}") from error
    return fd


def _why_not(name: str, existed: bool, error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"no permission: run as root, or `ip tuntap add {name} mode tap user $USER` as root before"
    if error.errno == errno.EBUSY:
        return "another process has this TAP: end it, or choose another name"
    if error.errno == errno.EINVAL and existed:
        return (
            f"an interface of another kind has this name: choose another, use if:{name}, "
            f"or run `ip link del {name}`"
        )
    return f"cannot be made: {error.strerror}: choose another name"


class PacketWire(Wire):
    """An existing interface. The link is up while the interface is up and has a carrier.

    The kernel goes on receiving from it too: give it no addresses, unless that is what you want.
    """

    def __init__(self, spec: WireSpec) -> None:
        """WireError, OSError, MemoryError."""
        super().__init__(spec)
        self._kernel_dropped = 0
        self._socket: socket.socket | None = None
        self._watch = LinkWatch(spec.name)
        try:
            self._ifindex = self._watch.ifindex()
            if self._ifindex is None:
                raise WireError(f"wire {spec.text}: no such interface: `ip link` shows those there are")
            if self._watch.hardware_type() != ARPHRD_ETHER:
                raise WireError(
                    f"wire {spec.text}: no Ethernet interface: choose one that `ip link` shows as link/ether"
                )
            self._socket = _packet_socket(spec)
            self._bind(self._socket, self._ifindex)
            self.c = allocated(lib.wire_packet_create(self._socket.fileno()))
        except BaseException:
            self.close()
            raise
        self.carrier_fd = self._watch.fileno()
        if not self._watch.is_up():
            _log.warning("wire %s: the interface is down: run `ip link set %s up`", spec.text, spec.name)

    def _bind(self, packets: socket.socket, ifindex: int) -> None:
        packets.bind((self.spec.name, _ETH_P_ALL))
        membership = struct.pack("=iHH8x", ifindex, _PACKET_MR_PROMISC, 0)
        packets.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)

    def carrier(self) -> bool:
        if self._socket is None:
            return False
        self._watch.drain()
        self._follow(self._socket)
        return self._watch.is_running()

    def _follow(self, packets: socket.socket) -> None:
        """An interface that was deleted and made anew has another number, and the socket must be told."""
        ifindex = self._watch.ifindex()
        if ifindex is None or ifindex == self._ifindex:
            return
        try:
            self._bind(packets, ifindex)
        except OSError as error:  # gone again; the next change tells
            _log.warning("wire %s: %s", self.spec.text, error.strerror)
        else:
            self._ifindex = ifindex
            _log.info("wire %s: attached to the interface that has this name now", self.spec.text)

    def stats(self) -> dict[str, int]:
        """And: kernel_dropped, packets that the socket had no room for; segmented, packets cut into frames."""
        stats = super().stats()
        if self._socket is not None and stats:
            raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # reading sets it to 0
            self._kernel_dropped += struct.unpack("=II", raw)[1]
            stats["kernel_dropped"] = self._kernel_dropped
            stats["segmented"] = int(lib.wire_packet_segmented(self.c))
        return stats

    def hints(self) -> Sequence[str]:
        if not self.stats().get("rx_dropped"):
            return ()
        return [
            f"{self.spec.name} gave packets that cannot be made frames: run `ethtool -K {self.spec.name} gro off "
            "lro off`, and on a veth's other end `ethtool -K PEER tso off gso off`"
        ]

    def close(self) -> None:
        if self.c != ffi.NULL:
            lib.wire_packet_destroy(self.c)
            self.c = ffi.NULL
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._watch.close()
        self.carrier_fd = -1


def _packet_socket(spec: WireSpec) -> socket.socket:
    """Options set, not bound. WireError, OSError."""
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError as error:
        raise WireError(f"wire {spec.text}: no permission: run as root or with CAP_NET_RAW") from error
    try:
        with contextlib.suppress(PermissionError):  # then the system's default size has to do
            packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
        for option in (_PACKET_IGNORE_OUTGOING, _PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_QDISC_BYPASS):
            packets.setsockopt(_SOL_PACKET, option, 1)
    except OSError:
        packets.close()
        raise
    return packets
