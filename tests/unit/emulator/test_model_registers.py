"""BAR 0: the table, and what each mode of access does."""

from __future__ import annotations

import pytest
from engine_twin import Bench, MakeBench

from ixroute.emulator.faults import Faults
from ixroute.emulator.registers import (
    BAR_BYTES,
    OWNED,
    Mode,
    aliases,
    count_of,
    describe,
    offset_of,
    places,
    registers,
)
from ixroute.vfio_user.device import DeviceError

# Read in the datasheet a second time, not from the table.
KNOWN = {
    "CTRL": 0x00000,
    "STATUS": 0x00008,
    "EEC": 0x10010,
    "EICR": 0x00800,
    "RXCTRL": 0x03000,
    "RDRXCTL": 0x02F00,
    "HLREG0": 0x04240,
    "LINKS": 0x042A4,
    "MRQC": 0x0EC80,
    "DMATXCTL": 0x04A80,
    "DTXMXSZRQ": 0x08100,
    "MTQC": 0x08120,
    "PFVTCTL": 0x051B0,
    "GCR_EXT": 0x11050,
}
KNOWN_ARRAYS = {
    ("RDBAL", 63): 0x01FC0,
    ("RDBAL", 64): 0x0D000,
    ("RDT", 127): 0x0DFD8,
    ("TDT", 127): 0x07FD8,
    ("SRRCTL", 64): 0x0D014,
    ("EITR", 23): 0x0087C,
    ("EITR", 24): 0x12300,
    ("RAH", 127): 0x0A5FC,
    ("MPSAR", 255): 0x0A9FC,
    ("RETA", 31): 0x05C7C,
    ("RSSRK", 9): 0x05CA4,
    ("QPRDC", 15): 0x017F0,
    ("FTQF", 127): 0x0E7FC,
    ("PBACL", 1): 0x110C4,
}


def test_registers_are_where_the_datasheet_has_them() -> None:
    assert {name: offset_of(name) for name in KNOWN} == KNOWN
    assert {(name, i): offset_of(name, i) for name, i in KNOWN_ARRAYS} == KNOWN_ARRAYS


def test_every_register_lies_alone_and_aligned_in_the_bar() -> None:
    own = [place.offset for register in registers() for place in register.places()]
    assert len(own) == len(set(own))
    assert not set(own) & set(aliases())
    assert all(offset % 4 == 0 and 0 <= offset < BAR_BYTES for offset in places())


def test_reset_values_and_masks_fit_32_bits_and_their_mode() -> None:
    for register in registers():
        assert 0 <= register.reset <= 0xFFFF_FFFF
        assert 0 <= register.writable <= 0xFFFF_FFFF
        if register.mode in (Mode.RO, Mode.RC, Mode.OLD):
            assert register.writable == 0, register.name
    assert {register.name for register in registers()} >= OWNED


def test_a_name_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        offset_of("NOTHING")
    with pytest.raises(KeyError):
        offset_of("RXDCTL", 128)
    assert count_of("RXDCTL") == 128
    assert describe(0x02104) == "SRRCTL[1]"
    assert describe(0x00004) == "0x00004"


def test_second_addresses_reach_the_same_register(bench: Bench) -> None:
    pairs = {
        (0x02100 + 4 * 3, 0x010D4): 0x0200_0002,
        (0x02200 + 4 * 15, 0x013CC): 0x0000_0020,
        (0x05400 + 8 * 2, 0x0A210): 0x1234_5678,
        (0x05404 + 8 * 15, 0x0A27C): 0x8000_1234,
        (0x05480 + 4 * 1, 0x0EA04): 0x0000_0310,
        (0x05818, 0x0EC80): 0x0033_0001,
        (0x06030 + 0x40 * 5, 0x08694): 0,
    }
    for (alias, canonical), value in pairs.items():
        assert places()[alias].offset == canonical
        bench.poke(alias, value)
        assert bench.peek(canonical) == bench.peek(alias) == value
        bench.poke(canonical, 0)
        assert bench.peek(alias) == 0


def test_all_second_addresses_agree_with_their_register(bench: Bench) -> None:
    for alias, canonical in aliases().items():
        bench.poke(canonical, 0xFFFF_FFFF)
        assert bench.peek(alias) == bench.peek(canonical), describe(alias)


def test_ordinary_registers_keep_their_writable_bits_and_no_others(bench: Bench) -> None:
    special = {
        "CTRL",
        "ESDP",
        "I2CCTL",
        "EEC",
        "EERD",
        "EEWR",
        "RDRXCTL",
        "MSCA",
        "FDIRCTRL",
        "FDIRCMD",
        "AUTOC",
    }
    special |= {"RXDCTL", "TXDCTL", "TIMINCA", "SYSTIML", "SYSTIMH", "SWSM", "RTTDT1C", "RTTBCNRC"}
    for register in registers():
        if register.mode not in (Mode.RW, Mode.MEM) or register.name in special:
            continue
        for place in list(register.places())[:: max(1, register.count - 1)]:
            for pattern in (0xFFFF_FFFF, 0x5A5A_5A5A, 0xA5A5_A5A5, 0):
                bench.poke(place.offset, pattern)
                kept = (register.reset & ~register.writable) | (pattern & register.writable)
                assert bench.peek(place.offset) == kept, place


def test_a_write_to_a_read_only_register_is_counted_and_does_nothing(bench: Bench) -> None:
    before = bench.read("STATUS")
    bench.write("STATUS", 0xFFFF_FFFF)
    assert bench.read("STATUS") == before
    assert bench.card.counters()["writes_to_read_only"] == 1
    assert bench.card.ignored_writes() == {"STATUS": 1}


