"""What a device answers to each message of vfio-user; nothing here knows of sockets.

One object for each connection, since a connection begins with an agreement on the version. Bodies and descriptors go
in, bodies and descriptors of the reply come out. What is refused is an exception with an errno; code() makes the errno
to answer of any exception, so that a mistake in a device costs its client an error and nobody else anything.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.device import Device, DeviceError, MaskingDevice, RegionInfo
from ixroute.vfio_user.protocol import ProtocolError

log = logging.getLogger(__name__)


@dataclass
class ServerCounters:
    clients: int = 0
    """That have connected."""
    messages: int = 0
    refused: int = 0
    """Answered with an error, or dropped where no answer was wanted."""
    broken: int = 0
    """Clients whose connection was ended because what they sent was not the protocol."""
    last_refused: str = ""


class Answers:
    """read() and write() are for the server's hot path; answer() is for every message, these two as well."""

    def __init__(self, device: Device, counters: ServerCounters, name: str) -> None:
        self.device = device
        self.counters = counters
        self.name = name
        self.negotiated = False
        self._regions = [device.region(i) for i in range(device.info.regions)]

    def answer(self, command: int, body: memoryview, fds: list[int]) -> tuple[bytes, list[int]]:
        """The reply's body and descriptors (the device's: not to be closed). Raises anything: code() knows what it
        means. Descriptors that the device keeps are taken out of fds; the rest stay the caller's."""
        if not self.negotiated and command != p.VERSION:
            raise ProtocolError(f"{p.command_name(command)} before VERSION")
        allowed = _FDS_OF.get(command, 0)
        if len(fds) > allowed:
            raise ProtocolError(f"{len(fds)} descriptors, {allowed} at most")
        return _HANDLERS.get(command, Answers._unknown)(self, body, fds)

    def code(self, error: OSError | ProtocolError | Exception, what: str) -> int:
        """Counts it; the errno to answer."""
        self.counters.refused += 1
        self.counters.last_refused = f"{what}: {error}"
        if isinstance(error, DeviceError | ProtocolError):
            log.debug("%s: refused: %s: %s", self.name, what, error)
            return error.errno or errno.EIO
        log.error("%s: the device failed: %s", self.name, what, exc_info=error)
        return errno.EIO

    def write(self, region: int, offset: int, data: bytes) -> int:
        """errno, or 0."""
        try:
            self._write(region, offset, data)
        except Exception as e:
            return self.code(e, f"a write of {len(data)} bytes to region {region}, offset {offset:#x}")
        return 0

    def _write(self, region: int, offset: int, data: bytes) -> None:
        info = self._region(region)
        if not data or offset + len(data) > info.size or not info.writable:
            raise DeviceError(errno.EINVAL, "no such register to write")
        self.device.write(region, offset, data)

    def read(self, region: int, offset: int, count: int) -> tuple[bytes, int]:
        """The bytes, and errno or 0."""
        try:
            return self._read(region, offset, count), 0
        except Exception as e:
            return b"", self.code(e, f"a read of {count} bytes from region {region}, offset {offset:#x}")

    def _read(self, region: int, offset: int, count: int) -> bytes:
        info = self._region(region)
        if not 0 < count <= p.MAX_TRANSFER or offset + count > info.size or not info.readable:
            raise DeviceError(errno.EINVAL, "no such register to read")
        data = self.device.read(region, offset, count)
        if len(data) != count:
            raise ValueError(f"the device read {len(data)} bytes")
        return data

    def _region(self, index: int) -> RegionInfo:
        if index >= len(self._regions):
            raise DeviceError(errno.EINVAL, f"there is no region {index}")
        return self._regions[index]

    def _unknown(self, _body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        raise ProtocolError("not supported", errno.ENOTSUP)

    def _version(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        if self.negotiated:
            raise ProtocolError("a second VERSION")
        asked = p.Version.unpack(body)
        if asked.major != p.MAJOR:
            raise ProtocolError(f"version {asked.major}.{asked.minor}: {p.MAJOR}.{p.MINOR} is spoken here")
        ours = p.Capabilities(
            max_msg_fds=p.MAX_MSG_FDS,
            max_data_xfer_size=p.MAX_TRANSFER,
            max_dma_maps=p.MAX_DMA_MAPS,
            write_multiple=asked.capabilities.write_multiple,
        )
        self.negotiated = True
        return p.Version(p.MAJOR, min(asked.minor, p.MINOR), ours).pack(), []

    def _dma_map(self, body: memoryview, fds: list[int]) -> tuple[bytes, list[int]]:
        m = p.DmaMap.unpack(body)
        fd = fds[0] if fds else None
        if fd is not None:
            found = os.fstat(fd)
            # Touching a page behind a file's end is SIGBUS, which would end every card of this process.
            if stat.S_ISREG(found.st_mode) and m.offset + m.size > found.st_size:
                raise ProtocolError(f"{m.size:#x} bytes from {m.offset:#x} of a file of {found.st_size:#x}")
        self.device.dma_map(m.address, m.size, fd, m.offset, m.read, m.write)
        return b"", []

    def _dma_unmap(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        m = p.DmaUnmap.unpack(body)
        self.device.dma_unmap(m.address, m.size)
        return bytes(body), []

    def _get_info(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        p.DeviceInfo.unpack(body)
        info = self.device.info
        flags = p.DEVICE_FLAG_PCI | p.DEVICE_FLAG_RESET * info.resettable
        return p.DeviceInfo(info.regions, info.irqs, flags).pack(), []

    def _get_region_info(self, request: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        asked = p.RegionInfo.unpack(request)
        info = self._region(asked.index)
        mapped = info.fd >= 0 and info.size > 0
        flags = (
            p.REGION_FLAG_READ * info.readable
            | p.REGION_FLAG_WRITE * info.writable
            | p.REGION_FLAG_MMAP * mapped
        )
        areas = info.areas if mapped else ()
        reply = p.RegionInfo(asked.index, info.size, flags if info.size else 0, 0, areas, info.type)
        body = reply.pack(asked.argsz)
        # The descriptor comes with the whole reply: libvfio-user's client has no room for one beside the short one.
        return body, [info.fd] if mapped and len(body) == len(reply.pack()) else []

    def _get_io_fds(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        asked = p.IoFds.unpack(body)
        self._region(asked.index)
        fds: list[int] = []
        registers = []
        for event in self.device.io_events(asked.index):
            for fd in (event.event_fd, event.shadow_fd):
                if fd not in fds:
                    fds.append(fd)
            at, shadow = fds.index(event.event_fd), fds.index(event.shadow_fd)
            match = event.datamatch
            registers.append(
                p.IoFd(
                    event.offset,
                    event.size,
                    at,
                    flags=0 if match is None else p.IO_FD_DATAMATCH,
                    shadow=shadow,
                    shadow_offset=event.shadow_offset,
                    datamatch=match or 0,
                )
            )
        reply = p.IoFds(asked.index, registers).pack(asked.argsz)
        return reply, fds if len(reply) > p.IoFds.FORM.size else []

    def _get_irq_info(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        index = p.IrqInfo.unpack(body).index
        self._check_irq(index)
        irq = self.device.irq(index)
        flags = (
            p.IRQ_FLAG_EVENTFD * irq.eventfd
            | p.IRQ_FLAG_MASKABLE * irq.maskable
            | p.IRQ_FLAG_AUTOMASKED * irq.automasked
            | p.IRQ_FLAG_NORESIZE * (not irq.resizable)
        )
        return p.IrqInfo(index, irq.count, flags).pack(), []

    def _check_irq(self, index: int) -> None:
        if index >= self.device.info.irqs:
            raise DeviceError(errno.EINVAL, f"there is no kind {index} of interrupt")

    def _set_irqs(self, body: memoryview, fds: list[int]) -> tuple[bytes, list[int]]:
        m = p.SetIrqs.unpack(body)
        self._check_irq(m.index)
        irq = self.device.irq(m.index)
        if fds and m.data != p.IRQ_DATA_EVENTFD:
            raise ProtocolError("descriptors beside a message without eventfds")
        if (m.start, m.count, m.data, m.action) == (0, 0, p.IRQ_DATA_NONE, p.IRQ_ACTION_TRIGGER):
            self.device.irqs_off(m.index)
            return b"", []
        if not m.count or m.start + m.count > irq.count:
            raise DeviceError(errno.EINVAL, f"{m.count} interrupts from {m.start}, there are {irq.count}")
        if m.data == p.IRQ_DATA_EVENTFD:
            self._wire(m, fds)
            return b"", []
        chosen = m.chosen if m.data == p.IRQ_DATA_BOOL else b"\1" * m.count
        for i, wanted in enumerate(chosen):
            if not wanted:
                continue
            if m.action == p.IRQ_ACTION_TRIGGER:
                self.device.trigger(m.index, m.start + i, 1)
            elif irq.maskable:
                masked = m.action == p.IRQ_ACTION_MASK
                cast(MaskingDevice, self.device).mask(m.index, m.start + i, 1, masked)
            else:
                raise DeviceError(errno.ENOTSUP, "interrupts of this kind cannot be masked")
        return b"", []

    def _wire(self, m: p.SetIrqs, fds: list[int]) -> None:
        if m.action != p.IRQ_ACTION_TRIGGER:
            raise DeviceError(errno.ENOTSUP, "eventfds tell of interrupts only")
        if fds and len(fds) != m.count:
            raise ProtocolError(f"{len(fds)} eventfds for {m.count} interrupts")
        for fd in fds:
            if not _is_eventfd(fd):
                raise ProtocolError("a descriptor that is no eventfd")
            # Whoever raises an interrupt must not wait, not even for a client that filled its eventfd on purpose.
            # The flag is the eventfd's, so the client's end has it too.
            os.set_blocking(fd, False)
        self.device.set_irqs(m.index, m.start, fds or [None] * m.count)
        fds.clear()

    def _region_read(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        if len(body) != _ACCESS_BODY.size:
            raise ProtocolError(f"{len(body)} bytes, must be {_ACCESS_BODY.size}")
        offset, region, count = _ACCESS_BODY.unpack(body)
        return bytes(body) + self._read(region, offset, count), []

    def _region_write(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        size = _ACCESS_BODY.size
        offset, region, count = _ACCESS_BODY.unpack_from(body) if len(body) >= size else (0, 0, 0)
        if not count or len(body) != size + count:
            raise ProtocolError(f"{len(body)} bytes to write {count}")
        self._write(region, offset, bytes(body[size:]))
        return bytes(body[:size]), []

    def _write_multi(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        """As far as the first that is refused; the reply says how many were done."""
        done = 0
        for region, offset, data in p.unpack_writes(body):
            if self.write(region, offset, data):
                break
            done += 1
        return p.MULTI_COUNT.pack(done), []

    def _reset(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        if len(body):
            raise ProtocolError(f"{len(body)} bytes, must be 0")
        if not self.device.info.resettable:
            raise DeviceError(errno.ENOTSUP, "the device has no reset")
        self.device.reset()
        return b"", []


_ACCESS_BODY = struct.Struct("=QII")
_Handler = Callable[[Answers, memoryview, list[int]], tuple[bytes, list[int]]]
_HANDLERS: dict[int, _Handler] = {
    p.VERSION: Answers._version,
    p.DMA_MAP: Answers._dma_map,
    p.DMA_UNMAP: Answers._dma_unmap,
    p.GET_INFO: Answers._get_info,
    p.GET_REGION_INFO: Answers._get_region_info,
    p.GET_REGION_IO_FDS: Answers._get_io_fds,
    p.GET_IRQ_INFO: Answers._get_irq_info,
    p.SET_IRQS: Answers._set_irqs,
    p.REGION_READ: Answers._region_read,
    p.REGION_WRITE: Answers._region_write,
    p.REGION_WRITE_MULTI: Answers._write_multi,
    p.RESET: Answers._reset,
}
_FDS_OF = {p.DMA_MAP: 1, p.SET_IRQS: p.MAX_MSG_FDS}
"""How many descriptors may come with a message."""


def _is_eventfd(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"
