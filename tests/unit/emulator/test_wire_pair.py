"""Cards back to back: order, room, and what becomes of frames for a card that does not look."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import lib
from ixroute.emulator.wires import Wire, close_wires, open_wire, open_wires
from lab.engine_side import BURST, LONGEST, receive, receive_all, send, send_all


@pytest.fixture
def ends() -> Iterator[list[Wire]]:
    wires = open_wires(["pair:x", "pair:x"])
    yield wires
    close_wires(wires)


def frame(number: int, size: int = 60) -> bytes:
    return number.to_bytes(4, "big").ljust(size, b"\x5a")


def test_frames_go_both_ways_in_order(ends: list[Wire]) -> None:
    there, back = [frame(i) for i in range(10)], [frame(100 + i, 1514) for i in range(20)]
    assert send(ends[0].c, there) == 10
    assert send(ends[1].c, back) == 20
    assert receive(ends[1].c) == there
    assert receive(ends[0].c) == back
    assert receive(ends[0].c) == receive(ends[1].c) == []


def test_short_frames_are_padded_with_zeros(ends: list[Wire]) -> None:
    send(ends[0].c, [b"\xff" * 200])
    receive_all(ends[1].c)
    for _ in range(3000):  # round the ring, over the 0xff
        send(ends[0].c, [b"\x01" * 14])
        assert receive(ends[1].c) == [b"\x01" * 14 + bytes(46)]


def test_what_receive_gave_stays_until_the_next_one_whatever_is_sent(ends: list[Wire]) -> None:
    from ixroute._dataplane import ffi

    send(ends[0].c, [frame(i, 1000) for i in range(BURST)])
    packets = ffi.new("struct wire_packet[]", BURST)
    assert lib.wire_receive(ends[1].c, packets, BURST) == BURST
    while send(ends[0].c, [b"\xee" * 1000]):
        if ends[0].c.tx_dropped:
            break
    for i in range(BURST):
        assert bytes(ffi.buffer(packets[i].data, packets[i].len)) == frame(i, 1000)


def test_a_full_cable_takes_no_more_until_the_other_card_looks(ends: list[Wire]) -> None:
    sent = 0
    while send(ends[0].c, [frame(sent, 1514)]):
        sent += 1
    assert 100 < sent < 1000
    assert ends[0].c.tx_dropped == 0
    got = receive_all(ends[1].c)
    assert got == [frame(i, 1514) for i in range(sent)]
    assert send(ends[0].c, [frame(0)]) == 1


def test_a_card_that_never_looks_does_not_stop_its_partner(ends: list[Wire]) -> None:
    send_all(ends[0].c, [frame(i, 1514) for i in range(2000)])
    assert ends[0].c.tx_packets == 2000
    dropped = ends[0].c.tx_dropped
    assert dropped > 1000
    assert receive_all(ends[1].c) == [frame(i, 1514) for i in range(2000 - dropped)]
    assert ends[1].c.rx_packets + ends[0].c.tx_dropped == ends[0].c.tx_packets
    send_all(ends[0].c, [frame(7)])
    assert receive_all(ends[1].c) == [frame(7)], "once it looks again, nothing is lost any more"


def test_a_frame_longer_than_a_card_takes_is_dropped_and_counted(ends: list[Wire]) -> None:
    assert send(ends[0].c, [bytes(LONGEST + 1), bytes(LONGEST)]) == 2
    assert [len(got) for got in receive(ends[1].c)] == [LONGEST]
    assert ends[1].c.rx_dropped == 1


def test_arm_tells_whether_something_is_there(ends: list[Wire]) -> None:
    assert not lib.wire_arm(ends[1].c)
    send(ends[0].c, [frame(1)])
    assert lib.wire_arm(ends[1].c)
    receive(ends[1].c)
    assert not lib.wire_arm(ends[1].c)
    assert lib.wire_due_ns(ends[1].c) == 2**64 - 1


SIZES = st.one_of(st.integers(0, 200), st.integers(1000, 1600), st.integers(LONGEST - 20, LONGEST))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.lists(SIZES, min_size=1, max_size=BURST), st.integers(1, BURST)), max_size=60))
def test_a_cable_is_a_queue_however_it_wraps(steps: list[list[int] | int]) -> None:
    ends = open_wires(["pair:x", "pair:x"])
    twin: deque[bytes] = deque()
    number = 0
    for step in steps:
        if isinstance(step, int):
            got = receive(ends[1].c, step)
            assert got == [twin.popleft() for _ in range(min(step, len(twin)))]
            continue
        frames = [bytes([(number + i) % 251]) * size for i, size in enumerate(step)]
        taken = send(ends[0].c, frames)
        number += taken
        twin += [f.ljust(60, b"\0") for f in frames[:taken]]
    assert ends[0].c.tx_dropped == 0
    assert receive_all(ends[1].c) == list(twin)
    close_wires(ends)


def test_discard_takes_everything_and_gives_nothing() -> None:
    wire = open_wire("discard")
    assert wire.carrier()
    assert send(wire.c, [frame(i) for i in range(BURST)]) == BURST
    assert receive(wire.c) == []
    assert wire.stats() == {
        "rx_packets": 0, "rx_bytes": 0, "rx_dropped": 0,
        "tx_packets": BURST, "tx_bytes": 60 * BURST, "tx_dropped": 0, "syscalls": 0,
    }  # fmt: skip
    assert not lib.wire_arm(wire.c)
    wire.close()
    wire.close()
