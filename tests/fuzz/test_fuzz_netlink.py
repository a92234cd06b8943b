"""Mutated netlink messages: whatever arrives, the RIB stays sound and the mirror goes on."""

from __future__ import annotations

import contextlib
import logging
import random
import struct
from collections.abc import Iterator

import netlink_fakes as fakes
import pytest
import route_messages as m
from fuzz_messages import MessageMutator
from test_mirror_follow import LAN, WAN, World

from ixroute._dataplane import ffi, lib
from ixroute.fib.adjacency import AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.fib.rib import FAMILY_IP4, FAMILY_IP6, Rib
from ixroute.netlink.route_stream import RouteStream
from ixroute.netlink.sockets import Message, split

CHECK_EVERY = 200  # datagrams
PREFIXES4 = [
    (bytes((10, a, b, 0)), length) for a, b in ((0, 0), (0, 1), (1, 0)) for length in (8, 16, 23, 24)
]
PREFIXES4 += [
    (bytes(4), 0),
    (bytes((127, 0, 0, 0)), 8),
    (bytes((10, 0, 0, 5)), 32),
    (bytes((224, 0, 0, 0)), 4),
]
DOC = bytes.fromhex("20010db8")
PREFIXES6 = [(DOC + bytes(12), length) for length in (32, 48, 64, 128)] + [
    (bytes(16), 0),
    (b"\xff" + bytes(15), 8),
]
GATEWAYS4 = [bytes((10, 0, 0, last)) for last in (1, 2, 5)]
GATEWAYS6 = [DOC + bytes(11) + bytes((last,)) for last in (1, 2)] + [b"\xfe\x80" + bytes(13) + b"\1"]


def hops(dice: random.Random, gateways: list[bytes]) -> bytes:
    one = m.single(dice.randrange(1, 4), dice.choice([None, *gateways]))
    many = m.multipath(
        m.hop(dice.randrange(1, 4), m.attribute(m.RTA_GATEWAY, dice.choice(gateways)), dice.randrange(1, 4))
        for _ in range(dice.choice((0, 2, 3, 64, 70)))
    )
    via = m.u32(m.RTA_OIF, 2) + m.via(dice.choice(GATEWAYS6))
    odd = m.attribute(m.RTA_ENCAP, bytes(8)) + m.single(1)
    return dice.choice((one, one, one, many, via, m.u32(m.RTA_NH_ID, dice.randrange(4)), odd, b""))


