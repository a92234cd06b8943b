"""pcap files as a wire: one plays, one records."""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ixroute._dataplane import ffi, lib
from ixroute.emulator.wires import Wire, WireError, WireSpec, allocated

_log = logging.getLogger(__name__)


def load(path: Path) -> bytes:
    """A pcap file's bytes, whole and checked. WireError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WireError(
                f"{path}: no ordinary file, and all of it must fit into memory: copy it to one first"
            )
        content = path.read_bytes()
    except OSError as error:
        raise WireError(
            f"{path}: cannot be read: {error.strerror}: record one with `tcpdump -i IFACE -w {path}`"
        ) from error
    check = ffi.new("struct pcap_check *")
    lib.pcap_check(ffi.from_buffer(content), len(content), check)
    if check.fault != lib.PCAP_FINE:
        raise WireError(f"{path}: {_sentence(path, content, check)}")
    if not check.packets:
        raise WireError(f"{path}: holds no packet: record some with `tcpdump -i IFACE -w {path}`")
    if check.misfits:
        _log.warning(
            "%s: %d of %d packets are no frames that a card takes (14 to %d bytes), and will be dropped",
            *(path, check.misfits, check.packets, lib.WIRE_LONGEST),
        )
    return content


def _sentence(path: Path, content: bytes, check: Any) -> str:
    convert = f"run `editcap -F pcap {path} NEW.pcap`"
    number = int(check.packets) + 1
    match check.fault:
        case lib.PCAP_NG:
            return f"pcapng, not pcap: {convert}"
        case lib.PCAP_VERSION:
            return f"pcap version {check.value}, not 2: {convert}"
        case lib.PCAP_NOT_ETHERNET:
            return (
                f"packets of link type {check.value}, not Ethernet (1): record them on an Ethernet interface"
            )
        case lib.PCAP_WITH_FCS:
            return f"its frames carry their FCS: run `editcap -F pcap -C -4 {path} NEW.pcap`"
        case lib.PCAP_CUT:
            return (
                f"ends in packet {number} (at byte {check.offset}), {check.value} bytes short: "
                f"run `tcpdump -r {path} -w NEW.pcap`, which keeps what is whole"
            )
        case lib.PCAP_SLICED:
            return f"packet {number} lacks its last {check.value} bytes: record it again with `tcpdump -s 0`"
    if content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")):
        return "compressed: run gunzip, zstd -d or unxz on it"
    return "no pcap file"


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise WireError(
            f"{path}: cannot be written: {error.strerror}: choose another file for out="
        ) from error


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and os.path.realpath(one) == os.path.realpath(other)


class PcapWire(Wire):
    """`in` plays to the card from the moment its receiver is on, `out` gets what the card sends. Always a link."""

    def __init__(self, spec: WireSpec) -> None:
        """WireError: a file that cannot be used. MemoryError."""
        super().__init__(spec)
        options = spec.options
        if _same(options.get("in"), options.get("out")):
            raise WireError(f"wire {spec.text}: in and out are the same file: choose another for out=")
        self._content = load(Path(options["in"])) if "in" in options else None
        self._out = options.get("out")
        self._fd = self._event = -1
        self._writer: threading.Thread | None = None
        try:
            if self._out is not None:
                self._fd = _create(Path(self._out))
                self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self.c = allocated(self._make("loop" in options, int(options.get("rate", 0))))
            if self._out is not None:
                self._writer = threading.Thread(target=self._write, name="pcap writer", daemon=True)
                self._writer.start()
        except BaseException:
            self.close()
            raise

    def _make(self, loop: bool, rate: int) -> Any:
        content = ffi.NULL if self._content is None else ffi.from_buffer(self._content)
        return lib.wire_pcap_create(
            content, 0 if self._content is None else len(self._content), loop, rate, self._fd, self._event
        )

    def _write(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's
        error = lib.wire_pcap_write(self.c)
        if error:
            _log.error(
                "%s: cannot be written: %s: what the card sends is lost (tx_dropped)",
                *(self._out, os.strerror(-error)),
            )

    def carrier(self) -> bool:
        return bool(self.c != ffi.NULL)

    def hints(self) -> Sequence[str]:
        dropped = self.stats().get("rx_dropped", 0)
        return [f"{dropped} packets of the file were too short or too long for a card"] if dropped else ()

    def close(self) -> None:
        if self._writer is not None:
            lib.wire_pcap_stop(self.c)
            self._writer.join()
            self._writer = None
        if self.c != ffi.NULL:
            lib.wire_pcap_destroy(self.c)
            self.c = ffi.NULL
        for fd in (self._fd, self._event):
            if fd >= 0:
                os.close(fd)
        self._fd = self._event = -1
