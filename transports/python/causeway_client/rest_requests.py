"""Requests of the REST calls: one JSON request, its errors, and its repetition while the server refuses temporarily."""

import asyncio
import functools
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

try:
    import httpx
    import httpx_sse
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"The REST calls of causeway_client need {error.name}. "
        "Install the extra `rest`: pip install 'causeway-client[rest]'",
        name=error.name,
    ) from error

from .rest_errors import ManagerError, ManagerUnreachable

Json = dict[str, Any]
Client = httpx.AsyncClient
HTTPError = httpx.HTTPError

RETRY_AFTER = 1.0  # seconds before the first repetition if the server names no time; doubled for each further one
RETRY_AFTER_MAX = 10.0  # seconds; the limit of this doubling
MAX_RETRY_AFTER = 300.0  # seconds; the longest pause that a server can ask for


def open_client(base_url: str, authorization: str, *, timeout: float, read_timeout: float | None = None) -> Client:
    """`read_timeout` is for streams: the longest time between two parts of an answer."""
    return Client(
        base_url=base_url,
        headers={"Authorization": authorization},
        timeout=httpx.Timeout(timeout, read=read_timeout or timeout),
        follow_redirects=False,
        verify=_certificate_authorities(),
    )


@functools.cache
def _certificate_authorities() -> ssl.SSLContext:
    """Cached for the process: reading them takes 20 ms of CPU time, which httpx would spend for each client."""
    return httpx.create_ssl_context()


async def request(http: Client, method: str, path: str, *, retry_for: float = 0.0, **options: Any) -> Json:
    """The JSON object of the answer, or {} if the answer is empty. Repeated for up to `retry_for` seconds while the
    server refuses temporarily. Raises ManagerError."""
    return await repeated(lambda: request_once(http, method, path, **options), retry_for=retry_for)


async def repeated(call: Callable[[], Awaitable[Json]], *, retry_for: float, unreachable_for: float = 0.0) -> Json:
    """The result of `call`. It is repeated for up to `retry_for` seconds while the server refuses temporarily, and for
    up to `unreachable_for` seconds while no answer arrives; the latter only suits idempotent calls. Raises
    ManagerError."""
    started, attempt = time.monotonic(), 0
    while True:
        try:
            return await call()
        except ManagerError as error:
            limit = unreachable_for if error.status == 0 else retry_for if error.is_temporary else 0.0
            pause = pause_seconds(error.retry_after, attempt)
            if time.monotonic() + pause - started > limit:
                raise
        await asyncio.sleep(pause)
        attempt += 1


def pause_seconds(retry_after: float | None, attempt: int) -> float:
    """Seconds until the next attempt: what the server asked for, or an exponential back-off. Random jitter is added so
    that clients that were refused at the same time do not return at the same time."""
    base = min(RETRY_AFTER * 2 ** min(attempt, 10), RETRY_AFTER_MAX) if retry_after is None else retry_after
    return base + random.uniform(0.0, max(RETRY_AFTER, base / 4))  # noqa: S311 - it is no secret


async def request_once(http: Client, method: str, path: str, **options: Any) -> Json:
    try:
        response = await http.request(method, path, **options)
    except httpx.HTTPError as error:
        shown = f"{method} {_without_secrets(http.base_url, path)}"
        raise ManagerUnreachable(f"No answer ({type(error).__name__}).", request=shown) from None
    if not response.is_success:
        raise _error(response)
    return _json_object(response)


async def server_sent_events(http: Client, path: str) -> AsyncIterator[tuple[str, Json]]:
    """(name, data) of the events of a stream. Raises ManagerError, httpx.HTTPError."""
    async with httpx_sse.aconnect_sse(http, "GET", path) as stream:
        if not stream.response.is_success:
            await stream.response.aread()
            raise _error(stream.response)
        async for event in stream.aiter_sse():
            yield event.event, event.json()


def _error(response: httpx.Response) -> ManagerError:
    body = _json_object(response)
    return ManagerError(
        response.status_code,
        str(body.get("code", "unknown")),
        str(body.get("message", response.reason_phrase)),
        body.get("details"),
        request=f"{response.request.method} {_without_secrets(response.request.url)}",
        retry_after=_retry_after(response),
    )


def _retry_after(response: httpx.Response) -> float | None:
    """The header in seconds, from either of its forms (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _without_secrets(url: httpx.URL, path: str = "") -> str:
    """The URL without user, password, query, and the ids of tickets, which grant access to them."""
    parts = f"{url.path.rstrip('/')}{path.partition('?')[0]}".split("/")
    shown = ["{id}" if before in ("tickets", "members") else part for before, part in pairwise(["", *parts])]
    port = f":{url.port}" if url.port else ""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}{port}{'/'.join(shown)}"


def _json_object(response: httpx.Response) -> Json:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = {}
    return body if isinstance(body, dict) else {}
