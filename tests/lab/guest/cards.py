"""Emulated cards for a guest: the command that people use, as a process, and its report when it ends."""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.guest.machine import Emulated

PATIENCE = 20.0  # seconds to start, and to end


@dataclass
class Cards:
    devices: list[Emulated]
    report: str = ""
    """What the process printed until its end."""
    counters: list[dict[str, int]] = field(default_factory=list)
    """A card's packets and events by name."""
    unknown: list[str] = field(default_factory=list)
    """Accesses to registers that the cards do not have, all cards: "read 0x07214"."""

    def check(self) -> None:
        """Fails when a card was made to do what a card cannot do, or was never used."""
        wrong = [
            f"card {n}: {name} {counters[name]}"
            for n, counters in enumerate(self.counters)
            for name in ("dma_faults", "bad_descriptors")
            if counters.get(name)
        ]
        assert len(self.counters) == len(self.devices), self.report
        assert not wrong, self.report
        assert "Traceback" not in self.report, self.report


@contextlib.contextmanager
def serve(wires: Sequence[str], *arguments: str) -> Iterator[Cards]:
    """One card for each wire (`ixroute emulate --help`). The report is there when the block has ended."""
    with tempfile.TemporaryDirectory(prefix="ixroute-cards-") as folder:
        command = [sys.executable, "-m", "ixroute", "emulate", "--socket", f"{folder}/card{{n}}", *arguments]
        for wire in wires:
            command += ["--wire", wire]
        log = Path(folder) / "log"
        with open(log, "wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
        assert process.stdout
        try:
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            line = process.stdout.readline() if ready else b""
            assert line.startswith(b"ready"), log.read_text()
            cards = Cards([Emulated(Path(folder) / f"card{n}") for n in range(len(wires))])
            yield cards
        finally:
            process.terminate()
            try:
                out, _ = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
                process.wait()
        cards.report = out.decode(errors="replace") + log.read_text(errors="replace")
        print(cards.report)
        cards.counters = [
            {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", told)}
            for told in re.findall(r"^  packets  (.*)$", cards.report, re.MULTILINE)
        ]
        cards.unknown = re.findall(r"((?:read|write) 0x[0-9a-f]+) \d+", cards.report)
        assert process.returncode == 0, f"ended with {process.returncode}\n{cards.report}"
