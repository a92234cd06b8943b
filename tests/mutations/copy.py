"""A copy of the checkout, built, in which one mutation at a time is made and judged."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mutations import Mutation

TEST_SECONDS = 60
RUN_SECONDS = 600.0
LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv*", "build*", "__pycache__", ".*_cache", ".hypothesis", "*.so"
)
SUITES = {
    "emulator": ("test_engine_*.py", "test_model_*.py"),
    "driver": ("test_ixgbe_*.py", "test_doorbell*.py"),
}
"""Of each room under tests/unit: the others have nothing to do with the card."""
NEAREST = {
    "card.py": "test_model_packets.py",
    "behaviours.py": "test_model_reset.py",
    "registers.py": "test_model_registers.py",
    "eeprom.py": "test_model_eeprom.py",
    "link.py": "test_model_link.py",
    "card_irq.c": "test_engine_irq.py",
    "card_rx.c": "test_engine_rx.py",
    "rx_deliver.c": "test_engine_rx.py",
    "card_state.h": "test_engine_rx.py",
    "card_stats.c": "test_engine_rx.py",
    "card_tx.c": "test_engine_tx.py",
    "tx_descriptor.c": "test_engine_tx.py",
    "tx_offload.c": "test_engine_tx.py",
    "tso.c": "test_engine_tx.py",
    "rss.c": "test_engine_filters.py",
    "filter.c": "test_engine_filters.py",
    "dma.c": "test_engine_dma.py",
    "ring.c": "test_ixgbe_ring.py",
    "ring_life.c": "test_ixgbe_ring.py",
}
"""The suite that is likeliest to notice a change of the file: it comes first, which saves time and decides nothing."""


@dataclass(frozen=True)
class Verdict:
    """What one set of tests says of a mutant."""

    caught: bool
    node: str = ""
    """The first test that failed, as pytest names it, without its parameters."""
    how: str = ""
    """" (hangs)" and the like, when it did not simply fail."""

    @property
    def by(self) -> str:
        """For people: names of files are unique."""
        return self.node.rpartition("/")[2]


@dataclass(frozen=True)
class Verdicts:
    unit: Verdict
    """Of the room's own tests."""
    model: Verdict | None
    """Of those in which our driver runs on the emulated card; None: they were not asked."""

    @property
    def caught(self) -> bool:
        return self.unit.caught or (self.model is not None and self.model.caught)


class MutantError(Exception):
    """The list or the copy is at fault, not a mutant."""


