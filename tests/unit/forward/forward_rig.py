"""A router in memory: two memory ports, a small FIB, one worker, its lane; one packet at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from forward_view_twin import SlowView, Table, longest

from ixroute._dataplane import ffi, lib
from ixroute.driver.mem import MemPort
from ixroute.driver.port import PortOptions
from ixroute.driver.umem import Umem
from ixroute.fib.adjacency import (
    ADJ_BLACKHOLE,
    ADJ_BROADCAST,
    ADJ_KERNEL,
    ADJ_LOCAL,
    ADJ_NO_ROUTE,
    ADJ_POLICY,
    ADJ_REJECT,
    AdjacencyTable,
)
from ixroute.fib.fib import Fib
from ixroute.forward.reasons import REASONS, Kind, reason_number
from ixroute.forward.worker import (
    PORT_IP4_FORWARD,
    PORT_IP6_FORWARD,
    PORT_SEND_REDIRECTS,
    PORT_UP,
    Dataplane,
    Worker,
)
from ixroute.tap.door import Door

USUAL = PORT_UP | PORT_IP4_FORWARD | PORT_IP6_FORWARD | PORT_SEND_REDIRECTS
MAC = [bytes((2, 0, 0, 0, 0, 0x10 + port)) for port in range(3)]
"""Of our ports. Port 2 is one of the router's that this worker has no queue for."""
PEER = [bytes((2, 0, 0, 0, 0x10 + port, 0x99)) for port in range(3)]
"""Of the hosts behind them."""
SENDER = bytes.fromhex("0600000000aa")
MTU = 1500
OWN4 = ["192.0.2.1", "198.51.100.1", "203.0.113.1"]

VIA_1, VIA_0, GLEAN_1, GLEAN_0, EXTERNAL, MULTIPATH, NARROW, HOST_0, VIA_2 = range(8, 17)
VIA_SUB, VIA_INNER, VIA_SUB_1, GLEAN_SUB = range(17, 21)

SUB, OUTER, INNER, SUB_1 = range(64, 68)
"""Interface numbers of VLAN sub-interfaces, there only when a test sets them: two of port 0, one on the second of
these, one of port 1."""


@dataclass(frozen=True)
class Path:
    """What an adjacency says: `action` is a reason's name, or "" to forward."""

    action: str
    port: int = 0  # interface
    mac: bytes = bytes(6)
    mtu: int = 0


PATHS = {
    0: Path("no_route"),
    ADJ_LOCAL: Path("local_route"),
    ADJ_BROADCAST: Path("ipv4_broadcast"),
    ADJ_BLACKHOLE: Path("blackhole_route"),
    ADJ_REJECT: Path("reject_route"),
    ADJ_KERNEL: Path("external_route"),
    ADJ_POLICY: Path("policy_rule"),
    VIA_1: Path("", 1, PEER[1], MTU),
    VIA_0: Path("", 0, PEER[0], MTU),
    GLEAN_1: Path("unresolved_neigh", 1, mtu=MTU),
    GLEAN_0: Path("unresolved_neigh", 0, mtu=MTU),
    EXTERNAL: Path("external_route", 0),
    MULTIPATH: Path("multipath_route", 0),
    NARROW: Path("", 1, PEER[1], 1300),
    HOST_0: Path("", 0, PEER[0], MTU),
    VIA_2: Path("", 2, PEER[2], MTU),
    VIA_SUB: Path("", SUB, PEER[0], MTU),
    VIA_INNER: Path("", INNER, PEER[0], MTU - 4),
    VIA_SUB_1: Path("", SUB_1, PEER[1], MTU),
    GLEAN_SUB: Path("unresolved_neigh", SUB, mtu=MTU),
}

