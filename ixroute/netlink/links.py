"""Links: the kernel's interfaces, as far as a router's ports need them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ixroute.netlink import messages
from ixroute.netlink.contract import NO_MAC
from ixroute.netlink.sockets import AF_BRIDGE, Message

IFF_UP = 0x1
IFF_NOARP = 0x80
IFF_PROMISC = 0x100
IFF_ALLMULTI = 0x200
IFF_LOWER_UP = 0x10000

ETH_P_8021Q = 0x8100
ETH_P_8021AD = 0x88A8
_IFLA_VLAN_ID = 1
_IFLA_VLAN_EGRESS_QOS = 3
_IFLA_VLAN_PROTOCOL = 5
_IFLA_VRF_TABLE = 1
_RTEXT_FILTER_SKIP_STATS = 8
_IFLA_EXT_MASK = 29
_IFLA_MASTER = 10

# Devices that take frames away from the one they are stacked on (rx_handler), whatever their address.
_TAKES_FRAMES = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "rmnet"})


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    flags: int = 0
    mtu: int = 0
    mac: bytes = NO_MAC
    master: int = 0
    parent: int = 0  # IFLA_LINK in this namespace, 0: none
    kind: str = ""
    vlan_id: int = 0
    vlan_protocol: int = 0  # ETH_P_*
    egress_qos: bool = False  # a VLAN that sends other priorities than 0
    vrf_table: int = 0  # of a VRF: the table that packets of its members look up
    carrier: bool = False
    promisc: bool = False
    allmulti: bool = False
    moved: bool = False  # RTM_DELLINK only: it went to another network namespace

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def noarp(self) -> bool:
        return bool(self.flags & IFF_NOARP)

    @property
    def is_vlan(self) -> bool:
        """A sub-interface of its parent: packets that have its tag."""
        return self.kind == "vlan" and self.vlan_protocol in (ETH_P_8021Q, ETH_P_8021AD)

    @property
    def takes_frames(self) -> bool:
        """On its parent, frames are no longer only the parent's."""
        return self.kind in _TAKES_FRAMES


def parse(message: Message) -> Link | None:
    """RTM_NEWLINK or RTM_DELLINK; None when it is not about an interface itself (a bridge's port, wireless
    events). ValueError: malformed."""
    if message.family == AF_BRIDGE:
        return None
    decoded = messages.decode(messages.LinkMessage, message.data)
    name, mtu = decoded.get_attr("IFLA_IFNAME"), decoded.get_attr("IFLA_MTU")
    if not name or mtu is None:
        return None
    if isinstance(name, bytes):  # not UTF-8
        name = name.decode("utf-8", "backslashreplace")
    flags = decoded["flags"]
    info = decoded.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""
    data = bytes(info.get_attr("IFLA_INFO_DATA") or b"") if info is not None else b""
    vlan, vrf = data if kind == "vlan" else b"", data if kind == "vrf" else b""
    elsewhere = decoded.get_attr("IFLA_LINK_NETNSID") is not None  # its parent's index is another namespace's
    carrier = decoded.get_attr("IFLA_CARRIER")
    mac = bytes(decoded.get_attr("IFLA_ADDRESS") or b"")
    return Link(
        index=decoded["index"],
        name=name,
        flags=flags,
        mtu=mtu,
        mac=mac if len(mac) == 6 else NO_MAC,
        master=decoded.get_attr("IFLA_MASTER") or 0,
        parent=0 if elsewhere else decoded.get_attr("IFLA_LINK") or 0,
        kind=kind,
        vlan_id=_number(vlan, _IFLA_VLAN_ID, "=H"),
        vlan_protocol=_number(vlan, _IFLA_VLAN_PROTOCOL, ">H"),
        vrf_table=_number(vrf, _IFLA_VRF_TABLE, "=I"),
        egress_qos=bool(
            messages.attribute(vlan, _IFLA_VLAN_EGRESS_QOS)
        ),  # the kernel lists those that are not 0
        carrier=bool(carrier) if carrier is not None else bool(flags & IFF_LOWER_UP),
        # flags show what `ip link set promisc on` asked for; the counts, what packet sockets and bridges did
        # too
        promisc=bool(flags & IFF_PROMISC or decoded.get_attr("IFLA_PROMISCUITY")),
        allmulti=bool(flags & IFF_ALLMULTI or decoded.get_attr("IFLA_ALLMULTI")),
        moved=decoded.get_attr("IFLA_NEW_NETNSID") is not None,
    )


def _number(data: bytes, kind: int, fmt: str) -> int:
    payload = messages.attribute(data, kind)
    return int(struct.unpack_from(fmt, payload)[0]) if payload and len(payload) >= struct.calcsize(fmt) else 0


def dump_request() -> tuple[int, bytes]:
    """Every interface, without its statistics."""
    header = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    return messages.RTM_GETLINK, header + struct.pack("=HHI", 8, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)


def barrier_request() -> tuple[int, bytes]:
    """Every interface with a master that cannot be: takes the rtnl lock and answers next to nothing."""
    return messages.RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack(
        "=HHI", 8, _IFLA_MASTER, 0x7FFFFFFF
    )


class LinkTable:
    """Links by index."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._on: dict[int, dict[int, Link]] = {}  # by parent

    def __len__(self) -> int:
        return len(self._links)

    def get(self, index: int) -> Link | None:
        return self._links.get(index)

    def name(self, index: int) -> str:
        link = self._links.get(index)
        return link.name if link else f"if{index}"

    def by_name(self, name: str) -> Link | None:
        return next((link for link in self._links.values() if link.name == name), None)

    def put(self, link: Link) -> Link | None:
        """Returns what was there before."""
        before = self.remove(link.index)
        self._links[link.index] = link
        if link.parent and link.parent != link.index:
            self._on.setdefault(link.parent, {})[link.index] = link
        return before

    def remove(self, index: int) -> Link | None:
        link = self._links.pop(index, None)
        if link is not None and index in self._on.get(link.parent, {}):
            del self._on[link.parent][index]
            if not self._on[link.parent]:
                del self._on[link.parent]
        return link

    def names(self) -> set[str]:
        return {link.name for link in self._links.values()}

    def vrf_of(self, link: Link) -> Link | None:
        """The VRF that it is a member of."""
        master = self._links.get(link.master) if link.master else None
        return master if master is not None and master.kind == "vrf" else None

    def indexes(self) -> set[int]:
        return set(self._links)

    def stacked_on(self, index: int) -> list[Link]:
        """Links whose parent is this one."""
        return list(self._on.get(index, {}).values())
