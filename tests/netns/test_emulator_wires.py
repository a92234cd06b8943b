"""The emulator's wires on real interfaces: a TAP's kernel as the link partner, AF_PACKET on a veth."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from ixroute._dataplane import lib
from ixroute.demo.netns import CommandError, Namespace
from ixroute.demo.probes import internet_checksum
from ixroute.emulator.wires import Wire, WireError, open_wire
from lab.engine_side import BURST, LONGEST, receive, receive_all, receive_count, send, send_all
from lab.packets import ETH_ARP, ETH_IP4, ETH_VLAN, UDP, arp, ethernet, ip4, pseudo_header, udp

pytestmark = pytest.mark.netns

BROADCAST, CARD, NOBODY = "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:c1", "00:00:00:00:00:00"
PATIENCE = 10.0


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"wires-test-{os.getpid()}")
    try:
        made.create()
        made.sysctl("net.ipv6.conf.default.disable_ipv6", 1)  # a kernel that says nothing unasked
        yield made
    finally:
        made.destroy()


@contextlib.contextmanager
def opened(space: Namespace, spec: str) -> Iterator[Wire]:
    wire = space.call(lambda: open_wire(spec))
    try:
        yield wire
    finally:
        wire.close()


def eventually(holds: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def eventually_carrier(wire: Wire, up: bool) -> None:
    eventually(lambda: wire.carrier() is up)


def exists(space: Namespace, name: str) -> bool:
    try:
        space.ip(f"link show dev {name}")
    except CommandError:
        return False
    return True


def checksum_is_right(src: str, dst: str, datagram: bytes) -> bool:
    return internet_checksum(pseudo_header(src, dst, len(datagram), UDP) + datagram) in (0, 0xFFFF)


# ---- TAP ----


def test_a_tap_is_made_up_and_gone_when_closed(space: Namespace) -> None:
    with opened(space, "tap:w0") as wire:
        text = space.ip("-d link show dev w0")
        assert "type tap" in text
        assert "vnet_hdr off" in text
        assert wire.carrier()
        eventually(lambda: "state UP" in space.ip("link show dev w0"))
    assert not exists(space, "w0")


def test_a_tap_that_was_there_stays(space: Namespace) -> None:
    space.ip("tuntap add w0 mode tap")
    with opened(space, "tap:w0") as wire:
        assert wire.carrier()
    assert exists(space, "w0")


def test_the_kernel_and_the_card_talk_over_a_tap(space: Namespace) -> None:
    with opened(space, "tap:w0") as wire:
        space.ip("addr add 192.0.2.1/24 dev w0")
        send_all(wire.c, [ethernet(BROADCAST, CARD, ETH_ARP, arp(1, CARD, "192.0.2.2", NOBODY, "192.0.2.1"))])
        answer = receive_count(wire.c, 1)[0]
        assert len(answer) == 60, "the kernel's 42 bytes are padded"
        assert answer[:6] == bytes.fromhex(CARD.replace(":", ""))
        assert answer[20:22] == b"\0\2"
        assert wire.stats()["rx_packets"] == wire.stats()["tx_packets"] == 1


def test_the_kernel_finishes_checksums_and_segments_before_a_tap(space: Namespace) -> None:
    with opened(space, "tap:w0") as wire:
        space.ip("addr add 192.0.2.1/24 dev w0")
        space.ip(f"neigh add 192.0.2.2 lladdr {CARD} dev w0")
        sender = space.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.sendto(b"x" * 100, ("192.0.2.2", 9))
        sender.setsockopt(socket.IPPROTO_UDP, 103, 200)  # UDP_SEGMENT
        sender.sendto(b"y" * 1000, ("192.0.2.2", 9))
        frames = receive_count(wire.c, 6)
        sender.close()
        assert [len(frame) - 42 for frame in frames] == [100, 200, 200, 200, 200, 200]
        for frame in frames:
            assert checksum_is_right("192.0.2.1", "192.0.2.2", frame[34:])


def test_a_taps_link_follows_the_interface_and_its_descriptor_tells(space: Namespace) -> None:
    with opened(space, "tap:w0") as wire:
        assert wire.carrier()
        for state, up in (("down", False), ("up", True)):
            space.ip(f"link set w0 {state}")
            assert select.select([wire.carrier_fd], [], [], PATIENCE)[0]
            eventually_carrier(wire, up)
        eventually(lambda: not (wire.carrier() and select.select([wire.carrier_fd], [], [], 0.05)[0]))


def test_a_tap_that_is_down_takes_and_counts(space: Namespace) -> None:
    with opened(space, "tap:w0") as wire:
        space.ip("link set w0 down")
        assert send(wire.c, [bytes(60)] * 3) == 3
        assert wire.stats()["tx_dropped"] == 3


def test_a_deleted_tap_is_no_link_and_is_not_waited_for(space: Namespace) -> None:
    with opened(space, "tap:w0") as wire:
        space.ip("link del w0")
        assert select.select([wire.carrier_fd], [], [], PATIENCE)[0]
        assert not wire.carrier()
        assert receive(wire.c) == []
        assert wire.c.wait_fd == -1, "poll(2) would report its error for ever"
        assert send(wire.c, [bytes(60)]) == 1
        assert any("was deleted" in hint for hint in wire.hints())


def test_a_tap_may_move_to_another_namespace_and_take_another_name(space: Namespace) -> None:
    host = Namespace(f"wires-host-{os.getpid()}")
    try:
        host.create()
        with opened(space, "tap:w0") as wire:
            fd = wire.carrier_fd
            space.ip(f"link set w0 netns {host.name}")
            assert select.select([fd], [], [], PATIENCE)[0]
            assert not wire.carrier(), "moving took it down"
            host.ip("link set w0 name eth0")
            host.ip("addr add 192.0.2.1/24 dev eth0")
            host.ip("link set eth0 up")
            eventually(lambda: select.select([fd], [], [], 0)[0] and wire.carrier())
            assert wire.carrier_fd == fd
            send_all(
                wire.c, [ethernet(BROADCAST, CARD, ETH_ARP, arp(1, CARD, "192.0.2.2", NOBODY, "192.0.2.1"))]
            )
            eventually(lambda: ETH_ARP in [int.from_bytes(f[12:14], "big") for f in receive_all(wire.c)])
            host.ip("link set eth0 down")
            eventually(lambda: select.select([fd], [], [], 0)[0] and not wire.carrier())
            host.ip("link set eth0 up")
            eventually(lambda: select.select([fd], [], [], 0)[0] and wire.carrier())
        assert not exists(host, "eth0")
    finally:
        host.destroy()


def test_what_stands_in_a_taps_way_is_named(space: Namespace) -> None:
    with (
        opened(space, "tap:w0"),
        pytest.raises(WireError, match="another process has this TAP"),
        opened(space, "tap:w0"),
    ):
        pass
    space.ip("link add v0 type veth peer name v1")
    with (
        pytest.raises(WireError, match=r"of another kind has this name: .*`ip link del v0`"),
        opened(space, "tap:v0"),
    ):
        pass


# ---- AF_PACKET ----


@pytest.fixture
def veth(space: Namespace) -> Namespace:
    """w0, the wire's, and w1 with 192.0.2.1."""
    space.ip("link add w0 type veth peer name w1")
    for name in ("w0", "w1"):
        space.ip(f"link set {name} up")
    space.ip("addr add 192.0.2.1/24 dev w1")
    space.ip(f"neigh add 192.0.2.2 lladdr {CARD} dev w1")
    return space


