"""A port made of memory (driver/memport.h), for tests and benchmarks: what the wire would do, calls do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.driver.port import Link, PortError, PortOptions
from ixroute.driver.umem import Umem, max_mtu


class MemPort:
    """Implements Port. deliver() is a packet arriving on the wire, collect() one leaving by it.

    One thread may deliver and collect while each queue's worker runs.
    """

    kind = "mem"
    wire_ifindex: int | None = None
    link_fd = -1

    def __init__(
        self,
        name: str,
        index: int,
        umem: Umem,
        queues: int = 1,
        options: PortOptions | None = None,
        *,
        mac: bytes | None = None,
        mtu: int = 1500,
        device: str = "memory",
    ) -> None:
        options = options or PortOptions()
        self.name = name
        self.index = index
        self.spec = f"mem:{device}"
        self.n_queues = queues
        self.max_mtu = max_mtu(umem.frame_bytes)
        self.promiscuous = False
        self.allmulticast = False
        self._mac = mac or bytes((2, 0, 0, 0, 0, index & 255))
        self._mtu = mtu
        self._link = Link(up=True, speed_mbps=10_000, duplex="full")
        self._ports: list[Any] = []
        self._zero_stats: dict[str, int] = {}
        self.rx_slots, self.tx_slots = options.rx_slots, options.tx_slots
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            umem.hold()
            undo.callback(umem.release)
            for number in range(queues):
                self._ports.append(self._open_queue(undo, umem, number, options))
            self._undo = undo.pop_all()
        self._packet = ffi.new("uint8_t[]", umem.frame_bytes)

    def _open_queue(self, undo: contextlib.ExitStack, umem: Umem, number: int, options: PortOptions) -> Any:
        memport = lib.memport_create(umem.c, self.index, number, options.rx_slots)
        if memport == ffi.NULL:
            raise PortError(self.spec, "no memory for its rings", self.name)
        undo.callback(lib.memport_destroy, memport)
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        undo.callback(os.close, event)
        lib.memport_set_event(memport, event)
        return memport

    def deliver(self, packet: bytes, queue: int = 0) -> bool:
        """A packet arrives; False when the receive ring had no frame for it (it is lost, as on a wire)."""
        error = lib.memport_deliver(self._ports[queue], packet, len(packet))
        if error == -90:  # EMSGSIZE
            raise ValueError(f"a packet of {len(packet)} bytes does not fit a frame")
        return bool(error == 0)

    def collect(self, queue: int = 0) -> bytes | None:
        """The oldest packet that was sent and not yet collected; None when there is none."""
        length = lib.memport_collect(self._ports[queue], self._packet, len(self._packet))
        return bytes(ffi.buffer(self._packet, length)) if length else None

    @property
    def mac(self) -> bytes:
        return self._mac

    @property
    def mtu(self) -> int:
        return self._mtu

    def queues(self) -> list[Any]:
        return [lib.memport_queue(memport) for memport in self._ports]

    def link(self) -> Link:
        return self._link

    def set_link(self, up: bool) -> None:
        """The cable is plugged in or out."""
        self._link = Link(up=up, speed_mbps=10_000 if up else None, duplex="full" if up else None)

    def service(self) -> None:
        """Nothing to do by the clock."""

    def set_mtu(self, mtu: int) -> None:
        if not 68 <= mtu <= self.max_mtu:
            raise PortError(self.spec, f"MTU {mtu} is not from 68 to {self.max_mtu}", self.name)
        self._mtu = mtu

    def set_mac(self, mac: bytes) -> None:
        if len(mac) != 6 or mac[0] & 1:
            raise PortError(self.spec, f"{mac.hex(':')} is not a unicast MAC address", self.name)
        self._mac = bytes(mac)

    def set_promiscuous(self, on: bool) -> None:
        self.promiscuous = on

    def set_allmulticast(self, on: bool) -> None:
        self.allmulticast = on

    def stats(self) -> dict[str, int]:
        return {key: value - self._zero_stats.get(key, 0) for key, value in self._count().items()}

    def reset_stats(self) -> None:
        self._zero_stats = self._count()

    def _count(self) -> dict[str, int]:
        queues = self.queues()
        return {
            "rx_no_frame": sum(q.rx_no_frame for q in queues),
            "tx_kicks": sum(q.tx_kicks for q in queues),
        }

    def features(self) -> dict[str, Any]:
        return {"mode": "memory", "zero_copy": True, "need_wakeup": False, "queues": self.n_queues}

    def close(self, pools: Sequence[Any] = ()) -> None:
        """See Port; a memory queue's frames go nowhere, since umem goes with it."""
        self._undo.close()
        self._ports.clear()
