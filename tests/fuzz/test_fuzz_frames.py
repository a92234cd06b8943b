"""Mutated frames through the worker: nothing is read or written beyond a packet (the sanitizer sees to that),
no frame is lost, every count adds up, and a sample ends as the slow twin says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from forward_rig import MAC, OWN4, PATHS, USUAL, Context, Outcome, Rig
from forward_twin import twin
from forward_view_rig import ViewRig
from fuzz_frames import FrameMutator
from fuzz_views import random_view
from test_forward_packets import TABLE

from ixroute._dataplane import ffi, lib
from ixroute.forward.reasons import BY_NAME, REASONS, Kind
from lab.frames import ROUTER_LAN, ROUTER_WAN, all_cases
from lab.packets import mac_bytes

BATCH = 512  # fits the punt ring, all of it
TWIN_EVERY = 80  # batches


def seeds() -> list[bytes]:
    """The named packets of the unit tier and of the lab, all addressed to our first port."""
    ours = {mac_bytes(ROUTER_LAN): MAC[0], mac_bytes(ROUTER_WAN): MAC[0]}
    lab = [ours.get(case.frame[:6], case.frame[:6]) + case.frame[6:] for case in all_cases()]
    return [case.packet for case in TABLE] + [frame[:1790] for frame in lab]


class Fuzz:
    """A rig with rings for a batch, and the means to fill and empty them quickly."""

    def __init__(self, seed: int) -> None:
        self.rig = ViewRig(frames=8192, slots=BATCH)
        self.settle()
        self.home = self.rig.pool.n
        self.dice = np.random.default_rng(seed)
        self.mutator = FrameMutator(seeds(), 2048 - 256, seed)
        self.ports: list[Any] = [port._ports[0] for port in self.rig.ports]
        self.packet: Any = ffi.new("uint8_t[]", 2048)
        self.slots: Any = ffi.new("struct frame[]", BATCH)
        self.delivered = 0

    def settle(self) -> None:
        for _ in range(64):
            self.rig.worker.poll_once()

    def context(self) -> Context:
        flags = USUAL if self.dice.random() < 0.4 else int(self.dice.integers(0, 2048))
        if self.dice.random() < 0.7:
            flags |= USUAL & 7
            flags &= ~256
        vlans = tuple(int(vid) for vid in self.dice.choice([0, 5, 6, 255, 4094], 2, replace=False))
        tokens = bool(self.dice.random() < 0.5)
        views = (random_view(self.dice, 4), random_view(self.dice, 6)) if self.dice.random() < 0.5 else None
        return Context(flags, vlans, tokens, views)

    def deliver(self, port: int) -> list[bytes]:
        """A batch arrives; returns what it was."""
        rows, lengths = self.mutator.batch(BATCH)
        at: Any = ffi.from_buffer("uint8_t[]", rows)
        width = rows.shape[1]
        for i, length in enumerate(lengths.tolist()):
            assert lib.memport_deliver(self.ports[port], at + i * width, length) == 0
        self.delivered += BATCH
        return [rows[i, :length].tobytes() for i, length in enumerate(lengths.tolist())]

    def run(self, expected: int) -> None:
        """Passes until everything moved; the door's side is played along, or its ring would run full."""
        moved = 0
        while moved < expected:
            moved += self.rig.worker.poll_once()
        assert moved == expected

    def empty(self) -> int:
        """Takes off the wires and the punt ring what is there; returns how many packets."""
        out = 0
        for port in self.ports:
            while lib.memport_collect(port, self.packet, 2048):
                out += 1
        lane = self.rig.lane
        n = lib.frame_ring_get(ffi.addressof(lane.punt), self.slots, BATCH)
        assert all(0 < slot.len <= 2048 - 256 for slot in self.slots[0:n])
        assert lib.frame_ring_put(ffi.addressof(lane.punt_done), self.slots, n) == n
        return out + n

    def empty_all(self) -> None:
        while self.empty():
            self.settle()

    def ended(self) -> int:
        return sum(self.rig.dropped().values())

    def check(self) -> None:
        self.rig.check_conservation()
        self.settle()
        assert self.rig.pool.n == self.home, "a frame did not come home"


@pytest.fixture
def fuzz(seed: int) -> Iterator[Fuzz]:
    made = Fuzz(seed)
    yield made
    made.check()
    made.rig.close()


