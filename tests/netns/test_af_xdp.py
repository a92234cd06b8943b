"""Ports over AF_XDP on real veth pairs: r0, r1, … in one namespace are ports, h0, h1, … in another hosts.

The test drives the C queues itself, through the same calls as a worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.driver import bpf, ethtool
from ixroute.driver.kinds import frames_wanted, mtu_of, open_port
from ixroute.driver.netdev import NetDevice
from ixroute.driver.port import PortError, PortOptions
from ixroute.driver.umem import Umem

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and AF_XDP need root"),
]

ROUTER, HOSTS = f"driver-router-{os.getpid()}", f"driver-hosts-{os.getpid()}"
ETH_P_ALL = 0x0003
ETH_P_TEST = 0x88B5  # IEEE 802 local experimental
MODES = pytest.mark.parametrize("mode", ["native", "generic"])

_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout


def router(*words: str) -> str:
    return run("ip", "netns", "exec", ROUTER, *words)


def hosts(*words: str) -> str:
    return run("ip", "netns", "exec", HOSTS, *words)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread, for a while, in another network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert _libc.setns(there, 0) == 0
        yield
    finally:
        assert _libc.setns(home, 0) == 0
        os.close(there)
        os.close(home)


class Wire:
    """Everything a test needs, taken down again whatever happens."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.undo = contextlib.ExitStack()
        for namespace in (ROUTER, HOSTS):
            run("ip", "netns", "add", namespace)
            self.undo.callback(run, "ip", "netns", "del", namespace)
        self.burst = ffi.new("struct frame[64]")

    def veth(self, number: int, queues: int = 1, peer_queues: int = 1, mtu: int = 1500) -> None:
        ours, peer = f"r{number}", f"h{number}"
        router(
            *("ip", "link", "add", ours, "numrxqueues", str(queues), "numtxqueues", str(queues)),
            *("type", "veth", "peer", "name", peer),
            *("numrxqueues", str(peer_queues), "numtxqueues", str(peer_queues), "netns", HOSTS),
        )
        router("ip", "link", "set", ours, "mtu", str(mtu))
        hosts("sysctl", "-qw", f"net.ipv6.conf.{peer}.disable_ipv6=1")
        hosts("ip", "link", "set", peer, "up", "mtu", str(mtu))
        hosts("ethtool", "-K", peer, "tx", "off")

    def umem(self, frames: int = 16384, frame_bytes: int = 2048) -> Umem:
        umem = Umem(frames, frame_bytes, "off")
        self.undo.callback(umem.close)
        return umem

    def port(self, number: int, umem: Umem, workers: int = 1, **options: Any) -> Any:
        options = {"state_dir": str(self.state_dir), "rx_slots": 1024, "tx_slots": 1024, **options}
        with inside(ROUTER):
            port = open_port(f"p{number}", number, f"af_xdp:r{number}", umem, workers, PortOptions(**options))
        self.undo.callback(port.close)
        wait_until(lambda: port.link().up)
        return port

    def device(self, namespace: str, interface: str) -> NetDevice:
        with inside(namespace):
            device = NetDevice(interface)
        self.undo.callback(device.close)
        return device

    def packet_socket(self, namespace: str, interface: str, protocol: int = ETH_P_TEST) -> socket.socket:
        """Sends and receives whole packets of that ethertype on that interface."""
        with inside(namespace):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
            sock.bind((interface, protocol))
        sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        sock.setblocking(False)
        self.undo.callback(sock.close)
        return sock

    def forward(self, queue_in: Any, queue_out: Any, pool: Any) -> int:
        """One pass of a worker that only knows one way. The other queue must have room."""
        n = lib.queue_rx_burst(queue_in, self.burst, 64)
        assert lib.queue_tx_burst(queue_out, self.burst, n) == n
        lib.queue_tx_doorbell(queue_out)
        lib.queue_reclaim(queue_out, pool)
        lib.queue_refill(queue_in, pool)
        return int(n)


