"""`lookup`: the way that one packet takes through its interface's program, walked where packets read."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from ixroute.control import CommandError, Params
from ixroute.fib.adjacency import ADJ_BLACKHOLE, ADJ_NO_ROUTE, ADJ_POLICY, ADJ_REJECT
from ixroute.fib.rib import Answer, Rib
from ixroute.netlink import views
from ixroute.netlink.describe_views import step_text, table_words
from ixroute.netlink.mirror import Mirror
from ixroute.netlink.views import Packet, Reason

# What a verdict is the same as.
_INDEX = {Reason.BLACKHOLE: ADJ_BLACKHOLE, Reason.REJECT: ADJ_REJECT, Reason.POLICY: ADJ_POLICY}


@dataclass(frozen=True)
class Question:
    """A packet, and where it comes in; or a table. address: in its usual text form."""

    address: str
    packet: Packet
    iif: str = ""
    vrf: str = ""
    table: int | None = None


@dataclass(frozen=True)
class Found:
    """index: of the adjacency. answer: what the FIB that answered knows of it. step: -1 for a program's end."""

    index: int
    answer: Answer
    table: str
    step: int
    program: list[str]


def question(params: Params) -> Question:
    """CommandError: not an address, or a number that cannot be."""
    address = _address(params, "address")
    source = (
        _address(params, "from") if params.get("from") else ipaddress.ip_address(bytes(len(address.packed)))
    )
    if source.version != address.version:
        raise CommandError(f"{source} and {address} are of two families")
    iif, vrf, table = str(params.get("iif") or ""), str(params.get("vrf") or ""), params.get("table")
    if (bool(iif), bool(vrf), table is not None).count(True) > 1:
        raise CommandError("of iif, vrf and table only one can be given")
    packet = Packet(
        source.packed,
        address.packed,
        tos=_number(params, "tos", 0xFF),
        protocol=_number(params, "protocol", 0xFF),
        source_port=_number(params, "sport", 0xFFFF),
        destination_port=_number(params, "dport", 0xFFFF),
    )
    number = None if table is None else _number(params, "table", 0xFFFFFFFF)
    return Question(str(address), packet, iif, vrf, number)


def walk(asked: Question, mirror: Mirror, rib: Rib) -> Found:
    """With the mirror standing still. CommandError: no such interface, VRF, or room for the table."""
    packet = asked.packet
    try:
        if asked.vrf or asked.table is not None:
            table = mirror.vrf_table(asked.vrf) if asked.vrf else asked.table
            compiled = mirror.programs.table(table or 0)
            if compiled.steps[0].fib is None:
                raise CommandError(f"there is no room for table {table} beside those that rules lead to")
        else:
            compiled = mirror.programs.of(asked.iif, 4 if len(packet.destination) == 4 else 6)
    except KeyError as error:
        raise CommandError(f"there is no {'VRF' if asked.vrf else 'port'} {error.args[0]!r}") from None
    program, steps = compiled.program, compiled.steps
    texts = [step_text(step) for step in program]
    at = 0
    while at < len(program):
        step, shown = program[at], steps[at]
        if not views.matches(step.match, packet):
            at += 1
        elif isinstance(step, views.Goto):
            at = step.step
        elif isinstance(step, views.Verdict) or shown.fib is None:
            reason = step.reason if isinstance(step, views.Verdict) else Reason.POLICY
            return Found(_INDEX[reason], Answer(_INDEX[reason]), "", at, texts)
        else:
            index = shown.fib.read(packet.destination)
            if index != ADJ_NO_ROUTE:
                known = (step.table, step.shortest) if step.table != views.MERGED else ()
                return Found(
                    index, rib.lookup(packet.destination, *known), table_words(step.table), at, texts
                )
            at += 1
    return Found(ADJ_NO_ROUTE, Answer(ADJ_NO_ROUTE), "", -1, texts)


def _address(params: Params, key: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    text = str(params.get(key, ""))
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise CommandError(f"{text!r} is no IPv4 or IPv6 address") from None


def _number(params: Params, key: str, most: int) -> int:
    value = params.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise CommandError(f"{key} must be a whole number, at most {most}, not {value!r}")
    return value
