"""Routing policy rules: what RTM_NEWRULE says (linux/fib_rules.h), and the same in the words of `ip rule`."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from ixroute.netlink import messages
from ixroute.netlink.contract import FAMILY_IP4, FAMILY_IP6, Ports
from ixroute.netlink.neighbours import AF_OF_FAMILY
from ixroute.netlink.sockets import Message

TO_TABLE = 1
GOTO = 2
NOP = 3
BLACKHOLE = 6
UNREACHABLE = 7
PROHIBIT = 8

_INVERT = 0x2
_IIF_DETACHED = 0x8
_HEADER = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, -, -, action, flags
_ATTRIBUTES_AT = 16 + _HEADER.size
_ANY_UID = (0, 0xFFFFFFFF)

# enum fib_rule_attr_type
_DST, _SRC, _IIFNAME, _GOTO, _PRIORITY = 1, 2, 3, 4, 6
_FWMARK, _TUN_ID, _SUPPRESS_IFGROUP, _SUPPRESS_PREFIXLEN, _TABLE, _FWMASK = 10, 12, 13, 14, 15, 16
_OIFNAME, _L3MDEV, _UID_RANGE, _IP_PROTO = 17, 19, 20, 22
_SPORT_RANGE, _DPORT_RANGE, _DSCP, _FLOWLABEL, _FLOWLABEL_MASK = 23, 24, 25, 26, 27
_SPORT_MASK, _DPORT_MASK, _DSCP_MASK = 28, 29, 30
_NEWEST = _DSCP_MASK  # of those that are understood; who made a rule and its realm choose no packets

# What a header's tos is compared with: IPv4 has only these three bits of it (INET_DSCP_LEGACY_TOS_MASK).
_TOS_MASK = {FAMILY_IP4: 0x1C, FAMILY_IP6: 0xFC}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. In a list of them their order is the kernel's: that of a dump.

    Conditions: those of contract.Match, and those that the program's maker decides on. `strange`: attributes
    that are newer than this program.
    """

    family: int
    priority: int
    action: int = TO_TABLE
    table: int = 0
    source: tuple[bytes, int] | None = None
    destination: tuple[bytes, int] | None = None
    tos: int = 0
    tos_mask: int = 0
    iif: str = ""
    iif_detached: bool = False  # there was no such interface when the kernel was asked
    oif: str = ""
    mark: int = 0
    mark_mask: int = 0
    l3mdev: bool = False
    protocol: int = 0
    source_ports: Ports | None = None
    source_port_mask: int = 0
    destination_ports: Ports | None = None
    destination_port_mask: int = 0
    uids: tuple[int, int] | None = None
    tunnel: int = 0
    flow_label: int = 0
    flow_label_mask: int = 0
    inverted: bool = False
    goto: int = 0  # priority of the rule to go on with
    suppress_length: int = -1  # routes of prefixes up to this length are none
    suppress_group: int = -1  # nor are those by interfaces of this group
    strange: tuple[int, ...] = ()


def parse(message: Message) -> Rule:
    """RTM_NEWRULE. ValueError: malformed."""
    if len(message.data) < _ATTRIBUTES_AT:
        raise ValueError(f"a rule of {len(message.data)} bytes")
    af, dst_len, src_len, tos, table, _, _, action, flags = _HEADER.unpack_from(message.data, 16)
    family = next((family for family, known in AF_OF_FAMILY.items() if known == af), 0)
    if not family:
        raise ValueError(f"a rule of address family {af}")
    found = _Attributes(messages.attributes(message.data, _ATTRIBUTES_AT))
    mark, sports, dports = found.number(_FWMARK), found.ports(_SPORT_RANGE), found.ports(_DPORT_RANGE)
    tos, tos_mask = _tos(family, tos, found)
    uids = found.pair(_UID_RANGE, "=II")
    return Rule(
        family=family,
        priority=found.number(_PRIORITY),
        action=action,
        table=found.number(_TABLE, table),
        source=found.prefix(_SRC, src_len, family),
        destination=found.prefix(_DST, dst_len, family),
        tos=tos,
        tos_mask=tos_mask,
        iif=found.text(_IIFNAME),
        iif_detached=bool(flags & _IIF_DETACHED),
        oif=found.text(_OIFNAME),
        mark=mark,
        mark_mask=found.number(_FWMASK, 0xFFFFFFFF if mark else 0),
        l3mdev=bool(found.number(_L3MDEV)),
        protocol=found.number(_IP_PROTO),
        source_ports=sports,
        source_port_mask=found.number(_SPORT_MASK) if sports else 0,
        destination_ports=dports,
        destination_port_mask=found.number(_DPORT_MASK) if dports else 0,
        uids=uids if uids != _ANY_UID else None,
        tunnel=found.number(_TUN_ID, byteorder="big"),
        flow_label=found.number(_FLOWLABEL, byteorder="big"),
        flow_label_mask=found.number(_FLOWLABEL_MASK, byteorder="big"),
        inverted=bool(flags & _INVERT),
        goto=found.number(_GOTO),
        suppress_length=found.signed(_SUPPRESS_PREFIXLEN),
        suppress_group=found.signed(_SUPPRESS_IFGROUP),
        strange=tuple(sorted(number for number in found.raw if number > _NEWEST)),
    )


