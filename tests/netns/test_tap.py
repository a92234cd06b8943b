"""Real TAPs in a namespace of their own: what the kernel shows of them, what survives, and packets both ways."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from ixroute.demo.netns import Namespace
from ixroute.driver.mem import MemPort
from ixroute.driver.port import PortOptions
from ixroute.driver.umem import Umem
from ixroute.fib.adjacency import ADJ_LOCAL, AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.forward.reasons import reason_number
from ixroute.forward.worker import PORT_IP4_FORWARD, PORT_IP6_FORWARD, PORT_UP, Dataplane, Worker
from ixroute.tap.door import Door
from ixroute.tap.tap import Tap, TapError

pytestmark = pytest.mark.netns

MAC = bytes.fromhex("020000000011")
PEER = bytes.fromhex("020000000099")
PATIENCE = 10.0


def eventually(condition: Callable[[], object]) -> None:
    """Bounded: fails after PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"tap-test-{os.getpid()}")
    try:
        yield made.create()
    finally:
        made.destroy()


def open_tap(space: Namespace, *, queues: int = 2, mac: bytes = MAC, mtu: int = 1500, up: bool = True) -> Tap:
    return space.call(lambda: Tap("lan", queues, mac, mtu, up))


def shown(space: Namespace) -> str:
    return space.ip("-d link show dev lan")


def test_a_new_tap_is_the_port_as_the_kernel_sees_it(space: Namespace) -> None:
    tap = open_tap(space, queues=3, mtu=1400)
    text = shown(space)
    assert "link/ether 02:00:00:00:00:11" in text
    assert "mtu 1400" in text
    assert "qlen 1000" in text
    assert "type tap pi off vnet_hdr off multi_queue numqueues 3" in text
    assert f"{tap.ifindex}: lan" in text
    assert not tap.existed
    assert space.call(lambda: (tap.mac, tap.mtu)) == (MAC, 1400)
    eventually(lambda: "state UP" in shown(space))
    assert len(set(tap.fds)) == 3
    assert not any(os.get_blocking(fd) or os.get_inheritable(fd) for fd in tap.fds)
    tap.close()


def test_a_tap_stays_down_when_asked_to(space: Namespace) -> None:
    tap = open_tap(space, up=False)
    assert "UP" not in shown(space).splitlines()[0]
    space.call(tap.set_up)
    eventually(lambda: "state UP" in shown(space))
    tap.close()


def test_the_carrier_is_the_ports(space: Namespace) -> None:
    tap = open_tap(space)
    space.ip("addr add 192.0.2.1/24 dev lan")
    for on, state in ((False, "state DOWN"), (True, "state UP")):
        tap.set_carrier(on)
        eventually(lambda wanted=state: wanted in shown(space))  # type: ignore[misc]
        eventually(lambda up=on: ("linkdown" in space.ip("route")) != up)  # type: ignore[misc]
    tap.close()


@pytest.mark.parametrize("mbps", [10, 10_000, 100_000])
def test_the_speed_is_the_ports(space: Namespace, mbps: int) -> None:
    tap = open_tap(space)
    space.call(lambda: tap.set_speed(mbps))
    assert space.run(["cat", "/sys/class/net/lan/speed", "/sys/class/net/lan/duplex"]).split() == [
        str(mbps),
        "full",
    ]
    tap.close()


def configure(space: Namespace) -> None:
    space.ip("addr add 192.0.2.1/24 dev lan")
    space.ip("addr add 2001:db8::1/64 dev lan")
    space.ip("route add 10.0.0.0/8 via 192.0.2.9")


def is_configured(space: Namespace) -> bool:
    addresses = space.ip("addr show dev lan")
    routes = space.ip("route")
    return (
        "192.0.2.1/24" in addresses and "2001:db8::1/64" in addresses and "10.0.0.0/8 via 192.0.2.9" in routes
    )


def test_addresses_and_routes_outlive_a_close(space: Namespace) -> None:
    tap = open_tap(space)
    configure(space)
    tap.close()
    assert is_configured(space)
    eventually(lambda: "NO-CARRIER" in shown(space))
    again = open_tap(space, queues=1)
    assert again.existed
    assert is_configured(space)
    eventually(lambda: "state UP" in shown(space))
    assert "linkdown" not in space.ip("route")
    again.close()


def test_a_new_mac_and_mtu_leave_the_addresses(space: Namespace) -> None:
    open_tap(space).close()
    configure(space)
    other = bytes.fromhex("020000000022")
    tap = open_tap(space, mac=other, mtu=9000)
    assert space.call(lambda: (tap.mac, tap.mtu)) == (other, 9000)
    assert is_configured(space)
    tap.close()


def test_a_tap_that_its_user_took_down_stays_down(space: Namespace) -> None:
    open_tap(space).close()
    space.ip("link set lan down")
    tap = open_tap(space)
    assert "UP" not in shown(space).splitlines()[0]
    tap.close()


