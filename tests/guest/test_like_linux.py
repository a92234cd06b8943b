"""VLAN sub-interfaces and VRFs against a kernel that has them: the same frames for Linux and for ixroute."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.guest.machine import Result

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

Boot = Callable[..., Result]
MODULES = ["veth", "tun", "8021q", "vrf", "dummy"]


def test_vlan_sub_interfaces_forward_as_those_of_linux(boot: Boot) -> None:
    result = boot("like_linux.py", 180.0, modules=MODULES, arguments=["vlan"])
    assert not result.complaints()
