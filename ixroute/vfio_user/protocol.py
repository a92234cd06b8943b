"""The messages of the vfio-user protocol: packed and unpacked, every length and every reserved bit checked.

The specification is QEMU's docs/interop/vfio-user.rst; the numbers it borrows are linux/vfio.h's. All integers are in
the host's byte order: both ends are on one machine. A message is a header of 16 bytes and a body; the classes here are
bodies. unpack() raises ProtocolError for whatever the specification does not allow, so that what comes out of it needs
no second look at its form; whether the device has such a region or vector is for the server to say.

Most requests and their replies share one form: argsz is in a request the room there is for the reply's body, in a
reply the room that all of it needs.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

VERSION: Final = 1
DMA_MAP: Final = 2
DMA_UNMAP: Final = 3
GET_INFO: Final = 4
GET_REGION_INFO: Final = 5
GET_REGION_IO_FDS: Final = 6
GET_IRQ_INFO: Final = 7
SET_IRQS: Final = 8
REGION_READ: Final = 9
REGION_WRITE: Final = 10
DMA_READ: Final = 11
DMA_WRITE: Final = 12
RESET: Final = 13
DIRTY_PAGES: Final = 14
REGION_WRITE_MULTI: Final = 15
DEVICE_FEATURE: Final = 16
MIG_DATA_READ: Final = 17
MIG_DATA_WRITE: Final = 18

NAMES: Final = {
    VERSION: "VERSION",
    DMA_MAP: "DMA_MAP",
    DMA_UNMAP: "DMA_UNMAP",
    GET_INFO: "DEVICE_GET_INFO",
    GET_REGION_INFO: "DEVICE_GET_REGION_INFO",
    GET_REGION_IO_FDS: "DEVICE_GET_REGION_IO_FDS",
    GET_IRQ_INFO: "DEVICE_GET_IRQ_INFO",
    SET_IRQS: "DEVICE_SET_IRQS",
    REGION_READ: "REGION_READ",
    REGION_WRITE: "REGION_WRITE",
    DMA_READ: "DMA_READ",
    DMA_WRITE: "DMA_WRITE",
    RESET: "DEVICE_RESET",
    DIRTY_PAGES: "DIRTY_PAGES",
    REGION_WRITE_MULTI: "REGION_WRITE_MULTI",
    DEVICE_FEATURE: "DEVICE_FEATURE",
    MIG_DATA_READ: "MIG_DATA_READ",
    MIG_DATA_WRITE: "MIG_DATA_WRITE",
}

HEADER: Final = struct.Struct("=HHIII")
"""id, command, size of the whole message, flags, errno."""
ACCESS: Final = struct.Struct("=HHIIIQII")
"""The header and what follows it in REGION_READ, REGION_WRITE and their replies: offset, region, count."""

TYPE_MASK: Final = 0xF
COMMAND: Final = 0
REPLY: Final = 1
NO_REPLY: Final = 0x10
ERROR: Final = 0x20

MAJOR: Final = 0
MINOR: Final = 1
MAX_MSG_FDS: Final = 16
"""Descriptors in one message. QEMU takes a server for broken that offers to receive more."""
MAX_TRANSFER: Final = 65536
"""Bytes of one REGION_READ or REGION_WRITE."""
MAX_DMA_MAPS: Final = 65535
MAX_MESSAGE: Final = ACCESS.size + MAX_TRANSFER
MAX_REGIONS: Final = 100
MAX_AREAS: Final = 1024
MAX_MULTI: Final = 2048

REGION_FLAG_READ: Final = 1
REGION_FLAG_WRITE: Final = 2
REGION_FLAG_MMAP: Final = 4
REGION_FLAG_CAPS: Final = 8
REGION_CAP_SPARSE: Final = 1
REGION_CAP_TYPE: Final = 2
IO_FD_EVENT: Final = 0
IO_FD_SHADOW: Final = 2
IO_FD_DATAMATCH: Final = 1
"""A flag: KVM_IOEVENTFD_FLAG_DATAMATCH."""

DMA_FLAG_READ: Final = 1
DMA_FLAG_WRITE: Final = 2
UNMAP_FLAG_ALL: Final = 2
DEVICE_FLAG_RESET: Final = 1
DEVICE_FLAG_PCI: Final = 2
IRQ_FLAG_EVENTFD: Final = 1
IRQ_FLAG_MASKABLE: Final = 2
IRQ_FLAG_AUTOMASKED: Final = 4
IRQ_FLAG_NORESIZE: Final = 8
IRQ_DATA_NONE: Final = 1
IRQ_DATA_BOOL: Final = 2
IRQ_DATA_EVENTFD: Final = 4
IRQ_ACTION_MASK: Final = 8
IRQ_ACTION_UNMASK: Final = 16
IRQ_ACTION_TRIGGER: Final = 32

Bytes = bytes | bytearray | memoryview


class ProtocolError(Exception):
    """What the other side sent is not the protocol. `errno` is what to answer, where an answer makes sense."""

    def __init__(self, message: str, code: int = errno.EINVAL) -> None:
        super().__init__(message)
        self.errno = code


def command_name(command: int) -> str:
    return NAMES.get(command, f"command {command}")


def message(number: int, command: int, body: bytes = b"", flags: int = COMMAND, error: int = 0) -> bytes:
    """A whole message."""
    return HEADER.pack(number, command, HEADER.size + len(body), flags, error) + body


def _fixed(form: struct.Struct, body: Bytes, what: str) -> tuple[int, ...]:
    if len(body) != form.size:
        raise ProtocolError(f"{what}: {len(body)} bytes, must be {form.size}")
    return form.unpack(body)


def _check_argsz(argsz: int, needed: int, what: str) -> None:
    if argsz < needed:
        raise ProtocolError(f"{what}: argsz is {argsz}, must be at least {needed}")


@dataclass(frozen=True)
class Capabilities:
    """What the sender can take; what it does not say has the specification's default."""

    max_msg_fds: int = 1
    max_data_xfer_size: int = 1 << 20
    max_dma_maps: int = 65535
    pgsizes: int = 4096
    write_multiple: bool = False


