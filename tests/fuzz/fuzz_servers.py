"""A server that means harm, or is broken: somebody between an honest server and its client who changes what it says."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.channel import DisconnectedError, Inbox, close_fds, send
from lab.emulated_port import EmulatedPort

_U32 = struct.Struct("=I")


class Between:
    """Carries messages both ways. Of the server's, each is changed with this chance; `did` counts how.

    What memory the server shows, it replaces by a copy that cannot be sealed, and cut() makes shorter.
    """

    def __init__(self, server: socket.socket, dice: random.Random, chance: float, copies: float) -> None:
        self.did: Counter[str] = Counter()
        self._server = server
        self._dice = dice
        self._chance = chance
        self._copies = copies
        self._memory: list[int] = []
        self._hold: list[int] = []
        self.client, self._ours = socket.socketpair()
        self._over = threading.Event()
        for sock in (self._ours, server):
            sock.setblocking(False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def calm(self) -> None:
        """Changes nothing from now on."""
        self._chance = 0.0

    def wild(self, chance: float) -> None:
        self._chance = chance

    def cut(self) -> int:
        """The memory of registers ends; how many files that was."""
        for fd in self._memory:
            os.ftruncate(fd, 0)
        return len(self._memory)

    def close(self) -> None:
        """The server is gone. Idempotent."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._ours.close()
        self._server.close()
        close_fds(self._memory + self._hold)

    def _run(self) -> None:
        ends = {self._ours: (Inbox(), self._server, False), self._server: (Inbox(), self._ours, True)}
        try:
            while not self._over.is_set():
                for sock in select.select(list(ends), [], [], 0.05)[0]:
                    inbox, to, changes = ends[sock]
                    inbox.receive(sock)
                    while (got := inbox.next()) is not None:
                        fds = inbox.take_fds()
                        data = (
                            p.HEADER.pack(got[0], got[1], p.HEADER.size + len(got[4]), got[2], got[3])
                            + got[4]
                        )
                        if changes:
                            self._answer(data, got[1], fds, to)
                        else:
                            self._put(to, data, fds)
                        close_fds(fds)
        except (DisconnectedError, OSError, p.ProtocolError):
            pass
        for sock, (inbox, _, _) in ends.items():
            inbox.close()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _put(self, to: socket.socket, data: bytes, fds: Sequence[int]) -> None:
        while data and not self._over.is_set():
            try:
                data, fds = data[send(to, data, fds) :], ()
            except BlockingIOError:
                select.select([], [to], [], 0.05)

    def _answer(self, data: bytes, command: int, fds: list[int], to: socket.socket) -> None:
        if command in (p.GET_REGION_INFO, p.GET_REGION_IO_FDS) and self._dice.random() < self._copies:
            self._copy_memory(fds)
        if self._dice.random() < self._chance:
            change = self._dice.choice(_CHANGES)
            self.did[change.__name__.strip("_")] += 1
            change(self, bytearray(data), fds, to)
        else:
            self._put(to, data, fds)

    def _copy_memory(self, fds: list[int]) -> None:
        for i, fd in enumerate(fds):
            size = os.fstat(fd).st_size
            if size:
                copy = os.memfd_create("cut", os.MFD_CLOEXEC)
                os.write(copy, os.pread(fd, size, 0))
                self._memory.append(os.dup(copy))
                os.close(fd)
                fds[i] = copy

    # ---- what it does to a message

    def _bytes_changed(self, data: bytearray, fds: list[int], to: socket.socket) -> None:
        for _ in range(self._dice.choice((1, 1, 2, 8))):
            data[self._dice.randrange(len(data))] = self._dice.choice(
                (0, 1, 0x7F, 0xFF, self._dice.randrange(256))
            )
        self._put(to, bytes(data), fds)

    def _word_changed(self, data: bytearray, fds: list[int], to: socket.socket) -> None:
        at = self._dice.randrange(16, max(len(data) - 3, 17), 4)
        if at + 4 <= len(data):
            _U32.pack_into(
                data, at, self._dice.choice((0, 1, 0xFFFF_FFFF, 0x7FFF_FFFF, 1 << self._dice.randrange(32)))
            )
        self._put(to, bytes(data), fds)

    def _cut_short(self, data: bytearray, fds: list[int], to: socket.socket) -> None:
        short = data[: self._dice.randrange(16, len(data) + 1)]
        if self._dice.random() < 0.8:
            _U32.pack_into(short, 4, len(short))
        self._put(to, bytes(short), fds)

    def _twice(self, data: bytearray, fds: list[int], to: socket.socket) -> None:
        self._put(to, bytes(data), fds)
        self._put(to, bytes(data), ())

    def _refused(self, data: bytearray, _fds: list[int], to: socket.socket) -> None:
        number, command = p.HEADER.unpack_from(data)[:2]
        self._put(
            to, p.message(number, command, b"", p.REPLY | p.ERROR, self._dice.choice((0, 1, 22, 4095))), ()
        )

    def _never(self, _data: bytearray, _fds: list[int], _to: socket.socket) -> None:
        pass

    def _end(self, _data: bytearray, _fds: list[int], to: socket.socket) -> None:
        to.shutdown(socket.SHUT_RDWR)

    def _other_fds(self, data: bytearray, fds: list[int], to: socket.socket) -> None:
        odd = [os.open("/dev/null", os.O_RDWR), os.eventfd(0), os.memfd_create("short"), *os.pipe()]
        self._put(to, bytes(data), self._dice.sample(odd, self._dice.randrange(1, 5)))
        close_fds(odd)

    def _asks_back(self, data: bytearray, fds: list[int], to: socket.socket) -> None:
        self._put(to, p.message(9, self._dice.randrange(20), self._dice.randbytes(24), p.COMMAND), ())
        self._put(to, bytes(data), fds)

    def _rubbish(self, _data: bytearray, fds: list[int], to: socket.socket) -> None:
        self._put(to, self._dice.randbytes(self._dice.randrange(1, 300)), fds)


_CHANGES: Sequence[Callable[[Between, bytearray, list[int], socket.socket], None]] = (
    Between._bytes_changed,
    Between._bytes_changed,
    Between._word_changed,
    Between._word_changed,
    Between._cut_short,
    Between._twice,
    Between._refused,
    Between._never,
    Between._end,
    Between._other_fds,
    Between._asks_back,
    Between._rubbish,
)


def lied_to(dice: random.Random, chance: float, copies: float = 0.0) -> type[EmulatedPort]:
    """EmulatedPort(socket=True, …) with somebody between; `between_` of the class is who."""

    class LiedTo(EmulatedPort):
        timeout_s = 0.2
        middle: Between

        def between(self, undo: contextlib.ExitStack, server: socket.socket) -> socket.socket:
            LiedTo.middle = Between(server, dice, chance, copies)
            undo.callback(LiedTo.middle.close)
            return LiedTo.middle.client

    return LiedTo
