"""The kernel's door, with datagram sockets in place of TAPs: each end gives and takes whole packets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.driver.umem import Umem
from ixroute.tap.door import Door

FRAME_BYTES = 2048
HEADROOM = 256
PATIENCE = 10.0


def eventually(condition: Callable[[], object]) -> None:
    """Bounded: fails after PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.0005)


@dataclass
class Bench:
    """A door with `lanes` workers' lanes and two ports; the test plays the workers and the kernel."""

    lanes: int = 2
    kernel: dict[tuple[int, int], socket.socket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.umem = Umem(4096, FRAME_BYTES, "off")
        self.door = Door(self.umem.c, self.lanes)
        self.ours: list[socket.socket] = []
        for port in range(2):
            fds = []
            for lane in range(self.lanes):
                ours, self.kernel[port, lane] = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                for end in (ours, self.kernel[port, lane]):
                    end.setblocking(False)
                self.ours.append(ours)
                fds.append(ours.fileno())
            self.door.add_port(port, fds)
        self.free = [n * FRAME_BYTES for n in range(4096)]
        self._frames: Any = ffi.new("struct frame[]", lib.LANE_SLOTS)

    def ring(self, lane: int, name: str) -> Any:
        return ffi.addressof(self.door.lanes[lane], name)

    def punt(self, packet: bytes, port: int = 0, lane: int = 0) -> bool:
        """What a worker does: into the ring, then the door is woken if it sleeps."""
        frame = self._frames[0]
        frame.addr, frame.len, frame.port, frame.flags = self.free[-1] + HEADROOM, len(packet), port, 0
        ffi.memmove(self.umem.c.base + frame.addr, packet, len(packet))
        if not lib.frame_ring_put(self.ring(lane, "punt"), self._frames, 1):
            return False
        self.free.pop()
        if self.door.lanes[lane].door_asleep:
            os.write(self.door.lanes[lane].door_event, (1).to_bytes(8, "little"))
        return True

    def stock(self, n: int, lane: int = 0) -> None:
        """Free frames for the door to read into."""
        for i in range(n):
            self._frames[i] = {"addr": self.free.pop()}
        assert lib.frame_ring_put(self.ring(lane, "inject_free"), self._frames, n) == n

    def count(self, name: str, lane: int = 0) -> int:
        return int(lib.frame_ring_count(self.ring(lane, name)))

    def take(self, name: str, lane: int = 0) -> list[tuple[int, int, bytes]]:
        """All of a ring: port, flags, packet; the frames are free again."""
        n = lib.frame_ring_get(self.ring(lane, name), self._frames, lib.LANE_SLOTS)
        out = []
        for frame in self._frames[0:n]:
            packet = bytes(ffi.buffer(self.umem.c.base + frame.addr, frame.len))
            out.append((int(frame.port), int(frame.flags), packet))
            self.free.append(frame.addr // FRAME_BYTES * FRAME_BYTES)
        return out

    def received(self, port: int, lane: int = 0) -> list[bytes]:
        """All that the kernel got."""
        out = []
        try:
            while True:
                out.append(self.kernel[port, lane].recv(4096))
        except BlockingIOError:
            return out

    def close(self) -> None:
        assert self.door.stop(PATIENCE)
        for lane in range(self.lanes):
            for name in ("punt", "punt_done", "inject", "inject_free"):
                self.take(name, lane)
        assert sorted(self.free) == [n * FRAME_BYTES for n in range(4096)], "every frame came home, once"
        self.door.close()
        self.umem.close()
        for end in [*self.ours, *self.kernel.values()]:
            end.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_punted_packet_reaches_the_tap_of_its_port_and_lane_unchanged(bench: Bench) -> None:
    for port in range(2):
        for lane in range(2):
            bench.punt(b"packet of %d, %d" % (port, lane), port, lane)
    assert bench.door.poll_once() == 4
    for port in range(2):
        for lane in range(2):
            assert bench.received(port, lane) == [b"packet of %d, %d" % (port, lane)]
    assert [len(bench.take("punt_done", lane)) for lane in range(2)] == [2, 2]
    assert bench.door.counters(0)["written_packets"] == 2
    assert bench.door.counters(1)["written_bytes"] == 2 * len(b"packet of 0, 0")


def test_packets_stay_in_order_and_a_pass_is_bounded(bench: Bench) -> None:
    bench.kernel[0, 0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    packets = [b"%03d" % n for n in range(100)]
    for packet in packets:
        bench.punt(packet)
    got, passes = [], 0
    while len(got) < 100:
        assert bench.door.poll_once() <= 64
        got += bench.received(0)
        passes += 1
    assert got == packets
    assert passes >= 2


def test_what_the_tap_does_not_take_is_counted_and_its_frame_returned(bench: Bench) -> None:
    sent = 0
    while sent < 600:
        sent += bench.punt(b"x" * 1000)
        bench.door.poll_once()
    counters = bench.door.counters(0)
    assert counters["write_failed"] > 0
    assert counters["written_packets"] + counters["write_failed"] == 600
    assert bench.count("punt_done") == 600
    assert len(bench.received(0)) == counters["written_packets"]


def test_a_packet_for_a_port_without_tap_is_counted(bench: Bench) -> None:
    bench.punt(b"lost", port=9)
    bench.door.poll_once()
    assert bench.count("punt_done") == 1
    with pytest.raises(ValueError, match="no port 9"):
        bench.door.counters(9)
    assert lib.tap_door_counters(bench.door.c, 9).write_failed == 1


def test_a_packet_from_the_kernel_reaches_the_lane_of_its_descriptor(bench: Bench) -> None:
    for lane in range(2):
        bench.stock(4, lane)
    for port in range(2):
        for lane in range(2):
            bench.kernel[port, lane].send(b"from %d, %d" % (port, lane))
    assert bench.door.poll_once() == 4
    for lane in range(2):
        assert bench.take("inject", lane) == [(port, 1, b"from %d, %d" % (port, lane)) for port in range(2)]
        assert bench.count("inject_free", lane) == 2
    assert bench.door.counters(0)["read_packets"] == 2
    assert bench.door.counters(1)["read_bytes"] == 2 * len(b"from 0, 0")


def test_a_read_packet_has_headroom_before_it(bench: Bench) -> None:
    bench.stock(1)
    bench.kernel[0, 0].send(b"packet")
    bench.door.poll_once()
    assert lib.frame_ring_get(bench.ring(0, "inject"), bench._frames, 1) == 1
    assert bench._frames[0].addr % FRAME_BYTES == HEADROOM
    bench.free.append(bench._frames[0].addr - HEADROOM)


@pytest.mark.parametrize(
    ("length", "fits"), [(FRAME_BYTES - HEADROOM - 1, True), (FRAME_BYTES - HEADROOM, False)]
)
def test_a_packet_that_does_not_fit_a_frame_is_counted_and_its_frame_kept(
    bench: Bench, length: int, fits: bool
) -> None:
    bench.stock(3)
    bench.kernel[0, 0].send(bytes(length))
    bench.kernel[0, 0].send(b"next")
    bench.door.poll_once()
    expected = [bytes(length), b"next"] if fits else [b"next"]
    assert [packet for _, _, packet in bench.take("inject")] == expected
    assert bench.door.counters(0)["read_too_long"] == (not fits)
    assert bench.count("inject_free") == 3 - len(expected)


def test_without_free_frames_packets_wait_in_the_tap(bench: Bench) -> None:
    bench.stock(2)
    packets = [b"%d" % n for n in range(5)]
    for packet in packets:
        bench.kernel[0, 0].send(packet)
    got: list[bytes] = []
    bench.door.poll_once()
    got += [packet for _, _, packet in bench.take("inject")]
    assert got == packets[:2]
    assert bench.door.poll_once() == 0
    bench.stock(10)
    eventually(lambda: bench.door.poll_once(1))
    got += [packet for _, _, packet in bench.take("inject")]
    assert got == packets


def test_a_full_inject_ring_stops_the_reading(bench: Bench) -> None:
    for _ in range(4):
        bench.stock(256)
    bench._frames[0] = {"addr": bench.free.pop(), "len": 1}
    while lib.frame_ring_put(bench.ring(0, "inject"), bench._frames, 1):
        bench._frames[0] = {"addr": bench.free.pop(), "len": 1}
    bench.free.append(bench._frames[0].addr)
    bench.kernel[0, 0].send(b"waits")
    for _ in range(3):
        assert bench.door.poll_once(1) == 0
    assert len(bench.take("inject")) == lib.LANE_SLOTS
    eventually(lambda: bench.door.poll_once(1))
    assert bench.take("inject") == [(0, 1, b"waits")]


def test_a_dead_tap_is_counted_and_the_others_are_served(bench: Bench) -> None:
    bench.stock(10)
    directory = os.open("/", os.O_RDONLY)  # neither readable nor writable
    os.dup2(directory, bench.ours[0].fileno())
    os.close(directory)
    for n in range(5):
        bench.punt(b"lost")
        bench.punt(b"kept %d" % n, 1)
        bench.kernel[1, 0].send(b"from 1")
        bench.door.poll_once()
    assert bench.door.counters(0)["write_failed"] == 5
    assert bench.door.counters(0)["read_failed"] >= 1
    assert bench.received(1) == [b"kept %d" % n for n in range(5)]
    assert bench.take("inject") == [(1, 1, b"from 1")] * 5


def test_a_sleeping_worker_is_woken_once(bench: Bench) -> None:
    lane = bench.door.lanes[0]
    bench.stock(10)
    lane.worker_asleep = 1
    for _ in range(3):
        bench.kernel[0, 0].send(b"packet")
        bench.door.poll_once()
    assert lane.worker_asleep == 0
    assert os.read(lane.worker_event, 8) == (1).to_bytes(8, "little")
    with pytest.raises(BlockingIOError):
        os.read(lane.worker_event, 8)


def test_a_waking_worker_is_left_alone(bench: Bench) -> None:
    bench.stock(1)
    bench.kernel[0, 0].send(b"packet")
    bench.door.poll_once()
    with pytest.raises(BlockingIOError):
        os.read(bench.door.lanes[0].worker_event, 8)


def test_a_door_in_its_thread_serves_both_ways(bench: Bench) -> None:
    bench.door.start()
    assert bench.door.alive
    for n in range(200):
        bench.stock(1)
        bench.punt(b"down %d" % n)
        bench.kernel[1, 0].send(b"up %d" % n)
        eventually(lambda: bench.count("punt_done") and bench.count("inject"))
        assert bench.received(0) == [b"down %d" % n]
        assert bench.take("inject") == [(1, 1, b"up %d" % n)]
        bench.take("punt_done")


def test_an_idle_door_keeps_its_heartbeat(bench: Bench) -> None:
    bench.door.start()
    before = bench.door.passes
    eventually(lambda: bench.door.passes > before + 1)


def test_a_door_stops_and_opens_again(bench: Bench) -> None:
    for n in range(3):
        bench.door.start()
        bench.punt(b"%d" % n)
        eventually(lambda sofar=n: bench.count("punt_done") == sofar + 1)  # type: ignore[misc]
        assert bench.door.stop(PATIENCE)
        assert not bench.door.alive


def test_a_stop_before_the_thread_has_begun_counts(bench: Bench) -> None:
    lib.tap_door_stop(bench.door.c)
    assert lib.tap_door_run(bench.door.c) == 0


def test_wrong_use_is_refused(bench: Bench) -> None:
    fds = [0, 1]
    for port, wrong in [(0, fds), (64, fds), (2, [0]), (2, [0, 1, 2])]:
        with pytest.raises(ValueError, match=f"port {port}"):
            bench.door.add_port(port, wrong)
    with pytest.raises(ValueError, match="lanes"):
        Door(bench.umem.c, 0)
    with pytest.raises(ValueError, match="lanes"):
        Door(bench.umem.c, 65)
    bench.door.start()
    for refused in (bench.door.start, bench.door.poll_once, bench.door.close):
        with pytest.raises(RuntimeError):
            refused()
    with pytest.raises(RuntimeError):
        bench.door.add_port(5, fds)
