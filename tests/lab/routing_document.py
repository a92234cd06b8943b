"""The tables of docs/routing.md, made by asking the code: routes are put into a RIB and resolved, rules judged and
compiled, sysctls watched being read. What stands here by hand is what `ip` calls each thing, and remarks.

    PYTHONPATH=tests python -m lab.routing_document     # writes them into the document

tests/house/test_routing_document.py makes them again and compares, and fails when the code knows a kind of route, rule
or sysctl that is not here.
"""

from __future__ import annotations

import ipaddress
import re
import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any
from unittest.mock import patch

from ixroute._dataplane import lib
from ixroute.fib.adjacency import ADJ_RESERVED, MAX_BUCKETS, MAX_LEGS, MAX_WEIGHT, AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.fib.rib import MAX_FIBS, PATH_MAX_LEGS, NextHop, Path, Prefix, Rib, Route
from ixroute.fib.rib import RouteType as Type
from ixroute.forward.reasons import BY_NAME, REASONS, Kind, reason_number
from ixroute.netlink import interfaces, neighbours, rules, sysctls, views
from ixroute.netlink.addresses import AddressTable
from ixroute.netlink.describe_views import step_text
from ixroute.netlink.links import ETH_P_8021AD, ETH_P_8021Q, IFF_NOARP, IFF_UP, Link
from ixroute.netlink.neighbours import Neighbour
from ixroute.netlink.nexthops import Member, NextHopObject
from ixroute.netlink.ports import port_state
from ixroute.netlink.resolve import Group, Tables, flatten, resolve
from ixroute.netlink.route_stream import RouteStream
from ixroute.netlink.rules import Rule
from ixroute.router import _actions
from lab.frames import ANY, FORWARD, all_cases
from lab.rows import ROWS

TOP = File(__file__).resolve().parents[2]
DOCUMENT = TOP / "docs/routing.md"
ACTIONS = _actions()
FAST = "fast path"

LAN, WAN, SUB, ELSEWHERE, TUNNEL, VRF = 10, 11, 12, 13, 14, 15
MAC = bytes.fromhex("020000000001")
Change = Callable[[Tables], object]


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


GW, GW6, OTHER, BESIDE = ip("10.0.0.1"), ip("fe80::1"), ip("10.1.0.1"), ip("10.2.0.1")


def world() -> Tables:
    """Ports lan and wan, lan's VLAN 7, an interface that is no port, a tunnel; a resolved gateway behind each port."""
    tables = Tables(ports={LAN: 0, WAN: 1}, interfaces={LAN: 0, WAN: 1, SUB: 64})
    for index, name in ((LAN, "lan"), (WAN, "wan"), (ELSEWHERE, "eth9")):
        tables.links.put(Link(index, name, flags=IFF_UP, mtu=1500, carrier=True))
    tables.links.put(
        Link(
            SUB,
            "lan.7",
            IFF_UP,
            1500,
            kind="vlan",
            vlan_id=7,
            vlan_protocol=ETH_P_8021Q,
            parent=LAN,
            carrier=True,
        )
    )
    tables.links.put(Link(TUNNEL, "tun0", flags=IFF_UP | IFF_NOARP, mtu=1400, carrier=True))
    resolved = ((LAN, 4, GW), (LAN, 6, GW6), (WAN, 4, OTHER), (WAN, 6, GW6), (SUB, 4, BESIDE))
    for interface, family, address in resolved:
        tables.neighbours.put(Neighbour(interface, family, address, MAC, neighbours.NUD_REACHABLE))
    return tables


def verdict(name: str) -> str:
    """A reason, in the words of the document's tables."""
    if name == FORWARD:
        return FAST
    return f"{'dropped' if BY_NAME[name].kind is Kind.DROP else 'kernel'}: `{name}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


# ---- routes and nexthop objects


@dataclass(frozen=True)
class RouteCase:
    """words: as given to `ip`. add: the routes of one prefix, or told: further attributes of the kernel's message about
    one. What packets to the prefix meet is asked."""

    words: str
    add: tuple[tuple[Route, Path], ...]
    remark: str = ""
    change: Change = lambda tables: None
    told: bytes = b""
    objects: tuple[NextHopObject, ...] = ()


TEN, SIX = Prefix.parse("10.9.0.0/16"), Prefix.parse("fd09::/32")


