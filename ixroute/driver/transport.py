"""What lies between a driver and its card: registers, memory the card may reach, interrupts.

Three kinds: VFIO (vfio.py), vfio-user (a card emulated by another process: vfio_user.py), VFIO without an IOMMU
(noiommu.py). No driver knows which one it has. All methods raise TransportError: one line that names the device,
what is missing, and the command that mends it. None waits without a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


class TransportError(Exception):
    """`device` is a PCI address or a socket's path."""

    def __init__(self, device: str, message: str) -> None:
        super().__init__(f"{device}: {message}")
        self.device = device
        self.message = message


class DmaMemory(Protocol):
    """Memory that can be mapped for a device: umem, or a DmaBuffer of rings (dma.py)."""

    fd: int
    """The memfd behind it."""
    address: int
    """Where it is mapped in this process."""
    bytes: int
    page_bytes: int
    """4096, or 2 MiB when it is made of huge pages."""


@dataclass(frozen=True)
class DmaMapping:
    """The addresses by which the device knows a DmaMemory. Exactly what struct dma_map (dma.h) holds."""

    base: int
    pages: Sequence[int] | None = None
    """Without an IOMMU: the physical address of each 2 MiB; base is the first of them."""

    def iova(self, offset: int) -> int:
        if self.pages is None:
            return self.base + offset
        return self.pages[offset >> 21] + (offset & 0x1FFFFF)


class Region(Protocol):
    """One BAR. Offsets are in bytes, multiples of 4, checked against size (ValueError)."""

    size: int

    def read32(self, offset: int) -> int: ...

    def write32(self, offset: int, value: int) -> None:
        """May be posted: read32 of the same region comes after it."""

    def bell(self, offset: int, value: int | None = None) -> Any:
        """`struct doorbell *` (doorbell.h) for the register, for C to write; valid until the transport closes.
        value: the only one that it will ever be rung with, for which a device may have a cheaper way. What a bell says
        may come before writes that were posted: read32 before it is rung, as whoever enables a queue does anyway."""


class Config(Protocol):
    """PCI configuration space; sizes 1, 2 or 4; little-endian values as numbers."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Irq(Protocol):
    """The device's MSI-X vectors."""

    count: int
    """How many the device has."""

    def start(self, n: int) -> Sequence[int]:
        """Vectors 0 to n-1, each an eventfd (non-blocking, the transport's own) that becomes readable when the
        device raises it. Once; stop() first to change n."""

    def stop(self) -> None:
        """The device raises none any more; the eventfds are closed. Idempotent."""


@runtime_checkable
class Reconnectable(Protocol):
    """What a transport has besides, behind which a device can go and come back."""

    def alive(self) -> bool:
        """Whether the device is there; asks without waiting."""

    def reconnect(self) -> None:
        """To the device that came back, as after power-on; all that the transport gave out stays valid. No worker may
        ring a bell meanwhile. TransportError, and it can be tried again, while it has not."""


class Transport(Protocol):
    kind: str
    """ "vfio", "vfio-user" or "noiommu"."""
    device: str
    """The PCI address, or the path of the socket."""
    config: Config
    irq: Irq

    def map_bar(self, number: int) -> Region: ...

    def dma_map(self, memory: DmaMemory) -> DmaMapping:
        """The device may read and write all of memory until dma_unmap or close. Mapping the same memory again (umem,
        for another port in the same container) is counted, not repeated."""

    def dma_unmap(self, memory: DmaMemory) -> None: ...

    def reset(self) -> bool:
        """A reset of the whole function, from outside (FLR). False when the device has none."""

    def close(self) -> None:
        """Bus mastering off, interrupts off, memory unmapped, the device given back. Idempotent. Never raises for a
        device or a server that is gone."""
