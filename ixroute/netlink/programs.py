"""Which program each interface has: compiled from the rules, its FIBs made, told to the sink when it differs, and
described for people. Of the mirror's thread; others ask under its lock."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ixroute.netlink import rules, views
from ixroute.netlink.contract import (
    ANY,
    FAMILY_IP4,
    FAMILY_IP6,
    Actions,
    Match,
    Ports,
    ProgramView,
    RibLike,
    RuleView,
    Sink,
    Step,
)
from ixroute.netlink.links import Link
from ixroute.netlink.resolve import Tables
from ixroute.netlink.rules import Rule, RuleTable
from ixroute.netlink.views import How, Interface, Program, Reason

log = logging.getLogger("ixroute.netlink")

FAMILIES = (FAMILY_IP4, FAMILY_IP6)
_UNNAMED = (
    "\0"  # in place of a name that no rule has: interfaces that rules cannot tell apart share a program
)

Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Shown:
    """What the sink was told of an interface and family."""

    steps: tuple[Step, ...]
    same_source: bool


class Programs:
    def __init__(self, rib: RibLike, actions: Actions, sink: Sink, tell: Tell) -> None:
        self._rib = rib
        self._verdicts = {
            Reason.BLACKHOLE: actions.blackhole_route,
            Reason.REJECT: actions.reject_route,
            Reason.POLICY: actions.policy_rule,
        }
        self._sink = sink
        self._tell = tell
        self._compiled: dict[object, tuple[Program, bool]] = {}
        self._compiled_for: object = None
        self._shown: dict[tuple[int, int], Shown] = {}
        self._warned: frozenset[str] = frozenset()
        self._refused: set[int] = set()  # tables that there was no more room for

    def announce(self, tables: Tables, listed: RuleTable) -> None:
        """Tells the views that differ from last time. A table's FIB is whole before a view leads to it."""
        for family in FAMILIES:
            if listed.get(family) is None:
                continue
            for ifindex, number in interfaces(tables).items():
                link = tables.links.get(ifindex)
                if link is not None:
                    self._show(
                        number, family, *self.program(family, interface_of(link, tables), tables, listed)
                    )
        self._warn(tables, listed)

    def _show(self, number: int, family: int, program: Program, same_source: bool) -> None:
        steps = self.steps(program)
        shown = Shown(steps, same_source and all(step.fib is not None for step in steps))
        if self._shown.get((number, family)) != shown:
            self._shown[number, family] = shown
            self._tell(self._sink.set_view, number, family, shown.steps, shown.same_source)

    def steps(self, program: Program) -> tuple[Step, ...]:
        """With FIBs, which are made, and whole, if need be."""
        return tuple(self._step(step) for step in program)

    def _step(self, step: views.Instruction) -> Step:
        if isinstance(step, views.Goto):
            return Step(step.match, goto=step.step)
        if isinstance(step, views.Verdict):
            return Step(step.match, verdict=self._verdicts[step.reason])
        if step.table == views.MERGED:
            return Step(step.match, fib=self._rib.main)
        try:
            return Step(step.match, fib=self._rib.fib(step.table, step.shortest))
        except (OSError, LookupError, MemoryError) as error:
            if step.table not in self._refused:
                log.warning(
                    "table %d: %s; packets whose rules lead there go to the kernel", step.table, error
                )
            self._refused.add(step.table)
            return Step(step.match, verdict=self._verdicts[Reason.POLICY])

    def program(
        self, family: int, interface: Interface, tables: Tables, listed: RuleTable
    ) -> tuple[Program, bool]:
        """The program, and whether sources are looked up by it too."""
        now = listed.get(family) or ()
        mentioned = {rule.iif for family in FAMILIES for rule in listed.get(family) or ()}
        names = frozenset(name for name in mentioned if tables.links.by_name(name) is not None)
        generation = (listed.get(FAMILY_IP4), listed.get(FAMILY_IP6), names)
        if self._compiled_for != generation:
            self._compiled, self._compiled_for = {}, generation
        known = Interface(
            name=interface.name if interface.name in mentioned else _UNNAMED,
            vrf=interface.vrf if not interface.vrf or interface.vrf in mentioned else _UNNAMED,
            vrf_table=interface.vrf_table,
        )
        found = self._compiled.get((family, known))
        if found is None:
            found = (views.compile_rules(now, known, names), views.same_source(now, known, names))
            self._compiled[family, known] = found
        return found

    # ---- for people

    def of(
        self, name: str, family: int, tables: Tables, listed: RuleTable
    ) -> tuple[Program, tuple[Step, ...]]:
        """Of packets that come in by the interface `name`; "": by one that no rule names. KeyError: the router has
        no such interface."""
        interface = Interface(_UNNAMED)
        if name:
            link = next(link for link in (*_links(tables), None) if link is None or link.name == name)
            if link is None:
                raise KeyError(name)
            interface = interface_of(link, tables)
        program, _ = self.program(family, interface, tables, listed)
        return program, self.steps(program)

    def table(self, number: int) -> tuple[Program, tuple[Step, ...]]:
        """Of a lookup in one table."""
        program = (views.Lookup(number),)
        return program, self.steps(program)

    def rule_views(self, tables: Tables, listed: RuleTable) -> list[RuleView]:
        """In the kernel's order."""
        return [_rule_view(rule, tables) for family in FAMILIES for rule in listed.get(family) or ()]

    def program_views(self, tables: Tables, listed: RuleTable) -> list[ProgramView]:
        found = []
        for link in _links(tables):
            for family in FAMILIES:
                program, same = self.program(family, interface_of(link, tables), tables, listed)
                found.append(ProgramView(link.name, family, tuple(map(step_text, program)), same))
        return sorted(found, key=lambda view: (view.interface, view.family))

    def punting(self, tables: Tables, listed: RuleTable) -> list[str]:
        """Rules that only the kernel can follow, and why, a line each."""
        return [
            f"IPv{view.family} rule {view.priority}: {view.text} ({view.why})"
            for view in self.rule_views(tables, listed)
            if view.state == How.PUNTS.value
        ]

    def _warn(self, tables: Tables, listed: RuleTable) -> None:
        """Once for each rule that comes to punt."""
        now = self.punting(tables, listed)
        for line in now:
            if line not in self._warned:
                log.warning(
                    "%s: only the kernel can follow it, so it gets the packets that it may match", line
                )
        self._warned = frozenset(now)


