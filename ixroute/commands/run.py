"""`ixroute run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
from pathlib import Path

from ixroute.commands import parsing
from ixroute.config import DEFAULT_PATH, LOG_LEVELS, Config, ConfigError, Fault, Flags, load, with_flags

_DESCRIPTION = f"""\
Runs the router in the foreground until SIGTERM or Ctrl-C.

Each port takes a device and shows it to the kernel as an interface of the name
you choose. Addresses and routes are set on that interface with ip; they stay
when the daemon stops. SIGHUP reads the configuration and the kernel's tables
again. Under systemd: extra/systemd/ixroute.service.

The configuration is {DEFAULT_PATH} when that exists. Flags are laid
over it: a --port of a name that the file has replaces its device.
"""

_EXAMPLES = """\
  ixroute run --port wan0=af_xdp:eth1 --port lan0=af_xdp:eth2
  ixroute run --port wan0=0000:03:00.0 --port lan0=0000:03:00.1
  ixroute run --config ./lab.toml --workers 2-3 --log-level debug
  ixroute run --port p0=af_xdp:veth0 --socket /run/lab.sock
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands, "run", run, help="run the router", description=_DESCRIPTION, examples=_EXAMPLES
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, help="TOML file (ixroute config example)"
    )
    parser.add_argument(
        "-p",
        "--port",
        metavar="NAME=SPEC",
        action="append",
        default=[],
        help="a port: the interface's name and the device, like wan0=af_xdp:eth1, wan0=0000:03:00.0,"
        " wan0=vfio-user:/run/card.sock; may be given again",
    )
    parser.add_argument(
        "-w", "--workers", metavar="CORES", help="cores that carry a worker each, like 2 or 1,2-3"
    )
    parser.add_argument(
        "--force-id",
        metavar="[NAME=]ID",
        action="append",
        default=[],
        help="drive a PCI card (of port NAME; else every one) as if this were its device id, like 10fb",
    )
    parser.add_argument("-s", "--socket", metavar="PATH", help="path of the control socket")
    parser.add_argument("--log-level", choices=LOG_LEVELS, help="least important line to write")


def run(args: argparse.Namespace) -> int:
    """Runs the router; returns its exit code."""
    config = configuration(args)
    from ixroute import log
    from ixroute.router import Router

    log.setup(config.log.level)
    code: int = Router(config).run()
    return code


def configuration(args: argparse.Namespace, default: Path = DEFAULT_PATH) -> Config:
    """What file and flags say together. ConfigError when that is wrong, or names no port."""
    flags = Flags(tuple(args.port), args.workers, args.socket, args.log_level, tuple(args.force_id))
    path = args.config if args.config is not None else default if default.exists() else None
    config = with_flags(load(path) if path is not None else Config(), flags)
    if not config.ports:
        where = str(path) if path is not None else "no ports"
        raise ConfigError(
            [Fault(where, 0, "", "name a port: --port wan0=af_xdp:eth1, or [ports.wan0] in a file")]
        )
    return config
