"""An HTTP server on uvicorn for a port that unauthenticated sources can reach, too."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from observability.connections import Unauthenticated

HEAD_SECONDS = 5.0  # time limit for the head of a request
REQUEST_SECONDS = 30.0  # time limit for its body


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a time limit for reading each request and a limit on unauthenticated connections.

    Use it as `uvicorn.Config(http=GuardedProtocol)`. The application calls `authenticated` for each request that
    carries a valid key."""

    unauthenticated: "Unauthenticated[GuardedProtocol]" = Unauthenticated()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._cut)
        oldest = self.unauthenticated.add(self, self.client[0] if self.client else "")
        if oldest is not None:
            oldest._cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self.unauthenticated.remove(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["causeway.connection"] = self  # type: ignore[typeddict-unknown-key]
        self._allow(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        self._allow(REQUEST_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._deadline.cancel()  # from now on uvicorn's limit for idle connections applies
        super().on_message_complete()

    def _allow(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        self.transport.abort()


def authenticated(scope: Any) -> None:
    """Stop counting the connection of this request as unauthenticated."""
    connection = scope.get("causeway.connection")
    if connection is not None:
        connection.unauthenticated.remove(connection)
