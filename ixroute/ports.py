"""A TAP and its port, kept equal: what the kernel's interface says goes to the dataplane and to the card; what the
card says of its wire goes to the TAP.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ixroute.driver.port import Link, Port, PortError
from ixroute.forward import worker as flags
from ixroute.forward.worker import Dataplane, Worker
from ixroute.netlink.contract import InterfaceState, LinkState, PortState, Step, TapState
from ixroute.tap.tap import Tap, TapError

log = logging.getLogger(__name__)

RPF_FLAGS = {0: 0, 1: flags.PORT_RPF_STRICT, 2: flags.PORT_RPF_LOOSE}


def port_flags(state: PortState) -> int:
    """PortState as the PORT_* bits that workers read."""
    bits = {
        flags.PORT_UP: state.up,
        flags.PORT_IP4_FORWARD: state.ip4_forward,
        flags.PORT_IP6_FORWARD: state.ip6_forward,
        flags.PORT_SEND_REDIRECTS: state.send_redirects,
        flags.PORT_ACCEPT_LOCAL: state.accept_local,
        flags.PORT_ROUTE_LOCALNET: state.route_localnet,
        flags.PORT_KERNEL_ALL: state.kernel_all,
    }
    return sum(bit for bit, on in bits.items() if on) | RPF_FLAGS[state.rpf]


@dataclass(frozen=True)
class Sub:
    """A VLAN sub-interface in the dataplane. before: what had been counted by its number when it came."""

    number: int
    state: InterfaceState
    before: dict[str, int]


class Pairs:
    """Every port with its TAP. The methods of netlink.contract.Sink run in the mirror's thread: stores to the dataplane
    are made there and then; what needs system calls on a card is posted to the main thread."""

    def __init__(
        self,
        ports: Sequence[Port],
        taps: Sequence[Tap],
        dataplane: Dataplane,
        workers: Sequence[Worker],
        capacity: int,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._ports = ports
        self._taps = taps
        self._dataplane = dataplane
        self._workers = workers
        self._capacity = capacity
        self._post = post
        self._links: dict[int, Link] = {}
        self._troubles: dict[int, str] = {}
        self._states: dict[int, PortState] = {}
        self._subs: dict[int, Sub] = {}  # by number
        self._trusted = False
        self._lock = threading.Lock()

    def state(self, port: int) -> PortState:
        """What the TAP, and so the port, is, as the mirror last heard: also when the card has gone."""
        return self._states.get(port, PortState())

    def link(self, port: int) -> Link:
        """The wire, as last looked at."""
        return self._links.get(port, Link(up=False))

    def begin(self) -> None:
        """Before workers run: every port is what its TAP is, and all packets go to the kernel, whose tables are whole
        while ours are being read. A part of a table would be wrong: the default route without what is longer."""
        for port, tap in zip(self._ports, self._taps, strict=True):
            self.set_port(port.index, PortState(up=True, mac=tap.mac, mtu=tap.mtu))

    def trust_tables(self) -> None:
        """The kernel's tables have been read: packets go by them from now on. Again is harmless."""
        with self._lock:
            if self._trusted:
                return
            self._trusted = True
            for port, state in self._states.items():
                self._apply(port, state)
            for number, sub in self._subs.items():
                self._apply_sub(number, sub.state)

    def set_port(self, port: int, state: PortState) -> None:
        with self._lock:
            self._states[port] = state
            self._apply(port, state)

    def _apply(self, port: int, state: PortState) -> None:
        self._dataplane.set_port(port, state.mac, state.mtu, port_flags(state) | self._untrusted())

    def _untrusted(self) -> int:
        return 0 if self._trusted else flags.PORT_RULES4 | flags.PORT_RULES6

    def set_interface(self, number: int, state: InterfaceState) -> bool:
        with self._lock:
            known = self._subs.get(number)
            try:
                self._apply_sub(number, state)
            except OSError as error:  # a worker that stands still may remember the number, or no memory
                log.warning(
                    "VLAN sub-interface %s: %s; until that is over the kernel routes it", state.name, error
                )
                return False
            base = known.before if known is not None else self._sub_counters(number)
            self._subs[number] = Sub(number, state, base)
        return True

    def drop_interface(self, number: int) -> None:
        with self._lock:
            self._subs.pop(number, None)
            self._dataplane.clear_interface(number)

    def _apply_sub(self, number: int, sub: InterfaceState) -> None:
        state, flags_ = sub.state, port_flags(sub.state) | self._untrusted()
        self._dataplane.set_interface(number, sub.port, sub.tags, state.mac, state.mtu, flags_)

    def subs(self) -> list[tuple[InterfaceState, dict[str, int]]]:
        """The VLAN sub-interfaces that are forwarded fast, and what they counted since they came; sorted by port and
        tags."""
        with self._lock:
            subs = sorted(self._subs.values(), key=lambda sub: (sub.state.port, sub.state.tags))
        found = []
        for sub in subs:
            now = self._sub_counters(sub.number)
            found.append((sub.state, {cell: now[cell] - sub.before[cell] for cell in now}))
        return found

    def interface(self, number: int) -> tuple[str, str] | None:
        """Name of the port and of the interface (the port's again without a tag) by its number in the dataplane."""
        if number < len(self._ports):
            return self._ports[number].name, self._ports[number].name
        sub = self._subs.get(number)
        return (self._ports[sub.state.port].name, sub.state.name) if sub else None

    def _sub_counters(self, number: int) -> dict[str, int]:
        blocks = [worker.sub_counters(number) for worker in self._workers]
        return {cell: sum(block[cell] for block in blocks) for cell in flags.SUB_CELLS}

    def set_vlans(self, interface: int, vids: frozenset[int]) -> None:
        self._dataplane.set_vlans(interface, vids)

    def set_view(self, interface: int, family: int, steps: Sequence[Step], same_source: bool) -> bool:
        self._dataplane.set_view(interface, family, steps, same_source)
        return True

    def set_local4(self, addresses: Sequence[bytes]) -> None:
        self._dataplane.set_local4(addresses)

    def set_multipath(self, family: int, policy: int, fields: int) -> None:
        self._dataplane.set_multipath(family, policy, fields)

    def on_tap(self, port: int, tap: TapState) -> None:
        self._post(lambda: follow_tap(self._ports[port], self._taps[port], tap))

    def on_link(self, link: LinkState) -> None:
        self._post(self.follow_links)

    def take_used(self) -> bytes:
        used = 0
        for worker in self._workers:
            used |= int.from_bytes(worker.take_used(self._capacity), "little")
        return used.to_bytes((self._capacity + 7) // 8, "little")

    def service(self) -> None:
        """What ports do by the clock and when their link_fd is readable. The main thread's. A trouble is told once."""
        for port in self._ports:
            try:
                port.service()
                self._troubles.pop(port.index, None)
            except PortError as error:
                if self._troubles.get(port.index) != str(error):
                    log.error("%s", error)
                self._troubles[port.index] = str(error)

    def follow_links(self) -> None:
        """Each TAP gets its wire's carrier and speed. The main thread's, at every tick and when the kernel says that
        something changed."""
        for port, tap in zip(self._ports, self._taps, strict=True):
            try:
                link = port.link()
            except PortError as error:
                log.debug("%s", error)
                link = Link(up=False)
            if link != self._links.get(port.index):
                self._set_link(port, tap, link)

    def _set_link(self, port: Port, tap: Tap, link: Link) -> None:
        try:
            tap.set_carrier(link.up)
            if link.up and link.speed_mbps:
                tap.set_speed(link.speed_mbps, link.duplex != "half")
        except OSError as error:  # the TAP was deleted, which the mirror tells; or it takes no speed
            log.debug("%s: carrier or speed of the TAP: %s", port.name, error)
        self._links[port.index] = link
        log.info("%s: link %s", port.name, _said(link))


def _said(link: Link) -> str:
    if not link.up:
        return "down"
    return f"up, {link.speed_mbps} Mbit/s" if link.speed_mbps else "up"


def follow_tap(port: Port, tap: Tap, state: TapState) -> None:
    """The card gets what somebody set on the TAP. What the card refuses is set back on the TAP, so that the two
    never differ, and said."""
    if not state.present:
        log.error(
            "%s: the interface was deleted; packets for it go nowhere until the router starts anew", port.name
        )
        return
    try:
        _follow_mtu(port, tap, state.mtu)
        _follow_mac(port, tap, state.mac)
        port.set_promiscuous(state.promisc)
        port.set_allmulticast(state.allmulti)
    except (PortError, TapError, OSError) as error:
        log.error("%s: does not follow its interface: %s", port.name, error)


def _follow_mtu(port: Port, tap: Tap, mtu: int) -> None:
    before = port.mtu
    if mtu == before:
        return
    try:
        port.set_mtu(mtu)
        log.info("%s: MTU %d", port.name, mtu)
    except PortError as error:
        log.error("%s: the interface goes back to MTU %d", error, before)
        tap.set_mtu(before)


def _follow_mac(port: Port, tap: Tap, mac: bytes) -> None:
    before = port.mac
    if mac == before:
        return
    try:
        port.set_mac(mac)
        log.info("%s: MAC %s", port.name, mac.hex(":"))
    except PortError as error:
        log.error("%s: the interface goes back to MAC %s", error, before.hex(":"))
        tap.set_mac(before)
