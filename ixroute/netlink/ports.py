"""What the router is told of ports and VLANs, worked out from the tables, and told only when it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import wraps

from ixroute.netlink.addresses import AddressTable
from ixroute.netlink.contract import (
    FAMILY_IP4,
    FAMILY_IP6,
    NO_MAC,
    InterfaceState,
    LinkState,
    Port,
    PortState,
    Sink,
    TapState,
)
from ixroute.netlink.interfaces import Interfaces, Place
from ixroute.netlink.links import Link
from ixroute.netlink.resolve import Tables
from ixroute.netlink.sysctls import InterfaceSysctls, MultipathSysctls

Tell = Callable[..., object]
"""tell(callback, *arguments): calls it, and survives what it raises; then None, otherwise what it returned."""


def port_state(link: Link | None, tables: Tables, addresses: AddressTable) -> PortState:
    """link: the port's TAP or a VLAN sub-interface, None when it is not there."""
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


def _kernels(state: PortState, all_of_it: bool) -> PortState:
    return replace(state, kernel_all=True) if all_of_it else state


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


def tap_state(link: Link | None, port: Port, other_macs: bool) -> TapState:
    """other_macs: a sub-interface has a MAC of its own, which the card must let in. The kernel makes the TAP
    promiscuous for that, but does not always say so at once."""
    if link is None:
        return TapState(False, 0, port.tap, False, False, 0, NO_MAC, False, False)
    promisc = link.promisc or other_macs
    return TapState(
        True, link.index, link.name, link.up, link.carrier, link.mtu, link.mac, promisc, link.allmulti
    )


def _other_macs(tap: Link, port: int, tables: Tables, subs: Mapping[int, Place]) -> bool:
    links = [tables.links.get(ifindex) for ifindex, place in subs.items() if place.port == port]
    return any(link.up and link.mac != tap.mac for link in links if link is not None)


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
        self._subs: dict[int, InterfaceState] = {}  # by number, as they were taken
        self.retry = False  # something was not taken: announce again soon

    def announce(
        self,
        tables: Tables,
        addresses: AddressTable,
        interfaces: Interfaces,
        custom_rules: bool = False,
        untaken: Set[int] = frozenset(),
    ) -> None:
        """Tells what differs from last time: state before addresses before what the port itself must
        follow. custom_rules: RuleTable.custom_ip4. untaken: numbers of interfaces that look up what they should
        not (Programs.untaken)."""
        self.retry = False
        taps = {port: index for index, port in tables.ports.items()}
        subs = interfaces.subs()
        self._drop_subs({place.number for place in subs.values()})
        for port in self._ports:
            link = tables.links.get(taps.get(port.index, 0))
            state = _kernels(port_state(link, tables, addresses), port.index in untaken)
            self._changed("port", port.index, state, self._sink.set_port)
            other_macs = link is not None and _other_macs(link, port.index, tables, subs)
            self._changed("tap", port.index, tap_state(link, port, other_macs), self._sink.on_tap)
        self._set_subs(tables, addresses, subs, untaken)
        self._set_vlans(tables, interfaces, taps, subs)
        self._announce_multipath(tables.multipath)
        own_ip4 = addresses.own_ip4()
        if (
            custom_rules
        ):  # then sources that are broadcast addresses are refused: let workers ask for them too
            own_ip4 = sorted({*own_ip4, *addresses.broadcasts_ip4()})
        if self._told.get(("local4", "")) != own_ip4:
            self._take("local4", "", own_ip4, self._sink.set_local4, own_ip4)
        for name in self._watch:
            link_now = link_state(tables.links.by_name(name), name)
            if self._told.get(("link", name)) != link_now:
                self._take("link", name, link_now, self._sink.on_link, link_now)

    def _announce_multipath(self, now: MultipathSysctls) -> None:
        for family, settings in (
            (FAMILY_IP4, (now.policy4, now.fields4)),
            (FAMILY_IP6, (now.policy6, now.fields6)),
        ):
            if self._told.get(("multipath", family)) != settings:
                self._take("multipath", family, settings, self._sink.set_multipath, family, *settings)

    def _drop_subs(self, kept: set[int]) -> None:
        """The gone ones, inner before outer."""
        gone = [number for number in self._subs if number not in kept]
        for number in sorted(gone, key=lambda number: -len(self._subs[number].tags)):
            del self._subs[number]
            self._told.pop(("vlans", number), None)
            self._tell(self._sink.drop_interface, number)

    def _set_subs(
        self, tables: Tables, addresses: AddressTable, subs: Mapping[int, Place], untaken: Set[int]
    ) -> None:
        """The new and the changed ones, outer before inner."""
        for ifindex, place in sorted(subs.items(), key=lambda one: len(one[1].tags)):
            link = tables.links.get(ifindex)
            if link is None:
                continue
            state = _kernels(port_state(link, tables, addresses), place.number in untaken)
            wanted = InterfaceState(link.name, ifindex, place.port, place.tags, state)
            if self._subs.get(place.number) == wanted:
                continue
            if self._tell(self._sink.set_interface, place.number, wanted):
                self._subs[place.number] = wanted
            else:
                self.retry = True

    def _set_vlans(
        self, tables: Tables, interfaces: Interfaces, taps: Mapping[int, int], subs: Mapping[int, Place]
    ) -> None:
        """Ids that are the kernel's, and those of sub-interfaces that the sink did not take."""
        untaken = {ifindex for ifindex, place in subs.items() if place.number not in self._subs}
        carriers = {port.index: taps.get(port.index, 0) for port in self._ports}
        carriers |= {place.number: ifindex for ifindex, place in subs.items() if ifindex not in untaken}
        for number, ifindex in carriers.items():
            vids = interfaces.kernels_vids(tables.links, ifindex) if ifindex else frozenset()
            if untaken:
                vids |= {one.vlan_id for one in tables.links.stacked_on(ifindex) if one.index in untaken}
            if number in self._subs and not vids and ("vlans", number) not in self._told:
                continue  # a new number has none
            self._changed("vlans", number, vids, self._sink.set_vlans)

    def _changed(self, what: str, port: int, value: object, callback: Callable[..., None]) -> None:
        if self._told.get((what, port)) != value:
            self._take(what, port, value, callback, port, value)

    def _take(
        self, what: str, which: int | str, value: object, callback: Callable[..., None], *arguments: object
    ) -> None:
        """Tells, and remembers it when it was taken: what was not is told again."""

        @wraps(callback)
        def taken(*told: object) -> bool:
            callback(*told)
            return True

        if self._tell(taken, *arguments):
            self._told[what, which] = value
        else:
            self.retry = True
