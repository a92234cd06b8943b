"""Listening and sending on a host's end of a cable, below its IP stack."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from ixroute.demo.netns import Namespace
from ixroute.demo.topology import AF_XDP, Lab
from lab.frames import (
    DMZ_MTU,
    LAN_MTU,
    ROUTER_DMZ,
    ROUTER_LAN,
    ROUTER_SYSCTLS,
    ROUTER_TABLES,
    ROUTER_WAN,
    WAN_MTU,
    Case,
)
from lab.packets import ETH_IP4, ETH_IP6, ETH_VLAN, HOP_BY_HOP, UDP, ethernet, extension, ip4, ip6, udp

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_AUXDATA = 263, 8
AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6


class Wire:
    """The cable of one host. Frames it sends go to the router; frames it hears came from the router, with the tags
    they had on the cable."""

    def __init__(self, namespace: Namespace, interface: str = "eth0") -> None:
        self.socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: hears nothing yet
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.bind((interface, ETH_P_ALL))
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    def take(self) -> list[bytes]:
        """All frames heard so far. An interface that went down ends the list, as an empty queue does."""
        frames = []
        with contextlib.suppress(OSError):
            while True:
                frame, beside, _, sender = self.socket.recvmsg(65536, 64)
                if sender[2] != PACKET_OUTGOING:
                    frames.append(_with_tag(frame, beside))
        return frames

    def wait(self, seconds: float) -> bool:
        """Whether there is a frame to take, within `seconds`."""
        return bool(select.select([self.socket], [], [], seconds)[0])


def _with_tag(frame: bytes, beside: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The kernel takes the outermost tag out of what it receives, and tells it beside the frame (packet(7))."""
    for level, kind, data in beside:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = AUXDATA.unpack_from(data)
            if status & TP_STATUS_VLAN_VALID:
                protocol = tpid if status & TP_STATUS_VLAN_TPID_VALID else ETH_VLAN
                return frame[:12] + struct.pack("!HH", protocol, tci) + frame[12:]
    return frame


class Flood:
    """One frame after another, at most `rate` a second, until the end of the block."""

    def __init__(self, wire: Wire, frames: Iterable[bytes], rate: int) -> None:
        self.sent = 0
        self._wire = wire
        self._frames = list(frames)
        self._rate = rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, name="flood")

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _send(self) -> None:
        began = time.monotonic()
        while not self._ended.is_set():
            due = int((time.monotonic() - began) * self._rate) + 1
            while self.sent < due and not self._ended.is_set():
                try:
                    self._wire.send(self._frames[self.sent % len(self._frames)])
                except (BlockingIOError, OSError):  # the device's queue is full: let it drain
                    break
                self.sent += 1
            time.sleep(0.001)


class Stage:
    """A router with mute hosts, its tables and neighbours set, on which frames are played one by one."""

    PATIENCE_S = 2.0
    QUIET_S = 0.004

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.wires = {link.port: Wire(lab.hosts[link.host]) for link in lab.links}
        self._marks = 0

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()

    def furnish(self) -> None:
        """Addresses, routes, neighbours and sysctls of lab.frames."""
        self.lab.address_router()
        for key, value in ROUTER_SYSCTLS.items():
            self.lab.router.sysctl(key, value)
        for command in ROUTER_TABLES:
            self.lab.router.ip(command.format(**self.lab.interfaces))

    def settle(self, seconds: float = 1.5) -> None:
        """Lets what the kernel says by itself of new addresses pass by."""
        time.sleep(seconds)
        for wire in self.wires.values():
            wire.take()

    def play(self, case: Case, mark: int = 4) -> dict[str, Counter[bytes]]:
        """Sends the frame; what left the router because of it, by port, normalised.
        mark: IP version of the packet that is sent behind it."""
        for wire in self.wires.values():
            wire.take()
        self.wires[case.port].send(case.frame)
        return self._until_mark(case.port, mark)

    def ask(self, cases: Iterable[Case]) -> None:
        """Sends all these frames, and forgets what was heard before."""
        for wire in self.wires.values():
            wire.take()
        for case in cases:
            self.wires[case.port].send(case.frame)

    def listen(self, seconds: float) -> dict[str, set[bytes]]:
        """The different frames that left the router within `seconds` and since it was asked, by port."""
        time.sleep(seconds)
        return {port: set(normalised(wire.take())) for port, wire in self.wires.items()}

    def _until_mark(self, port: str, version: int) -> dict[str, Counter[bytes]]:
        """Everything heard until a packet that takes the slow path behind the frame has come out too."""
        self._marks += 1
        there, mark = self._mark(port, version)
        self.wires[port].send(mark)
        heard: dict[str, list[bytes]] = {name: [] for name in self.wires}
        deadline = time.monotonic() + self.PATIENCE_S
        marked = False
        while not marked and time.monotonic() < deadline:
            self.wires[there].wait(0.05)
            heard[there] += self.wires[there].take()
            marked = any(is_mark(frame, self._marks) for frame in heard[there])
        if not marked:
            raise AssertionError(
                f"the router did not forward the mark behind the frame in {self.PATIENCE_S} s"
            )
        quiet_from = time.monotonic()
        while time.monotonic() - quiet_from < self.QUIET_S:
            ready = select.select([wire.socket for wire in self.wires.values()], [], [], self.QUIET_S)[0]
            if ready:
                quiet_from = time.monotonic()
            for name, wire in self.wires.items():
                heard[name] += wire.take()
        return {name: Counter(normalised(frames)) for name, frames in heard.items()}

    def _mark(self, port: str, version: int) -> tuple[str, bytes]:
        """(port it comes out by, frame). An option sends it the slow way, in order behind the frame."""
        data = MARK + struct.pack("!I", self._marks)
        four, six, there = AROUND[port]
        if version == 4:
            src, dst = four
            packet = ip4(src, dst, udp(src, dst, data), options=bytes.fromhex("01010100"))
        else:
            src, dst = six
            options = extension(UDP, bytes.fromhex("010400000000"))
            packet = ip6(src, dst, options + udp(src, dst, data), proto=HOP_BY_HOP)
        mac, kind = ROUTER_MACS[port], ETH_IP4 if version == 4 else ETH_IP6
        return there, ethernet(mac, "02:00:00:00:09:09", kind, packet)


