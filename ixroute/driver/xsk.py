"""An AF_XDP socket: one queue of one interface. Opens, maps and binds what driver/xsk.c then moves packets
through.

linux/if_xdp.h; kernel net/xdp/xsk.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ixroute._dataplane import ffi, lib
from ixroute.driver.umem import Umem

T = TypeVar("T")

AF_XDP = 44
SOL_XDP = 283
SO_SNDBUFFORCE = 32

# Socket options.
XDP_MMAP_OFFSETS = 1
XDP_RX_RING = 2
XDP_TX_RING = 3
XDP_UMEM_REG = 4
XDP_UMEM_FILL_RING = 5
XDP_UMEM_COMPLETION_RING = 6
XDP_STATISTICS = 7
XDP_OPTIONS = 8
XDP_MAX_TX_SKB_BUDGET = 9

# Bind flags.
XDP_SHARED_UMEM = 1 << 0
XDP_COPY = 1 << 1
XDP_ZEROCOPY = 1 << 2
XDP_USE_NEED_WAKEUP = 1 << 3

# Which ring (the C side's number): its size option, where it is mapped, bytes of an entry.
_RINGS = {
    lib.XSK_RX: (XDP_RX_RING, 0, 16),
    lib.XSK_TX: (XDP_TX_RING, 0x80000000, 16),
    lib.XSK_FILL: (XDP_UMEM_FILL_RING, 0x100000000, 8),
    lib.XSK_COMPLETION: (XDP_UMEM_COMPLETION_RING, 0x180000000, 8),
}
_TX_BUDGET = 256
_BUSY_SECONDS = 2.0

STATISTICS = (
    "rx_dropped",
    "rx_invalid_descs",
    "tx_invalid",
    "rx_ring_full",
    "rx_fill_ring_empty",
    "tx_ring_empty",
)
"""In the order of struct xdp_statistics."""

_libc = ctypes.CDLL(None, use_errno=True)


def retry_busy(call: Callable[[], T], busy: frozenset[int] = frozenset({errno.EBUSY})) -> T:
    """Repeats what fails with an errno of `busy`, for two seconds: the kernel takes down what a socket had a
    little after the socket is closed, also when its process was killed (xp_release_deferred)."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return call()
        except OSError as e:
            if e.errno not in busy or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


class XskSocket:
    """Bound when constructed; OSError says why not.

    umem is registered by the first socket and shared by the others, whichever port they belong to; but the
    kernel forbids sharing between sockets that copy and sockets that do not, so there may be one registration
    of each. Any bound socket can be shared with, and the registration lives as long as one of them: the order
    of closing is free.
    """

    def __init__(
        self,
        umem: Umem,
        ifindex: int,
        number: int,
        *,
        port: int,
        rx_slots: int,
        tx_slots: int,
        zero_copy: bool,
    ) -> None:
        """tx_slots 0: the queue only receives."""
        self._umem = umem
        self._statistics = dict.fromkeys(STATISTICS, 0)
        others = [other for other in umem.sockets if other.zero_copy == zero_copy]
        flags = (XDP_ZEROCOPY if zero_copy else XDP_COPY) | XDP_USE_NEED_WAKEUP
        with contextlib.ExitStack() as undo:
            self.socket = socket.socket(AF_XDP, socket.SOCK_RAW)
            undo.callback(self.socket.close)
            self.queue = lib.xsk_queue_create(umem.c, self.socket.fileno(), port, number)
            if self.queue == ffi.NULL:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            on_failure = undo.enter_context(contextlib.ExitStack())
            on_failure.callback(lib.xsk_queue_destroy, self.queue)
            if not others:
                self._register()
            # The kernel wants both of umem's rings even of a socket that only receives (xsk_bind).
            slots = {lib.XSK_RX: rx_slots, lib.XSK_FILL: rx_slots, lib.XSK_COMPLETION: tx_slots or rx_slots}
            if tx_slots:
                slots[lib.XSK_TX] = tx_slots
            self._map_rings(undo, slots)
            self._set_limits(umem.frame_bytes, tx_slots)
            share = others[0].socket.fileno() if others else None
            retry_busy(lambda: self._bind(ifindex, number, flags, share))
            self.zero_copy = bool(self._option(XDP_OPTIONS, 4)[0] & 1)
            umem.sockets.append(self)
            undo.callback(umem.sockets.remove, self)
            on_failure.pop_all()
            self._undo = undo.pop_all()

    def _register(self) -> None:
        """struct xdp_umem_reg: addr, len, chunk_size, headroom, flags."""
        umem = self._umem
        length = umem.n_frames * umem.frame_bytes
        self.socket.setsockopt(
            SOL_XDP, XDP_UMEM_REG, struct.pack("=QQIIII", umem.address, length, umem.frame_bytes, 0, 0, 0)
        )

    def _map_rings(self, undo: contextlib.ExitStack, slots: dict[int, int]) -> None:
        for which, n in slots.items():
            self.socket.setsockopt(SOL_XDP, _RINGS[which][0], n)
        offsets = struct.unpack("=16Q", self._option(XDP_MMAP_OFFSETS, 128))
        for which, n in slots.items():
            _, at, entry = _RINGS[which]
            row = offsets[which * 4 : which * 4 + 4]
            area = mmap.mmap(
                self.socket.fileno(),
                row[2] + n * entry,
                flags=mmap.MAP_SHARED | mmap.MAP_POPULATE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
                offset=at,
            )
            undo.callback(area.close)
            view = ffi.from_buffer("uint8_t[]", area, require_writable=True)
            undo.callback(ffi.release, view)
            if lib.xsk_queue_set_ring(self.queue, which, view, list(row), n):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def _set_limits(self, frame_bytes: int, tx_slots: int) -> None:
        """So that one call sends a burst, and packets under way never exceed the socket's send buffer: in
        copy mode each is a buffer of the kernel's, charged to it."""
        room = tx_slots * (frame_bytes + 1024)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, room)
        except PermissionError:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        with contextlib.suppress(OSError):  # kernels without it send 32 at a time
            self.socket.setsockopt(SOL_XDP, XDP_MAX_TX_SKB_BUDGET, _TX_BUDGET)
            lib.xsk_queue_set_budget(self.queue, _TX_BUDGET)

    def _bind(self, ifindex: int, number: int, flags: int, share: int | None) -> None:
        """struct sockaddr_xdp: family, flags, ifindex, queue_id, shared_umem_fd. A sharing socket has the
        mode of the one it shares with and may not name one."""
        if share is not None:
            flags = XDP_SHARED_UMEM
        address = struct.pack("=HHIII", AF_XDP, flags, ifindex, number, share or 0)
        if _libc.bind(self.socket.fileno(), address, len(address)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _option(self, option: int, length: int) -> bytes:
        return self.socket.getsockopt(SOL_XDP, option, length)

    def statistics(self) -> dict[str, int]:
        """XDP_STATISTICS; the last known ones when closed."""
        if self.socket.fileno() >= 0:
            answer = self._option(XDP_STATISTICS, 48)
            words = struct.unpack(f"={len(answer) // 8}Q", answer)
            self._statistics.update(zip(STATISTICS, words, strict=False))
        return self._statistics

    def close(self, pool: Any = None) -> None:
        """The worker must have left the queue; its frames go back to `pool`, the worker's, if given.
        Idempotent."""
        if self.socket.fileno() < 0:
            return
        self.statistics()
        self._undo.close()  # the mappings too: each holds a descriptor of the socket
        if pool is not None:
            lib.xsk_queue_recover(self.queue, pool)
        lib.xsk_queue_destroy(self.queue)
