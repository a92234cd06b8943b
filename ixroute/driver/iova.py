"""Addresses for DMA: free ranges of the space that an IOMMU translates.

First fit from below: what is low is inside every IOMMU's address width. A kernel may call allowed what an Intel IOMMU
of 39 bits does not take (the range is the domain's, not the hardware's), so nothing above 39 bits is given out at all:
512 GiB are enough.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

WIDTH_BITS = 39
LOWEST = 1 << 20
"""0 looks like "no address" to cards and to people; below 1 MiB lie old devices' reservations."""


class IovaSpace:
    """Ranges are pairs (first, last), inclusive, as the kernel gives them."""

    def __init__(self, allowed: Sequence[tuple[int, int]], width_bits: int = WIDTH_BITS) -> None:
        self._taken: list[tuple[int, int]] = []  # (first, last), in order
        self._width = min(width_bits, WIDTH_BITS)
        self._allowed: list[tuple[int, int]] = []
        self.allow(allowed)

    def allow(self, allowed: Sequence[tuple[int, int]], width_bits: int = WIDTH_BITS) -> None:
        """What is allowed from now on: another group may have less. What was given out stays."""
        self._width = min(self._width, width_bits)
        top = (1 << self._width) - 1
        cut = [(max(first, LOWEST), min(last, top)) for first, last in allowed]
        self._allowed = sorted(pair for pair in cut if pair[0] <= pair[1])

    def take(self, length: int, align: int) -> int | None:
        """A free range of `length` bytes that begins at a multiple of `align` (a power of two). None: there is
        none."""
        for first, last in self._allowed:
            start = _up(first, align)
            for taken_first, taken_last in self._taken:
                if taken_last < start:
                    continue
                if taken_first >= start + length:
                    break
                start = _up(taken_last + 1, align)
            if start + length - 1 <= last:
                bisect.insort(self._taken, (start, start + length - 1))
                return start
        return None

    def give(self, start: int) -> None:
        """The range that take() returned is free again."""
        self._taken = [pair for pair in self._taken if pair[0] != start]


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
