"""VLAN sub-interfaces from the kernel's messages: which are served, by which number, and what the router is told."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netlink_fakes import (
    ACTIONS,
    MAC,
    OTHER_MAC,
    FakePath,
    FakeRib,
    FakeSink,
    Leg,
    address_message,
    attribute,
    ip,
    link_message,
    message,
    neighbour_message,
)

from ixroute.netlink.contract import Port
from ixroute.netlink.describe import neighbour_views
from ixroute.netlink.follow import Follower
from ixroute.netlink.interfaces import FIRST_SUB, QUARANTINE_TICKS, Interfaces
from ixroute.netlink.links import IFF_UP, Link, LinkTable
from ixroute.netlink.paths import Known, PathIndex
from ixroute.netlink.ports import Announcer
from ixroute.netlink.resolve import Adjacency, flatten, resolve
from ixroute.netlink.resync import ResyncPlan, Scope
from ixroute.netlink.sockets import Message
from ixroute.netlink.sysctls import InterfaceSysctls, netconf_ifindex
from ixroute.netlink.wanted import gateway_of_path

LAN, WAN = 10, 11
V7, V8, AD, INNER, DEEP = 20, 21, 30, 31, 32
DELLINK = 17
Q, S = 0x8100, 0x88A8


def vlan(index: int, name: str, parent: int, vid: int, protocol: int = Q, **more: object) -> Message:
    return link_message(index, name, parent=parent, link_kind="vlan", vlan=(vid, protocol), **more)  # type: ignore[arg-type]


USUAL = [
    vlan(V7, "lan.7", LAN, 7),
    vlan(AD, "lan.s7", LAN, 7, S),
    vlan(INNER, "lan.s7.9", AD, 9),
]


class World:
    def __init__(self, sysctls: Mapping[str, InterfaceSysctls] | None = None) -> None:
        self.rib, self.paths, self.plan = FakeRib(), PathIndex(), ResyncPlan()
        self.values, self.reads = dict(sysctls or {}), list[str]()
        ports = [Port(0, "lan"), Port(1, "wan")]
        self.follower = Follower(self.rib, ports, self.paths, self.plan, self._read)
        self.sink = FakeSink()
        self.announcer = Announcer(ports, [], self.sink, lambda callback, *arguments: callback(*arguments))
        self.tell(link_message(LAN, "lan"), link_message(WAN, "wan"))

    def _read(self, name: str) -> InterfaceSysctls:
        self.reads.append(name)
        return self.values.get(name, InterfaceSysctls())

    def tell(self, *messages: Message) -> None:
        for one in messages:
            self.follower.event(one)

    def quiet(self) -> None:
        self.plan.begin(0.0)
        self.plan.done(0.0, ())
        self.paths.take(1 << 30)

    def announce(self) -> FakeSink:
        self.announcer.announce(self.follower.tables, self.follower.addresses, self.follower.interfaces)
        return self.sink

    def subs(self) -> dict[str, tuple[int, tuple[tuple[int, int], ...]]]:
        return {sub.name: (sub.port, sub.tags) for sub in self.announce().subs.values()}

    def number(self, ifindex: int) -> int:
        return self.follower.tables.interfaces[ifindex]

    def path(self, path_id: int, ifindex: int, gateway: str) -> Adjacency:
        path, tables = FakePath(legs=(Leg(ifindex, ip(gateway)),)), self.follower.tables
        self.rib.put(path_id, path)
        route = flatten(path, tables.nexthops, ACTIONS)
        adjacency = resolve(path, route, tables, ACTIONS)
        self.paths.put(path_id, Known(path, route, adjacency))
        return adjacency


@pytest.fixture
def world() -> World:
    world = World()
    world.tell(*USUAL)
    world.announce()
    world.quiet()
    return world


def test_sub_interfaces_have_numbers_of_their_own_and_their_chain_of_tags(world: World) -> None:
    assert world.subs() == {
        "lan.7": (0, ((Q, 7),)),
        "lan.s7": (0, ((S, 7),)),
        "lan.s7.9": (0, ((S, 7), (Q, 9))),
    }
    assert world.follower.tables.interfaces == {LAN: 0, WAN: 1, V7: 64, AD: 65, INNER: 66}
    assert set(world.sink.subs) == {64, 65, 66}
    assert world.sink.vlans == {0: frozenset(), 1: frozenset()}


def test_the_order_of_the_messages_does_not_matter() -> None:
    world = World()
    world.tell(link_message(LAN, "lan", kind=DELLINK), *reversed(USUAL), link_message(LAN, "lan"))
    assert world.subs()["lan.s7.9"] == (0, ((S, 7), (Q, 9)))
    assert len(world.subs()) == 3


@pytest.mark.parametrize(
    ("odd", "on", "vids"),
    [
        (vlan(DEEP, "deep", INNER, 5), INNER, {5}),
        (vlan(V8, "lan.8", LAN, 8, egress_qos=True), LAN, {8}),
        (vlan(V8, "lan.8", LAN, 8, 0x9100), LAN, set()),
        (vlan(V8, "lan.8", LAN, 8, parent_elsewhere=True), LAN, set()),
        (vlan(V8, "eth9.8", 99, 8), LAN, set()),
        (link_message(V8, "gre", parent=LAN, link_kind="gre"), LAN, set()),
    ],
    ids=[
        "three tags",
        "egress-qos-map",
        "no VLAN protocol",
        "on another namespace's",
        "on no port",
        "no VLAN",
    ],
)
def test_what_the_fast_path_cannot_do_stays_the_kernels(
    world: World, odd: Message, on: int, vids: set[int]
) -> None:
    world.tell(odd)
    assert len(world.subs()) == 3
    assert world.sink.vlans.get(world.number(on), frozenset()) == vids


def test_settings_that_show_on_no_wire_do_not_matter(world: World) -> None:
    """reorder_hdr off, loose_binding on: flags 4; an ingress-qos-map."""
    data = attribute(5, struct.pack(">H", Q)) + attribute(1, struct.pack("=H", 8))
    data += attribute(2, struct.pack("=II", 4, 0xFFFFFFFF)) + attribute(
        4, attribute(1, struct.pack("=II", 3, 5))
    )
    plain = link_message(V8, "lan.8", parent=LAN)
    info = attribute(18, attribute(1, b"vlan\0") + attribute(2, data))
    world.tell(message(16, plain.data[16:] + info))
    assert world.subs()["lan.8"] == (0, ((Q, 8),))


def test_a_sub_interface_moves_with_what_is_stacked_on_it_to_the_kernel_and_back(world: World) -> None:
    world.tell(vlan(AD, "lan.s7", LAN, 7, S, egress_qos=True))
    assert set(world.subs()) == {"lan.7"}
    assert world.sink.vlans[0] == {7}
    world.tell(vlan(AD, "lan.s7", LAN, 7, S))
    assert set(world.subs()) == {"lan.7", "lan.s7", "lan.s7.9"}
    assert world.sink.vlans[0] == set()


def test_a_deleted_one_stops_at_once_and_its_neighbours_and_sysctls_go(world: World) -> None:
    world.tell(neighbour_message(V7, "10.0.0.1"), address_message(V7, "10.0.0.254"))
    assert world.path(8, V7, "10.0.0.1") == Adjacency(ACTIONS.forward, world.number(V7), MAC, 1500)
    world.quiet()
    world.tell(vlan(V7, "lan.7", LAN, 7, kind=DELLINK))
    assert world.paths.take(10) == [8]
    assert world.path(8, V7, "10.0.0.1").action == ACTIONS.external_route
    assert V7 not in world.follower.tables.sysctls
    assert world.rib.neighbours == set()
    assert world.plan.wanted & Scope.ROUTES
    assert set(world.subs()) == {"lan.s7", "lan.s7.9"}


def test_when_the_tap_goes_all_on_it_go_inner_first_and_come_back_with_it(world: World) -> None:
    world.tell(link_message(LAN, "lan", kind=DELLINK))
    assert world.subs() == {}
    world.tell(link_message(LAN, "lan"))
    assert len(world.subs()) == 3


def test_a_new_one_wants_its_neighbours_and_they_are_followed(world: World) -> None:
    world.tell(vlan(V8, "lan.8", LAN, 8))
    assert world.plan.wanted & Scope.NEIGHBOURS
    world.tell(neighbour_message(V8, "10.8.0.1"))
    assert (ip("10.8.0.1"), V8) in world.rib.neighbours
    assert world.path(9, V8, "10.8.0.1").interface == world.number(V8)
    known = world.paths.get(9)
    assert known is not None
    tables, follower = world.follower.tables, world.follower
    world.rib.users[9] = 2
    assert list(gateway_of_path(9, known, tables, world.rib, follower.in_rib)) == [(V8, 4, ip("10.8.0.1"))]
    views = neighbour_views(tables, follower.interfaces)
    assert [(view.port, view.interface) for view in views] == [(0, "lan.8")]


def test_its_state_is_its_own(world: World) -> None:
    world.values["lan.7"] = InterfaceSysctls(ip4_forward=True, ip6_forward=True, rp_filter=2)
    world.tell(address_message(V7, "10.0.0.254"), vlan(V7, "lan.7", LAN, 7, mtu=1400, mac=OTHER_MAC))
    world.follower.poll_sysctls()
    state = world.announce().subs[64].state
    assert (state.up, state.mtu, state.mac, state.rpf, state.ip4_forward) == (True, 1400, OTHER_MAC, 2, True)
    assert not world.sink.ports[0].ip4_forward
    world.tell(vlan(V7, "lan.7", LAN, 7, up=False))
    assert not world.announce().subs[64].state.up
    assert world.sink.ports[0].up


def test_a_rename_keeps_the_number(world: World) -> None:
    before = world.number(V7)
    world.tell(vlan(V7, "guests", LAN, 7))
    assert world.number(V7) == before
    assert world.announce().subs[before].name == "guests"


def test_one_that_carries_a_macvlan_or_is_in_a_bridge_is_the_kernels(world: World) -> None:
    world.tell(link_message(50, "mv", parent=V7, link_kind="macvlan"))
    assert world.announce().subs[64].state.kernel_all
    assert not world.sink.ports[0].kernel_all
    world.tell(link_message(50, "mv", parent=V7, link_kind="macvlan", kind=DELLINK))
    assert not world.announce().subs[64].state.kernel_all
    world.tell(vlan(V7, "lan.7", LAN, 7, master=60))
    assert world.announce().subs[64].state.kernel_all


def test_a_sub_interface_with_a_mac_of_its_own_makes_the_card_take_all(world: World) -> None:
    assert not world.sink.taps[0].promisc
    world.tell(vlan(V7, "lan.7", LAN, 7, mac=OTHER_MAC))
    assert world.announce().taps[0].promisc
    assert not world.sink.taps[1].promisc
    world.tell(vlan(V7, "lan.7", LAN, 7, mac=OTHER_MAC, up=False))
    assert not world.announce().taps[0].promisc


def test_nothing_leaves_by_one_whose_parent_is_down(world: World) -> None:
    """With loose_binding it stays up itself."""
    world.tell(neighbour_message(INNER, "10.0.0.1"))
    assert world.path(8, INNER, "10.0.0.1").action == ACTIONS.forward
    world.quiet()
    world.tell(vlan(AD, "lan.s7", LAN, 7, S, up=False))
    assert world.paths.take(10) == [8]
    assert world.path(8, INNER, "10.0.0.1").action == ACTIONS.external_route


def test_one_that_went_to_another_namespace_keeps_getting_its_packets_from_the_kernel(world: World) -> None:
    world.tell(vlan(V7, "lan.7", LAN, 7, kind=DELLINK, moved=True))
    assert "lan.7" not in world.subs()
    assert world.sink.vlans[0] == {7}
    world.tell(vlan(V8, "again", LAN, 7))
    assert world.subs()["again"] == (0, ((Q, 7),))
    assert world.sink.vlans[0] == set()


def test_a_sink_that_refuses_gets_the_id_as_the_kernels_and_is_asked_again(world: World) -> None:
    world.sink.takes_subs = False
    world.tell(vlan(V8, "lan.8", LAN, 8))
    assert world.announce().vlans[0] == {8}
    assert world.announcer.retry
    world.sink.takes_subs = True
    assert "lan.8" in world.subs()
    assert world.sink.vlans[0] == set()
    assert not world.announcer.retry


def test_the_sink_hears_of_sub_interfaces_only_when_they_change(world: World) -> None:
    calls = world.sink.calls
    assert world.announce().calls == calls
    world.tell(vlan(V7, "lan.7", LAN, 7, mtu=1400))
    assert world.announce().calls == calls + 1


# ---- numbers


def links(*vlans: int, parent: int = LAN) -> LinkTable:
    table = LinkTable()
    table.put(Link(LAN, "lan", flags=IFF_UP))
    for vid in vlans:
        table.put(Link(100 + vid, f"lan.{vid}", parent=parent, kind="vlan", vlan_id=vid, vlan_protocol=Q))
    return table


def test_a_released_number_rests_before_it_is_given_again() -> None:
    numbers: dict[int, int] = {}
    interfaces = Interfaces(numbers, 64, 65)
    interfaces.put_port(LAN, 0)
    table = links(1, 2)
    interfaces.follow(table, LAN)
    assert numbers == {LAN: 0, 101: 64, 102: 65}
    table.remove(101)
    interfaces.follow(table, 101)
    table.put(Link(103, "lan.3", parent=LAN, kind="vlan", vlan_id=3, vlan_protocol=Q))
    assert interfaces.follow(table, 103) == []
    assert interfaces.refused == 1
    assert interfaces.kernels_vids(table, LAN) == {3}
    for _ in range(QUARANTINE_TICKS - 1):
        assert interfaces.age(table) == []
    assert interfaces.age(table) == [103]
    assert numbers == {LAN: 0, 102: 65, 103: 64}
    assert interfaces.kernels_vids(table, LAN) == set()


def test_at_most_960_are_served_and_the_others_are_the_kernels() -> None:
    numbers: dict[int, int] = {}
    interfaces = Interfaces(numbers)
    interfaces.put_port(LAN, 0)
    table = links(*range(1, 1001))
    interfaces.follow(table, LAN)
    assert len(interfaces.subs()) == 960
    assert set(numbers.values()) == {0, *range(FIRST_SUB, 1024)}
    assert len(interfaces.kernels_vids(table, LAN)) == 40


operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "delete", "tick"]), st.integers(1, 6), st.sampled_from([LAN, 101, 102])
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(operations)
def test_any_sequence_leaves_the_places_that_a_fresh_look_finds(sequence: list[tuple[str, int, int]]) -> None:
    numbers: dict[int, int] = {}
    interfaces, table = Interfaces(numbers, 64, 67), links()
    interfaces.put_port(LAN, 0)
    held: dict[int, int] = {}
    for what, vid, parent in sequence:
        index = 100 + vid
        if what == "tick":
            interfaces.age(table)
        elif what == "delete":
            table.remove(index)
            interfaces.follow(table, index)
        elif parent != index and not (parent != LAN and vid < 3):  # no circles
            table.put(Link(index, f"v{vid}", parent=parent, kind="vlan", vlan_id=vid, vlan_protocol=Q))
            interfaces.follow(table, index)
        subs = interfaces.subs()
        for ifindex, place in subs.items():
            link = table.get(ifindex)
            assert link is not None
            outer = interfaces.get(link.parent)
            assert outer is not None
            assert place.tags == (*outer.tags, (Q, link.vlan_id))
            assert held.get(ifindex, place.number) == place.number or place.number not in held.values()
        assert len({place.number for place in subs.values()}) == len(subs)
        assert {i: n for i, n in numbers.items() if i != LAN} == {i: p.number for i, p in subs.items()}
        held = {ifindex: place.number for ifindex, place in subs.items()}


# ---- sysctls


def test_the_sysctls_of_many_are_read_in_turn() -> None:
    world = World()
    world.tell(*(vlan(100 + vid, f"lan.{vid}", LAN, vid) for vid in range(1, 11)))
    world.reads.clear()
    for _ in range(4):
        world.follower.poll_sysctls(most=3)
    assert world.reads.count("lan") == 4
    assert {f"lan.{vid}" for vid in range(1, 11)} <= set(world.reads)
    assert len(world.reads) == 4 * (2 + 3)


def test_an_announced_change_is_read_at_once_and_of_all_when_all_changed(world: World) -> None:
    def netconf(ifindex: int) -> Message:
        return message(80, b"\x02\0\0\0" + attribute(1, struct.pack("=i", ifindex)))

    world.reads.clear()
    world.tell(netconf(V7), netconf(99))
    world.follower.reread_stale_sysctls()
    assert world.reads == ["lan.7"]
    assert not world.follower.sysctls_stale
    world.tell(netconf(-1))
    world.follower.reread_stale_sysctls()
    assert set(world.reads[1:]) == {"lan", "wan", "lan.7", "lan.s7", "lan.s7.9"}


def test_a_netconf_message_without_an_interface_is_about_all() -> None:
    assert netconf_ifindex(b"") == 0
    assert netconf_ifindex(message(80, b"\x02\0\0\0").data) == 0
