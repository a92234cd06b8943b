"""What the link needs, and who is told of its changes."""

from __future__ import annotations

import pytest
from engine_twin import Bench, MakeBench

from ixroute.emulator.faults import Faults

UP, LATCHED = 1 << 30, 1 << 7
RESTART = 1 << 12
LSC, SDP2 = 1 << 20, 1 << 26
LASER_OFF = 1 << 3


def is_up(bench: Bench) -> bool:
    links = bench.read("LINKS")
    assert bool(links & UP) == (links >> 28 & 3 == 3)
    assert bool(bench.read("STATUS") & 1 << 7) == bool(links & UP)
    return bool(links & UP)


def lms(value: int, bench: Bench) -> int:
    return (bench.read("AUTOC") & ~(7 << 13)) | value << 13 | RESTART


def test_the_link_follows_the_carrier_of_the_wire(bench: Bench) -> None:
    assert not is_up(bench)
    bench.card.set_carrier(True)
    assert is_up(bench)
    bench.card.set_carrier(False)
    assert not is_up(bench)


def test_every_change_of_the_link_is_a_cause_of_interrupt(bench: Bench) -> None:
    for up in (True, False):
        bench.card.set_carrier(up)
        assert bench.read("EICR") & LSC
        bench.card.set_carrier(up)
        assert not bench.read("EICR") & LSC
    assert bench.card.counters()["link_changes"] == 2


def test_a_link_that_was_down_in_between_shows_once(bench: Bench) -> None:
    bench.card.set_carrier(True)
    assert bench.read("LINKS") & (UP | LATCHED) == UP
    assert bench.read("LINKS") & (UP | LATCHED) == UP | LATCHED
    bench.card.set_carrier(False)
    bench.card.set_carrier(True)
    assert bench.read("LINKS") & (UP | LATCHED) == UP
    assert bench.read("LINKS") & (UP | LATCHED) == UP | LATCHED


def test_without_laser_there_is_no_link(bench: Bench) -> None:
    bench.card.set_carrier(True)
    bench.write("ESDP", bench.read("ESDP") | LASER_OFF)
    assert not is_up(bench)
    bench.write("ESDP", bench.read("ESDP") & ~LASER_OFF)
    assert is_up(bench)
    bench.write("ESDP", bench.read("ESDP") & ~(LASER_OFF << 8))
    assert not is_up(bench)


def test_without_module_there_is_no_link_and_its_pin_tells(bench: Bench) -> None:
    bench.card.set_carrier(True)
    bench.write("GPIE", 1 << 2)
    assert bench.read("ESDP") & 1 << 2
    bench.read("EICR")
    bench.card.plug_module(False)
    assert not is_up(bench)
    assert not bench.read("ESDP") & 1 << 2
    assert bench.read("EICR") & (LSC | SDP2) == LSC | SDP2
    bench.card.plug_module(True)
    assert is_up(bench)


def test_the_pin_interrupts_only_when_asked_to(bench: Bench) -> None:
    bench.card.plug_module(False)
    assert not bench.read("EICR") & SDP2


def test_only_outputs_can_be_written(bench: Bench) -> None:
    bench.write("ESDP", 0x0000_0800)
    assert bench.read("ESDP") == 0x0000_0804
    bench.write("ESDP", 0x0000_08FF)
    assert bench.read("ESDP") == 0x0000_080C


@pytest.mark.parametrize("mode", range(8))
def test_only_10g_serial_gives_a_link_over_fibre(bench: Bench, mode: int) -> None:
    bench.card.set_carrier(True)
    bench.write("AUTOC", lms(mode, bench))
    assert is_up(bench) == (mode == 3)


def test_a_mode_counts_only_from_its_restart_on(bench: Bench) -> None:
    bench.card.set_carrier(True)
    bench.write("AUTOC", lms(2, bench) & ~RESTART)
    assert is_up(bench)
    bench.write("AUTOC", lms(2, bench))
    assert not bench.read("AUTOC") & RESTART
    assert not is_up(bench)
    bench.write("AUTOC", lms(3, bench))
    assert is_up(bench)


def test_the_serial_interface_must_be_sfi(bench: Bench) -> None:
    bench.card.set_carrier(True)
    bench.write("AUTOC2", 0)
    assert not is_up(bench)
    bench.write("AUTOC2", 2 << 16)
    assert is_up(bench)


def test_a_restart_makes_the_link_go_and_come(bench: Bench) -> None:
    bench.card.set_carrier(True)
    bench.read("LINKS")
    bench.read("EICR")
    bench.write("AUTOC", lms(3, bench))
    assert bench.read("EICR") & LSC
    assert not bench.read("LINKS") & LATCHED


def test_a_link_comes_after_as_many_looks_as_asked(make_bench: MakeBench) -> None:
    bench = make_bench(settle=3)
    bench.card.set_carrier(True)
    bench.write("AUTOC", lms(3, bench))
    looks = 0
    while not is_up(bench):
        looks += 1
        assert looks < 10
    assert 0 < looks <= 3


def test_a_forced_link_needs_no_carrier(bench: Bench) -> None:
    bench.write("AUTOC", bench.read("AUTOC") | 1)
    assert is_up(bench)
    bench.write("AUTOC", bench.read("AUTOC") & ~1)
    assert not is_up(bench)


def test_a_broken_link_never_comes(make_bench: MakeBench) -> None:
    bench = make_bench(Faults(link_never=True))
    bench.card.set_carrier(True)
    bench.write("AUTOC", bench.read("AUTOC") | 1 | RESTART)
    assert not is_up(bench)


@pytest.mark.parametrize("device_id", [0x10F7, 0x10F8, 0x10FC, 0x1514])
def test_a_backplane_negotiates_10g_without_module_or_laser(make_bench: MakeBench, device_id: int) -> None:
    bench = make_bench(device_id=device_id)
    assert bench.read("AUTOC") >> 13 & 7 == 4
    bench.card.set_carrier(True)
    assert is_up(bench)
    assert bench.read("LINKS") >> 31
    bench.write("ESDP", 0xFFFF)
    assert is_up(bench)


def test_negotiation_has_a_state(bench: Bench) -> None:
    assert bench.read("ANLP1") >> 16 & 0xF


def test_the_carrier_outlives_resets(bench: Bench) -> None:
    bench.card.set_carrier(True)
    for reset in (lambda: bench.write("CTRL", 1 << 26), bench.card.reset, bench.card.disconnected):
        reset()
        assert is_up(bench)


def test_a_copper_cable_has_no_laser_to_turn_off(make_bench: MakeBench) -> None:
    bench = make_bench(module="da")
    bench.card.set_carrier(True)
    bench.write("ESDP", bench.read("ESDP") | LASER_OFF)
    assert is_up(bench)


def test_a_link_that_breaks_while_it_runs_is_told(make_bench: MakeBench) -> None:
    faults = Faults()
    bench = make_bench(faults)
    bench.card.set_carrier(True)
    bench.read("EICR")
    faults.link_never = True
    bench.card.faults_changed()
    assert bench.read("EICR") & LSC
    assert not is_up(bench)
