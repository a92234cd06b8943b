"""`ixroute`: reads the command line, runs one command, turns trouble into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ixroute import __version__
from ixroute.client import NotRunningError
from ixroute.commands import (
    ask,
    bind,
    config,
    demo,
    devices,
    doctor,
    dump,
    emulate,
    fwd,
    lookup,
    pktgen,
    run,
    show,
    stats,
)
from ixroute.config import ConfigError
from ixroute.errors import UsageError, UserError

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_INTERRUPTED = 130

_COMMANDS = (run, stats, show, lookup, doctor, config, ask, devices, bind, demo, emulate, fwd, pktgen, dump)

_DESCRIPTION = """\
A router for one Linux machine. Its ports are driven from user space; its
control plane is the kernel: each port appears as an interface, and what you
set on that interface with ip, FRR or BIRD is what ixroute forwards by.
"""

_EPILOG = """\
first steps:
  ixroute demo                     watch it route, then clean up
  ixroute doctor                   what on this machine stands in its way
  ixroute run --port wan0=af_xdp:eth1 --port lan0=af_xdp:eth2
  ip addr add 192.0.2.1/24 dev wan0    (the rest is plain ip)

exit codes:
  0  done
  1  it did not work (one line on standard error says why and what to do)
  2  the command line or the configuration is wrong
  3  no daemon answers

`ixroute COMMAND --help` explains each command with examples.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="ixroute",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ixroute {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code and never raises."""
    try:
        args = build_parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except SystemExit as error:  # argparse: 0 after --help, 2 after a mistake
        return error.code if isinstance(error.code, int) else EXIT_USAGE
    except ConfigError as error:
        return _fail(EXIT_USAGE, *map(str, error.faults))
    except NotRunningError as error:
        return _fail(EXIT_NOT_RUNNING, str(error))
    except UsageError as error:
        return _fail(EXIT_USAGE, str(error))
    except UserError as error:
        return _fail(EXIT_ERROR, str(error))
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        return _fail(EXIT_ERROR, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return code


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print("ixroute:", " ".join(line.splitlines()), file=sys.stderr)
    return code
