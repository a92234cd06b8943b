"""The packet engine (card.h) as Python sees it: one thread for any number of cards.

Python owns what C borrows: the page with the sleep word, the eventfd, the thread. Calls take the engine's lock, so that
each waits for the end of a pass at most; none holds the interpreter meanwhile.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import threading
from collections.abc import Collection, Sequence
from typing import Any

from ixroute._dataplane import ffi, lib

QUEUES = int(lib.CARD_QUEUES)
VECTORS = int(lib.CARD_VECTORS)
BAR_BYTES = int(lib.CARD_BAR_BYTES)
UNMASK_WORDS = int(lib.CARD_UNMASK_WORDS)

POLL_NS = 50_000
_F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h, 5.1: mappings that are there already stay writable
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL


class EngineError(Exception):
    """One line: what the engine lacks."""


class Engine:
    """Serves its cards with one thread between start and stop; or with step, in the caller's."""

    def __init__(self, *, poll_ns: int = POLL_NS, scan: bool = False) -> None:
        """poll_ns: how long it looks for work before it sleeps. scan: clients write mapped registers of queues
        without telling; it looks at all of them every millisecond then, and never sleeps longer."""
        self.sleep_fd = os.memfd_create("ixroute-sleep", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        """One page, whose first 32-bit word is not 0 while the engine sleeps."""
        os.ftruncate(self.sleep_fd, mmap.PAGESIZE)
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Written, it wakes the engine. For clients."""
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._page = mmap.mmap(self.sleep_fd, mmap.PAGESIZE)
        # Clients get the descriptor: none may take the page away, or tell others that the engine is awake.
        fcntl.fcntl(self.sleep_fd, fcntl.F_ADD_SEALS, _SEALS)
        self._word: Any = ffi.from_buffer("uint32_t[]", self._page, require_writable=True)
        self.c: Any = lib.engine_create(self._word, self._wake_fd, self.event_fd, poll_ns, scan)
        self._thread: threading.Thread | None = None
        self._cards: list[CardEngine] = []
        if self.c == ffi.NULL:
            self.c = None
            self.close()
            raise EngineError("no memory for a packet engine")

    def card(self, registers: Any) -> CardEngine:
        """A card whose BAR 0 is `registers`: a writable buffer of BAR_BYTES that stays as long as the card."""
        return CardEngine(self, registers)

    def start(self, name: str = "engine", cores: Collection[int] = ()) -> None:
        """Runs the engine in a thread, which `top` shows as `name`, on these cores (anywhere). OSError: none of
        them may be used; it runs all the same."""
        if self._thread is not None:
            return

        def run() -> None:
            _settle(name)
            lib.engine_run(self.c)

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()
        if cores and self._thread.native_id is not None:
            os.sched_setaffinity(self._thread.native_id, cores)

    def stop(self, timeout: float = 5.0) -> bool:
        """Ends the thread; True when it has ended (or never ran) within `timeout` seconds."""
        if self._thread is None:
            return True
        lib.engine_stop(self.c)
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def step(self) -> int:
        """One pass over all cards in this thread: packets moved. Not between start and stop."""
        if self._thread is not None:
            raise EngineError("the engine's thread runs: stop it before you step")
        return int(lib.engine_step(self.c))

    def counters(self) -> dict[str, int]:
        """passes, busy_passes, sleeps, wakes_by_event."""
        return _read("struct engine_counters *", lib.engine_counters_read, self.c)

    def close(self) -> None:
        """Stops the thread, removes the cards, gives everything back."""
        if not self.stop():
            raise EngineError("the engine's thread does not end")
        for card in list(self._cards):
            card.close()
        if self.c is not None:
            lib.engine_destroy(self.c)
            self.c = None
        if self.event_fd >= 0:
            ffi.release(self._word)
            self._page.close()
            os.close(self.event_fd)
            os.close(self._wake_fd)
            os.close(self.sleep_fd)
            self.event_fd = self.sleep_fd = -1


class CardEngine:
    """One card in an engine: what the register model asks of it (packets.py). Offsets are canonical ones."""

    def __init__(self, engine: Engine, registers: Any) -> None:
        self._registers: Any = ffi.from_buffer("uint32_t[]", registers, require_writable=True)
        if ffi.sizeof(self._registers) < BAR_BYTES:
            raise EngineError(f"registers: {BAR_BYTES} bytes wanted, {ffi.sizeof(self._registers)} given")
        self.engine = engine
        self.event_fd = engine.event_fd
        self.sleep_fd = engine.sleep_fd
        self.c: Any = lib.card_create(engine.c, self._registers)
        if self.c == ffi.NULL:
            self.c = None
            raise EngineError("no memory for a card")
        self._wire: Any = None
        engine._cards.append(self)

    def plug(self, wire: Any) -> None:
        """wire: a `struct wire *` of _dataplane, or None. The former one may be destroyed afterwards."""
        lib.card_plug(self.c, ffi.NULL if wire is None else wire)
        self._wire = wire

    def set_link(self, up: bool) -> None:
        """Without a link nothing is received or sent."""
        lib.card_set_link(self.c, up)

    def reset(self) -> None:
        """Queues off, statistics and interrupts 0; mappings, vectors, link and wire stay."""
        lib.card_reset(self.c)

    def dma_map(
        self, iova: int, length: int, address: int, readable: bool = True, writable: bool = True
    ) -> None:
        """address: where the memory is in this process; it stays there until dma_unmap has returned. OSError:
        EEXIST (overlaps), ENOSPC, EINVAL (empty, or iova and address differ in their low four bits)."""
        error = lib.card_dma_map(self.c, iova, length, ffi.cast("uint8_t *", address), readable, writable)
        if error:
            raise OSError(-error, f"cannot map [{iova:#x}, {iova + length:#x}): {os.strerror(-error)}")

    def dma_unmap(self, iova: int, length: int) -> int:
        """How many mappings lay in the range and went. No access is under way when it returns."""
        return int(lib.card_dma_unmap(self.c, iova, length))

    def set_vectors(self, first: int, fds: Sequence[int]) -> None:
        """eventfds of vectors first…; -1: not wired. Former ones are not used any more afterwards. OSError."""
        error = lib.card_set_vectors(self.c, first, len(fds), ffi.new("int[]", list(fds)))
        if error:
            raise OSError(-error, f"vectors {first} to {first + len(fds) - 1}: a card has {VECTORS}")

    def raise_vector(self, vector: int) -> None:
        lib.card_raise_vector(self.c, vector)

    def read(self, offset: int) -> int | None:
        """A register of the engine's own (interrupts, statistics: reading clears); None: an ordinary one."""
        value = ffi.new("uint32_t *")
        return int(value[0]) if lib.card_read(self.c, offset, value) else None

    def write(self, offset: int, value: int) -> bool:
        """True: the engine's own register, and done. False: an ordinary one."""
        return bool(lib.card_write(self.c, offset, value))

    def cause(self, eicr_bits: int) -> None:
        """Causes of EICR 31:16 that do not come from packets."""
        lib.card_cause(self.c, eicr_bits)

    def queue_changed(self, is_tx: bool, queue: int) -> None:
        """After the image of RXDCTL/TXDCTL, base, length or head was changed."""
        lib.card_queue_changed(self.c, is_tx, queue)

    def filters_changed(self) -> None:
        """After the image of MAC addresses, ETQF, 5-tuples, RSSRK, RETA or MRQC was changed."""
        lib.card_filters_changed(self.c)

    def kick(self) -> None:
        """A tail was written, or anything else that may give the engine work."""
        lib.card_kick(self.c)

    def counters(self) -> dict[str, int]:
        """dma_faults, last_fault_iova, bad_descriptors, interrupts, rx_packets, tx_packets, tx_segments."""
        return _read("struct card_counters *", lib.card_counters_read, self.c)

    def close(self) -> None:
        """Takes the card out of its engine; registers, mapped memory and wire are free afterwards."""
        if self.c is None:
            return
        lib.card_destroy(self.c)
        self.c = None
        self._wire = None
        ffi.release(self._registers)
        self.engine._cards.remove(self)


def _read(kind: str, read: Any, c: Any) -> dict[str, int]:
    out = ffi.new(kind)
    read(c, out)
    return {name: int(getattr(out, name)) for name, _ in ffi.typeof(out).item.fields}


def _settle(name: str) -> None:
    """A name for `top`, and no signals: they are the main thread's."""
    # But for what is this thread's own doing: memory that another process lent and took back (vfio_user/lent.h).
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGBUS})
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
            comm.write(name[:15])
    except OSError:
        pass  # A sandbox without /proc: the name is a convenience.
