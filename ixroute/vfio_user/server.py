"""A device served over vfio-user: one socket, one client at a time, any number of clients in turn.

Nothing here blocks and nothing a client does ends the loop: what is wrong is answered with an errno, what cannot be
answered ends the connection, and the next client finds the device reset. While a client is connected others wait in
the socket's backlog.

Access to trapped registers is the hot path: _work cuts REGION_READ and REGION_WRITE out of the receive buffer with one
unpack each, all that one receive brought, and answers them with one send.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.channel import DisconnectedError, Inbox, close_fds, send
from ixroute.vfio_user.device import Device, DeviceError, MaskingDevice, RegionInfo
from ixroute.vfio_user.protocol import ProtocolError

log = logging.getLogger(__name__)

_OUT_LIMIT = 2 * p.MAX_MESSAGE
"""Replies held for a client that does not read them; nothing more of it is read until they have gone."""
_ACCEPT_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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


class Server:
    """Serves device at a path (made here, mode 0600, removed by close) or on a socket: one that listens, or one end
    of a connection. OSError when the path cannot be had.

    For a selectors loop: register fileno() for reading, call handle() whenever it is readable. All calls of the
    device come from handle() and close(). The device is not closed here.
    """

    def __init__(self, where: str | socket.socket, device: Device) -> None:
        self.device = device
        self.counters = ServerCounters()
        self.path = ""
        self.name = "vfio-user"
        self._path_id = (0, 0)
        self._client: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._closed = False
        self._accept_failed = False
        with contextlib.ExitStack() as undo:
            sock = self._listen(where) if isinstance(where, str) else where
            undo.callback(sock.close)
            sock.setblocking(False)
            self._epoll = select.epoll()
            undo.callback(self._epoll.close)
            self._stop_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.pop_all()
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._listener = sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)
        else:
            self._begin(sock)

    def fileno(self) -> int:
        """Readable when handle() has something to do. The same for the server's whole life."""
        return self._epoll.fileno()

    @property
    def connected(self) -> bool:
        return self._client is not None

    def handle(self) -> None:
        """Does what there is to do, at most one receive's worth; never waits, never raises."""
        why = ""
        try:
            if self._client is None:
                self._accept()
            elif self._out:
                self._drain(self._client)
                self._work(self._client)
            else:
                self._inbox.receive(self._client)
                self._work(self._client)
        except BlockingIOError:
            return
        except DisconnectedError as e:
            why = str(e)
        except ProtocolError as e:
            self.counters.broken += 1
            log.warning("%s: the client is disconnected: %s", self.name, e)
            why = str(e)
        except Exception as e:
            # A mistake of ours must not take the other cards of this process along.
            log.exception("%s: the client is disconnected", self.name)
            why = repr(e)
        if why:
            self._end(why)

    def serve_forever(self) -> None:
        """handle() in a loop until stop() is called, by any thread."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(self._stop_event, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._stop_event in ready:
                return
            self.handle()

    def stop(self) -> None:
        """serve_forever returns soon, now or when it is called."""
        os.eventfd_write(self._stop_event, 1)

    def close(self) -> None:
        """The client is disconnected, the path removed if it still is this server's. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._client is not None:
            self._end("the server closes")
        if self._listener is not None:
            self._listener.close()
        if self.path:
            with contextlib.suppress(OSError):
                found = os.stat(self.path)
                if (found.st_dev, found.st_ino) == self._path_id:
                    os.unlink(self.path)
        self._epoll.close()
        os.close(self._stop_event)

    # ---- connections ----

    def _listen(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            try:
                sock.bind(path)
            except OSError as e:
                if e.errno != errno.EADDRINUSE or _somebody_listens(path):
                    raise
                os.unlink(path)  # what a killed server left
                sock.bind(path)
            os.chmod(path, 0o600)  # before listen: nobody can have connected yet
            found = os.stat(path)
            self._path_id = (found.st_dev, found.st_ino)
            sock.listen(8)
        except OSError as e:
            sock.close()
            raise OSError(e.errno, f"{path}: {e.strerror or e}") from e
        self.path = self.name = path
        return sock

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError as e:
            if e.errno in _ACCEPT_ERRORS:
                log.warning("%s: a client could not be accepted: %s", self.path, e.strerror)
            return
        client.setblocking(False)
        self._epoll.unregister(self._listener.fileno())
        self._begin(client)

    def _begin(self, client: socket.socket) -> None:
        self._client = client
        self._epoll.register(client.fileno(), select.EPOLLIN)
        self._inbox = Inbox()
        self._out: list[tuple[bytes, list[int]]] = []
        self._replies: list[bytes] = []
        self._held_bytes = 0
        self._negotiated = False
        self._regions = [self.device.region(i) for i in range(self.device.info.regions)]
        self.counters.clients += 1
        log.info("%s: a client has connected", self.name)

    def _end(self, why: str) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self._epoll.unregister(client.fileno())
        client.close()
        self._inbox.close()
        for _, fds in self._out:
            close_fds(fds)
        self._out = []
        try:
            self.device.disconnected()
        except Exception:
            log.exception("%s: the device at its client's end", self.name)
        if self._listener is not None and not self._closed:
            self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        log.info("%s: the client has gone: %s", self.name, why)

    # ---- replies ----

    def _send(self, client: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
        """Now, or when the client has read what waits. The descriptors stay the caller's."""
        n = 0
        if not self._out:
            with contextlib.suppress(BlockingIOError):
                n = send(client, data, fds)
            if n == len(data):
                return
            self._epoll.modify(client.fileno(), select.EPOLLOUT)
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0) for fd in fds] if not n else []
        self._out.append((data[n:], kept))

    def _drain(self, client: socket.socket) -> None:
        """BlockingIOError while some is left."""
        while self._out:
            data, fds = self._out[0]
            n = send(client, data, fds)
            close_fds(fds)
            self._out[0] = (data[n:], [])
            if n == len(data):
                del self._out[0]
        self._epoll.modify(client.fileno(), select.EPOLLIN)

    def _flush(self, client: socket.socket) -> None:
        if self._replies:
            data = b"".join(self._replies)
            self._replies.clear()
            self._held_bytes = 0
            self._send(client, data)

    def _refuse(self, error: OSError | ProtocolError | Exception, what: str) -> int:
        """Counts it; the errno to answer."""
        self.counters.refused += 1
        self.counters.last_refused = f"{what}: {error}"
        if isinstance(error, DeviceError | ProtocolError):
            log.debug("%s: refused: %s: %s", self.name, what, error)
            return error.errno or errno.EIO
        log.error("%s: the device failed: %s", self.name, what, exc_info=error)
        return errno.EIO

    # ---- messages ----

    def _work(self, client: socket.socket) -> None:
        """Every whole message in the buffer, until replies wait that the client does not take."""
        try:
            while not self._out:
                if self._negotiated and not self._inbox.fds:
                    self._accesses(self._inbox)
                if self._held_bytes > _OUT_LIMIT:
                    self._flush(client)
                    continue
                message = self._inbox.next()
                if message is None:
                    break
                self._command(client, *message)
        finally:
            self._flush(client)

    def _accesses(self, inbox: Inbox) -> None:
        """As many well-formed REGION_READ and REGION_WRITE as come next: the trapped registers."""
        buffer, view, at, end = inbox.buffer, inbox.view, inbox.start, inbox.end
        unpack, pack, size_of = p.ACCESS.unpack_from, p.ACCESS.pack, p.ACCESS.size
        replies, n = self._replies, 0
        while end - at >= size_of and self._held_bytes <= _OUT_LIMIT:
            number, command, size, flags, _, offset, region, count = unpack(buffer, at)
            after = at + size
            data = b""
            if flags & p.TYPE_MASK or after > end:
                break
            if command == p.REGION_WRITE and size == size_of + count:
                error = self._write(region, offset, bytes(view[at + size_of : after]))
            elif command == p.REGION_READ and size == size_of:
                data, error = self._read(region, offset, count)
            else:
                break
            at = after
            n += 1
            if flags & p.NO_REPLY:
                continue
            if error:
                replies.append(p.HEADER.pack(number, command, p.HEADER.size, p.REPLY | p.ERROR, error))
            else:
                replies.append(
                    pack(number, command, size_of + len(data), p.REPLY, 0, offset, region, count) + data
                )
            self._held_bytes += size_of + len(data)
        inbox.start = at
        self.counters.messages += n

    def _write(self, region: int, offset: int, data: bytes) -> int:
        """errno, or 0."""
        try:
            info = self._region(region)
            if not data or offset + len(data) > info.size or not info.writable:
                raise DeviceError(errno.EINVAL, "no such register to write")
            self.device.write(region, offset, data)
        except Exception as e:
            return self._refuse(e, f"a write of {len(data)} bytes to region {region}, offset {offset:#x}")
        return 0

    def _read(self, region: int, offset: int, count: int) -> tuple[bytes, int]:
        """The bytes, and errno or 0."""
        try:
            info = self._region(region)
            if not 0 < count <= p.MAX_TRANSFER or offset + count > info.size or not info.readable:
                raise DeviceError(errno.EINVAL, "no such register to read")
            data = self.device.read(region, offset, count)
            if len(data) != count:
                raise ValueError(f"the device read {len(data)} bytes")
        except Exception as e:
            return b"", self._refuse(e, f"a read of {count} bytes from region {region}, offset {offset:#x}")
        return data, 0

    def _region(self, index: int) -> RegionInfo:
        if index >= len(self._regions):
            raise DeviceError(errno.EINVAL, f"there is no region {index}")
        return self._regions[index]

    def _command(
        self, client: socket.socket, number: int, command: int, flags: int, _error: int, body: memoryview
    ) -> None:
        """Any message. ProtocolError when nothing after it can make sense."""
        fds = self._inbox.take_fds()
        self.counters.messages += 1
        name = p.command_name(command)
        try:
            if flags & p.TYPE_MASK != p.COMMAND:
                raise ProtocolError(f"a reply to {name}, which was never asked")
            error, reply, reply_fds = 0, b"", list[int]()
            try:
                if not self._negotiated and command != p.VERSION:
                    raise ProtocolError(f"{name} before VERSION")
                if len(fds) > _FDS_OF.get(command, 0):
                    raise ProtocolError(f"{len(fds)} descriptors, {_FDS_OF.get(command, 0)} at most")
                reply, reply_fds = _HANDLERS.get(command, Server._unknown)(self, body, fds)
            except Exception as e:
                error = self._refuse(e, name)
            if error:
                flags_out, reply, reply_fds = p.REPLY | p.ERROR, b"", []
            else:
                flags_out = p.REPLY
            if not flags & p.NO_REPLY:
                self._answer(client, p.message(number, command, reply, flags_out, error), reply_fds)
            if not self._negotiated:
                raise ProtocolError(f"no version was agreed on: {self.counters.last_refused}")
        finally:
            close_fds(fds)

    def _answer(self, client: socket.socket, message: bytes, fds: Sequence[int]) -> None:
        if fds:
            self._flush(client)
            self._send(client, message, fds)
        else:
            self._replies.append(message)
            self._held_bytes += len(message)

    # ---- each message: body and descriptors in, body and descriptors of the reply out. A handler that gives the
    # descriptors on takes them out of the list. ----

    def _unknown(self, _body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        raise ProtocolError("not supported", errno.ENOTSUP)

    def _version(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        if self._negotiated:
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
        self._negotiated = True
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

    def _get_region_info(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        asked = p.RegionInfo.unpack(body)
        info = self._region(asked.index)
        mapped = info.fd >= 0 and info.size > 0
        flags = (
            p.REGION_FLAG_READ * info.readable
            | p.REGION_FLAG_WRITE * info.writable
            | p.REGION_FLAG_MMAP * mapped
        )
        areas = info.areas if mapped else ()
        reply = p.RegionInfo(asked.index, info.size, flags if info.size else 0, 0, areas, info.type)
        return reply.pack(asked.argsz), [info.fd] if mapped else []

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
            registers.append(
                p.IoFd(event.offset, event.size, at, shadow=shadow, shadow_offset=event.shadow_offset)
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
        data, error = self._read(region, offset, count)
        if error:
            raise DeviceError(error, self.counters.last_refused)
        return bytes(body) + data, []

    def _region_write(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        if len(body) < _ACCESS_BODY.size:
            raise ProtocolError(f"{len(body)} bytes, must be at least {_ACCESS_BODY.size}")
        offset, region, count = _ACCESS_BODY.unpack_from(body)
        if len(body) != _ACCESS_BODY.size + count:
            raise ProtocolError(f"{len(body) - _ACCESS_BODY.size} bytes to write, not {count}")
        error = self._write(region, offset, bytes(body[_ACCESS_BODY.size :]))
        if error:
            raise DeviceError(error, self.counters.last_refused)
        return bytes(body[: _ACCESS_BODY.size]), []

    def _write_multi(self, body: memoryview, _fds: list[int]) -> tuple[bytes, list[int]]:
        """As far as the first that is refused; the reply says how many were done."""
        done = 0
        for region, offset, data in p.unpack_writes(body):
            if self._write(region, offset, data):
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
_Handler = Callable[[Server, memoryview, list[int]], tuple[bytes, list[int]]]
_HANDLERS: dict[int, _Handler] = {
    p.VERSION: Server._version,
    p.DMA_MAP: Server._dma_map,
    p.DMA_UNMAP: Server._dma_unmap,
    p.GET_INFO: Server._get_info,
    p.GET_REGION_INFO: Server._get_region_info,
    p.GET_REGION_IO_FDS: Server._get_io_fds,
    p.GET_IRQ_INFO: Server._get_irq_info,
    p.SET_IRQS: Server._set_irqs,
    p.REGION_READ: Server._region_read,
    p.REGION_WRITE: Server._region_write,
    p.REGION_WRITE_MULTI: Server._write_multi,
    p.RESET: Server._reset,
}
_FDS_OF = {p.DMA_MAP: 1, p.SET_IRQS: p.MAX_MSG_FDS}
"""How many descriptors may come with a message."""


def _is_eventfd(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return not stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            return True
    return True
