"""A card comes up as the datasheet says, or is left in reset with a clear word."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from ixroute._dataplane import ffi
from ixroute.driver.ixgbe import ids, rss
from ixroute.driver.ixgbe.port import IxgbePort
from ixroute.driver.ixgbe.registers import name_of, table
from ixroute.driver.port import PortError, PortOptions
from ixroute.driver.transport import TransportError
from ixroute.driver.umem import Umem
from lab import ixgbe_transcript
from lab.ixgbe_fake import (
    CTRL,
    EEC,
    EERD,
    EICR,
    FWSM,
    LINKS,
    MAC,
    RDRXCTL,
    SECRXCTRL,
    SECRXSTAT,
    STATUS,
    SW_FW_SYNC,
    SWSM,
    FakeClock,
    FakeRegion,
    FakeTransport,
    in_reset,
)  # fmt: skip


@pytest.fixture
def umem() -> Iterator[Umem]:
    umem = Umem(64, 4096, "off")
    yield umem
    umem.close()


def open_port(
    umem: Umem, transport: FakeTransport, queues: int = 1, options: PortOptions | None = None
) -> IxgbePort:
    return IxgbePort("p", 0, "fake", umem, queues, options or PortOptions(), transport, clock=FakeClock())


@pytest.mark.parametrize("name", ixgbe_transcript.CARDS)
def test_bring_up_is_as_written_down(name: str) -> None:
    """After a change that is meant: PYTHONPATH=tests python -m lab.ixgbe_transcript"""
    device, queues = ixgbe_transcript.CARDS[name]
    golden = (ixgbe_transcript.DATA / f"{name}.txt").read_text()
    assert ixgbe_transcript.bring_up(device, queues) == golden


def writes(region: FakeRegion, name: str, index: int = 0) -> list[int]:
    offset = table()[name].offset(index)
    return [value for way, at, value in region.log if way == "W" and at == offset]


def order(region: FakeRegion, *steps: tuple[str, int, int]) -> bool:
    """Whether writes (name, index, bits that are set) came in this order, each at its last time."""
    last = []
    for name, index, bits in steps:
        offset = table()[name].offset(index)
        at = [
            i for i, (way, o, v) in enumerate(region.log) if way == "W" and o == offset and v & bits == bits
        ]
        assert at, f"{name}[{index}] was never written with {bits:#x}"
        last.append(at[-1])
    return last == sorted(last)


def test_receive_is_enabled_last_and_queues_after_their_rings(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport, 2)
    enable = 1 << 25
    assert order(
        transport.region,
        ("RDLEN", 1, 1 << 15),
        ("SRRCTL", 1, 1 << 28),
        ("RXDCTL", 1, enable),
        ("RXCTRL", 0, 1),
    )
    assert order(transport.region, ("MTQC", 0, 0), ("DMATXCTL", 0, 1), ("TXDCTL", 1, enable))
    assert order(transport.region, ("RSSRK", 9, 1), ("RETA", 31, 1 << 8), ("MRQC", 0, 1))
    port.close()


@pytest.mark.parametrize("device", [0x10FB, 0x1528])
def test_the_eeprom_is_read_only_while_it_is_held(umem: Umem, device: int) -> None:
    """The firmware and the other port's driver read it too; X540 has nothing else that keeps them apart."""
    transport = FakeTransport(device)
    held = []

    def watch(offset: int, _: int) -> None:
        if offset == EERD:
            held.append(transport.region.peek(SW_FW_SYNC) & 1)

    transport.region.on_write = watch
    open_port(umem, transport).close()
    assert held
    assert all(held)
    assert not transport.region.peek(SW_FW_SYNC) & 1


def test_filters_change_only_while_receive_is_off(umem: Umem) -> None:
    transport = FakeTransport()
    region = transport.region
    states = []
    fctrl, rxctrl = table()["FCTRL"].offset(0), table()["RXCTRL"].offset(0)

    def watch(offset: int, _: int) -> None:
        if offset == fctrl:
            states.append(region.peek(rxctrl) & 1)

    region.on_write = watch
    port = open_port(umem, transport)
    port.set_promiscuous(True)
    assert states == [0, 0]
    assert region.peek(fctrl) & 0x700 == 0x700
    assert region.peek(rxctrl) == 1
    port.close()


