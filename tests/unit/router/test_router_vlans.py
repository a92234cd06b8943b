"""VLAN sub-interfaces between mirror and dataplane: trusted late, counted from their coming, refused politely."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from ixroute.forward import worker as flags
from ixroute.netlink.contract import InterfaceState, PortState
from ixroute.ports import Pairs

MAC = bytes.fromhex("020000000001")
RULES = flags.PORT_RULES4 | flags.PORT_RULES6


class FakeDataplane:
    def __init__(self) -> None:
        self.interfaces: dict[int, tuple[Any, ...]] = {}
        self.error: Exception | None = None

    def set_port(self, *_: object) -> None: ...

    def set_interface(self, number: int, *rest: Any) -> None:
        if self.error is not None:
            raise self.error
        self.interfaces[number] = rest

    def clear_interface(self, number: int) -> None:
        self.interfaces.pop(number, None)


class FakeWorker:
    """Counts one packet on every sub-interface each time that it is told to."""

    def __init__(self) -> None:
        self.packets = 0

    def sub_counters(self, number: int) -> dict[str, int]:
        return dict.fromkeys(flags.SUB_CELLS, self.packets)


def sub(name: str = "lan.7", vid: int = 7, **state: Any) -> InterfaceState:
    return InterfaceState(
        name, 20, 0, ((0x8100, vid),), PortState(**({"up": True, "mac": MAC, "mtu": 1500} | state))
    )


@pytest.fixture
def made() -> tuple[Pairs, FakeDataplane, list[FakeWorker]]:
    dataplane, workers = FakeDataplane(), [FakeWorker(), FakeWorker()]
    lan: Any = SimpleNamespace(name="lan", index=0)
    pairs = Pairs([lan], [], dataplane, workers, 64, lambda job: job())  # type: ignore[arg-type]
    return pairs, dataplane, workers


def test_a_sub_interface_is_trusted_when_the_tables_are(made: tuple[Pairs, FakeDataplane, Any]) -> None:
    pairs, dataplane, _ = made
    assert pairs.set_interface(64, sub())
    assert dataplane.interfaces[64] == (0, ((0x8100, 7),), MAC, 1500, flags.PORT_UP | RULES)
    pairs.trust_tables()
    assert dataplane.interfaces[64][-1] == flags.PORT_UP
    assert pairs.set_interface(64, sub(ip4_forward=True))
    assert dataplane.interfaces[64][-1] == flags.PORT_UP | flags.PORT_IP4_FORWARD


def test_counters_begin_when_the_sub_interface_comes_not_when_its_number_did(
    made: tuple[Pairs, FakeDataplane, list[FakeWorker]],
) -> None:
    pairs, _, workers = made
    pairs.set_interface(64, sub())
    workers[0].packets, workers[1].packets = 5, 2
    pairs.set_interface(64, sub(mtu=1400))
    [(state, counted)] = pairs.subs()
    assert (state.state.mtu, counted["rx_packets"], counted["tx_bytes"]) == (1400, 7, 7)
    pairs.drop_interface(64)
    assert pairs.subs() == []
    pairs.set_interface(64, sub("lan.8", 8))
    workers[1].packets = 3
    [(state, counted)] = pairs.subs()
    assert (state.name, counted["rx_packets"]) == ("lan.8", 1)


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "busy"), FileNotFoundError(), FileExistsError()])
def test_what_the_dataplane_refuses_is_said_and_not_held_for_served(
    made: tuple[Pairs, FakeDataplane, Any], error: OSError, caplog: pytest.LogCaptureFixture
) -> None:
    pairs, dataplane, _ = made
    dataplane.error = error
    assert not pairs.set_interface(64, sub())
    assert pairs.subs() == []
    assert "lan.7" in caplog.text
    dataplane.error = None
    assert pairs.set_interface(64, sub())


def test_an_interface_has_its_ports_name_and_its_own(made: tuple[Pairs, FakeDataplane, Any]) -> None:
    pairs, _, _ = made
    pairs.set_interface(64, sub())
    assert pairs.interface(0) == ("lan", "lan")
    assert pairs.interface(64) == ("lan", "lan.7")
    assert pairs.interface(65) is None
