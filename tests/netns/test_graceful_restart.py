"""Routing daemons of the router are killed and come back while packets flow.

The router between client and server runs FRR, or BIRD, with graceful restart (RFC 4724); so does the server, which
announces. With IXROUTE_DAEMONS_FULL=1 Linux is played to first. While the daemons are dead no packet may be lost: their
routes stay in the kernel. When they are back they take their routes for a moment from the kernel, with Linux as the
router too (these versions of them do); so what is lost then is printed and not judged, and the tables must be right
afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sized

import pytest

from ixroute.demo.probes import UdpFlow
from lab.routers import Router
from lab.routing import Bird, Frr, an_address, assert_equal_tables, kernel_routes
from lab.support import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.frr]

KEPT4 = [f"10.51.{n}.0/24" for n in range(10)]
KEPT6 = [f"fd51:{n:x}::/64" for n in range(1, 11)]
STALE4, STALE6 = "10.52.0.0/24", "fd52::/64"
ALL = [*KEPT4, *KEPT6, STALE4, STALE6]
RATE = 1000

FRR_GRACEFUL = """
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 bgp graceful-restart restart-time 30
 bgp graceful-restart select-defer-time 5
"""


def frr_bgp(here: int, there: int, autonomous_system: int) -> str:
    """Of the router (here 1) or the server (2)."""
    four, six = f"10.0.2.{there}", f"fd00:2::{there}"
    announce = here == 2
    return f"""
router bgp {autonomous_system}
 bgp router-id 10.0.2.{here}
{FRR_GRACEFUL}
 neighbor {four} remote-as external
 neighbor {four} timers connect 1
 neighbor {six} remote-as external
 neighbor {six} timers connect 1
 address-family ipv4 unicast
  neighbor {four} activate
  {networks([*KEPT4, STALE4]) if announce else ""}
 exit-address-family
 address-family ipv6 unicast
  neighbor {six} activate
  {networks([*KEPT6, STALE6]) if announce else ""}
