"""The entry point of the web process.

    uvicorn --no-proxy-headers --http web.http.protocol:BoundedProtocol relaymgr.asgi:application

Without the first option, uvicorn trusts X-Forwarded-For from loopback, whatever CAUSEWAY_TRUSTED_PROXIES is. Without
the second, connections have no deadlines.
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
from dataclasses import dataclass
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
from web.http.asgi_requests import (
    announced_length,
    bounded,
    discarded,
    has_body,
    header_value,
    network_of_client,
    response_start,
    with_body_length,
)
from web.http.fair_queue import FairQueue, Path
from web.http.in_flight import InFlight, Limits, OverBudget
from web.http.known_keys import TENANT, Holder
from web.memory import return_freed_memory
from web.startup import reasons_not_to_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "relaymgr.settings")
share_between_processes()

PART = 65_536  # bytes of a response that are passed to the server at once
NO_KEY = "no key"  # the branch of requests without a key
WAITING_MAX = 4_000  # waiting requests: at most 2,000 of one tenant, and 1,000 of one address of a key


class Refused(Exception):
    """The request is refused before it reaches a view."""

    def __init__(self, reason: str, status: int, code: str, message: str, retry_after: int = 0) -> None:
        super().__init__(code)
        self.reason, self.status, self.retry_after = reason, status, retry_after
        self.body = {"message": message, "code": code, "details": {}}


class Handler(ASGIHandler):
    """Processes each request in one thread, from its first signal to its last, because the views are synchronous.
    Django itself would start a thread for each request, and switch to it and back for each signal and middleware.

    There are as many threads as the pool has connections. A waiting request occupies neither, nor does a request whose
    client sends or reads slowly: bursts wait in the queue instead of failing to get a connection. The queue is fair
    between tenants, keys and addresses (fair_queue.py), so nodes and matchmakers never wait behind players."""

    def __init__(self) -> None:
        super().__init__()
        self._threads = ThreadPoolExecutor(settings.DATABASE_POOL, "request")
        self._turns = _Turns(settings.DATABASE_POOL)
        maximum = settings.BODY_BYTES_IN_FLIGHT
        self._bodies = InFlight(Limits(maximum, maximum // 4, maximum // 8))
        self._bodies_without_key = InFlight(Limits(maximum // 16, maximum // 16, maximum // 256))
        self._responses = InFlight(Limits(maximum, maximum // 4, maximum // 8))
        self._streams = InFlight(
            Limits(2 * settings.STREAMS_PER_TENANT, settings.STREAMS_PER_TENANT, settings.STREAMS_PER_ADDRESS)
        )

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._handle(scope, receive, send)
        except (RequestAborted, ClientDisconnected):
            pass
        except Refused as refusal:
            metrics.http_refused.labels(refusal.reason).inc()
            _, send = await discarded(receive, send)
            response = JsonResponse(refusal.body, status=refusal.status)
            response["Content-Length"] = str(len(response.content))
            if refusal.retry_after:
                response["Retry-After"] = str(refusal.retry_after)
            await self.send_response(response, send)

    async def _handle(self, scope: Any, receive: Any, send: Any) -> None:
        header, network = header_value(scope, b"authorization"), network_of_client(scope)
        holder = known_keys.holder_of(header) if header else None
        with contextlib.ExitStack() as held:
            limited_for = known_keys.network_limited_for(network)
            if header and holder is None and (limited_for or has_body(scope)):
                path = _path(scope, holder, network)
                began = time.monotonic()
                holder = await self._turns.take(path, receive, self._in_time, began, key_holder_once, header)
                if holder is None and limited_for:
                    raise _too_many_wrong_keys(limited_for)
                if holder is None:
                    # A view will refuse the key, so the body is not stored.
                    receive, send = await discarded(receive, send)
            path = _path(scope, holder, network)
            if not header and announced_length(scope) > settings.MAX_BODY_BYTES_WITHOUT_KEY:
                raise _too_large()
            body = await self._read(receive, path, holder, held)
            scope = with_body_length(scope, body)
            arrived = time.monotonic()
            response = await self._turns.take(path, receive, self._in_time, arrived, self._respond, scope, body)
        if response.streaming:
            await self._follow(response, path, receive, send)
        else:
            await self._send(response, path, send)

    async def _read(self, receive: Any, path: Path, holder: Holder | None, held: contextlib.ExitStack) -> IO[bytes]:
        """Reads the body, which counts against the budget until `held` is closed. Raises RequestAborted and Refused."""
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
                        raise _too_large()
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

    async def _in_time(self, cost: "Cost", arrived: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """Runs the call in a thread, with a deadline for the database. While the database does not respond, requests
        that have waited that long are refused without another attempt. Raises Refused."""

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

        def measured_call() -> Any:
            began = time.thread_time()
            try:
                return bounded_call()
            finally:
                cost.processor += time.thread_time() - began

        return await self._in_a_thread(measured_call)

    def _respond(self, scope: Any, body: Any) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=type(self), scope=scope)
        try:
            request, refusal = self.create_request(scope, body)
            response: HttpResponseBase = refusal if request is None else self.get_response(request)  # type: ignore[assignment]
            if not response.streaming:
                response.close()  # releases resources but not the content, and signals the end of the request
            return response
        finally:
            body.close()
            connections.close_all()  # returns them to the pool

    async def _send(self, response: Any, path: Path, send: Any) -> None:
        """Sends the response in parts, so that at most one part for a client that does not read is in the server's
        buffer and the rest counts against the client's budget."""
        content = response.content
        if len(content) <= PART:
            await self.send_response(response, send)
            return
        try:
            with self._responses.holding(path, len(content)):
                await send(response_start(response))
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
        """Streams the response until it ends or the client disconnects."""
        sending = asyncio.create_task(self.send_response(response, send))
        leaving = asyncio.create_task(receive())  # the body has been read, so only a disconnect can follow
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.wait((sending,))
            await self._in_a_thread(response.close)
        if not sending.cancelled():
            sending.result()  # raises its exception


