"""A server that counts what it is asked and tells it at /metrics, as relaymgr.asgi does; without a database."""

from typing import Any

from observability import exposition

exposition.share_between_processes()

from prometheus_client import Counter  # noqa: E402

asked = Counter("asked", "Requests.")


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = b""
    if scope["path"] == "/metrics":
        body = exposition.render()
    else:
        asked.inc()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
