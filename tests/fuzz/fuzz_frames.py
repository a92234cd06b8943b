"""Frames mutated by the thousand: one row of a numpy array per frame, so that a million takes seconds.

Where a mutation would end every frame at the first check (a wrong MAC, a wrong checksum), most frames are
repaired afterwards: what is behind the check is to be reached too.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import numpy as np
from forward_rig import MAC
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

ADDRESSES = """
192.0.2.1 198.51.100.1 203.0.113.1 192.0.2.77 192.0.2.9 192.0.2.255 198.51.100.9 198.51.100.255 203.0.113.9
10.0.0.1 10.3.0.1 10.4.0.1 10.5.0.1 10.6.0.1 10.7.0.1 10.8.0.1 10.9.0.1 172.16.0.1 8.8.8.8
0.0.0.0 0.1.2.3 127.0.0.1 224.0.0.5 239.1.2.3 240.0.0.1 255.255.255.255 169.254.1.1 100.64.0.1
2001:db8:9::1 2001:db8:3::1 2001:db8:4::1 2001:db8:5::1 2001:db8:6::1 2001:db8:7::1 2001:db8:72::1
2001:db8:a:: 2001:db8:a::1 2001:db8:a::77 2001:db8:b::9 3fff::1
:: ::1 fe80::1 fe80::2 fc00::1 fec0::1 ff00::1 ff01::1 ff02::1 ff02::1:ff00:1 ff05::2
64:ff9b::1 ::ffff:1.2.3.4 100::1
"""
"""One for each route of the rig, and those that are special."""


def rows_of(packets: Sequence[bytes], width: int) -> Bytes:
    rows = np.zeros((len(packets), width), np.uint8)
    for row, packet in zip(rows, packets, strict=True):
        row[: len(packet)] = np.frombuffer(packet, np.uint8)
    return rows


class FrameMutator:
    """`batch(n)`: n rows of `room` bytes, and each row's length, 1 .. room."""

    def __init__(self, seeds: Sequence[bytes], room: int, seed: int) -> None:
        self.room = room
        self._dice = np.random.default_rng(seed)
        self._seeds = rows_of([packet[:room] for packet in seeds], room)
        self._lengths = np.array([min(len(packet), room) for packet in seeds], np.int64)
        self._macs = rows_of(
            [*MAC, b"\xff" * 6, bytes.fromhex("01005e000005"), bytes.fromhex("0180c2000000")], 6
        )
        packed = [ip_address(address).packed for address in ADDRESSES.split()]
        self._addresses4 = rows_of([address for address in packed if len(address) == 4], 4)
        self._addresses6 = rows_of([address for address in packed if len(address) == 16], 16)

    def batch(self, n: int) -> tuple[Bytes, Ints]:
        chosen = self._dice.integers(0, len(self._seeds), n)
        rows, lengths = self._seeds[chosen], self._lengths[chosen]
        self._noise(rows)
        self._readdress(rows)
        rows = self._tag(rows, lengths)
        self._resize(rows, lengths)
        self._bytes(rows)
        self._repair_checksum(rows)
        return rows, lengths

    def _one_in(self, n: int, k: int) -> Ints:
        """Numbers of the rows that get it: about n / k."""
        return np.flatnonzero(self._dice.random(n) < 1 / k)

    def _noise(self, rows: Bytes) -> None:
        """A few rows are noise from some byte on."""
        for row in self._one_in(len(rows), 25):
            at = int(self._dice.integers(0, 60))
            rows[row, at:] = self._dice.integers(0, 256, self.room - at, np.uint8)

    def _readdress(self, rows: Bytes) -> None:
        macs = self._one_in(len(rows), 2)
        rows[macs, :6] = self._macs[np.minimum(self._dice.geometric(0.6, len(macs)), len(self._macs)) - 1]
        for ethertype, pool, at in (
            (0x0800, self._addresses4, (26, 30)),
            (0x86DD, self._addresses6, (22, 38)),
        ):
            of_kind = np.flatnonzero(ethertypes(rows) == ethertype)
            for offset in at:
                some = of_kind[self._dice.random(len(of_kind)) < 0.4]
                rows[some, offset : offset + pool.shape[1]] = pool[
                    self._dice.integers(0, len(pool), len(some))
                ]

    def _tag(self, rows: Bytes, lengths: Ints) -> Bytes:
        """One VLAN tag more, up to three."""
        for _ in range(3):
            some = self._one_in(len(rows), 12)
            tag = np.zeros((len(some), 4), np.uint8)
            tag[:, 0] = np.where(self._dice.random(len(some)) < 0.7, 0x81, 0x88)
            tag[:, 1] = np.where(tag[:, 0] == 0x81, 0x00, 0xA8)
            tag[:, 3] = self._dice.choice(np.array([0, 0, 0, 5, 6, 255], np.uint8), len(some))
            rows[some, 16:] = rows[some, 12:-4]
            rows[some, 12:16] = tag
            lengths[some] = np.minimum(lengths[some] + 4, self.room)
        return rows

    def _resize(self, rows: Bytes, lengths: Ints) -> None:
        """Cut, lengthened, or of any length; and length fields that are off by a little or by much."""
        n = len(rows)
        cut, longer, any_length = self._one_in(n, 6), self._one_in(n, 6), self._one_in(n, 20)
        lengths[cut] = self._dice.integers(1, lengths[cut] + 1)
        lengths[longer] = np.minimum(lengths[longer] + self._dice.integers(0, 64, len(longer)), self.room)
        lengths[any_length] = self._dice.integers(1, self.room + 1, len(any_length))
        lengths[self._one_in(n, 100)] = self.room
        for ethertype, field, header in ((0x0800, 16, 14), (0x86DD, 18, 54)):
            of_kind = np.flatnonzero(ethertypes(rows) == ethertype)
            some = of_kind[self._dice.random(len(of_kind)) < 0.15]
            near = lengths[some] - header + self._dice.integers(-24, 8, len(some))
            far = self._dice.integers(0, 65536, len(some))
            value = np.where(self._dice.random(len(some)) < 0.8, near, far) & 0xFFFF
            rows[some, field], rows[some, field + 1] = value >> 8, value & 255

    def _bytes(self, rows: Bytes) -> None:
        for _ in range(4):
            some = self._one_in(len(rows), 4)
            at = self._dice.integers(0, 72, len(some))
            value = self._dice.integers(0, 256, len(some), np.uint8)
            edge = self._dice.choice(np.array([0, 1, 255], np.uint8), len(some))
            rows[some, at] = np.where(self._dice.random(len(some)) < 0.5, value, edge)

    def _repair_checksum(self, rows: Bytes) -> None:
        """Of most IPv4 headers without a tag."""
        some = np.flatnonzero((ethertypes(rows) == 0x0800) & (self._dice.random(len(rows)) < 0.85))
        words = np.ascontiguousarray(rows[some, 14:74]).view(">u2").astype(np.int64)
        words[:, 5] = 0
        words[np.arange(30) >= ((rows[some, 14] & 15) * 2).astype(np.int64)[:, None]] = 0
        total = words.sum(axis=1)
        for _ in range(3):
            total = (total & 0xFFFF) + (total >> 16)
        checksum = 0xFFFF - total
        rows[some, 24], rows[some, 25] = checksum >> 8, checksum & 255


def ethertypes(rows: Bytes) -> Ints:
    return rows[:, 12].astype(np.int64) << 8 | rows[:, 13]
