"""A port over AF_XDP (linux/if_xdp.h): any Ethernet interface of Linux, its packets taken from the kernel.

What is changed on the interface while it is a port, and put back at the end: the number of its channels,
disable_ipv6, VLAN stripping and LRO. The XDP program, the sockets and promiscuity end with the process,
however it ends; the rest, after a kill -9, stays until the next start and close (changes.py). It is also set
up, and stays so; MTU and MAC are the administrator's and stay what they were set to.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ixroute.driver import bpf, ethtool, netdev
from ixroute.driver.changes import Changes
from ixroute.driver.memlock import raise_memlock
from ixroute.driver.netdev import NetDevice
from ixroute.driver.port import Link, PortError, PortOptions
from ixroute.driver.umem import Umem, max_mtu
from ixroute.driver.xsk import STATISTICS, XskSocket, retry_busy

T = TypeVar("T")

log = logging.getLogger(__name__)

FRAME_BYTES = (2048, 4096)
"""What AF_XDP takes for a chunk of umem: powers of two from 2048 to a page (xdp_umem_reg)."""
_MAX_QUEUES = 1024  # that a program's map of sockets has room for
_COUNTERS = ("rx_no_frame", "rx_kicks", "rx_bad", "tx_kicks", "tx_refused", "tx_bad")
_UNWANTED_OFFLOADS = ethtool.FLAG_RXVLAN | ethtool.FLAG_LRO


def mtu_of(interface: str) -> int:
    """The interface's MTU. PortError when there is no such interface."""
    device = _find(interface)
    try:
        return device.mtu()
    finally:
        device.close()


def queues_of(interface: str) -> int:
    """How many receive queues the interface has now. PortError when there is no such interface."""
    device = _find(interface)
    try:
        return _count_queues(device)[0]
    finally:
        device.close()


def _find(interface: str, port: str = "") -> NetDevice:
    try:
        return NetDevice(interface)
    except OSError as e:
        what = f"there is no interface {interface!r} here: `ip link` lists them"
        if e.errno != errno.ENODEV:
            what = f"{interface}: {e.strerror}"
        raise PortError(f"af_xdp:{interface}", what, port) from e


def _count_queues(device: NetDevice) -> tuple[int, int]:
    """Receive and send queues."""
    channels = ethtool.channels(device)
    if channels is not None:
        return channels.rx_queues, channels.tx_queues
    queues = Path("/sys/class/net", device.name(), "queues")
    names = os.listdir(queues) if queues.is_dir() else []

    def count(way: str) -> int:
        return max(1, sum(name.startswith(way) for name in names))

    return count("rx-"), count("tx-")


