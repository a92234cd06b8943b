"""The module in the cage, read bit by bit over I2CCTL."""

from __future__ import annotations

import pytest
from engine_twin import Bench, MakeBench

from ixroute.emulator.faults import Faults

CLOCK_IN, CLOCK_OUT, DATA_IN, DATA_OUT = 1, 2, 4, 8


class I2cMaster:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.lines(1, 1)

    def lines(self, clock: int, data: int) -> None:
        self.bench.write("I2CCTL", CLOCK_OUT * clock | DATA_OUT * data)

    def data(self) -> int:
        return int(bool(self.bench.read("I2CCTL") & DATA_IN))

    def start(self) -> None:
        self.lines(0, 1)
        self.lines(1, 1)
        self.lines(1, 0)
        self.lines(0, 0)

    def stop(self) -> None:
        self.lines(0, 0)
        self.lines(1, 0)
        self.lines(1, 1)

    def bit_out(self, bit: int) -> None:
        self.lines(0, bit)
        self.lines(1, bit)
        self.lines(0, bit)

    def bit_in(self) -> int:
        self.lines(0, 1)
        self.lines(1, 1)
        bit = self.data()
        self.lines(0, 1)
        return bit

    def byte_out(self, byte: int) -> bool:
        """True: acknowledged."""
        for bit in range(7, -1, -1):
            self.bit_out(byte >> bit & 1)
        return self.bit_in() == 0

    def byte_in(self, more: bool) -> int:
        byte = 0
        for _ in range(8):
            byte = byte << 1 | self.bit_in()
        self.bit_out(0 if more else 1)
        return byte

    def read(self, address: int, offset: int, count: int = 1) -> bytes | None:
        """None: not acknowledged."""
        self.start()
        try:
            if not (self.byte_out(address) and self.byte_out(offset)):
                return None
            self.start()
            if not self.byte_out(address | 1):
                return None
            return bytes(self.byte_in(more=i + 1 < count) for i in range(count))
        finally:
            self.stop()

    def write(self, address: int, offset: int, data: bytes) -> bool:
        self.start()
        done = all(self.byte_out(byte) for byte in (address, offset, *data))
        self.stop()
        return done


def page(bench: Bench, address: int, offset: int, count: int) -> bytes:
    found = I2cMaster(bench).read(address, offset, count)
    assert found is not None
    return found


def test_the_module_says_that_it_is_10g_sr_of_an_allowed_vendor(bench: Bench) -> None:
    identity = page(bench, 0xA0, 0, 96)
    assert identity[0] == 3
    assert identity[3] & 0x10
    assert identity[8] & 0x0C == 0
    assert identity[37:40] == bytes((0x00, 0x1B, 0x21))
    assert identity[20:36].decode().strip() == "IXROUTE"


def test_both_checksums_of_the_identity_are_right(bench: Bench) -> None:
    identity = page(bench, 0xA0, 0, 96)
    assert sum(identity[:63]) & 0xFF == identity[63]
    assert sum(identity[64:95]) & 0xFF == identity[95]


def test_single_bytes_and_long_reads_agree(bench: Bench) -> None:
    master = I2cMaster(bench)
    singles = b"".join(master.read(0xA0, offset) or b"" for offset in range(64))
    assert singles == page(bench, 0xA0, 0, 64)


def test_a_read_goes_round_at_the_end_of_the_page(bench: Bench) -> None:
    assert page(bench, 0xA0, 255, 2)[1] == 3


def test_diagnostics_have_a_right_checksum_and_values_between_their_alarms(bench: Bench) -> None:
    bench.card.set_carrier(True)
    values = page(bench, 0xA2, 0, 128)
    assert sum(values[:95]) & 0xFF == values[95]
    for i, (high, low) in enumerate([(0, 2), (8, 10), (16, 18), (24, 26), (32, 34)]):
        now = int.from_bytes(values[96 + 2 * i : 98 + 2 * i], "big", signed=i == 0)
        top = int.from_bytes(values[high : high + 2], "big", signed=i == 0)
        bottom = int.from_bytes(values[low : low + 2], "big", signed=i == 0)
        assert bottom < now < top, i


