"""How much of each kind of packet may reach the kernel: the default token buckets in front of the punt.

A bucket stands per port and reason; its rate is shared evenly by the workers. What made the numbers:

* Above Linux's own limits, so that a sender sees those and not ours: ICMP errors are limited by the
  kernel per source (6 at once, then 1/s), "fragmentation needed" and "packet too big" never are.
* Below what would hurt: the kernel takes about a million packets per second and core from a TAP.
* Of what waits for a neighbour the kernel keeps a limited number for each and drops all when none answers: more
  costs it work and brings nobody a packet.
* What keeps a router alive (ARP, neighbour discovery, routing protocols) has buckets of its own, which no
  flood of anything else can empty.

The workers' clock ticks every 1 to 10 ms, so a burst below a hundredth of the rate would cost rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_RATE = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Policer:
    """`rate` packets per second and port, after `burst` packets at once. Rate 0 lets nothing pass."""

    rate: int
    burst: int

    def __post_init__(self) -> None:
        """ValueError when a number is out of range: rate 0..10^9; burst 1..10^9."""
        if not 0 <= self.rate <= MAX_RATE:
            raise ValueError(f"rate {self.rate} is not in 0..{MAX_RATE}")
        if not 1 <= self.burst <= MAX_RATE:
            raise ValueError(f"burst {self.burst} is not in 1..{MAX_RATE}")


DEFAULT_POLICERS: Mapping[str, Policer] = {
    # What keeps the router alive.
    "arp_request": Policer(1_000, 1_000),
    "arp_response": Policer(2_000, 2_000),
    "ipv6_neighbour_discovery": Policer(2_000, 2_000),
    "routing_protocol": Policer(20_000, 4_000),
    "link_local_frame": Policer(1_000, 500),
    # Traffic that the kernel carries because only it can: as much as it takes.
    "kernel_interface": Policer(500_000, 50_000),
    "vlan_sub_interface": Policer(200_000, 20_000),
    "external_route": Policer(100_000, 10_000),
    "unresolved_neigh": Policer(2_000, 2_000),
    "multipath_route": Policer(100_000, 10_000),
    "policy_rule": Policer(100_000, 10_000),
    "source_validation": Policer(50_000, 5_000),
    "forwarding_disabled": Policer(1_000, 1_000),
    # To the router itself.
    "local_route": Policer(50_000, 5_000),
    "ipv4_broadcast": Policer(1_000, 1_000),
    "ipv4_multicast": Policer(10_000, 2_000),
    "ipv6_multicast": Policer(10_000, 2_000),
    "ipv6_link_local": Policer(5_000, 1_000),
    # Answered by an ICMP error, which the kernel limits per source; many sources may deserve one each.
    "ttl_value_is_too_small": Policer(5_000, 5_000),
    "no_route": Policer(5_000, 5_000),
    "reject_route": Policer(5_000, 5_000),
    "mtu_value_is_too_small": Policer(1_000_000, 100_000),
    "ipv4_options": Policer(5_000, 1_000),
    "ipv6_hop_by_hop": Policer(5_000, 1_000),
    # For redirects, of which Linux sends nine; what does not pass here is forwarded in the fast path.
    "ingress_is_egress": Policer(100, 100),
}
"""Reason name to its bucket: every punt reason is in it, and nothing else."""
