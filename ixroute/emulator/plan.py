"""Which cards one `ixroute emulate` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CardPlan:
    """wire: its spec (wires.py). socket: the path to listen at. mac: 6 bytes."""

    wire: str
    socket: str
    mac: bytes


@dataclass(frozen=True)
class Plan:
    """map_bar: clients may map the registers of queues. cores: where the engine runs, empty: anywhere."""

    cards: Sequence[CardPlan]
    device_id: int = 0x10FB
    map_bar: bool = False
    cores: Sequence[int] = ()