_LIMITS = {
    "max_msg_fds": 253,
    "max_data_xfer_size": 1 << 30,
    "max_dma_maps": 1 << 31,
    "pgsizes": (1 << 64) - 1,
}


@dataclass(frozen=True)
class Version:
    major: int = MAJOR
    minor: int = MINOR
    capabilities: Capabilities = field(default_factory=Capabilities)

    _FORM = struct.Struct("=HH")

    def pack(self) -> bytes:
        """With the numbers always: a default of the specification may be more than the sender can take."""
        c = self.capabilities
        words: dict[str, Any] = {name: getattr(c, name) for name in _LIMITS}
        if c.write_multiple:
            words["write_multiple"] = True
        text = json.dumps({"capabilities": words}, separators=(",", ":"))
        return self._FORM.pack(self.major, self.minor) + text.encode() + b"\0"

    @classmethod
    def unpack(cls, body: Bytes) -> Version:
        if not cls._FORM.size <= len(body) <= 4096:
            raise ProtocolError(f"VERSION: {len(body)} bytes, must be from {cls._FORM.size} to 4096")
        major, minor = cls._FORM.unpack_from(body)
        return cls(major, minor, _capabilities(bytes(body[cls._FORM.size :])))


def _capabilities(text: bytes) -> Capabilities:
    """Unknown words are left alone: a newer side may know more."""
    if not text:
        return Capabilities()
    if text[-1] != 0:
        raise ProtocolError("VERSION: its text does not end with a NUL")
    try:
        data = json.loads(text[:-1].decode()) if len(text) > 1 else {}
    except (ValueError, RecursionError) as e:
        raise ProtocolError(f"VERSION: its text is no JSON ({e})") from e
    words = data.get("capabilities", {}) if isinstance(data, dict) else None
    if not isinstance(words, dict):
        raise ProtocolError("VERSION: its capabilities are no object")
    got: dict[str, Any] = {}
    for name, limit in _LIMITS.items():
        value = words.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
            raise ProtocolError(f"VERSION: {name} is no number from 0 to {limit}")
        got[name] = value
    if words.get("write_multiple", False) not in (True, False):
        raise ProtocolError("VERSION: write_multiple is no boolean")
    return Capabilities(write_multiple=bool(words.get("write_multiple", False)), **got)


