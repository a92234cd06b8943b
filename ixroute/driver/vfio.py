"""A card through VFIO: behind an IOMMU, so that it reaches what was mapped for it and nothing else.

Closing goes: no interrupts, no bus mastering (from then on the card starts no DMA), registers unmapped, memory
unmapped, device closed (the kernel then resets the card), group and container when they are the last.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence

from ixroute.driver import vfio_abi as abi
from ixroute.driver.transport import Config, DmaMapping, DmaMemory, Irq, TransportError
from ixroute.driver.vfio_abi import Kernel
from ixroute.driver.vfio_group import VfioContainer
from ixroute.driver.vfio_region import VfioConfig, VfioRegion, region_info

log = logging.getLogger(__name__)

COMMAND = 0x04  # PCI configuration space: the command register, and its bits
COMMAND_MEMORY = 1 << 1
COMMAND_MASTER = 1 << 2
BARS = 6

_containers: dict[str, VfioContainer] = {}


def process_container(kind: str, make: Callable[[], VfioContainer]) -> VfioContainer:
    """The one that all ports of this kind in this process share."""
    if kind not in _containers:
        _containers[kind] = make()
    return _containers[kind]


class VfioIrq:
    """Implements Irq."""

    def __init__(self, kernel: Kernel, fd: int, device: str) -> None:
        self._kernel = kernel
        self._fd = fd
        self._device = device
        self._events: list[int] = []
        try:
            answer = abi.ask(
                kernel, fd, abi.VFIO_DEVICE_GET_IRQ_INFO, abi.IRQ_INFO, 0, abi.VFIO_PCI_MSIX_IRQ_INDEX
            )
        except OSError as e:
            raise TransportError(device, f"VFIO does not describe its interrupts: {e.strerror}") from e
        _, flags, _, count = abi.IRQ_INFO.unpack_from(answer)
        self.count = count if flags & abi.VFIO_IRQ_INFO_EVENTFD else 0

    def start(self, n: int) -> Sequence[int]:
        if self._events:
            raise ValueError("interrupts are on: stop() first")
        if not 0 < n <= self.count:
            raise ValueError(f"{n} MSI-X vectors wanted, the device has {self.count}")
        events = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(n)]
        try:
            refused = self._set(events)
        except OSError as e:
            _close(events)
            raise TransportError(self._device, f"{n} MSI-X vectors: {e.strerror}; see `dmesg`") from e
        if refused:  # the number that could have been had (vfio_msi_enable)
            _close(events)
            why = f"the machine has {refused} interrupts left for it, {n} are wanted: use fewer workers"
            raise TransportError(self._device, why)
        self._events = events
        return tuple(events)

    def _set(self, events: Sequence[int]) -> int:
        """All of them in one call: a second one could not add vectors. None: they are switched off."""
        kind = abi.VFIO_IRQ_SET_DATA_EVENTFD if events else abi.VFIO_IRQ_SET_DATA_NONE
        size = abi.IRQ_SET.size + 4 * len(events)
        flags = kind | abi.VFIO_IRQ_SET_ACTION_TRIGGER
        head = abi.IRQ_SET.pack(size, flags, abi.VFIO_PCI_MSIX_IRQ_INDEX, 0, len(events))
        data = b"".join(event.to_bytes(4, abi.BYTE_ORDER) for event in events)
        return self._kernel.ioctl(self._fd, abi.VFIO_DEVICE_SET_IRQS, bytearray(head + data))

    def stop(self) -> None:
        if not self._events:
            return
        try:
            self._set([])
        except OSError as e:
            log.warning("%s: interrupts cannot be switched off: %s", self._device, e.strerror)
        _close(self._events)
        self._events = []


def _close(events: Sequence[int]) -> None:
    for event in events:
        os.close(event)


class VfioTransport:
    """Implements Transport on the PCI device at `address`, which vfio-pci must have (`ixroute bind`).

    Bus mastering is on when it is constructed; the kernel has reset the card, if the card can be, on opening.
    restore_driver: close() gives the card back to its kernel driver.
    """

    kind = "vfio"

    def __init__(
        self, address: str, container: VfioContainer | None = None, *, restore_driver: bool = False
    ) -> None:
        self._container = container if container is not None else self._default_container()
        self._kernel = self._container.kernel
        self.device = self._container.bus.device(address).address
        self._regions: dict[int, VfioRegion] = {}
        self._memories: list[DmaMemory] = []
        with contextlib.ExitStack() as undo:
            self._fd = self._container.open_device(self.device)
            undo.callback(self._close_device, restore_driver)
            self._can_reset = self._ask_device()
            self._config_info = region_info(
                self._kernel, self._fd, self.device, abi.VFIO_PCI_CONFIG_REGION_INDEX
            )
            self.config: Config = VfioConfig(self.device, self._fd, self._config_info)
            undo.callback(self._unmap_all)
            self.irq: Irq = VfioIrq(self._kernel, self._fd, self.device)
            self._master(True)
            undo.callback(self._quiet)
            self._undo = undo.pop_all()

    @classmethod
    def _default_container(cls) -> VfioContainer:
        return process_container(cls.kind, VfioContainer)

    def _ask_device(self) -> bool:
        """Whether it can be reset."""
        try:
            answer = abi.ask(self._kernel, self._fd, abi.VFIO_DEVICE_GET_INFO, abi.DEVICE_INFO)
        except OSError as e:
            raise TransportError(self.device, f"VFIO does not describe it: {e.strerror}") from e
        _, flags, *_ = abi.DEVICE_INFO.unpack_from(answer)
        if not flags & abi.VFIO_DEVICE_FLAGS_PCI:
            raise TransportError(
                self.device, "is not a PCI device to VFIO: which driver has it? (`ixroute devices`)"
            )
        return bool(flags & abi.VFIO_DEVICE_FLAGS_RESET)

    def _master(self, on: bool) -> None:
        """Bus mastering, and with it the decoding of its memory; checked, since a card without it is silent."""
        command = self.config.read(COMMAND, 2)
        wanted = command | COMMAND_MEMORY | COMMAND_MASTER if on else command & ~COMMAND_MASTER
        self.config.write(COMMAND, 2, wanted)
        if self.config.read(COMMAND, 2) & (COMMAND_MEMORY | COMMAND_MASTER) != wanted & (
            COMMAND_MEMORY | COMMAND_MASTER
        ):
            raise TransportError(
                self.device, f"bus mastering cannot be switched {'on' if on else 'off'}; see `dmesg`"
            )

    def map_bar(self, number: int) -> VfioRegion:
        if self._fd < 0:
            raise TransportError(self.device, "is closed")
        if not 0 <= number < BARS:
            raise ValueError(f"BAR {number}: there are 0 to 5")
        if number not in self._regions:
            info = region_info(self._kernel, self._fd, self.device, number)
            if not info.size:
                raise TransportError(self.device, f"has no BAR {number}")
            self._regions[number] = VfioRegion(self.device, self._fd, info)
        return self._regions[number]

    def dma_map(self, memory: DmaMemory) -> DmaMapping:
        if self._fd < 0:
            raise TransportError(self.device, "is closed")
        mapping = self._container.map(self.device, memory)
        self._memories.append(memory)
        return mapping

    def dma_unmap(self, memory: DmaMemory) -> None:
        """See Transport. Memory that this transport did not map is none of its business."""
        for i, mine in enumerate(self._memories):
            if mine.address == memory.address:
                self._container.unmap(self._memories.pop(i))
                return

    def reset(self) -> bool:
        if self._fd < 0:
            raise TransportError(self.device, "is closed")
        if not self._can_reset:
            return False
        try:
            self._kernel.ioctl(self._fd, abi.VFIO_DEVICE_RESET)
        except OSError as e:
            raise TransportError(self.device, f"cannot be reset: {e.strerror}; see `dmesg`") from e
        self._master(True)
        return True

    def close(self) -> None:
        self._undo.close()

    # ---- the steps of close(), in this order

    def _quiet(self) -> None:
        self.irq.stop()
        try:
            self._master(False)
        except TransportError as e:
            log.debug("%s; it is gone, or the kernel will do it", e)

    def _unmap_all(self) -> None:
        for region in self._regions.values():
            region.close()
        self._regions.clear()
        while self._memories:
            self._container.unmap(self._memories.pop())

    def _close_device(self, restore_driver: bool) -> None:
        fd, self._fd = self._fd, -1
        self._container.close_device(self.device, fd, restore_driver)
