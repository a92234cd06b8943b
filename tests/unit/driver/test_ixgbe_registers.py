"""The table of registers and what is refused on its ground."""

from __future__ import annotations

import pytest

from ixroute.driver.ixgbe.regfile import CardGone, ForbiddenWrite, RegisterError, RegisterFile, Timeout
from ixroute.driver.ixgbe.registers import TableError, name_of, parse, table
from lab.ixgbe_fake import FakeClock, FakeRegion


@pytest.fixture
def region() -> FakeRegion:
    return FakeRegion()


@pytest.fixture
def nic(region: FakeRegion) -> RegisterFile:
    return RegisterFile(region, FakeClock())


# Offsets that the datasheet gives, written down a second time.
KNOWN = {
    "RXDCTL": {0: 0x1028, 63: 0x1FE8, 64: 0xD028, 127: 0xDFE8},
    "SRRCTL": {0: 0x1014, 15: 0x13D4},
    "TDT": {0: 0x6018, 127: 0x7FD8},
    "RAL": {0: 0xA200, 127: 0xA5F8},
    "EITR": {0: 0x820, 23: 0x87C, 24: 0x12300},
    "RETA": {0: 0x5C00, 31: 0x5C7C},
    "IVAR": {0: 0x900, 63: 0x9FC},
    "FCRTH": {1: 0x3264},
    "QPRDC": {15: 0x17F0},
}


@pytest.mark.parametrize("name", KNOWN)
def test_registers_lie_where_the_datasheet_says(name: str) -> None:
    assert {i: table()[name].offset(i) for i in KNOWN[name]} == KNOWN[name]


def test_an_alias_has_the_name_of_its_register() -> None:
    assert [name_of(offset) for offset in (0x2104, 0x2200, 0x5408, 0x540C, 0x3)] == [
        "SRRCTL[1]",
        "DCA_RXCTRL[0]",
        "RAL[1]",
        "RAH[1]",
        "0x00003",
    ]


def test_there_is_no_register_beyond_an_array() -> None:
    with pytest.raises(IndexError, match=r"no RXDCTL\[128\]: they are 0 to 127"):
        table()["RXDCTL"].offset(128)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A 0x0 - RW 8.1\nB 0x0 - RW 8.1\n", "B and A both lie at"),
        ("A 0x0 - RW 8.1\n  .X 0..3\n  .Y 3\n", "another field's"),
        ("A 0x0 - RW 8.1\n  .X 32\n", "no field"),
        ("A 0x0 - XX 8.1\n", "no mode"),
        ("A 0x2 - RW 8.1\n", "multiple of 4"),
        ("  .X 1\n", "no register"),
        ("A 0x0 - RW 8.1\nA 0x8 - RW 8.1\n", "second line"),
        ("A 0x0 +0x4*0..1 RW 8.1\nA 0x10 +0x4*3..4 RW 8.1\n", "second line"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(text: str, why: str) -> None:
    with pytest.raises(TableError, match=why):
        parse(text)


def test_set_changes_the_fields_and_nothing_else(nic: RegisterFile, region: FakeRegion) -> None:
    region.values[0x1028] = 0x0001_0001
    nic.RXDCTL[0].set(ENABLE=1)
    assert region.peek(0x1028) == 0x0201_0001


def test_write_makes_all_other_fields_0(nic: RegisterFile, region: FakeRegion) -> None:
    region.values[0x1014] = 0xFFFF_FFFF & ~0x80000000
    nic.SRRCTL[0].write(BSIZEPACKET=3, DESCTYPE=1, DROP_EN=1)
    assert region.peek(0x1014) == 0x1200_0003


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda nic: nic.DTXMXSZRQ.write(0xFFFF), "bits 0x0000f000 are reserved"),
        (lambda nic: nic.EIMC.write(0xFFFFFFFF), "bits 0x80000000 are reserved"),
        (lambda nic: nic.SRRCTL[0].write(BSIZEPACKET=32), "32 is not from 0 to 31"),
        (lambda nic: nic.SRRCTL[0].set(BSIZEPACKET=-1), "-1 is not from 0 to 31"),
        (lambda nic: nic.RXDCTL[0].set(NOTHING=1), "has no field NOTHING"),
        (lambda nic: nic.RDBAL[0].write(1 << 32), "not a 32-bit value"),
        (lambda nic: nic.LINKS.write(0), "LINKS is read only"),
        (lambda nic: nic.GPRC.write(0), "GPRC is read only"),
    ],
)
def test_a_write_that_the_table_forbids_never_reaches_the_card(
    nic: RegisterFile, region: FakeRegion, write: object, why: str
) -> None:
    with pytest.raises(ForbiddenWrite, match=why):
        write(nic)  # type: ignore[operator]
    assert not [entry for entry in region.log if entry[0] == "W"]


