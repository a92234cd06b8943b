"""Stand-ins for the kernel and for the rooms around the mirror, small enough to be obviously right."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from ixroute.fib.adjacency import GroupLeg
from ixroute.netlink.contract import Actions, InterfaceState, LinkState, PortState, Step, TapState
from ixroute.netlink.sockets import Message

ACTIONS = Actions(
    no_route=1,
    local_route=2,
    broadcast=3,
    multicast=4,
    blackhole_route=5,
    reject_route=6,
    external_route=7,
    unresolved_neigh=8,
    multipath_route=9,
    policy_rule=10,
)
MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000002")

AF_OF = {4: 2, 16: 10}


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


@dataclass(frozen=True)
class Leg:
    ifindex: int
    gateway: bytes | None = None
    weight: int = 1
    onlink: bool = False


@dataclass(frozen=True)
class FakePath:
    family: int = 4
    type: int = 1
    kernel_only: bool = False
    nhid: int = 0
    mtu: int = 0
    legs: tuple[Leg, ...] = ()


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def message(kind: int, body: bytes, flags: int = 0) -> Message:
    data = struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body
    return Message(kind, flags, 0, data)


def link_message(
    index: int,
    name: str,
    *,
    kind: int = 16,
    up: bool = True,
    carrier: bool = True,
    mtu: int = 1500,
    mac: bytes = MAC,
    master: int = 0,
    parent: int = 0,
    parent_elsewhere: bool = False,
    link_kind: str = "",
    vlan: tuple[int, int] = (0, 0),
    vrf_table: int = 0,
    egress_qos: bool = False,
    moved: bool = False,
    flags: int = 0,
    family: int = 0,
) -> Message:
    body = struct.pack("=BxHiII", family, 1, index, flags | (1 if up else 0), 0)
    body += attribute(3, name.encode() + b"\0") + attribute(4, u32(mtu)) + attribute(1, mac)
    body += attribute(33, bytes([carrier]))
    body += attribute(10, u32(master)) if master else b""
    body += attribute(5, u32(parent)) if parent else b""
    body += attribute(37, u32(0)) if parent_elsewhere else b""
    body += attribute(45, u32(1)) if moved else b""
    if link_kind:
        info = attribute(1, link_kind.encode() + b"\0")
        if vlan[1]:
            data = attribute(5, struct.pack(">H", vlan[1])) + attribute(1, struct.pack("=H", vlan[0]))
            data += attribute(2, struct.pack("=II", 1, 0xFFFFFFFF))
            data += attribute(3, attribute(1, struct.pack("=II", 3, 5))) if egress_qos else b""
            info += attribute(2, data)
        if vrf_table:
            info += attribute(2, attribute(1, u32(vrf_table)))
        body += attribute(18, info)
    return message(kind, body)


def neighbour_message(
    ifindex: int,
    address: str,
    mac: bytes | None = MAC,
    *,
    kind: int = 28,
    state: int = 2,
    flags: int = 0,
    managed: bool = False,
    family: int | None = None,
) -> Message:
    packed = ip(address)
    body = struct.pack("=B3xiHBB", AF_OF[len(packed)] if family is None else family, ifindex, state, flags, 0)
    body += attribute(1, packed)
    body += attribute(2, mac) if mac is not None else b""
    body += attribute(15, u32(1)) if managed else b""
    return message(kind, body)


def address_message(ifindex: int, address: str, *, kind: int = 20, length: int = 24) -> Message:
    packed = ip(address)
    body = struct.pack("=BBBBI", AF_OF[len(packed)], length, 0, 0, ifindex) + attribute(1, packed)
    return message(kind, body + (attribute(2, packed) if len(packed) == 4 else b""))


def nexthop_message(
    identity: int,
    *,
    kind: int = 104,
    oif: int = 0,
    gateway: str = "",
    group: tuple[int | tuple[int, int], ...] = (),  # ids, or (id, weight)
    resilient: tuple[int, int, int] | None = None,  # buckets, idle and unbalanced timer in hundredths
    blackhole: bool = False,
    fdb: bool = False,
    encap: bool = False,
) -> Message:
    packed = ip(gateway) if gateway else b""
    body = struct.pack("=BBBBI", AF_OF.get(len(packed), 0), 0, 0, 0, 0) + attribute(1, u32(identity))
    body += attribute(5, u32(oif)) if oif else b""
    body += attribute(6, packed) if packed else b""
    members = [_member(m, 1) if isinstance(m, int) else _member(*m) for m in group]
    body += attribute(2, b"".join(members)) if group else b""
    if resilient:
        buckets, idle, unbalanced = resilient
        timers = attribute(2, u32(idle)) + attribute(3, u32(unbalanced))
        body += attribute(3, struct.pack("=H", 1))
        body += attribute(12 | 0x8000, attribute(1, struct.pack("=H", buckets)) + timers)
    body += attribute(4, b"") if blackhole else b""
    body += attribute(11, b"") if fdb else b""
    body += attribute(7, struct.pack("=H", 1)) + attribute(8, b"") if encap else b""
    return message(kind, body)


def _member(identity: int, weight: int) -> bytes:
    return struct.pack("=IBBH", identity, (weight - 1) & 0xFF, (weight - 1) >> 8, 0)


def rule_message(
    priority: int, table: int, *, family: int = 2, action: int = 1, extra: bytes = b"", flags: int = 0
) -> Message:
    body = struct.pack(
        "=BBBBBBBBI", family, 0, 0, 0, min(table, 252) if table > 255 else table, 0, 0, action, flags
    )
    body += attribute(6, u32(priority)) + attribute(15, u32(table)) + attribute(14, u32(0xFFFFFFFF)) + extra
    return message(32, body)


DEFAULT_RULES = [rule_message(0, 255), rule_message(32766, 254), rule_message(32767, 253)]


@dataclass
class FakeRib:
    """Paths a test puts there; neighbours as they are told."""

    paths: dict[int, FakePath] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    new: list[int] = field(default_factory=list)
    neighbours: set[tuple[bytes, int]] = field(default_factory=set)
    dumping: set[int] = field(default_factory=set)
    dumps: list[int] = field(default_factory=list)
    aborted: list[int] = field(default_factory=list)
    differences: int = 0
    settled: int = 0
    fibs: dict[tuple[int, int], str] = field(default_factory=dict)
    most_fibs: int = 255
    memory: bool = True
    main: str = "local, main"

    def fib(self, table: int, shortest: int = 0) -> str:
        if not self.memory:
            raise MemoryError
        if (table, shortest) not in self.fibs and len(self.fibs) >= self.most_fibs:
            raise OSError(errno.ENOSPC, "no room for a table")
        return self.fibs.setdefault((table, shortest), f"table {table} from /{shortest}")

    def put(self, path_id: int, path: FakePath, users: int = 1) -> None:
        self.paths[path_id] = path
        self.users[path_id] = users
        self.new.append(path_id)

    def dump_begin(self, family: int) -> None:
        assert not self.dumping, "one dump at a time"
        self.dumping.add(family)

    def dump_end(self, family: int) -> int:
        self.dumping.remove(family)
        self.dumps.append(family)
        return self.differences

    def dump_abort(self, family: int) -> None:
        self.dumping.remove(family)
        self.aborted.append(family)

    def neighbour_add(self, addr: bytes, ifindex: int) -> None:
        self.neighbours.add((addr, ifindex))

    def neighbour_remove(self, addr: bytes, ifindex: int) -> bool:
        known = (addr, ifindex) in self.neighbours
        self.neighbours.discard((addr, ifindex))
        return known

    def settle(self) -> None:
        self.settled += 1

    def take_new_paths(self) -> list[int]:
        taken, self.new = self.new, []
        return taken

    def path(self, path_id: int) -> FakePath | None:
        return self.paths.get(path_id)

    def path_routes(self, path_id: int) -> int:
        return self.users.get(path_id, 0)

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(routes4=0, routes6=0, best_changes=0, failed=0, paths_exhausted=0, bytes=0)


@dataclass
class FakeStream:
    """Route events: how many datagrams each receive finds, or the errno it fails with."""

    script: list[int] = field(default_factory=list)
    dump_errors: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def receive(self, fd: int, max: int = 1024) -> int:  # noqa: A002 (as the real one)
        outcome = self.script.pop(0) if self.script else 0
        self.log.append(f"receive {outcome}")
        if outcome < 0:
            raise OSError(-outcome, "overrun" if outcome == -errno.ENOBUFS else "broken")
        return outcome

    def receive_dump(self, fd: int, timeout_ms: int) -> None:
        self.log.append("dump")
        if self.dump_errors:
            raise OSError(self.dump_errors.pop(0), "dump")

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(messages=0, malformed=0, refused=0)


@dataclass
class FakeAdjacencies:
    entries: dict[int, tuple[int, int, bytes, int]] = field(default_factory=dict)
    groups: dict[int, tuple[tuple[GroupLeg, ...], tuple[int, ...] | None]] = field(default_factory=dict)
    used: dict[int, set[int]] = field(default_factory=dict)  # buckets by adjacency
    refusals: int = 0  # times that there will be no memory for a group
    writes: int = 0

    def set(
        self, index: int, *, mac: bytes = bytes(6), interface: int = 0, action: int = 0, mtu: int = 0
    ) -> None:
        self.entries[index] = (action, interface, mac, mtu)
        self.groups.pop(index, None)
        self.writes += 1

    def set_group(self, index: int, legs: Sequence[GroupLeg], buckets: Sequence[int] | None = None) -> None:
        if self.refusals:
            self.refusals -= 1
            raise MemoryError
        self.groups[index] = (tuple(legs), None if buckets is None else tuple(buckets))
        self.entries.pop(index, None)
        self.writes += 1

    def take_buckets_used(self, index: int) -> bytes:
        used, buckets = self.used.pop(index, set()), self.groups[index][1] or ()
        return bytes(bucket in used for bucket in range(len(buckets)))


@dataclass
class FakeSink:
    ports: dict[int, PortState] = field(default_factory=dict)
    vlans: dict[int, frozenset[int]] = field(default_factory=dict)
    views: dict[tuple[int, int], tuple[tuple[Step, ...], bool]] = field(default_factory=dict)
    subs: dict[int, InterfaceState] = field(default_factory=dict)
    takes_subs: bool = True
    takes_views: bool = True
    local4: list[bytes] = field(default_factory=list)
    taps: dict[int, TapState] = field(default_factory=dict)
    links: list[LinkState] = field(default_factory=list)
    multipath: dict[int, tuple[int, int]] = field(default_factory=dict)
    used: bytes = b""
    calls: int = 0

    def set_port(self, port: int, state: PortState) -> None:
        self.calls += 1
        self.ports[port] = state

    def set_vlans(self, interface: int, vids: frozenset[int]) -> None:
        self.calls += 1
        self.vlans[interface] = vids

    def set_interface(self, number: int, state: InterfaceState) -> bool:
        self.calls += 1
        if not self.takes_subs:
            return False
        outer = [s.tags for s in self.subs.values() if s.port == state.port]
        assert len(state.tags) == 1 or state.tags[:1] in outer, "inner before outer"
        before = self.subs.get(number)
        assert before is None or (before.port, before.tags) == (state.port, state.tags), "number in use"
        self.subs[number] = state
        return True

    def drop_interface(self, number: int) -> None:
        self.calls += 1
        gone = self.subs.pop(number)
        self.vlans.pop(number, None)
        assert not any(s.port == gone.port and s.tags[:-1] == gone.tags for s in self.subs.values()), (
            "outer before inner"
        )

    def set_view(self, interface: int, family: int, steps: tuple[Step, ...], same_source: bool) -> bool:
        self.calls += 1
        if self.takes_views:
            self.views[interface, family] = (steps, same_source)
        return self.takes_views

    def set_local4(self, addresses: list[bytes]) -> None:
        self.calls += 1
        self.local4 = list(addresses)

    def set_multipath(self, family: int, policy: int, fields: int) -> None:
        self.calls += 1
        self.multipath[family] = (policy, fields)

    def on_tap(self, port: int, tap: TapState) -> None:
        self.calls += 1
        self.taps[port] = tap

    def on_link(self, link: LinkState) -> None:
        self.calls += 1
        self.links.append(link)

    def take_used(self) -> bytes:
        return self.used
