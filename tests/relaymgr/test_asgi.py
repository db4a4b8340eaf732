"""What stands before Django."""

import asyncio
from typing import Any

import pytest
from django.conf import LazySettings

from relaymgr.asgi import bounded

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
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(left)

    return receive


def parts(number: int) -> list[dict[str, Any]]:
    return [{"type": "http.request", "body": PART, "more_body": index < number - 1} for index in range(number)]


@pytest.mark.parametrize(("number", "length"), [(1, 64), (2, 128), (3, 129), (50, 129)])
def test_body_is_cut_one_byte_after_the_most(number: int, length: int, settings: LazySettings) -> None:
    settings.MAX_BODY_BYTES = 128
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await body_of(receive))
        seen.append((await receive())["type"])  # whatever is left of the body is passed over

    receive = sent(*parts(number), {"type": "http.disconnect"})
    asyncio.run(bounded(app)({"type": "http"}, receive, swallow))
    assert seen == [b"x" * length, "http.disconnect"]
