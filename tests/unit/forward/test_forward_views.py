"""Views: the worker against a slow twin over random programs and packets; what is refused; what is shared; and
programs swapped under a worker that runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from forward_packets import eth, ip4, ip6, tcp, udp, vlan
from forward_rig import MAC, OTHER_TABLES, SENDER, USUAL, Context, Outcome, Rig
from forward_twin import twin
from forward_view_rig import MAIN, PLAIN, ViewRig
from forward_view_twin import VERDICTS, SlowStep, SlowView
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_forward_twin import packets as any_packets

from ixroute._dataplane import lib
from ixroute.forward.reasons import BY_NAME, Kind, reason_number
from ixroute.forward.view import ALL, MAX_STEPS, Match, ViewStep
from ixroute.forward.worker import NEVER_SLEEP, PORT_RPF_LOOSE, PORT_RPF_STRICT

SETTINGS = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PATIENCE = 20.0


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
DESTINATIONS = [
    "10.1.1.1",
    "10.6.1.1",
    "10.30.0.7",
    "10.31.0.7",
    "10.32.0.7",
    "172.16.9.9",
    "77.7.7.7",
    "10.7.0.1",
]
SOURCES6 = ["2001:db8:a::77", "2001:db8:a::1", "2001:db8:72::1", "fd00::1", "9999::1"]
DESTINATIONS6 = [
    "2001:db8:1::1",
    "2001:db8:3::1",
    "2001:db8:6::1",
    "2001:db8:31::1",
    "2001:db8:72::1",
    "9999::2",
]
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


@settings(SETTINGS, max_examples=60)
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


SUBS = {5: 200, 6: 1023}
"""VLAN id -> interface."""


@settings(SETTINGS, max_examples=60)
@given(
    burst=st.lists(st.tuples(told_packets(), st.sampled_from([None, 5, 6])), min_size=1, max_size=64),
    programs=st.lists(st.tuples(views(4), views(6)), min_size=3, max_size=3),
    flags=st.sampled_from([USUAL, USUAL | PORT_RPF_LOOSE]),
)
def test_in_a_burst_of_several_interfaces_each_packet_has_its_own_view(
    shared_rig: ViewRig,
    burst: list[tuple[bytes, int | None]],
    programs: list[tuple[SlowView, SlowView]],
    flags: int,
) -> None:
    rig = shared_rig
    contexts = {
        vid: Context(flags, redirect_tokens=False, views=views)
        for vid, views in zip((None, *SUBS), programs, strict=True)
    }
    rig.set_context(contexts[None])
    for vid, number in SUBS.items():
        rig.dataplane.set_interface(number, 0, [(0x8100, vid)], MAC[0], 1500, flags)
        for family, view in zip((4, 6), contexts[vid].views or PLAIN, strict=True):
            rig.dataplane.set_view(number, family, rig.steps(view), view.same_source)
    expected, before = [], Counter(rig.dropped())
    for packet, vid in burst:
        frame = packet if vid is None else vlan(packet, vid)
        rig.deliver(frame)
        outcome = twin(packet, 0, contexts[vid])
        punted = outcome.reason and BY_NAME[outcome.reason].kind is Kind.PUNT
        expected.append(replace(outcome, packet=frame) if punted else outcome)
    assert rig.worker.poll_once() == len(burst)
    for number in SUBS.values():
        rig.dataplane.clear_interface(number)
    rig.worker.poll_once()
    sent = [(o.port, o.packet) for o in ends(expected, None)]
    assert rig.sent() == sorted(sent, key=lambda p: p[0] or 0)
    assert rig.punted() == [(o.port, o.packet) for o in ends(expected, Kind.PUNT)]
    assert Counter(rig.dropped()) - before == Counter(o.reason for o in ends(expected, Kind.DROP))
    rig.check_conservation()


# ---- One thing at a time ----

TO_10 = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.1.1.1", udp(53)))
POLICY = SlowStep(verdict="policy_rule")


def ended(rig: ViewRig, view: SlowView, packet: bytes, flags: int = USUAL) -> str:
    """The reason; also checks that the twin says the same."""
    family6 = packet[12:14] == b"\x86\xdd"
    context = Context(flags, views=(PLAIN[0], view) if family6 else (view, PLAIN[1]))
    rig.set_context(context)
    outcome = rig.route(packet)
    assert outcome == twin(packet, 0, context)
    return outcome.reason


def test_without_a_view_packets_look_up_the_dataplanes_fib(rig: ViewRig) -> None:
    fresh = Rig()
    try:
        assert fresh.route(TO_10) == rig.route(TO_10) == twin(TO_10, 0, Context())
    finally:
        fresh.close()


def test_an_empty_program_has_no_route(shared_rig: ViewRig) -> None:
    assert ended(shared_rig, SlowView(()), TO_10) == "no_route"


def test_a_throw_route_and_no_route_both_lead_to_the_next_step(shared_rig: ViewRig) -> None:
    thrown = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.30.0.1"))
    for packet in (thrown, TO_10):
        assert ended(shared_rig, SlowView((SlowStep(table=3), SlowStep(table=2), MAIN)), packet) == ""
    assert ended(shared_rig, SlowView((SlowStep(table=1), POLICY)), thrown) == "policy_rule"


@pytest.mark.parametrize("verdict", sorted(VERDICTS))
def test_each_verdict_ends_a_packet(shared_rig: ViewRig, verdict: str) -> None:
    steps = (SlowStep(verdict=verdict), MAIN)
    assert ended(shared_rig, SlowView(steps), TO_10) == verdict
    packet6 = eth(MAC[0], SENDER, 0x86DD, ip6("2001:db8:a::77", "2001:db8:1::1"))
    assert ended(shared_rig, SlowView(steps), packet6) == verdict


def test_a_goto_skips_steps_and_may_lead_to_the_end(shared_rig: ViewRig) -> None:
    assert ended(shared_rig, SlowView((SlowStep(goto=2), POLICY, MAIN)), TO_10) == ""
    assert ended(shared_rig, SlowView((SlowStep(goto=2), MAIN)), TO_10) == "no_route"


def test_not_from_all_is_for_no_packet(shared_rig: ViewRig) -> None:
    nobody = SlowStep(Match(inverted=True), verdict="policy_rule")
    assert ended(shared_rig, SlowView((nobody, MAIN)), TO_10) == ""


@pytest.mark.parametrize(
    ("fragment", "reason"), [(0, "policy_rule"), (0x4000, "policy_rule"), (0x2000, ""), (5, "")]
)
def test_a_rule_with_ports_is_not_for_fragments(shared_rig: ViewRig, fragment: int, reason: str) -> None:
    dns = SlowStep(Match(protocol=17, destination_ports=(53, 53)), verdict="policy_rule")
    packet = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.1.1.1", udp(53), fragment=fragment))
    assert ended(shared_rig, SlowView((dns, MAIN)), packet) == reason


@pytest.mark.parametrize(
    ("protocol", "payload", "matches"),
    [
        (17, "0fa00035", True),
        (6, "0fa00035", True),
        (33, "0fa00035", True),
        (50, "0fa00035", True),  # of ESP the kernel takes the SPI's halves for ports
        (132, "0fa00035", True),
        (136, "0fa00035", True),
        (51, "000000000fa00035", True),  # of AH too
        (51, "0fa0003500000000", False),
        (51, "0fa00035", False),
        (47, "0fa00035", False),
        (1, "0fa00035", False),
        (17, "0fa000", False),
        (17, "", False),
    ],
)
def test_ports_are_where_linux_finds_them(
    shared_rig: ViewRig, protocol: int, payload: str, matches: bool
) -> None:
    rule = SlowStep(Match(source_ports=(4000, 4000), destination_ports=(53, 53)), verdict="policy_rule")
    body, reason = bytes.fromhex(payload), "policy_rule" if matches else ""
    of4 = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.1.1.1", body, proto=protocol))
    of6 = eth(MAC[0], SENDER, 0x86DD, ip6("2001:db8:a::77", "2001:db8:1::1", body, nxt=protocol))
    for packet in (of4, of6):
        assert ended(shared_rig, SlowView((rule, MAIN)), packet) == reason


@pytest.mark.parametrize(("port", "matches"), [(52, False), (53, True), (60, True), (65, True), (66, False)])
def test_a_range_includes_its_ends(shared_rig: ViewRig, port: int, matches: bool) -> None:
    to = SlowStep(Match(destination_ports=(53, 65)), verdict="policy_rule")
    back = SlowStep(Match(source_ports=(53, 65)), verdict="policy_rule")
    for rule, payload in ((to, udp(port, 4000)), (back, udp(4000, port))):
        packet = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.1.1.1", payload))
        assert ended(shared_rig, SlowView((rule, MAIN)), packet) == ("policy_rule" if matches else "")


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 127, 128])
def test_an_ipv6_prefix_is_compared_to_its_last_bit(shared_rig: ViewRig, length: int) -> None:
    source = "2001:db8:a::77"
    value = int.from_bytes(ip_bytes(source), "big")
    rule = SlowStep(Match(source=prefix_of(source, length)), verdict="policy_rule")
    for flipped in {length - 1, length} & set(range(128)):
        other = (value ^ 1 << (127 - flipped)).to_bytes(16, "big")
        if other[0] == 0xFF or not any(other):
            continue
        packet = bytearray(eth(MAC[0], SENDER, 0x86DD, ip6(source, "2001:db8:1::1")))
        packet[22:38] = other
        expected = "" if flipped < length else "policy_rule"
        assert ended(shared_rig, SlowView((rule, MAIN)), bytes(packet)) == expected


@pytest.mark.parametrize("header", [0, 43, 60])
def test_behind_ipv6_extension_headers_the_kernel_looks_if_it_matters(
    shared_rig: ViewRig, header: int
) -> None:
    packet = ip6("2001:db8:a::77", "2001:db8:1::1", bytes((17, 0, 1, 4, 0, 0, 0, 0)) + udp(53), nxt=header)
    frame = eth(MAC[0], SENDER, 0x86DD, packet)
    dns = Match(protocol=17, destination_ports=(53, 53))
    assert ended(shared_rig, SlowView((SlowStep(dns, table=3), MAIN)), frame) == "policy_rule"
    elsewhere = replace(dns, destination=prefix_of("2001:db8:ffff::", 48))
    without = ended(shared_rig, SlowView((SlowStep(elsewhere, table=3), MAIN)), frame)
    assert without == ("ipv6_hop_by_hop" if header == 0 else "")
    for inverted in (Match(protocol=17, inverted=True), Match(destination_ports=(53, 53), inverted=True)):
        assert ended(shared_rig, SlowView((SlowStep(inverted, table=3), MAIN)), frame) == "policy_rule"


@pytest.mark.parametrize("next_header", [17, 6])
def test_of_an_ipv6_fragment_the_protocol_is_known_but_no_port(shared_rig: ViewRig, next_header: int) -> None:
    packet = ip6(
        "2001:db8:a::77", "2001:db8:1::1", bytes((next_header, 0, 0, 1, 0, 0, 0, 9)) + udp(53), nxt=44
    )
    frame = eth(MAC[0], SENDER, 0x86DD, packet)
    of_udp = SlowView((SlowStep(Match(protocol=17), verdict="policy_rule"), MAIN))
    to_53 = SlowView((SlowStep(Match(destination_ports=(53, 53)), verdict="policy_rule"), MAIN))
    assert ended(shared_rig, of_udp, frame) == ("policy_rule" if next_header == 17 else "")
    assert ended(shared_rig, to_53, frame) == ""


def test_policy_rule_comes_before_what_drops_since_the_packet_may_be_for_us(shared_rig: ViewRig) -> None:
    group = bytes.fromhex("ffffffffffff")
    frame = eth(group, SENDER, 0x0800, ip4("192.0.2.77", "192.0.2.1"))
    assert ended(shared_rig, SlowView((POLICY,)), frame) == "policy_rule"
    frame = eth(group, SENDER, 0x86DD, ip6("::", "2001:db8:a::1"))
    assert ended(shared_rig, SlowView((POLICY,)), frame) == "policy_rule"
    frame = eth(group, SENDER, 0x86DD, ip6("fe80::9", "fe80::1"))
    assert ended(shared_rig, SlowView((POLICY,)), frame) == "ipv6_link_local"


# ---- Sources (linux: fib_validate_source) ----

OWN = eth(MAC[0], SENDER, 0x0800, ip4("203.0.113.1", "10.1.1.1"))
NEAR = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.1.1.1"))  # its route leads back to port 0
FAR = eth(MAC[0], SENDER, 0x0800, ip4("10.9.9.9", "10.1.1.1"))  # to another port
NOWHERE = eth(MAC[0], SENDER, 0x0800, ip4("99.9.9.9", "10.1.1.1"))
LOCAL_THEN_MAIN = (SlowStep(table=2), MAIN)


@pytest.mark.parametrize(
    ("flags", "reasons"),
    [
        (USUAL, ["sip_is_own", "", "", ""]),
        (USUAL | PORT_RPF_STRICT, ["sip_is_own", "", "source_validation", "source_validation"]),
        (USUAL | PORT_RPF_LOOSE, ["sip_is_own", "", "", "source_validation"]),
    ],
)
def test_a_source_is_looked_up_by_the_same_steps(shared_rig: ViewRig, flags: int, reasons: list[str]) -> None:
    view = SlowView(LOCAL_THEN_MAIN, same_source=True)
    assert [ended(shared_rig, view, packet, flags) for packet in (OWN, NEAR, FAR, NOWHERE)] == reasons


@pytest.mark.parametrize("filtering", [0, PORT_RPF_STRICT, PORT_RPF_LOOSE])
def test_with_conditions_a_source_that_matters_is_the_kernels_to_judge(
    shared_rig: ViewRig, filtering: int
) -> None:
    condition = SlowStep(Match(tos=0x10, tos_mask=0xFC), verdict="reject_route")
    view = SlowView((condition, *LOCAL_THEN_MAIN))
    reasons = [ended(shared_rig, view, packet, USUAL | filtering) for packet in (OWN, NEAR, FAR, NOWHERE)]
    others = "source_validation" if filtering else ""
    assert reasons == ["source_validation", others, others, others]


def test_an_own_address_that_the_view_does_not_show_is_anybodys(shared_rig: ViewRig) -> None:
    """As with VRFs: an address of another one may be a source here (linux: full_check)."""
    assert ended(shared_rig, SlowView((SlowStep(table=1),), same_source=True), OWN) == "ingress_is_egress"


def test_a_source_of_which_only_the_kernel_knows_is_the_kernels(shared_rig: ViewRig) -> None:
    view = SlowView((SlowStep(table=3), SlowStep(table=1), POLICY), same_source=True)
    assert ended(shared_rig, view, OWN) == "ingress_is_egress"
    thrown = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "172.16.1.1"))
    assert ended(shared_rig, view, thrown, USUAL | PORT_RPF_LOOSE) == "source_validation"


def test_a_source_that_may_be_a_broadcast_address_is_the_kernels_to_judge(rig: ViewRig) -> None:
    """With rules Linux refuses it, without them not: the filter of own addresses may hold it."""
    packet = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.255", "10.1.1.1"))
    assert rig.route(packet).reason == ""
    rig.dataplane.set_local4([bytes((192, 0, 2, 255))])
    assert rig.route(packet).reason == "source_validation"


# ---- What is no program ----


def lookup_of(rig: ViewRig, **conditions: Any) -> ViewStep:
    return ViewStep(Match(**conditions), fib=rig.fib)


def test_programs_that_lead_nowhere_are_refused_and_change_nothing(rig: ViewRig) -> None:
    plain, n = ViewStep(fib=rig.fib), rig.dataplane
    before = rig.view(0, 4)
    ten = bytes((10, 0, 0, 0))
    for steps in (
        [ViewStep(goto=0)],
        [plain, ViewStep(goto=1)],
        [plain, ViewStep(goto=0)],
        [plain, ViewStep(goto=3)],
        [plain] * (MAX_STEPS + 1),
        [ViewStep()],
        [ViewStep(fib=rig.fib, verdict=0)],
        [ViewStep(verdict=reason_number("local_route"))],
        [ViewStep(verdict=0)],
        [ViewStep(verdict=63)],
        [ViewStep(verdict=256)],
        [ViewStep(goto=-1)],
        [lookup_of(rig, source=(ten, 33))],
        [lookup_of(rig, source=(ten, 6))],
        [lookup_of(rig, source=(ten, -1))],
        [lookup_of(rig, source=(bytes(16), 0))],
        [lookup_of(rig, destination=(bytes(3), 0))],
        [lookup_of(rig, tos=1, tos_mask=2)],
        [lookup_of(rig, protocol=256)],
        [lookup_of(rig, source_ports=(0, 5))],
        [lookup_of(rig, source_ports=(5, 4))],
        [lookup_of(rig, destination_ports=(5, 65536))],
    ):
        with pytest.raises(ValueError, match="view"):
            n.set_view(0, 4, steps, False)
    for interface, family in ((1024, 4), (0, 5), (0, 0)):
        with pytest.raises(ValueError, match="view"):
            n.set_view(interface, family, [plain], False)
    with pytest.raises(ValueError, match="view"):
        n.set_view(0, 4, [lookup_of(rig, protocol=6)], True)
    assert rig.view(0, 4) == before


def test_c_refuses_what_python_cannot_say(rig: ViewRig) -> None:
    from ixroute._dataplane import ffi

    cells = ffi.new("struct view_step[1]")

    def set_to(family: int = 4, n: int = 1, flags: int = 0, **fields: Any) -> int:
        ffi.memmove(cells, bytes(ffi.sizeof(cells)), ffi.sizeof(cells))
        cells[0].fib = rig.fib.c
        for name, value in fields.items():
            setattr(cells[0], name, value)
        return int(lib.dataplane_set_view(rig.dataplane.c, 0, family, cells, n, flags))

    assert set_to() == 0
    for refused in (
        set_to(flags=2),
        set_to(n=MAX_STEPS + 1),
        set_to(family=7),
        set_to(kind=3),
        set_to(fib=ffi.NULL),
        set_to(inverted=2),
        set_to(source_first=1),
        set_to(source_last=1),
        set_to(destination_first=9, destination_last=8),
        set_to(source_len=33),
        set_to(destination_len=129, family=6),
        set_to(source=[0] * 5 + [1] + [0] * 10),
    ):
        assert refused == -22


def test_the_longest_program_runs_to_its_end(shared_rig: ViewRig) -> None:
    nobody = SlowStep(Match(protocol=99), verdict="policy_rule")
    gotos = tuple(SlowStep(goto=i + 1) for i in range(100))
    lookups = (SlowStep(table=3), SlowStep(table=1)) * 50
    packet = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.30.0.7"))
    steps = gotos + lookups + (nobody,) * (MAX_STEPS - 201)
    assert ended(shared_rig, SlowView(steps), packet) == "no_route"
    assert ended(shared_rig, SlowView((*steps, MAIN)), packet) == ""


# ---- Life ----


def test_equal_programs_are_one_and_others_are_not(rig: ViewRig) -> None:
    first, n = rig.view(0, 4), rig.dataplane
    assert rig.view(1023, 4) == first
    assert rig.view(0, 6) != first
    match = Match(source=(bytes((10, 0, 0, 0)), 8))
    step = ViewStep(match, fib=rig.tables[1])
    n.set_view(3, 4, [step], False)
    n.set_view(900, 4, [ViewStep(replace(match), fib=rig.tables[1])], False)
    assert rig.view(3, 4) == rig.view(900, 4) != first
    n.set_view(900, 4, [ViewStep(match, fib=rig.tables[2])], False)
    assert rig.view(3, 4) != rig.view(900, 4)
    for interface in (3, 900):
        n.set_view(interface, 4, [ViewStep(fib=rig.fib)], True)
        assert rig.view(interface, 4) == first


def test_a_replaced_view_lives_until_every_worker_has_passed(rig: ViewRig) -> None:
    n = rig.dataplane
    n.set_view(0, 4, [ViewStep(fib=rig.tables[1])], True)
    rig.worker.poll_once()
    n.set_view(0, 4, [ViewStep(fib=rig.tables[2])], True)
    assert n.collect_views() == 1
    shown = rig.view(0, 4)
    n.set_view(0, 4, [ViewStep(fib=rig.tables[1])], True)  # the one that waits is shown again
    assert rig.view(0, 4) != shown
    assert n.collect_views() == 1
    rig.worker.poll_once()
    assert n.collect_views() == 0


def test_views_are_swapped_under_a_running_worker(rig: ViewRig) -> None:
    """Every packet ends as one of the programs says, none is lost, and the programs are freed."""
    ways = [
        [ViewStep(fib=rig.tables[t]), ViewStep(Match(protocol=p), verdict=reason_number("policy_rule"))]
        + [ViewStep(fib=rig.fib)] * n
        for t in (2, 3)
        for p in (6, 17)
        for n in (1, 40)
    ]
    expected: Counter[str] = Counter()
    rig.worker.start(NEVER_SLEEP)
    until = time.monotonic() + 1.5
    delivered = rounds = 0
    while time.monotonic() < until:
        for _ in range(16):
            rig.dataplane.set_view(rounds % 2, 4, ways[rounds % 7 % len(ways)], False)
            rounds += 1
        if rig.ports[0].deliver(TO_10):
            delivered += 1
        for port, packet in rig.sent():
            assert (port, packet) == (1, twin(TO_10, 0, Context()).packet)
            expected["sent"] += 1
        expected["policy_rule"] += len(rig.punted())
    patient = time.monotonic() + PATIENCE
    while expected.total() < delivered:
        assert time.monotonic() < patient, f"{delivered} delivered, {expected} came out"
        expected["sent"] += len(rig.sent())
        expected["policy_rule"] += len(rig.punted())
    while rig.dataplane.collect_views():
        assert time.monotonic() < patient, "a replaced view is never freed"
    assert min(expected["sent"], expected["policy_rule"]) > 0
