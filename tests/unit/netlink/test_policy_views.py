"""Rules compiled against rules applied one by one, as the kernel does (net/core/fib_rules.c, fib_rules_lookup)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute.netlink import rules
from ixroute.netlink.contract import ANY, Match
from ixroute.netlink.rules import Rule
from ixroute.netlink.views import (
    MERGED,
    Goto,
    How,
    Interface,
    Lookup,
    Program,
    Reason,
    Verdict,
    compile_rules,
    judge,
    same_source,
)

LAN = Interface("lan")
IN_VRF = Interface("lan", "red", 10)
NAMES = {"lo", "lan", "wan", "red"}

LOCAL = Rule(4, 0, table=255)
MAIN = Rule(4, 32766, table=254)
DEFAULT = Rule(4, 32767, table=253)
L3MDEV = Rule(4, 1000, l3mdev=True)
USUAL = (Lookup(MERGED), Lookup(253))


def prefix(text: str) -> tuple[bytes, int]:
    network = ipaddress.ip_network(text)
    return network.network_address.packed, network.prefixlen


# ---- the twin


@dataclass(frozen=True)
class Packet:
    """What rules ask. Of tables: for each, what its longest match is: a kind and the prefix's length."""

    source: str
    destination: str
    tos: int
    protocol: int
    source_port: int
    destination_port: int


@dataclass(frozen=True)
class Kernel:
    """What no worker can know: the packet's mark and flow label, groups of interfaces, what attributes of the
    future say, which names an iif in a VRF has."""

    mark: int
    label: int
    suppressed_group: bool
    strange_holds: bool
    iif: frozenset[str]


Tables = dict[int, tuple[str, int]]


def in_prefix(address: str, within: tuple[bytes, int] | None) -> bool:
    if within is None:
        return True
    return ipaddress.ip_address(address) in ipaddress.ip_network((within[0], within[1]))


def port_matches(port: int, wanted: tuple[int, int] | None, mask: int) -> bool:
    if wanted is None:
        return True
    if mask:
        return (wanted[0] ^ port) & mask == 0
    return wanted[0] <= port <= wanted[1]


def holds(rule: Rule, packet: Packet, where: Interface, kernel: Kernel) -> bool:
    conditions = (
        not rule.iif or rule.iif in kernel.iif,
        not rule.oif,
        (rule.mark ^ kernel.mark) & rule.mark_mask == 0,
        not rule.tunnel,
        not rule.l3mdev or bool(where.vrf_table),
        rule.uids is None or rule.uids[0] <= 0 <= rule.uids[1],
        in_prefix(packet.source, rule.source),
        in_prefix(packet.destination, rule.destination),
        (packet.tos ^ rule.tos) & rule.tos_mask == 0,
        (kernel.label ^ rule.flow_label) & rule.flow_label_mask == 0,
        rule.protocol in (0, packet.protocol),
        port_matches(packet.source_port, rule.source_ports, rule.source_port_mask),
        port_matches(packet.destination_port, rule.destination_ports, rule.destination_port_mask),
        not rule.strange or kernel.strange_holds,
    )
    return all(conditions) != rule.inverted


def kernel_says(
    listed: list[Rule], packet: Packet, tables: Tables, where: Interface, kernel: Kernel
) -> tuple[str, int]:
    at = 0
    while at < len(listed):
        rule = listed[at]
        at += 1
        if not holds(rule, packet, where, kernel) or rule.action == rules.NOP:
            continue
        if rule.action == rules.GOTO:
            places = [i for i, other in enumerate(listed) if other.priority == rule.goto]
            if places:
                at = places[0]
            continue
        if rule.action == rules.BLACKHOLE:
            return "blackhole", 0
        if rule.action in (rules.UNREACHABLE, rules.PROHIBIT):
            return "reject", 0
        table = (where.vrf_table or 254) if rule.l3mdev else rule.table
        kind, length = tables.get(table, ("none", 0))
        if kind == "none":
            continue
        if kind == "refuse" or (length > rule.suppress_length and not suppressed(rule, kernel)):
            return kind, table
    return "none", 0


