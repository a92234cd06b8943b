"""The queue contract (driver/queue.h), kept by the memory port."""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ixroute._dataplane import ffi, lib
from ixroute.driver.kinds import open_port
from ixroute.driver.mem import MemPort
from ixroute.driver.port import PortError, PortOptions
from ixroute.driver.umem import Umem

FRAMES = 256


class Rig:
    """One memory queue of 64 slots each way, umem, and a pool with every frame of it."""

    def __init__(self, frames: int = FRAMES) -> None:
        self.umem = Umem(frames, 2048, "off")
        self.pool = self.umem.pool(frames)
        self.port = MemPort("lan", 3, self.umem, 1, PortOptions(rx_slots=64, tx_slots=64))
        self.queue = self.port.queues()[0]
        self.burst = ffi.new("struct frame[512]")

    def rx(self, n: int = 512) -> list[tuple[int, int]]:
        n = lib.queue_rx_burst(self.queue, self.burst, n)
        return [(self.burst[i].addr, self.burst[i].len) for i in range(n)]

    def tx(self, frames: list[tuple[int, int]]) -> int:
        for i, (addr, length) in enumerate(frames):
            self.burst[i] = {"addr": addr, "len": length}
        return int(lib.queue_tx_burst(self.queue, self.burst, len(frames)))

    def free(self) -> list[int]:
        """Takes every frame out of the pool."""
        out = ffi.new("uint64_t[]", self.pool.capacity)
        n = lib.frame_pool_get(self.pool, out, self.pool.capacity)
        return [out[i] for i in range(n)]

    def close(self) -> None:
        self.port.close()
        self.umem.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def test_a_packet_arrives_as_delivered_with_its_port_and_no_flags(rig: Rig) -> None:
    lib.queue_refill(rig.queue, rig.pool)
    assert rig.port.deliver(b"hello, frame")
    assert lib.queue_rx_burst(rig.queue, rig.burst, 8) == 1
    frame = rig.burst[0]
    assert (frame.port, frame.flags, frame.len) == (3, 0, 12)
    assert ffi.buffer(rig.umem.c.base + frame.addr, frame.len)[:] == b"hello, frame"
    assert frame.addr % 2048 == 256


def test_a_ring_without_frames_loses_the_packet_and_says_so(rig: Rig) -> None:
    assert not rig.port.deliver(b"too early")
    assert lib.queue_refill(rig.queue, rig.pool) == 64
    assert [rig.port.deliver(b"x") for _ in range(65)] == [True] * 64 + [False]


def test_refill_never_gives_more_than_the_ring_holds(rig: Rig) -> None:
    assert lib.queue_refill(rig.queue, rig.pool) == 64
    assert lib.queue_refill(rig.queue, rig.pool) == 0
    for _ in range(10):
        rig.port.deliver(b"x")
    assert lib.queue_refill(rig.queue, rig.pool) == 0  # received packets count until they are taken
    assert len(rig.rx(10)) == 10
    assert lib.queue_refill(rig.queue, rig.pool) == 10


def test_an_empty_pool_is_counted(rig: Rig) -> None:
    taken = rig.free()
    assert len(taken) == FRAMES
    assert lib.queue_refill(rig.queue, rig.pool) == 0
    assert rig.port.stats()["rx_no_frame"] == 1


def test_sent_packets_are_on_the_wire_only_after_the_doorbell_and_in_order(rig: Rig) -> None:
    addrs = rig.free()
    frames = []
    for i, addr in enumerate(addrs[:3]):
        ffi.memmove(rig.umem.c.base + addr, bytes([i]) * 20, 20)
        frames.append((addr, 20))
    assert rig.tx(frames) == 3
    assert rig.port.collect() is None
    lib.queue_tx_doorbell(rig.queue)
    assert [rig.port.collect() for _ in range(4)] == [b"\0" * 20, b"\1" * 20, b"\2" * 20, None]


def test_a_doorbell_with_nothing_outstanding_does_nothing(rig: Rig) -> None:
    lib.queue_tx_doorbell(rig.queue)
    assert rig.port.stats()["tx_kicks"] == 0
    rig.tx([(rig.free()[0], 60)])
    lib.queue_tx_doorbell(rig.queue)
    lib.queue_tx_doorbell(rig.queue)
    assert rig.port.stats()["tx_kicks"] == 1