def _tos(family: int, tos: int, found: _Attributes) -> tuple[int, int]:
    """Value and mask. DSCP is compared whole, also when 0; tos only where it is not 0."""
    if _DSCP in found.raw:
        return found.number(_DSCP) << 2, (found.number(_DSCP_MASK, 0x3F) << 2) & 0xFC
    return tos, _TOS_MASK[family] if tos else 0


class _Attributes:
    """A message's attributes by number. Every reader raises ValueError for a length that cannot be."""

    def __init__(self, raw: dict[int, bytes]) -> None:
        self.raw = raw

    def number(self, kind: int, default: int = 0, byteorder: str = "") -> int:
        data = self.raw.get(kind)
        if data is None:
            return default
        if len(data) not in (1, 2, 4, 8):
            raise ValueError(f"a number of {len(data)} bytes in attribute {kind} of a rule")
        return int.from_bytes(data, "big" if byteorder == "big" else messages.BYTE_ORDER)

    def signed(self, kind: int) -> int:
        """A u32 whose highest value means none: -1."""
        number = self.number(kind, 0xFFFFFFFF)
        return -1 if number > 0x7FFFFFFF else number

    def text(self, kind: int) -> str:
        return self.raw.get(kind, b"").split(b"\0")[0].decode("utf-8", "backslashreplace")

    def pair(self, kind: int, layout: str) -> tuple[int, int] | None:
        data = self.raw.get(kind)
        if data is None:
            return None
        if len(data) != struct.calcsize(layout):
            raise ValueError(f"a range of {len(data)} bytes in attribute {kind} of a rule")
        first, last = struct.unpack(layout, data)
        return first, last

    def ports(self, kind: int) -> Ports | None:
        """A range that begins with 0 is none (fib_rule_port_range_set)."""
        ports = self.pair(kind, "=HH")
        return ports if ports and ports[0] else None

    def prefix(self, kind: int, length: int, family: int) -> tuple[bytes, int] | None:
        if not length:
            return None
        address, size = self.raw.get(kind, b""), 4 if family == FAMILY_IP4 else 16
        if len(address) != size or length > 8 * size:
            raise ValueError(f"a prefix of {len(address)} bytes and length {length} in a rule")
        bits = int.from_bytes(address, "big") >> (8 * size - length) << (8 * size - length)
        return bits.to_bytes(size, "big"), length


def dump_request(family: int) -> tuple[int, bytes]:
    return messages.RTM_GETRULE, _HEADER.pack(AF_OF_FAMILY[family], 0, 0, 0, 0, 0, 0, 0, 0)


_DEFAULT_IP4 = tuple(
    Rule(FAMILY_IP4, priority, table=table) for priority, table in ((0, 255), (32766, 254), (32767, 253))
)