def packet(number: int, length: int = 60, destination: bytes = b"\xff" * 6) -> bytes:
    head = destination + b"\x02\x00\x00\x00\x00\x01" + ETH_P_TEST.to_bytes(2, "big")
    return head + number.to_bytes(4, "big") + bytes((number + i) & 255 for i in range(length - 18))


def wait_until(true: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def receive(sock: socket.socket) -> bytes:
    """The next packet, if one comes within 20 s."""
    assert select.select([sock], [], [], 20)[0], "no packet came"
    return sock.recv(2048)


def drain(sock: socket.socket) -> list[bytes]:
    """What is there now, except what this machine itself sent by that interface."""
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            data, (_, _, kind, *_) = sock.recvfrom(2048)
            if kind != socket.PACKET_OUTGOING:
                got.append(data)
    return got


def frames_in(pool: Any) -> list[int]:
    """Takes every frame out of the pool."""
    out = ffi.new("uint64_t[]", pool.capacity + 1)
    return sorted(out[i] for i in range(lib.frame_pool_get(pool, out, pool.capacity + 1)))


def every_frame(umem: Umem) -> list[int]:
    return [i * umem.frame_bytes for i in range(umem.n_frames)]


def sysctl(name: str) -> str:
    return router("sysctl", "-n", name).strip()


def ip_received() -> dict[str, int]:
    """What the router's IP layers say they received."""
    lines = router("nstat", "-asz", "IpInReceives", "Ip6InReceives").splitlines()
    return {line.split()[0]: int(line.split()[1]) for line in lines if not line.startswith("#")}


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    wire = Wire(tmp_path / "state")
    with wire.undo:
        yield wire


# ---- packets


@MODES
def test_100000_packets_cross_from_port_to_port_unchanged_and_no_frame_is_lost(wire: Wire, mode: str) -> None:
    wire.veth(0)
    wire.veth(1)
    umem = wire.umem(6000)
    first, second = wire.port(0, umem, mode=mode), wire.port(1, umem, mode=mode)
    assert first.features()["mode"] == mode
    pool = umem.pool(6000)
    queue_in, queue_out = first.queues()[0], second.queues()[0]
    lib.queue_refill(queue_in, pool)
    source, sink = wire.packet_socket(HOSTS, "h0"), wire.packet_socket(HOSTS, "h1")

    total, sent, arrived = 100_000, 0, 0
    deadline = time.monotonic() + 90
    while arrived < total:
        assert time.monotonic() < deadline, (
            f"{sent} sent, {arrived} arrived: {first.stats()} {second.stats()}"
        )
        for _ in range(min(64, total - sent)):
            source.send(packet(sent, 60 + sent % 1400))
            sent += 1
        while arrived < sent:
            wire.forward(queue_in, queue_out, pool)
            with contextlib.suppress(BlockingIOError):
                while True:
                    got = sink.recv(2048, socket.MSG_DONTWAIT)
                    assert got == packet(arrived, 60 + arrived % 1400)
                    arrived += 1
            assert time.monotonic() < deadline, f"{sent} sent, {arrived} arrived: {first.stats()}"

    lost = {key: value for key, value in first.stats().items() if value and key.startswith("rx_")}
    assert lost.keys() <= {"rx_kicks"}
    assert second.stats()["tx_bad"] == second.stats()["tx_invalid"] == 0
    held = lib.xsk_queue_frames(queue_in) + lib.xsk_queue_frames(queue_out)
    assert pool.n + held == 6000
    first.close([pool])
    second.close([pool])
    assert frames_in(pool) == every_frame(umem)


@MODES
def test_more_packets_than_rings_hold_are_lost_in_the_kernel_and_counted_there(wire: Wire, mode: str) -> None:
    wire.veth(0)
    umem = wire.umem(512)
    port = wire.port(0, umem, mode=mode, rx_slots=64, tx_slots=64)
    pool = umem.pool(512)
    (queue,) = port.queues()
    assert lib.queue_refill(queue, pool) == 64
    source = wire.packet_socket(HOSTS, "h0")
    for n in range(200):
        source.send(packet(n))
    wait_until(lambda: port.stats()["rx_dropped"] >= 136)
    assert lib.queue_rx_burst(queue, wire.burst, 64) == 64
    assert lib.queue_rx_burst(queue, wire.burst, 64) == 0
    assert port.stats()["rx_ring_full"] == 0  # what the kernel may hold always fits its ring
    for i in range(64):
        lib.frame_pool_put(pool, umem.c, wire.burst[i].addr)
    port.close([pool])
    assert frames_in(pool) == every_frame(umem)


def test_a_tx_ring_full_of_packets_is_sent_by_one_doorbell(wire: Wire) -> None:
    wire.veth(0)
    umem = wire.umem(4096)
    port = wire.port(0, umem, tx_slots=512)
    pool = umem.pool(4096)
    sink = wire.packet_socket(HOSTS, "h0")
    (queue,) = port.queues()
    addr = ffi.new("uint64_t[64]")
    for n in range(128):
        if n % 64 == 0:
            lib.frame_pool_get(pool, addr, 64)
        ffi.memmove(umem.c.base + addr[n % 64], packet(n), 60)
        wire.burst[0] = {"addr": addr[n % 64], "len": 60}
        assert lib.queue_tx_burst(queue, wire.burst, 1) == 1
    lib.queue_tx_doorbell(queue)
    assert [receive(sink) for _ in range(128)] == [packet(n) for n in range(128)]
    wait_until(lambda: lib.queue_reclaim(queue, pool) + pool.n == 4096 or pool.n == 4096)


def test_packets_for_a_port_that_is_down_leave_when_it_is_up_again(wire: Wire) -> None:
    wire.veth(0)
    umem = wire.umem(2048)
    port = wire.port(0, umem)
    pool = umem.pool(2048)
    sink = wire.packet_socket(HOSTS, "h0")
    (queue,) = port.queues()
    router("ip", "link", "set", "r0", "down")
    addr = ffi.new("uint64_t[1]")
    lib.frame_pool_get(pool, addr, 1)
    ffi.memmove(umem.c.base + addr[0], packet(1), 60)
    wire.burst[0] = {"addr": addr[0], "len": 60}
    assert lib.queue_tx_burst(queue, wire.burst, 1) == 1
    lib.queue_tx_doorbell(queue)
    assert lib.queue_arm(queue) == 0  # nothing to do but wait
    assert port.stats()["tx_refused"] >= 1
    assert not port.link().up
    router("ip", "link", "set", "r0", "up")
    wait_until(lambda: port.link().up)
    lib.queue_tx_doorbell(queue)
    assert receive(sink) == packet(1)


@MODES
def test_no_wake_up_is_lost_over_many_sleeps(wire: Wire, mode: str) -> None:
    wire.veth(0)
    umem = wire.umem(2048)
    port = wire.port(0, umem, mode=mode, rx_slots=256)
    pool = umem.pool(2048)
    (queue,) = port.queues()
    source = wire.packet_socket(HOSTS, "h0")
    total, seen, sleeps = 3000, 0, 0
    room = threading.Semaphore(200)

    def send() -> None:
        dice = random.Random(1)
        for n in range(total):
            room.acquire()
            source.send(packet(n))
            if dice.random() < 0.5:
                time.sleep(dice.random() * 0.0005)

    thread = threading.Thread(target=send)
    lib.queue_refill(queue, pool)
    poll = select.poll()
    poll.register(queue.wait_fd, select.POLLIN)
    thread.start()
    while seen < total:
        if not lib.queue_arm(queue):
            sleeps += 1
            assert poll.poll(20_000), f"slept for ever after {seen} packets: {port.stats()}"
        lib.queue_disarm(queue)
        n = lib.queue_rx_burst(queue, wire.burst, 16)
        for i in range(n):
            lib.frame_pool_put(pool, umem.c, wire.burst[i].addr)
            room.release()
        seen += n
        lib.queue_refill(queue, pool)
    thread.join()
    assert sleeps > 10


@MODES
def test_the_kernel_sees_nothing_of_the_wire_and_says_nothing_on_it(wire: Wire, mode: str) -> None:
    wire.veth(0)
    router("ip", "link", "set", "r0", "up")
    umem = wire.umem(2048)
    heard = wire.packet_socket(HOSTS, "h0", ETH_P_ALL)
    port = wire.port(0, umem, mode=mode)
    pool = umem.pool(2048)
    (queue,) = port.queues()
    lib.queue_refill(queue, pool)
    spy = wire.packet_socket(ROUTER, "r0", ETH_P_ALL)
    drain(heard)  # what it said before it was a port
    before = ip_received()
    source = wire.packet_socket(HOSTS, "h0")
    ipv4 = bytes.fromhex("080045000014000000004001f97cc0000201c0000202")
    ipv6 = bytes.fromhex("86dd6000000000003b40") + bytes(15) + b"\1" + b"\xff\x02" + bytes(13) + b"\1"
    arp = bytes.fromhex("08060001080006040001020000000001c0000201000000000000c0000202")
    for destination in (port.mac, b"\xff" * 6, bytes.fromhex("333300000001")):
        for body in (ipv4, ipv6, arp):
            source.send(destination + b"\x02\x00\x00\x00\x00\x01" + body.ljust(46, b"\0"))
    received = 0

    def all_received() -> bool:
        nonlocal received
        received += int(lib.queue_rx_burst(queue, wire.burst, 64))
        return received == 9

    wait_until(all_received)
    time.sleep(1)  # time enough for router solicitations and MLD reports, were IPv6 on
    assert ip_received() == before
    assert drain(spy) == []
    assert drain(heard) == []


@MODES
def test_a_queue_without_a_socket_drops_instead_of_passing_to_the_kernel(wire: Wire, mode: str) -> None:
    wire.veth(0)
    router("ip", "link", "set", "r0", "up")
    device = wire.device(ROUTER, "r0")
    redirect = bpf.XdpRedirect(4)
    wire.undo.callback(redirect.close)
    with inside(ROUTER):
        redirect.attach(device.ifindex, {"native": bpf.FLAG_NATIVE, "generic": bpf.FLAG_GENERIC}[mode])
    spy = wire.packet_socket(ROUTER, "r0")
    source = wire.packet_socket(HOSTS, "h0")
    for n in range(50):
        source.send(packet(n))
    time.sleep(0.2)
    assert drain(spy) == []
    redirect.close()
    source.send(packet(50))
    assert receive(spy) == packet(50)  # and the spy does see what is passed


@MODES
def test_vlan_tags_arrive_inside_the_packet(wire: Wire, mode: str) -> None:
    wire.veth(0)
    umem = wire.umem(2048)
    port = wire.port(0, umem, mode=mode)
    pool = umem.pool(2048)
    (queue,) = port.queues()
    lib.queue_refill(queue, pool)
    source = wire.packet_socket(HOSTS, "h0")
    tagged = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x81\x00\x00\x2a\x88\xb5" + bytes(46)
    source.send(tagged)
    wait_until(lambda: lib.queue_arm(queue))
    assert lib.queue_rx_burst(queue, wire.burst, 1) == 1
    assert ffi.buffer(umem.c.base + wire.burst[0].addr, wire.burst[0].len)[:] == tagged


# ---- queues


def spread(wire: Wire, umem: Umem, port: Any, pools: list[Any], packets: int) -> list[int]:
    """Sends UDP packets of as many flows; how many came by each queue."""
    hosts("ip", "addr", "add", "192.0.2.1/24", "dev", "h0")
    hosts("ip", "neigh", "add", "192.0.2.2", "lladdr", port.mac.hex(":"), "dev", "h0", "nud", "permanent")
    queues = port.queues()
    for i, queue in enumerate(queues):
        lib.queue_refill(queue, pools[i % len(pools)])
    for n in range(packets):
        with inside(HOSTS), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("192.0.2.1", 10_000 + n))
            sock.sendto(b"flow", ("192.0.2.2", 53))
    counts = [0] * len(queues)

    def all_received() -> bool:
        for i, queue in enumerate(queues):
            got = lib.queue_rx_burst(queue, wire.burst, 64)
            counts[i] += got
            for k in range(got):
                lib.frame_pool_put(pools[i % len(pools)], umem.c, wire.burst[k].addr)
        return sum(counts) == packets

    wait_until(all_received)
    return counts