def test_an_empty_frame_does_not_exist(fuzz: Fuzz) -> None:
    assert lib.memport_deliver(fuzz.ports[0], fuzz.packet, 0) < 0
    assert lib.memport_deliver(fuzz.ports[0], fuzz.packet, 2048 - 255) < 0


@pytest.mark.timeout(900)
def test_mutated_frames_all_end_and_all_counts_add_up(fuzz: Fuzz, frames: int) -> None:
    for turn in range(-(-frames // BATCH)):
        if turn % 4 == 0:
            fuzz.rig.set_context(fuzz.context())
        before = fuzz.ended()
        packets = fuzz.deliver(turn % 2)
        fuzz.run(BATCH)
        if turn % TWIN_EVERY == 0:
            assert_as_the_twin_says(fuzz, packets, turn % 2)
        else:
            assert fuzz.empty() + fuzz.ended() - before == BATCH
        fuzz.check()
    assert fuzz.rig.worker.counters()["packets"] == fuzz.delivered >= frames


def assert_as_the_twin_says(fuzz: Fuzz, packets: list[bytes], port: int) -> None:
    expected = [twin(packet, port, fuzz.rig.context) for packet in packets]
    by_kind: dict[Kind | None, list[Outcome]] = {None: [], Kind.DROP: [], Kind.PUNT: []}
    for outcome in expected:
        by_kind[BY_NAME[outcome.reason].kind if outcome.reason else None].append(outcome)
    sent = sorted(((o.port, o.packet) for o in by_kind[None]), key=lambda one: one[0] or 0)
    assert fuzz.rig.sent() == sent
    assert fuzz.rig.punted(BATCH) == [(o.port, o.packet) for o in by_kind[Kind.PUNT]]
    assert len(expected) == BATCH


@pytest.mark.timeout(900)
def test_counts_add_up_whatever_the_tables_say_meanwhile(fuzz: Fuzz, frames: int) -> None:
    """Adjacencies of every action, port and MTU, policers of every rate, injected frames of every length, wires
    that nobody empties and a door that does not come: some of it every turn."""
    rig, dice = fuzz.rig, fuzz.dice
    for turn in range(-(-frames // (4 * BATCH))):
        rig.set_context(fuzz.context())
        shuffle_tables(rig, dice)
        injected = int(dice.integers(0, 200))
        for _ in range(injected):
            length = int(dice.choice([1, 13, 14, 17, 18, 60, 1514, 1518, 1519, 1792]))
            rig.inject(dice.bytes(length), int(dice.integers(0, 3)))
        fuzz.deliver(turn % 2)
        fuzz.run(BATCH + injected)
        rig.check_conservation()
        if turn % 3:
            fuzz.empty_all()
            fuzz.check()
    fuzz.empty_all()


def shuffle_tables(rig: Rig, dice: np.random.Generator) -> None:
    actions = [reason.number for reason in REASONS]
    for index in range(8, 24):
        rig.adjacencies.set(
            index,
            mac=dice.bytes(6),
            interface=int(dice.choice([0, 1, 1, 1, 2, 3, 63, 64, 1023])),
            action=int(dice.choice(actions)) if dice.random() < 0.3 else 0,
            mtu=int(dice.choice([0, 20, 68, 1280, 1500, 65535])),
        )
    for reason in REASONS:
        if reason.kind is Kind.PUNT and dice.random() < 0.3:
            rate, burst = dice.choice([0, 1, 1000, 10**9]), dice.choice([1, 100, 10**9])
            rig.dataplane.set_policer(reason.name, int(rate), int(burst))
    rig.dataplane.set_local4(ip_address(own).packed for own in OWN4 if dice.random() < 0.7)


def test_the_mutations_reach_every_verdict_that_one_frame_can_meet(fuzz: Fuzz, frames: int) -> None:
    """Else the others would prove little."""
    met: Counter[str] = Counter()
    for turn in range(132):
        fuzz.rig.set_context(Context(flags=USUAL ^ 1 << turn // 2 % 11) if turn % 2 else fuzz.context())
        fuzz.deliver(0)
        fuzz.run(BATCH)
        fuzz.empty()
        fuzz.settle()
    met.update(fuzz.rig.dropped())
    met.update(fuzz.rig.punt_counts())
    never = {"tx_ring_full", "punt_ring_full", "inject_too_long"}
    assert {reason.name for reason in REASONS} - set(met) <= never
    assert fuzz.rig.worker.port_counters(0)["sent_packets"] > 1000
    assert {path.action for path in PATHS.values()} - {""} <= set(met)
