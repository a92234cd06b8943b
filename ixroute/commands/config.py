"""`ixroute config`: check, show, example."""

from __future__ import annotations

import argparse
from pathlib import Path

from ixroute.commands import parsing
from ixroute.config import DEFAULT_PATH, Config, load
from ixroute.present import count

_DESCRIPTION = f"""\
Works on configuration files, without a daemon.

  check    reads FILE and tells all that is wrong, by file, line and key
  show     prints FILE with all defaults filled in
  example  prints a file with every key, explained, at its default

FILE is {DEFAULT_PATH} unless given.
"""

_EXAMPLES = """\
  ixroute config check ./lab.toml && systemctl reload ixroute
  ixroute config show
  ixroute config example > /etc/ixroute/ixroute.toml
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands,
        "config",
        run,
        help="check or show a configuration file",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "action", choices=("check", "show", "example"), metavar="ACTION", help="check|show|example"
    )
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, default=DEFAULT_PATH, help="TOML file")


def run(args: argparse.Namespace) -> int:
    """Prints; a faulty file is a ConfigError."""
    from ixroute.config import text

    if args.action == "example":
        print(text.example(), end="")
    elif args.action == "show":
        print(text.show(load(args.file)), end="")
    else:
        print(f"{args.file}: ok: {summary(load(args.file))}")
    return 0


def summary(config: Config) -> str:
    """What the file sets, in a line."""
    ports = ", ".join(f"{port.name} = {port.spec}" for port in config.ports) or "no ports"
    cores = config.workers.cores
    workers = f"workers on cores {','.join(map(str, cores))}" if cores else "one worker"
    frames = f"{count(config.memory.frames)} frames" if config.memory.frames else "frames as needed"
    return f"{ports}; {workers}; {frames}"
