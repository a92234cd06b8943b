"""What a host's kernel may lack, against one that has it: a router that is Linux and one that is ixroute, side by side
in the guest, get the same configuration and the same frames, and what leaves every port is the same, byte by byte.

VLAN sub-interfaces (tests/lab/scenes_vlan.py): 802.1Q, 802.1ad, one in the other, from each to each; priority tags,
unknown and wrong stacks, three tags; MACs, MTUs, redirects, ARP, ND, pings; rp_filter and forwarding of one of them;
renamed, moved, down, deleted, made again, also under traffic; in a bridge, with mapped priorities; macvlan and bond.
VRFs (tests/lab/scenes_vrf.py): overlapping addresses, leaks, rejecting routes, fall-through, rp_filter, members and
VRFs that come and go, also under traffic; rules beside l3mdev, and its rule elsewhere or gone; tables compared.

What Linux simply forwards must be forwarded without the kernel, and the rest be counted under the reason it has.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lab.guest.machine import Result

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

Boot = Callable[..., Result]
MODULES = ["veth", "tun", "8021q", "vrf", "bridge", "macvlan", "bonding"]
BY_CHANCE = os.environ.get("IXROUTE_GUEST_FRAMES", "300")
SEED = os.environ.get("IXROUTE_GUEST_SEED", "1")


def test_vlan_sub_interfaces_and_vrfs_forward_as_those_of_linux(boot: Boot) -> None:
    """One boot for both: half of its time is the start of the two routers."""
    words = ["vlan", "vrf", f"chance={BY_CHANCE}", f"seed={SEED}"]
    result = boot("like_linux.py", 600.0, modules=MODULES, arguments=words)
    assert int(result.values["frames_played"]) > 1500
    assert int(result.values["frames_forwarded"]) > 1000
    assert int(result.values["lookups"]) > 1000
    assert not result.complaints()
