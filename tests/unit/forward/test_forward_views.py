"""Views: the worker against a slow twin over random programs and packets; what is refused; what is shared; and
programs swapped under a worker that runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from forward_packets import eth, ip4, ip6, tcp, udp
from forward_rig import MAC, OTHER_TABLES, SENDER, USUAL, Context, Outcome, Rig
from forward_twin import twin
from forward_view_twin import VERDICTS, SlowStep, SlowView
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_forward_twin import packets as any_packets

from ixroute._dataplane import lib
from ixroute.fib.fib import Fib
from ixroute.forward.reasons import BY_NAME, Kind, reason_number
from ixroute.forward.view import ALL, MAX_STEPS, Match, ViewStep
from ixroute.forward.worker import NEVER_SLEEP, PORT_RPF_LOOSE, PORT_RPF_STRICT

SETTINGS = settings(
    deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PATIENCE = 20.0
MAIN = SlowStep(table=0)
PLAIN = (SlowView((MAIN,), True), SlowView((MAIN,), True))


@dataclass
class ViewRig(Rig):
    """A rig whose ports show the context's views; and the tables that views name."""

    def __post_init__(self) -> None:
        self.tables: list[Fib] = []
        super().__post_init__()
        self.tables = [self.fib]
        for routes in OTHER_TABLES:
            self.tables.append(Fib(beside=self.fib))
            for prefix, index in routes.items():
                self.tables[-1].insert(prefix, index)

    def steps(self, view: SlowView) -> list[ViewStep]:
        return [
            ViewStep(
                match=step.match,
                fib=None if step.table is None else self.tables[step.table],
                verdict=None if step.verdict is None else reason_number(step.verdict),
                goto=step.goto,
            )
            for step in view.steps
        ]

    def set_context(self, context: Context) -> None:
        super().set_context(context)
        if not self.tables:
            return
        for port in range(3):
            for family, view in zip((4, 6), context.views or PLAIN, strict=True):
                self.dataplane.set_view(port, family, self.steps(view), view.same_source)

    def view(self, interface: int, family: int) -> Any:
        return lib.dataplane_view(self.dataplane.c, interface, family)

    def close(self) -> None:
        others = self.tables[1:]
        super().close()
        for table in others:
            table.close()


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[ViewRig]:
    made = ViewRig()
    yield made
    made.check_conservation()
    made.close()


@pytest.fixture
def rig() -> Iterator[ViewRig]:
    made = ViewRig()
    yield made
    assert made.worker.stop(PATIENCE)
    made.check_conservation()
    made.close()


# ---- Programs and packets that have something to say to each other ----

SOURCES = ["192.0.2.77", "192.0.2.1", "203.0.113.1", "172.16.1.1", "198.51.100.9", "99.9.9.9", "192.0.2.255"]
DESTINATIONS = ["10.1.1.1", "10.6.1.1", "10.20.0.7", "10.21.0.7", "10.22.0.7", "172.16.9.9", "77.7.7.7", "10.7.0.1"]
SOURCES6 = ["2001:db8:a::77", "2001:db8:a::1", "2001:db8:72::1", "fd00::1", "9999::1"]
DESTINATIONS6 = ["2001:db8:1::1", "2001:db8:3::1", "2001:db8:6::1", "2001:db8:21::1", "2001:db8:72::1", "9999::2"]
PROTOCOLS = [1, 6, 17, 33, 44, 47, 50, 51, 58, 60, 132, 136, 255]
PORTS = [1, 53, 80, 179, 4000, 65535]
TOS = [0, 4, 0x10, 0x1C, 0xB8, 0xFC, 0xFF]


def prefix_of(address: str, length: int) -> tuple[bytes, int]:
    packed = ip_bytes(address)
    bits = 8 * len(packed)
    length = min(length, bits)
    value = int.from_bytes(packed, "big") >> (bits - length) << (bits - length)
    return value.to_bytes(len(packed), "big"), length


def ip_bytes(address: str) -> bytes:
    from ipaddress import ip_address

    return ip_address(address).packed


def ranges() -> st.SearchStrategy[tuple[int, int] | None]:
    ports = st.sampled_from(PORTS) | st.integers(1, 65535)
    return st.none() | st.tuples(ports, ports).map(lambda p: (min(p), max(p)))


@st.composite
def matches(draw: st.DrawFn, family: int) -> Match:
    """At most a few conditions: of too many no packet takes notice."""
    if draw(st.booleans()):
        return ALL
    addresses = (SOURCES, DESTINATIONS) if family == 4 else (SOURCES6, DESTINATIONS6)
    lengths = st.integers(0, 32 if family == 4 else 128) | st.sampled_from([8, 16, 24, 32, 48, 64, 65, 128])
    match = Match(inverted=draw(st.integers(0, 3)) == 0)
    for kind in draw(st.sets(st.sampled_from(["from", "to", "tos", "protocol", "ports"]), max_size=2)):
        if kind == "from":
            match = replace(match, source=prefix_of(draw(st.sampled_from(addresses[0])), draw(lengths)))
        elif kind == "to":
            match = replace(match, destination=prefix_of(draw(st.sampled_from(addresses[1])), draw(lengths)))
        elif kind == "tos":
            mask = draw(st.sampled_from([0x1C, 0xFC, 0xFF, 0x80]))
            match = replace(match, tos=draw(st.sampled_from(TOS)) & mask, tos_mask=mask)
        elif kind == "protocol":
            match = replace(match, protocol=draw(st.sampled_from(PROTOCOLS)))
        else:
            match = replace(match, source_ports=draw(ranges()), destination_ports=draw(ranges()))
    return match


