"""The transport to a card that another process emulates: a client of the vfio-user protocol (ixroute/vfio_user).

A register is mapped when the server offers memory for it, else each access is a message. Writes of a region in which
nothing is mapped are posted: the server works in order, so that a later read, or any other request, comes after them.
Where some are mapped, a write to one could overtake a message before it, so there each write waits for its answer.
A bell past the socket can overtake posted writes too (transport.py): whoever rings it has read a register before.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.transport import Config, DmaMapping, DmaMemory, Irq, Region, TransportError
from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.channel import SCM_MAX_FD, close_fds
from ixroute.vfio_user.client import Client, GoneError, RefusedError
from ixroute.vfio_user.device import SLEEP_REGION, SLEEP_REGION_TYPE
from ixroute.vfio_user.lent import LentMemory

CONFIG_REGION = 7
MSIX = 2
"""The number of a kind of interrupt: linux/vfio.h, VFIO_PCI_MSIX_IRQ_INDEX."""
FIRST_IOVA = 4 << 30
"""Above everything that 32 bits reach, so that an address cut short anywhere is a fault, not somebody's memory."""
IOVA_STEP = 2 << 20
_RECONNECT_SECONDS = 1.0
_MAX_REGISTERS = 1024
_MAX_MAPPED = 1 << 30
_U32 = struct.Struct("=I")
_ACCESS_BODY = struct.Struct("=QII")
_COMMAND_MEMORY_AND_MASTER = 0x6
_MSIX_ENABLE = 0x8000
_MSIX_MASK_ALL = 0x4000


class _Link:
    """Calls of the protocol, with errors as transports have them."""

    def __init__(self, device: str, client: Client) -> None:
        self.device = device
        self.client = client
        self.areas: list[_Area] = []
        """All of the server's memory that is mapped here."""

    def call(
        self, command: int, body: bytes = b"", fds: Sequence[int] = (), want_fds: int = 0
    ) -> tuple[bytes, list[int]]:
        self.check()
        try:
            return self.client.call(command, body, fds, want_fds)
        except (RefusedError, GoneError) as e:
            raise self.error(e) from e

    def ask(self, command: int, body: bytes, unpack: Callable[[bytes], Any], want_fds: int = 0) -> Any:
        """(what unpack made of the reply, descriptors)."""
        reply, fds = self.call(command, body, (), want_fds)
        try:
            return unpack(reply), fds
        except p.ProtocolError as e:
            close_fds(fds)
            raise TransportError(self.device, f"the server's answer makes no sense: {e}") from e

    def error(self, e: Exception) -> TransportError:
        if isinstance(e, GoneError):
            return TransportError(self.device, f"{e}: start it again (`ixroute emulate`)")
        return TransportError(self.device, str(e))

    def check(self) -> None:
        """Raises when the server is known to be gone, or has taken away memory that registers were in."""
        if self.client.gone:
            raise self.error(GoneError(self.client.gone))
        if any(area.lost for area in self.areas):
            raise self.error(self.client.give_up("the server took away the memory of its registers"))

    def read(self, region: int, offset: int, size: int) -> bytes:
        body, _ = self.call(p.REGION_READ, _ACCESS_BODY.pack(offset, region, size))
        if len(body) != _ACCESS_BODY.size + size:
            raise TransportError(
                self.device, f"the server read {len(body) - _ACCESS_BODY.size} bytes of {size}"
            )
        return body[_ACCESS_BODY.size :]

    def write(self, region: int, offset: int, data: bytes, posted: bool = False) -> None:
        if posted:
            try:
                self.client.post(posted_write(region, offset, data))
            except GoneError as e:
                raise self.error(e) from e
        else:
            self.call(p.REGION_WRITE, _ACCESS_BODY.pack(offset, region, len(data)) + data)


def posted_write(region: int, offset: int, data: bytes) -> bytes:
    """A whole REGION_WRITE that wants no reply; the data are its last bytes."""
    size = p.ACCESS.size + len(data)
    return p.ACCESS.pack(0, p.REGION_WRITE, size, p.NO_REPLY, 0, offset, region, len(data)) + data


class _Area(LentMemory):
    """Mapped memory: [start, start+size) of a region, or of whatever a descriptor holds."""

    def __init__(self, fd: int, start: int, size: int, file_offset: int, writable: bool) -> None:
        super().__init__(fd, size, file_offset, writable=writable)
        self.start = start
        self.words: Any = ffi.cast("volatile uint32_t *", self.bytes)

    def word(self, offset: int) -> Any:
        """`volatile uint32_t *` of the region's offset."""
        return self.words + ((offset - self.start) >> 2)


