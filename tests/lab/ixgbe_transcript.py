"""What a driver did to a card's registers, as text to read and to compare.

PYTHONPATH=tests python -m lab.ixgbe_transcript        writes tests/data/ixgbe/*.txt anew
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from ixroute.driver.ixgbe.port import IxgbePort
from ixroute.driver.ixgbe.registers import name_of, table
from ixroute.driver.port import PortOptions
from ixroute.driver.umem import Umem
from lab.ixgbe_fake import FakeClock, FakeTransport

DATA = Path(__file__).parent.parent / "data" / "ixgbe"
CARDS = {"82599_sfp": (0x10FB, 2), "82599_kx4": (0x10F7, 1), "x540": (0x1528, 2), "x550": (0x1563, 20)}
"""File: device id, queues."""
_MANY = ("I2CCTL", "EERD", "counters", "semaphores")  # only how many
_SEMAPHORES = ("SWSM", "SW_FW_SYNC")


def _steps(log: Iterable[tuple[str, int, int]]) -> Iterator[tuple[str, str]]:
    """(name, what was done), RTTDT1C with the queue that RTTDQSEL chose."""
    chosen = 0
    for way, offset, value in log:
        name = name_of(offset)
        if name == "RTTDQSEL":
            chosen = value
            continue
        if name == "RTTDT1C":
            name = f"RTTDT1C[{chosen}]"
        if name in _SEMAPHORES:
            name = "semaphores"
        if is_counter(name):
            name = "counters"
        yield name, f":= {value:#010x}" if way == "W" else f"reads {value:#010x}"


def is_counter(name: str) -> bool:
    spec = table().get(name.partition("[")[0])
    return spec is not None and spec.mode == "RC" and spec.name != "EICR"


def transcript(log: Iterable[tuple[str, int, int]]) -> str:
    """A line each; the same done to an array one after the other is one line."""
    lines: list[str] = []
    for (name, _), run in groupby(_steps(log), _run_key()):
        steps = list(run)
        if name in _MANY:
            lines.append(f"{name} {len(steps)} times")
        elif len(steps) == 1:
            lines.append(f"{steps[0][0]} {steps[0][1]}")
        else:
            first, last = (re.search(r"\[(\d+)\]", steps[i][0]) for i in (0, -1))
            where = f"{name}[{first[1]}..{last[1]}]" if first and last else f"{name}"
            lines.append(f"{where} {steps[0][1]}" + ("" if first else f" ({len(steps)} times)"))
    return "\n".join(lines) + "\n"


def _run_key() -> object:
    def key(step: tuple[str, str]) -> tuple[str, str]:
        name = step[0].partition("[")[0]
        return name, "" if name in _MANY else step[1]

    return key


def bring_up(device: int, queues: int) -> str:
    """The transcript of a port that comes up on a fresh card."""
    umem = Umem(64, 4096, "off")
    transport = FakeTransport(device)
    clock = FakeClock()
    port = IxgbePort("p", 0, "fake", umem, queues, PortOptions(), transport, clock=clock)
    text = transcript(transport.region.log)
    port.close()
    umem.close()
    return text


def main() -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    for name, (device, queues) in CARDS.items():
        (DATA / f"{name}.txt").write_text(bring_up(device, queues), encoding="ascii")


if __name__ == "__main__":
    main()
