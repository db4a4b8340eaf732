"""Web entry: `uvicorn --no-proxy-headers relaymgr.asgi:application`.

Without the option uvicorn believes X-Forwarded-For from loopback, whatever CAUSEWAY_TRUSTED_PROXIES says.
"""

import asyncio
import contextvars
import gc
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import django
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_started
from django.db import connections
from django.http import HttpResponseBase
from django.urls import set_script_prefix

from observability import tracing
from observability.exposition import share_between_processes
from relaymgr.checks import reasons_not_to_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")
share_between_processes()

FRAMING_HEADERS = (b"content-length", b"transfer-encoding")


class Handler(ASGIHandler):
    """All of a request in one thread, from its first signal to its last: our views are synchronous, and left to itself
    Django would start a thread for each request, and go to it and come back for each signal and middleware.

    So many threads as the pool has connections. A request that waits for its turn holds neither, nor does one whose
    client is slow to send or to read: a burst waits here, and not for a connection until it fails."""

    def __init__(self) -> None:
        super().__init__()
        self._threads = ThreadPoolExecutor(settings.DATABASE_POOL, "request")

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        response = await self._in_a_thread(self._respond, with_content_length(scope, body), body)
        if response.streaming:
            await self._stream(response, receive, send)
        else:
            await self.send_response(response, send)

    async def _in_a_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(self._threads, run, call, *arguments)

    def _respond(self, scope: Any, body: Any) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=type(self), scope=scope)
        try:
            request, refusal = self.create_request(scope, body)
            response: HttpResponseBase = refusal if request is None else self.get_response(request)  # type: ignore[assignment]
            if not response.streaming:
                response.close()  # what it holds, not what it says; and the signal that the request is over
            return response
        finally:
            body.close()
            connections.close_all()  # given back to the pool

    async def _stream(self, response: HttpResponseBase, receive: Any, send: Any) -> None:
        """Until it ends or the client has left."""
        sending = asyncio.create_task(self.send_response(response, send))
        leaving = asyncio.create_task(receive())  # the body is read: nothing else can come
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.wait((sending,))
            await self._in_a_thread(response.close)
        if not sending.cancelled():
            sending.result()  # raises what ended it


def with_content_length(scope: Any, body: IO[bytes]) -> Any:
    """The request's scope with the length of the body that was read. How a body was framed on the way is the server's
    affair: of one that came in chunks, or by HTTP/2, no header says the length, and Django and DRF take that for an
    empty one."""
    length = str(body.seek(0, os.SEEK_END)).encode()
    body.seek(0)
    headers = [(name, value) for name, value in scope["headers"] if name not in FRAMING_HEADERS]
    return {**scope, "headers": [*headers, (b"content-length", length)]}


def bounded(app: Any) -> Any:
    """Cuts a body off one byte after the most we take. Django stores a body whole, on disk, before it looks at
    anything else of the request, the key included; a view that finds one byte too many answers 413."""

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


def checked(app: Any) -> Any:
    """Answers the server's start and stop: it starts only where that is safe."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        if reasons := reasons_not_to_start("web"):
            print(*reasons, sep="\n", file=sys.stderr)
            await send({"type": "lifespan.startup.failed"})
            return
        gc.freeze()  # all that is loaded stays: a collection that looks through it holds up every request for 0.1 s
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return application


django.setup(set_prefix=False)
# Shorter than Python's 5 ms, which a request waits for at each answer of the database while another one computes.
sys.setswitchinterval(0.0005)
application = checked(bounded(Handler()))
tracing.start("causeway-web")
