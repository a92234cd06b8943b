"""What the router is told of ports, worked out from the tables, and told only when it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ixroute.netlink.addresses import AddressTable
from ixroute.netlink.contract import NO_MAC, LinkState, Port, PortState, Sink, TapState
from ixroute.netlink.links import Link
from ixroute.netlink.resolve import Tables
from ixroute.netlink.sysctls import InterfaceSysctls

Tell = Callable[..., None]
"""tell(callback, *arguments): calls it, and survives what it raises."""


def port_state(link: Link | None, tables: Tables, addresses: AddressTable) -> PortState:
    """link: the port's TAP, None when it is not there."""
    if link is None:
        return PortState()
    sysctls = tables.sysctls.get(link.index, InterfaceSysctls())
    stacked = tables.links.stacked_on(link.index)
    return PortState(
        up=link.up,
        ip4_forward=sysctls.ip4_forward,
        ip6_forward=sysctls.ip6_forward,
        rpf=_rpf(sysctls.rp_filter, addresses.has_ip4(link.index)),
        send_redirects=sysctls.send_redirects,
        accept_local=sysctls.accept_local,
        route_localnet=sysctls.route_localnet,
        kernel_all=_mastered(link, tables) or any(other.takes_frames for other in stacked),
        mac=link.mac,
        mtu=link.mtu,
    )


def _mastered(link: Link, tables: Tables) -> bool:
    """Its packets are somebody else's: a bridge's, a bond's. A VRF's members forward by the VRF's view; while it
    is down, or not known yet, the kernel says what that means."""
    vrf = tables.links.vrf_of(link)
    return bool(link.master) and not (vrf is not None and vrf.up and vrf.vrf_table)


def _rpf(rp_filter: int, has_ip4: bool) -> int:
    """Without an IPv4 address on the interface the kernel has no looser second lookup to make: then loose is
    strict (net/ipv4/fib_frontend.c, __fib_validate_source: no_addr)."""
    wanted = min(max(rp_filter, 0), 2)
    return wanted if has_ip4 else min(wanted, 1)


def vlans_of(link: Link | None, tables: Tables) -> frozenset[int]:
    if link is None:
        return frozenset()
    return frozenset(other.vlan_id for other in tables.links.stacked_on(link.index) if other.is_vlan)


def tap_state(link: Link | None, port: Port) -> TapState:
    if link is None:
        return TapState(False, 0, port.tap, False, False, 0, NO_MAC, False, False)
    return TapState(
        True, link.index, link.name, link.up, link.carrier, link.mtu, link.mac, link.promisc, link.allmulti
    )


def link_state(link: Link | None, name: str) -> LinkState:
    if link is None:
        return LinkState(False, 0, name, False, False, 0, NO_MAC)
    return LinkState(True, link.index, link.name, link.up, link.carrier, link.mtu, link.mac)


class Announcer:
    """Remembers what the sink was told last."""

    def __init__(self, ports: Sequence[Port], watch: Sequence[str], sink: Sink, tell: Tell) -> None:
        self._ports = ports
        self._watch = watch
        self._sink = sink
        self._tell = tell
        self._told: dict[tuple[str, int | str], object] = {}

    def announce(self, tables: Tables, addresses: AddressTable) -> None:
        """Tells what differs from last time: state before addresses before what the port itself must
        follow."""
        taps = {port: index for index, port in tables.ports.items()}
        for port in self._ports:
            link = tables.links.get(taps.get(port.index, 0))
            state = port_state(link, tables, addresses)
            self._changed("port", port.index, state, self._sink.set_port)
            self._changed("vlans", port.index, vlans_of(link, tables), self._sink.set_vlans)
            self._changed("tap", port.index, tap_state(link, port), self._sink.on_tap)
        own_ip4 = addresses.own_ip4()
        if self._told.get(("local4", "")) != own_ip4:
            self._told["local4", ""] = own_ip4
            self._tell(self._sink.set_local4, own_ip4)
        for name in self._watch:
            link_now = link_state(tables.links.by_name(name), name)
            if self._told.get(("link", name)) != link_now:
                self._told["link", name] = link_now
                self._tell(self._sink.on_link, link_now)

    def _changed(self, what: str, port: int, value: object, callback: Callable[..., None]) -> None:
        if self._told.get((what, port)) != value:
            self._told[what, port] = value
            self._tell(callback, port, value)
