"""Rules and programs in words, as `ip rule` writes them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from ixroute.netlink import rules, views
from ixroute.netlink.contract import ANY, Match, Ports
from ixroute.netlink.views import Reason


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
