"""Tries from here whether the WebSockets of nodes carry packets: TCP, TLS, and a PROBE that the node answers."""

import asyncio
import os
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.packets import MAX_DATAGRAM, PacketType, Probe, decode_probe_reply

OPEN_TIMEOUT_S, REPLY_TIMEOUT_S = 5.0, 3.0
MAX_SOCKETS = 50


@dataclass(frozen=True)
class Answer:
    """`error`: why the node cannot be reached; empty: it answered. `expires_at`: of the certificate, in seconds since
    1970; None: without TLS."""

    error: str = ""
    rtt_ms: float = 0.0
    expires_at: float | None = None


async def try_all(urls: Iterable[str], context: ssl.SSLContext | None = None) -> dict[str, Answer]:
    """The answer at each URL. `context`: None for the certificate authorities of the system."""
    slots, wanted = asyncio.Semaphore(MAX_SOCKETS), list(dict.fromkeys(urls))

    async def try_one(url: str) -> Answer:
        async with slots:
            try:
                return await _try(url, context)
            except (OSError, TimeoutError, WebSocketException, ValueError) as error:
                return Answer(" ".join(str(error).split())[:200] or type(error).__name__)

    return dict(zip(wanted, await asyncio.gather(*map(try_one, wanted)), strict=True))


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """A node must not choose what else is asked from here."""
        return exc


async def _try(url: str, context: ssl.SSLContext | None) -> Answer:
    options = {"ssl": context} if context and url.startswith("wss:") else {}
    opening = _Connect(
        url,
        compression=None,
        max_size=MAX_DATAGRAM,
        open_timeout=OPEN_TIMEOUT_S,
        close_timeout=1.0,
        proxy=None,
        **options,  # type: ignore[arg-type]
    )
    async with opening as websocket:
        tls = websocket.transport.get_extra_info("ssl_object")
        nonce, sent_at = os.urandom(16), time.monotonic()
        await websocket.send(Probe(nonce).encode())
        data = await asyncio.wait_for(websocket.recv(), REPLY_TIMEOUT_S)
        rtt_ms = 1000 * (time.monotonic() - sent_at)
    if not _answers(data, nonce):
        return Answer("the answer is not that of a relay node")
    return Answer("", rtt_ms, ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]) if tls else None)


def _answers(data: bytes | str, nonce: bytes) -> bool:
    try:
        return (
            isinstance(data, bytes)
            and data[:1] == bytes([PacketType.PROBE_REPLY])
            and decode_probe_reply(data).nonce == nonce
        )
    except DecodeError:
        return False
