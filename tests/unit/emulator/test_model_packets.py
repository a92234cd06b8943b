"""The register model on the real packet engine: a packet each way, driven through the device's door alone."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.emulator.card import Card, CardOptions
from ixroute.emulator.engine import Engine
from ixroute.emulator.registers import offset_of, registers

MAC = bytes.fromhex("025990000001")
RX_RING, TX_RING, RX_BUFFER, TX_BUFFER = 0x0000, 0x1000, 0x2000, 0x4000
IOVA = 0x1234_5000_0000
SLOTS = 32
ENABLE = 1 << 25


class Driver:
    """Queue 3 both ways, its interrupt on vector 5, everything by messages."""

    QUEUE, VECTOR = 3, 5

    def __init__(self, engine: Engine, **options: object) -> None:
        self.engine = engine
        self.card = Card(lambda image: engine.card(image.memory), CardOptions(mac=MAC, **options))  # type: ignore[arg-type]
        self.wire = lib.wire_memory_create(1 << 20, -1)
        self.card.engine.plug(self.wire)
        self.memory = os.memfd_create("lent", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, 1 << 16)
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.card.set_carrier(True)

    def write(self, name: str, value: int, index: int = 0) -> None:
        self.card.write(0, offset_of(name, index), value.to_bytes(4, "little"))

    def read(self, name: str, index: int = 0) -> int:
        return int.from_bytes(self.card.read(0, offset_of(name, index), 4), "little")

    def master(self, on: bool) -> None:
        self.card.write(7, 4, b"\x04\x00" if on else b"\x00\x00")

    def start(self) -> None:
        self.card.dma_map(IOVA, 1 << 16, self.memory, 0, True, True)
        self.card.set_irqs(2, self.VECTOR, [os.dup(self.event)])
        self.master(True)
        self.write("FCTRL", 1 << 10)
        self.write("GPIE", 1 << 4)
        self.write("IVAR", (0x80 | self.VECTOR) << 16, self.QUEUE // 2)
        for direction, ring in (("R", RX_RING), ("T", TX_RING)):
            self.write(f"{direction}DBAL", (IOVA + ring) & 0xFFFF_FFFF, self.QUEUE)
            self.write(f"{direction}DBAH", (IOVA + ring) >> 32, self.QUEUE)
            self.write(f"{direction}DLEN", 16 * SLOTS, self.QUEUE)
        self.write("SRRCTL", 0x1200_0002, self.QUEUE)
        self.write("ETQF", 1 << 31 | 0x88B5)  # the test's frames go to the queue
        self.write("ETQS", 1 << 31 | self.QUEUE << 16)
        self.write("DMATXCTL", 1)
        self.write("RXDCTL", ENABLE, self.QUEUE)
        self.write("TXDCTL", ENABLE, self.QUEUE)
        assert self.read("RXDCTL", self.QUEUE) & ENABLE
        assert self.read("TXDCTL", self.QUEUE) & ENABLE
        self.write("RXCTRL", 1)
        os.pwrite(self.memory, struct.pack("<QQ", IOVA + RX_BUFFER, 0), RX_RING)
        self.write("RDT", 1, self.QUEUE)

    def send(self, frame: bytes) -> None:
        os.pwrite(self.memory, frame, TX_BUFFER)
        command = len(frame) | 3 << 20 | 1 << 24 | 1 << 25 | 1 << 27 | 1 << 29
        os.pwrite(self.memory, struct.pack("<QII", IOVA + TX_BUFFER, command, len(frame) << 14), TX_RING)
        self.write("TDT", 1, self.QUEUE)

    def run(self) -> None:
        for _ in range(10):
            self.engine.step()

    def put(self, frame: bytes) -> None:
        assert lib.wire_memory_put(self.wire, frame, len(frame)) == 1

    def sent(self) -> bytes:
        room = ffi.new("uint8_t[]", 2048)
        return bytes(ffi.buffer(room, lib.wire_memory_take(self.wire, room, 2048)))

    def received(self) -> bytes | None:
        status, length = struct.unpack("<IH", os.pread(self.memory, 6, RX_RING + 8))
        return os.pread(self.memory, length, RX_BUFFER) if status & 1 else None

    def interrupts(self) -> int:
        try:
            return os.eventfd_read(self.event)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self.card.close()
        lib.wire_memory_destroy(self.wire)
        os.close(self.memory)
        os.close(self.event)


@pytest.fixture
def driver() -> Iterator[Driver]:
    engine = Engine(poll_ns=0)
    made = Driver(engine)
    made.start()
    yield made
    made.close()
    engine.close()


FRAME = MAC + bytes.fromhex("020000000099") + b"\x88\xb5" + bytes(range(100))


def test_the_table_and_the_engine_agree_about_who_owns_what() -> None:
    engine = Engine()
    card = Card(lambda image: engine.card(image.memory))
    places = [place for register in registers() for place in register.places()]
    assert [str(p) for p in places if (card.engine.read(p.offset) is not None) != p.register.owned] == []
    assert [str(p) for p in places if card.engine.write(p.offset, 0) != p.register.owned] == []
    card.close()
    engine.close()


def test_a_packet_leaves_by_the_wire(driver: Driver) -> None:
    driver.send(FRAME)
    driver.run()
    assert driver.sent() == FRAME
    assert driver.read("TDH", driver.QUEUE) == 1
    assert driver.read("GPTC") == 1
    assert driver.read("GPTC") == 0


def test_a_packet_arrives_in_memory_and_interrupts(driver: Driver) -> None:
    driver.write("EIMS_EX", 1 << driver.VECTOR)
    driver.put(FRAME)
    driver.run()
    assert driver.received() == FRAME
    assert driver.interrupts() == 1
    assert driver.read("GPRC") == 1
    assert driver.card.counters()["rx_packets"] == 1


@pytest.mark.parametrize("stop", ["master", "gio", "laser", "power", "carrier"])
def test_nothing_is_sent_while_something_is_off_and_everything_afterwards(driver: Driver, stop: str) -> None:
    def switch(on: bool) -> None:
        if stop == "master":
            driver.master(on)
        elif stop == "gio":
            driver.write("CTRL", 0 if on else 4)
        elif stop == "laser":
            driver.write("ESDP", 0x0800 if on else 0x0808)
        elif stop == "carrier":
            driver.card.set_carrier(on)
        elif not on:
            driver.card.write(7, 0x44, b"\3\0")

    switch(False)
    driver.send(FRAME)
    driver.run()
    assert driver.sent() == b""
    assert driver.read("TDH", driver.QUEUE) == 0
    if stop == "power":  # waking resets: the queue is off
        driver.card.write(7, 0x44, b"\0\0")
        assert driver.read("TXDCTL", driver.QUEUE) == 0
        return
    switch(True)
    driver.run()
    assert driver.sent() == FRAME


def test_a_reset_in_the_midst_stops_both_queues(driver: Driver) -> None:
    driver.write("CTRL", 1 << 26)
    driver.put(FRAME)
    driver.write("TDT", 1, driver.QUEUE)
    driver.run()
    assert driver.received() is None
    assert driver.sent() == b""
    assert driver.read("RXDCTL", driver.QUEUE) == driver.read("TXDCTL", driver.QUEUE) == 0
    assert driver.card.counters()["dma_faults"] == 0


def test_memory_taken_back_is_a_counted_fault_and_no_access(driver: Driver) -> None:
    driver.card.dma_unmap(IOVA, 1 << 16)
    driver.send(FRAME)
    driver.run()
    assert driver.sent() == b""
    counters = driver.card.counters()
    assert counters["dma_faults"] >= 1
    assert counters["last_fault_iova"] in range(IOVA, IOVA + (1 << 16))


def test_a_link_change_interrupts_by_the_vector_of_the_others(driver: Driver) -> None:
    driver.write("IVAR_MISC", (0x80 | driver.VECTOR) << 8)
    driver.read("EICR")
    driver.write("EIMS", 1 << 20)
    driver.interrupts()
    driver.card.set_carrier(False)
    driver.run()
    assert driver.interrupts() == 1
    assert driver.read("EICR") & 1 << 20


def test_a_tail_written_past_the_model_is_seen(driver: Driver) -> None:
    driver.send(FRAME)
    driver.run()
    driver.sent()
    event = next(e for e in driver.card.io_events(0) if e.offset == offset_of("TDT", driver.QUEUE))
    os.pwrite(driver.memory, os.pread(driver.memory, 8, TX_RING), TX_RING + 16)
    command = len(FRAME) | 3 << 20 | 1 << 24 | 1 << 25 | 1 << 27 | 1 << 29
    os.pwrite(driver.memory, struct.pack("<II", command, len(FRAME) << 14), TX_RING + 24)
    os.pwrite(event.shadow_fd, (2).to_bytes(4, "little"), event.shadow_offset)
    os.eventfd_write(event.event_fd, 1)
    driver.run()
    assert driver.sent() == FRAME


def test_a_client_that_vanishes_leaves_a_card_for_the_next(driver: Driver) -> None:
    driver.send(FRAME)
    driver.card.disconnected()
    driver.run()
    assert driver.sent() == b""
    assert driver.card.counters()["dma_ranges"] == 0
    os.pwrite(driver.memory, bytes(0x1000), 0)
    driver.start()
    driver.send(FRAME)
    driver.put(FRAME)
    driver.run()
    assert (driver.sent(), driver.received()) == (FRAME, FRAME)
