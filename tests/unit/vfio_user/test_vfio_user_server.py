"""The vfio-user server (vfio_user/server.py) and what it answers, asked message by message."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vfio_user_rig import BAR_BYTES, MATCHED, VECTORS, Memory, Raw, Toy, open_fds, pump

from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.device import SLEEP_REGION, SLEEP_REGION_TYPE
from ixroute.vfio_user.server import Server

ACCESS = struct.Struct("=QII")
MSIX = 2


class Rig:
    def __init__(self, path: Path, toy: Toy | None = None) -> None:
        self.toy = toy or Toy()
        self.server = Server(str(path), self.toy)
        self.raw = Raw(self.server)

    def read(self, offset: int, size: int = 4, region: int = 0) -> bytes:
        flags, _, body, _ = self.raw.ask(p.REGION_READ, ACCESS.pack(offset, region, size))
        assert flags == p.REPLY
        assert body[:16] == ACCESS.pack(offset, region, size)
        return body[16:]

    def close(self) -> None:
        self.raw.close()
        self.server.close()
        self.toy.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    before = open_fds()
    rig = Rig(tmp_path / "card")
    yield rig
    rig.close()
    assert open_fds() == before


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def write_message(offset: int, data: bytes, flags: int = 0, region: int = 0, number: int = 5) -> bytes:
    body = ACCESS.pack(offset, region, len(data)) + data
    return p.message(number, p.REGION_WRITE, body, flags)


# ---- the agreement at the beginning ----


def test_the_version_reply_fits_the_room_of_a_client_that_sized_it_by_its_own_request(tmp_path: Path) -> None:
    toy = Toy()
    server = Server(str(tmp_path / "card"), toy)
    raw = Raw(server, negotiate=False)
    # QEMU 11's, which takes a reply that is longer than this for an attack.
    asked = (
        b'{"capabilities":{"migration":{"pgsize":4096,"max_bitmap_size":268435456},"max_msg_fds":16,'
        b'"max_data_xfer_size":1048576,"pgsizes":4096,"max_dma_maps":65535,"write_multiple":true}}\0'
    )
    _, _, body, _ = raw.ask(p.VERSION, struct.pack("=HH", 0, 0) + asked)
    assert len(body) <= 4 + len(asked)
    answer = p.Version.unpack(body)
    assert (answer.major, answer.minor) == (0, 0)
    assert answer.capabilities.max_msg_fds <= 16
    assert answer.capabilities.write_multiple
    assert body.endswith(b"\0")
    for end in (raw, server, toy):
        end.close()


def test_write_multiple_is_not_offered_to_a_client_that_did_not_name_it(rig: Rig) -> None:
    raw = rig.raw
    raw.close()
    rig.raw = Raw(rig.server, negotiate=False)
    _, _, body, _ = rig.raw.ask(p.VERSION, struct.pack("=HH", 0, 7))
    assert p.Version.unpack(body).minor <= 7
    assert not p.Version.unpack(body).capabilities.write_multiple


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (p.GET_INFO, p.DeviceInfo().pack()),
        (p.VERSION, struct.pack("=HH", 1, 0)),
        (p.VERSION, b"\0"),
        (p.VERSION, struct.pack("=HH", 0, 0) + b"{\0"),
    ],
)
def test_a_client_that_does_not_begin_rightly_gets_an_error_and_is_disconnected(
    rig: Rig, command: int, body: bytes
) -> None:
    rig.raw.close()
    raw = Raw(rig.server, negotiate=False)
    assert raw.error(command, body) == errno.EINVAL
    assert raw.ended()
    raw.close()
    assert rig.server.counters.broken == 1
    rig.raw = Raw(rig.server)
    assert rig.read(0x40) == bytes(4)


def test_a_second_version_is_refused(rig: Rig) -> None:
    assert rig.raw.error(p.VERSION, p.Version().pack()) == errno.EINVAL
    assert rig.read(0x40) == bytes(4)


# ---- what the device is ----


def test_device_and_interrupts_are_described(rig: Rig) -> None:
    _, _, body, _ = rig.raw.ask(p.GET_INFO, p.DeviceInfo().pack())
    assert p.DeviceInfo.unpack(body) == p.DeviceInfo(9, 5, p.DEVICE_FLAG_PCI | p.DEVICE_FLAG_RESET)
    _, _, body, _ = rig.raw.ask(p.GET_IRQ_INFO, p.IrqInfo(MSIX).pack())
    assert p.IrqInfo.unpack(body) == p.IrqInfo(MSIX, VECTORS, p.IRQ_FLAG_EVENTFD)
    assert rig.raw.error(p.GET_IRQ_INFO, p.IrqInfo(5).pack()) == errno.EINVAL
    assert rig.raw.error(p.GET_INFO, p.DeviceInfo(argsz=8).pack()) == errno.EINVAL


def region_info(raw: Raw, index: int, argsz: int) -> tuple[p.RegionInfo, bytes, int]:
    """And how many descriptors came along."""
    _, _, body, fds = raw.ask(p.GET_REGION_INFO, p.RegionInfo(index, argsz=argsz).request())
    for fd in fds:
        os.close(fd)
    return p.RegionInfo.unpack(body), body, len(fds)


def test_a_trapped_region_has_no_memory_and_no_capabilities(rig: Rig) -> None:
    info, body, n_fds = region_info(rig.raw, 0, 4096)
    assert (info.size, info.flags, len(body), n_fds) == (BAR_BYTES, 3, 32, 0)
    info, _, _ = region_info(rig.raw, 3, 32)
    assert (info.size, info.flags) == (0, 0)
    assert rig.raw.error(p.GET_REGION_INFO, p.RegionInfo(9).request()) == errno.EINVAL
    assert rig.raw.error(p.GET_REGION_INFO, p.RegionInfo(0, argsz=31).request()) == errno.EINVAL


def test_a_sparse_region_is_told_short_and_then_whole_with_its_memory(tmp_path: Path) -> None:
    before = open_fds()
    rig = Rig(tmp_path / "card", Toy(mapped="page", sleeps=True))
    short, body, n_fds = region_info(rig.raw, 0, 32)
    assert (len(body), n_fds) == (32, 0)
    whole, body, n_fds = region_info(rig.raw, 0, short.argsz)
    assert (len(body), n_fds) == (short.argsz, 1)
    assert whole.areas == ((0x1000, 4096),)
    assert whole.flags == 0xF
    sleep, _, _ = region_info(rig.raw, SLEEP_REGION, 100)
    assert (sleep.type, sleep.flags) == (SLEEP_REGION_TYPE, 0xD)
    rig.close()
    assert open_fds() == before


def test_events_share_descriptors(tmp_path: Path) -> None:
    before = open_fds()
    rig = Rig(tmp_path / "card", Toy(shadow=True))
    _, _, body, fds = rig.raw.ask(p.GET_REGION_IO_FDS, p.IoFds(0, argsz=4096).request())
    assert len(fds) == 2
    registers = p.IoFds.unpack(body).registers
    assert {(r.fd, r.shadow) for r in registers} == {(0, 1)}
    assert [(r.offset, r.flags, r.datamatch) for r in registers] == [
        *((0x2010 + 4 * i, 0, 0) for i in range(3)),
        *((MATCHED, p.IO_FD_DATAMATCH, 1 << i) for i in range(3)),
    ]
    for fd in fds:
        os.close(fd)
    _, _, body, fds = rig.raw.ask(p.GET_REGION_IO_FDS, p.IoFds(0, argsz=16).request())
    assert (len(body), fds) == (16, [])
    assert p.IoFds.unpack(body).argsz == 16 + 6 * 48
    _, _, body, fds = rig.raw.ask(p.GET_REGION_IO_FDS, p.IoFds(1, argsz=4096).request())
    assert (p.IoFds.unpack(body).registers, fds) == ((), [])
    rig.close()
    assert open_fds() == before


# ---- registers ----


def test_registers_are_read_and_written_with_and_without_an_answer(rig: Rig) -> None:
    rig.raw.send(write_message(0x40, b"abcd"))
    assert rig.raw.replies() == [(5, p.REGION_WRITE, p.REPLY, 0, ACCESS.pack(0x40, 0, 4), [])]
    rig.raw.send(write_message(0x44, b"efgh", p.NO_REPLY))
    assert rig.raw.replies() == []
    assert rig.read(0x40, 8) == b"abcdefgh"
    assert rig.read(0x41, 1) == b"b"


def test_a_burst_of_messages_is_answered_in_order(rig: Rig) -> None:
    burst = b""
    for i in range(200):
        burst += write_message(0x40, struct.pack("=I", i), p.NO_REPLY)
        burst += p.message(i, p.REGION_READ, ACCESS.pack(0x40, 0, 4))
        burst += p.message(1000 + i, p.GET_IRQ_INFO, p.IrqInfo(MSIX).pack()) if i % 7 == 0 else b""
    rig.raw.send(burst)
    replies = rig.raw.replies()
    reads = [(r[0], struct.unpack("=I", r[4][16:])[0]) for r in replies if r[1] == p.REGION_READ]
    assert reads == [(i, i) for i in range(200)]
    assert [r[0] for r in replies if r[1] == p.GET_IRQ_INFO] == list(range(1000, 1200, 7))


@pytest.mark.parametrize(
    ("region", "offset", "size"),
    [
        (0, BAR_BYTES, 4),
        (0, BAR_BYTES - 2, 4),
        (0, 1 << 63, 4),
        (0, 0, 0),
        (1, 0, 4),
        (99, 0, 4),
        (7, 4096, 1),
    ],
)
def test_registers_that_are_not_there_are_refused(rig: Rig, region: int, offset: int, size: int) -> None:
    access = ACCESS.pack(offset, region, size)
    assert rig.raw.error(p.REGION_READ, access) == errno.EINVAL
    assert rig.raw.error(p.REGION_WRITE, access + bytes(size)) == errno.EINVAL
    refused = rig.server.counters.refused
    rig.raw.send(p.message(1, p.REGION_WRITE, access + bytes(size), p.NO_REPLY))
    assert rig.raw.replies() == []
    assert rig.server.counters.refused == refused + 1


def test_accesses_with_wrong_lengths_are_refused(rig: Rig) -> None:
    for body in (b"", bytes(15), ACCESS.pack(0, 0, 4) + b"1"):
        assert rig.raw.error(p.REGION_READ, body) == errno.EINVAL
    for body in (
        b"",
        bytes(15),
        ACCESS.pack(0, 0, 4),
        ACCESS.pack(0, 0, 4) + b"123",
        ACCESS.pack(0, 0, 4) + b"12345",
    ):
        assert rig.raw.error(p.REGION_WRITE, body) == errno.EINVAL
    assert rig.raw.error(p.REGION_READ, ACCESS.pack(0, 0, 1 << 20)) == errno.EINVAL


def test_what_the_device_refuses_is_answered_with_its_errno(rig: Rig) -> None:
    assert rig.raw.error(p.REGION_READ, ACCESS.pack(0x14, 0, 4)) == errno.ENXIO
    assert rig.raw.error(p.REGION_WRITE, ACCESS.pack(0x14, 0, 4) + bytes(4)) == errno.ENXIO


def test_a_mistake_in_the_device_is_an_error_reply_and_a_log_line(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert rig.raw.error(p.REGION_READ, ACCESS.pack(0x18, 0, 4)) == errno.EIO
    assert "ZeroDivisionError" in caplog.text
    assert rig.read(0x40) == bytes(4)


def test_several_writes_in_one_message_stop_at_the_first_that_is_refused(rig: Rig) -> None:
    writes = [(0, 0x40, b"1234"), (0, 0x44, b"12345678"), (0, 0x14, b"1234"), (0, 0x50, b"1234")]
    _, _, body, _ = rig.raw.ask(p.REGION_WRITE_MULTI, p.pack_writes(writes))
    assert struct.unpack("=Q", body) == (2,)
    assert rig.read(0x40, 24) == b"123412345678" + bytes(12)
    assert rig.raw.error(p.REGION_WRITE_MULTI, p.pack_writes(writes)[:-1]) == errno.EINVAL
    rig.raw.send(p.message(3, p.REGION_WRITE_MULTI, p.pack_writes(writes[:2]), p.NO_REPLY))
    assert rig.raw.replies() == []


def test_the_configuration_space_is_a_region(rig: Rig) -> None:
    rig.raw.send(write_message(0x10, b"\xff\xff\xff\xff", region=7))
    rig.raw.replies()
    assert rig.read(0x10, 4, 7) == b"\xff" * 4
    assert len(rig.read(0, 4096, 7)) == 4096


# ---- memory ----


def test_memory_is_mapped_with_and_without_a_descriptor_and_unmapped(rig: Rig) -> None:
    memory = Memory()
    wide = p.DmaUnmap(0, 1 << 64)
    assert rig.raw.error(p.DMA_MAP, p.DmaMap(0x1000, 4096, 4096, write=False).pack(), [memory.fd]) == 0
    assert rig.raw.error(p.DMA_MAP, p.DmaMap(0x9000, 4096).pack()) == 0
    assert rig.raw.error(p.DMA_MAP, p.DmaMap(0x1800, 4096).pack(), [memory.fd]) == errno.EEXIST
    _, _, body, _ = rig.raw.ask(p.DMA_UNMAP, p.DmaUnmap(0x1000, 4096).pack())
    assert body == p.DmaUnmap(0x1000, 4096).pack()
    assert rig.raw.error(p.DMA_UNMAP, p.DmaUnmap(0x77000, 1 << 40).pack()) == 0
    assert rig.raw.error(p.DMA_UNMAP, wide.pack()) == 0
    assert [call for call in rig.toy.calls if call[0] != "reset"] == [
        ("dma_map", 0x1000, 4096, True, 4096, True, False),
        ("dma_map", 0x9000, 4096, False, 0, True, True),
        ("dma_map", 0x1800, 4096, True, 0, True, True),
        ("dma_unmap", 0x1000, 4096),
        ("dma_unmap", 0x77000, 1 << 40),
        ("dma_unmap", 0, 1 << 64),
    ]
    assert not rig.toy.dma
    memory.close()


def test_memory_that_ends_before_the_mapping_is_refused(rig: Rig) -> None:
    memory = Memory(8192)
    for offset, size in ((4096, 8192), (8192, 4096), (0, 1 << 40)):
        assert rig.raw.error(p.DMA_MAP, p.DmaMap(0, size, offset).pack(), [memory.fd]) == errno.EINVAL
    assert not rig.toy.calls
    memory.close()


def test_mappings_that_make_no_sense_are_refused(rig: Rig) -> None:
    for address, size, offset in ((0, 0, 0), ((1 << 64) - 4096, 8192, 0), (0, 4096, (1 << 64) - 1)):
        body = struct.pack("=IIQQQ", 32, 3, offset, address, size)
        assert rig.raw.error(p.DMA_MAP, body) == errno.EINVAL
    assert rig.raw.error(p.DMA_MAP, struct.pack("=IIQQQ", 32, 4, 0, 0, 4096)) == errno.EINVAL
    assert rig.raw.error(p.DMA_UNMAP, struct.pack("=IIQQ", 24, 1, 0, 4096)) == errno.ENOTSUP
    assert rig.raw.error(p.DMA_UNMAP, struct.pack("=IIQQ", 24, 0, 0, 0)) == errno.EINVAL
    assert rig.raw.error(p.DMA_MAP, p.DmaMap(0, 4096).pack(), [0, 0]) == errno.EINVAL
    assert not rig.toy.calls


# ---- interrupts ----


def set_irqs(rig: Rig, m: p.SetIrqs, fds: list[int]) -> int:
    return rig.raw.error(p.SET_IRQS, m.pack(), fds)


def test_interrupts_are_wired_raised_and_unwired(rig: Rig, event: int) -> None:
    assert set_irqs(rig, p.SetIrqs(MSIX, 3, 2, p.IRQ_DATA_EVENTFD), [event, event]) == 0
    assert set_irqs(rig, p.SetIrqs(MSIX, 3, 1, p.IRQ_DATA_NONE), []) == 0
    assert os.eventfd_read(event) == 1
    assert set_irqs(rig, p.SetIrqs(MSIX, 2, 3, p.IRQ_DATA_BOOL, chosen=b"\1\1\1"), []) == 0
    assert os.eventfd_read(event) == 2
    assert set_irqs(rig, p.SetIrqs(MSIX, 3, 1, p.IRQ_DATA_EVENTFD), []) == 0
    assert sorted(rig.toy.vectors) == [4]
    assert set_irqs(rig, p.SetIrqs(MSIX, 0, 0, p.IRQ_DATA_NONE), []) == 0
    assert not rig.toy.vectors


def test_interrupts_that_are_not_there_are_refused(rig: Rig, event: int) -> None:
    eventfd = p.IRQ_DATA_EVENTFD
    for index, start, count, fds in (
        (MSIX, VECTORS, 1, [event]),
        (MSIX, 0, VECTORS + 1, []),
        (MSIX, 0, 0, []),
        (MSIX, 0, 2, [event]),
        (MSIX, 0xFFFFFFFF, 1, [event]),
        (9, 0, 1, [event]),
        (MSIX, 0, 20, [event] * 20),
    ):
        assert set_irqs(rig, p.SetIrqs(index, start, count, eventfd), fds) == errno.EINVAL
    assert not rig.toy.calls


def test_only_eventfds_that_do_not_block_are_wired(rig: Rig) -> None:
    memory = Memory()
    one = p.SetIrqs(MSIX, 0, 1, p.IRQ_DATA_EVENTFD)
    assert set_irqs(rig, one, [memory.fd]) == errno.EINVAL
    blocking = os.eventfd(0, os.EFD_CLOEXEC)
    assert set_irqs(rig, one, [blocking]) == 0
    assert not os.get_blocking(blocking)
    os.close(blocking)
    memory.close()


def test_masking_is_for_kinds_of_interrupt_that_can_be_masked(tmp_path: Path, event: int) -> None:
    rig = Rig(tmp_path / "card", Toy(maskable=1))
    for index, wanted in ((1, 0), (2, errno.ENOTSUP)):
        for action in (p.IRQ_ACTION_MASK, p.IRQ_ACTION_UNMASK):
            assert set_irqs(rig, p.SetIrqs(index, 0, 1, p.IRQ_DATA_NONE, action), []) == wanted
    assert rig.toy.calls == [("mask", 1, 0, 1, True), ("mask", 1, 0, 1, False)]
    assert set_irqs(rig, p.SetIrqs(1, 0, 1, p.IRQ_DATA_EVENTFD, p.IRQ_ACTION_MASK), [event]) == errno.ENOTSUP
    rig.close()


def test_flags_of_interrupts_are_one_kind_of_data_and_one_action(rig: Rig) -> None:
    for flags in (0, 1, 32, 3 | 32, 1 | 24, 1 | 32 | 64):
        body = struct.pack("=IIIII", 20, flags, MSIX, 0, 1)
        assert rig.raw.error(p.SET_IRQS, body) == errno.EINVAL


# ---- everything else ----


def test_reset_reaches_the_device(rig: Rig) -> None:
    rig.raw.send(write_message(0x40, b"abcd", p.NO_REPLY))
    assert rig.raw.error(p.RESET) == 0
    assert rig.read(0x40) == bytes(4)
    assert rig.raw.error(p.RESET, b"1") == errno.EINVAL


@pytest.mark.parametrize(
    "command", [0, p.DIRTY_PAGES, p.DMA_READ, p.DEVICE_FEATURE, p.MIG_DATA_READ, p.MIG_DATA_WRITE, 19, 0xFFFF]
)
def test_what_is_not_supported_is_said_to_be(rig: Rig, command: int) -> None:
    assert rig.raw.error(command, bytes(8)) == errno.ENOTSUP
    rig.raw.send(p.message(1, command, b"", p.NO_REPLY))
    assert rig.raw.replies() == []


def test_descriptors_beside_a_message_that_has_none_are_refused_and_closed(rig: Rig, event: int) -> None:
    before = open_fds()
    assert rig.raw.error(p.REGION_READ, ACCESS.pack(0, 0, 4), [event]) == errno.EINVAL
    assert rig.raw.error(p.RESET, b"", [event] * 200) == errno.EINVAL
    assert open_fds() == before


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 4,
        p.HEADER.pack(1, p.REGION_READ, 15, 0, 0),
        p.HEADER.pack(1, p.REGION_WRITE, 1 << 31, 0, 0),
        p.message(1, p.REGION_READ, b"", p.REPLY),
        p.message(1, p.REGION_READ, b"", 2),
        write_message(0, bytes(p.MAX_TRANSFER + 1)),
    ],
)
def test_a_client_whose_stream_makes_no_sense_is_disconnected_and_the_next_one_served(
    rig: Rig, data: bytes
) -> None:
    rig.raw.send(data)
    assert rig.raw.ended()
    assert (rig.server.counters.broken, rig.toy.clients_gone) == (1, 1)
    rig.raw.socket.close()
    rig.raw = Raw(rig.server)
    assert rig.read(0x40) == bytes(4)


@pytest.mark.parametrize("kept", [1, 15, 16, 31, 35])
def test_a_client_that_vanishes_within_a_message_leaves_nothing(rig: Rig, event: int, kept: int) -> None:
    second = Raw(rig.server, negotiate=False)
    before = len(open_fds())
    rig.raw.send(write_message(0x40, b"abcd")[:kept], [event])
    assert len(open_fds()) == before + 1
    rig.raw.close()
    assert rig.toy.clients_gone == 1
    rig.raw = second
    rig.raw.send(p.message(1, p.VERSION, p.Version().pack()))
    assert len(rig.raw.replies()) == 1
    assert rig.read(0x40) == bytes(4)
    assert len(open_fds()) == before - 1


def test_a_second_client_waits_until_the_first_has_gone(rig: Rig) -> None:
    rig.raw.send(write_message(0x40, b"abcd", p.NO_REPLY))
    second = Raw(rig.server, negotiate=False)
    second.send(p.message(9, p.VERSION, p.Version().pack()))
    assert second.replies() == []
    assert rig.read(0x40) == b"abcd"
    rig.raw.close()
    assert [reply[0] for reply in second.replies()] == [9]
    rig.raw = second
    assert rig.read(0x40) == bytes(4)
    assert rig.server.counters.clients == 2


def test_what_a_client_wired_and_mapped_is_gone_with_it(rig: Rig, event: int) -> None:
    memory = Memory()
    assert rig.raw.error(p.DMA_MAP, p.DmaMap(0, 4096).pack(), [memory.fd]) == 0
    assert set_irqs(rig, p.SetIrqs(MSIX, 0, 1, p.IRQ_DATA_EVENTFD), [event]) == 0
    rig.raw.close()
    assert not rig.toy.dma
    assert not rig.toy.vectors
    rig.raw = Raw(rig.server)
    memory.close()


def test_a_client_that_does_not_read_its_replies_gets_them_all_when_it_does(tmp_path: Path) -> None:
    before = open_fds()
    rig = Rig(tmp_path / "card", Toy(mapped="all"))
    wanted = 0
    for number in range(60):
        rig.raw.send(p.message(number, p.REGION_READ, ACCESS.pack(0x40, 0, 0x3000)))
        rig.raw.send(p.message(number, p.GET_REGION_INFO, p.RegionInfo(0).request()))
        wanted += 2
    held = sum(len(data) for data, _ in rig.server._out)
    assert 0 < held < 4 * p.MAX_MESSAGE
    got = []
    while len(got) < wanted:
        new = rig.raw.replies()
        assert new
        got += new
        pump(rig.server)
    assert [(r[0], r[1]) for r in got] == [
        (i, command) for i in range(60) for command in (p.REGION_READ, p.GET_REGION_INFO)
    ]
    assert all(len(r[5]) == (r[1] == p.GET_REGION_INFO) for r in got)
    for reply in got:
        for fd in reply[5]:
            os.close(fd)
    rig.close()
    assert open_fds() == before


def test_a_client_that_never_reads_can_still_vanish(tmp_path: Path) -> None:
    before = open_fds()
    rig = Rig(tmp_path / "card", Toy(mapped="all"))
    for number in range(60):
        rig.raw.send(p.message(number, p.GET_REGION_INFO, p.RegionInfo(0).request()))
        rig.raw.send(p.message(number, p.REGION_READ, ACCESS.pack(0x40, 0, 0x3000)))
    assert rig.server._out
    rig.raw.close()
    assert not rig.server.connected
    rig.raw = Raw(rig.server)
    rig.close()
    assert open_fds() == before


WHOLE = [
    p.message(1, p.DMA_MAP, p.DmaMap(0, 4096).pack()),
    p.message(2, p.DMA_UNMAP, p.DmaUnmap(0, 4096).pack()),
    p.message(3, p.GET_INFO, p.DeviceInfo().pack()),
    p.message(4, p.GET_REGION_INFO, p.RegionInfo(0, argsz=64).request()),
    p.message(5, p.GET_REGION_IO_FDS, p.IoFds(0, argsz=64).request()),
    p.message(6, p.GET_IRQ_INFO, p.IrqInfo(MSIX).pack()),
    p.message(7, p.SET_IRQS, p.SetIrqs(MSIX, 0, 2, p.IRQ_DATA_EVENTFD).pack()),
    p.message(8, p.SET_IRQS, p.SetIrqs(MSIX, 0, 2, p.IRQ_DATA_BOOL, chosen=b"\1\0").pack()),
    p.message(9, p.REGION_READ, ACCESS.pack(0x40, 0, 4)),
    write_message(0x40, b"abcd", p.NO_REPLY),
    write_message(0x04, b"\1\0\0\0"),
    p.message(11, p.REGION_WRITE_MULTI, p.pack_writes([(0, 0x40, b"12345678")] * 2)),
    p.message(12, p.RESET),
    p.message(13, p.VERSION, p.Version().pack()),
]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(WHOLE),
            st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=3),
            st.integers(0, 80),
            st.integers(0, 3),
        ),
        max_size=12,
    )
)
def test_whatever_one_client_sends_the_next_one_finds_the_device_in_order(
    session: list[tuple[bytes, list[tuple[int, int]], int, int]],
) -> None:
    before = open_fds()
    here, there = socket.socketpair()
    toy = Toy(mapped="page", shadow=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # a name that the kernel chooses
        listener.listen(4)
        server = Server(listener, toy)
        server.path = listener.getsockname()
        raw = Raw(server)
        for message, changes, kept, n_fds in session:
            data = bytearray(message)
            for at, byte in changes:
                if at < len(data):
                    data[at] = byte
            if data[:kept]:
                raw.send(bytes(data[:kept]), [here.fileno(), there.fileno(), toy.event][:n_fds])
        for reply in raw.replies():
            for fd in reply[5]:
                os.close(fd)
        raw.close()
        assert not server.connected
        raw = Raw(server)
        flags, error, body, _ = raw.ask(p.REGION_READ, ACCESS.pack(0x40, 0, 4))
        assert (flags, error, body[16:]) == (p.REPLY, 0, bytes(4))
        assert not toy.dma
        raw.close()
        server.path = ""
        server.close()
    toy.close()
    here.close()
    there.close()
    assert open_fds() == before


# ---- the path ----


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "card"
    toy = Toy()
    server = Server(str(path), toy)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.close()
    server.close()
    assert not path.exists()
    toy.close()


def test_a_path_that_a_killed_server_left_is_taken_over_and_a_used_one_is_not(tmp_path: Path) -> None:
    before = open_fds()
    path = tmp_path / "card"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    toy = Toy()
    first = Server(str(path), toy)
    with pytest.raises(OSError, match="card"):
        Server(str(path), toy)
    os.unlink(path)
    second = Server(str(path), toy)
    first.close()
    assert path.exists()
    second.close()
    path.write_text("a file")
    with pytest.raises(OSError, match="card"):
        Server(str(path), toy)
    assert path.read_text() == "a file"
    with pytest.raises(OSError, match="AF_UNIX path too long"):
        Server("/" + "x" * 200, toy)
    toy.close()
    assert open_fds() == before
