"""Repeatable creations (IETF draft "The Idempotency-Key HTTP Header Field").

The same key with the same body gets the session of the first request. Keys and bodies are stored as hashes, for
IDEMPOTENCY_RETENTION_HOURS.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils import timezone

from ..errors import KeyInProgress, KeyMismatch
from ..models import IdempotencyKey, RelaySession, SessionState
from ..selectors import session_get
from ..services import session_create

if TYPE_CHECKING:
    from relaymgr.tenants.models import Tenant

ABANDONED = timedelta(seconds=30)  # after which a first request without a session counts as failed


def session_create_once(*, tenant: Tenant, key: str, body: Any, **wanted: Any) -> RelaySession:
    """Calls `services.session_create` with `wanted`, once for each key. A failed creation is repeated.

    Raises KeyInProgress, KeyMismatch and what `session_create` raises.
    """
    claim = _claim(tenant, _digest(key), _digest(json.dumps(body, sort_keys=True)))
    if claim.session_id is not None:
        return session_get(tenant=tenant, session_id=claim.session_id)
    try:
        return session_create(tenant=tenant, idempotency_key=claim, **wanted)
    except Exception:
        IdempotencyKey.objects.filter(pk=claim.pk, session=None).delete()
        raise


def idempotency_prune() -> int:
    kept = timedelta(hours=settings.IDEMPOTENCY_RETENTION_HOURS)
    return IdempotencyKey.objects.filter(created_at__lt=timezone.now() - kept).delete()[0]


def _claim(tenant: Tenant, key_hash: str, request_hash: str) -> IdempotencyKey:
    """The key's row. It has no session if the caller has to create it."""
    row, is_new = IdempotencyKey.objects.select_related("session").get_or_create(
        tenant=tenant, key_hash=key_hash, defaults={"request_hash": request_hash}
    )
    if row.request_hash != request_hash:
        raise KeyMismatch
    if not is_new and not _is_answered(row):
        _take_over(row)
    return row


def _is_answered(row: IdempotencyKey) -> bool:
    return row.session is not None and row.session.state in (SessionState.READY, SessionState.ENDED)


def _take_over(row: IdempotencyKey) -> None:
    """Takes the key over from a request that failed or was interrupted. Of several callers one succeeds.

    Raises KeyInProgress."""
    now = timezone.now()
    unchanged = IdempotencyKey.objects.filter(pk=row.pk, session=row.session_id, created_at=row.created_at)
    if row.session is None:
        unchanged = unchanged.filter(created_at__lt=now - ABANDONED)
    else:
        unchanged = unchanged.filter(session__state=SessionState.FAILED)
    if not unchanged.update(session=None, created_at=now):
        raise KeyInProgress
    row.session = None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
