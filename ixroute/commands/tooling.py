"""What the parsers of fwd, pktgen and dump share: ports, waiting, cores, time."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ixroute.commands import parsing

if TYPE_CHECKING:
    from ixroute.tools.session import Wait

PORTS_HELP = """\
A port is written as for `ixroute run`: af_xdp:eth1, a PCI address like
0000:03:00.0, vfio-user:/run/card.sock. No router and no addresses are needed;
the port is this program's alone while it runs.
"""


def port(text: str) -> str:
    """argparse type: a port's spec."""
    from ixroute.config.checks import port_spec

    try:
        return str(port_spec(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def cores(text: str) -> tuple[int, ...]:
    """argparse type: cores, as `ixroute run --workers` takes them."""
    from ixroute.config.checks import parse_cores

    try:
        return parse_cores(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def burst(text: str) -> int:
    """argparse type: packets at a time."""
    value = parsing.positive(text)
    if value > 64:
        raise argparse.ArgumentTypeError(f"from 1 to 64 packets, not {text}")
    return value


def add_loop(parser: argparse.ArgumentParser) -> None:
    """Options of every loop."""
    parser.add_argument("--burst", type=burst, default=32, metavar="N", help="packets at a time (32)")
    parser.add_argument("--seconds", type=parsing.seconds, metavar="SEC", help="end after so long (Ctrl-C)")
    parser.add_argument(
        "--idle",
        metavar="US",
        default="50",
        help='microseconds to look in vain before sleeping (50); 0 sleeps at once, "poll" never sleeps',
    )


def wait_of(args: argparse.Namespace) -> Wait:
    """--idle."""
    from ixroute.errors import UsageError
    from ixroute.tools.session import NEVER_SLEEP, Wait

    if args.idle == "poll":
        return Wait(NEVER_SLEEP)
    if not args.idle.isascii() or not args.idle.isdigit() or int(args.idle) > 10_000_000:
        raise UsageError(f'--idle is {args.idle!r}: microseconds from 0 to 10000000, or "poll"')
    return Wait(int(args.idle) * 1000)
