"""The control socket: how a running daemon is asked, and how it answers.

A UNIX stream socket. Each request is one line, a JSON object {"command": NAME, ...parameters}; each gets one
line back, {"ok": true, "result": ...} or {"ok": false, "error": "..."}. A connection may carry many, one
after the other. What the results look like: schema.py. The asking side: client.py.

The server is one thread with a selector and owns nothing but its sockets. Requests, clients, waiting and
what is kept for a client are bounded, so that a slow or hostile client costs itself its connection and
nobody else anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import logging
import os
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from ixroute.client import ControlError

MAX_REQUEST_BYTES = 16 << 10
MAX_CLIENTS = 32
IDLE_SECONDS = 30.0  # without a whole request, or without taking any of a reply

Params = dict[str, Any]
Handler = Callable[[Params], object]

log = logging.getLogger(__name__)


class CommandError(Exception):
    """A request that cannot be answered; its text goes to the client."""


class ControlServer:
    """Answers at `path` with `commands`, from its own thread between start() and close().

    Handlers run in that thread, one at a time, and must be short: they get the request's parameters and
    return what json can write. A CommandError's text goes to the client; any other exception is logged and
    told as an internal error."""

    def __init__(
        self,
        path: str | Path,
        commands: Mapping[str, Handler],
        *,
        mode: int = 0o660,
        group: str | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.path = str(path)
        self._commands = commands
        self._mode = mode
        self._group = group
        self._idle_seconds = idle_seconds
        self._clients: dict[socket.socket, _Client] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._inode = 0

    def start(self) -> None:
        """Binds the socket and starts answering. ControlError when another daemon answers there, or the path
        cannot be used."""
        try:
            self._listener = _bind(self.path, self._mode, self._group)
        except OSError as error:
            raise ControlError(f"control socket {self.path}: {error.strerror or error}") from error
        self._inode = os.stat(self.path).st_ino
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops answering, closes every connection and removes the socket. May be called twice, or before
        start."""
        if self._listener is None or self._thread is None:
            return
        self._stopping = True
        self._wake_write.send(b"x")
        self._thread.join(timeout=10)
        for client in list(self._clients.values()):
            self._drop(client)
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self._listener.close()
        self._listener = self._thread = None
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _run(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select(self._until_deadline()):
                try:
                    self._serve(key.fileobj, events)
                except Exception:  # one client's trouble must not end the thread
                    log.exception("control socket: unexpected error")
            now = time.monotonic()
            for client in [c for c in self._clients.values() if c.deadline <= now]:
                self._drop(client)

    def _until_deadline(self) -> float | None:
        if not self._clients:
            return None
        return max(0.0, min(c.deadline for c in self._clients.values()) - time.monotonic())

    def _serve(self, fileobj: object, events: int) -> None:
        if fileobj is self._wake_read:
            return
        if fileobj is self._listener:
            self._accept()
            return
        client = self._clients.get(cast(socket.socket, fileobj))
        if client is None:
            return
        try:
            if events & selectors.EVENT_READ:
                self._receive(client)
            self._answer(client)
        except OSError:
            self._drop(client)
            return
        if client.closing and not client.unsent:
            self._drop(client)
        else:
            self._watch(client)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:  # EMFILE and such: the listener stays readable, so do not spin on it
            log.warning("control socket: cannot accept: %s", error.strerror)
            time.sleep(0.1)
            return
        sock.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:  # whoever has been silent longest makes room
            self._drop(min(self._clients.values(), key=lambda c: c.deadline))
        client = _Client(sock, time.monotonic() + self._idle_seconds)
        self._clients[sock] = client
        self._selector.register(sock, selectors.EVENT_READ)

    def _receive(self, client: _Client) -> None:
        chunk = client.sock.recv(MAX_REQUEST_BYTES)
        if not chunk:
            client.closing = True
        client.received += chunk
        if len(client.received) > MAX_REQUEST_BYTES and b"\n" not in client.received[:MAX_REQUEST_BYTES]:
            client.received.clear()
            client.unsent += _encode(_refuse(f"request longer than {MAX_REQUEST_BYTES} bytes"))
            client.closing = True

    def _answer(self, client: _Client) -> None:
        """Sends what is left of the last reply; only then looks at the next request, so that a client that
        does not read its replies cannot pile them up."""
        while True:
            if client.unsent:
                try:
                    sent = client.sock.send(client.unsent)
                except BlockingIOError:
                    return
                del client.unsent[:sent]
                client.deadline = time.monotonic() + self._idle_seconds
                if client.unsent:
                    return
            end = client.received.find(b"\n")
            if end < 0:
                return
            line = bytes(client.received[:end])
            del client.received[: end + 1]
            client.unsent += _encode(self._reply(line))
            client.deadline = time.monotonic() + self._idle_seconds

    def _reply(self, line: bytes) -> dict[str, object]:
        try:
            params = json.loads(line)
            name = params.pop("command")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _refuse('a request is one line: {"command": "stats"}')
        handler = self._commands.get(name) if isinstance(name, str) else None
        if handler is None:
            return _refuse(f"unknown command; known: {', '.join(sorted(self._commands))}")
        try:
            return {"ok": True, "result": handler(params)}
        except CommandError as error:
            return _refuse(str(error))
        except Exception:
            log.exception("control socket: %s failed", name)
            return _refuse(f"internal error in {name}; see the daemon's log")

    def _watch(self, client: _Client) -> None:
        # While a reply waits to be taken, further requests wait in the kernel.
        self._selector.modify(client.sock, selectors.EVENT_WRITE if client.unsent else selectors.EVENT_READ)

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.sock, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.sock)
        client.sock.close()


class _Client:
    """One connection."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline
        self.received = bytearray()
        self.unsent = bytearray()
        self.closing = False


def _refuse(message: str) -> dict[str, object]:
    return {"ok": False, "error": message}


def _encode(reply: dict[str, object]) -> bytes:
    try:
        text = json.dumps(reply, separators=(",", ":"))
    except (TypeError, ValueError):
        log.exception("control socket: a result that JSON cannot hold")
        text = json.dumps(_refuse("internal error; see the daemon's log"))
    return text.encode() + b"\n"


def _bind(path: str, mode: int, group: str | None) -> socket.socket:
    """A listening socket at `path`. A socket file that nobody answers at is replaced; the directory is locked
    meanwhile, so that of two daemons that start at once only one gets the path."""
    gid = _group_id(path, group)
    directory = os.path.dirname(path) or "."
    os.makedirs(directory, mode=0o755, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_stale(path)
        listener.bind(path)
        # Between bind and listen nobody can connect, so the permissions are never wider than asked for.
        os.chown(path, -1, gid)
        os.chmod(path, mode)
        listener.listen(MAX_CLIENTS)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(lock)
    return listener


def _group_id(path: str, group: str | None) -> int:
    """-1: as it is."""
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ControlError(
            f"control socket {path}: no group {group}; make it: groupadd --system {group}"
        ) from None


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ControlError(f"{path} exists and is not a socket: remove it, or choose another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (TimeoutError, BlockingIOError):  # somebody listens, but is busy
            pass
    raise ControlError(f"another ixroute answers at {path}: stop it, or choose another path with --socket")
