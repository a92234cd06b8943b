"""What of a router's frames is compared: everything but the fields that a kernel fills by clock or by chance.

Masked, that is made zero, are: the IPv4 identification of packets that the router made itself, the fragment
identification of its IPv6 packets, the time stamps that it writes into options and answers, and the checksums
over those. ICMP errors quote packets, so the same is done inside of them.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from lab.packets import ETH_IP4, ETH_IP6, FRAGMENT, HOP_BY_HOP, ICMP, ICMP6

KIND_IP4, KIND_IP6 = struct.pack("!H", ETH_IP4), struct.pack("!H", ETH_IP6)
TIME_STAMPS = 68  # RFC 791
QUOTING = {3, 4, 5, 11, 12}
TIME_STAMP_REPLY = 14
OWN4 = {
    bytes((10, 0, 1, 1)), bytes((10, 0, 2, 1)), bytes((10, 0, 3, 1)),
    bytes((10, 1, 0, 0)), bytes((10, 1, 1, 1)), bytes((10, 20, 0, 1)),
}  # fmt: skip
"""The router's IPv4 addresses, of lab.frames and lab.generated."""
OWN6 = {
    bytes.fromhex(text)
    for text in (
        "fd000001000000000000000000000001", "fd000002000000000000000000000001",
        "fd000003000000000000000000000001", "fd000020000000000000000000000001",
        "fd000127000000000000000000000000", "fd000128000000000000000000000001",
        "fe80000000000000000000fffe000101", "fe80000000000000000000fffe000201",
        "fe80000000000000000000fffe000301",
    )
}  # fmt: skip


def masked(frame: bytes, own4: Collection[bytes] = OWN4) -> bytes:
    """An untagged frame. own4: the router's addresses, whose packets have an identification of the kernel's choice."""
    kind = frame[12:14]
    if kind == KIND_IP4 and len(frame) >= 34:
        return frame[:14] + _ip4(frame[14:], own4)
    if kind == KIND_IP6 and len(frame) >= 54:
        return frame[:14] + _ip6(frame[14:])
    return frame


def _ip4(packet: bytes, own4: Collection[bytes]) -> bytes:
    header = (packet[0] & 15) * 4
    own = packet[12:16] in own4 or packet[12] == 127
    stamps = _time_stamps(packet, header) if header > 20 else None
    quotes = packet[9] == ICMP and not packet[6] & 0x1F and not packet[7]
    if not (own or stamps or quotes):
        return packet
    out = bytearray(packet)
    if own:
        out[4:6] = b"\0\0"
    if stamps:
        out[stamps[0] : stamps[1]] = bytes(stamps[1] - stamps[0])
    if own or stamps:
        out[10:12] = b"\0\0"
    if quotes:
        _icmp(out, header, own, own4)
    return bytes(out)


def _icmp(out: bytearray, at: int, own: bool, own4: Collection[bytes]) -> None:
    if len(out) < at + 8:
        return
    if out[at] in QUOTING and len(out) >= at + 28 and out[at + 8] >> 4 == 4:
        inner = bytes(out[at + 8 :])
        quoted = _ip4(inner, own4)
        if quoted != inner:
            out[at + 8 :] = quoted
            out[at + 2 : at + 4] = b"\0\0"
    elif out[at] == TIME_STAMP_REPLY and own:
        out[at + 2 : at + 4] = b"\0\0"
        out[at + 12 : at + 20] = bytes(len(out[at + 12 : at + 20]))


def _time_stamps(packet: bytes, header: int) -> tuple[int, int] | None:
    """Where the data of the time stamp option lies."""
    at = 20
    while at + 1 < min(header, len(packet)) and packet[at] != 0:
        if packet[at] == 1:
            at += 1
            continue
        length = packet[at + 1]
        if length < 2:
            return None
        if packet[at] == TIME_STAMPS:
            return at + 4, max(min(at + length, header, len(packet)), at + 4)
        at += length
    return None


def _ip6(packet: bytes) -> bytes:
    if packet[8:24] not in OWN6:
        return packet
    following, at = packet[6], 40
    if following == HOP_BY_HOP and len(packet) >= at + 8:
        following, at = packet[at], at + 8 + 8 * packet[at + 1]
    if following != FRAGMENT or len(packet) < at + 8:
        return packet
    return packet[: at + 4] + bytes(4) + packet[at + 8 :]


def icmp_of_router(frame: bytes) -> tuple[int, int, int] | None:
    """(version, type, code) of an ICMP message that the router made itself."""
    if frame[12:14] == KIND_IP4 and frame[23] == ICMP and frame[26:30] in OWN4:
        at = 14 + (frame[14] & 15) * 4
        return (4, frame[at], frame[at + 1]) if len(frame) > at + 1 else None
    if frame[12:14] == KIND_IP6 and frame[20] == ICMP6 and frame[22:38] in OWN6:
        return (6, frame[54], frame[55]) if len(frame) > 55 else None
    return None
