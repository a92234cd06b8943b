"""The EEPROM by its two ways, and that they agree."""

from __future__ import annotations

import random

from engine_twin import Bench, MakeBench

from ixroute.emulator.faults import Faults

CLOCK, SELECT, DATA_IN, DATA_OUT, REQUEST, GRANT = 1, 2, 4, 8, 0x40, 0x80
WRITE_ENABLE = 0x20


def by_eerd(bench: Bench, address: int) -> int:
    bench.write("EERD", address << 2 | 1)
    value = bench.read("EERD")
    assert value & 2
    assert value >> 2 & 0x3FFF == address
    return value >> 16


class SpiMaster:
    """Bit-bangs EEC: select is low, data is taken at the rising clock, the answer read while it is high."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.eec = bench.read("EEC") | REQUEST
        self.set()
        assert bench.read("EEC") & GRANT

    def set(self, on: int = 0, off: int = 0) -> None:
        self.eec = (self.eec | on) & ~off
        self.bench.write("EEC", self.eec)

    def start(self) -> None:
        self.set(on=SELECT, off=CLOCK | DATA_IN)
        self.set(off=SELECT)

    def stop(self) -> None:
        self.set(on=SELECT)

    def send(self, value: int, bits: int) -> None:
        for bit in range(bits - 1, -1, -1):
            self.set(**{"on" if value >> bit & 1 else "off": DATA_IN})
            self.set(on=CLOCK)
            self.set(off=CLOCK)

    def receive(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            self.set(on=CLOCK)
            value = value << 1 | bool(self.bench.read("EEC") & DATA_OUT)
            self.set(off=CLOCK)
        return value

    def words(self, address: int, count: int) -> list[int]:
        self.start()
        self.send(0x03, 8)
        self.send(2 * address, 16)
        swapped = [self.receive(16) for _ in range(count)]
        self.stop()
        return [word >> 8 | (word & 0xFF) << 8 for word in swapped]

    def write_word(self, address: int, value: int) -> None:
        self.start()
        self.send(0x06, 8)
        self.stop()
        self.start()
        self.send(0x02, 8)
        self.send(2 * address, 16)
        self.send((value & 0xFF) << 8 | value >> 8, 16)
        self.stop()


def sum_of_eeprom(bench: Bench) -> int:
    """Words 00-3F and the sections of pointers 03-0E, as a driver adds them."""
    total = sum(by_eerd(bench, address) for address in range(0x40))
    for pointer in range(0x03, 0x0F):
        at = by_eerd(bench, pointer)
        if at in (0, 0xFFFF):
            continue
        length = by_eerd(bench, at)
        if length not in (0, 0xFFFF):
            total += sum(by_eerd(bench, at + 1 + i) for i in range(length))
    return total & 0xFFFF


def test_the_words_add_up_to_baba(make_bench: MakeBench) -> None:
    for mac in ("020000000001", "92f1e2d3c4b5"):
        assert sum_of_eeprom(make_bench(mac=bytes.fromhex(mac))) == 0xBABA


def test_a_bad_eeprom_does_not_add_up_until_it_is_mended(make_bench: MakeBench) -> None:
    faults = Faults(eeprom_checksum=True)
    bench = make_bench(faults)
    assert sum_of_eeprom(bench) != 0xBABA
    assert SpiMaster(bench).words(0x12, 1) == [by_eerd(bench, 0x12)]
    faults.eeprom_checksum = False
    assert sum_of_eeprom(bench) == 0xBABA


def test_words_that_drivers_look_for(bench: Bench) -> None:
    firmware = by_eerd(bench, 0x0F)
    pass_through = by_eerd(bench, firmware + 4)
    assert by_eerd(bench, pass_through + 7) > 5
    assert by_eerd(bench, 0x2C) & 1
    assert [by_eerd(bench, a) for a in (0x26, 0x27, 0x28, 0x37)] == [0xFFFF] * 4
    assert by_eerd(bench, 0x15) == 0xFAFA
    size = bench.read("EEC") >> 11 & 0xF
    assert 1 << (size + 6) == 8192


def test_the_initialisation_list_knows_sr_modules_on_both_ports(bench: Bench) -> None:
    at = by_eerd(bench, 0x2B) + 1
    found = {}
    while (kind := by_eerd(bench, at)) != 0xFFFF:
        found[kind] = by_eerd(bench, at + 1)
        at += 2
    assert {5, 6} <= set(found)
    values = []
    at = found[5] + 1
    while (value := by_eerd(bench, at)) != 0xFFFF:
        values.append(value)
        at += 1
    assert 0 < len(values) < 16


def test_the_part_number_is_readable(bench: Bench) -> None:
    at = by_eerd(bench, 0x16)
    length = by_eerd(bench, at)
    text = b"".join(by_eerd(bench, at + i).to_bytes(2, "big") for i in range(1, length))
    assert text == b"IXR599-000"


def test_spi_and_eerd_read_the_same_words(bench: Bench) -> None:
    chosen = random.Random(3).sample(range(8192), 40)
    spi = SpiMaster(bench)
    assert [spi.words(address, 1)[0] for address in chosen] == [by_eerd(bench, a) for a in chosen]
    assert spi.words(0, 0x80) == [by_eerd(bench, address) for address in range(0x80)]


def test_a_read_over_spi_goes_on_at_the_start_after_the_end(bench: Bench) -> None:
    assert SpiMaster(bench).words(8191, 2) == [by_eerd(bench, 8191), by_eerd(bench, 0)]


def test_spi_writes_need_the_write_enable_command(bench: Bench) -> None:
    spi = SpiMaster(bench)
    before = by_eerd(bench, 0x300)
    spi.start()
    spi.send(0x02, 8)
    spi.send(2 * 0x300, 16)
    spi.send(0x1234, 16)
    spi.stop()
    assert by_eerd(bench, 0x300) == before
    spi.write_word(0x300, 0x1234)
    assert by_eerd(bench, 0x300) == 0x1234
    assert spi.words(0x300, 1) == [0x1234]


def test_the_status_register_shows_the_write_enable_latch(bench: Bench) -> None:
    spi = SpiMaster(bench)
    shown = []
    for opcode in (0x06, 0x04):
        spi.start()
        spi.send(opcode, 8)
        spi.stop()
        spi.start()
        spi.send(0x05, 8)
        shown.append(spi.receive(8))
        spi.stop()
    assert shown == [2, 0]


def test_without_the_bus_the_pins_do_nothing(bench: Bench) -> None:
    spi = SpiMaster(bench)
    spi.set(off=REQUEST)
    assert not bench.read("EEC") & GRANT
    spi.start()
    spi.send(0x03, 8)
    spi.send(0, 16)
    assert spi.receive(16) == 0xFFFF


def test_what_was_written_survives_resets_but_not_power_on(bench: Bench) -> None:
    bench.write("EEC", bench.read("EEC") | WRITE_ENABLE)
    bench.write("EEWR", 0x300 << 2 | 1 | 0x4242 << 16)
    assert bench.read("EEWR") & 2
    assert by_eerd(bench, 0x300) == 0x4242
    bench.write("CTRL", 1 << 26)
    assert by_eerd(bench, 0x300) == 0x4242
    bench.card.disconnected()
    assert by_eerd(bench, 0x300) == 0xFFFF


def test_writes_are_off_until_the_field_allows_them(bench: Bench) -> None:
    bench.write("EEWR", 0x300 << 2 | 1 | 0x4242 << 16)
    assert by_eerd(bench, 0x300) == 0xFFFF


def test_a_foreign_module_is_refused_by_the_capabilities_word(make_bench: MakeBench) -> None:
    assert by_eerd(make_bench(Faults(module_foreign=True)), 0x2C) & 1 == 0


def test_each_write_over_spi_needs_its_own_enable(bench: Bench) -> None:
    spi = SpiMaster(bench)
    spi.write_word(0x300, 0x1234)
    spi.start()
    spi.send(0x02, 8)
    spi.send(2 * 0x300, 16)
    spi.send(0xFFFF, 16)
    spi.stop()
    assert by_eerd(bench, 0x300) == 0x1234
