"""What the card may reach: mappings, and packets across them."""

from __future__ import annotations

import errno
import struct

import pytest
from engine_rig import BASE, MEMORY, RS, Rig, ethernet
from hypothesis import given, settings
from hypothesis import strategies as st


def test_overlaps_and_nonsense_are_refused(rig: Rig) -> None:
    for iova, length, wanted in [
        (BASE, 16, errno.EEXIST),
        (BASE + MEMORY - 16, 4096, errno.EEXIST),
        (BASE - 16, 32, errno.EEXIST),
        (0, 2**64 - 1, errno.EEXIST),
        (0x1000, 0, errno.EINVAL),
        (2**64 - 16, 32, errno.EINVAL),
        (0x1001, 16, errno.EINVAL),
    ]:
        with pytest.raises(OSError, match="cannot map") as refused:
            rig.card.dma_map(iova, length, rig.address)
        assert refused.value.errno == wanted
    rig.card.dma_map(BASE - 16, 16, rig.address)
    rig.card.dma_map(2**64 - 16, 16, rig.address)
    assert rig.card.dma_unmap(0, 2**64 - 1) == 2
    assert rig.card.dma_unmap(2**64 - 16, 16) == 1
    assert rig.card.dma_unmap(0x5000, 0x1000) == 0


def test_only_mappings_that_lie_in_the_range_whole_go(rig: Rig) -> None:
    for page in range(4):
        rig.card.dma_map(0x10000 + 0x1000 * page, 0x1000, rig.address)
    assert rig.card.dma_unmap(0x10800, 0x2800) == 2
    rig.card.dma_map(0x11000, 0x2000, rig.address)


@given(
    st.permutations(range(16)), st.integers(0, 4000), st.lists(st.integers(60, 1514), min_size=1, max_size=30)
)
@settings(max_examples=40, deadline=None)
def test_packets_cross_pages_that_lie_anywhere_here(places: list[int], offset: int, sizes: list[int]) -> None:
    """As behind an IOMMU: neighbouring pages of the card's view lie apart in this process."""
    rig = Rig()
    rig.card.dma_unmap(BASE, MEMORY)
    window, area = 0x40_0000_0000, 2 << 20
    for page, place in enumerate(places):
        rig.card.dma_map(window + 4096 * page, 4096, rig.address + area + 4096 * place)
    ring = rig.take(4096, 4096)
    rig.card.dma_map(BASE + ring, 4096, rig.address + ring)
    regs = 0x6000
    for register, value in ((0, (BASE + ring) & 0xFFFFFFFF), (4, BASE >> 32), (8, 2048), (0x28, 1 << 25)):
        rig.set(regs + register, value)
    rig.card.queue_changed(True, 0)
    frames = []
    for i, size in enumerate(sizes):
        at = (offset + 1700 * i) % (15 * 4096 - 1514)
        frame = bytes((at + 7 * j + i) % 256 for j in range(size))
        frames.append(frame)
        for j, byte in enumerate(frame):
            rig.memory[area + 4096 * places[(at + j) // 4096] + (at + j) % 4096] = byte
        rig.poke(
            ring + 16 * i,
            struct.pack("<QQ", window + at, size | 3 << 20 | 1 << 29 | 3 << 24 | RS | size << 46),
        )
        rig.set(regs + 0x18, i + 1)
        rig.settle()
    sent = rig.sent()
    faults = rig.card.counters()["dma_faults"]
    rig.close()
    assert sent == frames
    assert faults == 0


def test_a_received_packet_crosses_mappings_that_touch(rig: Rig) -> None:
    queue = rig.rx(post=False)
    low, high = rig.take(4096, 4096), rig.take(4096, 4096)
    rig.card.dma_map(0x1000, 0x1000, rig.address + high)
    rig.card.dma_map(0x2000, 0x1000, rig.address + low)
    rig.poke(queue.ring, struct.pack("<QQ", 0x1FF0, 0))
    rig.set(queue.regs + 0x18, 1)
    frame = ethernet(bytes(range(200)))
    rig.arrive(frame)
    rig.settle()
    assert rig.peek(high + 0xFF0, 16) + rig.peek(low, len(frame) - 16) == frame
    assert rig.card.counters()["dma_faults"] == 0
