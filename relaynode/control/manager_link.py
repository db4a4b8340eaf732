"""The node's link to the manager (docs/node-api.md): it joins once, sends heartbeats, and pulls grants and keys.

The node keeps serving whatever the manager does. Only a refused join ends it, because it has no keys then.
"""

import asyncio
import contextlib
import json
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

from nodeapi.grants import Grant
from nodeapi.membership import GrantList, Heartbeat, HeartbeatResponse, JoinRequest, JoinResponse
from nodeapi.strict_json import InvalidDocument, read_document, read_json

from ..config import VERSION
from ..core.grants import GrantRefused, read_grant
from ..errors import JoinRefused, NodeError, StateUnusable
from ..supervision.node import LinkState, Node
from ..supervision.state_folder import NodeKeys

log = logging.getLogger(__name__)

T = TypeVar("T")

HEARTBEAT_INTERVAL = 5.0
PULL_INTERVAL = 60.0
CALL_TIMEOUT = 5.0
MAX_CLOCK_OFFSET = 60.0
MAX_RETRY_AFTER = 60.0
PULL_TIMEOUT = 30.0
"""Seconds. The answer to a pull contains every session of the node: megabytes."""

IDENTITY_TAKEN = "identity_taken"
_RETRY_STATUSES = (408, 425, 429)
_VERBS = {"refused": "refuses", "unreachable": "does not answer"}


class ManagerFault(Exception):
    """The manager did not answer, or its answer is unusable. Retry later, after `retry_after` seconds at least."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Rejected(Exception):
    """The manager rejected the call with this message and a `code` of docs/node-api.md."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class Backoff:
    """The delay after each consecutive failure: 0.5 s, doubled up to 30 s, and reduced by a random share of up to half,
    so that the nodes of a fleet do not retry at the same time."""

    FIRST, LONGEST = 0.5, 30.0

    def __init__(self) -> None:
        self._delay = self.FIRST

    def next(self, error: Exception | None = None) -> float:
        """At least the delay that the manager asked for, then up to a quarter more at random."""
        delay = self._delay
        self._delay = min(delay * 2, self.LONGEST)
        asked = error.retry_after if isinstance(error, ManagerFault) else 0.0
        return max(delay * random.uniform(0.5, 1.0), asked * random.uniform(1.0, 1.25))  # noqa: S311 - not for security

    def reset(self) -> None:
        self._delay = self.FIRST


