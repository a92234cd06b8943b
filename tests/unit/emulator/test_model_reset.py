"""What resets leave, and the waits that follow them."""

from __future__ import annotations

import pytest
from engine_twin import Bench, MakeBench

from ixroute.emulator.faults import Faults
from ixroute.emulator.registers import Mode, registers

CTRL_GIO_DIS, CTRL_LRST, CTRL_RST = 1 << 2, 1 << 3, 1 << 26
STATUS_GIO = 1 << 19
ENABLE = 1 << 25
DMA_DONE = 1 << 3


def reads_until(bench: Bench, name: str, bit: int, value: bool, limit: int = 20) -> int:
    """How many reads it takes until the bit has the value; limit: it never had it."""
    for count in range(limit):
        if bool(bench.read(name) & bit) == value:
            return count
    return limit


def test_registers_have_their_reset_values_after_power_on(bench: Bench) -> None:
    moving = {"STATUS", "RAL", "RAH", "FRTIMER", "EEC", "RDRXCTL", "ESDP", "ANLP1", "LINKS", "I2CCTL", "SWSM"}
    for register in registers():
        if register.name in moving or register.mode in (Mode.WO, Mode.OLD):
            continue
        for place in register.places():
            assert bench.peek(place.offset) == register.reset, place


@pytest.mark.parametrize("bit", [CTRL_RST, CTRL_LRST, CTRL_RST | CTRL_LRST])
def test_a_software_reset_clears_itself_and_the_registers(bench: Bench, bit: int) -> None:
    bench.write("FCTRL", 0x702)
    bench.write("RXDCTL", ENABLE, 5)
    bench.write("TDT", 9, 7)
    bench.engine.take_log()
    bench.write("CTRL", bit)
    assert bench.read("CTRL") == 0
    assert (bench.read("FCTRL"), bench.read("RXDCTL", 5), bench.read("TDT", 7)) == (0, 0, 0)
    assert ("reset",) in bench.engine.take_log()
    assert bench.card.counters()["resets"] == 1


def test_a_software_reset_keeps_tables_semaphores_and_the_configuration_space(bench: Bench) -> None:
    bench.set_config(4, 2, 0x0006)
    bench.write("MTA", 0x1111, 3)
    bench.write("VFTA", 0x2222, 4)
    bench.write("RAL", 0x3333, 5)
    assert bench.read("SWSM") & 1 == 0
    bench.write("CTRL", CTRL_RST)
    assert (bench.read("MTA", 3), bench.read("VFTA", 4), bench.read("RAL", 5)) == (0x1111, 0x2222, 0x3333)
    assert bench.read("SWSM") & 1 == 1
    assert bench.config(4, 2) == 0x0006


def test_the_first_address_comes_from_the_eeprom_after_every_reset(make_bench: MakeBench) -> None:
    for port, last in ((0, 0x55), (1, 0x56)):
        bench = make_bench(mac=bytes.fromhex("021122334455"), port=port)
        for reset in ("power on", "software", "device"):
            if reset == "software":
                bench.write("CTRL", CTRL_RST)
            elif reset == "device":
                bench.card.reset()
            assert bench.read("RAL") == 0x3322_1102
            assert bench.read("RAH") == 0x8000_0044 | last << 8
            assert bench.read("RAL", 0) == bench.peek(0x05400)
            assert bench.read("STATUS") >> 2 & 3 == port
            bench.write("RAL", 0)
            bench.write("RAH", 0)


def test_a_device_reset_clears_tables_and_keeps_what_vfio_saves(bench: Bench) -> None:
    bench.set_config(4, 2, 0x0006)
    bench.set_config(0x10, 4, 0xFEB0_0000)
    bench.set_config(0x72, 2, 0x8000)
    bench.write("MTA", 0x1111, 3)
    bench.read("SWSM")
    bench.card.reset()
    assert bench.read("MTA", 3) == 0
    assert bench.read("SWSM") & 1 == 0
    assert bench.config(4, 2) == 0x0006
    assert bench.config(0x10, 4) == 0xFEB0_000C
    assert bench.config(0x72, 2) == 0x003F


def test_a_function_level_reset_clears_the_configuration_space_too(bench: Bench) -> None:
    bench.set_config(4, 2, 0x0006)
    bench.write("MTA", 0x1111, 3)
    bench.set_config(0xA8, 2, 0x8000 | bench.config(0xA8, 2))
    assert bench.config(4, 2) == 0
    assert bench.config(0xA8, 2) == 0x2810
    assert bench.read("MTA", 3) == 0


