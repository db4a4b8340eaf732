"""The messages of ASGI that a server exchanges with an application."""

import asyncio
from typing import Any

PART = b"x" * 64


async def swallow(message: Any) -> None:
    pass


async def body_of(receive: Any) -> bytes:
    """Reads as Django's ASGI handler does."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


def sent(*messages: dict[str, Any]) -> Any:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()  # the client waits for its answer
        return left.pop(0)

    return receive


def parts(number: int) -> list[dict[str, Any]]:
    return [{"type": "http.request", "body": PART, "more_body": index < number - 1} for index in range(number)]
