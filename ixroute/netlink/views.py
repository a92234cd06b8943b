"""Policy rules, compiled: what packets of one interface and family look up, in order.

Pure: rules and an interface in, a program out. What is decided here once need not be decided for each packet
(iif, oif, l3mdev, goto); what a worker can see of a packet becomes a step's match (contract.Match); what neither
can know (the firewall's mark, for one) becomes a verdict: the packets that such a rule might match go to the
kernel, and no others.

As net/core/fib_rules.c, fib_rules_lookup. A rule's last word is a lookup that finds a route which is no throw
route, or a verdict; anything else means the next rule; after the last one there is no route.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from enum import Enum

from ixroute.netlink import rules
from ixroute.netlink.contract import ANY, Match, Ports
from ixroute.netlink.rules import Rule

MERGED = 0
"""In Lookup.table: local before main, the FIB of everybody without policy rules."""
LOCAL, MAIN = 255, 254
MAX_STEPS = 256  # as forward/view.h, VIEW_STEPS

_ROOT = 0
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Lookup:
    """Longest match in a table, MERGED or the kernel's number. Unicast, local and broadcast routes of prefixes
    shorter than `shortest` are no answer (those that refuse packets are)."""

    table: int
    shortest: int = 0
    match: Match = ANY


class Reason(Enum):
    """Verdicts a rule can give."""

    BLACKHOLE = "blackhole"
    REJECT = "reject"  # unreachable, prohibit: the kernel answers
    POLICY = "policy"  # only the kernel can tell


@dataclass(frozen=True, slots=True)
class Verdict:
    reason: Reason
    match: Match = ANY


@dataclass(frozen=True, slots=True)
class Goto:
    step: int
    match: Match = ANY


Instruction = Lookup | Verdict | Goto
Program = tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets come in, as rules see it. vrf: the name of the VRF it is in, "" for none."""

    name: str
    vrf: str = ""
    vrf_table: int = 0


def reverse_of(interface: Interface) -> Interface:
    """The interface that a lookup of a packet's source seems to come in by (net/ipv4/fib_frontend.c,
    __fib_validate_source): loopback, or the VRF."""
    return replace(interface, name=interface.vrf) if interface.vrf else Interface("lo")


class How(Enum):
    """What becomes of a rule on an interface."""

    NEVER = "never"  # matches no packet that is forwarded from here
    HONOURED = "honoured"
    PUNTS = "punts"


@dataclass(frozen=True, slots=True)
class Judgement:
    """how: NEVER, HONOURED (steps do what the rule says for exactly the packets in `match`), or PUNTS (the rule may
    match the packets in `match`, for `why` nobody here can tell). An inverted rule that PUNTS certainly
    matches those that are not in it, unless `wholly`."""

    how: How
    match: Match = ANY
    why: str = ""
    wholly: bool = False


def judge(rule: Rule, interface: Interface, names: Set[str]) -> Judgement:
    """names: of all interfaces in the kernel."""
    result = _unknown_result(rule)
    if _never(rule, interface, names):
        if not rule.inverted:
            return Judgement(How.NEVER)
        return Judgement(How.PUNTS, why=result, wholly=True) if result else Judgement(How.HONOURED)
    match, why = _match(rule)
    unknown = why or _unknown_condition(rule, interface, names)
    if not rule.inverted:
        return Judgement(How.PUNTS if unknown or result else How.HONOURED, match, unknown or result)
    if result:
        return Judgement(How.PUNTS, why=result, wholly=True)
    if unknown:
        return Judgement(How.PUNTS, match, unknown)
    # Inverted and without any condition that is left: what matches all matches none.
    return Judgement(How.NEVER) if match == ANY else Judgement(How.HONOURED, replace(match, inverted=True))


def _never(rule: Rule, interface: Interface, names: Set[str]) -> bool:
    """The rule's conditions cannot hold for a packet that comes in here and is forwarded. Its output interface
    is not known yet when rules are asked, it belongs to no process (its uid is root's), and no tunnel."""
    elsewhere = rule.iif in names or rule.iif_detached
    return bool(
        rule.oif
        or rule.tunnel
        or (rule.uids and not rule.uids[0] <= _ROOT <= rule.uids[1])
        or (rule.iif and rule.iif not in (interface.name, interface.vrf) and elsewhere)
        or (rule.l3mdev and not interface.vrf_table)
    )


