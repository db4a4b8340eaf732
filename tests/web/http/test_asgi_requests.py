import asyncio
import io
from typing import Any

import pytest
from django.conf import LazySettings

from tests.support.asgi import body_of, parts, sent, swallow
from web.http import asgi_requests
from web.http.asgi_requests import announced_length, bounded, discarded, has_body, with_body_length


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


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([(b"content-length", b"0")], False),
        ([(b"content-length", b" 5")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
def test_has_body(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert has_body({"headers": headers}) is expected


@pytest.mark.parametrize(
    ("text", "length"), [(b" 5", 5), (b"", 0), (b"-1", 0), (b"1e3", 0), (b"9" * 5_000, 10**20 - 1)]
)
def test_announced_length(text: bytes, length: int) -> None:
    assert announced_length({"headers": [(b"content-length", text)]}) == length


async def test_a_bounded_number_of_bodies_is_discarded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_requests, "DISCARDED_MAX", 2)
    reading = 0

    async def never() -> Any:
        nonlocal reading
        reading += 1
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(discarded(never, swallow)) for _ in range(5)]
    while not reading:
        await asyncio.sleep(0)
    assert reading == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    receive, _ = await discarded(sent(*parts(3)), swallow)
    assert await body_of(receive) == b"", "the places are free again"


async def test_a_body_that_ends_is_discarded_and_the_connection_stays() -> None:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    receive, send_after = await discarded(sent(*parts(3), {"type": "http.disconnect"}), send)
    assert await body_of(receive) == b""
    assert (await receive())["type"] == "http.disconnect"
    await send_after({"type": "http.response.start", "status": 401, "headers": []})
    assert messages[0]["headers"] == []


async def test_the_connection_of_an_unfinished_body_is_closed_after_the_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asgi_requests, "DISCARD_TIMEOUT", 0.01)
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    receive, send_after = await discarded(sent(*parts(3)[:2]), send)
    assert await body_of(receive) == b""
    await send_after({"type": "http.response.start", "status": 401, "headers": [(b"a", b"b")]})
    assert messages[0]["headers"] == [(b"a", b"b"), (b"connection", b"close")]


def test_a_chunked_body_gets_the_header_of_its_length(settings: LazySettings) -> None:
    settings.FORCE_SCRIPT_NAME = "/relay"
    scope = {"path": "/v1/ip", "headers": [(b"transfer-encoding", b"chunked"), (b"host", b"a")]}
    changed = with_body_length(scope, io.BytesIO(b"12345"))
    assert changed["headers"] == [(b"host", b"a"), (b"content-length", b"5")]
    assert changed["path"] == "/relay/v1/ip"
    assert with_body_length({**scope, "root_path": "/relay"}, io.BytesIO())["path"] == "/v1/ip"
