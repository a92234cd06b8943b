"""As many packets a second as one core can send: sendmmsg(2) on a packet socket, without the GIL."""

from __future__ import annotations

import ctypes
import socket
import threading
import time
from collections.abc import Sequence

from ixroute.demo.netns import Namespace

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20  # <linux/if_packet.h>
AT_ONCE = 256  # messages in a call


class IoVector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """struct mmsghdr, whose first part is struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.c_void_p),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


class Generator:
    """Sends `frames` round and round by `interface` until stopped; `sent` counts what the device took."""

    def __init__(self, namespace: Namespace, frames: Sequence[bytes], interface: str = "eth0") -> None:
        self.sent = 0
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        self._socket.bind((interface, 0))
        rounds = [frames[i % len(frames)] for i in range(max(AT_ONCE, len(frames)))]
        self._buffers = [ctypes.create_string_buffer(frame, len(frame)) for frame in rounds]
        self._vectors = (IoVector * len(rounds))()
        self._messages = (Message * len(rounds))()
        for buffer, vector, message in zip(self._buffers, self._vectors, self._messages, strict=True):
            vector.base, vector.length = ctypes.addressof(buffer), len(buffer)
            message.vector, message.vectors = ctypes.addressof(vector), 1
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generator")

    def __enter__(self) -> Generator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def run(self, seconds: float) -> float:
        """Sends for `seconds`; returns how many packets a second the device took."""
        began = time.monotonic()
        with self:
            self._ended.wait(seconds)
        return self.sent / (time.monotonic() - began)

    def _run(self) -> None:
        send = ctypes.CDLL(None, use_errno=True).sendmmsg
        descriptor, at, total = self._socket.fileno(), 0, len(self._messages)
        while not self._ended.is_set():
            n = min(AT_ONCE, total - at)
            done = send(descriptor, ctypes.byref(self._messages[at]), n, socket.MSG_DONTWAIT)
            if done > 0:
                self.sent += done
                at = (at + done) % total
