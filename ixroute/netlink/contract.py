"""What the mirror needs of others, and what it tells them.

The router gives the mirror a RIB, a route stream and the adjacency table, and a `Sink` for everything that is
not a route: what each port and VLAN may do, link changes, own addresses. All calls into a `Sink` come from the
mirror's thread, with the mirror's lock held: they must be short and must not call back into the mirror.

Addresses are bytes in wire order (4 or 16), MACs 6 bytes, families 4 and 6 (not AF_INET*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ixroute.fib.adjacency import GroupLeg

FAMILY_IP4 = 4
FAMILY_IP6 = 6

NO_MAC = bytes(6)


Ports = tuple[int, int]
"""First and last TCP or UDP port of a range, host order."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which packets a step of a program is for: those for which all that is given holds; with `inverted`, all
    others. Prefixes are (address of 4 or 16 bytes, length). Ports are those the kernel's flow dissector finds
    (0 in fragments and where a protocol has none), and a range matches no packet without."""

    source: tuple[bytes, int] | None = None
    destination: tuple[bytes, int] | None = None
    tos: int = 0  # of the bits of tos_mask, in the byte that holds DSCP and ECN
    tos_mask: int = 0
    protocol: int = 0  # IPPROTO_*, 0: any
    source_ports: Ports | None = None
    destination_ports: Ports | None = None
    inverted: bool = False


ANY = Match()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of what packets of an interface go through until one has a verdict. Exactly one of the three is
    set. A lookup without a route (or with a throw route) is no verdict; nor is the program's end: no_route.
    goto: number of a later step, at most the program's length."""

    match: Match = ANY
    fib: Any = None  # LOOKUP: ixroute.fib.fib.Fib
    verdict: int | None = None  # an action, as in Actions
    goto: int | None = None


class NextHopLike(Protocol):
    """One leg of a path (ixroute.fib.rib.NextHop)."""

    @property
    def ifindex(self) -> int: ...
    @property
    def gateway(self) -> bytes | None: ...  # 4 or 16 bytes whatever the route's family, None: on the link
    @property
    def weight(self) -> int: ...
    @property
    def onlink(self) -> bool: ...


class PathLike(Protocol):
    """A set of next hops (ixroute.fib.rib.Path)."""

    @property
    def family(self) -> int: ...
    @property
    def type(self) -> int: ...  # RTN_*
    @property
    def kernel_only(self) -> bool: ...
    @property
    def nhid(self) -> int: ...
    @property
    def mtu(self) -> int: ...
    @property
    def legs(self) -> Sequence[NextHopLike]: ...


class RibLike(Protocol):
    """What the mirror asks of ixroute.fib.rib.Rib."""

    def dump_begin(self, family: int) -> None: ...
    def dump_end(self, family: int) -> int: ...
    def dump_abort(self, family: int) -> None: ...
    def neighbour_add(self, addr: bytes, ifindex: int) -> None: ...
    def neighbour_remove(self, addr: bytes, ifindex: int) -> bool: ...
    def settle(self) -> None: ...
    @property
    def main(self) -> Any: ...  # the FIB of local before main
    def fib(self, table: int, shortest: int = 0) -> Any: ...  # OSError ENOSPC: no more tables
    def take_new_paths(self) -> list[int]: ...
    def path(self, path_id: int) -> PathLike | None: ...
    def path_routes(self, path_id: int) -> int: ...
    def stats(self) -> Any: ...  # plain numbers: routes4, routes6, paths, …


class StreamLike(Protocol):
    """What the mirror asks of ixroute.netlink.route_stream.RouteStream."""

    def receive(self, fd: int, max: int = ...) -> int: ...  # noqa: A002 (OSError ENOBUFS: overrun)
    def receive_dump(self, fd: int, timeout_ms: int) -> None: ...  # OSError: it failed (EINTR: do it again)
    def stats(self) -> Any: ...  # plain numbers: datagrams, messages, malformed, …


class AdjacenciesLike(Protocol):
    """What the mirror asks of ixroute.fib.adjacency.AdjacencyTable."""

    def set(
        self, index: int, *, mac: bytes = ..., interface: int = ..., action: int = ..., mtu: int = ...
    ) -> None: ...
    def set_group(
        self, index: int, legs: Sequence[GroupLeg], buckets: Sequence[int] | None = ...
    ) -> None: ...  # buckets: position of the leg that each belongs to
    def take_buckets_used(self, index: int) -> bytes: ...  # one per bucket, 1: used since the last call


@dataclass(frozen=True)
class Actions:
    """Numbers of the actions an adjacency can have: forward/reasons.h, which this room must not know."""

    no_route: int
    local_route: int
    broadcast: int
    multicast: int
    blackhole_route: int
    reject_route: int
    external_route: int
    unresolved_neigh: int
    multipath_route: int
    policy_rule: int
    forward: int = 0