def interfaces(tables: Tables) -> dict[int, int]:
    """The router's: ifindex -> number in the dataplane."""
    return tables.ports


def _links(tables: Tables) -> list[Link]:
    return [link for index in interfaces(tables) if (link := tables.links.get(index)) is not None]


def interface_of(link: Link, tables: Tables) -> Interface:
    """As rules see it. A VRF whose table is not known yet counts as none: its members' packets go to the kernel."""
    vrf = tables.links.vrf_of(link)
    if vrf is None or not vrf.vrf_table:
        return Interface(link.name)
    return Interface(link.name, vrf.name, vrf.vrf_table)


def _rule_view(rule: Rule, tables: Tables) -> RuleView:
    judged: dict[How, list[str]] = {}
    why = ""
    names = tables.links.names()
    links = _links(tables)
    for link in links:
        found = views.judge(rule, interface_of(link, tables), names)
        judged.setdefault(found.how, []).append(link.name)
        why = why or (found.why if found.how is How.PUNTS else "")
    how = next((how for how in (How.PUNTS, How.HONOURED) if how in judged), How.NEVER)
    where = judged.get(how, [])
    everywhere = len(where) == len(links)
    return RuleView(
        rule.family,
        rule.priority,
        rules.text(rule),
        how.value,
        why,
        () if everywhere else tuple(sorted(where)),
    )


def table_words(table: int) -> str:
    """A Lookup's table."""
    return "local, main" if table == views.MERGED else rules.table_text(table)


def step_text(step: views.Instruction) -> str:
    """A step in words: "from 10.0.0.0/8: lookup 100"."""
    if isinstance(step, views.Goto):
        does = f"goto step {step.step}"
    elif isinstance(step, views.Verdict):
        does = {
            Reason.BLACKHOLE: "drop (blackhole)",
            Reason.REJECT: "kernel (unreachable, prohibit)",
            Reason.POLICY: "kernel (policy rule)",
        }[step.reason]
    else:
        does = f"lookup {table_words(step.table)}" + (
            f", prefixes from /{step.shortest}" if step.shortest else ""
        )
    condition = " ".join(_conditions(step.match))
    return f"{condition}: {does}" if condition else does


def _conditions(match: Match) -> Iterator[str]:
    if match == ANY:
        return
    if match.inverted:
        yield "not"
    for word, prefix in (("from", match.source), ("to", match.destination)):
        if prefix is not None:
            yield f"{word} {ipaddress.ip_address(prefix[0])}/{prefix[1]}"
    if match.tos_mask:
        yield f"tos {match.tos:#x}/{match.tos_mask:#x}"
    if match.protocol:
        yield f"ipproto {match.protocol}"
    yield from _port_conditions((("sport", match.source_ports), ("dport", match.destination_ports)))


def _port_conditions(ports: Iterable[tuple[str, Ports | None]]) -> Iterator[str]:
    for word, found in ports:
        if found:
            yield f"{word} {found[0]}" + (f"-{found[1]}" if found[1] != found[0] else "")