def test_waking_from_a_deep_power_state_resets(bench: Bench) -> None:
    bench.write("LEDCTL", 1)
    bench.set_config(0x44, 2, 3)
    assert bench.read("LEDCTL") == 1
    bench.set_config(0x44, 2, 0)
    assert bench.read("LEDCTL") != 1


def test_tables_may_hold_rubbish_after_power_on(make_bench: MakeBench) -> None:
    bench = make_bench(Faults(dirty_tables=True))
    assert bench.read("MTA", 9) == 0xA5A5_A5A5
    assert bench.read("RAH", 9) == 0xA5A5_A5A5 & 0x8000_FFFF
    assert bench.read("RAH") >> 31 == 1
    assert bench.read("FCTRL") == 0


def test_stopping_the_bus_master_shows_in_status(bench: Bench) -> None:
    assert bench.read("STATUS") & STATUS_GIO
    bench.write("CTRL", CTRL_GIO_DIS)
    assert not bench.read("STATUS") & STATUS_GIO
    bench.write("CTRL", 0)
    assert bench.read("STATUS") & STATUS_GIO


@pytest.mark.parametrize("settle", [0, 1, 3])
def test_what_was_started_shows_after_as_many_reads_as_asked(make_bench: MakeBench, settle: int) -> None:
    bench = make_bench(settle=settle)
    bench.write("CTRL", CTRL_RST)
    assert reads_until(bench, "CTRL", CTRL_RST, False) == settle
    assert reads_until(bench, "EEC", 1 << 9, True) == settle
    assert reads_until(bench, "RDRXCTL", DMA_DONE, True) == settle
    bench.write("CTRL", CTRL_GIO_DIS)
    assert reads_until(bench, "STATUS", STATUS_GIO, False) == settle
    bench.write("RXDCTL", ENABLE, 0)
    assert reads_until(bench, "RXDCTL", ENABLE, True) == settle
    bench.write("RXDCTL", 0, 0)
    assert reads_until(bench, "RXDCTL", ENABLE, False) == settle
    bench.write("DMATXCTL", 1)
    bench.write("TXDCTL", ENABLE, 0)
    assert reads_until(bench, "TXDCTL", ENABLE, True) == settle
    bench.write("SECRXCTRL", 2)
    assert reads_until(bench, "SECRXSTAT", 1, True) == settle
    bench.write("FDIRCTRL", 1)
    assert reads_until(bench, "FDIRCTRL", 1 << 3, True) == settle
    bench.write("MSCA", 1 << 30)
    assert reads_until(bench, "MSCA", 1 << 30, False) == settle
    bench.write("EERD", 1)
    assert reads_until(bench, "EERD", 2, True) == settle


def test_each_broken_part_never_shows_as_done(make_bench: MakeBench) -> None:
    cases = (
        ("reset_never_clears", "CTRL", CTRL_RST, "CTRL", CTRL_RST, False),
        ("master_never_stops", "CTRL", CTRL_GIO_DIS, "STATUS", STATUS_GIO, False),
        ("dma_never_ready", "CTRL", CTRL_RST, "RDRXCTL", DMA_DONE, True),
        ("eeprom_never_ready", "CTRL", CTRL_RST, "EEC", 1 << 9, True),
        ("eeprom_never_ready", "EERD", 1, "EERD", 2, True),
        ("eeprom_absent", "CTRL", CTRL_RST, "EEC", 1 << 8, True),
        ("rx_queue_never_enables", "RXDCTL", ENABLE, "RXDCTL", ENABLE, True),
        ("tx_queue_never_enables", "TXDCTL", ENABLE, "TXDCTL", ENABLE, True),
        ("rx_path_never_stops", "SECRXCTRL", 2, "SECRXSTAT", 1, True),
        ("flow_director_never_ready", "FDIRCTRL", 1, "FDIRCTRL", 1 << 3, True),
        ("mdio_never_ready", "MSCA", 1 << 30, "MSCA", 1 << 30, False),
    )
    for fault, name, value, shown, bit, awaited in cases:
        for broken in (True, False):
            bench = make_bench(Faults(**{fault: broken}))
            bench.write("DMATXCTL", 1)
            bench.write(name, value)
            assert (reads_until(bench, shown, bit, awaited) == 20) == broken, fault


