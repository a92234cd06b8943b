"""What the daemon answers on the control socket: the shape of every result, versioned.

Rules of the version: a key may be added under the same number; a key that goes, or changes its meaning or
unit, raises it. All counts are integers since the daemon began (counters) or now (the rest); `_ns` are
CLOCK_MONOTONIC nanoseconds. Addresses and prefixes are text. docs/stats-json.md says the same to people.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

SCHEMA = 1

# How many routes one reply holds at most: bounds the reply to a few MiB.
MAX_PAGE = 10_000


class Link(TypedDict):
    """The wire side."""

    up: bool
    speed_mbps: int  # 0: not known


class Port(TypedDict):
    """`ports`: what a port is, without its counters."""

    name: str  # the interface that the kernel sees
    index: int  # in the router, from 0; adjacencies and driver know it by this
    ifindex: int  # the kernel's number of the interface
    spec: str
    up: bool  # administratively: the interface is IFF_UP
    link: Link
    mtu: int
    mac: str
    queues: int
    mode: str  # of af_xdp: "native", "generic"
    zero_copy: bool
    features: dict[str, Any]  # what the driver obtained, by its own names; values are JSON's


class PortStats(TypedDict):
    """One port's counters. Seen from where a packet came in:
    rx + injected = sent + sum(punted) + sum(dropped) + sum(policed); docs/counters.md."""

    name: str
    index: int
    spec: str
    up: bool
    link: Link
    mtu: int
    mac: str
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    injected_packets: int
    injected_bytes: int
    sent_packets: int
    punted: dict[str, int]  # by reason
    policed: dict[str, int]
    dropped: dict[str, int]
    door: dict[str, int]  # struct door_counters, field by field
    driver: dict[str, int]  # what only the driver knows


class Tag(TypedDict):
    """A VLAN tag."""

    protocol: str  # "802.1Q", "802.1ad"
    id: int


class SubInterfaceStats(TypedDict):
    """A VLAN sub-interface that is forwarded fast, and the packets that the fast path met on it since it came; they
    are in the port's counters too. rx = sent + punted + dropped + policed; docs/counters.md."""

    name: str
    ifindex: int
    port: str
    tags: list[Tag]  # outer first
    up: bool
    mtu: int
    mac: str
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    sent_packets: int
    punted: int
    policed: int
    dropped: int


class WorkerStats(TypedDict):
    """One worker. Busy share between two samples: d(busy_cycles) / (d(time_ns) * tsc_hz / 1e9)."""

    number: int
    core: int
    packets: int
    polls: int
    busy_polls: int
    busy_cycles: int
    tsc_hz: int
    sleeps: int
    heartbeat_ns: int
    free_frames: int
    rx_no_frame: int


class FibStats(TypedDict):
    """struct fib_stats."""

    prefixes4: int
    prefixes6: int
    lookup_bytes4: int
    lookup_bytes6: int
    update_bytes: int
    retired_bytes: int
    updates: int


class MirrorStats(TypedDict):
    """How well the copy of the kernel's tables stands."""

    synced: bool  # the first dump is complete and packets see it
    state: str  # a word for people: "starting", "following", "dead"
    routes4: int
    routes6: int
    paths: int  # distinct sets of next hops
    neighbors: int
    managed: int  # gateways that the kernel was asked to keep resolved
    events: int  # messages followed
    resyncs: int  # dumps finished
    resyncs_by_reason: dict[str, int]
    resync_us: int  # how long the last dump took
    overruns: int  # times the kernel threw messages away
    malformed: int
    drift: int  # entries that a background dump found different from what had been followed
    errors: int
    failed: int  # times a FIB or memory refused a route (tried again by itself)
    paths_exhausted: int  # routes given to the kernel since no path was left
    rib_bytes: int
    policy_rules: list[str]  # ip rules that only the kernel can follow: packets they may match go there


class Totals(TypedDict):
    """All ports. in_flight = rx + injected - sent - punted - dropped - policed: 0 when no burst is under
    way."""

    rx: int
    injected: int
    sent: int
    tx: int
    punted: int
    dropped: int
    policed: int
    in_flight: int