def _route(
    words: str, path: Path, remark: str = "", change: Change = lambda tables: None, **more: int
) -> RouteCase:
    prefix = TEN if path.family == 4 else SIX
    return RouteCase(words, ((Route(prefix, **more), path),), remark, change)


# linux/rtnetlink.h
RTM_NEWROUTE, RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH = 24, 1, 4, 5, 7, 8, 9
RTA_FLOW, RTA_NEWDST, RTA_ENCAP_TYPE, RTA_ENCAP, RTA_NEWEST = 11, 19, 21, 22, 60
RTAX_LOCK, RTAX_MTU, RTAX_ADVMSS, RTAX_HOPLIMIT = 1, 2, 8, 10


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _message(more: bytes) -> bytes:
    """RTM_NEWROUTE of 10.9.0.0/16 in table main, by the gateway on lan."""
    header = struct.pack("=BBBBBBBBI", 2, TEN.length, 0, 0, 254, 4, 0, 1, 0)
    body = header + _attribute(RTA_DST, TEN.addr) + _number(RTA_OIF, LAN) + _attribute(RTA_GATEWAY, GW) + more
    return struct.pack("=IHHII", 16 + len(body), RTM_NEWROUTE, 0, 0, 0) + body


def _told(words: str, more: bytes, remark: str = "") -> RouteCase:
    return RouteCase(words, ((Route(TEN), VIA),), remark, told=more)


def _objects(*made: NextHopObject) -> Change:
    def change(tables: Tables) -> None:
        for one in made:
            tables.nexthops.put(one)
        tables.buckets.follow(tables.nexthops, 0.0)

    return change


def _link(index: int, **values: Any) -> Change:
    def change(tables: Tables) -> None:
        link = tables.links.get(index)
        assert link is not None
        tables.links.put(replace(link, **values))

    return change


def _no_carrier(tables: Tables) -> None:
    _link(LAN, carrier=False)(tables)
    tables.sysctls[LAN] = sysctls.InterfaceSysctls(ignore_linkdown4=True)


VIA = Path(4, (NextHop(LAN, GW),))
HOP = struct.pack("=HBBi", 16, 0, 0, LAN) + _attribute(RTA_GATEWAY, GW)
BOTH = (NextHop(LAN, GW, 2), NextHop(WAN, OTHER))
THIRD = Path(4, (NextHop(LAN, ip("10.0.0.9")),))
ALTERNATIVES = tuple((Route(SIX, metric=256), Path(6, (NextHop(leg),))) for leg in (LAN, WAN))

