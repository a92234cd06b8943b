"""A TAP and its port are kept equal, whatever the card answers."""

from __future__ import annotations

import contextlib
import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest

from ixroute.config import Config
from ixroute.driver.port import Link, PortError
from ixroute.forward import worker as flags
from ixroute.netlink.contract import PortState, TapState
from ixroute.ports import Pairs, follow_tap, port_flags
from ixroute.router import Router

MAC, OTHER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


class Card:
    """A port that refuses what `refuses` names, or everything once it is gone."""

    name, index = "lan", 0

    def __init__(self, *refuses: str) -> None:
        self.refuses = set(refuses)
        self.values: dict[str, Any] = {"mtu": 1500, "mac": MAC}
        self.wire = Link(up=True, speed_mbps=10_000, duplex="full")
        self.gone = False

    def _ask(self, what: str = "") -> None:
        if self.gone or what in self.refuses:
            raise PortError("af_xdp:eth1", "no" if not self.gone else "eth1 is gone", self.name)

    @property
    def mtu(self) -> int:
        self._ask()
        return int(self.values["mtu"])

    @property
    def mac(self) -> bytes:
        self._ask()
        return bytes(self.values["mac"])

    def __getattr__(self, name: str) -> Any:
        assert name.startswith("set_"), name

        def setter(value: object) -> None:
            self._ask(name)
            self.values[name.removeprefix("set_")] = value

        return setter

    def link(self) -> Link:
        self._ask()
        return self.wire


