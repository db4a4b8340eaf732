"""The manager's side of a node's control API (docs/node-api.md). The only module that speaks HTTP to nodes.

Calls to single nodes share one keep-alive client; telemetry is fetched from many nodes at once. A time limit is for the
whole of a call, whatever the node or its name server does. No key is ever logged.
"""

import asyncio
import contextlib
import functools
import json
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from observability import tracing
from observability.correlation import REQUEST_ID
from relaymgr.background import wait_for
from relaymgr.logs import request_id
from relaymgr.nodes.models import RelayNode

CALL_TIMEOUT = 2.0
MAX_ANSWER = 4_000_000  # bytes; 10,000 events and 2,000 legs are about 2 MB
MAX_PROBES_AT_ONCE = 400  # sockets; below the usual limit of 1,024 open files
# What a call may fail with. UnicodeError: the name of a host that IDNA cannot encode.
NO_ANSWER = (OSError, UnicodeError, httpx.HTTPError, httpx.InvalidURL)


class NodeUnreachable(Exception):
    """No answer in time, or none that makes sense. What was asked may or may not have been done."""


class NodeRefused(Exception):
    """The node understood and said no, with a code of docs/node-api.md."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


# One node, now


def put_session(node: RelayNode, grant: dict[str, Any], timeout_s: float = CALL_TIMEOUT) -> int:
    """Grants a session; returns the revision now in force there. Raises NodeUnreachable, NodeRefused."""
    answer = _call(node, "PUT", f"/sessions/{grant['session']}", timeout_s, body=grant)
    revision = answer.get("revision")
    if not isinstance(revision, int):
        raise NodeUnreachable("the answer names no revision")
    return revision


def delete_session(node: RelayNode, session_id: str, reason: str, timeout_s: float = CALL_TIMEOUT) -> None:
    """When this returns, the node forwards nothing of the session any more. Raises NodeUnreachable, NodeRefused."""
    _call(node, "DELETE", f"/sessions/{session_id}", timeout_s, params={"reason": reason})


def drain(node: RelayNode, timeout_s: float = CALL_TIMEOUT) -> None:
    _call(node, "POST", "/drain", timeout_s)


def undrain(node: RelayNode, timeout_s: float = CALL_TIMEOUT) -> None:
    _call(node, "POST", "/undrain", timeout_s)


def _call(
    node: RelayNode,
    method: str,
    path: str,
    timeout_s: float,
    *,
    body: dict[str, Any] | None = None,
    params: dict[str, str] | None = None,
) -> dict[str, Any]:
    url, headers = node.control_url + path, {**_headers(node.control_key), **_correlation()}
    try:
        status, content = wait_for(_exchange(method, url, timeout_s, json=body, params=params, headers=headers))
    except NO_ANSWER as error:
        raise NodeUnreachable(type(error).__name__) from None
    return _answer(status, content)


async def _exchange(method: str, url: str, timeout_s: float, **request: Any) -> tuple[int, bytes]:
    """Status and body. httpx limits the wait for each part of an answer, and a resolver not at all; this is for all."""
    async with (
        asyncio.timeout(timeout_s),
        _client(os.getpid()).stream(method, url, timeout=timeout_s, **request) as response,
    ):
        return response.status_code, await _content(response)


@functools.lru_cache(maxsize=1)
def _client(process: int) -> httpx.AsyncClient:
    """By process: a connection must not be shared across a fork."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200, keepalive_expiry=30)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # else a node could fill our memory with them
    client = httpx.AsyncClient(verify=_tls(), limits=limits, trust_env=False, cookies=no_cookies)
    tracing.trace_client(client)
    return client


# All nodes, at once


@dataclass(frozen=True)
class Probe:
    """Whom to ask for telemetry, and from which event on."""

    node_id: int
    control_url: str
    control_key: str
    after: int
    with_peers: bool = False

    def __repr__(self) -> str:
        return f"Probe(node_id={self.node_id})"


@dataclass(frozen=True)
class Heard:
    """What a node answered. `sent_at` and `answered_at`: seconds since 1970, by our clock."""

    node_id: int
    document: dict[str, Any]
    sent_at: float
    answered_at: float


@dataclass(frozen=True)
class Silent:
    """Who gave no good answer, and why."""

    node_id: int
    error: NodeUnreachable | NodeRefused


Ask = Callable[[httpx.AsyncClient, Probe], Awaitable[dict[str, Any]]]


def fetch_telemetry(probes: Iterable[Probe], timeout_s: float) -> list[Heard]:
    """Asks all the nodes at the same time; leaves out those that gave no good answer within `timeout_s`."""
    answers = wait_for(_ask_all(list(probes), _telemetry, timeout_s))
    return [answer for answer in answers if isinstance(answer, Heard)]


