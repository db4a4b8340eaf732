"""What stands before Django."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.http import StreamingHttpResponse

from relaymgr.asgi import Handler
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.support.asgi import parts, sent


async def test_a_stream_ends_with_its_client() -> None:
    ended, told = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0)
        finally:
            ended.set()

    async def send(message: Any) -> None:
        if message.get("body"):
            told.set()

    async def receive() -> dict[str, Any]:
        await told.wait()
        return {"type": "http.disconnect"}

    await asyncio.wait_for(Handler()._stream(StreamingHttpResponse(endless()), receive, send), 10)
    assert ended.is_set()


async def test_more_requests_than_threads_are_all_answered(settings: LazySettings) -> None:
    settings.DATABASE_POOL = 2
    handler = Handler()
    statuses: list[int] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": "GET", "path": "/nowhere", "headers": [(b"host", b"localhost")]}
        await handler(scope, sent(*parts(1)), send)

    await asyncio.gather(*(ask() for _ in range(20)))
    assert statuses == [404] * 20


@pytest.fixture
def tenant_key(tenant: Tenant) -> str:
    return api_key_create(tenant=tenant, name="test", scopes=["relay"])[1]


@pytest.mark.django_db(transaction=True)
async def test_a_network_that_used_up_its_wrong_keys_reaches_no_view_with_another_one(
    settings: LazySettings, tenant_key: str
) -> None:
    """A valid key of the same network is served: a studio's servers and its players may share an address."""
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 2
    handler = Handler()
    seen: list[str] = []
    answered = handler._respond

    def respond(scope: Any, body: Any) -> Any:
        seen.append(scope["path"])
        return answered(scope, body)

    handler._respond = respond  # type: ignore[method-assign]

    async def ask(key: str) -> tuple[int, dict[bytes, bytes]]:
        answers: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/relays/sessions",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"authorization", key.encode())],
            "client": ("192.0.2.9", 40000),
        }
        await handler(scope, sent({"type": "http.request", "body": b"", "more_body": False}), send)
        return answers[0]["status"], dict(answers[0]["headers"])

    statuses = [(await ask(f"token wrong-{number}"))[0] for number in range(5)]
    assert statuses == [401, 401, 429, 429, 429]
    assert len(seen) == 3
    status, headers = await ask("token wrong-5")
    assert (status, 1 <= int(headers[b"Retry-After"]) <= 60) == (429, True)
    assert (await ask(f"token {tenant_key}"))[0] == 200
    assert len(seen) == 4