class RuleTable:
    """The rules of both families, in the kernel's order. Unknown until the first dump."""

    def __init__(self) -> None:
        self._rules: dict[int, tuple[Rule, ...]] = {}
        self.custom_ip4 = False
        """There have been other IPv4 rules than the default ones: the kernel then looks up every source, and goes on
        doing so (net/ipv4/fib_rules.c, fib_has_custom_rules)."""

    def get(self, family: int) -> tuple[Rule, ...] | None:
        """None: never dumped."""
        return self._rules.get(family)

    def replace(self, family: int, rules: tuple[Rule, ...]) -> bool:
        """True when something differs."""
        rules = tuple(sorted(rules, key=lambda rule: rule.priority))  # as they are in the kernel
        if self._rules.get(family) == rules:
            return False
        if family == FAMILY_IP4 and (family in self._rules or rules != _DEFAULT_IP4):
            self.custom_ip4 = True
        self._rules[family] = rules
        return True

    @property
    def name_interfaces(self) -> bool:
        """Some rule names an interface."""
        return any(rule.iif or rule.oif for rules in self._rules.values() for rule in rules)


# ---- for people

_TABLES = {255: "local", 254: "main", 253: "default"}
_ACTIONS = {NOP: "nop", BLACKHOLE: "blackhole", UNREACHABLE: "unreachable", PROHIBIT: "prohibit"}


def table_text(table: int) -> str:
    """As ip names it."""
    return _TABLES.get(table, str(table))


def text(rule: Rule) -> str:
    """As `ip rule` shows it: "from 10.0.0.0/8 iif lan lookup 100"."""
    words = [
        "not" if rule.inverted else "",
        f"from {_prefix_text(rule.source)}",
        f"to {_prefix_text(rule.destination)}" if rule.destination else "",
        _tos_text(rule),
        _masked_text("fwmark", rule.mark, rule.mark_mask, 0xFFFFFFFF, 0),
        f"iif {rule.iif}" if rule.iif else "",
        f"oif {rule.oif}" if rule.oif else "",
        f"uidrange {rule.uids[0]}-{rule.uids[1]}" if rule.uids else "",
        f"ipproto {rule.protocol}" if rule.protocol else "",
        _ports_text("sport", rule.source_ports, rule.source_port_mask),
        _ports_text("dport", rule.destination_ports, rule.destination_port_mask),
        f"tun_id {rule.tunnel}" if rule.tunnel else "",
        _masked_text("flowlabel", rule.flow_label, rule.flow_label_mask, 0xFFFFF, 0),
        *(f"attribute-{number}" for number in rule.strange),
        _action_text(rule),
        f"suppress_prefixlength {rule.suppress_length}" if rule.suppress_length >= 0 else "",
        f"suppress_ifgroup {rule.suppress_group}" if rule.suppress_group >= 0 else "",
    ]
    return " ".join(word for word in words if word)


def _prefix_text(prefix: tuple[bytes, int] | None) -> str:
    if prefix is None:
        return "all"
    address, length = prefix
    return f"{ipaddress.ip_address(address)}" + (f"/{length}" if length < 8 * len(address) else "")


def _tos_text(rule: Rule) -> str:
    if rule.tos_mask == _TOS_MASK[rule.family] and rule.tos and not rule.tos & ~_TOS_MASK[rule.family]:
        return f"tos {rule.tos:#x}"
    return _masked_text("dscp", rule.tos >> 2, rule.tos_mask >> 2, 0x3F, None)


def _masked_text(word: str, value: int, mask: int, whole: int, nothing: int | None) -> str:
    if not mask and (nothing is None or value == nothing):
        return ""
    return f"{word} {value:#x}" + (f"/{mask:#x}" if mask != whole else "")


def _ports_text(word: str, ports: Ports | None, mask: int) -> str:
    if not ports:
        return ""
    masked = f"/{mask:#x}" if mask not in (0, 0xFFFF) else ""
    return f"{word} {ports[0]}" + (f"-{ports[1]}" if ports[1] != ports[0] else masked)


def _action_text(rule: Rule) -> str:
    if rule.action == TO_TABLE:
        return "lookup [l3mdev-table]" if rule.l3mdev else f"lookup {table_text(rule.table)}"
    if rule.action == GOTO:
        return f"goto {rule.goto}"
    return ("l3mdev " if rule.l3mdev else "") + _ACTIONS.get(rule.action, f"action-{rule.action}")
