"""`ixroute reload` and `ixroute resync`: things a running daemon can be asked to do."""

from __future__ import annotations

import argparse

from ixroute.client import request
from ixroute.commands import parsing
from ixroute.schema import Done

_RELOAD = """\
Makes the daemon read its configuration file again, and then the kernel's
tables; the same as SIGHUP or `systemctl reload ixroute`. The log tells the
outcome; a file that is wrong changes nothing (`ixroute config check`).
"""

_RESYNC = """\
Makes the daemon read the kernel's tables again and mend what differs. It does
so by itself whenever it could have missed something; `drift` in `ixroute stats`
counts what such a dump found different.
"""


def add(commands: parsing.Commands) -> None:
    """Adds both parsers."""
    for name, text, description in (
        ("reload", "read the configuration again", _RELOAD),
        ("resync", "read the kernel's tables again", _RESYNC),
    ):
        parser = parsing.new(
            commands, name, run, help=text, description=description, examples=f"  ixroute {name}\n"
        )
        parsing.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Asks, and prints what the daemon says."""
    done: Done = request(args.socket, args.command, timeout=60.0)
    print(done["text"])
    return 0
