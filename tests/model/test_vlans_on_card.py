"""One emulated card, a worker, and VLAN sub-interfaces on it: a router on a stick."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from ixroute.driver.port import PortOptions
from ixroute.fib.adjacency import AdjacencyTable
from ixroute.fib.fib import Fib
from ixroute.forward.reasons import reason_number
from ixroute.forward.worker import PORT_IP4_FORWARD, PORT_UP, Dataplane, Worker
from ixroute.tap.door import Door
from lab.emulated_port import MAC, EmulatedPort

PEER = bytes.fromhex("0211223344aa")
OWN = bytes.fromhex("0259900000f7")
Q, AD = 0x8100, 0x88A8
FLAGS = PORT_UP | PORT_IP4_FORWARD
PORT, SEVEN, EIGHT, OUTER, INNER = 0, 64, 65, 66, 67
TAGS = {
    PORT: b"",
    SEVEN: b"\x81\0\0\7",
    EIGHT: b"\x81\0\0\x08",
    OUTER: b"\x88\xa8\0\x64",
    INNER: b"\x88\xa8\0\x64\x81\0\0\7",
}


def whole(tags: bytes, to: str, length: int, ttl: int = 64, mac: bytes = MAC, src: bytes = PEER) -> bytes:
    """A packet with these tags; length: of what is IP in it."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, ttl, 17, 0)
    head += ip_address("192.0.2.1").packed + ip_address(to).packed
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", 0xFFFF - total) + head[12:]
    return mac + src + tags + b"\x08\0" + head + (bytes(range(256)) * 6)[: length - 20]


class Stick:
    def __init__(self) -> None:
        self.rig = rig = EmulatedPort(options=PortOptions(rx_slots=64, tx_slots=64), spare_frames=2048)
        self.fib = Fib()
        self.adjacencies = AdjacencyTable(64, reason_number("no_route"))
        self.dataplane = Dataplane(rig.umem.c, self.fib.c, self.adjacencies.c, 1, 1)
        self.dataplane.set_port(PORT, MAC, 1500, FLAGS)
        for number, tags in (
            (SEVEN, [(Q, 7)]),
            (EIGHT, [(Q, 8)]),
            (OUTER, [(AD, 100)]),
            (INNER, [(AD, 100), (Q, 7)]),
        ):
            self.dataplane.set_interface(number, PORT, tags, MAC, 1500, FLAGS)
        for i, number in enumerate(TAGS):
            self.adjacencies.set(8 + i, mac=PEER, interface=number, mtu=1500)
            self.fib.insert(ip_network(f"10.{number}.0.0/16"), 8 + i)
        self.door = Door(rig.umem.c, 1)
        self.worker = Worker(self.dataplane, 0, rig.pools[0], self.door.lanes[0])
        self.worker.add_queue(rig.queues[0])
        self.step()

    def step(self) -> None:
        for _ in range(4):
            self.worker.poll_once()
            self.rig.step()

    def route(self, *packets: bytes) -> list[bytes]:
        self.rig.deliver(*packets)
        self.step()
        return self.rig.collect()

    def close(self) -> None:
        self.worker.close()
        self.door.close()
        self.rig.close()
        self.dataplane.close()
        self.adjacencies.close()
        self.fib.close()
        self.rig.__exit__()


@pytest.fixture
def stick() -> Iterator[Stick]:
    made = Stick()
    yield made
    made.close()


@pytest.mark.parametrize("length", [46, 1500], ids=["short", "of the MTU"])
def test_packets_go_from_any_tags_to_any_other(stick: Stick, length: int) -> None:
    ways = [(here, there) for here in TAGS for there in TAGS if here != there]
    sent = stick.route(*(whole(TAGS[here], f"10.{there}.0.1", length) for here, there in ways))
    assert sent == [
        whole(TAGS[there], f"10.{there}.0.1", length, ttl=63, mac=PEER, src=MAC).ljust(60, b"\0")
        for _, there in ways
    ]
    each = {number: stick.worker.sub_counters(number) for number in TAGS if number}
    assert {number: (c["rx_packets"], c["tx_packets"]) for number, c in each.items()} == dict.fromkeys(
        each, (4, 4)
    )
    port = stick.worker.port_counters(PORT)
    assert port["rx_packets"] == port["sent_packets"] == port["tx_packets"] == len(ways)
    assert port["rx_bytes"] == sum(len(whole(TAGS[here], "10.0.0.1", length)) for here, _ in ways)


def test_a_sub_interface_with_a_mac_of_its_own_is_heard_when_the_card_is_promiscuous(stick: Stick) -> None:
    stick.dataplane.set_interface(SEVEN, PORT, [(Q, 7)], OWN, 1500, FLAGS)
    mine = whole(TAGS[SEVEN], "10.65.0.1", 100, mac=OWN)
    assert stick.route(mine) == []
    stick.rig.port.set_promiscuous(True)
    assert len(stick.route(mine, whole(TAGS[EIGHT], "10.64.0.1", 100, mac=OWN))) == 1
    assert stick.worker.port_counters(PORT)["dropped"] == {"other_host": 1}


def test_what_has_no_sub_interface_is_dropped_and_counted(stick: Stick) -> None:
    tags = (b"\x81\0\0\x09", b"\x88\xa8\0\x07", b"\x88\xa8\0\x64\x88\xa8\0\x07")
    assert stick.route(*(whole(tag, "10.0.0.1", 100) for tag in tags)) == []
    assert stick.worker.port_counters(PORT)["dropped"] == {"vlan_tag_mismatch": 3}
    assert stick.worker.sub_counters(OUTER)["dropped"] == 1
