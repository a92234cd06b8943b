"""What the two ports of a chip, their drivers and the firmware share is locked (datasheet 10.5.4).

A holder that died leaves its lock; after the time the datasheet allows a holder the lock is taken by force, with a
warning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ixroute.driver.ixgbe.card import Card, CardError

# SW_FW_SYNC: software's bits; firmware's are the same, 5 further up.
EEPROM = 1 << 0
PHY0 = 1 << 1
PHY1 = 1 << 2
MAC_CSR = 1 << 3
_FIRMWARE_SHIFT = 5
_REGSMP = 1 << 31

_SEMAPHORE_SECONDS = 0.1
_RESOURCE_SECONDS = 1.0


def phy_of(card: Card) -> int:
    """The resource that guards this port's PHY and its module's I2C."""
    return PHY1 if card.lan_id else PHY0


def _take_smbi(card: Card) -> bool:
    """10.5.4 Between drivers: SMBI is taken by whoever reads it as 0; reading sets it."""
    end = card.clock.now() + _SEMAPHORE_SECONDS
    while card.nic.SWSM.get("SMBI"):
        if card.clock.now() >= end:
            return False
        card.clock.sleep(50e-6)
    return True


def _take_from_firmware(card: Card) -> bool:
    """10.5.4 Between driver and firmware: SWESMBI can be set only while the firmware does not hold it. X540 and X550
    have bit 31 of SW_FW_SYNC in its stead, taken by whoever reads it as 0."""
    nic = card.nic
    end = card.clock.now() + _SEMAPHORE_SECONDS
    while True:
        if card.model.mac.semaphore_register_bit:
            taken = not nic.SW_FW_SYNC.read() & _REGSMP
        else:
            nic.SWSM.set(SWESMBI=1)
            taken = bool(nic.SWSM.get("SWESMBI"))
        if taken:
            return True
        if card.clock.now() >= end:
            return False
        card.clock.sleep(50e-6)


def _release(card: Card) -> None:
    nic = card.nic
    if card.model.mac.semaphore_register_bit:
        nic.SW_FW_SYNC.write(nic.SW_FW_SYNC.read() & ~_REGSMP)
    nic.SWSM.set(SMBI=0, SWESMBI=0)
    nic.flush()


@contextlib.contextmanager
def _semaphore(card: Card) -> Iterator[None]:
    """10.5.4 The lock of SW_FW_SYNC itself."""
    if not _take_smbi(card):
        card.warn("SWSM.SMBI is held, perhaps by a driver that died: taking it by force")
        _release(card)
        if not _take_smbi(card):
            raise CardError(
                "SWSM.SMBI (datasheet 10.5.4) is held and cannot be forced: power the machine off and on"
            )
    if not _take_from_firmware(card):
        card.warn("the firmware does not give its semaphore: taking it by force")
        _release(card)
        if not (_take_smbi(card) and _take_from_firmware(card)):
            _release(card)
            raise CardError(
                "the firmware's semaphore (datasheet 10.5.4) is held: power the machine off and on"
            )
    try:
        yield
    finally:
        _release(card)


def _try_resource(card: Card, bits: int, force: bool) -> bool:
    with _semaphore(card):
        sync = card.nic.SW_FW_SYNC.read()
        firmware = bits << _FIRMWARE_SHIFT
        if sync & (bits | firmware):
            if not force:
                return False
            card.warn(f"SW_FW_SYNC is {sync:#x}: what is held there for too long is taken by force")
            sync &= ~firmware
        card.nic.SW_FW_SYNC.write(sync | bits)
        return True


@contextlib.contextmanager
def resource(card: Card, bits: int) -> Iterator[None]:
    """10.5.4 Holds what bits name (EEPROM, PHY0, …) for as long as the block runs. Raises CardError."""
    end = card.clock.now() + _RESOURCE_SECONDS
    while not _try_resource(card, bits, force=card.clock.now() >= end):
        card.clock.sleep(5e-3)
    try:
        yield
    finally:
        with _semaphore(card):
            card.nic.SW_FW_SYNC.write(card.nic.SW_FW_SYNC.read() & ~bits)
