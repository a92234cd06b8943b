"""Packets through our driver on the emulated card: queues, rings, pools, sizes, filters, and every count."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable

import pytest

from ixroute._dataplane import ffi, lib
from ixroute.driver.ixgbe.rss import SYMMETRIC_KEY
from ixroute.driver.port import PortError, PortOptions
from lab.emulated_port import MAC, OTHER, EmulatedPort, numbered
from lab.inprocess import InProcess
from lab.packets import ip4, tcp_syn, udp
from lab.support import wait_until

GROUP = bytes.fromhex("01005e000005")
TCP, UDP = 6, 17
ENDS = ("192.0.2.1", "198.51.100.7")


def flow(version: int, protocol: int, source: bytes, destination: bytes, ports: tuple[int, int]) -> bytes:
    l4 = struct.pack(">HH", *ports)
    l4 += struct.pack(">IIHHHH", 1, 0, 0x5010, 512, 0, 0) if protocol == TCP else struct.pack(">HH", 8, 0)
    if version == 4:
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, protocol, 0) + source + destination
        return (MAC + bytes(6) + b"\x08\x00" + ip + l4).ljust(60, b"\0")
    ip = struct.pack(">IHBB", 6 << 28, len(l4), protocol, 64) + source + destination
    return (MAC + bytes(6) + b"\x86\xdd" + ip + l4).ljust(60, b"\0")


def toeplitz(key: bytes, data: bytes) -> int:
    """Bit by bit: the key's window at each bit that is set (Microsoft's RSS hash, which 7.1.2.8 names)."""
    bits, result = int.from_bytes(key, "big"), 0
    for i in range(8 * len(data)):
        if data[i // 8] >> (7 - i % 8) & 1:
            result ^= bits >> (8 * len(key) - 32 - i) & 0xFFFFFFFF
    return result


def flows(n: int, seed: int) -> Iterable[tuple[int, int, bytes, bytes, tuple[int, int]]]:
    pick = random.Random(seed)
    for _ in range(n):
        version = pick.choice((4, 6))
        addresses = [pick.randbytes(4 if version == 4 else 16) for _ in range(2)]
        ports = (pick.randrange(1, 65536), pick.randrange(1, 65536))
        yield version, pick.choice((TCP, UDP)), addresses[0], addresses[1], ports


@pytest.mark.parametrize("key", [b"", bytes(range(3, 43))], ids=["symmetric", "own"])
@pytest.mark.parametrize("queues", [2, 5, 16])
def test_every_flow_is_on_the_queue_that_the_hash_names(queues: int, key: bytes) -> None:
    """What driver and card make of the datasheet, against the hash bit by bit."""
    with EmulatedPort(queues, PortOptions(rx_slots=128, tx_slots=64, rss_key=key)) as rig:
        rig.refill()
        expected: dict[bytes, int] = {}
        for version, protocol, source, destination, ports in flows(300, queues):
            hashed = toeplitz(key or SYMMETRIC_KEY, source + destination + struct.pack(">HH", *ports))
            expected[flow(version, protocol, source, destination, ports)] = (hashed & 127) % queues
        for _ in range(2):  # once more: a flow stays
            for i in range(0, len(expected), 50):
                rig.deliver(*list(expected)[i : i + 50])
                rig.step()
                for q, packets in enumerate(rig.receive_all()):
                    assert {expected[received] for received in packets} <= {q}
        assert rig.settle()["rx_missed"] == 0


@pytest.mark.parametrize("queues", [2, 16])
def test_both_directions_of_a_flow_meet_on_one_queue_and_flows_spread_over_all(queues: int) -> None:
    with EmulatedPort(queues) as rig:
        rig.refill()
        used = [0] * queues
        for version, protocol, a, b, (sport, dport) in flows(400, 7):
            rig.deliver(
                flow(version, protocol, a, b, (sport, dport)), flow(version, protocol, b, a, (dport, sport))
            )
            rig.step()
            counts = [len(packets) for packets in rig.receive_all()]
            assert sorted(counts)[-1] == 2, "the directions came apart"
            used[counts.index(2)] += 1
        assert min(used) >= 400 // queues // 3, f"flows by queue: {used}"
        rig.settle()


def test_fragments_and_what_has_no_ports_go_by_addresses_and_the_rest_to_queue_0() -> None:
    with EmulatedPort(4) as rig:
        rig.refill()
        whole = bytearray(flow(4, UDP, b"\x0a\x01\x02\x03", b"\x0a\x09\x08\x07", (7, 9)))
        expected = (toeplitz(SYMMETRIC_KEY, bytes(whole[26:34])) & 127) % 4
        first, later, icmp = bytearray(whole), bytearray(whole), bytearray(whole)
        first[20:22], later[20:22], icmp[23] = b"\x20\x00", b"\x00\x10", 1
        rig.deliver(bytes(first), bytes(later), bytes(icmp))
        rig.step()
        assert [len(packets) for packets in rig.receive_all()] == [3 * (q == expected) for q in range(4)]
        rig.deliver((b"\xff" * 6 + bytes(6) + b"\x08\x06").ljust(60, b"\0"))
        rig.step()
        assert [len(packets) for packets in rig.receive_all()] == [1, 0, 0, 0]
        rig.settle()


def test_sixteen_queues_send_at_once_and_each_is_counted_for_itself() -> None:
    with EmulatedPort(16) as rig:
        rig.refill()
        for round_ in range(10):
            for q in range(16):
                assert rig.send(q, *[numbered(1000 * q + i, 60 + q) for i in range(q + 1)]) == q + 1
            rig.step(16)
            assert len(rig.collect()) == sum(range(1, 17)), round_
            rig.refill()
        stats = rig.settle()
        assert [stats[f"tx_queue_{q}_packets"] for q in range(16)] == [10 * (q + 1) for q in range(16)]
        assert [stats[f"tx_queue_{q}_bytes"] for q in range(16)] == [
            10 * (q + 1) * (60 + q) for q in range(16)
        ]


@pytest.mark.parametrize(("rx_slots", "tx_slots"), [(64, 64), (64, 256), (4096, 128)])
def test_rings_wrap_whatever_the_bursts_and_nothing_is_lost_or_out_of_order(
    rx_slots: int, tx_slots: int
) -> None:
    pick = random.Random(rx_slots + tx_slots)
    with EmulatedPort(1, PortOptions(rx_slots=rx_slots, tx_slots=tx_slots)) as rig:
        rig.refill()
        number = 0
        for _ in range(150):
            n = pick.randrange(1, 32)
            packets = [numbered(number + i, pick.randrange(60, 300)) for i in range(n)]
            number += n
            rig.deliver(*packets)
            rig.step(2)
            assert rig.receive() == packets
            assert rig.send(0, *packets) == n
            rig.step(2)
            assert rig.collect() == packets
            rig.refill()
        assert number > 20 * 64
        assert rig.settle()["rx_missed"] == 0


def test_receiving_goes_on_for_many_rings_without_anything_sent() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        for number in range(0, 100 * 64, 40):
            packets = [numbered(number + i) for i in range(40)]
            rig.deliver(*packets)
            rig.step(2)
            assert rig.receive() == packets
            rig.refill()
        assert rig.settle()["rx_missed"] == 0


def test_a_pool_that_is_exhausted_loses_packets_counts_them_and_recovers() -> None:
    with EmulatedPort(1, spare_frames=0) as rig:
        rig.refill()
        free = rig.free_frames()
        held = ffi.new("uint64_t[]", free)
        assert lib.frame_pool_get(rig.pools[0], held, free) == free  # somebody keeps all of them
        rig.deliver(*[numbered(i) for i in range(63)])
        rig.step()
        frames = ffi.new("struct frame[]", 64)
        assert lib.queue_rx_burst(rig.queues[0], frames, 64) == 63  # these too
        rig.refill()
        assert rig.queues[0].rx_no_frame > 0
        rig.deliver(*[numbered(100 + i) for i in range(50)])
        rig.step()
        assert rig.receive() == []
        assert rig.port.stats()["rx_queue_0_dropped"] == 50
        for frame in frames[0:63]:
            rig.received.add(bytes(frame.len))
            lib.frame_pool_put(rig.pools[0], rig.umem.c, frame.addr)
        for i in range(free):
            lib.frame_pool_put(rig.pools[0], rig.umem.c, held[i])
        for _ in range(3):
            rig.refill()
            again = [numbered(200 + i) for i in range(50)]
            rig.deliver(*again)
            rig.step()
            assert rig.receive() == again
        assert rig.settle()["rx_missed"] == 50


def test_a_queue_without_frames_does_not_stop_the_others() -> None:
    by_queue: dict[int, list[bytes]] = {0: [], 1: []}
    for version, protocol, a, b, ports in flows(300, 11):
        hashed = toeplitz(SYMMETRIC_KEY, a + b + struct.pack(">HH", *ports))
        by_queue[(hashed & 127) % 2].append(flow(version, protocol, a, b, ports))
    with EmulatedPort(2) as rig:
        lib.queue_refill(rig.queues[1], rig.pools[1])
        rig.deliver(*by_queue[0][:40], *by_queue[1][:60])
        rig.step()
        assert [len(rig.receive(q)) for q in (0, 1)] == [0, 60]
        stats = rig.port.stats()
        assert (stats["rx_queue_0_dropped"], stats["rx_queue_1_dropped"]) == (40, 0)
        rig.refill()
        rig.deliver(*by_queue[0][:40])
        rig.step()
        assert [len(packets) for packets in rig.receive_all()] == [40, 0]
        rig.settle()


def test_a_wire_that_takes_nothing_fills_the_ring_and_all_goes_out_afterwards_in_order() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        lib.wire_memory_hold(rig.wire, 1)
        packets = [numbered(i) for i in range(100)]
        taken = rig.send(0, *packets)
        assert taken == 63
        rig.step()
        assert rig.collect() == []
        assert rig.send(0, numbered(999)) == 0
        lib.wire_memory_hold(rig.wire, 0)
        rig.step()
        assert rig.collect() == packets[:63]
        rig.refill()
        assert rig.send(0, *packets[63:]) == 37
        rig.step()
        assert rig.collect() == packets[63:]
        rig.settle()


IP_BAD, L4_BAD, L4_GOOD, IP_GOOD = 4, 16, 32, 64  # driver/frame.h


@pytest.mark.parametrize(
    ("content", "flags"),
    [
        (lambda: ip4(*ENDS, udp(*ENDS, b"right")), IP_GOOD | L4_GOOD),
        (lambda: ip4(*ENDS, tcp_syn(*ENDS, 80), proto=TCP), IP_GOOD | L4_GOOD),
        (lambda: ip4(*ENDS, udp(*ENDS, b"right"), checksum=1), IP_BAD | L4_GOOD),
        (lambda: ip4(*ENDS, tcp_syn(*ENDS, 80)[:-4] + b"\0\1\2\3", proto=TCP), IP_GOOD | L4_BAD),
        # Errors in UDP say nothing: the card shows one where there is no checksum at all (specification update).
        (lambda: ip4(*ENDS, udp(*ENDS, b"right")[:6] + bytes(2) + b"right"), IP_GOOD),
        (lambda: ip4(*ENDS, b"what", proto=99), IP_GOOD),
    ],
    ids=["udp", "tcp", "bad header", "bad tcp", "udp without", "other"],
)
def test_what_the_card_finds_of_checksums_comes_with_the_packet(
    content: Callable[[], bytes], flags: int
) -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        rig.deliver(MAC + bytes(6) + b"\x08\x00" + content().ljust(46, b"\0"))
        rig.step()
        frames = ffi.new("struct frame[]", 1)
        assert lib.queue_rx_burst(rig.queues[0], frames, 1) == 1
        assert frames[0].flags == flags
        lib.frame_pool_put(rig.pools[0], rig.umem.c, frames[0].addr)
        rig.close()


def test_short_packets_are_padded_by_the_card() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        short = [numbered(1, 60)[:n] for n in (1, 16, 17, 42, 59)]
        assert rig.send(0, *short) == 5
        rig.step()
        assert rig.collect() == [data.ljust(60, b"\0") for data in short]
        rig.close()


@pytest.mark.parametrize("mtu", [1500, 4000, 9000, 9578])
def test_jumbos_arrive_and_leave_whole_and_longer_ones_are_counted(mtu: int) -> None:
    with EmulatedPort(1, frame_bytes=16384) as rig:
        rig.port.set_mtu(mtu)
        rig.refill()
        whole = [numbered(i, length) for i, length in enumerate((60, mtu, mtu + 13, mtu + 14))]
        long = [numbered(9, mtu + 23), numbered(10, min(mtu + 500, 15000))]
        for _ in range(40):  # most of a ring
            rig.deliver(long[0], *whole, long[1])
            rig.step(2)
            assert rig.receive() == whole
            assert rig.send(0, *whole) == 4
            rig.step(2)
            assert rig.collect() == whole
            rig.refill()
        rig.settle(oversize=80)


@pytest.mark.parametrize(
    ("tags", "longest"),
    [("81000007", 1518), ("88a80007", 1518), ("8100000781000008", 1522), ("88a8000781000008", 1522)],
    ids=["802.1Q", "802.1ad", "802.1Q in 802.1Q", "802.1Q in 802.1ad"],
)
def test_tags_come_on_top_of_the_mtu(tags: str, longest: int) -> None:
    """And a little more: the card knows no tag but an outer one of 802.1Q."""

    def tagged(length: int) -> bytes:
        plain = numbered(1, length - len(tags) // 2)
        return plain[:12] + bytes.fromhex(tags) + plain[12:]

    with EmulatedPort(1) as rig:
        rig.refill()
        rig.deliver(tagged(longest), tagged(1527))
        rig.step()
        assert rig.receive() == [tagged(longest)]
        rig.settle(oversize=1)


def test_an_mtu_that_no_frame_holds_is_refused_and_the_old_one_stays() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()
        with pytest.raises(PortError, match=r"9000 is not from 68 to 3050; memory\.frame_bytes says"):
            rig.port.set_mtu(9000)
        assert rig.port.mtu == 1500
        rig.deliver(numbered(1, 1514), numbered(2, 1523))
        rig.step()
        assert rig.receive() == [numbered(1, 1514)]
        rig.settle(oversize=1)


def test_a_packet_of_more_buffers_than_a_frame_holds_is_counted_and_costs_no_frame() -> None:
    """MAXFRS never lets one come; a card that let it pass would use two descriptors for it."""
    with EmulatedPort(1) as rig:
        rig.refill()
        rig.card.registers.put("MAXFRS", 9728 << 16)
        rig.card.registers.change("HLREG0", set_bits=1 << 2)
        for i in range(100):
            rig.deliver(numbered(i, 5000), numbered(i))
            rig.step(2)
            assert rig.receive() == [numbered(i)]
            rig.refill()
        assert rig.settle()["rx_bad"] == 100


def test_filters_take_what_they_should_and_the_rest_is_counted_by_the_mac_alone() -> None:
    with EmulatedPort(1) as rig:
        rig.refill()

        def taken(*to: bytes) -> list[bytes]:
            rig.deliver(*[numbered(i, to=address) for i, address in enumerate(to)])
            rig.step()
            (packets,) = rig.receive_all()
            return [data[:6] for data in packets]

        broadcast = b"\xff" * 6
        everybody = (MAC, OTHER, GROUP, broadcast)
        assert taken(*everybody) == [MAC, GROUP, broadcast]
        rig.port.set_promiscuous(True)
        assert taken(*everybody) == list(everybody)
        rig.port.set_promiscuous(False)
        assert taken(*everybody) == [MAC, GROUP, broadcast]
        rig.port.set_mac(OTHER)
        assert taken(*everybody) == [OTHER, GROUP, broadcast]
        stats = rig.settle(filtered=3)
        assert (stats["rx_multicast"], stats["rx_broadcast"]) == (4, 4)


def test_sizes_are_counted_in_their_bins_both_ways() -> None:
    lengths = (60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020, 1514)
    with EmulatedPort(1) as rig:
        rig.refill()
        packets = [numbered(i, length) for i, length in enumerate(lengths)]
        rig.deliver(*packets)
        rig.send(0, *packets, numbered(1, to=GROUP), numbered(2, to=b"\xff" * 6))
        rig.step()
        rig.receive()
        rig.collect()
        stats = rig.settle()
        bins = ("64", "65_127", "128_255", "256_511", "512_1023", "1024_max")
        assert [stats[f"rx_size_{name}"] for name in bins] == [1, 2, 2, 2, 2, 2]
        assert [stats[f"tx_size_{name}"] for name in bins] == [1, 4, 2, 2, 2, 2]
        assert (stats["tx_multicast"], stats["tx_broadcast"]) == (1, 1)


def test_bytes_beyond_32_bits_are_counted() -> None:
    """The card's count has 36 bits; a driver that read the low 32 alone would be 4 GiB short."""
    with EmulatedPort(1, frame_bytes=16384, sleeps=True) as rig:
        rig.port.set_mtu(9578)
        jumbo = numbered(1, 9592)
        for _ in range(8):
            assert lib.wire_memory_put(rig.wire, jumbo, len(jumbo)) == 1
        lib.wire_memory_repeat(rig.wire, 32)  # again and again, without anybody who receives
        rig.engine.start()
        wait_until(lambda: int(rig.wire.rx_bytes) > 5 << 30, 60, "5 GiB came")
        lib.wire_memory_repeat(rig.wire, 0)
        rig.engine.stop()
        total = int(rig.wire.rx_packets) * (len(jumbo) + 4)
        stats = rig.port.stats()
        assert stats["rx_total_bytes"] == stats["rx_bytes_mac"] == total
        rig.close()


