"""`ixroute stats` as text: from one or two answers of the daemon to lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from ixroute.present import Style, count, duration, rate, size, speed, table
from ixroute.schema import Port, PortStats, Stats, SubInterfaceStats, Tag, Totals, WorkerStats

# Of the door's and the driver's counters only trouble is shown; all of them are in the JSON.
_DOOR_TROUBLE = ("write_failed", "read_failed", "read_too_long")
# By word, since every driver has its own names. A transmit ring that is empty is no trouble.
_DRIVER_TROUBLE = (
    "drop",
    "error",
    "full",
    "invalid",
    "missed",
    "refused",
    "bad",
    "no_frame",
    "fill_ring_empty",
)
_QUEUE_COUNTER = re.compile(r"(rx|tx)_queue_(\d+)_(\w+)")
_VERDICTS = ("dropped", "policed", "punted")


def render(now: Stats, before: Stats | None, style: Style) -> list[str]:
    """The whole view. With `before`, an earlier answer of the same daemon, rates stand beside the totals."""
    if before is not None and not _continues(before, now):
        before = None
    view = _View(now, before, style)
    blocks = [
        view.head(),
        view.ports(),
        view.subs(),
        view.queues(),
        view.reasons(),
        view.trouble(),
        view.workers(),
        view.tables(),
    ]
    return [line for block in blocks if block for line in [*block, ""]][:-1]


def _continues(before: Stats, now: Stats) -> bool:
    """Whether both are of one run of one daemon, in this order, with time between them."""
    return now["time_ns"] > before["time_ns"] and now["uptime_s"] >= before["uptime_s"]


def link_word(port: Port | PortStats) -> str:
    """One word on a port's state: its speed when it is up."""
    if not port["up"]:
        return "off"
    return speed(port["link"]["speed_mbps"]) if port["link"]["up"] else "no link"


