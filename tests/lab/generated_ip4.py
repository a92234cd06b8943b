"""Generated IPv4 packets: sound ones with every field at its corners, options of all kinds, fragments."""

from __future__ import annotations

import struct
from random import Random

from lab.generated_payloads import transport
from lab.generated_places import Senders, destination4, source
from lab.packets import address_bytes, ip4

TTLS = (64, 64, 64, 64, 64, 64, 64, 64, 1, 1, 0, 2, 255, 128)
TOS = (0, 0, 0, 0, 0x10, 0xBA, 0xC0, 0xFF, 3)
FRAGMENTS = (
    0x2000,
    0x2001,
    0x0001,
    0x2002,
    0x0064,
    0x2064,
    0x1FFF,
    0x3FFF,
    0x00B9,
    0x4001,
    0x6000,
    0x8000,
    0xA000,
)


def packet(dice: Random, port: str, senders: Senders) -> bytes:
    src, dst = source(dice, 4, port, senders), destination4(dice)
    if dice.random() < 0.01:
        src = dst
    proto, payload = transport(dice, 4, src, dst)
    fragment = dice.choice((0, 0, 0x4000))
    if dice.random() < 0.12:
        fragment = dice.choice(FRAGMENTS)
    return ip4(
        src,
        dst,
        payload,
        ttl=dice.choice(TTLS),
        proto=proto,
        tos=dice.choice(TOS),
        ident=dice.choice((0, 0x1234, 0xFFFF, dice.randrange(65536))),
        fragment=fragment,
        options=options(dice) if dice.random() < 0.12 else b"",
    )


def options(dice: Random) -> bytes:
    """Up to 40 bytes, a multiple of 4; one in some is broken."""
    out = b""
    for _ in range(dice.randrange(1, 4)):
        out += _option(dice)
    out = out[:40]
    if dice.random() < 0.15:
        broken = bytearray(out)
        broken[dice.randrange(len(out))] = dice.choice((0, 1, 2, 3, 4, 5, 40, 255, dice.randrange(256)))
        out = bytes(broken)
    fill = dice.choice((b"\0", b"\1"))
    return out.ljust((len(out) + 3) // 4 * 4, fill)


def _option(dice: Random) -> bytes:
    kind = dice.choice((0, 1, 7, 7, 68, 68, 131, 137, 148, 134, 130, 136, 25, 154, dice.randrange(256)))
    if kind in (0, 1):
        return bytes((kind,))
    if kind in (7, 131, 137):  # record route, loose and strict source route (RFC 791)
        slots = dice.randrange(0, 5)
        pointer = dice.choice((4, 4, 8, 4 + 4 * slots, 3, 5))
        hops = b"".join(address_bytes(dice.choice(("0.0.0.0", "10.0.2.2", "10.0.1.1"))) for _ in range(slots))
        return bytes((kind, 3 + 4 * slots, pointer)) + hops
    if kind == 68:
        flags, slots = dice.choice((0, 0, 1, 3, 2)), dice.randrange(0, 4)
        size = 4 if flags == 0 else 8
        own = address_bytes(dice.choice(("10.0.1.1", "10.0.2.1", "10.0.2.2")))
        slot = bytes(4) if flags == 0 else own + bytes(4) if flags == 3 else bytes(8)
        pointer = dice.choice((5, 5, 5 + size * slots, 5 + size, 4, 6))
        overflow = dice.choice((0, 0, 15)) << 4
        return bytes((kind, 4 + size * slots, pointer, overflow | flags)) + slot * slots
    if kind == 148:  # router alert (RFC 2113)
        return struct.pack("!BBH", kind, 4, dice.choice((0, 0, 1, 65535)))
    body = dice.randbytes(dice.randrange(0, 9))
    return bytes((kind, 2 + len(body))) + body
