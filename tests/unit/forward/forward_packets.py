"""Packets from fields, written out plainly. Lengths and checksums are right unless told otherwise."""

from __future__ import annotations

import struct
from ipaddress import ip_address

GROUP_ALL = bytes.fromhex("ffffffffffff")


def ones_sum(data: bytes) -> int:
    """Ones' complement sum of 16-bit words (RFC 1071)."""
    total = 0
    for i in range(0, len(data) - 1, 2):
        total += data[i] << 8 | data[i + 1]
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def eth(dst: bytes, src: bytes, ethertype: int, payload: bytes) -> bytes:
    return dst + src + struct.pack(">H", ethertype) + payload


def vlan(frame: bytes, vid: int, ethertype: int = 0x8100) -> bytes:
    """Tags an untagged (or tagged) frame."""
    return frame[:12] + struct.pack(">HH", ethertype, vid) + frame[12:]


def pad(frame: bytes, to: int = 60) -> bytes:
    return frame.ljust(to, b"\0")


def ip4(
    src: str,
    dst: str,
    payload: bytes = b"payload!",
    *,
    ttl: int = 64,
    proto: int = 17,
    tos: int = 0,
    ident: int = 0x1234,
    fragment: int = 0,
    options: bytes = b"",
    version: int = 4,
    ihl: int | None = None,
    length: int | None = None,
    checksum: int | None = None,
) -> bytes:
    ihl = 5 + len(options) // 4 if ihl is None else ihl
    length = 20 + len(options) + len(payload) if length is None else length
    head = struct.pack(">BBHHHBBH", version << 4 | ihl, tos, length, ident, fragment, ttl, proto, 0)
    head += ip_address(src).packed + ip_address(dst).packed + options
    if checksum is None:
        checksum = 0xFFFF - ones_sum(head)
    return head[:10] + struct.pack(">H", checksum) + head[12:] + payload


def ip4_with_checksum(wanted: int, src: str, dst: str, **fields: object) -> bytes:
    """A sound packet whose header checksum is `wanted`: the identification field is chosen so."""
    plain = ip4(src, dst, ident=0, **fields)  # type: ignore[arg-type]
    have = int.from_bytes(plain[10:12], "big")
    ident = have - wanted if have >= wanted else have - wanted + 0xFFFF
    packet = ip4(src, dst, ident=ident, checksum=wanted, **fields)  # type: ignore[arg-type]
    assert ones_sum(packet[:20]) == 0xFFFF
    return packet


def ip6(
    src: str,
    dst: str,
    payload: bytes = b"payload!",
    *,
    hops: int = 64,
    nxt: int = 17,
    tclass: int = 0,
    flow: int = 0,
    version: int = 6,
    length: int | None = None,
) -> bytes:
    length = len(payload) if length is None else length
    first = version << 28 | tclass << 20 | flow
    return (
        struct.pack(">IHBB", first, length, nxt, hops)
        + ip_address(src).packed
        + ip_address(dst).packed
        + payload
    )


def udp(dport: int, sport: int = 4000, payload: bytes = b"data") -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(dport: int, sport: int = 4000) -> bytes:
    return struct.pack(">HHIIBBHHH", sport, dport, 0, 0, 0x50, 2, 8192, 0, 0)


def icmp6(kind: int, code: int = 0, body: bytes = bytes(20)) -> bytes:
    return bytes((kind, code, 0, 0)) + body


def hop_by_hop(nxt: int, payload: bytes, option: bytes = bytes((1, 4, 0, 0, 0, 0))) -> bytes:
    """One 8-byte hop-by-hop header (PadN by default) and what follows it."""
    return bytes((nxt, 0)) + option + payload


def arp(operation: int, sender: str, target: str) -> bytes:
    mac = bytes.fromhex("020000000099")
    addresses = mac + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + addresses