@dataclass(frozen=True)
class DmaMap:
    """The device may reach [address, address+size): the bytes from offset of the descriptor beside the message."""

    address: int
    size: int
    offset: int = 0
    read: bool = True
    write: bool = True

    _FORM = struct.Struct("=IIQQQ")

    def pack(self) -> bytes:
        flags = DMA_FLAG_READ * self.read | DMA_FLAG_WRITE * self.write
        return self._FORM.pack(self._FORM.size, flags, self.offset, self.address, self.size)

    @classmethod
    def unpack(cls, body: Bytes) -> DmaMap:
        argsz, flags, offset, address, size = _fixed(cls._FORM, body, "DMA_MAP")
        _check_argsz(argsz, cls._FORM.size, "DMA_MAP")
        if flags & ~(DMA_FLAG_READ | DMA_FLAG_WRITE):
            raise ProtocolError(f"DMA_MAP: unknown flags {flags:#x}")
        if not size or address + size > 1 << 64 or offset + size > 1 << 63:
            raise ProtocolError(
                f"DMA_MAP: {size:#x} bytes at {address:#x}, offset {offset:#x}: no such range"
            )
        return cls(address, size, offset, bool(flags & DMA_FLAG_READ), bool(flags & DMA_FLAG_WRITE))


@dataclass(frozen=True)
class DmaUnmap:
    """The device may not reach the range any more; everything: address 0, size 2^64 (flag ALL)."""

    address: int
    size: int

    _FORM = struct.Struct("=IIQQ")

    def pack(self) -> bytes:
        if self.size == 1 << 64:
            return self._FORM.pack(self._FORM.size, UNMAP_FLAG_ALL, 0, 0)
        return self._FORM.pack(self._FORM.size, 0, self.address, self.size)

    @classmethod
    def unpack(cls, body: Bytes) -> DmaUnmap:
        argsz, flags, address, size = _fixed(cls._FORM, body, "DMA_UNMAP")
        _check_argsz(argsz, cls._FORM.size, "DMA_UNMAP")
        if flags & ~UNMAP_FLAG_ALL:
            raise ProtocolError(f"DMA_UNMAP: flags {flags:#x}: no dirty pages are tracked", errno.ENOTSUP)
        if flags & UNMAP_FLAG_ALL:
            return cls(0, 1 << 64)
        if not size or address + size > 1 << 64:
            raise ProtocolError(f"DMA_UNMAP: {size:#x} bytes at {address:#x}: no such range")
        return cls(address, size)


@dataclass(frozen=True)
class DeviceInfo:
    regions: int = 0
    irqs: int = 0
    flags: int = 0
    argsz: int = 16

    FORM = struct.Struct("=IIII")

    def pack(self) -> bytes:
        return self.FORM.pack(self.argsz, self.flags, self.regions, self.irqs)

    @classmethod
    def unpack(cls, body: Bytes) -> DeviceInfo:
        argsz, flags, regions, irqs = _fixed(cls.FORM, body, "DEVICE_GET_INFO")
        _check_argsz(argsz, cls.FORM.size, "DEVICE_GET_INFO")
        return cls(regions, irqs, flags, argsz)