def _unknown_condition(rule: Rule, interface: Interface, names: Set[str]) -> str:
    unknown = (
        # Since Linux 5.18 the interface, before that the VRF, since 6.15 both; IPv6 says the VRF in all of them.
        (interface.vrf and rule.iif in (interface.name, interface.vrf), "kernels differ on iif in a VRF"),
        (rule.mark_mask, "fwmark"),
        (rule.uids, "uidrange"),
        (rule.flow_label_mask, "flowlabel"),
        (rule.iif and rule.iif != interface.name and rule.iif not in names, "iif is an alternative name"),
    )
    return next((why for there, why in unknown if there), "")


def _unknown_result(rule: Rule) -> str:
    known = (rules.TO_TABLE, rules.GOTO, rules.NOP, rules.BLACKHOLE, rules.UNREACHABLE, rules.PROHIBIT)
    if rule.strange:
        return f"attribute {rule.strange[0]} of newer kernels"
    if rule.action not in known:
        return f"action {rule.action} of newer kernels"
    if rule.action != rules.TO_TABLE:
        return ""
    if rule.suppress_group >= 0:
        return "suppress_ifgroup"
    return "the table of no VRF" if rule.inverted and rule.l3mdev else ""


def _match(rule: Rule) -> tuple[Match, str]:
    """The conditions that a packet shows, and what of them cannot be said that way."""
    sports, sports_why = _ports(rule.source_ports, rule.source_port_mask)
    dports, dports_why = _ports(rule.destination_ports, rule.destination_port_mask)
    match = Match(
        source=rule.source,
        destination=rule.destination,
        tos=rule.tos & rule.tos_mask,
        tos_mask=rule.tos_mask,
        protocol=rule.protocol,
        source_ports=sports,
        destination_ports=dports,
    )
    # A value outside its mask is compared all the same by IPv4's tos: nothing has it.
    return match, sports_why or dports_why or ("tos" if rule.tos & ~rule.tos_mask else "")


def _ports(ports: Ports | None, mask: int) -> tuple[Ports | None, str]:
    """A range, and why it is not all: a mask whose bits are not the highest ones is no range, and port 0 is what
    packets without ports have."""
    if ports is None or mask in (0, 0xFFFF):
        return ports, ""
    free = 0xFFFF & ~mask
    if free & (free + 1) or not ports[0] & mask:
        return None, "mask of ports"
    return (ports[0] & mask, ports[0] | free), ""


# ---- from rules to steps


def compile_rules(
    listed: Sequence[Rule], interface: Interface, names: Set[str], max_steps: int = MAX_STEPS
) -> Program:
    """The program of packets that come in by an interface. listed: the rules of one family in the kernel's order."""
    steps: list[Instruction] = []
    begins: dict[int, int] = {}  # priority -> step; the first rule that has it
    jumps: list[tuple[int, int]] = []  # step, priority
    targets = {rule.priority for rule in listed}
    for rule in listed:
        begins.setdefault(rule.priority, len(steps))
        for step in _steps_of(rule, judge(rule, interface, names), interface, targets):
            if isinstance(step, Goto):
                jumps.append((len(steps), step.step))
            steps.append(step)
    for at, priority in jumps:
        steps[at] = Goto(begins[priority], steps[at].match)
    return _cut(_tidy(_merge(_tidy(steps))), max_steps)


def _steps_of(rule: Rule, judged: Judgement, interface: Interface, targets: Set[int]) -> list[Instruction]:
    """A Goto's number is a priority here."""
    if judged.how is How.NEVER:
        return []
    if judged.how is How.HONOURED:
        return _action(rule, judged.match, interface, targets)
    punt = Verdict(Reason.POLICY, judged.match)
    return [punt, *_action(rule, ANY, interface, targets)] if rule.inverted and not judged.wholly else [punt]


