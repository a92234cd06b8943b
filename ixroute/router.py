"""The composition root: makes the parts, connects them, starts and stops them in order. It decides nothing.

    memory -> ports -> FIB, RIB -> TAPs, door -> dataplane, workers -> mirror -> control socket -> ready

Everything is taken down in the opposite order, whatever happens on the way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from types import FrameType

from ixroute.answers import Answers
from ixroute.config import Config, ConfigError, PortConfig, choose_cores, reread
from ixroute.control import ControlServer
from ixroute.driver.kinds import frame_bytes_wanted, frames_wanted, mtu_of, open_port
from ixroute.driver.port import Port, PortError, PortOptions
from ixroute.driver.umem import Umem
from ixroute.errors import UserError
from ixroute.fib.adjacency import AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.fib.rib import Rib
from ixroute.forward.policers import Policer
from ixroute.forward.reasons import reason_number
from ixroute.forward.worker import FRAMES_BESIDE_RINGS, Dataplane, Worker
from ixroute.netlink import contract
from ixroute.netlink.mirror import Mirror
from ixroute.netlink.route_stream import RouteStream
from ixroute.notify import Notifier, Watchdog
from ixroute.parts import Parts
from ixroute.ports import Pairs
from ixroute.prometheus_listener import Listener
from ixroute.tap.door import Door
from ixroute.tap.tap import Tap, TapError

log = logging.getLogger(__name__)

MAX_PATHS = 1 << 16
FIRST_SYNC_SECONDS = 30.0
TICK_SECONDS = 1.0


class StartError(UserError):
    """The router cannot start."""


class Router:
    """One router, in the network namespace of the calling process. run() returns the exit code."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._notifier = Notifier()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._stopping = ""  # the signal that ends the router
        self._parts: Parts | None = None

    def run(self) -> int:
        """Starts, serves until SIGTERM or SIGINT, stops. SIGHUP reloads. 0, or 1 when it could not start or a
        part of it died."""
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(self._wake_read.close)
                stack.callback(self._wake_write.close)
                self._catch_signals(stack)
                parts = self._parts = self._build(stack)
                self._start(parts, stack)
                code = self._serve(parts)
                self._notifier.stopping("draining")
            log.info("stopped")
            return code
        except (UserError, PortError, TapError, MemoryError, OSError, ValueError) as error:
            log.debug("cannot start", exc_info=True)
            log.error("cannot start: %s", error)
            return 1

    # ---- making the parts

    def _build(self, stack: contextlib.ExitStack) -> Parts:
        config = self._config
        if not config.ports:
            raise StartError(
                "no port: name one with --port NAME=af_xdp:INTERFACE or in the configuration file"
            )
        cores = choose_cores(config)
        options = [_options(port) for port in config.ports]
        umem, pool_frames = self._make_umem(cores, options)
        stack.callback(umem.close)
        ports: list[Port] = []
        for i, port in enumerate(config.ports):
            ports.append(open_port(port.name, i, port.spec, umem, len(cores), options[i]))
            stack.callback(ports[-1].close)
        fib = stack.enter_context(Fib())
        adjacencies = AdjacencyTable(MAX_PATHS, reason_number("no_route"), fib)
        stack.callback(adjacencies.close)
        rib = Rib(fib, adjacencies, reason_number("unresolved_neigh"))
        stack.callback(rib.close)
        stream = RouteStream(rib)
        stack.callback(stream.close)
        taps, door = self._make_door(stack, umem, ports, len(cores))
        dataplane = Dataplane(umem.c, fib.c, adjacencies.c, len(ports), len(cores))
        stack.callback(dataplane.close)
        workers = self._make_workers(
            stack, cores, ports, dataplane, door, [umem.pool(pool_frames) for _ in cores]
        )
        pairs = Pairs(ports, taps, dataplane, workers, adjacencies.capacity, self._post)
        mirror = Mirror(
            rib,
            stream,
            adjacencies,
            ports=[contract.Port(port.index, port.name) for port in ports],
            actions=_actions(),
            sink=pairs,
            watch=[port.device for port in config.ports if port.kind == "af_xdp"],
            audit_s=float(config.mirror.audit_seconds),
            buffer_bytes=config.mirror.rcvbuf_bytes,
        )
        parts = Parts(
            config, cores, umem, fib, adjacencies, rib, stream, ports, taps, door, dataplane, workers, pairs, mirror,
            time.monotonic(),
        )  # fmt: skip
        self._set_policers(parts, config)
        return parts

    def _make_umem(self, cores: tuple[int, ...], options: list[PortOptions]) -> tuple[Umem, int]:
        """The memory, and how many of its frames each worker gets."""
        config = self._config
        needed = FRAMES_BESIDE_RINGS + sum(
            frames_wanted(port.spec, len(cores), option)
            for port, option in zip(config.ports, options, strict=True)
        )
        per_worker = needed if config.memory.frames is None else config.memory.frames // len(cores)
        if per_worker < needed:
            raise StartError(
                f"memory.frames is {config.memory.frames}: {len(config.ports)} ports and {len(cores)} workers"
                f' need {needed * len(cores)}; raise it or write "auto"'
            )
        frame_bytes = config.memory.frame_bytes or max(
            frame_bytes_wanted(port.spec, mtu_of(port.spec, port.name)) for port in config.ports
        )
        return Umem(per_worker * len(cores), frame_bytes, config.memory.hugepages), per_worker

    def _make_door(
        self, stack: contextlib.ExitStack, umem: Umem, ports: list[Port], lanes: int
    ) -> tuple[list[Tap], Door]:
        door = Door(umem.c, lanes)
        stack.callback(door.close)
        taps: list[Tap] = []
        for port, wanted in zip(ports, self._config.ports, strict=True):
            tap = Tap(port.name, lanes, port.mac, port.mtu, wanted.up)
            stack.callback(tap.close)
            taps.append(tap)
            door.add_port(port.index, tap.fds)
        return taps, door

    def _make_workers(
        self,
        stack: contextlib.ExitStack,
        cores: tuple[int, ...],
        ports: list[Port],
        dataplane: Dataplane,
        door: Door,
        pools: list[object],
    ) -> list[Worker]:
        workers = []
        for number, core in enumerate(cores):
            worker = Worker(dataplane, number, pools[number], door.lanes[number], core)
            stack.callback(worker.close)
            for port in ports:
                for c_queue in port.queues()[number :: len(cores)]:
                    worker.add_queue(c_queue)
            workers.append(worker)
        return workers

    def _set_policers(self, parts: Parts, config: Config) -> None:
        parts.dataplane.set_policers({name: Policer(p.rate, p.burst) for name, p in config.policers.items()})

    # ---- running

    def _start(self, parts: Parts, stack: contextlib.ExitStack) -> None:
        """Threads, in the order that lets no packet be lost for want of the next one."""
        parts.pairs.follow_links()
        with _beside(parts.cores):
            self._start_threads(parts, stack)

    def _start_threads(self, parts: Parts, stack: contextlib.ExitStack) -> None:
        parts.pairs.begin()
        parts.door.start()
        stack.callback(_stop_thread, "the kernel's door", parts.door.stop)
        for worker in parts.workers:
            worker.start(self._config.workers.idle_ns)
            stack.callback(_stop_thread, f"worker {worker.number}", worker.stop)
        parts.mirror.start()
        stack.callback(parts.mirror.stop)
        if not parts.mirror.wait_synced(FIRST_SYNC_SECONDS):
            log.warning(
                "the kernel's tables are not read after %.0f s: until they are, the kernel routes all packets",
                FIRST_SYNC_SECONDS,
            )
        _trust_when_synced(parts)
        answers = Answers(parts, reload=self.reload, resync=lambda: parts.mirror.resync("asked"))
        control = self._config.control
        server = ControlServer(control.socket, answers.commands(), mode=control.mode, group=control.group)
        server.start()
        stack.callback(server.close)
        if self._config.prometheus.listen is not None:
            metrics = Listener(self._config.prometheus.listen, answers.stats)
            metrics.start()
            stack.callback(metrics.close)
        watchdog = Watchdog(self._notifier, _heartbeats(parts))
        watchdog.start()
        stack.callback(watchdog.stop)
        names = ", ".join(f"{port.name} ({port.spec})" for port in parts.ports)
        log.info("routing between %s; workers on cores %s", names, ",".join(map(str, parts.cores)))
        self._notifier.ready(f"routing between {names}")

    def _serve(self, parts: Parts) -> int:
        """The main thread's life: jobs from other threads, events of links, a tick a second, until told to stop."""
        next_tick = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            links = {port.link_fd for port in parts.ports if port.link_fd >= 0}
            for fd in links:
                selector.register(fd, selectors.EVENT_READ)
            while not self._stopping:
                ready = {key.fd for key, _ in selector.select(TICK_SECONDS)}
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
                while not self._jobs.empty():
                    self._run_job(self._jobs.get_nowait())
                if ready & links or time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_SECONDS
                    self._run_job(parts.pairs.service)
                self._run_job(parts.pairs.follow_links)
                _trust_when_synced(parts)
                dead = [worker.number for worker in parts.workers if not worker.alive]
                if dead or not parts.door.alive:
                    log.critical("a thread of the data plane ended by itself (workers %s): stopping", dead)
                    return 1
        log.info("stopping: %s", self._stopping)
        return 0

    def _run_job(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            log.exception("main thread: a job failed; going on")

    def _post(self, job: Callable[[], None]) -> None:
        """Has the main thread run job soon. From any thread."""
        self._jobs.put(job)
        with contextlib.suppress(OSError):
            self._wake_write.send(b"j")

    # ---- signals, reload

    def _catch_signals(self, stack: contextlib.ExitStack) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        old_fd = signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, old_fd)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, self._on_signal))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._jobs.put(self._reload_job)
        else:
            self._stopping = signal.Signals(number).name

    def reload(self) -> str:
        """From any thread: what SIGHUP does. Returns a sentence for the one who asked."""
        self._post(self._reload_job)
        return "reading the configuration and the kernel's tables anew; the log tells the outcome"

    def _reload_job(self) -> None:
        """What can change while packets flow changes; the rest is told. A wrong file changes nothing."""
        parts = self._parts
        if parts is None:
            return
        self._notifier.reloading()
        try:
            self._apply(parts, reread(self._config))
        except ConfigError as error:
            log.error("reload: the configuration stays as it was:\n%s", error)
        parts.mirror.resync("reload")
        self._notifier.ready("reloaded")

    def _apply(self, parts: Parts, new: Config) -> None:
        old = parts.config
        self._set_policers(parts, new)
        logging.getLogger().setLevel(new.log.level.upper())
        fixed = [
            name
            for name in ("ports", "workers", "memory", "control", "mirror", "prometheus")
            if getattr(new, name) != getattr(old, name)
        ]
        if fixed:
            log.warning("reload: changes in %s take effect at the next start", ", ".join(fixed))
        log.info("reload: policers and log level are as configured")