async def telemetry_of(probes: Iterable[Probe], timeout_s: float) -> list[Heard | Silent]:
    """As `fetch_telemetry`, with those that gave no good answer. In the order of `probes`."""
    return await _ask_all(list(probes), _telemetry, timeout_s)


async def health_of(probes: Iterable[Probe], timeout_s: float) -> list[Heard | Silent]:
    """What each says at /healthz, for which it wants no key. In the order of `probes`."""
    return await _ask_all(list(probes), _health, timeout_s)


async def _ask_all(probes: list[Probe], ask: Ask, timeout_s: float) -> list[Heard | Silent]:
    slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=_tls(), limits=limits, trust_env=False, timeout=timeout_s) as client:
        return await asyncio.gather(*(_ask(client, slots, probe, ask, timeout_s) for probe in probes))


async def _ask(
    client: httpx.AsyncClient, slots: asyncio.Semaphore, probe: Probe, ask: Ask, timeout_s: float
) -> Heard | Silent:
    async with slots:
        sent_at = time.time()
        try:
            async with asyncio.timeout(timeout_s):
                document = await ask(client, probe)
        except (NodeUnreachable, NodeRefused) as error:
            return Silent(probe.node_id, error)
        except NO_ANSWER as error:
            return Silent(probe.node_id, NodeUnreachable(type(error).__name__))
        return Heard(probe.node_id, document, sent_at, time.time())


async def _telemetry(client: httpx.AsyncClient, probe: Probe) -> dict[str, Any]:
    url, headers = f"{probe.control_url}/telemetry", _headers(probe.control_key)
    params = {"after": probe.after, "peers": 1} if probe.with_peers else {"after": probe.after}
    async with client.stream("GET", url, params=params, headers=headers) as response:
        return _answer(response.status_code, await _content(response))


async def _health(client: httpx.AsyncClient, probe: Probe) -> dict[str, Any]:
    async with client.stream("GET", f"{probe.control_url}/healthz") as response:
        return _answer(response.status_code, await _content(response))


@dataclass(frozen=True)
class Tell:
    """Whom to tell which beacons to measure (docs/node-api.md, POST /probes)."""

    control_url: str
    control_key: str
    targets: list[dict[str, Any]]
    version: str

    def __repr__(self) -> str:
        return f"Tell(control_url={self.control_url!r})"


def tell_peers(tells: Iterable[Tell], timeout_s: float) -> None:
    """Tells all of them at the same time. Who does not hear it is told again: its telemetry names another version."""
    if todo := list(tells):
        wait_for(_tell_all(todo, timeout_s))


async def _tell_all(tells: list[Tell], timeout_s: float) -> None:
    slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=_tls(), limits=limits, trust_env=False, timeout=timeout_s) as client:
        await asyncio.gather(*(_tell(client, slots, tell, timeout_s) for tell in tells))


async def _tell(client: httpx.AsyncClient, slots: asyncio.Semaphore, tell: Tell, timeout_s: float) -> None:
    body, headers = {"version": tell.version, "targets": tell.targets}, _headers(tell.control_key)
    async with slots:
        with contextlib.suppress(*NO_ANSWER):
            async with (
                asyncio.timeout(timeout_s),
                client.stream("POST", f"{tell.control_url}/probes", json=body, headers=headers),
            ):
                pass  # what it answers does not matter


# Both


async def _content(response: httpx.Response) -> bytes:
    content = b""
    async for part in response.aiter_raw():
        content += part
        if len(content) > MAX_ANSWER:
            raise NodeUnreachable("the answer does not end")
    return content


def _headers(control_key: str) -> dict[str, str]:
    # Unencoded answers only: what is counted against MAX_ANSWER is what will be parsed.
    return {"Authorization": f"Bearer {control_key}", "Accept-Encoding": "identity"}


def _correlation() -> dict[str, str]:
    """For the node's log; the trace is told by `tracing.trace_client`."""
    current = request_id()
    return {REQUEST_ID: current} if current else {}


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the system's certificates: 20 ms, so once


def _answer(status: int, content: bytes) -> dict[str, Any]:
    if status == 204:
        return {}
    document = _document(content)
    if status == 200 and document is not None:
        return document
    if 400 <= status < 500:
        document = document or {}
        raise NodeRefused(_shown(document.get("code", status), 50), _shown(document.get("message", ""), 200))
    raise NodeUnreachable(f"status {status}")


def _shown(value: Any, longest: int) -> str:
    """Fit for a log, a page and the database, which holds neither NUL nor half a surrogate pair."""
    return "".join(character for character in str(value) if character.isprintable())[:longest]


def _document(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
