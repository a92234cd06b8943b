"""What the RIB does when the FIB refuses, and when readers hold path ids back: rib_refusals.c, case by case.

A real FIB refuses only when memory ends, so the RIB's own sources are compiled here around one that does
as told, under the sanitizers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE / "rib_refusals.c"
PACKAGE = HERE.parents[2] / "ixroute"
CASES = re.findall(r"^\tCASE\((\w+)\),$", SOURCE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed: the package is built with one"
    out = tmp_path_factory.mktemp("rib") / "refusals"
    sources = [SOURCE, PACKAGE / "fib/path.c", *sorted((PACKAGE / "fib").glob("rib*.c"))]
    flags = [
        "-std=gnu11",
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
    ]
    built = subprocess.run(
        [compiler, *flags, f"-I{PACKAGE}", "-o", out, *sources], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return out


@pytest.mark.parametrize("case", CASES)
def test_refusals(program: Path, case: str) -> None:
    done = subprocess.run(
        [program, case], capture_output=True, text=True, timeout=30, check=False, env={"ASAN_OPTIONS": ""}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_cases() -> None:
    assert len(CASES) > 5
