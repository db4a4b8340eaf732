"""The manager's side of a node's control API (docs/node-api.md). This is the only module that sends HTTP requests to
nodes.

One client serves all nodes and keeps its connections open: the creation of a session waits for a call here, and
telemetry is fetched from each node every other second. Therefore it is aiohttp, whose parser is written in C. A timeout
covers the whole call, name resolution included. Keys are never logged.
"""

import asyncio
import atexit
import contextlib
import functools
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
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
from web.background_loop import start, wait_for
from web.log_config import request_id

CALL_TIMEOUT = 2.0
ALIVE_TIMEOUT = 1.0  # seconds; if two processes run as the same node, one of them answers immediately
MAX_ANSWER = 4_000_000  # bytes; 10,000 events, 2,000 legs and 2,000 paths are about 2.5 MB
MAX_PROBES_AT_ONCE = 400  # sockets; below the usual limit of 1,024 open files
MAX_KEPT = 400  # connections kept open for telemetry; further nodes get a new connection each time
KEPT_FOR = 4.0  # seconds; a node closes an idle connection after 5
# The errors of a failed call. ValueError: the URL is malformed, or IDNA cannot encode the host name.
NO_ANSWER = (OSError, ValueError, aiohttp.ClientError)


class NodeUnreachable(Exception):
    """The node sent no answer in time, or an invalid one. It may or may not have carried out the request."""


class NodeRefused(Exception):
    """The node rejected the request, with an error code of docs/node-api.md."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


# Calls to one node


def put_session(node: RelayNode, grant: Grant, timeout_s: float = CALL_TIMEOUT) -> int:
    """Grants a session; returns the revision that is now in force on the node. Raises NodeUnreachable, NodeRefused."""
    return _revision(_call(node, "PUT", f"/sessions/{grant.session}", timeout_s, body=grant))


def _revision(answer: dict[str, Any]) -> int:
    try:
        return read_document(answer, GrantConfirmation).revision
    except InvalidDocument as error:
        raise NodeUnreachable(f"the answer is invalid: {error}") from None


class StartedPut:
    """A call of `put_session` that has been started."""

    def __init__(self, answer: Future[tuple[int, bytes]]):
        self._answer = answer

    def revision(self, wait_s: float) -> int:
        """Waits for the answer. Raises NodeUnreachable, also if there is none in time, and NodeRefused."""
        try:
            status, content = self._answer.result(wait_s)
        except (TimeoutError, *NO_ANSWER) as error:
            raise NodeUnreachable(type(error).__name__) from None
        return _revision(_answer(status, content))


def put_session_start(node: RelayNode, grant: Grant, timeout_s: float = CALL_TIMEOUT) -> StartedPut:
    url = f"{node.control_url}/sessions/{grant.session}"
    headers = {**_headers(node.control_key), **_correlation(), **JSON}
    return StartedPut(start(_exchange("PUT", url, timeout_s, data=_encoded(grant), headers=headers)))


def delete_session(node: RelayNode, session_id: str, reason: str, timeout_s: float = CALL_TIMEOUT) -> None:
    """When this returns, the node no longer forwards packets of the session. Raises NodeUnreachable, NodeRefused."""
    _call(node, "DELETE", f"/sessions/{session_id}", timeout_s, params={"reason": reason})


def boot_id_of(node: RelayNode, timeout_s: float = ALIVE_TIMEOUT) -> str | None:
    """The boot id of the process that answers at the node's control URL; None: there is no valid answer."""
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
    """The status and the body of the response."""
    async with (
        asyncio.timeout(timeout_s),
        _client().request(method, url, allow_redirects=False, **request) as response,
    ):
        return response.status, await _content(response)


