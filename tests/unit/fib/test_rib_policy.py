"""What the FIB shows, rule by rule, and what becomes of paths."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
from rib_bench import NEW_PATH_ACTION, adjacency, rib_bench, shown

from ixroute.fib.rib import FAMILY_IP4, FAMILY_IP6, How, NextHop, Path, Prefix, Rib, Route, RouteType

NO_ROUTE, LOCAL, BROADCAST, MULTICAST, BLACKHOLE, REJECT, KERNEL = range(7)


@pytest.fixture
def rib() -> Iterator[Rib]:
    with rib_bench() as rib:
        yield rib
        rib.check()


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def route(prefix: str, **fields: int) -> Route:
    return Route(Prefix.parse(prefix), **fields)


def via(*gateways: str, link: int = 2, family: int = FAMILY_IP4, **fields: Any) -> Path:
    return Path(family, tuple(NextHop(link, ip(gateway)) for gateway in gateways), **fields)


def via6(*gateways: str, **fields: Any) -> Path:
    return via(*gateways, family=FAMILY_IP6, **fields)


def on_link(link: int = 2, family: int = FAMILY_IP4, mtu: int = 0) -> Path:
    return Path(family, (NextHop(link),), mtu=mtu)


def of_type(kind: RouteType, family: int = FAMILY_IP4) -> Path:
    return Path(family, (), kind)


def seen(rib: Rib, addr: str) -> int | Path:
    return shown(rib, rib.lookup(ip(addr)).index)


@pytest.mark.parametrize(
    ("kind", "table", "index"),
    [
        (RouteType.LOCAL, 255, LOCAL),
        (RouteType.ANYCAST, 255, LOCAL),
        (RouteType.BROADCAST, 255, BROADCAST),
        (RouteType.MULTICAST, 255, MULTICAST),
        (RouteType.BLACKHOLE, 254, BLACKHOLE),
        (RouteType.UNREACHABLE, 254, REJECT),
        (RouteType.PROHIBIT, 254, REJECT),
        (RouteType.THROW, 254, NO_ROUTE),
        (RouteType.THROW, 255, KERNEL),
    ],
)
def test_a_route_type_shows_its_reserved_index(rib: Rib, kind: RouteType, table: int, index: int) -> None:
    rib.add(route("0.0.0.0/0"), via("10.0.0.1"))
    rib.add(route("10.1.0.0/16", table=table), of_type(kind))
    answer = rib.lookup(ip("10.1.2.3"))
    assert (answer.index, str(answer.prefix)) == (index, "10.1.0.0/16")


def test_an_empty_rib_shows_no_route(rib: Rib) -> None:
    assert rib.lookup(ip("10.0.0.1")) == rib.lookup(ip("::1"))
    assert rib.lookup(ip("10.0.0.1")).index == NO_ROUTE


def test_the_lowest_metric_is_best_and_the_next_follows_when_it_goes(rib: Rib) -> None:
    rib.add(route("10.0.0.0/8", metric=20), via("192.0.2.20"))
    rib.add(route("10.0.0.0/8", metric=10), via("192.0.2.10"))
    assert seen(rib, "10.9.9.9") == via("192.0.2.10")
    rib.remove(route("10.0.0.0/8", metric=10))
    assert seen(rib, "10.9.9.9") == via("192.0.2.20")


def test_ip4_add_goes_first_append_last_and_replace_takes_the_place_of_the_first(rib: Rib) -> None:
    where = route("10.0.0.0/8")
    for gateway, how in (("192.0.2.1", How.ADD), ("192.0.2.2", How.APPEND), ("192.0.2.3", How.ADD)):
        rib.add(where, via(gateway), how)
    assert seen(rib, "10.0.0.1") == via("192.0.2.3")
    rib.add(where, via("192.0.2.4"), How.REPLACE)
    order = []
    while rib.remove(where):
        order.append(seen(rib, "10.0.0.1"))
    assert order == [via("192.0.2.1"), via("192.0.2.2"), NO_ROUTE]


def test_ip4_replacing_a_route_by_one_that_is_there_changes_nothing(rib: Rib) -> None:
    """The kernel says so of every route of a nexthop object that changed, wherever it stands among its equals."""
    where = route("10.0.0.0/8")
    for nhid in (1, 2):
        rib.add(where, Path(FAMILY_IP4, nhid=nhid), How.APPEND)
    rib.add(where, Path(FAMILY_IP4, nhid=2), How.REPLACE)
    assert seen(rib, "10.0.0.1") == Path(FAMILY_IP4, nhid=1)
    rib.remove(where, Path(FAMILY_IP4, nhid=1))
    assert seen(rib, "10.0.0.1") == Path(FAMILY_IP4, nhid=2)


def test_main_below_a_shorter_local_prefix_is_the_kernels_in_ip4_until_that_goes(rib: Rib) -> None:
    """Whether the kernel's two tables are one trie still, nobody tells."""
    rib.add(route("10.1.1.0/24"), via("192.0.2.1"))
    rib.add(route("10.0.0.0/8", table=255), of_type(RouteType.LOCAL))
    assert seen(rib, "10.1.1.1") == KERNEL
    rib.add(route("10.1.2.0/24"), of_type(RouteType.THROW))
    assert seen(rib, "10.1.2.1") == KERNEL
    assert seen(rib, "10.1.3.1") == LOCAL
    rib.remove(route("10.0.0.0/8", table=255))
    assert seen(rib, "10.1.1.1") == via("192.0.2.1")
    assert seen(rib, "10.1.2.1") == NO_ROUTE


