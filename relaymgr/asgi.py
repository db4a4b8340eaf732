"""Web entry: `uvicorn --no-proxy-headers --http web.http.protocol:BoundedProtocol relaymgr.asgi:application`.

Without the first option uvicorn believes X-Forwarded-For from loopback, whatever CAUSEWAY_TRUSTED_PROXIES says; without
the second connections have no deadlines.
"""

import asyncio
import contextlib
import contextvars
import gc
import io
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import django
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_started
from django.db import DatabaseError, connections
from django.http import HttpResponseBase, JsonResponse
from django.urls import set_script_prefix
from rest_framework.exceptions import Throttled

from observability import tracing
from observability.exposition import share_between_processes
from web import metrics
from web.database.connections import deadline, is_silent, is_unavailable
from web.http import known_keys
from web.http.client_address import network_at
from web.http.fair_queue import FairQueue, Path
from web.http.in_flight import InFlight, Limits, OverBudget
from web.http.known_keys import Holder
from web.memory import return_freed_memory
from web.startup import reasons_not_to_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")
share_between_processes()

PART = 65_536  # bytes of a response that are given to the server at once
DISCARD_WITHIN = 2.0  # seconds
WAITING_MAX = 4_000  # requests that wait for their turn: 2,000 of one tenant, 1,000 of one address of a key of it
FRAMING_HEADERS = (b"content-length", b"transfer-encoding")


class Refused(Exception):
    """A request that no view will see."""

    def __init__(self, reason: str, status: int, code: str, message: str, retry_after: int = 0) -> None:
        super().__init__(code)
        self.reason, self.status, self.retry_after = reason, status, retry_after
        self.body = {"message": message, "code": code, "details": {}}