@MODES
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_queue_of_a_multi_queue_device_is_served(wire: Wire, mode: str, workers: int) -> None:
    wire.veth(0, queues=4, peer_queues=4)
    before = router("ethtool", "-l", "r0")
    umem = wire.umem(8192)
    with inside(ROUTER):
        assert frames_wanted("af_xdp:r0", workers) == 4096  # more queues, smaller rings
    port = wire.port(0, umem, workers, mode=mode)
    pools = [umem.pool(8192 // workers) for _ in range(workers)]
    assert port.n_queues == len(port.queues()) >= workers
    assert port.n_queues % workers == 0
    assert [queue.number for queue in port.queues()] == list(range(port.n_queues))
    counts = spread(wire, umem, port, pools, 400)
    if port.n_queues == 4 and mode == "native":  # generic XDP on veth has one queue per CPU's backlog
        assert all(counts)
    port.close(pools)
    assert sorted(frame for pool in pools for frame in frames_in(pool)) == every_frame(umem)
    assert router("ethtool", "-l", "r0") == before


def test_queues_are_added_when_the_device_can_and_taken_away_at_the_end(wire: Wire) -> None:
    wire.veth(0, queues=4, peer_queues=1)
    router("ethtool", "-L", "r0", "rx", "1", "tx", "1")
    umem = wire.umem(8192)
    port = wire.port(0, umem, 2)
    assert port.n_queues == 2
    port.close()
    device = wire.device(ROUTER, "r0")
    channels = ethtool.channels(device)
    assert channels is not None
    assert (channels.rx, channels.tx) == (1, 1)


def test_fewer_queues_than_workers_is_an_error_that_says_both_numbers(wire: Wire) -> None:
    wire.veth(0)
    umem = wire.umem(8192)
    with pytest.raises(PortError, match=r"port p0: r0 has 1 queue, 2 workers need 2: run fewer workers, or"):
        wire.port(0, umem, 2)
    assert "xdp" not in router("ip", "-d", "link", "show", "r0")
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "0"


def test_a_peer_with_more_queues_makes_it_generic_and_native_says_why(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.veth(0, queues=1, peer_queues=4)
    umem = wire.umem(8192)
    with pytest.raises(PortError, match="veth peer has more transmit queues than r0"):
        wire.port(0, umem, mode="native")
    with caplog.at_level(logging.WARNING):
        port = wire.port(0, umem)
    assert port.features()["mode"] == "generic"
    assert "going on in generic mode" in caplog.text


# ---- what stops a port


def test_an_mtu_that_needs_larger_frames_is_an_error_that_says_which(wire: Wire) -> None:
    wire.veth(0, mtu=3000)
    with pytest.raises(PortError, match=r"r0 has MTU 3000, .* configure frame_bytes = 4096"):
        wire.port(0, wire.umem())
    port = wire.port(0, wire.umem(4096, 4096))
    assert (port.mtu, port.max_mtu) == (3000, 3822)
    with inside(ROUTER):
        assert mtu_of("af_xdp:r0") == 3000


def test_frames_larger_than_af_xdp_takes_are_an_error_that_says_which_it_does(wire: Wire) -> None:
    wire.veth(0)
    with pytest.raises(
        PortError, match=r"frames of 2048 or 4096 bytes, .* have 8192: set memory.frame_bytes = 4096"
    ):
        wire.port(0, wire.umem(4096, 8192))


def test_an_mtu_too_large_for_any_frame_is_an_error_that_says_how_to_lower_it(wire: Wire) -> None:
    wire.veth(0, mtu=9000)
    with pytest.raises(PortError, match="`ip link set dev r0 mtu 3822`"):
        wire.port(0, wire.umem(4096, 4096))


def test_a_peer_with_a_large_mtu_makes_it_generic_and_native_says_why(wire: Wire) -> None:
    wire.veth(0, mtu=9000)
    router("ip", "link", "set", "r0", "mtu", "1500")
    umem = wire.umem()
    with pytest.raises(PortError, match=r"too large for one page: `ip link set dev PEER mtu 3498`"):
        wire.port(0, umem, mode="native")
    assert wire.port(0, umem).features()["mode"] == "generic"


def test_a_second_port_on_an_interface_is_refused_and_leaves_the_first_alone(wire: Wire) -> None:
    wire.veth(0)
    umem = wire.umem()
    port = wire.port(0, umem)
    with pytest.raises(
        PortError, match="another XDP program is attached to r0: `ip link set dev r0 xdp off`"
    ):
        wire.port(0, umem)
    assert "xdp" in router("ip", "-d", "link", "show", "r0")
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "1"
    port.close()
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "0"


def test_zero_copy_that_the_driver_lacks_is_an_error_only_when_asked_for(wire: Wire) -> None:
    wire.veth(0)
    umem = wire.umem()
    with pytest.raises(PortError, match='no zero-copy: zero_copy = "auto"'):
        wire.port(0, umem, zero_copy="on")
    with pytest.raises(PortError, match="generic mode, which cannot"):
        wire.port(0, umem, zero_copy="on", mode="generic")
    features = wire.port(0, umem).features()
    assert features == {
        "mode": "native",
        "zero_copy": False,
        "need_wakeup": True,
        "queues": 1,
        "driver": "veth",
    }


def test_interfaces_that_cannot_be_ports_are_named(wire: Wire) -> None:
    umem = wire.umem()
    with pytest.raises(PortError, match="port p7: there is no interface 'r7' here"):
        wire.port(7, umem)
    with pytest.raises(PortError, match="lo is not an Ethernet interface"), inside(ROUTER):
        open_port("lan", 0, "af_xdp:lo", umem, 1)


def test_an_address_on_the_interface_is_warned_about(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.veth(0)
    router("ip", "addr", "add", "192.0.2.1/24", "dev", "r0")
    with caplog.at_level(logging.WARNING):
        wire.port(0, wire.umem())
    assert "r0 has the address 192.0.2.1" in caplog.text
    assert "ip addr flush dev r0" in caplog.text


OPEN = """
import sys, time
from ixroute.driver.kinds import open_port
from ixroute.driver.port import PortError, PortOptions
from ixroute.driver.umem import Umem
try:
    port = open_port("lan", 0, "af_xdp:r0", Umem(4096, 2048, "off"), 1, PortOptions(state_dir=sys.argv[1]))
    port.set_promiscuous(True)
    print("ready", flush=True)
    time.sleep(60)
except PortError as e:
    print(e, flush=True)
"""


def opener(wire: Wire, *before: str) -> subprocess.Popen[str]:
    words = ("ip", "netns", "exec", ROUTER, *before, sys.executable, "-c", OPEN, str(wire.state_dir))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def end() -> None:
        process.kill()
        process.communicate(timeout=20)

    wire.undo.callback(end)
    return process


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (("setpriv", "--bounding-set=-bpf,-sys_admin"), "CAP_BPF and CAP_NET_ADMIN are needed"),
        (("setpriv", "--bounding-set=-net_raw"), "CAP_NET_RAW is needed"),
        (
            ("prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock"),
            "LimitMEMLOCK=infinity",
        ),
    ],
    ids=["bpf", "sockets", "memlock"],
)
def test_a_missing_permission_is_named(wire: Wire, before: tuple[str, ...], says: str) -> None:
    wire.veth(0)
    assert says in first_line(opener(wire, *before))
    assert "xdp" not in router("ip", "-d", "link", "show", "r0")
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "0"


def test_the_least_capabilities_suffice(wire: Wire) -> None:
    wire.veth(0)
    caps = "+net_admin,+net_raw,+bpf,+ipc_lock"
    process = opener(wire, "setpriv", f"--bounding-set=-all,{caps}")
    assert first_line(process) == "ready"


# ---- leaving


def test_a_killed_process_leaves_no_program_and_the_next_start_cures_the_rest(wire: Wire) -> None:
    wire.veth(0, queues=4, peer_queues=1)
    channels = router("ethtool", "-l", "r0")
    process = opener(wire)
    assert first_line(process) == "ready"
    assert "xdp" in router("ip", "-d", "link", "show", "r0")
    assert "promiscuity 1" in router("ip", "-d", "link", "show", "r0")
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    wait_until(lambda: "xdp" not in router("ip", "-d", "link", "show", "r0"), 5)
    wait_until(lambda: "promiscuity 0" in router("ip", "-d", "link", "show", "r0"), 5)
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "1"  # left behind, as documented
    port = wire.port(0, wire.umem())
    port.close()
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "0"
    assert router("ethtool", "-l", "r0") == channels
    assert list(wire.state_dir.iterdir()) == []


def test_closing_puts_back_what_was_found(wire: Wire) -> None:
    wire.veth(0)
    router("ethtool", "-K", "r0", "rxvlan", "on")
    offloads = router("ethtool", "-k", "r0")
    port = wire.port(0, wire.umem())
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "1"
    assert "rx-vlan-offload: off" in router("ethtool", "-k", "r0")
    port.set_allmulticast(False)  # groups are joined on the TAP: the card must let all of them through
    assert "promiscuity 0  allmulti 1" in router("ip", "-d", "link", "show", "r0")
    port.set_promiscuous(True)
    port.set_promiscuous(True)
    assert "promiscuity 1  allmulti 1" in router("ip", "-d", "link", "show", "r0")
    port.close()
    port.close()
    link = router("ip", "-d", "link", "show", "r0")
    assert "promiscuity 0  allmulti 0" in link
    assert "xdp" not in link
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "0"
    assert router("ethtool", "-k", "r0") == offloads
    with pytest.raises(PortError, match="is closed"):
        port.set_mtu(1400)


def test_an_ipv6_that_was_off_stays_off(wire: Wire) -> None:
    wire.veth(0)
    router("sysctl", "-qw", "net.ipv6.conf.r0.disable_ipv6=1")
    wire.port(0, wire.umem()).close()
    assert sysctl("net.ipv6.conf.r0.disable_ipv6") == "1"


def test_ports_share_umem_and_close_in_any_order(wire: Wire) -> None:
    for number in range(3):
        wire.veth(number)
    umem = wire.umem(8192)
    pool = umem.pool(8192)
    first, second = wire.port(0, umem), wire.port(1, umem)
    lib.queue_refill(second.queues()[0], pool)
    first.close([pool])  # the one that registered umem
    third = wire.port(2, umem)
    source, sink = wire.packet_socket(HOSTS, "h1"), wire.packet_socket(HOSTS, "h2")
    source.send(packet(1))
    wait_until(lambda: wire.forward(second.queues()[0], third.queues()[0], pool))
    assert receive(sink) == packet(1)
    second.close([pool])
    third.close([pool])
    again = wire.port(0, umem)
    umem.close()
    assert umem.c.base != ffi.NULL
    lib.queue_refill(again.queues()[0], pool)
    wire.packet_socket(HOSTS, "h0").send(packet(2))
    wait_until(lambda: lib.queue_arm(again.queues()[0]) == 1)
    again.close([pool])
    assert umem.c.base == ffi.NULL


def test_an_interface_that_vanishes_ends_in_errors_not_in_a_crash(wire: Wire) -> None:
    wire.veth(0)
    umem = wire.umem()
    pool = umem.pool(4096)
    port = wire.port(0, umem)
    (queue,) = port.queues()
    lib.queue_refill(queue, pool)
    router("ip", "link", "del", "r0")
    with pytest.raises(PortError, match="r0 is gone"):
        port.link()
    addr = ffi.new("uint64_t[1]")
    lib.frame_pool_get(pool, addr, 1)
    wire.burst[0] = {"addr": addr[0], "len": 60}
    lib.queue_tx_burst(queue, wire.burst, 1)
    lib.queue_tx_doorbell(queue)
    assert lib.queue_rx_burst(queue, wire.burst, 64) == 0
    assert lib.queue_arm(queue) == 0
    assert port.stats()["tx_refused"] >= 1
    port.close([pool])
    assert len(frames_in(pool)) == 4096


# ---- control


def test_mtu_mac_and_link_are_the_devices(wire: Wire) -> None:
    wire.veth(0)
    port = wire.port(0, wire.umem())
    device = wire.device(ROUTER, "r0")
    assert (port.mac, port.mtu, port.wire_ifindex) == (device.mac(), 1500, device.ifindex)
    port.set_mtu(1400)
    port.set_mac(bytes.fromhex("02aabbccddee"))
    assert (device.mtu(), device.mac().hex()) == (1400, "02aabbccddee")
    link = port.link()
    assert (link.up, link.speed_mbps, link.duplex) == (True, 10000, "full")
    hosts("ip", "link", "set", "h0", "down")
    wait_until(lambda: not port.link().up)
    with pytest.raises(PortError, match="MTU 1775 does not fit"):
        port.set_mtu(1775)
    with pytest.raises(PortError, match="cannot set MTU 10"):
        port.set_mtu(10)
    with pytest.raises(PortError, match="not a unicast MAC"):
        port.set_mac(b"\xff" * 6)
    router("ip", "link", "set", "r0", "down")
    router("ip", "link", "set", "r0", "name", "renamed0")
    assert port.mtu == 1400


def test_ethtool_answers_as_the_tool_does(wire: Wire) -> None:
    wire.veth(0)
    device = wire.device(HOSTS, "h0")
    assert ethtool.tx_checksum(device) is False
    ethtool.set_tx_checksum(device, True)
    assert "tx-checksumming: on" in hosts("ethtool", "-k", "h0")
    assert ethtool.driver_info(device)["driver"] == "veth"
    assert ethtool.permanent_mac(device) is None
    with pytest.raises(OSError, match="not supported"):
        ethtool.ring_sizes(device)


def test_huge_pages_are_taken_when_there_are_any(wire: Wire) -> None:
    setting = Path("/proc/sys/vm/nr_hugepages")
    before = setting.read_text()
    setting.write_text(str(int(before) + 16))
    wire.undo.callback(setting.write_text, before)
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        free = next(int(line.split()[1]) for line in meminfo if line.startswith("HugePages_Free:"))
    if free < 16:
        pytest.skip(f"this machine cannot give 16 huge pages now (only {free})")
    wire.veth(0)
    umem = Umem(15_000, 2048, "require")
    assert umem.hugepages
    assert umem.bytes == 30 << 20
    assert umem.address % (2 << 20) == 0
    port = wire.port(0, umem)
    pool = umem.pool(15_000)
    lib.queue_refill(port.queues()[0], pool)
    wire.packet_socket(HOSTS, "h0").send(packet(3))
    wait_until(lambda: lib.queue_arm(port.queues()[0]) == 1)
    assert lib.queue_rx_burst(port.queues()[0], wire.burst, 1) == 1
    assert ffi.buffer(umem.c.base + wire.burst[0].addr, wire.burst[0].len)[:] == packet(3)
    port.close()
    umem.close()
