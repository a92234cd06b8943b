"""VFIO and binding with a real vfio-pci behind a real kernel's IOMMU, on cards that QEMU emulates by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.guest.machine import Model, Result

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

Boot = Callable[..., Result]
CARDS = [Model("igb"), Model("igb")]
VFIO = ["vfio-pci", "vfio_iommu_type1"]


def test_an_unprivileged_process_drives_two_cards_in_one_container(boot: Boot) -> None:
    result = boot(
        "vfio_cards.py", timeout=180.0, devices=CARDS, modules=VFIO, arguments=["igb", "igb"], iommu=True
    )
    assert "DMAR: [DMA" not in result.log  # a fault: memory that was not mapped


def test_cards_go_to_vfio_pci_and_back_and_what_is_in_use_stays(boot: Boot) -> None:
    result = boot("vfio_binding.py", timeout=180.0, devices=CARDS, modules=["igb", *VFIO], iommu=True)
    assert result.values["interface"] == "eth0"