class UserRegion:
    """One BAR (transport.Region)."""

    def __init__(
        self, link: _Link, number: int, info: p.RegionInfo, fd: int, sleep: Callable[[], Any]
    ) -> None:
        self.size = info.size
        self._link = link
        self._number = number
        self._sleep = sleep
        self._areas: list[_Area] = []
        self._bells: list[tuple[int, int | None, Any]] = []
        self._registers: dict[tuple[int, int | None], tuple[int, Any]] | None = None
        self._shadows: list[_Area] = []
        self._events: list[int] = []
        if fd >= 0:
            self._map(info, fd)
        self._events_of_server()
        self._posted = not self._areas

    def _map(self, info: p.RegionInfo, fd: int) -> None:
        """What is not of whole pages, or not in the region, stays trapped: a server must serve that as well."""
        for start, size in info.areas or [(0, info.size)]:
            at = info.offset + start
            if not 0 < size <= _MAX_MAPPED or start + size > info.size or at % mmap.PAGESIZE or start % 4:
                continue
            try:
                area = _Area(fd, start, size, at, bool(info.flags & p.REGION_FLAG_WRITE))
            except OSError as e:
                raise TransportError(self._link.device, f"region {self._number} cannot be mapped: {e}") from e
            self._areas.append(area)
            self._link.areas.append(area)

    def _check(self, offset: int) -> None:
        if offset & 3 or not 0 <= offset <= self.size - 4:
            raise ValueError(f"BAR{self._number} has no register at {offset:#x}")

    def _area(self, offset: int) -> _Area | None:
        for area in self._areas:
            if area.start <= offset <= area.start + area.size - 4:
                return area
        return None

    def read32(self, offset: int) -> int:
        self._check(offset)
        area = self._area(offset)
        if area is None:
            return int(_U32.unpack(self._link.read(self._number, offset, 4))[0])
        value = int(area.word(offset)[0])
        self._link.check()
        return value

    def write32(self, offset: int, value: int) -> None:
        self._check(offset)
        area = self._area(offset)
        if area is None:
            self._link.write(self._number, offset, _U32.pack(value), self._posted)
            return
        area.word(offset)[0] = value
        self._link.check()

    def bell(self, offset: int, value: int | None = None) -> Any:
        """A new one each time: a bell has one writer. Past the socket with a wake-up where the server has an event
        for the register, else mapped and found by the server's own looking, else a message."""
        self._check(offset)
        self._link.check()
        bell = ffi.new("struct doorbell *")
        self._hang(offset, value, bell)
        self._bells.append((offset, value, bell))
        return bell

    def _hang(self, offset: int, value: int | None, bell: Any) -> None:
        events = self._events_of_server()
        shadow = events.get((offset, None)) or events.get((offset, value))
        area = self._area(offset)
        if shadow:
            event, word = shadow
            lib.doorbell_to_register(bell, word, event, self._sleep())
        elif area:
            lib.doorbell_to_register(bell, area.word(offset), -1, ffi.NULL)
        else:
            message = posted_write(self._number, offset, bytes(4))
            lib.doorbell_to_socket(
                bell, self._link.client.socket.fileno(), message, len(message), p.ACCESS.size
            )

    def _events_of_server(self) -> dict[tuple[int, int | None], tuple[int, Any]]:
        """(offset, the only value or None) -> (eventfd, `volatile uint32_t *`), asked for once. A server without such
        registers refuses."""
        if self._registers is None:
            self._registers = {}
            request = p.IoFds(self._number, argsz=p.IoFds.FORM.size + _MAX_REGISTERS * p.IoFd.FORM.size)
            try:
                body, fds = self._link.client.call(p.GET_REGION_IO_FDS, request.request(), (), SCM_MAX_FD)
            except RefusedError:
                return self._registers
            except GoneError as e:
                raise self._link.error(e) from e
            with contextlib.ExitStack() as undo:
                undo.callback(self._close_unused, fds)
                try:
                    self._take_events(p.IoFds.unpack(body), fds)
                except (p.ProtocolError, OSError, ValueError, IndexError) as e:
                    raise TransportError(
                        self._link.device, f"the events of region {self._number} cannot be used: {e}"
                    ) from e
        return self._registers

    def _take_events(self, reply: p.IoFds, fds: Sequence[int]) -> None:
        assert self._registers is not None
        shadows: dict[int, _Area] = {}
        for register in reply.registers:
            known = not register.flags & ~p.IO_FD_DATAMATCH
            usable = register.type == p.IO_FD_SHADOW and register.size in (0, 4) and known
            if not usable or register.offset & 3 or register.shadow_offset & 3:
                continue
            if register.shadow not in shadows:
                fd = fds[register.shadow]
                size = os.fstat(fd).st_size
                if size > _MAX_MAPPED:
                    raise OSError(errno.EFBIG, f"{size} bytes of shadow memory")
                shadows[register.shadow] = _Area(fd, 0, size, 0, True)
                self._shadows.append(shadows[register.shadow])
                self._link.areas.append(shadows[register.shadow])
            area = shadows[register.shadow]
            if register.shadow_offset + 4 > area.size:
                raise OSError(errno.EINVAL, f"a register at {register.shadow_offset:#x} of the shadow memory")
            event = fds[register.fd]
            if event not in self._events:
                self._events.append(event)
            value = register.datamatch if register.flags & p.IO_FD_DATAMATCH else None
            self._registers[register.offset, value] = (event, area.word(register.shadow_offset))

    def _close_unused(self, fds: Sequence[int]) -> None:
        close_fds(fd for fd in fds if fd not in self._events)

    def close(self) -> None:
        for _, _, bell in self._bells:
            lib.doorbell_silence(bell)
        for area in self._areas + self._shadows:
            area.close()
        close_fds(self._events)
        self._areas, self._shadows, self._events = [], [], []
        self._registers = {}

    def open_anew(self, info: p.RegionInfo, fd: int) -> None:
        """After close(), of the same region of another server: the bells ring there."""
        if info.size != self.size:
            raise TransportError(self._link.device, "another device answers there now: restart ixroute")
        self._registers = None
        if fd >= 0:
            self._map(info, fd)
        self._events_of_server()
        self._posted = not self._areas
        for offset, value, bell in self._bells:
            self._hang(offset, value, bell)


