"""What generated packets carry: transport headers that are right, ICMP of all kinds, and noise."""

from __future__ import annotations

import struct
from random import Random

from lab.packets import ICMP, ICMP6, TCP, UDP, icmp4, icmp6, ip4, ip6, tcp_syn, udp

PORTS = (5001, 53, 67, 123, 179, 520, 546, 646, 1985, 3784, 4789)
OTHERS = (0, 2, 4, 41, 46, 47, 50, 51, 59, 60, 89, 103, 112, 132, 136, 137, 253, 255)
LONG = (300, 700, 940, 972, 980, 1000, 1260, 1352, 1360, 1372, 1373, 1380, 1400, 1440, 1452, 1460, 1472, 1480)


def data(dice: Random) -> bytes:
    """Mostly a little. Long: around where MTUs of 1000, 1300, 1400 and 1500 are."""
    if dice.random() < 0.7:
        return dice.randbytes(dice.randrange(0, 64))
    size = max(dice.choice(LONG) + dice.randrange(-24, 25), 0)
    return (dice.randbytes(4) * (size // 4 + 1))[:size]


def transport(dice: Random, version: int, src: str, dst: str) -> tuple[int, bytes]:
    """(protocol, payload)."""
    pick = dice.random()
    if pick < 0.5:
        return UDP, udp(src, dst, data(dice), 1024 + dice.randrange(60000), dice.choice(PORTS))
    if pick < 0.6:
        segment = bytearray(tcp_syn(src, dst, dice.choice(PORTS), 1024 + dice.randrange(60000)))
        if dice.random() < 0.3:
            segment[13] = dice.randrange(64)  # flags; the checksum is wrong then
        return TCP, bytes(segment)
    if pick < 0.9:
        return _icmp4(dice, src, dst) if version == 4 else _icmp6(dice, src, dst)
    return dice.choice(OTHERS), data(dice)


def _icmp4(dice: Random, src: str, dst: str) -> tuple[int, bytes]:
    kind = dice.choice((8, 8, 8, 0, 3, 3, 4, 5, 11, 12, 13, 14, 17, 30, 42, dice.randrange(256)))
    if kind in (3, 4, 5, 11, 12):
        inner = ip4(dst, src, udp(dst, src, data(dice)), ttl=dice.choice((0, 1, 63)))
        length = dice.choice((28, 28, 8, 20, 64, len(inner)))
        return ICMP, icmp4(kind, dice.randrange(18), dice.randbytes(4) + inner[:length])
    return ICMP, icmp4(kind, dice.choice((0, 0, 0, 1, 255)), struct.pack("!HH", 7, 1) + data(dice))


def _icmp6(dice: Random, src: str, dst: str) -> tuple[int, bytes]:
    kind = dice.choice((128, 128, 128, 129, 1, 1, 2, 3, 4, 100, 127, 137, 139, 144, 200, dice.randrange(256)))
    if kind < 5:
        inner = ip6(dst, src, udp(dst, src, data(dice)), hop=dice.choice((0, 1, 63)))
        body = struct.pack("!I", dice.choice((0, 1280, 1300, 6, 40))) + inner[: dice.choice((48, 40, 8, 500))]
        return ICMP6, icmp6(src, dst, kind, dice.randrange(8), body)
    return ICMP6, icmp6(src, dst, kind, dice.choice((0, 0, 0, 1)), struct.pack("!HH", 7, 1) + data(dice))