ROUTES: dict[IPv4Network | IPv6Network, int] = {
    ip_network(prefix): index
    for prefix, index in {
        "10.0.0.0/8": VIA_1,
        "0.1.0.0/16": VIA_1,
        "240.0.0.0/4": VIA_1,
        "169.254.0.0/16": VIA_1,
        "100.64.0.0/10": VIA_1,
        "10.3.0.0/16": EXTERNAL,
        "10.4.0.0/16": MULTIPATH,
        "10.5.0.0/16": NARROW,
        "10.6.0.0/16": ADJ_BLACKHOLE,
        "10.7.0.0/16": ADJ_REJECT,
        "10.8.0.0/16": ADJ_KERNEL,
        "10.9.0.0/16": VIA_2,
        "10.20.0.0/16": VIA_SUB,
        "10.21.0.0/16": VIA_INNER,
        "10.22.0.0/16": VIA_SUB_1,
        "192.0.3.0/24": GLEAN_SUB,
        "172.16.0.0/12": VIA_0,
        "192.0.2.0/24": GLEAN_0,
        "192.0.2.1/32": ADJ_LOCAL,
        "192.0.2.77/32": HOST_0,
        "192.0.2.255/32": ADJ_BROADCAST,
        "198.51.100.0/24": GLEAN_1,
        "198.51.100.1/32": ADJ_LOCAL,
        "198.51.100.255/32": ADJ_BROADCAST,
        "203.0.113.1/32": ADJ_LOCAL,
        "127.0.0.0/8": ADJ_LOCAL,
        "2001:db8::/32": VIA_1,
        "2001:db8:3::/48": EXTERNAL,
        "2001:db8:4::/48": MULTIPATH,
        "2001:db8:5::/48": NARROW,
        "2001:db8:6::/48": ADJ_BLACKHOLE,
        "2001:db8:7::/48": ADJ_REJECT,
        "2001:db8:72::/48": VIA_0,
        "2001:db8:20::/48": VIA_SUB,
        "2001:db8:21::/48": VIA_INNER,
        "2001:db8:22::/48": VIA_SUB_1,
        "2001:db8:a::/64": GLEAN_0,
        "2001:db8:a::/128": ADJ_LOCAL,
        "2001:db8:a::1/128": ADJ_LOCAL,
        "2001:db8:b::/64": GLEAN_1,
        "2001:db8:b::1/128": ADJ_LOCAL,
        "fe80::1/128": ADJ_LOCAL,
        "fe80::/64": ADJ_KERNEL,
        "fc00::/7": VIA_1,
        "fec0::/10": VIA_1,
        "64:ff9b::/96": VIA_1,
        "::ffff:0:0/96": VIA_1,
        "::/128": VIA_1,
        "100::/64": VIA_1,
    }.items()
}

OTHER_TABLES: list[Table] = [
    {
        ip_network(prefix): index
        for prefix, index in {
            "0.0.0.0/0": VIA_0,
            "10.30.0.0/16": ADJ_NO_ROUTE,  # a throw route
            "10.6.0.0/16": VIA_1,
            "192.0.2.77/32": ADJ_NO_ROUTE,
            "198.51.100.0/24": ADJ_REJECT,
            "::/0": VIA_0,
            "2001:db8:3::/48": ADJ_NO_ROUTE,
            "2001:db8:6::/48": VIA_1,
        }.items()
    },
    {
        ip_network(prefix): index
        for prefix, index in {
            "203.0.113.1/32": ADJ_LOCAL,
            "10.31.0.0/16": ADJ_LOCAL,
            "10.32.0.0/16": NARROW,
            "192.0.2.0/24": GLEAN_0,
            "2001:db8:a::1/128": ADJ_LOCAL,
            "2001:db8:31::/48": NARROW,
        }.items()
    },
    {},
]
"""Tables 1, 2, ... that views can ask for; table 0 is ROUTES."""

BY_LENGTH = sorted(ROUTES, key=lambda prefix: -prefix.prefixlen)


def lookup(address: bytes) -> int:
    """Longest match, slowly."""
    wanted = ip_address(address)
    return next((ROUTES[p] for p in BY_LENGTH if p.version == wanted.version and wanted in p), 0)


@dataclass(frozen=True)
class Context:
    """What the router knows of the port a packet comes in by."""

    flags: int = USUAL
    vlans: tuple[int, ...] = ()
    redirect_tokens: bool = True
    views: tuple[SlowView, SlowView] | None = None  # of IPv4, of IPv6; None: table 0

    def look(self, ip: bytes, address: bytes) -> int:
        """The adjacency's index for an address of a packet."""
        if self.views is None:
            return lookup(address)
        return self.views[ip[0] >> 4 == 6].find(look_in, ip, address)

    def same_source(self) -> bool:
        return self.views is None or self.views[0].same_source


def look_in(table: int, address: bytes) -> int:
    return longest(OTHER_TABLES[table - 1], address) if table else lookup(address)


@dataclass(frozen=True)
class Outcome:
    """Where a packet went: reason "" means sent by `port`; `packet` is None when it was dropped."""

    reason: str
    port: int | None = None
    packet: bytes | None = None