def test_main_below_a_shorter_local_prefix_is_hidden_in_ip6_until_that_goes(rib: Rib) -> None:
    rib.add(route("2001:db8:1:1::/64"), via6("fe80::1"))
    rib.add(route("2001:db8:1::/48", table=255), of_type(RouteType.LOCAL, FAMILY_IP6))
    assert seen(rib, "2001:db8:1:1::1") == LOCAL
    rib.add(route("2001:db8:1:2::/64"), via6("fe80::1"))
    assert seen(rib, "2001:db8:1:2::1") == LOCAL
    rib.remove(route("2001:db8:1::/48", table=255))
    assert seen(rib, "2001:db8:1:1::1") == seen(rib, "2001:db8:1:2::1") == via6("fe80::1")


def test_local_and_main_of_the_same_prefix_are_local(rib: Rib) -> None:
    rib.add(route("10.0.0.0/8"), via("192.0.2.1"))
    rib.add(route("10.0.0.0/8", table=255), of_type(RouteType.LOCAL))
    assert seen(rib, "10.1.1.1") == LOCAL


@pytest.mark.parametrize("local", [of_type(RouteType.LOCAL), on_link()])
def test_neighbours_below_a_shorter_local_prefix_are_the_kernels(rib: Rib, local: Path) -> None:
    rib.add(route("10.1.0.0/16"), on_link())
    rib.neighbour_add(ip("10.1.0.5"), 2)
    rib.neighbour_add(ip("10.2.0.5"), 2)
    assert seen(rib, "10.1.0.5") == via("10.1.0.5")
    rib.add(route("10.0.0.0/8", table=255), local)
    rib.check()
    assert seen(rib, "10.1.0.5") == KERNEL
    assert seen(rib, "10.2.0.5") == (LOCAL if local.type == RouteType.LOCAL else via("10.2.0.5"))
    rib.remove(route("10.0.0.0/8", table=255))
    assert seen(rib, "10.1.0.5") == via("10.1.0.5")
    assert seen(rib, "10.2.0.5") == NO_ROUTE


def test_a_local_prefix_that_comes_and_goes_with_dumps_takes_main_along(rib: Rib) -> None:
    told = [(route("10.1.1.0/24"), via("192.0.2.1")), (route("10.0.0.0/8"), via("192.0.2.9"))]
    local = (route("10.0.0.0/8", table=255), of_type(RouteType.LOCAL))
    for dump, expected in ((told, via("192.0.2.1")), ([local, *told], KERNEL), (told, via("192.0.2.1"))):
        rib.dump_begin(FAMILY_IP4)
        for what in dump:
            rib.dumped(*what)
        rib.dump_end(FAMILY_IP4)
        assert seen(rib, "10.1.1.1") == expected
        rib.check()


