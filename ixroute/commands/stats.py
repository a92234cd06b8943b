"""`ixroute stats`: where every packet went."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator

from ixroute.client import NotRunningError, request
from ixroute.commands import parsing
from ixroute.present import style_for
from ixroute.schema import Stats
from ixroute.stats_view import render

SAMPLE_SECONDS = 0.5

_DESCRIPTION = """\
Shows ports, verdicts with their reasons, workers, and how the tables stand.

The table's rates are measured over half a second; -r shows totals only, at
once. Bits are those of the frames, Ethernet header included, FCS and gaps not.
TO KERNEL and FROM KERNEL are packets through the port's interface. What each
reason means: docs/counters.md.
"""

_EXAMPLES = """\
  ixroute stats                    a table
  ixroute stats -w                 the same, every second; q or Ctrl-C ends it
  ixroute stats -j | jq '.ports[].dropped | with_entries(select(.value > 0))'
  ixroute stats -j -w 10 >> log.ndjson  one JSON object a line
  ixroute stats --prometheus > /var/lib/node_exporter/ixroute.prom
"""


def add(commands: parsing.Commands) -> None:
    """Adds the parser."""
    parser = parsing.new(
        commands,
        "stats",
        run,
        help="show where every packet went",
        description=_DESCRIPTION,
        examples=_EXAMPLES,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-j", "--json", action="store_true", help="totals as JSON (docs/stats-json.md)")
    form.add_argument("--prometheus", action="store_true", help="totals in Prometheus's text format")
    form.add_argument("-r", "--raw", action="store_true", help="a table of totals, without measuring rates")
    parser.add_argument(
        "-w",
        "--watch",
        metavar="SEC",
        nargs="?",
        const=1.0,
        type=parsing.seconds,
        help="again every SEC seconds (1)",
    )
    parsing.add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Prints once, or for ever."""

    def ask() -> Stats:
        stats: Stats = request(args.socket, "stats")
        return stats

    if args.json or args.prometheus:
        return _machine(args, ask)
    if args.watch is not None:
        return _watch(args, ask)
    before = None if args.raw else ask()
    if before is not None:
        time.sleep(SAMPLE_SECONDS)
    print("\n".join(render(ask(), before, style_for())))
    return 0


def _machine(args: argparse.Namespace, ask: Callable[[], Stats]) -> int:
    while True:
        stats = ask()
        if args.json:
            print(json.dumps(stats), flush=True)
        else:
            from ixroute import prometheus

            print(prometheus.render(stats), end="", flush=True)
        if args.watch is None:
            return 0
        time.sleep(args.watch)


def _watch(args: argparse.Namespace, ask: Callable[[], Stats]) -> int:
    """The table again and again: in place on a terminal, one below the other elsewhere. A daemon that goes
    away is waited for; one that is not there at the start is an error."""
    before: Stats | None = ask()
    in_place = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    with contextlib.suppress(KeyboardInterrupt), _keys() as quit_pressed:
        pause = min(SAMPLE_SECONDS, args.watch)
        while not quit_pressed(pause):
            pause = args.watch
            try:
                now = ask()
            except NotRunningError as error:
                before = None
                _draw([str(error), "waiting for it to come back"], in_place)
            else:
                _draw(render(now, None if args.raw else before, style_for()), in_place)
                before = now
    return 0


def _draw(lines: list[str], in_place: bool) -> None:
    if not in_place:
        print("\n".join(lines), end="\n\n", flush=True)
        return
    height = shutil.get_terminal_size().lines
    shown = lines if len(lines) < height else [*lines[: max(1, height - 2)], "... the rest does not fit"]
    # Home, each line cleared to its end, then everything below; no wrapping, so that long lines cost one row.
    body = "".join(f"{line}\x1b[K\n" for line in shown)
    print(f"\x1b[?7l\x1b[H{body}\x1b[J\x1b[?7h", end="", flush=True)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yields a function that waits so many seconds and says whether q was pressed meanwhile."""
    try:
        fd = sys.stdin.fileno()
        terminal = os.isatty(fd) and sys.stdout.isatty()
    except (OSError, ValueError):
        terminal = False
    if not terminal:
        yield _sleep
        return
    import termios
    import tty

    saved = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        print("\x1b[2J", end="")
        yield lambda seconds: _wait_for_q(fd, seconds)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _wait_for_q(fd: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([fd], [], [], left)[0]:
            break
        pressed = os.read(fd, 64)
        if not pressed or b"q" in pressed:
            return True
    return False