class UserConfig:
    """PCI configuration space (transport.Config)."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    def read(self, offset: int, size: int) -> int:
        _check_size(size)
        return int.from_bytes(self._link.read(CONFIG_REGION, offset, size), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        _check_size(size)
        self._link.write(CONFIG_REGION, offset, value.to_bytes(size, "little"))

    def capability(self, wanted: int) -> int:
        """Where the capability with this id begins; 0: there is none (PCI 3.0 §6.7)."""
        at = self.read(0x34, 1) & 0xFC if self.read(0x06, 2) & 0x10 else 0
        for _ in range(48):  # as many as fit; a list that leads in a circle ends here too
            if at < 0x40:
                return 0
            if self.read(at, 1) == wanted:
                return at
            at = self.read(at + 1, 1) & 0xFC
        return 0


def _check_size(size: int) -> None:
    if size not in (1, 2, 4):
        raise ValueError(f"{size} bytes of configuration space: 1, 2 or 4 at once")


class UserIrq:
    """MSI-X (transport.Irq). Like a kernel's VFIO it switches MSI-X on in the configuration space as well."""

    def __init__(self, link: _Link, config: UserConfig, irqs: int) -> None:
        self._link = link
        self._config = config
        self._fds: list[int] = []
        self.count = 0
        if irqs > MSIX:
            info, _ = link.ask(p.GET_IRQ_INFO, p.IrqInfo(MSIX).pack(), p.IrqInfo.unpack)
            self.count = info.count
        self._at = config.capability(0x11) if self.count else 0

    def start(self, n: int) -> Sequence[int]:
        if self._fds:
            raise ValueError("interrupts are started already")
        if not 0 < n <= self.count:
            raise ValueError(f"{n} vectors: the device has {self.count}")
        self._fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(n)]
        try:
            self.tell()
        except TransportError:
            with contextlib.suppress(TransportError):
                self.stop()
            raise
        return tuple(self._fds)

    def tell(self) -> None:
        """Gives the server the eventfds there are."""
        each = max(1, min(self._link.client.server.max_msg_fds, 253))
        for first in range(0, len(self._fds), each):
            fds = self._fds[first : first + each]
            message = p.SetIrqs(MSIX, first, len(fds), p.IRQ_DATA_EVENTFD)
            self._link.call(p.SET_IRQS, message.pack(), fds)
        self.switch_on()

    def switch_on(self) -> None:
        """Also after a reset, which switches it off."""
        if self._fds and self._at:
            control = self._config.read(self._at + 2, 2)
            self._config.write(self._at + 2, 2, control & ~_MSIX_MASK_ALL | _MSIX_ENABLE)

    def stop(self) -> None:
        if not self._fds:
            return
        fds, self._fds = self._fds, []
        try:
            if self._at:
                self._config.write(self._at + 2, 2, self._config.read(self._at + 2, 2) & ~_MSIX_ENABLE)
            self._link.call(p.SET_IRQS, p.SetIrqs(MSIX, 0, 0, p.IRQ_DATA_NONE).pack())
        finally:
            close_fds(fds)


