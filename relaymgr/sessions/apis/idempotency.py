"""A POST that may be sent again (IETF draft "The Idempotency-Key HTTP Header Field").

The same key with the same body gets the session of the first request. Key and body are kept as hashes, for
IDEMPOTENCY_RETENTION_HOURS.
"""

import hashlib
import json
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from relaymgr.tenants.models import Tenant

from ..errors import KeyInProgress, KeyMismatch
from ..models import IdempotencyKey, RelaySession, SessionState
from ..selectors import session_get
from ..services import session_create

ABANDONED = timedelta(seconds=30)  # a first request that has made no session by now has died


def session_create_once(*, tenant: Tenant, key: str, body: Any, **wanted: Any) -> RelaySession:
    """As `services.session_create`, which gets `wanted`; once for a key. What failed is tried again.

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
    """The key's row: without a session when the caller is to make it."""
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
    """From a request that failed, or died before it made a session. Raises KeyInProgress; one of several wins."""
    now = timezone.now()
    mine = IdempotencyKey.objects.filter(pk=row.pk, session=row.session_id, created_at=row.created_at)
    if row.session is None:
        mine = mine.filter(created_at__lt=now - ABANDONED)
    else:
        mine = mine.filter(session__state=SessionState.FAILED)
    if not mine.update(session=None, created_at=now):
        raise KeyInProgress
    row.session = None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