ROUTES = (
    _route("`via ADDRESS dev lan`", VIA, "the neighbour's MAC is known"),
    _route("`via ADDRESS dev lan.7`", Path(4, (NextHop(SUB, BESIDE),)), "VLAN sub-interface of a port"),
    _route("`via ADDRESS dev lan onlink`", Path(4, (NextHop(LAN, GW, onlink=True),))),
    _route("`via inet6 ADDRESS dev lan`", Path(4, (NextHop(LAN, GW6),)), "IPv4 by an IPv6 gateway, RFC 8950"),
    _route("`-6 via fe80::1 dev lan`", Path(6, (NextHop(LAN, GW6),))),
    _route(
        "`via ADDRESS`, its neighbour not known",
        THIRD,
        "the kernel asks for it, and keeps the packets meanwhile",
    ),
    _route(
        "`dev lan`",
        Path(4, (NextHop(LAN),)),
        "a connected network, until the host is known; then its own /32 or /128 is in the fast path",
    ),
    _route(
        "`… mtu N`, `… mtu lock N`",
        Path(4, (NextHop(LAN, GW),), mtu=1400),
        "longer packets: `mtu_value_is_too_small`",
    ),
    _route("`… metric N`, `… proto P`", VIA, "the best metric counts", metric=5, protocol=4),
    _told("`… src ADDRESS`, `… realm N`", _attribute(RTA_PREFSRC, GW) + _number(RTA_FLOW, 5)),
    _told(
        "`… hoplimit`, `advmss`, `rtt`, `window`, …",
        _attribute(RTA_METRICS, _number(RTAX_HOPLIMIT, 9) + _number(RTAX_ADVMSS, 1200)),
        "these are about what the kernel itself sends",
    ),
    _route("`nexthop via … weight 2 nexthop via …`", Path(4, BOTH), "shares by weight"),
    _route(
        "`-6 nexthop via … nexthop via …`, `ip -6 route append`",
        Path(6, (NextHop(LAN, GW6), NextHop(WAN, GW6))),
    ),
    _route(
        "`nexthop via … nexthop dev wan`", Path(4, (NextHop(LAN, GW), NextHop(WAN))), "a leg without gateway"
    ),
    _route(
        "`nexthop via … dev lan nexthop via … dev eth9`",
        Path(4, (NextHop(LAN, GW), NextHop(ELSEWHERE, OTHER))),
    ),
    _route(
        "`dev eth9`",
        Path(4, (NextHop(ELSEWHERE, GW),)),
        "neither a port nor a VLAN of one; also `dev lo`, a bond's",
    ),
    _route("`dev tun0`", Path(4, (NextHop(TUNNEL),)), "an interface without neighbours (`noarp`)"),
    _route("`via … dev lan`, lan is down", VIA, "the kernel deletes such routes soon", _link(LAN, flags=0)),
    _route("`via … dev lan`, no carrier", VIA, "as Linux: what is sent is lost", _link(LAN, carrier=False)),
    _route(
        "`via … dev lan`, no carrier, `ignore_routes_with_linkdown`",
        VIA,
        "the kernel knows the next best route",
        _no_carrier,
    ),
    _route("`blackhole`", Path(4, type=Type.BLACKHOLE)),
    _route("`unreachable`", Path(4, type=Type.UNREACHABLE), "the kernel answers"),
    _route("`prohibit`", Path(4, type=Type.PROHIBIT), "the kernel answers"),
    _route("`throw`", Path(4, type=Type.THROW), "the next rule is asked first"),
    _route("`local`", Path(4, type=Type.LOCAL), "also AnyIP (`local 192.0.2.0/24 dev lo`)", table=255),
    _route("`broadcast`", Path(4, type=Type.BROADCAST), "", table=255),
    _route("`anycast`", Path(6, type=Type.ANYCAST), "", table=255),
    _route("`multicast`", Path(6, type=Type.MULTICAST), "`ip mroute`: the kernel's as well", table=255),
    _route("`tos N`", VIA, "all packets of the prefix, whatever their tos", tos=16),
    _route(
        "`-6 from PREFIX`",
        Path(6, (NextHop(LAN, GW6),)),
        "all packets of the destination prefix",
        source_len=64,
    ),
    RouteCase(
        "`-6`, equal metric, several device routes", ALTERNATIVES, "the kernel chooses by reachability"
    ),
    _told(
        "`encap mpls`, `seg6`, `ip`, …", _attribute(RTA_ENCAP_TYPE, b"\1\0") + _attribute(RTA_ENCAP, b"abcd")
    ),
    _told("`-f mpls … as to LABEL`", _number(RTA_NEWDST, 16)),
    _told(f"more than {PATH_MAX_LEGS} `nexthop`s", _attribute(RTA_MULTIPATH, (PATH_MAX_LEGS + 1) * HOP)),
    _told("`mtu lock` without a number", _attribute(RTA_METRICS, _number(RTAX_LOCK, 1 << RTAX_MTU))),
    _told("an attribute of newer kernels", _number(RTA_NEWEST, 1)),
    _route(
        f"`table N` (of {MAX_FIBS - 1} tables that rules or VRFs lead to)",
        VIA,
        "through `ip rule`, below",
        table=254,
    ),
)

SEVEN, EIGHT = NextHopObject(7, LAN, GW), NextHopObject(8, WAN, OTHER)
HOLE = NextHopObject(9, blackhole=True)


def _group(*members: Member, **more: Any) -> NextHopObject:
    return NextHopObject(20, members=members, is_group=True, **more)


def _by_object(words: str, *made: NextHopObject, remark: str = "") -> RouteCase:
    added = ((Route(TEN), Path(4, BOTH[:1], nhid=made[0].id)),)
    return RouteCase(words, added, remark, _objects(*made), objects=made)


MANY = tuple(replace(SEVEN, id=100 + n) for n in range(MAX_LEGS + 1))

