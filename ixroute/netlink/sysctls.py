"""Sysctls that decide what a port may forward, and how one of several next hops is chosen. The kernel announces
some of them (RTM_NEWNETCONF), the rest nobody: so they are read again every second and after each announcement."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ixroute.netlink.messages import attribute

_ROOT = Path("/proc/sys/net")
_NETCONF_ATTRIBUTES = 20  # struct nlmsghdr, struct netconfmsg { u8 ncm_family; } and its padding
_NETCONFA_IFINDEX = 1


@dataclass(frozen=True, slots=True)
class InterfaceSysctls:
    """Effective values: combined with conf/all the way include/linux/inetdevice.h does."""

    ip4_forward: bool = False
    ip6_forward: bool = False
    rp_filter: int = 0
    send_redirects: bool = False
    accept_local: bool = False
    route_localnet: bool = False
    ignore_linkdown4: bool = False
    ignore_linkdown6: bool = False
    mtu6: int = 0  # what IPv6 may send (a router advertisement can lower it), 0: not known


DEFAULT_HASH_FIELDS = 0x0007  # addresses and protocol (FIB_MULTIPATH_HASH_FIELD_DEFAULT_MASK)


@dataclass(frozen=True, slots=True)
class MultipathSysctls:
    """How one of several next hops is chosen; of the whole namespace. Kernels before 5.13 know no fields."""

    policy4: int = 0
    fields4: int = DEFAULT_HASH_FIELDS
    policy6: int = 0
    fields6: int = DEFAULT_HASH_FIELDS
    use_neigh: bool = False  # IPv4 routes' next hops with a neighbour that is not valid are passed over


def read_multipath(root: Path = _ROOT) -> MultipathSysctls:
    """What is not there has the kernel's default."""
    ip4, ip6 = root / "ipv4", root / "ipv6"
    return MultipathSysctls(
        policy4=_policy(ip4),
        fields4=_int(ip4 / "fib_multipath_hash_fields") or DEFAULT_HASH_FIELDS,
        policy6=_policy(ip6),
        fields6=_int(ip6 / "fib_multipath_hash_fields") or DEFAULT_HASH_FIELDS,
        use_neigh=_int(ip4 / "fib_multipath_use_neigh") > 0,
    )


def _policy(family: Path) -> int:
    """One from the future is the default's."""
    policy = _int(family / "fib_multipath_hash_policy")
    return policy if 0 <= policy <= 3 else 0


def netconf_ifindex(message: bytes) -> int:
    """The interface that an RTM_NEWNETCONF is about; 0: all of them (conf/all, conf/default, or not known)."""
    payload = attribute(message[_NETCONF_ATTRIBUTES:], _NETCONFA_IFINDEX)
    return max(int.from_bytes(payload[:4], sys.byteorder, signed=True), 0) if payload else 0


def read(interface: str, root: Path = _ROOT) -> InterfaceSysctls:
    """An interface that is gone, or has no IPv4 or IPv6, has zeros."""
    ip4, all4 = root / "ipv4/conf" / interface, root / "ipv4/conf/all"
    ip6, all6 = root / "ipv6/conf" / interface, root / "ipv6/conf/all"
    return InterfaceSysctls(
        ip4_forward=_int(ip4 / "forwarding") > 0,
        ip6_forward=_ip6_forward(ip6, all6),
        rp_filter=max(_int(ip4 / "rp_filter"), _int(all4 / "rp_filter")),
        send_redirects=_either(ip4, all4, "send_redirects"),
        accept_local=_either(ip4, all4, "accept_local"),
        route_localnet=_either(ip4, all4, "route_localnet"),
        ignore_linkdown4=_int(ip4 / "ignore_routes_with_linkdown") > 0,
        ignore_linkdown6=_int(ip6 / "ignore_routes_with_linkdown") > 0,
        mtu6=max(_int(ip6 / "mtu"), 0),
    )


def _ip6_forward(interface: Path, everything: Path) -> bool:
    """ip6_forward() asks conf/all, or the interface's force_forwarding (Linux 6.17); the interface's own
    `forwarding` only says whether it behaves as a host or a router to its neighbours."""
    if not interface.is_dir() or _int(interface / "disable_ipv6") > 0:
        return False
    return _int(everything / "forwarding") > 0 or _int(interface / "force_forwarding") > 0


def _either(interface: Path, everything: Path, name: str) -> bool:
    return _int(interface / name) > 0 or _int(everything / name) > 0


def _int(path: Path) -> int:
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return 0
