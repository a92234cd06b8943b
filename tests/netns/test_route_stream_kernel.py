"""The route stream against the real kernel: what it tells, followed, is what it dumps and what it looks
up.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.fib.fib import Fib
from ixroute.fib.rib import FAMILY_IP4, FAMILY_IP6, Answer, Rib, RouteType
from ixroute.netlink.route_stream import RouteStream

pytestmark = pytest.mark.netns

CLONE_NEWNET = 0x40000000
RTMGRP_ROUTES = 0x40 | 0x400
AF = {FAMILY_IP4: socket.AF_INET, FAMILY_IP6: socket.AF_INET6}
T = TypeVar("T")
NAMES = (f"rib-{os.getpid()}-{i}" for i in itertools.count())


class Owner:
    def __init__(self, c: Any) -> None:
        self.c = c


def run(*command: str, ok: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if ok and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout if done.returncode == 0 else done.stderr


def inside(namespace: str, make: Callable[[], T]) -> T:
    """Runs `make` in a thread of its own that has entered the namespace; sockets made there stay there."""
    result: list[T] = []

    def body() -> None:
        with open(f"/run/netns/{namespace}", "rb") as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        result.append(make())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(10)
    return result[0]


def route_socket(groups: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    made.bind((0, groups))
    return made


class Mirror:
    """A namespace with two links, and a RIB that follows its routes."""

    def __init__(self, namespace: str, rib: Rib) -> None:
        self.namespace, self.rib, self.stream = namespace, rib, RouteStream(rib)
        self.events = inside(namespace, lambda: route_socket(RTMGRP_ROUTES))
        self.queries = inside(namespace, route_socket)

    def close(self) -> None:
        self.stream.close()
        self.events.close()
        self.queries.close()

    def ip(self, command: str, ok: bool = True) -> str:
        return run("ip", "-n", self.namespace, *command.split(), ok=ok)

    def dump(self, family: int) -> int:
        request = struct.pack("=IHHIIBBBBBBBBI", 28, 26, 0x301, 1, 0, AF[family], *(0,) * 8)
        self.queries.send(request)
        self.rib.dump_begin(family)
        try:
            self.stream.receive_dump(self.queries.fileno(), 5000)
        except OSError:
            self.rib.dump_abort(family)
            raise
        return self.rib.dump_end(family)

    def follow(self) -> int:
        return self.stream.receive(self.events.fileno(), 100000)

    def differences(self) -> int:
        """Follows the events, then what dumps find wrong."""
        self.follow()
        found = self.dump(FAMILY_IP4) + self.dump(FAMILY_IP6)
        self.rib.check()
        return found

    def link(self, index: int) -> str:
        links = json.loads(self.ip("-j link"))
        return str(next(link["ifname"] for link in links if link["ifindex"] == index))

    def answer(self, address: str, table: int | None = None, shortest: int = 0) -> tuple[str, ...]:
        """What we show, in the words of `kernel_answer`."""
        answer = self.rib.lookup(
            socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address), table, shortest
        )
        if answer.index < 8:
            return (
                ("none", "local", "broadcast", "multicast", "blackhole", "reject", "kernel")[answer.index],
            )
        path = self.rib.path(answer.index)
        assert path is not None
        if path.type == RouteType.BLACKHOLE:  # what the nexthop object is
            return ("blackhole",)
        legs = sorted(
            f"{self.link(leg.ifindex)} {ntop(leg.gateway) if leg.gateway else '-'} {leg.weight}"
            for leg in path.legs
        )
        return (prefix_text(answer), *legs)

    def kernel_answer(self, address: str, mark: int = 0) -> tuple[str, ...]:
        text = self.ip(f"-j -d route get fibmatch {address} mark {mark}", ok=False)
        if not text.startswith("["):
            known = {
                "unreachable": "none",
                "Invalid": "blackhole",
                "No route": "reject",
                "Permission": "reject",
            }
            return (next(word for key, word in known.items() if key in text),)
        [found] = json.loads(text)
        if found["type"] != "unicast":
            return ({"anycast": "local"}.get(found["type"], found["type"]),)
        hops = found.get("nexthops", [found])
        legs = sorted(f"{hop['dev']} {gateway_of(hop)} {hop.get('weight', 1)}" for hop in hops)
        return (full_prefix(found["dst"], address), *legs)


def ntop(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def prefix_text(answer: Answer) -> str:
    return str(answer.prefix)


def gateway_of(hop: dict[str, Any]) -> str:
    return str(hop.get("gateway") or hop.get("via", {}).get("host") or "-")


def full_prefix(text: str, address: str) -> str:
    if text == "default":
        return "::/0" if ":" in address else "0.0.0.0/0"
    return text if "/" in text else text + ("/128" if ":" in text else "/32")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    namespace = next(NAMES)
    run("ip", "netns", "add", namespace)
    fib, adjacencies = Fib(), Owner(lib.adjacency_table_create(4096, 1, ffi.NULL))
    try:
        for key in ("all", "default"):
            run("ip", "netns", "exec", namespace, "sysctl", "-qw", f"net.ipv6.conf.{key}.accept_dad=0")
        with Rib(fib, adjacencies, 9) as rib:
            mirror = Mirror(namespace, rib)
            mirror.ip("link set lo up")
            for i in (0, 1):
                mirror.ip(f"link add v{i} type veth peer name p{i}")
                mirror.ip(f"addr add 10.{i}.0.1/24 dev v{i}")
                mirror.ip(f"addr add 2001:db8:{i}::1/64 dev v{i} nodad")
                mirror.ip(f"link set p{i} up")
                mirror.ip(f"link set v{i} up")
            yield mirror
            mirror.close()
    finally:
        run("ip", "netns", "del", namespace)
        fib.close()
        lib.adjacency_table_destroy(adjacencies.c)


STEPS = [
    "route add 192.0.2.0/24 via 10.0.0.2",
    "route append 192.0.2.0/24 via 10.1.0.2",
    "route prepend 192.0.2.0/24 dev v0 src 10.0.0.1",
    "route append 192.0.2.0/24 via 10.1.0.2 src 10.1.0.1",
    "route replace 192.0.2.0/24 via 10.0.0.3",
    "route add 192.0.2.0/24 via 10.1.0.9 metric 50",
    "route del 192.0.2.0/24 via 10.0.0.3",
    "route change 192.0.2.0/24 via 10.0.0.4",
    "route add 192.0.2.0/25 nexthop via 10.0.0.2 weight 3 nexthop dev v1 weight 7",
    "route add 192.0.2.64/26 via inet6 fe80::5 dev v1 mtu 1300",
    "route add blackhole 198.51.100.0/24",
    "route add unreachable 198.51.100.0/25",
    "route add prohibit 198.51.100.0/26",
    "route replace 198.51.100.0/25 via 10.0.0.7 onlink dev v0",
    "route add local 198.51.100.128/25 dev lo",
    "route del local 198.51.100.128/25 dev lo",
    "route add default via 10.1.0.2",
    "route add throw 203.0.113.0/24",
    "route add 203.0.113.0/24 via 10.0.0.2 table 100",
    "nexthop add id 5 via 10.0.0.5 dev v0",
    "nexthop add id 6 via 10.1.0.6 dev v1",
    "nexthop add id 7 group 5,3/6",
    "nexthop add id 8 blackhole",
    "route add 192.0.2.128/25 nhid 5",
    "route add 192.0.2.192/26 nhid 7",
    "route add 192.0.2.200/32 nhid 8",
    "nexthop replace id 5 via 10.0.0.55 dev v0",
    "route replace 192.0.2.200/32 nhid 6",
    "-6 route add 2001:db8:f::/48 via 2001:db8:0::2",
    "-6 route append 2001:db8:f::/48 via 2001:db8:1::2",
    "-6 route append 2001:db8:f::/48 via 2001:db8:1::3",
    "-6 route del 2001:db8:f::/48 via 2001:db8:0::2",
    "-6 route append 2001:db8:f::/48 via fe80::9 dev v0",
    "-6 route replace 2001:db8:f::/48 via fe80::8 dev v0",
    "-6 route add 2001:db8:e::/48 nexthop via fe80::1 dev v0 weight 4 nexthop via fe80::1 dev v1 weight 2",
    "-6 route del 2001:db8:e::/48 nexthop via fe80::1 dev v0",
    "-6 route append 2001:db8:e::/48 nexthop via fe80::2 dev v0 nexthop via fe80::3 dev v0",
    "-6 route replace 2001:db8:e::/48 nexthop via fe80::4 dev v0 nexthop via fe80::5 dev v1",
    "-6 route del 2001:db8:e::/48",
    "-6 route add 2001:db8:e::/48 dev v0",
    "-6 route add 2001:db8:e::/48 via fe80::1 dev v1 metric 2000 mtu 1400",
    "-6 route replace 2001:db8:e::/48 via fe80::1 dev v1",
    "-6 route add unreachable 2001:db8:d::/48",
    "-6 route add blackhole 2001:db8:c::/48",
    "-6 route add local 2001:db8:b::/48 dev lo",
    "-6 route add default via fe80::1 dev v0",
    "-6 nexthop add id 15 via fe80::5 dev v0",
    "-6 nexthop add id 16 via fe80::6 dev v1",
    "nexthop add id 17 group 15/16",
    "-6 route add 2001:db8:a::/48 nhid 17",
    "-6 route add 2001:db8:9::/48 nhid 15",
    "nexthop replace id 15 via fe80::55 dev v0",
    "addr add 10.0.0.77/24 dev v0",
    "addr del 10.0.0.77/24 dev v0",
    "addr add 192.0.2.1/32 dev v1",
    "route flush root 198.51.100.0/24",
    "-6 route flush root 2001:db8:c::/48",
]
ADDRESSES = [
    "10.0.0.1",
    "10.0.0.9",
    "10.0.0.255",
    "10.1.0.77",
    "192.0.2.1",
    "192.0.2.65",
    "192.0.2.129",
    "192.0.2.193",
    "192.0.2.200",
    "198.51.100.1",
    "198.51.100.65",
    "198.51.100.129",
    "203.0.113.1",
    "8.8.8.8",
    "127.0.0.1",
    "127.9.9.9",
    "2001:db8:f::1",
    "2001:db8:e::1",
    "2001:db8:d::1",
    "2001:db8:c::1",
    "2001:db8:b::1",
    "2001:db8:a::1",
    "2001:db8:9::1",
    "2001:db8::",
    "2001:db8::1",
    "2001:db8::99",
    "2001:db8:1::",
    "2606::1",
    "::1",
]


def test_after_each_command_the_mirror_is_what_the_kernel_dumps(mirror: Mirror) -> None:
    assert mirror.differences() == 0
    wrong = []
    for step in STEPS:
        mirror.ip(step)
        if found := mirror.differences():
            wrong.append((step, found))
    assert wrong == []
    assert mirror.stream.stats().malformed == mirror.stream.stats().refused == 0


def test_each_address_goes_where_the_kernel_says(mirror: Mirror) -> None:
    mirror.differences()
    for step in STEPS[:-2]:
        mirror.ip(step)
        mirror.follow()
        for address in ADDRESSES:
            ours = mirror.answer(address)
            assert ours == mirror.kernel_answer(address), (step, address)


ONE_TABLE = [
    step.replace(" nexthop", " table 100 nexthop", 1) if " nexthop" in step else f"{step} table 100"
    for step in STEPS
    if step.split("-6 ")[-1].startswith("route ")
    and not any(word in step for word in ("flush", "table", " local "))
]


def test_one_table_answers_as_the_kernel_does_for_a_rule_that_looks_there(mirror: Mirror) -> None:
    """Packets with a mark look into table 100 and nowhere else (table local aside); with other marks, short
    prefixes are suppressed.
    """
    suppressing = {18: 0, 19: 24, 20: 47}
    for family in ("", "-6 "):
        mirror.ip(f"{family}rule add pref 5 fwmark 17 lookup 100")
        for mark, length in suppressing.items():
            mirror.ip(f"{family}rule add pref {mark} fwmark {mark} lookup 100 suppress_prefixlength {length}")
        mirror.ip(f"{family}rule add pref 30 fwmark 16/16 unreachable")
    shown = {17: 0} | {mark: length + 1 for mark, length in suppressing.items()}
    for shortest in shown.values():
        mirror.rib.fib(100, shortest)
    mirror.rib.fib(255)
    mirror.differences()
    answers = set()
    steps = [s for s in STEPS if "nexthop add" in s] + ONE_TABLE
    for i, step in enumerate(steps):
        mirror.ip(step)
        mirror.follow()
        if i % 8 and step != steps[-1]:
            continue
        for address in (a for a in ADDRESSES if mirror.answer(a, 255) == ("none",)):
            for mark, shortest in shown.items():
                ours = mirror.answer(address, 100, shortest)
                answers.add(ours)
                assert ours == mirror.kernel_answer(address, mark), (step, address, mark)
    mirror.rib.check()
    assert any(":" in answer[0] for answer in answers)
    assert len(answers) > 12
    mirror.ip("nexthop flush", ok=False)
    mirror.differences()  # their IPv4 routes went without a word
    mirror.ip("route flush table 100")
    mirror.ip("-6 route flush table 100")
    mirror.follow()
    for shortest in shown.values():
        stats = mirror.rib.fib(100, shortest).stats()
        assert (stats.prefixes4, stats.prefixes6) == (0, 0)


def test_events_replayed_over_a_later_dump_do_no_harm(mirror: Mirror) -> None:
    for step in STEPS[:-2]:
        mirror.ip(step)
    mirror.dump(FAMILY_IP4)
    mirror.dump(FAMILY_IP6)
    assert mirror.follow() > len(STEPS) // 2
    mirror.differences()
    assert mirror.differences() == 0


def test_what_vanishes_without_a_word_is_found_by_the_next_dump(mirror: Mirror) -> None:
    for i in range(20):
        mirror.ip(f"route add 192.0.2.{i}/32 via 10.0.0.2")
    mirror.differences()
    mirror.ip("link set v0 down")
    assert mirror.differences() >= 20
    assert mirror.differences() == 0
    assert mirror.answer("192.0.2.3") == ("none",)


def test_an_overrun_is_told_and_the_socket_goes_on(mirror: Mirror) -> None:
    mirror.events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    batch = "".join(f"route add 192.0.2.{i}/32 via 10.0.0.2\n" for i in range(200))
    subprocess.run(
        ["ip", "-n", mirror.namespace, "-batch", "-"], input=batch, text=True, timeout=20, check=True
    )
    with pytest.raises(OSError, match="route events") as overrun:
        mirror.follow()
    assert overrun.value.errno == errno.ENOBUFS
    assert mirror.stream.stats().overruns == 1
    assert mirror.differences() > 0
    mirror.ip("route add 192.0.2.250/32 via 10.0.0.2")
    assert mirror.follow() == 1
    assert mirror.differences() == 0


def test_only_the_kernel_is_believed(mirror: Mirror) -> None:
    forger = inside(mirror.namespace, route_socket)
    mirror.differences()
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0) + struct.pack("=HHI", 8, 4, 2)
    forger.sendto(
        struct.pack("=IHHII", 16 + len(body), 24, 0, 0, 0) + body, (mirror.events.getsockname()[0], 0)
    )
    forger.close()
    before = mirror.stream.stats()
    assert mirror.follow() == 1
    assert mirror.stream.stats().ignored == before.ignored + 1
    assert mirror.stream.stats().messages == before.messages


def test_a_dump_that_never_ends_times_out(mirror: Mirror) -> None:
    with pytest.raises(OSError, match="route dump") as failure:
        mirror.stream.receive_dump(mirror.queries.fileno(), 50)
    assert failure.value.errno == errno.ETIMEDOUT


def test_a_large_dump_comes_whole(mirror: Mirror) -> None:
    count = 30000
    batch = "".join(
        f"route add 172.{16 + i // 4096}.{i // 16 % 256}.{i % 16 * 16}/28 via 10.0.0.2\n"
        for i in range(count)
    )
    subprocess.run(
        ["ip", "-n", mirror.namespace, "-batch", "-"], input=batch, text=True, timeout=60, check=True
    )
    mirror.events.close()
    mirror.events = inside(mirror.namespace, lambda: route_socket(RTMGRP_ROUTES))
    assert mirror.dump(FAMILY_IP4) > count
    assert mirror.dump(FAMILY_IP4) == 0
    assert mirror.answer("172.17.0.1")[0] == "172.17.0.0/28"
