"""What the commands' parsers share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

Commands = Any  # argparse's _SubParsersAction, which has no public name


def new(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,  # noqa: A002 (argparse's name for it)
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """A command's parser: `help` is its line in the list of commands, the rest its own help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_socket(parser: argparse.ArgumentParser) -> None:
    """-s: which daemon to ask."""
    from ixroute.config.sections import DEFAULT_SOCKET

    parser.add_argument(
        "-s",
        "--socket",
        metavar="PATH",
        default=DEFAULT_SOCKET,
        help="control socket of the daemon to ask (default: %(default)s)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """-j: for programs."""
    parser.add_argument("-j", "--json", action="store_true", help="print JSON (docs/stats-json.md)")


def seconds(text: str) -> float:
    """argparse type: a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"seconds from 0.1 to 86400, not {text!r}")
    return value


def positive(text: str) -> int:
    """argparse type: a positive whole number."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"a positive whole number, not {text!r}")
    return int(text)


def mac(text: str) -> bytes:
    """argparse type: a MAC address."""
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        raise argparse.ArgumentTypeError(f"a MAC address like 02:00:00:00:00:01, not {text!r}")
    return bytes.fromhex(text.replace(":", ""))
