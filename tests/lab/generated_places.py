"""Where generated frames go to and come from: the router's further tables, and addresses worth sending to.

The tables stand beside those of lab.frames. Every neighbour that a route or a likely address needs is permanent, so
that what a frame meets does not depend on when it is sent. 10.20/16 and fd00:20::/64 are many hosts on the lan: each
sends one packet that deserves a redirect, for what the kernel tells a host a second time depends on the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from lab.packets import address_bytes

ON_LINK_HOSTS = 4096
"""Hosts of 10.20.0.0/16 and of fd00:20::/64: .16.0 up, ::1000 up."""

TABLES = """
addr add 10.20.0.1/16 dev {lan}
addr add fd00:20::1/64 dev {lan} nodad
route add 10.4.0.0/16 via 10.0.3.2 dev {dmz}
route add 10.6.0.0/16 nexthop via 10.0.2.2 dev {wan} nexthop via 10.0.2.3 dev {wan} weight 3
route add 10.3.0.0/16 dev {wan} tos 0x10 via 10.0.2.2
route add 10.3.0.0/16 dev {dmz} via 10.0.3.2
route add 10.2.0.0/16 via 10.88.0.1 dev {wan} onlink
-6 route add fd04::/16 via fd00:3::2 dev {dmz}
-6 route add fd06::/16 nexthop via fd00:2::2 dev {wan} nexthop via fd00:2::3 dev {wan} weight 3
-6 route add fd02::/16 via fe80::99 dev {wan}
nexthop add id 71 via 10.0.2.2 dev {wan}
nexthop add id 72 via 10.0.2.3 dev {wan}
nexthop add id 73 group 71,1/72,3
nexthop add id 74 group 71/72 type resilient buckets 32
nexthop add id 75 blackhole
nexthop add id 76 via fd00:2::2 dev {wan}
nexthop add id 77 group 76
route add 10.11.0.0/16 nhid 73
route add 10.12.0.0/16 nhid 74
route add 10.14.0.0/16 nhid 75
route add 10.15.0.0/16 nhid 76
-6 route add fd0b::/16 nhid 77
-6 route add fd0a::/16 nexthop via fd00:1::2 dev {lan} nexthop via fd00:1::20 dev {lan} weight 2
neigh replace 10.88.0.1 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace fd00:2::3 lladdr 02:00:00:00:02:03 nud permanent dev {wan}
neigh replace fe80::99 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace fe80::2 lladdr 02:00:00:00:02:02 nud permanent dev {wan}
neigh replace fe80::2 lladdr 02:00:00:00:03:02 nud permanent dev {dmz}
""".strip().splitlines()

SYSCTLS = {
    "net.ipv4.ipfrag_time": "1",
    "net.ipv6.ip6frag_time": "1",
    "net.ipv4.neigh.{port}.retrans_time_ms": "200",
    "net.ipv6.neigh.{port}.retrans_time_ms": "200",
    "net.ipv4.conf.all.send_redirects": "1",
}
"""Reassembly to the router itself and the search for a neighbour end early: the kernel's answer is waited for."""

LEGS = {bytes.fromhex("020000000202"), bytes.fromhex("020000000203")}
MULTIPATH4 = {bytes((10, 6)), bytes((10, 11)), bytes((10, 12))}
MULTIPATH6 = {b"\xfd\x06", b"\xfd\x0a"}
"""Destinations with two next hops of one port: which is taken is the router's choice (a seeded hash)."""


def neighbours(interfaces: Mapping[str, str]) -> Iterator[str]:
    """`ip` commands: everybody on the links is at home."""
    for number, port in ((1, "lan"), (2, "wan"), (3, "dmz")):
        for host in (0, *range(2, 255)):
            mac = f"02:00:00:00:{number:02x}:{host if host == 3 else 2:02x}"
            yield f"neigh replace 10.0.{number}.{host} lladdr {mac} nud permanent dev {interfaces[port]}"
    lan = interfaces["lan"]
    for number in range(ON_LINK_HOSTS):
        four, six = on_link(number)
        for address in (four, six):
            yield f"neigh replace {address} lladdr 02:00:00:00:01:02 nud permanent dev {lan}"


def on_link(number: int) -> tuple[str, str]:
    return f"10.20.{16 + number // 256}.{number % 256}", f"fd00:20::{0x1000 + number:x}"


class Senders:
    """Addresses behind the client that no other frame has (of IPv4 after 60,000 again), and hosts on its link."""

    def __init__(self) -> None:
        self._next = 0
        self._on_link = 0

    def behind(self) -> tuple[str, str]:
        self._next += 1
        n = self._next % 60_000
        return (
            f"10.9.{16 + n // 256}.{n % 256}",
            f"fd09::{0x1000 + (self._next >> 16):x}:{self._next & 0xFFFF:x}",
        )

    def on_link(self) -> tuple[str, str] | None:
        """None when each has sent once."""
        if self._on_link == ON_LINK_HOSTS:
            return None
        self._on_link += 1
        return on_link(self._on_link - 1)


