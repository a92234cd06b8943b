"""The reasons a packet ends for, as the C list has them (forward/reasons.h): names, kinds, texts, numbers."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib


class Kind(enum.Enum):
    """What a reason does with the packet."""

    DROP = 1
    PUNT = 2


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. `number` is its cell in a counter block and the action byte of an adjacency."""

    number: int
    name: str
    kind: Kind
    text: str


def _string(pointer: Any) -> str:
    return bytes(ffi.string(pointer)).decode()


REASONS: tuple[Reason, ...] = tuple(
    Reason(n, _string(lib.reason_name(n)), Kind(lib.reason_kind(n)), _string(lib.reason_text(n)))
    for n in range(1, lib.reason_count())
)
"""Every reason, in the order of the C list. Number 0 (forward) is not a reason."""

BY_NAME: dict[str, Reason] = {reason.name: reason for reason in REASONS}


def reason_number(name: str) -> int:
    """The number of a reason. KeyError for a name that is not in the list."""
    return BY_NAME[name].number
