"""What must become of a packet, said slowly: the twin of worker.c, from the table of Linux's behaviour.

It works on parsed fields and Python's ipaddress, and computes checksums from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from forward_packets import ones_sum
from forward_rig import MAC, OWN4, PATHS, Context, Outcome, Path

from ixroute.fib.adjacency import ADJ_POLICY
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

LOOPBACK4 = IPv4Network("127.0.0.0/8")
LOCAL_MULTICAST4 = IPv4Network("224.0.0.0/24")
MULTICAST4 = IPv4Network("224.0.0.0/4")
LIMITED = IPv4Address("255.255.255.255")
ISIS_GROUPS = {"09:00:2b:00:00:04", "09:00:2b:00:00:05"}
NOBODY4 = IPv4Address("0.0.0.0")
LINK_LOCAL6 = IPv6Network("fe80::/10")
MULTICAST6 = IPv6Network("ff00::/8")
CONTROL_TCP = {179, 646}
CONTROL_UDP = {520, 521, 646, 3784, 3785, 4784, 6784}
PATH_ACTIONS = {"", "unresolved_neigh", "external_route", "multipath_route"}


class Ended(Exception):  # noqa: N818 - not an error
    """The packet's reason."""


@dataclass
class Frame:
    port: int
    context: Context
    group: bool
    ip: bytes

    def has(self, flag: int) -> bool:
        return bool(self.context.flags & flag)


def twin(packet: bytes, port: int, context: Context) -> Outcome:
    try:
        egress, out = route(packet, port, context)
    except Ended as end:
        reason = str(end)
        punted = BY_NAME[reason].kind is Kind.PUNT
        return Outcome(reason, port, packet) if punted else Outcome(reason)
    return Outcome("", egress, out)


def route(packet: bytes, port: int, context: Context) -> tuple[int, bytes]:
    ethertype, frame = ethernet(packet, port, context)
    if ethertype == 0x0800:
        path, ip = ip4(frame)
    else:
        path, ip = ip6(frame)
    if path.port not in (0, 1):
        raise Ended("external_route")
    redirects = ethertype == 0x86DD or frame.has(PORT_SEND_REDIRECTS)
    if path.port == port and redirects and context.redirect_tokens:
        raise Ended("ingress_is_egress")
    return path.port, path.mac + MAC[path.port] + ethertype.to_bytes(2, "big") + ip


def ethernet(packet: bytes, port: int, context: Context) -> tuple[int, Frame]:
    if len(packet) < 14:
        raise Ended("frame_too_short")
    if not context.flags & PORT_UP:
        raise Ended("port_down")
    if context.flags & PORT_KERNEL_ALL:
        raise Ended("kernel_interface")
    dst, rest = packet[:6], packet[12:]
    if dst[:3] == bytes.fromhex("0180c2") or dst.hex(":") in ISIS_GROUPS:
        raise Ended("link_local_frame")
    rest = untag(rest, context)
    group = bool(dst[0] & 1)
    if not group and dst != MAC[port]:
        raise Ended("other_host")
    ethertype = int.from_bytes(rest[:2], "big")
    if ethertype == 0x0806:
        reply = len(rest) >= 10 and rest[8:10] == b"\0\2"
        raise Ended("arp_response" if reply and not group else "arp_request")
    if ethertype not in (0x0800, 0x86DD):
        raise Ended("non_ip")
    return ethertype, Frame(port, context, group, rest[2:])


def untag(rest: bytes, context: Context) -> bytes:
    """`rest` begins with an EtherType; so does the answer, without priority tags."""
    tags = (b"\x81\x00", b"\x88\xa8")
    for _ in range(4):
        if rest[:2] not in tags:
            return rest
        if len(rest) < 6:
            raise Ended("frame_too_short")
        vid = int.from_bytes(rest[2:4], "big") & 0xFFF
        if vid in context.vlans:
            raise Ended("vlan_sub_interface")
        if vid:
            raise Ended("vlan_tag_mismatch")
        rest = rest[4:]
    if rest[:2] in tags:
        raise Ended("vlan_sub_interface")
    return rest


