"""The packet table: name, packet in, what becomes of it. Numbers in brackets are rows of Linux's behaviour.

Each packet's outcome is written here by hand, and its bytes, when sent, must be the twin's (which computes
the checksum from scratch); a punted packet must be the one that came in, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from forward_packets import (
    GROUP_ALL,
    arp,
    eth,
    hop_by_hop,
    icmp6,
    ip4,
    ip4_with_checksum,
    ip6,
    pad,
    tcp,
    udp,
    vlan,
)
from forward_rig import MAC, MTU, SENDER, USUAL, Context, Rig
from forward_twin import twin

from ixroute.forward.reasons import BY_NAME, Kind
from ixroute.forward.worker import (
    PORT_ACCEPT_LOCAL,
    PORT_IP4_FORWARD,
    PORT_IP6_FORWARD,
    PORT_KERNEL_ALL,
    PORT_ROUTE_LOCALNET,
    PORT_RPF_LOOSE,
    PORT_RPF_STRICT,
    PORT_RULES4,
    PORT_RULES6,
    PORT_SEND_REDIRECTS,
    PORT_UP,
)

HOST, FAR = "192.0.2.77", "10.0.0.1"
HOST6, FAR6 = "2001:db8:a::77", "2001:db8:9::1"
US = MAC[0]
OSPF_MAC, SOLICITED_MAC = bytes.fromhex("01005e000005"), bytes.fromhex("3333ff000001")
ALL_END_SYSTEMS, ALL_INTERMEDIATE, BESIDE_ISIS = (bytes.fromhex(f"09002b0000{n:02}") for n in (4, 5, 6))
ISIS = b"\xfe\xfe\3\x83" + bytes(56)
SENT = ""


def v4(packet: bytes, dst: bytes = US) -> bytes:
    return eth(dst, SENDER, 0x0800, packet)


def v6(packet: bytes, dst: bytes = US) -> bytes:
    return eth(dst, SENDER, 0x86DD, packet)


@dataclass(frozen=True)
class Case:
    name: str
    packet: bytes
    reason: str = SENT
    context: Context = field(default_factory=Context)
    port: int = 1
    """By which it must leave, when sent."""


def flags(*, on: int = 0, off: int = 0, **more: object) -> Context:
    return Context(flags=USUAL & ~off | on, **more)  # type: ignore[arg-type]


ETHERNET = [
    Case("frame of no bytes but one", b"\0", "frame_too_short"),
    Case("frame of 13 bytes", v4(b"")[:13], "frame_too_short"),
    Case("header alone, IPv4 promised [14]", v4(b""), "ip_header_corrupted"),
    Case("to another host's MAC [36]", v4(ip4(HOST, FAR), SENDER), "other_host"),
    Case("to the MAC of our other port [36]", v4(ip4(HOST, FAR), MAC[1]), "other_host"),
    Case("source MAC multicast [37]", eth(US, GROUP_ALL, 0x0800, ip4(HOST, FAR))),
    Case("source MAC our own [37]", eth(US, US, 0x0800, ip4(HOST, FAR))),
    Case("port administratively down", v4(ip4(HOST, FAR)), "port_down", flags(off=PORT_UP)),
    Case("port in a bridge", v4(ip4(HOST, FAR)), "kernel_interface", flags(on=PORT_KERNEL_ALL)),
    Case("port in a bridge, other MAC", v4(b"", SENDER), "kernel_interface", flags(on=PORT_KERNEL_ALL)),
    Case("LLDP [50]", eth(bytes.fromhex("0180c200000e"), SENDER, 0x88CC, bytes(50)), "link_local_frame"),
    Case("STP in LLC [50]", eth(bytes.fromhex("0180c2000000"), SENDER, 38, bytes(50)), "link_local_frame"),
    Case("IS-IS, all end systems", eth(ALL_END_SYSTEMS, SENDER, 60, ISIS), "link_local_frame"),
    Case("IS-IS on a point-to-point circuit", eth(ALL_INTERMEDIATE, SENDER, 60, ISIS), "link_local_frame"),
    Case("group address beside those of IS-IS", eth(BESIDE_ISIS, SENDER, 60, ISIS), "non_ip"),
    Case("LLC/SNAP with IPv4 [51]", eth(US, SENDER, 60, b"\xaa\xaa\3\0\0\0\x08\0" + bytes(50)), "non_ip"),
    Case("MPLS [50]", eth(US, SENDER, 0x8847, bytes(50)), "non_ip"),
    Case("PPPoE [50]", eth(US, SENDER, 0x8864, bytes(50)), "non_ip"),
    Case("unknown ethertype, broadcast [50]", eth(GROUP_ALL, SENDER, 0x1234, bytes(50)), "non_ip"),
    Case(
        "ARP request, broadcast [52]",
        eth(GROUP_ALL, SENDER, 0x0806, arp(1, HOST, "192.0.2.1")),
        "arp_request",
    ),
    Case(
        "ARP request for a host behind [53]", eth(GROUP_ALL, SENDER, 0x0806, arp(1, HOST, FAR)), "arp_request"
    ),
    Case("ARP request, unicast probe", eth(US, SENDER, 0x0806, arp(1, HOST, "192.0.2.1")), "arp_request"),
    Case("ARP reply to us", eth(US, SENDER, 0x0806, arp(2, HOST, "192.0.2.1")), "arp_response"),
    Case("gratuitous ARP reply", eth(GROUP_ALL, SENDER, 0x0806, arp(2, HOST, HOST)), "arp_request"),
    Case("ARP to another host's MAC", eth(SENDER, SENDER, 0x0806, arp(2, HOST, HOST)), "other_host"),
    Case("ARP cut short", eth(GROUP_ALL, SENDER, 0x0806, b"\0"), "arp_request"),
]

VLAN = [
    Case("VLAN id without sub-interface [48]", vlan(v4(ip4(HOST, FAR)), 5), "vlan_tag_mismatch"),
    Case("VLAN id with one", vlan(v4(ip4(HOST, FAR)), 5), "vlan_sub_interface", Context(vlans=(5,))),
    Case("highest VLAN id", vlan(v4(ip4(HOST, FAR)), 4094), "vlan_sub_interface", Context(vlans=(4094,))),
    Case("VLAN id beside one", vlan(v4(ip4(HOST, FAR)), 6), "vlan_tag_mismatch", Context(vlans=(5, 7, 70))),
    Case(
        "sub-interface with a MAC of its own",
        vlan(v4(b"", SENDER), 5),
        "vlan_sub_interface",
        Context(vlans=(5,)),
    ),
    Case("tagged, to another host", vlan(v4(ip4(HOST, FAR), SENDER), 0), "other_host"),
    Case("priority tag, IPv4 [49]", vlan(v4(ip4(HOST, FAR)), 0x6000)),
    Case("priority tag, IPv6 [49]", vlan(v6(ip6(HOST6, FAR6)), 0x2000)),
    Case("priority tag, padded", pad(vlan(v4(ip4(HOST, FAR)), 0))),
    Case("service priority tag", vlan(v4(ip4(HOST, FAR)), 0, 0x88A8)),
    Case("priority tag, to us, unchanged", vlan(v4(ip4(HOST, "192.0.2.1")), 0x6000), "local_route"),
    Case("priority tag before a VLAN", vlan(vlan(v4(ip4(HOST, FAR)), 5), 0), "vlan_tag_mismatch"),
    Case("priority tag before ours", vlan(vlan(v4(b""), 5), 0), "vlan_sub_interface", Context(vlans=(5,))),
    Case(
        "priority tag, and a sub-interface of id 0",
        vlan(v4(b""), 0),
        "vlan_sub_interface",
        Context(vlans=(0,)),
    ),
    Case("two priority tags", vlan(vlan(v4(ip4(HOST, FAR)), 0), 0)),
    Case("QinQ [50]", vlan(vlan(v4(ip4(HOST, FAR)), 5), 7, 0x88A8), "vlan_tag_mismatch"),
    Case(
        "QinQ with a service sub-interface",
        vlan(vlan(v4(b""), 5), 7, 0x88A8),
        "vlan_sub_interface",
        Context(vlans=(7,)),
    ),
    Case("tag cut short", vlan(v4(b""), 0)[:16], "frame_too_short"),
    Case("second tag cut short", vlan(vlan(v4(b""), 5), 0)[:20], "frame_too_short"),
]

IP4_PLAIN = [
    Case("plain, TOS and ECN kept [1]", v4(ip4(HOST, FAR, tos=0xBB))),
    Case("short datagram in a 60-byte frame [2]", pad(v4(ip4(HOST, FAR, b"")))),
    Case("TTL 2 [3]", v4(ip4(HOST, FAR, ttl=2))),
    Case("TTL 255", v4(ip4(HOST, FAR, ttl=255))),
    Case("TTL 1 [4]", v4(ip4(HOST, FAR, ttl=1)), "ttl_value_is_too_small"),
    Case("TTL 0 [4]", v4(ip4(HOST, FAR, ttl=0)), "ttl_value_is_too_small"),
    Case("TTL 1 to the router [5]", v4(ip4(HOST, "192.0.2.1", ttl=1)), "local_route"),
    Case(
        "TTL 1, too big, DF [6]",
        v4(ip4(HOST, FAR, bytes(1481), ttl=1, fragment=0x4000)),
        "ttl_value_is_too_small",
    ),
    Case(
        "TTL 1, ICMP error inside [7]",
        v4(ip4(HOST, FAR, b"\3\1" + bytes(30), ttl=1, proto=1)),
        "ttl_value_is_too_small",
    ),
    Case("TTL 1, later fragment [7]", v4(ip4(HOST, FAR, ttl=1, fragment=100)), "ttl_value_is_too_small"),
    Case("TTL 1, broadcast MAC [8]", v4(ip4(HOST, FAR, ttl=1), GROUP_ALL), "uc_dip_over_mc_dmac"),
    Case("TTL 1, source 0.0.0.0 [8]", v4(ip4("0.0.0.0", FAR, ttl=1)), "sip_is_unspecified"),
    Case("no payload [12]", v4(ip4(HOST, FAR, b""))),
    Case("fragment with tiny offset [38]", v4(ip4(HOST, FAR, fragment=1))),
    Case("reserved bit [38]", v4(ip4(HOST, FAR, fragment=0x8000))),
    Case("DF and MF [38]", v4(ip4(HOST, FAR, fragment=0x6000))),
    Case(
        "longer than the MTU, DF [39]",
        v4(ip4(HOST, FAR, bytes(1481), fragment=0x4000)),
        "mtu_value_is_too_small",
    ),
    Case("longer than the MTU, no DF [40]", v4(ip4(HOST, FAR, bytes(1481))), "mtu_value_is_too_small"),
    Case(
        "fragment longer than the MTU [41]",
        v4(ip4(HOST, FAR, bytes(1481), fragment=0x2000)),
        "mtu_value_is_too_small",
    ),
    Case("exactly the MTU", v4(ip4(HOST, FAR, bytes(MTU - 20)))),
    Case("exactly the MTU, and padding [42]", pad(v4(ip4(HOST, FAR, bytes(MTU - 20))), 1530)),
    Case("route with its own MTU, at it [43]", v4(ip4(HOST, "10.5.0.1", bytes(1280)))),
    Case(
        "route with its own MTU, above [43]", v4(ip4(HOST, "10.5.0.1", bytes(1281))), "mtu_value_is_too_small"
    ),
]

IP4_HEADER = [
    Case("version 6 under 0800 [10]", v4(ip4(HOST, FAR, version=6)), "ip_header_corrupted"),
    Case("version 0 [10]", v4(ip4(HOST, FAR, version=0)), "ip_header_corrupted"),
    Case("IHL 4 [10]", v4(ip4(HOST, FAR, ihl=4)), "ip_header_corrupted"),
    Case("IHL longer than the frame", v4(ip4(HOST, FAR, b"", ihl=15)), "ip_header_corrupted"),
    Case(
        "IHL longer than total length [11]",
        v4(ip4(HOST, FAR, options=b"\1\1\1\1", length=20)),
        "ip_header_corrupted",
    ),
    Case("total length 19 [11]", v4(ip4(HOST, FAR, length=19)), "ip_header_corrupted"),
    Case("total length 0 [11]", v4(ip4(HOST, FAR, length=0)), "ip_header_corrupted"),
    Case(
        "total length longer than the frame [13]", v4(ip4(HOST, FAR, b"12345678", length=29)), "ip_truncated"
    ),
    Case("total length 65535 [13]", v4(ip4(HOST, FAR, length=65535)), "ip_truncated"),
    Case("10 header bytes [14]", v4(ip4(HOST, FAR)[:10]), "ip_header_corrupted"),
    Case("19 header bytes [14]", v4(ip4(HOST, FAR)[:19]), "ip_header_corrupted"),
    Case("bad checksum [15]", v4(ip4(HOST, FAR, checksum=0x1234)), "ip_header_corrupted"),
    Case("zero checksum [15]", v4(ip4(HOST, FAR, checksum=0)), "ip_header_corrupted"),
    Case("NOP options [18]", v4(ip4(HOST, FAR, options=b"\1\1\1\0")), "ipv4_options"),
    Case("record route [18]", v4(ip4(HOST, FAR, options=b"\7\7\4\0\0\0\0\0")), "ipv4_options"),
    Case("loose source route [19]", v4(ip4(HOST, FAR, options=b"\x83\7\4\x0a\0\0\1\0")), "ipv4_options"),
    Case("malformed option [20]", v4(ip4(HOST, FAR, options=b"\7\0\0\0")), "ipv4_options"),
    Case("options to the router", v4(ip4(HOST, "192.0.2.1", options=b"\1\1\1\0")), "local_route"),
    Case(
        "bad checksum of options", v4(ip4(HOST, FAR, options=b"\1\1\1\0", checksum=7)), "ip_header_corrupted"
    ),
    Case("options, TTL 1", v4(ip4(HOST, FAR, options=b"\1\1\1\0", ttl=1)), "ipv4_options"),
]

IP4_ADDRESSES = [
    Case("source 0.0.0.0 [21]", v4(ip4("0.0.0.0", FAR)), "sip_is_unspecified"),
    Case("source 255.255.255.255 [21]", v4(ip4("255.255.255.255", FAR)), "ipv4_sip_is_limited_bc"),
    Case("source multicast [21]", v4(ip4("224.0.0.5", FAR)), "sip_is_mc"),
    Case("source 239.255.255.255 [21]", v4(ip4("239.255.255.255", FAR)), "sip_is_mc"),
    Case("source 127/8 [22]", v4(ip4("127.1.2.3", FAR)), "sip_is_loopback_address"),
    Case("source ours, this port [23]", v4(ip4("192.0.2.1", FAR)), "sip_is_own"),
    Case("source ours, other port [23]", v4(ip4("198.51.100.1", FAR)), "sip_is_own"),
    Case("source ours, not a port's [23]", v4(ip4("203.0.113.1", FAR)), "sip_is_own"),
    Case("source and destination ours [23]", v4(ip4("192.0.2.1", "192.0.2.1")), "sip_is_own"),
    Case("source 0.1.2.3 [24]", v4(ip4("0.1.2.3", FAR))),
    Case("source 240/4 [24]", v4(ip4("240.1.2.3", FAR))),
    Case("source 255.255.255.254 [24]", v4(ip4("255.255.255.254", FAR))),
    Case("source link-local [24]", v4(ip4("169.254.1.1", FAR))),
    Case("source subnet broadcast [24]", v4(ip4("192.0.2.255", FAR))),
    Case("source network address [24]", v4(ip4("192.0.2.0", FAR))),
    Case("source is destination [24]", v4(ip4(FAR, FAR))),
    Case("destination 0.0.0.0 [26]", v4(ip4(HOST, "0.0.0.0")), "dip_is_unspecified"),
    Case("destination 0.1.2.3 [27]", v4(ip4(HOST, "0.1.2.3"))),
    Case("destination 240/4 [27]", v4(ip4(HOST, "240.0.0.1"))),
    Case("destination 169.254/16 [27]", v4(ip4(HOST, "169.254.1.1"))),
    Case("destination 100.64/10 [27]", v4(ip4(HOST, "100.64.1.1"))),
    Case("destination 127/8 [28]", v4(ip4(HOST, "127.0.0.1")), "dip_is_loopback_address"),
    Case("destination 255.255.255.255 [29]", v4(ip4(HOST, "255.255.255.255"), GROUP_ALL), "ipv4_broadcast"),
    Case("the same in a unicast frame [29]", v4(ip4(HOST, "255.255.255.255")), "ipv4_broadcast"),
    Case(
        "DHCP from 0.0.0.0 [29]", v4(ip4("0.0.0.0", "255.255.255.255", udp(67)), GROUP_ALL), "ipv4_broadcast"
    ),
    Case("0.0.0.0 to 0.0.0.0", v4(ip4("0.0.0.0", "0.0.0.0")), "ipv4_broadcast"),
    Case("directed broadcast of ingress [30]", v4(ip4(HOST, "192.0.2.255")), "ipv4_broadcast"),
    Case("directed broadcast of egress [30]", v4(ip4(HOST, "198.51.100.255")), "ipv4_broadcast"),
    Case("directed broadcast, broadcast MAC", v4(ip4(HOST, "192.0.2.255"), GROUP_ALL), "ipv4_broadcast"),
    Case("network address [31]", v4(ip4(HOST, "198.51.100.0")), "unresolved_neigh"),
    Case("all hosts [32]", v4(ip4(HOST, "224.0.0.1"), OSPF_MAC), "ipv4_multicast"),
    Case("administratively scoped [32]", v4(ip4(HOST, "239.1.2.3"), OSPF_MAC), "ipv4_multicast"),
    Case("multicast in a unicast frame", v4(ip4(HOST, "239.1.2.3")), "ipv4_multicast"),
    Case("multicast from nowhere, local scope", v4(ip4("0.0.0.0", "224.0.0.1")), "ipv4_multicast"),
    Case("multicast from nowhere", v4(ip4("0.0.0.0", "239.1.2.3")), "sip_is_unspecified"),
    Case("multicast from loopback", v4(ip4("127.0.0.1", "239.1.2.3")), "sip_is_loopback_address"),
    Case("own address on this port [33]", v4(ip4(HOST, "192.0.2.1")), "local_route"),
    Case("own address on other port [33]", v4(ip4(HOST, "198.51.100.1")), "local_route"),
    Case("own address, unknown protocol [34]", v4(ip4(HOST, "192.0.2.1", proto=253)), "local_route"),
    Case("unicast in a broadcast frame [35]", v4(ip4(HOST, FAR), GROUP_ALL), "uc_dip_over_mc_dmac"),
    Case("unicast in a multicast frame [35]", v4(ip4(HOST, FAR), OSPF_MAC), "uc_dip_over_mc_dmac"),
    Case("to us in a broadcast frame [35]", v4(ip4(HOST, "192.0.2.1"), GROUP_ALL), "local_route"),
]

CHECKSUMS = [
    Case(f"checksum {c:04x} [16]", v4(ip4_with_checksum(c, HOST, FAR)))
    for c in (0xFEFF, 0xFF00, 0x0000, 0xFFFE)
] + [Case("checksum ffff where 0000 is right [17]", v4(ip4_with_checksum(0xFFFF, HOST, FAR)))]

ROUTING = [
    Case("OSPF hello", v4(ip4(HOST, "224.0.0.5", proto=89, ttl=1), OSPF_MAC), "routing_protocol"),
    Case("VRRP", v4(ip4(HOST, "224.0.0.18", proto=112), OSPF_MAC), "routing_protocol"),
    Case("PIM", v4(ip4(HOST, "224.0.0.13", proto=103), OSPF_MAC), "routing_protocol"),
    Case(
        "IGMP with router alert",
        v4(ip4(HOST, "239.1.2.3", proto=2, options=b"\x94\4\0\0")),
        "routing_protocol",
    ),
    Case(
        "IGMP from nowhere",
        v4(ip4("0.0.0.0", "239.1.2.3", proto=2, options=b"\x94\4\0\0")),
        "routing_protocol",
    ),
    Case("RIP", v4(ip4(HOST, "224.0.0.9", udp(520))), "routing_protocol"),
    Case("RIP version 1", v4(ip4(HOST, "192.0.2.255", udp(520)), GROUP_ALL), "routing_protocol"),
    Case("LDP hello", v4(ip4(HOST, "224.0.0.2", udp(646))), "routing_protocol"),
    Case("LDP session", v4(ip4(HOST, "192.0.2.1", tcp(646), proto=6)), "routing_protocol"),
    Case("BGP to us", v4(ip4(HOST, "192.0.2.1", tcp(179), proto=6)), "routing_protocol"),
    Case("BGP answering us", v4(ip4(HOST, "192.0.2.1", tcp(40000, 179), proto=6)), "routing_protocol"),
    Case("BGP in transit", v4(ip4(HOST, FAR, tcp(179), proto=6))),
    Case("BFD", v4(ip4(HOST, "192.0.2.1", udp(3784), ttl=255)), "routing_protocol"),
    Case("BFD over hops", v4(ip4(HOST, "198.51.100.1", udp(4784))), "routing_protocol"),
    Case("BFD's ports as source only", v4(ip4(HOST, "192.0.2.1", udp(4000, 3784))), "local_route"),
    Case("SSH to us", v4(ip4(HOST, "192.0.2.1", tcp(22), proto=6)), "local_route"),
    Case("later fragment of TCP", v4(ip4(HOST, "192.0.2.1", tcp(179), proto=6, fragment=5)), "local_route"),
    Case("TCP cut before its ports", v4(ip4(HOST, "192.0.2.1", b"\0\xb3\0", proto=6)), "local_route"),
    Case("OSPFv3 hello", v6(ip6("fe80::2", "ff02::5", nxt=89, hops=1), SOLICITED_MAC), "routing_protocol"),
    Case("BGP over link-local", v6(ip6("fe80::2", "fe80::1", tcp(179), nxt=6)), "routing_protocol"),
    Case("BGP over IPv6", v6(ip6(HOST6, "2001:db8:a::1", tcp(179), nxt=6)), "routing_protocol"),
    Case("RIPng", v6(ip6("fe80::2", "ff02::9", udp(521))), "routing_protocol"),
    Case(
        "MLDv2 report", v6(ip6("fe80::2", "ff02::16", hop_by_hop(58, icmp6(143)), nxt=0)), "routing_protocol"
    ),
    Case(
        "hop-by-hop that ends behind the packet, MLD in the padding",
        v6(ip6("fe80::2", "ff02::16", b"\x3a\1" + bytes(6) + bytes(8) + icmp6(143), nxt=0, length=8)),
        "ipv6_multicast",
    ),
    Case(
        "MLD report from ::", v6(ip6("::", "ff02::16", hop_by_hop(58, icmp6(143)), nxt=0)), "routing_protocol"
    ),
]

PATH = [
    Case("no route [46]", v4(ip4(HOST, "11.0.0.1")), "no_route"),
    Case("no route, TTL 1", v4(ip4(HOST, "11.0.0.1", ttl=1)), "no_route"),
    Case("blackhole [46]", v4(ip4(HOST, "10.6.0.1")), "blackhole_route"),
    Case("unreachable, prohibit [46]", v4(ip4(HOST, "10.7.0.1")), "reject_route"),
    Case("host unresolved [47]", v4(ip4(HOST, "198.51.100.9")), "unresolved_neigh"),
    Case("host unresolved, TTL 1 [47]", v4(ip4(HOST, "198.51.100.9", ttl=1)), "ttl_value_is_too_small"),
    Case("host unresolved, too big", v4(ip4(HOST, "198.51.100.9", bytes(1490))), "unresolved_neigh"),
    Case("out by no port", v4(ip4(HOST, "10.3.0.1")), "external_route"),
    Case("several legs [82]", v4(ip4(HOST, "10.4.0.1")), "multipath_route"),
    Case("only the kernel can", v4(ip4(HOST, "10.8.0.1")), "external_route"),
    Case("out by a port that we cannot send by", v4(ip4(HOST, "10.9.0.1")), "external_route"),
    Case("back where it came from [45]", v4(ip4(HOST, "172.16.0.1")), "ingress_is_egress"),
    Case("the same, told before", v4(ip4(HOST, "172.16.0.1")), SENT, Context(redirect_tokens=False), 0),
    Case("the same, no redirects", v4(ip4(HOST, "172.16.0.1")), SENT, flags(off=PORT_SEND_REDIRECTS), 0),
    Case("back, too big", v4(ip4(HOST, "172.16.0.1", bytes(1490))), "mtu_value_is_too_small"),
    Case("IPv6 back where it came from [77]", v6(ip6(HOST6, "2001:db8:72::1")), "ingress_is_egress"),
    Case("IPv6 back, told before", v6(ip6(HOST6, "2001:db8:72::1")), SENT, Context(redirect_tokens=False), 0),
    Case(
        "IPv6 back, send_redirects 0",
        v6(ip6(HOST6, "2001:db8:72::1")),
        "ingress_is_egress",
        flags(off=PORT_SEND_REDIRECTS),
    ),
    Case("IPv6 no route [78]", v6(ip6(HOST6, "3000::1")), "no_route"),
    Case("IPv6 blackhole [78]", v6(ip6(HOST6, "2001:db8:6::1")), "blackhole_route"),
    Case("IPv6 unreachable [78]", v6(ip6(HOST6, "2001:db8:7::1")), "reject_route"),
    Case("IPv6 unresolved [79]", v6(ip6(HOST6, "2001:db8:b::9")), "unresolved_neigh"),
    Case("IPv6 out by no port", v6(ip6(HOST6, "2001:db8:3::9")), "external_route"),
    Case("IPv6 several legs", v6(ip6(HOST6, "2001:db8:4::9")), "multipath_route"),
]

STRICT, LOOSE = flags(on=PORT_RPF_STRICT), flags(on=PORT_RPF_LOOSE)
BOTH = flags(on=PORT_RPF_STRICT | PORT_RPF_LOOSE)
RPF = [
    Case("strict, source on the link [25]", v4(ip4("192.0.2.9", FAR)), SENT, STRICT),
    Case("strict, source a known neighbour", v4(ip4(HOST, FAR)), SENT, STRICT),
    Case("strict, source behind this port", v4(ip4("172.16.0.9", FAR)), SENT, STRICT),
    Case("strict, source behind another", v4(ip4("10.0.0.9", FAR)), "source_validation", STRICT),
    Case("strict, source without route", v4(ip4("11.0.0.9", FAR)), "source_validation", STRICT),
    Case("strict, source of several legs", v4(ip4("10.4.0.9", FAR)), "source_validation", STRICT),
    Case("strict, source blackholed", v4(ip4("10.6.0.9", FAR)), "source_validation", STRICT),
    Case("strict, own source", v4(ip4("192.0.2.1", FAR)), "sip_is_own", STRICT),
    Case("strict wins over loose", v4(ip4("10.0.0.9", FAR)), "source_validation", BOTH),
    Case("strict, to us: the kernel's matter", v4(ip4("10.0.0.9", "192.0.2.1")), "local_route", STRICT),
    Case(
        "strict, TTL 1: the kernel's matter",
        v4(ip4("10.0.0.9", FAR, ttl=1)),
        "ttl_value_is_too_small",
        STRICT,
    ),
    Case("loose, source behind another [25]", v4(ip4("10.0.0.9", FAR)), SENT, LOOSE),
    Case("loose, source on another link", v4(ip4("198.51.100.9", FAR)), SENT, LOOSE),
    Case("loose, source of several legs", v4(ip4("10.4.0.9", FAR)), SENT, LOOSE),
    Case("loose, source behind no port", v4(ip4("10.3.0.9", FAR)), SENT, LOOSE),
    Case("loose, source only the kernel knows", v4(ip4("10.8.0.9", FAR)), "source_validation", LOOSE),
    Case("loose, source without route [25]", v4(ip4("11.0.0.9", FAR)), "source_validation", LOOSE),
    Case("loose, source rejected", v4(ip4("10.7.0.9", FAR)), "source_validation", LOOSE),
    Case("loose, source subnet broadcast", v4(ip4("192.0.2.255", FAR)), "source_validation", LOOSE),
    Case("IPv6 has no reverse path check", v6(ip6("3000::1", FAR6)), SENT, BOTH),
]

LOCALNET = flags(on=PORT_ROUTE_LOCALNET)
ACCEPT = flags(on=PORT_ACCEPT_LOCAL)
SYSCTLS = [
    Case("forwarding off", v4(ip4(HOST, FAR)), "forwarding_disabled", flags(off=PORT_IP4_FORWARD)),
    Case("forwarding off, to us", v4(ip4(HOST, "192.0.2.1")), "local_route", flags(off=PORT_IP4_FORWARD)),
    Case("forwarding off, IPv6 on", v6(ip6(HOST6, FAR6)), SENT, flags(off=PORT_IP4_FORWARD)),
    Case("IPv6 forwarding off", v6(ip6(HOST6, FAR6)), "forwarding_disabled", flags(off=PORT_IP6_FORWARD)),
    Case(
        "IPv6 forwarding off, to us",
        v6(ip6(HOST6, "2001:db8:a::1")),
        "local_route",
        flags(off=PORT_IP6_FORWARD),
    ),
    Case("rules, IPv4", v4(ip4(HOST, FAR)), "policy_rule", flags(on=PORT_RULES4)),
    Case("rules, to us", v4(ip4(HOST, "192.0.2.1")), "local_route", flags(on=PORT_RULES4)),
    Case("rules, own source", v4(ip4("192.0.2.1", FAR)), "policy_rule", flags(on=PORT_RULES4)),
    Case("rules of IPv6 alone", v4(ip4(HOST, FAR)), SENT, flags(on=PORT_RULES6)),
    Case("rules, IPv6", v6(ip6(HOST6, FAR6)), "policy_rule", flags(on=PORT_RULES6)),
    Case("accept_local, own source", v4(ip4("192.0.2.1", FAR)), "source_validation", ACCEPT),
    Case("accept_local, own source, to us", v4(ip4("192.0.2.1", "198.51.100.1")), "local_route", ACCEPT),
    Case("route_localnet, to 127/8", v4(ip4(HOST, "127.0.0.1")), "local_route", LOCALNET),
    Case("route_localnet, from 127/8", v4(ip4("127.0.0.1", FAR)), "source_validation", LOCALNET),
    Case("route_localnet, from 127/8 to us", v4(ip4("127.0.0.1", "192.0.2.1")), "local_route", LOCALNET),
    Case("route_localnet, multicast", v4(ip4("127.0.0.1", "239.1.2.3")), "ipv4_multicast", LOCALNET),
]

IP6 = [
    Case("plain, flow label and class kept [54]", v6(ip6(HOST6, FAR6, tclass=0xBB, flow=0x12345))),
    Case("hop limit 2", v6(ip6(HOST6, FAR6, hops=2))),
    Case("hop limit 1 [55]", v6(ip6(HOST6, FAR6, hops=1)), "ttl_value_is_too_small"),
    Case("hop limit 0 [55]", v6(ip6(HOST6, FAR6, hops=0)), "ttl_value_is_too_small"),
    Case("hop limit 1 to us", v6(ip6(HOST6, "2001:db8:a::1", hops=1)), "local_route"),
    Case(
        "hop limit 1, multicast MAC [56]", v6(ip6(HOST6, FAR6, hops=1), SOLICITED_MAC), "uc_dip_over_mc_dmac"
    ),
    Case("hop limit 1, source :: [56]", v6(ip6("::", FAR6, hops=1)), "sip_is_unspecified"),
    Case("version 4 under 86dd [57]", v6(ip6(HOST6, FAR6, version=4)), "ip_header_corrupted"),
    Case("version 7 [57]", v6(ip6(HOST6, FAR6, version=7)), "ip_header_corrupted"),
    Case("39 header bytes [57]", v6(ip6(HOST6, FAR6)[:39]), "ip_header_corrupted"),
    Case("payload longer than the frame [58]", v6(ip6(HOST6, FAR6, length=9)), "ip_truncated"),
    Case("payload 65535 [58]", v6(ip6(HOST6, FAR6, length=65535)), "ip_truncated"),
    Case("payload shorter than the frame [59]", v6(ip6(HOST6, FAR6, length=3))),
    Case("payload 0 without jumbo [59]", v6(ip6(HOST6, FAR6, length=0))),
    Case("source :: [60]", v6(ip6("::", FAR6)), "sip_is_unspecified"),
    Case("source ::, back where it came from", v6(ip6("::", "2001:db8:72::1")), "ingress_is_egress"),
    Case("source ::, no route", v6(ip6("::", "3000::1")), "sip_is_unspecified"),
    Case("source ::, way not known", v6(ip6("::", "2001:db8:3::1")), "external_route"),
    Case("source ::1 [60]", v6(ip6("::1", FAR6)), "sip_is_loopback_address"),
    Case("source ff02::1 [60]", v6(ip6("ff02::1", FAR6)), "sip_is_mc"),
    Case("source link-local [61]", v6(ip6("fe80::2", FAR6)), "ipv6_link_local"),
    Case("source febf:: [61]", v6(ip6("febf::2", FAR6)), "ipv6_link_local"),
    Case("source link-local to us", v6(ip6("fe80::2", "2001:db8:a::1")), "local_route"),
    Case("source ours [62]", v6(ip6("2001:db8:a::1", FAR6))),
    Case("source fec0:: [62]", v6(ip6("fec0::1", FAR6))),
    Case("source fc00:: [62]", v6(ip6("fc00::1", FAR6))),
    Case("source v4-mapped [62]", v6(ip6("::ffff:10.0.0.1", FAR6))),
    Case("destination ::1 [63]", v6(ip6(HOST6, "::1")), "dip_is_loopback_address"),
    Case("destination :: [64]", v6(ip6(HOST6, "::"))),
    Case("destination fec0:: [64]", v6(ip6(HOST6, "fec0::1"))),
    Case("destination fc00:: [64]", v6(ip6(HOST6, "fc00::1"))),
    Case("destination v4-mapped [64]", v6(ip6(HOST6, "::ffff:10.0.0.1"))),
    Case("destination 64:ff9b:: [64]", v6(ip6(HOST6, "64:ff9b::10.0.0.1"))),
    Case("destination 100:: [64]", v6(ip6(HOST6, "100::1"))),
    Case("another's link-local [65]", v6(ip6(HOST6, "fe80::9")), "ipv6_link_local"),
    Case("destination ff01:: [66]", v6(ip6(HOST6, "ff01::1")), "ipv6_mc_dip_interface_local_scope"),
    Case("destination ff11:: [66]", v6(ip6(HOST6, "ff11::1")), "ipv6_mc_dip_interface_local_scope"),
    Case("destination ff00:: [66]", v6(ip6(HOST6, "ff00::1")), "ipv6_mc_dip_reserved_scope"),
    Case("all nodes [67]", v6(ip6(HOST6, "ff02::1"), SOLICITED_MAC), "ipv6_multicast"),
    Case("global multicast [67]", v6(ip6(HOST6, "ff0e::1"), SOLICITED_MAC), "ipv6_multicast"),
    Case("subnet-router anycast [68]", v6(ip6(HOST6, "2001:db8:a::")), "local_route"),
    Case("own address [69]", v6(ip6(HOST6, "2001:db8:b::1")), "local_route"),
    Case("own address, unknown next header [69]", v6(ip6(HOST6, "2001:db8:a::1", nxt=253)), "local_route"),
    Case("unicast in a multicast frame [70]", v6(ip6(HOST6, FAR6), SOLICITED_MAC), "uc_dip_over_mc_dmac"),
    Case(
        "hop-by-hop in a multicast frame [70]",
        v6(ip6(HOST6, FAR6, hop_by_hop(17, udp(9)), nxt=0), SOLICITED_MAC),
        "ipv6_hop_by_hop",
    ),
    Case("to us in a broadcast frame", v6(ip6(HOST6, "2001:db8:a::1"), GROUP_ALL), "local_route"),
    Case("another host's MAC [70]", v6(ip6(HOST6, FAR6), SENDER), "other_host"),
    Case("hop-by-hop PadN [71]", v6(ip6(HOST6, FAR6, hop_by_hop(17, udp(9)), nxt=0)), "ipv6_hop_by_hop"),
    Case("hop-by-hop truncated [72]", v6(ip6(HOST6, FAR6, b"\x11\xff", nxt=0)), "ipv6_hop_by_hop"),
    Case(
        "jumbo, no length [72]",
        v6(ip6(HOST6, FAR6, hop_by_hop(17, udp(9)), nxt=0, length=0)),
        "ipv6_hop_by_hop",
    ),
    Case(
        "router alert in transit [73]",
        v6(ip6(HOST6, FAR6, hop_by_hop(17, b"", b"\5\2\0\0\1\0"), nxt=0)),
        "ipv6_hop_by_hop",
    ),
    Case("hop-by-hop to us", v6(ip6(HOST6, "2001:db8:a::1", hop_by_hop(17, udp(9)), nxt=0)), "local_route"),
    Case("too big [75]", v6(ip6(HOST6, FAR6, bytes(MTU - 39))), "mtu_value_is_too_small"),
    Case("exactly the MTU [75]", v6(ip6(HOST6, FAR6, bytes(MTU - 40)))),
    Case(
        "route with its own MTU [76]", v6(ip6(HOST6, "2001:db8:5::1", bytes(1261))), "mtu_value_is_too_small"
    ),
] + [
    Case(f"next header {n} in transit [74]", v6(ip6(HOST6, FAR6, bytes(8), nxt=n)))
    for n in (60, 43, 44, 59, 253)
]

DISCOVERY = [
    Case(
        "solicitation for us",
        v6(ip6(HOST6, "ff02::1:ff00:1", icmp6(135), nxt=58, hops=255), SOLICITED_MAC),
        "ipv6_neighbour_discovery",
    ),
    Case(
        "duplicate address detection",
        v6(ip6("::", "ff02::1:ff00:1", icmp6(135), nxt=58, hops=255), SOLICITED_MAC),
        "ipv6_neighbour_discovery",
    ),
    Case(
        "router solicitation",
        v6(ip6("fe80::2", "ff02::2", icmp6(133), nxt=58, hops=255), SOLICITED_MAC),
        "ipv6_neighbour_discovery",
    ),
    Case(
        "unicast probe",
        v6(ip6(HOST6, "2001:db8:a::1", icmp6(135), nxt=58, hops=255)),
        "ipv6_neighbour_discovery",
    ),
    Case(
        "advertisement to our link-local",
        v6(ip6("fe80::2", "fe80::1", icmp6(136), nxt=58, hops=255)),
        "ipv6_neighbour_discovery",
    ),
    Case("redirect", v6(ip6("fe80::2", "fe80::1", icmp6(137), nxt=58, hops=255)), "ipv6_neighbour_discovery"),
    Case("solicitation in transit", v6(ip6(HOST6, FAR6, icmp6(135), nxt=58, hops=255))),
    Case("echo to us", v6(ip6(HOST6, "2001:db8:a::1", icmp6(128), nxt=58)), "local_route"),
    Case("echo to all nodes", v6(ip6("fe80::2", "ff02::1", icmp6(128), nxt=58)), "ipv6_multicast"),
    Case("ICMPv6 of no bytes", v6(ip6(HOST6, "ff02::1", b"", nxt=58)), "ipv6_multicast"),
]

TABLE = [
    *(ETHERNET + VLAN + IP4_PLAIN + IP4_HEADER + IP4_ADDRESSES + CHECKSUMS),
    *(ROUTING + PATH + RPF + SYSCTLS + IP6 + DISCOVERY),
]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.check_conservation()
    made.close()


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_packet(rig: Rig, case: Case) -> None:
    rig.set_context(case.context)
    outcome = rig.route(case.packet)
    assert outcome.reason == case.reason
    if case.reason == SENT:
        assert outcome.port == case.port
    elif BY_NAME[case.reason].kind is Kind.PUNT:
        assert (outcome.port, outcome.packet) == (0, case.packet)
    assert outcome == twin(case.packet, 0, case.context)


def test_names_of_the_table_are_unique() -> None:
    assert len({case.name for case in TABLE}) == len(TABLE)


def test_every_reason_that_one_packet_can_meet_is_in_the_table() -> None:
    of_resources = {"tx_ring_full", "punt_ring_full", "inject_too_long"}
    assert {case.reason for case in TABLE} - {SENT} == set(BY_NAME) - of_resources


@pytest.mark.parametrize(
    ("checksum", "expected"),
    [(0xFEFF, 0x0000), (0xFF00, 0x0001), (0x0000, 0x0100), (0xFFFE, 0x00FF), (0xFFFF, 0x0100)],
)
def test_checksum_corners_come_out_as_linux_has_them(rig: Rig, checksum: int, expected: int) -> None:
    rig.set_context(Context())
    outcome = rig.route(v4(ip4_with_checksum(checksum, HOST, FAR)))
    assert outcome.packet is not None
    assert int.from_bytes(outcome.packet[24:26], "big") == expected


def test_a_padded_frame_leaves_without_its_padding(rig: Rig) -> None:
    rig.set_context(Context())
    outcome = rig.route(pad(v4(ip4(HOST, FAR, b""))))
    assert outcome.packet is not None
    assert len(outcome.packet) == 34
