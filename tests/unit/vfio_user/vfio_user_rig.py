"""A toy device, a server of it in a thread, and what tests ask of both."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ixroute.driver.transport import Transport
from ixroute.driver.vfio_user import VfioUserTransport
from ixroute.vfio_user import channel
from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.channel import Inbox
from ixroute.vfio_user.device import (
    SLEEP_REGION,
    SLEEP_REGION_TYPE,
    DeviceError,
    DeviceInfo,
    IoEvent,
    IrqInfo,
    RegionInfo,
)
from ixroute.vfio_user.server import Server

BAR_BYTES = 0x4000
MAPPED_PAGE = 0x1000
DOORBELL = 0x2010
MATCHED = 0x2040
"""Written with 1, 2 or 4: MATCHED + 4, + 8, + 12 are these words' shadows."""
VECTORS = 40
MSIX_AT = 0x70


class Toy:
    """BAR0 of 16 KiB: registers that keep what is written, and
    0x00 counts reads of itself; 0x04 copies a word of DMA memory: written with n, the word at iova 0x08/0x0C is
    replaced by its complement; 0x10 raises vector n; 0x14 fails as a device may, 0x18 as it may not.

    mapped: "" every access is a message; "all" of BAR0, or the "page" at 0x1000, is memory. shadow: the register
    DOORBELL has an event. sleeps: there is a sleep region.
    """

    def __init__(
        self, mapped: str = "", shadow: bool = False, sleeps: bool = False, maskable: int = 0
    ) -> None:
        self.mapped = mapped
        self.shadow = shadow
        self.image = os.memfd_create("toy-bar", os.MFD_CLOEXEC)
        os.ftruncate(self.image, BAR_BYTES)
        self.bar = mmap.mmap(self.image, BAR_BYTES)
        self.sleep_fd = os.memfd_create("toy-sleep", os.MFD_CLOEXEC)
        os.ftruncate(self.sleep_fd, 4096)
        self.sleep = mmap.mmap(self.sleep_fd, 4096)
        self.event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.info = DeviceInfo(regions=10 if sleeps else 9)
        self.space = bytearray(4096)
        self.space[0x06] = 0x10
        self.space[0x34] = MSIX_AT
        self.space[MSIX_AT : MSIX_AT + 4] = bytes([0x11, 0, VECTORS - 1, 0])
        self.maskable = maskable
        self.dma: dict[int, tuple[int, mmap.mmap | None]] = {}
        self.vectors: dict[int, int] = {}
        self.calls: list[tuple[object, ...]] = []
        self.faults = 0
        self.clients_gone = 0

    def region(self, index: int) -> RegionInfo:
        if index == 0:
            areas = ((MAPPED_PAGE, 4096),) if self.mapped == "page" else ()
            return RegionInfo(BAR_BYTES, fd=self.image if self.mapped else -1, areas=areas)
        if index == 7:
            return RegionInfo(len(self.space))
        if index == SLEEP_REGION:
            return RegionInfo(4096, writable=False, fd=self.sleep_fd, type=SLEEP_REGION_TYPE)
        return RegionInfo(0)

    def io_events(self, region: int) -> Sequence[IoEvent]:
        if region == 0 and self.shadow:
            tails = [IoEvent(DOORBELL + 4 * i, 4, self.event, self.image, DOORBELL + 4 * i) for i in range(3)]
            matched = [
                IoEvent(MATCHED, 4, self.event, self.image, MATCHED + 4 + 4 * i, 1 << i) for i in range(3)
            ]
            return tails + matched
        return []

    def irq(self, index: int) -> IrqInfo:
        return IrqInfo(VECTORS if index == 2 else 1, maskable=index == self.maskable and bool(self.maskable))

    def read(self, region: int, offset: int, size: int) -> bytes:
        if region == 7:
            return bytes(self.space[offset : offset + size])
        if region == 9:
            return self.sleep[offset : offset + size]
        if offset == 0:
            self.bar[0:4] = (int.from_bytes(self.bar[0:4], "little") + 1).to_bytes(4, "little")
        if offset == 0x14:
            raise DeviceError(errno.ENXIO, "as a device may")
        if offset == 0x18:
            raise ZeroDivisionError("as it may not")
        return self.bar[offset : offset + size]

    def write(self, region: int, offset: int, data: bytes) -> None:
        if region == 7:
            self.space[offset : offset + len(data)] = data
            return
        if offset == 0x14:
            raise DeviceError(errno.ENXIO, "as a device may")
        if offset == 0x18:
            raise ZeroDivisionError("as it may not")
        self.bar[offset : offset + len(data)] = data
        if offset == 0x04:
            self._complement(int.from_bytes(self.bar[0x08:0x10], "little"))
        if offset == 0x10:
            self.trigger(2, int.from_bytes(data, "little"), 1)

    def _complement(self, iova: int) -> None:
        for base, (length, memory) in self.dma.items():
            if memory is not None and base <= iova <= base + length - 4:
                at = iova - base
                word = int.from_bytes(memory[at : at + 4], "little")
                memory[at : at + 4] = (word ^ 0xFFFFFFFF).to_bytes(4, "little")
                return
        self.faults += 1

    def dma_map(
        self, iova: int, length: int, fd: int | None, fd_offset: int, read: bool, write: bool
    ) -> None:
        self.calls.append(("dma_map", iova, length, fd is not None, fd_offset, read, write))
        if any(base < iova + length and iova < base + size for base, (size, _) in self.dma.items()):
            raise DeviceError(errno.EEXIST, "overlaps")
        try:
            memory = None if fd is None else mmap.mmap(fd, length, offset=fd_offset)
        except (OSError, ValueError) as e:
            raise DeviceError(errno.EINVAL, str(e)) from e
        self.dma[iova] = (length, memory)

    def dma_unmap(self, iova: int, length: int) -> None:
        self.calls.append(("dma_unmap", iova, length))
        for base in [b for b, (size, _) in self.dma.items() if iova <= b and b + size <= iova + length]:
            _, memory = self.dma.pop(base)
            if memory is not None:
                memory.close()

    def set_irqs(self, index: int, first: int, fds: Sequence[int | None]) -> None:
        self.calls.append(("set_irqs", index, first, [fd is not None for fd in fds]))
        for vector, fd in enumerate(fds, first):
            if vector in self.vectors:
                os.close(self.vectors.pop(vector))
            if fd is not None:
                self.vectors[vector] = fd

    def irqs_off(self, index: int) -> None:
        self.calls.append(("irqs_off", index))
        self.set_irqs(index, 0, [None] * VECTORS)
        self.calls.pop()

    def trigger(self, index: int, first: int, count: int) -> None:
        self.calls.append(("trigger", index, first, count))
        for vector in range(first, first + count):
            if vector in self.vectors:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(self.vectors[vector], 1)

    def mask(self, index: int, first: int, count: int, masked: bool) -> None:
        self.calls.append(("mask", index, first, count, masked))

    def reset(self) -> None:
        self.calls.append(("reset",))
        self.bar[:] = bytes(BAR_BYTES)
        self.space[0x04:0x06] = bytes(2)
        self.space[MSIX_AT + 2 : MSIX_AT + 4] = bytes([VECTORS - 1, 0])

    def disconnected(self) -> None:
        self.clients_gone += 1
        self.dma_unmap(0, 1 << 64)
        self.irqs_off(2)
        self.reset()
        self.calls.clear()

    def close(self) -> None:
        self.disconnected()
        self.bar.close()
        self.sleep.close()
        for fd in (self.image, self.sleep_fd, self.event):
            os.close(fd)