OBJECTS = (
    _by_object("`id 7 via ADDRESS dev lan`", SEVEN, remark="FRR's `nhid` routes; replaced under traffic too"),
    _by_object(
        "`id 7 dev lan`", NextHopObject(7, LAN), remark="no gateway: hosts behind it are the kernel's to find"
    ),
    _by_object("`id 9 blackhole`", HOLE),
    _by_object(
        "`id 20 group 7,2/8`", _group(Member(7, 2), Member(8)), SEVEN, EIGHT, remark="shares by weight"
    ),
    _by_object(
        "`id 20 group 7/8 type resilient buckets 64 idle_timer … unbalanced_timer …`",
        _group(Member(7), Member(8), buckets=64, idle_s=120.0, unbalanced_s=600.0),
        SEVEN,
        EIGHT,
        remark="buckets of our own, by Linux's rules",
    ),
    _by_object("`id 20 group 7/9`, 9 a blackhole", _group(Member(7), Member(9)), SEVEN, HOLE),
    _by_object("`id 20 group 9`, 9 a blackhole", _group(Member(9)), HOLE),
    _by_object(f"a group of more than {MAX_LEGS}", _group(*(Member(one.id) for one in MANY)), *MANY),
    _by_object(
        "a group whose member is just being replaced",
        _group(Member(7), Member(8)),
        SEVEN,
        remark="for a moment",
    ),
    _by_object(
        "a group of a type that is newer", _group(Member(7), Member(8), unknown_kind=True), SEVEN, EIGHT
    ),
    _by_object("`id 7 … encap …`", replace(SEVEN, encapsulated=True)),
    _by_object(
        "`id 7 via ADDRESS fdb`",
        replace(SEVEN, fdb=True),
        remark="for VXLAN; the kernel lets no route use it",
    ),
)


def _reserved() -> dict[int, str]:
    """Reasons of the adjacencies that every router has (forward/dataplane.c)."""
    text = (TOP / "ixroute/forward/dataplane.c").read_text()
    return {getattr(lib, name): reason for name, reason in re.findall(r"\[(ADJ_\w+)\] = REASON_(\w+)", text)}


def fate(case: RouteCase) -> str:
    """What a packet to the case's prefix meets: the RIB is asked, then its path resolved."""
    tables = world()
    case.change(tables)
    none = reason_number("external_route")
    with Fib() as fib, AdjacencyTable(64, none, fib) as adjacencies, Rib(fib, adjacencies, none) as rib:
        if case.told:
            with RouteStream(rib) as stream:
                stream.feed(_message(case.told))
        for route, path in () if case.told else case.add:
            rib.add(route, path)
        assert rib.stats().routes4 + rib.stats().routes6
        found = rib.lookup(case.add[0][0].prefix.addr).index
        if found < ADJ_RESERVED:
            return verdict(_reserved()[found])
        path_found = rib.path(found)
        assert path_found is not None
        result = resolve(path_found, flatten(path_found, tables.nexthops, ACTIONS), tables, ACTIONS)
    if isinstance(result, Group):
        assert all(leg.action == ACTIONS.forward for leg in result.legs)
        return FAST
    return FAST if result.action == ACTIONS.forward else verdict(REASONS[result.action - 1].name)


def routes() -> str:
    return _table(("`ip route add PREFIX …`", "packets", ""), ((c.words, fate(c), c.remark) for c in ROUTES))


def objects() -> str:
    head = ("`ip nexthop add …`, and routes by it", "packets", "")
    return _table(head, ((case.words, fate(case), case.remark) for case in OBJECTS))


STATES = {
    neighbours.NUD_REACHABLE: "",
    neighbours.NUD_STALE: "asked for again while packets go there",
    neighbours.NUD_DELAY: "",
    neighbours.NUD_PROBE: "",
    neighbours.NUD_PERMANENT: "`ip neigh add … nud permanent`",
    neighbours.NUD_NOARP: "`nud noarp`",
    neighbours.NUD_INCOMPLETE: "the kernel keeps the packets until there is an answer",
    neighbours.NUD_FAILED: "the kernel asks again, then answers that the host is unreachable",
}


def states() -> str:
    rows = []
    for state, remark in STATES.items():
        known = Neighbour(LAN, 4, GW, MAC, state)
        case = _route("", VIA, change=lambda tables, known=known: tables.neighbours.put(known))
        rows.append((f"`{known.state_name}`", fate(case), remark))
    group = Neighbour(LAN, 4, GW, b"\xff" * 6, neighbours.NUD_PERMANENT)
    rows.append(
        (
            "a MAC that is a group's, or none",
            fate(_route("", VIA, change=lambda tables: tables.neighbours.put(group))),
            "",
        )
    )
    return _table(("neighbour's state (`ip neigh`)", "packets to it, or by it as a gateway", ""), rows)