def test_write_one_clears_only_the_bits_written(bench: Bench) -> None:
    bench.card.registers.put("WUS", 0x0000_000F)
    bench.write("WUS", 0x0000_0005)
    assert bench.read("WUS") == 0x0000_000A


def test_reading_a_counter_clears_it(bench: Bench) -> None:
    bench.card.registers.put("FDIRMATCH", 7)
    assert bench.read("FDIRMATCH") == 7
    assert bench.read("FDIRMATCH") == 0


def test_a_write_only_register_reads_0(bench: Bench) -> None:
    bench.write("EIMC", 0x7FFF_FFFF)
    assert bench.read("EIMC") == 0


def test_an_offset_without_a_register_reads_0_and_is_listed(bench: Bench) -> None:
    bench.poke(0x00004, 1)
    assert bench.peek(0x00004) == 0
    assert bench.peek(0x00004) == 0
    assert bench.card.counters()["unknown_registers"] == 3
    assert bench.card.unknown_registers() == {"write 0x00004": 1, "read 0x00004": 2}


def test_the_list_of_unknown_offsets_does_not_grow_for_ever(bench: Bench) -> None:
    for offset in range(0x40000, 0x40000 + 4 * 1000, 4):
        bench.peek(offset)
    assert bench.card.counters()["unknown_registers"] == 1000
    assert len(bench.card.unknown_registers()) == 256


def test_the_engine_is_asked_first_for_what_it_owns(bench: Bench) -> None:
    bench.engine.cause(0x0010_0000)
    assert bench.read("EICR") == 0x0010_0000
    assert bench.read("EICR") == 0


def test_the_engine_is_told_what_a_write_means(bench: Bench) -> None:
    for name, index, value, told in (
        ("RDT", 70, 5, ("kick",)),
        ("TDT", 3, 5, ("kick",)),
        ("RXDCTL", 65, 1 << 25, ("queue", False, 65)),
        ("TXDCTL", 127, 1 << 25, ("queue", True, 127)),
        ("RDBAL", 2, 0x1000, ("queue", False, 2)),
        ("TDLEN", 9, 0x1000, ("queue", True, 9)),
        ("MTA", 4, 1, ("filters",)),
        ("FCTRL", 0, 0x400, ("filters",)),
    ):
        bench.engine.take_log()
        bench.write(name, value, index)
        assert bench.engine.take_log() == [told], name
    bench.write("LEDCTL", 0)
    assert bench.engine.take_log() == []


def test_an_alias_names_the_queue_it_belongs_to(bench: Bench) -> None:
    bench.engine.take_log()
    bench.poke(0x02100 + 4 * 7, 0x0200_0002)
    assert bench.engine.take_log() == [("queue", False, 7)]


def test_bytes_words_and_double_words_reach_parts_of_registers(bench: Bench) -> None:
    card = bench.card
    card.write(0, 0x05200, bytes(range(1, 9)))
    assert (bench.peek(0x05200), bench.peek(0x05204)) == (0x0403_0201, 0x0807_0605)
    card.write(0, 0x05201, b"\xaa")
    card.write(0, 0x05206, b"\xbb\xcc")
    assert (bench.peek(0x05200), bench.peek(0x05204)) == (0x0403_AA01, 0xCCBB_0605)
    assert card.read(0, 0x05200, 8) == bytes((1, 0xAA, 3, 4, 5, 6, 0xBB, 0xCC))
    assert card.read(0, 0x05203, 1) == b"\x04"
    assert card.read(0, 0x05206, 2) == b"\xbb\xcc"


@pytest.mark.parametrize(
    ("region", "offset", "size"),
    [
        (0, 0x80000, 4),
        (0, 0x7FFFE, 4),
        (0, 2, 4),
        (0, 0, 3),
        (0, 4, 8),
        (0, 0, 0),
        (1, 0, 4),
        (5, 0, 1),
        (9, 4096, 4),
    ],
)
def test_an_access_that_cannot_be_is_refused(bench: Bench, region: int, offset: int, size: int) -> None:
    with pytest.raises(DeviceError):
        bench.card.read(region, offset, size)
    with pytest.raises(DeviceError):
        bench.card.write(region, offset, bytes(size))


def test_the_io_bar_reaches_registers_indirectly(bench: Bench) -> None:
    bench.card.write(2, 0, (0x05200).to_bytes(4, "little"))
    bench.card.write(2, 4, (0x1234_5678).to_bytes(4, "little"))
    assert bench.peek(0x05200) == 0x1234_5678
    assert bench.card.read(2, 0, 8)[:4] == (0x05200).to_bytes(4, "little")
    assert bench.card.read(2, 4, 4) == (0x1234_5678).to_bytes(4, "little")
    bench.card.write(2, 0, (0xFFFF_FFFC).to_bytes(4, "little"))
    assert bench.card.read(2, 4, 4) == bytes(4)


def test_the_registers_of_a_chosen_queue_are_128(bench: Bench) -> None:
    for queue in range(128):
        bench.write("RTTDQSEL", queue)
        bench.write("RTTDT1C", queue + 1)
    for queue in (0, 5, 127):
        bench.write("RTTDQSEL", queue)
        assert bench.read("RTTDT1C") == queue + 1


def test_a_card_that_has_gone_reads_ones(make_bench: MakeBench) -> None:
    bench = make_bench(Faults(gone=True))
    bench.write("LEDCTL", 0)
    assert bench.read("STATUS") == 0xFFFF_FFFF
    assert bench.config(0, 2) == 0xFFFF


def test_a_dump_names_what_is_not_0(bench: Bench) -> None:
    bench.write("RDT", 9, 3)
    shown = bench.card.dump()
    assert shown["RDT[3]"] == 9
    assert "TDT[3]" not in shown
