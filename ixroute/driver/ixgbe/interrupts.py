"""Interrupts: MSI-X vector i for receive queue i, and one more for what concerns no queue (datasheet 4.6.6, 7.3).

A queue's vector masks itself when it fires (EIAM_EX) and clears its own cause (EIAC); who waits for it unmasks it by
EIMS_EX and then looks at its ring once more. No transmit interrupts: a worker that sleeps needs no frames back.
"""

from __future__ import annotations

from collections.abc import Sequence

from ixroute.driver.ixgbe.card import Card

VECTORS = 64


def _mask(vectors: int, word: int) -> int:
    return ((1 << vectors) - 1) >> (32 * word) & 0xFFFFFFFF


def set_vector(card: Card, q: int, vector: int) -> None:
    """8.2.3.5.16 Receive queue q raises this vector."""
    if q & 1:
        card.nic.IVAR[q >> 1].set(RX1=vector, RX1_VALID=1)
    else:
        card.nic.IVAR[q >> 1].set(RX0=vector, RX0_VALID=1)


def set_up(card: Card, vectors: Sequence[int], misc: int | None, interval_us: int) -> None:
    """4.6.6 Interrupt initialization; all stay masked but what concerns no queue. vectors: of each queue; none when
    there are too few for all. misc: the vector of what concerns no queue, None when it has none and is looked at now
    and then. interval_us: between two interrupts of a vector."""
    nic = card.nic
    queues = len(vectors)
    nic.GPIE.write(MULTIPLE_MSIX=1, OCD=1, EIAME=1, PBA=1)
    for register in nic.IVAR:
        register.write(0)
    for q, vector in enumerate(vectors):
        set_vector(card, q, vector)
        nic.EITR[q].write(ITR=interval_us // 2, CNT_WDIS=1)
    nic.EIAC.write(RTX=_mask(min(queues, 16), 0))
    for word, register in enumerate(nic.EIAM_EX):
        register.write(_mask(queues, word))
    nic.EICR.read()
    if misc is None:
        nic.IVAR_MISC.write(0)
        return
    nic.IVAR_MISC.write(OTHER=misc, OTHER_VALID=1)
    nic.EITR[misc].write(ITR=interval_us // 2, CNT_WDIS=1)
    nic.EIMS.write(LSC=1, ECC=1)
    nic.flush()
