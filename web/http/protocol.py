"""uvicorn's HTTP protocol with the limits that it lacks: `uvicorn --http web.http.protocol:BoundedProtocol`.

A connection has a deadline for the headers of each request and for reading the response, the size of headers is
limited, and so is the number of connections of one address. Connections of trusted proxies do not count: a proxy has to
limit those of its clients (docs/deployment.md).
"""

import asyncio
import socket
import struct
from collections import Counter
from typing import Any

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from configuration.ip_addresses import parse_address
from web import metrics
from web.http.client_address import is_trusted, network_of

MAX_HEADER_BYTES = 65_536  # of one request

_connections: Counter[str] = Counter()  # by network, in this process


class BoundedProtocol(HttpToolsProtocol):
    _network: str | None = None
    _head_deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        address = parse_address(self.client[0]) if self.client else None
        if address is not None and not is_trusted(address):
            self._network = network_of(address)
            _connections[self._network] += 1
            if _connections[self._network] > settings.CONNECTIONS_PER_ADDRESS:
                self._abort("connections")
                return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        for deadline in (self._head_deadline, self._write_deadline):
            if deadline:
                deadline.cancel()
        if self._network is not None:
            _connections[self._network] -= 1
            if not _connections[self._network]:
                del _connections[self._network]
            self._network = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        is_head = self._is_between_requests()
        super().data_received(data)
        if is_head and self._is_between_requests():  # the headers are not complete
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEADER_BYTES:
                self._abort("headers")
            elif self._head_deadline is None:
                self._await_headers()

    def on_headers_complete(self) -> None:
        if self._head_deadline:
            self._head_deadline.cancel()
            self._head_deadline = None
        self._head_bytes = 0
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_read()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_read()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_read()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline and not self.transport.is_closing():
            self._write_deadline.cancel()
            self._write_deadline = None

    def _is_between_requests(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _await_headers(self) -> None:
        self._head_deadline = self.loop.call_later(settings.CLIENT_TIMEOUT, self._abort, "headers")

    def _await_read(self) -> None:
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(settings.CLIENT_TIMEOUT, self._abort, "reading")

    def _abort(self, reason: str) -> None:
        metrics.connections_closed.labels(reason).inc()
        # Without lingering, because the kernel would keep the data that a client does not read.
        if connection := self.transport.get_extra_info("socket"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