@dataclass(frozen=True)
class Port:
    """A port and the name of its TAP. The TAP is found by name, then followed by its index through
    renames."""

    index: int
    tap: str


@dataclass(frozen=True)
class PortState:
    """What the kernel's interface says a port may do. Everything False/0: the TAP is not there."""

    up: bool = False
    ip4_forward: bool = False
    ip6_forward: bool = False
    rpf: int = 0  # 0 none, 1 strict, 2 loose: max(all, interface)
    send_redirects: bool = False
    accept_local: bool = False
    route_localnet: bool = False
    kernel_all: bool = (
        False  # the TAP has a master that is no VRF, or something other than VLANs stacked on it
    )
    mac: bytes = NO_MAC
    mtu: int = 0


@dataclass(frozen=True)
class InterfaceState:
    """A VLAN sub-interface: which packets are its (those of `port` with these tags, (TPID, id), outer first), and
    what they may do."""

    name: str
    ifindex: int
    port: int
    tags: tuple[tuple[int, int], ...]
    state: PortState


@dataclass(frozen=True)
class TapState:
    """A TAP as the kernel has it, for the port to follow. present False: somebody deleted it."""

    present: bool
    ifindex: int
    name: str
    up: bool
    carrier: bool
    mtu: int
    mac: bytes
    promisc: bool
    allmulti: bool


@dataclass(frozen=True)
class LinkState:
    """An interface the router asked to watch (`watch=`): the wire under an AF_XDP port."""

    present: bool
    ifindex: int
    name: str
    up: bool
    carrier: bool
    mtu: int
    mac: bytes


class Sink(Protocol):
    """The router's ear. An exception from any of these is logged and counted, and ends nothing."""

    def set_port(self, port: int, state: PortState) -> None:
        """The port's TAP changed in something packets depend on. Called once for each port at the start."""

    def set_interface(self, number: int, state: InterfaceState) -> bool:
        """A VLAN sub-interface came or changed. Its number is 64..1023 and names the same port and tags until
        drop_interface; the outer interface of two tags has been set before. False: it is not served (then its id
        goes to set_vlans), try again later."""

    def drop_interface(self, number: int) -> None:
        """The sub-interface is gone; those stacked on it went before. The number may come back a second later."""

    def set_vlans(self, interface: int, vids: frozenset[int]) -> None:
        """The VLAN ids on an interface (port or sub-interface, by number) whose packets only the kernel can
        serve."""

    def set_view(self, interface: int, family: int, steps: Sequence[Step], same_source: bool) -> bool:
        """What packets of a family that come in by an interface (its number in the dataplane) look up. The FIBs
        are complete. same_source: the kernel looks sources up (rp_filter) by the same steps, and all of them are
        lookups for every packet. Until the first call the merged FIB alone. True: done."""

    def set_local4(self, addresses: Sequence[bytes]) -> None:
        """All IPv4 addresses of all interfaces of this namespace, 4 bytes each, sorted."""

    def set_multipath(self, family: int, policy: int, fields: int) -> None:
        """fib_multipath_hash_policy (0..3) and fib_multipath_hash_fields (FIB_MULTIPATH_HASH_FIELD_*) of a family,
        4 or 6."""

    def on_tap(self, port: int, tap: TapState) -> None:
        """The TAP came, went, or changed: MTU, MAC, up, promiscuity belong to the port too."""

    def on_link(self, link: LinkState) -> None:
        """A watched interface came, went or changed."""

    def take_used(self) -> bytes:
        """Bitmap of adjacency indexes (bit i%8 of byte i//8) that forwarded since the last call; b"" if
        unknown."""


@dataclass(frozen=True)
class NeighbourView:
    """A line of `show neighbors`."""

    port: int | None  # that it is behind; None: behind no port
    interface: str
    address: str
    mac: str  # "" when it has none
    state: str  # "reachable", "stale", …
    managed: bool  # the kernel keeps it resolved
    router: bool


@dataclass(frozen=True)
class RuleView:
    """A line of `show rules`. state: "honoured", "punts" (packets it may match go to the kernel) or "never" (no
    packet that is forwarded matches); interfaces: where it is so, of the router's, none: everywhere."""

    family: int
    priority: int
    text: str  # as `ip rule` shows it
    state: str
    why: str  # of "punts"
    interfaces: tuple[str, ...]


@dataclass(frozen=True)
class ProgramView:
    """What packets of an interface look up. same_source: their sources are looked up by the same steps."""

    interface: str
    family: int
    steps: tuple[str, ...]
    same_source: bool
