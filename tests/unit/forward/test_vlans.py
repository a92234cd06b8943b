"""VLAN sub-interfaces: whose a tagged packet is, what it carries when it leaves, what is counted; against a slow twin
that walks the tags one by one over a dict of interfaces."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from forward_packets import arp as arp_data
from forward_packets import eth, ip4, ip6, pad, vlan
from forward_rig import INNER, MAC, MTU, OUTER, PEER, SENDER, SUB, SUB_1, USUAL, Context, Outcome, Rig
from forward_twin import Ended, Frame
from forward_twin import ip4 as twin_ip4
from forward_twin import ip6 as twin_ip6
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ixroute.forward.reasons import BY_NAME, Kind
from ixroute.forward.worker import (
    PORT_KERNEL_ALL,
    PORT_RPF_STRICT,
    PORT_SEND_REDIRECTS,
    PORT_UP,
)

Q, AD = 0x8100, 0x88A8
OWN_MAC = bytes.fromhex("0200000000f7")
HOST, HOST6 = "192.0.2.77", "2001:db8:a::77"
TAGS = (b"\x81\x00", b"\x88\xa8")


@dataclass(frozen=True)
class Sub:
    port: int
    tags: tuple[tuple[int, int], ...]
    flags: int = USUAL
    mac: bytes = b""  # the port's


@dataclass(frozen=True)
class World:
    """Sub-interfaces by number; VLAN ids that are the kernel's by interface."""

    subs: dict[int, Sub] = field(
        default_factory=lambda: {
            SUB: Sub(0, ((Q, 7),)),
            OUTER: Sub(0, ((AD, 7),)),
            INNER: Sub(0, ((AD, 7), (Q, 9))),
            SUB_1: Sub(1, ((Q, 7),)),
        }
    )
    kernels: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def mac(self, number: int) -> bytes:
        return MAC[number] if number < 64 else self.subs[number].mac or MAC[self.subs[number].port]

    def flags(self, number: int) -> int:
        return USUAL if number < 64 else self.subs[number].flags

    def tags(self, number: int) -> tuple[tuple[int, int], ...]:
        return () if number < 64 else self.subs[number].tags

    def port(self, number: int) -> int:
        return number if number < 64 else self.subs[number].port


def with_flags(number: int, flags: int, mac: bytes = b"") -> World:
    world = World()
    return replace(world, subs=world.subs | {number: replace(world.subs[number], flags=flags, mac=mac)})


class VlanRig(Rig):
    def set_world(self, world: World) -> None:
        for number in sorted(range(SUB, SUB_1 + 1), key=lambda number: number == OUTER):
            self.dataplane.clear_interface(number)
        self.worker.poll_once()  # now nothing of the old ones is remembered
        for number, sub in world.subs.items():
            self.dataplane.set_interface(number, sub.port, sub.tags, world.mac(number), MTU, sub.flags)
        for number in (0, 1, *world.subs):
            self.dataplane.set_vlans(number, world.kernels.get(number, ()))


@pytest.fixture(scope="module")
def rig() -> Iterator[VlanRig]:
    made = VlanRig()
    yield made
    made.check_conservation()
    check_subs(made)
    made.close()


def check_subs(rig: Rig) -> None:
    """The equation of counters.h."""
    for number in range(SUB, SUB_1 + 1):
        c = rig.worker.sub_counters(number)
        assert c["rx_packets"] == c["sent_packets"] + c["punted"] + c["dropped"] + c["policed"]


# ---- the twin


def twin(packet: bytes, port: int, world: World) -> Outcome:
    try:
        number, ethertype, frame = enter(packet, port, world)
        path, ip = twin_ip4(frame) if ethertype == b"\x08\x00" else twin_ip6(frame)
        if path.port not in (0, 1, *world.subs):
            raise Ended("external_route")
        if path.port == number and (ethertype == b"\x86\xdd" or frame.has(PORT_SEND_REDIRECTS)):
            raise Ended("ingress_is_egress")
    except Ended as end:
        reason = str(end)
        punted = BY_NAME[reason].kind is Kind.PUNT
        return Outcome(reason, port, packet) if punted else Outcome(reason)
    tags = b"".join(t.to_bytes(2, "big") + v.to_bytes(2, "big") for t, v in world.tags(path.port))
    return Outcome("", world.port(path.port), path.mac + world.mac(path.port) + tags + ethertype + ip)


