"""Packets byte by byte: small builders in which every field can be given a wrong value on purpose.

Addresses are text, MACs are text, lengths and checksums are right unless given.
"""

from __future__ import annotations

import ipaddress
import struct

from ixroute.demo.probes import internet_checksum

ETH_IP4, ETH_IP6, ETH_ARP, ETH_VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
UDP, TCP, ICMP, ICMP6 = 17, 6, 1, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DEST_OPTIONS, NO_NEXT = 0, 43, 44, 60, 59


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def address_bytes(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def ethernet(dst: str, src: str, kind: int, payload: bytes, vlan: tuple[int, int] | None = None) -> bytes:
    """vlan: (tag protocol, tag control information). Padded to the 60 bytes a cable carries at least."""
    tag = struct.pack("!HH", *vlan) if vlan else b""
    frame = mac_bytes(dst) + mac_bytes(src) + tag + struct.pack("!H", kind) + payload
    return frame.ljust(60, b"\0")


def ip4(
    src: str,
    dst: str,
    payload: bytes,
    *,
    ttl: int = 64,
    proto: int = UDP,
    tos: int = 0,
    ident: int = 0x1234,
    fragment: int = 0,
    options: bytes = b"",
    version: int = 4,
    ihl: int | None = None,
    length: int | None = None,
    checksum: int | None = None,
) -> bytes:
    """fragment: the 16 bits of flags and offset. options: a multiple of 4 bytes."""
    ihl = 5 + len(options) // 4 if ihl is None else ihl
    length = 20 + len(options) + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH", version << 4 | ihl, tos, length, ident, fragment, ttl, proto, 0)
    head += address_bytes(src) + address_bytes(dst) + options
    if checksum is None:
        checksum = internet_checksum(head)
    return head[:10] + struct.pack("!H", checksum) + head[12:] + payload


def ip4_with_checksum(src: str, dst: str, payload: bytes, wanted: int) -> bytes:
    """A packet whose right header checksum is `wanted`: its identification is chosen so."""
    plain = internet_checksum(ip4(src, dst, payload, ident=0, checksum=0)[:20])
    # in ones' complement: ~(S + id) = wanted, with ~S = plain
    ident = (~wanted & 0xFFFF) - (~plain & 0xFFFF)
    packet = ip4(src, dst, payload, ident=(ident - 1 if ident < 0 else ident) & 0xFFFF)
    if struct.unpack_from("!H", packet, 10)[0] != wanted:
        raise ValueError(f"no identification gives checksum {wanted:#06x}")
    return packet


def ip6(
    src: str,
    dst: str,
    payload: bytes,
    *,
    hop: int = 64,
    proto: int = UDP,
    traffic_class: int = 0,
    flow: int = 0,
    length: int | None = None,
    version: int = 6,
) -> bytes:
    length = len(payload) if length is None else length
    first = version << 28 | traffic_class << 20 | flow
    return struct.pack("!IHBB", first, length, proto, hop) + address_bytes(src) + address_bytes(dst) + payload


def extension(next_header: int, body: bytes) -> bytes:
    """An IPv6 extension header of (next header, length, body); body is 6 bytes, or 6 + 8 n."""
    return struct.pack("!BB", next_header, (len(body) + 2) // 8 - 1) + body


def pseudo_header(src: str, dst: str, length: int, proto: int) -> bytes:
    """RFC 768, RFC 8200 section 8.1: what a transport checksum covers besides the segment."""
    pack = "!IHBB" if ":" in dst else "!BBH"
    fields = (length, 0, 0, proto) if ":" in dst else (0, proto, length)
    return address_bytes(src) + address_bytes(dst) + struct.pack(pack, *fields)


def udp(src: str, dst: str, data: bytes, sport: int = 5000, dport: int = 5001) -> bytes:
    length = 8 + len(data)
    head = struct.pack("!HHHH", sport, dport, length, 0)
    checksum = internet_checksum(pseudo_header(src, dst, length, UDP) + head + data) or 0xFFFF
    return head[:6] + struct.pack("!H", checksum) + data


def tcp_syn(src: str, dst: str, dport: int, sport: int = 5000) -> bytes:
    head = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 5 << 4, 2, 1024, 0, 0)
    checksum = internet_checksum(pseudo_header(src, dst, len(head), TCP) + head)
    return head[:16] + struct.pack("!H", checksum) + head[18:]


def icmp4(kind: int, code: int, body: bytes) -> bytes:
    """body: the four bytes after the checksum, and all that follows."""
    head = struct.pack("!BBH", kind, code, 0)
    return head[:2] + struct.pack("!H", internet_checksum(head + body)) + body


def icmp6(src: str, dst: str, kind: int, code: int, body: bytes) -> bytes:
    head = struct.pack("!BBH", kind, code, 0)
    covered = pseudo_header(src, dst, 4 + len(body), ICMP6) + head + body
    return head[:2] + struct.pack("!H", internet_checksum(covered)) + body


def arp(operation: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """operation: 1 request, 2 reply (RFC 826)."""
    head = struct.pack("!HHBBH", 1, ETH_IP4, 6, 4, operation)
    return head + b"".join(
        (mac_bytes(sender_mac), address_bytes(sender), mac_bytes(target_mac), address_bytes(target))
    )
