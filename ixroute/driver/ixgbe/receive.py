"""Receive: the packet buffer, what is done to every frame, and each queue (datasheet 4.6.7, 8.2.3.8)."""

from __future__ import annotations

from dataclasses import dataclass

from ixroute.driver.ixgbe.card import QUEUES, Card
from ixroute.driver.ixgbe.filters import accept

FCS = 4
LONGEST_FRAME = 9728  # MAXFRS at most, with FCS, without VLAN tag (8.2.3.22.13)
SHORTEST_LIMIT = 1518  # MAXFRS at least
_TWO_TAGS = 8
_ADVANCED_ONE_BUFFER = 1  # SRRCTL.DESCTYPE
_PAUSE_ROOM = 0x6000  # 82599: what may still come after a pause frame is sent


@dataclass(frozen=True)
class Ring:
    """A ring as the card is told of it."""

    iova: int
    slots: int
    head_iova: int = 0
    """Transmit: where the card writes its head; 0: nowhere."""


def set_packet_buffer(card: Card) -> None:
    """8.2.3.8.9 The whole buffer for one traffic class. FCRTH must be set even when no pause frames are sent: it is
    also where the internal loopback of transmit stops (8.2.3.3.4)."""
    nic = card.nic
    kib = card.model.mac.rx_buffer_kib
    nic.RXPBSIZE[0].write(SIZE=kib)
    for i in range(1, 8):
        nic.RXPBSIZE[i].write(0)
    nic.FCRTH[0].write(RTH=((kib << 10) - _PAUSE_ROOM) // 32)


def no_flow_control(card: Card) -> None:
    """8.2.3.22.34 No pause either way: what a queue has no room for is dropped and counted, instead of stopping the
    port for all queues. Pause frames that come are discarded."""
    nic = card.nic
    nic.MFLCN.set(DPF=1, RFCE=0, RPFCE=0, PMCF=0)
    nic.FCCFG.write(TFCE=0)
    for i in range(4):
        nic.FCTTV[i].write(0)
    for i in range(8):
        nic.FCRTL[i].write(0)
    nic.FCRTV.write(0)


def set_frame_limit(card: Card, mtu: int) -> None:
    """8.2.3.22.13 Longest frame: Ethernet header, two VLAN tags, packet, FCS. When the outer tag is one of 802.1Q the
    card adds four bytes by itself; what is longer than a buffer then is counted as bad."""
    limit = min(max(SHORTEST_LIMIT, mtu + 14 + _TWO_TAGS + FCS), LONGEST_FRAME)
    card.nic.MAXFRS.write(MFS=limit)
    card.nic.HLREG0.set(JUMBOEN=int(limit > SHORTEST_LIMIT))


def set_mac_control(card: Card) -> None:
    """8.2.3.22.8 FCS is made and checked by the card and not stored; short packets are padded."""
    card.nic.HLREG0.set(TXCRCEN=1, RXCRCSTRP=1, TXPADEN=1, LPBK=0)


def set_dma(card: Card) -> None:
    """8.2.3.8.8 No coalescing (a router must send what it got); CRCSTRIP as in HLREG0, or the two disagree. The fields
    that must be 0 and 1 are not so after a reset."""
    nic = card.nic
    nic.RDRXCTL.set(CRCSTRIP=1, RSCFRSTSIZE=0, RSCACKC=1, FCOE_WRFIX=1)
    nic.RFCTL.set(RSC_DIS=1, NFSW_DIS=1, NFSR_DIS=1)
    nic.RSCDBU.set(RSCACKDIS=1)
    for q in range(QUEUES):
        if nic.RSCCTL[q].get("RSCEN"):
            nic.RSCCTL[q].set(RSCEN=0)


def set_up(card: Card, mtu: int, promiscuous: bool) -> None:
    """4.6.7 Receive initialization, all that concerns no single queue. Receive is off."""
    nic = card.nic
    nic.RXCTRL.set(RXEN=0)
    set_packet_buffer(card)
    no_flow_control(card)
    set_mac_control(card)
    set_frame_limit(card, mtu)
    set_dma(card)
    accept(card, promiscuous)
    nic.RXCSUM.set(PCSD=1, IPPCSE=0)
    nic.CTRL_EXT.set(NS_DIS=1)
    nic.DCA_CTRL.set(DIS=1)


def set_queue(card: Card, q: int, ring: Ring, buffer_kib: int) -> None:
    """4.6.7.1 A receive queue, before it is enabled: an empty ring. Buffers come with its first tail. DROP_EN: see
    no_flow_control. Bit 12 of DCA_RXCTRL must be cleared (8.2.3.11.1)."""
    nic = card.nic
    nic.RDBAL[q].write(ring.iova & 0xFFFFFFFF)
    nic.RDBAH[q].write(ring.iova >> 32)
    nic.RDLEN[q].write(ring.slots * 16)
    nic.RDH[q].write(0)
    nic.RDT[q].write(0)
    nic.SRRCTL[q].write(BSIZEPACKET=buffer_kib, DESCTYPE=_ADVANCED_ONE_BUFFER, DROP_EN=1)
    nic.DCA_RXCTRL[q].set(DESC_DCA=0, HEAD_DCA=0, DATA_DCA=0, WB_RO=0, MUST_BE_0=0)


def enable_queue(card: Card, q: int) -> None:
    """4.6.7.1 Enabling. VLAN tags stay in the packet (VME=0)."""
    card.nic.RXDCTL[q].set(ENABLE=1, VME=0)
    card.nic.RXDCTL[q].wait(ENABLE=1)


def disable_queue(card: Card, q: int) -> None:
    """4.6.7.1 Disabling, and 100 us for what is on its way."""
    card.nic.RXDCTL[q].set(ENABLE=0)
    card.nic.RXDCTL[q].wait(ENABLE=0)
    card.clock.sleep(100e-6)