def suppressed(rule: Rule, kernel: Kernel) -> bool:
    return rule.suppress_group >= 0 and kernel.suppressed_group


# ---- a worker, slowly


def match_says(match: Match, packet: Packet) -> bool:
    def within(port: int, ports: tuple[int, int] | None) -> bool:
        return ports is None or ports[0] <= port <= ports[1]

    found = (
        in_prefix(packet.source, match.source)
        and in_prefix(packet.destination, match.destination)
        and (packet.tos ^ match.tos) & match.tos_mask == 0
        and match.protocol in (0, packet.protocol)
        and within(packet.source_port, match.source_ports)
        and within(packet.destination_port, match.destination_ports)
    )
    return found != match.inverted


def program_says(program: Program, packet: Packet, tables: Tables) -> tuple[str, int]:
    at = 0
    while at < len(program):
        step = program[at]
        at += 1
        if not match_says(step.match, packet):
            continue
        if isinstance(step, Goto):
            assert step.step >= at, "jumps lead forward"
            at = step.step
        elif isinstance(step, Verdict):
            return step.reason.value, 0
        else:
            for table in (255, 254) if step.table == MERGED else (step.table,):
                kind, length = tables.get(table, ("none", 0))
                if kind == "refuse" or (kind == "route" and length >= step.shortest):
                    return kind, table
    return "none", 0


# ---- random rules

