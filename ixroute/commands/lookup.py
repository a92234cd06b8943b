"""`ixroute lookup`: what a packet to an address meets."""

from __future__ import annotations

import argparse
import ipaddress
import json

from ixroute.client import request
from ixroute.commands import parsing
from ixroute.present import Style, style_for
from ixroute.schema import Adjacency, GroupLeg, Lookup
from ixroute.show_view import group_title, legs_text, protocol_name, share_text, table_name

_DESCRIPTION = """\
Says what becomes of a packet to ADDR: which prefix it matches, by which next
hop and port it leaves, or why the kernel gets it. The answer is that of the
table the packets see, not the kernel's; compare with `ip route get ADDR`.
Of several next hops, all are named with their share of the flows.
"""

_EXAMPLES = """\
  ixroute lookup 192.0.2.7
  ixroute lookup 2001:db8::7 -j
"""


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
    parsing.add_json(parser)
    parsing.add_socket(parser)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} (an address, not a name or a prefix)") from None


def run(args: argparse.Namespace) -> int:
    """Prints the answer."""
    found: Lookup = request(args.socket, "lookup", address=args.address)
    print(json.dumps(found) if args.json else "\n".join(render(found, style_for())))
    return 0


def render(found: Lookup, style: Style) -> list[str]:
    """The answer in lines."""
    adjacency, route = found["adjacency"], found["route"]
    verdict = found["verdict"] if found["verdict"] == "forward" else f"{found['verdict']}: {found['reason']}"
    lines = [f"{found['address']}  {style.bold(verdict)}"]
    if found.get("text"):
        lines.append(f"  because    {found['text']}")
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