class Copy:
    """The checkout's files with a build and an environment of their own, in a temporary directory that goes with it.

    The environment has the packages of the one that runs this, but the copy in place of the editable install.
    """

    def __init__(self, top: Path) -> None:
        self._undo = contextlib.ExitStack()
        self._place = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="ixroute-mutants-")))
        self.top = self._place / "checkout"
        shutil.copytree(top, self.top, ignore=LEFT_BEHIND)
        self._python = self._environment()
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        self._environ = {
            **os.environ,
            "PATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": "",
        }
        self._run("meson", "setup", "-Dbuildtype=debugoptimized", "build")
        self._build()

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _environment(self) -> Path:
        where = self._place / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True)
        (packages,) = where.glob("lib/python3*/site-packages")
        lines = [str(self.top), *(path for path in sys.path if "site-packages" in path)]
        (packages / "copy.pth").write_text("".join(f"{line}\n" for line in lines))
        return where / "bin" / "python"

    def _run(self, *argv: str) -> None:
        done = subprocess.run(
            argv, cwd=self.top, env=self._environ, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise MutantError(f"{' '.join(argv)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")

    def _build(self) -> None:
        self._run("ninja", "-C", "build")
        (built,) = (self.top / "build" / "ixroute").glob("_dataplane*.so")
        shutil.copyfile(built, self.top / "ixroute" / built.name)

    def judge(self, mutation: Mutation, both: bool = False) -> Verdicts:
        """Makes it, builds, tests, and takes it back. both: the tests with the driver on the card are asked even when
        the room's own have caught it. MutantError when it does not fit or does not build."""
        file = self.top / "ixroute" / mutation.file
        healthy = file.read_text()
        file.write_text(mutation.apply(healthy))
        compiled = file.suffix in (".c", ".h")
        try:
            if compiled:
                self._build()
            return self._tested(mutation, both)
        finally:
            file.write_text(healthy)
            if compiled:
                self._build()

    def check(self, rooms: Sequence[str]) -> None:
        """All is well before anything is changed, or every mutant would be caught by a test that fails anyway."""
        verdict = self._first([[*(path for room in rooms for path in self._unit(room)), *self._model()]])
        if verdict.caught:
            raise MutantError(f"without any mutation {verdict.by} fails{verdict.how}:\n{self._log()[-4000:]}")

    def _unit(self, room: str) -> list[str]:
        paths = (path for pattern in SUITES[room] for path in (self.top / "tests/unit" / room).glob(pattern))
        return sorted(str(path.relative_to(self.top)) for path in paths)

    def _model(self) -> list[str]:
        """Not the tests of the command `ixroute emulate`: they look at the clock, and a busy machine that fails one
        would look like a mutant that is caught."""
        paths = sorted((self.top / "tests/model").glob("test_ixgbe_*.py"))
        paths += sorted((self.top / "tests/model").glob("test_socket_*.py"))
        return [str(path.relative_to(self.top)) for path in paths]

    def _tested(self, mutation: Mutation, both: bool) -> Verdicts:
        """Likelier suites first, so that most mutants end early."""
        suites = self._unit(mutation.room)
        nearest = [path for path in suites if path.endswith(NEAREST.get(Path(mutation.file).name, "none"))]
        unit = self._first([nearest, suites] if nearest else [suites])
        if unit.caught and not both:
            return Verdicts(unit, None)
        return Verdicts(unit, self._first([self._model()]))

    def _first(self, runs: Sequence[Sequence[str]]) -> Verdict:
        """The first test of these that fails, twice: one that fails once only says something of the machine, not of
        the mutant, and is left out."""
        spared: list[str] = []
        for tests in runs:
            while True:
                verdict = self._pytest([*tests, *(f"--deselect={node}" for node in spared)])
                if not verdict.caught:
                    break
                if self._pytest([verdict.node]).caught:
                    return verdict
                spared.append(verdict.node)
        return Verdict(False)

    def _pytest(self, tests: Sequence[str]) -> Verdict:
        """The names of tests are printed as they begin, so that one that never ends is known."""
        argv = [str(self._python), "-m", "pytest", "-x", "-v", "--no-header", "-p", "no:cacheprovider"]
        argv += ["--tb=short", f"--timeout={TEST_SECONDS}", "--timeout-method=thread", *tests]
        with (self._place / "log").open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=self.top,
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(RUN_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return verdict_of(code, self._log())

    def _log(self) -> str:
        return (self._place / "log").read_text(errors="replace")


def verdict_of(code: int | None, said: str) -> Verdict:
    """What a run of pytest -x -v says. code: None when it had to be killed. MutantError when no test was run."""
    if code == 0:
        return Verdict(False)
    failed = re.search(r"^(?:FAILED|ERROR) (tests/[^\s\[]+)", said, re.M)
    if code == 1 and failed:
        return Verdict(True, failed[1])
    begun = re.findall(r"^(tests/[^\s\[]+::[^\s\[]+)", said, re.M)
    if not begun:
        raise MutantError(f"pytest did not come to a test (exit code {code}):\n{said[-4000:]}")
    if code is None or "Timeout" in said:
        return Verdict(True, begun[-1], " (hangs)")
    if code < 0:
        return Verdict(True, begun[-1], f" (dies of {signal.Signals(-code).name})")
    return Verdict(True, begun[-1], f" (pytest ends with {code})")