def test_a_full_ring_takes_the_first_and_leaves_the_rest(rig: Rig) -> None:
    addrs = rig.free()
    assert rig.tx([(addr, 60) for addr in addrs[:70]]) == 64
    assert rig.tx([(addrs[70], 60)]) == 0
    lib.queue_tx_doorbell(rig.queue)
    assert rig.port.collect() is not None
    assert rig.tx([(addrs[70], 60)]) == 0  # sent, but not reclaimed: still the ring's
    assert lib.queue_reclaim(rig.queue, rig.pool) == 1
    assert rig.tx([(addrs[70], 60)]) == 1


def test_a_packet_that_leaves_its_frame_is_counted_and_not_sent(rig: Rig) -> None:
    first, second = rig.free()[:2]
    rig.tx([(first, 2049), (second, 60)])
    lib.queue_tx_doorbell(rig.queue)
    assert rig.port.collect() == b"\0" * 60
    assert lib.queue_reclaim(rig.queue, rig.pool) == 2
    assert rig.queue.tx_bad == 1


def test_a_packet_larger_than_a_frame_cannot_be_delivered(rig: Rig) -> None:
    lib.queue_refill(rig.queue, rig.pool)
    assert rig.port.deliver(bytes(2048 - 256))
    with pytest.raises(ValueError, match="does not fit"):
        rig.port.deliver(bytes(2048 - 255))


def test_ring_sizes_must_be_powers_of_two(rig: Rig) -> None:
    for slots in (0, 3, 48):
        assert lib.memport_create(rig.umem.c, 0, 0, slots) == ffi.NULL


def test_every_frame_survives_many_wraps_of_the_ring(rig: Rig) -> None:
    for n in range(500):
        lib.queue_refill(rig.queue, rig.pool)
        packets = [bytes([n % 256, i]) * 30 for i in range(n % 65)]
        assert all(rig.port.deliver(packet) for packet in packets)
        assert rig.tx(rig.rx()) == len(packets)
        lib.queue_tx_doorbell(rig.queue)
        assert [rig.port.collect() for _ in packets] == packets
        assert lib.queue_reclaim(rig.queue, rig.pool) == len(packets)
    lib.queue_refill(rig.queue, rig.pool)
    assert rig.pool.n == FRAMES - 64
    assert len(set(rig.free())) == FRAMES - 64


def test_arm_says_how_many_packets_are_there(rig: Rig) -> None:
    lib.queue_refill(rig.queue, rig.pool)
    assert lib.queue_arm(rig.queue) == 0
    rig.port.deliver(b"x")
    assert lib.queue_arm(rig.queue) == 1
    lib.queue_disarm(rig.queue)


def test_no_wake_up_is_lost_between_arm_and_sleep(rig: Rig) -> None:
    """A thread delivers when it likes; the worker sleeps only when arm says 0, and must always wake."""
    total, seen = 3000, 0

    def deliver() -> None:
        for n in range(total):
            while not rig.port.deliver(n.to_bytes(4, "big")):
                pass

    thread = threading.Thread(target=deliver)
    poll = select.poll()
    poll.register(rig.queue.wait_fd, select.POLLIN)
    thread.start()
    while seen < total:
        lib.queue_refill(rig.queue, rig.pool)
        if not lib.queue_arm(rig.queue):
            assert poll.poll(20_000), f"slept for ever after {seen} packets"
        lib.queue_disarm(rig.queue)
        for addr, length in rig.rx(16):
            packet = ffi.buffer(rig.umem.c.base + addr, length)[:]
            assert int.from_bytes(packet, "big") == seen
            seen += 1
            lib.frame_pool_put(rig.pool, rig.umem.c, addr)
    thread.join()


