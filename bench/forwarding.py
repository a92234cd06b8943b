"""Throughput over veth: UDP packets from one core, and TCP; by ixroute with one worker, and by Linux.

On veth the sender's core also does the receiving half of its peer, and for Linux the forwarding too; the
figures are for comparing the two on one machine, not for a data sheet.
"""

from __future__ import annotations

import argparse
import statistics
import time

from bench.common import KINDS, routed_lab
from ixroute.demo.netns import Namespace
from ixroute.demo.probes import tcp_transfer
from ixroute.demo.topology import Lab
from lab.generator import Generator
from lab.packets import ETH_IP4, ETH_IP6, ethernet, ip4, ip6, udp

SECONDS, ROUNDS, FLOWS = 2.0, 3, 64


def received(host: Namespace) -> int:
    return int(host.call(_rx_packets))


def _rx_packets() -> int:
    with open("/proc/thread-self/net/dev") as lines:  # /proc/net would be the main thread's namespace
        return next(int(line.split()[2]) for line in lines if line.strip().startswith("eth0:"))


def frames(lab: Lab, version: int, size: int) -> list[bytes]:
    """FLOWS flows of UDP, `size` bytes on the wire without its checksum."""
    near, far = lab.links[0], lab.links[1]
    out = []
    for flow in range(FLOWS):
        if version == 4:
            data = udp(near.host4, far.host4, bytes(size - 4 - 42), sport=1024 + flow)
            packet, kind = ip4(near.host4, far.host4, data), ETH_IP4
        else:
            data = udp(near.host6, far.host6, bytes(max(size - 4 - 62, 0)), sport=1024 + flow)
            packet, kind = ip6(near.host6, far.host6, data), ETH_IP6
        out.append(ethernet(near.router_mac, near.host_mac, kind, packet))
    return out


def packets_per_second(lab: Lab, version: int, size: int) -> tuple[float, float]:
    """(offered, forwarded), medians."""
    rows = []
    for _ in range(ROUNDS):
        before, began = received(lab.server), time.monotonic()
        offered = Generator(lab.client, frames(lab, version, size)).run(SECONDS)
        elapsed = time.monotonic() - began
        time.sleep(0.2)
        rows.append((offered, (received(lab.server) - before) / elapsed))
    return statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)


def small_packets(kind: str) -> None:
    with routed_lab(kind, mute=True) as lab:
        for link in lab.links:
            for address in (link.host4, link.host6):
                lab.router.ip(
                    f"neigh replace {address} lladdr {link.host_mac} nud permanent dev {link.interface}"
                )
        time.sleep(0.5)
        for version, size in ((4, 64), (6, 84), (4, 1514)):
            offered, forwarded = packets_per_second(lab, version, size)
            print(
                f"{kind:8} IPv{version} {size:4} bytes: {forwarded / 1e3:7.0f} kpps forwarded "
                f"of {offered / 1e3:.0f} kpps offered",
                flush=True,
            )


def tcp(kind: str) -> None:
    with routed_lab(kind) as lab:
        for name, target in (("IPv4", lab.links[1].host4), ("IPv6", lab.links[1].host6)):
            tcp_transfer(lab.client, lab.server, target, seconds=0.2)
            rates = [
                tcp_transfer(lab.client, lab.server, target, seconds=SECONDS).bits_per_second
                for _ in range(ROUNDS)
            ]
            print(f"{kind:8} TCP over {name}: {statistics.median(rates) / 1e9:5.2f} Gbit/s", flush=True)


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="python -m bench forwarding", description=__doc__).parse_args(argv)
    print(f"medians of {ROUNDS} runs of {SECONDS:g} s, {FLOWS} flows, one sender, one worker")
    for router in KINDS:
        small_packets(router)
    for router in KINDS:
        tcp(router)
    return 0
