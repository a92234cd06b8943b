"""Our driver on emulated cards over their sockets: two cards on one cable, each other's partner; and what happens when
the driver's process or the emulator's is killed in the midst of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.driver.port import PortError, PortOptions
from lab.echo import Echo
from lab.emulated import Emulated, emulated
from lab.emulated_port import numbered
from lab.socket_port import SocketPort
from lab.support import wait_until

FIRST, SECOND = bytes.fromhex("025990000001"), bytes.fromhex("025990000002")
CABLE = ["pair:a", "pair:a"]
MACS = ("--mac", "02:59:90:00:00:01")


@contextmanager
def two_ports(
    directory: Path, queues: int = 1, options: PortOptions | None = None, frame_bytes: int = 4096
) -> Iterator[tuple[SocketPort, SocketPort]]:
    with emulated(directory, CABLE, *MACS) as cards:
        a_socket, b_socket = cards.sockets
        with (
            SocketPort(a_socket, queues, options, frame_bytes) as a,
            SocketPort(b_socket, queues, options, frame_bytes) as b,
        ):
            for side in (a, b):
                wait_until(lambda side=side: bool(side.port.service()) or side.port.link().up, 30, "link")
            yield a, b
            a.close()
            b.close()
    assert cards.said().count("dma_faults 0") == 2, cards.said()
    assert "bad_descriptors" not in cards.said(), cards.said()


def collected(side: SocketPort, n: int) -> list[list[bytes]]:
    """n packets, by queue."""
    got: list[list[bytes]] = [[] for _ in side.queues]

    def more() -> bool:
        for mine, new in zip(got, side.receive_all(), strict=True):
            mine.extend(new)
        return sum(map(len, got)) >= n

    wait_until(more, 30, lambda: f"{sum(map(len, got))} of {n} packets came: {side.port.stats()}")
    return got


def all_sent(side: SocketPort) -> None:
    def done() -> bool:
        side.refill()
        return side.port.stats()["tx_packets_mac"] == side.sent.packets

    wait_until(done, 30, lambda: f"sent {side.sent}: {side.port.stats()}")


@pytest.mark.parametrize("queues", [1, 4, 16])
def test_packets_cross_both_ways_on_all_queues_and_both_cards_count_the_same(
    tmp_path: Path, queues: int
) -> None:
    with two_ports(tmp_path, queues) as (a, b):
        for round_ in range(20):
            for side, to in ((a, SECOND), (b, FIRST)):
                for q in range(queues):
                    packets = [
                        numbered(2654435761 * (1000 * round_ + 64 * q + i), 60 + i, to) for i in range(8)
                    ]
                    assert side.send(q, *packets) == 8
            for side in (a, b):
                got = collected(side, 8 * queues)
                assert sum(map(len, got)) == 8 * queues
        for side, partner in ((a, b), (b, a)):
            all_sent(side)
            sent, received = side.port.stats(), partner.port.stats()
            assert (
                sent["tx_packets_mac"]
                == received["rx_packets_mac"]
                == partner.received.packets
                == side.sent.packets
            )
            assert sent["tx_bytes_mac"] == received["rx_bytes_mac"] == side.sent.bytes + 4 * side.sent.packets
            assert [sent[f"tx_queue_{q}_packets"] for q in range(queues)] == [160] * queues
            in_queues = [received[f"rx_queue_{q}_packets"] for q in range(queues)]
            assert sum(in_queues) == partner.received.packets
            assert all(in_queues)
            assert received["rx_missed"] == 0


def test_jumbos_cross_and_one_that_is_too_long_for_the_partner_is_counted_there(tmp_path: Path) -> None:
    with two_ports(tmp_path, frame_bytes=16384) as (a, b):
        a.port.set_mtu(9000)
        b.port.set_mtu(8000)
        assert b.port.link().up  # a read: writes are posted, and the partner's packets come another way
        jumbos = [numbered(i, 8014 - i, SECOND) for i in range(20)]
        assert a.send(0, numbered(99, 8023, SECOND), *jumbos, numbered(98, 9014, SECOND)) == 22
        assert collected(b, 20) == [jumbos]
        all_sent(a)
        wait_until(lambda: b.port.stats()["rx_oversize"] == 2, 30, "both are counted")


def test_a_worker_that_sleeps_is_woken_across_processes(tmp_path: Path) -> None:
    quick = PortOptions(rx_slots=64, tx_slots=64, interrupt_us=2)
    with two_ports(tmp_path, options=quick) as (a, b), Echo(b.queues[0], b.pools[0], idle_ns=0) as worker:
        a.port.set_promiscuous(True)  # what comes back is addressed to the partner

        def back(n: int) -> bool:
            lib.queues_wait(a.queues, 1, 50)
            a.receive_all()
            return a.received.packets >= n

        for i in range(500):
            assert a.send(0, numbered(i, to=SECOND)) == 1
            wait_until(
                lambda i=i: back(i + 1), 30, lambda i=i: f"packet {i}; the worker has {worker.received}"
            )
        assert worker.received == worker.sent == 500


def test_a_card_is_reset_and_changed_while_packets_cross(tmp_path: Path) -> None:
    with two_ports(tmp_path) as (a, b):
        a.port.set_promiscuous(True)
        with Echo(b.queues[0], b.pools[0], idle_ns=0) as worker:
            for round_ in range(4):
                before = worker.received
                while worker.received < before + 50:
                    a.send(0, *[numbered(i, to=SECOND) for i in range(8)])
                    a.receive_all()
                if round_ % 2:
                    b.port.set_mtu(2000 + round_)
                else:
                    b.port.reset()
                wait_until(lambda: bool(b.port.service()) or b.port.link().up, 30, "the link is back")
        assert b.port.stats()["resets"] == 2
        all_sent(a)


CLIENT = """
import sys
sys.path.insert(0, sys.argv[2])
from lab.echo import Echo
from lab.socket_port import SocketPort
side = SocketPort(sys.argv[1])
with Echo(side.queues[0], side.pools[0], idle_ns=0):
    print("there", flush=True)
    while True:
        side.port.service()
        side.port.stats()
