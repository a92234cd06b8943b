"""A TAP interface: how a port looks to the kernel and to everyone who configures it.

python-pytun creates it; the ioctls that pytun lacks are made here. Packets never pass through Python: the
descriptors go to the door's thread (door.h). Without a virtio header the kernel hands over packets whose
checksums are valid, so nothing has to be completed on the way to the wire.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# linux/if_tun.h, linux/sockios.h, linux/ethtool.h
_TUNSETCARRIER = 0x400454E2
_SIOCSIFTXQLEN = 0x8943
_SIOCETHTOOL = 0x8946
_ETHTOOL_SSET = 0x02
_ETHTOOL_GDRVINFO = 0x03
_TXQUEUELEN = 1000
_NAME_BYTES = 15


class TapError(Exception):
    """One line: what stands in the way and the command that mends it."""


class Tap:
    """One persistent multi-queue TAP in the calling thread's network namespace.

    It outlives the process: addresses and routes stay when the daemon ends, and the next one takes it over.
    """

    def __init__(self, name: str, queues: int, mac: bytes, mtu: int, up: bool = True) -> None:
        """Creates the TAP, or takes over the one that is there, with `queues` descriptors (one per worker).

        mac: 6 bytes; mtu: bytes of IP. `up`: bring a TAP up that did not exist before; one that did keeps the
        state its user gave it. The carrier is on afterwards. TapError when it cannot be.
        """
        _check_name(name)
        self.name = name
        self._devices: list[Any] = []
        existed = _ifindex(name) is not None
        if existed:
            _check_free(name)
        try:
            for _ in range(queues):
                self._devices.append(_attach(name))
            self.existed = existed
            self.ifindex = socket.if_nametoindex(name)
            self._devices[0].persist(True)
            self.set_mac(mac)
            self.set_mtu(mtu)
            _interface_ioctl(_SIOCSIFTXQLEN, name, struct.pack("=i", _TXQUEUELEN))
            if not existed:
                # A fresh TAP's operstate stays "unknown" until its carrier has changed once.
                self.set_carrier(False)
            self.set_carrier(True)
            if up and not existed:
                self.set_up()
        except OSError as error:
            self._abandon(existed)
            raise TapError(f"{name}: cannot set up the TAP: {_reason(error)}") from error
        except BaseException:
            self._abandon(existed)
            raise

    def _abandon(self, existed: bool) -> None:
        """Leaves things as they were found."""
        if self._devices and not existed:
            with contextlib.suppress(OSError):
                self._devices[0].persist(False)
        self._close_devices()

    @property
    def fds(self) -> Sequence[int]:
        """The descriptors, one per queue: non-blocking, closed on exec, this object's to close."""
        return tuple(device.fileno() for device in self._devices)

    @property
    def mac(self) -> bytes:
        """The interface's MAC now (a user may have changed it), 6 bytes."""
        return bytes(self._devices[0].hwaddr)

    @property
    def mtu(self) -> int:
        """The interface's MTU now."""
        return int(self._devices[0].mtu)

    def set_mac(self, mac: bytes) -> None:
        """Gives it the port's MAC when it has another; addresses stay."""
        if len(mac) != 6 or mac[0] & 1:
            raise TapError(f"{self.name}: {mac.hex(':')} is not the MAC of a station")
        if self.mac != mac:
            self._devices[0].hwaddr = mac

    def set_mtu(self, mtu: int) -> None:
        """Gives it the port's MTU (bytes of IP) when it has another."""
        if self.mtu != mtu:
            self._devices[0].mtu = mtu

    def set_carrier(self, on: bool) -> None:
        """Mirrors the port's link: off makes the kernel's routes over it `linkdown`."""
        fcntl.ioctl(self._devices[0].fileno(), _TUNSETCARRIER, struct.pack("=i", on))

    def set_speed(self, mbps: int, full_duplex: bool = True) -> None:
        """What `ethtool` and routing protocols read as the link's speed, in Mbit/s (0..2^32-1)."""
        # struct ethtool_cmd; the speed is cut in two halves of 16 bits.
        command = struct.pack(
            "=IIIHBBBBBBIIHBBI8x",
            *(_ETHTOOL_SSET, 0, 0, mbps & 0xFFFF, int(full_duplex), 0, 0, 0, 0, 0),
            *(0, 0, mbps >> 16, 0, 0, 0),
        )
        _ethtool(self.name, command)

    def set_up(self) -> None:
        """`ip link set NAME up`."""
        self._devices[0].up()

    def remove(self) -> None:
        """Deletes the interface with all its addresses and routes, and closes it."""
        if self._devices:
            self._devices[0].persist(False)
        self._close_devices()

    def close(self) -> None:
        """Closes the descriptors (the door must have stopped); the interface stays, without carrier."""
        if self._devices:
            with contextlib.suppress(OSError):  # The interface may have been deleted under us.
                self.set_carrier(False)
        self._close_devices()

    def _close_devices(self) -> None:
        while self._devices:
            self._devices.pop().close()