class Handler(ASGIHandler):
    """All of a request in one thread, from its first signal to its last: our views are synchronous, and left to itself
    Django would start a thread for each request, and go to it and come back for each signal and middleware.

    So many threads as the pool has connections. A request that waits for its turn holds neither, nor does one whose
    client is slow to send or to read: a burst waits here, and not for a connection until it fails. Turns are fair
    between tenants, keys and addresses (fair_queue.py): nodes and matchmaker never wait behind players."""

    def __init__(self) -> None:
        super().__init__()
        self._threads = ThreadPoolExecutor(settings.DATABASE_POOL, "request")
        self._turns = _Turns(settings.DATABASE_POOL)
        most = settings.BODY_BYTES_IN_FLIGHT
        self._bodies = InFlight(Limits(most, most // 4, most // 8))
        self._bodies_without_key = InFlight(Limits(most // 16, most // 16, most // 256))
        self._responses = InFlight(Limits(most, most // 4, most // 8))
        self._streams = InFlight(
            Limits(2 * settings.STREAMS_PER_TENANT, settings.STREAMS_PER_TENANT, settings.STREAMS_PER_ADDRESS)
        )

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._handle(scope, receive, send)
        except (RequestAborted, ClientLeft):
            pass
        except Refused as refusal:
            metrics.http_refused.labels(refusal.reason).inc()
            _, send = await _discarded(receive, send)
            response = JsonResponse(refusal.body, status=refusal.status)
            response["Content-Length"] = str(len(response.content))
            if refusal.retry_after:
                response["Retry-After"] = str(refusal.retry_after)
            await self.send_response(response, send)

    async def _handle(self, scope: Any, receive: Any, send: Any) -> None:
        header, network = _header(scope, b"authorization"), _network(scope)
        holder = known_keys.holder_of(header) if header else None
        with contextlib.ExitStack() as held:
            limited_for = known_keys.network_limited_for(network)
            if header and holder is None and (limited_for or _has_body(scope)):
                path = _path(scope, holder, network)
                began = time.monotonic()
                holder = await self._turns.take(path, receive, self._in_time, began, key_holder_once, header)
                if holder is None and limited_for:
                    raise _too_many_wrong_keys(limited_for)
                if holder is None:
                    # A view will refuse the key. Its body is not kept.
                    receive, send = await _discarded(receive, send)
            path = _path(scope, holder, network)
            body = await self._read(receive, path, holder, held)
            scope = as_read(scope, body)
            arrived = time.monotonic()
            response = await self._turns.take(path, receive, self._in_time, arrived, self._respond, scope, body)
        if response.streaming:
            await self._follow(response, path, receive, send)
        else:
            await self._send(response, path, send)

    async def _read(self, receive: Any, path: Path, holder: Holder | None, held: contextlib.ExitStack) -> IO[bytes]:
        """The body, whose bytes count against the budget until `held` is closed. Raises RequestAborted, Refused."""
        budget = self._bodies if holder else self._bodies_without_key
        longest = settings.MAX_BODY_BYTES + 1 if holder else settings.MAX_BODY_BYTES_WITHOUT_KEY
        body = io.BytesIO()
        try:
            async with asyncio.timeout(settings.BODY_TIMEOUT):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestAborted
                    part = message.get("body", b"")
                    if part:
                        held.enter_context(budget.holding(path, len(part)))
                        body.write(part)
                    if body.tell() > longest:
                        raise Refused("size", 413, "too_large", "Without a key the body is too large.")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            text = f"The body did not arrive within {settings.BODY_TIMEOUT:g} s. Send it again, faster or smaller."
            raise Refused("slow_body", 408, "body_timeout", text) from None
        except OverBudget:
            raise _busy("bytes") from None
        body.seek(0)
        return body

    async def _in_a_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(self._threads, run, call, *arguments)

    async def _in_time(self, arrived: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread, with a deadline for answers of the database. While that gives none, requests that have waited
        for so long are refused without asking it again. Raises Refused."""

        def bounded_call() -> Any:
            if is_silent() and time.monotonic() - arrived > settings.DATABASE_TIMEOUT:
                raise _database_unavailable()
            try:
                with deadline(settings.DATABASE_TIMEOUT):
                    return call(*arguments)
            except DatabaseError as error:
                if is_unavailable(error):
                    raise _database_unavailable() from error
                raise

        return await self._in_a_thread(bounded_call)

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

    async def _send(self, response: Any, path: Path, send: Any) -> None:
        """In parts, so that a client that does not read has no more than one of them in the server's buffer, and what
        waits here counts against its budget."""
        content = response.content
        if len(content) <= PART:
            await self.send_response(response, send)
            return
        try:
            with self._responses.holding(path, len(content)):
                await send(_response_start(response))
                for start in range(0, len(content), PART):
                    more = start + PART < len(content)
                    part = content[start : start + PART]
                    await send({"type": "http.response.body", "body": part, "more_body": more})
        except OverBudget:
            raise _busy("bytes") from None

    async def _follow(self, response: HttpResponseBase, path: Path, receive: Any, send: Any) -> None:
        try:
            with self._streams.holding(path, 1):
                await self._stream(response, receive, send)
        except OverBudget:
            await self._in_a_thread(response.close)
            raise Refused("streams", 429, "too_many_streams", "Too many streams are open.", retry_after=5) from None

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


class ClientLeft(Exception):
    """Nothing was done for it."""


class _Turns:
    """Who may use one of the threads next."""

    def __init__(self, slots: int) -> None:
        self._queue: FairQueue[asyncio.Future[str]] = FairQueue(slots, WAITING_MAX)

    async def take(self, path: Path, receive: Any, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """What `call` returns, once it is this request's turn. Raises ClientLeft, and Refused where too many wait."""
        turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if not self._queue.put(path, turn):
            raise _busy("queue")
        self._start()
        try:
            await self._wait(turn, receive)
            return await call(*arguments)
        finally:
            if not turn.cancelled() and not turn.cancel():  # it had its turn
                self._queue.done(turn.result())
            self._start()

    async def _wait(self, turn: asyncio.Future[str], receive: Any) -> None:
        if turn.done():
            return
        leaving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((turn, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done() and leaving.result()["type"] == "http.disconnect":
                raise ClientLeft
            await turn
        finally:
            leaving.cancel()

    def _start(self) -> None:
        while taken := self._queue.take():
            branch, turn = taken
            if turn.cancelled():
                self._queue.done(branch)
            else:
                turn.set_result(branch)


def key_holder_once(header: bytes) -> Holder | None:
    """In a thread: gives the database's connection back."""
    try:
        return key_holder(header)
    finally:
        connections.close_all()


def _busy(reason: str) -> Refused:
    return Refused(reason, 503, "busy", "The manager is busy. Try again.", retry_after=1)


def _too_many_wrong_keys(seconds: float) -> Refused:
    wait = math.ceil(seconds)
    return Refused("wrong_keys", 429, "throttled", str(Throttled(wait=wait).detail), retry_after=wait)


def _database_unavailable() -> Refused:
    text = "The database cannot be reached. Try again."
    return Refused("database", 503, "database_unavailable", text, retry_after=2)


def _path(scope: Any, holder: Holder | None, network: str) -> Path:
    """For the turn and the budgets: branch, ..., address."""
    if holder:
        return holder.branch, holder.key, network
    return "admin" if scope["path"].startswith("/admin/") else "no key", network


def _network(scope: Any) -> str:
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    return network_at((scope.get("client") or [""])[0], forwarded)


def _header(scope: Any, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _has_body(scope: Any) -> bool:
    return bool(_header(scope, b"transfer-encoding")) or _header(scope, b"content-length").strip() not in (b"", b"0")


async def _discarded(receive: Any, send: Any) -> tuple[Any, Any]:
    """After what a client sends of a body at once was thrown away: closing a connection with bytes unread would lose
    the answer. The connection of a body that goes on ends with the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_WITHIN):
            for _ in range(settings.MAX_BODY_BYTES // 1_000):
                message = await receive()
                if not message.get("more_body", False):
                    return _empty(message["type"], receive), send

    async def closing(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await send(message)

    return _empty("http.request", receive), closing


def _empty(kind: str, receive: Any) -> Any:
    """A body of nothing, and then what else comes."""
    first = [{"type": kind, "body": b"", "more_body": False}]

    async def receive_empty() -> Any:
        return first.pop() if first else await receive()

    return receive_empty


def _response_start(response: Any) -> dict[str, Any]:
    headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    headers += [
        (b"Set-Cookie", cookie.output(header="").strip().encode("ascii")) for cookie in response.cookies.values()
    ]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


def as_read(scope: Any, body: IO[bytes]) -> Any:
    """The request's scope with the length of the body that was read, and with the whole path.

    How a body was framed on the way is the server's affair: of one that came in chunks, or by HTTP/2, no header says
    the length, and Django and DRF take that for an empty one. Django expects the root path in front of the path, where
    `--root-path` has put it and our own setting has not."""
    length = str(body.seek(0, os.SEEK_END)).encode()
    body.seek(0)
    headers = [(name, value) for name, value in scope["headers"] if name not in FRAMING_HEADERS]
    root = "" if scope.get("root_path") else settings.FORCE_SCRIPT_NAME or ""
    return {**scope, "path": root + scope["path"], "headers": [*headers, (b"content-length", length)]}


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
        return_freed_memory()
        gc.freeze()  # all that is loaded stays: a collection that looks through it holds up every request for 0.1 s
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return application


django.setup(set_prefix=False)
# Shorter than Python's 5 ms, which a request waits for at each answer of the database while another one computes.
sys.setswitchinterval(0.0005)
from relaymgr.authentication import key_holder  # noqa: E402 - models, which want Django to be set up

application = checked(bounded(Handler()))
tracing.start("causeway-web")
