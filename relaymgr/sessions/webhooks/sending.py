"""One delivery attempt: an HTTP request to a server that may be hostile, within one deadline."""

import asyncio
import contextlib
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import httpcore
from django.utils import timezone
from standardwebhooks import Webhook

from observability.plain_text import visible
from web.ssrf_guard import GuardedNetwork, LookupsBusy

from ..models import WebhookDelivery

ATTEMPT_S = 10.0  # to resolve, connect, negotiate TLS, send the request and receive the response headers
CLOSE_S = 1.0  # in addition, to close the connection
UNREACHABLE = "The URL could not be reached"  # followed by the reason, which only operators see


class Verdict(StrEnum):
    """The result of an attempt, for the delivery and for its endpoint."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # the endpoint works, and rejected this delivery
    FAILED = "failed"  # the endpoint is unreachable, too slow, or out of order


class Attempt(NamedTuple):
    verdict: Verdict
    error: str = ""


class Sender:
    """The connections of one run of a dispatcher, with a pool for each tenant, so that no tenant waits for another.

    It belongs to one event loop.
    """

    def __init__(self) -> None:
        self._pools: dict[tuple[int, bool], httpcore.AsyncConnectionPool] = {}

    async def send(self, delivery: WebhookDelivery) -> Attempt:
        """Never raises, and takes at most ATTEMPT_S + CLOSE_S."""
        attempt = asyncio.ensure_future(self._attempt(delivery))
        done, _ = await asyncio.wait({attempt}, timeout=ATTEMPT_S)
        if not done:
            attempt.cancel()
            # httpcore closes a cancelled connection behind a shield, which must not take forever either.
            done, _ = await asyncio.wait({attempt}, timeout=CLOSE_S)
        return attempt.result() if done and not attempt.cancelled() else _failed(f"no answer within {ATTEMPT_S:g} s")

    async def _attempt(self, delivery: WebhookDelivery) -> Attempt:
        try:
            async with self._pool(delivery).stream(
                "POST", delivery.url, headers=_headers(delivery, timezone.now()), content=delivery.payload.encode()
            ) as response:
                # The body is not needed, and may be endless.
                return _judge(response.status)
        except LookupsBusy:
            return _failed("too many DNS lookups of this tenant are in progress")
        except Exception as error:
            return _failed(f"{error}" or type(error).__name__)

    def _pool(self, delivery: WebhookDelivery) -> httpcore.AsyncConnectionPool:
        key = delivery.tenant_id, delivery.tenant.private_webhooks
        if key not in self._pools:
            network = GuardedNetwork(owner=delivery.tenant_id, allow_private=delivery.tenant.private_webhooks)
            self._pools[key] = httpcore.AsyncConnectionPool(network_backend=network, keepalive_expiry=5.0)
        return self._pools[key]

    async def close(self) -> None:
        for pool in self._pools.values():
            with contextlib.suppress(TimeoutError, RuntimeError):
                async with asyncio.timeout(CLOSE_S):
                    await pool.aclose()


def _failed(why: str) -> Attempt:
    return Attempt(Verdict.FAILED, visible(f"{UNREACHABLE}: {why}.")[:200])


def _judge(status: int) -> Attempt:
    if 200 <= status < 300:
        return Attempt(Verdict.DELIVERED)
    is_endpoint_failure = status >= 500 or status in (408, 429)
    return Attempt(Verdict.FAILED if is_endpoint_failure else Verdict.REFUSED, f"The URL answered {status}.")


def _headers(delivery: WebhookDelivery, now: datetime) -> dict[bytes | str, bytes | str]:
    headers: dict[bytes | str, bytes | str] = {"Content-Type": "application/json", "User-Agent": "causeway-webhooks"}
    if delivery.is_signed:
        message_id = f"msg_{delivery.pk}"  # the same in each attempt, so that a receiver recognizes a retry
        headers["webhook-id"] = message_id
        headers["webhook-timestamp"] = str(int(now.timestamp()))
        headers["webhook-signature"] = Webhook(delivery.tenant.webhook_secret).sign(message_id, now, delivery.payload)
    return headers
