"""A router in memory whose interfaces have views, and the tables that views name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forward_rig import OTHER_TABLES, Context, Rig
from forward_view_twin import SlowStep, SlowView

from ixroute._dataplane import lib
from ixroute.fib.fib import Fib
from ixroute.forward.reasons import reason_number
from ixroute.forward.view import ViewStep

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
