"""What a vfio-user server serves: a device that knows nothing of sockets.

All calls come from the server's one thread. A call that the client may not make raises DeviceError(errno), which the
server answers; the device stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class DeviceError(OSError):
    """errno and a sentence: DeviceError(errno.EINVAL, "BAR0 has no offset 0x80000")."""


@dataclass(frozen=True)
class RegionInfo:
    """A region: BAR 0-5 by their number, 7 the configuration space, 9 and up the device's own (linux/vfio.h)."""

    size: int
    readable: bool = True
    writable: bool = True
    fd: int = -1
    """Memory that the client may map, or -1: every access is a message."""
    areas: Sequence[tuple[int, int]] = ()
    """(offset, length) of what may be mapped (sparse); with fd and no areas: all of it."""
    type: tuple[int, int] | None = None
    """(type, subtype) of a region of the device's own (VFIO_REGION_INFO_CAP_TYPE)."""


@dataclass(frozen=True)
class IoEvent:
    """A register that can be written without a message: the client stores the value at shadow_offset of shadow_fd
    and writes the eventfd (ioeventfd with shadow memory)."""

    offset: int
    size: int
    event_fd: int
    shadow_fd: int
    shadow_offset: int
    datamatch: int | None = None
    """Only for writes of this value; others are messages."""


@dataclass(frozen=True)
class IrqInfo:
    count: int
    eventfd: bool = True
    maskable: bool = False
    """The device is a MaskingDevice."""
    automasked: bool = False
    resizable: bool = True


@dataclass(frozen=True)
class DeviceInfo:
    regions: int = 9
    irqs: int = 5
    """Kinds of interrupt: 0 INTx, 1 MSI, 2 MSI-X, 3 error, 4 request (linux/vfio.h)."""
    resettable: bool = True


# A region of the device's own whose first 32-bit word is not 0 while the device sleeps: a client that writes mapped
# registers looks there to know whether it must also write the event. Read-only, one page.
SLEEP_REGION = 9
SLEEP_REGION_TYPE = (0x8000_0000 | 0x8086, 0x1001)  # VFIO_REGION_TYPE_PCI_VENDOR_TYPE | vendor, subtype ours


class Device(Protocol):
    info: DeviceInfo

    def region(self, index: int) -> RegionInfo:
        """Size 0 for a region the device does not have."""

    def io_events(self, region: int) -> Sequence[IoEvent]: ...

    def irq(self, index: int) -> IrqInfo: ...

    def read(self, region: int, offset: int, size: int) -> bytes: ...

    def write(self, region: int, offset: int, data: bytes) -> None: ...

    def dma_map(
        self, iova: int, length: int, fd: int | None, fd_offset: int, read: bool, write: bool
    ) -> None:
        """The device may reach [iova, iova+length). fd None: there is no memory to map (any access to it will be
        counted as a fault). The device takes no ownership of fd."""

    def dma_unmap(self, iova: int, length: int) -> None:
        """Returns when no access is under way. Ranges never mapped are no error."""

    def set_irqs(self, index: int, first: int, fds: Sequence[int | None]) -> None:
        """Interrupts first… raise these eventfds (non-blocking; the device's own from now on: it closes them); None:
        not wired. When it raises, they stay the server's."""

    def irqs_off(self, index: int) -> None: ...

    def trigger(self, index: int, first: int, count: int) -> None:
        """Raises interrupts, as the client asked (VFIO_IRQ_SET_ACTION_TRIGGER with data none)."""

    def reset(self) -> None:
        """Everything as after power-on, mappings and interrupts' wiring kept."""

    def disconnected(self) -> None:
        """The client has gone, perhaps in the midst of something: no DMA, no interrupt from now on; reset."""


class MaskingDevice(Device, Protocol):
    """A device of which some kind of interrupt is maskable (INTx, as a rule)."""

    def mask(self, index: int, first: int, count: int, masked: bool) -> None: ...