def test_routes_of_other_tables_are_kept_and_not_shown(rib: Rib) -> None:
    for table in (253, 1000):
        rib.add(route("10.0.0.0/8", table=table), via("192.0.2.1"))
    assert seen(rib, "10.0.0.1") == NO_ROUTE
    assert sorted(entry.route.table for entry in rib.walk()) == [253, 1000]
    assert not any(entry.best for entry in rib.walk())


def test_tos_source_routes_and_odd_paths_go_to_the_kernel(rib: Rib) -> None:
    rib.add(route("10.1.0.0/16"), via("192.0.2.1"))
    rib.add(route("10.1.0.0/16", tos=16), via("192.0.2.2"))
    rib.add(route("2001:db8::/32"), via6("fe80::1"))
    rib.add(route("2001:db8::/32", source_len=48, other=1, metric=2000), via6("fe80::2"))
    rib.add(route("10.2.0.0/16"), Path(FAMILY_IP4, (NextHop(2, ip("192.0.2.1")),), kernel_only=True))
    rib.add(route("10.3.0.0/16"), Path(FAMILY_IP4))
    assert [seen(rib, a) for a in ("10.1.0.1", "2001:db8::1", "10.2.0.1", "10.3.0.1")] == [KERNEL] * 4
    rib.remove(route("10.1.0.0/16", tos=16))
    rib.remove(route("2001:db8::/32", source_len=48, other=1, metric=2000))
    assert seen(rib, "10.1.0.1") == via("192.0.2.1")
    assert seen(rib, "2001:db8::1") == via6("fe80::1")


# ---- IPv6 siblings ----


def test_a_multipath_message_takes_the_place_of_the_siblings_known_before(rib: Rib) -> None:
    where = route("2001:db8::/32", metric=1024)
    rib.add(where, via6("fe80::1"))
    rib.add(where, via6("fe80::2", "fe80::1"), How.APPEND)
    assert seen(rib, "2001:db8::1") == via6("fe80::1", "fe80::2")
    assert rib.stats().routes6 == 1


def test_siblings_have_no_order(rib: Rib) -> None:
    rib.add(route("2001:db8:1::/48"), via6("fe80::1", "fe80::2"))
    rib.add(route("2001:db8:2::/48"), via6("fe80::2", "fe80::1"))
    assert rib.lookup(ip("2001:db8:1::1")).index == rib.lookup(ip("2001:db8:2::1")).index


def test_deleting_one_leg_leaves_the_others(rib: Rib) -> None:
    where = route("2001:db8::/32", metric=1024)
    heavy = Path(FAMILY_IP6, tuple(NextHop(2, ip(f"fe80::{i}"), weight=i) for i in (1, 2, 3)))
    rib.add(where, heavy)
    rib.remove(where, via6("fe80::2"))
    assert seen(rib, "2001:db8::1") == Path(FAMILY_IP6, (heavy.legs[0], heavy.legs[2]))
    rib.remove(where, via6("fe80::1"))
    assert seen(rib, "2001:db8::1") == via6("fe80::3")
    rib.remove(where, via6("fe80::3"))
    assert seen(rib, "2001:db8::1") == NO_ROUTE


def test_a_leg_of_a_set_too_odd_to_hold_leaves_the_prefix_with_the_kernel(rib: Rib) -> None:
    where = route("2001:db8::/32", metric=1024)
    rib.add(where, via6("fe80::1", "fe80::2", kernel_only=True))
    rib.remove(where, via6("fe80::2"))
    assert seen(rib, "2001:db8::1") == KERNEL


def test_equal_ip6_routes_that_are_no_siblings_go_to_the_kernel(rib: Rib) -> None:
    rib.add(route("fe80::/64", metric=256), on_link(2, FAMILY_IP6))
    rib.add(route("fe80::/64", metric=256), on_link(3, FAMILY_IP6))
    assert seen(rib, "fe80::1") == KERNEL
    rib.remove(route("fe80::/64", metric=256), on_link(2, FAMILY_IP6))
    assert seen(rib, "fe80::1") == on_link(3, FAMILY_IP6)


def test_equal_ip6_routes_to_the_same_reserved_index_show_it(rib: Rib) -> None:
    for link in (2, 3):
        path = Path(FAMILY_IP6, (NextHop(link),), RouteType.MULTICAST)
        rib.add(route("ff00::/8", table=255, metric=256), path)
    assert seen(rib, "ff02::1") == MULTICAST


