"""A worker with an ixgbe queue: it uses what the card says of checksums, forwards both ways, sleeps and wakes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from forward_packets import eth, ip4
from forward_rig import MAC, PEER, SENDER, Rig

from lab.ring_nic import IPCS, IPE, L4CS, RingNic

PATIENCE = 10.0
GOOD = ip4("192.0.2.77", "10.0.0.1")
BAD = ip4("192.0.2.77", "10.0.0.1", checksum=0x0BAD)


class CardRig(Rig):
    """Port 2, for which the rig has no queue, is a card."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.nic = RingNic(self.umem, port=2, interrupts=True)
        self.worker.add_queue(self.nic.queue)
        self.settle()

    def frames_in_fill_rings(self) -> int:
        """Counted when the worker has left its queues: the card's frames go home then."""
        self.nic.close(self.pool)
        return super().frames_in_fill_rings()


@pytest.fixture
def rig() -> Iterator[CardRig]:
    rig = CardRig(frames=1024)
    yield rig
    assert rig.worker.stop(PATIENCE)
    rig.check_conservation()
    rig.close()


def eventually(condition: Callable[[], object]) -> None:
    """Bounded: fails after PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.0005)


@pytest.mark.parametrize(
    ("status", "packet", "forwarded"),
    [
        pytest.param(0, GOOD, True, id="not looked at, good"),
        pytest.param(0, BAD, False, id="not looked at, bad: summed here"),
        pytest.param(L4CS, BAD, False, id="only the payload's was looked at"),
        pytest.param(IPCS, GOOD, True, id="found good"),
        pytest.param(IPCS, BAD, True, id="found good: not summed again"),
        pytest.param(IPCS | IPE, BAD, False, id="found bad, summed here"),
        pytest.param(IPCS | IPE, GOOD, True, id="found bad, but it is not"),
    ],
)
def test_a_header_that_the_card_found_good_is_not_summed_again(
    rig: CardRig, status: int, packet: bytes, forwarded: bool
) -> None:
    rig.nic.deliver(eth(MAC[2], SENDER, 0x0800, packet), status)
    assert rig.worker.poll_once() == 1
    sent = rig.sent()
    if forwarded:
        assert [port for port, _ in sent] == [1]
    else:
        assert sent == []
        assert rig.dropped() == {"ip_header_corrupted": 1}


def test_whatever_the_card_found_a_header_must_still_make_sense(rig: CardRig) -> None:
    rig.nic.deliver(eth(MAC[2], SENDER, 0x0800, ip4("192.0.2.77", "10.0.0.1", ihl=4)), IPCS)
    rig.nic.deliver(eth(MAC[2], SENDER, 0x0800, ip4("192.0.2.77", "10.0.0.1", version=5)), IPCS)
    assert rig.worker.poll_once() == 2
    assert rig.dropped() == {"ip_header_corrupted": 2}


def test_packets_leave_by_the_card_and_their_frames_come_home(rig: CardRig) -> None:
    packet = ip4("192.0.2.77", "10.9.0.1")
    for n in range(1000):
        rig.deliver(eth(MAC[0], SENDER, 0x0800, packet))
        if n % 7 == 0:
            while rig.worker.poll_once():
                pass
            for sent in rig.nic.transmit():
                assert sent[:12] == PEER[2] + MAC[2]
    rig.settle()
    rig.nic.transmit()
    assert rig.worker.port_counters(2)["tx_packets"] == 1000


def test_a_worker_asleep_on_the_cards_interrupt_wakes_for_a_packet(rig: CardRig) -> None:
    rig.worker.start(0)
    registers = rig.nic.registers
    sent: list[tuple[int, bytes]] = []
    for n in range(20):
        eventually(lambda: registers[registers.EIMS])
        assert rig.nic.deliver(eth(MAC[2], SENDER, 0x0800, GOOD)) is not None
        rig.nic.interrupt()
        eventually(lambda n=n: sent.extend(rig.sent()) or len(sent) == n + 1)  # type: ignore[misc]
    assert rig.worker.counters()["sleeps"] > 0
