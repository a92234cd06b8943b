"""Serves the statistics to Prometheus over HTTP, for `[prometheus] listen`."""

from __future__ import annotations

import http.server
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from ixroute.errors import UserError
from ixroute.prometheus import CONTENT_TYPE, render
from ixroute.schema import Stats

MAX_CLIENTS = 8

log = logging.getLogger(__name__)


class Listener:
    """Serves `read()` at http://HOST:PORT/metrics from threads of its own, between start() and close()."""

    def __init__(self, listen: tuple[str, int], read: Callable[[], Stats]) -> None:
        self._listen = listen
        self._read = read
        self._server: http.server.ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one when 0 was asked for."""
        assert self._server is not None
        host, port, *_ = self._server.server_address
        return str(host), int(port)

    def start(self) -> None:
        """UserError when the address cannot be had."""
        try:
            self._server = _server(self._listen, self._read)
        except OSError as error:
            where = "prometheus.listen {}:{}".format(*self._listen)
            raise UserError(f"{where}: {error.strerror or error}: choose another address or port") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="prometheus", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening. May be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None


def _server(listen: tuple[str, int], read: Callable[[], Stats]) -> http.server.ThreadingHTTPServer:
    slots = threading.BoundedSemaphore(MAX_CLIENTS)

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10  # seconds a client may take over its request

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(HTTPStatus.NOT_FOUND, "the metrics are at /metrics")
                return
            body = render(read()).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            log.debug("prometheus: " + format, *args)

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        daemon_threads = True
        block_on_close = False

        def process_request(self, request: Any, client_address: Any) -> None:
            if slots.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                slots.release()

        def handle_error(self, request: object, client_address: object) -> None:
            log.debug("prometheus: a client went away", exc_info=True)

    return Server(listen, Handler)