@st.composite
def views(draw: st.DrawFn, family: int) -> SlowView:
    n = draw(st.integers(0, 8))
    same_source = draw(st.booleans())
    steps = []
    for number in range(n):
        match = ALL if same_source else draw(matches(family))
        kind = draw(st.sampled_from(["table", "table", "table", "verdict", "goto"]))
        if kind == "table":
            steps.append(SlowStep(match, table=draw(st.integers(0, len(OTHER_TABLES)))))
        elif kind == "verdict":
            steps.append(SlowStep(match, verdict=draw(st.sampled_from(sorted(VERDICTS)))))
        else:
            steps.append(SlowStep(match, goto=draw(st.integers(number + 1, n))))
    return SlowView(tuple(steps), same_source)


contexts = st.builds(
    Context,
    flags=st.sampled_from([USUAL, USUAL | PORT_RPF_STRICT, USUAL | PORT_RPF_LOOSE])
    | st.integers(0, 2047).map(lambda flags: flags & ~256 | 7),
    views=st.tuples(views(4), views(6)),
)

payloads = (
    st.builds(udp, st.sampled_from(PORTS), st.sampled_from(PORTS))
    | st.builds(tcp, st.sampled_from(PORTS), st.sampled_from(PORTS))
    | st.binary(max_size=12)
)
chains = st.builds(
    lambda kind, nxt, body: (kind, bytes((nxt, 0)) + body[:6].ljust(6, b"\0") + body),
    st.sampled_from([0, 43, 44, 44, 60]),
    st.sampled_from(PROTOCOLS),
    st.binary(max_size=12),
)


@st.composite
def told_packets(draw: st.DrawFn) -> bytes:
    """Of the addresses, protocols and ports that programs speak of."""
    mac = draw(st.sampled_from([MAC[0], MAC[0], MAC[0], bytes.fromhex("ffffffffffff")]))
    tos, protocol, payload = draw(st.sampled_from(TOS)), draw(st.sampled_from(PROTOCOLS)), draw(payloads)
    if draw(st.booleans()):
        fragment = draw(st.sampled_from([0, 0, 0, 0x2000, 0x4000, 0x0001, 0x2010]))
        source, destination = draw(st.sampled_from(SOURCES)), draw(st.sampled_from(DESTINATIONS))
        packet = ip4(source, destination, payload, proto=protocol, tos=tos, fragment=fragment)
        return eth(mac, SENDER, 0x0800, packet)
    if draw(st.integers(0, 3)) == 0:
        protocol, payload = draw(chains)
    source, destination = draw(st.sampled_from(SOURCES6)), draw(st.sampled_from(DESTINATIONS6))
    return eth(mac, SENDER, 0x86DD, ip6(source, destination, payload, nxt=protocol, tclass=tos))


packets = told_packets() | any_packets


# ---- Against the twin ----


@SETTINGS
@given(packet=packets, context=contexts)
def test_any_packet_under_any_view_ends_as_the_twin_says(
    shared_rig: ViewRig, packet: bytes, context: Context
) -> None:
    shared_rig.set_context(context)
    assert shared_rig.route(packet, 0) == twin(packet, 0, context)


def ends(outcomes: list[Outcome], kind: Kind | None) -> list[Outcome]:
    return [o for o in outcomes if (BY_NAME[o.reason].kind if o.reason else None) is kind]


@settings(SETTINGS, max_examples=150)
@given(burst=st.lists(packets, min_size=1, max_size=64), context=contexts)
def test_a_burst_under_a_view_ends_as_its_packets_one_by_one(
    shared_rig: ViewRig, burst: list[bytes], context: Context
) -> None:
    shared_rig.set_context(context)
    before = Counter(shared_rig.dropped())
    for packet in burst:
        shared_rig.deliver(packet)
    assert shared_rig.worker.poll_once() == len(burst)
    expected = [twin(packet, 0, context) for packet in burst]
    sent = [(o.port, o.packet) for o in ends(expected, None)]
    assert shared_rig.sent() == sorted(sent, key=lambda p: p[0] or 0)
    assert shared_rig.punted() == [(o.port, o.packet) for o in ends(expected, Kind.PUNT)]
    assert Counter(shared_rig.dropped()) - before == Counter(o.reason for o in ends(expected, Kind.DROP))
    shared_rig.check_conservation()
