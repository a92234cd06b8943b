"""Our driver on the emulated card, both in this process: two readings of one datasheet."""

from __future__ import annotations

import logging
import os
import select
import struct

import pytest

from ixroute._dataplane import lib
from ixroute.driver.port import PortError, PortOptions
from ixroute.emulator.card import CardOptions
from ixroute.emulator.pci import KINDS
from lab.echo import Echo
from lab.emulated_port import EmulatedPort

MAC = bytes.fromhex("025990000001")


def udp(flow: int, length: int = 60, to: bytes = MAC) -> bytes:
    """A packet of flow number `flow`; its number is in the addresses."""
    header = to + bytes.fromhex("021122334455") + b"\x08\x00"
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, length - 14, 0, 0, 64, 17, 0, struct.pack(">I", flow), b"\x0a\0\0\1"
    )
    return (header + ip + struct.pack(">HHHH", 5000, 80, length - 34, 0)).ljust(length, b"\0")


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@pytest.mark.parametrize("settle", [0, 3])
@pytest.mark.parametrize("device", KINDS)
def test_every_kind_of_card_comes_up_without_a_warning(
    device: int, settle: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with EmulatedPort(card=CardOptions(device_id=device, settle=settle)) as rig:
        for _ in range(4):
            rig.port.service()
        assert rig.port.link().up
        counts = rig.card.counters()
    assert not caplog.records
    wrong = (
        "unknown_registers",
        "writes_to_read_only",
        "writes_to_running_heads",
        "dma_faults",
        "bad_descriptors",
    )
    assert {name: counts[name] for name in wrong} == dict.fromkeys(wrong, 0)


@pytest.mark.parametrize("queues", [1, 3, 16])
@pytest.mark.parametrize("socket", [False, True], ids=["in process", "over a socket"])
def test_packets_reach_one_queue_each_and_a_flow_stays_on_its_queue(queues: int, socket: bool) -> None:
    with EmulatedPort(queues, socket=socket) as rig:
        rig.refill()
        where: dict[bytes, set[int]] = {}
        packets = [udp(flow * 2654435761 % (1 << 32), 60 + flow) for flow in range(40)]
        for _ in range(3):
            rig.deliver(*packets)
            rig.step()
            for q in range(queues):
                for packet in rig.receive(q):
                    where.setdefault(packet, set()).add(q)
            rig.refill()
        assert set(where) == set(packets)
        assert all(len(found) == 1 for found in where.values())
        used = {q for found in where.values() for q in found}
        assert len(used) >= min(queues, 3)
        stats = rig.port.stats()
        assert stats["rx_packets_mac"] == 120
        assert sum(stats[f"rx_queue_{q}_packets"] for q in range(queues)) == 120


@pytest.mark.parametrize("socket", [False, True], ids=["in process", "over a socket"])
def test_what_is_sent_is_on_the_wire_and_its_frames_come_back(socket: bool) -> None:
    with EmulatedPort(2, socket=socket) as rig:
        rig.refill()
        free = rig.free_frames()
        sent = [udp(i, 60 + 10 * i) for i in range(20)]
        for _ in range(30):  # several times round the ring
            assert rig.send(1, *sent) == 20
            rig.step()
            assert rig.collect() == sent
            rig.refill()
        assert rig.free_frames() == free
        assert rig.port.stats()["tx_queue_1_packets"] == 600


def test_packets_without_room_are_counted_and_do_not_stop_the_port() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        rig.deliver(*[udp(i) for i in range(100)])
        rig.step(8)
        assert len(rig.receive()) == 63
        assert rig.port.stats()["rx_missed"] == 37
        rig.refill()
        rig.deliver(udp(1))
        rig.step()
        assert len(rig.receive()) == 1


def test_frames_up_to_the_mtu_arrive_and_those_longer_by_more_than_two_tags_do_not() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        for mtu in (1500, 3000, 600, 3050):
            rig.port.set_mtu(mtu)
            limit = max(mtu, 1500) + 14
            rig.deliver(udp(1, limit), udp(2, limit + 9))
            rig.step()
            assert [len(packet) for packet in rig.receive()] == [limit]
            rig.refill()


def test_a_jumbo_of_9000_bytes_fits_a_frame_of_16384() -> None:
    with EmulatedPort(1, frame_bytes=16384) as rig:
        rig.port.set_mtu(9000)
        rig.refill()
        rig.deliver(udp(1, 9014))
        rig.step(8)
        assert [len(packet) for packet in rig.receive()] == [9014]


def test_the_card_takes_its_address_groups_and_broadcast_and_all_when_promiscuous() -> None:
    others, group = bytes.fromhex("025990000099"), bytes.fromhex("01005e000005")
    with EmulatedPort(1) as rig:
        rig.refill()

        def taken(to: bytes) -> bool:
            rig.deliver(udp(1, to=to))
            rig.step()
            got = rig.receive()
            rig.refill()
            return bool(got)

        assert [taken(to) for to in (MAC, group, b"\xff" * 6, others)] == [True, True, True, False]
        rig.port.set_promiscuous(True)
        assert taken(others)
        rig.port.set_promiscuous(False)
        rig.port.set_mac(others)
        assert (taken(others), taken(MAC)) == (True, False)
        rig.port.reset(workers_run=False)
        rig.refill()
        assert (taken(others), taken(MAC)) == (True, False)


@pytest.mark.parametrize("socket", [False, True], ids=["in process", "over a socket"])
def test_a_change_of_the_wire_is_an_event_and_seen(socket: bool) -> None:
    with EmulatedPort(1, socket=socket) as rig:
        rig.port.service()
        assert not readable(rig.port.link_fd)
        for up in (False, True, False):
            rig.card.set_carrier(up)
            rig.step()
            assert readable(rig.port.link_fd)
            rig.port.service()
            assert not readable(rig.port.link_fd)
            assert rig.port.link().up == up


def test_a_module_that_comes_later_brings_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatedPort(1) as rig:
        monkeypatch.setattr(rig.port._link, "_retry_seconds", 0.0)
        monkeypatch.setattr(rig.port._link, "_retry_at", 0.0)
        rig.card.plug_module(False)
        rig.port.service()
        rig.port.service()
        assert not rig.port.link().up
        assert rig.port.features()["module"] is None
        rig.card.plug_module(True)
        for _ in range(4):
            rig.port.service()
        assert rig.port.link().up
        assert "10GBASE-SR" in rig.port.features()["module"]


@pytest.mark.parametrize("socket", [False, True], ids=["in process", "over a socket"])
def test_a_queue_is_woken_by_a_packet_and_masked_until_it_is_armed_again(socket: bool) -> None:
    with EmulatedPort(1, PortOptions(rx_slots=64, tx_slots=64, interrupt_us=2), socket=socket) as rig:
        queue = rig.queues[0]
        rig.refill()
        for _ in range(50):
            assert lib.queue_arm(queue) == 0
            rig.deliver(udp(1))
            wait_until_readable(rig, queue.wait_fd)
            lib.queue_disarm(queue)
            assert len(rig.receive()) == 1
            rig.refill()


def wait_until_readable(rig: EmulatedPort, fd: int) -> None:
    for _ in range(2000):
        rig.step(1)
        if select.select([fd], [], [], 0.001)[0]:
            return
    pytest.fail("no event")


@pytest.mark.parametrize("socket", [False, True], ids=["in process", "over a socket"])
def test_a_port_under_way_is_reset_while_its_worker_runs(socket: bool) -> None:
    """The worker is a thread that polls as a router's does; it never stops."""
    with EmulatedPort(1, sleeps=True, socket=socket) as rig:
        with Echo(rig.queues[0], rig.pools[0]) as worker:
            rig.engine.start()
            for round_ in range(3):
                before = worker.received
                while worker.received < before + 20:
                    lib.wire_memory_put(rig.wire, udp(round_), 60)
                    os.sched_yield()
                rig.port.reset()
                rig.port.service()
            rig.engine.stop()
        assert rig.port.stats()["resets"] == 3
        rig.close()


def test_a_reset_that_no_worker_answers_is_refused_and_changes_nothing() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        with pytest.raises(PortError, match=r"workers of queues \[0\] do not let go"):
            rig.port.reset()
        rig.deliver(udp(1))
        rig.step()
        assert len(rig.receive()) == 1


def test_a_program_of_one_thread_gets_its_card_reset_when_the_link_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """service() does not wait for the thread that it is called from: that one lets go in its next calls."""
    with EmulatedPort(1) as rig:
        rig.refill()
        with monkeypatch.context() as patch:
            patch.setattr(rig.port._link, "service", lambda: True)
            rig.port.service()
        assert rig.port.stats()["resets"] == 0
        assert not rig.receive()
        rig.port.service()
        assert rig.port.stats()["resets"] == 1
        rig.refill()
        rig.deliver(udp(1))
        rig.step()
        assert rig.receive() == [udp(1)]


def test_a_card_that_is_pulled_out_ends_in_errors_and_a_clean_close() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        rig.card.faults.gone = True
        with pytest.raises(PortError, match="the card is gone"):
            rig.port.service()
        with pytest.raises(PortError, match="the card is gone"):
            rig.port.set_mtu(1000)
        rig.port.close(rig.pools)
        assert int(rig.pools[0].n) == int(rig.pools[0].capacity)


@pytest.mark.parametrize("socket", [False, True], ids=["in process", "over a socket"])
def test_close_gives_every_frame_back_and_the_card_is_quiet(socket: bool) -> None:
    with EmulatedPort(2, socket=socket) as rig:
        rig.refill()
        rig.send(0, udp(1), udp(2))
        rig.port.close(rig.pools)
        assert [int(pool.n) for pool in rig.pools] == [int(pool.capacity) for pool in rig.pools]
        assert rig.card.counters()["dma_ranges"] == 0


@pytest.mark.parametrize("socket", [False, True], ids=["in process", "over a socket"])
def test_one_event_can_serve_several_queues(socket: bool) -> None:
    """Also after a reset of the card."""
    with EmulatedPort(2, socket=socket) as rig:
        first, shared = rig.port.event(0), rig.port.event(1)
        rig.port.event_rebind(0, 1)
        assert [rig.port.event(q) for q in (0, 1)] == [shared, shared]
        for _ in range(2):
            rig.refill()
            rig.port.event_ack(0)
            rig.deliver(*[udp(flow * 7919) for flow in range(20)])
            wait_until_readable(rig, shared)
            assert rig.port.event_check(0)
            assert not rig.port.event_check(1), "one event, whichever queue it is asked for"
            assert not readable(first)
            assert all(rig.receive(q) for q in (0, 1))
            rig.port.reset(workers_run=False)
            for fd in (first, shared):  # they were woken to see it
                os.eventfd_read(fd)


def test_events_of_queues_that_are_not_there_are_errors() -> None:
    with EmulatedPort(1) as rig:
        for q in (-1, 1):
            with pytest.raises(PortError, match="queues with an event are 0 to 0"):
                rig.port.event(q)
            with pytest.raises(PortError, match="queues with an event are 0 to 0"):
                rig.port.event_check(q)
            with pytest.raises(PortError, match="queues with an event are 0 to 0"):
                rig.port.event_ack(q)
            with pytest.raises(PortError, match="queues with an event are 0 to 0"):
                rig.port.event_rebind(q, 0)
            with pytest.raises(PortError, match="queues with an event are 0 to 0"):
                rig.port.event_rebind(0, q)