def _check_name(name: str) -> None:
    bad = not name or len(name.encode()) > _NAME_BYTES or name in (".", "..")
    if bad or any(c in "/:%" or c.isspace() for c in name):
        raise TapError(
            f"{name!r} cannot name an interface: 1 to 15 characters, none of them '/', ':', '%' or space"
        )


def _ifindex(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _attach(name: str) -> Any:
    """One more queue of the TAP; the first creates it."""
    import pytun

    try:
        device = pytun.TunTapDevice(name=name, flags=pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_MULTI_QUEUE)
    except OSError as error:
        raise TapError(_why_not(name, error)) from error
    os.set_inheritable(device.fileno(), False)
    os.set_blocking(device.fileno(), False)
    return device


def _why_not(name: str, error: OSError) -> str:
    number = error.errno
    if number in (errno.EPERM, errno.EACCES):
        return f"{name}: no permission to make a TAP: run as root or with CAP_NET_ADMIN"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"{name}: no /dev/net/tun: run `modprobe tun`"
    if number == errno.EBUSY:
        return f"{name}: another process has this TAP: end it, or choose another name"
    if number == errno.E2BIG:
        return f"{name}: the TAP has no more queues to give: end the processes that have it open"
    if number == errno.EINVAL and _ifindex(name) is not None:
        return f"{name}: a TAP made for one queue, or with packet headers: run `ip link del {name}`"
    return f"{name}: cannot make the TAP: {_reason(error)}"


def _check_free(name: str) -> None:
    """TapError when the interface `name` is no TAP, or someone else has it.

    The kernel would let a second process attach to a multi-queue TAP, and share the packets between both.
    """
    driver, kind = _driver(name)
    if (driver, kind) != ("tun", "tap"):
        what = (
            f"an interface of another kind ({driver or 'no driver'})"
            if driver != "tun"
            else "a TUN, not a TAP"
        )
        raise TapError(
            f"{name}: the name is taken by {what}: choose another name for the port, or run "
            f"`ip link set {name} name OTHER`"
        )
    holder = _holder(name)
    if holder is not None:
        raise TapError(f"{name}: in use by process {holder[0]} ({holder[1]}): run `kill {holder[0]}`")


def _driver(name: str) -> tuple[str, str]:
    """Driver and bus of an interface as `ethtool -i` shows them; tun says which kind it is as its bus."""
    try:
        info = _ethtool(name, struct.pack("=I192x", _ETHTOOL_GDRVINFO))
    except OSError:
        return "", ""
    text = [info[start : start + 32].split(b"\0")[0].decode(errors="replace") for start in (4, 100)]
    return text[0], text[1]


def _holder(name: str) -> tuple[int, str] | None:
    """A process of this network namespace that has the TAP open, as far as /proc lets us see."""
    ours = os.stat("/proc/thread-self/ns/net").st_ino
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # Processes end while we look; others' are not ours to read.
            if os.stat(process / "ns/net").st_ino == ours and _has_tap(process, name):
                return int(process.name), (process / "comm").read_text().strip()
    return None


def _has_tap(process: Path, name: str) -> bool:
    for fd in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(fd) == "/dev/net/tun":
                info = (process / "fdinfo" / fd.name).read_text()
                if f"iff:\t{name}\n" in info:
                    return True
    return False


def _ethtool(name: str, command: bytes) -> bytes:
    buffer = array.array("B", command)
    _interface_ioctl(_SIOCETHTOOL, name, struct.pack("=Q", buffer.buffer_info()[0]))
    return buffer.tobytes()


def _interface_ioctl(request: int, name: str, value: bytes) -> None:
    """An ioctl on struct ifreq (40 bytes: name, then a union)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control.fileno(), request, name.encode().ljust(16, b"\0") + value.ljust(24, b"\0"))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