def test_two_routers_heard_from_are_no_siblings(rib: Rib) -> None:
    default = route("::/0", metric=1024, protocol=9)
    rib.add(default, via6("fe80::1"))
    rib.add(default, via6("fe80::2"))
    assert seen(rib, "2001:db8::1") == KERNEL
    rib.remove(default, via6("fe80::1"))
    assert seen(rib, "2001:db8::1") == via6("fe80::2")


# ---- neighbours ----


def test_a_neighbour_is_shown_under_its_connected_route_with_the_routes_mtu(rib: Rib) -> None:
    rib.neighbour_add(ip("10.0.0.5"), 2)
    assert seen(rib, "10.0.0.5") == NO_ROUTE
    rib.add(route("10.0.0.0/24"), on_link(2, mtu=1400))
    answer = rib.lookup(ip("10.0.0.5"))
    assert answer.neighbour
    assert (str(answer.prefix), answer.route) == ("10.0.0.5/32", route("10.0.0.0/24"))
    assert rib.path(answer.index) == via("10.0.0.5", mtu=1400)
    assert seen(rib, "10.0.0.6") == on_link(2, mtu=1400)


def test_a_longer_route_via_a_gateway_hides_the_neighbour(rib: Rib) -> None:
    rib.add(route("10.0.0.0/24"), on_link())
    rib.neighbour_add(ip("10.0.0.5"), 2)
    for hiding in ("10.0.0.0/25", "10.0.0.5/32"):
        rib.add(route(hiding), via("192.0.2.1"))
        assert seen(rib, "10.0.0.5") == via("192.0.2.1")
        rib.check()
        rib.remove(route(hiding))
        assert seen(rib, "10.0.0.5") == via("10.0.0.5")


def test_a_host_route_over_the_link_shows_the_neighbour(rib: Rib) -> None:
    rib.add(route("10.0.0.5/32"), on_link())
    assert seen(rib, "10.0.0.5") == on_link()
    rib.neighbour_add(ip("10.0.0.5"), 2)
    assert seen(rib, "10.0.0.5") == via("10.0.0.5")
    rib.neighbour_remove(ip("10.0.0.5"), 2)
    assert seen(rib, "10.0.0.5") == on_link()


def test_a_neighbour_is_hidden_when_its_network_moves_to_another_interface(rib: Rib) -> None:
    rib.neighbour_add(ip("10.0.0.5"), 2)
    rib.neighbour_add(ip("10.0.0.5"), 3)
    rib.add(route("10.0.0.0/24"), on_link(2))
    assert seen(rib, "10.0.0.5") == via("10.0.0.5", link=2)
    rib.add(route("10.0.0.0/24"), on_link(3), How.REPLACE)
    assert seen(rib, "10.0.0.5") == via("10.0.0.5", link=3)
    rib.add(route("10.0.0.0/24"), on_link(4), How.REPLACE)
    assert seen(rib, "10.0.0.5") == on_link(4)


def test_a_neighbour_that_becomes_an_own_address_is_local(rib: Rib) -> None:
    rib.add(route("10.0.0.0/24"), on_link())
    rib.neighbour_add(ip("10.0.0.5"), 2)
    rib.add(route("10.0.0.5/32", table=255), of_type(RouteType.LOCAL))
    assert seen(rib, "10.0.0.5") == LOCAL
    rib.remove(route("10.0.0.5/32", table=255))
    assert seen(rib, "10.0.0.5") == via("10.0.0.5")


def test_a_neighbour_under_a_nexthop_object_is_not_shown(rib: Rib) -> None:
    rib.add(route("10.0.0.0/24"), Path(FAMILY_IP4, (NextHop(2),), nhid=5))
    rib.neighbour_add(ip("10.0.0.5"), 2)
    assert not rib.lookup(ip("10.0.0.5")).neighbour


# ---- dumps ----


def dump(rib: Rib, *told: tuple[Route, Path]) -> int:
    rib.dump_begin(FAMILY_IP4)
    for what in told:
        rib.dumped(*what)
    return rib.dump_end(FAMILY_IP4)


