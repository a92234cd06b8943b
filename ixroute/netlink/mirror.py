"""The mirror: the kernel's tables, followed.

One thread: subscribe, dump, replay what came meanwhile, then follow. Each pass of its loop receives a bounded
number of events, dumps if a dump is due, resolves the paths that were touched and tells the router what
changed.

Invariants:
  * Nothing that happens in here ends the thread: errors are counted, said once, and tried again.
  * Route events are applied before a dump begins and after it ended, never during it.
  * A path's adjacency is written before the thread sleeps again.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ixroute.netlink import sockets
from ixroute.netlink.asker import Asker
from ixroute.netlink.contract import (
    Actions,
    AdjacenciesLike,
    NeighbourView,
    Port,
    ProgramView,
    RibLike,
    RuleView,
    Sink,
    StreamLike,
)
from ixroute.netlink.describe import describe_path, neighbour_views
from ixroute.netlink.dumps import Dumper, explain
from ixroute.netlink.follow import Follower
from ixroute.netlink.gateways import GatewayKeeper, stale_in_use
from ixroute.netlink.paths import Known, PathIndex
from ixroute.netlink.ports import Announcer
from ixroute.netlink.programs import Programs
from ixroute.netlink.resolve import Adjacency, Group, Leg, flatten, resolve
from ixroute.netlink.resync import ResyncPlan, Scope
from ixroute.netlink.wanted import gateway_of_path, wanted_gateways

log = logging.getLogger("ixroute.netlink")

MOST_DATAGRAMS = 256  # of links and of neighbours per pass: routes wait no longer than that
MOST_ROUTE_DATAGRAMS = 4096
MOST_PATHS = 8192  # resolved per pass, and no longer than PATHS_S: a path may have hundreds of legs
PATHS_S = 0.25
PATHS_AT_ONCE = 64
TICK_S = 1.0
REOPEN_S = 1.0
PASS_S = (
    0.002  # passes are no closer together: a stream of events is received by the dozen, a single one at once
)
SAY_AGAIN_S = 60.0


class Mirror:
    """Keeps RIB, FIB and adjacencies equal to the kernel's tables, from one thread of its own.

    rib, stream and adjacencies are the caller's and must outlive stop(); while the mirror runs nobody else
    may touch them except under `locked()`.
    watch: names of interfaces whose link changes the sink wants (Sink.on_link).
    audit_s: seconds between background dumps that look for drift; 0: none.
    buffer_bytes: of each event socket.
    ValueError when two ports share an index or a TAP.
    """

    def __init__(
        self,
        rib: RibLike,
        stream: StreamLike,
        adjacencies: AdjacenciesLike,
        *,
        ports: Sequence[Port],
        actions: Actions,
        sink: Sink,
        watch: Sequence[str] = (),
        audit_s: float = 300.0,
        buffer_bytes: int = sockets.RECEIVE_BUFFER_BYTES,
    ) -> None:
        if len({port.index for port in ports}) < len(ports) or len({port.tap for port in ports}) < len(ports):
            raise ValueError("two ports share an index or the name of a TAP")
        self._rib = rib
        self._stream = stream
        self._table = adjacencies
        self._actions = actions
        self._sink = sink
        self._audit_s = audit_s
        self._buffer_bytes = buffer_bytes
        self._lock = threading.RLock()
        self._readers = 0
        self._stopping = threading.Event()
        self._synced = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._events: dict[str, socket.socket] = {}
        self._asked: list[str] = []  # reasons given to resync()
        self._next_pass = 0.0
        self._next_tick = 0.0
        self._passes = 0
        self._next_audit = 0.0
        self._paths_changed = True
        self._failed_paths: set[int] = set()  # to be tried again at the next tick
        self._announce_failed = False
        self._said: dict[str, float] = {}
        self._counts = {"events": 0, "overruns": 0, "drift": 0, "errors": 0, "reopened": 0}
        self._rib_stats: dict[str, int] = {}
        self.plan = ResyncPlan()
        self.paths = PathIndex()
        self.follower = Follower(rib, ports, self.paths, self.plan)
        self._dumper = Dumper(
            follower=self.follower,
            rib=rib,
            stream=stream,
            plan=self.plan,
            drain=self._receive_all_routes,
            dump=sockets.dump,
        )
        self._asker = Asker(self._asking_failed)
        self.gateways = GatewayKeeper(self._asker.ask)
        self._announcer = Announcer(ports, watch, sink, self._tell)
        self.programs = Programs(rib, actions, sink, self._tell)

    # ---- what others call ----

    def start(self) -> None:
        """Opens the sockets (OSError when that fails: nothing could be followed) and starts the thread. The
        first dump is under way when it returns; wait_synced() waits for it."""
        self._open()
        self._write_reserved()
        self._thread = threading.Thread(target=self._run, name="ixroute-mirror", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the thread, takes back the managed marks that this mirror set, closes the sockets.
        Idempotent."""
        self._stopping.set()
        self._wake_up()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None
            with self._lock:
                self.gateways.unmark_all(self.follower.tables.neighbours)
                self._asker.close()
        self._close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def wait_synced(self, timeout: float) -> bool:
        """True as soon as the first complete dump is in the FIB."""
        return self._synced.wait(timeout)

    def resync(self, reason: str = "asked") -> None:
        """Wants a fresh dump of everything (SIGHUP). From any thread or signal handler; returns at once."""
        self._asked.append(reason)
        self._wake_up()

    @property
    def passes(self) -> int:
        """Its heartbeat: moves at least every second or so, a long dump apart, as long as the thread lives."""
        return self._passes

    def status(self) -> dict[str, Any]:
        """Counters and state, plain values; never waits."""
        tables = self.follower.tables
        return {
            "synced": self._synced.is_set(),
            "alive": self._thread is not None and self._thread.is_alive(),
            "last_sync_ms": round(self.plan.last_ms, 3),
            "resyncs": dict(self.plan.counts),
            "failed_resyncs": self.plan.failures,
            **self._counts,
            "malformed": self.follower.malformed,
            "taps_lost": self.follower.taps_lost,
            "links": len(tables.links),
            "sub_interfaces": len(tables.interfaces) - len(tables.ports),
            "sub_interfaces_refused": self.follower.interfaces.refused,
            "neighbours": len(tables.neighbours),
            "nexthops": len(tables.nexthops),
            "paths": len(self.paths),
            "managed": self.gateways.count,
            "refused_requests": self._asker.failed,
            "policy_rules": list(self.programs.punting),
            **self._rib_stats,
        }

    def neighbours(self) -> list[NeighbourView]:
        """For `show neighbors`, sorted by interface and address."""
        with self.locked():
            return neighbour_views(self.follower.tables, self.follower.interfaces)

    def rules(self) -> tuple[list[RuleView], list[ProgramView]]:
        """For `show rules`: each rule and what becomes of it, in the kernel's order, and what each interface looks
        up for it."""
        with self.locked():
            return self.programs.rule_views(), list(self.programs.program_views())

    def vrf_table(self, name: str) -> int:
        """A VRF's table. KeyError: there is no such VRF. Under locked()."""
        link = self.follower.tables.links.by_name(name)
        if link is None or not link.vrf_table:
            raise KeyError(name)
        return link.vrf_table

    def describe(self, index: int) -> str:
        """Next hops of an adjacency for people: "via 10.0.0.1 dev lan"."""
        with self.locked():
            return describe_path(index, self.paths.get(index), self.follower.tables)

    def group(self, index: int) -> Group | None:
        """The legs of an adjacency that is several next hops, as they were written last. Under locked()."""
        known = self.paths.get(index)
        return known.adjacency if known is not None and isinstance(known.adjacency, Group) else None

    def hops(self, index: int) -> tuple[Leg, ...]:
        """The next hops of an adjacency: of a nexthop object those that it has now, whatever its routes said once.
        Empty when there are none, or they are not known. Under locked()."""
        known = self.paths.get(index)
        return known.route.legs if known is not None else ()

    def interface_name(self, ifindex: int) -> str:
        """An interface's name, or its number in text when it has none (any more). Under locked()."""
        return self.follower.tables.links.name(ifindex)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The mirror stands still: for RIB lookups from another thread. Keep it short."""
        self._readers += 1  # the thread makes room between two passes
        try:
            with self._lock:
                yield
        finally:
            self._readers -= 1

    # ---- the thread ----

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._pass()
            except Exception as error:  # whatever it is: forwarding goes on, and so must following
                self._error("pass", "the mirror stumbled, all is dumped again", error)
                with self._lock:
                    self.plan.want(Scope.ALL, "error")
                self._stopping.wait(REOPEN_S)

    def _pass(self) -> None:
        if not self._events:
            self._reopen()
        self._wait()
        pause = max(self._next_pass - time.monotonic(), 0.001 if self._readers else 0.0)
        if pause > 0:
            time.sleep(pause)
        with self._lock:
            self._passes += 1
            now = time.monotonic()
            self._next_pass = now + PASS_S
            self._take_asked()
            self._receive()
            self.update_paths()  # what has died stops forwarding before a dump takes its time
            if self._synced.is_set():
                self._announce()  # a new sub-interface's packets wait for it, or are lost
            if self.plan.wait(now) == 0.0:
                self._resync()
                self.update_paths()
            self._tick(time.monotonic())
            self._rib.settle()
            self._announce()
            if not self._synced.is_set() and self.plan.counts["start"] and not self._behind:
                self._synced.set()

    @property
    def _behind(self) -> bool:
        """Something known is not yet where packets see it."""
        return bool(self.paths.dirty or self._announce_failed)

    def _wait(self) -> None:
        """Sleeps until a socket or the eventfd is readable, or something is due."""
        now = time.monotonic()
        busy = self.paths.dirty or self._asked or self.gateways.urgent
        due = [self._next_tick - now, 0.0 if busy else TICK_S]
        wait = self.plan.wait(now)
        if wait is not None:
            due.append(wait)
        with selectors.DefaultSelector() as selector:
            for sock in (*self._events.values(), *self._asker.sockets()):
                selector.register(sock, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            selector.select(max(0.0, min(due)))

    def _take_asked(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._asked:
            self.plan.want(Scope.ALL, self._asked.pop(0))

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # ---- receiving ----

    def _open(self) -> None:
        """All or none: after this everything the kernel changes is either announced on a socket or in the
        dump."""
        opened: dict[str, socket.socket] = {}
        groups = {
            "state": sockets.STATE_GROUPS,
            "neighbours": sockets.NEIGHBOUR_GROUPS,
            "routes": sockets.ROUTE_GROUPS,
        }
        try:
            for name, members in groups.items():
                opened[name] = sockets.open_events(members, self._buffer_bytes)
        except OSError:
            for sock in opened.values():
                sock.close()
            raise
        self._events = opened
        self.plan.want(Scope.ALL, "reopened" if self._synced.is_set() else "start")

    def _close(self) -> None:
        for sock in self._events.values():
            sock.close()
        self._events = {}

    def _reopen(self) -> None:
        try:
            self._open()
        except OSError as error:
            self._error("open", f"netlink sockets cannot be opened: {explain(error)}", error)
            self._stopping.wait(REOPEN_S)
            raise

    def _receive(self) -> None:
        self._guarded("state", Scope.ALL, self._receive_messages)
        self._guarded("neighbours", Scope.NEIGHBOURS, self._receive_messages)
        self._guarded("routes", Scope.ROUTES4 | Scope.ROUTES6, self._receive_routes)
        self._asker.receive(self.gateways, self.follower.tables.neighbours)
        if self.follower.sysctls_stale:
            self.follower.reread_stale_sysctls()

    def _guarded(self, name: str, scope: Scope, receive: Callable[[socket.socket], object]) -> None:
        """Receives; an overrun costs a dump of `scope`, any other error the sockets."""
        sock = self._events.get(name)
        if sock is None:
            return
        try:
            receive(sock)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._overrun(scope)
            else:
                self._error(name, f"netlink socket for {name} failed, it is opened again", error)
                self._counts["reopened"] += 1
                self._close()

    def _overrun(self, scope: Scope) -> None:
        self._counts["overruns"] += 1
        self.plan.want(scope, "overrun")

    def _receive_messages(self, sock: socket.socket) -> None:
        for _ in range(MOST_DATAGRAMS):
            datagram = sockets.receive(sock)
            if datagram is None:
                return
            self._counts["events"] += 1
            try:
                for message in sockets.split(datagram):
                    self.follower.event(message)
            except ValueError:
                self.follower.malformed += 1

    def _receive_routes(self, sock: socket.socket) -> int:
        received = self._stream.receive(sock.fileno(), MOST_ROUTE_DATAGRAMS)
        self._counts["events"] += received
        self._paths_changed |= received > 0
        return received

    def _receive_all_routes(self) -> int:
        """Until none waits, or a million came (then they come faster than any dump could help)."""
        total = 0
        while total < 1_000_000:
            try:
                received = self._receive_routes(self._events["routes"])
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overrun(Scope.ROUTES4 | Scope.ROUTES6)
                received = 1
            if received == 0:
                break
            total += received
        return total

    # ---- dumps ----

    def _resync(self) -> None:
        if not self._events:
            return
        scope, reasons = self.plan.begin(time.monotonic())
        try:
            different = self._dumper.run(scope)
        except (OSError, ValueError) as error:
            self.plan.failed(time.monotonic(), reasons)
            self._error("dump", f"a dump of the kernel's tables failed: {explain(error)}", error)
            return
        except Exception:
            self.plan.failed(time.monotonic(), reasons)
            raise
        self._paths_changed = True
        now = time.monotonic()
        self.plan.done(now, reasons)
        if Scope.ALL & ~scope == 0:
            self._next_audit = now + self._audit_s
        if different and reasons == ("audit",) and not self._events_wait():
            self._counts["drift"] += different
            log.warning("background dump found %d entries that the kernel had changed silently", different)
        log.debug("dumped %s for %s: %d differences, %.1f ms", scope, reasons, different, self.plan.last_ms)

    def _events_wait(self) -> bool:
        """Whether differences can be events that are still on their way."""
        with selectors.DefaultSelector() as selector:
            for sock in self._events.values():
                selector.register(sock, selectors.EVENT_READ)
            return bool(selector.select(0))

    # ---- paths to adjacencies ----

    def update_paths(self) -> None:
        """Resolves what was touched, a bounded number of paths, and writes the adjacencies that changed."""
        self._follow_buckets(time.monotonic())
        for path_id in self._rib.take_new_paths():
            self.paths.drop(path_id)  # the id may have been another path's: nothing known of it holds
            self.paths.touch(path_id)
            self._paths_changed = True
        left, until = MOST_PATHS, time.monotonic() + PATHS_S
        while left > 0 and time.monotonic() < until and (taken := self.paths.take(PATHS_AT_ONCE)):
            left -= len(taken)
            for path_id in taken:
                self._try_path(path_id)

    def _try_path(self, path_id: int) -> None:
        """One that fails (there may be no memory for a group) must not stay as it was: its neighbour may be gone, its
        interface's number another's soon. The kernel has its packets until the next tick."""
        try:
            self._update_path(path_id)
        except Exception as error:
            self._failed_paths.add(path_id)
            self.paths.drop(path_id)  # whatever it resolves to then is written
            self._error("path", "an adjacency could not be written, it is tried again", error)
            with suppress(Exception):
                self._table.set(path_id, action=self._actions.external_route)

    def _update_path(self, path_id: int) -> None:
        tables = self.follower.tables
        path = self._rib.path(path_id)
        if path is None:
            self.paths.drop(path_id)
            return
        route = flatten(path, tables.nexthops, self._actions)
        adjacency = resolve(path, route, tables, self._actions)
        before = self.paths.get(path_id)
        if before is None or before.adjacency != adjacency:
            self._write(path_id, adjacency)
        known = Known(path, route, adjacency)
        if known != before:
            self.paths.put(path_id, known)
            self.gateways.want(
                gateway_of_path(path_id, known, tables, self._rib, self.follower.in_rib), time.monotonic()
            )

    def _write(self, path_id: int, adjacency: Adjacency | Group) -> None:
        if isinstance(adjacency, Group):
            self._table.set_group(path_id, adjacency.legs, adjacency.buckets)
            return
        self._table.set(
            path_id,
            mac=adjacency.mac,
            interface=adjacency.interface,
            action=adjacency.action,
            mtu=adjacency.mtu,
        )

    def _follow_buckets(self, now: float) -> None:
        """Resilient groups that changed: what is in use is read first, or it would be taken for idle."""
        tables = self.follower.tables
        if tables.buckets.outdated(tables.nexthops):
            self._read_bucket_marks(now)
            for identity in tables.buckets.follow(tables.nexthops, now):
                self.paths.touch_nexthop(identity)

    def _read_bucket_marks(self, now: float) -> None:
        buckets = self.follower.tables.buckets
        for identity in buckets.ids():
            for path_id in self.paths.of_nexthop(identity):
                known = self.paths.get(path_id)
                if known is not None and isinstance(known.adjacency, Group) and known.adjacency.buckets:
                    buckets.use(identity, self._table.take_buckets_used(path_id), now)

    def _keep_buckets(self, now: float) -> None:
        """Once a second: what time allows to move in resilient groups."""
        self._read_bucket_marks(now)
        for identity in self.follower.tables.buckets.upkeep(now):
            self.paths.touch_nexthop(identity)

    def _write_reserved(self) -> None:
        """The reserved adjacencies of fib/adjacency.h, in their order."""
        actions = self._actions
        reserved = (
            actions.no_route,
            actions.local_route,
            actions.broadcast,
            actions.multicast,
            actions.blackhole_route,
            actions.reject_route,
            actions.external_route,
        )
        for index, action in enumerate(reserved):
            self._table.set(index, action=action)

    # ---- once a second, and after each pass ----

    def _tick(self, now: float) -> None:
        neighbours = self.follower.tables.neighbours
        if self.gateways.urgent or now >= self._next_tick:
            self.gateways.run(now, neighbours)
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        self.follower.poll_sysctls()
        self._keep_buckets(now)
        if not self.paths.dirty:
            self.follower.age()
        while self._failed_paths:
            self.paths.touch(self._failed_paths.pop())
        self.follower.changed |= self._announcer.retry or self.programs.retry or self._announce_failed
        if self._paths_changed:
            self._paths_changed = False
            self._drop_unused_paths()
            self.gateways.want_exactly(
                wanted_gateways(self.paths, self.follower.tables, self._rib, self.follower.in_rib), now
            )
        used = self._tell(self._sink.take_used) or b""
        for key in stale_in_use(neighbours, self.paths.of_neighbour, used, self.gateways):
            self._asker.ask(key, False, False)
        self._read_stats()
        if self._audit_s and self._synced.is_set() and now >= self._next_audit:
            self.plan.want(Scope.ALL, "audit")

    def _drop_unused_paths(self) -> None:
        for path_id in self.paths.ids():
            if self._rib.path_routes(path_id) == 0:
                self.paths.drop(path_id)

    def _read_stats(self) -> None:
        rib, stream = self._rib.stats(), self._stream.stats()
        self._rib_stats = {
            "routes4": rib.routes4,
            "routes6": rib.routes6,
            "best_changes": rib.best_changes,
            "rib_failed": rib.failed,
            "paths_exhausted": rib.paths_exhausted,
            "rib_bytes": rib.bytes,
            "route_messages": stream.messages,
            "route_messages_malformed": stream.malformed,
            "route_messages_refused": stream.refused,
        }

    def _announce(self) -> None:
        if not self.follower.changed:
            return
        self.follower.changed, self._announce_failed = False, False
        try:
            # Views first: an interface comes up, or leaves its master, when its packets have where to look.
            self.programs.announce(self.follower.tables, self.follower.rules)
            self._announcer.announce(
                self.follower.tables,
                self.follower.addresses,
                self.follower.interfaces,
                self.follower.rules.custom_ip4,
                self.programs.untaken,
            )
        except Exception as error:  # the tables are right, no dump would tell it again
            self._announce_failed = True  # again at the next tick
            self._error("announce", "interfaces could not be told what they are, it is tried again", error)

    def _tell(self, callback: Callable[..., Any], *arguments: object) -> Any:
        try:
            return callback(*arguments)
        except Exception as error:  # the router's trouble must not stop the mirror
            self._error(
                "sink", f"the router could not follow ({getattr(callback, '__name__', callback)})", error
            )
            return None

    def _asking_failed(self, what: str, advice: str) -> None:
        self._error(f"ask {what}", f"the kernel refused to resolve a neighbour: {what}; {advice}", None)

    def _error(self, kind: str, text: str, error: BaseException | None) -> None:
        """Counted always, said once a minute at most."""
        self._counts["errors"] += 1
        now = time.monotonic()
        if now - self._said.get(kind, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self._said[kind] = now
            log.error("%s%s", text, f": {error}" if error is not None else "", exc_info=kind == "pass")
