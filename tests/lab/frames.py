"""Named frames: one for each kind of packet a router meets, and what becomes of it.

They are played at a router with the three links of ixroute.demo.topology.Lab and the tables of ROUTER_TABLES.
MTUs: lan 1500, wan 1400. Each case has a source address of its own behind the client (10.9.x.y, fd09::x:y),
so that the kernel's state per source (redirects, rate limits) never joins two cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.packets import ETH_IP4, ETH_IP6, ethernet

ROUTER_LAN, CLIENT = "02:00:00:00:01:01", "02:00:00:00:01:02"
ROUTER_WAN, SERVER = "02:00:00:00:02:01", "02:00:00:00:02:02"
ROUTER_DMZ, THIRD = "02:00:00:00:03:01", "02:00:00:00:03:02"
LAN_MTU, WAN_MTU, DMZ_MTU = 1500, 1400, 1500

FORWARD = "forward"
ANY = "any"
"""Verdict of a case of which only what comes out is compared."""


@dataclass(frozen=True)
class Case:
    """One frame that comes in by `port`. verdict: `forward`, or the reason's name (forward/reasons.h)."""

    name: str
    frame: bytes
    verdict: str
    port: str = "lan"
    repeats: bool = False
    """The kernel asks again later by itself (ARP, neighbour solicitation): compared as a set."""


# After `ip`, on the router. {lan}, {wan}, {dmz}: the interfaces that have its addresses.
ROUTER_TABLES = """
route add 10.9.0.0/16 via 10.0.1.2 dev {lan}
route add 10.8.0.0/16 via 10.0.2.2 dev {wan}
route add 10.7.0.0/16 via 10.0.2.2 dev {wan} mtu 1000
route add 10.5.0.0/16 via inet6 fd00:2::2 dev {wan}
route add blackhole 10.66.1.0/24
route add unreachable 10.66.2.0/24
route add prohibit 10.66.3.0/24
route add throw 10.66.4.0/24
route add 0.1.2.0/24 via 10.0.2.2 dev {wan}
route add 240.0.0.0/4 via 10.0.2.2 dev {wan}
route add 169.254.0.0/16 via 10.0.2.2 dev {wan}
route add 100.64.0.0/10 via 10.0.2.2 dev {wan}
route add 192.0.0.8/32 via 10.0.2.2 dev {wan}
addr add 10.1.0.0/31 dev {wan}
addr add 10.1.1.1/32 peer 10.1.1.2/32 dev {wan}
-6 route add fd09::/16 via fd00:1::2 dev {lan}
-6 route add fd08::/16 via fd00:2::2 dev {wan}
-6 route add fd07::/16 via fd00:2::2 dev {wan} mtu 1300
-6 route add blackhole fd66:1::/32
-6 route add unreachable fd66:2::/32
-6 route add prohibit fd66:3::/32
-6 route add throw fd66:4::/32
-6 route add ::/128 via fd00:2::2 dev {wan}
-6 route add fec0::/16 via fd00:2::2 dev {wan}
-6 route add ::ffff:0:0/96 via fd00:2::2 dev {wan}
-6 route add 64:ff9b::/96 via fd00:2::2 dev {wan}
-6 route add 100::/64 via fd00:2::2 dev {wan}
addr add fd00:127::/127 dev {wan} nodad
addr add fd00:128::1/128 dev {wan} nodad
-6 route add fd00:128::2/128 dev {wan}
neigh replace 10.0.1.2 lladdr 02:00:00:00:01:02 nud permanent dev {lan}
neigh replace 10.0.1.20 lladdr 02:00:00:00:01:02 nud permanent dev {lan}
neigh replace 10.0.1.21 lladdr 02:00:00:00:01:02 nud permanent dev {lan}
neigh replace 10.0.2.2 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace 10.0.3.2 lladdr 02:00:00:00:03:02 nud permanent dev {dmz}
neigh replace 10.1.0.1 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace 10.1.1.2 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace fd00:1::2 lladdr 02:00:00:00:01:02 nud permanent dev {lan}
neigh replace fd00:1::20 lladdr 02:00:00:00:01:02 nud permanent dev {lan}
neigh replace fe80::2 lladdr 02:00:00:00:01:02 nud permanent dev {lan}
neigh replace fd00:2::2 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace fd00:3::2 lladdr 02:00:00:00:03:02 nud permanent dev {dmz}
neigh replace fd00:127::1 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace fd00:128::2 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
""".strip().splitlines()

# Every limit on what the kernel answers is off, and nothing in its packets is random that need not be.
ROUTER_SYSCTLS = {
    "net.ipv4.icmp_ratelimit": "0",
    "net.ipv4.icmp_ratemask": "0",
    "net.ipv6.icmp.ratelimit": "0",
    "net.ipv6.icmp.ratemask": "",
    "net.ipv6.auto_flowlabels": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "1",
}


class Sources:
    """A source address for each case, IPv4 and IPv6."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._next = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self

    def __next__(self) -> tuple[str, str]:
        self._next += 1
        return f"10.9.{self._room}.{self._next}", f"fd09::{self._room:x}:{self._next:x}"


def from_client(packet: bytes, dst: str = ROUTER_LAN, src: str = CLIENT) -> bytes:
    return ethernet(dst, src, ETH_IP6 if packet[0] >> 4 == 6 else ETH_IP4, packet)


def all_cases() -> list[Case]:
    from lab.frames_corners import cases as corner_cases
    from lab.frames_ip4 import cases as ip4_cases
    from lab.frames_ip6 import cases as ip6_cases
    from lab.frames_link import cases as link_cases

    return [*link_cases(), *ip4_cases(), *ip6_cases(), *corner_cases()]
