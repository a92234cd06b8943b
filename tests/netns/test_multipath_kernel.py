"""Which fields of a packet choose among several legs: asked of the kernel, by changing one and seeing whether the leg
changes with it. What it answers is what the twin says (tests/unit/forward/multipath_twin.py), which C is held to."""

from __future__ import annotations

import os
import random
import select
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "forward"))

from forward_packets import eth, ip4, ip6, ones_sum, tcp, udp
from multipath_twin import keys

from ixroute.demo.netns import Namespace

pytestmark = pytest.mark.netns

VARIANTS = 48
BYTES = int(os.environ.get("IXROUTE_MULTIPATH_BYTES", "12"))
"""Positions per packet and policy that are changed."""
SELECTIONS = ((0, 7), (1, 7), (2, 7), (3, 0x037), (3, 0xFC0), (3, 0x208))
PATIENCE_MS = 60
ROUTER_MAC = bytes.fromhex("02ec00000001")


class Fork:
    """A kernel router: frames come in by `in0` and leave by `a0` or `b0`, both legs of both default routes."""

    def __init__(self) -> None:
        self.space = Namespace(f"ixr-ecmp-{os.getpid()}").create()
        space = self.space
        for name in ("in", "a", "b"):
            space.ip(f"link add {name}0 type veth peer name {name}1")
            space.sysctl(f"net.ipv6.conf.{name}1.disable_ipv6", 1)
            space.sysctl(f"net.ipv4.conf.{name}0.rp_filter", 0)
        space.ip(f"link set in0 address {ROUTER_MAC.hex(':')}")
        for number, name in enumerate(("in", "a", "b")):
            space.ip(f"link set {name}0 up")
            space.ip(f"link set {name}1 up")
            space.ip(f"addr add 198.18.{number}.1/24 dev {name}0")
            space.ip(f"addr add fd00:{number}::1/64 dev {name}0 nodad")
            for address in (f"198.18.{number}.9", f"fd00:{number}::9"):
                space.ip(f"neigh replace {address} lladdr 06:00:00:00:00:99 nud permanent dev {name}0")
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            space.sysctl(key, 1)
        space.sysctl("net.ipv4.conf.all.rp_filter", 0)
        space.ip("route add default nexthop via 198.18.1.9 dev a0 nexthop via 198.18.2.9 dev b0")
        space.ip("-6 route add default nexthop via fd00:1::9 dev a0 nexthop via fd00:2::9 dev b0")
        self._sockets = {name: self._open(name + "1") for name in ("in", "a", "b")}

    def _open(self, interface: str) -> socket.socket:
        made = self.space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind((interface, 3))  # ETH_P_ALL
        made.setblocking(False)
        return made

    def set_policy(self, policy: int, fields: int) -> None:
        for family in ("ipv4", "ipv6"):
            self.space.sysctl(f"net.{family}.fib_multipath_hash_fields", fields)
            self.space.sysctl(f"net.{family}.fib_multipath_hash_policy", policy)

    def leg(self, packet: bytes) -> str | None:
        """Which one the packet took; None when it was not forwarded."""
        kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        self._sockets["in"].send(eth(ROUTER_MAC, bytes.fromhex("0600000000aa"), kind, packet))
        ways = [self._sockets["a"], self._sockets["b"]]
        while ready := select.select(ways, [], [], PATIENCE_MS / 1000)[0]:
            came = ready[0].recv(4096)
            if came[12:14] == kind.to_bytes(2, "big") and came[-8:] == packet[-8:]:
                return "a" if ready[0] is ways[0] else "b"
        return None

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()
        self.space.destroy()


@pytest.fixture(scope="module")
def fork() -> Iterator[Fork]:
    made = Fork()
    yield made
    made.close()


def fragment6(nxt: int, offset: int, payload: bytes) -> bytes:
    return bytes((nxt, 0)) + (offset << 3 | 1).to_bytes(2, "big") + bytes(4) + payload


def icmp(kind: int, payload: bytes) -> bytes:
    return bytes((kind, 1, 0, 0, 0x12, 0x34, 0, 1)) + payload


def gre(kind: int, payload: bytes, flags: int = 0, fields: bytes = b"") -> bytes:
    return flags.to_bytes(2, "big") + kind.to_bytes(2, "big") + fields + payload