def test_a_dump_counts_added_moved_and_removed_routes(rib: Rib) -> None:
    where = route("10.0.0.0/8")
    a, b, c = ((where, via(f"192.0.2.{i}")) for i in (1, 2, 3))
    assert dump(rib, a, b, c) == 3
    assert dump(rib, a, b, c) == 0
    assert dump(rib, b, c) == 1
    assert dump(rib, c, b) == 1
    assert seen(rib, "10.0.0.1") == c[1]
    assert dump(rib, a, c, b) == 1
    assert dump(rib) == 3


def test_until_a_dump_tells_all_of_a_prefix_the_old_route_is_shown(rib: Rib) -> None:
    where = route("10.0.0.0/8")
    rib.add(where, via("192.0.2.1"))
    rib.dump_begin(FAMILY_IP4)
    rib.dumped(where, via("192.0.2.2"))
    assert seen(rib, "10.0.0.1") == via("192.0.2.1")
    rib.check()
    assert rib.dump_end(FAMILY_IP4) == 2
    assert seen(rib, "10.0.0.1") == via("192.0.2.2")


def test_a_dump_of_the_same_routes_never_touches_the_fib(rib: Rib) -> None:
    told = [(route(f"10.{i}.0.0/16", metric=i % 3), via(f"192.0.2.{i % 5 + 1}")) for i in range(200)]
    dump(rib, *told)
    changes = rib.stats().best_changes
    assert dump(rib, *reversed(told)) == 0
    assert rib.stats().best_changes == changes


def test_an_aborted_dump_removes_nothing_and_the_next_one_is_right(rib: Rib) -> None:
    told = [(route(f"10.{i}.0.0/16"), via("192.0.2.1")) for i in range(5)]
    dump(rib, *told)
    rib.dump_begin(FAMILY_IP4)
    rib.dumped(*told[0])
    rib.dump_abort(FAMILY_IP4)
    assert rib.stats().routes4 == 5
    assert dump(rib, *told) == 0


def test_a_dump_of_one_family_leaves_the_other_alone(rib: Rib) -> None:
    rib.add(route("2001:db8::/32"), via6("fe80::1"))
    assert dump(rib) == 0
    assert seen(rib, "2001:db8::1") == via6("fe80::1")


def dump6(rib: Rib, *told: tuple[Route, Path]) -> int:
    rib.dump_begin(FAMILY_IP6)
    for what in told:
        rib.dumped(*what)
    return rib.dump_end(FAMILY_IP6)


@pytest.mark.parametrize(
    "hidden",
    [
        on_link(2, FAMILY_IP6),
        of_type(RouteType.BLACKHOLE, FAMILY_IP6),
        Path(FAMILY_IP6, (NextHop(2, ip("fe80::9")),), nhid=7),
    ],
)
def test_what_siblings_may_hide_from_a_dump_is_kept_until_it_is_deleted(rib: Rib, hidden: Path) -> None:
    where = route("2001:db8::/32", metric=1024)
    siblings = via6("fe80::1", "fe80::2")
    rib.add(where, siblings)
    rib.add(where, hidden)
    for _ in range(2):
        assert dump6(rib, (where, siblings)) == 0
        assert seen(rib, "2001:db8::1") == KERNEL
        rib.check()
    rib.remove(where, hidden)
    assert seen(rib, "2001:db8::1") == siblings
    rib.add(where, hidden)
    assert dump6(rib, (where, via6("fe80::1"))) == 3, "one leg hides nothing"
    assert seen(rib, "2001:db8::1") == via6("fe80::1")


def test_siblings_hide_nothing_of_other_metrics_and_tables_nor_siblings(rib: Rib) -> None:
    where, siblings = route("2001:db8::/32", metric=7), via6("fe80::1", "fe80::2")
    rib.add(where, via6("fe80::1", "fe80::3"))
    rib.add(route("2001:db8::/32", metric=6), on_link(2, FAMILY_IP6))
    rib.add(route("2001:db8::/32", metric=7, table=100), on_link(2, FAMILY_IP6))
    assert dump6(rib, (where, siblings)) == 4
    assert seen(rib, "2001:db8::1") == siblings
    assert rib.stats().routes6 == 1


def test_ip4_dumps_hide_nothing(rib: Rib) -> None:
    where, several = route("10.0.0.0/8"), via("192.0.2.1", "192.0.2.2")
    rib.add(where, several)
    rib.add(where, on_link(), How.APPEND)
    assert dump(rib, (where, several)) == 1
    assert seen(rib, "10.0.0.1") == several


