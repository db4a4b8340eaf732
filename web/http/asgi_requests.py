"""Requests and responses of ASGI: headers, the client's network, and bodies."""

import asyncio
import contextlib
import os
from typing import IO, Any
from weakref import WeakKeyDictionary

from django.conf import settings

from web.http.client_address import network_at

DISCARD_TIMEOUT = 2.0  # seconds
# Bodies that are discarded at the same time. More would delay the event loop, and with it all requests.
DISCARDED_MAX = 16
_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
FRAMING_HEADERS = (b"content-length", b"transfer-encoding")


def network_of_client(scope: Any) -> str:
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    return network_at((scope.get("client") or [""])[0], forwarded)


def header_value(scope: Any, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def has_body(scope: Any) -> bool:
    return bool(header_value(scope, b"transfer-encoding")) or header_value(scope, b"content-length").strip() not in (
        b"",
        b"0",
    )


async def discarded(receive: Any, send: Any) -> tuple[Any, Any]:
    """Discards the part of the body that the client sends immediately, because closing a connection with unread bytes
    may lose the response. If the body continues, or DISCARDED_MAX others are discarded all that time, the connection is
    closed after the response."""
    if (kind := await _discard(receive)) is not None:
        return _empty(kind, receive), send

    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await send(message)

    return _empty("http.request", receive), closing


def _discards() -> asyncio.Semaphore:
    loop = asyncio.get_running_loop()
    return _of_loop.setdefault(loop, asyncio.Semaphore(DISCARDED_MAX))


async def _discard(receive: Any) -> str | None:
    """The type of the last message of the body; None: the body continues."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_TIMEOUT), _discards():
            for _ in range(settings.MAX_BODY_BYTES // 1_000):
                message = await receive()
                if not message.get("more_body", False):
                    return str(message["type"])
    return None


def _empty(kind: str, receive: Any) -> Any:
    """An empty body, followed by the other messages."""
    first = [{"type": kind, "body": b"", "more_body": False}]

    async def receive_empty() -> Any:
        return first.pop() if first else await receive()

    return receive_empty


def response_start(response: Any) -> dict[str, Any]:
    headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    headers += [
        (b"Set-Cookie", cookie.output(header="").strip().encode("ascii")) for cookie in response.cookies.values()
    ]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


def announced_length(scope: Any) -> int:
    """Bytes of the body by its header; 0 without one."""
    text = header_value(scope, b"content-length").strip()
    return int(text[:20]) if text.isdigit() else 0


def with_body_length(scope: Any, body: IO[bytes]) -> Any:
    """The request's scope with the length of the body that was read, and with the full path.

    A chunked body, or one sent by HTTP/2, has no header with its length, and Django and DRF then consider it empty.
    Django expects the root path at the beginning of the path: `--root-path` adds it, our own setting does not."""
    length = str(body.seek(0, os.SEEK_END)).encode()
    body.seek(0)
    headers = [(name, value) for name, value in scope["headers"] if name not in FRAMING_HEADERS]
    root = "" if scope.get("root_path") else settings.FORCE_SCRIPT_NAME or ""
    return {**scope, "path": root + scope["path"], "headers": [*headers, (b"content-length", length)]}


def bounded(app: Any) -> Any:
    """Truncates a body one byte after the maximum. Django stores the whole body on disk before it processes the request
    or checks its key; a view that finds one byte too many responds with 413."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        left = settings.MAX_BODY_BYTES + 1

        async def receive_bounded() -> Any:
            nonlocal left
            while (message := await receive())["type"] == "http.request":
                if left:
                    body = message.get("body", b"")[:left]
                    left -= len(body)
                    return {**message, "body": body, "more_body": left > 0 and message.get("more_body", False)}
            return message

        await app(scope, receive_bounded, send)

    return application
