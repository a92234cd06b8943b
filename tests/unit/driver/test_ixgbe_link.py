"""The link: what is plugged in, how it is asked for, and what is tried when it does not come."""

from __future__ import annotations

import itertools

import pytest

from ixroute.driver.ixgbe import ids, link, mdio, reset, sfp
from ixroute.driver.ixgbe.card import Card
from ixroute.driver.ixgbe.link import LinkControl
from ixroute.driver.ixgbe.regfile import RegisterFile
from ixroute.driver.port import Link
from lab.ixgbe_fake import AUTOC, LINK_UP_10G, SFP_SR, FakeClock, FakeTransport

ESDP = 0x20
LASER_OFF = 1 << 3


def make(device: int = 0x10FB, module: bytes = SFP_SR) -> tuple[Card, FakeTransport]:
    transport = FakeTransport(device, sfp=module)
    model = ids.MODELS[device]
    nic = RegisterFile(transport.region, FakeClock(), model.mac.moved)
    return Card(nic, transport.config, model, "p"), transport


def module_of(identifier: int = 3, ten: int = 0, one: int = 0, cable: int = 0, spec: int = 0) -> bytes:
    raw = bytearray(SFP_SR)
    raw[0], raw[3], raw[6], raw[8] = identifier, ten, one, cable
    return bytes(raw[:60]) + bytes((spec,))


def test_a_module_is_read_bit_by_bit() -> None:
    card, _ = make()
    module = sfp.identify(card)
    assert str(module) == "10GBASE-SR module Intel Corp FTLX8571D3BCV-IT"


@pytest.mark.parametrize(
    ("raw", "kind", "settings"),
    [
        (module_of(ten=0x10), "10GBASE-SR", sfp.OPTICAL),
        (module_of(ten=0x20), "10GBASE-LR", sfp.OPTICAL),
        (module_of(ten=0x80), "10GBASE-ER", None),
        (module_of(cable=4), "passive copper cable", sfp.PASSIVE_COPPER),
        (module_of(cable=8, spec=4), "active copper cable", sfp.OPTICAL),
        (module_of(cable=8), "active copper cable", None),
        (module_of(one=1), "1000BASE-SX", sfp.OPTICAL),
        (module_of(one=8), "1000BASE-T", sfp.OPTICAL),
        (module_of(), "unknown", None),
        (module_of(identifier=0x0D), "unknown (identifier 0x0d)", None),
        (bytes(61), "unknown (identifier 0x00)", None),
        (b"\xff" * 61, "unknown (identifier 0xff)", None),
    ],
)
def test_the_kind_of_a_module_is_told_from_its_codes(raw: bytes, kind: str, settings: int | None) -> None:
    module = sfp.parse(raw)
    assert (module.kind, module.settings) == (kind, settings)


def test_names_in_a_module_are_printed_and_never_trusted() -> None:
    raw = SFP_SR[:20] + b"\x1b[31mEvil\0\n".ljust(16) + SFP_SR[36:]
    assert sfp.parse(raw).vendor == "?[31mEvil??"


def test_settings_of_the_eeprom_reach_the_analog_core() -> None:
    card, transport = make()
    LinkControl(card).start()
    core = [value for way, offset, value in transport.region.log if (way, offset) == ("W", 0x14F00)]
    assert core == [0x1111, 0x2222]
    assert transport.region.peek(AUTOC) >> 13 & 7 == 3
    assert transport.region.peek(0x42A8) >> 16 & 3 == 2
    assert not transport.region.peek(ESDP) & LASER_OFF


def test_an_empty_cage_is_said_once_and_looked_at_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    card, transport = make(module=b"")
    transport.region.links = 0
    control = LinkControl(card)
    control.start()
    for _ in range(20):
        card.clock.sleep(1.0)
        assert not control.service()
    assert [record.message for record in caplog.records] == ["p: no module answers"]
    transport.region.module.content = SFP_SR
    for _ in range(3):
        card.clock.sleep(1.0)
        control.service()
    assert control.module is not None
    assert "10GBASE-SR" in caplog.text


def test_a_module_without_settings_is_not_used_and_the_option_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    card, transport = make(module=module_of(ten=0x80))
    transport.region.links = 0
    control = LinkControl(card)
    control.start()
    for _ in range(20):
        card.clock.sleep(1.0)
        control.service()
    assert caplog.text.count("10GBASE-ER module Intel Corp FTLX8571D3BCV-IT") == 1
    assert "unsupported_module = true" in caplog.text
    assert not [1 for way, offset, _ in transport.region.log if (way, offset) == ("W", AUTOC)]


def test_a_module_without_settings_is_used_when_the_option_says_so(caplog: pytest.LogCaptureFixture) -> None:
    card, transport = make(module=module_of(ten=0x80))
    control = LinkControl(card, unsupported_module=True)
    control.start()
    assert control.module is not None
    assert "trying those of optical ones" in caplog.text
    assert transport.region.peek(AUTOC) >> 13 & 7 == 3


