"""The engine's thread: it sleeps, it wakes, it lets callers in, it serves several cards."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from engine_rig import ENABLE, RS, Rig, ethernet, udp4

from ixroute._dataplane import lib
from ixroute.emulator.engine import BAR_BYTES, Engine, EngineError

LIMIT = 20.0


def wait(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def asleep(engine: Engine) -> bool:
    return os.pread(engine.sleep_fd, 4, 0) != bytes(4)


@pytest.fixture
def running() -> Iterator[Rig]:
    rig = Rig()
    rig.engine.start("engine-test")
    yield rig
    rig.close()


def test_it_sleeps_when_there_is_nothing_to_do_and_a_packet_wakes_it(running: Rig) -> None:
    queue = running.rx()
    for _ in range(50):
        wait(lambda: asleep(running.engine))
        running.arrive(ethernet(b""))
        wait(queue.take)
        queue.post()
    assert running.engine.counters()["sleeps"] >= 50


def test_a_tail_and_an_event_wake_it(running: Rig) -> None:
    queue = running.tx()
    for _ in range(50):
        wait(lambda: asleep(running.engine))
        queue.send(ethernet(b""))
        wait(running.sent)
    assert running.engine.counters()["wakes_by_event"] >= 50


def test_no_wake_up_is_lost_when_the_client_writes_mapped_registers(running: Rig) -> None:
    """As a client does that has the registers mapped: store, fence, look at the sleep word, perhaps the event."""
    queue = running.tx(n=1024)
    where = running.take(64, 64)
    running.poke(where, ethernet(b""))
    sent = 0
    for i in range(3000):
        queue.descriptor(0x7_0000_0000 + where, 60 | 3 << 20 | 1 << 29 | 3 << 24 | RS | 60 << 46)
        running.set(queue.regs + 0x18, queue.tail)
        if asleep(running.engine):
            os.eventfd_write(running.engine.event_fd, 1)
        if i % 3:
            sent += len(running.sent())
        deadline = time.monotonic() + LIMIT
        while sent <= i:
            sent += len(running.sent())
            assert time.monotonic() < deadline, i
    assert sent == 3000


def test_a_blocked_queue_goes_on_when_it_gets_descriptors(running: Rig) -> None:
    queue = running.rx(n=8, flags=0)
    running.arrive(*[ethernet(bytes([i]) * 46) for i in range(20)])
    got: list[int] = []
    deadline = time.monotonic() + LIMIT
    while len(got) < 20 and time.monotonic() < deadline:
        got += [packet.bytes[14] for packet in queue.take_all()]
        queue.post()
    assert got == list(range(20))


def test_a_full_wire_is_tried_again(running: Rig) -> None:
    queue = running.tx()
    lib.wire_memory_hold(running.wire, 1)
    queue.send(ethernet(b""))
    before = running.engine.counters()["sleeps"]
    wait(lambda: running.engine.counters()["sleeps"] > before + 3)
    lib.wire_memory_hold(running.wire, 0)
    wait(running.sent)


def test_a_throttled_interrupt_comes_while_the_engine_sleeps(running: Rig) -> None:
    running.wire_vectors(1)
    running.set(0x898, 1 << 4)
    running.set(0x900, 0x80)
    running.set(0x820, 0xFF8)
    running.write(0x810, 0xFFFF)
    running.write(0x880, 1)
    queue = running.rx()
    for _ in range(5):
        running.arrive(ethernet(b""))
        wait(queue.take)
        queue.post()
        wait(running.fired)


def test_callers_get_in_while_the_engine_is_busy(running: Rig) -> None:
    running.rx()
    lib.wire_memory_repeat(running.wire, 32)
    running.arrive(*[ethernet(udp4())] * 32)
    wait(lambda: running.engine.counters()["busy_passes"] > 100)
    for _ in range(2000):
        running.read(0x4074)
    assert not asleep(running.engine)
    lib.wire_memory_repeat(running.wire, 0)


def test_cards_come_and_go_and_unmap_while_it_runs(running: Rig) -> None:
    running.rx()
    lib.wire_memory_repeat(running.wire, 32)
    running.arrive(*[ethernet(udp4())] * 32)
    for i in range(30):
        other = Rig(engine=running.engine)
        other.rx()
        other.arrive(ethernet(b""))
        other.card.dma_unmap(0x7_0000_0000, 4 << 20)
        if i % 2:
            other.card.plug(None)
        other.close()
    lib.wire_memory_repeat(running.wire, 0)


def test_scanning_finds_queues_that_were_enabled_without_a_word() -> None:
    rig = Rig(scan=True)
    rig.engine.start()
    queue = rig.tx()
    rig.set(queue.regs + 0x28, 0)
    rig.card.queue_changed(True, 0)
    time.sleep(0.01)
    rig.set(queue.regs + 0x28, ENABLE)
    rig.poke(0, ethernet(b""))
    queue.descriptor(0x7_0000_0000, 60 | 3 << 20 | 1 << 29 | 3 << 24 | 60 << 46)
    rig.set(queue.regs + 0x18, queue.tail)
    wait(rig.sent)
    rig.set(queue.regs + 0x28, 0)
    rig.set(queue.regs + 0x10, 0)
    rig.set(queue.regs + 0x18, 0)
    rig.set(queue.regs + 0x28, ENABLE)
    queue.tail = 0
    queue.descriptor(0x7_0000_0000, 60 | 3 << 20 | 1 << 29 | 3 << 24 | 60 << 46)
    rig.set(queue.regs + 0x18, queue.tail)
    wait(rig.sent)
    rig.close()


def test_a_client_that_goes_on_changing_everything_breaks_nothing(running: Rig) -> None:
    """Memory and registers are rewritten while the engine uses them, at addresses that are mapped and that are not."""
    import random

    values = random.Random(8)
    receive, transmit = running.rx(n=64, flags=0), running.tx(n=64)
    lib.wire_memory_repeat(running.wire, 16)
    running.arrive(*[ethernet(udp4())] * 64)
    stop = threading.Event()

    def hostile() -> None:
        while not stop.is_set():
            at = 16 * values.randrange(64)
            where = values.choice([0x7_0000_0000, 0x7_0000_0000 + (4 << 20) - 40, 0xDEAD, 2**64 - 8])
            second = values.choice([values.getrandbits(64), 60 | 3 << 20 | 1 << 29 | 3 << 24 | 60 << 46])
            running.poke(transmit.ring + at, struct.pack("<QQ", where, second))
            running.poke(receive.ring + at, struct.pack("<QQ", where, values.getrandbits(64)))
            for regs in (receive.regs, transmit.regs):
                running.set(regs + 0x18, values.choice([values.randrange(64), values.getrandbits(32)]))

    thread = threading.Thread(target=hostile)
    thread.start()
    for _ in range(3000):
        for regs, is_tx in ((receive.regs, False), (transmit.regs, True)):
            running.set(regs + 0x28, 0)
            running.card.queue_changed(is_tx, 0)
            running.set(regs + 0x28, ENABLE)
            running.card.queue_changed(is_tx, 0)
    stop.set()
    thread.join()
    lib.wire_memory_repeat(running.wire, 0)
    assert running.engine.running
    assert running.card.counters()["dma_faults"] > 0


def test_it_stops_starts_and_refuses_to_be_stepped_meanwhile() -> None:
    engine = Engine()
    for _ in range(3):
        engine.start()
        engine.start()
        with pytest.raises(EngineError, match="stop it"):
            engine.step()
        assert engine.stop()
        assert not asleep(engine)
        engine.step()
    engine.close()
    engine.close()


def test_registers_must_be_all_of_a_bar() -> None:
    engine = Engine()
    with pytest.raises(EngineError, match=str(BAR_BYTES)):
        engine.card(bytearray(4096))
    engine.close()
