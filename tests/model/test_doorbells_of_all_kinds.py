"""Our driver on cards whose tails it reaches otherwise: mapped registers without an event, messages on the socket."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ixroute._dataplane import lib
from ixroute.driver.port import PortOptions
from ixroute.emulator.card import CardOptions
from lab.emulated import emulated
from lab.emulated_port import EmulatedPort
from lab.packets import ethernet

KINDS = {"mapped": CardOptions(map_bar=True), "messages": CardOptions()}
TAILS = (0x1018, 0x6018)
SECONDS = 20.0
ROUNDS, BURST = 60, 20


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest) -> Iterator[EmulatedPort]:
    """The engine runs in its thread; receive() and send() are the worker."""
    options = PortOptions(rx_slots=64, tx_slots=64)
    with EmulatedPort(2, options, KINDS[request.param], socket=True, events=False, sleeps=True) as rig:
        rig.engine.start()
        yield rig
        rig.engine.stop()


def packet(number: int) -> bytes:
    return ethernet("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", 0x88B5, number.to_bytes(4, "big") + bytes(46))


def until(met: object, what: str) -> None:
    limit = time.monotonic() + SECONDS
    while not met():  # type: ignore[operator]
        assert time.monotonic() < limit, what
        time.sleep(0.0002)


def fill(rig: EmulatedPort) -> None:
    """The card has buffers: what comes before it has heard of them is dropped."""
    rig.refill()
    bar = rig.transport.map_bar(0)
    until(lambda: bar.read32(TAILS[0]) and bar.read32(TAILS[0] + 0x40), "the card hears of its buffers")


def receive(rig: EmulatedPort, n: int) -> list[bytes]:
    got: list[bytes] = []

    def enough() -> bool:
        for q in range(2):
            got.extend(rig.receive(q))
        rig.refill()
        return len(got) >= n

    until(enough, f"{n} packets arrive")
    return got


def send(rig: EmulatedPort, packets: list[bytes]) -> list[bytes]:
    """By queue 1; what came out on the wire."""
    sent, out = 0, list[bytes]()

    def all_out() -> bool:
        nonlocal sent
        rig.refill()
        sent += rig.send(1, *packets[sent : sent + 16]) if sent < len(packets) else 0
        out.extend(rig.collect())
        return len(out) >= len(packets)

    until(all_out, f"{len(packets)} packets leave")
    return out


def test_every_packet_passes_both_ways_in_order(rig: EmulatedPort, request: pytest.FixtureRequest) -> None:
    bells = [rig.transport.map_bar(0).bell(tail) for tail in TAILS]
    mapped = "mapped" in request.node.name
    assert all((bell.socket < 0) == mapped and bell.event < 0 for bell in bells)
    fill(rig)
    messages = rig.server.counters.messages
    for round_ in range(ROUNDS):
        packets = [packet(round_ * BURST + i) for i in range(BURST)]
        rig.deliver(*packets)
        assert receive(rig, BURST) == packets
        assert send(rig, packets) == packets
    if mapped:
        assert rig.server.counters.messages == messages
    else:
        assert rig.server.counters.messages > messages
    counts = rig.card.counters()
    assert (counts["rx_packets"], counts["tx_packets"]) == (ROUNDS * BURST, ROUNDS * BURST)
    assert (counts["dma_faults"], counts["bad_descriptors"]) == (0, 0)


def test_queues_are_switched_off_and_on_under_traffic(rig: EmulatedPort) -> None:
    """RXDCTL and TXDCTL are among what is mapped: the engine finds out by itself."""
    fill(rig)
    for round_ in range(5):
        rig.deliver(*[packet(i) for i in range(30)])
        rig.send(1, *[packet(i) for i in range(30)])
        rig.port.reset(workers_run=False)
        while rig.receive(0) or rig.receive(1) or rig.collect():
            rig.refill()
        rig.refill()
        packets = [packet(1000 * round_ + i) for i in range(BURST)]
        until(lambda: rig.port.link().up, "the link comes back")
        rig.deliver(*packets)
        assert receive(rig, BURST)[-BURST:] == packets
        assert send(rig, packets)[-BURST:] == packets
    counts = rig.card.counters()
    assert (counts["dma_faults"], counts["bad_descriptors"]) == (0, 0)


def test_a_full_socket_is_tried_again_and_nothing_is_lost() -> None:
    """The server stands still until the socket takes no message any more, and the ring no packet."""
    options = PortOptions(rx_slots=64, tx_slots=4096)
    with EmulatedPort(1, options, socket=True, events=False) as rig:
        rig.engine.start()
        rig.refill()
        queue = rig.queues[0]
        sent = 0
        with rig.card._lock:
            while not queue.tx_refused:
                assert rig.send(0, packet(sent)) == 1, "the ring is full before the socket is"
                sent += 1
            for _ in range(100):
                lib.queue_tx_doorbell(queue)
            refused = int(queue.tx_refused)
        assert refused > 100
        out: list[bytes] = []

        def all_out() -> bool:
            rig.refill()
            out.extend(rig.collect())
            return len(out) >= sent

        until(all_out, "every packet leaves")
        assert out == [packet(i) for i in range(sent)]
        assert rig.card.counters()["dma_faults"] == 0
        rig.engine.stop()


def test_a_card_with_mapped_queues_sleeps_most_of_the_time_and_passes_packets(tmp_path: Path) -> None:
    with emulated(tmp_path, ["pair:a", "pair:a"], "--map-bar") as cards:
        ports = [f"vfio-user:{path}" for path in cards.sockets]
        argv = [sys.executable, "-m", "ixroute", "pktgen", *ports, "--packets", "3000", "--rate", "5000"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        transport = cards.transport()
        time.sleep(0.3)
        before = cards.cpu_seconds()
        time.sleep(1.0)
        used = cards.cpu_seconds() - before
        assert used < 0.3, f"{used:.2f} s of CPU in a second in which nothing happened"
        transport.close()
    assert "tx_packets 3000," in cards.said()
