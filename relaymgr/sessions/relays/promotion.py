"""The standby relay of a session becomes its active node, because the other one has failed or is to be left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F

from web import metrics
from web.database.bulk_sql import rows_update

from ..grants import grant_withdraw, grants_change
from ..lifecycle import record_event
from ..models import EventKind, Grant, GrantRole, RelaySession, Seat, SessionState
from ..placement.standby import StandbyRule
from ..webhooks.deliveries import relay_notify
from .sealing import SEALED, seal_for_new_active

if TYPE_CHECKING:
    from datetime import datetime

REASONS = frozenset({"planned", "silent", "refused", "ended", "epoch", "node_lost"})


def standby_promote(
    session: RelaySession, *, reason: str, gap_ms: int = 0, leaving_until: datetime | None = None
) -> bool:
    """One conditional UPDATE decides. False: the session has ended, or its relays have changed meanwhile.

    `leaving_until`: until then at the latest, the node that is left keeps the session and offers the move to the
    players; None: it is withdrawn at once. `gap_ms`: 0: not known. The caller pushes the grants, or the reconciler."""
    before, after = session.worker, session.standby
    changes: dict[str, Any] = {"worker": after, "standby": None, "standby_reason": StandbyRule.LOST.value}
    changes |= {"epoch": F("epoch") + 1, "better_relay": {}}
    if leaving_until is None:
        changes["standby_checked_at"] = None
    else:
        changes["offer_number"] = F("offer_number") + 1
    with transaction.atomic():
        grants = grants_change(session)
        current = RelaySession.objects.filter(pk=session.pk, state=SessionState.READY, worker=before, standby=after)
        standby = next((grant for grant in grants if after and grant.worker_id == after.pk), None)
        if standby is None or not current.update(**changes):
            transaction.set_rollback(True)
            return False
        _seats_change(session, standby, is_offered=leaving_until is not None)
        Grant.objects.filter(pk=grants[0].pk).update(role=GrantRole.LEAVING, leaving_until=leaving_until)
        Grant.objects.filter(pk=standby.pk).update(role=GrantRole.ACTIVE)
        if leaving_until is None:
            grant_withdraw(grants[0])
        text = f"from {before} to {after}: {reason}" + (f", longest gap {gap_ms} ms" if gap_ms else "")
        record_event(session, EventKind.RELAY_CHANGED, reason=text)
        relay_notify(
            session, before=str(before and before.node), after=str(after and after.node), reason=reason, gap_ms=gap_ms
        )
    metrics.relay_changes.labels(metrics.one_of(reason, REASONS)).inc()
    if gap_ms:
        metrics.relay_change_gap_seconds.observe(gap_ms / 1000)
    return True


def _seats_change(session: RelaySession, standby: Grant, *, is_offered: bool) -> None:
    """`is_offered`: the players still need their token for the standby relay, in the offer of the move."""
    seats = list(Seat.objects.filter(session=session, revoked_at=None).order_by("pk"))
    seal_for_new_active(session, seats, standby.worker)
    number = RelaySession.objects.values_list("offer_number", flat=True).get(pk=session.pk) if is_offered else 0
    rows = [
        (seat.seat_key, seat.connect_token, seat.standby_token if is_offered else "", number, seat.pk) for seat in seats
    ]
    rows_update(Seat, (*SEALED, "offer_number"), rows)