class AfXdpPort:
    """Implements Port, on an interface of the network namespace that the calling thread is in.

    The order of bringing up: attach a program that drops everything (it is also the lock against a second
    router on the interface), quiet the kernel, settle the queues, set up, bind the sockets, and last let
    packets go to them.
    """

    kind = "af_xdp"

    def __init__(
        self, name: str, index: int, interface: str, umem: Umem, workers: int, options: PortOptions
    ) -> None:
        self.name = name
        self.index = index
        self.spec = f"af_xdp:{interface}"
        self.n_queues = 0
        self.max_mtu = max_mtu(umem.frame_bytes)
        self._umem = umem
        self._workers = workers
        self._options = options
        self._interface = interface
        self._mode = ""
        self._driver = ""
        self._sockets: list[XskSocket] = []
        self._redirect: bpf.XdpRedirect | None = None
        self._membership: netdev.Membership | None = None
        self._changes: Changes | None = None
        self._channels_before: ethtool.Channels | None = None
        self._disable_ipv6: tuple[int, str] | None = None  # the sysctl's descriptor, what to put back
        self._offloads_before: int | None = None
        self._last_stats: dict[str, int] = {}
        self._zero_stats: dict[str, int] = {}
        self._closed = False
        umem.hold()
        try:
            self._device = _find(interface, name)
        except PortError:
            umem.release()
            raise
        self.wire_ifindex: int | None = self._device.ifindex
        self.link_fd = -1
        try:
            self._bring_up()
        except OSError as e:
            self.close()
            raise self._error(f"{interface}: {e.strerror}") from e
        except BaseException:
            self.close()
            raise

    def _error(self, message: str) -> PortError:
        return PortError(self.spec, message, self.name)

    # ---- bring-up

    def _bring_up(self) -> None:
        self._check_frames()
        self._check_interface()
        raise_memlock()
        self._load_program()
        self._attach()
        self._changes = Changes(self._options.state_dir, self._device)
        self._quiet_kernel()
        self._stop_offloads()
        self._settle_queues()
        self._device.set_up()
        self._bind_sockets()
        self._membership = netdev.Membership(self._device.ifindex)
        self._membership.set(netdev.PACKET_MR_ALLMULTI, True)

    def _check_frames(self) -> None:
        frame_bytes = self._umem.frame_bytes
        if frame_bytes not in FRAME_BYTES:
            raise self._error(
                f"AF_XDP takes frames of 2048 or 4096 bytes, and those of this router have {frame_bytes}:"
                " set memory.frame_bytes = 4096, and MTUs that fit it on all ports"
            )

    def _check_interface(self) -> None:
        if self._device.hardware_type() != netdev.ARPHRD_ETHER:
            raise self._error(f"{self._interface} is not an Ethernet interface")
        with contextlib.suppress(OSError):
            self._driver = ethtool.driver_info(self._device)["driver"]
        mtu = self._device.mtu()
        if mtu > self.max_mtu:
            raise self._error(self._mtu_advice(mtu))
        address = self._device.ipv4_address()
        if address is not None:
            log.warning(
                "port %s: %s has the address %s, which the kernel can no longer use there:"
                " move it to the interface %s (`ip addr flush dev %s`)",
                *(self.name, self._interface, address, self.name, self._interface),
            )

    def _mtu_advice(self, mtu: int) -> str:
        frame_bytes = self._umem.frame_bytes
        fits = f"frames of {frame_bytes} bytes hold an MTU of {self.max_mtu}"
        larger = next((size for size in FRAME_BYTES if max_mtu(size) >= mtu), None)
        if larger is not None:
            return f"{self._interface} has MTU {mtu}, {fits}: configure frame_bytes = {larger}"
        return (
            f"{self._interface} has MTU {mtu}, {fits}: `ip link set dev {self._interface} mtu {self.max_mtu}`"
        )

    def _load_program(self) -> None:
        try:
            self._redirect = bpf.XdpRedirect(_MAX_QUEUES)
        except PermissionError as e:
            raise self._error("no permission for bpf(2): CAP_BPF and CAP_NET_ADMIN are needed") from e
        except OSError as e:
            raise self._error(f"bpf(2): {e.strerror}; Linux 5.10 or newer with XDP is needed") from e

    def _attach(self) -> None:
        """In the best mode that the driver has and the options allow."""
        modes = {"native": bpf.FLAG_NATIVE, "generic": bpf.FLAG_GENERIC}
        if self._options.mode != "auto":
            modes = {self._options.mode: modes[self._options.mode]}
        for mode, flag in modes.items():
            try:
                self._attach_as(flag)
            except OSError as e:
                why = self._why_not_attached(mode, e)
                if e.errno in {errno.EBUSY, errno.EEXIST, errno.EPERM} or mode == list(modes)[-1]:
                    raise self._error(why) from e
                log.warning("port %s: %s; going on in generic mode, which is slower", self.name, why)
            else:
                self._mode = mode
                return

    def _attach_as(self, flag: int) -> None:
        """Some drivers can do XDP only with other numbers of queues than they have now (a veth that has fewer
        than its peer sends by, cards that need as many again for XDP): if it fails, tries with one per
        worker."""
        assert self._redirect is not None
        redirect = self._redirect

        def attach() -> None:
            redirect.attach(self._device.ifindex, flag)

        try:
            return retry_busy(attach)
        except OSError as e:
            now = ethtool.channels(self._device)
            wanted = now and now.resized(self._workers)
            if e.errno in {errno.EBUSY, errno.EEXIST, errno.EPERM} or now is None or wanted is None:
                raise
            try:
                ethtool.set_channels(self._device, wanted)
            except OSError:
                raise e from None
            try:
                attach()
            except OSError:
                ethtool.set_channels(self._device, now)
                raise
            self._channels_before = now

    def _why_not_attached(self, mode: str, e: OSError) -> str:
        interface = self._interface
        reasons = {
            errno.EBUSY: f"another XDP program is attached to {interface}:"
            f" `ip link set dev {interface} xdp off` takes it away, or end the process that holds it",
            errno.EPERM: "no permission to attach XDP: CAP_NET_ADMIN and CAP_BPF are needed",
            errno.ERANGE: f"{interface} refuses {mode} XDP: the MTU (of its veth peer) is too large for one"
            " page: `ip link set dev PEER mtu 3498` or less",
            errno.ENOSPC: f"{interface} refuses {mode} XDP: its veth peer has more transmit queues than"
            f" {interface} has receive queues: `ethtool -L {interface} rx N` with the peer's number",
            errno.EOPNOTSUPP: f"the driver of {interface} has no {mode} XDP",
        }
        reasons[errno.EEXIST] = reasons[errno.EBUSY]
        return reasons.get(e.errno or 0, f"{interface} refuses {mode} XDP: {e.strerror}")

    def _quiet_kernel(self) -> None:
        """The kernel must not speak IPv6 on this wire by itself (router solicitations, MLD, DAD): it does so
        by the TAP. The descriptor is kept, since it belongs to the namespace that we are in now."""
        path = f"/proc/sys/net/ipv6/conf/{self._interface}/disable_ipv6"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # a kernel without IPv6
        except OSError as e:
            self._warn_ipv6(e)
            return
        now = os.pread(fd, 8, 0).decode().strip()
        assert self._changes is not None
        self._disable_ipv6 = (fd, self._changes.note("disable_ipv6", now))
        try:
            os.pwrite(fd, b"1", 0)
        except OSError as e:
            self._warn_ipv6(e)

    def _warn_ipv6(self, e: OSError) -> None:
        log.warning(
            "port %s: cannot keep the kernel from speaking IPv6 on %s (%s):"
            " `sysctl net.ipv6.conf.%s.disable_ipv6=1`",
            *(self.name, self._interface, e.strerror, self._interface),
        )

    def _stop_offloads(self) -> None:
        """VLAN tags must stay in the packet, and packets must stay apart: a driver that strips or merges
        would hide from us what was on the wire. Most drivers do neither under XDP; those that cannot be asked
        are left alone."""
        try:
            now = ethtool.flags(self._device)
            if now & _UNWANTED_OFFLOADS:
                assert self._changes is not None
                self._offloads_before = self._changes.note("offloads", now)
                ethtool.set_flags(self._device, now & ~_UNWANTED_OFFLOADS)
        except OSError as e:
            log.info(
                "port %s: %s keeps its VLAN and LRO offloads (%s)", self.name, self._interface, e.strerror
            )

    def _settle_queues(self) -> None:
        """One queue per worker if the device can; more are shared out; fewer will not do."""
        assert self._changes is not None
        now = ethtool.channels(self._device)
        before = self._channels_before or now
        if before is not None:
            noted = self._changes.note("channels", [before.rx, before.tx, before.combined])
            self._channels_before = before.with_counts(*noted)
        wanted = now and now.resized(self._workers)
        if wanted is not None:
            try:
                ethtool.set_channels(self._device, wanted)
            except OSError as e:
                log.info("port %s: %s keeps its queues (%s)", self.name, self._interface, e.strerror)
        rx, tx = _count_queues(self._device)
        fewest = min(rx, tx)
        if fewest < self._workers:
            s = "" if fewest == 1 else "s"
            raise self._error(
                f"{self._interface} has {fewest} queue{s}, {self._workers} workers need {self._workers}:"
                f" run fewer workers, or give it more queues (`ethtool -L {self._interface}`,"
                " or when it is made: `ip link add … numrxqueues N numtxqueues N`)"
            )
        self.n_queues = rx
        self._tx_queues = tx

    def _bind_sockets(self) -> None:
        assert self._redirect is not None
        zero_copy = self._options.zero_copy != "off" and self._mode == "native"
        if self._options.zero_copy == "on" and not zero_copy:
            raise self._error(f'{self._interface} runs in generic mode, which cannot zero_copy = "on"')
        each = -(-self.n_queues // self._workers)
        for number in range(self.n_queues):
            try:
                self._sockets.append(self._bind_socket(number, self._options.slots(each), zero_copy))
            except OSError as e:
                raise self._error(self._why_not_bound(number, e)) from e
            zero_copy = self._sockets[-1].zero_copy
        for number, socket in enumerate(self._sockets):
            self._redirect.set_socket(number, socket.socket.fileno())

    def _bind_socket(self, number: int, slots: tuple[int, int], zero_copy: bool) -> XskSocket:
        """Queues beyond the last that the device can send by only receive."""
        rx_slots, tx_slots = slots[0], slots[1] if number < self._tx_queues else 0

        def bind(zero_copy: bool) -> XskSocket:
            return XskSocket(
                self._umem,
                self._device.ifindex,
                number,
                port=self.index,
                rx_slots=rx_slots,
                tx_slots=tx_slots,
                zero_copy=zero_copy,
            )

        if zero_copy:
            try:
                return bind(True)
            except OSError as e:
                if self._options.zero_copy == "on" or e.errno in {errno.EBUSY, errno.EPERM, errno.ENOBUFS}:
                    raise
                log.info(
                    "port %s: %s copies packets: no zero-copy (%s)", self.name, self._interface, e.strerror
                )
        return bind(False)

    def _why_not_bound(self, number: int, e: OSError) -> str:
        interface = self._interface
        memlock = (
            f"umem's {self._umem.bytes >> 20} MiB may not be locked in memory: LimitMEMLOCK=infinity in the"
            " service, `ulimit -l unlimited`, or CAP_IPC_LOCK"
        )
        reasons = {
            errno.EBUSY: f"queue {number} of {interface} belongs to another AF_XDP socket:"
            " end the process that has it",
            errno.EPERM: "no permission for AF_XDP sockets: CAP_NET_RAW is needed",
            errno.EAFNOSUPPORT: "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
            errno.ENOBUFS: memlock,
        }
        if self._options.zero_copy == "on":
            reasons[errno.EOPNOTSUPP] = f'the driver of {interface} has no zero-copy: zero_copy = "auto"'
        return reasons.get(e.errno or 0, f"{interface}, queue {number}: {e.strerror}")

    # ---- what Port says

    @property
    def mac(self) -> bytes:
        return self._ask(self._device.mac)

    @property
    def mtu(self) -> int:
        return self._ask(self._device.mtu)

    def queues(self) -> list[Any]:
        return [socket.queue for socket in self._sockets]

    def link(self) -> Link:
        flags = self._ask(self._device.flags)
        if not (flags & netdev.IFF_UP and flags & netdev.IFF_RUNNING):
            return Link(up=False)
        try:
            speed, duplex = ethtool.link_speed(self._device)
        except OSError:  # not every driver can tell
            speed, duplex = None, None
        return Link(True, speed, duplex)

    def service(self) -> None:
        """Nothing to do by the clock."""

    def set_mtu(self, mtu: int) -> None:
        if mtu > self.max_mtu:
            raise self._error(
                f"MTU {mtu} does not fit: frames of {self._umem.frame_bytes} bytes hold {self.max_mtu}"
            )
        self._ask(lambda: self._device.set_mtu(mtu), f"cannot set MTU {mtu}")

    def set_mac(self, mac: bytes) -> None:
        if len(mac) != 6 or mac[0] & 1:
            raise self._error(f"{mac.hex(':')} is not a unicast MAC address")
        self._ask(lambda: self._device.set_mac(mac), f"cannot set MAC {mac.hex(':')}")

    def set_promiscuous(self, on: bool) -> None:
        assert self._membership is not None
        membership = self._membership
        self._ask(lambda: membership.set(netdev.PACKET_MR_PROMISC, on))

    def set_allmulticast(self, on: bool) -> None:
        """Always on: groups (OSPF's, neighbour discovery's) are joined on the TAP, which the card's filter
        does not know of."""

    def _ask(self, call: Callable[[], T], what: str = "") -> T:
        """The call's result, its OSError made a PortError."""
        if self._closed:
            raise self._error("is closed")
        try:
            return call()
        except OSError as e:
            gone = (
                f"{self._interface} is gone"
                if e.errno == errno.ENODEV
                else f"{self._interface}: {e.strerror}"
            )
            raise self._error(f"{what}: {gone}" if what else gone) from e

    def stats(self) -> dict[str, int]:
        """XDP_STATISTICS under the kernel's names (a short one for *_descs), and what the queues counted."""
        if not self._closed:
            totals = dict.fromkeys((*STATISTICS, *_COUNTERS), 0)
            for socket in self._sockets:
                for key, value in socket.statistics().items():
                    totals[key] += value
                for key in _COUNTERS:
                    totals[key] += getattr(socket.queue, key)
            self._last_stats = totals
        return {key: value - self._zero_stats.get(key, 0) for key, value in self._last_stats.items()}

    def reset_stats(self) -> None:
        self.stats()
        self._zero_stats = dict(self._last_stats)

    @property
    def rx_slots(self) -> int:
        return self._options.slots(-(-self.n_queues // self._workers))[0]

    @property
    def tx_slots(self) -> int:
        return self._options.slots(-(-self.n_queues // self._workers))[1]

    def features(self) -> dict[str, Any]:
        return {
            "mode": self._mode,
            "zero_copy": bool(self._sockets) and all(socket.zero_copy for socket in self._sockets),
            "need_wakeup": True,
            "queues": self.n_queues,
            "driver": self._driver,
        }

    def close(self, pools: Sequence[Any] = ()) -> None:
        if self._closed:
            return
        self.stats()
        self._closed = True
        if self._redirect is not None:
            self._redirect.close()
        for number, socket in enumerate(self._sockets):
            socket.close(pools[number % self._workers] if pools else None)
        self._sockets.clear()
        if self._membership is not None:
            self._membership.close()
        self._put_back()
        self._device.close()
        self._umem.release()

    def _put_back(self) -> None:
        """Each thing by itself: an interface that is gone needs none of it."""
        if self._offloads_before is not None:
            self._try("offloads", lambda: ethtool.set_flags(self._device, self._offloads_before or 0))
        channels = self._channels_before
        if channels is not None:
            # EINVAL is how ethtool refuses to take away a queue that an AF_XDP socket still has.
            busy = frozenset({errno.EBUSY, errno.EINVAL})
            self._try("channels", lambda: retry_busy(lambda: self._put_channels_back(channels), busy))
        if self._disable_ipv6 is not None:
            fd, before = self._disable_ipv6
            self._try("disable_ipv6", lambda: os.pwrite(fd, before.encode(), 0))
            os.close(fd)
        if self._changes is not None:
            self._changes.undone()

    def _put_channels_back(self, channels: ethtool.Channels) -> None:
        if ethtool.channels(self._device) != channels:
            ethtool.set_channels(self._device, channels)

    def _try(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as e:
            if e.errno not in {errno.ENODEV, errno.ENOENT}:
                log.warning(
                    "port %s: %s of %s stay changed: %s", self.name, what, self._interface, e.strerror
                )