@contextlib.contextmanager
def serving(where: Path | socket.socket, toy: Toy | None = None) -> Iterator[tuple[Server, Toy]]:
    """A server of a toy, in a thread of its own, which ends with the block."""
    toy = toy or Toy()
    server = Server(where if isinstance(where, socket.socket) else str(where), toy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, toy
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()
        server.close()
        toy.close()


@contextlib.contextmanager
def driven(
    path: Path, toy: Toy | None = None, timeout_s: float = 5.0
) -> Iterator[tuple[Transport, Toy, Server]]:
    with serving(path, toy) as (server, served):
        transport = VfioUserTransport(str(path), timeout_s)
        try:
            yield transport, served, server
        finally:
            transport.close()


class Memory:
    """DmaMemory of ordinary pages."""

    def __init__(self, size: int = 8192) -> None:
        self.fd = os.memfd_create("memory", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        self.address = 0
        self.bytes = size
        self.page_bytes = 4096

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


def open_fds() -> list[str]:
    """What every descriptor of this process is."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return sorted(found)


def pump(*servers: Server) -> None:
    """Lets servers do all there is to do now, in this thread. A server that never has enough fails the test."""
    for _ in range(10_000):
        ready, _, _ = select.select(servers, [], [], 0)
        if not ready:
            return
        for server in ready:
            server.handle()
    raise AssertionError("the server is never done")


class Raw:
    """A client that sends whatever it likes to a server that this thread pumps."""

    def __init__(self, server: Server, negotiate: bool = True) -> None:
        self.server = server
        self.inbox = Inbox()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self.socket.connect(server.path)
        if negotiate:
            flags, error, _, _ = self.ask(p.VERSION, p.Version().pack())
            assert (flags, error) == (p.REPLY, 0)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Whole, whatever the server makes of it."""
        with contextlib.suppress(channel.DisconnectedError):
            n = channel.send(self.socket, data, fds)
            assert n == len(data)
        pump(self.server)

    def replies(self) -> list[tuple[int, int, int, int, bytes, list[int]]]:
        """(id, command, flags, errno, body, descriptors) of all that have come."""
        found = []
        while True:
            while (got := self.inbox.next()) is not None:
                found.append((*got[:4], bytes(got[4]), self.inbox.take_fds()))
            try:
                self.inbox.receive(self.socket)
            except (BlockingIOError, channel.DisconnectedError):
                return found

    def ask(
        self, command: int, body: bytes = b"", fds: Sequence[int] = (), flags: int = 0
    ) -> tuple[int, int, bytes, list[int]]:
        """(flags, errno, body, descriptors) of the one reply."""
        self.send(p.message(77, command, body, flags), fds)
        replies = self.replies()
        assert [reply[:2] for reply in replies] == [(77, command)]
        return replies[0][2:]

    def error(self, command: int, body: bytes = b"", fds: Sequence[int] = ()) -> int:
        """The errno of a refusal, of which nothing but the header is sent; 0 for none."""
        flags, error, reply, got = self.ask(command, body, fds)
        assert flags == (p.REPLY | p.ERROR if error else p.REPLY)
        if error:
            assert not reply
            assert not got
        return error

    def ended(self) -> bool:
        """The server has closed the connection."""
        try:
            self.inbox.receive(self.socket)
        except channel.DisconnectedError:
            return True
        except BlockingIOError:
            return False
        return self.ended()

    def close(self) -> None:
        self.inbox.close()
        self.socket.close()
        pump(self.server)
