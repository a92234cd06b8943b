"""A daemon's answers, made up, for the tests of what shows them."""

from __future__ import annotations

import copy
from typing import Any

from ixroute.schema import Lookup, Rules, Stats

_PORT: dict[str, Any] = {
    "name": "wan0",
    "index": 0,
    "spec": "af_xdp:eth1",
    "up": True,
    "link": {"up": True, "speed_mbps": 10_000},
    "mtu": 1500,
    "mac": "02:00:00:00:00:01",
    "rx_packets": 1_000_000,
    "rx_bytes": 64_000_000,
    "tx_packets": 900,
    "tx_bytes": 90_000,
    "injected_packets": 10,
    "injected_bytes": 1000,
    "sent_packets": 999_000,
    "punted": {"arp_request": 3, "no_route": 7, "local_route": 0},
    "policed": {"arp_request": 0, "no_route": 500, "local_route": 0},
    "dropped": {"blackhole_route": 490, "tx_ring_full": 10},
    "door": {"written_packets": 9, "written_bytes": 900, "write_failed": 1, "read_packets": 10},
    "driver": {"rx_ring_full": 2, "rx_dropped": 0, "tx_ring_empty": 5, "tx_kicks": 77},
}
_SUB: dict[str, Any] = {
    "name": "wan0.7",
    "ifindex": 20,
    "port": "wan0",
    "tags": [{"protocol": "802.1Q", "id": 7}],
    "up": True,
    "mtu": 1500,
    "mac": "02:00:00:00:00:01",
    "rx_packets": 2000,
    "rx_bytes": 136_000,
    "tx_packets": 50,
    "tx_bytes": 3400,
    "sent_packets": 1990,
    "punted": 4,
    "policed": 1,
    "dropped": 5,
}
_WORKER: dict[str, Any] = {
    "number": 0,
    "core": 1,
    "packets": 1_000_010,
    "polls": 5_000_000,
    "busy_polls": 40_000,
    "busy_cycles": 300_003_000,
    "tsc_hz": 3_000_000_000,
    "sleeps": 12,
    "heartbeat_ns": 99_000_000_000,
    "free_frames": 4000,
    "rx_no_frame": 0,
}


def stats() -> Stats:
    """Two ports, one worker; one second later in `stats_later`."""
    lan = copy.deepcopy(_PORT)
    lan |= {"name": "lan0", "index": 1, "spec": "af_xdp:eth2", "mac": "02:00:00:00:00:02"}
    lan |= {"link": {"up": False, "speed_mbps": 0}, "rx_packets": 0, "rx_bytes": 0, "tx_packets": 998_110}
    lan |= {"tx_bytes": 63_879_040, "injected_packets": 0, "injected_bytes": 0, "sent_packets": 0}
    lan |= {key: dict.fromkeys(_PORT[key], 0) for key in ("punted", "policed", "dropped", "door", "driver")}
    found: Any = {
        "schema": 1,
        "version": "9.8.7",
        "uptime_s": 7980.5,
        "time_ns": 100_000_000_000,
        "ports": [copy.deepcopy(_PORT), lan],
        "sub_interfaces": [
            copy.deepcopy(_SUB),
            copy.deepcopy(_SUB)
            | {
                "name": "wan0.100.7",
                "ifindex": 22,
                "tags": [{"protocol": "802.1ad", "id": 100}, {"protocol": "802.1Q", "id": 7}],
                "rx_packets": 0,
                "rx_bytes": 0,
                "sent_packets": 0,
                "punted": 0,
                "policed": 0,
                "dropped": 0,
            },
        ],
        "workers": [dict(_WORKER)],
        "fib": {
            "prefixes4": 1_012_345,
            "prefixes6": 223_456,
            "lookup_bytes4": 4_404_019,
            "lookup_bytes6": 1_048_576,
            "update_bytes": 64 << 20,
            "retired_bytes": 0,
            "updates": 1_300_000,
        },
        "mirror": {
            "synced": True,
            "state": "following",
            "routes4": 1_012_400,
            "routes6": 223_500,
            "paths": 90,
            "neighbors": 12,
            "managed": 3,
            "events": 40_000,
            "resyncs": 3,
            "resyncs_by_reason": {"start": 1, "link": 2},
            "resync_us": 812_345,
            "overruns": 0,
            "malformed": 0,
            "drift": 4,
            "errors": 0,
            "failed": 0,
            "paths_exhausted": 0,
            "rib_bytes": 150 << 20,
            "policy_rules": [],
        },
        "totals": {
            "rx": 1_000_000,
            "injected": 10,
            "sent": 999_000,
            "tx": 999_010,
            "punted": 10,
            "dropped": 500,
            "policed": 500,
            "in_flight": 0,
        },
    }
    return found  # type: ignore[no-any-return]