class _View:
    def __init__(self, now: Stats, before: Stats | None, style: Style) -> None:
        self.now = now
        self.style = style
        self.seconds = (now["time_ns"] - before["time_ns"]) / 1e9 if before else 0.0
        self.old_ports = {port["name"]: port for port in before["ports"]} if before else {}
        self.old_subs = _subs(before) if before else {}
        self.old_workers = {worker["number"]: worker for worker in before["workers"]} if before else {}

    def _per_second(self, now: int, before: int) -> str:
        return rate(max(0, now - before) / self.seconds)

    def head(self) -> list[str]:
        now = self.now
        return [
            f"ixroute {now['version']}, up {duration(now['uptime_s'])}, "
            f"{_of(len(now['ports']), 'port')}, {_of(len(now['workers']), 'worker')}"
        ]

    def ports(self) -> list[str]:
        totals = ["RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "TO KERNEL", "FROM KERNEL", "DROPPED"]
        rates = ["RX PPS", "RX BIT/S", "TX PPS", "TX BIT/S"] if self.seconds else []
        rows = []
        for port in self.now["ports"]:
            row = [port["name"], link_word(port)]
            if self.seconds:
                row += self._port_rates(port, self.old_ports.get(port["name"], port))
            for packets, octets in (("rx_packets", "rx_bytes"), ("tx_packets", "tx_bytes")):
                row += [count(port[packets]), size(port[octets])]  # type: ignore[literal-required]
            lost = sum(port["dropped"].values()) + sum(port["policed"].values())
            row += [count(sum(port["punted"].values())), count(port["injected_packets"]), count(lost)]
            rows.append(row)
        return table(["PORT", "LINK", *rates, *totals], rows, self.style, left=2)

    def _port_rates(
        self, port: PortStats | SubInterfaceStats, old: PortStats | SubInterfaceStats
    ) -> list[str]:
        return [
            self._per_second(port["rx_packets"], old["rx_packets"]),
            self._per_second(port["rx_bytes"] * 8, old["rx_bytes"] * 8),
            self._per_second(port["tx_packets"], old["tx_packets"]),
            self._per_second(port["tx_bytes"] * 8, old["tx_bytes"] * 8),
        ]

    def subs(self) -> list[str]:
        """VLAN sub-interfaces, as far as packets did not go through the kernel."""
        head = ["RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "TO KERNEL", "DROPPED"]
        rates = ["RX PPS", "RX BIT/S", "TX PPS", "TX BIT/S"] if self.seconds else []
        rows = []
        for key, sub in _subs(self.now).items():
            row = [sub["name"], sub["port"], " ".join(_tag_word(tag) for tag in sub["tags"])]
            if self.seconds:
                row += self._port_rates(sub, self.old_subs.get(key, sub))
            row += [count(sub["rx_packets"]), size(sub["rx_bytes"])]
            row += [count(sub["tx_packets"]), size(sub["tx_bytes"])]
            rows.append([*row, count(sub["punted"]), count(sub["dropped"] + sub["policed"])])
        return table(["VLAN", "PORT", "TAGS", *rates, *head], rows, self.style, left=3) if rows else []

    def queues(self) -> list[str]:
        """What cards with counters for each queue counted: how packets are spread, and where room ran out."""
        kinds = ("rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes")
        head = ["RX PACKETS", "RX BYTES", "NO ROOM", "TX PACKETS", "TX BYTES"]
        rates = ["RX PPS", "TX PPS"] if self.seconds else []
        rows = []
        for port in self.now["ports"]:
            old = _queues(self.old_ports.get(port["name"], port))
            for number, queue in _queues(port).items():
                row = [port["name"], str(number)]
                if self.seconds:
                    before = old.get(number, queue)
                    row += [self._per_second(queue[key], before[key]) for key in ("rx_packets", "tx_packets")]
                row += [size(queue[key]) if "bytes" in key else count(queue[key]) for key in kinds]
                rows.append(row)
        return table(["CARD", "QUEUE", *rates, *head], rows, self.style, left=2) if rows else []

    def reasons(self) -> list[str]:
        """What was not simply sent on, and why: non-zero counts, the largest first."""
        found = [
            (verdict, -n, port, reason)
            for port in self.now["ports"]
            for verdict in _VERDICTS
            for reason, n in self._reason_counts(port, verdict).items()
            if n
        ]
        rows = []
        for verdict, minus_n, port, reason in sorted(
            found, key=lambda f: (_VERDICTS.index(f[0]), f[1], f[2]["index"])
        ):
            old = self._reason_counts(self.old_ports.get(port["name"], port), verdict).get(reason, 0)
            rows.append([verdict, reason, port["name"], *self._counted(-minus_n, old)])
        return (
            table(["VERDICT", "REASON", "PORT", *self._count_head()], rows, self.style, left=3)
            if rows
            else []
        )

    @staticmethod
    def _reason_counts(port: PortStats, verdict: str) -> Mapping[str, int]:
        counts: Mapping[str, int] = port[verdict]  # type: ignore[literal-required]
        return counts

    def _count_head(self) -> list[str]:
        return ["PER SECOND", "PACKETS"] if self.seconds else ["PACKETS"]

    def _counted(self, now: int, before: int) -> list[str]:
        return [self._per_second(now, before), count(now)] if self.seconds else [count(now)]

    def trouble(self) -> list[str]:
        """Counters of the kernel's door and the driver that should stay 0."""
        rows = []
        for port in self.now["ports"]:
            old = self.old_ports.get(port["name"], port)
            for name, n, before in self._trouble_counts(port, old):
                if n:
                    rows.append([name, port["name"], *self._counted(n, before)])
        head = [*self._count_head()[:-1], "TIMES"]
        return table(["TROUBLE", "PORT", *head], rows, self.style, left=2) if rows else []

    @staticmethod
    def _trouble_counts(port: PortStats, old: PortStats) -> Iterator[tuple[str, int, int]]:
        for name in _DOOR_TROUBLE:
            yield f"kernel {name}", port["door"].get(name, 0), old["door"].get(name, 0)
        for name, n in port["driver"].items():
            if not _QUEUE_COUNTER.fullmatch(name) and any(word in name for word in _DRIVER_TROUBLE):
                yield f"driver {name}", n, old["driver"].get(name, 0)

    def workers(self) -> list[str]:
        head = [
            "WORKER",
            "CORE",
            "BUSY",
            *(["PPS"] if self.seconds else []),
            "CYCLES/PACKET",
            "PACKETS",
            "SLEEPS",
            "FREE FRAMES",
        ]
        rows = []
        for worker in self.now["workers"]:
            old = self.old_workers.get(worker["number"])
            busy, cycles = _busy(worker, old, self.seconds or self.now["uptime_s"])
            pps = [self._per_second(worker["packets"], old["packets"] if old else 0)] if self.seconds else []
            core = str(worker["core"]) if worker["core"] >= 0 else "any"
            totals = [count(worker["packets"]), count(worker["sleeps"]), count(worker["free_frames"])]
            rows.append([str(worker["number"]), core, busy, *pps, cycles, *totals])
        return table(head, rows, self.style, left=2) if rows else []

    def tables(self) -> list[str]:
        fib, mirror = self.now["fib"], self.now["mirror"]
        lookups = size(fib["lookup_bytes4"] + fib["lookup_bytes6"])
        state = self.style.green(mirror["state"]) if mirror["synced"] else self.style.yellow(mirror["state"])
        return [
            f"FIB      {count(fib['prefixes4'])} IPv4 and {count(fib['prefixes6'])} IPv6 prefixes; "
            f"{lookups} for lookups, {size(fib['update_bytes'])} for updates",
            f"Mirror   {state}; {count(mirror['routes4'])} IPv4 and {count(mirror['routes6'])} IPv6 routes, "
            f"{count(mirror['neighbors'])} neighbours; {_of(mirror['resyncs'], 'dump')}, "
            f"{_of(mirror['overruns'], 'overrun')}, {count(mirror['drift'])} found by audits",
            *(f"Kernel   follows {rule}" for rule in mirror["policy_rules"]),
            f"Packets  {_equation(self.now['totals'])}",
        ]


def _subs(stats: Stats) -> dict[tuple[str, int], SubInterfaceStats]:
    """By name and ifindex; none in the answer of an older daemon."""
    return {(sub["name"], sub["ifindex"]): sub for sub in stats.get("sub_interfaces", [])}


def _tag_word(tag: Tag) -> str:
    return str(tag["id"]) if tag["protocol"] == "802.1Q" else f"ad:{tag['id']}"


def _queues(port: PortStats) -> dict[int, Counter[str]]:
    """By queue, what the card counted: "rx_packets", "tx_bytes", …; nothing when it does not count by queue."""
    found: dict[int, Counter[str]] = {}
    for name, n in port["driver"].items():
        if match := _QUEUE_COUNTER.fullmatch(name):
            way, number, what = match.groups()
            found.setdefault(int(number), Counter())[f"{way}_{what}"] = n
    return dict(sorted(found.items()))


def _of(number: int, thing: str) -> str:
    return f"{count(number)} {thing}{'s' * (number != 1)}"


def _equation(total: Totals) -> str:
    """Conservation: every packet has one verdict."""
    left = [("rx", "rx"), ("injected", "injected")]
    right = [(word, word) for word in ("sent", "punted", "dropped", "policed")]
    if total["in_flight"]:
        right.append(("in flight", "in_flight"))
    sides = (" + ".join(f"{word} {count(total[key])}" for word, key in side) for side in (left, right))  # type: ignore[literal-required]
    return " = ".join(sides)


def _busy(now: WorkerStats, old: WorkerStats | None, seconds: float) -> tuple[str, str]:
    """Share of time and cycles per packet, since `old` or since the start."""
    cycles = now["busy_cycles"] - (old["busy_cycles"] if old else 0)
    packets = now["packets"] - (old["packets"] if old else 0)
    ticks = now["tsc_hz"] * seconds
    share = f"{min(100.0, 100 * cycles / ticks):.1f}%" if ticks > 0 else "?"
    return share, f"{cycles / packets:.0f}" if packets > 0 else "-"
