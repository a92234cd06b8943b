"""Packets with several ways to go: shares by weight, flows that stay together, and legs judged one by one."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import pytest
from forward_packets import eth, icmp6, ip4, ip6, udp
from forward_rig import MAC, MTU, PEER, SENDER, USUAL, Context, Outcome, Rig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ixroute._dataplane import lib
from ixroute.fib.adjacency import GroupLeg
from ixroute.forward.reasons import reason_number
from ixroute.forward.worker import PORT_RPF_LOOSE, PORT_RPF_STRICT

GROUP = 40
TO4, TO6 = "10.40.0.1", "2001:db8:40::1"
FROM4, FROM6 = "192.0.2.77", "2001:db8:a::77"
UNRESOLVED = reason_number("unresolved_neigh")


def leg(number: int, weight: int = 1, mtu: int = MTU, action: int = 0, port: int = 1) -> GroupLeg:
    """Told apart by the last byte of its MAC."""
    return GroupLeg(bytes((2, 0, 0, 1, number >> 8, number & 255)), port, action, mtu, weight)


def legs(*weights: int) -> list[GroupLeg]:
    return [leg(number, weight) for number, weight in enumerate(weights)]


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    made.adjacencies.set_group(GROUP, legs(1, 1))
    for prefix in ("10.40.0.0/16", "2001:db8:40::/48", "172.31.0.0/16"):
        made.fib.insert(prefix, GROUP)
    yield made
    made.check_conservation()
    made.close()


def frame4(packet: bytes) -> bytes:
    return eth(MAC[0], SENDER, 0x0800, packet)


def frame6(packet: bytes) -> bytes:
    return eth(MAC[0], SENDER, 0x86DD, packet)


def flow4(number: int, source: str = FROM4) -> bytes:
    """Many hosts behind one prefix, one after the other."""
    return frame4(ip4(source, f"10.40.{number >> 8 & 255}.{number & 255}", udp(80)))


def flow6(number: int) -> bytes:
    return frame6(ip6(FROM6, f"2001:db8:40::{number:x}", udp(80)))


def taken(rig: Rig, frames: Iterable[bytes]) -> list[int]:
    """The legs that they left by, in order."""
    out = []
    batch: list[bytes] = []
    for frame in [*frames, b""]:
        if frame:
            batch.append(frame)
        if len(batch) == 64 or not frame:
            for one in batch:
                rig.deliver(one)
            rig.worker.poll_once()
            sent = rig.sent()
            assert len(sent) == len(batch)
            out += [one[4] << 8 | one[5] for _, one in sent]
            batch = []
    return out


def shares(rig: Rig, frames: Iterable[bytes]) -> dict[int, float]:
    counts = Counter(taken(rig, frames))
    return {number: count / counts.total() for number, count in counts.items()}


def assert_by_weight(found: dict[int, float], weights: Iterable[int]) -> None:
    weights = list(weights)
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(found.get(number, 0) - share) <= 0.05 * share + 0.002, (number, share, found)


# ---- Shares ----


@pytest.mark.parametrize("weights", [(1, 1), (1, 2), (3, 1, 1), (1, 1, 1, 1), (1, 99), (65536, 1, 65535)])
def test_legs_get_their_share_of_flows_to_neighbouring_addresses(rig: Rig, weights: tuple[int, ...]) -> None:
    rig.adjacencies.set_group(GROUP, legs(*weights))
    assert_by_weight(shares(rig, map(flow4, range(30000))), weights)


def test_so_do_flows_of_ip6(rig: Rig) -> None:
    rig.adjacencies.set_group(GROUP, legs(1, 2))
    assert_by_weight(shares(rig, map(flow6, range(30000))), (1, 2))


@pytest.mark.parametrize("seed", range(2))
def test_shares_hold_for_every_seed_and_kind_of_key(rig: Rig, seed: int) -> None:
    """Hashes alone: neighbouring addresses, ports, labels, both addresses at once."""
    lib.dataplane_set_seed(rig.dataplane.c, seed)
    rig.dataplane.set_multipath(4, 1)
    families: dict[str, Callable[[int], tuple[bytes, int]]] = {
        "destination": lambda n: (ip4(FROM4, f"10.40.{n >> 8}.{n & 255}", b""), 4),
        "source": lambda n: (ip4(f"10.{n >> 8}.{n & 255}.7", TO4, b""), 4),
        "both": lambda n: (ip4(f"10.0.{n >> 8}.{n & 255}", f"10.40.{n >> 8}.{n & 255}", b""), 4),
        "port": lambda n: (ip4(FROM4, TO4, udp(80, n)), 4),
        "low bits": lambda n: (ip6(FROM6, f"2001:db8:40::{n:x}", b""), 6),
        "high bits": lambda n: (ip6(FROM6, f"2001:db8:{n:x}::1", b""), 6),
        "label": lambda n: (ip6(FROM6, TO6, b"", flow=n), 6),
    }
    for name, packet in families.items():
        counts = [0] * 16
        for n in range(1, 16001):
            data, family = packet(n)
            counts[lib.dataplane_hash(rig.dataplane.c, data, len(data), family) >> 27] += 1
        # 1000 in each, and four times the deviation of chance
        assert all(abs(count - 1000) < 125 for count in counts), (name, counts)


def test_another_seed_is_another_distribution(rig: Rig) -> None:
    first = taken(rig, map(flow4, range(64)))
    lib.dataplane_set_seed(rig.dataplane.c, 2)
    assert taken(rig, map(flow4, range(64))) != first


def test_as_many_legs_as_there_may_be(rig: Rig) -> None:
    rig.adjacencies.set_group(GROUP, legs(*([1] * 512)))
    counts = Counter(taken(rig, map(flow4, range(32768))))
    assert set(counts) == set(range(512))
    assert all(20 <= count <= 120 for count in counts.values())


@given(weights=st.lists(st.integers(1, 65536), min_size=1, max_size=70), data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_leg_is_the_one_whose_stretch_the_hash_is_in(
    rig: Rig, weights: list[int], data: st.DataObject
) -> None:
    rig.adjacencies.set_group(GROUP, legs(*weights))
    ends, total = [], sum(weights)
    for number in range(len(weights)):
        ends.append((2 * (sum(weights[: number + 1]) << 31) + total) // (2 * total))
    assert ends[-1] == 1 << 31
    numbers = data.draw(st.lists(st.integers(0, 65535), min_size=1, max_size=30))
    expected = []
    for number in numbers:
        packet = flow4(number)[14:]
        hashed = lib.dataplane_hash(rig.dataplane.c, packet, len(packet), 4)
        expected.append(next(i for i, end in enumerate(ends) if hashed < end))
    assert taken(rig, map(flow4, numbers)) == expected


def test_a_stretch_ends_at_the_share_to_the_nearest_whole_number(rig: Rig) -> None:
    """Weights whose two legs meet just at a flow's hash, or just behind it."""
    sides = Counter[int]()
    for number in range(200):
        packet = flow4(number)[14:]
        hashed = lib.dataplane_hash(rig.dataplane.c, packet, len(packet), 4)
        for end in (hashed, hashed + 1):
            share = Fraction(end, 1 << 31).limit_denominator(65536)
            weights = (share.numerator, share.denominator - share.numerator)
            if min(weights) < 1 or math.floor(share * (1 << 31) + Fraction(1, 2)) != end:
                continue
            rig.adjacencies.set_group(GROUP, legs(*weights))
            assert taken(rig, [flow4(number)]) == [int(hashed >= end)]
            sides[end - hashed] += 1
    assert min(sides[0], sides[1]) > 20


