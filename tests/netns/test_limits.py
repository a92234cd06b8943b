"""What Linux answers at which rate, with its own limits and ixroute's policers as both are by default: a sender gets
no less of ixroute. And what waits for a neighbour: the first packets of a burst are kept, in their order."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from ixroute.demo.daemon import Daemon
from ixroute.demo.topology import Lab
from lab.frames import ROUTER_TABLES, ROUTER_WAN, SERVER, from_client
from lab.generator import Generator
from lab.masks import icmp_of_router
from lab.packets import ETH_ARP, ETH_IP6, ICMP6, address_bytes, arp, ethernet, icmp6, ip4, ip6, mac_bytes, udp
from lab.support import changes, port_arguments, verdicts, wait_until
from lab.wires import Stage

pytestmark = pytest.mark.netns

DF = 0x4000
SENDERS, EACH = 100, 12


@dataclass
class Side:
    """A router with its limits. daemon: None where it is Linux."""

    stage: Stage
    daemon: Daemon | None

    def reading(self) -> dict[str, object]:
        return self.daemon.stats() if self.daemon else {"ports": []}


def _side(kernel: bool, label: str) -> Iterator[Side]:
    with Lab(3, kernel=kernel, mtu=(1500, 1400, 1500), mute=True, label=label) as lab:
        stage, daemon = Stage(lab), None if kernel else Daemon(lab.router, port_arguments(lab))
        try:
            if daemon:
                daemon.start()
            lab.address_router()
            for command in ROUTER_TABLES:
                lab.router.ip(command.format(**lab.interfaces))
            stage.settle()
            yield Side(stage, daemon)
        finally:
            if daemon:
                daemon.close()
            stage.close()


@pytest.fixture(scope="module")
def linux() -> Iterator[Side]:
    yield from _side(True, "limlinux")


@pytest.fixture(scope="module")
def ours() -> Iterator[Side]:
    yield from _side(False, "limours")


def four(n: int, dst: str, data: bytes, **fields: int) -> bytes:
    src = f"10.9.{30 + n // 200}.{1 + n % 200}"
    return from_client(ip4(src, dst, udp(src, dst, data), **fields))


def six(n: int, dst: str, data: bytes, **fields: int) -> bytes:
    src = f"fd09::30:{n + 1:x}"
    return from_client(ip6(src, dst, udp(src, dst, data), **fields))


@dataclass(frozen=True)
class Kind:
    """frame: of sender n. answer: as lab.masks.icmp_of_router."""

    name: str
    frame: Callable[[int], bytes]
    answer: tuple[int, int, int]


LIMITED = [
    Kind("time exceeded", lambda n: four(n, "10.0.2.2", b"ttl", ttl=1), (4, 11, 0)),
    Kind("unreachable route", lambda n: four(n + 200, "10.66.2.1", b"unreachable"), (4, 3, 1)),
    Kind("prohibit route", lambda n: four(n + 400, "10.66.3.1", b"prohibit"), (4, 3, 13)),
    Kind("no route", lambda n: four(n + 600, "198.51.100.1", b"where"), (4, 3, 0)),
    Kind("IPv6 hop limit", lambda n: six(n, "fd00:2::2", b"hop", hop=1), (6, 3, 0)),
    Kind("IPv6 unreachable route", lambda n: six(n + 200, "fd66:2::1", b"unreachable"), (6, 1, 0)),
    Kind("IPv6 no route", lambda n: six(n + 400, "2001:db8::1", b"where"), (6, 1, 0)),
]


def answers(sides: Sequence[Side], kind: Kind) -> list[Counter[bytes]]:
    """How many each sender gets for EACH frames, which all send in turn: 1,200 frames within half a second. At both
    routers in the same half second."""
    wires = [side.stage.wires["lan"] for side in sides]
    for wire in wires:
        wire.take()
    heard: list[list[bytes]] = [[] for _ in wires]
    frames = [kind.frame(n) for n in range(SENDERS)]
    for turn in range(EACH):
        for wire in wires:
            for frame in frames:
                wire.send(frame)
        time.sleep(0.04 if turn < EACH - 1 else 0.2)
        for taken, wire in zip(heard, wires, strict=True):
            taken.extend(wire.take())
    at = 30 if kind.answer[0] == 4 else 38
    return [
        Counter(frame[at : at + 16] for frame in taken if icmp_of_router(frame) == kind.answer)
        for taken in heard
    ]


@pytest.mark.parametrize("kind", LIMITED, ids=lambda kind: kind.name)
def test_senders_get_as_many_answers_as_linux_gives(linux: Side, ours: Side, kind: Kind) -> None:
    before = ours.reading()
    expected, heard = answers((linux, ours), kind)
    assert 0 < expected.total() < SENDERS * EACH, "Linux limits it"
    # both give a burst at once and then some for each tick of the clock: how long it took makes a difference
    assert heard.total() >= expected.total() * 0.75, (heard.total(), expected.total())
    assert not [name for name in verdicts(before, ours.reading()) if name.startswith("policed")]


TOO_BIG = [
    Kind("fragmentation needed", lambda n: four(n, "10.0.2.2", bytes(1450), fragment=DF), (4, 3, 4)),
    Kind("packet too big", lambda n: six(n, "fd00:2::2", bytes(1400)), (6, 2, 0)),
]


WINDOW = 200
"""Frames on their way at once: as fast as the router answers, and no faster."""


def answered(side: Side, kind: Kind, sent: int) -> int:
    """Answers to `sent` frames of one sender."""
    wire = side.stage.wires["lan"]
    wire.take()
    frame, count = kind.frame(1), 0
    for start in range(0, sent, WINDOW):
        for _ in range(WINDOW):
            wire.send(frame)
        deadline = time.monotonic() + 2
        while count < start + WINDOW and time.monotonic() < deadline:
            wire.wait(0.1)
            count += sum(icmp_of_router(heard) == kind.answer for heard in wire.take())
    return count


@pytest.mark.parametrize("kind", TOO_BIG, ids=lambda kind: kind.name)
def test_every_packet_that_is_too_big_is_answered(linux: Side, ours: Side, kind: Kind) -> None:
    assert answered(linux, kind, 10_000) == 10_000, "Linux does not limit it"
    before = ours.reading()
    assert answered(ours, kind, 10_000) == 10_000, changes(before, ours.reading())


@pytest.mark.parametrize("kind", TOO_BIG, ids=lambda kind: kind.name)
def test_no_rate_that_a_kernel_keeps_up_with_is_policed_for_packets_that_are_too_big(
    ours: Side, kind: Kind
) -> None:
    """One core sends as fast as it can. What the kernel's door has no time for is another count."""
    before = ours.reading()
    rate = Generator(ours.stage.lab.client, [kind.frame(1)]).run(1.0)
    ours.stage.settle(0.3)
    moved = verdicts(before, ours.reading())
    print(f"{kind.name}: {rate:,.0f} a second sent; {dict(moved)}")
    assert moved["punted mtu_value_is_too_small"] > 1000
    assert not moved["policed mtu_value_is_too_small"], moved