# ---- rules

FROM, TO = (ip("10.1.0.0"), 16), (ip("10.2.0.0"), 16)
PORTS = Rule(4, 100, table=100, source_ports=(7, 7), destination_ports=(80, 90))
RULES: tuple[tuple[str, Rule, str], ...] = (
    ("`from PREFIX`", Rule(4, 100, table=100, source=FROM), ""),
    ("`to PREFIX`", Rule(4, 100, table=100, destination=TO), ""),
    ("`tos N`, `dscp N[/MASK]`", Rule(4, 100, table=100, tos=16, tos_mask=0x1C), ""),
    ("`ipproto P`", Rule(4, 100, table=100, protocol=6), ""),
    ("`sport N[-M]`, `dport N[-M]`", PORTS, "no fragment has ports, as in Linux"),
    (
        "`sport N/MASK`, `dport N/MASK`",
        replace(PORTS, source_ports=(8, 8), source_port_mask=0xFFF8, destination_port_mask=0xFFF0),
        "a mask of leading bits is a range; any other is the kernel's",
    ),
    ("`sport N/0x1`", Rule(4, 100, table=100, source_ports=(1, 1), source_port_mask=1), ""),
    ("`iif lan`, for what comes in there", Rule(4, 100, table=100, iif="lan"), ""),
    ("`iif wan`, for what comes in by lan", Rule(4, 100, table=100, iif="wan"), ""),
    (
        "`iif NAME`, and there is no such interface",
        Rule(4, 100, table=100, iif="gone", iif_detached=True),
        "",
    ),
    ("`iif NAME`, an alternative name", Rule(4, 100, table=100, iif="uplink"), ""),
    ("`oif NAME`", Rule(4, 100, table=100, oif="wan"), "no forwarded packet has its way out yet"),
    (
        "`fwmark N[/MASK]`",
        Rule(4, 100, table=100, mark=1, mark_mask=0xFFFFFFFF),
        "netfilter's marks are not seen",
    ),
    (
        "`from PREFIX fwmark N`",
        Rule(4, 100, table=100, source=FROM, mark=1, mark_mask=0xFFFFFFFF),
        "other packets stay fast",
    ),
    ("`uidrange 0-N`", Rule(4, 100, table=100, uids=(0, 99)), "root's, as forwarded packets count"),
    ("`uidrange 1000-N`", Rule(4, 100, table=100, uids=(1000, 1999)), ""),
    ("`tun_id N`", Rule(4, 100, table=100, tunnel=5), "no port is a tunnel"),
    ("`-6 flowlabel N[/MASK]`", Rule(6, 100, table=100, flow_label=1, flow_label_mask=0xFFFFF), ""),
    ("`l3mdev`, on a port in no VRF", Rule(4, 100, l3mdev=True), ""),
    ("`not from PREFIX`", Rule(4, 100, table=100, source=FROM, inverted=True), ""),
    ("`suppress_prefixlength N`", Rule(4, 100, table=100, suppress_length=0), ""),
    ("`suppress_ifgroup N`", Rule(4, 100, table=100, suppress_group=1), ""),
    ("a condition of newer kernels", Rule(4, 100, table=100, strange=(99,)), ""),
)

RESULTS: tuple[tuple[str, Rule, str], ...] = (
    ("`lookup TABLE`", Rule(4, 100, rules.TO_TABLE, table=100), "finds nothing, or `throw`: the next rule"),
    ("`goto N`", Rule(4, 100, rules.GOTO, goto=200), "to the first rule of priority N"),
    ("`nop`", Rule(4, 100, rules.NOP), ""),
    ("`blackhole`", Rule(4, 100, rules.BLACKHOLE), ""),
    ("`unreachable`", Rule(4, 100, rules.UNREACHABLE), "the kernel answers"),
    ("`prohibit`", Rule(4, 100, rules.PROHIBIT), "the kernel answers"),
    ("an action of newer kernels", Rule(4, 100, 99), ""),
)

ENDS = {
    views.Reason.BLACKHOLE: verdict("blackhole_route"),
    views.Reason.REJECT: verdict("reject_route"),
    views.Reason.POLICY: f"{verdict('policy_rule')}, those it may match",
}
PORT, NAMES = views.Interface("lan"), frozenset({"lan", "wan"})
LATER = (Rule(4, 150, table=150), Rule(4, 200, table=200))


