"""The standby relay of a ready session: it is accepted when its node confirms, replaced when it fails, and offered to
the players by the node that serves the session."""

from __future__ import annotations

from django.db import transaction

from web.database.bulk_sql import rows_update

from ..grants import grant_withdraw, grants_change
from ..lifecycle import record_event
from ..models import EventKind, Grant, GrantRole, RelaySession, Seat
from ..placement.standby import StandbyRule
from .sealing import seal_for_standby


def standby_withdraw(session: RelaySession, grant: Grant, rule: StandbyRule) -> None:
    """The session has no standby relay any more. Call it in a transaction that has locked the session's grants."""
    grant_withdraw(grant)
    without = {"standby": None, "standby_reason": rule.value, "standby_checked_at": None}
    RelaySession.objects.filter(pk=session.pk).update(**without)
    Seat.objects.filter(session=session).update(standby_token="", offer_number=0)
    record_event(session, EventKind.STANDBY_LOST, reason=f"{grant.worker}: {rule.value}")
    session.standby = None


def standby_confirmed(grant: Grant) -> bool:
    """Makes the node of a confirmed grant the standby relay, and offers it to the players. False: it is one already,
    or the session has ended or changed meanwhile. The caller pushes the grants."""
    with transaction.atomic():
        session = grant.session
        grants = grants_change(session)
        standby = next((each for each in grants if each.pk == grant.pk and each.role == GrantRole.STANDBY), None)
        session.refresh_from_db(fields=["standby", "offer_number"])
        if standby is None or session.standby_id is not None:
            transaction.set_rollback(True)
            return False
        seats = list(Seat.objects.filter(session=session, revoked_at=None))
        seal_for_standby(session, [seat for seat in seats if not seat.standby_token], standby.worker)
        offer = session.offer_number + 1
        rows_update(Seat, ("standby_token", "offer_number"), [(seat.standby_token, offer, seat.pk) for seat in seats])
        changes = {"standby": standby.worker, "standby_reason": "", "offer_number": offer}
        RelaySession.objects.filter(pk=session.pk).update(**changes)
        record_event(session, EventKind.STANDBY_READY, reason=str(standby.worker))
    return True


def standby_refused(grant: Grant, rule: StandbyRule) -> None:
    """Its node has refused the session: another one is chosen later."""
    with transaction.atomic():
        found = [each for each in grants_change(grant.session) if each.pk == grant.pk]
        if found:
            standby_withdraw(grant.session, found[0], rule)