CHILD = """
import sys, time
from ixroute.tap.tap import Tap
tap = Tap("lan", 2, bytes.fromhex("020000000011"), 1500)
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(space: Namespace) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the TAP open."""
    child = subprocess.Popen(
        space.command([sys.executable, "-c", CHILD]),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_addresses_and_routes_outlive_a_kill(space: Namespace, holder: subprocess.Popen[str]) -> None:
    configure(space)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert is_configured(space)
    tap = open_tap(space)
    assert is_configured(space)
    tap.close()


def test_a_tap_of_another_process_is_refused_and_left_alone(
    space: Namespace, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(
        TapError, match=rf"lan: in use by process {holder.pid} \(.*\): run `kill {holder.pid}`"
    ):
        open_tap(space)
    assert "numqueues 2" in shown(space)


@pytest.mark.parametrize(
    ("made_by", "reason"),
    [
        (
            "link add dev lan type veth peer name other",
            r"another kind \(veth\).*`ip link set lan name OTHER`",
        ),
        ("tuntap add dev lan mode tun multi_queue", r"a TUN, not a TAP"),
        ("tuntap add dev lan mode tap", r"made for one queue.*`ip link del lan`"),
    ],
    ids=["veth", "TUN", "single queue"],
)
def test_an_interface_that_is_no_tap_of_ours_is_refused_and_left_alone(
    space: Namespace, made_by: str, reason: str
) -> None:
    space.ip(made_by)
    before = shown(space)
    with pytest.raises(TapError, match=reason):
        open_tap(space)
    assert shown(space) == before


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a/b", "a b", "..", "a:1", "lan%d"])
def test_a_name_that_no_interface_can_have_is_refused(space: Namespace, name: str) -> None:
    with pytest.raises(TapError, match="cannot name an interface"):
        space.call(lambda: Tap(name, 1, MAC, 1500))


@pytest.mark.parametrize(("mac", "mtu"), [(b"\1" + MAC[1:], 1500), (MAC[:5], 1500), (MAC, 20)])
def test_what_could_not_be_set_up_is_not_left_behind(space: Namespace, mac: bytes, mtu: int) -> None:
    with pytest.raises(TapError, match=r"^lan: "):
        open_tap(space, mac=mac, mtu=mtu)
    assert "lan" not in space.ip("link")


def test_remove_deletes_the_interface(space: Namespace) -> None:
    tap = open_tap(space)
    space.call(tap.remove)
    assert "lan" not in space.ip("link")


def ones_sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def arp_request(sender: str, target: str) -> bytes:
    body = PEER + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    return b"\xff" * 6 + PEER + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + body


def echo_request(sender: str, target: str, number: int, ttl: int = 64) -> bytes:
    icmp = struct.pack(">BBHHH", 8, 0, 0, 7, number) + bytes(48)
    icmp = icmp[:2] + struct.pack(">H", 0xFFFF - ones_sum(icmp)) + icmp[4:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), number, 0, ttl, 1, 0)
    head += ip_address(sender).packed + ip_address(target).packed
    head = head[:10] + struct.pack(">H", 0xFFFF - ones_sum(head)) + head[12:]
    return MAC + PEER + b"\x08\x00" + head + icmp


@dataclass
class Router:
    """One memory port of two queues, its TAP, two workers and the door, all in their threads."""

    space: Namespace

    def __post_init__(self) -> None:
        self.umem = Umem(8192, 2048, "off")
        self.fib, self.adjacencies = Fib(), AdjacencyTable(16, reason_number("no_route"))
        self.dataplane = Dataplane(self.umem.c, self.fib.c, self.adjacencies.c, 1, 2)
        for prefix in ("192.0.2.1/32", "2001:db8::1/128"):
            self.fib.insert(prefix, ADJ_LOCAL)
        self.dataplane.set_port(0, MAC, 1500, PORT_UP | PORT_IP4_FORWARD | PORT_IP6_FORWARD)
        self.tap = open_tap(self.space)
        self.door = Door(self.umem.c, 2)
        self.door.add_port(0, self.tap.fds)
        self.port = MemPort("lan", 0, self.umem, 2, PortOptions(rx_slots=256, tx_slots=256))
        self.workers = [Worker(self.dataplane, n, self.umem.pool(4096), self.door.lanes[n]) for n in range(2)]
        for worker, queue in zip(self.workers, self.port.queues(), strict=True):
            worker.add_queue(queue)
            worker.poll_once()
        self.door.start()
        for worker in self.workers:
            worker.start(0)

    def sent(self) -> list[bytes]:
        """What has left by the wire since."""
        return [packet for queue in range(2) for packet in iter(lambda q=queue: self.port.collect(q), None)]  # type: ignore[misc]

    def answer(self, packet: bytes, wanted: Callable[[bytes], object], queue: int = 0) -> bytes:
        assert self.port.deliver(packet, queue)
        found: list[bytes] = []

        def arrived() -> bool:
            found.extend(p for p in self.sent() if wanted(p))
            return bool(found)

        eventually(arrived)
        assert len(found) == 1
        return found[0]

    def totals(self) -> dict[str, Any]:
        blocks = [worker.port_counters(0) for worker in self.workers]
        return {
            name: sum(b[name] for b in blocks) for name in ("rx_packets", "injected_packets", "sent_packets")
        }

    def close(self) -> None:
        assert all(worker.stop(PATIENCE) for worker in self.workers)
        assert self.door.stop(PATIENCE)
        for worker in self.workers:
            c = worker.port_counters(0)
            ended = c["sent_packets"] + sum(
                sum(c[kind].values()) for kind in ("punted", "dropped", "policed")
            )
            assert c["rx_packets"] + c["injected_packets"] == ended
            worker.close()
        self.door.close()
        self.tap.close()
        self.port.close()
        self.dataplane.close()
        self.adjacencies.close()
        self.fib.close()
        self.umem.close()


@pytest.fixture
def router(space: Namespace) -> Iterator[Router]:
    made = Router(space)
    space.ip("addr add 192.0.2.1/24 dev lan")
    space.ip("addr add 2001:db8::1/64 dev lan")
    yield made
    made.close()


def test_the_kernel_answers_arp_through_the_tap(router: Router) -> None:
    reply = router.answer(
        arp_request("192.0.2.9", "192.0.2.1"), lambda p: p[12:14] == b"\x08\x06" and p[21] == 2
    )
    assert reply[:12] == PEER + MAC
    assert reply[22:32] == MAC + ip_address("192.0.2.1").packed


def test_the_kernel_answers_pings_on_either_queue(router: Router, space: Namespace) -> None:
    space.ip(f"neigh replace 192.0.2.9 lladdr {PEER.hex(':')} dev lan")
    for number in range(40):
        request = echo_request("192.0.2.9", "192.0.2.1", number)
        reply = router.answer(request, lambda p: p[12:14] == b"\x08\0" and p[34] == 0, number % 2)
        assert reply[:12] == PEER + MAC
        assert reply[38:42] == request[38:42], "identifier and sequence"
        assert ones_sum(reply[14:34]) == ones_sum(reply[34:]) == 0xFFFF
    door = router.door.counters(0)
    assert door["written_packets"] >= 40
    assert door["write_failed"] == door["read_failed"] == door["read_too_long"] == 0


def test_the_kernel_answers_ttl_1_with_its_own_address(router: Router, space: Namespace) -> None:
    space.ip(f"neigh replace 192.0.2.9 lladdr {PEER.hex(':')} dev lan")
    space.ip("route add 10.0.0.0/8 via 192.0.2.77")
    space.sysctl("net.ipv4.ip_forward", 1)
    router.adjacencies.set(8, mac=PEER, interface=0, action=0, mtu=1500)
    router.fib.insert("10.0.0.0/8", 8)
    reply = router.answer(
        echo_request("192.0.2.9", "10.0.0.1", 1, ttl=1), lambda p: p[12:14] == b"\x08\0" and p[34] == 11
    )
    assert reply[26:34] == ip_address("192.0.2.1").packed + ip_address("192.0.2.9").packed


def test_the_kernel_pings_out_through_the_tap(router: Router, space: Namespace) -> None:
    space.ip(f"neigh replace 192.0.2.9 lladdr {PEER.hex(':')} dev lan")
    ping = subprocess.Popen(
        space.command([sys.executable, "-c", "import socket; s = socket.socket(2, 2);"
                       "[s.sendto(b'%d' % n, ('192.0.2.9', 9)) for n in range(20)]"])
    )  # fmt: skip
    got: list[bytes] = []

    def all_there() -> bool:
        got.extend(p[42:] for p in router.sent() if p[12:14] == b"\x08\0" and p[23] == 17)
        return len(got) == 20

    eventually(all_there)
    assert ping.wait(PATIENCE) == 0
    assert got == [b"%d" % n for n in range(20)]
    assert router.totals()["injected_packets"] >= 20


def test_a_tap_taken_down_counts_what_it_refuses_and_comes_back(router: Router, space: Namespace) -> None:
    space.ip("link set lan down")
    assert router.port.deliver(arp_request("192.0.2.9", "192.0.2.1"))
    eventually(lambda: router.door.counters(0)["write_failed"] == 1)
    space.ip("link set lan up")
    router.answer(arp_request("192.0.2.9", "192.0.2.1"), lambda p: p[12:14] == b"\x08\x06" and p[21] == 2)
    assert re.search(r"state UP", shown(space))


def test_a_deleted_interface_leaves_door_and_workers_alive(router: Router, space: Namespace) -> None:
    space.ip("link del lan")
    for _ in range(5):
        assert router.port.deliver(arp_request("192.0.2.9", "192.0.2.1"))
    eventually(lambda: router.door.counters(0)["write_failed"] == 5)
    before = router.door.passes
    time.sleep(0.3)
    assert router.door.alive
    assert router.door.passes - before < 1000, "it spins on a dead descriptor"
