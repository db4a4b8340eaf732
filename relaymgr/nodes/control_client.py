"""The manager's side of a node's control API (docs/node-api.md). The only module that speaks HTTP to nodes.

One client for all nodes, which keeps connections: a session waits for a call here, and telemetry is fetched from each
node every other second. So it is aiohttp, which parses in C. A time limit is for the whole of a call, whatever the node
or its name server does. No key is ever logged.
"""

import asyncio
import atexit
import contextlib
import functools
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from nodeapi.grants import Grant, GrantConfirmation
from nodeapi.peers import Peer, PeerList
from nodeapi.strict_json import InvalidDocument, read_document, read_json
from observability import tracing
from observability.correlation import REQUEST_ID
from relaymgr.nodes.models import RelayNode
from web.background_loop import wait_for
from web.log_config import request_id

CALL_TIMEOUT = 2.0
ALIVE_TIMEOUT = 1.0  # seconds; of two processes that run as one node, one answers at once
MAX_ANSWER = 4_000_000  # bytes; 10,000 events and 2,000 legs are about 2 MB
MAX_PROBES_AT_ONCE = 400  # sockets; below the usual limit of 1,024 open files
MAX_KEPT = 400  # connections, of nodes that are asked for telemetry; further nodes get a new one each time
KEPT_FOR = 4.0  # seconds; a node keeps them for 5
# What a call may fail with. ValueError: an address that makes no sense, or the name of a host that IDNA cannot encode.
NO_ANSWER = (OSError, ValueError, aiohttp.ClientError)


class NodeUnreachable(Exception):
    """No answer in time, or none that makes sense. What was asked may or may not have been done."""


class NodeRefused(Exception):
    """The node understood and said no, with a code of docs/node-api.md."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


# One node, now


def put_session(node: RelayNode, grant: Grant, timeout_s: float = CALL_TIMEOUT) -> int:
    """Grants a session; returns the revision now in force there. Raises NodeUnreachable, NodeRefused."""
    answer = _call(node, "PUT", f"/sessions/{grant.session}", timeout_s, body=grant)
    try:
        return read_document(answer, GrantConfirmation).revision
    except InvalidDocument as error:
        raise NodeUnreachable(f"the answer is invalid: {error}") from None


def delete_session(node: RelayNode, session_id: str, reason: str, timeout_s: float = CALL_TIMEOUT) -> None:
    """When this returns, the node forwards nothing of the session any more. Raises NodeUnreachable, NodeRefused."""
    _call(node, "DELETE", f"/sessions/{session_id}", timeout_s, params={"reason": reason})


def boot_id_of(node: RelayNode, timeout_s: float = ALIVE_TIMEOUT) -> str | None:
    """Of the process that answers at the node's control URL; None: none does."""
    try:
        _, content = wait_for(_exchange("GET", node.control_url + "/healthz", timeout_s))
    except (NodeUnreachable, *NO_ANSWER):
        return None
    boot_id = (_document(content) or {}).get("boot_id")
    return boot_id if isinstance(boot_id, str) else None


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
    body: msgspec.Struct | None = None,
    params: dict[str, str] | None = None,
) -> dict[str, Any]:
    url = node.control_url + path
    with tracing.span(method, kind="client") as span:
        headers = {**_headers(node.control_key), **_correlation(), **span.headers()}
        if body is not None:
            headers |= JSON
        try:
            status, content = wait_for(
                _exchange(method, url, timeout_s, data=_encoded(body), params=params, headers=headers)
            )
        except NO_ANSWER as error:
            raise NodeUnreachable(type(error).__name__) from None
    return _answer(status, content)


async def _exchange(method: str, url: str, timeout_s: float, **request: Any) -> tuple[int, bytes]:
    """Status and body."""
    async with (
        asyncio.timeout(timeout_s),
        _client().request(method, url, allow_redirects=False, **request) as response,
    ):
        return response.status, await _content(response)


