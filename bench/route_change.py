"""From `ip route add` to the first packet on the new path: a hundred changes, ixroute and Linux.

The clock runs from before the `ip` program is started, so a process start is in every figure.
"""

from __future__ import annotations

import argparse
import statistics
import time

from bench.common import KINDS, routed_lab
from ixroute.demo.probes import ping
from ixroute.demo.topology import Lab
from lab.packets import ETH_IP4, ethernet, ip4, udp
from lab.wires import Flood, Wire

CHANGES, PACKETS_PER_SECOND, PATIENCE_S = 100, 10_000, 2.0
MARK = b"first packet on the new path"


def first_packet(wire: Wire) -> bool:
    """Waits for a packet of the stream; False when none comes in time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if wire.wait(0.01) and any(MARK in frame for frame in wire.take()):
            return True
    return False


def change_times(lab: Lab, wires: dict[str, Wire]) -> list[float]:
    """Milliseconds for each change, in order. The host route leads to `third`, its end to `server`."""
    add = f"route add 10.8.0.1/32 via {lab.links[2].host4} dev {lab.links[2].interface}"
    times = []
    for _ in range(CHANGES // 2):
        for command, name in ((add, "third"), ("route del 10.8.0.1/32", "server")):
            wires[name].take()
            began = time.monotonic()
            lab.router.ip(command)
            if not first_packet(wires[name]):
                raise SystemExit(f"no packet by {name} within {PATIENCE_S:g} s of: ip {command}")
            times.append((time.monotonic() - began) * 1e3)
            time.sleep(0.02)
    return times


def change_routes(kind: str) -> None:
    with routed_lab(kind, hosts=3) as lab:
        for link in lab.links:
            ping(lab.router, link.host4, 2)
        lab.router.ip(f"route add 10.8.0.0/16 via {lab.links[1].host4} dev {lab.links[1].interface}")
        near = lab.links[0]
        packet = ip4(near.host4, "10.8.0.1", udp(near.host4, "10.8.0.1", MARK, dport=9))
        wires = {name: Wire(host) for name, host in lab.hosts.items()}
        frame = ethernet(near.router_mac, near.host_mac, ETH_IP4, packet)
        with Flood(wires["client"], [frame], PACKETS_PER_SECOND):
            times = change_times(lab, wires)
        for wire in wires.values():
            wire.close()
    print(
        f"{kind:8} {len(times)} route changes: median {statistics.median(times):.1f} ms, "
        f"worst {max(times):.1f} ms",
        flush=True,
    )


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="python -m bench route_change", description=__doc__).parse_args(argv)
    for router in KINDS:
        change_routes(router)
    return 0