def _rules(cases: Iterable[tuple[str, Rule, str]], head: str) -> str:
    rows = []
    for words, rule, remark in cases:
        judged = views.judge(rule, PORT, NAMES)
        listed = (rule, *LATER) if rule.action == rules.GOTO else (rule,)
        program = views.compile_rules(listed, PORT, NAMES)
        ends = [ENDS[step.reason] for step in program if isinstance(step, views.Verdict)]
        assert (judged.how is views.How.PUNTS) == (ends == [ENDS[views.Reason.POLICY]])
        found = "matches no forwarded packet" if judged.how is views.How.NEVER else (ends or [FAST])[0]
        steps = "; ".join(map(step_text, program))
        rows.append((words, found, f"`{steps}`" if steps else "nothing", remark))
    return _table((head, "packets", "becomes (`ixroute show rules`)", ""), rows)


def selectors() -> str:
    return _rules(RULES, "`ip rule add …`")


def results() -> str:
    return _rules(RESULTS, "`ip rule add … ACTION`")


# ---- interfaces


def _on(parent: int, index: int, vid: int, protocol: int = ETH_P_8021Q, **more: Any) -> Link:
    return Link(
        index,
        f"if{index}",
        IFF_UP,
        1500,
        kind="vlan",
        vlan_id=vid,
        vlan_protocol=protocol,
        parent=parent,
        **more,
    )


def _vrf(up: bool) -> Link:
    return Link(VRF, "red", flags=IFF_UP if up else 0, mtu=65575, kind="vrf", vrf_table=100)


def _member(master: int) -> Link:
    return Link(LAN, "lan", IFF_UP, 1500, master=master)


STACKED: tuple[tuple[str, tuple[Link, ...], int, str], ...] = (
    ("port's own interface", (), LAN, ""),
    ("`type vlan id N`, on a port's interface", (_on(LAN, 30, 7),), 30, "802.1Q"),
    ("`type vlan id N protocol 802.1ad`", (_on(LAN, 30, 7, ETH_P_8021AD),), 30, ""),
    ("a VLAN on a VLAN", (_on(LAN, 30, 7, ETH_P_8021AD), _on(30, 31, 8)), 31, "QinQ; any mix of the two"),
    ("a third tag", (_on(LAN, 30, 7), _on(30, 31, 8), _on(31, 32, 9)), 32, ""),
    ("`… egress-qos-map`", (_on(LAN, 30, 7, egress_qos=True),), 30, "its other settings make no difference"),
    ("a VLAN on an interface that is no port", (_on(ELSEWHERE, 30, 7),), 30, "never reaches a port"),
    (
        "member of a VRF that is up",
        (_vrf(True), _member(VRF)),
        LAN,
        "the VRF's table; leaks by routes and rules",
    ),
    ("member of a VRF that is down", (_vrf(False), _member(VRF)), LAN, ""),
    ("in a bridge, a bond, a team", (_member(ELSEWHERE),), LAN, "[design-bonds.md](design-bonds.md)"),
    (
        "under a `macvlan`, `ipvlan`, `macsec`",
        (Link(30, "m", IFF_UP, 1500, kind="macvlan", parent=LAN),),
        LAN,
        "",
    ),
    ("administratively down", (Link(LAN, "lan", 0, 1500),), LAN, ""),
)


def _stacked(links: tuple[Link, ...], asked: int) -> str:
    tables = Tables()
    for index, name in ((LAN, "lan"), (ELSEWHERE, "eth9")):
        tables.links.put(Link(index, name, IFF_UP, 1500))
    for link in links:
        tables.links.put(link)
    places = interfaces.Interfaces(tables.interfaces)
    places.put_port(LAN, 0)
    places.follow(tables.links, LAN)
    link = tables.links.get(asked)
    assert link is not None
    state = port_state(link, tables, AddressTable())
    if not state.up:
        return verdict("port_down")
    if state.kernel_all:
        return verdict("kernel_interface")
    if asked in tables.interfaces:
        return FAST
    parent = next((one for one in (link.parent,) if one in tables.interfaces), 0)
    if link.vlan_id in places.kernels_vids(tables.links, parent or ELSEWHERE) and parent:
        return verdict("vlan_sub_interface")
    return "kernel"


def stacked() -> str:
    rows = ((words, _stacked(links, asked), remark) for words, links, asked, remark in STACKED)
    return _table(("interface (`ip link`)", "packets that come in by it", ""), rows)


