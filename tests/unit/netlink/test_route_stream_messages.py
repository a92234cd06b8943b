"""Route messages, byte by byte: what each becomes in the RIB."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import struct
from collections.abc import Iterator

import pytest
import route_messages as m
from hypothesis import given, settings
from hypothesis import strategies as st

from ixroute._dataplane import ffi, lib
from ixroute.fib.fib import Fib
from ixroute.fib.rib import FAMILY_IP4, FAMILY_IP6, NextHop, Path, Prefix, Rib, Route
from ixroute.netlink.route_stream import RouteStream, RouteStreamStats

KERNEL = 6
Bench = tuple[Rib, RouteStream]


class Owner:
    def __init__(self, c: object) -> None:
        self.c = c


@pytest.fixture(scope="module")
def tables() -> Iterator[tuple[Fib, Owner]]:
    with Fib() as fib:
        adjacencies = Owner(lib.adjacency_table_create(4096, 1, ffi.NULL))
        yield fib, adjacencies
        lib.adjacency_table_destroy(adjacencies.c)


@pytest.fixture
def bench(tables: tuple[Fib, Owner]) -> Iterator[Bench]:
    with Rib(*tables, 9) as rib, RouteStream(rib) as stream:
        yield rib, stream
        rib.check()
        empty(rib)


def empty(rib: Rib) -> None:
    """The FIB is shared by the tests of this file: an empty dump takes everything out of it."""
    for family in (FAMILY_IP4, FAMILY_IP6):
        rib.dump_begin(family)
        rib.dump_end(family)


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def only(rib: Rib) -> tuple[Route, Path | int]:
    """The one route there is, and its path or reserved index."""
    [entry] = rib.walk()
    return entry.route, rib.path(entry.path_id) or entry.path_id


TEN = ip("10.0.0.0")
DOC = ip("2001:db8::")
GW, GW2, LL = ip("192.0.2.1"), ip("192.0.2.2"), ip("fe80::1")
METRICS = m.attribute(
    m.RTA_METRICS | m.NLA_F_NESTED,
    m.u32(m.RTAX_LOCK, 4) + m.u32(m.RTAX_MTU, 1300) + m.u32(m.RTAX_HOPLIMIT, 9),
)
UNKNOWN = m.attribute(77, b"what?")


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (m.route(TEN, 8, m.single(3, GW)), Path(4, (NextHop(3, GW),))),
        (m.route(TEN, 8, m.single(3)), Path(4, (NextHop(3),))),
        (m.route(TEN, 8, m.u32(m.RTA_OIF, 3) + m.via(LL)), Path(4, (NextHop(3, LL),))),
        (m.route(TEN, 8, m.single(3, GW), flags=m.RTNH_F_ONLINK), Path(4, (NextHop(3, GW, onlink=True),))),
        (m.route(TEN, 8, m.single(3, GW), flags=m.RTNH_F_LINKDOWN), Path(4, (NextHop(3, GW),))),
        (m.route(TEN, 8, m.single(3, GW) + METRICS), Path(4, (NextHop(3, GW),), mtu=1300)),
        (m.route(TEN, 8, m.single(3, GW) + m.u32(m.RTA_NH_ID, 5)), Path(4, (NextHop(3, GW),), nhid=5)),
        (m.route(TEN, 8, m.single(3, GW) + m.u32(m.RTA_PREF, 0)), Path(4, (NextHop(3, GW),))),
        (m.route(DOC, 32, m.single(3, LL), metric=1024), Path(6, (NextHop(3, LL),))),
        (m.route(DOC, 32, m.attribute(m.RTA_CACHEINFO, bytes(32)) + m.single(3)), Path(6, (NextHop(3),))),
        (
            m.route(
                TEN,
                8,
                m.multipath(
                    [
                        m.hop(3, m.attribute(m.RTA_GATEWAY, GW) + m.u32(m.RTA_FLOW, 1), 200),
                        m.hop(4, m.via(LL), flags=m.RTNH_F_ONLINK),
                        m.hop(5, flags=m.RTNH_F_DEAD | m.RTNH_F_LINKDOWN, weight=256),
                    ]
                ),
            ),
            Path(4, (NextHop(3, GW, 200), NextHop(4, LL, onlink=True), NextHop(5, weight=256))),
        ),
        (m.route(TEN, 8, kind=m.RTN_BLACKHOLE), 4),
        (m.route(TEN, 8, m.single(1), kind=m.RTN_LOCAL, table=255), 1),
        (m.route(TEN, 8, m.single(3, GW) + UNKNOWN), KERNEL),
        (m.route(TEN, 8, m.single(3, GW) + m.attribute(m.RTA_ENCAP, b"abcd")), KERNEL),
        (m.route(TEN, 8, m.u32(m.RTA_OIF, 3) + m.attribute(m.RTA_VIA, b"\x1c\0abcdef")), KERNEL),
        (m.route(TEN, 8, m.single(3, GW) + m.attribute(m.RTA_METRICS, m.u32(m.RTAX_LOCK, 4))), KERNEL),
        (m.route(TEN, 8, m.multipath([m.hop(3, m.attribute(m.RTA_ENCAP, b"abcd"))])), KERNEL),
        (m.route(TEN, 8, m.multipath([m.hop(i + 1) for i in range(65)])), KERNEL),
    ],
)
def test_a_message_becomes_a_route_with_this_path(bench: Bench, message: bytes, path: Path | int) -> None:
    rib, stream = bench
    assert not stream.feed(message)
    assert only(rib)[1] == path
    assert stream.stats() == RouteStreamStats(datagrams=1, messages=1)


def test_64_legs_are_a_path(bench: Bench) -> None:
    rib, stream = bench
    stream.feed(m.route(TEN, 8, m.multipath([m.hop(i + 1) for i in range(64)])))
    path = only(rib)[1]
    assert isinstance(path, Path)
    assert [leg.ifindex for leg in path.legs] == list(range(1, 65))


def test_more_legs_are_a_path_when_a_nexthop_object_has_them(bench: Bench) -> None:
    rib, stream = bench
    hops = m.multipath([m.hop(i + 1) for i in range(65)])
    stream.feed(m.route(TEN, 8, m.u32(m.RTA_NH_ID, 5) + hops))
    path = only(rib)[1]
    assert isinstance(path, Path)
    assert (path.nhid, path.kernel_only) == (5, False)


def test_all_of_a_routes_identity_is_read(bench: Bench) -> None:
    rib, stream = bench
    stream.feed(
        m.route(TEN, 8, m.single(3), table=100000, metric=4294967295, tos=16, protocol=186, scope=253)
    )
    assert only(rib)[0] == Route(Prefix(TEN, 8), 100000, 4294967295, 16, 186, 253)
    empty(rib)
    stream.feed(m.route(DOC, 32, m.single(3) + m.attribute(m.RTA_SRC, DOC), source_len=48))
    assert only(rib)[0].source_len == 48
    assert only(rib)[0].other != 0


def test_no_destination_is_the_default_route(bench: Bench) -> None:
    rib, stream = bench
    stream.feed(m.route(bytes(4), 0, m.single(3, GW)) + m.route(bytes(16), 0, m.single(3, LL)))
    assert sorted(entry.route.prefix for entry in rib.walk()) == [Prefix(bytes(4), 0), Prefix(bytes(16), 0)]


def test_bits_after_the_length_are_cleared(bench: Bench) -> None:
    rib, stream = bench
    stream.feed(m.route(ip("10.255.255.255"), 11, m.single(3)))
    assert str(only(rib)[0].prefix) == "10.224.0.0/11"
    empty(rib)
    stream.feed(m.route(ip("2001:db8:ffff:ffff::1"), 45, m.single(3)))
    assert str(only(rib)[0].prefix) == "2001:db8:fff8::/45"


def test_flags_say_how_a_route_meets_the_others(bench: Bench) -> None:
    rib, stream = bench
    for gateway, flags in ((GW, m.NLM_F_CREATE), (GW2, m.NLM_F_APPEND | m.NLM_F_CREATE)):
        stream.feed(m.route(TEN, 8, m.single(3, gateway), nl_flags=flags))
    assert [rib.path(entry.path_id) for entry in rib.walk()] == [
        Path(4, (NextHop(3, GW),)),
        Path(4, (NextHop(3, GW2),)),
    ]
    stream.feed(m.route(TEN, 8, m.single(9), nl_flags=m.NLM_F_REPLACE))
    assert [rib.path(entry.path_id) for entry in rib.walk()] == [
        Path(4, (NextHop(9),)),
        Path(4, (NextHop(3, GW2),)),
    ]


def test_a_deletion_takes_the_route_it_names_and_one_of_nothing_is_no_error(bench: Bench) -> None:
    rib, stream = bench
    for gateway in (GW, GW2):
        stream.feed(m.route(TEN, 8, m.single(3, gateway)))
    stream.feed(m.route(TEN, 8, m.single(3, GW), event=m.RTM_DELROUTE))
    assert only(rib)[1] == Path(4, (NextHop(3, GW2),))
    stream.feed(m.route(TEN, 9, m.single(3, GW), event=m.RTM_DELROUTE))
    assert stream.stats().refused == 0


def test_alternatives_that_differ_only_in_their_source_address_are_two(bench: Bench) -> None:
    rib, stream = bench
    routes = [
        m.route(TEN, 8, m.single(3, GW) + m.attribute(m.RTA_PREFSRC, ip(s))) for s in ("10.0.0.1", "10.0.0.2")
    ]
    stream.feed(b"".join(routes))
    assert rib.stats().routes4 == 2
    stream.feed(m.route(TEN, 8, m.single(3, GW) + m.attribute(m.RTA_PREFSRC, GW), event=m.RTM_DELROUTE))
    assert rib.stats().routes4 == 1


@pytest.mark.parametrize(
    "message",
    [
        m.message(m.RTM_NEWROUTE, m.rtmsg(m.RTNL_FAMILY_IPMR, 0)),
        m.message(m.RTM_NEWROUTE, m.rtmsg(m.AF_MPLS, 20)),
        m.message(m.RTM_NEWROUTE, m.rtmsg(0, 0)),
        m.route(TEN, 8, m.single(3), flags=m.RTM_F_CLONED),
        m.message(16, bytes(16)),
        m.message(1, b""),
        m.done(),
        m.error(-1),
    ],
)
def test_what_is_not_a_route_for_us_is_ignored(bench: Bench, message: bytes) -> None:
    rib, stream = bench
    assert not stream.feed(message)
    assert list(rib.walk()) == []
    assert stream.stats() == RouteStreamStats(datagrams=1, ignored=1)


@pytest.mark.parametrize(
    "message",
    [
        m.message(m.RTM_NEWROUTE, bytes(11)),
        m.route(TEN, 33, m.single(3)),
        m.route(DOC, 129, m.single(3)),
        m.route(TEN, 8, m.single(3), source_len=33),
        m.message(m.RTM_NEWROUTE, m.rtmsg(m.AF_INET, 8) + m.single(3)),
        m.message(m.RTM_NEWROUTE, m.rtmsg(m.AF_INET6, 8) + m.attribute(m.RTA_DST, TEN)),
        m.route(TEN, 8, m.attribute(m.RTA_GATEWAY, b"abc")),
        m.route(DOC, 8, m.attribute(m.RTA_GATEWAY, GW)),
        m.route(TEN, 8, m.attribute(m.RTA_OIF, b"ab")),
        m.route(TEN, 8, m.attribute(m.RTA_VIA, b"\x0a")),
        m.route(TEN, 8, m.attribute(m.RTA_VIA, b"\x0a\0abcd")),
        m.route(TEN, 8, m.attribute(m.RTA_METRICS, struct.pack("=HH", 3, 2))),
        m.route(TEN, 8, m.attribute(m.RTA_METRICS, m.attribute(m.RTAX_MTU, b"ab"))),
        m.route(TEN, 8, m.attribute(m.RTA_MULTIPATH, struct.pack("=HBBI", 7, 0, 0, 3))),
        m.route(TEN, 8, m.attribute(m.RTA_MULTIPATH, struct.pack("=HBBI", 9, 0, 0, 3))),
        m.route(TEN, 8, m.multipath([m.hop(3, m.attribute(m.RTA_GATEWAY, b"ab"))])),
        m.route(TEN, 8, struct.pack("=HH", 400, m.RTA_GATEWAY)),
        m.route(TEN, 8, struct.pack("=HH", 0, m.RTA_GATEWAY)),
    ],
)
def test_a_malformed_message_is_skipped_and_the_next_one_read(bench: Bench, message: bytes) -> None:
    rib, stream = bench
    stream.feed(message + m.route(TEN, 24, m.single(3)))
    assert only(rib)[0].prefix == Prefix(TEN, 24)
    assert stream.stats() == RouteStreamStats(datagrams=1, messages=1, malformed=1)


@pytest.mark.parametrize("length", [0, 15, 61])
def test_after_a_message_length_that_cannot_be_the_datagram_is_over(bench: Bench, length: int) -> None:
    _, stream = bench
    stream.feed(m.route(TEN, 24, m.single(3)) + struct.pack("=IHHII", length, 24, 0, 0, 0) + bytes(44))
    assert stream.stats() == RouteStreamStats(datagrams=1, messages=1, malformed=1)


def test_a_type_the_rib_does_not_take_is_counted_as_refused(bench: Bench) -> None:
    _, stream = bench
    stream.feed(m.route(TEN, 8, m.single(3), kind=11))
    assert stream.stats().refused == 1


# ---- dumps ----


def test_a_dump_is_a_difference_and_done_ends_it(bench: Bench) -> None:
    rib, stream = bench
    stream.feed(m.route(TEN, 8, m.single(3)) + m.route(TEN, 9, m.single(3)))
    rib.dump_begin(FAMILY_IP4)
    assert not stream.feed(m.route(TEN, 9, m.single(3), nl_flags=m.NLM_F_MULTI), dump=True)
    assert stream.feed(m.route(TEN, 10, m.single(3)) + m.done(), dump=True)
    assert rib.dump_end(FAMILY_IP4) == 2
    assert sorted(entry.route.prefix.length for entry in rib.walk()) == [9, 10]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (m.done(-errno.EINVAL), errno.EINVAL),
        (m.error(-errno.EPERM), errno.EPERM),
        (m.done(-(2**31)), errno.EBADMSG),
        (m.done(flags=m.NLM_F_MULTI | m.NLM_F_DUMP_INTR), errno.EINTR),
    ],
)
def test_a_failed_dump_says_why(bench: Bench, end: bytes, code: int) -> None:
    _, stream = bench
    with pytest.raises(OSError, match="route dump") as failure:
        stream.feed(end, dump=True)
    assert failure.value.errno == code


def test_an_interruption_seen_in_any_message_is_told_at_the_end_and_then_forgotten(bench: Bench) -> None:
    rib, stream = bench
    rib.dump_begin(FAMILY_IP4)
    flags = m.NLM_F_MULTI | m.NLM_F_DUMP_INTR
    assert not stream.feed(m.route(TEN, 9, m.single(3), nl_flags=flags), dump=True)
    with pytest.raises(InterruptedError):
        stream.feed(m.done(), dump=True)
    rib.dump_abort(FAMILY_IP4)
    assert stream.feed(m.done(), dump=True)


# ---- any route, and any bytes ----


def legs(family: int) -> st.SearchStrategy[NextHop]:
    own = st.binary(min_size=4, max_size=4) if family == FAMILY_IP4 else st.binary(min_size=16, max_size=16)
    other = st.binary(min_size=16, max_size=16)
    return st.builds(
        NextHop,
        st.integers(1, 2**31 - 1),
        st.one_of(st.none(), own, other),
        st.integers(1, 256),
        st.booleans(),
    )


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, Route, Path]:
    family = draw(st.sampled_from([FAMILY_IP4, FAMILY_IP6]))
    width = 32 if family == FAMILY_IP4 else 128
    length = draw(st.integers(0, width))
    value = draw(st.integers(0, 2**width - 1)) >> (width - length) << (width - length)
    prefix = Prefix(value.to_bytes(width // 8, "big"), length)
    route = Route(prefix, draw(st.integers(1, 2**32 - 1)), draw(st.integers(0, 2**32 - 1)), protocol=186)
    hops = draw(st.lists(legs(family), min_size=2, max_size=64, unique_by=lambda leg: leg.ifindex))
    ordered = hops if family == FAMILY_IP4 else sorted(hops, key=leg_bytes)
    path = Path(family, tuple(ordered), mtu=draw(st.sampled_from([0, 1280])), nhid=0)
    encoded = [
        m.hop(leg.ifindex, gateway_attribute(family, leg), leg.weight, m.RTNH_F_ONLINK if leg.onlink else 0)
        for leg in hops
    ]
    attributes = [m.multipath(encoded)]
    if path.mtu:
        attributes.append(m.attribute(m.RTA_METRICS, m.u32(m.RTAX_MTU, path.mtu)))
    body = b"".join(draw(st.permutations(attributes)))
    return (
        m.route(prefix.addr, length, body, table=route.table, metric=route.metric, protocol=186),
        route,
        path,
    )


def leg_bytes(leg: NextHop) -> bytes:
    """The order in which the RIB keeps siblings: that of the bytes of struct next_hop."""
    gateway = leg.gateway or b""
    family = {0: 0, 4: 4, 16: 6}[len(gateway)]
    return struct.pack(
        "=IBBH16s", leg.ifindex, family, m.RTNH_F_ONLINK if leg.onlink else 0, leg.weight, gateway
    )


def gateway_attribute(family: int, leg: NextHop) -> bytes:
    if leg.gateway is None:
        return b""
    if len(leg.gateway) == (4 if family == FAMILY_IP4 else 16):
        return m.attribute(m.RTA_GATEWAY, leg.gateway)
    return m.via(leg.gateway)


@settings(max_examples=150, deadline=None)
@given(messages())
def test_any_route_is_read_as_it_was_written(
    tables: tuple[Fib, Owner], told: tuple[bytes, Route, Path]
) -> None:
    message, route, path = told
    with Rib(*tables, 9) as rib, RouteStream(rib) as stream:
        stream.feed(message)
        got_route, got_path = only(rib)
        assert (got_route.prefix, got_route.table, got_route.metric) == (
            route.prefix,
            route.table,
            route.metric,
        )
        assert got_path == path
        empty(rib)


GOLDEN = [
    m.route(TEN, 8, m.single(3, GW) + METRICS, nl_flags=m.NLM_F_REPLACE),
    m.route(TEN, 8, m.multipath([m.hop(3, m.attribute(m.RTA_GATEWAY, GW)), m.hop(4, m.via(LL))]), table=255),
    m.route(TEN, 8, m.single(3, GW), event=m.RTM_DELROUTE),
    m.route(
        DOC, 32, m.multipath([m.hop(3, m.attribute(m.RTA_GATEWAY, LL)), m.hop(4)]), nl_flags=m.NLM_F_APPEND
    ),
    m.route(DOC, 32, m.single(3, LL) + m.u32(m.RTA_NH_ID, 7), event=m.RTM_DELROUTE),
    m.done(-4),
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(GOLDEN), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    st.integers(0, 2000),
    st.booleans(),
)
def test_no_bytes_can_harm(
    tables: tuple[Fib, Owner], parts: list[bytes], changes: list[tuple[int, int]], cut: int, dump: bool
) -> None:
    datagram = bytearray(b"".join(parts))
    for place, value in changes:
        datagram[place % len(datagram)] = value
    mutated = bytes(datagram[: len(datagram) - cut % len(datagram)])
    with Rib(*tables, 9) as rib, RouteStream(rib) as stream:
        if dump:
            rib.dump_begin(FAMILY_IP4)
        with contextlib.suppress(OSError) if dump else contextlib.nullcontext():  # events never fail
            stream.feed(mutated, dump)
        stats = stream.stats()
        assert stats.messages + stats.ignored + stats.malformed <= len(mutated) // 16
        rib.check()
        empty(rib)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_noise_does_not_harm_either(tables: tuple[Fib, Owner], noise: bytes, dump: bool) -> None:
    with Rib(*tables, 9) as rib, RouteStream(rib) as stream:
        with contextlib.suppress(OSError):
            stream.feed(noise, dump)
        assert stream.stats().datagrams == 1
        rib.check()
        empty(rib)
