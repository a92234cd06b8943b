"""The differences between Linux and ixroute that docs/differences.md lists for single frames, as rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

Heard = Mapping[str, Counter[bytes]]
Rule = Callable[[bytes, Heard, Heard], bool]

RULES: dict[str, Rule] = {}
"""By the name of the entry: whether (frame, what Linux sent, what ixroute sent) is what it describes."""


def rule_of(frame: bytes, expected: Heard, heard: Heard) -> str | None:
    """The name of the entry that explains the difference."""
    return next((name for name, rule in RULES.items() if rule(frame, expected, heard)), None)
