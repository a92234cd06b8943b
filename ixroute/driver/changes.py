"""What a port changed on an interface for its own needs, and how it was before.

Kept in a file as well, so that after a kill -9 the next start knows the interface's own settings instead of
taking what the killed process left for them: its close() then puts the real ones back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from ixroute.driver.netdev import NetDevice

log = logging.getLogger(__name__)


class Changes:
    """Of one interface in the calling thread's network namespace, noted in `directory`.

    An earlier note counts only for an interface of the same index, name and MAC: namespaces' numbers are used
    again.
    """

    def __init__(self, directory: str, device: NetDevice) -> None:
        namespace = os.stat("/proc/thread-self/ns/net").st_ino
        self._path = Path(directory) / f"{namespace}-{device.ifindex}.json"
        self._identity = {"interface": device.name(), "mac": device.mac().hex(":")}
        self._before: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            noted = json.loads(self._path.read_text())
            if isinstance(noted, dict) and noted.get("identity") == self._identity:
                self._before = dict(noted["before"])
                log.info(
                    "%s: a process that was killed left it changed; noted in %s", device.name(), self._path
                )

    def note(self, key: str, now: Any) -> Any:
        """About to change `key`, which is `now`: returns what to put back at the end (JSON values)."""
        if key not in self._before:
            self._before[key] = now
            self._write()
        return self._before[key]

    def undone(self) -> None:
        """Everything is as it was before."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self) -> None:
        part = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"identity": self._identity, "before": self._before}))
            part.replace(self._path)
        except OSError as e:
            log.info("%s: cannot note changes (%s): after a kill they stay", self._path, e.strerror)