def test_a_gigabit_module_gets_a_gigabit_link() -> None:
    card, transport = make(module=module_of(one=1))
    LinkControl(card).start()
    assert transport.region.peek(AUTOC) >> 13 & 7 == 2


def test_a_link_that_does_not_come_is_asked_for_again_and_at_last_by_a_reset() -> None:
    card, transport = make()
    transport.region.links = 0
    control = LinkControl(card)
    control.start()
    flaps = 0

    def count(offset: int, value: int) -> None:
        nonlocal flaps
        flaps += offset == ESDP and bool(value & LASER_OFF)

    transport.region.on_write = count
    resets = []
    for second in range(100):
        card.clock.sleep(1.0)
        if control.service():
            resets.append(second)
            control.start()
    assert flaps >= 30
    assert len(resets) == 4, "after 5, 10, 20, 40 tries"
    gaps = [b - a for a, b in itertools.pairwise(resets)]
    assert gaps == sorted(gaps)
    transport.region.links = LINK_UP_10G
    before = flaps
    for _ in range(20):
        card.clock.sleep(1.0)
        assert not control.service()
    assert flaps == before


@pytest.mark.parametrize(
    ("device", "links", "expected"),
    [
        (0x10FB, 0x7000_0000, Link(True, 10_000, "full")),
        (0x10FB, 0x6000_0000, Link(True, 1_000, "full")),
        (0x10FB, 0x5000_0000, Link(True, 100, "full")),
        (0x10FB, 0x3000_0000, Link(False)),
        (0x1528, 0x7800_0000, Link(True, 10_000, "full")),
        (0x1563, 0x7000_0000, Link(True, 10_000, "full")),
        (0x1563, 0x7800_0000, Link(True, 2_500, "full")),
        (0x1563, 0x5800_0000, Link(True, 5_000, "full")),
        (0x1563, 0x4000_0000, Link(True, None, "full")),
    ],
)
def test_the_speed_is_read_as_the_mac_writes_it(device: int, links: int, expected: Link) -> None:
    card, _ = make(device)
    assert link.decode(card, links) == expected


@pytest.mark.parametrize(("device", "vendor_bits"), [(0x1528, 0x8000), (0x1563, 0x8C00)])
def test_a_copper_phy_offers_every_speed_of_its_mac(device: int, vendor_bits: int) -> None:
    card, transport = make(device)
    phy = transport.region.phy
    phy[mdio.VENDOR_1, 0] = 1 << 11 | 1
    LinkControl(card).start()
    assert phy[mdio.VENDOR_1, 0] == 1, "still in low power"
    assert phy[mdio.AN, 0x20] == 1 << 12
    assert phy[mdio.AN, 0xC400] == vendor_bits
    assert phy[mdio.AN, 0x10] == 1 << 8
    assert phy[mdio.AN, 0] == 1 << 12 | 1 << 9


def test_a_copper_port_without_a_phy_is_what_its_firmware_makes_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    card, transport = make(0x1528)
    transport.region.phy.clear()
    control = LinkControl(card)
    control.start()
    assert "no PHY answers on MDIO" in caplog.text
    assert control.read().up


def test_a_phy_that_never_ends_a_cycle_does_not_stop_the_port(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    card, transport = make(0x1528)
    transport.region.force(0x425C, one=1 << 30)
    LinkControl(card).start()
    assert "no PHY answers" in caplog.text


def test_a_backplane_link_keeps_the_eeproms_mode() -> None:
    card, transport = make(0x10F7)
    transport.region.values[AUTOC] = 4 << 13
    LinkControl(card).start()
    written = [value for way, offset, value in transport.region.log if (way, offset) == ("W", AUTOC)]
    assert written == [4 << 13 | 1 << 12]


def test_the_mac_address_is_not_valid_while_it_is_half_written() -> None:
    card, transport = make()
    reset.write_mac(card, bytes.fromhex("0200deadbeef"))
    written = [(offset, value) for way, offset, value in transport.region.log if way == "W"]
    assert written == [(0xA204, 0), (0xA200, 0xADDE0002), (0xA204, 0x8000EFBE)]


def test_every_id_of_the_family_is_there_once() -> None:
    assert len(ids.MODELS) == sum(len(numbers) for _, _, numbers in ids._TABLE)
    assert not ids.MODELS.keys() & ids.VIRTUAL
    for number in (0x10F7, 0x10FB, 0x154D, 0x1557, 0x1528, 0x1560, 0x1563, 0x15D1, 0x15AD, 0x15CE, 0x15E5):
        assert number in ids.MODELS


def test_a_link_that_comes_by_itself_with_another_kind_of_module_is_made_anew_for_it() -> None:
    card, transport = make(module=b"")
    control = LinkControl(card)
    control.start()
    assert control.module is None
    transport.region.module.content = SFP_SR
    for _ in range(5):
        card.clock.sleep(1.0)
        control.service()
    assert str(control.module).startswith("10GBASE-SR")
    core = [value for way, offset, value in transport.region.log if (way, offset) == ("W", 0x14F00)]
    assert core == [0x1111, 0x2222]
