"""Records the deliveries that notify tenants of events of their sessions; `dispatch` sends them.

An event becomes a row in the transaction that causes it, so no event is lost, and none is sent that did not happen.
Deliveries are retried with exponential backoff for an hour. The tenant's URL gets events signed by the Standard
Webhooks scheme (standardwebhooks.com); a session's own `webhook_url` gets the plain session object, as Edgegap sends it
(EDGEGAP.md R50).
"""

import json
import random
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from ..models import RelaySession, WebhookDelivery, WebhookEvent
from ..selectors import session_get
from ..serializers import SessionSerializer
from .circuits import endpoint_host

RETRY_FOR = timedelta(hours=1)
FIRST_RETRY_S, LONGEST_RETRY_S = 5.0, 600.0


# Rows


def session_notify(session: RelaySession, event: WebhookEvent) -> None:
    """Call it in the transaction that changes the session's state."""
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
    """`changes`: how many joins and leaves of the seat this event stands for (see `reconciler`)."""
    if session.tenant.webhook_url:
        data: dict[str, Any] = {"session_id": session.id, "seat": seat, "player_id": player_id, "reason": reason}
        if changes > 1:
            data["changes"] = changes
        _row(session, event, session.tenant.webhook_url, _signed_body(event, data), is_signed=True)


def relay_notify(session: RelaySession, *, before: str, after: str, reason: str, gap_ms: int) -> None:
    """The session is served by another node. `gap_ms`: the longest time for which a player received nothing; 0: not
    known."""
    if session.tenant.webhook_url:
        data = {"session_id": session.id, "from": before, "to": after, "reason": reason, "gap_ms": gap_ms}
        event = WebhookEvent.RELAY_CHANGED
        _row(session, event, session.tenant.webhook_url, _signed_body(event, data), is_signed=True)


def delivery_retry(*, delivery: WebhookDelivery) -> bool:
    """Sends it again now. False: it has been delivered, or its body is deleted."""
    waiting = WebhookDelivery.objects.filter(pk=delivery.pk, delivered_at=None, payload_deleted_at=None)
    return waiting.update(next_attempt_at=timezone.now()) == 1


def _signed_body(event: WebhookEvent, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": str(event), "timestamp": timezone.now().isoformat(), "data": data}


def _row(session: RelaySession, event: WebhookEvent, url: str, body: dict[str, Any], *, is_signed: bool) -> None:
    WebhookDelivery.objects.create(
        tenant=session.tenant,
        session=session,
        event=event,
        url=url,
        host=endpoint_host(url),
        payload=json.dumps(body, separators=(",", ":")),
        is_signed=is_signed,
        next_attempt_at=timezone.now(),
    )


# Retries


def next_attempt(attempts: int, created_at: datetime, now: datetime) -> datetime | None:
    """When to retry after so many attempts: after 5 s, doubled each time up to ten minutes. None: the hour is over.

    Half of the delay is random, so that a recovered receiver does not get all deliveries at once.
    """
    wait = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 20), LONGEST_RETRY_S)
    at = now + timedelta(seconds=wait * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
    return at if at <= created_at + RETRY_FOR else None