# ---- Flows ----


def test_both_directions_and_all_packets_of_a_flow_take_one_leg(rig: Rig) -> None:
    rig.fib.insert("10.41.0.0/16", GROUP)
    rig.dataplane.set_multipath(4, 1)
    rig.adjacencies.set_group(GROUP, legs(*([1] * 7)))
    for n in range(50):
        there = frame4(ip4("10.41.0.9", f"10.40.0.{n}", udp(80, 4000 + n)))
        back = frame4(ip4(f"10.40.0.{n}", "10.41.0.9", udp(4000 + n, 80)))
        assert len(set(taken(rig, [there, back, there]))) == 1
        there = frame6(ip6(FROM6, f"2001:db8:40::{n:x}", udp(80)))
        back = frame6(ip6(f"2001:db8:40::{n:x}", "2001:db8:40::7777", udp(80)))
        turned = frame6(ip6("2001:db8:40::7777", f"2001:db8:40::{n:x}", udp(80)))
        assert len(set(taken(rig, [there, there]))) == len(set(taken(rig, [back, turned]))) == 1


@pytest.mark.parametrize("policy", range(4))
def test_fragments_of_a_packet_stay_together(rig: Rig, policy: int) -> None:
    rig.dataplane.set_multipath(4, policy, 0xFFF)
    rig.dataplane.set_multipath(6, policy, 0xFFF)
    rig.adjacencies.set_group(GROUP, legs(*([1] * 16)))
    used = set()
    for n in range(40):
        payload = bytes((n + 7 * i) & 255 for i in range(24))
        pieces = [
            ip4(FROM4, f"10.40.0.{n}", payload[8 * i :], fragment=i | (0x2000 if i < 2 else 0))
            for i in range(3)
        ]
        pieces6 = [
            ip6(
                FROM6,
                f"2001:db8:40::{n}",
                bytes((17, 0, 0, i << 3 | (i < 2))) + bytes(4) + payload[8 * i :],
                nxt=44,
            )
            for i in range(3)
        ]
        took = set(taken(rig, map(frame4, pieces)))
        assert len(took) == 1
        assert len(set(taken(rig, map(frame6, pieces6)))) == 1
        used |= took
    assert len(used) > 8


