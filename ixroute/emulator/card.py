"""An 82599 port as a vfio-user server shows it: the composition of the register model, and the door to it.

    registers.py      BAR 0 as a table            register_file.py  what an access to it does
    image.py          its words, shared memory    packets.py        what is asked of the packet engine (C)
    behaviours.py     reset, semaphores, enables  link.py           AUTOC, LINKS, laser and pins
    eeprom.py         words, EERD, SPI            sfp.py            the cage: I2C and the module
    pci.py            configuration space         dma.py            memory the client lent
    faults.py         ways to be broken           differences.py    what silicon does otherwise

Calls come from one thread at a time, of the server or of whoever watches the wire's carrier: a lock sees to that.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ixroute.emulator import pci
from ixroute.emulator.behaviours import (
    STATUS_LAN_SHIFT,
    Clocks,
    Control,
    Enables,
    FlowDirector,
    IndirectTables,
    Mdio,
    Semaphores,
)
from ixroute.emulator.dma import DmaMemory
from ixroute.emulator.eeprom import Eeprom
from ixroute.emulator.engine import UNMASK_WORDS
from ixroute.emulator.faults import Faults, Settling
from ixroute.emulator.image import BarImage
from ixroute.emulator.link import Link
from ixroute.emulator.packets import PacketEngine
from ixroute.emulator.register_file import RegisterFile
from ixroute.emulator.registers import BAR_BYTES, offset_of
from ixroute.emulator.sfp import MODULES, Cage, Module
from ixroute.vfio_user.device import (
    SLEEP_REGION,
    SLEEP_REGION_TYPE,
    DeviceError,
    DeviceInfo,
    IoEvent,
    IrqInfo,
    RegionInfo,
)

log = logging.getLogger(__name__)

QUEUES = 128
BAR0, BAR2, BAR4, CONFIG = 0, 2, 4, 7
IRQ_MSI, IRQ_MSIX = 1, 2
SLEEP_BYTES = 4096
QUEUE_AREAS = ((0x1000, 0x1000), (0x6000, 0x2000), (0xD000, 0x1000))
"""Pages of BAR 0 with nothing but queues, which a client may map."""
_SIZES = {
    BAR0: BAR_BYTES,
    BAR2: pci.BAR2_BYTES,
    BAR4: pci.BAR4_BYTES,
    CONFIG: pci.CONFIG_BYTES,
    SLEEP_REGION: SLEEP_BYTES,
}
_MSIX_ENTRY = (0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF_FFFF, 0x0000_0001)


@dataclass(frozen=True)
class CardOptions:
    """device_id: one of pci.KINDS. mac: of the port, in the EEPROM. port: 0 or 1, which of the chip's two (LAN_ID).
    map_bar: queue registers can be mapped; the engine then has to look at them from time to time. settle: how many
    reads it takes until something that was started shows as done. module: one of sfp.MODULES, what is in the cage."""

    device_id: int = 0x10FB
    mac: bytes = bytes((0x02, 0x59, 0x90, 0, 0, 1))
    port: int = 0
    map_bar: bool = False
    settle: int = 0
    module: str = "sr"
    name: str = "card"

    def __post_init__(self) -> None:
        if self.device_id not in pci.KINDS:
            ids = ", ".join(f"{i:04x}" for i in pci.KINDS)
            raise ValueError(f"no model of device id {self.device_id:04x}: there are {ids}")
        if len(self.mac) != 6 or self.mac[0] & 1 or not any(self.mac):
            raise ValueError(f"a card cannot have the MAC address {self.mac.hex(':')}")
        if self.port not in (0, 1):
            raise ValueError(f"port {self.port}: a chip has ports 0 and 1")
        if self.module not in MODULES:
            raise ValueError(f"no module {self.module!r}: there are {', '.join(MODULES)}")
        if self.settle < 0:
            raise ValueError("settle counts reads: 0 or more")


class Card:
    """Implements vfio_user.device.Device."""

    info = DeviceInfo(regions=10, irqs=5)

    def __init__(
        self,
        attach: Callable[[BarImage], PacketEngine],
        options: CardOptions | None = None,
        faults: Faults | None = None,
    ) -> None:
        """attach: makes the card's half in C, which reads registers in the image. The card closes it.
        OSError: no memory."""
        self.options = options or CardOptions()
        self.kind = pci.KINDS[self.options.device_id]
        self.faults = faults or Faults()
        self._lock = threading.RLock()
        self._settling = Settling(self.options.settle)
        self.image = BarImage(self.options.name)
        try:
            self.engine = attach(self.image)
        except BaseException:
            self.image.close()
            raise
        self.registers = RegisterFile(self.image, self.engine)
        self.config = pci.ConfigSpace(self.options.device_id, self.options.mac)
        self.memory = DmaMemory(self.engine)
        self._parts()
        self._msix: list[int] = [-1] * pci.MSIX_VECTORS
        self._msi = -1
        self._msix_table = bytearray(pci.BAR4_BYTES)
        self._io_address = 0
        self._gate = False
        self._resetting = False
        self._closed = False
        self._power_on()

    def _parts(self) -> None:
        registers, faults, settling = self.registers, self.faults, self._settling
        self.control = Control(registers, faults, settling, self._software_reset, self._gate_moved)
        self.semaphores = Semaphores(registers, faults)
        self.eeprom = Eeprom(registers, faults, settling, self.options.mac)
        self.module = Module(MODULES[self.options.module], lambda: self.link.laser, lambda: self.link.carrier)
        self.cage = Cage(registers, faults, self.module, self.kind.sfp)
        self.mdio = Mdio(registers, faults, settling)
        self.enables = Enables(registers, faults, settling)
        self.flow_director = FlowDirector(registers)
        self.tables = IndirectTables(registers)
        self.clocks = Clocks(registers)
        self.link = Link(
            registers,
            faults,
            settling,
            not self.kind.sfp,
            self.module.kind.laser,
            lambda: self.cage.module is not None,
            self._gate_moved,
        )

    # Resets.

    def _software_reset(self) -> None:
        """CTRL.RST and CTRL.LRST (4.2.1.6, 4.2.1.7): configuration space, semaphores and filter tables stay."""
        log.debug("%s: software reset", self.options.name)
        self._reset_chip(power_on=False)

    def _reset_chip(self, power_on: bool) -> None:
        self._resetting = True
        self._settling.clear()
        self._gate = False
        self.engine.set_link(False)
        self.registers.fill(power_on, rubbish=self.faults.dirty_tables)
        self.engine.reset()
        if power_on:
            self.eeprom.load(self.options.mac)
        self._load_from_eeprom()
        for part in (self.control, self.eeprom, self.cage, self.enables, self.clocks):
            part.reset()
        self.tables.clear()
        self.engine.filters_changed()
        self._resetting = False
        self.link.reset()
        self._gate_moved()

    def _load_from_eeprom(self) -> None:
        mac = self.eeprom.mac(self.options.port)
        self.registers.put("RAL", int.from_bytes(mac[:4], "little"))
        self.registers.put("RAH", int.from_bytes(mac[4:], "little") | 1 << 31)
        self.registers.change("STATUS", set_bits=self.options.port << STATUS_LAN_SHIFT)
        if not self.kind.sfp:
            self.registers.put("I2CCTL", 0)

    def reset(self) -> None:
        """As VFIO resets a device: what it saves of the configuration space comes back."""
        with self._lock:
            kept = self.config.keep_over_reset()
            self._power_on()
            self.config.restore(kept)
            self._gate_moved()

    def _power_on(self) -> None:
        self.config.reset()
        self._msix_table[:] = bytes(pci.BAR4_BYTES)
        for vector in range(pci.MSIX_VECTORS):
            self._msix_table[16 * vector + 12] = 1
        self._io_address = 0
        self._reset_chip(power_on=True)

    def disconnected(self) -> None:
        with self._lock:
            self._gate = False
            self.engine.set_link(False)
            self._unwire()
            self.memory.clear()
            self._power_on()

    def close(self) -> None:
        """Lets go of everything. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.engine.set_link(False)
            self._unwire()
            self.memory.clear()
            self.engine.close()
            self.image.close()

    # The wire's end.

    def set_carrier(self, up: bool) -> None:
        """Whether the wire has a carrier. From any thread."""
        with self._lock:
            if not self._closed:
                self.link.set_carrier(up)

    def plug_module(self, plugged: bool) -> None:
        """Fills or empties the cage. From any thread."""
        with self._lock:
            if not self._closed and plugged != self.cage.plugged:
                self.cage.plugged = plugged
                self.link.module_moved()

    def faults_changed(self) -> None:
        """After a change of what the link depends on (link_never, no_module): acts at once, not at the next access."""
        with self._lock:
            if not self._closed:
                self.link.refresh()

    def _gate_moved(self) -> None:
        """Packets move, and with them DMA, only with a link, as bus master, in D0."""
        if self._resetting:
            return
        allowed = self.config.bus_master and not self.config.asleep and not self.control.master_disabled
        gate = self.link.up and allowed
        if gate != self._gate:
            self._gate = gate
            self.engine.set_link(gate)

    # Regions.

    def region(self, index: int) -> RegionInfo:
        match index:
            case 0 if self.options.map_bar:
                return RegionInfo(BAR_BYTES, fd=self.image.fd, areas=QUEUE_AREAS)
            case 9:
                return RegionInfo(
                    SLEEP_BYTES, writable=False, fd=self.engine.sleep_fd, type=SLEEP_REGION_TYPE
                )
        if index in _SIZES:
            return RegionInfo(_SIZES[index])
        return RegionInfo(0, readable=False, writable=False)

    def io_events(self, region: int) -> Sequence[IoEvent]:
        """The tails, which the engine looks at in the image; and the unmasking of one vector, which it is asked for in
        a word of the vector's own: register EIMS_EX, that value only."""
        if region != BAR0:
            return ()
        offsets = [offset_of(name, queue) for queue in range(QUEUES) for name in ("RDT", "TDT")]
        event, image = self.engine.event_fd, self.image.fd
        tails = [IoEvent(offset, 4, event, image, offset) for offset in offsets]
        unmasks = [
            IoEvent(offset_of("EIMS_EX", v // 32), 4, event, image, UNMASK_WORDS + 4 * v, 1 << v % 32)
            for v in range(pci.MSIX_VECTORS)
        ]
        return tails + unmasks

    def read(self, region: int, offset: int, size: int) -> bytes:
        with self._lock:
            self._check(region, offset, size)
            if self.faults.gone and region != SLEEP_REGION:
                return b"\xff" * size
            match region:
                case 0:
                    return self._read_bar(offset, size)
                case 2:
                    return self._read_io(offset, size)
                case 4:
                    return bytes(self._msix_table[offset : offset + size])
                case 7:
                    return self.config.read(offset, size)
            return os.pread(self.engine.sleep_fd, size, offset)

    def write(self, region: int, offset: int, data: bytes) -> None:
        with self._lock:
            self._check(region, offset, len(data))
            if self.faults.gone:
                return
            match region:
                case 0:
                    self._write_bar(offset, data)
                case 2:
                    self._write_io(offset, data)
                case 4:
                    self._write_msix_table(offset, data)
                case 7:
                    self._write_config(offset, data)
                case _:
                    raise DeviceError(errno.EPERM, f"region {region} is read-only")

    def _check(self, region: int, offset: int, size: int) -> None:
        if self._closed:
            raise DeviceError(errno.ENODEV, "the card is closed")
        limit = _SIZES.get(region, 0)
        if offset < 0 or size <= 0 or offset + size > limit:
            raise DeviceError(errno.EINVAL, f"region {region} has no {size} bytes at {offset:#x}")
        if region in (BAR0, BAR2, BAR4) and (size not in (1, 2, 4, 8) or offset % size):
            raise DeviceError(errno.EINVAL, f"{size} bytes at {offset:#x}: 1, 2, 4 or 8, aligned")

    def _read_bar(self, offset: int, size: int) -> bytes:
        """Registers have 32 bits; a smaller access reads the whole register, a larger one two, the lower first."""
        if size == 8:
            return self._read_bar(offset, 4) + self._read_bar(offset + 4, 4)
        word = self.registers.read32(offset & ~3).to_bytes(4, "little")
        return word[offset & 3 : (offset & 3) + size]

    def _write_bar(self, offset: int, data: bytes) -> None:
        if len(data) == 8:
            self._write_bar(offset, data[:4])
            self._write_bar(offset + 4, data[4:])
        elif len(data) == 4:
            self.registers.write32(offset, int.from_bytes(data, "little"))
        else:
            # Byte enables: the other bytes keep what is stored.
            word = bytearray(self.registers.stored(offset & ~3).to_bytes(4, "little"))
            word[offset & 3 : (offset & 3) + len(data)] = data
            self.registers.write32(offset & ~3, int.from_bytes(word, "little"))

    def _read_io(self, offset: int, size: int) -> bytes:
        """BAR 2: IOADDR at 0 chooses a register of BAR 0, IODATA at 4 is it (8.1.1.2)."""
        if offset < 4:
            return self._io_address.to_bytes(4, "little")[offset:].ljust(size, b"\0")[:size]
        if offset == 4 and size == 4 and self._io_address < BAR_BYTES:
            return self._read_bar(self._io_address & ~3, 4)
        return bytes(size)

    def _write_io(self, offset: int, data: bytes) -> None:
        if len(data) == 4 and offset == 0:
            self._io_address = int.from_bytes(data, "little")
        elif len(data) == 4 and offset == 4 and self._io_address < BAR_BYTES:
            self._write_bar(self._io_address & ~3, data)

    def _write_msix_table(self, offset: int, data: bytes) -> None:
        """Kept for whoever reads it back: the client, not the card, turns a vector into a message."""
        for i, byte in enumerate(data, offset):
            if i < 16 * pci.MSIX_VECTORS:
                self._msix_table[i] = byte & (_MSIX_ENTRY[i % 16 // 4] >> 8 * (i % 4) & 0xFF)

    def _write_config(self, offset: int, data: bytes) -> None:
        slept = self.config.asleep
        self.config.write(offset, data)
        control = pci.DEVICE_CONTROL + 1
        if offset <= control < offset + len(data) and data[control - offset] & pci.INITIATE_FLR >> 8:
            log.debug("%s: function level reset", self.options.name)
            self._power_on()
        elif slept and not self.config.asleep:
            self._reset_chip(power_on=False)
        self._gate_moved()

    # Interrupts and memory.

    def irq(self, index: int) -> IrqInfo:
        """MSI-X, and MSI with one vector, which is then vector 0. Nothing else."""
        counts = {IRQ_MSI: 1, IRQ_MSIX: pci.MSIX_VECTORS}
        return IrqInfo(counts.get(index, 0))

    def set_irqs(self, index: int, first: int, fds: Sequence[int | None]) -> None:
        new = [-1 if fd is None else fd for fd in fds]
        with self._lock:
            if first < 0 or first + len(new) > self.irq(index).count:
                raise DeviceError(errno.EINVAL, f"no {len(new)} interrupts from {first} of kind {index}")
            if not new:
                return
            if index == IRQ_MSI:
                old, self._msi = [self._msi], new[0]
            else:
                old, self._msix[first : first + len(new)] = self._msix[first : first + len(new)], new
            self._rewire(old)

    def irqs_off(self, index: int) -> None:
        count = self.irq(index).count
        if count:
            self.set_irqs(index, 0, [None] * count)

    def _rewire(self, old: Sequence[int]) -> None:
        """Gives the engine what is wired now, then closes what was."""
        vectors = list(self._msix)
        if vectors[0] < 0:
            vectors[0] = self._msi
        self.engine.set_vectors(0, vectors)
        for fd in old:
            if fd >= 0:
                os.close(fd)

    def _unwire(self) -> None:
        old = [*self._msix, self._msi]
        self._msix, self._msi = [-1] * pci.MSIX_VECTORS, -1
        self._rewire(old)

    def trigger(self, index: int, first: int, count: int) -> None:
        with self._lock:
            if first < 0 or count < 0 or first + count > self.irq(index).count:
                raise DeviceError(errno.EINVAL, f"no {count} interrupts from {first} of kind {index}")
            for vector in range(first, first + count):
                self.engine.raise_vector(vector)

    def dma_map(
        self, iova: int, length: int, fd: int | None, fd_offset: int, read: bool, write: bool
    ) -> None:
        with self._lock:
            self.memory.map(iova, length, fd, fd_offset, read, write)
            self.engine.kick()

    def dma_unmap(self, iova: int, length: int) -> None:
        with self._lock:
            self.memory.unmap(iova, length)

    # For people.

    def counters(self) -> dict[str, int]:
        """What happened since the card was made: the model's counts and the engine's (dma_faults, …)."""
        with self._lock:
            counts: dict[str, int] = dict(self.engine.counters())
            names = ("reads", "writes", "unknown_registers", "writes_to_read_only", "writes_to_running_heads")
            counts.update((name, self.registers.counters[name]) for name in names)
            for name in ("dma_maps", "dma_unmaps", "dma_files_that_may_shrink"):
                counts[name] = self.memory.counters[name]
            counts["dma_ranges"] = len(self.memory)
            counts["dma_files_lost"] = self.memory.lost_files
            counts["resets"] = self.control.resets
            counts["link_changes"] = self.link.changes
            return counts

    def unknown_registers(self) -> dict[str, int]:
        """Accesses to offsets that the table does not have, by name: "read 0x02004"."""
        with self._lock:
            return dict(self.registers.unknown)

    def ignored_writes(self) -> dict[str, int]:
        """Writes to read-only registers, by register."""
        with self._lock:
            return dict(self.registers.ignored)

    def dump(self) -> dict[str, int]:
        """Registers that are not 0, as stored: the engine's own counters are not among them."""
        with self._lock:
            return self.registers.dump()
