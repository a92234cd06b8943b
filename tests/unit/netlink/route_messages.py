"""Builds the kernel's route messages byte by byte, from linux/rtnetlink.h, independently of the parser."""

from __future__ import annotations

import struct
from collections.abc import Iterable

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
NLM_F_MULTI, NLM_F_DUMP_INTR = 0x02, 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
AF_INET, AF_INET6, AF_MPLS, RTNL_FAMILY_IPMR = 2, 10, 28, 128
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 2, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_FLOW, RTA_CACHEINFO, RTA_TABLE, RTA_VIA = 8, 9, 11, 12, 15, 18
RTA_PREF, RTA_ENCAP_TYPE, RTA_ENCAP, RTA_NH_ID = 20, 21, 22, 30
RTAX_LOCK, RTAX_MTU, RTAX_HOPLIMIT = 1, 2, 10
RTN_UNICAST, RTN_LOCAL, RTN_BLACKHOLE = 1, 2, 6
RTNH_F_DEAD, RTNH_F_ONLINK, RTNH_F_LINKDOWN = 1, 4, 16
RTM_F_CLONED = 0x200
NLA_F_NESTED = 0x8000


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body + b"\0" * (-len(body) % 4)


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def via(gateway: bytes) -> bytes:
    return attribute(RTA_VIA, struct.pack("=H", AF_INET if len(gateway) == 4 else AF_INET6) + gateway)


def hop(ifindex: int, attributes: bytes = b"", weight: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=HBBI", 8 + len(attributes), flags, weight - 1, ifindex) + attributes


def multipath(hops: Iterable[bytes]) -> bytes:
    return attribute(RTA_MULTIPATH, b"".join(hops))


def rtmsg(
    family: int,
    length: int,
    *,
    table: int = 254,
    kind: int = RTN_UNICAST,
    tos: int = 0,
    source_len: int = 0,
    protocol: int = 4,
    scope: int = 0,
    flags: int = 0,
) -> bytes:
    small_table = table if table < 256 else 252
    return struct.pack(
        "=BBBBBBBBI", family, length, source_len, tos, small_table, protocol, scope, kind, flags
    )


def route(
    prefix: bytes,
    length: int,
    attributes: bytes = b"",
    *,
    table: int = 254,
    metric: int = 0,
    event: int = RTM_NEWROUTE,
    nl_flags: int = 0,
    **fields: int,
) -> bytes:
    """A whole message. `fields` as in rtmsg."""
    family = AF_INET if len(prefix) == 4 else AF_INET6
    body = rtmsg(family, length, table=table, **fields) + u32(RTA_TABLE, table)
    if length:
        body += attribute(RTA_DST, prefix)
    if metric:
        body += u32(RTA_PRIORITY, metric)
    return message(event, body + attributes, nl_flags)


def single(ifindex: int, gateway: bytes | None = None) -> bytes:
    return (attribute(RTA_GATEWAY, gateway) if gateway else b"") + u32(RTA_OIF, ifindex)


def done(error: int = 0, flags: int = NLM_F_MULTI) -> bytes:
    return message(NLMSG_DONE, struct.pack("=i", error), flags)


def error(code: int) -> bytes:
    return message(NLMSG_ERROR, struct.pack("=i", code) + bytes(16))