# ---- sysctls

SYSCTLS = {
    "ipv4/conf/IF/forwarding": "0: `forwarding_disabled`",
    "ipv6/conf/all/forwarding": "0, and no `force_forwarding`: `forwarding_disabled`",
    "ipv6/conf/IF/force_forwarding": "as `conf/all/forwarding`, for one interface (Linux 6.17)",
    "ipv6/conf/IF/disable_ipv6": "1: `forwarding_disabled`",
    "ipv4/conf/IF/rp_filter": "the larger of both: 1 strict, 2 loose; what fails it: `source_validation`",
    "ipv4/conf/all/rp_filter": "as the interface's",
    "ipv4/conf/IF/send_redirects": "0 here and for all: no `ingress_is_egress` for IPv4",
    "ipv4/conf/all/send_redirects": "as the interface's",
    "ipv4/conf/IF/accept_local": "1, here or for all: own sources are `source_validation`, else `sip_is_own`",
    "ipv4/conf/all/accept_local": "as the interface's",
    "ipv4/conf/IF/route_localnet": "1, here or for all: 127/8 is the kernel's, else dropped",
    "ipv4/conf/all/route_localnet": "as the interface's",
    "ipv4/conf/IF/ignore_routes_with_linkdown": "routes and legs without carrier are passed over",
    "ipv6/conf/IF/ignore_routes_with_linkdown": "the same of IPv6",
    "ipv6/conf/IF/mtu": "IPv6's MTU there (a router advertisement may have lowered it)",
    "ipv4/fib_multipath_hash_policy": "0 to 3, see ECMP",
    "ipv4/fib_multipath_hash_fields": "of policy 3",
    "ipv4/fib_multipath_use_neigh": "legs with a neighbour that is not valid are passed over; a nexthop group's always",
    "ipv6/fib_multipath_hash_policy": "0 to 3, see ECMP",
    "ipv6/fib_multipath_hash_fields": "of policy 3",
}


def sysctls_read() -> list[str]:
    """Every one that netlink/sysctls.py reads, in that order."""
    with tempfile.TemporaryDirectory() as name:
        root, seen = File(name), []
        for family in ("ipv4", "ipv6"):
            for interface in ("IF", "all"):
                (root / family / "conf" / interface).mkdir(parents=True)

        def note(path: File) -> int:
            seen.append(str(path.relative_to(root)))
            return 0

        with patch.object(sysctls, "_int", note):
            sysctls.read("IF", root)
            sysctls.read_multipath(root)
    return list(dict.fromkeys(seen))


def sysctl_table() -> str:
    rows = ((f"`net/{path}`", text) for path, text in SYSCTLS.items())
    return _table(("sysctl", "what it does"), rows)


# ---- ECMP

POLICIES = {
    "L3": "addresses; IPv6: flow label and next header too. Of an ICMP error those of the packet it is about",
    "L4": "addresses, protocol, ports",
    "INNER_L3": "as 0, but of the packet inside IP in IP, 6in4 and GRE",
    "CUSTOM": "the fields named by `fib_multipath_hash_fields`",
}
FIELDS = {
    "SOURCE": "source address",
    "DESTINATION": "destination address",
    "PROTOCOL": "protocol",
    "LABEL": "IPv6 flow label",
    "SOURCE_PORT": "source port",
    "DESTINATION_PORT": "destination port",
}


def hash_constants() -> tuple[dict[str, int], dict[str, int]]:
    """Policies and (outer) fields of forward/multipath.h."""
    text = (TOP / "ixroute/forward/multipath.h").read_text()
    policies = {name: int(n) for name, n in re.findall(r"#define HASH_POLICY_(\w+) (\d+)u", text)}
    fields = {
        name: int(n, 16)
        for name, n in re.findall(r"#define HASH_(\w+) 0x(\w+)u", text)
        if not name.endswith("_FIELDS")
    }
    return policies, fields


def hashes() -> str:
    policies, fields = hash_constants()
    text = (TOP / "ixroute/forward/multipath.h").read_text()
    found = re.search(r"#define HASH_INNER_SHIFT (\d+)u", text)
    assert found
    shift = int(found[1])
    chosen = _table(("policy", "hashed"), ((str(n), POLICIES[name]) for name, n in policies.items()))
    bits = ((FIELDS[name], f"`{n:#06x}`", f"`{n << shift:#06x}`") for name, n in fields.items())
    default = f"The default is `{sysctls.DEFAULT_HASH_FIELDS:#06x}`."
    return f"{chosen}\n\n{_table(('field of policy 3', 'outer', 'inner'), bits)}\n\n{default}"