def test_nothing_but_what_the_table_knows_is_ever_touched(umem: Umem) -> None:
    for device in ids.MODELS:
        transport = FakeTransport(device)
        transport.region.moved = {
            at: table()[name].offset(0) for name, at in ids.MODELS[device].mac.moved.items()
        }
        port = open_port(umem, transport)
        port.service()
        port.stats()
        port.close()
        known = set(ids.MODELS[device].mac.moved.values())
        strange = {o for _, o, _ in transport.region.log if name_of(o).startswith("0x")} - known
        assert not strange


def test_a_filter_that_cannot_be_changed_leaves_the_receive_path_as_it_was(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport)
    transport.region.force(SECRXSTAT, zero=1)
    with pytest.raises(PortError, match=r"SECRXSTAT .* RDY=1"):
        port.set_promiscuous(True)
    assert not port.promiscuous
    assert transport.region.peek(SECRXCTRL) == 0, "its receive path stays stopped"
    assert transport.region.peek(table()["RXCTRL"].offset(0)) == 1
    port.close()


Break = Callable[[FakeTransport], None]


def _eeprom(transport: FakeTransport) -> None:
    transport.region.eeprom[7] ^= 1


def _busy(transport: FakeTransport) -> None:
    transport.region.force(STATUS, one=1 << 19)
    transport.config.bytes[0xAA] = 1 << 5


def _no_mac(transport: FakeTransport) -> None:
    transport.region.force(0xA200, one=1)


BROKEN: dict[str, tuple[Break, str]] = {
    "EEPROM damaged": (_eeprom, "the EEPROM's checksum is"),
    "EEPROM never read": (
        lambda t: t.region.force(EEC, zero=1 << 9),
        r"EEC .* does not show ARD=1 within 1 s",
    ),
    "no EEPROM": (lambda t: t.region.force(EEC, zero=1 << 8), "finds no EEPROM"),
    "EERD never done": (lambda t: t.region.force(0x10014, zero=2), r"EERD .* does not show DONE=1"),
    "firmware in error": (lambda t: t.region.force(FWSM, one=5 << 19), "its firmware reports error 5"),
    "DMA never ready": (lambda t: t.region.force(RDRXCTL, zero=8), r"RDRXCTL .* does not show DMAIDONE=1"),
    "reset never ends": (lambda t: t.region.force(CTRL, one=1 << 26), r"CTRL .* does not show RST=0"),
    "master never stops": (_busy, "its PCIe transactions do not end"),
    "SMBI held": (lambda t: t.region.force(SWSM, one=1), "SWSM.SMBI .* cannot be forced"),
    "firmware holds its semaphore": (lambda t: t.region.force(SWSM, zero=2), "the firmware's semaphore"),
    "queue never enables": (
        lambda t: t.region.force(0x1028, zero=1 << 25),
        r"RXDCTL\[0\] .* does not show ENABLE=1",
    ),
    "transmit queue never enables": (
        lambda t: t.region.force(0x6028, zero=1 << 25),
        r"TXDCTL\[0\] .* does not show ENABLE=1",
    ),
    "security block never idle": (lambda t: t.region.force(SECRXSTAT, zero=1), r"SECRXSTAT .* RDY=1"),
    "MAC address of a group": (_no_mac, "the MAC address in its EEPROM is"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_card_that_does_not_come_up_is_left_in_reset_and_says_why(umem: Umem, what: str) -> None:
    break_it, why = BROKEN[what]
    transport = FakeTransport()
    break_it(transport)
    with in_reset(transport), pytest.raises(PortError, match=why) as caught:
        open_port(umem, transport)
    assert str(caught.value).startswith("port p: ")
    umem.close()


def test_requests_that_do_not_end_are_flushed_and_the_card_is_reset_all_the_same(
    umem: Umem, caplog: pytest.LogCaptureFixture
) -> None:
    transport = FakeTransport()
    transport.region.force(STATUS, one=1 << 19)
    port = open_port(umem, transport)
    assert "flushing its buffers" in caplog.text
    assert 1 << 30 in writes(transport.region, "GCR_EXT")
    assert len([v for v in writes(transport.region, "CTRL") if v & 1 << 26]) == 2
    port.close()


def test_a_stale_lock_is_taken_by_force_with_a_warning(umem: Umem, caplog: pytest.LogCaptureFixture) -> None:
    transport = FakeTransport()
    transport.region.values[SWSM] = 1
    transport.region.values[SW_FW_SYNC] = 1 << 8 | 1 << 3
    port = open_port(umem, transport)
    assert port.link().up
    assert "SWSM.SMBI is held" in caplog.text
    assert "is taken by force" in caplog.text
    assert transport.region.peek(SW_FW_SYNC) == 0
    port.close()


def test_a_link_that_is_not_there_does_not_keep_the_port_from_coming_up(umem: Umem) -> None:
    transport = FakeTransport()
    transport.region.links = 0
    clock = FakeClock()
    port = IxgbePort("p", 0, "fake", umem, 1, PortOptions(), transport, clock=clock)
    assert clock.time - 1000 < 1
    assert not port.link().up
    port.close()


def test_more_workers_than_rss_reaches_is_a_clear_error(umem: Umem) -> None:
    transport = FakeTransport()
    with pytest.raises(PortError, match="17 workers, but 82599 spreads packets to 16 queues at most"):
        open_port(umem, transport, 17)
    assert transport.closed


def test_frames_that_are_too_small_are_a_clear_error() -> None:
    small = Umem(64, 2048, "off")
    transport = FakeTransport()
    with pytest.raises(PortError, match=r"memory\.frame_bytes is 2048: a card of this family needs 4096"):
        open_port(small, transport)
    assert transport.closed
    small.close()


def test_rings_that_are_too_long_are_a_clear_error(umem: Umem) -> None:
    with pytest.raises(PortError, match="4096 at most"):
        open_port(umem, FakeTransport(), options=PortOptions(rx_slots=8192))


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (0x1234, "8086:1234 is no 82599, X540 or X550; .* force_id"),
        (0x10ED, "is a virtual function"),
        (0xFFFF, "8086:ffff is no 82599"),
    ],
)
def test_a_card_that_is_not_of_the_family_is_refused(umem: Umem, device: int, why: str) -> None:
    with pytest.raises(PortError, match=why):
        open_port(umem, FakeTransport(device))