def test_reserved_bits_that_the_card_shows_stay_as_they_are(nic: RegisterFile, region: FakeRegion) -> None:
    region.values[0x4240] = 0x0000_03F8
    nic.HLREG0.set(TXCRCEN=1)
    assert region.peek(0x4240) == 0x0000_03F9


def test_a_write_only_register_is_not_read(nic: RegisterFile) -> None:
    with pytest.raises(RegisterError, match="EIMC cannot be read"):
        nic.EIMC.read()


def test_wait_ends_when_the_fields_are_so(nic: RegisterFile, region: FakeRegion) -> None:
    reads = 0

    class Slow(FakeRegion):
        def read32(self, offset: int) -> int:
            nonlocal reads
            reads += 1
            return 1 << 25 if reads > 5 else 0

    assert RegisterFile(Slow(), FakeClock()).RXDCTL[3].wait(ENABLE=1) == 1 << 25
    assert reads == 6


def test_a_wait_that_is_in_vain_says_what_for_where_and_how_long(nic: RegisterFile) -> None:
    with pytest.raises(Timeout) as caught:
        nic.RXDCTL[3].wait(0.5, ENABLE=1)
    assert str(caught.value) == (
        "RXDCTL[3] (0x010e8, datasheet 8.2.3.8.6) does not show ENABLE=1 within 0.5 s: it reads 0x00000000"
    )
    assert 0.5 <= nic.clock.now() - 1000 < 0.6


def test_all_ones_everywhere_is_a_card_that_is_gone(nic: RegisterFile, region: FakeRegion) -> None:
    region.gone = True
    with pytest.raises(CardGone, match="the card is gone"):
        nic.RXDCTL[0].read()
    with pytest.raises(CardGone):
        nic.RXDCTL[0].wait(ENABLE=1)


def test_all_ones_in_one_register_is_a_value(nic: RegisterFile, region: FakeRegion) -> None:
    region.values[0x1000] = 0xFFFF_FFFF
    assert nic.RDBAL[0].read() == 0xFFFF_FFFF


def test_an_array_wants_an_index_and_a_single_register_none(nic: RegisterFile) -> None:
    with pytest.raises(IndexError, match="RXDCTL has an index from 0 to 127"):
        nic.RXDCTL.read()
    with pytest.raises(IndexError, match="CTRL is one register"):
        nic.CTRL[0]
    with pytest.raises(AttributeError, match="no register NOSUCH"):
        nic.NOSUCH  # noqa: B018


def test_a_dump_reads_nothing_whose_reading_changes_something(nic: RegisterFile, region: FakeRegion) -> None:
    region.values[0x1028] = 1 << 25
    region.values[0x1028 + 5 * 0x40] = 1 << 25
    lines = nic.dump(2)
    assert "RXDCTL[0] = 0x02000000 ENABLE=1" in lines
    assert not [line for line in lines if line.startswith("RXDCTL[5]")]
    touched = {name_of(offset).partition("[")[0] for _, offset, _ in region.log}
    assert not touched & {"EICR", "SWSM", "SW_FW_SYNC", "GPRC", "QPRC", "MPC", "EIMC"}
