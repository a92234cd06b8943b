"""pcap files as wires: what is played, what is recorded, and files that are none."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import ffi, lib
from ixroute.emulator.wires import WireError, open_wire
from lab.engine_side import BURST, LONGEST, receive, receive_all, receive_count, send, send_all

US, NS = 0xA1B2C3D4, 0xA1B23C4D


def pcap(
    frames: list[bytes], order: str = "<", magic: int = US, link: int = 1, version: tuple[int, int] = (2, 4)
) -> bytes:
    header = struct.pack(f"{order}IHHIIII", magic, *version, 0, 0, 65535, link)
    return header + b"".join(
        struct.pack(f"{order}IIII", 1, 2, len(frame), len(frame)) + frame for frame in frames
    )


def records(content: bytes) -> list[tuple[float, bytes]]:
    """A slow reader of files that this machine wrote: (seconds, frame)."""
    magic, major, minor, _, _, _, link = struct.unpack_from("=IHHIIII", content)
    assert (magic, major, minor, link) == (NS, 2, 4, 1)
    found, at = [], 24
    while at < len(content):
        seconds, nanoseconds, captured, original = struct.unpack_from("=IIII", content, at)
        assert captured == original
        found.append((seconds + nanoseconds / 1e9, content[at + 16 : at + 16 + captured]))
        assert len(found[-1][1]) == captured
        at += 16 + captured
    return found


def frame(number: int, size: int = 64) -> bytes:
    return number.to_bytes(4, "big").ljust(size, b"\xa5")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [US, NS])
def test_a_file_is_played_once_whatever_its_byte_order(tmp_path: Path, order: str, magic: int) -> None:
    file = tmp_path / "in.pcap"
    frames = [frame(i, 60 + i) for i in range(200)]
    file.write_bytes(pcap(frames, order, magic))
    wire = open_wire(f"pcap:in={file}")
    assert wire.carrier()
    assert lib.wire_arm(wire.c), "there is something to receive"
    assert receive_all(wire.c) == frames
    assert not lib.wire_arm(wire.c)
    assert lib.wire_due_ns(wire.c) == 2**64 - 1
    assert send(wire.c, frames[:BURST]) == BURST, "what nobody records is taken all the same"
    assert wire.c.rx_packets == 200
    assert wire.c.rx_bytes == sum(map(len, frames))
    wire.close()


def test_a_file_is_played_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "in.pcap"
    file.write_bytes(pcap([frame(0), frame(1), frame(2)]))
    wire = open_wire(f"pcap:in={file},loop")
    assert receive_all(wire.c, 300)[:300] == [frame(i % 3) for i in range(300)]
    wire.close()


def test_short_frames_are_padded_and_what_no_card_takes_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "in.pcap"
    file.write_bytes(pcap([b"\x01" * 14, b"", b"\x02" * 13, b"\x03" * (LONGEST + 1), b"\x04" * LONGEST]))
    wire = open_wire(f"pcap:in={file}")
    assert receive_all(wire.c) == [b"\x01" * 14 + bytes(46), b"\x04" * LONGEST]
    assert wire.stats()["rx_dropped"] == 3
    assert wire.hints()
    wire.close()


def test_a_loop_of_frames_that_no_card_takes_holds_nobody(tmp_path: Path) -> None:
    file = tmp_path / "in.pcap"
    file.write_bytes(pcap([b"x"]))
    wire = open_wire(f"pcap:in={file},loop")
    assert receive(wire.c) == []
    assert wire.c.rx_dropped == BURST
    wire.close()


def test_a_rate_gives_each_packet_its_time(tmp_path: Path) -> None:
    file = tmp_path / "in.pcap"
    file.write_bytes(pcap([frame(i) for i in range(100)]))
    wire = open_wire(f"pcap:in={file},rate=1000")
    before = time.monotonic_ns()
    first = receive(wire.c)
    assert first[0] == frame(0)
    due = lib.wire_due_ns(wire.c)
    assert before < due, "the second comes after the first"
    got = first + receive_count(wire.c, 100 - len(first))
    assert got == [frame(i) for i in range(100)]
    assert time.monotonic_ns() - before >= 99 * 1_000_000, "never faster than the rate"
    assert not lib.wire_arm(wire.c)
    wire.close()


def test_a_card_that_looks_away_is_not_given_all_it_missed(tmp_path: Path) -> None:
    file = tmp_path / "in.pcap"
    file.write_bytes(pcap([frame(i) for i in range(4)]))
    wire = open_wire(f"pcap:in={file},loop,rate=1000")
    receive(wire.c)
    time.sleep(0.1)
    assert 1 <= len(receive(wire.c)) <= 12
    wire.close()


def test_what_the_card_sends_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "out.pcap"
    wire = open_wire(f"pcap:out={file}")
    before = time.time()
    sent = [frame(i, 14 + i % 1500) for i in range(20_000)]
    send_all(wire.c, sent)
    assert receive(wire.c) == []
    assert not lib.wire_arm(wire.c)
    wire.close()
    found = records(file.read_bytes())
    assert [data for _, data in found] == sent
    assert all(before - 1 <= when <= time.time() + 1 for when, _ in found)
    assert [when for when, _ in found] == sorted(when for when, _ in found)


def test_what_was_sent_is_in_the_file_soon_without_closing(tmp_path: Path) -> None:
    file = tmp_path / "out.pcap"
    wire = open_wire(f"pcap:out={file}")
    send(wire.c, [frame(1)])
    until = time.monotonic() + 5
    while file.stat().st_size < 24 + 16 + 64:
        assert time.monotonic() < until
        time.sleep(0.001)
    wire.close()


def test_a_recording_can_be_played(tmp_path: Path) -> None:
    file = tmp_path / "x.pcap"
    wire = open_wire(f"pcap:out={file}")
    send(wire.c, [frame(i) for i in range(5)])
    wire.close()
    again = open_wire(f"pcap:in={file},out={tmp_path / 'y.pcap'}")
    assert receive_all(again.c) == [frame(i) for i in range(5)]
    again.close()


def test_a_full_disk_is_counted_and_stops_nobody() -> None:
    wire = open_wire("pcap:out=/dev/full")
    until = time.monotonic() + 5
    while not wire.c.tx_dropped:
        assert send(wire.c, [frame(1)]) in (0, 1)
        assert time.monotonic() < until
        time.sleep(0.001)
    assert send(wire.c, [frame(1)] * BURST) == BURST
    wire.close()


GOOD = pcap([frame(0), frame(1)])
BAD = {
    "empty": (b"", "no pcap file"),
    "text": (b"hello, this is no capture file at all", "no pcap file"),
    "short header": (GOOD[:23], "no pcap file"),
    "pcapng": (b"\x0a\x0d\x0d\x0a" + bytes(60), "editcap -F pcap"),
    "gzip": (b"\x1f\x8b" + bytes(60), "gunzip"),
    "version": (pcap([], version=(1, 4)), "version 1, not 2"),
    "version, other order": (pcap([], ">", version=(3, 4)), "version 3, not 2"),
    "raw IP": (pcap([frame(0)], link=101), "link type 101"),
    "FCS": (pcap([frame(0)], link=1 | 0x14000000), "FCS"),
    "no packets": (pcap([]), "holds no packet"),
    "cut record header": (GOOD[: 24 + 16 + 64 + 5], "packet 2 \\(at byte 104\\), 11 bytes short"),
    "cut packet": (GOOD[:-1], "packet 2 \\(at byte 104\\), 1 bytes short"),
    "endless packet": (GOOD[:24] + struct.pack("<IIII", 0, 0, 2**32 - 1, 2**32 - 1), "packet 1"),
    "sliced": (GOOD[:24] + struct.pack("<IIII", 0, 0, 4, 1514) + b"abcd", "lacks its last 1510 bytes"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_in_one_line_that_says_what_to_do(tmp_path: Path, what: str) -> None:
    content, says = BAD[what]
    file = tmp_path / "bad.pcap"
    file.write_bytes(content)
    with pytest.raises(WireError, match=says) as caught:
        open_wire(f"pcap:in={file}")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.pcap"
    with pytest.raises(WireError, match=r"x\.pcap: cannot be read: No such file"):
        open_wire(f"pcap:in={file}")
    with pytest.raises(WireError, match="no ordinary file"):
        open_wire("pcap:in=/dev/zero")
    with pytest.raises(WireError, match="cannot be written"):
        open_wire(f"pcap:out={tmp_path}/none/x.pcap")
    file.write_bytes(GOOD)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(WireError, match="same file"):
        open_wire(f"pcap:in={file},out={tmp_path}/link")
    assert file.read_bytes() == GOOD


def twin_check(content: bytes) -> tuple[bool, int]:
    """(whether all is fine, how many packets), read the slow way."""
    if len(content) < 24:
        return False, 0
    orders = [o for o in "<>" if struct.unpack_from(o + "I", content)[0] in (US, NS)]
    if not orders:
        return False, 0
    order = orders[0]
    major, link = struct.unpack_from(order + "4xH14xI", content)
    if major != 2 or link & 0xFFFF != 1 or link & 0x04000000:
        return False, 0
    at, packets = 24, 0
    while at < len(content):
        if len(content) - at < 16:
            return False, packets
        captured, original = struct.unpack_from(order + "8xII", content, at)
        if captured > len(content) - at - 16 or captured < original:
            return False, packets
        at, packets = at + 16 + captured, packets + 1
    return True, packets


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(
        pcap(
            draw(st.lists(st.binary(max_size=100), max_size=4)),
            draw(st.sampled_from("<>")),
            draw(st.sampled_from([US, NS])),
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content) - 1))
        content[at] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


@settings(max_examples=400, deadline=None)
@given(st.one_of(damaged(), st.binary(max_size=80)))
def test_any_bytes_are_a_file_or_a_fault_and_never_read_beyond_their_end(content: bytes) -> None:
    # An exact copy, so that a sanitizer sees a read beyond it.
    held = ffi.new("uint8_t[]", content) if content else ffi.new("uint8_t[]", 1)
    check = ffi.new("struct pcap_check *")
    lib.pcap_check(held, len(content), check)
    assert (check.fault == lib.PCAP_FINE, check.packets) == twin_check(content)
    wire = lib.wire_pcap_create(held, len(content), 0, 0, -1, -1)
    got = receive_all(wire)
    assert len(got) + wire.rx_dropped == check.packets, (
        "what comes before a fault is played, and nothing after"
    )
    lib.wire_pcap_destroy(wire)
