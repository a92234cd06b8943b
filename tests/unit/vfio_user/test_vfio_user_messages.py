"""The messages of vfio-user (vfio_user/protocol.py): what is packed is unpacked, and nothing else is accepted."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute.vfio_user import protocol as p

u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u63 = st.integers(1, 1 << 62)
pairs = st.lists(st.tuples(u63, u63), max_size=5).map(tuple)
FORMS: dict[str, Any] = {
    "version": st.builds(
        p.Version,
        u16,
        u16,
        st.builds(p.Capabilities, st.integers(0, 253), st.integers(0, 1 << 30), u16, u63, st.booleans()),
    ),
    "map": st.builds(p.DmaMap, u63, u63, u63, st.booleans(), st.booleans()),
    "unmap": st.one_of(st.builds(p.DmaUnmap, u63, u63), st.just(p.DmaUnmap(0, 1 << 64))),
    "info": st.builds(p.DeviceInfo, u32, u32, u32),
    "irq": st.builds(p.IrqInfo, u32, u32, u32),
    "set irqs": st.builds(p.SetIrqs, u32, u32, u32, st.sampled_from([1, 4]), st.sampled_from([8, 16, 32])),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_packed_is_unpacked(name: str) -> None:
    @given(FORMS[name])
    def check(message: Any) -> None:
        assert type(message).unpack(message.pack()) == message

    check()


@given(st.builds(p.RegionInfo, u32, u63, st.integers(0, 7), u63, pairs, st.none() | st.tuples(u32, u32)))
def test_a_region_with_its_capabilities_is_unpacked(info: p.RegionInfo) -> None:
    got = p.RegionInfo.unpack(info.pack())
    assert (got.index, got.size, got.offset) == (info.index, info.size, info.offset)
    assert (got.areas, got.type) == (info.areas, info.type)
    assert got.flags == info.flags | p.REGION_FLAG_CAPS * bool(info.areas or info.type)
    assert got.argsz == len(info.pack())


@given(u32, st.lists(st.builds(p.IoFd, u63, u32, u32, u32, u32, u32, u63, u63), max_size=4).map(tuple))
def test_events_of_registers_are_unpacked(index: int, registers: tuple[p.IoFd, ...]) -> None:
    assert p.IoFds.unpack(p.IoFds(index, registers).pack()).registers == registers


@given(st.lists(st.tuples(u32, u63, st.binary(min_size=1, max_size=8)), min_size=1, max_size=9))
def test_several_writes_are_unpacked(writes: list[tuple[int, int, bytes]]) -> None:
    assert p.unpack_writes(p.pack_writes(writes)) == writes


@pytest.mark.parametrize("unpack", [*(c.unpack for c in (
    p.Version, p.DmaMap, p.DmaUnmap, p.DeviceInfo, p.RegionInfo, p.IoFds, p.IrqInfo, p.SetIrqs
)), p.unpack_writes])  # fmt: skip
def test_any_bytes_are_a_message_or_a_protocol_error(unpack: Any) -> None:
    seeds = [
        p.Version().pack(),
        p.DmaMap(0, 4096).pack(),
        p.DmaUnmap(0, 4096).pack(),
        p.DeviceInfo().pack(),
        p.RegionInfo(0, 4096, 4, 0, ((0, 4096),), (1, 2)).pack(),
        p.IoFds(0, (p.IoFd(0, 4, 0),)).pack(),
        p.IrqInfo(0).pack(),
        p.SetIrqs(2, 0, 3, p.IRQ_DATA_BOOL, chosen=b"\1\0\1").pack(),
        p.pack_writes([(0, 0, b"1234")]),
    ]

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(seeds),
        st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255))),
        st.integers(-9, 9),
    )
    def check(seed: bytes, changes: list[tuple[int, int]], longer: int) -> None:
        data = bytearray(seed[:longer] if longer < 0 else seed + bytes(longer))
        for at, byte in changes:
            if at < len(data):
                data[at] = byte
        with contextlib.suppress(p.ProtocolError):
            unpack(memoryview(data))

    check()


def test_messages_of_fixed_size_have_that_size() -> None:
    for form, body in (
        (p.DmaMap, p.DmaMap(0, 4096).pack()),
        (p.DmaUnmap, p.DmaUnmap(0, 4096).pack()),
        (p.DeviceInfo, p.DeviceInfo().pack()),
        (p.IrqInfo, p.IrqInfo(0).pack()),
        (p.SetIrqs, p.SetIrqs(0, 0, 0, 1).pack()),
    ):
        for wrong in (body[:-1], body + b"\0", b""):
            with pytest.raises(p.ProtocolError):
                form.unpack(wrong)
    assert (len(p.DmaMap(0, 1).pack()), len(p.DmaUnmap(0, 1).pack()), len(p.IrqInfo(0).pack())) == (
        32,
        24,
        16,
    )


def test_a_reply_for_a_client_with_little_room_still_says_where_capabilities_begin() -> None:
    # QEMU takes cap_offset < 32 for a broken server, and more bytes than it asked for too.
    whole = p.RegionInfo(0, 0x80000, 7, 0, ((0x1000, 0x1000), (0x6000, 0x2000)))
    short = whole.pack(32)
    assert len(short) == 32
    argsz, flags, _, cap_offset, _, _ = struct.unpack("=IIIIQQ", short)
    assert (argsz, flags & p.REGION_FLAG_CAPS, cap_offset) == (len(whole.pack()), p.REGION_FLAG_CAPS, 32)
    assert whole.pack(argsz) == whole.pack()
    assert p.RegionInfo.unpack(short).areas == ()


def test_capabilities_that_lead_in_a_circle_are_refused() -> None:
    data = bytearray(p.RegionInfo(0, 4096, 4, 0, ((0, 4096),), (1, 2)).pack())
    struct.pack_into("=I", data, 36, 32)
    with pytest.raises(p.ProtocolError):
        p.RegionInfo.unpack(data)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]\0",
        b"{\0",
        b'{"capabilities":7}\0',
        b'{"capabilities":{"max_msg_fds":-1}}\0',
        b'{"capabilities":{"max_msg_fds":true}}\0',
        b'{"capabilities":{"max_msg_fds":1e300}}\0',
        b'{"capabilities":{"max_data_xfer_size":"1"}}\0',
        b'{"capabilities":{"write_multiple":"yes"}}\0',
        b"\xff\0",
        b"[" * 3000 + b"\0",
        b"9" * 5000 + b"\0",
    ],
)
def test_a_version_with_a_malformed_text_is_refused(text: bytes) -> None:
    with pytest.raises(p.ProtocolError):
        p.Version.unpack(struct.pack("=HH", 0, 1) + text)


def test_a_version_without_a_text_has_the_defaults_of_the_specification() -> None:
    got = p.Version.unpack(struct.pack("=HH", 0, 0)).capabilities
    assert got == p.Capabilities(1, 1 << 20, 65535, 4096, False)


def test_unknown_capabilities_are_left_alone() -> None:
    words = {"capabilities": {"migration": {"pgsize": 4096}, "twin_socket": {}, "max_msg_fds": 8}, "more": 1}
    got = p.Version.unpack(struct.pack("=HH", 0, 0) + json.dumps(words).encode() + b"\0")
    assert got.capabilities.max_msg_fds == 8
