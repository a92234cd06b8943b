"""A worker in its own thread: sleeps, wakes for packets and for the kernel, stops, keeps its heartbeat."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forward_packets import eth, ip4
from forward_rig import MAC, SENDER, Rig

from ixroute._dataplane import ffi, lib
from ixroute.forward.worker import NEVER_SLEEP, Worker

THROUGH = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.0.0.1"))
LOCAL = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "192.0.2.1"))
PATIENCE = 10.0


def eventually(condition: Callable[[], object]) -> None:
    """Bounded: fails after PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.0005)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    assert made.worker.stop(PATIENCE)
    made.check_conservation()
    made.close()


def received(rig: Rig, packet: bytes) -> None:
    rig.deliver(packet)
    got: list[tuple[int, bytes]] = []

    def arrived() -> bool:
        got.extend(rig.sent())
        return bool(got)

    eventually(arrived)
    assert len(got) == 1


@pytest.mark.parametrize("idle_ns", [0, 1_000_000, NEVER_SLEEP])
def test_a_running_worker_forwards(rig: Rig, idle_ns: int) -> None:
    rig.worker.start(idle_ns)
    for _ in range(50):
        received(rig, THROUGH)
    assert rig.worker.alive
    if idle_ns == NEVER_SLEEP:
        assert rig.worker.counters()["sleeps"] == 0
    else:
        eventually(lambda: rig.worker.counters()["sleeps"])


def test_a_sleeping_worker_wakes_for_a_packet(rig: Rig) -> None:
    rig.worker.start(0)
    for n in range(30):
        slept = rig.worker.counters()["sleeps"]
        received(rig, THROUGH)
        eventually(lambda before=slept: rig.worker.counters()["sleeps"] > before)  # type: ignore[misc]
        assert rig.worker.port_counters(0)["sent_packets"] == n + 1


def test_a_sleeping_worker_wakes_for_the_kernel(rig: Rig) -> None:
    rig.worker.start(0)
    for n in range(1, 30):
        eventually(lambda: rig.lane.worker_asleep)
        rig.inject(THROUGH, 1)
        os.write(rig.lane.worker_event, (1).to_bytes(8, "little"))
        eventually(lambda sofar=n: rig.worker.port_counters(1)["tx_packets"] == sofar)  # type: ignore[misc]
        rig.sent()


def test_a_worker_wakes_the_sleeping_door_once(rig: Rig) -> None:
    event = rig.lane.door_event
    rig.lane.door_asleep = 1
    for _ in range(3):
        rig.route(LOCAL)
    assert rig.lane.door_asleep == 0
    assert os.read(event, 8) == (1).to_bytes(8, "little")
    with pytest.raises(BlockingIOError):
        os.read(event, 8)


def test_a_stop_before_the_thread_has_begun_counts(rig: Rig) -> None:
    lib.worker_stop(rig.worker.c)
    assert lib.worker_run(rig.worker.c, NEVER_SLEEP) == 0


def test_a_stopped_worker_can_run_again(rig: Rig) -> None:
    for _ in range(3):
        rig.worker.start(0)
        received(rig, THROUGH)
        assert rig.worker.stop(PATIENCE)
        assert not rig.worker.alive


def test_stop_gives_every_received_packet_its_verdict(rig: Rig) -> None:
    rig.worker.start(0)
    for _ in range(60):
        rig.deliver(THROUGH)
    assert rig.worker.stop(PATIENCE)
    assert len(rig.sent()) == 60
    rig.check_conservation()


def test_an_idle_worker_keeps_its_heartbeat(rig: Rig) -> None:
    rig.worker.start(0)
    before = rig.worker.counters()
    eventually(lambda: rig.worker.counters()["polls"] > before["polls"] + 2)
    assert rig.worker.counters()["heartbeat_ns"] > before["heartbeat_ns"]


def test_a_busy_worker_keeps_its_heartbeat(rig: Rig) -> None:
    rig.worker.start(NEVER_SLEEP)
    eventually(lambda: rig.worker.counters()["heartbeat_ns"])
    before = rig.worker.counters()["heartbeat_ns"]
    eventually(lambda: rig.worker.counters()["heartbeat_ns"] > before)


def test_a_queue_that_cannot_be_waited_for_is_polled(rig: Rig) -> None:
    lib.memport_set_event(ffi.cast("struct memport *", rig.ports[0].queues()[0]), -1)
    rig.worker.start(0)
    for _ in range(5):
        received(rig, THROUGH)


def test_a_sleeping_worker_holds_up_no_update_of_the_fib(rig: Rig) -> None:
    rig.worker.start(0)
    eventually(lambda: rig.worker.counters()["sleeps"] > 2)
    for n in range(20):
        rig.fib.insert(f"10.20.{n}.0/24", 8 + n % 2)
    rig.fib.insert("10.0.0.1/32", 4)
    rig.fib.collect()
    assert rig.fib.stats().retired_bytes == 0
    rig.deliver(THROUGH)
    eventually(lambda: rig.worker.port_counters(0)["dropped"] == {"blackhole_route": 1})


def test_a_worker_is_pinned_and_named(rig: Rig) -> None:
    core = min(os.sched_getaffinity(0))
    rig.worker.core = core
    rig.worker.start(0)
    eventually(lambda: rig.worker.pinned)
    names = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    assert "ixroute-w0" in names
    thread = next(t for t in threading.enumerate() if t.name == "ixroute-w0")
    assert thread.native_id is not None
    assert os.sched_getaffinity(thread.native_id) == {core}


def test_a_core_that_is_not_there_leaves_the_worker_running(rig: Rig) -> None:
    rig.worker.core = 1023
    rig.worker.start(0)
    received(rig, THROUGH)
    assert not rig.worker.pinned


def test_wrong_use_is_refused(rig: Rig) -> None:
    rig.worker.start(0)
    for wrong in (rig.worker.start, rig.worker.poll_once, rig.worker.close):
        with pytest.raises(RuntimeError):
            wrong()
    with pytest.raises(RuntimeError):
        rig.worker.add_queue(rig.ports[0].queues()[0])
    with pytest.raises(ValueError, match="port 3"):
        rig.worker.port_counters(3)
    with pytest.raises(ValueError, match="worker 1"):
        Worker(rig.dataplane, 1, rig.pool, rig.lane)
