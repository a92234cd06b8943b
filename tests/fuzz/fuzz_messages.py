"""Netlink messages gone wrong: bytes, lengths and attributes changed, cut, joined, repeated."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 127, 128, 254, 255)


class MessageMutator:
    """Mutates datagrams. `seeds`: sound messages, header included, each padded to four bytes."""

    def __init__(self, seeds: Sequence[bytes], dice: random.Random) -> None:
        self._seeds = seeds
        self._dice = dice

    def datagram(self) -> bytes:
        """One to four messages, most of them damaged; the header's length is right in most."""
        dice = self._dice
        messages = [self._message() for _ in range(dice.choice((1, 1, 1, 2, 4)))]
        joined = b"".join(messages)
        if dice.random() < 0.1:
            joined = joined[: dice.randrange(len(joined) + 1)]
        return joined

    def _message(self) -> bytes:
        dice = self._dice
        data = bytearray(dice.choice(self._seeds))
        if dice.random() < 0.2:
            return bytes(data)
        for _ in range(dice.choice((0, 1, 1, 2, 3))):
            dice.choice((self._byte, self._byte, self._attribute_length, self._splice, self._cut, self._bit))(
                data
            )
        if dice.random() < 0.9:
            data += bytes(-len(data) % 4)
            struct.pack_into("=I", data, 0, len(data))
        return bytes(data)

    def _byte(self, data: bytearray) -> None:
        at = self._dice.randrange(len(data))
        data[at] = self._dice.choice(EDGES) if self._dice.random() < 0.6 else self._dice.randrange(256)

    def _bit(self, data: bytearray) -> None:
        data[self._dice.randrange(len(data))] ^= 1 << self._dice.randrange(8)

    def _attribute_length(self, data: bytearray) -> None:
        """Most fields at multiples of four behind the header are attributes' lengths or lie in them."""
        at = self._dice.randrange(16, max(len(data) - 1, 17), 4)
        if at + 2 <= len(data):
            struct.pack_into(
                "=H", data, at, self._dice.choice((*EDGES, len(data) - at, len(data) - at + 1, 65535))
            )

    def _splice(self, data: bytearray) -> None:
        """A piece of another message, or of this one, somewhere behind the header."""
        other = self._dice.choice((bytes(data), self._dice.choice(self._seeds)))
        begin = self._dice.randrange(0, len(other), 4)
        end = min(len(other), begin + self._dice.randrange(4, 68, 4))
        at = self._dice.randrange(16, len(data) + 1, 4) if len(data) >= 16 else len(data)
        data[at:at] = other[begin:end]
        del data[4096:]

    def _cut(self, data: bytearray) -> None:
        del data[self._dice.randrange(16, max(len(data), 17)) :]
