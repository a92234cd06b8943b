"""Views: what packets of one family that come in by an interface look up, as a short program (see view.h)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ixroute._dataplane import ffi, lib

MAX_STEPS: int = lib.VIEW_STEPS

_ANY_PORT = (0, 0)
_KINDS = {"fib": lib.VIEW_LOOKUP, "verdict": lib.VIEW_VERDICT, "goto": lib.VIEW_GOTO}


class MatchLike(Protocol):
    """Which packets a step is for: those for which all that is given holds; with `inverted`, all others."""

    @property
    def source(self) -> tuple[bytes, int] | None: ...  # 4 or 16 bytes in wire order, and the prefix's length
    @property
    def destination(self) -> tuple[bytes, int] | None: ...
    @property
    def tos(self) -> int: ...  # compared under tos_mask with the byte of DSCP and ECN (IPv6: traffic class)
    @property
    def tos_mask(self) -> int: ...
    @property
    def protocol(self) -> int: ...  # IPPROTO_*, 0: any. Of an IPv6 fragment, what is in it
    @property
    def source_ports(self) -> tuple[int, int] | None: ...  # first and last, 1..65535
    @property
    def destination_ports(self) -> tuple[int, int] | None: ...
    @property
    def inverted(self) -> bool: ...


class StepLike(Protocol):
    """One step. Exactly one of fib, verdict and goto is given."""

    @property
    def match(self) -> MatchLike: ...
    @property
    def fib(self) -> Any: ...  # ixroute.fib.fib.Fib, which outlives the view
    @property
    def verdict(self) -> int | None: ...  # a reason's number
    @property
    def goto(self) -> int | None: ...  # a later step's number, or the number of steps


@dataclass(frozen=True, slots=True)
class Match:
    """A `MatchLike`; by default all packets."""

    source: tuple[bytes, int] | None = None
    destination: tuple[bytes, int] | None = None
    tos: int = 0
    tos_mask: int = 0
    protocol: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    inverted: bool = False


ALL = Match()


@dataclass(frozen=True, slots=True)
class ViewStep:
    """A `StepLike`: `ViewStep(fib=…)`, `ViewStep(verdict=…)` or `ViewStep(goto=…)`, for all packets or a `match`.

    A lookup that finds nothing (or a throw route) is no verdict: the next step follows. A verdict is one of
    no_route, blackhole_route, reject_route, external_route and policy_rule. After the last step: no_route.
    """

    match: MatchLike = ALL
    fib: Any = None
    verdict: int | None = None
    goto: int | None = None


def c_steps(family: int, steps: Sequence[StepLike]) -> Any:
    """An array of struct view_step, one cell more than there are steps. ValueError: what no such cell can say
    (the C side judges the program as a whole)."""
    cells = ffi.new("struct view_step[]", len(steps) + 1)
    for number, step in enumerate(steps):
        try:
            _fill(cells[number], family, step)
        except (OverflowError, TypeError) as error:
            raise ValueError(f"view: step {number}: {error}") from None
        except ValueError as error:
            raise ValueError(f"view: step {number}: {error}") from None
    return cells


def _fill(cell: Any, family: int, step: StepLike) -> None:
    given = [name for name in _KINDS if getattr(step, name) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of fib, verdict and goto, not {' and '.join(given) or 'none'}")
    cell.kind = _KINDS[given[0]]
    if step.fib is not None:
        cell.fib = step.fib.c
    elif step.verdict is not None:
        cell.reason = step.verdict
    else:
        cell.to = step.goto
    match = step.match
    cell.inverted, cell.protocol = match.inverted, match.protocol
    cell.tos, cell.tos_mask = match.tos, match.tos_mask
    cell.source_first, cell.source_last = _ports(match.source_ports)
    cell.destination_first, cell.destination_last = _ports(match.destination_ports)
    for name, prefix in (("source", match.source), ("destination", match.destination)):
        if prefix is not None:
            address, length = prefix
            if len(address) != (4 if family == 4 else 16):
                raise ValueError(f"{name}: {len(address)} bytes are no IPv{family} address")
            setattr(cell, f"{name}_len", length)
            ffi.memmove(getattr(cell, name), address, len(address))


def _ports(ports: tuple[int, int] | None) -> tuple[int, int]:
    if ports is None:
        return _ANY_PORT
    if not 1 <= ports[0] <= ports[1] <= 65535:
        raise ValueError(f"ports {ports[0]}..{ports[1]}")
    return ports
