"""A Transport to a device that lives in the same process (ixroute.vfio_user.device.Device), without a socket: for
tests that bring a driver up on the emulated card and look at both sides.

Calls are the device's own. Tails and what else the device can be told without a call (io_events) are stores to its
memory and an event, as over vfio-user; other registers that C writes (interrupt masks) go through a small thread.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.transport import DmaMapping, DmaMemory, TransportError
from ixroute.vfio_user.device import SLEEP_REGION, Device, DeviceError

CONFIG = 7
MSIX = 2
FIRST_IOVA = 4 << 30
_POSTED = struct.Struct("=QII")


class _Shadow:
    """Memory behind a descriptor of the device's."""

    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        try:
            self._map = mmap.mmap(fd, size)
        except PermissionError:  # the sleep word: to be read only
            self._map = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        self._bytes = ffi.from_buffer("uint8_t[]", self._map, require_writable=False)

    def word(self, offset: int) -> Any:
        return self._bytes + offset

    def close(self) -> None:
        ffi.release(self._bytes)
        self._map.close()


class InProcessRegion:
    """Implements Region."""

    def __init__(self, transport: InProcess, number: int) -> None:
        self._transport = transport
        self._device = transport.card
        self._number = number
        self.size = self._device.region(number).size
        self._bells: list[Any] = []

    def _check(self, offset: int) -> None:
        if offset & 3 or not 0 <= offset <= self.size - 4:
            raise ValueError(f"no register at {offset:#x}")

    def read32(self, offset: int) -> int:
        self._check(offset)
        with self._transport.refusals():
            return int.from_bytes(self._device.read(self._number, offset, 4), "little")

    def write32(self, offset: int, value: int) -> None:
        self._check(offset)
        with self._transport.refusals():
            self._device.write(self._number, offset, value.to_bytes(4, "little"))

    def bell(self, offset: int, value: int | None = None) -> Any:
        self._check(offset)
        bell = ffi.new("struct doorbell *")
        for event in self._device.io_events(self._number):
            if event.offset == offset and event.datamatch in (None, value):
                shadow = self._transport.shadow(event.shadow_fd)
                asleep = self._transport.shadow(self._device.region(SLEEP_REGION).fd).word(0)
                lib.doorbell_to_register(bell, shadow.word(event.shadow_offset), event.event_fd, asleep)
                break
        else:
            message = _POSTED.pack(offset, self._number, 0)
            lib.doorbell_to_socket(bell, self._transport.posted.fileno(), message, len(message), 12)
        self._bells.append(bell)
        return bell

    def silence(self) -> None:
        for bell in self._bells:
            lib.doorbell_silence(bell)


class InProcessConfig:
    def __init__(self, transport: InProcess) -> None:
        self._transport = transport

    def read(self, offset: int, size: int) -> int:
        with self._transport.refusals():
            return int.from_bytes(self._transport.card.read(CONFIG, offset, size), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        with self._transport.refusals():
            self._transport.card.write(CONFIG, offset, value.to_bytes(size, "little"))


class InProcessIrq:
    def __init__(self, transport: InProcess) -> None:
        self._transport = transport
        self.count = transport.card.irq(MSIX).count
        self._fds: list[int] = []

    def start(self, n: int) -> Sequence[int]:
        if self._fds or not 0 < n <= self.count:
            raise ValueError(f"{n} vectors of {self.count}, started: {bool(self._fds)}")
        self._fds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(n)]
        with self._transport.refusals():
            self._transport.card.set_irqs(MSIX, 0, [os.dup(fd) for fd in self._fds])
        return self._fds

    def stop(self) -> None:
        if self._fds:
            self._transport.card.irqs_off(MSIX)
        for fd in self._fds:
            os.close(fd)
        self._fds = []


class InProcess:
    """Implements Transport. The card is the caller's, and lives on after close()."""

    kind = "vfio-user"

    def __init__(self, card: Device, device: str = "in process") -> None:
        self.card = card
        self.device = device
        self.posted, self._arriving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._regions: list[InProcessRegion] = []
        self._shadows: dict[int, _Shadow] = {}
        self._mapped: dict[int, tuple[DmaMemory, DmaMapping, int]] = {}
        self._next_iova = FIRST_IOVA
        self._closed = False
        self.config = InProcessConfig(self)
        self.irq = InProcessIrq(self)
        self._thread = threading.Thread(target=self._serve, name="posted writes", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while message := self._arriving.recv(64):
            offset, number, value = _POSTED.unpack(message)
            with contextlib.suppress(DeviceError):
                self.card.write(number, offset, value.to_bytes(4, "little"))

    @contextlib.contextmanager
    def refusals(self) -> Any:
        try:
            yield
        except DeviceError as error:
            raise TransportError(self.device, str(error)) from error

    def shadow(self, fd: int) -> _Shadow:
        if fd not in self._shadows:
            self._shadows[fd] = _Shadow(fd)
        return self._shadows[fd]

    def map_bar(self, number: int) -> InProcessRegion:
        self._regions.append(InProcessRegion(self, number))
        return self._regions[-1]

    def dma_map(self, memory: DmaMemory) -> DmaMapping:
        known = self._mapped.get(memory.fd)
        if known is not None:
            self._mapped[memory.fd] = (memory, known[1], known[2] + 1)
            return known[1]
        mapping = DmaMapping(self._next_iova)
        with self.refusals():
            self.card.dma_map(mapping.base, memory.bytes, memory.fd, 0, True, True)
        self._next_iova += -(-memory.bytes // (2 << 20)) * (2 << 20) + (2 << 20)
        self._mapped[memory.fd] = (memory, mapping, 1)
        return mapping

    def dma_unmap(self, memory: DmaMemory) -> None:
        _, mapping, uses = self._mapped[memory.fd]
        if uses > 1:
            self._mapped[memory.fd] = (memory, mapping, uses - 1)
            return
        del self._mapped[memory.fd]
        self.card.dma_unmap(mapping.base, memory.bytes)

    def reset(self) -> bool:
        self.card.reset()
        return True

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.irq.stop()
        for memory, _, _ in list(self._mapped.values()):
            self._mapped[memory.fd] = (*self._mapped[memory.fd][:2], 1)
            self.dma_unmap(memory)
        for region in self._regions:
            region.silence()
        self.posted.close()
        self._thread.join(5)
        self._arriving.close()
        for shadow in self._shadows.values():
            shadow.close()
        with contextlib.suppress(DeviceError):
            self.card.disconnected()