@dataclass
class Rig:
    frames: int = 512
    slots: int = 128
    workers: int = 1
    frame_bytes: int = 2048
    hash_seed: int = 1
    context: Context = field(default_factory=Context)

    def __post_init__(self) -> None:
        self.umem = Umem(self.frames, self.frame_bytes, "off")
        self.fib = Fib()
        self.adjacencies = AdjacencyTable(64, reason_number("no_route"), self.fib)
        for index, path in PATHS.items():
            if index >= 8:
                action = reason_number(path.action) if path.action else 0
                self.adjacencies.set(index, mac=path.mac, interface=path.port, action=action, mtu=path.mtu)
        self.dataplane = Dataplane(
            self.umem.c, self.fib.c, self.adjacencies.c, 3, self.workers, hash_seed=self.hash_seed
        )
        for prefix, index in ROUTES.items():
            self.fib.insert(prefix, index)
        self.dataplane.set_local4(ip_address(a).packed for a in OWN4)
        self.no_policers()
        self.set_context(self.context)
        self.door = Door(self.umem.c, self.workers)
        self.lane: Any = self.door.lanes[0]
        self.pool: Any = self.umem.pool(self.frames)
        self.worker = Worker(self.dataplane, 0, self.pool, self.lane)
        options = PortOptions(rx_slots=self.slots, tx_slots=self.slots)
        self.ports = [MemPort(f"p{i}", i, self.umem, 1, options) for i in range(2)]
        for port in self.ports:
            self.worker.add_queue(port.queues()[0])
        self._frames: Any = ffi.new("struct frame[]", 1024)
        self.settle()

    def no_policers(self) -> None:
        for reason in REASONS:
            if reason.kind is Kind.PUNT:
                self.dataplane.set_policer(reason.name, 10**9, 10**9)

    def set_context(self, context: Context) -> None:
        self.context = context
        for port in range(3):
            self.dataplane.set_port(port, MAC[port], MTU, context.flags)
            self.dataplane.set_vlans(port, context.vlans)
        tokens = 10**9 if context.redirect_tokens else 0
        self.dataplane.set_policer("ingress_is_egress", tokens, 10**9)

    def settle(self) -> None:
        """Passes until every ring has its free frames."""
        for _ in range(16):
            self.worker.poll_once()

    def deliver(self, packet: bytes, port: int = 0) -> None:
        assert self.ports[port].deliver(packet), "no frame to receive into"

    def sent(self) -> list[tuple[int, bytes]]:
        """Everything on the wires, taken off."""
        out = []
        for number, port in enumerate(self.ports):
            while (packet := port.collect()) is not None:
                out.append((number, packet))
        return out

    def punted(self, limit: int = 1024) -> list[tuple[int, bytes]]:
        """Everything the door would have written, taken off and given back."""
        n = lib.frame_ring_get(ffi.addressof(self.lane.punt), self._frames, limit)
        out = [(int(f.port), self.bytes_of(f)) for f in self._frames[0:n]]
        assert lib.frame_ring_put(ffi.addressof(self.lane.punt_done), self._frames, n) == n
        return out

    def inject(self, packet: bytes, port: int) -> None:
        """What the door does with a packet from the kernel."""
        assert lib.frame_ring_get(ffi.addressof(self.lane.inject_free), self._frames, 1) == 1
        frame = self._frames[0]
        frame.addr += 256
        frame.len, frame.port, frame.flags = len(packet), port, 1
        ffi.memmove(self.umem.c.base + frame.addr, packet, len(packet))
        assert lib.frame_ring_put(ffi.addressof(self.lane.inject), self._frames, 1) == 1

    def bytes_of(self, frame: Any) -> bytes:
        return bytes(ffi.buffer(self.umem.c.base + frame.addr, frame.len))

    def dropped(self) -> dict[str, int]:
        """Drops by reason, policed ones included, of all ports."""
        out: dict[str, int] = {}
        for port in range(3):
            counters = self.worker.port_counters(port)
            for cells in (counters["dropped"], counters["policed"]):
                for reason, count in cells.items():
                    out[reason] = out.get(reason, 0) + count
        return out

    def punt_counts(self) -> dict[str, int]:
        out: dict[str, int] = {}
        for port in range(3):
            for reason, count in self.worker.port_counters(port)["punted"].items():
                out[reason] = out.get(reason, 0) + count
        return out

    def route(self, packet: bytes, port: int = 0) -> Outcome:
        """One packet in, and what became of it; every other count must stand still."""
        dropped, punts = self.dropped(), self.punt_counts()
        self.deliver(packet, port)
        assert self.worker.poll_once() == 1
        sent, punted = self.sent(), self.punted()
        drop = [r for r, n in self.dropped().items() for _ in range(n - dropped.get(r, 0))]
        punt = [r for r, n in self.punt_counts().items() for _ in range(n - punts.get(r, 0))]
        assert len(sent) + len(drop) + len(punt) == 1
        assert len(punt) == len(punted)
        if sent:
            return Outcome("", *sent[0])
        if punted:
            return Outcome(punt[0], *punted[0])
        return Outcome(drop[0])

    def check_conservation(self) -> None:
        """The equation of counters.h, per port, and frames all accounted for."""
        all_sent = all_tx = 0
        for port in range(3):
            c = self.worker.port_counters(port)
            ended = c["sent_packets"] + sum(sum(c[k].values()) for k in ("punted", "dropped", "policed"))
            assert c["rx_packets"] + c["injected_packets"] == ended
            all_sent += c["sent_packets"]
            all_tx += c["tx_packets"]
        assert all_sent == all_tx

    def close(self) -> None:
        """Ends it; all frames must come home."""
        self.sent()
        self.punted()
        self.settle()
        in_rings = self.frames_in_fill_rings()
        self.worker.close()
        assert self.pool.n + in_rings == self.frames
        self.door.close()
        for port in self.ports:
            port.close()
        self.dataplane.close()
        self.adjacencies.close()
        self.fib.close()
        self.umem.close()

    def frames_in_fill_rings(self) -> int:
        """Counted by filling them with packets that nobody will look at."""
        count = 0
        for port in self.ports:
            while port.deliver(b"\0"):
                count += 1
        return count