ROUTER_MACS = {"lan": ROUTER_LAN, "wan": ROUTER_WAN, "dmz": ROUTER_DMZ}
AROUND = {
    "lan": (("10.9.255.1", "10.0.2.2"), ("fd09::ff:1", "fd00:2::2"), "wan"),
    "wan": (("10.0.2.2", "10.9.255.1"), ("fd00:2::2", "fd09::ff:1"), "lan"),
    "dmz": (("10.0.3.2", "10.9.255.1"), ("fd00:3::2", "fd09::ff:1"), "lan"),
}
"""By port: source and destination of a mark that comes in there, and the port that it leaves by."""
MARK = b"mark behind the frame "


def is_mark(frame: bytes, number: int | None = None) -> bool:
    return MARK + (b"" if number is None else struct.pack("!I", number)) in frame


OWN4 = (*(bytes((10, 0, link, 1)) for link in (1, 2, 3)), bytes((10, 1, 0, 0)), bytes((10, 1, 1, 1)))


def normalised(frames: Iterable[bytes], own4: Collection[bytes] = OWN4) -> list[bytes]:
    """Without marks, without what the kernel says unasked, and with its random fields zero. own4: the router's
    addresses, whose packets have an identification that is the kernel's choice."""
    out = []
    for frame in frames:
        tags = 4 * tags_of(frame)
        plain = frame[:12] + frame[12 + tags :]
        if not is_mark(frame) and not _unasked(plain):
            plain = _masked(plain, own4)
            out.append(plain[:12] + frame[12 : 12 + tags] + plain[12:])
    return out


def tags_of(frame: bytes) -> int:
    """How many VLAN tags stand before the EtherType."""
    count = 0
    while frame[12 + 4 * count : 14 + 4 * count] in (b"\x81\x00", b"\x88\xa8"):
        count += 1
    return count


def _unasked(frame: bytes) -> bool:
    """MLD reports (RFC 3810) and router solicitations, whenever the kernel likes to send them."""
    if frame[12:14] != struct.pack("!H", ETH_IP6):
        return False
    at = 14 + 40
    if frame[14 + 6] == 0:  # a hop-by-hop header stands before MLD
        at += 8 + 8 * frame[at + 1]
    return len(frame) > at and frame[at] in (131, 132, 133, 143) and (frame[14 + 6] in (0, 58))


def _masked(frame: bytes, own4: Collection[bytes]) -> bytes:
    """IPv4 identification of the kernel's own packets, and its time stamps in forwarded options: zero."""
    if frame[12:14] != struct.pack("!H", ETH_IP4):
        return frame
    out = bytearray(frame)
    options = frame[34 : 14 + (frame[14] & 15) * 4]
    stamped = options[:1] == b"\x44"
    if stamped:
        out[38 : 14 + (frame[14] & 15) * 4] = bytes(len(options) - 4)
    if frame[26:30] in own4:
        out[18:20] = b"\0\0"
    if stamped or frame[26:30] in own4:
        out[24:26] = b"\0\0"
    return bytes(out)


def told(heard: Mapping[str, Iterable[bytes]]) -> str:
    """What was heard, for a failed test to print."""
    return (
        "\n".join(f"  {port}: {frame.hex()}" for port, frames in heard.items() for frame in frames)
        or "  nothing"
    )


def stages(kernel: bool, label: str, ports: str = AF_XDP) -> Iterator[Stage]:
    """One, for a fixture; nothing is set on it yet."""
    mtu = (LAN_MTU, WAN_MTU, DMZ_MTU)
    with Lab(3, kernel=kernel, ports=ports, mtu=mtu, mute=True, label=label) as lab:
        stage = Stage(lab)
        try:
            yield stage
        finally:
            stage.close()
