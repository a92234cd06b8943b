"""Who may know whom: the rooms' arrows, read from imports and #includes.

A room not in the table below belongs to the command and its composition: it may use any room, and nobody of
the table may use it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import PACKAGE, files, name

ARROWS = {
    "driver": {"vfio_user"},
    "vfio_user": set(),
    "fib": set(),
    "tap": {"driver"},
    "netlink": {"fib"},
    "forward": {"driver", "fib", "tap"},
    "emulator": {"vfio_user"},
    "tools": {"driver"},
    "demo": {"client", "schema"},
}
EVERYBODY_MAY_USE = {"_dataplane", "errors"}
MAY_IMPORT_ROUTER = {"ixroute/commands/run.py"}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").removesuffix(".c").removesuffix(".h")


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) for every import of this package, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "ixroute" and len(parts) > 1:
                yield node.lineno, parts[1]


def included_rooms(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := re.match(r'#\s*include\s+"([^"]+)"', line):
            first, _, rest = match[1].partition("/")
            yield number, first if rest else room_of(path)


def used_rooms(path: Path) -> Iterator[tuple[int, str]]:
    return imported_rooms(path) if path.suffix == ".py" else included_rooms(path)


SOURCES = list(files(".py", ".c", ".h", under=PACKAGE))


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) in ARROWS], ids=name)
def test_a_room_uses_only_what_its_arrows_point_to(path: Path) -> None:
    room = room_of(path)
    allowed = ARROWS[room] | EVERYBODY_MAY_USE | {room}
    wrong = [
        f"{name(path)}:{line}: {room} -> {used}" for line, used in used_rooms(path) if used not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_router_but_the_command_that_runs_it() -> None:
    wrong = [
        f"{name(path)}:{line}"
        for path in files(".py", under=PACKAGE)
        if room_of(path) != "router" and name(path) not in MAY_IMPORT_ROUTER
        for line, used in imported_rooms(path)
        if used == "router"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_with_c_in_it_has_its_arrows_in_the_table() -> None:
    rooms = {room_of(path) for path in files(".c", under=PACKAGE) if path.parent != PACKAGE}
    assert rooms <= ARROWS.keys()
