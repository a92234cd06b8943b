"""Which program each interface has: compiled from the rules, its FIBs made, told to the sink when it differs. Of the
mirror's thread; others ask under its lock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ixroute.netlink import rules, views
from ixroute.netlink.contract import (
    FAMILY_IP4,
    FAMILY_IP6,
    Actions,
    ProgramView,
    RibLike,
    RuleView,
    Sink,
    Step,
)
from ixroute.netlink.describe_views import step_text
from ixroute.netlink.links import Link
from ixroute.netlink.resolve import Tables
from ixroute.netlink.rules import Rule, RuleTable
from ixroute.netlink.views import How, Interface, Program, Reason

log = logging.getLogger("ixroute.netlink")

FAMILIES = (FAMILY_IP4, FAMILY_IP6)
MOST_WARNED = 20  # rules at a time
MOST_ASKED = 16  # tables that have a FIB only because somebody looked something up in them: it stays
_UNNAMED = (
    "\0"  # in place of a name that no rule has: interfaces that rules cannot tell apart share a program
)

Tell = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A program, the same with FIBs, and whether sources are looked up by it too."""

    program: Program
    steps: tuple[Step, ...]
    same_source: bool


class Programs:
    """Fed with the tables and rules as they are now by `announce`; everything else speaks of what it was fed last."""

    def __init__(self, rib: RibLike, actions: Actions, sink: Sink, tell: Tell) -> None:
        self._rib = rib
        self._verdicts = {
            Reason.BLACKHOLE: actions.blackhole_route,
            Reason.REJECT: actions.reject_route,
            Reason.POLICY: actions.policy_rule,
        }
        self._sink = sink
        self._tell = tell
        self._rules: dict[int, tuple[Rule, ...]] = {}
        self._names: frozenset[str] = frozenset()  # that rules have, and interfaces
        self._mentioned: frozenset[str] = frozenset()
        self._interfaces: dict[str, Interface] = {}  # by name, the router's; as rules see them
        self._compiled: dict[tuple[int, Interface], Compiled] = {}
        self._shown: dict[tuple[int, int], Compiled] = {}
        self._refused: set[int] = set()  # tables that there was no more room for
        self._fibs: set[tuple[int, int]] = set()  # tables, and shortest prefixes, that have a FIB
        self._asked = 0
        self._no_memory = False
        self._punting: tuple[str, ...] = ()
        self._judged: object = None  # what the lines of `punting` follow from
        self.untaken: set[int] = set()
        """Numbers of interfaces whose view is not what it should be: their packets are the kernel's."""
        self.retry = False
        """The sink did not take a view: announce again soon."""

    @property
    def punting(self) -> tuple[str, ...]:
        """Rules that only the kernel can follow, and why, a line each."""
        return self._punting

    def announce(self, tables: Tables, listed: RuleTable) -> None:
        """Tells the views that differ from last time. A table's FIB is whole before a view leads to it."""
        self.retry = False
        self.untaken = set()
        self._take_rules(tables, listed)
        self._interfaces = {}
        for ifindex, number in tables.interfaces.items():
            link = tables.links.get(ifindex)
            if link is None:
                continue
            known = self._interfaces[link.name] = self._as_rules_see(link, tables)
            for family in self._rules:
                self._show(number, family, self._compile(family, known))
        self._warn()

    def _take_rules(self, tables: Tables, listed: RuleTable) -> None:
        """What was compiled stays as long as rules, and which interfaces they name, stay the same."""
        now = {family: found for family in FAMILIES if (found := listed.get(family)) is not None}
        mentioned = frozenset(rule.iif for found in now.values() for rule in found if rule.iif)
        names = frozenset(name for name in mentioned if tables.links.by_name(name) is not None)
        if (now, names) != (self._rules, self._names):
            self._rules, self._mentioned, self._names, self._compiled = now, mentioned, names, {}

    def _as_rules_see(self, link: Link, tables: Tables) -> Interface:
        """A VRF whose table is not known yet counts as none: its members' packets go to the kernel."""
        name = link.name if link.name in self._mentioned else _UNNAMED
        vrf = tables.links.vrf_of(link)
        if vrf is None or not vrf.vrf_table:
            return Interface(name)
        return Interface(name, vrf.name if vrf.name in self._mentioned else _UNNAMED, vrf.vrf_table)

    def _show(self, number: int, family: int, compiled: Compiled) -> None:
        shown = self._shown.get((number, family))
        if shown is compiled or (
            shown and (shown.steps, shown.same_source) == (compiled.steps, compiled.same_source)
        ):
            return
        if self._tell(self._sink.set_view, number, family, compiled.steps, compiled.same_source):
            self._shown[number, family] = compiled
        else:
            self.untaken.add(number)
            self.retry = True

    def _compile(self, family: int, interface: Interface) -> Compiled:
        known = self._compiled.get((family, interface))
        if known is None:
            listed = self._rules.get(family, ())
            program = views.compile_rules(listed, interface, self._names)
            same = views.same_source(listed, interface, self._names)
            self._no_memory = False
            steps = tuple(self._step(step) for step in program)
            known = Compiled(program, steps, same and all(step.fib is not None for step in steps))
            if self._no_memory:
                self.retry = True  # and compile again: there may be some then
            else:
                self._compiled[family, interface] = known
        return known

    def _step(self, step: views.Instruction) -> Step:
        """The FIB is made if need be."""
        if isinstance(step, views.Goto):
            return Step(step.match, goto=step.step)
        if isinstance(step, views.Verdict):
            return Step(step.match, verdict=self._verdicts[step.reason])
        if step.table == views.MERGED:
            return Step(step.match, fib=self._rib.main)
        try:
            fib = self._rib.fib(step.table, step.shortest)
            self._fibs.add((step.table, step.shortest))
            return Step(step.match, fib=fib)
        except (OSError, MemoryError) as error:
            self._no_memory |= isinstance(error, MemoryError)
            if step.table not in self._refused:
                log.warning("table %d: %s: packets that look it up go to the kernel", step.table, error)
            self._refused.add(step.table)
            return Step(step.match, verdict=self._verdicts[Reason.POLICY])

    def _warn(self) -> None:
        """Once for each rule that comes to punt."""
        judged = (self._rules, self._names, frozenset(self._interfaces.values()))
        if judged == self._judged:  # thousands of rules, and a link that flaps
            return
        self._judged = judged
        now = tuple(
            f"IPv{view.family} rule {view.priority}: {view.text} ({view.why})"
            for view in self.rule_views()
            if view.state == How.PUNTS.value
        )
        known = set(self._punting)
        new = [line for line in now if line not in known]
        for line in new[:MOST_WARNED]:
            log.warning("%s: only the kernel can follow it, so it gets the packets that it may match", line)
        if len(new) > MOST_WARNED:
            log.warning("and %d more such rules: ixroute show rules names all", len(new) - MOST_WARNED)
        self._punting = now

    # ---- for people

    def of(self, name: str, family: int) -> Compiled:
        """Of packets that come in by the interface `name`; "": by one that no rule names. KeyError: the router has
        no such interface."""
        return self._compile(family, self._interfaces[name] if name else Interface(_UNNAMED))

    def table(self, number: int) -> Compiled:
        """Of a lookup in one table. Without a FIB (Step.fib) when there is no room, or MOST_ASKED others that no rule
        leads to were asked for: the rules may need the room."""
        lookup = views.Lookup(number)
        if (number, 0) not in self._fibs:
            if self._asked >= MOST_ASKED:
                refused = Step(lookup.match, verdict=self._verdicts[Reason.POLICY])
                return Compiled((lookup,), (refused,), False)
            self._asked += 1
        return Compiled((lookup,), (self._step(lookup),), False)

    def rule_views(self) -> list[RuleView]:
        """In the kernel's order."""
        return [self._rule_view(rule) for family in FAMILIES for rule in self._rules.get(family, ())]

    def _rule_view(self, rule: Rule) -> RuleView:
        judged = {
            interface: views.judge(rule, interface, self._names)
            for interface in set(self._interfaces.values())
        }
        hows = {found.how for found in judged.values()}
        how = next((how for how in (How.PUNTS, How.HONOURED) if how in hows), How.NEVER)
        why = min((found.why for found in judged.values() if found.how is How.PUNTS), default="")
        where = sorted(name for name, interface in self._interfaces.items() if judged[interface].how is how)
        return RuleView(
            rule.family,
            rule.priority,
            rules.text(rule),
            how.value,
            why,
            tuple(where) if len(hows) > 1 else (),
        )

    def program_views(self) -> Iterator[ProgramView]:
        """By interface and family."""
        for name, interface in sorted(self._interfaces.items()):
            for family in self._rules:
                found = self._compile(family, interface)
                yield ProgramView(name, family, tuple(map(step_text, found.program)), found.same_source)