class ManagerLink:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._heartbeat_interval = HEARTBEAT_INTERVAL
        self._failure_logged = False
        self._was_accepted = False  # a heartbeat of this process
        self._may_pull = asyncio.Event()
        self._pull_now = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled. Raises JoinRefused."""
        # The system's certificates, which SSL_CERT_FILE may replace, and no proxy.
        client = httpx.AsyncClient(
            base_url=self._node.config.manager_url,
            verify=ssl.create_default_context(),
            trust_env=False,
            timeout=CALL_TIMEOUT,
        )
        async with client:
            self._client = client
            if not self._node.keys.node_key:
                await self._join()
            await asyncio.gather(
                self._repeat(self._heartbeat, self._heartbeat_failed), self._repeat(self._pull, _pull_failed)
            )

    # -- the three calls

    async def _join(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._node.reserve_keys()  # a key that cannot be stored must not be requested
                answer = await self._call("POST", "/v1/nodes:join", self._node.config.join_key, self._introduction())
                joined = _read(answer, JoinResponse)
                keys = NodeKeys(joined.control_key, joined.node_key, {key.id: key.key for key in joined.token_keys})
            except StateUnusable as error:
                log.error("not joining yet: %s", error)
                await asyncio.sleep(backoff.next())
            except Rejected as refusal:
                raise JoinRefused(f"the manager refused this node: {refusal}") from None
            except ManagerFault as fault:
                self._heartbeat_failed(fault)
                await asyncio.sleep(backoff.next(fault))
            else:
                await self._node.set_keys(keys)
                self._take_interval(joined.heartbeat_interval)
                log.info("joined as %s at %s", joined.node, joined.location)
                return

    async def _heartbeat(self) -> None:
        key = self._node.keys.node_key
        try:
            answer = await self._call("POST", "/v1/nodes/self/heartbeat", key, self._heartbeat_body())
        except Rejected as refusal:
            if refusal.code != IDENTITY_TAKEN:
                self._may_pull.set()
                raise
            self._may_pull.clear()
            await self._node.stand_aside(str(refusal), was_accepted=self._was_accepted)
            await asyncio.sleep(self._heartbeat_interval)
            return
        self._connected()
        self._was_accepted = True
        self._may_pull.set()
        wanted = _read(answer, HeartbeatResponse)
        self._take_interval(wanted.heartbeat_interval)
        if set(wanted.key_ids) != set(self._node.keys.token_keys):
            self._pull_now.set()
        if wanted.draining != self._node.draining:
            await self._node.set_draining(wanted.draining)
        await asyncio.sleep(self._heartbeat_interval)

    async def _pull(self) -> None:
        await self._may_pull.wait()
        asked_at = time.monotonic()
        path = f"/v1/nodes/self/grants?boot_id={self._node.boot_id}"
        answer = await self._call("GET", path, self._node.keys.node_key, within=PULL_TIMEOUT)
        found = _read(answer, GrantList)
        token_keys = {key.id: key.key for key in found.token_keys}
        listed, listed_at = found.sessions, found.time
        if token_keys != self._node.keys.token_keys:
            log.info("token keys changed: %d now", len(token_keys))
            await self._node.set_keys(replace(self._node.keys, token_keys=token_keys))
        # The session of an unreadable grant is listed nevertheless, so the session that the node has continues.
        names = {str(item.get("session")) for item in listed if isinstance(item, dict)}
        grants = _grants(listed)
        # A list that is not completely readable, or has an implausible time, does not end the sessions it lacks.
        is_whole = len(grants) == len(listed) and abs(listed_at - time.time()) < MAX_CLOCK_OFFSET
        await self._node.apply_grant_list(grants, names, asked_at, listed_at if is_whole else 0.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._pull_now.wait(), PULL_INTERVAL)
        self._pull_now.clear()

    def _introduction(self) -> JoinRequest:
        return JoinRequest(name=self._node.config.name, **self._description())

    def _heartbeat_body(self) -> Heartbeat:
        return Heartbeat(
            boot_id=self._node.boot_id,
            key_ids=sorted(self._node.keys.token_keys),
            draining=self._node.draining,
            packet_path=self._node.packet_path.name,
            packet_path_reason=self._node.packet_path.reason,
            **self._description(),
        )

    def _description(self) -> dict[str, Any]:
        config = self._node.config
        return {
            "public_ip": config.public_ip,
            "public_ipv6": config.public_ipv6 or None,
            "host": config.host,
            "websocket_url": config.websocket_url,
            "control_url": config.control_url,
            "time": time.time(),
            "version": VERSION,
            "capacity": config.capacity,
            "workers": self._node.worker_ports(),
        }

    # -- making calls

    async def _repeat(self, call: Callable[[], Awaitable[None]], failed: Callable[[Exception], None]) -> None:
        """`call` includes the delay after a success; this adds the delay after a failure."""
        backoff = Backoff()
        while True:
            try:
                await call()
            except (Rejected, ManagerFault, NodeError) as error:
                failed(error)
                await asyncio.sleep(backoff.next(error))
            else:
                backoff.reset()

    async def _call(
        self, method: str, path: str, key: str, body: Struct | None = None, within: float = CALL_TIMEOUT
    ) -> dict[str, Any]:
        """Returns the answer. Raises Rejected, ManagerFault."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        content = None if body is None else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(within):
                response = await self._client.request(method, path, headers=headers, content=content, timeout=within)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise ManagerFault(type(error).__name__) from None
        document = _document(response)
        if response.status_code == 200 and document is not None:
            return document
        if 400 <= response.status_code < 500 and response.status_code not in _RETRY_STATUSES:
            raise _rejection(response.status_code, document or {})
        raise ManagerFault(f"status {response.status_code}", _retry_after(response))

    def _take_interval(self, interval: float) -> None:
        if 0.1 <= interval <= 300:
            self._heartbeat_interval = interval

    # -- the state of the link; each change is logged once

    def _connected(self) -> None:
        if self._node.link != "connected":
            log.info("connected to the manager")
        self._node.link = "connected"

    def _heartbeat_failed(self, error: Exception) -> None:
        state: LinkState = "refused" if isinstance(error, Rejected) else "unreachable"
        if state != self._node.link or not self._failure_logged:
            log.warning("the manager %s this node: %s; sessions continue, retrying", _VERBS[state], error)
        self._failure_logged = True
        self._node.link = state


def _pull_failed(error: Exception) -> None:
    log.warning("grants not pulled: %s; sessions continue, retrying", error)


def _read(answer: dict[str, Any], kind: type[T]) -> T:
    try:
        return read_document(answer, kind)
    except InvalidDocument as error:
        raise ManagerFault(f"its answer is not as agreed: {error}") from None


def _grants(listed: list[Any]) -> list[Grant]:
    """The readable grants: an unreadable one must not prevent the others from being served."""
    grants = []
    for item in listed:
        try:
            grants.append(read_grant(item))
        except GrantRefused as refusal:
            log.error("a grant of the manager's list cannot be used: %s", refusal.message)
    return grants


def _retry_after(response: httpx.Response) -> float:
    """Seconds, as the manager writes it. A date, which a proxy may send, is ignored."""
    text = response.headers.get("Retry-After", "").strip()
    return min(float(text), MAX_RETRY_AFTER) if text.isascii() and text.isdigit() else 0.0


def _document(response: httpx.Response) -> dict[str, Any] | None:
    try:
        document = read_json(response.content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _rejection(status: int, document: dict[str, Any]) -> Rejected:
    """The manager's message, shortened and on one line for the log."""
    message = " ".join(str(document.get("message") or f"status {status}").split())[:300]
    details = document.get("details")
    if details:
        message += " " + json.dumps(details)[:300]
    return Rejected(message, str(document.get("code") or status)[:50])
