"""driver/xsk.c with a kernel played by the test: the four rings in plain memory, a socket pair for the kicks.

What a real kernel never does (frames that were not given to it, indexes out of range) is tried here too.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import ffi, lib
from ixroute.driver.umem import Umem

SLOTS = 64
FRAMES = 200
WRAP = (1 << 32) - 5  # where the rings start: five packets before their indexes wrap


class FakeRing:
    """A ring as the kernel maps it: two indexes, flags, entries."""

    def __init__(self, entry: str, start: int) -> None:
        self.entry = struct.Struct(entry)
        self.memory = ffi.new("uint8_t[]", 192 + SLOTS * self.entry.size)
        self.bytes = ffi.buffer(self.memory)
        self.producer = self.consumer = start

    def word(self, at: int) -> int:
        return int(struct.unpack_from("=I", self.bytes, at)[0])

    @property
    def producer(self) -> int:
        return self.word(0)

    @producer.setter
    def producer(self, value: int) -> None:
        struct.pack_into("=I", self.bytes, 0, value & 0xFFFFFFFF)

    @property
    def consumer(self) -> int:
        return self.word(64)

    @consumer.setter
    def consumer(self, value: int) -> None:
        struct.pack_into("=I", self.bytes, 64, value & 0xFFFFFFFF)

    def set_need_wakeup(self, on: bool) -> None:
        struct.pack_into("=I", self.bytes, 128, int(on))

    def __len__(self) -> int:
        return (self.producer - self.consumer) & 0xFFFFFFFF

    def put(self, *values: int) -> None:
        self.entry.pack_into(self.bytes, 192 + self.producer % SLOTS * self.entry.size, *values)
        self.producer += 1

    def take(self) -> tuple[int, ...]:
        values = self.entry.unpack_from(self.bytes, 192 + self.consumer % SLOTS * self.entry.size)
        self.consumer += 1
        return values


class FakeKernel:
    def __init__(self, start: int = 0) -> None:
        self.umem = Umem(FRAMES, 2048, "off")
        self.pool = self.umem.pool(FRAMES)
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.theirs.setblocking(False)
        self.queue = lib.xsk_queue_create(self.umem.c, self.ours.fileno(), 5, 1)
        self.rx, self.tx = FakeRing("=QII", start), FakeRing("=QII", start)
        self.fill, self.done = FakeRing("=Q", start), FakeRing("=Q", start)
        self.tx.set_need_wakeup(True)
        for which, ring in enumerate((self.rx, self.tx, self.fill, self.done)):
            assert lib.xsk_queue_set_ring(self.queue, which, ring.memory, [0, 64, 192, 128], SLOTS) == 0
        self.burst = ffi.new("struct frame[256]")

    def refill(self) -> int:
        return int(lib.queue_refill(self.queue, self.pool))

    def reclaim(self) -> int:
        return int(lib.queue_reclaim(self.queue, self.pool))

    def receive(self, n: int = 256) -> list[tuple[int, int]]:
        n = lib.queue_rx_burst(self.queue, self.burst, n)
        return [(self.burst[i].addr, self.burst[i].len) for i in range(n)]

    def send(self, frames: list[tuple[int, int]]) -> int:
        for i, (addr, length) in enumerate(frames):
            self.burst[i] = {"addr": addr, "len": length}
        return int(lib.queue_tx_burst(self.queue, self.burst, len(frames)))

    def free(self, n: int) -> list[int]:
        out = ffi.new("uint64_t[]", n)
        return [out[i] for i in range(lib.frame_pool_get(self.pool, out, n))]

    def deliver(self, n: int = 1, length: int = 60) -> list[int]:
        """As __xsk_rcv does: a frame from the fill ring, a packet in it, a descriptor."""
        addrs = [self.fill.take()[0] + 256 for _ in range(n)]
        for addr in addrs:
            self.rx.put(addr, length, 0)
        return addrs

    def transmit(self) -> list[tuple[int, int]]:
        """As __xsk_generic_xmit does: sends what is in the ring and completes it."""
        sent = []
        while len(self.tx):
            addr, length, _ = self.tx.take()
            self.done.put(addr)
            sent.append((addr, length))
        return sent

    def kicks(self) -> int:
        n = 0
        while True:
            try:
                self.theirs.recv(16)
            except BlockingIOError:
                return n
            n += 1

    def everything(self) -> list[int]:
        """Every frame of pool and queue, after the queue was given up."""
        lib.xsk_queue_recover(self.queue, self.pool)
        return sorted(self.free(FRAMES + 10))

    def close(self) -> None:
        lib.xsk_queue_destroy(self.queue)
        self.ours.close()
        self.theirs.close()
        self.umem.close()


ALL = [i * 2048 for i in range(FRAMES)]


@pytest.fixture(params=[0, WRAP], ids=["from zero", "across the wrap of the indexes"])
def kernel(request: pytest.FixtureRequest) -> Iterator[FakeKernel]:
    kernel = FakeKernel(request.param)
    yield kernel
    kernel.close()


def test_packets_come_in_order_with_the_queues_port(kernel: FakeKernel) -> None:
    assert kernel.refill() == SLOTS
    addrs = kernel.deliver(10)
    assert kernel.receive(4) == [(addr, 60) for addr in addrs[:4]]
    assert kernel.receive() == [(addr, 60) for addr in addrs[4:]]
    assert (kernel.burst[0].port, kernel.burst[0].flags) == (5, 0)
    assert kernel.receive() == []
    assert len(kernel.rx) == 0  # the kernel sees that they were taken


def test_the_kernel_never_holds_more_frames_than_the_rx_ring_has_slots(kernel: FakeKernel) -> None:
    assert kernel.refill() == SLOTS
    kernel.deliver(30)
    assert kernel.refill() == 0
    assert len(kernel.receive(7)) == 7
    assert kernel.refill() == 7


def test_a_pool_that_runs_empty_is_counted(kernel: FakeKernel) -> None:
    kernel.free(FRAMES - 10)
    assert kernel.refill() == 10
    assert kernel.queue.rx_no_frame == 1


def test_sent_frames_come_back_once(kernel: FakeKernel) -> None:
    frames = [(addr, 60) for addr in kernel.free(10)]
    assert kernel.send(frames) == 10
    assert kernel.reclaim() == 0
    assert kernel.transmit() == frames
    assert kernel.reclaim() == 10
    assert kernel.reclaim() == 0
    assert kernel.everything() == ALL


def test_the_tx_ring_takes_no_more_than_completions_have_room_for(kernel: FakeKernel) -> None:
    frames = [(addr, 60) for addr in kernel.free(100)]
    assert kernel.send(frames) == SLOTS
    kernel.transmit()
    assert kernel.send(frames[SLOTS:]) == 0
    assert kernel.reclaim() == SLOTS
    assert kernel.send(frames[SLOTS:]) == 100 - SLOTS


def test_the_doorbell_calls_the_kernel_only_for_outstanding_packets(kernel: FakeKernel) -> None:
    lib.queue_tx_doorbell(kernel.queue)
    assert kernel.kicks() == 0
    kernel.send([(kernel.free(1)[0], 60)])
    lib.queue_tx_doorbell(kernel.queue)
    assert kernel.kicks() == 1
    lib.queue_tx_doorbell(kernel.queue)  # the kernel did not move: what is outstanding is remembered
    assert kernel.kicks() == 1
    kernel.transmit()
    lib.queue_tx_doorbell(kernel.queue)
    assert kernel.kicks() == 0
    assert kernel.queue.tx_kicks == 2


def test_the_doorbell_does_not_call_a_kernel_that_is_awake(kernel: FakeKernel) -> None:
    kernel.tx.set_need_wakeup(False)
    kernel.send([(kernel.free(1)[0], 60)])
    lib.queue_tx_doorbell(kernel.queue)
    assert kernel.kicks() == 0
    kernel.tx.set_need_wakeup(True)  # it went to sleep before it saw the packet
    assert lib.queue_arm(kernel.queue) == 0
    assert kernel.kicks() == 1


def test_a_kernel_that_says_again_is_called_a_bounded_number_of_times(kernel: FakeKernel) -> None:
    kernel.ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            kernel.ours.send(b"")  # until the pair's queue is full: then sendto says EAGAIN
    kernel.send([(addr, 60) for addr in kernel.free(SLOTS)])
    lib.queue_tx_doorbell(kernel.queue)
    assert 2 <= kernel.queue.tx_kicks <= SLOTS // 32 + 2
    assert kernel.queue.tx_refused == 1
    assert lib.queue_arm(kernel.queue) == 1  # must not sleep on packets that the kernel has not taken
    kernel.kicks()
    lib.queue_tx_doorbell(kernel.queue)
    assert kernel.queue.tx_refused == 2


def test_an_interface_that_is_down_lets_the_worker_sleep(kernel: FakeKernel) -> None:
    kernel.theirs.close()  # sendto says ECONNREFUSED, as lasting as ENETDOWN
    kernel.send([(kernel.free(1)[0], 60)])
    assert lib.queue_arm(kernel.queue) == 0
    assert (kernel.queue.tx_kicks, kernel.queue.tx_refused) == (1, 1)


def test_the_fill_ring_is_kicked_as_long_as_the_kernel_asks(kernel: FakeKernel) -> None:
    kernel.refill()
    assert kernel.queue.rx_kicks == 0
    kernel.fill.set_need_wakeup(True)
    assert kernel.refill() == 0  # full already, and yet the kernel waits for a call
    assert kernel.queue.rx_kicks == 1
    lib.queue_arm(kernel.queue)
    assert kernel.queue.rx_kicks == 2
    kernel.fill.set_need_wakeup(False)
    kernel.refill()
    assert kernel.queue.rx_kicks == 2


def test_arm_says_how_many_packets_are_there(kernel: FakeKernel) -> None:
    kernel.refill()
    assert lib.queue_arm(kernel.queue) == 0
    kernel.deliver(3)
    assert lib.queue_arm(kernel.queue) == 3
    lib.queue_disarm(kernel.queue)
    assert len(kernel.receive()) == 3


@pytest.mark.parametrize(
    "addr", [FRAMES * 2048, FRAMES * 2048 + 256, 1 << 48, (1 << 64) - 1], ids=["end", "after", "far", "last"]
)
def test_a_received_address_outside_umem_is_counted_and_skipped(kernel: FakeKernel, addr: int) -> None:
    kernel.refill()
    kernel.rx.put(addr, 60, 0)
    good = kernel.deliver(1)
    assert kernel.receive() == [(good[0], 60)]
    assert kernel.queue.rx_bad == 1


@pytest.mark.parametrize("length", [0, 2048 - 255, 65535, (1 << 32) - 1])
def test_a_received_length_that_leaves_the_frame_is_counted_and_the_frame_kept(
    kernel: FakeKernel, length: int
) -> None:
    kernel.refill()
    kernel.deliver(1, length)
    assert kernel.receive() == []
    assert kernel.queue.rx_bad == 1
    free = kernel.pool.n
    assert kernel.reclaim() == 0, "nothing was sent"
    assert kernel.pool.n == free + 1
    assert kernel.everything() == ALL


def test_a_frame_that_the_kernel_gives_twice_is_taken_once(kernel: FakeKernel) -> None:
    kernel.refill()
    (addr,) = kernel.deliver(1)
    kernel.rx.put(addr, 60, 0)
    kernel.rx.put(addr + 64, 60, 0)
    assert kernel.receive() == [(addr, 60)]
    assert kernel.queue.rx_bad == 2
    lib.frame_pool_put(kernel.pool, kernel.umem.c, addr)
    assert kernel.everything() == ALL


def test_a_frame_that_was_never_given_to_the_kernel_is_not_taken_from_it(kernel: FakeKernel) -> None:
    mine = kernel.free(1)[0]
    kernel.refill()
    kernel.rx.put(mine + 256, 60, 0)
    assert kernel.receive() == []
    kernel.send([(kernel.free(1)[0], 60)])
    kernel.done.put(mine)
    assert kernel.reclaim() == 0
    assert (kernel.queue.rx_bad, kernel.queue.tx_bad) == (1, 1)


def test_indexes_that_run_ahead_of_the_ring_give_nothing(kernel: FakeKernel) -> None:
    kernel.refill()
    kernel.rx.producer = kernel.rx.producer + SLOTS + 1
    kernel.send([(kernel.free(1)[0], 60)])
    kernel.done.producer = kernel.done.producer + 5 * SLOTS
    assert kernel.receive() == []
    assert kernel.reclaim() == 0


def test_a_packet_that_the_kernel_would_not_take_is_counted_and_its_frame_comes_back(
    kernel: FakeKernel,
) -> None:
    addrs = kernel.free(4)
    frames = [(addrs[0], 0), (addrs[1], 60), (addrs[2] + 100, 2048), (addrs[3] + 2047, 1)]
    assert kernel.send([*frames, (1 << 50, 60)]) == 5
    assert kernel.transmit() == [frames[1], frames[3]]
    assert kernel.queue.tx_bad == 3
    assert kernel.reclaim() == 4
    assert kernel.everything() == ALL


def test_recover_finds_the_frames_wherever_they_are(kernel: FakeKernel) -> None:
    kernel.refill()
    kernel.deliver(20)
    kernel.deliver(5, length=0)
    mine = kernel.receive(22)
    kernel.send(mine[:10])
    for _ in range(4):
        kernel.done.put(kernel.tx.take()[0])
    for addr, _ in mine[10:]:
        lib.frame_pool_put(kernel.pool, kernel.umem.c, addr)
    assert lib.xsk_queue_frames(kernel.queue) + kernel.pool.n == FRAMES
    assert kernel.everything() == ALL
    assert lib.xsk_queue_frames(kernel.queue) == 0


def test_a_queue_without_a_tx_ring_sends_nothing_and_keeps_working() -> None:
    kernel = FakeKernel()
    lib.xsk_queue_destroy(kernel.queue)
    kernel.queue = lib.xsk_queue_create(kernel.umem.c, kernel.ours.fileno(), 5, 1)
    for which, ring in ((lib.XSK_RX, kernel.rx), (lib.XSK_FILL, kernel.fill)):
        assert lib.xsk_queue_set_ring(kernel.queue, which, ring.memory, [0, 64, 192, 128], SLOTS) == 0
    kernel.refill()
    kernel.deliver(2)
    mine = kernel.receive()
    assert kernel.send(mine) == 0
    lib.queue_tx_doorbell(kernel.queue)
    assert kernel.reclaim() == 0
    assert lib.queue_arm(kernel.queue) == 0
    assert kernel.kicks() == 0
    kernel.close()


def test_rings_of_impossible_size_are_refused(kernel: FakeKernel) -> None:
    for which, slots in ((4, 64), (0, 0), (0, 48)):
        error = lib.xsk_queue_set_ring(kernel.queue, which, kernel.rx.memory, [0, 64, 192, 128], slots)
        assert error == -errno.EINVAL


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("refill"), st.just(0)),
            st.tuples(st.just("deliver"), st.integers(1, SLOTS)),
            st.tuples(st.just("lie"), st.integers(0, FRAMES * 2048 + 4096)),
            st.tuples(st.just("forward"), st.integers(1, 100)),
            st.tuples(st.just("transmit"), st.just(0)),
            st.tuples(st.just("complete a lie"), st.integers(0, FRAMES * 2048 + 4096)),
            st.tuples(st.just("reclaim"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_no_frame_is_lost_or_doubled_whatever_the_kernel_says(steps: list[tuple[str, int]]) -> None:
    kernel = FakeKernel(WRAP)
    for step, n in steps:
        if step == "refill":
            kernel.refill()
        elif step == "deliver":
            kernel.deliver(min(n, len(kernel.fill), SLOTS - len(kernel.rx)))
        elif step == "lie" and len(kernel.rx) < SLOTS:
            kernel.rx.put(n, n % 3000, 0)
        elif step == "forward":
            mine = kernel.receive(n)
            for addr, _ in mine[kernel.send(mine) :]:
                lib.frame_pool_put(kernel.pool, kernel.umem.c, addr)
        elif step == "transmit":
            while len(kernel.tx) and len(kernel.done) < SLOTS:
                kernel.done.put(kernel.tx.take()[0])
        elif step == "complete a lie" and len(kernel.done) < SLOTS:
            kernel.done.put(n)
        elif step == "reclaim":
            kernel.reclaim()
        assert lib.xsk_queue_frames(kernel.queue) + kernel.pool.n == FRAMES
    assert kernel.everything() == ALL
    kernel.close()