def test_an_icmp_error_takes_the_leg_of_the_flow_it_is_about(rig: Rig) -> None:
    """From whatever router on the way, so that it reaches the same server behind the same address."""
    rig.adjacencies.set_group(GROUP, legs(*([1] * 16)))
    for n in range(30):
        flow = ip4(f"10.41.7.{n}", TO4, udp(80))
        about = ip4(TO4, f"10.41.7.{n}", udp(4000, 80))
        error = ip4(f"10.42.0.{n}", TO4, bytes((3, 4, 0, 0)) + bytes(4) + about, proto=1)
        assert len(set(taken(rig, map(frame4, (flow, error))))) == 1
        flow = ip6(f"2001:db8:41::{n}", TO6, udp(80))
        about = ip6(TO6, f"2001:db8:41::{n}", udp(4000, 80))
        error = ip6(f"2001:db8:42::{n}", TO6, icmp6(2, body=bytes(4) + about), nxt=58)
        assert len(set(taken(rig, map(frame6, (flow, error))))) == 1


def test_policies_are_the_families_own_and_change_at_once(rig: Rig) -> None:
    by_port4 = [frame4(ip4(FROM4, TO4, udp(80, port))) for port in range(1024, 1088)]
    by_port6 = [frame6(ip6(FROM6, TO6, udp(80, port))) for port in range(1024, 1088)]
    assert len(set(taken(rig, by_port4))) == len(set(taken(rig, by_port6))) == 1
    rig.dataplane.set_multipath(4, 1)
    assert len(set(taken(rig, by_port4))) == 2
    assert len(set(taken(rig, by_port6))) == 1
    rig.dataplane.set_multipath(6, 3, 0x10)
    assert len(set(taken(rig, by_port6))) == 2
    rig.dataplane.set_multipath(6, 3, 0x20)
    assert len(set(taken(rig, by_port6))) == 1


@pytest.mark.parametrize(
    ("family", "policy", "fields"),
    [(5, 0, 7), (4, 4, 7), (4, -1, 7), (4, 3, 0), (6, 3, 0x1000), (6, 1 << 33, 7)],
)
def test_what_is_no_policy_is_refused(rig: Rig, family: int, policy: int, fields: int) -> None:
    with pytest.raises(ValueError, match="multipath hash policy"):
        rig.dataplane.set_multipath(family, policy, fields)


# ---- Legs one by one ----


def frames_per_leg(rig: Rig, n_legs: int, flow: Callable[[int], bytes] = flow4) -> list[bytes]:
    """For each leg a packet that takes it; the legs are those of the moment."""
    found: dict[int, bytes] = {}
    for number in range(200):
        found.setdefault(taken(rig, [flow(number)])[0], flow(number))
    return [found[number] for number in range(n_legs)]


