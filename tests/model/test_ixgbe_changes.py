"""What changes while packets come and go: the wire, the module, MTU and MAC address, and resets of the card."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ixroute._dataplane import lib
from ixroute.driver.port import PortError, PortOptions
from ixroute.emulator.faults import Faults
from lab.echo import Echo
from lab.emulated_port import MAC, OTHER, EmulatedPort, numbered
from lab.support import wait_until


def test_what_is_sent_while_the_wire_is_down_leaves_when_it_is_back_and_what_came_is_lost() -> None:
    with EmulatedPort(2) as rig:
        rig.refill()
        rig.port.service()
        for round_ in range(5):
            rig.card.set_carrier(False)
            rig.port.service()
            assert not rig.port.link().up
            rig.deliver(*[numbered(i) for i in range(30)])
            rig.delivered.packets -= 30  # the light was out: nobody saw them
            rig.delivered.bytes -= 30 * len(numbered(0))
            waiting = [numbered(100 * round_ + i, to=OTHER) for i in range(20)]
            assert rig.send(1, *waiting) == 20
            rig.step()
            assert rig.collect() == []
            assert rig.receive_any() == []
            rig.card.set_carrier(True)
            rig.port.service()
            assert rig.port.link().up
            rig.deliver(numbered(round_))
            rig.step()
            assert rig.collect() == waiting
            assert rig.receive_any() == [numbered(round_)]
        assert rig.settle()["resets"] == 0


def test_a_closed_port_moves_nothing_whatever_comes() -> None:
    with EmulatedPort(2) as rig:
        rig.refill()
        rig.deliver(numbered(1))
        rig.step()
        rig.receive_any()
        rig.close()
        assert not rig.card.config.bus_master
        before = rig.card.counters()["rx_packets"]
        rig.deliver(*[numbered(i) for i in range(20)])
        rig.step()
        assert rig.card.counters()["rx_packets"] == before
        rig.healthy()


def test_a_laser_that_was_switched_off_by_somebody_is_switched_on_again() -> None:
    with EmulatedPort(1) as rig:
        rig.port.service()
        rig.card.write(0, 0x20, (rig.card.registers.get("ESDP") | 1 << 3).to_bytes(4, "little"))
        rig.port.service()
        assert not rig.port.link().up
        for _ in range(3):
            rig.clock.pass_by(3.0)
            rig.port.service()
        assert rig.port.link().up
        rig.refill()
        rig.deliver(numbered(1))
        rig.step()
        assert rig.receive() == [numbered(1)]
        rig.settle()


def test_a_link_that_does_not_come_ends_in_resets_of_the_card_and_settings_survive_them() -> None:
    faults = Faults()
    with EmulatedPort(1, faults=faults, sleeps=True) as rig, Echo(rig.queues[0], rig.pools[0], idle_ns=0):
        rig.port.set_mac(OTHER)
        rig.port.set_mtu(2000)
        rig.engine.start()
        rig.card.faults.link_never = True
        rig.card.set_carrier(False)
        rig.card.set_carrier(True)
        for _ in range(12):
            rig.clock.pass_by(3.0)
            rig.port.service()
        assert not rig.port.link().up
        assert rig.port.stats()["resets"] >= 1
        rig.card.faults.link_never = False
        rig.clock.pass_by(3.0)
        rig.port.service()
        rig.port.service()
        assert rig.port.link().up
        assert (rig.port.mac, rig.port.mtu) == (OTHER, 2000)
        rig.until_room(3)
        rig.deliver(numbered(1), numbered(2, 2014, to=OTHER), numbered(3, to=OTHER))
        got: list[bytes] = []
        wait_until(
            lambda: bool(got.extend(rig.collect()) or len(got) == 2), 30, lambda: f"echoed: {len(got)}"
        )
        assert got == [numbered(2, 2014, to=OTHER), numbered(3, to=OTHER)]
        rig.engine.stop()


def moved(rig: EmulatedPort) -> tuple[int, int]:
    """Packets that the card has given to a queue, and taken from one."""
    counts = rig.card.counters()
    return counts["rx_packets"], counts["tx_packets"]


CHANGES: dict[str, Callable[[EmulatedPort, int], object]] = {
    "reset": lambda rig, _: rig.port.reset(),
    "mtu": lambda rig, i: rig.port.set_mtu((1500, 3000, 600)[i % 3]),
    "mac": lambda rig, i: rig.port.set_mac((OTHER, MAC)[i % 2]),
    "promiscuous": lambda rig, i: rig.port.set_promiscuous(i % 2 == 0),
    "statistics": lambda rig, _: rig.port.reset_stats(),
    "carrier": lambda rig, i: [rig.card.set_carrier(up) for up in (False, True)] and rig.port.service(),
}


@pytest.mark.parametrize("idle_ns", [(1 << 64) - 1, 0], ids=["polls", "sleeps"])
@pytest.mark.parametrize("what", CHANGES)
def test_packets_go_on_after_each_change_made_while_they_flow(what: str, idle_ns: int) -> None:
    """An engine and a worker, each a thread of its own; packets without an end come to both addresses."""
    changes = 2 if what == "reset" else 5
    with EmulatedPort(1, PortOptions(rx_slots=128, tx_slots=128, interrupt_us=2), sleeps=True) as rig:
        for i, to in enumerate((MAC, OTHER)):
            assert lib.wire_memory_put(rig.wire, numbered(i, to=to), 64) == 1
        with Echo(rig.queues[0], rig.pools[0], idle_ns) as worker:
            lib.wire_memory_repeat(rig.wire, 8)
            rig.engine.start()
            try:
                for i in range(changes):
                    seen = worker.received
                    wait_until(
                        lambda seen=seen: worker.received > seen + 200, 30, f"packets flow: {what} {i}"
                    )
                    CHANGES[what](rig, i)
                seen = worker.received
                wait_until(lambda: worker.received > seen + 200, 30, f"packets flow after {what}")
            finally:
                lib.wire_memory_repeat(rig.wire, 0)
            if what != "reset":  # which loses what is on its way
                wait_until(
                    lambda: moved(rig) == (worker.received, worker.sent), 30, lambda: f"{what}: {moved(rig)}"
                )
            rig.engine.stop()
        assert worker.received == worker.sent + worker.dropped
        stats = rig.port.stats()
        assert stats["resets"] == (changes if what == "reset" else 0)
        if what not in ("reset", "statistics"):
            assert stats["rx_queue_0_packets"] == worker.received
            assert stats["tx_queue_0_packets"] == worker.sent == stats["tx_packets_mac"]
        rig.close()


def test_after_a_reset_every_setting_is_as_before() -> None:
    with EmulatedPort(3, frame_bytes=16384) as rig:
        rig.port.set_mtu(9000)
        rig.port.set_mac(OTHER)
        rig.port.set_promiscuous(True)
        rig.refill()
        before = rig.port.dump()
        for round_ in range(3):
            rig.port.reset(workers_run=False)
            rig.refill()
            rig.refill()
            for packet in (numbered(round_, 9014, to=OTHER), numbered(round_)):
                rig.deliver(packet)
                rig.step()
                assert rig.receive_any() == [packet]
        moving = ("RDH", "RDT", "TDH", "TDT", "LINKS", "FRTIMER", "SWSM")
        same = [line for line in before if not line.startswith(moving)]
        assert [line for line in rig.port.dump() if not line.startswith(moving)] == same
        rig.close()


def test_a_reset_that_fails_is_tried_again_and_the_port_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    with EmulatedPort(1, faults=faults) as rig:
        with Echo(rig.queues[0], rig.pools[0]) as worker:
            faults.dma_never_ready = True
            with pytest.raises(PortError, match="DMAIDONE"):
                rig.port.reset()
            assert not rig.port.link().up
            rig.port.service()  # too early: nothing
            faults.dma_never_ready = False
            rig.clock.pass_by(31.0)
            rig.port.service()
            rig.port.service()
            assert rig.port.link().up
            rig.engine.start()
            rig.until_room()
            rig.deliver(numbered(1))
            wait_until(lambda: worker.received == 1, 30, "the port works again")
            wait_until(lambda: bool(rig.collect()), 30, "both ways")
            rig.engine.stop()
        assert rig.port.stats()["resets"] == 1
        rig.close()
