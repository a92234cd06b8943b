"""Asking a running daemon: the other end of control.py, kept apart since the quick commands need no more."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from ixroute.errors import UserError
from ixroute.schema import MAX_PAGE


class ControlError(UserError):
    """The daemon refused, or what came back is no answer; or a server cannot have its socket."""


class NotRunningError(ControlError):
    """Nobody answers at the socket."""


def request(path: str, command: str, *, timeout: float = 5.0, **params: object) -> Any:
    """Asks the daemon at `path` and returns the result. NotRunningError when there is none; ControlError
    when it says no, or nothing for `timeout` seconds."""
    line = json.dumps({"command": command, **params}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(timeout)
        try:
            _connect(sock, path, timeout)
            sock.sendall(line)
            with sock.makefile("rb") as stream:
                answer = stream.readline()
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunningError(
                f"no ixroute answers at {path}: start it, or name its socket with -s"
            ) from error
        except PermissionError as error:
            raise ControlError(
                f"{path}: not allowed; ask as root or as a member of the socket's group"
            ) from error
        except TimeoutError as error:
            raise ControlError(f"{path}: no answer within {timeout:g} s; see the daemon's log") from error
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from error
    return _result(path, answer)


def _connect(sock: socket.socket, path: str, timeout: float) -> None:
    """A UNIX socket whose backlog is full answers EAGAIN at once, whatever the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            sock.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(0.01)


def _result(path: str, answer: bytes) -> Any:
    try:
        reply = json.loads(answer)
        if reply["ok"]:
            return reply["result"]
        message = str(reply["error"])
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError(
            f"{path}: the answer was cut off or is not ixroute's; see the daemon's log"
        ) from error
    raise ControlError(message)


def pages(path: str, command: str, what: str, limit: int | None, **params: object) -> Iterator[Any]:
    """The entries of a paged command one by one, at most `limit` (None: all), fetched page by page."""
    cursor: int | None = 0
    left = limit
    while cursor is not None and left != 0:
        size = MAX_PAGE if left is None else min(left, MAX_PAGE)
        page = request(path, command, limit=size, cursor=cursor, timeout=30.0, **params)
        yield from page[what]
        left = None if left is None else max(0, left - len(page[what]))
        cursor = page["next"]
