"""A packet engine that moves no packets: it remembers what it was told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from ixroute.emulator.card import Card, CardOptions
from ixroute.emulator.faults import Faults
from ixroute.emulator.image import BarImage
from ixroute.emulator.registers import offset_of


class EngineTwin:
    def __init__(self, image: BarImage) -> None:
        self.image = image
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.sleep_fd = os.memfd_create("sleep", os.MFD_CLOEXEC)
        os.ftruncate(self.sleep_fd, 4096)
        self.owned: dict[int, int] = {offset_of("EICR"): 0}
        self.link = False
        self.log: list[tuple[object, ...]] = []
        self.maps: dict[int, tuple[int, int, bool, bool]] = {}
        self.vectors: list[int] = [-1] * 64
        self.refuse_maps = 0
        self.closed = False

    def plug(self, wire: object) -> None:
        self.log.append(("plug", wire))

    def take_log(self) -> list[tuple[object, ...]]:
        taken, self.log = self.log, []
        return taken

    def read(self, offset: int) -> int | None:
        if offset not in self.owned:
            return None
        value, self.owned[offset] = self.owned[offset], 0
        return value

    def write(self, offset: int, value: int) -> bool:
        if offset not in self.owned:
            return False
        self.owned[offset] &= ~value
        return True

    def cause(self, eicr_bits: int) -> None:
        self.owned[offset_of("EICR")] |= eicr_bits
        self.log.append(("cause", eicr_bits))

    def queue_changed(self, is_tx: bool, queue: int) -> None:
        self.log.append(("queue", is_tx, queue))

    def filters_changed(self) -> None:
        self.log.append(("filters",))

    def kick(self) -> None:
        self.log.append(("kick",))

    def set_link(self, up: bool) -> None:
        self.link = up
        self.log.append(("link", up))

    def reset(self) -> None:
        self.owned = {offset_of("EICR"): 0}
        self.log.append(("reset",))

    def dma_map(self, iova: int, length: int, address: int, readable: bool, writable: bool) -> None:
        if self.refuse_maps:
            raise OSError(self.refuse_maps, os.strerror(self.refuse_maps))
        self.maps[iova] = (length, address, readable, writable)

    def dma_unmap(self, iova: int, length: int) -> int:
        gone = [start for start in self.maps if iova <= start < iova + length]
        for start in gone:
            del self.maps[start]
        return len(gone)

    def set_vectors(self, first: int, fds: Sequence[int]) -> None:
        self.vectors[first : first + len(fds)] = fds

    def raise_vector(self, vector: int) -> None:
        self.log.append(("raise", vector))
        if self.vectors[vector] >= 0:
            os.eventfd_write(self.vectors[vector], 1)

    def counters(self) -> Mapping[str, int]:
        return {"dma_faults": 0}

    def close(self) -> None:
        self.closed = True
        os.close(self.event_fd)
        os.close(self.sleep_fd)


class Bench:
    """A card with a twin for its engine, and its registers by name."""

    def __init__(self, options: CardOptions | None = None, faults: Faults | None = None) -> None:
        self.made: list[EngineTwin] = []
        self.card = Card(self._attach, options, faults)
        self.engine = self.made[0]

    def _attach(self, image: BarImage) -> EngineTwin:
        self.made.append(EngineTwin(image))
        return self.made[-1]

    def read(self, name: str, index: int = 0) -> int:
        return self.peek(offset_of(name, index))

    def write(self, name: str, value: int, index: int = 0) -> None:
        self.poke(offset_of(name, index), value)

    def peek(self, offset: int) -> int:
        return int.from_bytes(self.card.read(0, offset, 4), "little")

    def poke(self, offset: int, value: int) -> None:
        self.card.write(0, offset, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def config(self, offset: int, size: int) -> int:
        return int.from_bytes(self.card.read(7, offset, size), "little")

    def set_config(self, offset: int, size: int, value: int) -> None:
        self.card.write(7, offset, value.to_bytes(size, "little"))

    def close(self) -> None:
        self.card.close()


MakeBench = Callable[..., Bench]
"""make_bench(faults, **CardOptions): closed at the test's end."""
