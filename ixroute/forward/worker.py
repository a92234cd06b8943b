"""Dataplane and workers: Python owns them and their threads, C (worker.c) moves the packets.

All `Any` arguments named after C structures are cffi pointers to them; what they point to must stay alive
until the object here is closed. Nothing here logs, and no call but `Worker.stop` waits.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.forward.policers import DEFAULT_POLICERS, Policer
from ixroute.forward.reasons import BY_NAME, REASONS
from ixroute.forward.view import StepLike, c_steps
from ixroute.tap.loop import CLoop

PORT_UP = 1
PORT_IP4_FORWARD = 2
PORT_IP6_FORWARD = 4
PORT_RPF_STRICT = 8
PORT_RPF_LOOSE = 16
PORT_SEND_REDIRECTS = 32
PORT_ACCEPT_LOCAL = 64
PORT_ROUTE_LOCALNET = 128
PORT_KERNEL_ALL = 256
PORT_RULES4 = 512
PORT_RULES6 = 1024

NEVER_SLEEP = 2**64 - 1

DEFAULT_HASH_FIELDS: int = lib.HASH_DEFAULT_FIELDS

FRAMES_BESIDE_RINGS = 2048
"""Frames a worker's pool should have beyond what its queues' rings hold: for its lane to the kernel (up to
1024 punted, 256 waiting for packets from the kernel, those on their way) and its bursts."""

_PLAIN_CELLS = (
    "rx_packets",
    "rx_bytes",
    "injected_packets",
    "injected_bytes",
    "sent_packets",
    "tx_packets",
    "tx_bytes",
)
SUB_CELLS = (
    "rx_packets",
    "rx_bytes",
    "sent_packets",
    "punted",
    "dropped",
    "policed",
    "tx_packets",
    "tx_bytes",
)
"""Of struct sub_counters."""
_REASON_CELLS = ("punted", "dropped", "policed")
_WORKER_CELLS = (
    "polls",
    "busy_polls",
    "packets",
    "busy_cycles",
    "sleeps",
    "rx_no_frame",
    "heartbeat_ns",
    "free_frames",
)


class Dataplane:
    """What all workers share: ports as the kernel's interfaces are, policers, own addresses.

    Any thread may call the setters while workers run; each store is one word.
    """

    def __init__(
        self,
        umem: Any,
        fib: Any,
        adjacencies: Any,
        n_ports: int,
        n_workers: int,
        hash_seed: int | None = None,
    ) -> None:
        """Ports start down, policers at their defaults, and the reserved adjacencies get their reasons.

        `hash_seed`: 64 bits that decide which flow takes which of several legs; random unless given.

        ValueError for numbers out of range (1..64 ports, 1..64 workers), MemoryError.
        """
        if not (1 <= n_ports <= lib.MAX_PORTS and 1 <= n_workers <= lib.MAX_WORKERS):
            raise ValueError(f"{n_ports} ports, {n_workers} workers: 1..64 of each are possible")
        self.c: Any = lib.dataplane_create(umem, fib, adjacencies, n_ports, n_workers)
        if self.c == ffi.NULL:
            raise MemoryError("dataplane")
        lib.dataplane_set_seed(self.c, secrets.randbits(64) if hash_seed is None else hash_seed)
        self.n_ports = n_ports
        self.n_workers = n_workers
        self.set_policers(DEFAULT_POLICERS)

    def set_port(self, port: int, mac: bytes, mtu: int, flags: int) -> None:
        """The TAP's MAC (6 bytes), MTU (bytes of IP) and PORT_* flags. ValueError when out of range."""
        if len(mac) != 6:
            raise ValueError(f"a MAC has 6 bytes, not {len(mac)}")
        _check(lib.dataplane_set_port(self.c, port, mac, mtu, flags), f"port {port}")

    def set_vlans(self, interface: int, vids: Iterable[int]) -> None:
        """The VLAN ids (0..4094) on an interface (a port, or a sub-interface in use) that only the kernel can
        serve: their packets are punted. ValueError when out of range."""
        vids = list(vids)
        _check(lib.dataplane_set_vlans(self.c, interface, vids, len(vids)), f"VLANs of interface {interface}")

    def set_interface(
        self, number: int, port: int, tags: Sequence[tuple[int, int]], mac: bytes, mtu: int, flags: int
    ) -> None:
        """A VLAN sub-interface: number 64..1023; one or two tags (TPID 0x8100 or 0x88a8, id 0..4094), outer first.
        Again with the same port and tags: its MAC (6 bytes), MTU and PORT_* flags change. By the FIB's writer.

        ValueError: out of range; FileNotFoundError: no interface has the outer of two tags; FileExistsError: another
        number has these tags; OSError EBUSY: the number has other tags, or had until a moment ago;
        MemoryError.
        """
        if len(mac) != 6 or not 1 <= len(tags) <= lib.INTERFACE_TAGS:
            raise ValueError(f"interface {number}: {len(mac)} bytes of MAC, {len(tags)} tags")
        result = lib.dataplane_set_interface(self.c, number, port, list(tags), len(tags), mac, mtu, flags)
        if result == -errno.ENOMEM:
            raise MemoryError(f"interface {number}")
        _check(result, f"interface {number}")

    def clear_interface(self, number: int) -> None:
        """No packet comes in or leaves by this sub-interface from the workers' next passes on. Harmless for one that
        is not in use. ValueError: out of range; OSError EBUSY: another interface is stacked on it."""
        _check(lib.dataplane_clear_interface(self.c, number), f"interface {number}")

    def set_view(self, interface: int, family: int, steps: Sequence[StepLike], same_source: bool) -> None:
        """What packets of a family (4, 6) that come in by an interface look up; until then, the dataplane's FIB.
        A sub-interface's number keeps its view when it is cleared: a new one gets its own before `set_interface`.

        Only in the thread that writes the FIBs: it shares their epoch. The FIBs must outlive the dataplane, or at
        least every view that names them and the next quiescent point. same_source: source addresses
        (rp_filter, our own) are looked up by the same steps, which must then all be for all packets. Not to be set
        when rules ask for the incoming interface, since Linux looks a source up as if it came in by the egress
        (`__fib_validate_source`). Without it packets whose source matters are punted as source_validation.

        ValueError: no such interface, or not a program (see view.h: at most 256 steps, gotos lead forward, …).
        MemoryError: nothing changed.
        """
        if family not in (4, 6):
            raise ValueError(f"view: family {family}")
        cells = c_steps(family, steps)
        flags = lib.VIEW_SAME_SOURCE if same_source else 0
        _check(
            lib.dataplane_set_view(self.c, interface, family, cells, len(steps), flags),
            f"view of interface {interface}",
        )

    def collect_views(self) -> int:
        """Frees replaced views that no worker can see any more; how many are kept yet. `set_view` does it too."""
        return int(lib.dataplane_collect_views(self.c))

    def set_policer(self, reason: str, rate: int, burst: int) -> None:
        """KeyError for an unknown reason, ValueError for one that is not punted or numbers out of range."""
        policer = Policer(rate, burst)
        number = BY_NAME[reason].number
        _check(lib.dataplane_set_policer(self.c, number, policer.rate, policer.burst), f"policer {reason}")

    def set_policers(self, policers: Mapping[str, Policer]) -> None:
        """`set_policer` for each."""
        for reason, policer in policers.items():
            self.set_policer(reason, policer.rate, policer.burst)

    def set_multipath(self, family: int, policy: int, fields: int = DEFAULT_HASH_FIELDS) -> None:
        """What chooses among several legs: net.ipv4 or .ipv6 (`family` 4 or 6) fib_multipath_hash_policy, 0..3, and
        fib_multipath_hash_fields, 1..0xfff, which counts for policy 3. ValueError for anything else."""
        if not 0 <= policy <= 0xFF or not 0 <= fields <= 0xFFFF:
            raise ValueError(f"multipath hash policy {policy}, fields {fields:#x}: out of range")
        _check(lib.dataplane_set_multipath(self.c, family, policy, fields), f"multipath hash policy {policy}")

    def set_local4(self, addresses: Iterable[bytes]) -> None:
        """All IPv4 addresses of the router, 4 bytes each in wire order (not only those of ports)."""
        packed = b"".join(addresses)
        buffer = ffi.from_buffer("uint32_t[]", packed)
        _check(lib.dataplane_set_local4(self.c, buffer, len(packed) // 4), "own addresses")

    def close(self) -> None:
        """Frees it. The workers must be closed first."""
        if self.c != ffi.NULL:
            lib.dataplane_destroy(self.c)
            self.c = ffi.NULL


class Worker(CLoop):
    """One worker: its queues, its thread, its counters."""

    def __init__(
        self, dataplane: Dataplane, number: int, pool: Any, lane: Any, core: int | None = None
    ) -> None:
        """`number` 0..n_workers-1; `pool`: struct frame_pool; `lane`: struct tap_lane; `core` to pin to.

        ValueError for a number out of range, MemoryError.
        """
        if not 0 <= number < dataplane.n_workers:
            raise ValueError(f"worker {number} of {dataplane.n_workers}")
        self.c: Any = lib.worker_create(dataplane.c, number, pool, lane)
        if self.c == ffi.NULL:
            raise MemoryError(f"worker {number}")
        self.number = number
        self.core = core
        self._n_ports = dataplane.n_ports
        self.pinned = False
        """True once its thread runs on `core` alone."""

    def add_queue(self, queue: Any) -> None:
        """A struct queue it owns, before `start`. The first of each port is the one it sends by."""
        if self._thread is not None:
            raise RuntimeError("queues are added before the worker starts")
        _check(lib.worker_add_queue(self.c, queue), f"queue of worker {self.number}")

    def start(self, idle_ns: int = 50_000) -> None:
        """Runs until `stop` in a thread of its own. idle_ns: how long to poll in vain before sleeping."""
        if self._thread is not None:
            raise RuntimeError(f"worker {self.number} runs already")
        self._begin(f"ixroute-w{self.number}", lambda: self._run(idle_ns))

    def _run(self, idle_ns: int) -> None:
        if self.core is not None:
            try:
                os.sched_setaffinity(0, {self.core})
                self.pinned = True
            except OSError:
                self.pinned = False  # A core outside our cpuset: forwarding elsewhere beats not forwarding.
        lib.worker_run(self.c, idle_ns)

    def _end(self) -> None:
        lib.worker_stop(self.c)

    def poll_once(self) -> int:
        """One pass in the calling thread; how many packets it moved. Not while the thread runs."""
        if self._thread is not None:
            raise RuntimeError(f"worker {self.number} has a thread")
        return int(lib.worker_poll_once(self.c))

    def counters(self) -> dict[str, int]:
        """struct worker_counters by field name."""
        block = lib.worker_counters(self.c)
        return {name: int(getattr(block, name)) for name in _WORKER_CELLS}

    def port_counters(self, port: int) -> dict[str, Any]:
        """struct port_counters by field name; punted, dropped, policed are dicts by reason without zeros."""
        if not 0 <= port < self._n_ports:
            raise ValueError(f"port {port} of {self._n_ports}")
        block = lib.worker_port_counters(self.c, port)
        out: dict[str, Any] = {name: int(getattr(block, name)) for name in _PLAIN_CELLS}
        for name in _REASON_CELLS:
            cells = ffi.unpack(getattr(block, name), lib.COUNTER_REASONS)
            out[name] = {r.name: cells[r.number] for r in REASONS if cells[r.number]}
        return out

    def sub_counters(self, number: int) -> dict[str, int]:
        """struct sub_counters of a VLAN sub-interface by field name. ValueError for another number."""
        if not lib.MAX_PORTS <= number < lib.MAX_INTERFACES:
            raise ValueError(f"sub-interface {number}")
        block = lib.worker_sub_counters(self.c, number)
        return {name: int(getattr(block, name)) for name in SUB_CELLS}

    def take_used(self, capacity: int) -> bytes:
        """Adjacencies that forwarded a packet since the last call: index i is bit i % 8 of byte i // 8."""
        used = ffi.new("uint8_t[]", (capacity + 7) // 8)
        lib.worker_take_used(self.c, used, capacity)
        return bytes(ffi.buffer(used))

    def close(self) -> None:
        """Takes its frames back from its lane and frees it. RuntimeError while its thread runs.

        The door that serves its lane must have stopped: two threads would own the same end of a ring.
        """
        if self.alive:
            raise RuntimeError(f"worker {self.number} still runs")
        if self.c != ffi.NULL:
            lib.worker_destroy(self.c)
            self.c = ffi.NULL


class CycleRate:
    """How fast the counter behind `busy_cycles` runs: measured from this object's making until asked, since no
    register tells it everywhere."""

    def __init__(self) -> None:
        self._cycles, self._ns = int(lib.worker_cycles_now()), time.monotonic_ns()

    def hz(self) -> int:
        """Cycles per second. The longer since the making, the more exact; at least 10 ms are waited for."""
        while (elapsed := time.monotonic_ns() - self._ns) < 10_000_000:
            time.sleep(0.01)
        return (int(lib.worker_cycles_now()) - self._cycles) * 1_000_000_000 // elapsed


def add_port_counters(total: dict[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """Adds one `Worker.port_counters` to a sum of such (an empty dict at first); returns the sum."""
    for name in _PLAIN_CELLS:
        total[name] = total.get(name, 0) + one[name]
    for name in _REASON_CELLS:
        cells = total.setdefault(name, {})
        for reason, count in one[name].items():
            cells[reason] = cells.get(reason, 0) + count
    return total


def _check(result: int, what: str) -> None:
    if result == -errno.EINVAL:
        raise ValueError(f"{what}: out of range")
    if result == -errno.ENOMEM:
        raise MemoryError(what)
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