def test_force_id_makes_a_card_what_one_says_it_is(umem: Umem) -> None:
    port = open_port(umem, FakeTransport(0x1234), options=PortOptions(force_id=0x10F7))
    assert port.features()["card"] == "82599 KX4 (10f7)"
    port.close()


# ---- RSS


def reta(region: FakeRegion, entries: int) -> list[int]:
    registers = [("RETA", i) for i in range(32)] + [("ERETA", i) for i in range(96)]
    values = [writes(region, name, i)[-1] for name, i in registers[: entries // 4]]
    return [value >> shift & 0xFF for value in values for shift in (0, 8, 16, 24)]


@pytest.mark.parametrize(
    ("device", "queues"), [(0x10FB, 1), (0x10FB, 3), (0x10FB, 16), (0x1528, 5), (0x1563, 64)]
)
def test_every_queue_has_its_share_of_the_redirection_table(device: int, queues: int) -> None:
    umem = Umem(64, 4096, "off")
    transport = FakeTransport(device)
    port = open_port(umem, transport, queues)
    entries = ids.MODELS[device].mac.reta_entries
    got = reta(transport.region, entries)
    assert set(got) == set(range(queues))
    shares = [got.count(q) for q in range(queues)]
    assert max(shares) - min(shares) <= 1
    port.close()
    umem.close()


def toeplitz(key: bytes, data: bytes) -> int:
    """The hash as Microsoft's RSS specification has it, bit by bit."""
    bits = int.from_bytes(key, "big")
    result = 0
    for i in range(len(data) * 8):
        if data[i // 8] >> (7 - i % 8) & 1:
            result ^= bits >> (len(key) * 8 - 32 - i) & 0xFFFFFFFF
    return result


def test_the_default_key_hashes_both_directions_of_a_flow_alike() -> None:
    a, b = bytes((10, 0, 0, 1)), bytes((192, 168, 7, 9))
    one, other = (1234).to_bytes(2, "big"), (80).to_bytes(2, "big")
    there, back = a + b + one + other, b + a + other + one
    assert toeplitz(rss.SYMMETRIC_KEY, there) == toeplitz(rss.SYMMETRIC_KEY, back)
    assert toeplitz(bytes(range(40)), there) != toeplitz(bytes(range(40)), back)


def test_a_key_of_ones_own_is_written_first_byte_lowest(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport, options=PortOptions(rss_key=bytes(range(1, 41))))
    assert writes(transport.region, "RSSRK", 0) == [0x04030201]
    assert writes(transport.region, "RSSRK", 9) == [0x28272625]
    assert port.features()["rss"] == "own key"
    port.close()


# ---- buffers


@pytest.mark.parametrize(("device", "kib"), [(0x10FB, 512), (0x1528, 384), (0x1563, 384)])
def test_the_whole_packet_buffer_is_used(umem: Umem, device: int, kib: int) -> None:
    transport = FakeTransport(device)
    port = open_port(umem, transport)
    assert [writes(transport.region, "RXPBSIZE", i)[-1] for i in range(8)] == [kib << 10] + [0] * 7
    assert writes(transport.region, "FCRTH", 0)[-1] == (kib << 10) - 0x6000
    port.close()


@pytest.mark.parametrize(("frame_bytes", "kib", "mtu"), [(4096, 3, 3050), (8192, 7, 7146), (16384, 15, 9710)])
def test_buffers_follow_the_frames(frame_bytes: int, kib: int, mtu: int) -> None:
    umem = Umem(64, frame_bytes, "off")
    transport = FakeTransport()
    port = open_port(umem, transport)
    assert writes(transport.region, "SRRCTL", 0) == [1 << 28 | 1 << 25 | kib]
    assert port.max_mtu == mtu
    port.set_mtu(mtu)
    assert transport.region.peek(table()["MAXFRS"].offset(0)) >> 16 == min(mtu + 26, 9728)
    assert transport.region.peek(table()["HLREG0"].offset(0)) >> 2 & 1
    with pytest.raises(PortError, match="is not from 68 to"):
        port.set_mtu(mtu + 1)
    port.close()
    umem.close()


def test_interrupts_are_the_queues_one_and_one_for_the_link(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport, 3, PortOptions(interrupt_us=50))
    region = transport.region
    assert len(transport.irq.fds) == 4
    assert port.link_fd == transport.irq.fds[3]
    assert writes(region, "IVAR", 0)[-1] == 0x00810080
    assert writes(region, "IVAR", 1)[-1] == 0x00000082
    assert writes(region, "IVAR_MISC") == [0x8300]
    assert writes(region, "EITR", 2) == [1 << 31 | 25 << 3]
    assert writes(region, "EIAM_EX", 0) == [7]
    assert writes(region, "EIMS") == [1 << 28 | 1 << 20]
    port.close()


def test_a_card_without_enough_vectors_is_polled(umem: Umem, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    transport = FakeTransport(vectors=1)
    port = open_port(umem, transport, 2)
    assert port.link_fd == -1
    assert [queue.wait_fd for queue in port.queues()] == [-1, -1]
    assert "1 interrupt vectors for 2 queues" in caplog.text
    port.close()


def test_a_card_that_was_pulled_out_is_gone_and_no_more(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport)
    transport.region.gone = True
    with pytest.raises(PortError, match="the card is gone"):
        port.link()
    with pytest.raises(PortError, match="the card is gone"):
        port.service()
    assert port.stats()["rx_missed"] == 0
    port.close()
    port.close()
    assert transport.closed
    assert not transport.mapped


def test_the_mac_address_is_the_eeproms_until_it_is_set(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport)
    assert port.mac == MAC
    port.set_mac(bytes.fromhex("0200deadbeef"))
    assert port.mac == bytes.fromhex("0200deadbeef")
    assert writes(transport.region, "RAH", 0) == [0, 0x8000EFBE]
    assert writes(transport.region, "RAL", 0) == [0xADDE0002]
    for wrong in (bytes(6), bytes.fromhex("0100deadbeef"), bytes(5)):
        with pytest.raises(PortError, match="not a unicast MAC"):
            port.set_mac(wrong)
    port.close()


def test_close_stops_in_order_and_leaves_the_card_in_reset(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport, 2)
    del transport.region.log[:]
    with in_reset(transport):
        port.close()
    region = transport.region
    assert order(
        region, ("RXCTRL", 0, 0), ("RXDCTL", 1, 0), ("TXDCTL", 1, 1 << 26), ("CTRL_EXT", 0, 0), ("CTRL", 0, 0)
    )
    assert writes(region, "CTRL_EXT")[-1] >> 28 & 1 == 0
    with pytest.raises(PortError, match="is closed"):
        port.set_mtu(1500)


def test_a_card_whose_server_has_gone_is_closed_with_one_word(
    umem: Umem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> int:
        raise TransportError("fake", "the server has gone")

    transport = FakeTransport()
    port = open_port(umem, transport)
    for part, name in (
        (transport.region, "read32"),
        (transport.region, "write32"),
        (transport.config, "read"),
        (transport.config, "write"),
        (transport, "dma_unmap"),
    ):
        monkeypatch.setattr(part, name, gone)
    with pytest.raises(PortError, match="the server has gone"):
        port.service()
    port.close()
    assert transport.closed
    umem.close()
    assert umem.c.base == ffi.NULL, "a port still holds it"
    assert [record.getMessage() for record in caplog.records].count(
        "p: on the way out: fake: the server has gone"
    ) == 1


def test_a_memory_error_has_the_card_reset(umem: Umem, caplog: pytest.LogCaptureFixture) -> None:
    transport = FakeTransport()
    clock = FakeClock()
    port = IxgbePort("p", 0, "fake", umem, 1, PortOptions(), transport, clock=clock)
    transport.region.values[EICR] = 1 << 28
    port.service()
    clock.sleep(10)
    with pytest.raises(PortError, match=r"workers of queues \[0\] do not let go"):
        port.service()  # no worker runs here that could
    port.service()
    port.reset(workers_run=False)
    assert port.stats()["resets"] == 1
    assert "memory error" in caplog.text
    assert transport.region.read32(LINKS)
    port.close()


def test_counters_are_summed_in_64_bits_by_one_reader_and_can_start_again(umem: Umem) -> None:
    transport = FakeTransport()
    port = open_port(umem, transport)
    values = transport.region.values
    for _ in range(3):
        values[table()["GPRC"].offset(0)] = 0xFFFF_FFF0
        values[table()["GORCL"].offset(0)] = 0xFFFF_FFFF
        values[table()["GORCH"].offset(0)] = 0xF
        values[table()["MPC"].offset(3)] = 7
        port.stats()
    stats = port.stats()
    assert stats["rx_packets_mac"] == 3 * 0xFFFF_FFF0
    assert stats["rx_bytes_mac"] == 3 * 0xF_FFFF_FFFF
    assert stats["rx_missed"] == stats["rx_no_buffer"] == 21
    port.reset_stats()
    assert port.stats()["rx_packets_mac"] == 0
    values[table()["GPRC"].offset(0)] = 5
    assert port.stats()["rx_packets_mac"] == 5
    port.close()
    assert port.stats()["rx_packets_mac"] == 5


def test_counters_are_read_before_they_fill_also_when_nobody_asks(umem: Umem) -> None:
    transport = FakeTransport()
    clock = FakeClock()
    port = IxgbePort("p", 0, "fake", umem, 1, PortOptions(), transport, clock=clock)
    gprc = table()["GPRC"].offset(0)
    del transport.region.log[:]
    for _ in range(60):
        clock.sleep(1)
        port.service()
    assert 4 <= [offset for _, offset, _ in transport.region.log].count(gprc) <= 8
    port.close()


def test_a_reset_that_fails_is_tried_again_and_the_link_is_down_meanwhile(umem: Umem) -> None:
    transport = FakeTransport()
    clock = FakeClock()
    port = IxgbePort("p", 0, "fake", umem, 1, PortOptions(), transport, clock=clock)
    port.set_mtu(2000)
    transport.region.force(RDRXCTL, zero=8)
    with pytest.raises(PortError, match="DMAIDONE"):
        port.reset(workers_run=False)
    assert not port.link().up
    port.service()
    transport.region.forced.clear()
    port.reset(workers_run=False)
    assert port.link().up
    assert transport.region.peek(table()["MAXFRS"].offset(0)) >> 16 == 2026
    port.close()
