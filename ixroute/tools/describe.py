"""A packet as one line of text, in the manner of tcpdump. Never raises: what is cut short says so."""

from __future__ import annotations

import ipaddress
import struct

ETHERTYPES = {0x0806: "ARP", 0x88CC: "LLDP", 0x8808: "pause", 0x8809: "LACP", 0x8847: "MPLS"}
ICMP = {
    0: "echo reply",
    3: "unreachable",
    5: "redirect",
    8: "echo request",
    11: "time exceeded",
    12: "bad parameter",
}
ICMP6 = {
    1: "unreachable", 2: "packet too big", 3: "time exceeded", 4: "bad parameter", 128: "echo request",
    129: "echo reply", 133: "router solicitation", 134: "router advertisement", 135: "neighbor solicitation",
    136: "neighbor advertisement", 137: "redirect", 143: "multicast listener report",
}  # fmt: skip
TCP_FLAGS = "FSRP.UEW"
PROTOCOLS = {
    2: "IGMP",
    4: "IPv4",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
}
EXTENSIONS = {0, 43, 60}  # hop-by-hop, routing, destination options (RFC 8200 §4)


def describe(packet: bytes) -> str:
    """ "02:… > ff:… IPv4 192.0.2.1.1024 > 198.51.100.1.9: UDP, 18 bytes"."""
    try:
        return _ethernet(packet)
    except (struct.error, IndexError, ipaddress.AddressValueError):
        return f"{packet[:14].hex(':')} … [cut short at {len(packet)} bytes]"


def _ethernet(packet: bytes) -> str:
    ends = f"{packet[6:12].hex(':')} > {packet[0:6].hex(':')}"
    ethertype, at, tags = struct.unpack_from(">H", packet, 12)[0], 14, ""
    while ethertype in (0x8100, 0x88A8):
        tci, ethertype = struct.unpack_from(">HH", packet, at)
        tags += f" vlan {tci & 0xFFF}"
        at += 4
    return f"{ends}{tags} {_payload(ethertype, packet[at:])}"


def _payload(ethertype: int, data: bytes) -> str:
    if ethertype == 0x0800:
        return _ip4(data)
    if ethertype == 0x86DD:
        return _ip6(data)
    if ethertype == 0x0806:
        return _arp(data)
    if ethertype < 0x600:
        return f"802.3, {ethertype} bytes"
    return ETHERTYPES.get(ethertype, f"ethertype {ethertype:#06x}") + f", {len(data)} bytes"


def _arp(data: bytes) -> str:
    operation = struct.unpack_from(">H", data, 6)[0]
    sender, target = ipaddress.IPv4Address(data[14:18]), ipaddress.IPv4Address(data[24:28])
    if operation == 1:
        return f"ARP who has {target}, tell {sender}"
    return f"ARP {sender} is at {data[8:14].hex(':')}" if operation == 2 else f"ARP operation {operation}"


def _ip4(data: bytes) -> str:
    source, destination = ipaddress.IPv4Address(data[12:16]), ipaddress.IPv4Address(data[16:20])
    length, fragment = struct.unpack_from(">H2xH", data, 2)
    body = data[(data[0] & 15) * 4 : length]
    if fragment & 0x1FFF:
        return f"IPv4 {source} > {destination}: fragment at {(fragment & 0x1FFF) * 8}, {len(body)} bytes"
    return f"IPv4 {_transport(str(source), str(destination), data[9], body, ICMP)}"


def _ip6(data: bytes) -> str:
    source, destination = ipaddress.IPv6Address(data[8:24]), ipaddress.IPv6Address(data[24:40])
    protocol, body = data[6], data[40 : 40 + struct.unpack_from(">H", data, 4)[0]]
    while protocol in EXTENSIONS:
        protocol, body = body[0], body[8 + body[1] * 8 :]
    if protocol == 44:
        offset = struct.unpack_from(">H", body, 2)[0] & 0xFFF8
        if offset:
            return f"IPv6 {source} > {destination}: fragment at {offset}, {len(body) - 8} bytes"
        protocol, body = body[0], body[8:]
    return f"IPv6 {_transport(str(source), str(destination), protocol, body, ICMP6)}"


def _transport(source: str, destination: str, protocol: int, body: bytes, icmp: dict[int, str]) -> str:
    if protocol in (6, 17):
        ports = struct.unpack_from(">HH", body)
        ends = f"{source}.{ports[0]} > {destination}.{ports[1]}"
        if protocol == 17:
            return f"{ends}: UDP, {len(body) - 8} bytes"
        return f"{ends}: {_tcp(body)}"
    ends = f"{source} > {destination}"
    if protocol in (1, 58):
        return f"{ends}: ICMP {icmp.get(body[0], f'type {body[0]}')}, {len(body)} bytes"
    return f"{ends}: {PROTOCOLS.get(protocol, f'protocol {protocol}')}, {len(body)} bytes"


def _tcp(body: bytes) -> str:
    sequence, acknowledged, offset, flags, window = struct.unpack_from(">IIBBH", body, 4)
    said = "".join(letter for bit, letter in enumerate(TCP_FLAGS) if flags >> bit & 1)
    data = len(body) - (offset >> 4) * 4
    return f"TCP [{said}] seq {sequence} ack {acknowledged} win {window}, {data} bytes"
