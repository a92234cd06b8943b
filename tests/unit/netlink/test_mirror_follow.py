"""Sequences of kernel messages, and what they mean for paths, neighbours, dumps and ports."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netlink_fakes import (
    ACTIONS,
    DEFAULT_RULES,
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
    nexthop_message,
    rule_message,
    u32,
)

from ixroute.netlink import links, views
from ixroute.netlink.contract import Port, PortState, Step
from ixroute.netlink.follow import Follower
from ixroute.netlink.paths import Known, PathIndex
from ixroute.netlink.ports import Announcer
from ixroute.netlink.programs import Programs
from ixroute.netlink.resolve import Adjacency, Group, flatten, resolve
from ixroute.netlink.resync import ResyncPlan, Scope
from ixroute.netlink.sockets import Message, split
from ixroute.netlink.sysctls import InterfaceSysctls, MultipathSysctls, read_multipath

LAN, WAN = 10, 11
DELLINK, DELADDR, DELNEIGH, DELNEXTHOP = 17, 21, 29, 105
GATEWAY = "10.0.0.1"


class World:
    """A follower between fakes; `path` puts a path there as the mirror would."""

    def __init__(self, sysctls: dict[str, InterfaceSysctls] | None = None) -> None:
        self.rib = FakeRib()
        self.paths = PathIndex()
        self.plan = ResyncPlan()
        self.values = sysctls or {}
        self.multipath = MultipathSysctls()
        self.follower = Follower(
            self.rib,
            [Port(3, "lan"), Port(4, "wan")],
            self.paths,
            self.plan,
            lambda name: self.values.get(name, InterfaceSysctls()),
            lambda: self.multipath,
        )
        self.sink = FakeSink()
        tell = lambda callback, *arguments: callback(*arguments)  # noqa: E731
        self.programs = Programs(self.rib, ACTIONS, self.sink, lambda callback, *args: callback(*args))
        self.announcer = Announcer([Port(3, "lan"), Port(4, "wan")], ["eth0"], self.sink, tell)
        for one in (link_message(LAN, "lan"), link_message(WAN, "wan")):
            self.follower.event(one)
        self.quiet()

    def quiet(self) -> None:
        """Forgets what is wanted and dirty so far."""
        self.plan.begin(0.0)
        self.plan.done(0.0, ())
        self.paths.take(1 << 30)

    def path(self, path_id: int, path: FakePath) -> None:
        self.rib.put(path_id, path)
        self.resolve(path_id)
        self.quiet()

    def resolve(self, path_id: int) -> Adjacency | Group:
        path = self.rib.paths[path_id]
        tables = self.follower.tables
        route = flatten(path, tables.nexthops, ACTIONS)
        adjacency = resolve(path, route, tables, ACTIONS)
        self.paths.put(path_id, Known(path, route, adjacency))
        return adjacency

    def announce(self) -> FakeSink:
        follower = self.follower
        self.programs.announce(follower.tables, follower.rules)
        self.announcer.announce(
            follower.tables,
            follower.addresses,
            follower.interfaces,
            follower.rules.custom_ip4,
            self.programs.untaken,
        )
        return self.sink


@pytest.fixture
def world() -> World:
    world = World()
    world.follower.event(neighbour_message(LAN, GATEWAY))
    world.path(8, FakePath(legs=(Leg(LAN, ip(GATEWAY)),)))
    world.path(9, FakePath(legs=(Leg(WAN, ip("10.1.0.1")),)))
    return world


def test_a_changed_mac_touches_only_the_paths_of_its_neighbour(world: World) -> None:
    world.follower.event(neighbour_message(LAN, GATEWAY, OTHER_MAC))
    assert world.paths.take(10) == [8]
    assert world.resolve(8).mac == OTHER_MAC


def test_a_refreshed_neighbour_touches_nothing(world: World) -> None:
    world.follower.event(neighbour_message(LAN, GATEWAY, state=4))
    assert world.paths.dirty == 0


def test_a_failed_neighbour_leaves_the_rib_and_its_paths_become_unresolved(world: World) -> None:
    assert (ip(GATEWAY), LAN) in world.rib.neighbours
    world.follower.event(neighbour_message(LAN, GATEWAY, None, state=0x20))
    assert world.rib.neighbours == set()
    assert world.paths.take(10) == [8]
    assert world.resolve(8).action == ACTIONS.unresolved_neigh


def test_a_deleted_neighbour_leaves_the_rib_and_its_paths_become_unresolved(world: World) -> None:
    world.follower.event(neighbour_message(LAN, GATEWAY, None, kind=DELNEIGH))
    assert world.rib.neighbours == set()
    assert world.resolve(8).action == ACTIONS.unresolved_neigh


@pytest.mark.parametrize(
    "oddity",
    [
        neighbour_message(LAN, "ff02::16", bytes.fromhex("333300000016"), state=0x40),
        neighbour_message(LAN, "224.0.0.22", bytes.fromhex("01005e000016"), state=0x40),
        neighbour_message(LAN, "10.0.0.255", b"\xff" * 6, state=0x40),
        neighbour_message(LAN, "10.0.0.5", bytes(6), state=2),
        neighbour_message(LAN, "10.0.0.5", MAC, flags=0x08),
        neighbour_message(LAN, "10.0.0.5", MAC, family=7),
        neighbour_message(99, "10.0.0.5", MAC),
        neighbour_message(LAN, "fe80::5", MAC),
        neighbour_message(LAN, "0.0.0.0", MAC),
    ],
    ids=[
        "v6 group",
        "v4 group",
        "broadcast",
        "no mac",
        "proxy",
        "bridge",
        "no port",
        "link-local",
        "unspecified",
    ],
)
def test_entries_that_are_no_host_on_a_port_never_reach_the_rib(oddity: object) -> None:
    world = World()
    world.follower.event(oddity)
    assert world.rib.neighbours == set()
    assert world.follower.malformed == 0


def test_a_link_local_gateway_resolves_though_it_has_no_prefix() -> None:
    world = World()
    world.follower.event(neighbour_message(LAN, "fe80::1"))
    world.path(8, FakePath(family=6, legs=(Leg(LAN, ip("fe80::1")),)))
    assert world.resolve(8).action == ACTIONS.forward


def test_link_down_gives_its_paths_to_the_kernel_at_once_and_wants_a_dump(world: World) -> None:
    world.follower.event(link_message(LAN, "lan", up=False))
    assert world.paths.take(10) == [8]
    assert world.resolve(8).action == ACTIONS.external_route
    assert world.plan.wanted & Scope.ROUTES == Scope.ROUTES


@pytest.mark.parametrize(
    ("event", "scope"),
    [
        (link_message(LAN, "lan", carrier=False), Scope.ROUTES),
        (link_message(LAN, "lan", master=5), Scope.ROUTES),
        (link_message(LAN, "lan", mtu=1400), Scope.ROUTES6),
        (link_message(LAN, "lan", kind=DELLINK), Scope.ROUTES),
        (rule_message(100, 77), Scope.RULES),
    ],
    ids=["carrier", "master", "mtu", "deleted", "rule"],
)
def test_events_that_hide_silent_changes_want_a_dump(world: World, event: object, scope: Scope) -> None:
    world.follower.event(event)
    assert world.plan.wanted == scope


@pytest.mark.parametrize(
    "event",
    [
        link_message(LAN, "lan"),
        link_message(LAN, "lan", mac=OTHER_MAC),
        link_message(50, "new"),
        link_message(LAN, "lan", kind=DELLINK, family=7),
        address_message(LAN, "10.0.0.254"),
        address_message(LAN, "10.9.9.9", kind=DELADDR),
        nexthop_message(7, oif=LAN, gateway=GATEWAY),
        nexthop_message(99, kind=DELNEXTHOP),
    ],
    ids=["same", "mac", "new", "left a bridge", "address", "unknown address", "nexthop", "unknown nexthop"],
)
def test_events_that_hide_nothing_want_no_dump(world: World, event: object) -> None:
    world.follower.event(event)
    assert world.plan.wanted == Scope(0)


def test_a_deleted_address_wants_a_dump_of_its_family(world: World) -> None:
    for text, scope in (("10.0.0.254", Scope.ROUTES4), ("2001:db8::1", Scope.ROUTES6)):
        world.follower.event(address_message(LAN, text))
        world.follower.event(address_message(LAN, text, kind=DELADDR))
        assert world.plan.wanted == scope
        world.quiet()


def test_a_deleted_nexthop_gives_its_routes_to_the_kernel_and_wants_a_dump(world: World) -> None:
    world.follower.event(nexthop_message(7, oif=LAN, gateway=GATEWAY))
    world.path(10, FakePath(nhid=7, legs=(Leg(LAN, ip(GATEWAY)),)))
    assert world.resolve(10).action == ACTIONS.forward
    world.follower.event(nexthop_message(7, kind=DELNEXTHOP))
    assert world.paths.take(10) == [10]
    assert world.resolve(10).action == ACTIONS.external_route
    assert world.plan.wanted == Scope.ROUTES


def test_a_replaced_member_touches_the_routes_of_its_group(world: World) -> None:
    world.follower.event(nexthop_message(7, oif=LAN, gateway=GATEWAY))
    world.follower.event(nexthop_message(20, group=(7,)))
    world.path(10, FakePath(nhid=20))
    assert world.resolve(10).interface == 3
    world.follower.event(nexthop_message(7, oif=WAN, gateway="10.1.0.1"))
    assert world.paths.take(10) == [10]
    assert world.resolve(10).interface == 4


def test_a_nexthop_that_becomes_a_blackhole_wants_its_routes_again(world: World) -> None:
    world.follower.event(nexthop_message(7, oif=LAN, gateway=GATEWAY))
    world.follower.event(nexthop_message(7, blackhole=True))
    assert world.plan.wanted == Scope.ROUTES


def test_a_dump_removes_what_it_does_not_show_and_counts_it(world: World) -> None:
    follower = world.follower
    follower.event(nexthop_message(7, oif=LAN, gateway=GATEWAY))
    follower.event(address_message(LAN, "10.0.0.254"))
    assert follower.replace_nexthops([]) == 1
    assert follower.replace_addresses([]) == 1
    assert follower.replace_neighbours([]) == 1
    assert follower.replace_links([link_message(WAN, "wan")]) == 1
    assert world.rib.neighbours == set()
    assert follower.tables.ports == {WAN: 4}


def test_a_dump_that_shows_what_is_known_differs_in_nothing(world: World) -> None:
    assert world.follower.replace_neighbours([neighbour_message(LAN, GATEWAY, state=4)]) == 0
    assert world.follower.replace_links([link_message(LAN, "lan"), link_message(WAN, "wan")]) == 0


def test_a_tap_that_is_deleted_takes_its_port_down_until_it_is_there_again(world: World) -> None:
    assert world.announce().ports[3].up
    world.follower.event(link_message(LAN, "lan", kind=DELLINK))
    sink = world.announce()
    assert sink.ports[3] == PortState()
    assert not sink.taps[3].present
    assert world.follower.taps_lost == 1
    assert world.rib.neighbours == set()
    world.follower.event(link_message(77, "lan", mac=OTHER_MAC))
    sink = world.announce()
    assert sink.ports[3].up
    assert sink.taps[3].ifindex == 77
    assert world.plan.wanted & Scope.NEIGHBOURS


def test_a_renamed_tap_stays_its_ports(world: World) -> None:
    world.follower.event(link_message(LAN, "uplink"))
    assert world.announce().taps[3].name == "uplink"
    world.follower.event(link_message(60, "lan", mac=OTHER_MAC))
    assert world.announce().ports[3].mac == MAC


@pytest.mark.parametrize(
    ("stacked", "kernel_all", "vlans"),
    [
        (link_message(50, "v", parent=LAN, link_kind="vlan", vlan=(7, 0x8100)), False, set()),
        (link_message(50, "v", parent=LAN, link_kind="vlan", vlan=(7, 0x88A8)), False, set()),
        (link_message(50, "v", parent=LAN, link_kind="vlan", vlan=(7, 0x8100), egress_qos=True), False, {7}),
        (link_message(50, "v", parent=LAN, link_kind="macvlan"), True, set()),
        (link_message(50, "v", parent=LAN, link_kind="ipvlan"), True, set()),
        (link_message(50, "v", parent=LAN, link_kind="gre"), False, set()),
        (link_message(50, "v", parent=LAN, link_kind="macvlan", parent_elsewhere=True), False, set()),
        (link_message(LAN, "lan", master=50), True, set()),
    ],
    ids=[
        "vlan",
        "802.1ad",
        "egress-qos-map",
        "macvlan",
        "ipvlan",
        "gre",
        "another namespace's",
        "in a bridge",
    ],
)
def test_links_on_a_tap(world: World, stacked: object, kernel_all: bool, vlans: set[int]) -> None:
    world.follower.event(stacked)
    sink = world.announce()
    assert sink.ports[3].kernel_all == kernel_all
    assert sink.vlans[3] == vlans
    assert not sink.ports[4].kernel_all


def test_loose_source_validation_is_strict_without_an_ip4_address() -> None:
    world = World({"lan": InterfaceSysctls(rp_filter=2), "wan": InterfaceSysctls(rp_filter=1)})
    world.follower.poll_sysctls()
    ports = world.announce().ports
    assert (ports[3].rpf, ports[4].rpf) == (1, 1)
    world.follower.event(address_message(LAN, "10.0.0.254"))
    assert world.announce().ports[3].rpf == 2


def test_the_sink_hears_only_of_changes(world: World) -> None:
    calls = world.announce().calls
    assert world.announce().calls == calls
    world.follower.event(address_message(LAN, "10.0.0.254"))
    world.follower.event(address_message(WAN, "10.0.0.253"))
    assert world.announce().local4 == [ip("10.0.0.253"), ip("10.0.0.254")]
    assert world.sink.calls == calls + 1


def test_a_watched_interface_comes_and_goes(world: World) -> None:
    assert not world.announce().links[-1].present
    world.follower.event(link_message(2, "eth0", carrier=False))
    assert world.announce().links[-1].present
    assert not world.sink.links[-1].carrier
    world.follower.event(link_message(2, "eth0"))
    assert world.announce().links[-1].carrier
    world.follower.event(link_message(2, "eth0", kind=DELLINK))
    assert not world.announce().links[-1].present


def test_changed_sysctls_reach_the_port_and_its_paths(world: World) -> None:
    world.follower.event(address_message(LAN, "10.0.0.254"))
    world.values["lan"] = InterfaceSysctls(ip4_forward=True, rp_filter=2, send_redirects=True)
    world.follower.poll_sysctls()
    state = world.announce().ports[3]
    assert (state.ip4_forward, state.ip6_forward, state.rpf, state.send_redirects) == (True, False, 2, True)
    assert world.paths.take(10) == [8]


def test_how_next_hops_are_chosen_is_told_and_followed(world: World) -> None:
    assert world.announce().multipath == {4: (0, 7), 6: (0, 7)}
    world.multipath = MultipathSysctls(policy4=1, policy6=3, fields6=0x3F)
    world.follower.poll_sysctls()
    assert world.announce().multipath == {4: (1, 7), 6: (3, 0x3F)}
    assert world.paths.take(10) == []
    world.multipath = replace(world.multipath, use_neigh=True)
    world.follower.poll_sysctls()
    assert world.paths.take(10) == [8, 9], "which legs count has changed"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MultipathSysctls()),
        (
            {"ipv4/fib_multipath_hash_policy": "2", "ipv6/fib_multipath_hash_policy": "1"},
            MultipathSysctls(2, 7, 1, 7),
        ),
        (
            {"ipv4/fib_multipath_hash_policy": "3", "ipv4/fib_multipath_hash_fields": "55"},
            MultipathSysctls(policy4=3, fields4=55),
        ),
        ({"ipv6/fib_multipath_hash_policy": "9", "ipv6/fib_multipath_hash_fields": "x"}, MultipathSysctls()),
        ({"ipv4/fib_multipath_use_neigh": "1"}, MultipathSysctls(use_neigh=True)),
    ],
)
def test_sysctls_of_next_hops_have_their_defaults_where_the_kernel_has_none(
    tmp_path: Path, files: dict[str, str], expected: MultipathSysctls
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert read_multipath(tmp_path) == expected


def test_a_neighbour_that_turns_invalid_without_a_mac_touches_its_paths(world: World) -> None:
    """A leg whose neighbour is not valid is passed over; one without an entry is not."""
    world.follower.event(neighbour_message(LAN, "10.0.0.1", kind=29))
    world.paths.take(10)
    world.follower.event(neighbour_message(LAN, "10.0.0.1", None, state=0x20))
    assert world.paths.take(10) == [8]
    world.follower.event(neighbour_message(LAN, "10.0.0.1", None, state=0x01))
    assert world.paths.take(10) == []
    world.follower.event(neighbour_message(LAN, "10.0.0.1", None, kind=29))
    assert world.paths.take(10) == [8]


def test_a_netconf_message_asks_for_the_sysctls(world: World) -> None:
    assert not world.follower.sysctls_stale
    world.follower.event(message(80, struct.pack("=Bxxx", 2)))
    assert world.follower.sysctls_stale


L3MDEV = rule_message(1000, 0, extra=attribute(19, b"\x01"))
MERGED = Step(fib="local, main")
LOCAL, MAIN, DEFAULT = (Step(fib=f"table {table} from /0") for table in (255, 254, 253))
PUNT = Step(verdict=ACTIONS.policy_rule)


@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        (DEFAULT_RULES, [MERGED, DEFAULT]),
        (DEFAULT_RULES[:2], [MERGED]),
        (
            [rule_message(32766, 254), rule_message(32767, 253), L3MDEV, rule_message(32765, 255)],
            [MERGED, DEFAULT],
        ),
        ([*DEFAULT_RULES, rule_message(32000, 77)], [LOCAL, Step(fib="table 77 from /0"), MAIN, DEFAULT]),
        ([rule_message(0, 254), rule_message(1, 255)], [MAIN, LOCAL]),
        (
            [rule_message(0, 255), rule_message(5, 0, action=6)],
            [LOCAL, Step(verdict=ACTIONS.blackhole_route)],
        ),
        ([rule_message(0, 255), rule_message(5, 0, action=8)], [LOCAL, Step(verdict=ACTIONS.reject_route)]),
        ([rule_message(0, 255), rule_message(5, 9, extra=attribute(10, u32(1)))], [LOCAL, PUNT]),
        ([], []),
    ],
    ids=["default", "no table default", "vrf", "a table", "swapped", "blackhole", "prohibit", "mark", "none"],
)
def test_rules_become_views_of_all_ports(rules: list[Message], steps: list[Step]) -> None:
    world = World()
    assert not world.announce().views, "rules are not known yet"
    world.follower.replace_rules(4, rules)
    world.follower.replace_rules(6, DEFAULT_RULES[:2])
    views = world.announce().views
    assert [list(views[port, 4][0]) for port in (3, 4)] == [steps, steps]
    assert views[3, 6] == ((MERGED,), True)


def test_views_are_told_again_only_when_they_differ(world: World) -> None:
    world.follower.replace_rules(4, DEFAULT_RULES)
    calls = world.announce().calls
    assert not world.follower.replace_rules(4, DEFAULT_RULES)
    world.follower.event(link_message(9, "other"))
    assert world.announce().calls == calls


def test_more_tables_than_there_is_room_for_are_the_kernels(world: World) -> None:
    world.rib.most_fibs = 2
    world.follower.replace_rules(4, [rule_message(table, table) for table in (1, 2, 3)])
    steps, same_source = world.announce().views[3, 4]
    assert steps == (Step(fib="table 1 from /0"), Step(fib="table 2 from /0"), PUNT)
    assert not same_source


def test_a_view_that_was_not_taken_is_told_again(world: World) -> None:
    world.follower.replace_rules(4, DEFAULT_RULES)
    world.sink.takes_views = False
    assert not world.announce().views
    assert world.programs.retry
    world.sink.takes_views = True
    assert world.announce().views.keys() == {(3, 4), (4, 4)}
    assert not world.programs.retry


def test_an_interface_without_its_view_gives_all_packets_to_the_kernel(world: World) -> None:
    world.follower.replace_rules(4, DEFAULT_RULES)
    assert not world.announce().ports[3].kernel_all
    world.follower.replace_rules(4, [*DEFAULT_RULES, rule_message(100, 77)])
    world.sink.takes_views = False
    assert world.announce().ports[3].kernel_all
    world.sink.takes_views = True
    assert not world.announce().ports[3].kernel_all


def test_a_table_for_which_there_was_no_memory_gets_its_fib_when_there_is(world: World) -> None:
    world.follower.replace_rules(4, [*DEFAULT_RULES, rule_message(100, 77)])
    world.rib.memory = False
    assert ACTIONS.policy_rule in {step.verdict for step in world.announce().views[3, 4][0]}
    assert world.programs.retry
    world.rib.memory = True
    assert "table 77 from /0" in {step.fib for step in world.announce().views[3, 4][0]}
    assert not world.programs.retry


def test_tables_that_people_only_asked_for_leave_room_for_those_of_rules(world: World) -> None:
    fibs = [world.programs.table(number).steps[0].fib for number in range(1000, 1300)]
    assert fibs[0] == "table 1000 from /0"
    assert fibs[-1] is None, "every question made a FIB that stays"
    world.follower.replace_rules(4, [*DEFAULT_RULES, rule_message(100, 77)])
    assert "table 77 from /0" in {step.fib for step in world.announce().views[3, 4][0]}
    assert world.programs.table(77).steps[0].fib == "table 77 from /0"
    assert world.programs.table(1000).steps[0].fib == "table 1000 from /0"


@pytest.mark.parametrize(
    "call", ["set_port", "set_vlans", "set_local4", "set_multipath", "on_tap", "on_link"]
)
def test_what_the_router_could_not_take_is_told_again(
    world: World, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(callback: Callable[..., object], *arguments: object) -> object:
        try:
            return callback(*arguments)
        except MemoryError:
            return None

    def refuse(*_: object) -> None:
        raise MemoryError

    world.announcer = Announcer([Port(3, "lan"), Port(4, "wan")], ["eth0"], world.sink, tell)
    with monkeypatch.context() as context:
        context.setattr(world.sink, call, refuse)
        world.announce()
    assert world.announcer.retry
    told: list[object] = []
    taken = getattr(world.sink, call)
    monkeypatch.setattr(world.sink, call, lambda *what: (told.append(what), taken(*what)))
    world.announce()
    assert told
    assert not world.announcer.retry
    told.clear()
    world.announce()
    assert not told, "taken, and told again"


def test_a_link_that_goes_down_touches_all_that_is_stacked_on_it(world: World) -> None:
    for index, parent, vid in ((20, LAN, 5), (21, 20, 6)):
        vlan = (vid, 0x8100)
        world.follower.event(link_message(index, f"v{index}", parent=parent, link_kind="vlan", vlan=vlan))
    world.follower.event(neighbour_message(21, "10.5.0.1"))
    world.path(30, FakePath(legs=(Leg(21, ip("10.5.0.1")),)))
    assert world.resolve(30).action == ACTIONS.forward
    world.quiet()
    world.follower.event(link_message(LAN, "lan", up=False))
    assert 30 in world.paths.take(1 << 30)
    assert world.resolve(30).action == ACTIONS.external_route


def test_thousands_of_rules_for_the_kernel_are_not_thousands_of_lines_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    by_mark = [
        rule_message(number, 77, extra=attribute(10, struct.pack("=I", 5))) for number in range(1, 1001)
    ]
    world.follower.replace_rules(4, [*DEFAULT_RULES, *by_mark])
    world.announce()
    assert len(world.programs.punting) == 1000
    assert 1 < len(caplog.records) < 50
    assert "and 980 more" in caplog.messages[-1]


def test_rules_are_not_judged_again_for_a_link_that_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.follower.replace_rules(4, [*DEFAULT_RULES, rule_message(100, 77)])
    world.announce()
    judged: list[object] = []
    judge = views.judge
    monkeypatch.setattr(views, "judge", lambda *what: (judged.append(what), judge(*what))[1])
    world.follower.event(link_message(LAN, "lan", mtu=1400))
    assert world.announce().ports[3].mtu == 1400
    assert not judged
    world.follower.replace_rules(4, DEFAULT_RULES)
    world.announce()
    assert judged


def test_a_rule_that_only_the_kernel_can_follow_is_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    marked = rule_message(5, 77, extra=attribute(10, u32(1)))
    for rules in ([*DEFAULT_RULES, marked], [*DEFAULT_RULES, marked, rule_message(9, 78)], DEFAULT_RULES):
        world.follower.replace_rules(4, rules)
        world.announce()
    assert [record.getMessage().split(": only")[0] for record in caplog.records] == [
        "IPv4 rule 5: from all fwmark 0x1 lookup 77 (fwmark)"
    ]
    assert world.programs.punting == ()


def test_rules_are_told_with_the_interfaces_that_they_are_of(world: World) -> None:
    world.follower.replace_rules(4, [rule_message(1, 77, extra=attribute(3, b"lan\0")), rule_message(2, 255)])
    world.announce()
    told = [(view.priority, view.state, view.interfaces) for view in world.programs.rule_views()]
    assert told == [(1, "honoured", ("lan",)), (2, "honoured", ())]
    programs = {(view.interface, view.family): view for view in world.programs.program_views()}
    assert programs["lan", 4].steps == ("lookup 77", "lookup local")
    assert programs["wan", 4].steps == ("lookup local",)
    assert not programs["lan", 4].same_source, "a source is looked up as from elsewhere"
    assert programs["wan", 4].same_source


def test_a_renamed_interface_has_the_program_of_its_new_name(world: World) -> None:
    world.follower.replace_rules(
        4, [rule_message(1, 77, flags=8, extra=attribute(3, b"new\0")), rule_message(2, 255)]
    )
    assert world.announce().views[3, 4][0] == (LOCAL,)
    world.follower.event(link_message(LAN, "new"))
    assert world.announce().views[3, 4][0] == (Step(fib="table 77 from /0"), LOCAL)


def test_the_table_of_a_vrf_is_read_from_its_link() -> None:
    red = links.parse(link_message(8, "red", link_kind="vrf", vrf_table=70000))
    assert red is not None
    assert (red.kind, red.vrf_table) == ("vrf", 70000)
    other = links.parse(link_message(9, "x", link_kind="vlan", vlan=(7, 0x8100)))
    assert other is not None
    assert other.vrf_table == 0


def test_members_of_a_vrf_look_up_its_table(world: World) -> None:
    world.follower.replace_rules(4, [*DEFAULT_RULES, L3MDEV])
    world.follower.event(link_message(8, "red", link_kind="vrf", vrf_table=10))
    world.follower.event(link_message(LAN, "lan", master=8))
    sink = world.announce()
    assert [step.fib for step in sink.views[3, 4][0]] == [
        LOCAL.fib,
        "table 10 from /0",
        MAIN.fib,
        DEFAULT.fib,
    ]
    assert sink.views[4, 4] == ((MERGED, DEFAULT), True)
    assert not sink.ports[3].kernel_all
    world.follower.event(link_message(LAN, "lan"))
    assert world.announce().views[3, 4] == ((MERGED, DEFAULT), True)


@pytest.mark.parametrize(
    ("master", "kernels"),
    [
        (link_message(8, "red", link_kind="vrf", vrf_table=10), False),
        (link_message(8, "red", link_kind="vrf", vrf_table=10, up=False), True),
        (link_message(8, "red", link_kind="vrf"), True),
        (link_message(8, "red", link_kind="bridge"), True),
        (link_message(9, "red", link_kind="vrf", vrf_table=10), True),
    ],
    ids=["VRF", "VRF that is down", "VRF of no table", "bridge", "not known"],
)
def test_a_port_with_a_master_is_the_kernels_unless_that_is_a_vrf(
    world: World, master: Message, kernels: bool
) -> None:
    world.follower.event(master)
    world.follower.event(link_message(LAN, "lan", master=8))
    assert world.announce().ports[3].kernel_all is kernels


def test_broadcast_addresses_are_told_once_there_were_rules(world: World) -> None:
    world.follower.event(address_message(LAN, "10.0.0.9"))
    world.follower.event(address_message(WAN, "10.1.0.9", length=31))
    world.follower.replace_rules(4, DEFAULT_RULES)
    assert world.announce().local4 == [ip("10.0.0.9"), ip("10.1.0.9")]
    world.follower.replace_rules(4, DEFAULT_RULES[:1])
    assert world.announce().local4 == [ip("10.0.0.9"), ip("10.0.0.255"), ip("10.1.0.9")]


def test_rules_are_read_again_when_interfaces_come_and_go_that_rules_could_name(world: World) -> None:
    world.follower.event(link_message(9, "other"))
    assert not world.plan.wanted & Scope.RULES
    world.follower.replace_rules(4, [rule_message(1, 77, extra=attribute(3, b"other\0"))])
    for change in (link_message(9, "renamed"), link_message(9, "renamed", kind=17), link_message(9, "other")):
        world.follower.event(change)
        assert world.plan.wanted & Scope.RULES
        world.quiet()


def test_a_truncated_message_is_counted_and_changes_nothing(world: World) -> None:
    before = list(world.follower.tables.neighbours)
    world.follower.event(message(28, neighbour_message(LAN, GATEWAY, OTHER_MAC).data[16:30]))
    assert world.follower.malformed == 1
    assert list(world.follower.tables.neighbours) == before


@pytest.mark.parametrize(
    "damaged",
    [
        message(16, struct.pack("=BxHiII", 0, 1, 9, 1, 0) + attribute(3, b"x\0") + struct.pack("=HH", 3, 4)),
        message(
            16,
            link_message(9, "x").data[16:]
            + attribute(18, attribute(1, b"vlan\0") + struct.pack("=HH", 99, 2)),
        ),
        message(104, struct.pack("=BBBBI", 0, 0, 0, 0, 0) + struct.pack("=HHH", 6, 1, 1)),
    ],
    ids=["length of 3", "nested length", "number cut short"],
)
def test_an_attribute_that_cannot_be_decoded_is_counted_and_changes_nothing(
    world: World, damaged: Message
) -> None:
    links = len(world.follower.tables.links)
    world.follower.event(damaged)
    assert world.follower.malformed == 1
    assert len(world.follower.tables.links) == links


SAMPLES = [
    link_message(LAN, "lan", link_kind="vlan", vlan=(7, 0x8100), parent=3),
    address_message(LAN, "10.0.0.254"),
    neighbour_message(LAN, GATEWAY, managed=True),
    nexthop_message(7, oif=LAN, gateway=GATEWAY),
    nexthop_message(20, group=(7, 8)),
    rule_message(100, 77),
]


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.integers(0, 200),
)
def test_damaged_messages_never_raise(sample: object, damage: list[tuple[int, int]], cut: int) -> None:
    world = World()
    data = bytearray(sample.data[: max(0, len(sample.data) - cut)])
    for position, value in damage:
        if position < len(data):
            data[position] = value
    try:
        for one in split(bytes(data)):
            world.follower.event(one)
    except ValueError:
        return
    world.announce()


@given(st.binary(max_size=200))
def test_splitting_any_bytes_ends_and_yields_only_what_is_inside(data: bytes) -> None:
    total = 0
    try:
        for one in split(data):
            total += len(one.data)
    except ValueError:
        pass
    assert total <= len(data)


def test_messages_of_a_datagram_come_in_order() -> None:
    one, two = link_message(1, "a").data, neighbour_message(1, GATEWAY).data
    padding = os.urandom(0) + bytes(-len(one) % 4)
    assert [m.data for m in split(one + padding + two)] == [one, two]
