"""What a view says of a packet, said slowly: the twin of view_run.c, from Linux's rules and its flow dissector.

It cuts the packet into fields first, knows nothing of bursts, and takes one step after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from ixroute.fib.adjacency import ADJ_BLACKHOLE, ADJ_KERNEL, ADJ_NO_ROUTE, ADJ_POLICY, ADJ_REJECT
from ixroute.forward.view import ALL, Match

VERDICTS = {
    "no_route": ADJ_NO_ROUTE,
    "blackhole_route": ADJ_BLACKHOLE,
    "reject_route": ADJ_REJECT,
    "external_route": ADJ_KERNEL,
    "policy_rule": ADJ_POLICY,
}
WITH_PORTS = {6: 0, 17: 0, 33: 0, 50: 0, 132: 0, 136: 0, 51: 4}
Table = dict[IPv4Network | IPv6Network, int]


class Unknown(Exception):  # noqa: N818 - not an error
    """The fast path does not look so far into the packet."""


@dataclass(frozen=True)
class SlowStep:
    """Exactly one of table (a number), verdict (a reason's name) and goto is given."""

    match: Match = ALL
    table: int | None = None
    verdict: str | None = None
    goto: int | None = None


@dataclass(frozen=True)
class SlowView:
    steps: tuple[SlowStep, ...]
    same_source: bool = False

    def find(self, look: Callable[[int, bytes], int], ip: bytes, address: bytes) -> int:
        """The adjacency's index for an address of the packet. look: table, address -> index or ADJ_NO_ROUTE."""
        at = 0
        while at < len(self.steps):
            step = self.steps[at]
            at += 1
            try:
                if not matches(step.match, ip):
                    continue
            except Unknown:
                return ADJ_POLICY
            if step.goto is not None:
                at = step.goto
            elif step.verdict is not None:
                return VERDICTS[step.verdict]
            else:
                assert step.table is not None
                found = look(step.table, address)
                if found != ADJ_NO_ROUTE:
                    return found
        return ADJ_NO_ROUTE


def longest(table: Table, address: bytes) -> int:
    """Longest match, slowly."""
    wanted = ip_address(address)
    fitting = [p for p in table if p.version == wanted.version and wanted in p]
    return table[max(fitting, key=lambda p: p.prefixlen)] if fitting else ADJ_NO_ROUTE


def matches(match: Match, ip: bytes) -> bool:
    return matches_plainly(match, ip) != match.inverted


def matches_plainly(match: Match, ip: bytes) -> bool:
    if ip[0] >> 4 == 4:
        tos, source, destination = ip[1], ip[12:16], ip[16:20]
    else:
        tos, source, destination = (ip[0] & 15) << 4 | ip[1] >> 4, ip[8:24], ip[24:40]
    if tos & match.tos_mask != match.tos:
        return False
    for prefix, address in ((match.source, source), (match.destination, destination)):
        if prefix is not None and ip_address(address) not in ip_network(prefix):
            return False
    if not match.protocol and match.source_ports is None and match.destination_ports is None:
        return True
    protocol, ports = dissect(ip)
    if match.protocol not in (0, protocol):
        return False
    wanted = (match.source_ports, match.destination_ports)
    return all(w is None or w[0] <= port <= w[1] for w, port in zip(wanted, ports, strict=True))


def dissect(ip: bytes) -> tuple[int, tuple[int, int]]:
    """Protocol and ports, (0, 0) without ports."""
    if ip[0] >> 4 == 4:
        protocol, payload = ip[9], ip[(ip[0] & 15) * 4 :]
        fragment = bool(int.from_bytes(ip[6:8], "big") & 0x3FFF)
    else:
        protocol, payload, fragment = ip[6], ip[40:], False
        if protocol in (0, 43, 60) or (protocol == 44 and len(payload) < 8):
            raise Unknown
        if protocol == 44:
            protocol, fragment = payload[0], True
    at = WITH_PORTS.get(protocol)
    if fragment or at is None or len(payload) < at + 4:
        return protocol, (0, 0)
    words = payload[at : at + 4]
    return protocol, (int.from_bytes(words[:2], "big"), int.from_bytes(words[2:], "big"))
