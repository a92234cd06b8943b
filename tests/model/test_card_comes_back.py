"""A card that goes and comes back under its driver: its emulator is killed, and started again at the same socket."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ixroute._dataplane import lib
from ixroute.driver.dma import DmaBuffer
from ixroute.driver.ixgbe.port import IxgbePort
from ixroute.driver.port import PortError, PortOptions
from ixroute.driver.transport import Reconnectable, TransportError
from ixroute.driver.umem import Umem
from lab.emulated import Emulated, emulated
from lab.support import wait_until

RAL0, IMS, IMC, EICS = 0xA200, 0x880, 0x888, 0x808


def restarted(directory: Path) -> Emulated:
    cards = Emulated(directory, ["discard"])
    cards.wait_ready()
    return cards


def test_what_a_transport_gave_out_is_valid_for_the_card_that_came_back(tmp_path: Path) -> None:
    with emulated(tmp_path, ["discard"]) as cards:
        transport = cards.transport()
        assert isinstance(transport, Reconnectable)
        bar = transport.map_bar(0)
        memory = DmaBuffer(4096, "auto")
        base = transport.dma_map(memory).base
        (event,) = transport.irq.start(1)
        bell = bar.bell(RAL0)
        bar.write32(RAL0, 0x11223344)
        assert transport.alive()
        cards.end(signal.SIGKILL)
        wait_until(lambda: not transport.alive(), 5, "the connection holds")
        with pytest.raises(TransportError, match="ixroute emulate"):
            transport.reconnect()
        with pytest.raises(TransportError):
            bar.read32(RAL0)
    again = restarted(tmp_path)
    try:
        transport.reconnect()
        assert transport.alive()
        assert bar.read32(RAL0) != 0x11223344, "as after power-on"
        assert transport.dma_map(memory).base == base
        assert bar.bell(RAL0) is not bell
        bar.write32(IMS, 1)
        bar.write32(EICS, 1)
        wait_until(lambda: _rang(event), 5, "the vector reaches the eventfd given out before")
        transport.close()
        memory.close()
    finally:
        assert again.end() == 0


def _rang(event: int) -> bool:
    try:
        return os.eventfd_read(event) > 0
    except BlockingIOError:
        return False


@contextlib.contextmanager
def worker(queue: Any, pool: Any) -> Iterator[None]:
    """A thread that polls as a router's does, for as long as the block runs."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            lib.queue_reclaim(queue, pool)
            lib.queue_refill(queue, pool)
            stop.wait(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def serviced(port: IxgbePort) -> bool:
    try:
        port.service()
    except PortError:
        return False
    return port.link().up


def trouble(port: IxgbePort) -> str:
    """What stands in the way at this tick."""
    try:
        port.service()
    except PortError as error:
        return str(error)
    return ""


def settings(port: IxgbePort) -> list[str]:
    return [line for line in port.dump() if line.startswith(("RAL[0]", "RAH[0]", "MAXFRS", "FCTRL", "RDLEN"))]


def test_a_port_is_down_while_its_card_is_gone_and_set_up_again_when_it_is_back(tmp_path: Path) -> None:
    umem = Umem(1024, 4096, "off")
    pool = umem.pool(1024)
    with contextlib.ExitStack() as undo:
        undo.callback(umem.close)
        options = PortOptions(rx_slots=64, tx_slots=64)
        with emulated(tmp_path, ["discard"]) as cards:
            port = IxgbePort("lan", 0, "vfio-user:x", umem, 1, options, cards.transport())
            undo.callback(port.close)
            port.set_mtu(1400)
            port.set_mac(bytes.fromhex("020000000777"))
            port.set_promiscuous(True)
            before = settings(port)
            assert len(before) == 5
            wait_until(lambda: port.link().up, 5, "no link")
            cards.end(signal.SIGKILL)
        with pytest.raises(PortError, match="gone"):
            port.link()
        with pytest.raises(PortError, match="have not let go"):  # no worker runs: nothing is touched
            port.service()
        with worker(port.queues()[0], pool):
            wait_until(lambda: "ixroute emulate" in trouble(port), 10, "the card is not asked for again")
            assert not port.link().up
            port.service()  # not asked for at every tick
            again = restarted(tmp_path)
            wait_until(lambda: serviced(port), 20, again.said)
            assert settings(port) == before
        port.close([pool])
        assert int(pool.n) == int(pool.capacity), "every frame came back"
        assert again.end() == 0
        assert "dma_faults 0" in again.said()