def test_each_leg_has_its_own_mac_port_and_mtu(rig: Rig) -> None:
    first, second = frames_per_leg(rig, 2)
    rig.set_context(Context(redirect_tokens=False))
    rig.adjacencies.set_group(GROUP, [leg(0, mtu=len(first) - 14), leg(1, mtu=20, port=0)])
    outcome = rig.route(first)
    assert outcome.packet is not None
    assert (outcome.port, outcome.packet[:12]) == (1, leg(0).mac + MAC[1])
    assert rig.route(second) == Outcome("mtu_value_is_too_small", 0, second)
    rig.adjacencies.set_group(GROUP, [leg(0, mtu=len(first) - 15), leg(1, port=0)])
    assert rig.route(first) == Outcome("mtu_value_is_too_small", 0, first)
    outcome = rig.route(second)
    assert outcome.packet is not None
    assert (outcome.port, outcome.packet[:12]) == (0, leg(1).mac + MAC[0])
    rig.set_context(Context())
    assert rig.route(second).reason == "ingress_is_egress"


@pytest.mark.parametrize("flow", [flow4, flow6])
def test_packets_for_an_unresolved_leg_go_to_the_kernel_and_no_others(
    rig: Rig, flow: Callable[[int], bytes]
) -> None:
    first, second = frames_per_leg(rig, 2, flow)
    rig.adjacencies.set_group(GROUP, [leg(0), leg(1, action=UNRESOLVED)])
    assert rig.route(first).reason == ""
    assert rig.route(second) == Outcome("unresolved_neigh", 0, second)


def test_time_to_live_comes_before_whatever_the_leg_says(rig: Rig) -> None:
    rig.adjacencies.set_group(GROUP, [leg(0, mtu=10), leg(1, action=UNRESOLVED)])
    for n in range(16):
        assert rig.route(frame4(ip4(FROM4, f"10.40.0.{n}", ttl=1))).reason == "ttl_value_is_too_small"
        assert rig.route(frame6(ip6(FROM6, f"2001:db8:40::{n}", hops=1))).reason == "ttl_value_is_too_small"


def test_a_leg_by_a_port_that_this_worker_cannot_send_by_is_the_kernels(rig: Rig) -> None:
    rig.adjacencies.set_group(GROUP, [leg(0, port=2), leg(1, port=1023)])
    for n in range(16):
        assert rig.route(flow4(n)).reason == "external_route"


def test_a_group_that_is_not_there_is_the_kernels(rig: Rig) -> None:
    rig.adjacencies.set(GROUP, action=63)
    assert rig.route(flow4(1)) == Outcome("multipath_route", 0, flow4(1))
    assert rig.route(flow6(1)).reason == "multipath_route"
    assert rig.route(frame4(ip4(FROM4, TO4, ttl=1))).reason == "ttl_value_is_too_small"
    rig.set_context(Context(USUAL | PORT_RPF_STRICT))
    assert rig.route(frame4(ip4("172.31.0.9", "10.0.0.1"))).reason == "source_validation"


def test_a_source_behind_several_legs_is_valid_where_any_of_them_leads(rig: Rig) -> None:
    packet = frame4(ip4("172.31.0.9", "10.0.0.1"))
    for flags, ports, valid in (
        (PORT_RPF_STRICT, (1, 0), True),
        (PORT_RPF_STRICT, (0, 1), True),
        (PORT_RPF_STRICT, (1, 2), False),
        (PORT_RPF_LOOSE, (1, 2), True),
        (0, (1, 2), True),
    ):
        rig.set_context(Context(USUAL | flags))
        for action in (0, UNRESOLVED):
            rig.adjacencies.set_group(
                GROUP, [leg(n, port=port, action=action) for n, port in enumerate(ports)]
            )
            assert rig.route(packet).reason == ("" if valid else "source_validation"), (flags, ports)


# ---- Resilient groups ----


