"""Web entry: `uvicorn --no-proxy-headers relaymgr.asgi:application`.

Without the option uvicorn believes X-Forwarded-For from loopback, whatever CAUSEWAY_TRUSTED_PROXIES says.
"""

import os
import sys
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application

from observability import tracing
from observability.exposition import share_between_processes
from relaymgr.checks import reasons_not_to_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")
share_between_processes()


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


application = checked(bounded(get_asgi_application()))
tracing.start("causeway-web")