class ClientDisconnected(Exception):
    """The client disconnected before its request was processed."""


@dataclass
class Cost:
    """What a request used of the processor, in seconds."""

    processor: float = 0.0


class _Turns:
    """Decides which request gets a thread next."""

    def __init__(self, slots: int) -> None:
        self._queue: FairQueue[asyncio.Future[str]] = FairQueue(slots, WAITING_MAX, _is_limited, _is_tenant)

    async def take(self, path: Path, receive: Any, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Waits for the request's turn and returns what `call` returns, whose first argument is the Cost that it adds
        to. Raises ClientDisconnected and Refused."""
        cost = Cost()
        turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if not self._queue.put(path, turn):
            raise _busy("queue")
        self._start()
        try:
            await self._wait(turn, receive)
            return await call(cost, *arguments)
        finally:
            if not turn.cancelled() and not turn.cancel():  # it had its turn
                self._queue.done(turn.result(), time.monotonic(), cost.processor)
            self._start()

    async def _wait(self, turn: asyncio.Future[str], receive: Any) -> None:
        if turn.done():
            return
        leaving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((turn, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done() and leaving.result()["type"] == "http.disconnect":
                raise ClientDisconnected
            await turn
        finally:
            leaving.cancel()

    def _start(self) -> None:
        while taken := self._queue.take(time.monotonic()):
            branch, turn = taken
            if turn.cancelled():
                self._queue.done(branch, time.monotonic())
            else:
                turn.set_result(branch)


def key_holder_once(header: bytes) -> Holder | None:
    """Runs in a thread, and returns its database connection to the pool."""
    try:
        return key_holder(header)
    finally:
        connections.close_all()


def _busy(reason: str) -> Refused:
    return Refused(reason, 503, "busy", "The manager is busy. Try again.", retry_after=1)


def _too_large() -> Refused:
    return Refused("size", 413, "too_large", "Without a key the body is too large.")


def _too_many_wrong_keys(seconds: float) -> Refused:
    wait = math.ceil(seconds)
    return Refused("wrong_keys", 429, "throttled", str(Throttled(wait=wait).detail), retry_after=wait)


def _database_unavailable() -> Refused:
    text = "The database cannot be reached. Try again."
    return Refused("database", 503, "database_unavailable", text, retry_after=2)


def _is_tenant(branch: str) -> bool:
    return branch.startswith(TENANT)


def _is_limited(branch: str) -> bool:
    """Nodes, services and operators always have their slots, and a tenant that is alone beside them has its own."""
    return branch == NO_KEY or _is_tenant(branch)


def _path(scope: Any, holder: Holder | None, network: str) -> Path:
    """The path in the queue and in the budgets: branch, ..., address."""
    if holder:
        return holder.branch, holder.key, network
    return "admin" if scope["path"].startswith("/admin/") else NO_KEY, network


def checked(app: Any) -> Any:
    """Handles the start and the stop of the server, and refuses to start with unsafe settings."""

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
        gc.freeze()  # what is loaded stays loaded, and a collection that scans it delays every request by 0.1 s
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return application


django.setup(set_prefix=False)
# Shorter than Python's 5 ms, for which a request waits after each response of the database while another one computes.
sys.setswitchinterval(0.0005)
from relaymgr.authentication import key_holder  # noqa: E402 - models, which want Django to be set up

application = checked(bounded(Handler()))
tracing.start("causeway-web")
