"""Interrupts: causes, masks, vectors and their pace."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from engine_rig import (
    EIAC,
    EIAM,
    EIAM_EX,
    EICR,
    EICS,
    EICS_EX,
    EIMC,
    EIMC_EX,
    EIMS,
    EIMS_EX,
    EITR,
    GPIE,
    IVAR,
    IVAR_MISC,
    RS,
    Rig,
    ethernet,
)  # fmt: skip

from ixroute.emulator.engine import UNMASK_WORDS

LSC, RX_MISS = 1 << 20, 1 << 17
MSIX, OCD, EIAME = 1 << 4, 1 << 5, 1 << 30


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Vectors 0-2: receive queue 0, transmit queue 0, everything else."""
    rig = Rig()
    rig.wire_vectors(64)
    rig.set(GPIE, MSIX)
    rig.set(IVAR, 0x80 | 0x81 << 8)
    rig.set(IVAR_MISC, 0x82 << 8)
    yield rig
    rig.close()


def packet(rig: Rig) -> None:
    rig.arrive(ethernet(b""))
    rig.settle()


def test_a_received_packet_raises_its_queues_vector_once(rig: Rig) -> None:
    rig.rx()
    rig.write(EIMS, 1)
    packet(rig)
    packet(rig)
    assert [rig.fired(vector) for vector in range(3)] == [1, 0, 0]
    assert rig.card.counters()["interrupts"] == 1
    assert rig.read(EICR) == 1
    assert rig.read(EICR) == 0
    packet(rig)
    assert rig.fired() == 1


def test_a_masked_cause_waits_for_its_mask_to_be_lifted(rig: Rig) -> None:
    rig.rx()
    packet(rig)
    assert rig.fired() == 0
    assert rig.read(EICS) == 1
    rig.write(EIMS_EX, 1)
    assert rig.fired() == 1
    rig.write(EIMS, 1)
    assert rig.fired() == 1  # a write of EIMS says it again while the cause is there
    rig.write(EIMC_EX, 1)
    rig.read(EICR)
    packet(rig)
    assert rig.fired() == 0


def test_sent_packets_interrupt_only_with_a_report(rig: Rig) -> None:
    queue = rig.tx()
    rig.write(EIMS, 2)
    queue.send(ethernet(b""))
    rig.settle()
    assert rig.fired(1) == 0
    queue.send(ethernet(b""), RS)
    rig.settle()
    assert rig.fired(1) == 1


def test_auto_clear_makes_every_burst_a_new_interrupt(rig: Rig) -> None:
    rig.rx()
    rig.write(EIAC, 0xFFFF)
    rig.write(EIMS, 1)
    for _ in range(3):
        packet(rig)
        assert rig.fired() == 1
        assert rig.read(EICS) == 0


def test_auto_mask_silences_a_vector_until_it_is_unmasked(rig: Rig) -> None:
    rig.rx()
    rig.set(GPIE, MSIX | EIAME)
    rig.write(EIAC, 0xFFFF)
    rig.write(EIAM_EX, 0xFFFFFFFF)
    rig.write(EIMS_EX, 1)
    packet(rig)
    assert rig.fired() == 1
    assert rig.read(EIMS_EX) == 0
    packet(rig)
    assert rig.fired() == 0
    rig.write(EIMS_EX, 1)
    assert rig.fired() == 1
    rig.write(EIMS_EX, 1)
    assert rig.fired() == 0


def test_without_eiame_reading_the_causes_masks(rig: Rig) -> None:
    rig.write(EIAM, LSC | 3)
    rig.write(EIMS, LSC | 7)
    assert rig.read(EIMS) == LSC | 7
    rig.read(EICR)
    assert rig.read(EIMS) == 4
    assert rig.read(EIAM) == LSC | 3


def test_other_causes_have_a_vector_of_their_own(rig: Rig) -> None:
    rig.write(EIMS, LSC)
    rig.card.cause(RX_MISS)
    assert rig.fired(2) == 0
    rig.card.cause(LSC)
    assert rig.fired(2) == 1
    assert rig.read(EICS) == LSC | RX_MISS
    rig.write(EICR, LSC)
    assert rig.read(EICS) == RX_MISS
    rig.card.cause(LSC)
    assert rig.fired(2) == 1


def test_a_second_cause_that_comes_before_the_first_is_cleared_is_not_lost(rig: Rig) -> None:
    rig.write(EIMS, LSC | RX_MISS)
    rig.card.cause(LSC)
    rig.card.cause(RX_MISS)
    assert rig.fired(2) == 1
    rig.write(EICR, LSC)
    assert rig.fired(2) == 1


def test_with_ocd_reading_leaves_the_queues_causes(rig: Rig) -> None:
    rig.set(GPIE, MSIX | OCD)
    rig.write(EICS, LSC | 5)
    assert rig.read(EICR) == LSC | 5
    assert rig.read(EICR) == 5
    rig.write(EICR, 4)
    assert rig.read(EICR) == 1


