"""Telling studios what happens to their sessions.

An event becomes a row in the transaction that makes it true, so none is lost and none is told of that did not happen.
Rows are claimed by a conditional UPDATE, sent, and tried again with exponential back-off for an hour. The tenant's URL
gets events signed by the Standard Webhooks scheme (standardwebhooks.com); a session's own `webhook_url` gets the
plain session object, as Edgegap sends it (compat spec R50).
"""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import httpcore
from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone
from standardwebhooks import Webhook

from relaymgr import metrics
from relaymgr.background import wait_for

from .models import RelaySession, WebhookDelivery, WebhookEvent
from .outward import PublicNetwork
from .selectors import session_get
from .serializers import SessionSerializer

RETRY_FOR = timedelta(hours=1)
FIRST_RETRY_S, LONGEST_RETRY_S = 5.0, 600.0
ATTEMPT_S = 10.0  # for all of it: resolve, connect, TLS, send, first line of the answer
CLAIMED_FOR = timedelta(seconds=60)  # a claim whose worker died is taken over after this
BATCH = 64  # sent at once
OF_A_TENANT = 8  # of those: a URL that hangs holds up its own tenant's events
ROUND_S = 30.0  # after which the next tick goes on

UNREACHABLE = "The URL could not be reached."  # never more: the owner must not learn what our network looks like


# Rows


def session_notify(session: RelaySession, event: WebhookEvent) -> None:
    """Call in the transaction that changed its state."""
    is_plain_wanted = session.webhook_url and event in (WebhookEvent.READY, WebhookEvent.FAILED)
    if not is_plain_wanted and not session.tenant.webhook_url:
        return
    document = SessionSerializer(session_get(tenant=session.tenant, session_id=session.pk)).data
    if session.tenant.webhook_url:
        _row(session, event, session.tenant.webhook_url, _signed_body(event, document), is_signed=True)
    if is_plain_wanted:
        _row(session, event, session.webhook_url, document, is_signed=False)


def player_notify(
    session: RelaySession, event: WebhookEvent, *, seat: int, player_id: str, reason: str, changes: int
) -> None:
    """`changes`: how many joins and leaves of the seat it stands for (seat_reports.py)."""
    if session.tenant.webhook_url:
        data: dict[str, Any] = {"session_id": session.id, "seat": seat, "player_id": player_id, "reason": reason}
        if changes > 1:
            data["changes"] = changes
        _row(session, event, session.tenant.webhook_url, _signed_body(event, data), is_signed=True)


def delivery_retry(*, delivery: WebhookDelivery) -> bool:
    """Send once more, now. False: it has been delivered."""
    waiting = WebhookDelivery.objects.filter(pk=delivery.pk, delivered_at=None)
    return waiting.update(next_attempt_at=timezone.now()) == 1


def _signed_body(event: WebhookEvent, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": str(event), "timestamp": timezone.now().isoformat(), "data": data}


def _row(session: RelaySession, event: WebhookEvent, url: str, body: dict[str, Any], *, is_signed: bool) -> None:
    WebhookDelivery.objects.create(
        tenant=session.tenant,
        session=session,
        event=event,
        url=url,
        payload=json.dumps(body, separators=(",", ":")),
        is_signed=is_signed,
        next_attempt_at=timezone.now(),
    )


# Sending


def deliver_due() -> int:
    """Send what is due, several at once; how many were tried."""
    tried, until = 0, time.monotonic() + ROUND_S
    while time.monotonic() < until and (claimed := _claim(timezone.now())):
        for delivery, error in zip(claimed, wait_for(_send_all(claimed)), strict=True):
            _record(delivery, error, timezone.now())
        tried += len(claimed)
    return tried


def _claim(now: datetime) -> list[WebhookDelivery]:
    """The oldest of each tenant, then the second oldest of each, and so on."""
    turn = Window(RowNumber(), partition_by="tenant", order_by=("next_attempt_at", "id"))
    due = WebhookDelivery.objects.filter(next_attempt_at__lte=now)
    turns = due.annotate(turn=turn).filter(turn__lte=OF_A_TENANT).order_by("turn", "id")
    # `due` again: one that another worker has claimed in between must not be taken from it.
    deliveries = due.filter(pk__in=list(turns.values_list("pk", flat=True)[:BATCH])).select_related("tenant")
    return [delivery for delivery in deliveries.order_by("pk") if _claim_one(delivery, now)]


def _claim_one(delivery: WebhookDelivery, now: datetime) -> bool:
    mine = WebhookDelivery.objects.filter(pk=delivery.pk, next_attempt_at=delivery.next_attempt_at)
    delivery.attempts += 1
    return mine.update(next_attempt_at=now + CLAIMED_FOR, attempts=F("attempts") + 1) == 1


def _record(delivery: WebhookDelivery, error: str, now: datetime) -> None:
    row = WebhookDelivery.objects.filter(pk=delivery.pk)
    outcome = "delivered"
    if error:
        again = next_attempt(delivery.attempts, delivery.created_at, now)
        row.update(last_error=error, next_attempt_at=again)
        outcome = "failed" if again else "given_up"
    else:
        row.update(last_error="", delivered_at=now, next_attempt_at=None)
    metrics.webhooks.labels(delivery.event, outcome).inc()


def next_attempt(attempts: int, created_at: datetime, now: datetime) -> datetime | None:
    """When to try again after so many attempts: 5 s, doubled each time up to ten minutes, half of it random so that a
    receiver that comes back is not met by all at once. None: the hour is over."""
    wait = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 20), LONGEST_RETRY_S)
    at = now + timedelta(seconds=wait * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
    return at if at <= created_at + RETRY_FOR else None


async def _send_all(deliveries: Sequence[WebhookDelivery]) -> list[str]:
    """What went wrong with each; empty: delivered."""
    async with (
        httpcore.AsyncConnectionPool(max_connections=BATCH, network_backend=PublicNetwork()) as public,
        httpcore.AsyncConnectionPool(max_connections=BATCH) as anywhere,
    ):
        pools = (anywhere if delivery.tenant.private_webhooks else public for delivery in deliveries)
        return await asyncio.gather(*map(_send, pools, deliveries))


async def _send(pool: httpcore.AsyncConnectionPool, delivery: WebhookDelivery) -> str:
    try:
        async with (
            asyncio.timeout(ATTEMPT_S),
            pool.stream(
                "POST", delivery.url, headers=_headers(delivery, timezone.now()), content=delivery.payload.encode()
            ) as response,
        ):
            # The body is never read: it is not ours to keep, and may be endless.
            return "" if 200 <= response.status < 300 else f"The URL answered {response.status}."
    except Exception:
        return UNREACHABLE


def _headers(delivery: WebhookDelivery, now: datetime) -> dict[bytes | str, bytes | str]:
    headers: dict[bytes | str, bytes | str] = {"Content-Type": "application/json", "User-Agent": "causeway-webhooks"}
    if delivery.is_signed:
        message_id = f"msg_{delivery.pk}"  # the same in each attempt, so that a receiver can tell a repetition
        headers["webhook-id"] = message_id
        headers["webhook-timestamp"] = str(int(now.timestamp()))
        headers["webhook-signature"] = Webhook(delivery.tenant.webhook_secret).sign(message_id, now, delivery.payload)
    return headers