@contextlib.contextmanager
def _beside(cores: Sequence[int]) -> Iterator[None]:
    """Threads that start in the block do not run on the workers' cores, if there are others: a flood that the kernel
    must answer is much work for the door, and that is not to be the forwarding's time. Workers pin themselves. The
    main thread is as before afterwards."""
    allowed = os.sched_getaffinity(0)
    _run_on(allowed - set(cores))
    try:
        yield
    finally:
        _run_on(allowed)


def _run_on(cores: Set[int]) -> None:
    """This thread and those it starts. Nothing changes when there are none, or the cpuset forbids it."""
    with contextlib.suppress(OSError):
        if cores:
            os.sched_setaffinity(0, cores)


def _options(port: PortConfig) -> PortOptions:
    return PortOptions(
        mode=port.mode,
        zero_copy="on" if port.zero_copy == "require" else port.zero_copy,
        force_id=port.force_id,
        interrupt_us=port.interrupt_us,
        restore_driver=port.restore_driver,
        rss_key=port.rss_key,
        unsupported_module=port.unsupported_module,
    )


def _actions() -> contract.Actions:
    return contract.Actions(
        no_route=reason_number("no_route"),
        local_route=reason_number("local_route"),
        broadcast=reason_number("ipv4_broadcast"),
        multicast=reason_number("ipv6_multicast"),
        blackhole_route=reason_number("blackhole_route"),
        reject_route=reason_number("reject_route"),
        external_route=reason_number("external_route"),
        unresolved_neigh=reason_number("unresolved_neigh"),
        multipath_route=reason_number("multipath_route"),
        policy_rule=reason_number("policy_rule"),
    )


def _trust_when_synced(parts: Parts) -> None:
    if parts.mirror.wait_synced(0):
        parts.pairs.trust_tables()


def _heartbeats(parts: Parts) -> dict[str, Callable[[], int]]:
    def polls(worker: Worker) -> Callable[[], int]:
        return lambda: worker.counters()["polls"]

    beats: dict[str, Callable[[], int]] = {f"worker {w.number}": polls(w) for w in parts.workers}
    beats["the kernel's door"] = lambda: parts.door.passes
    beats["the mirror"] = lambda: parts.mirror.passes
    return beats


def _stop_thread(name: str, stop: Callable[[], bool]) -> None:
    if not stop():
        # It may still touch memory that is about to go. Leaving at once is the only safe way out.
        log.critical("%s does not end: leaving without cleaning up", name)
        logging.shutdown()
        os._exit(1)