A4, B4 = "10.1.2.3", "10.4.5.6"
A6, B6 = "2001:db8:1::7", "2001:db8:2::8"
DATA = b"some data"
IN4 = ip4("172.16.1.1", "172.17.1.1", udp(80, payload=DATA))
IN6 = ip6("2001:db8:c::1", "2001:db8:d::1", tcp(80) + DATA, nxt=6, flow=0x12345)
ETHER = bytes(12)
PACKETS = {
    "udp": ip4(A4, B4, udp(80, payload=DATA)),
    "tcp fragment": ip4(A4, B4, tcp(80) + DATA, proto=6, fragment=0x2000),
    "later fragment": ip4(A4, B4, tcp(80) + DATA, proto=6, fragment=0x2003),
    "echo": ip4(A4, B4, icmp(8, DATA), proto=1),
    "icmp error": ip4(A4, B4, icmp(3, IN4), proto=1),
    "esp": ip4(A4, B4, bytes(8) + DATA, proto=50),
    "ah": ip4(A4, B4, bytes((6, 4, 0, 0)) + bytes(20) + tcp(80) + DATA, proto=51),
    "ip in ip": ip4(A4, B4, IN4, proto=4),
    "ip in ip in ip": ip4(A4, B4, ip4("9.9.9.9", "9.9.9.8", IN4, proto=4), proto=4),
    "6in4": ip4(A4, B4, IN6, proto=41),
    "gre": ip4(A4, B4, gre(0x0800, IN4, 0xB000, bytes(12)), proto=47),
    "bridged gre": ip4(A4, B4, gre(0x6558, ETHER + b"\x81\0\0\5\x86\xdd" + IN6), proto=47),
    "pptp": ip4(A4, B4, gre(0x880B, b"\xff\3\0\x21" + IN4, 0x3081, bytes(12)), proto=47),
    "sctp": ip4(A4, B4, bytes(12) + DATA, proto=132),
    "something else": ip4(A4, B4, bytes(12) + DATA, proto=200),
    "udp6": ip6(A6, B6, udp(80, payload=DATA), flow=0x54321),
    "fragment6": ip6(A6, B6, fragment6(17, 0, udp(80, payload=DATA)), nxt=44),
    "later fragment6": ip6(A6, B6, fragment6(17, 5, udp(80, payload=DATA)), nxt=44),
    "destination options": ip6(A6, B6, bytes((17, 0, 1, 4, 0, 0, 0, 0)) + udp(80, payload=DATA), nxt=60),
    "icmp6 error": ip6(A6, B6, icmp(1, IN6), nxt=58),
    "echo6": ip6(A6, B6, icmp(128, DATA), nxt=58),
    "4in6": ip6(A6, B6, IN4, nxt=4, flow=7),
    "6in6": ip6(A6, B6, IN6, nxt=41, flow=7),
    "6in6, inner without label": ip6(A6, B6, IN6[:1] + bytes(3) + IN6[4:], nxt=41, flow=7),
}  # fmt: skip
KEPT4 = {0, 2, 3, 8, 10, 11, 12, 16}
"""Bytes of the outer header that decide whether the kernel forwards at all, and the checksum."""
KEPT6 = {0, 4, 5, 7, 8, 9, 24, 25}


def with_byte(packet: bytes, at: int, value: int) -> bytes:
    changed = bytearray(packet)
    changed[at] = value
    if packet[0] >> 4 == 4:
        changed[10:12] = bytes(2)
        changed[10:12] = (0xFFFF - ones_sum(bytes(changed[:20]))).to_bytes(2, "big")
    return bytes(changed)


def variants(packet: bytes, at: int, choose: random.Random) -> list[bytes]:
    return [with_byte(packet, at, value) for value in choose.sample(range(256), VARIANTS)]


def judge(fork: Fork, policy: int, fields: int, tried: list[bytes]) -> str | None:
    """What is wrong, if anything. The last 8 bytes of all of them are the same."""
    went: dict[str, set[str]] = {}
    for packet in tried:
        leg = fork.leg(packet)
        if leg is not None:
            went.setdefault(str(keys(policy, fields, packet)), set()).add(leg)
    if any(len(legs) > 1 for legs in went.values()):
        return "equal keys, and the kernel took both legs"
    if len(went) >= 30 and len(set().union(*went.values())) == 1:
        return f"{len(went)} keys, and the kernel always took one leg"  # by chance: once in 2^29
    return None


@pytest.mark.parametrize("name", PACKETS)
def test_the_kernel_chooses_by_the_same_bytes(fork: Fork, name: str) -> None:
    packet, choose = PACKETS[name], random.Random(name)
    four = packet[0] >> 4 == 4
    places = [at for at in range(len(packet) - 8) if at not in (KEPT4 if four else KEPT6)]
    wrong, forwarded = [], 0
    for policy, fields in SELECTIONS:
        fork.set_policy(policy, fields)
        assert fork.leg(packet) is not None
        for at in choose.sample(places, min(BYTES, len(places))):
            tried = variants(packet, at, choose)
            forwarded += len(tried)
            if why := judge(fork, policy, fields, tried):
                wrong.append(f"policy {policy} fields {fields:#x}, byte {at}: {why}")
    assert forwarded
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("policy", "turned"),
    [
        (0, lambda n: (ip4(f"10.1.2.{n}", B4, DATA), ip4(B4, f"10.1.2.{n}", DATA))),
        (0, lambda n: (ip6(f"2001:db8::{n}", B6, DATA), ip6(B6, f"2001:db8::{n}", DATA))),
        (1, lambda n: (ip4(A4, B4, udp(80, n) + DATA), ip4(B4, A4, udp(n, 80) + DATA))),
    ],
)
def test_the_kernel_sends_both_directions_by_one_leg(
    fork: Fork, policy: int, turned: Callable[[int], tuple[bytes, bytes]]
) -> None:
    """As it is here, where both have their way by the same route."""
    fork.set_policy(policy, 7)
    legs = [(fork.leg(there), fork.leg(back)) for there, back in map(turned, range(1, 40))]
    assert all(there == back is not None for there, back in legs)
    assert len(set(legs)) == 2
