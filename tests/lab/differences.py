"""The differences between Linux and ixroute that docs/differences.md lists for single frames, as rules.

tests/house/test_differences.py holds the two lists equal; lab.differential asks here about each difference it finds.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping

from lab.masks import icmp_of_router

Heard = Mapping[str, Counter[bytes]]
Rule = Callable[[bytes, Heard, Heard], bool]

IP6_LEAST_MTU = 1280


def _all(heard: Heard) -> list[bytes]:
    return [frame for frames in heard.values() for frame in frames.elements()]


def _ip6_path_mtu_exception(frame: bytes, expected: Heard, heard: Heard) -> bool:
    """Linux says "packet too big" of a smaller MTU where ixroute forwards the packet, its hop limit one less."""
    theirs, ours = _all(expected), _all(heard)
    if len(theirs) != 1 or len(ours) != 1 or icmp_of_router(theirs[0]) != (6, 2, 0):
        return False
    mtu = struct.unpack("!I", theirs[0][58:62])[0]
    payload = frame[frame.find(b"\x86\xdd") + 2 :]
    forwarded = payload[:7] + bytes((payload[7] - 1 & 0xFF,)) + payload[8:]
    return IP6_LEAST_MTU <= mtu < len(ours[0]) - 14 and ours[0][14:] == forwarded[: len(ours[0]) - 14]


RULES: dict[str, Rule] = {"ip6-path-mtu-exception": _ip6_path_mtu_exception}
"""By the name of the entry: whether (frame, what Linux sent, what ixroute sent) is what it describes."""


def rule_of(frame: bytes, expected: Heard, heard: Heard) -> str | None:
    """The name of the entry that explains the difference."""
    return next((name for name, rule in RULES.items() if rule(frame, expected, heard)), None)