class Recorder:
    """A TAP, or anything else whose calls are to be seen."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))


def tap_state(**changes: Any) -> TapState:
    state = {
        "present": True,
        "ifindex": 5,
        "name": "lan",
        "up": True,
        "carrier": True,
        "mtu": 1500,
        "mac": MAC,
    }
    return TapState(**(state | {"promisc": False, "allmulti": False} | changes))


def test_the_card_gets_what_is_set_on_the_interface() -> None:
    card, tap = Card(), Recorder()
    follow_tap(card, tap, tap_state(mtu=1400, mac=OTHER_MAC, promisc=True))  # type: ignore[arg-type]
    assert card.values == {"mtu": 1400, "mac": OTHER_MAC, "promiscuous": True, "allmulticast": False}
    assert tap.calls == []


def test_what_the_card_refuses_is_set_back_on_the_interface(caplog: pytest.LogCaptureFixture) -> None:
    card, tap = Card("set_mtu", "set_mac"), Recorder()
    follow_tap(card, tap, tap_state(mtu=9000, mac=OTHER_MAC))  # type: ignore[arg-type]
    assert tap.calls == [("set_mtu", 1500), ("set_mac", MAC)]
    assert "goes back to MTU 1500" in caplog.text


def test_a_card_that_is_gone_is_told_once_per_change_and_nothing_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    card, tap = Card(), Recorder()
    card.gone = True
    follow_tap(card, tap, tap_state(mtu=1400))  # type: ignore[arg-type]
    assert tap.calls == []
    assert "eth1 is gone" in caplog.text


def pairs(card: Card, tap: Recorder, dataplane: Recorder) -> Pairs:
    return Pairs([card], [tap], dataplane, [], 64, lambda job: job())  # type: ignore[arg-type,list-item]


def test_carrier_and_speed_reach_the_interface_when_they_change_and_only_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    card, tap = Card(), Recorder()
    both = pairs(card, tap, Recorder())
    for _ in range(2):
        both.follow_links()
    assert tap.calls == [("set_carrier", True), ("set_speed", 10_000, True)]
    card.gone = True
    both.follow_links()
    assert tap.calls[2:] == [("set_carrier", False)]
    assert both.link(0) == Link(up=False)


def test_a_port_that_is_gone_still_has_the_interfaces_mac_and_mtu() -> None:
    dataplane = Recorder()
    both = pairs(Card(), Recorder(), dataplane)
    both.set_port(0, PortState(up=True, ip4_forward=True, mac=MAC, mtu=1400))
    assert (both.state(0).mtu, both.state(0).mac) == (1400, MAC)


def test_packets_go_by_the_tables_only_when_those_have_been_read() -> None:
    dataplane = Recorder()
    both = pairs(Card(), Recorder(), dataplane)
    told, kernel = flags.PORT_UP | flags.PORT_IP4_FORWARD, flags.PORT_RULES4 | flags.PORT_RULES6
    both.set_port(0, PortState(up=True, ip4_forward=True, mac=MAC, mtu=1400))
    both.trust_tables()
    both.trust_tables()
    both.set_port(0, PortState(up=True, ip4_forward=True, mac=MAC, mtu=1300))
    assert dataplane.calls == [
        ("set_port", 0, MAC, 1400, told | kernel),
        ("set_port", 0, MAC, 1400, told),
        ("set_port", 0, MAC, 1300, told),
    ]


def test_at_the_start_every_port_is_what_its_interface_is() -> None:
    dataplane, tap = Recorder(), Recorder()
    tap.__dict__.update(mac=OTHER_MAC, mtu=1280)
    pairs(Card(), tap, dataplane).begin()
    kernel = flags.PORT_RULES4 | flags.PORT_RULES6
    assert dataplane.calls == [("set_port", 0, OTHER_MAC, 1280, flags.PORT_UP | kernel)]


def test_every_permission_of_a_port_has_a_bit_of_its_own() -> None:
    fields = [
        "up",
        "ip4_forward",
        "ip6_forward",
        "send_redirects",
        "accept_local",
        "route_localnet",
        "kernel_all",
    ]
    bits = [port_flags(PortState(**{field: True})) for field in fields]
    bits += [port_flags(PortState(rpf=rpf)) for rpf in (1, 2)]
    assert port_flags(PortState()) == 0
    bits += [flags.PORT_RULES4, flags.PORT_RULES6]  # of no port's: until the tables are read
    assert sum(bits) == sum(set(bits)) == (1 << len(bits)) - 1


class Served:
    """A port that only wants to be served."""

    def __init__(self, index: int, link_fd: int = -1) -> None:
        self.name, self.index, self.link_fd = f"port{index}", index, link_fd
        self.served = 0
        self.trouble = ""

    def service(self) -> None:
        self.served += 1
        if self.link_fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.link_fd)
        if self.trouble:
            raise PortError("vfio-user:/x", self.trouble, self.name)

    def link(self) -> Link:
        return Link(up=False)


def pairs_of(*ports: Served) -> Pairs:
    recorder: Any = Recorder()
    all_ports: Any = ports
    return Pairs(all_ports, [recorder] * len(ports), recorder, [], 0, lambda job: None)


def test_every_port_is_served_also_when_another_is_in_trouble(caplog: pytest.LogCaptureFixture) -> None:
    broken, well = Served(0), Served(1)
    broken.trouble = "the card is gone"
    both = pairs_of(broken, well)
    for _ in range(3):
        both.service()
    assert (broken.served, well.served) == (3, 3)
    assert [record.message for record in caplog.records] == ["port port0: the card is gone"]


def test_the_main_loop_serves_ports_as_soon_as_a_link_fd_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ixroute.router.TICK_SECONDS", 3600.0)
    event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    port = Served(0, event)
    router = Router(Config())

    class Loop(Served):
        """Served after `port`: rings at the first service, stops the router at the second."""

        def service(self) -> None:
            super().service()
            if self.served == 1:
                os.eventfd_write(event, 1)
            else:
                router._stopping = "the test"

    last = Loop(1)
    parts: Any = SimpleNamespace(
        ports=[port, last],
        pairs=pairs_of(port, last),
        workers=[],
        door=SimpleNamespace(alive=True),
        mirror=SimpleNamespace(wait_synced=lambda seconds: False),
    )
    os.eventfd_write(event, 1)
    assert router._serve(parts) == 0  # or this test's time is up
    assert port.served == 2
    router._wake_read.close()
    router._wake_write.close()
    os.close(event)