def sound_route(dice: random.Random) -> bytes:
    ip4 = dice.random() < 0.5
    prefix, length = dice.choice(PREFIXES4 if ip4 else PREFIXES6)
    more = hops(dice, GATEWAYS4 if ip4 else GATEWAYS6)
    if dice.random() < 0.2:
        more += m.attribute(m.RTA_METRICS | m.NLA_F_NESTED, m.u32(m.RTAX_MTU, dice.choice((0, 1280, 1400))))
    if dice.random() < 0.1:
        more += m.attribute(m.RTA_PREFSRC, prefix)
    return m.route(
        prefix,
        length,
        more,
        table=dice.choice((254, 254, 254, 255, 253, 100, 70000)),
        metric=dice.choice((0, 0, 20, 1024)),
        event=dice.choice((m.RTM_NEWROUTE, m.RTM_NEWROUTE, m.RTM_DELROUTE)),
        nl_flags=dice.choice((m.NLM_F_CREATE, m.NLM_F_APPEND, m.NLM_F_REPLACE, m.NLM_F_DUMP_INTR, 0)),
        kind=dice.choice((1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
        tos=dice.choice((0, 0, 0, 0, 8)),
        source_len=dice.choice((0,) * 9 + (64,)),
        protocol=dice.choice((3, 4, 9)),
    )


class Tables:
    """The real RIB and FIBs, some of them of one table."""

    def __init__(self, dice: random.Random, path_ids: int) -> None:
        self.dice = dice
        self.fib = Fib()
        self.adjacencies = AdjacencyTable(8 + path_ids, 1)
        self.rib = Rib(self.fib, self.adjacencies, 9)
        self.stream = RouteStream(self.rib)
        self.dumping = 0

    def feed(self, datagram: bytes) -> None:
        """From memory of exactly its length: a sanitizer sees the first byte read beyond it."""
        exact = ffi.new("uint8_t[]", datagram) if datagram else ffi.NULL
        lib.route_stream_feed(self.stream.c, exact, len(datagram), 1 if self.dumping else 0)

    def something_else(self) -> None:
        """What the mirror does between messages."""
        dice = self.dice
        match dice.randrange(7):
            case 0 | 1:
                address, ifindex = dice.choice([*GATEWAYS4, *GATEWAYS6[:2]]), dice.randrange(1, 4)
                (self.rib.neighbour_add if dice.random() < 0.6 else self.rib.neighbour_remove)(
                    address, ifindex
                )
            case 2:
                family = dice.choice((FAMILY_IP4, FAMILY_IP6))
                if self.dumping:
                    (self.rib.dump_end if dice.random() < 0.7 else self.rib.dump_abort)(self.dumping)
                    self.dumping = 0
                else:
                    self.rib.dump_begin(family)
                    self.dumping = family
            case 3:
                self.rib.take_new_paths()
            case 4:
                self.rib.settle()
            case 5:
                lib.fib_fail_allocation(dice.choice(self.fibs()).c, dice.choice((0, 0, 1, 5, 20)))
            case 6:
                self.rib.fib(dice.choice((254, 255, 253, 100, 70000, 7)), dice.choice((0, 0, 1, 25)))

    def fibs(self) -> list[Fib]:
        return [self.fib, *self.rib.fibs().values()]

    def check(self) -> None:
        for fib in self.fibs():
            lib.fib_fail_allocation(fib.c, 0)
        self.rib.settle()
        self.rib.check()
        self.fib.check()
        assert len(list(self.rib.walk())) == self.rib.stats().routes4 + self.rib.stats().routes6

    def close(self) -> None:
        for family in (FAMILY_IP4, FAMILY_IP6):
            self.rib.dump_begin(family)
            self.rib.dump_end(family)
        self.check()
        assert self.rib.stats().routes4 == self.rib.stats().routes6 == 0
        for fib in self.fibs():
            fib.check()
        self.stream.close()
        self.rib.close()
        self.adjacencies.close()
        self.fib.close()


@pytest.fixture(params=[64, 65536], ids=["too few path ids", "path ids enough"])
def tables(request: pytest.FixtureRequest, seed: int) -> Iterator[Tables]:
    made = Tables(random.Random(seed), request.param)
    yield made
    made.close()


@pytest.mark.timeout(900)
def test_the_rib_stays_sound_whatever_route_messages_say(tables: Tables, messages: int) -> None:
    dice = tables.dice
    seeds = [sound_route(dice) for _ in range(1000)] + [m.done(), m.done(-4), m.error(-1), m.error(0)]
    mutator = MessageMutator(seeds, dice)
    for turn in range(messages):
        tables.feed(mutator.datagram())
        if turn % 16 == 0:
            tables.something_else()
        if turn % CHECK_EVERY == 0:
            tables.check()
    stats = tables.stream.stats()
    assert stats.datagrams == messages
    assert min(stats.messages, stats.malformed, stats.ignored) > messages // 50, stats


MIRROR_SEEDS = [
    fakes.link_message(LAN, "lan"),
    fakes.link_message(LAN, "lan", up=False, carrier=False, mtu=9000),
    fakes.link_message(WAN, "wan", master=20),
    fakes.link_message(WAN, "wan", kind=17),
    fakes.link_message(30, "lan.5", parent=LAN, link_kind="vlan", vlan=(5, 0x8100)),
    fakes.link_message(31, "mv", parent=LAN, link_kind="macvlan", parent_elsewhere=True),
    fakes.neighbour_message(LAN, "10.0.0.1", managed=True),
    fakes.neighbour_message(WAN, "fd00::1", fakes.OTHER_MAC, flags=0x80),
    fakes.neighbour_message(LAN, "10.0.0.1", None, kind=29),
    fakes.address_message(LAN, "10.0.0.254"),
    fakes.address_message(WAN, "fd00::254", kind=21, length=64),
    fakes.nexthop_message(1, oif=LAN, gateway="10.0.0.1"),
    fakes.nexthop_message(2, oif=WAN, gateway="fd00::1"),
    fakes.nexthop_message(3, group=(1, 2)),
    fakes.nexthop_message(4, blackhole=True),
    fakes.nexthop_message(5, fdb=True, encap=True, kind=105),
    *fakes.DEFAULT_RULES,
    fakes.rule_message(100, 1000, extra=fakes.attribute(1, bytes(4))),
    fakes.message(80, struct.pack("=B3x", 2) + fakes.attribute(1, fakes.u32(LAN))),
]


@pytest.mark.timeout(900)
def test_the_mirror_counts_malformed_messages_and_goes_on(
    seed: int, messages: int, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(seed)
    seeds = [message.data + bytes(-len(message.data) % 4) for message in MIRROR_SEEDS]
    mutator = MessageMutator(seeds, dice)
    world = World()
    refused = 0
    caplog.set_level(logging.CRITICAL, "ixroute.netlink")
    for turn in range(messages):
        now: list[Message] = []
        try:
            now.extend(split(mutator.datagram()))
        except ValueError:
            refused += 1
        for message in now:
            world.follower.event(message)
        if turn % 50 == 0:
            dumps_of(world, now, dice)
            world.path(
                8, fakes.FakePath(nhid=dice.randrange(6), legs=(fakes.Leg(LAN, fakes.ip("10.0.0.1")),))
            )
            world.announce()
    assert world.follower.malformed > messages // 50
    assert refused > messages // 50


def dumps_of(world: World, dumped: list[Message], dice: random.Random) -> None:
    """The same messages as a dump's: a ValueError is what a Dumper takes for a dump that failed."""
    follower = world.follower
    family = dice.choice((FAMILY_IP4, FAMILY_IP6))
    replace = dice.choice(
        (
            follower.replace_links,
            follower.replace_addresses,
            follower.replace_nexthops,
            follower.replace_neighbours,
            lambda messages: follower.replace_rules(family, messages),
        )
    )
    with contextlib.suppress(ValueError):
        replace(dumped)