class QueueAgainstDeques(RuleBasedStateMachine):
    """The rings beside plain deques that do the same."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(160)  # fewer than the rings and a burst can hold: the pool runs empty now and then
        self.on_fill = 0
        self.arrived: deque[bytes] = deque()
        self.mine: list[tuple[int, int]] = []
        self.put: deque[bytes] = deque()
        self.on_wire: deque[bytes] = deque()
        self.sent = 0
        self.serial = 0

    def teardown(self) -> None:
        self.rig.close()

    @rule()
    def refill(self) -> None:
        room = 64 - self.on_fill - len(self.arrived)
        expected = min(room, self.rig.pool.n)
        assert lib.queue_refill(self.rig.queue, self.rig.pool) == expected
        self.on_fill += expected

    @rule(n=st.integers(1, 80))
    def deliver(self, n: int) -> None:
        for _ in range(n):
            self.serial += 1
            packet = self.serial.to_bytes(4, "big") * (1 + self.serial % 40)
            assert self.rig.port.deliver(packet) == (self.on_fill > 0)
            if self.on_fill:
                self.on_fill -= 1
                self.arrived.append(packet)

    @rule(n=st.integers(0, 80))
    def receive(self, n: int) -> None:
        got = self.rig.rx(n)
        assert len(got) == min(n, len(self.arrived))
        for addr, length in got:
            packet = ffi.buffer(self.rig.umem.c.base + addr, length)[:]
            assert packet == self.arrived.popleft()
            self.mine.append((addr, length))

    @rule(n=st.integers(0, 80))
    def send(self, n: int) -> None:
        offered = self.mine[:n]
        taken = self.rig.tx(offered)
        assert taken == min(len(offered), 64 - len(self.put) - len(self.on_wire) - self.sent)
        for addr, length in offered[:taken]:
            self.put.append(ffi.buffer(self.rig.umem.c.base + addr, length)[:])
        del self.mine[:taken]

    @rule()
    def ring(self) -> None:
        lib.queue_tx_doorbell(self.rig.queue)
        self.on_wire.extend(self.put)
        self.put.clear()

    @rule(n=st.integers(1, 80))
    def collect(self, n: int) -> None:
        for _ in range(n):
            assert self.rig.port.collect() == (self.on_wire[0] if self.on_wire else None)
            if self.on_wire:
                self.on_wire.popleft()
                self.sent += 1

    @rule()
    def reclaim(self) -> None:
        assert lib.queue_reclaim(self.rig.queue, self.rig.pool) == self.sent
        self.sent = 0

    @rule()
    def drop(self) -> None:
        for addr, _ in self.mine:
            lib.frame_pool_put(self.rig.pool, self.rig.umem.c, addr)
        self.mine.clear()

    @invariant()
    def every_frame_is_somewhere(self) -> None:
        held = self.on_fill + len(self.arrived) + len(self.mine)
        held += len(self.put) + len(self.on_wire) + self.sent
        assert self.rig.pool.n + held == 160


QueueAgainstDeques.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestQueueAgainstDeques = QueueAgainstDeques.TestCase


def test_a_memory_port_behaves_like_any_port() -> None:
    umem = Umem(FRAMES, 4096, "off")
    port: Any = open_port("lan", 2, "mem:bench", umem, 2)
    assert (port.name, port.index, port.spec, port.kind, port.n_queues) == ("lan", 2, "mem:bench", "mem", 2)
    assert [(q.port, q.number) for q in port.queues()] == [(2, 0), (2, 1)]
    assert port.wire_ifindex is None
    assert port.max_mtu == 4096 - 256 - 18
    port.set_mtu(3000)
    port.set_mac(bytes.fromhex("02aabbccddee"))
    assert (port.mtu, port.mac.hex()) == (3000, "02aabbccddee")
    with pytest.raises(PortError, match="MTU 4000"):
        port.set_mtu(4000)
    with pytest.raises(PortError, match="not a unicast MAC"):
        port.set_mac(bytes.fromhex("01aabbccddee"))
    port.set_link(up=False)
    assert not port.link().up
    port.close()
    port.close()
    umem.close()


def test_reset_stats_has_counters_count_from_0_again() -> None:
    umem = Umem(64, 2048, "off")
    port = MemPort("p", 0, umem)
    port.queues()[0].tx_kicks += 3
    assert port.stats()["tx_kicks"] == 3
    port.reset_stats()
    assert port.stats()["tx_kicks"] == 0
    port.queues()[0].tx_kicks += 2
    assert port.stats()["tx_kicks"] == 2
    port.close()
    umem.close()
