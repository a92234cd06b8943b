"""Servers that lie, fall silent, take memory away or die, against our driver: it says what is wrong, and lives."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from typing import Any

import pytest
from fuzz_servers import lied_to

from ixroute._dataplane import lib
from ixroute.driver.port import PortError
from ixroute.driver.transport import TransportError
from ixroute.emulator.card import CardOptions

ERRORS = (PortError, TransportError)
LONGEST = 30.0
"""Seconds that a call may take; every wait in the driver is shorter."""


@pytest.mark.timeout(1800)
def test_whatever_a_server_says_is_an_error_or_a_port_and_never_the_end(messages: int, seed: int) -> None:
    dice = random.Random(seed)
    outcome: Counter[str] = Counter()
    did: Counter[str] = Counter()
    for _ in range(max(messages // 2000, 4)):
        kind = lied_to(dice, dice.choice((0.0, 0.0, 0.001, 0.01, 0.3)), dice.choice((0, 0, 1)))
        began = time.monotonic()
        try:
            rig: Any = kind(
                1, card=CardOptions(map_bar=dice.random() < 0.5), socket=True, events=dice.random() < 0.7
            )
        except ERRORS:
            outcome["no port"] += 1
        else:
            outcome["a port"] += 1
            middle = kind.middle
            middle.wild(dice.choice((0.05, 0.5, 0.0)))
            if dice.random() < 0.4:
                outcome["memory cut"] += middle.cut() > 0
            outcome[_use(rig)] += 1
            with rig:
                pass
        did += kind.middle.did
        assert time.monotonic() - began < LONGEST
    print(dict(outcome), dict(did), file=sys.stderr)
    assert outcome["a port"]


def _use(rig: Any) -> str:
    try:
        for _ in range(3):
            rig.refill()
            rig.send(0, bytes(60))
            rig.step()
            rig.receive()
            rig.port.service()
            rig.port.link()
            rig.port.set_mtu(1600)
            rig.port.stats()
            rig.port.reset(workers_run=False)
    except ERRORS:
        return "used until an error"
    return "used"


def test_a_server_that_dies_leaves_a_port_that_can_be_closed_with_all_its_frames(seed: int) -> None:
    kind = lied_to(random.Random(seed), 0.0)
    with kind(2, socket=True) as rig:
        rig.refill()
        kind.middle.close()
        with pytest.raises(PortError):
            rig.port.service()
        rig.port.close(rig.pools)
        assert rig.free_frames() == sum(int(pool.capacity) for pool in rig.pools)


def test_a_server_that_takes_registers_memory_away_is_a_server_that_is_gone(seed: int) -> None:
    kind = lied_to(random.Random(seed), 0.0, 1.0)
    with kind(1, socket=True, card=CardOptions(map_bar=True), events=False) as rig:
        rig.refill()
        assert kind.middle.cut()
        rig.send(0, bytes(60))  # a worker's store, which nobody may refuse
        with pytest.raises(PortError):
            rig.port.service()
        assert not rig.transport.alive()


def test_interrupts_without_end_and_events_made_blocking_do_not_stop_a_port(seed: int) -> None:
    """A server holds the port's events too: it can fill them, and change whether a read waits."""
    kind = lied_to(random.Random(seed), 0.0)
    with kind(1, socket=True) as rig:
        queue = rig.queues[0]
        for fill in (0, 1, (1 << 64) - 2):
            for fd in (queue.wait_fd, rig.port.link_fd):
                os.set_blocking(fd, True)
                if fill:
                    os.eventfd_write(fd, fill)
            rig.refill()
            rig.port.service()
            assert lib.queue_arm(queue) in (0, 1)
            lib.queue_disarm(queue)
            rig.port.event_check(0)
            rig.deliver(bytes(60))
            rig.step()
        assert rig.port.link().up
