"""Drivers in user space, through the guest's vfio-pci and behind its IOMMU: what they did not map, no card reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.guest import cards
from lab.guest.machine import Model, Result

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

Boot = Callable[..., Result]
VFIO = ["vfio-pci", "vfio_iommu_type1"]
HUGE_PAGES = 64
PAIR = ("pair:a", "pair:a")


def test_the_vfio_transport_drives_cards_that_qemu_emulates(boot: Boot) -> None:
    """As nobody: registers, one mapping for two cards, a packet fetched, vectors, reset, closed and opened again."""
    result = boot(
        "vfio_cards.py",
        devices=[Model("igb"), Model("igb")],
        modules=VFIO,
        arguments=["igb", "igb"],
        iommu=True,
    )
    assert result.values["uid"] == "65534"
    assert result.values["id_0000:01:00.0"] == "8086:10c9"
    assert [name for name in result.ok if name.startswith("card_reads_and_writes_memory")]
    assert not [line for line in result.complaints() if "RLIMIT_MEMLOCK" not in line]


def test_the_vfio_transport_drives_emulated_82599s(boot: Boot) -> None:
    with cards.serve(PAIR) as served:
        result = boot(
            "vfio_cards.py",
            devices=served.devices,
            modules=VFIO,
            arguments=["ixgbe", "ixgbe"],
            iommu=True,
        )
    assert result.values["id_0000:01:00.0"] == "8086:10fb"
    assert [name for name in result.ok if name.startswith("vector_2")]
    assert not [line for line in result.complaints() if "RLIMIT_MEMLOCK" not in line]
    served.check()
    assert all(card["interrupts"] == 3 for card in served.counters)


def test_the_router_forwards_between_two_cards_as_nobody(boot: Boot) -> None:
    """`ixroute run` on two emulated cards, between two hosts that Linux's ixgbe connects."""
    with cards.serve(("pair:a", "pair:b", "pair:a", "pair:b")) as served:
        result = boot(
            "router.py",
            180.0,
            devices=served.devices,
            modules=["ixgbe", "tun", *VFIO],
            iommu=True,
            megabytes=1024,
            hugepages=HUGE_PAGES,
        )
    assert int(result.values["lan_rx_packets"]) > 1000
    assert int(result.values["wan_tx_packets"]) > 1000
    assert not result.complaints()
    served.check()
    assert not served.unknown


def test_dpdk_echoes_pings_on_an_emulated_card(boot: Boot) -> None:
    """A second driver that shares nothing with ours: what both take for right is not our own misunderstanding."""
    with cards.serve(PAIR) as served:
        result = boot(
            "dpdk_echo.sh",
            devices=served.devices,
            modules=["ixgbe", *VFIO],
            iommu=True,
            megabytes=1024,
            hugepages=HUGE_PAGES,
        )
    assert result.values["dpdk_ended_with"] == "0"
    assert result.values["dpdk_complaints"] == "0"
    assert not result.complaints()
    served.check()
    assert served.counters[0]["rx_packets"] >= 25
