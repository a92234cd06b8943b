"""`ixroute doctor`: what stands in the router's way, and what mends it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ixroute.commands import parsing
from ixroute.config import DEFAULT_PATH, Config, ConfigError, Flags, load, with_flags
from ixroute.present import Style, style_for

if TYPE_CHECKING:
    from ixroute.doctor import Finding

_DESCRIPTION = f"""\
Looks at this machine and says what would stop or slow the router, with the
command that mends each. Changes nothing. Checks the ports of the configuration
({DEFAULT_PATH} when that exists), or those given here. Works
without privilege, but then sees less; in a network namespace it looks at that
namespace.

  OK    as it should be
  NOTE  good to know
  WARN  slower than it could be, or surprising
  FAIL  the router would not start, or not route: exit code 1
"""

_EXAMPLES = """\
  ixroute doctor
  ixroute doctor --port wan0=af_xdp:eth1
  ixroute doctor -j | jq '.findings[] | select(.level == "fail")'
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands,
        "doctor",
        run,
        help="what on this machine stands in the way",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="TOML file")
    parser.add_argument(
        "-p",
        "--port",
        metavar="NAME=SPEC",
        action="append",
        default=[],
        help="a port to check; may be given again",
    )
    parser.add_argument("-w", "--workers", metavar="CORES", help="cores that carry a worker each")
    parsing.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 1 when one is a FAIL."""
    from ixroute.doctor import FAIL, Machine, examine

    config, findings = configuration(args)
    findings += examine(Machine(), config)
    if args.json:
        print(json.dumps({"schema": 1, "findings": [asdict(finding) for finding in findings]}))
    else:
        print("\n".join(render(findings, style_for())))
    return int(any(finding.level == FAIL for finding in findings))


def configuration(args: argparse.Namespace, default: Path = DEFAULT_PATH) -> tuple[Config, list[Finding]]:
    """The configuration, and what is wrong with it: a faulty file is a finding like any other, faulty flags
    are a mistake of this command."""
    from ixroute.doctor import FAIL, NOTE, OK, Finding

    path = args.config if args.config is not None else default if default.exists() else None
    found: list[Finding] = []
    config = Config()
    if path is None:
        found.append(Finding("config", NOTE, f"no {default}", f"ixroute config example > {default}"))
    else:
        try:
            config = load(path)
            found.append(Finding("config", OK, f"{path} is in order"))
        except ConfigError as error:
            found += [Finding("config", FAIL, str(fault), f"edit {path}") for fault in error.faults]
    return with_flags(config, Flags(ports=tuple(args.port), workers=args.workers)), found


def render(findings: Sequence[Finding], style: Style) -> list[str]:
    """One line each, the fix below it; a summary at the end."""
    paint = {"ok": style.green, "note": style.dim, "warn": style.yellow, "fail": style.red}
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        level = paint[finding.level](finding.level.upper().ljust(4))
        lines.append(f"{level}  {finding.check.ljust(width)}  {finding.text}")
        if finding.fix:
            lines.append(f"{' ' * (width + 8)}-> {finding.fix}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("fail", "warn")}
    if counts["fail"]:
        end = "ixroute would not run, or not route: mend what is marked FAIL"
    elif counts["warn"]:
        end = "ixroute would run; what is marked WARN makes it slower or behave unlike you might expect"
    else:
        end = "nothing stands in the way"
    return [*lines, "", end]
