"""Scenes of VRFs and rules: red and blue have the same addresses, green has a port, and main is beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lab.frames import ANY, FORWARD, Case
from lab.frames_vlan import DMZ, LAN, V7, V8, W7, WAN, Maker, Place, Q, every_way, judged, makes, sizes
from lab.oracle import KERNEL, Found
from lab.twins import Scene

TABLES = {"red": 101, "blue": 102, "green": 103}
RED1 = replace(V7, vrf="red", table=101)
RED2 = replace(W7, vrf="red", table=101)
BLUE1 = replace(V8, vrf="blue", table=102, number=RED1.number)
BLUE2 = replace(W7, name="w8", tags=((Q, 8),), vrf="blue", table=102)
GREEN1 = replace(DMZ, vrf="green", table=103)
GREEN2 = replace(V7, name="v9", tags=((Q, 9),), number=43, vrf="green", table=103)
GROUPS = ((RED1, RED2), (BLUE1, BLUE2), (GREEN1, GREEN2), (LAN, WAN))
PLACES = tuple(place for group in GROUPS for place in group)


def scenes() -> Iterator[Scene]:
    devices = [f"link add {name} type vrf table {table}" for name, table in TABLES.items()]
    devices += [f"link set {name} up" for name in TABLES]
    devices += ["addr add 10.98.0.1/32 dev red", "addr add fd00:98::1/128 dev red nodad"]
    cases = [case for group in GROUPS for case in every_way(group)]
    yield Scene("vrf: three with the same addresses, and main", (*devices, *makes(PLACES)), tuple(cases))
    asked = [case for group in GROUPS for case in judged(group)]
    yield Scene("vrf: TTL, redirects, ARP, ND, pings of their addresses", cases=tuple(asked))
    yield Scene("vrf: smaller MTUs", cases=tuple(sizes(((RED1, RED2), (BLUE2, BLUE1), (LAN, WAN)))))
    yield from _between()
    yield from _sysctls()
    yield from _members()
    yield from _rules()


def _to(name: str, a: Place, number: int, verdict: str = FORWARD) -> Iterator[Case]:
    return _make.cases(f"{a.told} to {number}: {name}", a, replace(a, number=number), verdict)


_make = Maker()


def _between() -> Iterator[Scene]:
    """Routes that lead out of a VRF, and what happens without one."""
    yield Scene(
        "vrf: what no route of the VRF matches falls through to main",
        cases=(
            *_to("of main", RED1, LAN.number),
            *_to("of main", BLUE2, WAN.number),
            *_to("of main", GREEN1, WAN.number),
            *_to("of red", LAN, RED1.number, "no_route"),
            *_to("of green", RED1, GREEN2.number, "no_route"),
            *_to("of nobody", BLUE1, 199, "no_route"),
        ),
    )
    commands = (
        *_both("101", 133, LAN),
        *_both("254", 141, RED1),
        "route add 10.142.0.0/16 via 10.44.0.2 dev w8 table 101 onlink",
        "route add fd10:142::/32 via fd00:44::2 dev w8 table 101 onlink",
        "route add 10.160.0.0/16 dev red",
        "route add fd10:160::/32 dev red",
        *_both("101", 160, RED2),
        "route add 10.146.0.0/16 table 101 nexthop via 10.44.0.2 dev w7 nexthop via 10.44.0.3 dev w7",
        "neigh replace 10.44.0.3 lladdr 02:00:00:00:02:02 nud permanent dev w7",
        "route add fd10:146::/32 table 101 nexthop via fd00:44::2 dev w7 nexthop via fd00:44::3 dev w7",
        "neigh replace fd00:44::3 lladdr 02:00:00:00:02:02 nud permanent dev w7",
    )
    yield Scene(
        "vrf: routes leak between VRFs and main",
        commands,
        (
            *_to("red to main", RED1, 133),
            *_to("blue has no such", BLUE1, 133, "no_route"),
            *_to("main to red", LAN, 141),
            *_to("red to blue", RED1, 142),
            *_to("by the VRF's device", LAN, 160, ANY),
            *_to("two legs, one host", RED1, 146),
        ),
    )
    kinds = [f"route add {kind} 10.{n}.0.0/16 table 101" for n, kind in enumerate(KINDS, 150)]
    kinds += [f"route add {kind} fd10:{n}::/32 table 101" for n, kind in enumerate(KINDS, 150)]
    kinds += [line for n in range(150, 154) for line in _both("254", n, WAN)]
    yield Scene(
        "vrf: blackhole, unreachable, prohibit and throw in a VRF, with routes of main below",
        tuple(kinds),
        (
            *_to("blackhole", RED1, 150, "blackhole_route"),
            *_to("unreachable", RED1, 151, "reject_route"),
            *_to("prohibit", RED1, 152, "reject_route"),
            *_to("throw", RED1, 153),
            *(case for n in range(150, 154) for case in _to("in blue", BLUE1, n)),
        ),
    )
    default = tuple(f"{six}route add unreachable default metric 4278198272 table 102" for six in ("", "-6 "))
    yield Scene(
        "vrf: an unreachable default ends what would fall through",
        default,
        (
            *_to("of main", BLUE1, WAN.number, "reject_route"),
            *_to("of main", RED1, WAN.number),
            *every_way((BLUE1, BLUE2)),
        ),
    )


KINDS = ("blackhole", "unreachable", "prohibit", "throw")


def _both(table: str, number: int, by: Place) -> tuple[str, str]:
    return (
        f"route add 10.{number}.0.0/16 via {by.host4} dev {by.name} table {table} onlink",
        f"route add fd10:{number}::/32 via {by.host6} dev {by.name} table {table} onlink",
    )


def _sysctls() -> Iterator[Scene]:
    other = Case(
        "another way back IPv4",
        RED1.frame(_make.packet("another way back IPv4", RED2, RED2, 4)),
        "source_validation",
    )
    main = Case(
        "a way back in main IPv4",
        RED1.frame(_make.packet("a way back in main IPv4", LAN, RED2, 4)),
        "source_validation",
    )
    none = Case(
        "no way back IPv4",
        RED1.frame(_make.packet("no way back IPv4", replace(LAN, number=199), RED2, 4)),
        "source_validation",
    )
    way = tuple(_make.cases("the way back", RED1, RED2))
    leak = tuple(_to("leak of main", RED1, 133))
    yield Scene(
        "vrf: strict rp_filter", (), (*way, *leak, other, main, none), (("net.ipv4.conf.v7.rp_filter", "1"),)
    )
    loose = (*way, replace(other, verdict=ANY), replace(main, verdict=ANY), none)
    yield Scene("vrf: loose rp_filter", (), loose, (("net.ipv4.conf.v7.rp_filter", "2"),))
    off = tuple(replace(case, verdict=FORWARD) for case in (*way, other, main, none))
    yield Scene("vrf: no rp_filter again", (), off, (("net.ipv4.conf.v7.rp_filter", "0"),))


def _members() -> Iterator[Scene]:
    """Interfaces and VRFs come and go."""
    free = replace(RED1, vrf="", table=254, number=64)
    cases = (*every_way((free, LAN, WAN)), *every_way((BLUE1, BLUE2)))
    yield Scene("vrf: a member released", ("link set v7 nomaster", *free.furnishes()), tuple(cases))
    addresses = (f"addr del {free.router4}/24 dev v7", f"addr del {free.router6}/64 dev v7")
    yield Scene("vrf: and taken back", (*addresses, *RED1.furnishes()), tuple(every_way((RED1, RED2))))
    swapped = (replace(BLUE1, vrf="red", table=101), replace(BLUE2, vrf="red", table=101))
    moves = tuple(command for place in swapped for command in place.furnishes())
    yield Scene(
        "vrf: members of another",
        ("link set v7 nomaster", "link set w7 nomaster", *moves),
        tuple(every_way(swapped)),
    )
    again = tuple(command for place in (BLUE1, BLUE2, RED1, RED2) for command in place.furnishes())
    cases = (*every_way((RED1, RED2)), *every_way((BLUE1, BLUE2)))
    yield Scene("vrf: each its own again", again, cases)
    yield Scene(
        "vrf: a VRF down", ("link set blue down",), tuple(replace(case, verdict=ANY) for case in cases)
    )
    yield Scene("vrf: a VRF up again", ("link set blue up", *BLUE1.furnishes(), *BLUE2.furnishes()), cases)
    gone = (*every_way((RED1, RED2)), *(replace(case, verdict=ANY) for case in every_way((GREEN1, GREEN2))))
    yield Scene("vrf: a VRF deleted", ("link del green",), gone)
    new = ("link add green type vrf table 113", "link set green up")
    places = tuple(replace(place, table=113) for place in (GREEN1, GREEN2))
    furnish = tuple(command for place in places for command in place.furnishes())
    yield Scene("vrf: and made again, with another table", (*new, *furnish), tuple(every_way(places)))


def _rules() -> Iterator[Scene]:
    """Rules beside the VRFs, and in another order."""
    lines = (*_both("201", 171, WAN), *_both("202", 172, WAN), *_both("203", 173, WAN))
    rules = (
        "iif {lan} lookup 201 priority 500",
        "from 10.41.0.0/16 lookup 202 priority 501",
        "iif v9 lookup 203 priority 502",
    )
    sixes = tuple(rule.replace("10.41.0.0/16", "fd10:41::/32") for rule in rules)
    yield Scene(
        "vrf: rules that name an interface",
        (*lines, *(f"rule add {rule}" for rule in rules), *(f"-6 rule add {rule}" for rule in sixes)),
        (
            *_to("iif lan", LAN, 171),
            *_to("iif lan is not wan", WAN, 171, "no_route"),
            *_to("from a source", RED1, 172),
            *_to("from a source, of any VRF", BLUE1, 172),
            *_to("from another source", RED2, 172, "no_route"),
            *_to("iif in a VRF", GREEN2, 173, ANY),
            *_to("iif in a VRF is not its fellow", GREEN1, 173, "no_route"),
            *every_way((RED1, RED2)),
        ),
    )
    first = tuple(
        f"{six}rule {what}" for six in ("", "-6 ") for what in ("add l3mdev pref 40000", "del pref 1000")
    )
    cases = (
        *_to("main is asked first", RED1, 133, ANY),
        *_to("main's route, not the blackhole of red", RED1, 150),
        *_to("main's route, not the leak", RED1, 141),
        *_make.cases("of red alone", RED1, RED2),
    )
    yield Scene("vrf: the l3mdev rule behind main", first, cases)
    back = tuple(
        f"{six}rule {what}"
        for six in ("", "-6 ")
        for what in ("add l3mdev pref 1000", "del pref 40000", "add pref 32765 table local", "del pref 0")
    )
    cases = tuple(case for group in GROUPS[:2] for case in (*every_way(group), *judged(group)))
    yield Scene("vrf: the rule of the local table behind it", back, cases)
    none = tuple(f"{six}rule {what}" for six in ("", "-6 ") for what in ("del l3mdev pref 1000",))
    yield Scene(
        "vrf: no l3mdev rule",
        none,
        (*_to("of main", RED1, WAN.number), *_make.cases("of red", RED1, RED2, "no_route")),
    )
    yield Scene(
        "vrf: the l3mdev rule again",
        tuple(f"{six}rule add l3mdev pref 1000" for six in ("", "-6 ")),
        tuple(case for group in GROUPS[:2] for case in every_way(group)),
    )


CHURN = (
    ("link set v7 nomaster",),
    tuple(RED1.furnishes()),
    ("link set v7 master blue",),
    tuple(RED1.furnishes()),
    ("link del red",),
    ("link add red type vrf table 101", "link set red up", *RED1.furnishes(), *RED2.furnishes()),
    ("-6 rule del pref 1000", "rule del pref 1000"),
    ("-6 rule add l3mdev pref 1000", "rule add l3mdev pref 1000"),
)
FLOOD = (
    RED1.frame(Maker().packet("flood", RED1, RED2, 4)),
    BLUE1.frame(Maker().packet("flood", BLUE1, BLUE2, 6)),
)
"""Played all the time while CHURN goes on."""

TABLES_COMPARED_AFTER = (
    "vrf: an unreachable default ends what would fall through",
    "vrf: rules that name an interface",
)
NETWORKS = (31, 32, 33, 41, 43, 44, 133, 141, 142, 150, 151, 152, 153, 171, 172, 173, 199)


def addresses4() -> list[str]:
    """In and around all that has routes."""
    return [f"10.{number}.{rest}" for number in NETWORKS for rest in ("0.1", "0.2", "0.255", "7.9")] + [
        "10.98.0.1"
    ]


def addresses6() -> list[str]:
    own = [f"fd00:{number}::{host}" for number in NETWORKS for host in (1, 2, 9)]
    return [*own, *(f"fd10:{number}::9" for number in NETWORKS), "fd00:98::1"]


def agree(kernel: Found, ours: Found) -> bool:
    """Of a route that rejects, and of none, the kernel tells only the error; of no IPv6 route, unreachable ones too.
    What is left to the kernel agrees with it."""
    if ours.type == KERNEL:
        return True
    rejects = {"", "unreachable", "blackhole", "prohibit"}
    if kernel.type in rejects and ours.type in rejects:
        return kernel.type == ours.type or {kernel.type, ours.type} == {"", "unreachable"}
    return kernel == ours
