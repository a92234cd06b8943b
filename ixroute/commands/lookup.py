"""`ixroute lookup`: what a packet to an address meets."""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Callable

from ixroute.client import request
from ixroute.commands import parsing
from ixroute.present import Style, style_for
from ixroute.schema import Adjacency, GroupLeg, Lookup
from ixroute.show_view import TABLE_NAMES, group_title, legs_text, protocol_name, share_text, table_name

_DESCRIPTION = """\
Says what becomes of a packet to ADDR: which prefix it matches, by which next
hop and port it leaves, or why the kernel gets it. The answer is that of the
tables the packets see, not the kernel's; compare with `ip route get ADDR`.
Of several next hops, all are named with their share of the flows.

Policy rules (ip rule) are asked as for a packet that comes in by --iif, else by
a port that no rule names, with the source, TOS, protocol and ports given.
"""

_EXAMPLES = """\
  ixroute lookup 192.0.2.7
  ixroute lookup 2001:db8::7 -j
  ixroute lookup 192.0.2.7 --iif lan0 --from 10.0.0.5
  ixroute lookup 192.0.2.7 --table 100
"""

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands,
        "lookup",
        run,
        help="what a packet to an address meets",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument("address", metavar="ADDR", type=_address, help="an IPv4 or IPv6 address")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--iif", metavar="PORT", help="as a packet that comes in by this interface")
    where.add_argument("--vrf", metavar="NAME", help="in this VRF's table alone")
    where.add_argument("--table", metavar="TABLE", type=_table, help="in one table alone: a number or a name")
    packet = parser.add_argument_group("what rules may ask of a packet")
    packet.add_argument("--from", dest="source", metavar="ADDR", type=_address, help="its source")
    packet.add_argument(
        "--tos", metavar="TOS", type=_number(0xFF), help="byte of DSCP and ECN, or traffic class"
    )
    packet.add_argument("--protocol", metavar="PROTOCOL", type=_protocol, help="tcp, udp, … or a number")
    packet.add_argument("--sport", metavar="PORT", type=_number(0xFFFF), help="source port")
    packet.add_argument("--dport", metavar="PORT", type=_number(0xFFFF), help="destination port")
    parsing.add_json(parser)
    parsing.add_socket(parser)


def _number(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text, 0)
        except ValueError:
            number = -1
        if not 0 <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number, at most {most}")
        return number

    return parse


def _protocol(text: str) -> int:
    return _PROTOCOLS[text] if text in _PROTOCOLS else _number(0xFF)(text)


def _table(text: str) -> int:
    numbers = {name: number for number, name in TABLE_NAMES.items()}
    return numbers[text] if text in numbers else _number(0xFFFFFFFF)(text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} (an address, not a name or a prefix)") from None


def run(args: argparse.Namespace) -> int:
    """Prints the answer."""
    names = {
        "from": "source",
        **{name: name for name in ("iif", "vrf", "table", "tos", "protocol", "sport", "dport")},
    }
    given = {key: value for key, name in names.items() if (value := getattr(args, name)) is not None}
    found: Lookup = request(args.socket, "lookup", address=args.address, **given)
    print(json.dumps(found) if args.json else "\n".join(render(found, style_for())))
    return 0


def render(found: Lookup, style: Style) -> list[str]:
    """The answer in lines."""
    adjacency, route, program = found["adjacency"], found["route"], found.get("program", [])
    verdict = found["verdict"] if found["verdict"] == "forward" else f"{found['verdict']}: {found['reason']}"
    lines = [f"{found['address']}  {style.bold(verdict)}"]
    if found.get("text"):
        lines.append(f"  because    {found['text']}")
    if len(program) > 1:
        step = found.get("step", -1)
        decided = f"{program[step]} (step {step + 1} of {len(program)})" if step >= 0 else "none has a route"
        lines.append(f"  rules      {decided}")
    if route is None:
        lines.append("  route      none")
    else:
        kind = f"{route['type']} " if route["type"] != "unicast" else ""
        where = f"table {table_name(route['table'])}, metric {route['metric']}"
        lines.append(f"  route      {kind}{route['prefix']} ({where}, by {protocol_name(route['protocol'])})")
        if route["legs"]:
            lines.append(f"  next hop   {legs_text(route['legs'])}")
    if found["neighbor"]:
        lines.append(f"  neighbour  {found['prefix']}, under that route")
    if adjacency["port"]:
        mac = adjacency["mac"] or "MAC not known"
        way = f"port {adjacency['port']}, to {mac}, MTU {adjacency['mtu']}"
    else:
        way = group_title(adjacency) if adjacency["group"] else adjacency["action"]
    lines.append(f"  adjacency  {adjacency['index']}: {way}")
    return lines + [f"    {_leg_line(adjacency, leg)}" for leg in adjacency["group"]]


def _leg_line(adjacency: Adjacency, leg: GroupLeg) -> str:
    share = share_text(adjacency, leg)
    forwards = leg["action"] == "forward"
    way = f"port {leg['port']}, to {leg['mac']}, MTU {leg['mtu']}" if forwards else leg["action"]
    return f"via {leg['gateway']} dev {leg['dev']} ({share}): {way}"
