"""Tries from here whether the WebSockets of nodes carry packets: TCP, TLS, and a PROBE that the node answers."""

import asyncio
import os
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass

from causeway_client.drivers.websocket_driver import exchange, open_websocket
from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.packets import PacketType, Probe, decode_probe_reply

REPLY_TIMEOUT_S = 3.0
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
            except OSError as error:
                return Answer(" ".join(str(error).split())[:200] or type(error).__name__)

    return dict(zip(wanted, await asyncio.gather(*map(try_one, wanted)), strict=True))


async def _try(url: str, context: ssl.SSLContext | None) -> Answer:
    async with await open_websocket(url, context, uses_proxy=False) as websocket:
        tls = websocket.transport.get_extra_info("ssl_object")
        nonce, sent_at = os.urandom(16), time.monotonic()
        data = await exchange(websocket, Probe(nonce).encode(), REPLY_TIMEOUT_S)
        rtt_ms = 1000 * (time.monotonic() - sent_at)
    if not _answers(data, nonce):
        return Answer("the answer is not that of a relay node")
    return Answer("", rtt_ms, ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]) if tls else None)


def _answers(data: bytes, nonce: bytes) -> bool:
    try:
        return data[:1] == bytes([PacketType.PROBE_REPLY]) and decode_probe_reply(data).nonce == nonce
    except DecodeError:
        return False
