"""Notifying studios of what happens to their sessions: the deliveries, which webhook_dispatch.py sends.

An event becomes a row in the transaction that makes it true, so none is lost and none is sent of what did not happen.
Rows are tried again with exponential back-off for an hour. The tenant's URL gets events signed by the Standard
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
    """Send once more, now. False: it has been delivered, or its body is deleted."""
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


# Repetitions


def next_attempt(attempts: int, created_at: datetime, now: datetime) -> datetime | None:
    """When to try again after so many attempts: 5 s, doubled each time up to ten minutes, half of it random so that a
    receiver that comes back is not met by all at once. None: the hour is over."""
    wait = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 20), LONGEST_RETRY_S)
    at = now + timedelta(seconds=wait * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
    return at if at <= created_at + RETRY_FOR else None