@pytest.fixture
def far(veth: Namespace) -> Iterator[socket.socket]:
    """Below the IP stack of w1."""
    with veth.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("w1", 3))
        sock.settimeout(PATIENCE)
        yield sock


def test_bursts_pass_an_interface_both_ways(veth: Namespace, far: socket.socket) -> None:
    with opened(veth, "if:w0") as wire:
        assert wire.carrier()
        frames = [ethernet(BROADCAST, CARD, 0x88B5, bytes([i]) * (46 + i)) for i in range(BURST)]
        send_all(wire.c, frames)
        assert [far.recv(65536) for _ in frames] == frames
        for frame in frames:
            far.send(frame)
        assert receive_count(wire.c, BURST) == frames
        stats = wire.stats()
        assert (stats["rx_packets"], stats["tx_packets"]) == (BURST, BURST), (
            "its own packets are not received"
        )
        assert stats["kernel_dropped"] == stats["rx_dropped"] == stats["tx_dropped"] == 0


def test_frames_for_anybody_are_received(veth: Namespace, far: socket.socket) -> None:
    with opened(veth, "if:w0") as wire:
        assert "promiscuity 1" in veth.ip("-d link show dev w0")
        frame = ethernet("02:99:99:99:99:99", "02:00:00:00:00:01", 0x88B5, b"for somebody else".ljust(46))
        far.send(frame)
        assert receive_count(wire.c, 1) == [frame]
    assert "promiscuity 0" in veth.ip("-d link show dev w0")


def test_tags_are_in_the_frame_both_ways(veth: Namespace, far: socket.socket) -> None:
    packet = ip4("192.0.2.1", "192.0.2.2", udp("192.0.2.1", "192.0.2.2", b"x" * 40))
    tagged = [
        ethernet(BROADCAST, "02:00:00:00:00:01", ETH_IP4, packet, vlan=(ETH_VLAN, 0x6064)),
        ethernet(BROADCAST, "02:00:00:00:00:01", ETH_IP4, packet, vlan=(0x88A8, 7)),
        ethernet(BROADCAST, "02:00:00:00:00:01", ETH_VLAN, b"\0\5\x08\0" + packet, vlan=(0x88A8, 7)),
    ]
    with opened(veth, "if:w0") as wire:
        for frame in tagged:
            far.send(frame)
        assert receive_count(wire.c, len(tagged)) == tagged


