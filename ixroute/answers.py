"""What a running router answers on its control socket: schema.py's shapes, made from the parts."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import ixroute
from ixroute import schema
from ixroute.control import CommandError, Handler, Params
from ixroute.counters import totals, with_zeros
from ixroute.driver.port import Port
from ixroute.fib.adjacency import ADJ_ACTION_FORWARD, ADJ_ACTION_GROUP
from ixroute.fib.rib import Entry, NextHop, Path, Prefix
from ixroute.forward.reasons import BY_NAME, REASONS, Kind
from ixroute.forward.worker import CycleRate, add_port_counters
from ixroute.lookups import question, walk
from ixroute.netlink.contract import InterfaceState
from ixroute.netlink.resolve import Leg as Hop
from ixroute.parts import Parts

DEFAULT_PAGE = 1000
PROTOCOLS = {0x8100: "802.1Q", 0x88A8: "802.1ad"}


class Answers:
    """Handlers for ControlServer; they run in its thread. Everything of the RIB is read with the mirror standing still,
    a page at a time."""

    def __init__(self, parts: Parts, reload: Callable[[], str], resync: Callable[[], None]) -> None:
        self._parts = parts
        self._reload = reload
        self._resync = resync
        self._rate = CycleRate()

    def commands(self) -> dict[str, Handler]:
        return {
            "stats": lambda _: self.stats(),
            "ports": lambda _: [self._port(port) for port in self._parts.ports],
            "workers": lambda _: self._workers(),
            "routes": self.routes,
            "neighbors": lambda _: self._neighbors(),
            "adjacencies": lambda _: self._adjacencies(),
            "lookup": self.lookup,
            "rules": lambda _: self._rules(),
            "reload": lambda _: schema.Done(text=self._reload()),
            "resync": lambda _: self._resynced(),
        }

    # ---- counters

    def stats(self) -> schema.Stats:
        parts = self._parts
        ports = [self._port_stats(port) for port in parts.ports]
        return schema.Stats(
            schema=schema.SCHEMA,
            version=ixroute.__version__,
            uptime_s=round(time.monotonic() - parts.started, 3),
            time_ns=time.monotonic_ns(),
            ports=ports,
            sub_interfaces=[self._sub(*sub) for sub in parts.pairs.subs()],
            workers=self._workers(),
            fib=cast(schema.FibStats, parts.fib.stats()._asdict()),
            mirror=self._mirror(),
            totals=totals(ports),
        )

    def _port_stats(self, port: Port) -> schema.PortStats:
        cells: dict[str, Any] = {}
        for worker in self._parts.workers:
            add_port_counters(cells, worker.port_counters(port.index))
        cells["dropped"] = with_zeros(cells["dropped"], (r.name for r in REASONS if r.kind is Kind.DROP))
        for kind in ("punted", "policed"):
            cells[kind] = with_zeros(cells[kind], (r.name for r in REASONS if r.kind is Kind.PUNT))
        cells |= {
            "name": port.name,
            "index": port.index,
            "spec": port.spec,
            "up": self._parts.pairs.state(port.index).up,
            "link": self._link(port),
            "mtu": self._parts.pairs.state(port.index).mtu,
            "mac": self._parts.pairs.state(port.index).mac.hex(":"),
            "door": self._parts.door.counters(port.index),
            "driver": port.stats(),
        }
        return cast(schema.PortStats, cells)

    def _sub(self, sub: InterfaceState, counted: dict[str, int]) -> schema.SubInterfaceStats:
        return cast(
            schema.SubInterfaceStats,
            {
                "name": sub.name,
                "ifindex": sub.ifindex,
                "port": self._parts.ports[sub.port].name,
                "tags": [schema.Tag(protocol=PROTOCOLS[kind], id=vid) for kind, vid in sub.tags],
                "up": sub.state.up,
                "mtu": sub.state.mtu,
                "mac": sub.state.mac.hex(":"),
                **counted,
            },
        )

    def _workers(self) -> list[schema.WorkerStats]:
        hz = self._rate.hz()
        return [
            cast(
                schema.WorkerStats,
                {"number": worker.number, "core": core, "tsc_hz": hz, **worker.counters()},
            )
            for worker, core in zip(self._parts.workers, self._parts.cores, strict=True)
        ]

    def _mirror(self) -> schema.MirrorStats:
        status = self._parts.mirror.status()
        rib, stream = self._parts.rib.stats(), self._parts.stream.stats()
        resyncs = sum(status["resyncs"].values())
        state = "following" if status["synced"] else "starting"
        return schema.MirrorStats(
            synced=status["synced"],
            state=state if status["alive"] else "dead",
            routes4=rib.routes4,
            routes6=rib.routes6,
            paths=rib.paths,
            neighbors=status["neighbours"],
            managed=status["managed"],
            events=status["events"],
            resyncs=resyncs,
            resyncs_by_reason=status["resyncs"],
            resync_us=round(status["last_sync_ms"] * 1000),
            overruns=status["overruns"],
            malformed=stream.malformed + status["malformed"],
            drift=status["drift"],
            errors=status["errors"],
            failed=rib.failed,
            paths_exhausted=rib.paths_exhausted,
            rib_bytes=rib.bytes,
            policy_rules=status["policy_rules"],
        )

    # ---- tables

    def _port(self, port: Port) -> schema.Port:
        tap = self._parts.taps[port.index]
        features = port.features()
        return schema.Port(
            name=port.name,
            index=port.index,
            ifindex=tap.ifindex,
            spec=port.spec,
            up=self._parts.pairs.state(port.index).up,
            link=self._link(port),
            mtu=self._parts.pairs.state(port.index).mtu,
            mac=self._parts.pairs.state(port.index).mac.hex(":"),
            queues=port.n_queues,
            mode=str(features.get("mode", "")),
            zero_copy=bool(features.get("zero_copy", False)),
            features=features,
        )

    def _link(self, port: Port) -> schema.Link:
        link = self._parts.pairs.link(port.index)
        return schema.Link(up=link.up, speed_mbps=link.speed_mbps or 0)

    def routes(self, params: Params) -> schema.Routes:
        family, within = _integer(params, "family", 0), _prefix(params)
        limit = min(max(_integer(params, "limit", DEFAULT_PAGE), 1), schema.MAX_PAGE)
        found: list[schema.Route] = []
        with self._parts.mirror.locked():
            cursor = _integer(params, "cursor", 0)
            while len(found) < limit:
                entries, cursor = self._parts.rib.page(cursor, limit - len(found))
                found += [self._route(e) for e in entries if _wanted(e, family, within)]
                if not entries:
                    return schema.Routes(routes=found, next=None)
        return schema.Routes(routes=found, next=cursor)

    def _route(self, entry: Entry) -> schema.Route:
        route, path = entry.route, self._parts.rib.path(entry.path_id)
        return schema.Route(
            prefix=str(route.prefix),
            table=route.table,
            type=entry.type.name.lower(),
            metric=route.metric,
            tos=route.tos,
            protocol=route.protocol,
            nhid=path.nhid if path else 0,
            legs=self._legs(entry.path_id, path),
            adjacency=entry.path_id,
            best=entry.best,
        )

    def _legs(self, index: int, path: Path | None) -> list[schema.Leg]:
        """As the kernel told them. A nexthop object's own, as it is now: routes need not be told anew when it is
        replaced."""
        mirror = self._parts.mirror
        legs: Sequence[NextHop | Hop] = path.legs if path else ()
        if path is not None and path.nhid:
            legs = mirror.hops(index) or legs
        return [
            schema.Leg(
                dev=mirror.interface_name(leg.ifindex),
                gateway=str(ipaddress.ip_address(leg.gateway)) if leg.gateway else "",
                weight=leg.weight,
            )
            for leg in legs
        ]

    def _neighbors(self) -> list[schema.Neighbor]:
        return [
            schema.Neighbor(address=n.address, dev=n.interface, mac=n.mac, state=n.state, managed=n.managed)
            for n in self._parts.mirror.neighbours()
            if n.port is not None
        ]

    def _adjacencies(self) -> list[schema.Adjacency]:
        with self._parts.mirror.locked():
            ids = [i for i in range(self._parts.rib.path_limit) if self._parts.rib.path_routes(i)]
            return [self._adjacency(i) for i in ids]

    def _adjacency(self, index: int) -> schema.Adjacency:
        found = self._parts.adjacencies.get(index)
        forwards = found.action == ADJ_ACTION_FORWARD
        port, interface = self._way_out(found.interface) if forwards else ("", "")
        buckets, group = self._group(index) if found.action == ADJ_ACTION_GROUP else (0, [])
        return schema.Adjacency(
            index=index,
            action=_action(found.action),
            port=port,
            interface=interface,
            mac=found.mac.hex(":") if forwards else "",
            mtu=found.mtu,
            routes=self._parts.rib.path_routes(index),
            legs=self._legs(index, self._parts.rib.path(index)),
            group=group,
            buckets=buckets,
        )

    def _way_out(self, number: int) -> tuple[str, str]:
        """Names of the port and of the interface that has a number in the dataplane; empty when none has."""
        return self._parts.pairs.interface(number) or ("", "")

    def _group(self, index: int) -> tuple[int, list[schema.GroupLeg]]:
        """Buckets, and next hops as the table that packets read has them, each once; their names are the mirror's."""
        written, read = self._parts.mirror.group(index), self._parts.adjacencies.get_group(index)
        if written is None or read is None:
            return 0, []
        buckets = Counter(written.hops[position] for position in read.buckets or ())
        weights: Counter[Hop] = Counter()
        for hop, leg in zip(written.hops, read.legs, strict=True):
            weights[hop] += leg.weight
        parts = buckets if read.buckets else weights
        legs = dict(zip(written.hops, read.legs, strict=True))
        group = []
        for hop, leg in legs.items():
            forwards = leg.action == ADJ_ACTION_FORWARD
            port, interface = self._way_out(leg.interface) if forwards else ("", "")
            group.append(
                schema.GroupLeg(
                    dev=self._parts.mirror.interface_name(hop.ifindex),
                    gateway=str(ipaddress.ip_address(hop.gateway)),
                    action=_action(leg.action),
                    port=port,
                    interface=interface,
                    mac=leg.mac.hex(":") if forwards else "",
                    mtu=leg.mtu,
                    weight=weights[hop],
                    share=round(parts[hop] / parts.total(), 6),
                    buckets=buckets[hop],
                )
            )
        return len(read.buckets or ()), group

    def _rules(self) -> schema.Rules:
        rules, programs = self._parts.mirror.rules()
        return schema.Rules(
            rules=[
                schema.Rule(
                    family=rule.family,
                    priority=rule.priority,
                    text=rule.text,
                    state=rule.state,
                    why=rule.why,
                    interfaces=list(rule.interfaces),
                )
                for rule in rules
            ],
            programs=[
                schema.Program(
                    interface=program.interface,
                    family=program.family,
                    steps=list(program.steps),
                    same_source=program.same_source,
                )
                for program in programs
            ],
        )

    def lookup(self, params: Params) -> schema.Lookup:
        asked = question(params)
        with self._parts.mirror.locked():
            found = walk(asked, self._parts.mirror, self._parts.rib)
            adjacency, answer, route = self._adjacency(found.index), found.answer, None
            if answer.route is not None and answer.type is not None:
                route = self._route(Entry(answer.route, answer.index, True, answer.type))
        action = _verdict(adjacency)
        reason = BY_NAME.get(action)
        verdict = "forward" if reason is None else reason.kind.name.lower()
        return schema.Lookup(
            address=asked.address,
            verdict=verdict,
            reason="" if reason is None else action,
            prefix=str(answer.prefix) if answer.prefix is not None else "",
            route=route,
            neighbor=answer.neighbour,
            adjacency=adjacency,
            text=reason.text if reason is not None else "",
            table=found.table,
            step=found.step,
            program=found.program,
        )

    def _resynced(self) -> schema.Done:
        self._resync()
        return schema.Done(text="the kernel's tables are being read anew")


def _action(number: int) -> str:
    names = {ADJ_ACTION_FORWARD: "forward", ADJ_ACTION_GROUP: "group"}
    return names.get(number) or REASONS[number - 1].name


def _verdict(adjacency: schema.Adjacency) -> str:
    """What becomes of packets: a group forwards when any of its legs does."""
    actions = [leg["action"] for leg in adjacency["group"]] or [adjacency["action"]]
    return "forward" if "forward" in actions else actions[0]


def _integer(params: Params, key: str, default: int) -> int:
    value = params.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise CommandError(f"{key} must be a whole number, not {value!r}")
    return value


def _prefix(params: Params) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    text = params.get("prefix") or ""
    try:
        return ipaddress.ip_network(str(text)) if text else None
    except ValueError as error:
        raise CommandError(str(error)) from None


def _wanted(entry: Entry, family: int, within: ipaddress.IPv4Network | ipaddress.IPv6Network | None) -> bool:
    prefix: Prefix = entry.route.prefix
    if family and prefix.family != family:
        return False
    if within is None:
        return True
    covers = within.network_address.packed
    return (
        len(prefix.addr) == len(covers)
        and prefix.length >= within.prefixlen
        and ipaddress.ip_address(prefix.addr) in within
    )
