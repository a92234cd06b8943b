"""What happens when something runs out: rings, frames, tokens; and what the kernel sends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
from forward_packets import arp, eth, ip4, tcp, vlan
from forward_rig import GLEAN_1, MAC, MTU, SENDER, VIA_1, Context, Rig
from hypothesis import given
from hypothesis import strategies as st

from ixroute._dataplane import ffi, lib
from ixroute.forward.policers import DEFAULT_POLICERS, Policer
from ixroute.forward.reasons import REASONS, Kind
from ixroute.forward.worker import add_port_counters

THROUGH = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "10.0.0.1"))
LOCAL = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "192.0.2.1"))
BGP = eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "192.0.2.1", tcp(179), proto=6))

CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; Python does not name it

MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(**options: int) -> Rig:
        rigs.append(Rig(**options))  # type: ignore[arg-type]
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.check_conservation()
        rig.close()


def test_a_full_transmit_ring_drops_and_says_so_where_the_packet_came_in(make_rig: MakeRig) -> None:
    rig = make_rig(slots=64)
    for _ in range(2):
        for _ in range(50):
            rig.deliver(THROUGH)
        assert rig.worker.poll_once() == 50
    assert rig.worker.port_counters(0)["dropped"] == {"tx_ring_full": 36}
    assert rig.worker.port_counters(0)["sent_packets"] == 64
    assert rig.worker.port_counters(1)["tx_packets"] == 64
    assert rig.worker.port_counters(1)["tx_bytes"] == 64 * len(THROUGH)
    assert len(rig.sent()) == 64
    rig.settle()
    assert rig.route(THROUGH).reason == ""


def test_a_full_punt_ring_drops_and_forwarding_goes_on(make_rig: MakeRig) -> None:
    rig = make_rig(frames=2048, slots=64)
    for _ in range(33):
        for _ in range(32):
            rig.deliver(LOCAL)
            rig.deliver(THROUGH)
        assert rig.worker.poll_once() == 64
        assert len(rig.sent()) == 32
    counters = rig.worker.port_counters(0)
    assert counters["punted"] == {"local_route": lib.LANE_SLOTS - lib.PUNT_RESERVE}
    assert counters["dropped"] == {"punt_ring_full": 32 + lib.PUNT_RESERVE}
    assert len(rig.punted()) == lib.LANE_SLOTS - lib.PUNT_RESERVE


def test_what_keeps_the_router_alive_finds_room_in_a_punt_ring_full_of_other_things(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(frames=2048, slots=64)
    for _ in range(40):
        for _ in range(32):
            rig.deliver(LOCAL)
        rig.worker.poll_once()
    rig.worker.port_counters(0)
    question = eth(b"\xff" * 6, SENDER, 0x0806, arp(1, "192.0.2.77", "192.0.2.1"))
    for packet in (BGP, LOCAL, question, LOCAL, BGP):
        rig.deliver(packet)
    rig.worker.poll_once()
    punted = rig.worker.port_counters(0)["punted"]
    assert (punted["routing_protocol"], punted["arp_request"]) == (2, 1)
    assert punted["local_route"] == lib.LANE_SLOTS - lib.PUNT_RESERVE
    heard = [packet for _, packet in rig.punted()]
    assert heard[-3:] == [BGP, question, BGP], "in the order in which they came"


def test_without_free_frames_the_rings_starve_and_recover(make_rig: MakeRig) -> None:
    rig = make_rig(frames=300, slots=128)
    assert rig.worker.counters()["free_frames"] == 0
    while rig.ports[0].deliver(LOCAL):
        rig.worker.poll_once()
    assert rig.worker.counters()["rx_no_frame"] > 0
    waiting = rig.punted()
    assert len(waiting) == 128, "all frames that the ring of port 0 had"
    rig.settle()
    assert rig.route(THROUGH).reason == ""


def test_a_packet_from_the_kernel_leaves_unrouted_and_unchanged(make_rig: MakeRig) -> None:
    rig = make_rig()
    packet = eth(SENDER, MAC[1], 0x0806, arp(1, "198.51.100.1", "198.51.100.9"))
    rig.inject(packet, 1)
    assert rig.worker.poll_once() == 1
    assert rig.sent() == [(1, packet)]
    counters = rig.worker.port_counters(1)
    assert (counters["injected_packets"], counters["injected_bytes"]) == (1, len(packet))
    assert (counters["sent_packets"], counters["tx_packets"]) == (1, 1)


@pytest.mark.parametrize(
    ("packet", "port", "reason"),
    [
        (eth(SENDER, MAC[1], 0x0800, bytes(MTU)), 1, ""),
        (eth(SENDER, MAC[1], 0x0800, bytes(MTU + 1)), 1, "inject_too_long"),
        (vlan(eth(SENDER, MAC[1], 0x0800, bytes(MTU)), 5), 1, ""),
        (vlan(eth(SENDER, MAC[1], 0x0800, bytes(MTU)), 5, 0x88A8), 1, ""),
        (vlan(eth(SENDER, MAC[1], 0x0800, bytes(MTU + 1)), 5), 1, "inject_too_long"),
        (bytes(13), 0, "frame_too_short"),
        (eth(SENDER, MAC[2], 0x0800, bytes(46)), 2, "tx_ring_full"),
    ],
    ids=["MTU", "MTU + 1", "tagged MTU", "service-tagged MTU", "tagged MTU + 1", "13 bytes", "no queue"],
)
def test_what_the_kernel_sends_is_stopped_only_when_it_cannot_leave(
    make_rig: MakeRig, packet: bytes, port: int, reason: str
) -> None:
    rig = make_rig()
    rig.inject(packet, port)
    assert rig.worker.poll_once() == 1
    assert rig.sent() == ([] if reason else [(port, packet)])
    assert rig.worker.port_counters(port)["dropped"] == ({reason: 1} if reason else {})


def test_the_door_keeps_frames_to_read_into(make_rig: MakeRig) -> None:
    rig = make_rig(frames=1024)
    free = ffi.addressof(rig.lane.inject_free)
    assert lib.frame_ring_count(free) == 256
    for _ in range(100):
        rig.inject(THROUGH, 1)
    assert lib.frame_ring_count(free) == 156
    rig.settle()
    assert lib.frame_ring_count(free) == 256


def test_packets_above_the_policer_are_dropped_under_its_reason(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.dataplane.set_policer("local_route", 1, 5)
    for _ in range(20):
        rig.deliver(LOCAL)
    rig.worker.poll_once()
    assert len(rig.punted()) == 5
    counters = rig.worker.port_counters(0)
    assert counters["punted"] == {"local_route": 5}
    assert counters["policed"] == {"local_route": 15}


def test_a_flood_of_one_reason_leaves_the_tokens_of_another(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.dataplane.set_policers({"local_route": Policer(1, 2), "routing_protocol": Policer(1, 2)})
    for packet in [LOCAL] * 40 + [BGP]:
        rig.deliver(packet)
    rig.worker.poll_once()
    assert rig.worker.port_counters(0)["punted"] == {"local_route": 2, "routing_protocol": 1}


def test_each_port_has_buckets_of_its_own(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.dataplane.set_policer("local_route", 1, 1)
    for port in range(2):
        for _ in range(3):
            rig.deliver(MAC[port] + LOCAL[6:], port)
    rig.worker.poll_once()
    assert [rig.worker.port_counters(port)["punted"] for port in range(2)] == [{"local_route": 1}] * 2


def test_rate_0_lets_nothing_pass(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.dataplane.set_policer("local_route", 0, 5)
    assert rig.route(LOCAL).reason == "local_route"
    assert rig.worker.port_counters(0)["policed"] == {"local_route": 1}


def test_workers_share_a_policer_evenly(make_rig: MakeRig) -> None:
    rig = make_rig(workers=3)
    rig.dataplane.set_policer("local_route", 3, 12)
    for _ in range(20):
        rig.deliver(LOCAL)
    rig.worker.poll_once()
    assert rig.worker.port_counters(0)["punted"] == {"local_route": 4}


def test_tokens_come_back_with_time(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.dataplane.set_policer("local_route", 10**9, 3)
    for _ in range(3):
        began = time.clock_gettime(CLOCK_MONOTONIC_COARSE)
        while time.clock_gettime(CLOCK_MONOTONIC_COARSE) == began:
            time.sleep(0.001)
        for _ in range(5):
            rig.deliver(LOCAL)
        rig.worker.poll_once()
        assert len(rig.punted()) == 3


@given(
    rate=st.integers(1, 10**9),
    burst=st.integers(1, 1000),
    steps=st.lists(st.integers(0, 3 * 10**9) | st.integers(0, 1000), max_size=200),
)
def test_a_bucket_counts_as_exact_fractions_do(rate: int, burst: int, steps: list[int]) -> None:
    bucket = ffi.new("struct bucket *")
    now, tokens, last = 1, Fraction(burst), 1
    for step in steps:
        now += step
        tokens = min(Fraction(burst), tokens + Fraction(rate * (now - last), 10**9))
        last = now
        expected = tokens >= 1
        tokens -= expected
        assert lib.bucket_take(bucket, rate, burst, now) == expected


def test_a_long_pause_fills_a_bucket_no_further_than_its_burst() -> None:
    bucket = ffi.new("struct bucket *")
    assert lib.bucket_take(bucket, 10**9, 2, 1)
    assert [lib.bucket_take(bucket, 10**9, 2, 2**62) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("number", "workers", "share"), [(0, 4, 0), (1, 4, 1), (4, 4, 1), (9, 4, 2), (7, 1, 7)]
)
def test_a_workers_share_is_at_least_one_if_there_is_any(number: int, workers: int, share: int) -> None:
    assert lib.policer_share(number, workers) == share


def test_every_punt_reason_has_a_default_policer_and_no_other() -> None:
    assert set(DEFAULT_POLICERS) == {r.name for r in REASONS if r.kind is Kind.PUNT}
    assert all(p.burst * 100 >= p.rate for p in DEFAULT_POLICERS.values()), "the coarse clock would cost rate"


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (10**9 + 1, 1), (1, 0), (1, 10**9 + 1)])
def test_policer_numbers_out_of_range_are_refused(make_rig: MakeRig, rate: int, burst: int) -> None:
    with pytest.raises(ValueError, match=r"is not in"):
        make_rig().dataplane.set_policer("local_route", rate, burst)


def test_only_punts_have_policers(make_rig: MakeRig) -> None:
    with pytest.raises(ValueError, match="blackhole_route"):
        make_rig().dataplane.set_policer("blackhole_route", 1, 1)
    with pytest.raises(KeyError):
        make_rig().dataplane.set_policer("no_such_reason", 1, 1)


def test_used_adjacencies_are_told_once(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.route(THROUGH)
    rig.route(eth(MAC[0], SENDER, 0x0800, ip4("192.0.2.77", "198.51.100.9")))
    used = rig.worker.take_used(64)
    assert [i for i in range(64) if used[i // 8] >> i % 8 & 1] == [VIA_1]  # only what forwarded, not GLEAN_1
    assert GLEAN_1 != VIA_1
    assert rig.worker.take_used(64) == bytes(8)
    rig.route(THROUGH)
    assert rig.worker.take_used(VIA_1) == bytes(1), "asked for the first few only"
    assert rig.worker.take_used(64)[VIA_1 // 8] == 1 << VIA_1 % 8


def test_port_settings_are_checked(make_rig: MakeRig) -> None:
    dataplane = make_rig().dataplane
    for port, mac, mtu in [(3, MAC[0], 1500), (0, MAC[0][:5], 1500), (0, MAC[0], 65536)]:
        with pytest.raises(ValueError, match=r"."):
            dataplane.set_port(port, mac, mtu, 0)
    with pytest.raises(ValueError, match="VLANs"):
        dataplane.set_vlans(0, [4095])


def test_own_addresses_that_are_no_longer_own_are_forgotten(make_rig: MakeRig) -> None:
    rig = make_rig()
    packet = eth(MAC[0], SENDER, 0x0800, ip4("203.0.113.1", "10.0.0.1"))
    assert rig.route(packet).reason == "sip_is_own"
    rig.dataplane.set_local4([])
    assert rig.route(packet).reason == ""


def test_an_adjacency_changed_between_passes_is_seen_by_the_next(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.adjacencies.set(VIA_1, mac=SENDER, interface=0, action=0, mtu=MTU)
    rig.set_context(Context(redirect_tokens=False))
    outcome = rig.route(THROUGH)
    assert outcome.port == 0
    assert outcome.packet is not None
    assert outcome.packet[:12] == SENDER + MAC[0]


def test_counters_of_ports_add_up(make_rig: MakeRig) -> None:
    rig = make_rig()
    for packet in (THROUGH, LOCAL, b"\0"):
        rig.route(packet)
    total: dict[str, object] = {}
    for port in range(3):
        add_port_counters(total, rig.worker.port_counters(port))
    assert total["rx_packets"] == 3
    assert total["rx_bytes"] == len(THROUGH) + len(LOCAL) + 1
    assert total["tx_packets"] == total["sent_packets"] == 1
    assert total["punted"] == {"local_route": 1}
    assert total["dropped"] == {"frame_too_short": 1}