def test_diagnostics_show_laser_and_light(bench: Bench) -> None:
    dark = page(bench, 0xA2, 96, 15)
    assert dark[8:10] == b"\0\0"
    assert dark[14] & 0x02
    bench.card.set_carrier(True)
    lit = page(bench, 0xA2, 96, 15)
    assert lit[8:10] != b"\0\0"
    assert lit[14] & 0x82 == 0
    bench.write("ESDP", bench.read("ESDP") | 1 << 3)
    off = page(bench, 0xA2, 96, 15)
    assert off[6:8] == b"\0\0"
    assert off[14] & 0x80


def test_only_the_user_area_can_be_written(bench: Bench) -> None:
    master = I2cMaster(bench)
    assert master.write(0xA2, 130, b"hello")
    assert page(bench, 0xA2, 130, 5) == b"hello"
    before = page(bench, 0xA0, 20, 4)
    assert master.write(0xA0, 20, b"evil")
    assert page(bench, 0xA0, 20, 4) == before


def test_an_address_without_a_device_is_not_acknowledged(bench: Bench) -> None:
    master = I2cMaster(bench)
    assert master.read(0xB0, 0) is None
    assert master.read(0xA0, 0) == b"\x03"


def test_a_transaction_that_breaks_off_leaves_the_bus_usable(bench: Bench) -> None:
    master = I2cMaster(bench)
    for bits in range(20):
        master.start()
        for bit in range(bits):
            master.bit_out(0xA0A0A >> bit & 1)
        assert master.read(0xA0, 0) == b"\x03"


def test_an_empty_cage_answers_nobody(make_bench: MakeBench) -> None:
    empty = make_bench(Faults(no_module=True))
    assert I2cMaster(empty).read(0xA0, 0) is None
    assert not empty.read("ESDP") & 1 << 2
    unplugged = make_bench()
    unplugged.card.plug_module(False)
    assert I2cMaster(unplugged).read(0xA0, 0) is None
    unplugged.card.plug_module(True)
    assert I2cMaster(unplugged).read(0xA0, 0) == b"\x03"


def test_a_backplane_card_has_no_cage(make_bench: MakeBench) -> None:
    assert I2cMaster(make_bench(device_id=0x10F8)).read(0xA0, 0) is None


def test_a_stuck_bus_reads_0(make_bench: MakeBench) -> None:
    bench = make_bench(Faults(i2c_stuck=True))
    bench.write("I2CCTL", CLOCK_OUT | DATA_OUT)
    assert bench.read("I2CCTL") == CLOCK_OUT | DATA_OUT | CLOCK_IN


def test_modules_that_drivers_refuse(make_bench: MakeBench) -> None:
    assert page(make_bench(Faults(module_unsupported=True)), 0xA0, 3, 1) == b"\0"
    foreign = page(make_bench(Faults(module_foreign=True)), 0xA0, 0, 64)
    assert foreign[37:40] != bytes((0x00, 0x1B, 0x21))
    assert sum(foreign[:63]) & 0xFF == foreign[63]


def test_a_byte_that_is_not_acknowledged_is_the_last(bench: Bench) -> None:
    master = I2cMaster(bench)
    master.start()
    assert master.byte_out(0xA0)
    assert master.byte_out(0)
    master.start()
    assert master.byte_out(0xA1)
    assert master.byte_in(more=False) == 3
    assert [master.bit_in() for _ in range(18)] == [1] * 18


@pytest.mark.parametrize(("module", "codes", "cable"), [("sr", 0x10, 0), ("lr", 0x20, 0), ("da", 0, 0x04)])
def test_modules_that_drivers_take(make_bench: MakeBench, module: str, codes: int, cable: int) -> None:
    bench = make_bench(module=module)
    identity = page(bench, 0xA0, 0, 96)
    assert (identity[3] & 0x30, identity[8] & 0x0C) == (codes, cable)
    assert sum(identity[:63]) & 0xFF == identity[63]
    assert sum(identity[64:95]) & 0xFF == identity[95]
    has_diagnostics = bool(identity[92] & 0x40)
    assert (I2cMaster(bench).read(0xA2, 0) is not None) == has_diagnostics