def test_software_may_set_any_cause(rig: Rig) -> None:
    rig.write(EIMS_EX + 4, 1 << 31)
    rig.write(EIMS_EX, 1 << 20)
    rig.write(EICS_EX + 4, 1 << 31)
    assert (rig.fired(63), rig.fired(20)) == (1, 0)
    rig.write(EICS_EX, 1 << 20)
    assert (rig.fired(63), rig.fired(20)) == (0, 1)
    assert rig.read(EICR) == 0


def test_masks_of_both_kinds_of_registers_are_the_same_bits(rig: Rig) -> None:
    rig.write(EIMS, 0xFFFFFFFF)
    assert rig.read(EIMS_EX) == 0xFFFF
    rig.write(EIMS_EX, 0xFFFF0000)
    rig.write(EIMC, 0x7FFF00FF)
    assert rig.read(EIMS_EX) == 0xFFFFFF00
    assert rig.read(EIMS) == 0x8000FF00


def test_a_queue_without_a_valid_entry_interrupts_nobody(rig: Rig) -> None:
    rig.rx()
    rig.set(IVAR, 0)
    rig.write(EIMS, 0xFFFFFFFF)
    packet(rig)
    assert rig.read(EICR) == 0
    assert rig.card.counters()["interrupts"] == 0


def test_without_several_vectors_everything_is_vector_0(rig: Rig) -> None:
    rig.set(GPIE, 0)
    rig.write(EIMS, LSC | 2)
    rig.tx().send(ethernet(b""), RS)
    rig.settle()
    assert rig.fired(0) == 1
    assert rig.read(EICR) == 2
    rig.card.cause(LSC)
    assert rig.fired(0) == 1


def test_throttling_holds_a_message_back_and_does_not_lose_it(rig: Rig) -> None:
    queue = rig.rx()
    rig.set(EITR, 0xFF8)  # 511 units of 2 us
    rig.write(EIAC, 0xFFFF)
    rig.write(EIMS, 1)
    packet(rig)
    started = time.monotonic()
    assert rig.fired() == 1
    packet(rig)
    if time.monotonic() - started < 0.0005:  # else this machine was too slow to see it held back
        assert rig.fired() == 0
    deadline = time.monotonic() + 10
    total = rig.fired()
    while not total and time.monotonic() < deadline:
        rig.step()
        total = rig.fired()
    assert total == 1
    assert len(queue.take_all()) == 2


def test_a_vector_that_is_not_wired_is_silent(rig: Rig) -> None:
    rig.rx()
    rig.card.set_vectors(0, [-1])
    rig.write(EIMS, 1)
    packet(rig)
    assert rig.fired() == 0
    rig.card.raise_vector(1)
    assert rig.fired(1) == 1
    with pytest.raises(OSError, match="64"):
        rig.card.set_vectors(60, [-1] * 5)


def test_an_eventfd_that_its_owner_filled_does_not_block_the_card(rig: Rig) -> None:
    import os

    full = os.eventfd(0)
    os.eventfd_write(full, 2**64 - 2)
    rig.card.set_vectors(3, [full])
    rig.card.raise_vector(3)
    rig.card.set_vectors(3, [-1])
    assert os.eventfd_read(full) == 2**64 - 2
    os.close(full)


def ask(rig: Rig, vector: int) -> None:
    """What a client does without a message instead of writing EIMS_EX."""
    rig.set(UNMASK_WORDS + 4 * vector, 1)
    rig.card.kick()


def test_a_vector_is_unmasked_by_its_word_as_by_its_register(rig: Rig) -> None:
    rig.set(IVAR, 0x80 | 0x81 << 8 | 40 << 16 | 0x80 << 16)  # receive queue 1: vector 40
    rig.rx(1)
    rig.write(EICS_EX + 4, 1 << 8)
    rig.settle()
    assert rig.fired(40) == 0
    ask(rig, 40)
    assert rig.read(EIMS_EX + 4) == 0  # the engine has not looked yet
    rig.settle()
    assert rig.read(EIMS_EX + 4) == 1 << 8
    assert rig.read(EIMS_EX) == 0
    assert rig.fired(40) == 1
    assert rig.get(UNMASK_WORDS + 4 * 40) == 0


def test_a_word_of_before_a_reset_unmasks_nothing(rig: Rig) -> None:
    ask(rig, 0)
    rig.card.reset()
    rig.settle()
    assert rig.read(EIMS_EX) == 0


def test_reset_forgets_causes_and_masks(rig: Rig) -> None:
    rig.write(EIMS, 0xFFFFFFFF)
    rig.card.cause(LSC)
    rig.card.reset()
    assert [rig.read(offset) for offset in (EICR, EIMS, EIMS_EX, EIAC, EIAM)] == [0] * 5
