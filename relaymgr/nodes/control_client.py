"""The manager's side of a node's control API (docs/node-api.md). The only module that speaks HTTP to nodes.

Synchronous calls share one keep-alive client; telemetry is fetched from many nodes at once. No key is ever logged.
"""

import asyncio
import contextlib
import functools
import json
import os
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from relaymgr.nodes.models import RelayNode

CALL_TIMEOUT = 2.0
MAX_ANSWER = 4_000_000  # bytes; 10,000 events and 2,000 legs are about 2 MB
MAX_PROBES_AT_ONCE = 400  # sockets; below the usual limit of 1,024 open files


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
    deadline = time.monotonic() + timeout_s
    try:
        with _client(os.getpid()).stream(
            method,
            node.control_url + path,
            json=body,
            params=params,
            headers=_headers(node.control_key),
            timeout=timeout_s,
        ) as response:
            content = b""
            for part in response.iter_raw():  # httpx limits the wait for each part, not for the whole
                content += part
                if time.monotonic() > deadline or len(content) > MAX_ANSWER:
                    raise NodeUnreachable("the answer does not end")
            return _answer(response.status_code, content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NodeUnreachable(type(error).__name__) from None


@functools.lru_cache(maxsize=1)
def _client(process: int) -> httpx.Client:
    """By process: a connection must not be shared across a fork."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200, keepalive_expiry=30)
    return httpx.Client(verify=_tls(), limits=limits, trust_env=False)


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


def fetch_telemetry(probes: Iterable[Probe], timeout_s: float) -> list[Heard]:
    """Asks all the nodes at the same time; leaves out those that gave no good answer within `timeout_s`."""
    return asyncio.run(_fetch_all(list(probes), timeout_s))


async def _fetch_all(probes: list[Probe], timeout_s: float) -> list[Heard]:
    slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=_tls(), limits=limits, trust_env=False, timeout=timeout_s) as client:
        answers = await asyncio.gather(*(_fetch(client, slots, probe, timeout_s) for probe in probes))
    return [answer for answer in answers if answer is not None]


async def _fetch(client: httpx.AsyncClient, slots: asyncio.Semaphore, probe: Probe, timeout_s: float) -> Heard | None:
    async with slots:
        sent_at = time.time()
        try:
            async with asyncio.timeout(timeout_s):
                document = await _telemetry(client, probe)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, NodeUnreachable, NodeRefused):
            return None
        return Heard(probe.node_id, document, sent_at, time.time())


async def _telemetry(client: httpx.AsyncClient, probe: Probe) -> dict[str, Any]:
    url, headers = f"{probe.control_url}/telemetry", _headers(probe.control_key)
    params = {"after": probe.after, "peers": 1} if probe.with_peers else {"after": probe.after}
    async with client.stream("GET", url, params=params, headers=headers) as response:
        content = b""
        async for part in response.aiter_raw():
            content += part
            if len(content) > MAX_ANSWER:
                raise NodeUnreachable("the answer does not end")
        return _answer(response.status_code, content)


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
        asyncio.run(_tell_all(todo, timeout_s))


async def _tell_all(tells: list[Tell], timeout_s: float) -> None:
    slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=_tls(), limits=limits, trust_env=False, timeout=timeout_s) as client:
        await asyncio.gather(*(_tell(client, slots, tell, timeout_s) for tell in tells))


async def _tell(client: httpx.AsyncClient, slots: asyncio.Semaphore, tell: Tell, timeout_s: float) -> None:
    body = {"version": tell.version, "targets": tell.targets}
    async with slots:
        with contextlib.suppress(TimeoutError, httpx.HTTPError, httpx.InvalidURL):
            async with asyncio.timeout(timeout_s):
                await client.post(f"{tell.control_url}/probes", json=body, headers=_headers(tell.control_key))


# Both


def _headers(control_key: str) -> dict[str, str]:
    # Unencoded answers only: what is counted against MAX_ANSWER is what will be parsed.
    return {"Authorization": f"Bearer {control_key}", "Accept-Encoding": "identity"}


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
        raise NodeRefused(str(document.get("code", status))[:50], str(document.get("message", ""))[:200])
    raise NodeUnreachable(f"status {status}")


def _document(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
