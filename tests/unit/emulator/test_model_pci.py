"""The configuration space, the regions, and interrupts' wiring."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from engine_twin import Bench, MakeBench

from ixroute.emulator.card import CardOptions
from ixroute.emulator.differences import KNOWN_DIFFERENCES
from ixroute.emulator.pci import KINDS
from ixroute.vfio_user.device import SLEEP_REGION, SLEEP_REGION_TYPE, Device, DeviceError


def capabilities(bench: Bench) -> dict[int, int]:
    found = {}
    at = bench.config(0x34, 1)
    while at:
        found[bench.config(at, 1)] = at
        at = bench.config(at + 1, 1)
    return found


def extended_capabilities(bench: Bench) -> dict[int, int]:
    found = {}
    at = 0x100
    while at:
        header = bench.config(at, 4)
        found[header & 0xFFFF] = at
        at = header >> 20
    return found


def test_capabilities_are_where_the_silicon_has_them(bench: Bench) -> None:
    assert capabilities(bench) == {0x01: 0x40, 0x05: 0x50, 0x11: 0x70, 0x10: 0xA0}
    assert extended_capabilities(bench) == {0x0001: 0x100, 0x0003: 0x140}


@pytest.mark.parametrize("device_id", sorted(KINDS))
def test_a_card_says_which_it_is(make_bench: MakeBench, device_id: int) -> None:
    bench = make_bench(device_id=device_id)
    assert (bench.config(0, 2), bench.config(2, 2)) == (0x8086, device_id)
    assert bench.config(9, 3) == 0x020000
    assert bench.config(0x0E, 1) == 0


@pytest.mark.parametrize(("bar", "size"), [(0x10, 512 << 10), (0x20, 16 << 10)])
def test_a_memory_bar_tells_its_size(bench: Bench, bar: int, size: int) -> None:
    bench.set_config(bar, 4, 0xFFFF_FFFF)
    bench.set_config(bar + 4, 4, 0xFFFF_FFFF)
    low, high = bench.config(bar, 4), bench.config(bar + 4, 4)
    assert low & 0xF == 0xC
    assert -((high << 32 | low & ~0xF) - (1 << 64)) == size
    bench.set_config(bar, 4, 0xFEB0_0000)
    assert bench.config(bar, 4) == 0xFEB0_000C


def test_the_io_bar_tells_its_size(bench: Bench) -> None:
    bench.set_config(0x18, 4, 0xFFFF_FFFF)
    assert bench.config(0x18, 4) == 0xFFFF_FFE1
    assert bench.config(0x1C, 4) == 0


def test_bars_that_are_not_there_stay_0(bench: Bench) -> None:
    bench.set_config(0x1C, 4, 0xFFFF_FFFF)
    bench.set_config(0x30, 4, 0xFFFF_FFFF)
    assert bench.config(0x1C, 4) == bench.config(0x30, 4) == 0


def test_read_only_bits_of_the_configuration_space_stay(bench: Bench) -> None:
    before = bench.card.read(7, 0, 4096)
    for at in range(0, 4096, 4):
        bench.set_config(at, 4, 0)
        bench.set_config(at, 4, 0)
    for at, size in (
        (0, 4),
        (0x08, 4),
        (0x34, 1),
        (0x40, 4),
        (0x72, 2),
        (0x74, 8),
        (0xA0, 8),
        (0xAC, 4),
        (0x100, 4),
    ):
        assert bench.card.read(7, at, size) == before[at : at + size], hex(at)


def test_the_command_register_has_only_its_bits(bench: Bench) -> None:
    bench.set_config(4, 2, 0xFFFF)
    assert bench.config(4, 2) == 0x0547


def test_msix_has_64_vectors_in_bar_4(bench: Bench) -> None:
    assert bench.config(0x72, 2) == 63
    assert bench.config(0x74, 4) == 4
    assert bench.config(0x78, 4) == 0x2004
    bench.set_config(0x72, 2, 0xFFFF)
    assert bench.config(0x72, 2) == 0xC03F
    assert bench.card.irq(2).count == 64
    assert bench.card.irq(1).count == 1
    assert [bench.card.irq(i).count for i in (0, 3, 4, 99)] == [0] * 4


def test_the_vector_table_starts_masked_and_keeps_what_is_written(bench: Bench) -> None:
    table = bench.card.read(4, 0, 8) + bench.card.read(4, 8, 8)
    assert struct.unpack("<4I", table) == (0, 0, 0, 1)
    bench.card.write(4, 16 * 63, struct.pack("<I", 0xFEE0_0003))
    assert bench.card.read(4, 16 * 63, 4) == struct.pack("<I", 0xFEE0_0000)
    bench.card.write(4, 0x2000, b"\xff" * 8)
    assert bench.card.read(4, 0x2000, 8) == bytes(8)


def test_the_link_to_the_host_has_8_lanes_at_5_gt(bench: Bench) -> None:
    assert bench.config(0xB2, 2) & 0x3FF == 0x082
    assert bench.config(0xA4, 4) >> 28 & 1
    assert bench.config(0xAA, 2) & 1 << 5 == 0


def test_the_serial_number_is_made_of_the_address(make_bench: MakeBench) -> None:
    bench = make_bench(mac=bytes.fromhex("021122334455"))
    assert bench.card.read(7, 0x144, 8)[::-1].hex() == "021122ffff334455"


def test_a_capability_that_clears_by_writing_ones(bench: Bench) -> None:
    bench.card.config.data[0xAA] = 0x0F
    bench.set_config(0xAA, 1, 0x05)
    assert bench.config(0xAA, 1) == 0x0A


def test_parts_of_the_configuration_space_in_any_size(bench: Bench) -> None:
    whole = bench.card.read(7, 0, 4096)
    assert bench.card.read(7, 0x71, 5) == whole[0x71:0x76]
    with pytest.raises(DeviceError):
        bench.card.read(7, 4095, 2)


def test_options_that_no_card_can_have() -> None:
    for wrong in (
        {"device_id": 0x1528},
        {"mac": b"123"},
        {"mac": b"\1" * 6},
        {"mac": bytes(6)},
        {"port": 2},
        {"module": "zr"},
    ):
        with pytest.raises(ValueError, match=r".+"):
            CardOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="settle"):
        CardOptions(settle=-1)


def test_regions_are_those_of_the_silicon_and_the_sleep_page(bench: Bench) -> None:
    device: Device = bench.card
    sizes = [device.region(i).size for i in range(device.info.regions)]
    assert sizes == [512 << 10, 0, 32, 0, 16 << 10, 0, 0, 4096, 0, 4096]
    sleep = device.region(SLEEP_REGION)
    assert (sleep.writable, sleep.fd, sleep.type) == (False, bench.engine.sleep_fd, SLEEP_REGION_TYPE)
    os.pwrite(bench.engine.sleep_fd, b"\1\0\0\0", 0)
    assert device.read(SLEEP_REGION, 0, 4) == b"\1\0\0\0"
    with pytest.raises(DeviceError) as refused:
        device.write(SLEEP_REGION, 0, b"\0" * 4)
    assert refused.value.errno == errno.EPERM


def test_only_queue_pages_can_be_mapped_and_only_when_asked(make_bench: MakeBench) -> None:
    assert make_bench().card.region(0).fd == -1
    mapped = make_bench(map_bar=True)
    info = mapped.card.region(0)
    assert info.fd == mapped.card.image.fd
    assert list(info.areas) == [(0x1000, 0x1000), (0x6000, 0x2000), (0xD000, 0x1000)]
    with pytest.raises(OSError, match=r".*"):
        os.ftruncate(info.fd, 0)


def test_every_tail_can_be_written_without_a_message(bench: Bench) -> None:
    events = [event for event in bench.card.io_events(0) if event.datamatch is None]
    assert {event.offset for event in events} == {
        *(0x1018 + 0x40 * q for q in range(64)),
        *(0xD018 + 0x40 * q for q in range(64)),
        *(0x6018 + 0x40 * q for q in range(128)),
    }
    for event in events:
        assert (event.size, event.event_fd, event.shadow_fd) == (
            4,
            bench.engine.event_fd,
            bench.card.image.fd,
        )
        os.pwrite(event.shadow_fd, b"\x07\0\0\0", event.shadow_offset)
        assert bench.peek(event.offset) == 7
    assert not bench.card.io_events(7)


def test_every_vector_can_be_unmasked_without_a_message_and_each_has_its_own_word(bench: Bench) -> None:
    events = [event for event in bench.card.io_events(0) if event.datamatch is not None]
    assert [(event.offset, event.datamatch) for event in events] == [
        (0xAA0 + 4 * (vector // 32), 1 << vector % 32) for vector in range(64)
    ]
    words = {event.shadow_offset for event in events}
    assert len(words) == 64
    assert not any(bench.card.read(0, offset, 4) != bytes(4) for offset in words)
    assert bench.card.unknown_registers()  # none of them is a register


def test_interrupts_reach_the_eventfds_and_are_closed_with_their_wiring(bench: Bench) -> None:
    ours = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
    bench.card.set_irqs(2, 5, [os.dup(fd) for fd in ours])
    bench.card.trigger(2, 6, 2)
    assert os.eventfd_read(ours[1]) == os.eventfd_read(ours[2]) == 1
    with pytest.raises(BlockingIOError):
        os.eventfd_read(ours[0])
    given = bench.engine.vectors[5]
    bench.card.set_irqs(2, 5, [None])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(given)
    given = bench.engine.vectors[7]
    bench.card.irqs_off(2)
    assert bench.engine.vectors == [-1] * 64
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(given)
    for fd in ours:
        os.close(fd)


def test_msi_is_vector_0_when_there_is_no_msix(bench: Bench) -> None:
    bench.card.set_irqs(1, 0, [os.eventfd(0)])
    msi = bench.engine.vectors[0]
    assert msi >= 0
    bench.card.set_irqs(2, 0, [os.eventfd(0)])
    assert bench.engine.vectors[0] not in (-1, msi)
    bench.card.irqs_off(2)
    assert bench.engine.vectors[0] == msi
    bench.card.irqs_off(1)
    assert bench.engine.vectors[0] == -1


@pytest.mark.parametrize("index", [1, 2])
def test_wiring_no_vector_at_all_changes_nothing(bench: Bench, index: int) -> None:
    bench.card.set_irqs(index, 0, [])
    assert bench.card.irq(index).count > 0


def test_interrupts_that_are_not_there_are_refused(bench: Bench) -> None:
    for index, first in ((2, 64), (2, -1), (1, 1), (0, 0), (7, 0)):
        with pytest.raises(DeviceError):
            bench.card.set_irqs(index, first, [None])
        with pytest.raises(DeviceError):
            bench.card.trigger(index, first, 1)
    bench.card.irqs_off(0)


def test_a_client_that_vanishes_leaves_nothing_behind(bench: Bench) -> None:
    bench.set_config(4, 2, 6)
    bench.card.set_irqs(2, 0, [os.eventfd(0)])
    memory = os.memfd_create("lent")
    os.ftruncate(memory, 1 << 20)
    bench.card.dma_map(0x10000, 1 << 20, memory, 0, True, True)
    bench.write("RXDCTL", 1 << 25, 3)
    bench.card.disconnected()
    assert bench.engine.vectors == [-1] * 64
    assert bench.engine.maps == {}
    assert bench.read("RXDCTL", 3) == 0
    assert bench.config(4, 2) == 0
    os.close(memory)


def test_a_closed_card_refuses_everything_and_closes_once(bench: Bench) -> None:
    bench.card.close()
    bench.card.close()
    assert bench.engine.closed
    with pytest.raises(DeviceError) as refused:
        bench.read("STATUS")
    assert refused.value.errno == errno.ENODEV
    bench.card.set_carrier(True)


def test_known_differences_are_sentences() -> None:
    assert len(KNOWN_DIFFERENCES) > 10
    assert all(text.endswith(".") and text[0].isupper() for text in KNOWN_DIFFERENCES)