ROUTED4 = (
    "10.8",
    "10.8",
    "10.8",
    "10.7",
    "10.5",
    "10.6",
    "10.4",
    "10.4",
    "10.3",
    "10.2",
    "10.9",
    "10.11",
    "10.12",
    "10.14",
    "10.15",
)
ROUTED6 = ("fd08", "fd08", "fd08", "fd07", "fd06", "fd04", "fd04", "fd02", "fd09", "fd0a", "fd0b")
KINDS4 = ("10.66.1.1", "10.66.2.1", "10.66.3.1", "10.66.4.1", "198.51.100.1")
KINDS6 = ("fd66:1::1", "fd66:2::1", "fd66:3::1", "fd66:4::1", "2001:db8:1::1")
HOSTS4 = ("10.0.1.2", "10.0.2.2", "10.0.3.2", "10.0.2.3", "10.1.0.1", "10.1.1.2", "10.0.2.77")
HOSTS6 = ("fd00:1::2", "fd00:2::2", "fd00:3::2", "fd00:2::3", "fd00:127::1", "fd00:128::2")
OWN4 = ("10.0.1.1", "10.0.2.1", "10.0.3.1", "10.1.0.0", "10.1.1.1", "10.20.0.1")
OWN6 = ("fd00:1::1", "fd00:2::1", "fd00:3::1", "fd00:1::", "fd00:127::", "fd00:128::1", "fe80::ff:fe00:101")
ODD4 = (
    *(
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "240.1.2.3",
        "255.255.255.255",
        "255.255.255.254",
    ),
    *("10.0.1.255", "10.0.1.0", "10.0.2.255", "10.0.2.0", "10.0.3.255", "10.20.255.255", "10.20.0.0"),
    *("169.254.1.1", "100.64.1.1", "192.0.0.8", "192.0.0.9", "224.0.0.1", "224.0.0.5", "224.0.0.22"),
    *("224.0.0.251", "224.1.2.3", "232.1.1.1", "239.1.2.3"),
)
ODD6 = (
    *(
        "::",
        "::1",
        "::2",
        "::10.0.2.2",
        "::ffff:10.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::1",
        "100::1",
        "fec0::1",
    ),
    *(
        "fe80::2",
        "fe80::1",
        "ff00::1",
        "ff01::1",
        "ff02::1",
        "ff02::2",
        "ff02::5",
        "ff02::16",
        "ff02::1:ff00:1",
    ),
    *(
        "ff05::2",
        "ff0e::1",
        "ff11::1",
        "ff12::1",
        "ff3e::1",
        "fc00::1",
        "2002:a00:1::1",
        "3fff::1",
        "febf::1",
    ),
)
STRANGERS4, STRANGERS6 = (
    ("203.0.113.9", "10.66.1.9", "8.8.8.8"),
    ("2001:db8::9", "fd66:1::9", "2001:db8:2::1"),
)


def destination4(dice: Random) -> str:
    pick = dice.random()
    if pick < 0.6:
        return f"{dice.choice(ROUTED4)}.{dice.randrange(256)}.{dice.randrange(256)}"
    pools = (HOSTS4, OWN4, ODD4, KINDS4)
    return dice.choice(pools[min(int((pick - 0.6) * 10), 3)])


def destination6(dice: Random) -> str:
    pick = dice.random()
    if pick < 0.6:
        return f"{dice.choice(ROUTED6)}::{dice.randrange(65536):x}:{dice.randrange(65536):x}"
    pools = (HOSTS6, OWN6, ODD6, KINDS6)
    return dice.choice(pools[min(int((pick - 0.6) * 10), 3)])


def source(dice: Random, version: int, port: str, senders: Senders) -> str:
    """Mostly somebody who can be answered, and of whom nobody heard before."""
    at = 0 if version == 4 else 1
    pick = dice.random()
    if pick < 0.72:
        return senders.behind()[at]
    if pick < 0.75 and port == "lan":
        return (senders.on_link() or senders.behind())[at]
    if pick < 0.8:  # somewhere behind a router: its way back may be another, or several
        prefix = dice.choice((ROUTED4, ROUTED6)[at])
        return (
            f"{prefix}.{dice.randrange(256)}.9" if version == 4 else f"{prefix}::{dice.randrange(65536):x}:9"
        )
    pools = ((HOSTS4, OWN4, ODD4, STRANGERS4, KINDS4), (HOSTS6, OWN6, ODD6, STRANGERS6, KINDS6))[at]
    return dice.choice(pools[min(int((pick - 0.8) * 25), 4)])


def is_multipath(packet: bytes) -> bool:
    """An IP packet whose destination has several next hops."""
    return packet[16:18] in MULTIPATH4 if packet[0] >> 4 == 4 else packet[24:26] in MULTIPATH6


def is_on_link(packet: bytes) -> bool:
    """An IP packet to a prefix of one of the router's links: it may wait for a neighbour nobody knows."""
    if packet[0] >> 4 == 4:
        return packet[16:18] in (bytes((10, 0)), bytes((10, 1)), bytes((10, 20)))
    return packet[24:26] in (b"\xfd\x00", b"\xfe\x80", address_bytes("fe80::")[:2])