def test_moving_a_bucket_moves_its_flows_and_no_others(rig: Rig) -> None:
    n, frames = 128, [flow4(i) for i in range(2000)]
    bucket = [lib.dataplane_hash(rig.dataplane.c, f[14:], len(f) - 14, 4) % n for f in frames]
    buckets = [i % 3 for i in range(n)]
    rig.adjacencies.set_group(GROUP, legs(1, 1, 1), buckets)
    before = taken(rig, frames)
    assert before == [buckets[b] for b in bucket]
    buckets[5], buckets[77] = 1, 2  # were 2 and 2: only one of them moves
    rig.adjacencies.set_group(GROUP, legs(1, 1, 1), buckets)
    after = taken(rig, frames)
    assert [i for i in range(2000) if after[i] != before[i]] == [i for i in range(2000) if bucket[i] == 5]
    assert len(set(bucket)) == n


@pytest.mark.parametrize("n", [1, 3, 65535])
def test_any_number_of_buckets(rig: Rig, n: int) -> None:
    rig.adjacencies.set_group(GROUP, legs(1, 1), [i % 2 for i in range(n)])
    found = set(taken(rig, map(flow4, range(100))))
    assert found == ({0} if n == 1 else {0, 1})


def test_buckets_and_legs_that_packets_chose_are_marked_until_taken(rig: Rig) -> None:
    n = 64
    rig.adjacencies.set_group(GROUP, legs(1, 1), [i % 2 for i in range(n)])
    frame = flow4(1)
    bucket = lib.dataplane_hash(rig.dataplane.c, frame[14:], len(frame) - 14, 4) % n
    expected = bytes(i == bucket for i in range(n))
    assert rig.adjacencies.take_buckets_used(GROUP) == bytes(n)
    for _ in range(2):
        taken(rig, [frame, frame])
        assert rig.adjacencies.take_buckets_used(GROUP) == expected
        assert rig.adjacencies.take_legs_used(GROUP) == bytes((bucket % 2 == 0, bucket % 2 == 1))
    assert rig.adjacencies.take_buckets_used(GROUP) == bytes(n)
    assert rig.adjacencies.take_legs_used(GROUP) == bytes(2)


def test_marks_of_buckets_go_over_to_a_new_group_with_as_many(rig: Rig) -> None:
    rig.adjacencies.set_group(GROUP, legs(1, 1), [0, 1, 0, 1])
    taken(rig, [flow4(1)])
    rig.adjacencies.set_group(GROUP, legs(1, 1), [1, 1, 0, 1])
    assert sum(rig.adjacencies.take_buckets_used(GROUP)) == 1
    taken(rig, [flow4(1)])
    rig.adjacencies.set_group(GROUP, legs(1, 1), [0] * 8)
    assert rig.adjacencies.take_buckets_used(GROUP) == bytes(8)


def test_the_group_is_marked_as_used_like_any_adjacency(rig: Rig) -> None:
    taken(rig, [flow4(1)])
    used = rig.worker.take_used(64)
    assert [i for i in range(64) if used[i // 8] >> i % 8 & 1] == [GROUP]


# ---- While packets flow ----


def test_a_group_changes_under_a_running_worker(rig: Rig) -> None:
    """Every packet leaves by a leg of the group of some moment; replaced groups are freed."""
    rig.worker.start(0)
    frames = [flow4(n) for n in range(16)]
    sent: list[bytes] = []
    delivered = 0
    until = time.monotonic() + 60
    for n in range(400):
        generation = [leg(number, weight=number % 3 + 1) for number in range(n % 5 + 1)]
        buckets = [i % len(generation) for i in range(32)] if n % 2 else None
        if n % 7 == 6:
            rig.adjacencies.set(GROUP, mac=PEER[1], interface=1, mtu=MTU)
        else:
            rig.adjacencies.set_group(GROUP, generation, buckets)
        for frame in frames:
            rig.deliver(frame)
            delivered += 1
        while len(sent) + rig.punt_counts().get("multipath_route", 0) < delivered:
            sent += [packet for _, packet in rig.sent()]
            rig.punted()
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0)
    macs = {leg(number).mac for number in range(5)} | {PEER[1]}
    assert {packet[:6] for packet in sent} == macs
    assert rig.worker.stop(10)
    rig.adjacencies.collect()
    assert rig.adjacencies.retired() == 0
