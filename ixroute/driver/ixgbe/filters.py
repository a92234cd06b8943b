"""Which packets the card takes, and which it hands to whom by other rules than RSS: none (datasheet 4.6.7, 8.2.3.7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ixroute.driver.ixgbe.card import Card

_TABLES = (
    "MPSAR", "PFUTA", "MTA", "VFTA", "PFVLVF", "PFVLVFB", "ETQF", "ETQS", "FTQF", "SAQF", "DAQF", "SDPQF", "L34TIMIR",
)  # fmt: skip


def clear_tables(card: Card) -> None:
    """4.6.7 Receive initialization: tables that a reset leaves undefined are cleared, all but the first MAC address."""
    nic = card.nic
    for high in list(nic.RAH)[1:]:
        high.write(0)
    for low in list(nic.RAL)[1:]:
        low.write(0)
    for name in _TABLES:
        for register in getattr(nic, name):
            register.write(0)
    nic.SYNQF.write(0)
    nic.MCSTCTRL.write(0)


def accept(card: Card, promiscuous: bool) -> None:
    """8.2.3.7.1 Filter control: broadcast, all multicast (groups are joined on the TAP, which no filter of the card
    could know), and what is sent to our address; everything when promiscuous. While RXCTRL.RXEN is off. VLAN tags
    stay in the packet and are not filtered."""
    card.nic.FCTRL.set(BAM=1, MPE=1, UPE=int(promiscuous), SBP=0)
    card.nic.VLNCTRL.set(VFE=0, CFIEN=0)


@contextmanager
def receive_stopped(card: Card) -> Iterator[None]:
    """4.6.7 Receive initialization, last steps: RXEN changes only while the security block's receive path is
    stopped and empty."""
    nic = card.nic
    _set_enable(card, False)
    try:
        yield
    finally:
        _set_enable(card, True)
    nic.flush()


def _set_enable(card: Card, on: bool) -> None:
    nic = card.nic
    nic.SECRXCTRL.set(RX_DIS=1)
    try:
        nic.SECRXSTAT.wait(0.05, RDY=1)
        nic.RXCTRL.set(RXEN=int(on))
    finally:  # a port that cannot be changed is not a deaf one
        nic.SECRXCTRL.set(RX_DIS=0)


def enable_receive(card: Card) -> None:
    """4.6.7 Receive initialization, the last step."""
    _set_enable(card, True)


def disable_receive(card: Card) -> None:
    """4.6.7.1 Before queues are disabled."""
    _set_enable(card, False)