@dataclass(frozen=True)
class RegionInfo:
    """pack() makes the whole reply; short() the one for a client whose room holds no capabilities."""

    index: int
    size: int = 0
    flags: int = 0
    offset: int = 0
    areas: Sequence[tuple[int, int]] = ()
    type: tuple[int, int] | None = None
    argsz: int = 32
    """Of a request. A reply's comes from its capabilities."""

    FORM = struct.Struct("=IIIIQQ")
    _CAP = struct.Struct("=HHI")
    _PAIR = struct.Struct("=QQ")

    def request(self) -> bytes:
        return self.FORM.pack(self.argsz, 0, self.index, 0, 0, 0)

    def _chain(self) -> bytes:
        parts: list[tuple[int, bytes]] = []
        if self.areas:
            pairs = b"".join(self._PAIR.pack(*area) for area in self.areas)
            parts.append((REGION_CAP_SPARSE, struct.pack("=II", len(self.areas), 0) + pairs))
        if self.type:
            parts.append((REGION_CAP_TYPE, struct.pack("=II", *self.type)))
        out, at = b"", self.FORM.size
        for i, (kind, body) in enumerate(parts):
            at += self._CAP.size + len(body)
            out += self._CAP.pack(kind, 1, at if i + 1 < len(parts) else 0) + body
        return out

    def _head(self, chain: int) -> bytes:
        # A reply that announces capabilities must say where they would begin even when it is the short one: QEMU
        # takes cap_offset < 32 for a broken server before it asks again with more room.
        flags = self.flags | (REGION_FLAG_CAPS if chain else 0)
        size = self.FORM.size
        return self.FORM.pack(size + chain, flags, self.index, size if chain else 0, self.size, self.offset)

    def pack(self, room: int = 1 << 32) -> bytes:
        chain = self._chain()
        head = self._head(len(chain))
        return head + chain if len(head) + len(chain) <= room else head

    @classmethod
    def unpack(cls, body: Bytes) -> RegionInfo:
        """A request, or a reply whole or short; argsz tells which of the two."""
        if len(body) < cls.FORM.size:
            raise ProtocolError(
                f"DEVICE_GET_REGION_INFO: {len(body)} bytes, must be at least {cls.FORM.size}"
            )
        argsz, flags, index, cap, size, offset = cls.FORM.unpack_from(body)
        _check_argsz(argsz, cls.FORM.size, "DEVICE_GET_REGION_INFO")
        areas: list[tuple[int, int]] = []
        kind: tuple[int, int] | None = None
        at = cap if flags & REGION_FLAG_CAPS and argsz <= len(body) else 0
        while at:
            number, follows, begin = cls._capability(body, at)
            if number == REGION_CAP_SPARSE:
                areas += cls._areas(body, begin)
            elif number == REGION_CAP_TYPE:
                if begin + 8 > len(body):
                    raise ProtocolError("DEVICE_GET_REGION_INFO: the type capability is cut short")
                first, second = struct.unpack_from("=II", body, begin)
                kind = (first, second)
            if follows and follows <= at:
                raise ProtocolError("DEVICE_GET_REGION_INFO: the capabilities do not lead forward")
            at = follows
        return cls(index, size, flags, offset, tuple(areas), kind, argsz)

    @classmethod
    def _capability(cls, body: Bytes, at: int) -> tuple[int, int, int]:
        if not cls.FORM.size <= at <= len(body) - cls._CAP.size:
            raise ProtocolError(f"DEVICE_GET_REGION_INFO: a capability at {at} of {len(body)} bytes")
        number, _, follows = cls._CAP.unpack_from(body, at)
        return number, follows, at + cls._CAP.size

    @classmethod
    def _areas(cls, body: Bytes, at: int) -> list[tuple[int, int]]:
        n = struct.unpack_from("=I", body, at)[0] if at + 8 <= len(body) else MAX_AREAS + 1
        if n > MAX_AREAS or at + 8 + n * cls._PAIR.size > len(body):
            raise ProtocolError("DEVICE_GET_REGION_INFO: the sparse areas are cut short")
        return [cls._PAIR.unpack_from(body, at + 8 + i * cls._PAIR.size) for i in range(n)]


@dataclass(frozen=True)
class IoFd:
    """One register that is written without a message. fd and shadow: indices of the descriptors beside the reply.

    The form is the 48 bytes that libvfio-user sends; the specification's 40 are from before shadow memory.
    """

    offset: int
    size: int
    fd: int
    type: int = IO_FD_SHADOW
    flags: int = 0
    shadow: int = 0
    shadow_offset: int = 0
    datamatch: int = 0

    FORM = struct.Struct("=QQIIIIQQ")

    def pack(self) -> bytes:
        return self.FORM.pack(
            self.offset,
            self.size,
            self.fd,
            self.type,
            self.flags,
            self.shadow,
            self.shadow_offset,
            self.datamatch,
        )