def _action(rule: Rule, match: Match, interface: Interface, targets: Set[int]) -> list[Instruction]:
    if rule.action == rules.TO_TABLE:
        table = interface.vrf_table if rule.l3mdev else rule.table
        return [Lookup(table or MAIN, min(rule.suppress_length, _LONGEST) + 1, match)]
    if rule.action == rules.GOTO:  # to a priority that is not there, or back: as if the rule were not there
        return [Goto(rule.goto, match)] if rule.goto in targets and rule.goto > rule.priority else []
    if rule.action == rules.BLACKHOLE:
        return [Verdict(Reason.BLACKHOLE, match)]
    return [] if rule.action == rules.NOP else [Verdict(Reason.REJECT, match)]


def _tidy(steps: Sequence[Instruction]) -> list[Instruction]:
    """Without steps that nothing reaches, and jumps to the next one that stays: from the end on, since a jump that
    goes makes the one before it such a jump, and there may be thousands."""
    reached = _reached(steps)
    lands = {len(steps): len(steps)}  # step -> itself, or the next that stays
    following, keep = len(steps), []
    for at in range(len(steps) - 1, -1, -1):
        step = steps[at]
        leads_on = isinstance(step, Goto) and lands[step.step] == following
        if at in reached and not leads_on:
            following = at
            keep.append(at)
        lands[at] = following
    return _renumbered(steps, keep[::-1])


def _reached(steps: Sequence[Instruction]) -> set[int]:
    reached = {0}
    for at, step in enumerate(steps):  # jumps only lead forward
        if at not in reached:
            continue
        if isinstance(step, Goto):
            reached.add(step.step)
        if isinstance(step, Lookup) or step.match != ANY:
            reached.add(at + 1)
    return reached


def _renumbered(steps: Sequence[Instruction], keep: Sequence[int]) -> list[Instruction]:
    """The steps in `keep`; a jump to one that went leads to the next that stayed."""
    new = {at: number for number, at in enumerate(keep)}
    following = len(keep)
    for at in range(len(steps), -1, -1):
        following = new.setdefault(at, following)
    return [Goto(new[s.step], s.match) if isinstance(s, Goto) else s for s in (steps[at] for at in keep)]


def _merge(steps: list[Instruction]) -> list[Instruction]:
    """Local directly before main, as everybody has them, is one lookup in the merged FIB."""
    targets = {step.step for step in steps if isinstance(step, Goto)}
    keep = []
    for at, step in enumerate(steps):
        if step == Lookup(MAIN) and at and steps[at - 1] == Lookup(LOCAL) and at not in targets:
            steps[at - 1] = Lookup(MERGED)
        else:
            keep.append(at)
    return _renumbered(steps, keep)


def _cut(steps: list[Instruction], most: int) -> Program:
    """No longer than a view can be: the kernel gets what comes further."""
    if len(steps) <= most:
        return tuple(steps)
    cut = [Goto(min(s.step, most - 1), s.match) if isinstance(s, Goto) else s for s in steps[: most - 1]]
    return (*cut, Verdict(Reason.POLICY))


def same_source(listed: Sequence[Rule], interface: Interface, names: Set[str]) -> bool:
    """The kernel looks a packet's source up by the same steps as its destination, whatever packet it is."""
    program = compile_rules(listed, interface, names)
    if any(not isinstance(step, Lookup) or step.match != ANY for step in program):
        return False
    return program == compile_rules(listed, reverse_of(interface), names)


# ---- one packet, for people and tests


@dataclass(frozen=True, slots=True)
class Packet:
    """What matches ask of a packet. Addresses in wire order; no source: of zeros."""

    source: bytes
    destination: bytes
    tos: int = 0
    protocol: int = 0
    source_port: int = 0
    destination_port: int = 0


def matches(match: Match, packet: Packet) -> bool:
    """As forward/view_run.c."""
    found = (
        _is_within(packet.source, match.source)
        and _is_within(packet.destination, match.destination)
        and not (packet.tos ^ match.tos) & match.tos_mask
        and match.protocol in (0, packet.protocol)
        and _is_between(packet.source_port, match.source_ports)
        and _is_between(packet.destination_port, match.destination_ports)
    )
    return found != match.inverted


def _is_within(address: bytes, prefix: tuple[bytes, int] | None) -> bool:
    if prefix is None:
        return True
    differ = int.from_bytes(address, "big") ^ int.from_bytes(prefix[0], "big")
    return not differ >> (8 * len(address) - prefix[1])


def _is_between(port: int, ports: Ports | None) -> bool:
    return ports is None or ports[0] <= port <= ports[1]