BURST = 40


def burst4(n: int) -> bytes:
    return four(700, "10.0.2.50", struct.pack("!I", n) + b"wait")


def burst6(n: int) -> bytes:
    return six(700, "fd00:2::50", struct.pack("!I", n) + b"wait")


def arp_answer() -> bytes:
    return ethernet(ROUTER_WAN, SERVER, ETH_ARP, arp(2, SERVER, "10.0.2.50", ROUTER_WAN, "10.0.2.1"))


def discovery_answer() -> bytes:
    """RFC 4861 4.4: solicited, override."""
    target = address_bytes("fd00:2::50")
    body = struct.pack("!I", 0x60000000) + target + b"\x02\x01" + mac_bytes(SERVER)
    message = icmp6("fd00:2::50", "fd00:2::1", 136, 0, body)
    packet = ip6("fd00:2::50", "fd00:2::1", message, proto=ICMP6, hop=255)
    return ethernet(ROUTER_WAN, SERVER, ETH_IP6, packet)


def order_of(frames: Sequence[bytes]) -> list[int]:
    """The numbers of the burst's packets, as they came."""
    return [struct.unpack("!I", frame[at - 4 : at])[0] for frame in frames if (at := frame.find(b"wait")) > 0]


@pytest.mark.parametrize("who", ["linux", "ours"])
@pytest.mark.parametrize(
    ("burst", "answer", "asks"),
    [
        (burst4, arp_answer, lambda f: f[12:14] == b"\x08\x06"),
        (burst6, discovery_answer, lambda f: f[54:55] == b"\x87"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_first_packets_of_a_burst_arrive_in_order_once_the_neighbour_answers(
    request: pytest.FixtureRequest,
    who: str,
    burst: Callable[[int], bytes],
    answer: Callable[[], bytes],
    asks: Callable[[bytes], bool],
) -> None:
    stage: Stage = request.getfixturevalue(who).stage
    lan, wan = stage.wires["lan"], stage.wires["wan"]
    wan.take()
    for n in range(BURST):
        lan.send(burst(n))
    heard: list[bytes] = []

    def asked() -> bool:
        heard.extend(wan.take())
        return any(asks(frame) for frame in heard)

    wait_until(asked, 3, "nobody asks for the neighbour")
    assert not order_of(heard)
    wan.send(answer())

    def arrived() -> bool:
        heard.extend(wan.take())
        return len(order_of(heard)) >= BURST

    wait_until(arrived, 3, lambda: f"only {order_of(heard)} arrived")
    assert order_of(heard) == list(range(BURST))
    lan.send(burst(BURST))
    wait_until(lambda: arrived() and order_of(heard)[-1] == BURST, 3, "the way stays open")
