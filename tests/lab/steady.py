"""Packets to many destinations whose routes do not change: each must reach its host, whatever happens to the
routes around."""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ixroute.demo.topology import Lab
from lab.packets import ETH_IP4, ETH_IP6, ethernet, ip4, ip6, udp
from lab.tables import link_of
from lab.wires import Flood, Wire

SOL_PACKET, PACKET_STATISTICS = 263, 6
MARK = b"a steady stream to a stable prefix"


@dataclass
class Outcome:
    """Packets; `astray`: at the wrong host. `unheard`: the listener's own losses, which nobody else caused."""

    sent: int = 0
    lost: int = 0
    astray: int = 0
    unheard: int = 0
    lost_to: dict[str, int] = field(default_factory=dict)


class SteadyStream:
    """From the client to `destinations` (address: gateway number), one after another, between the start and the
    end of the block; `outcome` afterwards."""

    def __init__(self, lab: Lab, destinations: Mapping[str, int], rate: int = 1000) -> None:
        self.outcome = Outcome()
        self.first_heard = 0.0
        """time.monotonic() of the first packet; 0: none yet."""
        self._hosts = {address: link_of(lab, gateway).host for address, gateway in destinations.items()}
        self._wires = {name: Wire(host) for name, host in lab.hosts.items()}
        frames = [frame_to(lab, address, MARK) for address in destinations]
        self._flood = Flood(self._wires["client"], frames, rate)
        self._heard: Counter[tuple[str, str]] = Counter()
        self._ended = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="listener")

    def __enter__(self) -> SteadyStream:
        self._listener.start()
        self._flood.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._flood.__exit__()
        time.sleep(0.5)  # what is under way arrives
        self._ended.set()
        self._listener.join()
        self._count()
        for wire in self._wires.values():
            wire.close()

    @property
    def heard(self) -> int:
        return sum(list(self._heard.values()))

    def heard_at(self, host: str) -> int:
        return sum(count for (name, _), count in list(self._heard.items()) if name == host)

    def _listen(self) -> None:
        wires = {name: wire for name, wire in self._wires.items() if name != "client"}
        while not self._ended.is_set():
            if not select.select([wire.socket for wire in wires.values()], [], [], 0.05)[0]:
                continue
            for name, wire in wires.items():
                for frame in wire.take():
                    if frame.endswith(MARK):
                        self.first_heard = self.first_heard or time.monotonic()
                        self._heard[(name, _destination(frame))] += 1

    def _count(self) -> None:
        out, n = self.outcome, len(self._hosts)
        out.sent = self._flood.sent
        for i, (address, host) in enumerate(self._hosts.items()):
            sent = out.sent // n + (i < out.sent % n)
            if lost := sent - self._heard.pop((host, address), 0):
                out.lost_to[address] = lost
        out.lost = sum(out.lost_to.values())
        out.astray = sum(self._heard.values())
        for name in self._hosts.values():
            # struct tpacket_stats; reading it sets it to zero
            stats = self._wires[name].socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
            out.unheard += struct.unpack("=II", stats)[1]


def frame_to(lab: Lab, address: str, data: bytes) -> bytes:
    """UDP from the client, by way of the router."""
    near = lab.links[0]
    if ":" in address:
        packet, kind = ip6(near.host6, address, udp(near.host6, address, data, dport=9)), ETH_IP6
    else:
        packet, kind = ip4(near.host4, address, udp(near.host4, address, data, dport=9)), ETH_IP4
    return ethernet(near.router_mac, near.host_mac, kind, packet)


def _destination(frame: bytes) -> str:
    if frame[12:14] == struct.pack("!H", ETH_IP6):
        return str(ipaddress.IPv6Address(frame[38:54]))
    return socket.inet_ntoa(frame[30:34])
