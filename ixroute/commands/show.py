"""`ixroute show`: what the daemon knows, as tables or JSON."""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import json
import sys
from collections.abc import Iterator

from ixroute.client import pages, request
from ixroute.commands import parsing
from ixroute.errors import UsageError
from ixroute.present import count, style_for
from ixroute.schema import Route
from ixroute.show_view import TABLES

DEFAULT_LIMIT = 1000

_DESCRIPTION = """\
Shows what the daemon knows.

  ports        devices, their interfaces and links
  routes       what the kernel has told of; * marks what packets see
  neighbors    next hops and hosts on the ports' interfaces
  adjacencies  what a lookup yields: where a packet goes, or why it does not
  workers      threads and their cores
  rules        policy rules (ip rule), and what packets look up for them
"""

_EXAMPLES = f"""\
  ixroute show ports
  ixroute show routes              the first {DEFAULT_LIMIT}
  ixroute show routes -6 --prefix 2001:db8::/32
  ixroute show routes --all -j | jq length
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands,
        "show",
        run,
        help="show ports, routes, neighbors, adjacencies, workers, rules",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument("what", choices=sorted(TABLES), metavar="WHAT", help="|".join(TABLES))
    parsing.add_json(parser)
    parsing.add_socket(parser)
    routes = parser.add_argument_group("routes only")
    family = routes.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, default=0, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")
    routes.add_argument("--prefix", metavar="PREFIX", type=_prefix, help="this prefix and all within")
    much = routes.add_mutually_exclusive_group()
    much.add_argument(
        "--limit", metavar="N", type=parsing.positive, default=DEFAULT_LIMIT, help="at most N (%(default)s)"
    )
    much.add_argument("--all", action="store_true", help="every one")


def _prefix(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    """Prints one kind of thing."""
    if args.what != "routes" and (args.family or args.prefix or args.all or args.limit != DEFAULT_LIMIT):
        raise UsageError(
            f"-4, -6, --prefix, --limit and --all are for routes, not {args.what}: leave them out"
        )
    if args.what == "routes":
        return _routes(args)
    found = request(args.socket, args.what)
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(TABLES[args.what](found, style_for())))
    return 0


def _routes(args: argparse.Namespace) -> int:
    """Page by page, so that a full table needs the memory of one page only."""
    limit = None if args.all else args.limit
    # One more than asked for tells whether there are more.
    asked = None if limit is None else limit + 1
    entries = pages(args.socket, "routes", "routes", asked, family=args.family, prefix=args.prefix or "")
    printed = (_print_json if args.json else _print_table)(itertools.islice(entries, limit))
    sys.stdout.flush()
    if next(entries, None) is not None:
        print(f"ixroute: the first {count(printed)} only; --all shows every one", file=sys.stderr)
    return 0


def _print_json(routes: Iterator[Route]) -> int:
    """One array, one route a line."""
    printed = 0
    for route in routes:
        print(",\n" if printed else "[", json.dumps(route), sep="", end="")
        printed += 1
    print("]" if printed else "[]")
    return printed


def _print_table(routes: Iterator[Route]) -> int:
    """Each thousand has its own widths of columns, and a head."""
    printed = 0
    while (some := list(itertools.islice(routes, 1000))) or not printed:
        print("\n".join(TABLES["routes"](some, style_for())))
        printed += len(some)
        if len(some) < 1000:
            break
    return printed
