"""For scenarios in Python, inside the guest: each says what held (descriptor 3 is what the test reads)."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator


def _say(line: str) -> None:
    os.write(3, (" ".join(line.split()) + "\n").encode())
    print("---", line, flush=True)


def ok(name: str, held: bool = True, why: object = "") -> None:
    _say(f"ok {name}" if held else f"fail {name}: {why}")


def value(name: str, what: object) -> None:
    _say(f"value {name} {what}")


@contextlib.contextmanager
def checking(name: str) -> Iterator[None]:
    """ok when the block ends, fail with the exception when it raises; the scenario goes on."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        ok(name, False, f"{type(error).__name__}: {error}")
    else:
        ok(name)
