"""The PHY of copper ports, over MDIO (datasheet 8.2.3.22.11; IEEE 802.3 clause 45)."""

from __future__ import annotations

from ixroute.driver.ixgbe.card import Card
from ixroute.driver.ixgbe.regfile import RegisterError, Timeout
from ixroute.driver.ixgbe.semaphores import phy_of, resource

PMA = 1  # devices of clause 45
AN = 7
VENDOR_1 = 30
_ADDRESS_CYCLE, _WRITE, _READ = 0, 1, 3  # MSCA.OPCODE
_SECONDS = 0.01

_PMA_ID1, _PMA_ID2 = 2, 3
_AN_CONTROL, _AN_ADVERTISE, _AN_10G = 0x0000, 0x0010, 0x0020
_AN_RESTART = 1 << 9
_AN_ENABLE = 1 << 12
_ADVERTISE_100_FULL = 1 << 8
_ADVERTISE_10G = 1 << 12
# Of the PHYs in X540 and X550: 1, 2.5 and 5 Gbit/s are advertised in a register of the vendor's.
_AN_VENDOR = 0xC400
_ADVERTISE_1G = 1 << 15
_ADVERTISE_5G = 1 << 11
_ADVERTISE_2G5 = 1 << 10
_VENDOR_CONTROL = 0x0000
_LOW_POWER = 1 << 11


class PhyError(RegisterError):
    """No PHY answers."""


def _cycle(card: Card, phy: int, device: int, address: int, opcode: int) -> None:
    card.nic.MSCA.write(ADDRESS=address, DEVICE=device, PHY=phy, OPCODE=opcode, COMMAND=1)
    card.nic.MSCA.wait(_SECONDS, COMMAND=0)


def read(card: Card, phy: int, device: int, address: int) -> int:
    """8.2.3.22.11 One register of 16 bits: an address cycle, then the read. The PHY's resource is held."""
    _cycle(card, phy, device, address, _ADDRESS_CYCLE)
    _cycle(card, phy, device, address, _READ)
    return card.nic.MSRWD.get("READ")


def write(card: Card, phy: int, device: int, address: int, value: int) -> None:
    """8.2.3.22.11 As read."""
    card.nic.MSRWD.write(WRITE=value)
    _cycle(card, phy, device, address, _ADDRESS_CYCLE)
    _cycle(card, phy, device, address, _WRITE)


def find(card: Card) -> tuple[int, int]:
    """802.3 45.2.1.3 The address of the PHY that answers, and its 32-bit identifier. Raises PhyError."""
    with resource(card, phy_of(card)):
        for phy in range(32):
            try:
                identifier = read(card, phy, PMA, _PMA_ID1) << 16 | read(card, phy, PMA, _PMA_ID2)
            except Timeout:
                continue
            if identifier not in (0, 0xFFFF_FFFF, 0xFFFF_0000, 0x0000_FFFF):
                return phy, identifier
    raise PhyError("no PHY answers on MDIO; the link is what the firmware makes of it")


def negotiate(card: Card, phy: int) -> None:
    """802.3 45.2.7 Awake, all speeds of the card offered, negotiation begun anew."""
    odd = _ADVERTISE_2G5 | _ADVERTISE_5G if card.model.mac.odd_speeds else 0
    with resource(card, phy_of(card)):
        _change(card, phy, VENDOR_1, _VENDOR_CONTROL, clear=_LOW_POWER)
        _change(card, phy, AN, _AN_10G, add=_ADVERTISE_10G)
        _change(card, phy, AN, _AN_VENDOR, add=_ADVERTISE_1G | odd)
        _change(card, phy, AN, _AN_ADVERTISE, add=_ADVERTISE_100_FULL)
        _change(card, phy, AN, _AN_CONTROL, add=_AN_ENABLE | _AN_RESTART)


def _change(card: Card, phy: int, device: int, address: int, add: int = 0, clear: int = 0) -> None:
    before = read(card, phy, device, address)
    write(card, phy, device, address, before & ~clear | add)
