"""The statistics in Prometheus's text format (version 0.0.4). Served by prometheus_listener.py.

Metric names and their meaning: docs/stats-json.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ixroute.schema import PortStats, Stats, SubInterfaceStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, object], float]
Family = tuple[str, str, str, list[Sample]]  # name, type, help, samples


def render(stats: Stats) -> str:
    """One answer to `stats` as the text of a scrape."""
    lines: list[str] = []
    for name, kind, text, samples in _families(stats):
        lines += [f"# HELP {name} {_escape_help(text)}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape_label(str(value))}"' for name, value in labels.items()) + "}"


def _escape_label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _one(value: float) -> list[Sample]:
    return [({}, value)]


def _families(stats: Stats) -> Iterator[Family]:
    """Every family is one block, as the format demands."""
    yield "ixroute_info", "gauge", "Version of the daemon.", [({"version": stats["version"]}, 1)]
    yield "ixroute_uptime_seconds", "gauge", "Since the daemon began.", _one(stats["uptime_s"])
    yield from _port_families(stats["ports"])
    yield from _sub_families(stats.get("sub_interfaces", []))
    yield from _worker_families(stats)
    yield from _table_families(stats)


_PORT_GAUGES: tuple[tuple[str, str, Callable[[PortStats], float]], ...] = (
    ("up", "1 when the interface is up.", lambda p: p["up"]),
    ("link_up", "1 when the wire has a link.", lambda p: p["link"]["up"]),
    ("link_bits_per_second", "Speed of the link; 0: not known.", lambda p: p["link"]["speed_mbps"] * 1e6),
    ("mtu_bytes", "Largest IP packet that may leave.", lambda p: p["mtu"]),
)
_SUB_COUNTERS = (
    ("rx_packets", "receive_packets", "Packets received on a VLAN sub-interface."),
    ("rx_bytes", "receive_bytes", "Bytes received on a VLAN sub-interface, tags included."),
    ("tx_packets", "transmit_packets", "Packets handed to the wire by a VLAN sub-interface."),
    ("tx_bytes", "transmit_bytes", "Bytes handed to the wire by a VLAN sub-interface, tags included."),
    ("sent_packets", "sent_packets", "Packets that came in by a VLAN sub-interface and left by any."),
    ("punted", "punted", "Packets of a VLAN sub-interface given to the kernel."),
    ("policed", "policed", "Packets of a VLAN sub-interface that the kernel was spared by a token bucket."),
    ("dropped", "dropped", "Packets of a VLAN sub-interface dropped."),
)
# (key in the JSON, metric, help)
_PORT_COUNTERS = (
    ("rx_packets", "receive_packets", "Packets received from the wire."),
    ("rx_bytes", "receive_bytes", "Bytes received from the wire, Ethernet header included, FCS not."),
    ("tx_packets", "transmit_packets", "Packets handed to the wire."),
    ("tx_bytes", "transmit_bytes", "Bytes handed to the wire, Ethernet header included, FCS not."),
    ("injected_packets", "injected_packets", "Packets that the kernel sent by the port's interface."),
    ("injected_bytes", "injected_bytes", "Bytes that the kernel sent by the port's interface."),
    ("sent_packets", "sent_packets", "Packets that came in by this port and left by any."),
)
_PORT_REASONS = (
    ("punted", "Packets given to the kernel, by reason."),
    ("policed", "Packets that the kernel was spared by a reason's token bucket."),
    ("dropped", "Packets dropped, by reason."),
)


def _port_families(ports: list[PortStats]) -> Iterator[Family]:
    info: list[Sample] = [({"port": p["name"], "spec": p["spec"], "mac": p["mac"]}, 1) for p in ports]
    yield "ixroute_port_info", "gauge", "A port and its device.", info
    for metric, text, value in _PORT_GAUGES:
        yield f"ixroute_port_{metric}", "gauge", text, [({"port": p["name"]}, value(p)) for p in ports]
    for key, metric, text in _PORT_COUNTERS:
        counts: list[Sample] = [({"port": p["name"]}, p[key]) for p in ports]  # type: ignore[literal-required]
        yield f"ixroute_port_{metric}_total", "counter", text, counts
    for key, text in _PORT_REASONS:
        by_reason = [(p["name"], reason, n) for p in ports for reason, n in p[key].items()]  # type: ignore[literal-required]
        samples: list[Sample] = [({"port": port, "reason": why}, n) for port, why, n in by_reason]
        yield f"ixroute_port_{key}_packets_total", "counter", text, samples
    for key, text in (("door", "The kernel's door"), ("driver", "The driver")):
        named = [(p["name"], counter, n) for p in ports for counter, n in p[key].items()]  # type: ignore[literal-required]
        yield (
            f"ixroute_port_{key}_total",
            "counter",
            f"{text}, by its own counters' names.",
            [({"port": port, "counter": counter}, n) for port, counter, n in named],
        )


def _sub_families(subs: list[SubInterfaceStats]) -> Iterator[Family]:
    """None without sub-interfaces."""
    for key, metric, text in _SUB_COUNTERS if subs else ():
        samples: list[Sample] = [({"port": s["port"], "interface": s["name"]}, s[key]) for s in subs]  # type: ignore[literal-required]
        yield f"ixroute_vlan_{metric}_total", "counter", text, samples


def _worker_families(stats: Stats) -> Iterator[Family]:
    labels = [{"worker": worker["number"], "core": worker["core"]} for worker in stats["workers"]]

    def each(values: Iterable[float]) -> list[Sample]:
        return list(zip(labels, values, strict=True))

    workers = stats["workers"]
    for key, text in (
        ("packets", "Packets taken, from the wire and from the kernel."),
        ("polls", "Passes over all queues."),
        ("busy_polls", "Passes that had packets."),
        ("busy_cycles", "Time-stamp counter cycles in passes that had packets."),
        ("sleeps", "Times it went to sleep."),
        ("rx_no_frame", "Times a receive ring could not be filled since no frame was free."),
    ):
        counts = each(worker[key] for worker in workers)  # type: ignore[literal-required]
        yield f"ixroute_worker_{key}_total", "counter", text, counts
    busy = each(w["busy_cycles"] / w["tsc_hz"] if w["tsc_hz"] else 0.0 for w in workers)
    yield "ixroute_worker_busy_seconds_total", "counter", "Time in passes that had packets.", busy
    free = each(worker["free_frames"] for worker in workers)
    yield "ixroute_worker_free_frames", "gauge", "Frames that hold no packet.", free


def _table_families(stats: Stats) -> Iterator[Family]:
    fib, mirror, total = stats["fib"], stats["mirror"], stats["totals"]

    def families(v4: float, v6: float) -> list[Sample]:
        return [({"family": "ipv4"}, v4), ({"family": "ipv6"}, v6)]

    prefixes = families(fib["prefixes4"], fib["prefixes6"])
    yield "ixroute_fib_prefixes", "gauge", "Prefixes that packets see.", prefixes
    lookups = families(fib["lookup_bytes4"], fib["lookup_bytes6"])
    yield "ixroute_fib_lookup_bytes", "gauge", "Memory that lookups can touch.", lookups
    yield "ixroute_fib_update_bytes", "gauge", "Memory for updates.", _one(fib["update_bytes"])
    yield (
        "ixroute_fib_retired_bytes",
        "gauge",
        "Memory waiting for readers to pass.",
        _one(fib["retired_bytes"]),
    )
    yield "ixroute_fib_updates_total", "counter", "Changes to the FIB.", _one(fib["updates"])
    yield (
        "ixroute_mirror_synced",
        "gauge",
        "1 once the kernel's tables have been read.",
        _one(mirror["synced"]),
    )
    routes = families(mirror["routes4"], mirror["routes6"])
    yield "ixroute_mirror_routes", "gauge", "Routes that the kernel has told of.", routes
    yield "ixroute_mirror_neighbors", "gauge", "Neighbours known.", _one(mirror["neighbors"])
    for key, text in (
        ("resyncs", "Dumps of the kernel's tables finished."),
        ("overruns", "Times the kernel threw messages away."),
        ("malformed", "Messages that could not be understood."),
        ("drift", "Entries that a background dump found different."),
        ("failed", "Routes that a FIB refused."),
    ):
        value: int = mirror[key]  # type: ignore[literal-required]
        yield f"ixroute_mirror_{key}_total", "counter", text, _one(value)
    flight = _one(total["in_flight"])
    yield "ixroute_packets_in_flight", "gauge", "Packets without a verdict yet, over all ports.", flight