# ---- paths ----


def test_equal_paths_share_an_id_and_a_fresh_one_has_the_new_path_action(rib: Rib) -> None:
    rib.add(route("10.1.0.0/16"), via("192.0.2.1"))
    rib.add(route("10.2.0.0/16", metric=9), via("192.0.2.1"))
    index = rib.lookup(ip("10.1.0.1")).index
    assert rib.lookup(ip("10.2.0.1")).index == index == 8
    assert rib.path_routes(index) == 2
    assert adjacency(rib, index) == (0, 0, NEW_PATH_ACTION, 0)
    assert rib.take_new_paths() == [index]
    assert rib.take_new_paths() == []


def test_an_unused_path_is_gone_and_its_id_is_given_again(rib: Rib) -> None:
    rib.add(route("10.1.0.0/16"), via("192.0.2.1"))
    rib.remove(route("10.1.0.0/16"))
    assert rib.path(8) is None
    assert rib.take_new_paths() == []
    rib.add(route("10.1.0.0/16"), via("192.0.2.2"))
    assert rib.path(8) == via("192.0.2.2")
    assert rib.take_new_paths() == [8]


def test_a_nexthop_objects_path_is_its_id_and_new_legs_are_announced(rib: Rib) -> None:
    one, two = via("192.0.2.1", nhid=7), via("192.0.2.1", "192.0.2.2", nhid=7)
    rib.add(route("10.1.0.0/16"), one)
    [index] = rib.take_new_paths()
    rib.add(route("10.1.0.0/16"), two, How.REPLACE)
    assert rib.lookup(ip("10.1.0.1")).index == index
    assert rib.path(index) == two
    assert rib.take_new_paths() == [index]
    blackhole = Path(FAMILY_IP4, type=RouteType.BLACKHOLE, nhid=7)
    rib.add(route("10.2.0.0/16"), blackhole)
    assert rib.path(rib.lookup(ip("10.2.0.1")).index) == blackhole


def test_when_no_id_is_left_the_route_is_the_kernels_until_a_dump_finds_one() -> None:
    with rib_bench(paths=9) as rib:
        rib.add(route("10.1.0.0/16"), via("192.0.2.1"))
        rib.add(route("10.2.0.0/16"), via("192.0.2.2"))
        assert seen(rib, "10.2.0.1") == KERNEL
        assert rib.stats().paths_exhausted == 1
        rib.remove(route("10.1.0.0/16"))
        assert dump(rib, (route("10.2.0.0/16"), via("192.0.2.2"))) == 0
        assert seen(rib, "10.2.0.1") == via("192.0.2.2")
        rib.check()


# ---- refusals ----


@pytest.mark.parametrize(
    "bad",
    [
        (Route(Prefix(ip("10.0.0.1"), 8)), via("192.0.2.1")),
        (Route(Prefix(ip("10.0.0.0"), 33)), via("192.0.2.1")),
        (route("10.0.0.0/8"), via6("fe80::1")),
        (route("2001:db8::/32"), Path(FAMILY_IP6, (), 12)),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_route_is_refused(rib: Rib, bad: tuple[Route, Path]) -> None:
    with pytest.raises(OSError, match="rib_add") as refused:
        rib.add(*bad)
    assert refused.value.errno == errno.EINVAL
    assert rib.stats().routes4 == rib.stats().routes6 == 0


def test_removing_what_is_not_there_is_told(rib: Rib) -> None:
    assert not rib.remove(route("10.0.0.0/8"))
    assert not rib.neighbour_remove(ip("10.0.0.1"), 2)
    rib.add(route("10.0.0.0/8", metric=5), via("192.0.2.1"))
    assert not rib.remove(route("10.0.0.0/8", metric=6))


def test_the_walk_gives_every_alternative_once_however_many(rib: Rib) -> None:
    told = {route(f"10.{i}.{j}.0/24", metric=m) for i in range(8) for j in range(200) for m in (1, 2)}
    for what in told:
        rib.add(what, via("192.0.2.1"))
    entries = list(rib.walk())
    assert len(entries) == len(told)
    assert {entry.route for entry in entries} == told
    assert {entry.route.metric for entry in entries if entry.best} == {1}