def to_router(proto: int, payload: bytes, other: str) -> str:
    if proto in (2, 89, 103, 112):
        return "routing_protocol"
    sport, dport = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    if len(payload) >= 4 and proto == 6 and {sport, dport} & CONTROL_TCP:
        return "routing_protocol"
    if len(payload) >= 4 and proto == 17 and dport in CONTROL_UDP:
        return "routing_protocol"
    return other


def ip4_to_router(ip: bytes, other: str) -> str:
    if int.from_bytes(ip[6:8], "big") & 0x1FFF:
        return other
    return to_router(ip[9], ip[(ip[0] & 15) * 4 :], other)


def ip4(frame: Frame) -> tuple[Path, bytes]:
    ip = ip4_sound(frame.ip)
    src, dst = IPv4Address(ip[12:16]), IPv4Address(ip[16:20])
    ip4_addresses(frame, ip, src, dst)
    index = frame.context.look(ip, ip[12:16]) if frame.context.same_source() else ADJ_POLICY
    path, back = PATHS[frame.context.look(ip, ip[16:20])], PATHS[index]
    asked = str(src) in OWN4 or frame.has(PORT_RPF_STRICT) or frame.has(PORT_RPF_LOOSE)
    own = asked and back.action == "local_route"
    if own and not frame.has(PORT_ACCEPT_LOCAL) and not frame.has(PORT_RULES4):
        raise Ended("sip_is_own")
    if path.action in ("local_route", "ipv4_broadcast"):
        raise Ended(ip4_to_router(ip, path.action))
    if path.action == "policy_rule":
        raise Ended("policy_rule")
    if frame.group:
        raise Ended("uc_dip_over_mc_dmac")
    if frame.has(PORT_RULES4):
        raise Ended("policy_rule")
    if not frame.has(PORT_IP4_FORWARD):
        raise Ended("forwarding_disabled")
    if own or src in LOOPBACK4:
        raise Ended("source_validation")
    if ip[0] != 0x45:
        raise Ended("ipv4_options")
    hop(path, ip[8], len(ip))
    unicast = back.action in ("", "unresolved_neigh")
    if asked and back.action in ("policy_rule", "ipv4_broadcast"):
        valid = False
    elif frame.has(PORT_RPF_STRICT):
        valid = unicast and back.port == frame.port
    elif frame.has(PORT_RPF_LOOSE):
        valid = unicast or (back.action in PATH_ACTIONS and index >= 8)
    else:
        valid = True
    if not valid:
        raise Ended("source_validation")
    head = ip[:8] + bytes((ip[8] - 1, ip[9], 0, 0)) + ip[12:20]
    checksum = 0xFFFF - ones_sum(head)
    return path, head[:10] + checksum.to_bytes(2, "big") + ip[12:]


def ip4_sound(ip: bytes) -> bytes:
    """The packet without what is behind it."""
    header = (ip[0] & 15) * 4 if ip else 0
    if len(ip) < 20 or ip[0] >> 4 != 4 or header < 20 or len(ip) < header or ones_sum(ip[:header]) != 0xFFFF:
        raise Ended("ip_header_corrupted")
    length = int.from_bytes(ip[2:4], "big")
    if length > len(ip):
        raise Ended("ip_truncated")
    if length < header:
        raise Ended("ip_header_corrupted")
    return ip[:length]


def ip4_addresses(frame: Frame, ip: bytes, src: IPv4Address, dst: IPv4Address) -> None:
    localnet = frame.has(PORT_ROUTE_LOCALNET)
    if src in MULTICAST4:
        raise Ended("sip_is_mc")
    if src == LIMITED:
        raise Ended("ipv4_sip_is_limited_bc")
    if dst in MULTICAST4:
        if src in LOOPBACK4 and not localnet:
            raise Ended("sip_is_loopback_address")
        if src == NOBODY4 and dst not in LOCAL_MULTICAST4 and ip[9] != 2:
            raise Ended("sip_is_unspecified")
        raise Ended(ip4_to_router(ip, "ipv4_multicast"))
    if dst == LIMITED or (src == NOBODY4 and dst == NOBODY4):
        raise Ended(ip4_to_router(ip, "ipv4_broadcast"))
    if src == NOBODY4:
        raise Ended("sip_is_unspecified")
    if dst == NOBODY4:
        raise Ended("dip_is_unspecified")
    if dst in LOOPBACK4 and not localnet:
        raise Ended("dip_is_loopback_address")
    if src in LOOPBACK4 and dst not in LOOPBACK4 and not localnet:
        raise Ended("sip_is_loopback_address")