def test_statistics_are_since_the_last_reset_of_them_and_outlive_the_port() -> None:
    with EmulatedPort(2) as rig:
        rig.refill()
        rig.deliver(numbered(1), numbered(2))
        rig.step()
        rig.receive_all()
        rig.port.reset_stats()
        assert not any(rig.port.stats().values())
        rig.deliver(numbered(3, 100))
        rig.step()
        rig.receive_all()
        stats = rig.port.stats()
        assert (stats["rx_packets_mac"], stats["rx_bytes_mac"]) == (1, 104)
        rig.close()
        assert rig.port.stats() == stats


def test_memory_that_is_taken_away_is_a_fault_of_the_card_and_a_reset_mends_the_port() -> None:
    with EmulatedPort(2) as rig:
        rig.refill()
        rig.deliver(numbered(1), numbered(2))
        rig.step()
        assert sorted(rig.receive_any()) == [numbered(1), numbered(2)]
        assert isinstance(rig.transport, InProcess)
        lent = [(mapping.base, memory) for memory, mapping, _ in rig.transport._mapped.values()]
        for base, memory in lent:
            rig.card.dma_unmap(base, memory.bytes)
        rig.deliver(numbered(3))
        rig.step()
        faults = rig.card.counters()["dma_faults"]
        assert faults > 0
        assert rig.receive_any() == []
        for base, memory in lent:
            rig.card.dma_map(base, memory.bytes, memory.fd, 0, True, True)
        rig.port.reset(workers_run=False)
        rig.receive_all()
        rig.refill()
        rig.deliver(numbered(4))
        rig.step()
        assert rig.receive_any() == [numbered(4)]
        assert rig.card.counters()["dma_faults"] == faults
