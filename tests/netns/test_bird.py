"""BIRD in the router's namespace takes thousands of routes from a BIRD beyond a port: what it puts into the kernel is
what ixroute forwards by, all of it, and all of it gone again when it is withdrawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ixroute.demo.probes import ping
from lab.routers import Router
from lab.routing import Bird, an_address, assert_equal_tables
from lab.support import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.frr]

FOUR = [f"10.{64 + n // 256}.{n % 256}.0/24" for n in range(4000)]
SIX = [f"fd20:{n:x}::/48" for n in range(1, 1001)]
PEER = """
protocol bgp {name} {{
  local {here} as {ours}; neighbor {there} as {theirs};
  hold time 9; connect delay time 1; connect retry time 1; error wait time 1, 2;
  {channel} {{ import {imports}; export {exports}; }};
}}
"""
KERNEL = "protocol kernel {{ {channel} {{ import none; export where source = RTS_BGP; }}; scan time 20; }}\n"


def router_config() -> str:
    text = "router id 10.0.0.1;\nprotocol device { }\n"
    for channel, here, there in (("ipv4", "10.0.2.1", "10.0.2.2"), ("ipv6", "fd00:2::1", "fd00:2::2")):
        text += KERNEL.format(channel=channel) + PEER.format(
            name=f"server_{channel}", here=here, there=there, ours=65000, theirs=65002,
            channel=channel, imports="all", exports="none",
        )  # fmt: skip
    return text


def server_config() -> str:
    text = "router id 10.0.2.2;\nprotocol device { }\n"
    for channel, here, there, prefixes in (
        ("ipv4", "10.0.2.2", "10.0.2.1", FOUR),
        ("ipv6", "fd00:2::2", "fd00:2::1", SIX),
    ):
        routes = "\n".join(f"route {prefix} blackhole;" for prefix in prefixes)
        text += f"protocol static many_{channel} {{ {channel}; {routes} }}\n" + PEER.format(
            name=f"router_{channel}", here=here, there=there, ours=65002, theirs=65000,
            channel=channel, imports="none", exports="all",
        )  # fmt: skip
    return text


def learned(router: Router) -> tuple[int, int]:
    """How many IPv4 and IPv6 routes BIRD has put into the kernel."""
    return tuple(
        len(router.lab.router.ip(f"{family} route show proto bird").splitlines()) for family in ("-4", "-6")
    )


def test_thousands_of_bgp_routes_are_followed_and_their_withdrawal_too(
    make_router: Callable[..., Router],
) -> None:
    router = make_router()
    addresses = [an_address(prefix) for prefix in (*FOUR, *SIX)]
    for address in (addresses[0], addresses[3999]):
        router.lab.server.ip(f"addr add {address}/24 dev lo")
    bare = router.ixroute.stats()["fib"]
    here, there = Bird(router.lab.router, router_config()), Bird(router.lab.server, server_config())
    try:
        here.start()
        there.start()
        for _ in range(2):
            wait_until(lambda: learned(router) == (4000, 1000), 20, lambda: here.ask("show protocols"))
            assert_equal_tables(router, addresses)
            assert {router.ixroute.lookup(address)["verdict"] for address in addresses[::500]} == {"forward"}
            assert ping(router.lab.client, addresses[0], 3).all_back
            assert ping(router.lab.client, addresses[3999], 3).all_back
            there.ask("disable many_ipv4")
            there.ask("disable many_ipv6")
            wait_until(lambda: learned(router) == (0, 0), 20, lambda: here.ask("show protocols"))
            assert_equal_tables(router, addresses)
            there.ask("enable many_ipv4")
            there.ask("enable many_ipv6")
        wait_until(lambda: learned(router) == (4000, 1000), 20, lambda: here.ask("show protocols"))
        here.close()  # BIRD takes its routes with it
        assert learned(router) == (0, 0)
        assert_equal_tables(router, addresses)
        fib = router.ixroute.stats()["fib"]
        assert (fib["prefixes4"], fib["prefixes6"]) == pytest.approx(
            (bare["prefixes4"], bare["prefixes6"]), abs=8
        )
    finally:
        here.close()
        there.close()
