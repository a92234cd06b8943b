"""./dev mutants [NAME…]: applies each mutation (all, or those whose names begin so) to a copy of the checkout, runs
the tests that could notice it, and says which did first: one of the room's own, else one of those in which the driver
runs on the emulated card. Exit code 1 when one survives.

    --list            names, and what each does not do
    --both            both kinds of tests are asked, so that one sees what each is good for (slow)
    --table FILE      writes the table of docs/mutations.md there (of a whole run)

Ctrl-C ends it; nothing in the checkout itself is changed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from mutations import Mutation, mutations
from mutations.copy import Copy, Verdict, Verdicts

TOP = Path(__file__).resolve().parents[2]


def chosen(names: list[str]) -> list[Mutation]:
    known = mutations()
    for name in names:
        if not any(mutation.name.startswith(name) for mutation in known):
            raise SystemExit(f"no mutation begins with {name!r}: `./dev mutants --list` names them")
    return [m for m in known if not names or any(m.name.startswith(name) for name in names)]


def words(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    return f"`{verdict.by}`{verdict.how}" if verdict.caught else "—"


def table(verdicts: list[tuple[Mutation, Verdicts]], both: bool) -> str:
    heads = [
        "mutation",
        "what it does not do",
        *(["the room's tests", "the driver on the card"] if both else ["caught by"]),
    ]
    rows = [heads, ["---"] * len(heads)]
    for mutation, found in verdicts:
        said = [found.unit, found.model] if both else [found.unit if found.unit.caught else found.model]
        rows.append([f"`{mutation.name}`", mutation.sheet, *map(words, said)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--both", action="store_true")
    parser.add_argument("--table", type=Path, metavar="FILE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the copy goes with it
    wanted = chosen(options.names)
    if options.list:
        for mutation in wanted:
            print(f"{mutation.name:34} {mutation.sheet}")
        return 0
    for mutation in wanted:
        mutation.apply((TOP / "ixroute" / mutation.file).read_text())  # before an hour has passed
    verdicts: list[tuple[Mutation, Verdicts]] = []
    with Copy(TOP) as copy:
        copy.check(sorted({mutation.room for mutation in wanted}))
        for mutation in wanted:
            began = time.monotonic()
            found = copy.judge(mutation, options.both)
            verdicts.append((mutation, found))
            by = [f"{v.by}{v.how}" for v in (found.unit, found.model) if v and v.caught]
            said = "CAUGHT by " + " and ".join(by) if by else "SURVIVED"
            print(f"{mutation.name:34} {said} ({time.monotonic() - began:.0f} s)", flush=True)
            if options.table:
                options.table.write_text(table(verdicts, options.both))
    survived = [mutation.name for mutation, found in verdicts if not found.caught]
    print(
        f"{len(verdicts) - len(survived)} of {len(verdicts)} caught"
        + "".join(f"; {n} survived" for n in survived)
    )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