"""


def test_a_driver_that_is_killed_under_traffic_leaves_a_card_that_the_next_one_uses(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    with emulated(tmp_path, CABLE, *MACS) as cards, SocketPort(cards.sockets[0]) as a:
        a.port.set_promiscuous(True)
        for _ in range(3):
            client = subprocess.Popen(
                [sys.executable, "-c", CLIENT, cards.sockets[1], tests], stdout=subprocess.PIPE
            )
            assert client.stdout is not None
            assert client.stdout.readline() == b"there\n"
            back = 0

            def echoed() -> bool:
                nonlocal back
                a.port.service()
                a.send(0, *[numbered(i, to=SECOND) for i in range(8)])
                back += sum(map(len, a.receive_all()))
                return back > 200

            wait_until(echoed, 30, lambda: f"200 packets come back: {a.port.stats()}, {cards.said()}")
            client.send_signal(signal.SIGKILL)
            client.wait()
            client.stdout.close()
            # Nobody is at the other end: what is sent falls on the floor, and this card goes on.
            enough = a.sent.packets + 1000

            def sent_on(enough: int = enough) -> bool:
                a.receive_all()
                a.send(0, *[numbered(i, to=SECOND) for i in range(32)])
                return a.sent.packets > enough

            wait_until(sent_on, 30, lambda: f"the partner's death stops nobody: {a.port.stats()}")
        all_sent(a)
        a.close()
    assert cards.said().count("dma_faults 0") == 2, cards.said()


def test_an_emulator_that_is_killed_is_a_port_error_and_the_worker_goes_on_without_it(tmp_path: Path) -> None:
    cards = Emulated(tmp_path, ["discard"])
    cards.wait_ready()
    with SocketPort(cards.sockets[0]) as side:
        queue, pool = side.queues[0], side.pools[0]
        side.send(0, *[numbered(i) for i in range(8)])
        passes = 0
        stop = threading.Event()

        def work() -> None:
            nonlocal passes
            frames = ffi.new("struct frame[]", 8)
            while not stop.is_set():
                lib.queue_reclaim(queue, pool)
                lib.queue_refill(queue, pool)
                assert lib.queue_rx_burst(queue, frames, 8) == 0
                lib.queue_tx_doorbell(queue)
                lib.queues_wait([queue], 1, 1)
                passes += 1

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            wait_until(lambda: passes > 10, 30, "the worker runs")
            assert cards.end(signal.SIGKILL) == -signal.SIGKILL
            for call in (side.port.service, side.port.reset, lambda: side.port.set_mtu(1000)):
                with pytest.raises(PortError, match=r"ixroute emulate|gone"):
                    call()
            assert not side.port.link().up
            after = passes
            wait_until(lambda: passes > after + 50, 30, "the worker goes on")
            assert side.port.stats()["tx_packets_mac"] <= 8
        finally:
            stop.set()
            worker.join(30)
        assert not worker.is_alive()
        taken = side.send(0, *[numbered(i) for i in range(200)])  # as much as the ring holds, and no crash
        assert taken <= 255
        side.close()
    with emulated(tmp_path, ["discard"]) as again, SocketPort(again.sockets[0]) as side:
        assert side.send(0, numbered(1)) == 1
        all_sent(side)
        side.close()
