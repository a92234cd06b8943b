"""A thread that lives in one C call: the door, and each worker."""

from __future__ import annotations

import abc
import signal
import threading
from collections.abc import Callable


class CLoop(abc.ABC):
    """Base of what runs such a thread. `_end` makes the C call return; it may be called from any thread."""

    _thread: threading.Thread | None = None

    def _begin(self, name: str, call: Callable[[], object]) -> None:
        """Runs `call` in a thread of its own, which `top` shows as `name`."""

        def run() -> None:
            _settle(name)
            call()

        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    @abc.abstractmethod
    def _end(self) -> None: ...

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout: float = 2.0) -> bool:
        """Asks it to end, waits at most `timeout` seconds. True when the thread has ended (or never ran)."""
        if self._thread is None:
            return True
        self._end()
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._thread = None
        return True


def _settle(name: str) -> None:
    """A name for `top`, and no signals (they are the main thread's)."""
    # But for what is this thread's own doing: memory that another process lent and took back (vfio_user/lent.h).
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGBUS})
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
            comm.write(name[:15])
    except OSError:
        pass  # A sandbox without /proc: the name is a convenience.