def test_an_unfinished_checksum_behind_a_tag_is_finished(veth: Namespace, far: socket.socket) -> None:
    datagram = udp("192.0.2.1", "192.0.2.2", b"x" * 40)
    partial = internet_checksum(pseudo_header("192.0.2.1", "192.0.2.2", len(datagram), UDP)) ^ 0xFFFF
    blank = datagram[:6] + struct.pack("!H", partial) + datagram[8:]
    whole, unfinished = (
        ethernet(BROADCAST, "02:00:00:00:00:01", ETH_IP4, ip4("192.0.2.1", "192.0.2.2", part), (ETH_VLAN, 9))
        for part in (datagram, blank)
    )
    far.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
    with opened(veth, "if:w0") as wire:
        far.send(struct.pack("=BBHHHH", 1, 0, 0, 0, 38, 6) + unfinished)  # VIRTIO_NET_HDR_F_NEEDS_CSUM
        assert receive_count(wire.c, 1) == [whole]


def test_what_a_veth_leaves_to_hardware_is_done(veth: Namespace) -> None:
    """veth has every offload: checksums are unfinished, and datagrams of many segments come whole."""
    with opened(veth, "if:w0") as wire, veth.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x" * 100, ("192.0.2.2", 9))
        sender.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
        sender.sendto(b"y" * 20_500, ("192.0.2.2", 9))
        frames = receive_count(wire.c, 22)
        assert [len(frame) - 42 for frame in frames] == [100] + [1000] * 20 + [500]
        for frame in frames:
            assert checksum_is_right("192.0.2.1", "192.0.2.2", frame[34:])
        assert wire.stats()["rx_dropped"] == 0


def test_an_interfaces_link_follows_its_carrier(veth: Namespace) -> None:
    with opened(veth, "if:w0") as wire:
        assert wire.carrier()
        for name, state, up in (
            ("w1", "down", False),
            ("w1", "up", True),
            ("w0", "down", False),
            ("w0", "up", True),
        ):
            veth.ip(f"link set {name} {state}")
            assert select.select([wire.carrier_fd], [], [], PATIENCE)[0]
            eventually_carrier(wire, up)


def test_an_interface_that_goes_down_costs_packets_and_no_more(veth: Namespace, far: socket.socket) -> None:
    with opened(veth, "if:w0") as wire:
        veth.ip("link set w0 down")
        assert receive_all(wire.c) == []
        before = wire.stats()["syscalls"]
        assert send(wire.c, [bytes(60)] * BURST) == BURST
        assert wire.stats()["tx_dropped"] == BURST
        assert wire.stats()["syscalls"] - before <= 3, "one error speaks for the burst"
        veth.ip("link set w0 up")
        eventually(wire.carrier)
        frame = ethernet(BROADCAST, CARD, 0x88B5, b"again".ljust(46))
        far.send(frame)
        assert receive_count(wire.c, 1) == [frame]


def test_an_interface_that_comes_back_under_its_name_is_attached_again(veth: Namespace) -> None:
    with opened(veth, "if:w0") as wire:
        veth.ip("link del w0")
        assert not wire.carrier()
        assert receive_all(wire.c) == []
        veth.ip("link add w0 type veth peer name w1")
        for name in ("w0", "w1"):
            veth.ip(f"link set {name} up")
        eventually(wire.carrier)
        frame = ethernet(BROADCAST, CARD, 0x88B5, b"a new one".ljust(46))
        with veth.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("w1", 3))
            sock.send(frame)
            assert receive_count(wire.c, 1) == [frame]


def test_a_frame_above_the_mtu_is_lost_alone(veth: Namespace, far: socket.socket) -> None:
    with opened(veth, "if:w0") as wire:
        small = ethernet(BROADCAST, CARD, 0x88B5, b"small".ljust(46))
        assert send(wire.c, [small, bytes(LONGEST), small]) == 3
        assert [far.recv(65536) for _ in range(2)] == [small, small]
        assert wire.stats()["tx_dropped"] == 1


def test_what_stands_in_an_interfaces_way_is_named(space: Namespace) -> None:
    with pytest.raises(WireError, match="no such interface"), opened(space, "if:w0"):
        pass
    space.ip("tuntap add w0 mode tun")
    with pytest.raises(WireError, match="no Ethernet interface"), opened(space, "if:w0"):
        pass


def test_wires_need_no_disarming_to_be_asked_again(veth: Namespace, far: socket.socket) -> None:
    with opened(veth, "if:w0") as wire:
        assert not lib.wire_arm(wire.c)
        far.send(ethernet(BROADCAST, CARD, 0x88B5, bytes(46)))
        assert select.select([wire.c.wait_fd], [], [], PATIENCE)[0]
        lib.wire_disarm(wire.c)
        assert len(receive(wire.c)) == 1
        assert not select.select([wire.c.wait_fd], [], [], 0)[0]
