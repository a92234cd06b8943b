"""ping, traceroute, and TCP and UDP traffic, with nothing but sockets made inside namespaces.

They measure the network, not themselves: every figure is counted at the receiver, and every wait has an end.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from ixroute.demo.netns import Namespace

IP_RECVERR, IPV6_RECVERR = 11, 25
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_MTU = 10, 0, 2, 14
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO, IPV6_MTU = 23, 2, 24
SO_RCVBUFFORCE = 33
SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 2, 3
TRACEROUTE_PORT = 33434


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def internet_checksum(data: bytes) -> int:
    """RFC 1071, of `data` in wire order."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass
class Ping:
    """Round trips in milliseconds, in order; None for an echo that did not come back."""

    rtts_ms: list[float | None] = field(default_factory=list)

    @property
    def received(self) -> int:
        return sum(rtt is not None for rtt in self.rtts_ms)

    @property
    def all_back(self) -> bool:
        return bool(self.rtts_ms) and self.received == len(self.rtts_ms)

    @property
    def none_back(self) -> bool:
        return self.received == 0

    @property
    def median_ms(self) -> float:
        times = sorted(rtt for rtt in self.rtts_ms if rtt is not None)
        return times[len(times) // 2] if times else float("nan")


def ping(
    source: Namespace,
    address: str,
    count: int = 3,
    *,
    interval: float = 0.02,
    patience: float = 1.0,
    size: int = 56,
) -> Ping:
    """Echo requests from `source`, one after another, each waited for up to `patience` seconds."""
    family = family_of(address)
    v6 = family == socket.AF_INET6
    request, reply = (128, 129) if v6 else (8, 0)
    ident = int.from_bytes(os.urandom(2), "big")
    result = Ping()
    with source.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP) as sock:
        if not v6:  # large ones may be fragmented on the way
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        sock.connect((address, 0))
        for number in range(count):
            echo = struct.pack("!BBHHH", request, 0, 0, ident, number) + bytes(size)
            if not v6:  # the kernel computes ICMPv6's, which covers the addresses
                echo = echo[:2] + struct.pack("!H", internet_checksum(echo)) + echo[4:]
            began = time.perf_counter()
            with contextlib.suppress(OSError):  # an earlier ICMP error: then this echo counts as lost
                sock.send(echo)
            came = _await_echo(sock, struct.pack("!BBHHH", reply, 0, 0, ident, number), v6, began + patience)
            result.rtts_ms.append((time.perf_counter() - began) * 1e3 if came else None)
            time.sleep(interval)
    return result


def _await_echo(sock: socket.socket, wanted: bytes, v6: bool, deadline: float) -> bool:
    while (left := deadline - time.perf_counter()) > 0:
        sock.settimeout(left)
        try:
            packet = sock.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            continue
        message = packet if v6 else packet[(packet[0] & 15) * 4 :]
        if message[:2] == wanted[:2] and message[4:8] == wanted[4:8]:
            return True
    return False


def traceroute(source: Namespace, address: str, max_hops: int = 8, patience: float = 1.0) -> list[str | None]:
    """The address that answered for each hop (None: nobody did), ending with `address` when it was reached.

    UDP to an unlikely port; routers answer with time exceeded, the host with port unreachable. The kernel
    hands both to the socket's error queue (IP_RECVERR), with the sender's address.
    """
    family = family_of(address)
    v6 = family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    hops: list[str | None] = []
    with source.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, IPV6_RECVERR if v6 else IP_RECVERR, 1)
        for hop in range(1, max_hops + 1):
            sock.setsockopt(level, socket.IPV6_UNICAST_HOPS if v6 else socket.IP_TTL, hop)
            with contextlib.suppress(OSError):
                sock.sendto(b"ixroute demo", (address, TRACEROUTE_PORT + hop))
            answer = icmp_error(sock, patience)
            hops.append(answer.sender if answer else None)
            if answer and answer.sender == address:
                break
    return hops


@dataclass(frozen=True)
class IcmpError:
    """An ICMP error as its addressee's kernel saw it. info: the MTU, for those that carry one."""

    sender: str
    type: int
    code: int
    info: int