# ---- limits, rows, reasons


def limits() -> str:
    subs = interfaces.LAST_SUB - interfaces.FIRST_SUB + 1
    assert lib.MAX_INTERFACES == interfaces.LAST_SUB + 1
    assert lib.MAX_PORTS == interfaces.FIRST_SUB
    assert lib.VIEW_STEPS == views.MAX_STEPS
    rows = (
        ("ports", lib.MAX_PORTS, "no more are taken"),
        ("VLAN sub-interfaces", subs, verdict("vlan_sub_interface")),
        ("VLAN tags", interfaces.MOST_TAGS, verdict("vlan_sub_interface")),
        ("FIBs (tables that rules and VRFs lead to, and the merged one)", MAX_FIBS, verdict("policy_rule")),
        ("steps of one interface's rules", lib.VIEW_STEPS, f"{verdict('policy_rule')}, what comes so far"),
        ("next hops of a route", PATH_MAX_LEGS, verdict("external_route")),
        ("members of a nexthop group", MAX_LEGS, verdict("multipath_route")),
        ("weight of a member", MAX_WEIGHT, "as the kernel's"),
        ("buckets of a resilient group", MAX_BUCKETS, verdict("multipath_route")),
    )
    return _table(("what", "most", "more than that"), ((what, f"{n:,}", beyond) for what, n, beyond in rows))


def row_verdicts() -> dict[int, dict[str, int]]:
    """Row of lab.rows -> reason, or `forward` -> how many of the row's named frames meet it."""
    cases = all_cases()
    found: dict[int, dict[str, int]] = {}
    for number, row in ROWS.items():
        found[number] = {}
        for pattern in row.frames:
            expression = re.compile(".*".join(map(re.escape, pattern.split("*"))))
            for case in cases:
                if expression.fullmatch(case.name):
                    found[number][case.verdict] = found[number].get(case.verdict, 0) + 1
    return found


GROUPS = {
    1: "IPv4: header and TTL",
    18: "IPv4: options",
    21: "IPv4: addresses",
    35: "Frames and addresses",
    38: "IPv4: fragments and MTU",
    45: "IPv4: routes and neighbours",
    48: "Ethernet and ARP",
    54: "IPv6: header and hop limit",
    60: "IPv6: addresses",
    71: "IPv6: extension headers, MTU",
    77: "IPv6: routes and neighbours",
    80: "Links, gateways, several next hops, figures",
}


def behaviour() -> str:
    """A row a line; the verdict that most frames meet comes first."""
    rows = []
    for number, found in row_verdicts().items():
        if number in GROUPS:
            rows.append(("", f"**{GROUPS[number]}**", "", ""))
        told = sorted((name for name in found if name != ANY), key=lambda name: -found[name])
        tests = ", ".join(sorted({f"`{test.partition('::')[0]}`" for test in ROWS[number].tests}))
        frames = str(sum(found.values())) if found else ""
        rows.append((str(number), ROWS[number].what, "; ".join(map(verdict, told)) or f"see {tests}", frames))
    return _table(("row", "packets", "verdict", "frames"), rows)


def reasons() -> str:
    rows_of = {
        reason.name: [n for n, found in row_verdicts().items() if reason.name in found] for reason in REASONS
    }
    return _table(
        ("reason", "kind", "meaning", "rows"),
        ((f"`{r.name}`", r.kind.name.lower(), r.text, ", ".join(map(str, rows_of[r.name]))) for r in REASONS),
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "routes": routes,
    "objects": objects,
    "neighbours": states,
    "selectors": selectors,
    "results": results,
    "interfaces": stacked,
    "sysctls": sysctl_table,
    "hashes": hashes,
    "limits": limits,
    "behaviour": behaviour,
    "reasons": reasons,
}
_BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->\n)", re.S)


def blocks_of(text: str) -> list[str]:
    """Names of the blocks in a document."""
    return [match[2] for match in _BLOCK.finditer(text)]


def remade(text: str) -> str:
    """The document with its blocks as the code has them now. KeyError: nobody makes such a block."""
    return _BLOCK.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]]()}\n\n{match[3]}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(remade(DOCUMENT.read_text()))