def hop(path: Path, ttl: int, length: int) -> None:
    if path.action not in PATH_ACTIONS:
        raise Ended(path.action)
    if ttl <= 1:
        raise Ended("ttl_value_is_too_small")
    if path.action:
        raise Ended(path.action)
    if length > path.mtu:
        raise Ended("mtu_value_is_too_small")


def ip6(frame: Frame) -> tuple[Path, bytes]:
    ip = ip6_sound(frame.ip)
    src, dst = IPv6Address(ip[8:24]), IPv6Address(ip[24:40])
    path = PATHS[frame.context.look(ip, ip[24:40])]
    if dst in MULTICAST6:
        raise Ended(ip6_to_router(ip, "ipv6_multicast"))
    if path.action == "local_route":
        raise Ended(ip6_to_router(ip, "local_route"))
    if path.action == "policy_rule":
        local_link = src in LINK_LOCAL6 or dst in LINK_LOCAL6
        raise Ended(ip6_to_router(ip, "ipv6_link_local") if local_link else "policy_rule")
    if frame.group:
        raise Ended("ipv6_hop_by_hop" if ip[6] == 0 else "uc_dip_over_mc_dmac")
    ways_out = {frame.port} if path.action == "" else {path.port}
    if src == IPv6Address("::") and (path.action not in PATH_ACTIONS or path.port not in ways_out):
        raise Ended("sip_is_unspecified")
    if src in LINK_LOCAL6 or dst in LINK_LOCAL6:
        raise Ended(ip6_to_router(ip, "ipv6_link_local"))
    if frame.has(PORT_RULES6):
        raise Ended("policy_rule")
    if not frame.has(PORT_IP6_FORWARD):
        raise Ended("forwarding_disabled")
    if ip[6] == 0:
        raise Ended("ipv6_hop_by_hop")
    hop(path, ip[7], len(ip))
    return path, ip[:7] + bytes((ip[7] - 1,)) + ip[8:]


def ip6_sound(ip: bytes) -> bytes:
    if len(ip) < 40 or ip[0] >> 4 != 6:
        raise Ended("ip_header_corrupted")
    src, dst = IPv6Address(ip[8:24]), IPv6Address(ip[24:40])
    if src == IPv6Address("::1"):
        raise Ended("sip_is_loopback_address")
    if dst == IPv6Address("::1"):
        raise Ended("dip_is_loopback_address")
    if dst in MULTICAST6 and ip[25] & 15 == 1:
        raise Ended("ipv6_mc_dip_interface_local_scope")
    if dst in MULTICAST6 and ip[25] & 15 == 0:
        raise Ended("ipv6_mc_dip_reserved_scope")
    if src in MULTICAST6:
        raise Ended("sip_is_mc")
    length = 40 + int.from_bytes(ip[4:6], "big")
    if length > len(ip):
        raise Ended("ip_truncated")
    return ip[:length]


def ip6_to_router(ip: bytes, other: str) -> str:
    proto, payload = ip[6], ip[40:]
    if proto == 0 and len(payload) >= 8:
        size = (payload[1] + 1) * 8
        if size > len(payload):
            return other
        proto, payload = payload[0], payload[size:]
    if proto == 58 and payload:
        if payload[0] in range(133, 138):
            return "ipv6_neighbour_discovery"
        return "routing_protocol" if payload[0] in (130, 131, 132, 143) else other
    if proto == 58:
        return other
    return to_router(proto, payload, other)
