"""The transport alone, through the guest's own vfio-pci and behind its IOMMU: two cards in one container, registers
mapped, memory mapped for the card, a packet fetched from it and a mark written back, MSI-X vectors, reset, close.

arguments: the kind of card at 0000:01:00.0 and 0000:02:00.0, "igb" or "ixgbe" each. As root cards are bound; the
rest runs as nobody, who owns the groups' files.
"""

from __future__ import annotations

import os
import resource
import select
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from ixroute.driver.dma import DmaBuffer
from ixroute.driver.pci import PciBus
from ixroute.driver.pci_bind import PciBinder
from ixroute.driver.transport import TransportError
from ixroute.driver.vfio import VfioTransport
from lab.guest.inside import checking, ok, value

NOBODY = 65534
MEMLOCK = 64 << 20


@dataclass(frozen=True)
class Kind:
    """Where a card has what is touched here."""

    status: int
    eics: int  # write: raises the cause of each bit
    eims: int
    gpie: int
    multiple_msix: int  # in gpie
    address_low: int  # of the first station address
    transmit: bool = False  # without more than the queue's registers


# 82576 datasheet 8.1 (the first), 82599 datasheet 8.2.3 (the second).
KINDS = {
    "igb": Kind(0x8, 0x1520, 0x1524, 0x1514, 1 << 4, 0x5400, transmit=True),
    "ixgbe": Kind(0x8, 0x808, 0x880, 0x898, 1 << 4, 0xA200),
}


def bind(addresses: list[str]) -> None:
    binder = PciBinder(PciBus())
    for address in addresses:
        device = binder.bind(address)
        value(f"group_{address}", device.group_file)
        assert device.group_file
        os.chown(device.group_file, NOBODY, NOBODY)


def become_nobody() -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (MEMLOCK, MEMLOCK))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def wait_for(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def transmit(transport: VfioTransport, kind: Kind) -> None:
    """One packet through queue 0 of an 82576: the card reads descriptor and packet and writes DD (7.2.2.3)."""
    memory = DmaBuffer(1 << 16, hugepages="off")
    mapping = transport.dma_map(memory)
    bar = transport.map_bar(0)
    frame = bytes.fromhex("ffffffffffff020000000001 88b5") + bytes(46)
    view = memory.pointer(0, memory.bytes)
    from ixroute._dataplane import ffi

    bytes_of = ffi.buffer(view, memory.bytes)
    bytes_of[4096 : 4096 + len(frame)] = frame
    command = len(frame) | 3 << 20 | 1 << 24 | 1 << 25 | 1 << 27 | 1 << 29  # data, EOP, IFCS, RS, DEXT
    bytes_of[0:16] = struct.pack("<QII", mapping.iova(4096), command, len(frame) << 14)
    bar.write32(0xE000, mapping.iova(0) & 0xFFFFFFFF)
    bar.write32(0xE004, mapping.iova(0) >> 32)
    bar.write32(0xE008, 4096)
    bar.write32(0xE028, 1 << 25)  # TXDCTL.ENABLE
    bar.write32(0x400, bar.read32(0x400) | 1 << 1)  # TCTL.EN
    bar.write32(0xE018, 1)  # TDT
    done = wait_for(lambda: bool(struct.unpack_from("<I", bytes_of, 12)[0] & 1))
    ok(f"card_reads_and_writes_memory_{transport.device}", done, bytes(bytes_of[0:16]).hex())
    transport.dma_unmap(memory)
    memory.close()


def interrupts(transport: VfioTransport, kind: Kind) -> None:
    bar = transport.map_bar(0)
    events = transport.irq.start(3)
    bar.write32(kind.gpie, kind.multiple_msix | 1 << 31)
    for vector, event in enumerate(events):
        bar.write32(kind.eims, 1 << vector)
        bar.write32(kind.eics, 1 << vector)
        ready, _, _ = select.select([event], [], [], 10)
        others = [other for other in events if other != event and select.select([other], [], [], 0)[0]]
        ok(f"vector_{vector}_{transport.device}", bool(ready) and not others, f"{ready} {others}")
        if ready:
            os.eventfd_read(event)
    transport.irq.stop()


def use(address: str, kind: Kind) -> VfioTransport:
    transport = VfioTransport(address)
    value(f"id_{address}", f"{transport.config.read(0, 2):04x}:{transport.config.read(2, 2):04x}")
    bar = transport.map_bar(0)
    status = bar.read32(kind.status)
    value(f"status_{address}", f"{status:#010x}")
    ok(f"registers_{address}", status not in (0, 0xFFFFFFFF), hex(status))
    value(f"mac_{address}", struct.pack("<I", bar.read32(kind.address_low)).hex())
    with checking(f"reset_{address}"):
        value(f"has_reset_{address}", transport.reset())
    return transport


def main(kinds: list[str]) -> None:
    addresses = [f"0000:{number:02x}:00.0" for number in range(1, len(kinds) + 1)]
    bind(addresses)
    become_nobody()
    value("uid", os.getuid())
    transports = [use(address, KINDS[kind]) for address, kind in zip(addresses, kinds, strict=True)]
    memory = DmaBuffer(4 << 20, hugepages="off")
    with checking("memory_is_the_same_for_both_cards"):
        mappings = {transport.dma_map(memory) for transport in transports}
        assert len(mappings) == 1, mappings
        value("iova", hex(mappings.pop().iova(0)))
    too_much = DmaBuffer(MEMLOCK + 4096, hugepages="off")
    try:
        transports[0].dma_map(too_much)
    except TransportError as error:
        ok("more_than_may_be_locked_is_refused_with_advice", "memlock" in str(error).lower(), error)
    else:
        ok("more_than_may_be_locked_is_refused_with_advice", False, "it was mapped")
    too_much.close()
    for transport, kind in zip(transports, kinds, strict=True):
        with checking(f"interrupts_{transport.device}"):
            interrupts(transport, KINDS[kind])
        if KINDS[kind].transmit:
            with checking(f"transmit_{transport.device}"):
                transmit(transport, KINDS[kind])
    for transport in transports:
        transport.close()
    memory.close()
    with checking("a_card_can_be_opened_again"):
        again = VfioTransport(addresses[0])
        ok("its_registers_answer_again", again.map_bar(0).read32(8) != 0xFFFFFFFF)
        again.close()


if __name__ == "__main__":
    main(sys.argv[1:])
