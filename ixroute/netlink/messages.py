"""Decoders of the messages that are read, as pyroute2 classes.

pyroute2's own classes decode every attribute of a message; these name the few that count, keep addresses as
bytes, and add what pyroute2 0.9 lacks (nexthop objects, IFLA_ALLMULTI).
"""

from __future__ import annotations

import struct
import sys
from typing import Any, Literal

from pyroute2.netlink import nla, nlmsg

_NLMSGHDR_BYTES = 16
BYTE_ORDER: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_GETROUTE = 26
RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
RTM_NEWNETCONF = 80
RTM_DELNETCONF = 81
RTM_NEWNEXTHOP = 104
RTM_DELNEXTHOP = 105
RTM_GETNEXTHOP = 106


class LinkMessage(nlmsg):  # type: ignore[misc]
    """struct ifinfomsg { u8 family; u8 pad; u16 type; int index; u32 flags; u32 change; }"""

    prefix = "IFLA_"
    fields = (
        ("family", "B"),
        ("pad", "B"),
        ("ifi_type", "H"),
        ("index", "i"),
        ("flags", "I"),
        ("change", "I"),
    )
    nla_map = (
        (1, "IFLA_ADDRESS", "cdata"),
        (3, "IFLA_IFNAME", "asciiz"),
        (4, "IFLA_MTU", "uint32"),
        (5, "IFLA_LINK", "uint32"),
        (10, "IFLA_MASTER", "uint32"),
        (18, "IFLA_LINKINFO", "linkinfo"),
        (30, "IFLA_PROMISCUITY", "uint32"),
        (33, "IFLA_CARRIER", "uint8"),
        (37, "IFLA_LINK_NETNSID", "int32"),
        (45, "IFLA_NEW_NETNSID", "int32"),
        (61, "IFLA_ALLMULTI", "uint32"),
    )

    class linkinfo(nla):  # type: ignore[misc] # noqa: N801 (pyroute2 finds it by this name)
        prefix = "IFLA_"
        nla_map = ((1, "IFLA_INFO_KIND", "asciiz"), (2, "IFLA_INFO_DATA", "cdata"))


class AddressMessage(nlmsg):  # type: ignore[misc]
    """struct ifaddrmsg { u8 family; u8 prefixlen; u8 flags; u8 scope; u32 index; }"""

    prefix = "IFA_"
    fields = (("family", "B"), ("prefixlen", "B"), ("flags", "B"), ("scope", "B"), ("index", "I"))
    nla_map = ((1, "IFA_ADDRESS", "cdata"), (2, "IFA_LOCAL", "cdata"), (4, "IFA_BROADCAST", "cdata"))


class NeighbourMessage(nlmsg):  # type: ignore[misc]
    """struct ndmsg { u8 family; u8 pad[3]; int ifindex; u16 state; u8 flags; u8 type; }"""

    prefix = "NDA_"
    fields = (
        ("family", "B"),
        ("__pad", "3x"),
        ("ifindex", "i"),
        ("state", "H"),
        ("flags", "B"),
        ("ndm_type", "B"),
    )
    nla_map = ((1, "NDA_DST", "cdata"), (2, "NDA_LLADDR", "cdata"), (15, "NDA_FLAGS_EXT", "uint32"))


class NextHopMessage(nlmsg):  # type: ignore[misc]
    """struct nhmsg { u8 family; u8 scope; u8 protocol; u8 resvd; u32 flags; } (linux/nexthop.h)"""

    prefix = "NHA_"
    fields = (("family", "B"), ("scope", "B"), ("protocol", "B"), ("resvd", "B"), ("flags", "I"))
    nla_map = (
        (1, "NHA_ID", "uint32"),
        (2, "NHA_GROUP", "cdata"),
        (3, "NHA_GROUP_TYPE", "uint16"),
        (4, "NHA_BLACKHOLE", "flag"),
        (5, "NHA_OIF", "uint32"),
        (6, "NHA_GATEWAY", "cdata"),
        (7, "NHA_ENCAP_TYPE", "uint16"),
        (11, "NHA_FDB", "flag"),
        (12, "NHA_RES_GROUP", "cdata"),
    )


def decode(message_class: Any, data: bytes) -> Any:
    """The decoded message. ValueError for bytes that are no such message, whatever pyroute2 makes of them."""
    header_bytes = _NLMSGHDR_BYTES + struct.calcsize("=" + "".join(fmt for _, fmt in message_class.fields))
    _check_lengths(data, (header_bytes + 3) & ~3)
    message = message_class(data)
    try:
        message.decode()
        _decode_attributes(message)
    except Exception as error:  # pyroute2 raises struct.error, KeyError, its own …
        raise ValueError(f"{message_class.__name__}: {error}") from error
    return message


def _check_lengths(data: bytes, offset: int) -> None:
    """pyroute2 mends attributes whose length cannot be, and goes on with what it then takes for the next."""
    while offset + 4 <= len(data):
        length = int.from_bytes(data[offset : offset + 2], sys.byteorder)
        if length < 4 or offset + length > len(data):
            raise ValueError(f"attribute of {length} bytes in the {len(data) - offset} that are left")
        offset += (length + 3) & ~3


def _decode_attributes(message: Any) -> None:
    """All that have a name, now: pyroute2 leaves them for later, and then answers with the raw bytes of one that
    it cannot decode."""
    for slot in message["attrs"]:
        name, cell = slot.cell
        if name == "UNKNOWN":
            continue
        if not cell.decoded:
            cell.decode()
        if "attrs" in cell:
            _decode_attributes(cell)


def names(message: Any) -> frozenset[str]:
    """Names of the attributes a message carries."""
    return frozenset(attribute[0] for attribute in message["attrs"])


def attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """Payloads of a message's attributes by number, the last of each. ValueError: a length that cannot be."""
    _check_lengths(data, offset)
    found = {}
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute(data: bytes, wanted: int) -> bytes | None:
    """Payload of an attribute in a flat list of them (struct nlattr { u16 length; u16 type; }), None without
    it."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4 or offset + length > len(data):
            return None
        if kind & 0x3FFF == wanted:
            return data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return None
