"""A client of an emulated card that means harm: messages, memory, events and registers at random, with a real card, a
real engine's thread and a server's thread behind them."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import random
import select
import socket
import struct
import tempfile
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.vfio_user import VfioUserTransport
from ixroute.emulator.card import Card, CardOptions
from ixroute.emulator.engine import Engine
from ixroute.emulator.registers import places
from ixroute.vfio_user import channel
from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.server import Server

KINDS_OF_MEMORY = ("sealable", "unsealable", "file")
MEMORY_BYTES = 1 << 20
BASE = 0x1_0000_0000
STEP = 0x1000_0000
SECONDS = 20.0
"""How long an answer may take before it counts as a hang: the machine may be busy."""
_ACCESS = struct.Struct("=QII")
_EDGES = (0, 1, 4, 0xFFF, 0x1000, 0x7FFFC, 0x80000, 0xFFFF_FFFF, 1 << 32, (1 << 64) - 4096, (1 << 64) - 1)


class Served:
    """One card on a wire in memory, served at a path; the engine runs. Closing fails when a thread hangs."""

    def __init__(self, path: str, map_bar: bool = False) -> None:
        with contextlib.ExitStack() as undo:
            self.engine = Engine(scan=map_bar)
            undo.callback(self.engine.close)
            self.wire = lib.wire_memory_create(1 << 18, -1)
            undo.callback(lib.wire_memory_destroy, self.wire)
            self.card = Card(self._attach, CardOptions(map_bar=map_bar))
            undo.callback(self.card.close)
            self.card.set_carrier(True)
            self.server = Server(path, self.card)
            undo.callback(self.server.close)
            self.engine.start()
            self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
            self._thread.start()
            undo.callback(self._end)
            self._undo = undo.pop_all()

    def _attach(self, image: Any) -> Any:
        engine = self.engine.card(image.memory)
        engine.plug(self.wire)
        return engine

    def _end(self) -> None:
        self.server.stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the server hangs"

    def check(self) -> None:
        """Server and engine still do their work for a client that comes now."""
        transport = VfioUserTransport(self.server.path, SECONDS)
        assert transport.config.read(0, 4) == 0x10FB8086
        transport.close()
        done = threading.Event()
        threading.Thread(target=lambda: (self.engine.counters(), done.set()), daemon=True).start()
        assert done.wait(SECONDS), "the engine hangs"
        before, limit = self.engine.counters()["passes"], time.monotonic() + SECONDS
        while self.engine.counters()["passes"] == before:
            assert time.monotonic() < limit, "the engine has ended"
            self.card.engine.kick()
            time.sleep(0.001)
        assert self.engine.running

    def close(self) -> None:
        self._undo.close()


class Wild:
    """One client after another. `did` counts what it did."""

    def __init__(self, served: Served, dice: random.Random) -> None:
        self.served = served
        self.dice = dice
        self.did: Counter[str] = Counter()
        self.offsets = sorted(places())
        self._memory: list[tuple[int, mmap.mmap | None]] = []
        self._events: list[int] = []
        self._received: list[int] = []
        self._image: mmap.mmap | None = None
        self._socket: socket.socket | None = None
        self._inbox = channel.Inbox()
        self._actions: list[tuple[float, Callable[[], None]]] = [
            (6, self._start_queue),
            (16, self._write_register),
            (6, self._read_register),
            (4, self._access_anything),
            (3, self._write_many),
            (6, self._map),
            (3, self._unmap),
            (5, self._interrupts),
            (10, self._scribble),
            (2, self._take_memory_back),
            (6, self._scribble_in_image),
            (3, self._play_with_events),
            (8, self._packets),
            (2, self._ask),
            (0.5, self._reset),
            (0.5, self._garbage),
            (0.5, self._vanish),
        ]

    def run(self, n: int) -> None:
        weights = [weight for weight, _ in self._actions]
        actions = [action for _, action in self._actions]
        for action in self.dice.choices(actions, weights, k=n):
            if self._socket is None:
                self._connect()
            action()
            self.did[action.__name__.strip("_")] += 1
            self._read_replies()
            if self.dice.random() < 0.3:
                self._let_it_read()

    def close(self) -> None:
        self._leave()
        for fd, memory in self._memory:
            if memory is not None:
                memory.close()
            os.close(fd)
        for fd in self._events:
            os.close(fd)
        self._memory, self._events = [], []

    # ---- the connection

    def _connect(self) -> None:
        limit = time.monotonic() + SECONDS
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        while True:
            try:
                self._socket.connect(self.served.server.path)
                break
            except BlockingIOError:  # those who vanished before are not done with yet
                assert time.monotonic() < limit, "the server accepts nobody"
                time.sleep(0.001)
        self._inbox = channel.Inbox()
        if self.dice.random() < 0.97:
            self._send(p.VERSION, p.Version().pack())
            self._config_on()
        self.did["connects"] += 1

    def _let_it_read(self) -> None:
        """Until the server has taken all that was sent, so that what follows meets the state that it made."""
        limit = time.monotonic() + SECONDS
        while (
            self._socket is not None
            and struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0]
        ):
            assert time.monotonic() < limit, "the server reads nothing"
            self._read_replies()
            time.sleep(0)

    def _config_on(self) -> None:
        self._send(p.REGION_WRITE, _ACCESS.pack(4, 7, 2) + b"\6\0")

    def _leave(self) -> None:
        if self._socket is not None:
            self._read_replies()
        if self._socket is not None:
            with contextlib.suppress(
                OSError
            ):  # copies of it may be with the server, as an interrupt's eventfd
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        self._socket = None
        self._inbox.close()
        if self._image is not None:
            self._image.close()
            self._image = None
        channel.close_fds(self._received)
        self._received = []

    def _send(self, command: int, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        flags = self.dice.choice((p.COMMAND, p.COMMAND, p.COMMAND, p.NO_REPLY))
        self._send_bytes(p.message(self.dice.randrange(65536), command, body, flags), fds)

    def _send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        limit = time.monotonic() + SECONDS
        while data and self._socket is not None:
            try:
                data, fds = data[channel.send(self._socket, data, fds) :], ()
            except BlockingIOError:
                assert time.monotonic() < limit, "the server takes nothing more"
                self._read_replies()
                select.select([], [self._socket] if self._socket else [], [], 0.01)
            except channel.DisconnectedError:
                self._leave()

    def _read_replies(self) -> None:
        while self._socket is not None:
            try:
                self._inbox.receive(self._socket)
            except BlockingIOError:
                return
            except (channel.DisconnectedError, p.ProtocolError):
                self._socket.close()
                self._socket = None
                return
            while (got := self._inbox.next()) is not None:
                fds = self._inbox.take_fds()
                self._received += fds
                if got[1] in (p.GET_REGION_IO_FDS, p.GET_REGION_INFO) and fds and self._image is None:
                    self._map_image(fds)

    def _map_image(self, fds: Sequence[int]) -> None:
        for fd in fds:
            with contextlib.suppress(OSError, ValueError):
                if os.fstat(fd).st_size == 0x80000:
                    self._image = mmap.mmap(fd, 0x80000)

    # ---- what it does

    def _address(self) -> int:
        dice = self.dice
        if dice.random() < 0.1:
            return dice.choice(_EDGES)
        return (
            BASE
            + STEP * dice.randrange(6)
            + dice.choice((0, 128 * dice.randrange(8000), dice.randrange(MEMORY_BYTES)))
        )

    def _value(self) -> int:
        dice = self.dice
        return dice.choice(
            (0, 1, 0xFFFF_FFFF, 1 << dice.randrange(32), dice.randrange(1 << 32), dice.randrange(256))
        )

    def _write(self, offset: int, value: int) -> None:
        self._send(p.REGION_WRITE, _ACCESS.pack(offset, 0, 4) + struct.pack("=I", value & 0xFFFF_FFFF))

    def _write_register(self) -> None:
        self._write(self.dice.choice(self.offsets), self._value())

    def _read_register(self) -> None:
        self._send(p.REGION_READ, _ACCESS.pack(self.dice.choice(self.offsets), 0, 4))

    def _start_queue(self) -> None:
        """As a driver would, nearly; some tails are far away."""
        dice = self.dice
        number = dice.choice((0, 0, 1, dice.randrange(128)))
        base = self._sound_area() if dice.random() < 0.7 else self._address() & ~127
        transmit = dice.random() < 0.5
        regs = (
            0x6000 + 0x40 * number
            if transmit
            else (0x1000 + 0x40 * number if number < 64 else 0xD000 + 0x40 * (number - 64))
        )
        n = dice.choice((8, 64, 256, 4096))
        if dice.random() < 0.8:
            for offset, value in (
                (0x900, 0x8180_8180),
                (0x880, 0x7FFF_FFFF),
                (0x810, 0),
                (0x3000, 1),
                (0x4A80, 1),
                (0x5080, 0x702),
                (0x4240, 0x403),
                (0x42A0, 0x6000),
                (0x820, 8),
            ):
                self._write(offset, value)
        writes = [(0, base), (4, base >> 32), (8, 16 * n), (0x10, 0), (0x18, 0), (0x28, 1 << 25)]
        if not transmit:
            writes.insert(0, (0x14, 2 | dice.choice((1, 1, 2, 5)) << 25))
        writes.append((0x18, dice.choice((n - 1, n // 2, 1, n, 0xFFFF))))
        self._fill_ring(base, n, transmit)
        # The way to a link is long, and not what is tried here.
        self.served.card.engine.set_link(True)
        for offset, value in writes:
            self._write(regs + offset, value)

    def _sound_area(self) -> int:
        """Where whole memory is mapped, and an interrupt wired."""
        at = BASE + STEP * self.dice.randrange(6)
        self._memory.append(self._new_memory(self.dice.choice(KINDS_OF_MEMORY)))
        self._send(p.DMA_UNMAP, p.DmaUnmap(at, MEMORY_BYTES).pack())
        self._send(p.DMA_MAP, p.DmaMap(at, MEMORY_BYTES, 0, True, True).pack(), [self._memory[-1][0]])
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._send(p.SET_IRQS, p.SetIrqs(2, self.dice.randrange(3), 1, 4, 32).pack(), [event])
        self._events.append(event)
        while len(self._memory) > 12:
            fd, memory = self._memory.pop(0)
            if memory is not None:
                memory.close()
            os.close(fd)
        return at

    def _fill_ring(self, base: int, n: int, transmit: bool) -> None:
        if not self._memory:
            return
        _, memory = self._memory[-1]
        at = base & (MEMORY_BYTES - 1)
        ring = b""
        for _ in range(min(n, 256)):
            length = self.dice.choice((60, 60, 1514, 0, 9000))
            kind = self.dice.choice((3 << 20, 3 << 20, 3 << 20, 2 << 20))
            high = length | 0x2B << 24 | length << 46 | kind if transmit else 0
            near = base - at + self.dice.randrange(65536, MEMORY_BYTES - 16384)
            ring += struct.pack("=QQ", near if self.dice.random() < 0.98 else self._address(), high)
        if memory is not None:
            self._poke(memory, at, ring)

    def _poke(self, memory: mmap.mmap, at: int, data: bytes) -> None:
        """By way of the file: this process would fault itself on memory that it took back."""
        memory_fd = next(fd for fd, known in self._memory if known is memory)
        with contextlib.suppress(OSError):
            if os.fstat(memory_fd).st_size >= MEMORY_BYTES:
                os.pwrite(memory_fd, data, max(0, min(at, MEMORY_BYTES - len(data))))

    def _access_anything(self) -> None:
        dice = self.dice
        region = dice.choice((0, 2, 4, 7, 9, 1, 8, 10, 0xFFFF_FFFF))
        offset = dice.choice((*_EDGES, dice.randrange(0x80000), dice.randrange(4096)))
        size = dice.choice((0, 1, 2, 3, 4, 8, 16, 4096, 65536, p.MAX_TRANSFER + 1, 0xFFFF_FFFF))
        if dice.random() < 0.5:
            self._send(p.REGION_READ, _ACCESS.pack(offset & (1 << 64) - 1, region, size))
        else:
            data = dice.randbytes(min(size, 4096) if dice.random() < 0.9 else 3)
            self._send(p.REGION_WRITE, _ACCESS.pack(offset & (1 << 64) - 1, region, size) + data)

    def _write_many(self) -> None:
        writes = [
            (self.dice.choice((0, 0, 0, 7)), self.dice.choice(self.offsets), struct.pack("=I", self._value()))
            for _ in range(self.dice.randrange(1, 20))
        ]
        self._send(p.REGION_WRITE_MULTI, p.pack_writes(writes))

    def _map(self) -> None:
        dice = self.dice
        if len(self._memory) < 12:
            self._memory.append(self._new_memory(dice.choice(KINDS_OF_MEMORY)))
        if dice.random() < 0.1:
            self._send(
                p.DMA_MAP,
                p.DmaMap(self._address(), dice.choice(_EDGES), dice.choice(_EDGES), True, True).pack(),
                self._any_fds(1),
            )
            return
        fd, _ = dice.choice(self._memory)
        for number in range(6) if dice.random() < 0.5 else (dice.randrange(6),):
            self._send(
                p.DMA_MAP,
                p.DmaMap(BASE + STEP * number, MEMORY_BYTES, 0, True, dice.random() < 0.9).pack(),
                [fd],
            )

    def _new_memory(self, kind: str) -> tuple[int, mmap.mmap | None]:
        if kind == "file":
            with tempfile.TemporaryFile(dir="/dev/shm") as file:
                fd = os.dup(file.fileno())
        else:
            fd = os.memfd_create("wild", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if kind == "sealable" else 0))
        os.ftruncate(fd, MEMORY_BYTES)
        return fd, mmap.mmap(fd, MEMORY_BYTES)

    def _unmap(self) -> None:
        dice = self.dice
        at = BASE + STEP * dice.randrange(6)
        size = MEMORY_BYTES if dice.random() < 0.7 else dice.choice((*_EDGES, 4096, 1 << 40))
        self._send(p.DMA_UNMAP, p.DmaUnmap(at, size & (1 << 64) - 1).pack())

    def _any_fds(self, n: int) -> list[int]:
        """Some that a card can use, some that nobody can; kept until the end."""
        fds = []
        for _ in range(n):
            kind = self.dice.randrange(8)
            if kind == 0 and self._memory:
                fds.append(self.dice.choice(self._memory)[0])
                continue
            if len(self._events) < 200:
                if kind == 1:
                    self._events += os.pipe()
                elif kind == 2:
                    self._events.append(os.open("/dev/null", os.O_RDWR))
                elif kind == 3 and self._socket is not None:
                    self._events.append(os.dup(self._socket.fileno()))
                else:
                    self._events.append(
                        os.eventfd(
                            0, os.EFD_CLOEXEC | self.dice.choice((0, os.EFD_NONBLOCK, os.EFD_SEMAPHORE))
                        )
                    )
            fds.append(self.dice.choice(self._events))
        return fds

    def _interrupts(self) -> None:
        dice = self.dice
        start, count = dice.choice((0, 0, 1, 63, 64, 0xFFFF_FFFF)), dice.choice((1, 1, 2, 64, 0, 0xFFFF_FFFF))
        data, action = dice.choice((1, 2, 4, 4, 4)), dice.choice((32, 32, 32, 8, 16))
        body = p.SetIrqs(dice.choice((2, 2, 2, 1, 0, 4, 9)), start, count, data, action).pack()
        if data == p.IRQ_DATA_BOOL:
            body += dice.randbytes(min(count, 64))
        if dice.random() < 0.05:
            body = body[: dice.randrange(len(body))]
        self._send(p.SET_IRQS, body, self._any_fds(min(count, 64) if dice.random() < 0.9 else 3))

    def _scribble(self) -> None:
        """Rings and descriptors change while the engine reads them."""
        for fd, memory in self.dice.sample(self._memory, min(3, len(self._memory))):
            at = self.dice.choice((0, self.dice.randrange(MEMORY_BYTES)))
            if memory is not None:
                self._poke(memory, at, self.dice.randbytes(self.dice.choice((4, 16, 256, 4096))))
            del fd

    def _take_memory_back(self) -> None:
        if self._memory:
            fd, _ = self.dice.choice(self._memory)
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self.dice.choice((0, 4096, MEMORY_BYTES // 2, 5000)))
                self.did["memory taken back"] += 1
            if self.dice.random() < 0.5:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, MEMORY_BYTES)

    def _scribble_in_image(self) -> None:
        """The memory of the tails is that of all registers."""
        if self._image is None:
            self._send(p.GET_REGION_IO_FDS, p.IoFds(0, argsz=65536).request())
            return
        for _ in range(self.dice.randrange(1, 8)):
            struct.pack_into("=I", self._image, self.dice.choice(self.offsets) & ~3, self._value())
        self.did["image words"] += 1

    def _play_with_events(self) -> None:
        """Filled, emptied, made blocking: those that it gave and those that it got."""
        for fd in self.dice.sample(self._events + self._received, min(4, len(self._events + self._received))):
            if "eventfd" not in os.readlink(f"/proc/self/fd/{fd}"):
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, 0)
                continue
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                if self.dice.random() < 0.7:
                    os.eventfd_read(fd)
                if self.dice.random() < 0.6:
                    os.eventfd_write(fd, (1 << 64) - 2)
            if self.dice.random() < 0.5:
                os.set_blocking(fd, True)

    def _packets(self) -> None:
        for _ in range(self.dice.randrange(1, 8)):
            size = self.dice.choice((60, 64, 1514, 9000))
            packet = (
                b"\xff" * 6
                + self.dice.randbytes(6)
                + self.dice.choice((b"\x08\0\x45\0", b"\x86\xdd\x60\0", b"\x81\0\0\7"))
            )
            packet = (packet + self.dice.randbytes(60)).ljust(size, b"\0")[:size]
            lib.wire_memory_put(self.served.wire, packet, size)
        room = ffi.new("uint8_t[]", 16384)
        while lib.wire_memory_take(self.served.wire, room, 16384):
            self.did["packets out"] += 1

    def _ask(self) -> None:
        argsz = self.dice.choice((0, 16, 32, 4096, 0xFFFF_FFFF))
        body = self.dice.choice(
            (
                p.RegionInfo(self.dice.randrange(12), argsz=argsz).request(),
                p.DeviceInfo().pack(),
                p.IrqInfo(self.dice.randrange(7)).pack(),
            )
        )
        self._send(
            self.dice.choice(
                (p.GET_REGION_INFO, p.GET_INFO, p.GET_IRQ_INFO, p.VERSION, p.GET_REGION_IO_FDS, p.DMA_MAP)
            ),
            body,
        )

    def _reset(self) -> None:
        self._send(p.RESET)
        self._config_on()

    def _garbage(self) -> None:
        size = self.dice.choice((16, 17, 40, 100, 5000))
        head = p.HEADER.pack(
            1, self.dice.randrange(20), size, self.dice.randrange(64), self.dice.randrange(200)
        )
        self._send_bytes(head + self.dice.randbytes(size - 16), self._any_fds(self.dice.choice((0, 0, 1, 5))))

    def _vanish(self) -> None:
        """Perhaps in the midst of a message."""
        message = p.message(1, p.REGION_WRITE, _ACCESS.pack(0x1018, 0, 4) + bytes(4))
        self._send_bytes(
            message[: self.dice.randrange(len(message))], self._any_fds(self.dice.choice((0, 1)))
        )
        self._leave()
