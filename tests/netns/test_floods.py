"""Floods that only the kernel can answer, beside a stream that ixroute forwards: the stream loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ixroute.demo.probes import UdpFlow, ping
from lab.packets import ETH_ARP, ETH_IP4, ETH_IP6, arp, ethernet, ip4, ip6, udp
from lab.routers import Router
from lab.support import verdicts
from lab.wires import Flood, Wire

pytestmark = pytest.mark.netns

MAC, THIRD = "02:00:00:00:03:01", "02:00:00:00:03:02"
THIRD4, THIRD6 = "10.0.3.2", "fd00:3::2"
FLOOD_PPS = 20_000
ROUNDS = 4
SECONDS = 1.5


def frame4(dst: str, data: bytes, ttl: int = 64, src: str = THIRD4) -> bytes:
    return ethernet(MAC, THIRD, ETH_IP4, ip4(src, dst, udp(src, dst, data), ttl=ttl))


def frame6(dst: str, data: bytes, hop: int = 64) -> bytes:
    return ethernet(MAC, THIRD, ETH_IP6, ip6(THIRD6, dst, udp(THIRD6, dst, data), hop=hop))


@dataclass(frozen=True)
class Kind:
    name: str
    reason: str
    frames: tuple[bytes, ...]
    policed: bool = True
    """Whether the flood is above what the kernel is given of it by default (forward/policers.py)."""


KINDS = [
    Kind("TTL 1", "ttl_value_is_too_small", (frame4("10.0.2.2", b"ttl", 1), frame6("fd00:2::2", b"hop", 1))),
    Kind(
        "unresolved next hops",
        "unresolved_neigh",
        tuple(frame4(f"10.0.2.{n}", b"nobody") for n in range(50, 200))
        + tuple(frame6(f"fd00:2::{n:x}", b"nobody") for n in range(50, 200)),
    ),
    Kind(
        "to the router itself",
        "local_route",
        (frame4("10.0.3.1", b"you"), frame6("fd00:3::1", b"you")),
        policed=False,
    ),
    Kind("no route", "no_route", (frame4("198.51.100.1", b"where"), frame6("2001:db8::1", b"where"))),
    Kind(
        "ARP storm",
        "arp_request",
        tuple(
            ethernet(
                "ff:ff:ff:ff:ff:ff", THIRD, ETH_ARP, arp(1, THIRD, THIRD4, "00:00:00:00:00:00", f"10.0.3.{n}")
            )
            for n in range(1, 255)
        ),
    ),
]


def lost_beside(router: Router, flood: Kind) -> list[int]:
    """Packets lost of two streams through the router while the flood runs; checks that the flood was counted."""
    client, server = router.lab.client, router.lab.server
    before = router.ixroute.stats()
    wire = Wire(router.lab.hosts["third"])
    streams = [UdpFlow(client, server, target, rate=1000) for target in ("10.0.2.2", "fd00:2::2")]
    try:
        for stream in streams:
            stream.start()
        with Flood(wire, flood.frames, FLOOD_PPS) as sender:
            time.sleep(SECONDS)
        results = [stream.stop() for stream in streams]
    finally:
        wire.close()
    moved = verdicts(before, router.ixroute.stats())
    # Where the door had no time, the flood's packets were dropped before it.
    counted = moved[f"punted {flood.reason}"] + moved[f"policed {flood.reason}"]
    assert counted + moved["dropped punt_ring_full"] >= sender.sent, moved
    assert (moved[f"policed {flood.reason}"] > 0) == flood.policed, moved
    return [result.lost for result in results]


@pytest.mark.parametrize("flood", KINDS, ids=lambda flood: flood.name)
def test_forwarding_loses_nothing_beside_a_flood(make_router: Callable[..., Router], flood: Kind) -> None:
    router = make_router(hosts=3)
    for target in ("10.0.2.2", "fd00:2::2"):
        assert ping(router.lab.client, target, 3).all_back
    # Some other program may have the worker's core for longer than a ring lasts; a flood that costs packets does so
    # every time.
    rounds: list[list[int]] = []
    while len(rounds) < ROUNDS and (not rounds or any(rounds[-1])):
        rounds.append(lost_beside(router, flood))
    assert rounds[-1] == [0, 0], rounds
    assert ping(router.lab.client, "10.0.1.1", 3).all_back
