"""Receive side scaling: which queue a packet goes to (datasheet 7.1.2.8)."""

from __future__ import annotations

from collections.abc import Sequence

from ixroute.driver.ixgbe.card import Card

SYMMETRIC_KEY = bytes((0x6D, 0x5A)) * 20
"""A pattern that repeats every 16 bits hashes A to B as B to A: both directions of a flow meet on one queue."""

_RSS = 1  # MRQC.MRQE: one set of queues, spread by RSS


def redirection(entries: int, live: Sequence[int]) -> list[int]:
    """The queue of each of the table's entries: the live ones in turn."""
    return [live[i % len(live)] for i in range(entries)]


def set_key(card: Card, key: bytes) -> None:
    """8.2.3.7.14 RSS random key: 40 bytes, the first in the lowest byte of RSSRK[0]."""
    for i, register in enumerate(card.nic.RSSRK):
        register.write(int.from_bytes(key[4 * i : 4 * i + 4], "little"))


def set_redirection(card: Card, live: Sequence[int]) -> None:
    """8.2.3.7.15 Redirection table: entry 0 in the lowest byte of RETA[0]; from 128 on in ERETA (X550)."""
    nic = card.nic
    queues = redirection(card.model.mac.reta_entries, live)
    registers = [*nic.RETA, *nic.ERETA][: len(queues) // 4]
    for i, register in enumerate(registers):
        a, b, c, d = queues[4 * i : 4 * i + 4]
        register.write(ENTRY0=a, ENTRY1=b, ENTRY2=c, ENTRY3=d)


def set_up(card: Card, live: Sequence[int], key: bytes) -> None:
    """7.1.2.8 Key and table first, then the switch. TCP and UDP are hashed with their ports; fragments and the rest of
    IP by addresses alone; what is not IP goes to queue 0."""
    set_key(card, key)
    set_redirection(card, live)
    card.nic.MRQC.write(MRQE=_RSS, TCP4=1, IP4=1, IP6=1, TCP6=1, UDP4=1, UDP6=1)