@dataclass
class _Mapping:
    memory: DmaMemory
    base: int
    users: int = 1


class VfioUserTransport:
    """The card behind a socket: the path at which `ixroute emulate` listens, or a connected socket (taken over).

    TransportError when there is no server, or when it is silent for timeout_s. A server that was silent for so long
    once counts as gone: the connection is ended, and every later call raises at once.
    """

    kind = "vfio-user"

    def __init__(self, where: str | socket.socket, timeout_s: float = 5.0) -> None:
        self.device = where if isinstance(where, str) else "socket"
        self._regions: dict[int, UserRegion] = {}
        self._mappings: dict[int, _Mapping] = {}
        self._sleep_area: _Area | None = None
        self._sleep_known = False
        self._closed = False
        self._timeout_s = timeout_s
        sock = _connect(where, timeout_s) if isinstance(where, str) else where
        try:
            self._client = Client(sock, timeout_s)
        except GoneError as e:
            raise TransportError(self.device, f"{e}; does another client use the card?") from e
        self._link = _Link(self.device, self._client)
        try:
            self._info, _ = self._link.ask(p.GET_INFO, p.DeviceInfo().pack(), p.DeviceInfo.unpack)
            self._config = UserConfig(self._link)
            self._irq = UserIrq(self._link, self._config, self._info.irqs)
            self._bus_master(True)
        except TransportError:
            self._client.close()
            raise
        self.config: Config = self._config
        self.irq: Irq = self._irq

    def alive(self) -> bool:
        """Whether the server still holds its end of the connection; for a port's regular look at its card."""
        return self._client.alive() and not any(area.lost for area in self._link.areas)

    def reconnect(self) -> None:
        """To a server that has come back, with all that was set up: memory at the same addresses, the same eventfds
        and bells. The device itself is as after power-on. No worker may ring a bell meanwhile. TransportError, and it
        can be tried again, while there is no server, or one of another device."""
        self._close_regions()
        self._client.close()
        self._client = self._link.client = self._connected_anew()
        try:
            for number, region in self._regions.items():
                info, fd = self._region_info(number)
                try:
                    region.open_anew(info, fd)
                finally:
                    if fd >= 0:
                        os.close(fd)
            for mapping in self._mappings.values():
                memory = mapping.memory
                self._link.call(p.DMA_MAP, p.DmaMap(mapping.base, memory.bytes).pack(), [memory.fd])
            self._irq.tell()
            self._bus_master(True)
        except TransportError:
            self._close_regions()
            self._client.close()
            raise

    def _connected_anew(self) -> Client:
        """With less patience than at first: somebody waits meanwhile who has other things to do."""
        try:
            client = Client(_connect(self.device, _RECONNECT_SECONDS), _RECONNECT_SECONDS)
        except GoneError as e:
            raise TransportError(self.device, f"{e}; does another client use the card?") from e
        client.timeout_s = self._timeout_s
        return client

    def _close_regions(self) -> None:
        for region in self._regions.values():
            region.close()
        if self._sleep_area:
            self._sleep_area.close()
        self._sleep_area, self._sleep_known = None, False
        self._link.areas.clear()

    def map_bar(self, number: int) -> Region:
        """The same object for the same number."""
        if number not in self._regions:
            if not 0 <= number < 6:
                raise ValueError(f"there is no BAR{number}")
            info, fd = self._region_info(number)
            try:
                if not info.size:
                    raise TransportError(self.device, f"the device has no BAR{number}")
                self._regions[number] = UserRegion(self._link, number, info, fd, self._sleep_word)
            finally:
                if fd >= 0:
                    os.close(fd)
        return self._regions[number]

    def _region_info(self, number: int) -> tuple[p.RegionInfo, int]:
        """And the descriptor of its memory, the caller's, or -1."""
        room = p.RegionInfo.FORM.size
        for _ in range(2):
            body, fds = self._link.call(
                p.GET_REGION_INFO, p.RegionInfo(number, argsz=room).request(), want_fds=1
            )
            with contextlib.ExitStack() as undo:
                undo.callback(close_fds, fds)
                try:
                    info = p.RegionInfo.unpack(body)
                except p.ProtocolError as e:
                    raise TransportError(self.device, f"the server's answer makes no sense: {e}") from e
                # Without its capabilities all of a region would seem to be memory. The flag that there are some is
                # missing in libvfio-user's short reply, so argsz alone tells.
                if info.argsz <= len(body):
                    if not fds or not info.flags & p.REGION_FLAG_MMAP:
                        return info, -1
                    undo.pop_all()
                    return info, fds[0]
            room = min(info.argsz, p.MAX_TRANSFER)
        raise TransportError(self.device, f"the server does not describe region {number}")

    def _sleep_word(self) -> Any:
        """`uint32_t *` that is not 0 while the device sleeps; NULL when the server has no such thing."""
        if not self._sleep_known:
            self._sleep_known = True
            for number in range(SLEEP_REGION, min(self._info.regions, p.MAX_REGIONS)):
                info, fd = self._region_info(number)
                if fd < 0:
                    continue
                try:
                    if info.type == SLEEP_REGION_TYPE and not info.areas and info.size >= 4:
                        self._sleep_area = _Area(fd, 0, info.size, info.offset, False)
                        self._link.areas.append(self._sleep_area)
                        break
                except OSError as e:
                    raise TransportError(self.device, f"region {number} cannot be mapped: {e}") from e
                finally:
                    os.close(fd)
        return self._sleep_area.words if self._sleep_area else ffi.NULL

    def dma_map(self, memory: DmaMemory) -> DmaMapping:
        known = self._mappings.get(id(memory))
        if known:
            known.users += 1
            return DmaMapping(known.base)
        base = self._free_iova(memory.bytes)
        self._link.call(p.DMA_MAP, p.DmaMap(base, memory.bytes).pack(), [memory.fd])
        self._mappings[id(memory)] = _Mapping(memory, base)
        return DmaMapping(base)

    def _free_iova(self, length: int) -> int:
        """The lowest address with so much room behind it."""
        at = FIRST_IOVA
        for mapping in sorted(self._mappings.values(), key=lambda m: m.base):
            if mapping.base - at >= length:
                break
            at = mapping.base + -(-mapping.memory.bytes // IOVA_STEP) * IOVA_STEP
        return at

    def dma_unmap(self, memory: DmaMemory) -> None:
        known = self._mappings.get(id(memory))
        if known is None:
            raise ValueError("this memory is not mapped")
        known.users -= 1
        if not known.users:
            del self._mappings[id(memory)]
            self._link.call(p.DMA_UNMAP, p.DmaUnmap(known.base, memory.bytes).pack())

    def reset(self) -> bool:
        if not self._info.flags & p.DEVICE_FLAG_RESET:
            return False
        self._link.call(p.RESET)
        self._bus_master(True)
        self._irq.switch_on()
        return True

    def _bus_master(self, on: bool) -> None:
        """Memory accesses and bus mastering in the command register (PCI 3.0 §6.2.2)."""
        command = self._config.read(0x04, 2) & ~_COMMAND_MEMORY_AND_MASTER
        self._config.write(0x04, 2, command | (_COMMAND_MEMORY_AND_MASTER if on else 0))

    def close(self) -> None:
        """No worker may ring a bell any more; one that is rung all the same counts `failed`."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TransportError):
            self._bus_master(False)
        with contextlib.suppress(TransportError):
            self._irq.stop()
        with contextlib.suppress(TransportError):
            for mapping in list(self._mappings.values()):
                mapping.users = 1
                self.dma_unmap(mapping.memory)
        self._mappings.clear()
        self._close_regions()
        self._client.close()


def _connect(path: str, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            sock.connect(path)
            return sock
        except BlockingIOError:  # the backlog is full
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            why = "the server takes no client: another one uses the card"
        except (FileNotFoundError, ConnectionRefusedError):
            why = f"no card is emulated there: start it with `ixroute emulate --wire SPEC --socket {path}`"
        except OSError as e:
            why = f"no connection: {e.strerror or e}"
        sock.close()
        raise TransportError(path, why)