class Stats(TypedDict):
    """`stats`."""

    schema: int
    version: str
    uptime_s: float
    time_ns: int
    ports: list[PortStats]
    sub_interfaces: list[SubInterfaceStats]
    workers: list[WorkerStats]
    fib: FibStats
    mirror: MirrorStats
    totals: Totals


class Leg(TypedDict):
    """A next hop of a route."""

    dev: str  # interface; a number in text when it has no name any more
    gateway: str  # "" when the route is on the link
    weight: int


class Route(TypedDict):
    """One route the kernel has told of."""

    prefix: str  # "192.0.2.0/24"
    table: int
    type: str  # "unicast", "local", "blackhole", ...
    metric: int
    tos: int
    protocol: int  # RTPROT_*
    nhid: int  # id of a nexthop object, 0: none
    legs: list[Leg]
    adjacency: int
    best: bool  # this is what packets see for the prefix


class Routes(TypedDict):
    """`routes` with params {family: 4|6|0, prefix: str (this and more specific), limit, cursor}. In no
    particular order. `next` is the cursor of the next page, None at the end. Routes that change between two
    pages may be missed or told twice."""

    routes: list[Route]
    next: int | None


class Neighbor(TypedDict):
    """A neighbour on a port's interface."""

    address: str
    dev: str
    mac: str  # "" while not resolved
    state: str  # NUD: "reachable", "stale", "failed", ...
    managed: bool  # the kernel was asked to keep it resolved


class GroupLeg(TypedDict):
    """One of several next hops between which packets' hashes choose."""

    dev: str
    gateway: str
    action: str  # "forward", or the reason why its packets go to the kernel
    port: str  # "" when it does not forward
    interface: str  # the port's or the VLAN sub-interface's
    mac: str  # "" when it does not forward
    mtu: int
    weight: int  # with those of next hops whose flows it has because their neighbours do not answer
    share: float  # of the flows: 0..1
    buckets: int  # of a resilient group: how many are its own; else 0


class Adjacency(TypedDict):
    """What a FIB lookup yields an index of."""

    index: int
    action: str  # "forward", "group", or the reason why not
    port: str  # "" when it has none
    interface: str  # the port's or the VLAN sub-interface's
    mac: str
    mtu: int
    routes: int  # how many use it
    legs: list[Leg]  # as the kernel told them
    group: list[GroupLeg]  # when the action is "group": the legs that packets choose from; else empty
    buckets: int  # of a resilient group; else 0


class Lookup(TypedDict):
    """`lookup` with params {address} and, for rules, {iif, from, tos, protocol, sport, dport}; or {address} and
    {vrf} or {table}. What a packet to that address meets: one that comes in by an interface (`iif`, else one
    that no rule names), or a lookup in one table."""

    address: str
    verdict: str  # "forward", "punt", "drop"
    reason: str  # "" when forwarded
    prefix: str  # "" when nothing matches
    route: Route | None
    neighbor: bool  # the entry is a neighbour's own, under the route
    adjacency: Adjacency
    text: NotRequired[str]  # the reason in words
    table: NotRequired[str]  # what answered: "local, main", "default", "100"; "" when no table did
    step: NotRequired[int]  # number of the step that decided, of `program`; -1: its end
    program: NotRequired[list[str]]  # what such packets look up, in order


class Rule(TypedDict):
    """An `ip rule`, and what becomes of it."""

    family: int
    priority: int
    text: str  # as `ip rule` shows it
    state: (
        str  # "honoured", "punts" (the packets it may match go to the kernel), "never" (matches none of ours)
    )
    why: str  # of "punts"
    interfaces: list[str]  # where it is so; none: everywhere


class Program(TypedDict):
    """What packets of an interface look up, in order, until a route or a verdict is found."""

    interface: str
    family: int
    steps: list[str]
    same_source: bool  # their sources are looked up by the same steps (rp_filter); else by the kernel


class Rules(TypedDict):
    """`rules`: policy rules in the kernel's order, and what they come to on each interface."""

    rules: list[Rule]
    programs: list[Program]


class Done(TypedDict):
    """`reload` and `resync`: what was set in motion."""

    text: str
