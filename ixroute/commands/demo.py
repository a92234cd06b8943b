"""`ixroute demo`: a router between two namespaces, on this machine, now."""

from __future__ import annotations

import argparse

from ixroute.commands import parsing

_DESCRIPTION = """\
Makes three network namespaces, client - router - server, puts two emulated
Intel 82599 cards into the middle one and runs the real daemon on them with its
own driver, sets addresses and routes with ip, then pings, traces and sends TCP
and UDP through it, and shows `ixroute stats`. Needs root. Nothing outside those
namespaces is touched, and they are removed whatever happens, unless you keep
them.
"""

_EXAMPLES = """\
  ixroute demo
  ixroute demo --keep             leave it running, and say what to try next
  ixroute demo --stop             end and remove what --keep left
  ixroute demo --port af_xdp:     on veth pairs through AF_XDP, instead of cards
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands,
        "demo",
        run,
        help="see it route between namespaces",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--keep", action="store_true", help="leave everything running at the end")
    choice.add_argument("--stop", action="store_true", help="end and remove what --keep left")
    parser.add_argument(
        "--port",
        choices=("vfio-user:", "af_xdp:"),
        default="vfio-user:",
        help="what the router drives: emulated 82599 cards (%(default)s) or veth pairs (af_xdp:)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="only the verdict of each step")


def run(args: argparse.Namespace) -> int:
    """Runs the demonstration."""
    from ixroute import demo

    if args.stop:
        return demo.stop()
    code: int = demo.run(keep=args.keep, quiet=args.quiet, ports=args.port)
    return code
