"""BAR 0 as memory: one word a register at its canonical offset, in a memfd that the packet engine and, when the card
offers it, the client map too. Whoever writes a word stores all 32 bits at once."""

from __future__ import annotations

import fcntl
import mmap
import os

from ixroute.emulator.registers import BAR_BYTES


class BarImage:
    def __init__(self, name: str = "bar0") -> None:
        self.fd = os.memfd_create(f"ixroute-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, BAR_BYTES)
            # A client gets the descriptor: it must not be able to take the memory away from under the engine.
            fcntl.fcntl(
                self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            )
            self.memory = mmap.mmap(self.fd, BAR_BYTES)
        except OSError:
            os.close(self.fd)
            raise
        self._words = memoryview(self.memory).cast("I")

    def load(self, offset: int) -> int:
        return self._words[offset >> 2]

    def store(self, offset: int, value: int) -> None:
        self._words[offset >> 2] = value

    def close(self) -> None:
        """After the engine has let go of it."""
        if not self.memory.closed:
            self._words.release()
            self.memory.close()
            os.close(self.fd)
