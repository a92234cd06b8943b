"""Frames that are judged by their Ethernet header, VLAN tag or ARP."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lab.frames import CLIENT, FORWARD, ROUTER_LAN, ROUTER_WAN, SERVER, Case, Sources, from_client
from lab.packets import ETH_ARP, ETH_IP4, ETH_IP6, ETH_VLAN, arp, ethernet, ip4, ip6, udp

BROADCAST = "ff:ff:ff:ff:ff:ff"
STRANGER = "02:99:99:99:99:99"
SERVER4, SERVER6 = "10.0.2.2", "fd00:2::2"


def cases() -> Iterator[Case]:
    sources = Sources(1)

    def four(name: str) -> bytes:
        src, _ = next(sources)
        return ip4(src, SERVER4, udp(src, SERVER4, name.encode()))

    def six(name: str) -> bytes:
        _, src = next(sources)
        return ip6(src, SERVER6, udp(src, SERVER6, name.encode()))

    for build, family in ((four, "IPv4"), (six, "IPv6")):
        for dst, why, verdict in (
            (STRANGER, "to another MAC", "other_host"),
            (ROUTER_WAN, "to the MAC of another port", "other_host"),
            (BROADCAST, "unicast in a broadcast frame", "uc_dip_over_mc_dmac"),
            ("01:00:5e:00:00:01", "unicast in an IPv4 multicast frame", "uc_dip_over_mc_dmac"),
            ("33:33:00:00:00:01", "unicast in an IPv6 multicast frame", "uc_dip_over_mc_dmac"),
        ):
            name = f"{family} {why}"
            yield Case(name, from_client(build(name), dst), verdict)
        for src, why in (
            ("03:00:00:00:00:01", "from a multicast MAC"),
            (ROUTER_LAN, "from the router's own MAC"),
        ):
            name = f"{family} {why}"
            yield Case(name, from_client(build(name), src=src), FORWARD)
    yield from _tags(four("priority tag"), six("priority tag"), four("vlan 7"))
    yield from _other_protocols(four("in LLC/SNAP"))
    yield from _arp()


def _tags(four: bytes, six: bytes, tagged: bytes) -> Iterator[Case]:
    def vlan(kind: int, packet: bytes, tci: int) -> bytes:
        return ethernet(ROUTER_LAN, CLIENT, kind, packet, (ETH_VLAN, tci))

    yield Case("IPv4 with priority tag (VLAN 0)", vlan(ETH_IP4, four, 5 << 13), FORWARD)
    yield Case("IPv6 with priority tag (VLAN 0)", vlan(ETH_IP6, six, 5 << 13), FORWARD)
    yield Case("VLAN 7 without a sub-interface", vlan(ETH_IP4, tagged, 7), "vlan_tag_mismatch")
    yield Case("VLAN 4095", vlan(ETH_IP4, tagged, 4095), "vlan_tag_mismatch")


def _other_protocols(packet: bytes) -> Iterator[Case]:
    def other(dst: str, kind: int, payload: bytes = bytes(46)) -> bytes:
        return ethernet(dst, CLIENT, kind, payload)

    yield Case(
        "QinQ", other(ROUTER_LAN, 0x88A8, struct.pack("!HH", 7, ETH_IP4) + packet), "vlan_tag_mismatch"
    )
    yield Case("MPLS", other(ROUTER_LAN, 0x8847), "non_ip")
    yield Case("PPPoE", other(ROUTER_LAN, 0x8864), "non_ip")
    yield Case("unknown EtherType", other(ROUTER_LAN, 0x1234), "non_ip")
    snap = bytes.fromhex("aaaa03000000") + struct.pack("!H", ETH_IP4) + packet
    yield Case("IPv4 in LLC/SNAP", other(ROUTER_LAN, len(snap), snap), "non_ip")
    for name, kind in (("LLDP", 0x88CC), ("LACP", 0x8809), ("EAPOL", 0x888E)):
        yield Case(name, other("01:80:c2:00:00:0e", kind), "link_local_frame")
    yield Case(
        "spanning tree", other("01:80:c2:00:00:00", 38, b"\x42\x42\x03" + bytes(43)), "link_local_frame"
    )


def _arp() -> Iterator[Case]:
    def ask(sender: str, target: str, dst: str = BROADCAST) -> bytes:
        return ethernet(dst, CLIENT, ETH_ARP, arp(1, CLIENT, sender, "00:00:00:00:00:00", target))

    yield Case("ARP request for the router", ask("10.0.1.2", "10.0.1.1"), "arp_request")
    yield Case("ARP request by unicast", ask("10.0.1.2", "10.0.1.1", ROUTER_LAN), "arp_request")
    yield Case("ARP request for another port's address", ask("10.0.1.2", "10.0.2.1"), "arp_request")
    yield Case("ARP request for a host behind", ask("10.0.1.2", "10.0.2.2"), "arp_request")
    yield Case("ARP probe (sender 0.0.0.0)", ask("0.0.0.0", "10.0.1.1"), "arp_request")
    yield Case("gratuitous ARP", ask("10.0.1.2", "10.0.1.2"), "arp_request")
    reply = arp(2, CLIENT, "10.0.1.2", ROUTER_LAN, "10.0.1.1")
    yield Case("ARP reply", ethernet(ROUTER_LAN, CLIENT, ETH_ARP, reply), "arp_response")
    reply = arp(2, CLIENT, "10.0.1.2", STRANGER, "10.0.1.1")
    yield Case("ARP reply to another MAC", ethernet(STRANGER, CLIENT, ETH_ARP, reply), "other_host")
    ask_wan = arp(1, SERVER, "10.0.2.2", "00:00:00:00:00:00", "10.0.2.1")
    frame = ethernet(BROADCAST, SERVER, ETH_ARP, ask_wan)
    yield Case("ARP request on the other port", frame, "arp_request", port="wan")
