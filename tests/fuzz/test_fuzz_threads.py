"""Worker, door and the tables' writer as threads under the thread sanitizer: no race, and no wake-up is lost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "ixroute"
ROUNDS = 20_000
SOURCES = [
    HERE / "threads.c",
    *(PACKAGE / "driver" / name for name in ("frame.c", "memport.c")),
    *sorted((PACKAGE / "forward").glob("*.c")),
    PACKAGE / "tap" / "door.c",
    *(path for path in sorted((PACKAGE / "fib").glob("*.c")) if path.name != "lookup.c"),
]
# Lookups are not watched: a reader reaches a node through the slot it loaded, which the sanitizer does not know for
# an order; and what it calls a race, the new generation tells the reader of.
UNWATCHED = PACKAGE / "fib" / "lookup.c"


def built(directory: Path) -> Path:
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed: the package is built with one"
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wno-tsan", f"-I{PACKAGE}"]
    lookup, program = directory / "lookup.o", directory / "threads"
    for command in (
        [compiler, *flags, "-c", UNWATCHED, "-o", lookup],
        [compiler, *flags, "-fsanitize=thread", "-o", program, *SOURCES, lookup, "-lpthread"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "cannot find" in done.stderr and "tsan" in done.stderr:
            pytest.skip("no thread sanitizer with this compiler")
        assert done.returncode == 0, done.stderr
    return program


def test_threads_do_not_race_and_no_wake_up_is_lost(tmp_path: Path) -> None:
    done = subprocess.run(
        [built(tmp_path), str(ROUNDS)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"TSAN_OPTIONS": "halt_on_error=1"},
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run under this kernel's address space layout")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    said = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert said["rounds"] == ROUNDS
    assert said["sleeps"] > ROUNDS // 10, "nobody slept, so nobody was woken"
    # One may have met a machine that stood still; half a second is what a lost wake-up costs.
    assert said["late"] <= 1, done.stdout
