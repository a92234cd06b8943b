"""Whatever a client writes, the card refuses with DeviceError or goes on."""

from __future__ import annotations

import contextlib
import os

from engine_twin import Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute.emulator.card import CardOptions
from ixroute.emulator.pci import KINDS
from ixroute.emulator.registers import places
from ixroute.vfio_user.device import DeviceError

OFFSETS = st.one_of(
    st.sampled_from(sorted(places())),
    st.integers(-8, 0x80010),
    st.sampled_from([0x0, 0x28, 0x20, 0x10010, 0x10014, 0x425C, 0x42A0, 0xEE00, 0xEE2C, 0x10140]),
)
VALUES = st.one_of(
    st.integers(0, (1 << 32) - 1), st.sampled_from([0, 0xFFFF_FFFF, 1 << 26, 8, 4, 1 << 25, 1 << 30])
)
REGIONS = st.sampled_from([0, 0, 0, 0, 2, 4, 7, 7, 9, 1, 12, -1])
ACCESS = st.tuples(REGIONS, OFFSETS, st.sampled_from([1, 2, 4, 4, 4, 8, 3, 0]), VALUES, st.booleans())


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2),
    st.booleans(),
    st.lists(ACCESS, min_size=1, max_size=60),
)
def test_random_accesses_never_break_the_card(
    device_id: int, settle: int, carrier: bool, accesses: list[tuple[int, int, int, int, bool]]
) -> None:
    bench = Bench(CardOptions(device_id=device_id, settle=settle))
    card = bench.card
    try:
        card.set_carrier(carrier)
        for region, offset, size, value, writes in accesses:
            at = offset % 4096 if region == 7 else offset
            with contextlib.suppress(DeviceError):
                if writes:
                    card.write(region, at, (value * 0x1_0000_0001).to_bytes(8, "little")[:size])
                else:
                    assert len(card.read(region, at, size)) == size
        assert all(count >= 0 for count in card.counters().values())
        card.reset()
        assert bench.read("STATUS") & 1 << 19
        assert bench.read("RAL") == int.from_bytes(card.options.mac[:4], "little")
        card.disconnected()
    finally:
        bench.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 15), max_size=400))
def test_random_edges_on_the_module_bus_leave_it_usable(edges: list[int]) -> None:
    bench = Bench()
    try:
        for pins in edges:
            bench.write("I2CCTL", pins)
        # A stop condition, then a start: the module listens whatever went before.
        for pins in (0x8 & 0, 0x2, 0xA, 0x2, 0x0):
            bench.write("I2CCTL", pins)
        for bit in (1, 0, 1, 0, 0, 0, 0, 0):
            for clock in (0, 2, 0):
                bench.write("I2CCTL", clock | 8 * bit)
        bench.write("I2CCTL", 8)
        assert bench.read("I2CCTL") & 4 == 0
    finally:
        bench.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2), st.integers(-2, 70), st.lists(st.booleans(), max_size=5))
def test_random_wiring_of_interrupts_leaks_no_descriptor(index: int, first: int, wired: list[bool]) -> None:
    bench = Bench()
    fds = [os.eventfd(0) if wire else None for wire in wired]
    try:
        bench.card.set_irqs(index, first, fds)
    except DeviceError:
        for fd in fds:  # refused: they stay the caller's
            if fd is not None:
                os.close(fd)
        fds = []
    bench.close()
    for fd in fds:
        if fd is not None:
            with contextlib.suppress(OSError):
                os.fstat(fd)
                raise AssertionError(f"descriptor {fd} is still open")
