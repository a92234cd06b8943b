"""Generated IPv6 packets: every field at its corners, chains of extension headers in and out of order, fragments."""

from __future__ import annotations

import struct
from random import Random

from lab.generated_payloads import transport
from lab.generated_places import Senders, destination6, source
from lab.packets import DEST_OPTIONS, FRAGMENT, HOP_BY_HOP, NO_NEXT, ROUTING, address_bytes, ip6

HOPS = (64, 64, 64, 64, 64, 64, 64, 64, 1, 1, 0, 2, 255, 128)
AUTHENTICATION, MOBILITY, HIP, SHIM6 = 51, 135, 139, 140
OPTIONS = (0, 1, 1, 1, 5, 0x1E, 0x3E, 0x5E, 0x9E, 0xDE, 0xC2, 0xC9, 0x26, 0x63)


def packet(dice: Random, port: str, senders: Senders) -> bytes:
    src, dst = source(dice, 6, port, senders), destination6(dice)
    proto, payload = transport(dice, 6, src, dst)
    if dice.random() < 0.25:
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            proto, payload = _header(dice, proto, payload)
    elif dice.random() < 0.02:
        proto = NO_NEXT
    return ip6(
        src,
        dst,
        payload,
        hop=dice.choice(HOPS),
        proto=proto,
        traffic_class=dice.choice((0, 0, 0, 0xBA, 0xC0, 0xFF, 3)),
        flow=dice.choice((0, 0, 0, 0xABCDE, 0xFFFFF, dice.randrange(1 << 20))),
        length=dice.choice((None,) * 60 + (0, 1, 7, len(payload) // 2, max(len(payload) - 1, 0))),
    )


def _header(dice: Random, proto: int, payload: bytes) -> tuple[int, bytes]:
    """One header in front; what it says of its length may be wrong."""
    kind = dice.choice(
        (
            HOP_BY_HOP,
            HOP_BY_HOP,
            DEST_OPTIONS,
            DEST_OPTIONS,
            ROUTING,
            FRAGMENT,
            FRAGMENT,
            AUTHENTICATION,
            MOBILITY,
            HIP,
            SHIM6,
            253,
        )
    )
    if kind == FRAGMENT:
        bits = dice.choice((0, 1, 8, 9, 100 << 3, 100 << 3 | 1, 0xFFF8, 0xFFF9, 2, 4, dice.randrange(65536)))
        return kind, struct.pack("!BBHI", proto, dice.choice((0, 0, 0, 9)), bits, 0xABCD) + payload
    if kind == ROUTING:
        hops = dice.randrange(0, 3)
        addresses = b"".join(
            address_bytes(dice.choice(("fd00:2::2", "fd00:1::1", "::1"))) for _ in range(hops)
        )
        left = dice.choice((0, hops, hops, 1, 255))
        body = bytes((dice.choice((0, 0, 2, 3, 4, 253)), left)) + bytes(4) + addresses
    elif kind in (HOP_BY_HOP, DEST_OPTIONS):
        body = _options(dice)
    else:
        body = dice.randbytes(6 + 8 * dice.randrange(0, 2))
    units = (len(body) + 2) // 8 - 1
    if dice.random() < 0.08:
        units = dice.choice((0, units + 1, 255))
    return kind, bytes((proto, units)) + body + payload


def _options(dice: Random) -> bytes:
    out = b""
    for _ in range(dice.randrange(1, 4)):
        kind = dice.choice(OPTIONS)
        if kind == 0:
            out += b"\0"
            continue
        length = {1: dice.randrange(0, 5), 5: 2, 0xC2: 4}.get(kind, dice.randrange(0, 7))
        if dice.random() < 0.08:
            length = dice.choice((0, 1, 3, 255))
        out += bytes((kind, length)) + bytes(min(length, 40))
    room = -(len(out) + 2) % 8
    if room == 1 or dice.random() < 0.2:
        return out + bytes(room)
    return out + (bytes((1, room - 2)) + bytes(room - 2) if room else b"")
