"""No packet makes the hash read outside of it, and no group is freed under a reader: multipath_memory.c, sanitized."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[2] / "ixroute"
ROUNDS = int(os.environ.get("IXROUTE_MULTIPATH_ROUNDS", "100000"))


def test_nonsense_stays_within_its_packet_and_groups_within_their_time(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed: the package is built with one"
    program = tmp_path / "memory"
    sources = ["fib/adjacency.c", "forward/flow.c", "forward/multipath.c"]
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", f"-I{PACKAGE}", "-pthread"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
    built = subprocess.run(
        [compiler, *flags, "-o", program, HERE / "multipath_memory.c", *(PACKAGE / name for name in sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [program, str(ROUNDS)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"ASAN_OPTIONS": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.fullmatch(r"hashed (\d+) sum \d+\nchosen (\d+) retired (\d+)\n", done.stdout)
    assert said, done.stdout
    assert int(said[1]) == ROUNDS
    assert int(said[2]) > 0, "the reader never met a group"
    assert int(said[3]) == 0, "a reader that ended holds nothing"
