"""The kernel's tables besides routes, kept by its messages, and what each change means: which paths to
resolve again, which neighbours the RIB knows, which dumps are wanted because the kernel deletes things
without a word.

    interface down        IPv4 routes and nexthop objects on it go silently
    carrier lost          nexthop objects on it go silently, with their IPv4 routes
    interface deleted     IPv4 routes, nexthop objects and groups go silently
    address deleted       IPv4 routes through its subnet go silently
    nexthop deleted       IPv4 routes on it, and groups emptied by it, go silently
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from ixroute.netlink import addresses, links, messages, neighbours, nexthops, rules, sysctls
from ixroute.netlink.contract import FAMILY_IP4, Port, RibLike
from ixroute.netlink.interfaces import Interfaces
from ixroute.netlink.links import Link
from ixroute.netlink.neighbours import NO_NEIGHBOUR, Key, Neighbour
from ixroute.netlink.nexthops import NextHopObject
from ixroute.netlink.paths import PathIndex
from ixroute.netlink.resolve import Tables
from ixroute.netlink.resync import ResyncPlan, Scope
from ixroute.netlink.rules import RuleTable
from ixroute.netlink.sockets import Message

log = logging.getLogger("ixroute.netlink")

ReadSysctls = Callable[[str], sysctls.InterfaceSysctls]
ReadMultipath = Callable[[], sysctls.MultipathSysctls]


class Follower:
    """Fed with messages of events (`event`) and of dumps (`replace_*`). Knows no socket and no time."""

    def __init__(
        self,
        rib: RibLike,
        ports: Sequence[Port],
        paths: PathIndex,
        plan: ResyncPlan,
        read_sysctls: ReadSysctls = sysctls.read,
        read_multipath: ReadMultipath = sysctls.read_multipath,
    ) -> None:
        self.tables = Tables()
        self.interfaces = Interfaces(self.tables.interfaces)
        self.addresses = addresses.AddressTable()
        self.addresses.bared = self.tables.bared
        self.rules = RuleTable()
        self.changed = True  # something the sink may have to be told
        self.sysctls_stale: set[int] = set()  # interfaces of which the kernel announced a change; 0: all
        self.malformed = 0
        self.taps_lost = 0
        self.rib_refused = 0
        self._rib = rib
        self._ports = {port.tap: port.index for port in ports}
        self._paths = paths
        self._plan = plan
        self._read_sysctls = read_sysctls
        self._read_multipath = read_multipath
        self._shown: set[Key] = set()
        self._sysctls_turn = 0
        self._handlers: dict[int, Callable[[Message], None]] = {
            messages.RTM_NEWLINK: self._new_link,
            messages.RTM_DELLINK: self._del_link,
            messages.RTM_NEWADDR: self._new_address,
            messages.RTM_DELADDR: self._del_address,
            messages.RTM_NEWNEIGH: self._new_neighbour,
            messages.RTM_DELNEIGH: self._del_neighbour,
            messages.RTM_NEWRULE: self._rule,
            messages.RTM_DELRULE: self._rule,
            messages.RTM_NEWNETCONF: self._netconf,
            messages.RTM_DELNETCONF: self._netconf,
            messages.RTM_NEWNEXTHOP: self._new_nexthop,
            messages.RTM_DELNEXTHOP: self._del_nexthop,
        }

    def event(self, message: Message) -> None:
        """Applies one message. Unknown types are not for us; malformed ones are counted."""
        handler = self._handlers.get(message.type)
        if handler is None:
            return
        try:
            handler(message)
        except ValueError as error:
            self.malformed += 1
            log.debug("netlink message of type %d skipped: %s", message.type, error)

    def in_rib(self, key: Key) -> bool:
        """The RIB was told of this neighbour."""
        return key in self._shown

    # ---- links and ports ----

    def _new_link(self, message: Message) -> None:
        link = links.parse(message)
        if link is not None:
            self.put_link(link)

    def _del_link(self, message: Message) -> None:
        link = links.parse(message)
        if link is not None:
            if link.moved:
                self.interfaces.moved_away(link)
            self.remove_link(link.index)

    def put_link(self, link: Link) -> bool:
        """True when something differs from what was known."""
        before = self.tables.links.put(link)
        if before == link:
            return False
        self.changed = True
        self._paths.touch_link(link.index)
        if before is None or before.name != link.name:
            self._name_changed()
        if before is not None:
            if before.up != link.up or before.carrier != link.carrier or before.master != link.master:
                self._plan.want(Scope.ROUTES, "link")
            elif before.mtu != link.mtu:
                self._plan.want(
                    Scope.ROUTES6, "mtu"
                )  # rt6_mtu_change rewrites RTAX_MTU of IPv6 routes silently
        self._bind(link)
        self._place(link.index)
        return True

    def remove_link(self, ifindex: int) -> bool:
        link = self.tables.links.remove(ifindex)
        if link is None:
            return False
        self.changed = True
        self._plan.want(Scope.ROUTES, "link")
        self._name_changed()
        self.addresses.remove_interface(ifindex)
        port = self.tables.ports.pop(ifindex, None)
        if port is not None:
            self.taps_lost += 1
            log.error(
                "TAP %s was deleted: its port is down until an interface of that name is there again",
                link.name,
            )
        self._place(ifindex)
        self._paths.touch_link(ifindex)
        for other in (
            self.tables.links.indexes() if port is not None else ()
        ):  # a name may be waiting for its port
            candidate = self.tables.links.get(other)
            if candidate is not None:
                self._bind(candidate)
        return True

    def _name_changed(self) -> None:
        """Rules name interfaces that come, go, and are renamed, and nobody is told which they then mean."""
        if self.rules.name_interfaces:
            self._plan.want(Scope.RULES, "link")

    def _bind(self, link: Link) -> None:
        """A port's TAP is found by its name once, then known by its index, whatever it is renamed to."""
        port = self._ports.get(link.name)
        if link.index in self.tables.ports or port is None or port in self.tables.ports.values():
            return
        self.tables.ports[link.index] = port
        self.interfaces.put_port(link.index, port)
        self._served(link)
        self._place(link.index)

    def _place(self, ifindex: int) -> None:
        """A link came, went or changed: so may the sub-interfaces on it."""
        self._placed(self.interfaces.follow(self.tables.links, ifindex))
        for index in self._above(ifindex):
            self._paths.touch_link(index)

    def _above(self, ifindex: int) -> list[int]:
        """All that is stacked on it, and on that: with loose_binding the kernel says nothing of them when it goes
        down."""
        found = [ifindex]
        for index in found:
            found += [link.index for link in self.tables.links.stacked_on(index) if link.index not in found]
        return found[1:]

    def _placed(self, changed: Iterable[int]) -> None:
        for index in changed:
            link = self.tables.links.get(index)
            self._paths.touch_link(index)
            self.changed = True
            if link is not None and index in self.tables.interfaces:
                self._served(link)
            else:
                self._not_served(index)

    def _served(self, link: Link) -> None:
        """The dataplane has this interface from now on."""
        self.tables.sysctls[link.index] = self._read_sysctls(link.name)
        self._paths.touch_link(link.index)
        self._plan.want(Scope.NEIGHBOURS, "tap")
        self.changed = True

    def _not_served(self, ifindex: int) -> None:
        self.tables.sysctls.pop(ifindex, None)
        for neighbour in self.tables.neighbours.on_interface(ifindex):
            self._forget_neighbour(neighbour.key)

    def age(self) -> None:
        """About once a second, when all paths are resolved."""
        self._placed(self.interfaces.age(self.tables.links))

    # ---- sysctls ----

    def poll_sysctls(self, most: int = 64) -> None:
        """Once a second: reads those of the ports again, and of `most` sub-interfaces, one after the other;
        and those of the namespace."""
        subs = sorted(self.tables.interfaces.keys() - self.tables.ports.keys())
        turn = [index for index in subs if index > self._sysctls_turn][:most]
        turn += subs[: max(0, min(most, len(subs)) - len(turn))]
        self._sysctls_turn = turn[-1] if turn else 0
        self._poll_multipath()
        self._reread_sysctls({*self.tables.ports, *turn})

    def reread_stale_sysctls(self) -> None:
        """Those that the kernel announced a change of."""
        stale, self.sysctls_stale = self.sysctls_stale, set()
        self._reread_sysctls(set(self.tables.interfaces) if 0 in stale else stale)

    def _reread_sysctls(self, indexes: set[int]) -> None:
        for ifindex in indexes:
            link = self.tables.links.get(ifindex)
            if link is None or ifindex not in self.tables.interfaces:
                continue
            now = self._read_sysctls(link.name)
            if now != self.tables.sysctls.get(ifindex):
                self.tables.sysctls[ifindex] = now
                self._paths.touch_link(ifindex)
                self.changed = True

    def _poll_multipath(self) -> None:
        now, before = self._read_multipath(), self.tables.multipath
        if now == before:
            return
        self.tables.multipath = now
        self.changed = True
        if now.use_neigh != before.use_neigh:
            self._paths.touch_all()

    def _netconf(self, message: Message) -> None:
        self.sysctls_stale.add(sysctls.netconf_ifindex(message.data))

    def replace_links(self, dumped: Iterable[Message]) -> int:
        """The whole table, from a dump. Returns how many entries differ, as do the other replace_*."""
        now = [link for message in dumped if (link := links.parse(message)) is not None]
        gone = self.tables.links.indexes() - {link.index for link in now}
        return sum([self.remove_link(index) for index in gone] + [self.put_link(link) for link in now])

    # ---- addresses and rules ----

    def _new_address(self, message: Message) -> None:
        address = addresses.parse(message)
        if address is not None and self.addresses.add(address):
            self.changed = True
            self._paths.touch_link(address.ifindex)

    def _del_address(self, message: Message) -> None:
        address = addresses.parse(message)
        if address is not None and self.addresses.remove(address):
            self.changed = True
            self._paths.touch_link(address.ifindex)
            self._plan.want(Scope.ROUTES4 if address.family == FAMILY_IP4 else Scope.ROUTES6, "address")

    def replace_addresses(self, dumped: Iterable[Message]) -> int:
        now = {address for message in dumped if (address := addresses.parse(message)) is not None}
        before = set(self.tables.bared)
        different = self.addresses.replace(now)
        self.changed |= different > 0
        for ifindex in before ^ self.tables.bared:
            self._paths.touch_link(ifindex)
        return different

    def _rule(self, message: Message) -> None:
        """Rules are few and have no identity of their own: all of them are dumped again."""
        self._plan.want(Scope.RULES, "rule")

    def replace_rules(self, family: int, dumped: Iterable[Message]) -> int:
        changed = self.rules.replace(family, tuple(rules.parse(message) for message in dumped))
        self.changed |= changed
        return int(changed)

    # ---- nexthop objects ----

    def _new_nexthop(self, message: Message) -> None:
        self.put_nexthop(nexthops.parse(message))

    def _del_nexthop(self, message: Message) -> None:
        if self.remove_nexthop(nexthops.parse(message).id):
            self._plan.want(Scope.ROUTES, "nexthop")

    def put_nexthop(self, nexthop: NextHopObject) -> bool:
        before = self.tables.nexthops.put(nexthop)
        if before == nexthop:
            return False
        self._paths.touch_nexthop(nexthop.id)
        if before is not None and before.blackhole != nexthop.blackhole:
            self._plan.want(Scope.ROUTES, "nexthop")  # their routes' type changes with it, silently
        return True

    def remove_nexthop(self, identity: int) -> bool:
        if self.tables.nexthops.remove(identity) is None:
            return False
        self._paths.touch_nexthop(identity)
        return True

    def replace_nexthops(self, dumped: Iterable[Message]) -> int:
        now = [nexthops.parse(message) for message in dumped]
        gone = self.tables.nexthops.ids() - {nexthop.id for nexthop in now}
        return sum(
            [self.remove_nexthop(identity) for identity in gone]
            + [self.put_nexthop(nexthop) for nexthop in now]
        )

    # ---- neighbours ----

    def _is_served(self, message: Message) -> bool:
        return neighbours.ifindex_of(message) in self.tables.interfaces

    def _new_neighbour(self, message: Message) -> None:
        neighbour = neighbours.parse(message) if self._is_served(message) else None
        if neighbour is not None:
            self.put_neighbour(neighbour)

    def _del_neighbour(self, message: Message) -> None:
        neighbour = neighbours.parse(message) if self._is_served(message) else None
        if neighbour is not None:
            self._forget_neighbour(neighbour.key)

    def put_neighbour(self, neighbour: Neighbour) -> bool:
        """True when packets would go elsewhere than before."""
        before = self.tables.neighbours.put(neighbour)
        self._show(neighbour.key, neighbour.usable)
        was = before.matters if before is not None else NO_NEIGHBOUR
        if was == neighbour.matters:
            return False
        self._paths.touch_neighbour(neighbour.key)
        return True

    def _forget_neighbour(self, key: Key) -> bool:
        before = self.tables.neighbours.remove(key)
        self._show(key, False)
        if before is None or before.matters == NO_NEIGHBOUR:
            return False
        self._paths.touch_neighbour(key)
        return True

    def _show(self, key: Key, usable: bool) -> None:
        """Host prefixes in the RIB for usable neighbours; link-local ones are only ever gateways."""
        ifindex, family, address = key
        if usable == (key in self._shown) or (usable and neighbours.is_link_local(family, address)):
            return
        try:
            if usable:
                self._rib.neighbour_add(address, ifindex)
                self._shown.add(key)
            else:
                self._shown.discard(key)
                self._rib.neighbour_remove(address, ifindex)
        except OSError as error:
            self.rib_refused += 1
            log.debug("neighbour refused by the RIB: %s", error)

    def replace_neighbours(self, dumped: Iterable[Message]) -> int:
        now = {}
        for message in dumped:
            neighbour = neighbours.parse(message) if self._is_served(message) else None
            if neighbour is not None:
                now[neighbour.key] = neighbour
        gone = self.tables.neighbours.keys() - now.keys()
        return sum(
            [self._forget_neighbour(key) for key in gone]
            + [self.put_neighbour(neighbour) for neighbour in now.values()]
        )