prefixes = st.sampled_from([None, None, "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "20.0.0.0/7"]).map(
    lambda text: prefix(text) if text else None
)
addresses = st.sampled_from(["10.1.2.3", "10.1.2.4", "10.9.0.1", "21.0.0.1", "30.0.0.1"])
toses = st.sampled_from([(0, 0), (0, 0), (0x10, 0x1C), (0x10, 0xFC), (0, 0xFC), (0x20, 0xE0)])
ports = st.sampled_from([(None, 0)] * 4 + [((53, 53), 0), ((53, 53), 0xFFFF), ((50, 200), 0), ((0x40, 0x40), 0xFFF0),
                                           ((5, 5), 0x5), ((3, 3), 0xFF00)])  # fmt: skip
actions = st.sampled_from(
    [rules.TO_TABLE] * 6 + [rules.GOTO] * 2 + [rules.NOP, rules.BLACKHOLE, rules.PROHIBIT]
)
seldom = st.sampled_from([False] * 7 + [True])


@st.composite
def random_rules(draw: st.DrawFn, hidden: bool = True) -> Rule:
    def sometimes(values: list[object], otherwise: object) -> object:
        return draw(st.sampled_from(values)) if draw(seldom) else otherwise

    tos, tos_mask = draw(toses)
    sports, sport_mask = draw(ports)
    dports, dport_mask = draw(ports)
    if not hidden:
        sport_mask, dport_mask = sport_mask & 0xFFF0, dport_mask & 0xFFF0
        sport_mask, dport_mask = (
            m if p and p[0] & m else 0 for p, m in ((sports, sport_mask), (dports, dport_mask))
        )
    action = draw(actions)
    l3mdev = draw(seldom)
    priority = draw(st.integers(1, 9))
    suppress_length = draw(st.sampled_from([-1, -1, 0, 8, 32])) if action == rules.TO_TABLE else -1
    rule = Rule(
        4, priority, action,
        table=draw(st.sampled_from([255, 254, 253, 10, 20])) if not l3mdev else 0,
        source=draw(prefixes), destination=draw(prefixes), tos=tos, tos_mask=tos_mask,
        iif=sometimes(["lan", "wan", "ghost"], ""), oif=sometimes(["wan"], ""), l3mdev=l3mdev,
        protocol=sometimes([6, 17], 0), source_ports=sports, source_port_mask=sport_mask,
        destination_ports=dports, destination_port_mask=dport_mask,
        uids=sometimes([(1, 5)], None), tunnel=sometimes([7], 0), inverted=draw(seldom),
        goto=draw(st.integers(priority + 1, 10)) if action == rules.GOTO else 0,
        suppress_length=suppress_length,
    )  # fmt: skip
    rule = replace(rule, iif_detached=rule.iif == "ghost")
    if hidden:
        mark, mask = sometimes([(1, 0xFF), (0, 0xFF), (1, 1)], (0, 0))
        label = sometimes([1], 0)
        rule = replace(
            rule, mark=mark, mark_mask=mask, flow_label=label, flow_label_mask=label,
            iif=sometimes(["red", "alias"], rule.iif), uids=sometimes([(0, 0)], rule.uids),
            suppress_group=sometimes([1], -1) if action == rules.TO_TABLE else -1, strange=sometimes([(31,)], ()),
        )  # fmt: skip
        rule = replace(rule, iif_detached=rule.iif == "ghost")
    elif rule.inverted and l3mdev and action == rules.TO_TABLE:
        rule = replace(rule, inverted=False)
    return rule


def listed(of: st.SearchStrategy[Rule]) -> st.SearchStrategy[list[Rule]]:
    usual = st.sampled_from([[], [LOCAL], [LOCAL, MAIN, DEFAULT], [LOCAL, L3MDEV, MAIN]])
    both = st.tuples(usual, st.lists(of, max_size=6))
    return both.map(lambda pair: sorted([*pair[0], *pair[1]], key=lambda rule: rule.priority))


packets = st.builds(
    Packet, addresses, addresses, st.sampled_from([0, 0x10, 0x30, 0x3C, 1]), st.sampled_from([1, 6, 17]),
    st.sampled_from([0, 5, 53, 0x4F, 500]), st.sampled_from([0, 5, 53, 0x4F, 500]),
)  # fmt: skip
outcomes = st.tuples(st.sampled_from(["route", "none", "refuse"]), st.sampled_from([0, 8, 24]))
tables_of_routes = st.dictionaries(st.sampled_from([255, 254, 253, 10, 20]), outcomes)
interfaces = st.sampled_from([LAN, IN_VRF])


def kernels(where: Interface) -> list[Kernel]:
    """All that it could be. iif in a VRF: before Linux 5.18, from there on, from 6.15 on."""
    seen = [{"lan"}] if not where.vrf else [{"red"}, {"lan"}, {"lan", "red"}]
    aliases = [names | extra for names in seen for extra in (set(), {"alias"})]
    choices = product((0, 1, 2), (0, 1), (False, True), (False, True), aliases)
    return [Kernel(mark, label, group, odd, frozenset(iif)) for mark, label, group, odd, iif in choices]


@settings(max_examples=400, deadline=None)
@given(listed(random_rules()), packets, tables_of_routes, interfaces)
def test_a_program_says_what_the_kernel_says_or_leaves_it_to_the_kernel(
    rules_: list[Rule], packet: Packet, tables: Tables, where: Interface
) -> None:
    said = program_says(compile_rules(rules_, where, NAMES), packet, tables)
    if said[0] == "policy":
        return
    assert {kernel_says(rules_, packet, tables, where, kernel) for kernel in kernels(where)} == {said}


@settings(max_examples=400, deadline=None)
@given(listed(random_rules(hidden=False)), packets, tables_of_routes)
def test_rules_on_what_packets_show_leave_nothing_to_the_kernel(
    rules_: list[Rule], packet: Packet, tables: Tables
) -> None:
    program = compile_rules(rules_, LAN, NAMES)
    kernel = Kernel(0, 0, False, False, frozenset({"lan"}))
    assert program_says(program, packet, tables) == kernel_says(rules_, packet, tables, LAN, kernel)


@settings(max_examples=200, deadline=None)
@given(listed(random_rules()), packets, tables_of_routes, st.integers(2, 5))
def test_a_program_that_is_cut_leaves_the_rest_to_the_kernel(
    rules_: list[Rule], packet: Packet, tables: Tables, most: int
) -> None:
    whole = program_says(compile_rules(rules_, LAN, NAMES), packet, tables)
    cut = compile_rules(rules_, LAN, NAMES, max_steps=most)
    assert len(cut) <= most
    assert program_says(cut, packet, tables) in (whole, ("policy", 0))


# ---- what it comes to


def programs_of(
    *more: Rule, where: Interface = LAN, usual: tuple[Rule, ...] = (LOCAL, MAIN, DEFAULT)
) -> Program:
    return compile_rules(sorted((*usual, *more), key=lambda rule: rule.priority), where, NAMES)


TO_100 = Lookup(100)
FROM = Match(source=prefix("10.0.0.0/8"))
POLICY = Verdict(Reason.POLICY)


@pytest.mark.parametrize(
    ("more", "where", "program"),
    [
        ((), LAN, USUAL),
        ((L3MDEV,), LAN, USUAL),
        ((L3MDEV,), IN_VRF, (Lookup(255), Lookup(10), Lookup(254), Lookup(253))),
        ((Rule(4, 1000, rules.UNREACHABLE, l3mdev=True),), IN_VRF, (Lookup(255), Verdict(Reason.REJECT))),
        ((Rule(4, 9, table=100),), LAN, (Lookup(255), TO_100, Lookup(254), Lookup(253))),
        ((Rule(4, 9, table=100, source=prefix("10.0.0.0/8")),), LAN,
         (Lookup(255), Lookup(100, match=FROM), Lookup(254), Lookup(253))),
        ((Rule(4, 9, table=100, iif="wan"),), LAN, USUAL),
        ((Rule(4, 9, table=100, iif="wan"),), Interface("wan"), (Lookup(255), TO_100, Lookup(254), Lookup(253))),
        ((Rule(4, 9, table=100, iif="wan", inverted=True),), LAN, (Lookup(255), TO_100, Lookup(254), Lookup(253))),
        ((Rule(4, 9, table=100, iif="lo"), Rule(4, 9, table=100, oif="wan")), LAN, USUAL),
        ((Rule(4, 9, table=100, iif="lan"),), IN_VRF, (Lookup(255), POLICY)),
        ((Rule(4, 9, table=100, iif="red"),), IN_VRF, (Lookup(255), POLICY)),
        ((Rule(4, 9, rules.GOTO, goto=32767),), LAN, (Lookup(255), Lookup(253))),
        ((Rule(4, 9, rules.GOTO, goto=77),), LAN, USUAL),
        ((Rule(4, 9, rules.NOP),), LAN, USUAL),
        ((Rule(4, 40000, table=100),), LAN, (*USUAL, TO_100)),
        ((Rule(4, 9, rules.BLACKHOLE),), LAN, (Lookup(255), Verdict(Reason.BLACKHOLE))),
        ((Rule(4, 9, action=42),), LAN, (Lookup(255), POLICY)),
        ((Rule(4, 32764, table=254, suppress_length=0),
          Rule(4, 32765, table=51820, mark=51820, mark_mask=0xFFFFFFFF, inverted=True)), LAN,
         (Lookup(255), Lookup(254, shortest=1), POLICY)),
        ((Rule(4, 9, table=100, source=prefix("10.0.0.0/8"), mark=1, mark_mask=1),), LAN,
         (Lookup(255), Verdict(Reason.POLICY, FROM), Lookup(254), Lookup(253))),
        ((Rule(4, 9, table=100, source=prefix("10.0.0.0/8"), mark=1, mark_mask=1, inverted=True),), LAN,
         (Lookup(255), Verdict(Reason.POLICY, FROM), TO_100, Lookup(254), Lookup(253))),
    ],
    ids=["usual", "l3mdev, no VRF", "l3mdev, VRF", "l3mdev unreachable", "a table", "from", "another iif", "iif",
         "not another iif", "never", "iif in VRF", "iif VRF", "goto", "goto nowhere", "nop", "behind", "blackhole",
         "unknown action", "WireGuard's", "from and fwmark", "not from and fwmark"],
)  # fmt: skip
def test_rules_become_the_steps_that_are_left_of_them(
    more: tuple[Rule, ...], where: Interface, program: Program
) -> None:
    assert programs_of(*more, where=where) == program


def test_a_jump_between_local_and_main_keeps_them_apart() -> None:
    jump = Rule(4, 0, rules.GOTO, goto=32766, source=prefix("10.0.0.0/8"))
    steps = compile_rules([jump, LOCAL, MAIN], LAN, NAMES)
    assert steps == (Goto(2, FROM), Lookup(255), Lookup(254))


def test_no_rules_are_no_steps() -> None:
    assert compile_rules([], LAN, NAMES) == ()


@pytest.mark.parametrize(
    ("more", "where", "same"),
    [
        ((), LAN, True),
        ((Rule(4, 9, table=100),), LAN, True),
        ((Rule(4, 9, table=100, iif="wan"),), LAN, True),
        ((Rule(4, 9, table=100, iif="lan"),), LAN, False),
        ((Rule(4, 9, table=100, iif="lo"),), LAN, False),
        ((Rule(4, 9, table=100, source=prefix("10.0.0.0/8")),), LAN, False),
        ((Rule(4, 9, table=100, mark=1, mark_mask=1),), LAN, False),
        ((L3MDEV,), IN_VRF, True),
    ],
    ids=[
        "usual",
        "for all",
        "another's",
        "of this interface",
        "of what is looked up backwards",
        "from",
        "fwmark",
        "VRF",
    ],
)
def test_sources_go_by_the_same_steps_only_where_no_rule_tells_them_apart(
    more: tuple[Rule, ...], where: Interface, same: bool
) -> None:
    listed_ = sorted((LOCAL, MAIN, DEFAULT, *more), key=lambda rule: rule.priority)
    assert same_source(listed_, where, NAMES) is same


@pytest.mark.parametrize(
    ("rule", "how", "why"),
    [
        (Rule(4, 9, table=100, mark=1, mark_mask=1), How.PUNTS, "fwmark"),
        (Rule(4, 9, table=100, uids=(0, 9)), How.PUNTS, "uidrange"),
        (Rule(4, 9, table=100, uids=(1, 9)), How.NEVER, ""),
        (Rule(4, 9, table=100, flow_label=1, flow_label_mask=0xFFFFF), How.PUNTS, "flowlabel"),
        (Rule(4, 9, table=100, suppress_group=3), How.PUNTS, "suppress_ifgroup"),
        (Rule(4, 9, table=100, strange=(31,)), How.PUNTS, "attribute 31 of newer kernels"),
        (Rule(4, 9, table=100, iif="alias"), How.PUNTS, "iif is an alternative name"),
        (Rule(4, 9, table=100, iif="ghost", iif_detached=True), How.NEVER, ""),
        (Rule(4, 9, table=100, source_ports=(5, 5), source_port_mask=5), How.PUNTS, "mask of ports"),
        (Rule(4, 9, table=100, tunnel=1, oif="wan"), How.NEVER, ""),
        (Rule(4, 9, table=100, l3mdev=True, inverted=True), How.PUNTS, "the table of no VRF"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_followed_says_why(rule: Rule, how: How, why: str) -> None:
    found = judge(rule, LAN, NAMES)
    assert (found.how, found.why) == (how, why)


def test_a_mask_that_portless_packets_match_is_the_kernels() -> None:
    rule = Rule(4, 9, table=100, destination_ports=(3, 3), destination_port_mask=0xFF00)
    assert judge(rule, LAN, NAMES).why == "mask of ports"


def test_thousands_of_jumps_to_one_end_are_none() -> None:
    """Each is a jump to the next step only when those behind it have gone: not to be found out one by one."""
    jumps = [Rule(4, number, rules.GOTO, goto=20000, protocol=6) for number in range(1, 20000)]
    end = Rule(4, 20000, rules.NOP)
    assert compile_rules([LOCAL, *jumps, end, MAIN, DEFAULT], LAN, NAMES) == USUAL


def test_a_jump_beyond_the_cut_leads_to_the_kernel() -> None:
    jump = Rule(4, 0, rules.GOTO, goto=40000, source=prefix("10.0.0.0/8"))
    steps = compile_rules([jump, LOCAL, DEFAULT, MAIN, Rule(4, 40000, table=100)], LAN, NAMES, max_steps=3)
    assert steps == (Goto(2, FROM), Lookup(255), POLICY)


def test_a_mask_of_the_highest_bits_is_a_range_of_ports() -> None:
    rule = Rule(4, 9, table=100, destination_ports=(0x1230, 0x1230), destination_port_mask=0xFFF0)
    assert judge(rule, LAN, NAMES).match == replace(ANY, destination_ports=(0x1230, 0x123F))
