"""Web entry: `uvicorn --no-proxy-headers relaymgr.asgi:application`.

Without the option uvicorn believes X-Forwarded-For from loopback, whatever CAUSEWAY_TRUSTED_PROXIES says.
"""

import asyncio
import os
import sys
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpRequest, HttpResponseBase

from observability import tracing
from observability.exposition import share_between_processes
from relaymgr.checks import reasons_not_to_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")
share_between_processes()


class Handler(ASGIHandler):
    """All of Django in one thread for a request, from the first middleware to the last: our views are synchronous, and
    left to itself Django would change threads for each middleware that could be either.

    So many requests at once as the pool has connections, which one that waits for its turn does not hold, nor one whose
    client is slow to send or to read: a burst waits here, and not for a connection until it fails."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = asyncio.Semaphore(settings.DATABASE_POOL)

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        async with self._turns:
            return await sync_to_async(self._respond, thread_sensitive=True)(request)

    def _respond(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self.get_response(request)
        finally:
            connections.close_all()  # given back to the pool


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
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return application


django.setup(set_prefix=False)
application = checked(bounded(Handler()))
tracing.start("causeway-web")
