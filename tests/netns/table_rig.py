"""Tables at random: sequences of `ip` commands, and for every address of interest the question whether our tables say
what the kernel's say. A mirror runs as in the daemon, over a real kernel (kernel_bench.py).

The kernel is asked by RTM_GETROUTE with RTM_F_FIB_MATCH: the entry it would use, whole, before any leg is chosen; and
it is asked for packets that come in by an interface, since what it sends itself may take another of several default
routes (fib_select_default). What it says of one table alone is asked by a mark, which a rule leads to that table and
then nowhere. IPv4 has two states, as long as nobody made a rule (tables local and main are one) and afterwards; in
the first one single tables cannot be asked.
"""

from __future__ import annotations

import ipaddress
import random
import select
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kernel_bench import ACTIONS, Bench, ip, run
from rule_rig import DEFAULTS, random_rule

from ixroute.fib.adjacency import ADJ_KERNEL, ADJ_NO_ROUTE, ADJ_POLICY
from ixroute.fib.rib import Answer, Path, RouteType
from ixroute.lookups import Question, walk
from ixroute.netlink.views import Packet

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLMSG_ERROR = 2
NLM_F_REQUEST = 1
RTM_F_FIB_MATCH = 0x2000
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA = 1, 2, 3, 4, 5, 9, 18
RTA_MARK, RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 16, 27, 28, 29
RTNH = struct.Struct("=HBBi")  # struct rtnexthop
NOT_FOUND = {101: "none", 113: "unreachable", 22: "blackhole", 13: "prohibit", 11: "none"}
"""What the kernel answers for a route of these types, and for none (ENETUNREACH; EAGAIN: throw)."""
REJECTS = frozenset({"unreachable", "prohibit"})

SENDER4, SENDER6 = "10.77.0.2", "2001:db8:77::2"
MAIN, DEFAULT, LOCAL = 254, 253, 255
FURTHER = (100, 101, DEFAULT, MAIN, LOCAL)
"""Tables that are compared one by one, each asked by a mark of its own number."""

SETTLED_S = 3.0
"""The kernel does some things later (carrier, addresses of IPv6): differences may last that long, no longer."""

Leg = tuple[int, bytes]  # ifindex, gateway


@dataclass(frozen=True, slots=True)
class Entry:
    """What one side says of an address. legs: of unicast routes. kernel: ours leaves it to the kernel."""

    kind: str
    length: int = -1
    legs: frozenset[Leg] = frozenset()
    kernel: bool = False

    def agrees(self, other: Entry, *, program: bool = False) -> bool:
        """self is ours. A punt of every packet is the kernel's own answer. A program's verdict "unreachable" is what
        the kernel calls no route."""
        if self.kernel:
            return True
        if self.kind != other.kind:
            return {self.kind, other.kind} <= (REJECTS | {"none"} if program else REJECTS)
        if self.kind != "unicast":
            return True
        return (self.length, self.legs) == (other.length, other.legs)


# ---- what the kernel says ----


@dataclass(frozen=True, slots=True)
class Asked:
    """A packet that comes in by iif (an index), addresses in wire order; mark: of the firewall."""

    packet: Packet
    iif: int
    mark: int = 0


def kernel_entries(sock: socket.socket, packets: Sequence[Asked]) -> list[Entry]:
    """sock: a netlink socket of the router's namespace."""
    out: dict[int, Entry] = {}
    for number, asked in enumerate(packets):
        sock.send(_request(asked, number + 1))
        out.update(_replies(sock.recv(1 << 16)))
    return [out[number + 1] for number in range(len(packets))]


def _request(asked: Asked, number: int) -> bytes:
    packet = asked.packet
    family = socket.AF_INET if len(packet.destination) == 4 else socket.AF_INET6
    bits = 8 * len(packet.destination)
    body = struct.pack("=BBBBBBBBI", family, bits, bits, packet.tos, 0, 0, 0, 0, RTM_F_FIB_MATCH)
    attributes = [
        (RTA_DST, packet.destination),
        (RTA_SRC, packet.source),
        (RTA_IIF, struct.pack("=I", asked.iif)),
        (RTA_MARK, struct.pack("=I", asked.mark)),
    ]
    if packet.protocol:
        attributes.append((RTA_IP_PROTO, struct.pack("=B", packet.protocol)))
    if packet.source_port:
        attributes += [
            (RTA_SPORT, struct.pack("!H", packet.source_port)),
            (RTA_DPORT, struct.pack("!H", packet.destination_port)),
        ]
    for kind, value in attributes:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_REQUEST, number, 0) + body


