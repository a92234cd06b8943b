"""Transmit: the packet buffer, the arbiter, and each queue (datasheet 4.6.8, 8.2.3.9)."""

from __future__ import annotations

from ixroute.driver.ixgbe.card import QUEUES, Card
from ixroute.driver.ixgbe.receive import LONGEST_FRAME, Ring

_BUFFER_KIB = 160
# Descriptors are fetched in batches, from when 36 are left on the chip, at least 8 at once. Heads are written back at
# once (WTHRESH 0), which head write-back needs (7.2.3.5.2).
_PTHRESH, _HTHRESH, _WTHRESH = 36, 8, 0


def set_up(card: Card) -> None:
    """4.6.8 Transmit initialization and 4.6.11.3.4 (no DCB, no virtualization), all that concerns no single queue."""
    nic = card.nic
    nic.RTTDCS.set(ARBDIS=1)
    nic.MTQC.write(0)
    nic.RTTDCS.set(ARBDIS=0)
    nic.TXPBSIZE[0].write(SIZE=_BUFFER_KIB)
    nic.TXPBTHRESH[0].write(THRESH=_BUFFER_KIB - -(-LONGEST_FRAME // 1024))
    for i in range(1, 8):
        nic.TXPBSIZE[i].write(0)
        nic.TXPBTHRESH[i].write(0)
    nic.DTXMXSZRQ.write(MAX_BYTES=0xFFF)
    for q in range(QUEUES):
        nic.RTTDQSEL.write(INDEX=q)
        nic.RTTDT1C.write(0)
    nic.DMATXCTL.set(TE=1)


def set_queue(card: Card, q: int, ring: Ring) -> None:
    """4.6.8 A transmit queue, before it is enabled. With head write-back a relaxed write could be overtaken and the
    head would go back, so relaxed order is off for write-backs (7.2.3.5.2)."""
    nic = card.nic
    nic.TDBAL[q].write(ring.iova & 0xFFFFFFFF)
    nic.TDBAH[q].write(ring.iova >> 32)
    nic.TDLEN[q].write(ring.slots * 16)
    nic.TDH[q].write(0)
    nic.TDT[q].write(0)
    nic.DCA_TXCTRL[q].set(DESC_DCA=0, WB_RO=0)
    nic.TDWBAH[q].write(ring.head_iova >> 32)
    nic.TDWBAL[q].write(ring.head_iova & 0xFFFFFFFF, ENABLE=int(ring.head_iova != 0))
    nic.TXDCTL[q].write(PTHRESH=_PTHRESH, HTHRESH=_HTHRESH, WTHRESH=_WTHRESH)


def enable_queue(card: Card, q: int) -> None:
    """4.6.8.1 Enabling, after DMATXCTL.TE."""
    card.nic.TXDCTL[q].set(ENABLE=1)
    card.nic.TXDCTL[q].wait(ENABLE=1)


def disable_queue(card: Card, q: int) -> None:
    """4.6.8.2 Disabling: flushed, so that what the card has fetched goes nowhere."""
    card.nic.TXDCTL[q].set(ENABLE=0, SWFLSH=1)
    card.nic.TXDCTL[q].wait(ENABLE=0)