@functools.lru_cache(maxsize=1)
def _client_of(loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
    """By loop, and so by process: a connection must not be shared across a fork."""
    client, process = _new_client(), os.getpid()

    def close() -> None:
        if os.getpid() == process and loop.is_running():
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(1)

    atexit.register(close)
    return client


def _client() -> aiohttp.ClientSession:
    """That of the loop we are called in, which is the background one."""
    return _client_of(asyncio.get_running_loop())


def _new_client() -> aiohttp.ClientSession:
    """Without limits of its own: each call has its time, and who calls knows how many at once."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=_tls(), limit=0, keepalive_timeout=KEPT_FOR),
        cookie_jar=aiohttp.DummyCookieJar(),  # else a node could fill our memory with them
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


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
class ProbeAnswer:
    """What a node answered. `sent_at` and `answered_at`: seconds since 1970, by our clock."""

    node_id: int
    document: dict[str, Any]
    sent_at: float
    answered_at: float


@dataclass(frozen=True)
class ProbeFailure:
    """Who gave no good answer, and why."""

    node_id: int
    error: NodeUnreachable | NodeRefused


Ask = Callable[[aiohttp.ClientSession, Probe, Mapping[str, str]], Awaitable[dict[str, Any]]]
KEEP: Mapping[str, str] = {}
DO_NOT_KEEP: Mapping[str, str] = {"Connection": "close"}
JSON: Mapping[str, str] = {"Content-Type": "application/json"}


def fetch_telemetry(probes: Iterable[Probe], timeout_s: float) -> list[ProbeAnswer]:
    """Asks all the nodes at the same time; leaves out those that gave no good answer within `timeout_s`."""
    answers = wait_for(_ask_and_keep(list(probes), timeout_s))
    return [answer for answer in answers if isinstance(answer, ProbeAnswer)]


async def _ask_and_keep(probes: list[Probe], timeout_s: float) -> list[ProbeAnswer | ProbeFailure]:
    return await _ask_all(_client(), probes, _telemetry, timeout_s)


async def telemetry_of(probes: Iterable[Probe], timeout_s: float) -> list[ProbeAnswer | ProbeFailure]:
    """As `fetch_telemetry`, with those that gave no good answer. In the order of `probes`."""
    async with _new_client() as client:
        return await _ask_all(client, list(probes), _telemetry, timeout_s)


async def health_of(probes: Iterable[Probe], timeout_s: float) -> list[ProbeAnswer | ProbeFailure]:
    """What each says at /healthz, for which it wants no key. In the order of `probes`."""
    async with _new_client() as client:
        return await _ask_all(client, list(probes), _health, timeout_s)


async def _ask_all(
    client: aiohttp.ClientSession, probes: list[Probe], ask: Ask, timeout_s: float
) -> list[ProbeAnswer | ProbeFailure]:
    slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
    asked = (
        _ask(client, slots, probe, ask, timeout_s, KEEP if number < MAX_KEPT else DO_NOT_KEEP)
        for number, probe in enumerate(probes)
    )
    return await asyncio.gather(*asked)


async def _ask(
    client: aiohttp.ClientSession,
    slots: asyncio.Semaphore,
    probe: Probe,
    ask: Ask,
    timeout_s: float,
    headers: Mapping[str, str],
) -> ProbeAnswer | ProbeFailure:
    async with slots:
        sent_at = time.time()
        try:
            async with asyncio.timeout(timeout_s):
                document = await ask(client, probe, headers)
        except (NodeUnreachable, NodeRefused) as error:
            return ProbeFailure(probe.node_id, error)
        except NO_ANSWER as error:
            return ProbeFailure(probe.node_id, NodeUnreachable(type(error).__name__))
        return ProbeAnswer(probe.node_id, document, sent_at, time.time())


async def _telemetry(client: aiohttp.ClientSession, probe: Probe, headers: Mapping[str, str]) -> dict[str, Any]:
    url, headers = f"{probe.control_url}/telemetry", {**_headers(probe.control_key), **headers}
    params = {"after": probe.after, "peers": 1} if probe.with_peers else {"after": probe.after}
    async with client.get(url, params=params, headers=headers, allow_redirects=False) as response:
        return _answer(response.status, await _content(response))


async def _health(client: aiohttp.ClientSession, probe: Probe, headers: Mapping[str, str]) -> dict[str, Any]:
    async with client.get(f"{probe.control_url}/healthz", headers=headers, allow_redirects=False) as response:
        return _answer(response.status, await _content(response))


@dataclass(frozen=True)
class PeerListUpdate:
    """Whom to tell which beacons to measure (docs/node-api.md, PUT /peers)."""

    control_url: str
    control_key: str
    peers: tuple[Peer, ...]
    version: str

    def __repr__(self) -> str:
        return f"PeerListUpdate(control_url={self.control_url!r})"


def send_peer_lists(tells: Iterable[PeerListUpdate], timeout_s: float) -> None:
    """Tells all of them at the same time. Who does not hear it is told again: its telemetry names another version."""
    if todo := list(tells):
        wait_for(_tell_all(todo, timeout_s))


async def _tell_all(tells: list[PeerListUpdate], timeout_s: float) -> None:
    slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
    client = _client()
    await asyncio.gather(*(_tell(client, slots, tell, timeout_s) for tell in tells))


async def _tell(
    client: aiohttp.ClientSession, slots: asyncio.Semaphore, tell: PeerListUpdate, timeout_s: float
) -> None:
    body = _encoded(PeerList(tell.version, tell.peers))
    headers = {**_headers(tell.control_key), **JSON, **DO_NOT_KEEP}
    async with slots:
        with contextlib.suppress(*NO_ANSWER):
            async with (
                asyncio.timeout(timeout_s),
                client.put(f"{tell.control_url}/peers", data=body, headers=headers, allow_redirects=False),
            ):
                pass  # what it answers does not matter


# Both


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for part in response.content.iter_any():
        content += part
        if len(content) > MAX_ANSWER:
            raise NodeUnreachable("the answer does not end")
    return content


def _encoded(document: msgspec.Struct | None) -> bytes | None:
    return None if document is None else msgspec.json.encode(document)


def _headers(control_key: str) -> dict[str, str]:
    # Unencoded answers only: what is counted against MAX_ANSWER is what will be parsed.
    return {"Authorization": f"Bearer {control_key}", "Accept-Encoding": "identity"}


def _correlation() -> dict[str, str]:
    """For the node's log."""
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
        document = read_json(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
