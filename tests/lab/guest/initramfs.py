"""The guest's first file system: busybox, the modules in their order, init and one scenario, as a cpio archive."""

from __future__ import annotations

import gzip
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.guest.packages import Packages

HERE = Path(__file__).parent


def build(
    packages: Packages, modules: Sequence[str], settings: Mapping[str, str], scenario: bytes | None
) -> bytes:
    """modules: names from packages.MODULES; what each needs comes with it. settings: variables of init.sh."""
    files = [name for module in modules for name in packages.order[module]]
    order = list(dict.fromkeys(files))
    words = dict(settings) | {"modules": " ".join(order)}
    archive = _Cpio()
    for folder in ("bin", "dev", "modules"):
        archive.folder(folder)
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", (packages.root / "usr/bin/busybox").read_bytes(), 0o755)
    archive.file("init", (HERE / "init.sh").read_bytes(), 0o755)
    archive.file("lib.sh", (HERE / "lib.sh").read_bytes())
    archive.file("settings", "".join(f"{k}={shlex.quote(v)}\n" for k, v in words.items()).encode())
    if scenario is not None:
        archive.file("scenario", scenario)
    for name in order:
        archive.file(f"modules/{name}.ko", (packages.modules / f"{name}.ko").read_bytes())
    return gzip.compress(archive.end(), 1)


class _Cpio:
    """The "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def _entry(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._count += 1
        raw = name.encode() + b"\0"
        fields = (self._count, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        self._parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def folder(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755)

    def device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self._entry(name, stat.S_IFREG | mode, data)

    def end(self) -> bytes:
        self._entry("TRAILER!!!", 0)
        return b"".join(self._parts)