def enter(packet: bytes, port: int, world: World) -> tuple[int, bytes, Frame]:
    """Interface number, EtherType, and what the twin of IP takes."""
    if len(packet) < 14:
        raise Ended("frame_too_short")
    if packet[:3] == bytes.fromhex("0180c2"):
        raise Ended("link_local_frame")
    by_tags = {(sub.port, sub.tags): number for number, sub in world.subs.items()}
    number, macs, rest = port, {MAC[port]}, packet[12:]
    for _ in range(4):
        if rest[:2] not in TAGS:
            break
        if len(rest) < 6:
            raise Ended("frame_too_short")
        tag = (int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big") & 0xFFF)
        inside = by_tags.get((port, (*world.tags(number), tag)))
        if inside is not None:
            number = inside
            if not world.flags(number) & PORT_UP:
                raise Ended("port_down")
            if world.flags(number) & PORT_KERNEL_ALL:
                raise Ended("kernel_interface")
            macs.add(world.mac(number))
        elif tag[1] in world.kernels.get(number, ()):
            raise Ended("vlan_sub_interface")
        elif tag[1]:
            raise Ended("vlan_tag_mismatch")
        rest = rest[4:]
    if rest[:2] in TAGS:
        raise Ended("vlan_sub_interface")
    group = bool(packet[0] & 1)
    if not group and packet[:6] not in macs:
        raise Ended("other_host")
    ethertype = rest[:2]
    if ethertype == b"\x08\x06":
        reply = len(rest) >= 10 and rest[8:10] == b"\0\2"
        raise Ended("arp_response" if reply and not group else "arp_request")
    if ethertype not in (b"\x08\x00", b"\x86\xdd"):
        raise Ended("non_ip")
    return number, ethertype, Frame(number, Context(flags=world.flags(number)), group, rest[2:])


# ---- packets


def four(to: str, dst: bytes = MAC[0], **fields: int) -> bytes:
    return eth(dst, SENDER, 0x0800, ip4(HOST, to, **fields))  # type: ignore[arg-type]


def six(to: str, dst: bytes = MAC[0]) -> bytes:
    return eth(dst, SENDER, 0x86DD, ip6(HOST6, to))


def arp(operation: int, dst: bytes) -> bytes:
    return eth(dst, SENDER, 0x0806, arp_data(operation, HOST, "192.0.2.1"))


def qinq(packet: bytes, inner: int = 9, outer: int = 7) -> bytes:
    return vlan(vlan(packet, inner), outer, AD)


PLAIN = World()
CASES = [
    ("from a VLAN to a port", vlan(four("10.1.2.3"), 7), 0, PLAIN, ""),
    ("from a port to a VLAN", four("10.20.1.1"), 0, PLAIN, ""),
    ("from a VLAN to one of the same id elsewhere", vlan(four("10.22.1.1"), 7), 0, PLAIN, ""),
    ("from a VLAN to one of the same port", vlan(four("10.21.1.1"), 7), 0, PLAIN, ""),
    ("from a VLAN back into it", vlan(four("10.20.1.1"), 7), 0, PLAIN, "ingress_is_egress"),
    ("from a VLAN back to its port untagged", vlan(four("172.16.0.1"), 7), 0, PLAIN, ""),
    ("IPv6 from a VLAN to another", vlan(six("2001:db8:22::1"), 7), 0, PLAIN, ""),
    ("IPv6 into two tags", six("2001:db8:21::1"), 0, PLAIN, ""),
    ("from two tags to a port", qinq(four("10.1.2.3")), 0, PLAIN, ""),
    ("from two tags to one", qinq(four("10.20.1.1")), 0, PLAIN, ""),
    ("two tags, inner unknown", qinq(four("10.1.2.3"), inner=8), 0, PLAIN, "vlan_tag_mismatch"),
    ("two tags, outer of the other type", vlan(vlan(four("10.1.2.3"), 9), 7), 0, PLAIN, "vlan_tag_mismatch"),
    ("the outer one alone is an interface too", vlan(four("10.1.2.3"), 7, AD), 0, PLAIN, ""),
    ("an id of the other type", vlan(four("10.1.2.3", MAC[1]), 7, AD), 1, PLAIN, "vlan_tag_mismatch"),
    ("an unknown id", vlan(four("10.1.2.3"), 8), 0, PLAIN, "vlan_tag_mismatch"),
    (
        "an id that is the kernel's",
        vlan(four("10.1.2.3"), 8),
        0,
        World(kernels={0: (8,)}),
        "vlan_sub_interface",
    ),
    (
        "an inner id that is the kernel's",
        qinq(four("10.1.2.3"), 8),
        0,
        World(kernels={OUTER: (8,)}),
        "vlan_sub_interface",
    ),
    (
        "a port's kernel id is not its VLANs'",
        qinq(four("10.1.2.3"), 8),
        0,
        World(kernels={0: (8,)}),
        "vlan_tag_mismatch",
    ),
    ("priority and DEI bits", vlan(four("10.22.1.1"), 0xF007), 0, PLAIN, ""),
    ("a priority tag before the VLAN", vlan(vlan(four("10.1.2.3"), 7), 0xA000), 0, PLAIN, ""),
    ("a priority tag inside the VLAN", vlan(vlan(four("10.1.2.3"), 0), 7), 0, PLAIN, ""),
    ("five tags", vlan(vlan(vlan(qinq(four("10.1.2.3")), 0), 0), 0), 0, PLAIN, "vlan_sub_interface"),
    (
        "a sub-interface of id 0",
        vlan(four("10.1.2.3"), 0x2000),
        0,
        World({SUB: Sub(0, ((Q, 0),), PORT_UP)}),
        "forwarding_disabled",
    ),
    ("into a sub-interface of id 0", four("10.20.2.3"), 0, World({SUB: Sub(0, ((Q, 0),))}), ""),
    ("to another host", vlan(four("10.1.2.3", SENDER), 7), 0, PLAIN, "other_host"),
    ("to the VLAN's own MAC", vlan(four("10.1.2.3", OWN_MAC), 7), 0, with_flags(SUB, USUAL, OWN_MAC), ""),
    (
        "to the port's MAC, the VLAN having its own",
        vlan(four("10.1.2.3"), 7),
        0,
        with_flags(SUB, USUAL, OWN_MAC),
        "",
    ),
    (
        "to the VLAN's MAC untagged",
        four("10.1.2.3", OWN_MAC),
        0,
        with_flags(SUB, USUAL, OWN_MAC),
        "other_host",
    ),
    (
        "to the outer VLAN's own MAC in the inner",
        qinq(four("10.1.2.3", OWN_MAC)),
        0,
        with_flags(OUTER, USUAL, OWN_MAC),
        "",
    ),
    ("from a VLAN's own MAC", four("10.20.2.3"), 0, with_flags(SUB, USUAL, OWN_MAC), ""),
    (
        "the sub-interface is down",
        vlan(four("10.1.2.3"), 7),
        0,
        with_flags(SUB, USUAL & ~PORT_UP),
        "port_down",
    ),
    ("its outer one is down", qinq(four("10.1.2.3")), 0, with_flags(OUTER, USUAL & ~PORT_UP), "port_down"),
    (
        "it is in a bridge",
        vlan(four("10.1.2.3"), 7),
        0,
        with_flags(SUB, USUAL | PORT_KERNEL_ALL),
        "kernel_interface",
    ),
    ("it does not forward", vlan(four("10.1.2.3"), 7), 0, with_flags(SUB, PORT_UP), "forwarding_disabled"),
    (
        "it checks sources, and theirs is elsewhere",
        vlan(four("10.1.2.3"), 7),
        0,
        with_flags(SUB, USUAL | PORT_RPF_STRICT),
        "source_validation",
    ),
    (
        "it checks sources, and theirs is here",
        vlan(eth(MAC[0], SENDER, 0x0800, ip4("192.0.3.9", "10.1.2.3")), 7),
        0,
        with_flags(SUB, USUAL | PORT_RPF_STRICT),
        "",
    ),
    (
        "a source of the VLAN on its port",
        eth(MAC[0], SENDER, 0x0800, ip4("192.0.3.9", "10.1.2.3")),
        0,
        PLAIN,
        "",
    ),
    ("ARP in a VLAN", vlan(arp(1, bytes.fromhex("ffffffffffff")), 7), 0, PLAIN, "arp_request"),
    ("an ARP reply in a VLAN", vlan(arp(2, MAC[0]), 7), 0, PLAIN, "arp_response"),
    ("to the router", vlan(four("192.0.2.1"), 7), 0, PLAIN, "local_route"),
    ("its TTL ends", vlan(four("10.1.2.3", ttl=1), 7), 0, PLAIN, "ttl_value_is_too_small"),
    ("LLC in a VLAN", vlan(eth(MAC[0], SENDER, 60, bytes(60)), 7), 0, PLAIN, "non_ip"),
    (
        "LLDP in a VLAN",
        vlan(eth(bytes.fromhex("0180c200000e"), SENDER, 0x88CC, bytes(60)), 7),
        0,
        PLAIN,
        "link_local_frame",
    ),
    ("cut in the inner tag", qinq(four("10.1.2.3"))[:20], 0, PLAIN, "frame_too_short"),
    ("padded", pad(vlan(eth(MAC[0], SENDER, 0x0800, ip4(HOST, "10.1.2.3", b"")), 7), 64), 0, PLAIN, ""),
]


@pytest.mark.parametrize(
    ("packet", "port", "world", "reason"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_tagged_packet(rig: VlanRig, packet: bytes, port: int, world: World, reason: str) -> None:
    rig.set_context(Context())
    rig.set_world(world)
    outcome = rig.route(packet, port)
    assert outcome.reason == reason
    assert outcome == twin(packet, port, world)


# ---- any stack of tags

tag = st.tuples(st.sampled_from([Q, AD]), st.sampled_from([0, 7, 8, 9, 4095]), st.integers(0, 15))
macs = st.sampled_from([b"", OWN_MAC, MAC[1]])
sub_flags = st.sampled_from([USUAL, USUAL, PORT_UP, 0, USUAL | PORT_KERNEL_ALL, USUAL & ~PORT_SEND_REDIRECTS])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    subs = {n: replace(s, flags=draw(sub_flags), mac=draw(macs)) for n, s in World().subs.items()}
    if draw(st.booleans()):
        subs[SUB] = replace(subs[SUB], tags=((Q, 0),))
    if draw(st.booleans()):
        del subs[INNER]
        if draw(st.booleans()):
            del subs[OUTER]
    kernels = {n: draw(st.sampled_from([(), (8,), (8, 9), (0,)])) for n in (0, *subs)}
    return World(subs, kernels)


@st.composite
def stacks(draw: st.DrawFn) -> bytes:
    to = draw(st.sampled_from(["10.1.2.3", "10.20.1.1", "10.21.1.1", "10.22.1.1", "172.16.0.1", "192.0.2.1"]))
    to6 = draw(st.sampled_from(["2001:db8::9", "2001:db8:20::1", "2001:db8:21::1", "2001:db8:72::1"]))
    dst = draw(st.sampled_from([MAC[0], MAC[0], MAC[1], OWN_MAC, SENDER, b"\xff" * 6]))
    packet = draw(st.sampled_from([four(to, dst), six(to6, dst), arp(1, dst), arp(2, dst)]))
    for type_, vid, priority in draw(st.lists(tag, max_size=5)):
        packet = vlan(packet, priority << 12 | vid, type_)
    cut = draw(st.integers(0, 60))
    return packet[: max(1, len(packet) - cut)] if draw(st.integers(0, 4)) == 0 else packet


SETTINGS = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(packet=stacks(), port=st.integers(0, 1), world=worlds())
def test_any_stack_of_tags_ends_as_the_twin_says(
    rig: VlanRig, packet: bytes, port: int, world: World
) -> None:
    rig.set_context(Context())
    rig.set_world(world)
    assert rig.route(packet, port) == twin(packet, port, world)


@settings(SETTINGS, max_examples=60)
@given(burst=st.lists(stacks(), min_size=2, max_size=64), world=worlds())
def test_a_burst_of_many_vlans_ends_as_its_packets_one_by_one(
    rig: VlanRig, burst: list[bytes], world: World
) -> None:
    rig.set_context(Context())
    rig.set_world(world)
    for packet in burst:
        rig.deliver(packet)
    assert rig.worker.poll_once() == len(burst)
    expected = [twin(packet, 0, world) for packet in burst]
    sent = [(o.port, o.packet) for o in expected if not o.reason]
    assert rig.sent() == sorted(sent, key=lambda one: one[0] or 0)
    assert rig.punted() == [(o.port, o.packet) for o in expected if o.reason and o.packet is not None]
    check_subs(rig)


def test_a_burst_holds_as_many_sub_interfaces_as_packets_twice() -> None:
    """64 packets of 64 inner sub-interfaces in 64 outer ones."""
    rig = VlanRig()
    for i in range(64):
        rig.dataplane.set_interface(100 + i, 0, [(AD, 100 + i)], MAC[0], MTU, USUAL)
        rig.dataplane.set_interface(200 + i, 0, [(AD, 100 + i), (Q, 200 + i)], MAC[0], MTU, USUAL)
    for _ in range(2):
        for i in range(64):
            rig.deliver(vlan(vlan(four("10.1.2.3"), 200 + i), 100 + i, AD))
        assert rig.worker.poll_once() == 64
        assert len(rig.sent()) == 64
    assert [rig.worker.sub_counters(200 + i)["sent_packets"] for i in range(64)] == [2] * 64
    assert [rig.worker.sub_counters(100 + i)["rx_packets"] for i in range(64)] == [0] * 64
    rig.close()


# ---- counters


def test_each_sub_interface_counts_its_own_packets() -> None:
    rig = VlanRig()
    rig.set_world(PLAIN)
    tagged, plain = vlan(four("10.22.1.1"), 7), four("10.22.1.1")
    for packet in (
        tagged,
        tagged,
        plain,
        vlan(four("10.6.0.1"), 7),
        vlan(arp(1, MAC[0]), 7),
        qinq(four("10.20.0.1")),
    ):
        rig.route(packet)
    rig.dataplane.set_policer("arp_request", 0, 1)
    rig.deliver(vlan(arp(1, MAC[0]), 7))
    rig.worker.poll_once()
    zero = dict.fromkeys(rig.worker.sub_counters(OUTER), 0)
    assert rig.worker.sub_counters(OUTER) == zero
    assert rig.worker.sub_counters(SUB) == {
        "rx_packets": 5,
        "rx_bytes": 2 * len(tagged) + len(vlan(four("10.6.0.1"), 7)) + 2 * len(vlan(arp(1, MAC[0]), 7)),
        "sent_packets": 2,
        "punted": 1,
        "dropped": 1,
        "policed": 1,
        "tx_packets": 1,
        "tx_bytes": len(tagged),
    }
    assert rig.worker.sub_counters(SUB_1) == zero | {"tx_packets": 3, "tx_bytes": 3 * len(tagged)}
    assert rig.worker.sub_counters(INNER) == zero | {
        "rx_packets": 1,
        "rx_bytes": len(tagged) + 4,
        "sent_packets": 1,
    }
    rig.check_conservation()
    rig.close()


def test_what_a_full_ring_drops_is_counted_where_it_came_in() -> None:
    rig = VlanRig(frames=2048)
    rig.set_world(PLAIN)
    for _ in range(4):
        for _ in range(60):
            rig.deliver(vlan(four("10.22.1.1"), 7))
        rig.worker.poll_once()
    counted = rig.worker.sub_counters(SUB)
    assert counted["dropped"] == rig.dropped()["tx_ring_full"] > 0
    assert rig.worker.sub_counters(SUB_1)["tx_packets"] == counted["sent_packets"] == len(rig.sent())
    check_subs(rig)
    rig.check_conservation()
    rig.close()


# ---- setting and clearing


@pytest.fixture
def fresh() -> Iterator[VlanRig]:
    made = VlanRig()
    made.set_world(PLAIN)
    yield made
    made.check_conservation()
    made.close()


def test_a_sub_interface_that_goes_takes_and_sends_nothing_from_then_on(fresh: VlanRig) -> None:
    fresh.dataplane.clear_interface(SUB)
    assert fresh.route(vlan(four("10.1.2.3"), 7)).reason == "vlan_tag_mismatch"
    assert fresh.route(four("10.20.1.1")).reason == "external_route"
    fresh.dataplane.clear_interface(SUB)


def test_a_number_is_used_anew_only_after_every_worker_has_passed(fresh: VlanRig) -> None:
    fresh.dataplane.clear_interface(SUB)
    with pytest.raises(OSError, match="resource busy") as busy:
        fresh.dataplane.set_interface(SUB, 0, [(Q, 8)], MAC[0], MTU, USUAL)
    assert busy.value.errno == errno.EBUSY
    assert fresh.route(vlan(four("10.1.2.3"), 8)).reason == "vlan_tag_mismatch"
    fresh.worker.poll_once()
    fresh.dataplane.set_interface(SUB, 0, [(Q, 8)], MAC[0], MTU, USUAL)
    assert fresh.route(vlan(four("10.1.2.3"), 8)).reason == ""
    assert fresh.route(vlan(four("10.1.2.3"), 7)).reason == "vlan_tag_mismatch"


def test_the_kernels_ids_go_with_their_interface(fresh: VlanRig) -> None:
    fresh.dataplane.set_vlans(SUB, [5])
    fresh.dataplane.clear_interface(SUB)
    fresh.worker.poll_once()
    fresh.dataplane.set_interface(SUB, 0, [(Q, 7)], MAC[0], MTU, USUAL)
    assert fresh.route(vlan(vlan(four("10.1.2.3"), 5), 7)).reason == "vlan_tag_mismatch"


@pytest.mark.parametrize(
    ("number", "port", "tags", "error"),
    [
        (63, 0, [(Q, 8)], ValueError),
        (1024, 0, [(Q, 8)], ValueError),
        (70, 3, [(Q, 8)], ValueError),
        (70, 0, [(Q, 4095)], ValueError),
        (70, 0, [(0x9100, 8)], ValueError),
        (70, 0, [], ValueError),
        (70, 0, [(Q, 1), (Q, 2), (Q, 3)], ValueError),
        (70, 0, [(Q, 8), (Q, 9)], FileNotFoundError),
        (70, 0, [(AD, 7), (Q, 9)], FileExistsError),
        (70, 0, [(Q, 7)], FileExistsError),
        (SUB, 1, [(Q, 7)], OSError),
        (SUB, 0, [(Q, 8)], OSError),
    ],
)
def test_what_makes_no_sense_is_refused(
    fresh: VlanRig, number: int, port: int, tags: list[tuple[int, int]], error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"interface {number}"):
        fresh.dataplane.set_interface(number, port, tags, MAC[0], MTU, USUAL)
    assert fresh.route(vlan(four("10.1.2.3"), 7)).reason == ""
    assert fresh.route(qinq(four("10.1.2.3"))).reason == ""


def test_an_interface_that_carries_another_cannot_go(fresh: VlanRig) -> None:
    with pytest.raises(OSError, match="resource busy"):
        fresh.dataplane.clear_interface(OUTER)
    fresh.dataplane.clear_interface(INNER)
    fresh.dataplane.clear_interface(OUTER)
    with pytest.raises(ValueError, match="interface 3"):
        fresh.dataplane.clear_interface(3)
    with pytest.raises(ValueError, match="VLANs of interface"):
        fresh.dataplane.set_vlans(OUTER, [1])
    with pytest.raises(ValueError, match="sub-interface 63"):
        fresh.worker.sub_counters(63)


def test_the_longest_packet_leaves_with_two_tags_and_the_kernels_too(fresh: VlanRig) -> None:
    whole = eth(MAC[0], SENDER, 0x0800, ip4(HOST, "10.21.0.1", bytes(MTU - 4 - 20)))
    sent = fresh.route(whole).packet
    assert sent is not None
    assert len(sent) == MTU - 4 + 22
    injected = vlan(vlan(eth(PEER[0], MAC[0], 0x0800, bytes(MTU)), 9), 7, AD)
    fresh.inject(injected, 0)
    fresh.inject(vlan(vlan(eth(PEER[0], MAC[0], 0x0800, bytes(MTU + 1)), 9), 7, AD), 0)
    fresh.worker.poll_once()
    assert fresh.sent() == [(0, injected)]
    assert fresh.dropped()["inject_too_long"] == 1