def _replies(datagram: bytes) -> Iterator[tuple[int, Entry]]:
    offset = 0
    while offset < len(datagram):
        length, kind, _, number, _ = struct.unpack_from("=IHHII", datagram, offset)
        if kind == NLMSG_ERROR:
            error = -struct.unpack_from("=i", datagram, offset + 16)[0]
            yield number, Entry(NOT_FOUND[error])
        else:
            assert kind == RTM_NEWROUTE, kind
            yield number, _route(datagram[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        yield kind & 0x3FFF, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def _route(message: bytes) -> Entry:
    kind, length = RouteType(message[7]).name.lower(), message[1]
    if kind != "unicast":
        # Of the null entry that stands for "no route" in an IPv6 namespace the kernel says "unreachable", length 0.
        return Entry(kind, length)
    single, legs = _leg(message[12:]), []
    for attribute, data in _attributes(message[12:]):
        if attribute == RTA_MULTIPATH:
            legs = list(_legs(data))
    return Entry(kind, length, frozenset(legs or [single]))


def _legs(data: bytes) -> Iterator[Leg]:
    offset = 0
    while offset + RTNH.size <= len(data):
        size, _, _, ifindex = RTNH.unpack_from(data, offset)
        yield ifindex, _leg(data[offset + RTNH.size : offset + size])[1]
        offset += (size + 3) & ~3


def _leg(attributes: bytes) -> Leg:
    ifindex, gateway = 0, b""
    for attribute, data in _attributes(attributes):
        if attribute == RTA_OIF:
            ifindex = struct.unpack("=i", data)[0]
        elif attribute == RTA_GATEWAY:
            gateway = data
        elif attribute == RTA_VIA:
            gateway = data[2:]
    return ifindex, gateway


# ---- what we say ----


def our_entry(bench: Bench, address: bytes, table: int | None = None) -> Entry:
    """Under the mirror's lock: of a table, or as the default rules say. The FIB that packets see must say what the
    RIB says."""
    if table is not None:
        fib, answer = bench.rib.fib(table), bench.rib.lookup(address, table)
    else:
        fib, answer = bench.rib.main, bench.rib.lookup(address)
        if answer.index == ADJ_NO_ROUTE and len(address) == 4:
            return our_entry(bench, address, DEFAULT)
    assert fib.read(address) == answer.index, f"{ipaddress.ip_address(address)}: FIB and RIB differ"
    return described(bench, answer)


def program_entry(bench: Bench, packet: Packet, port: str) -> Entry:
    """Under the mirror's lock: what the port's program says."""
    assert bench.mirror is not None
    address = str(ipaddress.ip_address(packet.destination))
    found = walk(Question(address, packet, iif=port), bench.mirror, bench.rib)
    assert found.answer.index == found.index, f"{address}: FIB and RIB differ"
    return described(bench, found.answer)


def described(bench: Bench, answer: Answer) -> Entry:
    action = bench.table.get(answer.index).action
    if answer.index < 8:
        return _reserved(answer, action)
    path = bench.rib.path(answer.index)
    assert path is not None
    if action == ACTIONS.external_route:
        return Entry("unicast", kernel=True)
    if action == ACTIONS.blackhole_route:
        return Entry("blackhole")
    return _unicast(bench, answer, path)


def _reserved(answer: Answer, action: int) -> Entry:
    kinds = {
        ACTIONS.no_route: "none",
        ACTIONS.blackhole_route: "blackhole",
        ACTIONS.reject_route: "unreachable",
        ACTIONS.broadcast: "broadcast",
    }
    if answer.index in (ADJ_KERNEL, ADJ_POLICY):
        return Entry("", kernel=True)
    if action in kinds or answer.type is None:
        return Entry(kinds.get(action, "none"))
    return Entry(answer.type.name.lower())


def _unicast(bench: Bench, answer: Answer, path: Path) -> Entry:
    assert answer.prefix is not None
    assert answer.route is not None
    if answer.neighbour:  # its own prefix is a part of the connected route's
        return Entry("unicast", answer.route.prefix.length, frozenset({(path.legs[0].ifindex, b"")}))
    legs = frozenset((leg.ifindex, leg.gateway or b"") for leg in path.legs)
    if path.nhid and bench.mirror is not None:
        known = bench.mirror.paths.get(answer.index)
        if known is None:
            return Entry("never resolved")
        legs = frozenset((leg.ifindex, leg.gateway) for leg in known.route.legs)
    return Entry("unicast", answer.prefix.length, legs)


# ---- comparing ----


def settle(bench: Bench, deadline: float) -> None:
    """Until the mirror has nothing to do: no datagram waits, no dump is wanted, no path is unresolved."""
    mirror = bench.mirror
    assert mirror is not None
    while True:
        with mirror.locked():
            waiting = select.select(list(mirror._events.values()), [], [], 0)[0]
            idle = mirror._events and not waiting and not mirror.plan.wanted and not mirror.paths.dirty
            idle = idle and not mirror.follower.changed
        if idle or time.monotonic() > deadline:
            return
        time.sleep(0.002)


def wires() -> int:
    """A veth that packets seem to come in by when the kernel is asked; its index."""
    ip("link add ask type veth peer name ask-h", "link set ask up", "link set ask-h up")
    ip("addr add 10.77.0.1/24 dev ask", "-6 addr add 2001:db8:77::1/64 dev ask nodad")
    return socket.if_nametoindex("ask")


def rules_by_mark(family: int) -> None:
    """A packet with the mark N looks up table N and nothing else. Table local, first without that, is moved behind."""
    batch = [f"rule add pref 1 fwmark {table} lookup {table}" for table in FURTHER]
    batch += [f"rule add pref 2 fwmark {table} unreachable" for table in FURTHER]
    batch += ["rule add pref 3 lookup local", "rule del pref 0"]
    run(f"ip -{family} -batch -", stdin="\n".join(batch))


@dataclass(frozen=True, slots=True)
class Case:
    """One question to both: of a table, of the default rules, or (port) of the port's program."""

    asked: Asked
    table: int | None = None
    port: str = ""

    def __str__(self) -> str:
        where = self.port or ("rules" if self.table is None else f"table {self.table}")
        packet = self.asked.packet
        source, destination = (ipaddress.ip_address(a) for a in (packet.source, packet.destination))
        tos, ports = packet.tos, (packet.source_port, packet.destination_port)
        return f"{where}: {source} to {destination} tos {tos} protocol {packet.protocol} {ports}"


class Comparison:
    """Addresses asked again and again; what was found in all. alone: families whose tables are asked for one by one
    too. With 4 among them IPv4's tables local and main are split."""

    def __init__(self, bench: Bench, addresses: Sequence[str], alone: Sequence[int] = (4, 6)) -> None:
        self._bench = bench
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._sock.settimeout(10)
        self._iif = wires()
        for family in alone:
            rules_by_mark(family)
        self._alone = alone
        self._cases = [case for address in addresses for case in self._cases_of(address)]
        self._make_fibs()
        self.asked: Counter[str] = Counter()
        self.late = 0

    def _make_fibs(self) -> None:
        assert self._bench.mirror is not None
        with self._bench.mirror.locked():
            for table in FURTHER:
                self._bench.rib.fib(table)

    def _cases_of(self, address: str) -> Iterator[Case]:
        packed = ipaddress.ip_address(address).packed
        source = ipaddress.ip_address(SENDER4 if len(packed) == 4 else SENDER6).packed
        for table in (None, *FURTHER) if (4 if len(packed) == 4 else 6) in self._alone else (None,):
            yield Case(Asked(Packet(source, packed), self._iif, table or 0), table)

    def close(self) -> None:
        self._sock.close()

    def cases(self) -> Sequence[Case]:
        return self._cases

    def _ours(self, case: Case) -> Entry:
        if case.port:
            return program_entry(self._bench, case.asked.packet, case.port)
        return our_entry(self._bench, case.asked.packet.destination, case.table)

    def differences(self) -> list[str]:
        mirror = self._bench.mirror
        assert mirror is not None
        cases = self.cases()
        with mirror.locked():
            kernel = kernel_entries(self._sock, [case.asked for case in cases])
            ours = [self._ours(case) for case in cases]
        self.asked.update("left to the kernel" if one.kernel else one.kind for one in ours)
        return [
            f"{case}: ours {one}, the kernel's {other}"
            for case, one, other in zip(cases, ours, kernel, strict=True)
            if not one.agrees(other, program=bool(case.port))
        ]

    def check(self, told: Sequence[str], seconds: float = SETTLED_S) -> None:
        """No difference that lasts. told: what was done, for the message."""
        deadline = time.monotonic() + seconds
        settle(self._bench, deadline)
        wrong = self.differences()
        while wrong and time.monotonic() < deadline:
            time.sleep(0.02)
            settle(self._bench, deadline)
            wrong = self.differences()
            self.late += not wrong
        assert not wrong, "\n".join([*wrong, "after:", *told, *kernel_tables()])


SOURCES4, SOURCES6 = (
    ("10.0.0.1", "10.0.0.2", "203.0.113.9"),
    ("2001:db8:a::1", "2001:db8:a::2", "2001:db9::9"),
)
TOS, SOME_PORTS = (0, 0, 0x10, 0x08), (53, 99, 1000)
PROTOCOLS4, PROTOCOLS6 = (6, 17, 1), (6, 17, 58)
"""Never none: the kernel takes that for UDP."""


class ProgramComparison(Comparison):
    """Packets of several sources and kinds that come in by the ports, other ones each time."""

    def __init__(self, bench: Bench, addresses: Sequence[str], seed: int) -> None:
        super().__init__(bench, addresses, alone=())
        self._random = random.Random(seed)
        self._chosen: list[Case] = []
        self._choose()

    def check(self, told: Sequence[str], seconds: float = SETTLED_S) -> None:
        self._choose()
        super().check(told, seconds)

    def cases(self) -> Sequence[Case]:
        return self._chosen

    def _choose(self) -> None:
        chosen = self._random.choices(self._cases, k=40)
        self._chosen = [self._case(case.asked.packet.destination) for case in chosen]

    def _case(self, destination: bytes) -> Case:
        choice = self._random.choice
        source = ipaddress.ip_address(choice(SOURCES4 if len(destination) == 4 else SOURCES6)).packed
        protocol = choice(PROTOCOLS4 if len(destination) == 4 else PROTOCOLS6)
        port = choice(PORTS[:2])
        ports = (choice(SOME_PORTS), choice(SOME_PORTS)) if protocol in (6, 17) else (0, 0)
        packet = Packet(source, destination, choice(TOS), protocol, *ports)
        return Case(Asked(packet, socket.if_nametoindex(port)), port=port)


def reset_rules() -> None:
    """As in a new namespace, but for the split of IPv4's tables."""
    for family in (4, 6):
        run(f"ip -{family} rule flush")
        run(f"ip -{family} -batch -", stdin=DEFAULTS[family])


def kernel_tables() -> list[str]:
    """For whoever looks into a difference."""
    questions = (
        "-4 route show table all",
        "-6 route show table all",
        "nexthop show",
        "-br link",
        "rule",
        "-6 rule",
    )
    return [f"ip {words}:\n{run(f'ip {words}')}" for words in questions]


# ---- doing ----

PORTS = ("lan", "wan", "eth9")
FAR4 = ("20.0.0.0/8", "20.1.0.0/16", "20.1.1.0/24", "20.1.1.128/25", "20.1.1.1/32", "30.0.0.0/8", "0.0.0.0/0")
FAR4 += ("10.0.0.16/28", "10.0.0.3/32")
FAR6 = ("2001:db8:20::/48", "2001:db8:20:1::/64", "2001:db8:20:1::1/128", "2001:db8:30::/48", "::/0")
FAR6 += ("2001:db8:a::10/124", "2001:db8:a::3/128")
ASKED = ("20.0.0.1", "20.1.0.1", "20.1.1.1", "20.1.1.2", "20.1.1.200", "30.1.1.1", "99.1.1.1", "10.0.0.3")
ASKED += (
    "10.0.0.17",
    "10.0.0.254",
    "10.0.0.255",
    "10.1.0.4",
    "10.9.0.1",
    "10.5.0.1",
    "10.5.0.9",
    "10.5.0.255",
)
ASKED += ("2001:db8:20::5", "2001:db8:20:1::1", "2001:db8:20:1::2", "2001:db8:30::1", "2001:db8:99::1")
ASKED += (
    "2001:db8:a::3",
    "2001:db8:a::12",
    "2001:db8:a::fe",
    "2001:db8:a::",
    "2001:db8:5::1",
    "2001:db8:5::9",
)
KINDS = ("blackhole", "unreachable", "prohibit", "throw")


class Chance:
    """Commands at random; some fail, since what they need may not be there. mixed: IPv6 routes of all kinds have the
    same metrics; else routes with and without gateways, of nexthop objects and of other types have their own, so that
    none stands between the siblings of another, where the kernel's dump leaves it out (docs/differences.md). rules:
    policy rules too."""

    def __init__(self, seed: int, *, mixed: bool = True, rules: bool = False) -> None:
        self.random = random.Random(seed)
        self._mixed, self.rules = mixed, rules

    def sequence(self) -> list[str]:
        return [self._command() for _ in range(self.random.randint(1, 8))]

    def _command(self) -> str:
        kinds = (self._route, self._route, self._route, self._multipath, self._delete, self._delete)
        kinds += (self._nexthop, self._nexthop, self._address, self._link, self._neighbour, self._group)
        kinds += (self._own, self._flush)
        if self.rules and self.random.random() < 0.4:
            return self._rule()
        return self.random.choice(kinds)()

    def _table(self) -> str:
        return self.random.choice(("", "", " table 100", " table 100", " table 101", " table 253"))

    def _rule(self) -> str:
        family, flag = self._family()
        if self.random.random() < 0.45:
            return f"{flag}rule del pref {self.random.randrange(1, 40)}"
        return f"{flag}rule add {random_rule(self.random, family)}"

    def _own(self) -> str:
        """AnyIP. Never all addresses: the kernel would take its askers' for its own."""
        family, flag = self._family()
        verb = self.random.choice(("add", "replace", "del", "del"))
        prefix = self.random.choice((FAR4 if family == 4 else FAR6)[:4])
        return (
            f"{flag}route {verb} local {prefix} dev lo table {self.random.choice(('local', 'local', '100'))}"
        )

    def _flush(self) -> str:
        _, flag = self._family()
        return f"{flag}route flush table {self.random.choice((100, 101, 253))}"

    def _prefix(self, family: int) -> str:
        return self.random.choice(FAR4 if family == 4 else FAR6)

    def _family(self) -> tuple[int, str]:
        family = self.random.choice((4, 6))
        return family, "-6 " if family == 6 else ""

    def _via(self, family: int, hop: str = "") -> str:
        number = self.random.randrange(3)
        host = self.random.randint(1, 4)
        gateway = f"10.{(0, 1, 9)[number]}.0.{host}" if family == 4 else f"2001:db8:{'abf'[number]}::{host}"
        if family == 4 and self.random.random() < 0.1:
            return f"via inet6 2001:db8:{'abf'[number]}::{host} dev {PORTS[number]}"
        how = self.random.random()
        if how < 0.1 and not hop:
            return f"dev {PORTS[number]}"
        return f"via {gateway} dev {PORTS[number]}" + (" onlink" if how > 0.9 and not hop else "")

    def _metric(self) -> str:
        return self.random.choice(("", "", "", " metric 5", " metric 50"))

    def _own_metric(self, family: int, metric: int) -> str:
        return self._metric() if family == 4 or self._mixed else f" metric {metric}"

    def _route(self) -> str:
        (family, flag), table = self._family(), self._table()
        verb = self.random.choice(("add", "add", "replace", "replace", "append", "prepend", "change"))
        if self.random.random() < 0.15:
            what = f"{self.random.choice(KINDS)} {self._prefix(family)}"
            return f"{flag}route {verb} {what}{self._own_metric(family, 9)}{table}"
        if self.random.random() < 0.25:
            number = self.random.choice((1, 2, 3, 20, 21)) + (100 if family == 6 else 0)
            return (
                f"{flag}route {verb} {self._prefix(family)} nhid {number}{self._own_metric(family, 8)}{table}"
            )
        more = self.random.choice(("", "", "", " mtu 1400", " proto static"))
        via = self._via(family)
        metric = self._own_metric(family, 10) if via.startswith("dev") else self._metric()
        return f"{flag}route {verb} {self._prefix(family)} {via}{more}{metric}{table}"

    def _multipath(self) -> str:
        family, flag = self._family()
        hops = " ".join(
            f"nexthop {self._via(family, 'hop')} weight {self.random.randint(1, 5)}"
            for _ in range(self.random.randint(2, 4))
        )
        verb = self.random.choice(("add", "replace", "append"))
        return f"{flag}route {verb} {self._prefix(family)}{self._own_metric(family, 7)}{self._table()} {hops}"

    def _delete(self) -> str:
        family, flag = self._family()
        which = self.random.choice(("", "", f" {self._via(family)}"))
        metric = self.random.choice(
            (self._metric(), self._own_metric(family, self.random.choice((7, 8, 9, 10))))
        )
        return f"{flag}route del {self._prefix(family)}{which}{metric}{self._table()}"

    def _nexthop(self) -> str:
        family, _ = self._family()
        number = self.random.randint(1, 3) + (100 if family == 6 else 0)
        how = self.random.random()
        if how < 0.3:
            return f"nexthop del id {number}"
        if how < 0.4:
            return f"{'-6 ' if family == 6 else ''}nexthop replace id {number} blackhole"
        return (
            f"nexthop replace id {number} {self._via(4 if family == 4 else 6, 'hop').replace('inet6 ', '')}"
        )

    def _group(self) -> str:
        base = self.random.choice((0, 100))
        members = "/".join(
            f"{base + number},{self.random.randint(1, 9)}"
            for number in (1, 2, 3)
            if self.random.random() < 0.7
        )
        number = base + self.random.choice((20, 21))
        if not members or self.random.random() < 0.2:
            return f"nexthop del id {number}"
        return f"nexthop replace id {number} group {members}"

    def _address(self) -> str:
        verb = self.random.choice(("add", "del"))
        port = self.random.choice(PORTS[:2])
        if self.random.random() < 0.5:
            return f"addr {verb} 10.5.0.{self.random.choice((1, 9))}/{self.random.choice((24, 28, 32))} dev {port}"
        if self.random.random() < 0.3:
            return f"addr {verb} {'10.0.0.254/24' if port == 'lan' else '10.1.0.254/24'} dev {port}"
        host, length = self.random.choice((1, 9)), self.random.choice((64, 128))
        return f"-6 addr {verb} 2001:db8:5::{host}/{length} dev {port} nodad"

    def _link(self) -> str:
        port = self.random.choice(PORTS)
        if self.random.random() < 0.5:
            return f"link set {port} up"
        return f"link set {port} " + self.random.choice(
            ("down", "up", "mtu 1400", "mtu 1500", "address 02:00:00:00:77:01")
        )

    def _neighbour(self) -> str:
        family, flag = self._family()
        address = (
            f"10.0.0.{self.random.randint(1, 4)}"
            if family == 4
            else f"2001:db8:a::{self.random.randint(1, 4)}"
        )
        if self.random.random() < 0.4:
            return f"{flag}neigh del {address} dev lan"
        state = self.random.choice(("reachable", "stale", "permanent", "noarp", "failed"))
        return f"{flag}neigh replace {address} dev lan lladdr 02:00:00:00:44:0{self.random.randint(1, 9)} nud {state}"


REPAIR = (
    "link set lan up", "link set wan up", "link set eth9 up",
    "addr replace 10.0.0.254/24 dev lan", "addr replace 10.1.0.254/24 dev wan", "addr replace 10.9.0.254/24 dev eth9",
    "-6 addr replace 2001:db8:a::fe/64 dev lan nodad", "-6 addr replace 2001:db8:b::fe/64 dev wan nodad",
    "-6 addr replace 2001:db8:f::fe/64 dev eth9 nodad",
    "addr flush to 10.5.0.0/16",
)  # fmt: skip


def do(commands: Sequence[str]) -> None:
    """In their order, one after another; what cannot be done is passed over."""
    batch: list[str] = []
    flag = ""
    for command in [*commands, ""]:
        its = "-6" if command.startswith("-6 ") else "-4"
        if batch and (its != flag or not command):
            text = "\n".join(batch)
            subprocess.run(
                ["ip", flag, "-force", "-batch", "-"], input=text, capture_output=True, text=True, check=False
            )
            batch = []
        flag = its
        if command:
            batch.append(command.removeprefix("-6 "))