def icmp_error(sock: socket.socket, patience: float) -> IcmpError | None:
    """The next ICMP error of a socket with IP(V6)_RECVERR; None when none comes in time."""
    v6 = sock.family == socket.AF_INET6
    wanted = (socket.IPPROTO_IPV6, IPV6_RECVERR) if v6 else (socket.IPPROTO_IP, IP_RECVERR)
    poller = select.poll()
    poller.register(sock, 0)  # POLLERR is always reported
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            break
        try:
            _, control, _, _ = sock.recvmsg(2048, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            continue
        for level, kind, data in control:
            if (level, kind) != wanted:
                continue
            # struct sock_extended_err, then the sender's sockaddr (<linux/errqueue.h>)
            _, origin, icmp_type, code, _, info, _ = struct.unpack_from("=IBBBBII", data)
            if origin not in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                continue
            raw = data[24:40] if v6 else data[20:24]
            return IcmpError(str(ipaddress.ip_address(raw)), icmp_type, code, info)
    return None


@dataclass
class Transfer:
    """A TCP transfer as its receiver saw it. md5 is empty unless asked for."""

    sent_bytes: int = 0
    received_bytes: int = 0
    seconds: float = 0.0
    sent_md5: str = ""
    received_md5: str = ""

    @property
    def whole(self) -> bool:
        return 0 < self.sent_bytes == self.received_bytes and self.sent_md5 == self.received_md5

    @property
    def bits_per_second(self) -> float:
        return self.received_bytes * 8 / self.seconds if self.seconds else 0.0


def tcp_transfer(
    source: Namespace,
    target: Namespace,
    address: str,
    *,
    seconds: float = 2.0,
    size: int | None = None,
    digest: bool = False,
) -> Transfer:
    """Sends from `source` to `address`, an address of `target`, for `seconds`, or until `size` bytes are
    sent.

    digest: random bytes, hashed at both ends (slower). Otherwise zeros by sendfile(2), as fast as they go.
    """
    family = family_of(address)
    result = Transfer()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(target.socket(family, socket.SOCK_STREAM))
        listener.bind((address, 0))
        listener.listen(1)
        listener.settimeout(5)
        receiver = threading.Thread(
            target=_receive_stream, args=(listener, result, digest), name="tcp receiver"
        )
        receiver.start()
        stack.callback(receiver.join)
        sender = stack.enter_context(source.socket(family, socket.SOCK_STREAM))
        sender.settimeout(5)
        sender.connect((address, listener.getsockname()[1]))
        with contextlib.suppress(OSError):  # a transfer cut short shows in its byte counts
            _send_stream(sender, result, seconds, size, digest)
            sender.shutdown(socket.SHUT_WR)
    return result


def _send_stream(
    sender: socket.socket, result: Transfer, seconds: float, size: int | None, digest: bool
) -> None:
    chunk = 1 << 20
    block = os.urandom(chunk) if digest else bytes(chunk)
    md5 = hashlib.md5(usedforsecurity=False)
    deadline = time.monotonic() + (60 if size is not None else seconds)
    with contextlib.ExitStack() as stack:
        memory = os.memfd_create("tcp source", os.MFD_CLOEXEC)
        stack.callback(os.close, memory)
        os.write(memory, block)
        while time.monotonic() < deadline and (size is None or result.sent_bytes < size):
            want = chunk if size is None else min(chunk, size - result.sent_bytes)
            if digest:
                sender.sendall(block[:want])
                md5.update(block[:want])
                result.sent_bytes += want
            elif select.select([], [sender], [], 5)[1]:
                with contextlib.suppress(BlockingIOError):
                    result.sent_bytes += os.sendfile(sender.fileno(), memory, 0, want)
            else:
                break
    result.sent_md5 = md5.hexdigest() if digest else ""


def _receive_stream(listener: socket.socket, result: Transfer, digest: bool) -> None:
    buffer = bytearray(1 << 20)
    md5 = hashlib.md5(usedforsecurity=False)
    with contextlib.suppress(OSError):  # nobody connected, or the connection broke: the byte counts say so
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            began = time.monotonic()
            while n := connection.recv_into(buffer):
                result.received_bytes += n
                result.seconds = time.monotonic() - began
                if digest:
                    md5.update(memoryview(buffer)[:n])
    result.received_md5 = md5.hexdigest() if digest else ""


@dataclass
class Flow:
    """Numbered UDP datagrams, as the receiver counted them."""

    sent: int = 0
    received: int = 0
    reordered: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        return self.sent - self.received


class UdpFlow:
    """A stream of numbered datagrams at a given rate, running in the background until `stop()`.

    Paced in ticks of two milliseconds: a late tick sends what is due. The receiver's buffer holds seconds of
    it, so that what is lost was lost on the way.
    """

    TICK_S = 0.002

    def __init__(
        self, source: Namespace, target: Namespace, address: str, *, rate: int = 2000, size: int = 64
    ) -> None:
        """rate: datagrams per second. size: bytes of payload, at least 8."""
        family = family_of(address)
        self.result = Flow()
        self.last_arrival = 0.0  # time.monotonic()
        self._rate = rate
        self._padding = bytes(size - 8)
        self._ended = threading.Event()
        self._receiver = target.socket(family, socket.SOCK_DGRAM)
        self._receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        self._receiver.settimeout(0.1)
        self._receiver.bind((address, 0))
        self._sender = source.socket(family, socket.SOCK_DGRAM)
        self._sender.setsockopt(
            socket.IPPROTO_IPV6 if family == socket.AF_INET6 else socket.IPPROTO_IP,
            IPV6_RECVERR if family == socket.AF_INET6 else IP_RECVERR,
            0,
        )
        self._target = self._receiver.getsockname()
        self._sending = threading.Thread(target=self._send, name="udp sender")
        self._receiving = threading.Thread(target=self._receive, name="udp receiver")
        self._last_sent = threading.Event()

    def start(self) -> UdpFlow:
        self._receiving.start()
        self._sending.start()
        return self

    def stop(self, settle: float = 0.3) -> Flow:
        """Ends the sending, waits `settle` seconds for what is under way, and returns the count."""
        self._ended.set()
        self._sending.join()
        time.sleep(settle)
        self._last_sent.set()
        self._receiving.join()
        self._sender.close()
        self._receiver.close()
        return self.result

    def _send(self) -> None:
        began = time.monotonic()
        while not self._ended.is_set():
            due = int((time.monotonic() - began) * self._rate) + 1
            while self.result.sent < due and not self._ended.is_set():
                with contextlib.suppress(OSError):
                    # unreachable for a moment is a loss like another: the datagram has its number, and is
                    # missing
                    self._sender.sendto(struct.pack("!Q", self.result.sent) + self._padding, self._target)
                self.result.sent += 1
            self.result.seconds = time.monotonic() - began
            time.sleep(self.TICK_S)

    def _receive(self) -> None:
        seen: set[int] = set()
        highest = -1
        while True:
            try:
                number = int.from_bytes(self._receiver.recv(65536)[:8], "big")
            except TimeoutError:
                if self._last_sent.is_set():
                    break
                continue
            self.last_arrival = time.monotonic()
            if number in seen:
                continue
            seen.add(number)
            self.result.received += 1
            self.result.reordered += number < highest
            highest = max(highest, number)


def udp_flow(
    source: Namespace,
    target: Namespace,
    address: str,
    *,
    rate: int = 2000,
    seconds: float = 1.0,
    size: int = 64,
) -> Flow:
    """`rate` datagrams a second for `seconds`, and how many arrived."""
    flow = UdpFlow(source, target, address, rate=rate, size=size).start()
    time.sleep(seconds)
    return flow.stop()


def path_mtu(
    source: Namespace, address: str, mtu: int = 1500, patience: float = 1.0
) -> tuple[int, IcmpError | None]:
    """Sends `mtu` bytes that must stay whole: the path MTU known then, and the error that taught it."""
    v6 = family_of(address) == socket.AF_INET6
    size = mtu - (48 if v6 else 28)
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    with source.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, IPV6_RECVERR if v6 else IP_RECVERR, 1)
        sock.setsockopt(
            level, IPV6_MTU_DISCOVER if v6 else IP_MTU_DISCOVER, IPV6_PMTUDISC_DO if v6 else IP_PMTUDISC_DO
        )
        sock.connect((address, 9))
        with contextlib.suppress(OSError):  # EMSGSIZE: the kernel had learnt it before
            sock.send(bytes(size))
        error = icmp_error(sock, patience)
        return sock.getsockopt(level, IPV6_MTU if v6 else IP_MTU), error
