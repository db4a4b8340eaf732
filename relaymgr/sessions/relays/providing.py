"""Gives ready sessions a standby relay in place of one that failed, was drained, or could not be found before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from relaymgr.nodes.services import worker_reserve
from relaymgr.nodes.states import NodeState
from web.database.bulk_sql import objects_insert, rows_update

from ..grants import grants_change
from ..models import Grant, GrantRole, RelaySession, Seat, SessionState
from ..placement.inputs import constraints_of, group_of, legs_estimate, node_snapshots
from ..placement.ranking import rank
from ..placement.standby import StandbyRule, choose_standby
from ..selectors import with_details
from .sealing import seal_for_standby
from .standby import standby_withdraw
from .standby_creation import with_room

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayWorker

BATCH = 100  # sessions in one round
_NOT_ACTIVE = (GrantRole.STANDBY, GrantRole.LEAVING)  # a session has three relays at no time
AGAIN_AFTER = timedelta(seconds=10)


def standbys_check() -> int:
    """Withdraws standby relays whose nodes are lost or drained, and chooses new ones. Returns how many were chosen."""
    unusable = Q(standby__node__state=NodeState.LOST) | Q(standby__node__is_draining=True)
    unusable |= Q(standby__node__is_stopping=True)
    ready = RelaySession.objects.filter(state=SessionState.READY)
    for session in ready.filter(unusable).defer("placement").order_by("pk")[:BATCH]:
        with transaction.atomic():
            for grant in grants_change(session):
                if grant.role == GrantRole.STANDBY:
                    standby_withdraw(session, grant, StandbyRule.LOST)
    now = timezone.now()
    lacking = ready.filter(wants_standby=True, standby=None).exclude(standby_checked_at__gt=now - AGAIN_AFTER)
    lacking = lacking.exclude(grants__in=Grant.objects.filter(role__in=_NOT_ACTIVE, wanted=True))
    found = with_details(lacking).select_related("tenant", "worker__node__location")
    sessions = list(found.order_by(F("standby_checked_at").asc(nulls_first=True), "pk")[:BATCH])
    RelaySession.objects.filter(pk__in=[session.pk for session in sessions]).update(standby_checked_at=now)
    return sum(_standby_provide(session) for session in sessions)


def _standby_provide(session: RelaySession) -> bool:
    """Reserves a standby relay. The reconciler has its node confirm, and then offers it to the players."""
    rule, workers = _choice(session)
    # A node that had the session before has ended it, and does not take it again.
    used = set(Grant.objects.filter(session=session).values_list("worker", flat=True))
    worker = next((each for each in workers if each.pk not in used), None)
    if worker is None or not _reserve(session, worker):
        rule = StandbyRule.NO_ROOM if rule == StandbyRule.CHOSEN else rule
        RelaySession.objects.filter(pk=session.pk, standby=None).update(standby_reason=rule.value)
        return False
    return True


def _choice(session: RelaySession) -> tuple[StandbyRule, Sequence[RelayWorker]]:
    nodes, workers = node_snapshots()
    active = session.worker.node.name if session.worker else ""
    if not session.active_seats or all(node.node != active for node in nodes):
        return StandbyRule.ONLY_NODE, []
    group = group_of(session, constraints_of(session.tenant, session.constraints))
    choice = choose_standby(rank(group, nodes, legs_estimate(session.active_seats, nodes)), active)
    return choice.rule, [worker for node in choice.nodes for worker in with_room(workers[node.node_id], group.size)]


def _reserve(session: RelaySession, worker: RelayWorker) -> bool:
    with transaction.atomic():
        grants = grants_change(session)
        if not grants or any(grant.role in _NOT_ACTIVE for grant in grants):
            transaction.set_rollback(True)
            return False
        seats = list(Seat.objects.filter(session=session, revoked_at=None).order_by("pk"))
        if not worker_reserve(worker_id=worker.pk, seats=len(seats)):
            transaction.set_rollback(True)
            return False
        seal_for_standby(session, seats, worker)
        rows_update(Seat, ("standby_token",), [(seat.standby_token, seat.pk) for seat in seats])
        objects_insert([Grant(session=session, worker=worker, role=GrantRole.STANDBY, seats_reserved=len(seats))])
    return True