@dataclass(frozen=True)
class IoFds:
    index: int
    registers: Sequence[IoFd] = ()
    argsz: int = 16

    FORM = struct.Struct("=IIII")

    def request(self) -> bytes:
        return self.FORM.pack(self.argsz, 0, self.index, 0)

    def pack(self, room: int = 1 << 32) -> bytes:
        needed = self.FORM.size + len(self.registers) * IoFd.FORM.size
        head = self.FORM.pack(needed, 0, self.index, len(self.registers))
        return head + b"".join(r.pack() for r in self.registers) if needed <= room else head

    @classmethod
    def unpack(cls, body: Bytes) -> IoFds:
        """A request, or a reply whole or short. Entries of another kind than IoFd's are left out."""
        if len(body) < cls.FORM.size:
            raise ProtocolError(
                f"DEVICE_GET_REGION_IO_FDS: {len(body)} bytes, must be at least {cls.FORM.size}"
            )
        argsz, flags, index, n = cls.FORM.unpack_from(body)
        _check_argsz(argsz, cls.FORM.size, "DEVICE_GET_REGION_IO_FDS")
        if flags:
            raise ProtocolError(f"DEVICE_GET_REGION_IO_FDS: unknown flags {flags:#x}")
        if argsz > len(body) or not n:
            return cls(index, (), argsz)
        each = (argsz - cls.FORM.size) // n
        if each < IoFd.FORM.size:
            return cls(index, (), argsz)
        at = [cls.FORM.size + i * each for i in range(n)]
        return cls(index, tuple(IoFd(*IoFd.FORM.unpack_from(body, a)) for a in at), argsz)


@dataclass(frozen=True)
class IrqInfo:
    index: int
    count: int = 0
    flags: int = 0
    argsz: int = 16

    FORM = struct.Struct("=IIII")

    def pack(self) -> bytes:
        return self.FORM.pack(self.argsz, self.flags, self.index, self.count)

    @classmethod
    def unpack(cls, body: Bytes) -> IrqInfo:
        argsz, flags, index, count = _fixed(cls.FORM, body, "DEVICE_GET_IRQ_INFO")
        _check_argsz(argsz, cls.FORM.size, "DEVICE_GET_IRQ_INFO")
        return cls(index, count, flags, argsz)


@dataclass(frozen=True)
class SetIrqs:
    """data: IRQ_DATA_*; action: IRQ_ACTION_*; chosen: with IRQ_DATA_BOOL, one per interrupt."""

    index: int
    start: int
    count: int
    data: int
    action: int = IRQ_ACTION_TRIGGER
    chosen: bytes = b""

    _FORM = struct.Struct("=IIIII")

    def pack(self) -> bytes:
        argsz = self._FORM.size + len(self.chosen)
        return (
            self._FORM.pack(argsz, self.data | self.action, self.index, self.start, self.count) + self.chosen
        )

    @classmethod
    def unpack(cls, body: Bytes) -> SetIrqs:
        if len(body) < cls._FORM.size:
            raise ProtocolError(f"DEVICE_SET_IRQS: {len(body)} bytes, must be at least {cls._FORM.size}")
        argsz, flags, index, start, count = cls._FORM.unpack_from(body)
        _check_argsz(argsz, cls._FORM.size, "DEVICE_SET_IRQS")
        data, action = flags & 7, flags & 0x38
        if flags & ~0x3F or data not in (1, 2, 4) or action not in (8, 16, 32):
            raise ProtocolError(f"DEVICE_SET_IRQS: flags {flags:#x}: one kind of data, one action")
        chosen = bytes(body[cls._FORM.size :])
        if len(chosen) != (count if data == IRQ_DATA_BOOL else 0):
            raise ProtocolError(f"DEVICE_SET_IRQS: {len(chosen)} bytes of data for {count} interrupts")
        return cls(index, start, count, data, action, chosen)


MULTI_COUNT: Final = struct.Struct("=Q")
_MULTI_ONE = struct.Struct("=QII8s")


def pack_writes(writes: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The body of REGION_WRITE_MULTI: (region, offset, up to 8 bytes) each."""
    return MULTI_COUNT.pack(len(writes)) + b"".join(
        _MULTI_ONE.pack(offset, region, len(data), data) for region, offset, data in writes
    )


def unpack_writes(body: Bytes) -> list[tuple[int, int, bytes]]:
    """(region, offset, data) each, in order."""
    n = MULTI_COUNT.unpack_from(body)[0] if len(body) >= MULTI_COUNT.size else 0
    if not 0 < n <= MAX_MULTI or len(body) != MULTI_COUNT.size + n * _MULTI_ONE.size:
        raise ProtocolError(f"REGION_WRITE_MULTI: {len(body)} bytes for {n} writes")
    out = []
    for offset, region, count, data in _MULTI_ONE.iter_unpack(body[MULTI_COUNT.size :]):
        if not 0 < count <= 8:
            raise ProtocolError(f"REGION_WRITE_MULTI: a write of {count} bytes")
        out.append((region, offset, data[:count]))
    return out
