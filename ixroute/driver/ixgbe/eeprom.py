"""The EEPROM, word by word, and its checksum (datasheet chapter 6)."""

from __future__ import annotations

from ixroute.driver.ixgbe.card import Card, CardError

SFP_SETTINGS = 0x2B  # pointer to the analog settings of SFP+ modules
_CHECKSUM = 0x3F
_CHECKSUM_SUM = 0xBABA
_POINTERS = range(0x03, 0x0F)  # to sections that the sum includes; 0x0F, the firmware's, it does not
_NOTHING = (0x0000, 0xFFFF)
_READ_SECONDS = 0.05
_WORDS = 1 << 14  # that EERD has addresses for


def read_word(card: Card, address: int) -> int:
    """8.2.3.2.2 One 16-bit word through EERD."""
    if address >= _WORDS:
        raise CardError(f"the EEPROM points to its word {address:#x}, which EERD cannot read: it is damaged")
    card.nic.EERD.write(START=1, ADDR=address)
    return card.nic.EERD.wait(_READ_SECONDS, DONE=1) >> 16


def check(card: Card) -> None:
    """6.2 Words 0 to 3F and the sections they point to add up to BABA."""
    total = sum(read_word(card, address) for address in range(_CHECKSUM))
    # X540's sections of PHY and option ROM (04, 05) are not in its sum; 03 is the PCIe analog section of all.
    skipped = {0x04, 0x05} if card.model.mac.semaphore_register_bit else set()
    for at in _POINTERS:
        if at not in skipped:
            total += _section_sum(card, read_word(card, at))
    wanted = (_CHECKSUM_SUM - total) & 0xFFFF
    found = read_word(card, _CHECKSUM)
    if found != wanted:
        raise CardError(
            f"the EEPROM's checksum is {found:#06x} where its words need {wanted:#06x}: its contents are damaged;"
            " the card's vendor has a tool that writes them anew"
        )


def _section_sum(card: Card, pointer: int) -> int:
    if pointer in _NOTHING or pointer >= _WORDS:
        return 0
    length = read_word(card, pointer)
    if length in _NOTHING or pointer + length >= _WORDS:
        return 0
    return sum(read_word(card, pointer + 1 + i) for i in range(length))
