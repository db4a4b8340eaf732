"""Where UDP is blocked, packets to the node travel over a WebSocket, one binary message each. Needs the package
`websockets` (the extra `websocket`). Direct paths are still probed over UDP."""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from ..protocol.events import Event
from ..protocol.packets import MAX_DATAGRAM
from . import udp_sockets
from .asyncio_driver import Address, Driver, Machine

OPEN_TIMEOUT = 5.0  # seconds
REOPEN_AFTER = (0.2, 0.5, 1.0, 2.0)  # seconds after a WebSocket was lost and after each failure; the last one repeats
MAX_UNSENT = 65_536  # bytes; more are dropped, as a socket does


async def open_websocket(url: str, context: ssl.SSLContext | None) -> Any:
    """A connection of `websockets`. `context`: None for the certificate authorities of the system. Redirects are
    refused: a node must not send its players to other servers. Raises OSError."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    class Connect(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    options: dict[str, Any] = {"ssl": context} if context and url.startswith("wss:") else {}
    try:
        return await Connect(
            url,
            compression=None,
            max_size=MAX_DATAGRAM,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=1.0,
            proxy=True,
            **options,
        )
    except (WebSocketException, TimeoutError, ValueError) as error:
        raise OSError(f"WebSocket to {url}: {error}") from None


async def ask(url: str, context: ssl.SSLContext | None, request: bytes, timeout: float) -> bytes:
    """Sends one packet over a WebSocket of its own, and returns the first that comes back. Raises OSError."""
    async with await open_websocket(url, context) as websocket:
        return await exchange(websocket, request, timeout)


async def exchange(websocket: Any, request: bytes, timeout: float) -> bytes:
    """Sends one packet, and returns the first that comes back within `timeout` seconds. Raises OSError."""
    from websockets.exceptions import WebSocketException

    try:
        await websocket.send(request)
        answer = await asyncio.wait_for(websocket.recv(), timeout)
    except (WebSocketException, TimeoutError):
        raise OSError("the node did not answer over the WebSocket") from None
    return answer if isinstance(answer, bytes) else b""


def url_for(host: str | Sequence[str], port: int) -> str | None:
    """Port 443 of the first host name, and there the node's UDP port `port`; None: there are only IP literals, for
    which there is no certificate."""
    for name in [host] if isinstance(host, str) else host:
        if not udp_sockets.is_ip(name):
            return f"wss://{name}/relay/{port}"
    return None


class WebSocketDriver(Driver):
    """A Driver whose packets to the node are carried by a WebSocket to `url`. If it is lost, another one is opened; the
    machine reconnects over it."""

    def __init__(
        self,
        machine: Machine,
        on_payload: Callable[[int, bytes], None],
        on_event: Callable[[Event], None],
        url: str,
        context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(machine, on_payload, on_event, is_connected=False)
        self._url = url
        self._context = context
        self._websocket: Any = None
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises OSError if the WebSocket cannot be opened."""
        await super().open()
        await self._end()
        self._websocket = await open_websocket(self._url, self._context)
        self._serving = asyncio.create_task(self._serve(self._websocket))

    def close(self) -> None:
        super().close()
        if self._serving is not None:
            self._closing = asyncio.create_task(self._end())

    async def _serve(self, websocket: Any) -> None:
        while True:
            await self._read(websocket)
            self._websocket = websocket = await self._reopen()

    async def _reopen(self) -> Any:
        pauses = itertools.chain(REOPEN_AFTER, itertools.repeat(REOPEN_AFTER[-1]))
        while True:
            await asyncio.sleep(next(pauses))
            with contextlib.suppress(OSError):
                return await open_websocket(self._url, self._context)

    async def _read(self, websocket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            async for message in websocket:
                if isinstance(message, bytes):
                    arrived = self.machine.receive_datagram(message, self.machine.node, self.now)
                    if arrived is not None:
                        self._on_payload(*arrived)
                    self.pump()

    def _send(self, datagram: bytes, address: Address) -> None:
        if address != self.machine.node:
            super()._send(datagram, address)
        elif self._websocket is None or self._websocket.transport.get_write_buffer_size() > MAX_UNSENT:
            self.machine.dropped["socket_full"] += 1
        else:
            self._sending = asyncio.create_task(self._send_message(datagram))

    async def _send_message(self, datagram: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._websocket.send(datagram)
        except ConnectionClosed:
            self.machine.dropped["socket_error"] += 1

    async def _end(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
        websocket, self._websocket, self._serving = self._websocket, None, None
        if websocket is not None:
            await websocket.close()


def is_available() -> bool:
    """Whether the package `websockets` is installed."""
    try:
        import websockets  # noqa: F401
    except ImportError:
        return False
    return True