"""


def networks(prefixes: list[str]) -> str:
    return "\n".join(f"network {prefix}" for prefix in prefixes)


def back(router: Router, protocol: str, sessions: Sized) -> bool:
    """Both sessions are up, and what was withdrawn is swept."""
    return len(sessions) == 2 and learned(router, protocol) == {*KEPT4, *KEPT6}


def learned(router: Router, protocol: str) -> set[str]:
    return {route["dst"] for route in kernel_routes(router.lab.router, protocol)}


FULL = bool(os.environ.get("IXROUTE_DAEMONS_FULL"))
"""Linux as the router too, and ixroute restarted under BIRD."""


@pytest.fixture(params=["linux", "ixroute"] if FULL else ["ixroute"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def flowing(router: Router) -> Iterator[None]:
    """As counted; none of the packets may be lost."""
    with counted(router) as flows:
        yield
    assert [flow.result.lost for flow in flows] == [0, 0]


@contextlib.contextmanager
def counted(router: Router) -> Iterator[list[UdpFlow]]:
    """Two streams to what is announced and stays announced."""
    lab = router.lab
    targets = [an_address(KEPT4[3]), an_address(KEPT6[3])]
    flows = [UdpFlow(lab.client, lab.server, target, rate=RATE) for target in targets]
    for flow in flows:
        flow.start()
    try:
        wait_until(lambda: all(flow.result.received > 100 for flow in flows), 5, "no traffic")
        yield flows
    finally:
        print([flow.stop() for flow in flows])


def addresses_on(router: Router) -> None:
    for prefix in ALL:
        router.lab.server.ip(f"addr add {an_address(prefix)}/{prefix.partition('/')[2]} dev lo")


def check_equal(router: Router) -> None:
    if router.daemon is not None:
        assert_equal_tables(router, [an_address(prefix) for prefix in ALL])


@pytest.fixture
def frr(make_router: Callable[..., Router], kind: str) -> Iterator[tuple[Router, Frr, Frr]]:
    router = make_router(kind)
    addresses_on(router)
    ours = Frr(router.lab.router, {"bgpd": frr_bgp(1, 2, 65000)}, {"zebra": ("-K", "5")})
    theirs = Frr(router.lab.server, {"bgpd": frr_bgp(2, 1, 65002)})
    try:
        ours.start()
        theirs.start()
        wait_until(lambda: learned(router, "bgp") == set(ALL), 30, ours.tell)
        check_equal(router)
        yield router, ours, theirs
    finally:
        ours.close()
        theirs.close()


def withdraw(theirs: Frr) -> None:
    for family, prefix in (("ipv4", STALE4), ("ipv6", STALE6)):
        theirs.configure("router bgp 65002", f"address-family {family} unicast", f"no network {prefix}")


def test_frr_is_killed_and_comes_back(frr: tuple[Router, Frr, Frr]) -> None:
    """What was withdrawn meanwhile is swept when it is back."""
    router, ours, theirs = frr
    with flowing(router):
        for name in ("zebra", "bgpd"):
            ours.daemons[name].end(signal.SIGKILL)
        withdraw(theirs)
        time.sleep(1)
        assert learned(router, "bgp") == set(ALL), "the routes went with their daemons"
        check_equal(router)
    with counted(router):
        ours.start()
        wait_until(lambda: back(router, "bgp", ours.established()), 40, ours.tell)
    check_equal(router)
    with flowing(router):
        pass


# ---- BIRD

BIRD_PEER = """
protocol bgp peer_{channel} {{
  local {here} as {ours}; neighbor {there} as {theirs};
  graceful restart on; graceful restart time 30;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  {channel} {{ import all; export {exports}; }};
}}
"""
BIRD_KERNEL = "protocol kernel {{ persist; {channel} {{ export where source = RTS_BGP; }}; }}\n"


def bird_config(here: int, there: int, announced: list[str]) -> str:
    text = f"router id 10.0.2.{here};\nprotocol device {{ }}\ngraceful restart wait 20;\n"
    for channel, net in (("ipv4", "10.0.2."), ("ipv6", "fd00:2::")):
        if here == 1:
            text += BIRD_KERNEL.format(channel=channel)
        routes = " ".join(f"route {p} blackhole;" for p in announced if (":" in p) == (channel == "ipv6"))
        text += f"protocol static announced_{channel} {{ {channel}; {routes} }}\n"
        text += BIRD_PEER.format(
            channel=channel, here=f"{net}{here}", there=f"{net}{there}", ours=65000 + here, theirs=65000 + there,
            exports="all" if announced else "none",
        )  # fmt: skip
    return text


def sessions(bird: Bird) -> list[str]:
    return [line for line in bird.ask("show protocols").splitlines() if "Established" in line]


def test_bird_is_killed_and_comes_back(make_router: Callable[..., Router], kind: str) -> None:
    router = make_router(kind)
    addresses_on(router)
    ours = Bird(router.lab.router, bird_config(1, 2, []))
    theirs = Bird(router.lab.server, bird_config(2, 1, ALL))
    try:
        ours.start()
        theirs.start()
        wait_until(lambda: learned(router, "bird") == set(ALL), 30, lambda: ours.ask("show protocols"))
        check_equal(router)
        with flowing(router):
            ours.close(signal.SIGKILL)
            time.sleep(1)
            (router.lab.server.directory / "bird.conf").write_text(bird_config(2, 1, [*KEPT4, *KEPT6]))
            theirs.ask("configure")
            assert learned(router, "bird") == set(ALL), "BIRD's routes went with it"
            check_equal(router)
        with counted(router):
            ours.start("-R")
            wait_until(
                lambda: back(router, "bird", sessions(ours)), 30, lambda: ours.ask("show protocols all")
            )
        check_equal(router)
        with flowing(router):
            pass
    finally:
        ours.close()
        theirs.close()


# ---- ixroute itself


@pytest.mark.skipif(not FULL, reason="IXROUTE_DAEMONS_FULL is not set")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ixroute_restarts_under_bird_and_forwards_what_it_did(
    make_router: Callable[..., Router], number: int
) -> None:
    """Carrier is lost for that time, and BIRD may drop its sessions; what comes back is the same."""
    router = make_router()
    addresses_on(router)
    ours = Bird(router.lab.router, bird_config(1, 2, []))
    theirs = Bird(router.lab.server, bird_config(2, 1, ALL))
    flow = UdpFlow(router.lab.client, router.lab.server, an_address(KEPT4[3]), rate=RATE)
    try:
        ours.start()
        theirs.start()
        wait_until(lambda: learned(router, "bird") == set(ALL), 30, lambda: ours.ask("show protocols"))
        check_equal(router)
        before = tables(router)
        flow.start()
        wait_until(lambda: flow.result.received > 100, 5, "no traffic")
        router.ixroute.end(number, 10)
        router.ixroute.start()
        wait_until(lambda: learned(router, "bird") == set(ALL), 30, lambda: ours.ask("show protocols"))
        check_equal(router)
        arrived = flow.result.received
        wait_until(lambda: flow.result.received > arrived + 100, 15, "the stream did not come back")
        wait_until(lambda: tables(router) == before, 10, lambda: f"was {before}, is {tables(router)}")
    finally:
        print(flow.stop())
        ours.close()
        theirs.close()


def tables(router: Router) -> tuple[int, int, int]:
    mirror = router.ixroute.stats()["mirror"]
    return mirror["routes4"], mirror["routes6"], mirror["managed"]
