"""Waiting for packets in every way there is (driver/wait.h), and no wake-up lost in ten thousand sleeps.

The engine is a thread that sleeps too, so that each packet wakes both sides.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.driver.port import PortOptions
from lab.echo import NEVER_SLEEPS, Echo
from lab.emulated_port import MAC, EmulatedPort, numbered
from lab.support import wait_until

SLEEPS = 10_000
QUICK = PortOptions(rx_slots=64, tx_slots=64, interrupt_us=2)


def poll(_: Any) -> None:
    """Never waits."""


def limit(queue: Any) -> None:
    lib.queues_wait([queue], 1, 50)


def forever(queue: Any) -> None:
    lib.queues_wait([queue], 1, -1)


def external(queue: Any) -> None:
    """In somebody's own loop."""
    if lib.queue_arm(queue) == 0:
        poller = select.poll()
        poller.register(queue.wait_fd, select.POLLIN)
        poller.poll()
    lib.queue_disarm(queue)


@pytest.mark.parametrize("wait", [poll, limit, forever, external])
def test_each_packet_is_received_however_the_worker_waits(wait: Callable[[Any], None]) -> None:
    """A packet comes only when the one before was received, so that there is a wait before each."""
    with EmulatedPort(1, QUICK, sleeps=True, poll_ns=0) as rig:
        queue, pool = rig.queues[0], rig.pools[0]
        arrived: list[bytes] = []

        def work() -> None:
            frames = ffi.new("struct frame[]", 8)
            while len(arrived) < 300:
                lib.queue_reclaim(queue, pool)
                lib.queue_refill(queue, pool)
                n = lib.queue_rx_burst(queue, frames, 8)
                for frame in frames[0:n]:
                    arrived.append(bytes(ffi.buffer(rig.umem.c.base + frame.addr, frame.len)))
                    lib.frame_pool_put(pool, rig.umem.c, frame.addr)
                if n == 0:
                    wait(queue)

        rig.refill()
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        rig.engine.start()
        for i in range(300):
            rig.deliver(numbered(i))
            wait_until(lambda i=i: len(arrived) > i, 30, f"packet {i} is received: a wake-up was lost")
        worker.join(30)
        rig.engine.stop()
        assert arrived == [numbered(i) for i in range(300)]
        if wait is poll:
            assert rig.card.counters()["interrupts"] == 0
        rig.close()


@pytest.mark.parametrize("idle_ns", [NEVER_SLEEPS, 0, 20_000], ids=["polls", "sleeps", "adaptive"])
def test_a_worker_in_c_answers_whatever_its_patience(idle_ns: int) -> None:
    with EmulatedPort(1, QUICK, sleeps=True) as rig, Echo(rig.queues[0], rig.pools[0], idle_ns):
        rig.engine.start()
        for burst in (1, 2, 17, 32) * 15:  # a ring of 64 may have room for 32 only: refill comes in batches
            packets = [numbered(i) for i in range(burst)]
            rig.until_room(burst)
            rig.deliver(*packets)
            back: list[bytes] = []
            wait_until(
                lambda back=back, burst=burst: back.extend(rig.collect()) or len(back) == burst, 30, "back"
            )
            assert back == packets
        rig.engine.stop()


def test_no_wake_up_is_lost_in_ten_thousand_sleeps() -> None:
    """One packet at a time goes round: wire, engine, worker, engine, wire. Both sleep as soon as they find nothing.
    How often the worker slept is told by the card's interrupts: each ended one sleep."""
    room = ffi.new("uint8_t[]", 2048)
    data = numbered(1)
    with EmulatedPort(1, QUICK, sleeps=True, poll_ns=0) as rig:
        with Echo(rig.queues[0], rig.pools[0], idle_ns=0) as worker:
            rig.engine.start()
            rig.until_room()
            rounds = 0
            while rounds % 100 or rig.card.counters()["interrupts"] < SLEEPS:
                rounds += 1
                assert lib.wire_memory_put(rig.wire, data, len(data)) == 1
                for _ in range(1000):
                    if lib.wire_memory_take(rig.wire, room, 2048):
                        break
                    os.sched_yield()
                else:
                    wait_until(
                        lambda: bool(lib.wire_memory_take(rig.wire, room, 2048)),
                        30,
                        lambda: f"a packet is back: {rig.card.counters()}, {rig.engine.counters()}",
                    )
            rig.engine.stop()
        assert worker.received == worker.sent == rounds
        assert rig.engine.counters()["sleeps"] >= SLEEPS
        rig.close()


def test_a_worker_of_many_queues_is_woken_by_each_of_them() -> None:
    with EmulatedPort(16, QUICK, sleeps=True) as rig:
        rig.refill()
        rig.engine.start()
        woken = set()
        for i in range(400):
            woke = threading.Event()

            def wait(woke: threading.Event = woke) -> None:
                assert lib.queues_wait(rig.queues, 16, -1)
                woke.set()

            worker = threading.Thread(target=wait, daemon=True)
            worker.start()
            rig.deliver(numbered(i * 2654435761))
            assert woke.wait(30), f"packet {i} wakes nobody"
            worker.join()
            wait_until(
                lambda i=i: woken.update(q for q in range(16) if rig.receive(q)) or rig.received.packets > i,
                30,
                "it is received",
            )
            rig.refill()
        rig.engine.stop()
        assert len(woken) == 16
        rig.settle()


def test_a_wait_with_a_limit_ends_without_a_packet_and_says_so() -> None:
    with EmulatedPort(1, QUICK) as rig:
        rig.refill()
        assert lib.queues_wait(rig.queues, 1, 1) == 0
        assert lib.queues_wait(rig.queues, 1, 0) == 0
        rig.deliver(numbered(1, to=MAC))
        rig.step()
        assert lib.queues_wait(rig.queues, 1, -1) != 0
        assert rig.receive() == [numbered(1)]
        rig.refill()
        assert lib.queues_wait(rig.queues, 1, 1) == 0
        rig.settle()


def test_a_reset_wakes_a_worker_that_sleeps_for_ever_and_it_is_woken_by_packets_afterwards() -> None:
    with EmulatedPort(1, QUICK, sleeps=True) as rig, Echo(rig.queues[0], rig.pools[0], idle_ns=0) as worker:
        rig.engine.start()
        for i in range(3):
            rig.until_room()
            rig.deliver(numbered(i))
            wait_until(lambda i=i: worker.received == i + 1, 30, "received")
            wait_until(lambda: bool(rig.collect()), 30, "sent")
            rig.port.reset()
            rig.port.service()
        rig.engine.stop()
        assert rig.port.stats()["resets"] == 3
