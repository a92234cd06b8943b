"""What the kernel and what the daemon say of an address, a hundred thousand times.

The kernel's answer is that of `ip route get fibmatch`, asked for on one netlink socket; the daemon's is
`ixroute lookup`, on one connection. Both become a Found, which must be equal.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ixroute.demo.daemon import Daemon
from ixroute.demo.netns import Namespace

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLMSG_ERROR = 2
NLM_F_REQUEST = 1
RTM_F_FIB_MATCH = 0x2000
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY = 1, 2, 3, 4, 5
SO_RCVBUFFORCE = 33
_TYPES = ("", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit")
_ERRORS = {101: "", 113: "unreachable", 22: "blackhole", 13: "prohibit"}  # ENETUNREACH: no route
AT_ONCE = 200
KERNEL = "the kernel's"
"""Type of what the daemon leaves to the kernel because of rules."""


@dataclass(frozen=True, slots=True)
class Found:
    """The route an address takes. No route: all empty. Gateway and device: of a unicast route."""

    type: str
    prefix: str = ""
    gateway: str = ""
    device: str = ""


def kernel_answers(
    namespace: Namespace, addresses: Sequence[str], iif: str = "", source: str = ""
) -> list[Found]:
    """In order of the addresses, all of one family. iif: for packets that come in by this interface from `source`."""
    v6 = ":" in addresses[0]
    af, bits = (socket.AF_INET6, 128) if v6 else (socket.AF_INET, 32)
    names = _interfaces(namespace)
    more = b""
    if iif:
        index = next(number for number, name in names.items() if name == iif)
        packed = socket.inet_pton(af, source)
        more = struct.pack("=HHI", 8, RTA_IIF, index) + struct.pack("=HH", 4 + len(packed), RTA_SRC) + packed
    out: list[Found] = []
    with namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        sock.settimeout(10)
        for start in range(0, len(addresses), AT_ONCE):
            asked = addresses[start : start + AT_ONCE]
            sock.send(b"".join(_request(af, bits, start + i, a, more) for i, a in enumerate(asked)))
            answers: dict[int, Found] = {}
            while len(answers) < len(asked):
                answers.update(_replies(sock.recv(1 << 16), af, names))
            out += [answers[start + i] for i in range(len(asked))]
    return out


def _request(af: int, bits: int, number: int, address: str, more: bytes) -> bytes:
    packed = socket.inet_pton(af, address)
    body = struct.pack("=BBBBBBBBI", af, bits, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)  # struct rtmsg
    body += struct.pack("=HH", 4 + len(packed), RTA_DST) + packed + more
    return struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_REQUEST, number, 0) + body


def _replies(datagram: bytes, af: int, names: dict[int, str]) -> Iterator[tuple[int, Found]]:
    offset = 0
    while offset < len(datagram):
        length, kind, _, number, _ = struct.unpack_from("=IHHII", datagram, offset)
        if kind == NLMSG_ERROR:
            error = -struct.unpack_from("=i", datagram, offset + 16)[0]
            yield number, Found(_ERRORS.get(error) if error in _ERRORS else os.strerror(error))
        else:
            assert kind == RTM_NEWROUTE, kind
            yield number, _route(datagram[offset + 16 : offset + length], af, names)
        offset += (length + 3) & ~3


def _route(message: bytes, af: int, names: dict[int, str]) -> Found:
    length, kind = message[1], _TYPES[message[7]]
    any_address = bytes(16 if af == socket.AF_INET6 else 4)
    prefix, gateway, device = any_address, "", ""
    offset = 12
    while offset + 4 <= len(message):
        size, attribute = struct.unpack_from("=HH", message, offset)
        data = message[offset + 4 : offset + size]
        if attribute == RTA_DST:
            prefix = data
        elif attribute == RTA_GATEWAY:
            gateway = socket.inet_ntop(af, data)
        elif attribute == RTA_OIF:
            device = names.get(struct.unpack("=I", data)[0], "?")
        offset += (size + 3) & ~3
    return _found(kind, f"{socket.inet_ntop(af, prefix)}/{length}", gateway, device)


def _found(kind: str, prefix: str, gateway: str, device: str) -> Found:
    """IPv6 has an entry of the same multicast and link-local prefixes for each interface; which is shown first
    says nothing of where packets go."""
    shared = kind == "multicast" or prefix == "fe80::/64"
    return Found(kind, prefix, gateway, "" if kind != "unicast" or shared else device)


def _interfaces(namespace: Namespace) -> dict[int, str]:
    return {link["ifindex"]: link["ifname"] for link in json.loads(namespace.ip("-j link show"))}


def daemon_answers(daemon: Daemon, addresses: Sequence[str], iif: str = "", source: str = "") -> list[Found]:
    """In order of the addresses. What packets meet, in the kernel's words: an entry of a neighbour's own is told
    as the route it lies under. iif, source: as for kernel_answers."""
    out = []
    where = {"iif": iif, "from": source} if iif else {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(30)
        sock.connect(str(daemon.control))
        with sock.makefile("rb") as stream:
            for start in range(0, len(addresses), AT_ONCE):
                asked = addresses[start : start + AT_ONCE]
                lines = [json.dumps({"command": "lookup", "address": address, **where}) for address in asked]
                sock.sendall(("\n".join(lines) + "\n").encode())
                out += [_told(json.loads(stream.readline())) for _ in asked]
    return out


def _told(reply: dict[str, Any]) -> Found:
    assert reply["ok"], reply
    result = reply["result"]
    route = result["route"]
    if route is None and result["reason"] == "policy_rule":
        return Found(KERNEL)
    if route is None:
        assert (result["verdict"], result["reason"]) == ("punt", "no_route"), result
        return Found("")
    legs = result["adjacency"]["legs"] or [{"gateway": "", "dev": ""}]
    if route["type"] == "unicast" and result["verdict"] == "forward":
        assert result["adjacency"]["interface"] == legs[0]["dev"], result
    gateway = "" if result["neighbor"] else legs[0]["gateway"]
    return _found(route["type"], route["prefix"], gateway, legs[0]["dev"])


def differences(addresses: Sequence[str], kernel: Sequence[Found], ours: Sequence[Found]) -> list[str]:
    """One line for each address on which the two do not agree."""
    return [
        f"{address}: the kernel has {there}, the daemon {here}"
        for address, there, here in zip(addresses, kernel, ours, strict=True)
        if there != here
    ]
