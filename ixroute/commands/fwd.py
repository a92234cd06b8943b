"""`ixroute fwd`: a forwarder between two ports."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ixroute.commands import parsing, tooling
from ixroute.present import count, rate

if TYPE_CHECKING:
    from ixroute.tools.fwd import Way

_DESCRIPTION = f"""\
Sends what comes in by one port out by the other, unchanged, both ways. It shows
what cards, rings and this machine can do before any routing is done.

{tooling.PORTS_HELP}"""

_EXAMPLES = """\
  ixroute fwd 0000:03:00.0 0000:03:00.1
  ixroute fwd af_xdp:eth1 af_xdp:eth2 --cores 2,3 --idle poll
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands, "fwd", run, help="forward between two ports", description=_DESCRIPTION, examples=_EXAMPLES
    )
    parser.add_argument("port", nargs=2, type=tooling.port, metavar="PORT", help="like af_xdp:eth1")
    parser.add_argument(
        "--cores", type=tooling.cores, default=(), metavar="CORES", help="a thread on each, like 1,2-3"
    )
    tooling.add_loop(parser)


def run(args: argparse.Namespace) -> int:
    """Forwards until told to stop."""
    from ixroute.driver.port import PortError
    from ixroute.errors import UserError
    from ixroute.tools import fwd

    before: list[int] = [0, 0]

    def report(ways: list[Way], elapsed: float) -> None:
        for i, way in enumerate(ways):
            print(
                f"{elapsed:6.0f} s  {way.name}: {rate(way.tx_packets - before[i])} packets/s,"
                f" {count(way.dropped)} dropped",
                flush=True,
            )
            before[i] = way.tx_packets

    try:
        ways = fwd.run(
            tuple(args.port), cores=args.cores, burst=args.burst, wait=tooling.wait_of(args),
            seconds=args.seconds, report=report,
        )  # fmt: skip
    except (PortError, MemoryError, ValueError) as error:
        raise UserError(str(error)) from error
    for way in ways:
        print(
            f"{way.name}: {count(way.rx_packets)} in ({count(way.rx_bytes)} bytes),"
            f" {count(way.tx_packets)} out, {count(way.dropped)} dropped"
        )
    return 0
