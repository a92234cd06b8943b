"""A packet generator: numbered UDP packets of chosen sizes, flows and rate (pktgen.c)."""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.tools.session import ADAPTIVE, Session, Wait, new, run_threads

IMIX = (60, 60, 60, 60, 60, 60, 60, 590, 590, 590, 590, 1514)
"""The usual mixture, 7:4:1, as frames without FCS."""
MIN_BYTES4 = 60
MIN_BYTES6 = 14 + 40 + 8 + 16
MAX_BYTES = 9724  # what an 82599 takes: 9,728 with FCS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Plan:
    """What is sent. Sizes are bytes of the frame, Ethernet header included, FCS not."""

    source: Address
    destination: Address
    source_mac: bytes | None = None
    """None: the port's own."""
    destination_mac: bytes = b"\xff" * 6
    sizes: Sequence[int] = (60,)
    flows: int = 1
    first_port: int = 1024
    destination_port: int = 9
    ttl: int = 64
    rate_pps: int = 0
    """0: as fast as it goes."""
    packets: int = 0
    """0: no end."""

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError(f"{self.source} and {self.destination} are of different families")
        smallest = MIN_BYTES4 if self.source.version == 4 else MIN_BYTES6
        if not 1 <= len(self.sizes) <= lib.PKTGEN_SIZES:
            raise ValueError(f"{len(self.sizes)} sizes: from 1 to {lib.PKTGEN_SIZES} are possible")
        for size in self.sizes:
            if not smallest <= size <= MAX_BYTES:
                raise ValueError(f"size {size}: must be from {smallest} to {MAX_BYTES} bytes")
        if not 1 <= self.flows <= 65536 - self.first_port:
            raise ValueError(f"{self.flows} flows: must be from 1 to {65536 - self.first_port}")


@dataclass
class Counts:
    """What was sent and came back. late: a number below one seen before in the same flow."""

    tx_packets: int = 0
    tx_bytes: int = 0
    tx_full: int = 0
    rx_packets: int = 0
    rx_bytes: int = 0
    rx_foreign: int = 0
    rx_late: int = 0

    @property
    def lost(self) -> int:
        """Sent and not (or not yet) seen again."""
        return self.tx_packets - self.rx_packets


def shape(plan: Plan, source_mac: bytes, size: int) -> tuple[bytes, int]:
    """The packet number 0 of flow 0, and the one's complement sum behind its UDP checksum."""
    mark = struct.pack(">QQ", lib.PKTGEN_MARK, 0)
    v4 = plan.source.version == 4
    udp_bytes = size - 14 - (20 if v4 else 40)
    payload = mark + bytes(udp_bytes - 8 - len(mark))
    udp = struct.pack(">HHHH", plan.first_port, plan.destination_port, udp_bytes, 0) + payload
    pseudo = plan.source.packed + plan.destination.packed + struct.pack(">HH", 17, udp_bytes)
    total = ones_sum(pseudo + udp)
    udp = udp[:6] + struct.pack(">H", 0xFFFF if total == 0xFFFF else total ^ 0xFFFF) + udp[8:]
    if v4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + udp_bytes, 0, 0x4000, plan.ttl, 17, 0)
        head += plan.source.packed + plan.destination.packed
        head = head[:10] + struct.pack(">H", ones_sum(head) ^ 0xFFFF) + head[12:]
    else:
        head = struct.pack(">IHBB", 6 << 28, udp_bytes, 17, plan.ttl)
        head += plan.source.packed + plan.destination.packed
    ethertype = 0x0800 if v4 else 0x86DD
    return plan.destination_mac + source_mac + struct.pack(">H", ethertype) + head + udp, total


def ones_sum(data: bytes) -> int:
    """The Internet checksum before its last complement (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


class Generator:
    """A plan made ready for C, in one thread of a session."""

    def __init__(self, plan: Plan, session: Session, burst: int, wait: Wait) -> None:
        self.c = new("struct pktgen")
        session.fill_lane(self.c.lane, 0, burst, wait)
        self._keep: list[Any] = []
        source_mac = plan.source_mac or session.ports[0].mac
        for i, size in enumerate(plan.sizes):
            packet, total = shape(plan, source_mac, size)
            self._keep.append(ffi.new("uint8_t[]", packet))
            self.c.shape[i].bytes = self._keep[-1]
            self.c.shape[i].len = size
            self.c.shape[i].sum = total
        self._keep.append(ffi.new("uint64_t[]", plan.flows))
        self.c.seen = self._keep[-1]
        self.c.n_shapes = len(plan.sizes)
        self.c.udp_at = 34 if plan.source.version == 4 else 54
        self.c.first_port, self.c.flows = plan.first_port, plan.flows
        self.c.rate_pps, self.c.limit = plan.rate_pps, plan.packets

    def run_until(self, until_ns: int) -> None:
        """Sends and counts until the clock (CLOCK_MONOTONIC) shows until_ns."""
        lib.pktgen_run(self.c, until_ns)

    def await_stragglers(self, linger: float) -> None:
        """Counts what comes back until all has, or nothing more came for `linger` seconds."""
        seen, since = -1, time.monotonic()
        while (counts := self.counts()).lost > 0 and time.monotonic() - since < linger:
            if counts.rx_packets != seen:
                seen, since = counts.rx_packets, time.monotonic()
            self.run_until(time.monotonic_ns() + 10_000_000)

    def counts(self) -> Counts:
        """From any thread."""
        return Counts(**{name: int(getattr(self.c, name)) for name in Counts.__dataclass_fields__})


def run(
    plan: Plan,
    specs: Sequence[str],
    *,
    cores: Sequence[int] = (),
    burst: int = 32,
    wait: Wait = ADAPTIVE,
    seconds: float | None = None,
    linger: float = 0.5,
    report: Callable[[Counts, float], None] = lambda counts, elapsed: None,
) -> Counts:
    """Sends by the first port; counts what arrives at all of them (one or two). Ends after `seconds`, after the plan's
    last packet (when all have come back, or none more for `linger` seconds), or by Ctrl-C."""
    with Session(specs, 1, mtu=max(plan.sizes) - 14) as session:
        for port in session.ports:
            if max(plan.sizes) - 14 > port.mtu:
                port.set_mtu(max(plan.sizes) - 14)
            port.set_promiscuous(True)
        session.wait_for_link(5.0)
        generator = Generator(plan, session, burst, wait)
        started = time.monotonic()

        def every_second() -> None:
            for port in session.ports:
                port.service()
            report(generator.counts(), time.monotonic() - started)

        def call(until_ns: int) -> bool:
            generator.run_until(until_ns)
            if plan.packets and generator.counts().tx_packets >= plan.packets:
                generator.await_stragglers(linger)
                return False
            return True

        run_threads([call], seconds, every_second, cores)
        return generator.counts()
