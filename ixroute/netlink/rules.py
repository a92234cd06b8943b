"""Routing policy rules: are there any beyond the default ones? If so the kernel decides, packet by packet."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from ixroute.netlink import messages
from ixroute.netlink.neighbours import AF_OF_FAMILY
from ixroute.netlink.sockets import Message

_FR_ACT_TO_TBL = 1
_FIB_RULE_INVERT = 2
_NO_SUPPRESS = 0xFFFFFFFF
_TABLES = {255: "local", 254: "main", 253: "default"}
# What a rule may carry without selecting some packets and not others.
_INNOCENT = frozenset(
    {"FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL", "FRA_SUPPRESS_PREFIXLEN", "FRA_SUPPRESS_IFGROUP"}
)


@dataclass(frozen=True, slots=True)
class Rule:
    priority: int
    table: int
    plain: bool  # every packet looks the table up, nothing else
    l3mdev: bool  # only for interfaces enslaved to a VRF


def parse(message: Message) -> Rule:
    """RTM_NEWRULE. ValueError: malformed."""
    decoded = messages.decode(messages.RuleMessage, message.data)
    table = decoded.get_attr("FRA_TABLE")
    return Rule(
        priority=decoded.get_attr("FRA_PRIORITY") or 0,
        table=table if table is not None else decoded["table"],
        plain=_is_plain(decoded),
        l3mdev=bool(decoded.get_attr("FRA_L3MDEV")),
    )


def _is_plain(decoded: Any) -> bool:
    selects = (
        decoded["src_len"] or decoded["dst_len"] or decoded["tos"] or decoded["flags"] & _FIB_RULE_INVERT
    )
    if selects or decoded["action"] != _FR_ACT_TO_TBL or messages.names(decoded) - _INNOCENT:
        return False
    return all(
        decoded.get_attr(name) in (None, _NO_SUPPRESS)
        for name in ("FRA_SUPPRESS_PREFIXLEN", "FRA_SUPPRESS_IFGROUP")
    )


def dump_request(family: int) -> tuple[int, bytes]:
    return messages.RTM_GETRULE, struct.pack("=BBBBBBBBI", AF_OF_FAMILY[family], 0, 0, 0, 0, 0, 0, 0, 0)


def beyond_default(rules: list[Rule]) -> str:
    """Which rule makes the FIB (local before main) not the whole truth, for people; "" when none does.

    l3mdev rules are no reason: they only concern interfaces in a VRF, and those go to the kernel anyway.
    Priorities do not matter, their order does (VRF set-ups move `local` behind l3mdev). Without `default`
    nothing changes, since packets that match nothing go to the kernel.
    """
    tables = []
    for rule in sorted(rules, key=lambda rule: rule.priority):
        if rule.l3mdev:
            continue
        if not rule.plain or rule.table not in _TABLES:
            return f"rule {rule.priority} (table {_TABLES.get(rule.table, rule.table)})"
        tables.append(rule.table)
    if tables[:2] != [255, 254] or tables[2:] not in ([], [253]):
        return "the default rules (local, main, default) are not in their places"
    return ""