@functools.lru_cache(maxsize=1)
def _client_of(loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
    """One client for each event loop, and thus for each process: a connection must not be shared across a fork."""
    client, process = _new_client(), os.getpid()

    def close() -> None:
        if os.getpid() == process and loop.is_running():
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(1)

    atexit.register(close)
    return client


def _client() -> aiohttp.ClientSession:
    """The client of the running loop, which is the background loop."""
    return _client_of(asyncio.get_running_loop())


def _new_client() -> aiohttp.ClientSession:
    """Without limits of its own: each call sets a timeout, and the callers limit their concurrency."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=_tls(), limit=0, keepalive_timeout=KEPT_FOR),
        cookie_jar=aiohttp.DummyCookieJar(),  # otherwise a node could fill the manager's memory with cookies
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


# Calls to many nodes at the same time


@dataclass(frozen=True)
class Probe:
    """A node to ask for telemetry, and the last event that is already known."""

    node_id: int
    control_url: str
    control_key: str
    after: int
    with_peers: bool = False

    def __repr__(self) -> str:
        return f"Probe(node_id={self.node_id})"


@dataclass(frozen=True)
class ProbeAnswer:
    """The answer of a node. `sent_at` and `answered_at`: Unix time in seconds, by the manager's clock."""

    node_id: int
    document: dict[str, Any]
    sent_at: float
    answered_at: float


@dataclass(frozen=True)
class ProbeFailure:
    """A node without a valid answer, and the reason."""

    node_id: int
    error: NodeUnreachable | NodeRefused


Ask = Callable[[aiohttp.ClientSession, Probe, Mapping[str, str]], Awaitable[dict[str, Any]]]
KEEP: Mapping[str, str] = {}
DO_NOT_KEEP: Mapping[str, str] = {"Connection": "close"}
JSON: Mapping[str, str] = {"Content-Type": "application/json"}


def fetch_telemetry(probes: Iterable[Probe], timeout_s: float) -> list[ProbeAnswer]:
    """Asks all nodes at the same time; leaves out those without a valid answer within `timeout_s`."""
    answers = wait_for(_ask_and_keep(list(probes), timeout_s))
    return [answer for answer in answers if isinstance(answer, ProbeAnswer)]


async def _ask_and_keep(probes: list[Probe], timeout_s: float) -> list[ProbeAnswer | ProbeFailure]:
    return await _ask_all(_client(), probes, _telemetry, timeout_s)


async def telemetry_of(probes: Iterable[Probe], timeout_s: float) -> list[ProbeAnswer | ProbeFailure]:
    """Like `fetch_telemetry`, but with the failures. In the order of `probes`."""
    async with _new_client() as client:
        return await _ask_all(client, list(probes), _telemetry, timeout_s)


async def health_of(probes: Iterable[Probe], timeout_s: float) -> list[ProbeAnswer | ProbeFailure]:
    """The answer of each node at /healthz, which requires no key. In the order of `probes`."""
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
    """The list of beacons that one node is to measure (docs/node-api.md, PUT /peers)."""

    control_url: str
    control_key: str
    peers: tuple[Peer, ...]
    version: str

    def __repr__(self) -> str:
        return f"PeerListUpdate(control_url={self.control_url!r})"


def send_peer_lists(updates: Iterable[PeerListUpdate], timeout_s: float) -> None:
    """Sends all updates at the same time. A failure is ignored: the node's telemetry then still names the old version,
    so that the next round sends the list again."""
    if pending := list(updates):
        wait_for(_send_all(pending, timeout_s))


async def _send_all(updates: list[PeerListUpdate], timeout_s: float) -> None:
    slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
    client = _client()
    await asyncio.gather(*(_send(client, slots, update, timeout_s) for update in updates))


async def _send(
    client: aiohttp.ClientSession, slots: asyncio.Semaphore, update: PeerListUpdate, timeout_s: float
) -> None:
    body = _encoded(PeerList(update.version, update.peers))
    headers = {**_headers(update.control_key), **JSON, **DO_NOT_KEEP}
    async with slots:
        with contextlib.suppress(*NO_ANSWER):
            async with (
                asyncio.timeout(timeout_s),
                client.put(f"{update.control_url}/peers", data=body, headers=headers, allow_redirects=False),
            ):
                pass  # the status does not matter: the node's telemetry names the version that it has


# For all calls


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for part in response.content.iter_any():
        content += part
        if len(content) > MAX_ANSWER:
            raise NodeUnreachable("the answer is too large")
    return content


def _encoded(document: msgspec.Struct | None) -> bytes | None:
    return None if document is None else msgspec.json.encode(document)


def _headers(control_key: str) -> dict[str, str]:
    # No compression, so that MAX_ANSWER limits the size of the document that is parsed.
    return {"Authorization": f"Bearer {control_key}", "Accept-Encoding": "identity"}


def _correlation() -> dict[str, str]:
    """The request id, which the node writes to its log."""
    current = request_id()
    return {REQUEST_ID: current} if current else {}


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # cached, because it takes 20 ms to read the system's certificates


def _answer(status: int, content: bytes) -> dict[str, Any]:
    if status == 204:
        return {}
    document = _document(content)
    if status == 200 and document is not None:
        return document
    if 400 <= status < 500:
        document = document or {}
        raise NodeRefused(_printable(document.get("code", status), 50), _printable(document.get("message", ""), 200))
    raise NodeUnreachable(f"status {status}")


def _printable(value: Any, max_length: int) -> str:
    """The text without unprintable characters, NUL and surrogates, which PostgreSQL cannot store."""
    return "".join(character for character in str(value) if character.isprintable())[:max_length]


def _document(content: bytes) -> dict[str, Any] | None:
    try:
        document = read_json(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