def stats_later() -> Stats:
    """`stats` half a second later: 500,000 packets more through wan0."""
    later = stats()
    later["time_ns"] += 500_000_000
    later["uptime_s"] += 0.5
    wan, lan = later["ports"]
    wan["rx_packets"] += 500_000
    wan["rx_bytes"] += 32_000_000
    wan["sent_packets"] += 499_990
    wan["dropped"]["blackhole_route"] += 10
    lan["tx_packets"] += 499_990
    lan["tx_bytes"] += 31_999_360
    later["sub_interfaces"][0]["rx_packets"] += 1000
    later["sub_interfaces"][0]["rx_bytes"] += 68_000
    later["workers"][0]["packets"] += 500_000
    later["workers"][0]["busy_cycles"] += 150_000_000
    for key, more in (("rx", 500_000), ("sent", 499_990), ("tx", 499_990), ("dropped", 10)):
        later["totals"][key] += more  # type: ignore[literal-required]
    return later


def route(prefix: str = "192.0.2.0/24") -> dict[str, Any]:
    """A route as `routes` tells it."""
    return {
        "prefix": prefix,
        "table": 254,
        "type": "unicast",
        "metric": 20,
        "tos": 0,
        "protocol": 186,
        "nhid": 0,
        "legs": [{"dev": "wan0", "gateway": "198.51.100.1", "weight": 1}],
        "adjacency": 9,
        "best": True,
    }


def rules() -> Rules:
    """An answer to `rules`."""
    plain = {"family": 4, "state": "honoured", "why": "", "interfaces": []}
    steps = ["lookup local", "from 10.0.0.0/8: kernel (policy rule)", "lookup main"]
    found: Any = {
        "rules": [
            plain | {"priority": 0, "text": "from all lookup local"},
            plain
            | {
                "priority": 9,
                "text": "from 10.0.0.0/8 fwmark 0x1 lookup 7",
                "state": "punts",
                "why": "fwmark",
            },
            plain | {"priority": 10, "text": "from all iif lan0 lookup 7", "interfaces": ["lan0"]},
            plain | {"priority": 11, "text": "from all oif lan0 lookup 7", "state": "never"},
        ],
        "programs": [
            {"interface": "lan0", "family": 4, "steps": steps, "same_source": False},
            {"interface": "wan0", "family": 4, "steps": steps, "same_source": False},
            {"interface": "wan0", "family": 6, "steps": [], "same_source": True},
        ],
    }
    return found  # type: ignore[no-any-return]


def lookup() -> Lookup:
    """An answer to `lookup`."""
    found: Any = {
        "address": "192.0.2.7",
        "verdict": "forward",
        "reason": "",
        "prefix": "192.0.2.0/24",
        "route": route(),
        "neighbor": False,
        "adjacency": {
            "index": 9,
            "action": "forward",
            "port": "wan0",
            "interface": "wan0",
            "mac": "02:00:00:00:00:09",
            "mtu": 1500,
            "routes": 1,
            "legs": [],
            "group": [],
            "buckets": 0,
        },
    }
    return found  # type: ignore[no-any-return]


def group(buckets: int = 0) -> Any:
    """An adjacency of two next hops, as `adjacencies` tells it. buckets: 0, or those of a resilient one."""

    def leg(number: int, weight: int) -> dict[str, Any]:
        return {
            "dev": "wan0",
            "gateway": f"198.51.100.{number}",
            "action": "forward" if number == 1 else "unresolved_neigh",
            "port": "wan0" if number == 1 else "",
            "interface": "wan0" if number == 1 else "",
            "mac": "02:00:00:00:00:09" if number == 1 else "",
            "mtu": 1500,
            "weight": weight,
            "share": weight / 4,
            "buckets": buckets * weight // 4,
        }

    single: Any = lookup()["adjacency"]
    return single | {
        "action": "group",
        "port": "",
        "interface": "",
        "mac": "",
        "mtu": 0,
        "group": [leg(1, 3), leg(2, 1)],
        "buckets": buckets,
    }
