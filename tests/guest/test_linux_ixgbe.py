"""Linux's own ixgbe, unmodified, on emulated cards: it must find nothing to complain about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.guest import cards
from lab.guest.machine import Result

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

Boot = Callable[..., Result]
PAIR = ("pair:a", "pair:a")


def test_traffic_of_every_kind_between_two_cards(boot: Boot) -> None:
    """Link, pings, TCP with and without TSO, flows over the queues, VLAN, jumbo frames, down and up, module again."""
    with cards.serve(PAIR) as served:
        result = boot(
            "linux_traffic.sh",
            devices=served.devices,
            modules=["ixgbe", "8021q"],
            arguments=["ixgbe"],
        )
    assert result.values["speed"] == "10000"
    assert int(result.values["queues"]) > 1
    assert result.values["queues_used"] == result.values["queues"]
    for counter in ("rx_errors", "tx_errors", "rx_csum_errors", "tx_timeouts"):
        assert result.values[counter] == "0", counter
    assert len(result.kernel(r"ixgbe .*NIC Link is Up 10 Gbps")) >= 2
    assert not result.complaints()
    served.check()
    assert not served.unknown
    near, far = served.counters
    assert near["tx_segments"] > 1000  # 4 MiB at 1460 bytes: the card cut them, not Linux
    assert far["rx_packets"] > 1000
    assert far["interrupts"] < far["rx_packets"]


def test_pings_pass_when_the_queues_registers_are_mapped(boot: Boot) -> None:
    """QEMU maps them into the guest: a tail, and a queue switched on or off, comes without a message or an event."""
    with cards.serve(PAIR, "--map-bar") as served:
        result = boot("linux_pings.sh", devices=served.devices, modules=["ixgbe"])
    assert not result.complaints()
    served.check()


def test_ethtool_reads_the_card_and_its_self_tests_pass(boot: Boot) -> None:
    """Registers, EEPROM, module, statistics, rings, RSS table, online and offline tests (registers, loopback, link)."""
    with cards.serve(PAIR) as served:
        result = boot("linux_selftest.sh", devices=served.devices, modules=["ixgbe"])
    assert result.values["driver"] == "ixgbe"
    assert result.values["mac"].startswith("02:")
    assert int(result.values["registers_lines"]) > 1000
    assert int(result.values["statistics_lines"]) > 100
    assert "SFP" in result.values["module"]
    assert result.log.count("The test result is PASS") == 2
    assert not result.complaints()
    served.check()
    assert not [access for access in served.unknown if access.startswith("write")]
