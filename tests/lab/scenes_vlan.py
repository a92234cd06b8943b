"""Scenes of VLAN sub-interfaces: made, asked, changed. Each goes on from what the one before has left."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.frames import ANY, FORWARD, ROUTER_WAN, Case
from lab.frames_vlan import (
    AD,
    D4094,
    DMZ,
    LAN,
    OWN_MAC,
    PORTS,
    S100,
    S100C5,
    SMALLER,
    SUBS,
    THREE,
    V7,
    V8,
    V9,
    W7,
    W200C6,
    WAN,
    Maker,
    Place,
    Q,
    every_way,
    judged,
    makes,
    sizes,
    stacked,
    tags_and_macs,
)
from lab.packets import ETH_IP4, ETH_IP6
from lab.twins import MTUS, Scene

PLACES = (*PORTS, *SUBS)
SOME = (LAN, V7, W7, S100C5)
NEW_MAC = "02:00:00:00:01:77"
RENAMED = replace(V7, name="renamed7")
MOVED = replace(V7, router_mac=NEW_MAC)
OTHER = replace(V7, name="other7", number=61)
SHORTER = replace(V8, mtu=1290)
DMZ_SHORTER = replace(DMZ, mtu=1400)
D4094_SHORTER = replace(D4094, mtu=1400)
BRIDGED = replace(V9, name="br0")
MACVLAN = Place("mv0", 62, "dmz", router_mac="02:00:00:00:03:55", host_mac=DMZ.host_mac)
BONDED = Place("bond0", 63, "dmz", router_mac=DMZ.router_mac, host_mac=DMZ.host_mac)


def scenes() -> Iterator[Scene]:
    yield Scene("vlan: from each place to each other", makes(PLACES), tuple(every_way(PLACES)))
    yield Scene("vlan: TTL, redirects, priorities, ARP, ND, pings", cases=tuple(judged(PLACES)))
    yield Scene("vlan: smaller MTUs", cases=tuple(sizes(SMALLER)))
    yield Scene("vlan: unknown ids, stacks, priority tags, MACs", cases=tuple(tags_and_macs()))
    yield from _routes()
    yield from _sysctls()
    yield from _changes()
    yield from _of_the_kernel_alone()


def _routes() -> Iterator[Scene]:
    commands = (
        "route add 10.71.0.0/16 via 10.41.0.2 dev v7 mtu 1000",
        "route add fd10:71::/32 via fd00:41::2 dev v7 mtu 1300",
        "route add 10.72.0.0/16 via inet6 fd00:41::2 dev v7",
        "neigh replace 10.199.0.9 lladdr 02:00:00:00:01:09 nud permanent dev v7",
        "route add 10.73.0.0/16 via 10.199.0.9 dev v7 onlink",
        "nexthop add id 7 via 10.41.0.2 dev v7",
        "route add 10.74.0.0/16 nhid 7",
        "addr add 10.75.0.0/31 dev w7",
        "neigh replace 10.75.0.1 lladdr 02:00:00:00:02:02 nud permanent dev w7",
        "neigh replace 10.41.0.2 lladdr 02:00:00:00:01:0a nud permanent dev v7",
    )
    make, cases = Maker(), []
    for number in (71, 72, 73, 74):
        beyond = replace(V7, number=number)
        for told, packet, said in make.both(f"route {number}", W7, beyond):
            if number == 71 or "IPv4" in told:
                cases.append(Case(told, W7.frame(packet), said, W7.port))
    for told, packet, said in make.both(
        "too big for the route", V8, replace(V7, number=71), "mtu_value_is_too_small", size=1301
    ):
        cases.append(Case(told, V8.frame(packet), said))
    yield Scene("vlan: routes of every kind by a sub-interface", commands, tuple(cases))
    back = (
        "route del 10.73.0.0/16",
        "neigh replace 10.41.0.2 lladdr 02:00:00:00:01:02 nud permanent dev v7",
    )
    yield Scene("vlan: a neighbour's new MAC", back, tuple(every_way((V7, W7))))


def _sysctls() -> Iterator[Scene]:
    make = Maker()
    off = make.packet("forwarding off IPv4", V7, WAN, 4)
    six = make.packet("forwarding off IPv6", V7, WAN, 6)
    yield Scene(
        "vlan: IPv4 forwarding off on one sub-interface",
        sysctls=(("net.ipv4.conf.v7.forwarding", "0"),),
        cases=(
            Case("forwarding off IPv4", V7.frame(off), "forwarding_disabled"),
            Case("forwarding off IPv6", V7.frame(six), FORWARD),
            *make.cases("beside it", V8, WAN),
            *make.cases("out by it", WAN, V7),
        ),
    )
    strict = make.packet("another way back IPv4", V8, WAN, 4)
    yield Scene(
        "vlan: strict rp_filter on one sub-interface",
        sysctls=(("net.ipv4.conf.v7.forwarding", "1"), ("net.ipv4.conf.v7.rp_filter", "1")),
        cases=(
            Case("another way back IPv4", V7.frame(strict), "source_validation"),
            *make.cases("the way back", V7, WAN),
            *make.cases("no check", V8, WAN),
        ),
    )
    yield Scene(
        "vlan: no rp_filter again",
        sysctls=(("net.ipv4.conf.v7.rp_filter", "0"),),
        cases=(Case("another way back IPv4", V7.frame(strict), FORWARD),),
    )


def others(cases: Sequence[Case], *places: Place) -> tuple[Case, ...]:
    """The same, in which what goes to or from these places is not asked about."""
    words = {place.told for place in places}
    return tuple(replace(case, verdict=ANY) if words & set(case.name.split()) else case for case in cases)


def _changes() -> Iterator[Scene]:
    some = tuple(every_way(SOME))
    yield Scene("vlan: renamed", (f"link set v7 name {RENAMED.name}",), some)
    moved = (f"link set {RENAMED.name} name v7", f"link set v7 address {NEW_MAC}", *MOVED.furnishes())
    places = (LAN, MOVED, W7, S100C5)
    yield Scene("vlan: a MAC of its own", moved, (*every_way(places), *judged(places)))
    yield Scene("vlan: the port's MAC again", (f"link set v7 address {V7.router_mac}", *V7.furnishes()), some)
    yield Scene("vlan: down", ("link set v7 down",), others(some, V7))
    yield Scene("vlan: up again", tuple(V7.furnishes()), some)
    yield Scene("vlan: deleted", ("link del v7",), others(some, V7))
    places = (LAN, OTHER, W7, S100C5)
    yield Scene("vlan: its id is another interface", makes((OTHER,)), tuple(every_way(places)))
    yield Scene(
        "vlan: a stack's lower interface down",
        ("link set s100 down",),
        others(tuple(every_way(places)), S100C5),
    )
    up = ("link del other7", *makes((V7,)), *S100.furnishes(), *S100C5.furnishes())
    yield Scene("vlan: a stack up again", up, tuple(every_way((*SOME, S100))))
    three = tuple(every_way((*SOME, THREE)))
    yield Scene("vlan: three tags", makes((THREE,)), others(three, THREE))
    yield Scene("vlan: no third tag", ("link del three",), some)
    yield Scene(
        "vlan: a smaller MTU",
        (f"link set v8 mtu {SHORTER.mtu}",),
        tuple(sizes(((LAN, SHORTER), (V7, SHORTER)))),
    )
    yield Scene(
        "vlan: a smaller MTU of the port",
        (f"link set {{dmz}} mtu {DMZ_SHORTER.mtu}",),
        tuple(sizes(((V7, DMZ_SHORTER), (LAN, D4094_SHORTER)))),
    )


def _of_the_kernel_alone() -> Iterator[Scene]:
    """What only the kernel can do: the same comes out."""
    places = (LAN, V9, W7)
    ways = tuple(replace(case, verdict=ANY) for case in (*every_way(places), *judged(places)))
    yield Scene("vlan: priorities mapped", ("link set v9 type vlan egress-qos-map 0:5 3:6",), ways)
    yield Scene("vlan: priorities mapped both ways", ("link set v9 type vlan ingress-qos-map 5:3",), ways)
    yield Scene(
        "vlan: headers not reordered",
        ("link set v7 type vlan reorder_hdr off",),
        tuple(replace(case, verdict=ANY) for case in every_way(SOME)),
    )
    bridge = (
        "link set v9 type vlan egress-qos-map 0:0 3:0",
        "link add br0 type bridge",
        f"link set br0 address {V9.router_mac}",
        "link set v9 master br0",
        "link set br0 up",
        *BRIDGED.furnishes(),
    )
    yield Scene("vlan: a sub-interface in a bridge", bridge, ways)
    macvlan = (
        f"link add link {{dmz}} name mv0 address {MACVLAN.router_mac} type macvlan mode bridge",
        "link set mv0 up",
        *MACVLAN.furnishes(),
    )
    yield Scene("vlan: out of the bridge", ("link del br0", *V9.furnishes()), tuple(every_way(places)))
    yield Scene("macvlan on a port", macvlan, _any(every_way((LAN, DMZ, MACVLAN, V8))))
    yield Scene("macvlan gone", ("link del mv0",), tuple(every_way((LAN, DMZ, V8, D4094))))
    bond = (
        "link add bond0 type bond mode active-backup",
        "link set {dmz} down",
        "link set {dmz} master bond0",
        "link set bond0 up",
        *BONDED.furnishes(),
    )
    yield Scene("a port in a bond", bond, _any(every_way((LAN, V8, BONDED))))
    yield Scene(
        "a port out of the bond",
        ("link del bond0", "link set {dmz} up", *DMZ.furnishes()),
        tuple(every_way((LAN, V8, DMZ))),
    )


def _any(cases: Iterator[Case]) -> tuple[Case, ...]:
    return tuple(replace(case, verdict=ANY) for case in cases)


def unresolved() -> Scene:
    """ARP and neighbour solicitations in a VLAN. The last scene: the kernel goes on asking for a while."""
    gone = [
        f"neigh del {host} dev {place.name}" for place in (V8, W200C6) for host in (place.host4, place.host6)
    ]
    make = Maker()
    cases = [
        case for place in (V8, W200C6) for case in make.cases(f"nobody at {place.told}", LAN, place, ANY)
    ]
    return Scene("vlan: nobody answers in a VLAN", tuple(gone), tuple(cases), asks=True)


KNOWN_MACS = (
    OWN_MAC,
    ROUTER_WAN,
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "33:33:00:00:00:01",
    "01:80:c2:00:00:0e",
    "02:99:99:99:99:99",
)
ODD_TAGS = [(protocol, tci) for protocol in (Q, AD) for tci in (0, 0, 5 << 13, 5, 6, 7, 77, 100, 200, 0xFFF)]


def chance(rng: random.Random, count: int) -> Scene:
    """Stacks of tags, MACs, kinds and lengths by chance, mostly near to what is right."""
    make = Maker()
    cases = tuple(_by_chance(rng, make, f"chance {number}") for number in range(count))
    return Scene(f"vlan: {count} frames by chance", cases=cases)


def _by_chance(rng: random.Random, make: Maker, name: str) -> Case:
    a, b = rng.choice(PLACES), rng.choice(PLACES)
    tags = list(a.tags)
    if rng.random() < 0.4:
        tags.insert(rng.randint(0, len(tags)), rng.choice(ODD_TAGS))
    if tags and rng.random() < 0.15:
        tags.pop(rng.randrange(len(tags)))
    pcp = rng.choice((0, 0, 0xA, 0x1)) << 12
    stack = tuple((protocol, tci | pcp) for protocol, tci in tags)
    version, size = rng.choice((4, 6)), rng.choice((0, 0, 60, 1290, 1301, 1396, 1400))
    hops = {4: "ttl", 6: "hop"}[version]
    packet = make.packet(name, a, b, version, size=size, **{hops: rng.choice((64, 64, 64, 2, 1, 0))})
    kind = {4: ETH_IP4, 6: ETH_IP6}[version]
    if rng.random() < 0.05:
        kind = rng.choice((0x1234, 0x0026, 0x88CC, ETH_IP4, ETH_IP6))
    mac = rng.choice(KNOWN_MACS) if rng.random() < 0.25 else a.router_mac
    frame = stacked(stack, kind, packet, mac, a.host_mac)
    if rng.random() < 0.1:
        frame = frame[: rng.randint(14, len(frame))]
    port = a.port if rng.random() < 0.9 else rng.choice(("lan", "wan", "dmz"))
    longest = MTUS[("lan", "wan", "dmz").index(port)] + 14  # what the host's end sends
    return Case(name, frame[:longest], ANY, port)


FLOOD = (
    V7.frame(Maker().packet("flood", V7, W7, 4)),
    V8.frame(Maker().packet("flood", V8, W7, 6)),
)
"""Played all the time while CHURN goes on."""
CHURN = (
    ("link set v7 down",),
    tuple(V7.furnishes()),
    (f"link set v7 address {NEW_MAC}",),
    (f"link set v7 address {V7.router_mac}",),
    ("link set v8 mtu 1280",),
    ("link del v8",),
    makes((V8,)),
    ("link set v7 name other",),
    ("link set other name v7",),
    ("link del w7",),
    makes((W7,)),
    ("link del v7",),
    makes((V7,)),
)