def test_a_transmit_queue_comes_up_only_after_the_transmitter(bench: Bench) -> None:
    bench.write("TXDCTL", ENABLE, 3)
    assert not bench.read("TXDCTL", 3) & ENABLE
    bench.write("DMATXCTL", 1)
    assert bench.read("TXDCTL", 3) & ENABLE


def test_a_head_can_be_written_only_while_its_queue_is_off(bench: Bench) -> None:
    bench.write("RDH", 5, 2)
    assert bench.read("RDH", 2) == 5
    bench.write("RXDCTL", ENABLE, 2)
    bench.write("RDH", 9, 2)
    assert bench.read("RDH", 2) == 5
    assert bench.card.counters()["writes_to_running_heads"] == 1


def test_packets_move_only_with_link_and_bus_mastering(bench: Bench) -> None:
    bench.card.set_carrier(True)
    assert not bench.engine.link
    bench.set_config(4, 2, 0x0004)
    assert bench.engine.link
    bench.write("CTRL", CTRL_GIO_DIS)
    assert not bench.engine.link
    bench.write("CTRL", 0)
    assert bench.engine.link
    bench.set_config(0x44, 2, 3)
    assert not bench.engine.link
    bench.set_config(0x44, 2, 0)
    assert bench.engine.link
    bench.card.set_carrier(False)
    assert not bench.engine.link
    bench.card.set_carrier(True)
    bench.card.disconnected()
    assert not bench.engine.link


def test_a_reset_tells_the_engine_before_and_after(bench: Bench) -> None:
    bench.card.set_carrier(True)
    bench.set_config(4, 2, 4)
    bench.engine.take_log()
    bench.write("CTRL", CTRL_RST)
    told = bench.engine.take_log()
    assert told.index(("link", False)) < told.index(("reset",)) < told.index(("link", True))
    assert told.index(("reset",)) < told.index(("filters",)) < told.index(("link", True))


def test_the_shared_semaphore_is_taken_by_reading_0(bench: Bench) -> None:
    assert bench.read("SWSM") & 1 == 0
    assert bench.read("SWSM") & 1 == 1
    bench.write("SWSM", 3)
    assert bench.read("SWSM") & 3 == 3
    bench.write("SWSM", 0)
    assert bench.read("SWSM") & 3 == 0


def test_a_semaphore_of_somebody_else_is_never_given(make_bench: MakeBench) -> None:
    assert all(make_bench(Faults(semaphore_held=True)).read("SWSM") & 1 for _ in range(5))
    bench = make_bench(Faults(firmware_holds_semaphore=True))
    bench.write("SWSM", 2)
    assert not bench.read("SWSM") & 2


def test_firmware_is_valid_unless_it_is_broken(make_bench: MakeBench) -> None:
    assert make_bench().read("FWSM") == 0x8000
    broken = make_bench(Faults(firmware_error=True)).read("FWSM")
    assert broken & 0x8000 == 0
    assert broken >> 19 & 0x3F


def test_nobody_answers_on_mdio(bench: Bench) -> None:
    bench.write("MSRWD", 0)
    bench.write("MSCA", 1 << 30 | 3 << 26 | 7 << 21)
    assert bench.read("MSCA") & 1 << 30 == 0
    assert bench.read("MSRWD") >> 16 == 0xFFFF


def test_flow_director_commands_end_at_once_and_are_counted(bench: Bench) -> None:
    bench.write("FDIRCTRL", 1)
    assert bench.read("FDIRFREE") == 8190
    bench.write("FDIRCMD", 1 | 1 << 15)
    bench.write("FDIRCMD", 2)
    assert bench.read("FDIRCMD") & 3 == 0
    assert bench.read("FDIRUSTAT") == 0x0001_0001
    assert bench.read("FDIRUSTAT") == 0


def test_the_clock_runs_by_its_increment_and_can_be_set(bench: Bench) -> None:
    bench.write("SYSTIML", 0)
    bench.write("SYSTIMH", 5)
    assert (bench.read("SYSTIML"), bench.read("SYSTIMH")) == (0, 5)
    bench.write("TIMINCA", 1 << 24 | 0xFF_FFFF)
    first = bench.read("SYSTIML") | bench.read("SYSTIMH") << 32
    second = bench.read("SYSTIML") | bench.read("SYSTIMH") << 32
    assert 5 << 32 <= first < second
