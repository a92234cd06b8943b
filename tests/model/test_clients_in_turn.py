"""Clients come and go with their queues running, and leave nothing behind: no descriptor, mapping, thread, memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from ixroute.driver.ixgbe.port import IxgbePort
from ixroute.driver.port import PortOptions
from ixroute.driver.umem import Umem
from ixroute.driver.vfio_user import VfioUserTransport
from ixroute.emulator.card import Card
from ixroute.emulator.engine import Engine
from ixroute.vfio_user import protocol as p
from ixroute.vfio_user.server import Server
from lab.packets import ethernet

from ixroute._dataplane import ffi, lib  # isort: skip

WARM, CLIENTS = 10, int(os.environ.get("IXROUTE_CLIENTS", "30"))
PORT_EVERY = 5
GROWTH_BYTES = 8 << 20


def state() -> tuple[int, int, int]:
    """Open descriptors, mappings of shared memory and files, threads."""
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:" in line]
    return len(os.listdir("/proc/self/fd")), len(maps), len(os.listdir("/proc/self/task"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def a_port(path: str) -> None:
    """Our driver, with packets under way both ways, closed in good order."""
    options = PortOptions(rx_slots=64, tx_slots=64)
    with contextlib.closing(Umem(512, 4096, "off")) as umem:
        pool = umem.pool(512)
        port = IxgbePort("p", 0, "vfio-user:x", umem, 1, options, VfioUserTransport(path))
        queue = port.queues()[0]
        lib.queue_refill(queue, pool)
        frame = ffi.new("struct frame *")
        at = ffi.new("uint64_t[1]")
        assert lib.frame_pool_get(pool, at, 1) == 1
        frame.addr, frame.len = at[0] + 256, 60
        assert lib.queue_tx_burst(queue, frame, 1) == 1
        lib.queue_tx_doorbell(queue)
        port.close([pool])
        assert int(pool.n) == int(pool.capacity)


def a_client_that_vanishes(path: str, n: int) -> None:
    """Memory, interrupts and 16 queues running, some with far too long tails; half a message at the end."""
    transport = VfioUserTransport(path)
    bar = transport.map_bar(0)
    fd = os.memfd_create("client", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if n % 2 else 0))
    os.ftruncate(fd, 1 << 20)
    transport._link.call(p.DMA_MAP, p.DmaMap(1 << 32, 1 << 20).pack(), [fd])
    transport.irq.start(1 + n % 64)
    bar.write32(0x4A80, 1)
    for q in range(16):
        for offset, value in ((4, 1), (8, 4096), (0x28, 1 << 25), (0x18, 255 if n % 3 else 4096)):
            bar.write32(0x6000 + 0x40 * q + offset, value)
    if n % 2 == 0:
        os.ftruncate(fd, 0)
    os.close(fd)
    client = transport._link.client.socket
    client.send(p.message(1, p.REGION_WRITE, bytes(20))[: n % 30])
    os.close(os.dup(client.fileno()))
    client.shutdown(2)
    transport.close()


@pytest.mark.timeout(600)
def test_hundreds_of_clients_leave_nothing_behind(tmp_path: Path) -> None:
    path = f"{tmp_path}/card"
    engine = Engine()
    wire = lib.wire_memory_create(1 << 18, -1)
    card = Card(lambda image: engine.card(image.memory))
    card.engine.plug(wire)
    card.set_carrier(True)
    server = Server(path, card)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    engine.start()
    over = threading.Event()

    def packets() -> None:
        packet = ethernet("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", 0x88B5, bytes(50))
        while not over.wait(0.001):
            lib.wire_memory_put(wire, packet, len(packet))

    feeder = threading.Thread(target=packets)
    feeder.start()
    try:
        before = (0, 0, 0)
        memory = 0
        for n in range(WARM + CLIENTS):
            if n == WARM:
                before, memory = settled(server), resident()
            if n % PORT_EVERY:
                a_client_that_vanishes(path, n)
            else:
                a_port(path)
        assert settled(server) == before
        grown = resident() - memory
        assert grown < GROWTH_BYTES, f"{grown} bytes more after {CLIENTS} clients"
        assert engine.running
        assert server.counters.clients == WARM + CLIENTS
    finally:
        over.set()
        feeder.join()
        server.stop()
        thread.join()
        server.close()
        card.close()
        lib.wire_memory_destroy(wire)
        engine.close()


def settled(server: Server) -> tuple[int, int, int]:
    limit = time.monotonic() + 10
    while server.connected:
        assert time.monotonic() < limit
        time.sleep(0.01)
    return state()
