"""Planned moves: a session leaves a node that is to be taken out of service, for its standby relay.

The standby relay becomes the active node at once. The node that is left keeps the session, and offers the move to the
players, until all of them have changed or the deadline has passed (PROTOCOL.md 14.6).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.selectors import nodes_responsive
from web import metrics
from web.database.bulk_sql import rows_update

from ..grants import grant_withdraw, grants_change, session_push_grants
from ..lifecycle import record_event
from ..models import EventKind, Grant, GrantRole, RelaySession, Seat, SessionState
from ..placement.standby import STANDBY_TEXTS, StandbyRule
from ..webhooks.deliveries import relay_notify
from .sealing import SEALED, seal_for_new_active

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

logger = logging.getLogger(__name__)

MOVES_PER_SECOND = 50  # of a node: its players connect elsewhere at the same time
MAX_DEADLINE_S = 600
BATCH = 500
STANDBY_SILENT = "standby_not_responding"
CHANGED = "changed_meanwhile"
_TEXTS = {
    **STANDBY_TEXTS,
    STANDBY_SILENT: "Its standby relay does not respond.",
    CHANGED: "It ended, or changed its relay, at the same time.",
}


@dataclass(frozen=True)
class Moved:
    """What became of one session of a node. `reason` "": it moves; else a code, and `text` its sentence."""

    session: str
    reason: str = ""

    @property
    def text(self) -> str:
        return _TEXTS.get(self.reason, "")


def node_sessions_move(
    node: RelayNode, *, deadline_s: int, pause: Callable[[float], None] = time.sleep
) -> Iterator[Moved]:
    """Moves each session of the node that can be moved, at most MOVES_PER_SECOND."""
    sessions = RelaySession.objects.filter(worker__node=node, state=SessionState.READY).order_by("pk")
    responsive = set(nodes_responsive().values_list("pk", flat=True))
    for pk in list(sessions.values_list("pk", flat=True)):
        session = sessions.select_related("tenant", "worker__node", "standby__node").defer("placement").filter(pk=pk)
        if (found := session.first()) is None:
            continue
        began = time.monotonic()
        yield Moved(pk, _move(found, responsive, deadline_s))
        pause(max(0.0, 1 / MOVES_PER_SECOND - (time.monotonic() - began)))


def _move(session: RelaySession, responsive: set[int], deadline_s: int) -> str:
    if session.standby is None:
        return session.standby_reason or StandbyRule.NOT_CONFIRMED.value
    if session.standby.node_id not in responsive:
        return STANDBY_SILENT
    if not session_move(session, deadline_s=deadline_s):
        return CHANGED
    try:
        session_push_grants(RelaySession.objects.select_related("worker__node").get(pk=session.pk))
    except (NodeUnreachable, NodeRefused) as error:
        logger.warning("the reconciler repeats the move of %s: %s", session, error)
    return ""


def session_move(session: RelaySession, *, deadline_s: int) -> bool:
    """Makes the standby relay the active node, and has the other one offer it to the players. False: the session has
    ended, or its relays have changed meanwhile. The caller pushes the grants."""
    before, after = session.worker, session.standby
    until = timezone.now() + timedelta(seconds=min(deadline_s, MAX_DEADLINE_S))
    with transaction.atomic():
        grants = grants_change(session)
        current = RelaySession.objects.filter(pk=session.pk, state=SessionState.READY, worker=before, standby=after)
        changes: dict[str, Any] = {"worker": after, "standby": None, "standby_reason": StandbyRule.LOST.value}
        changes |= {"epoch": F("epoch") + 1, "offer_number": F("offer_number") + 1, "better_relay": {}}
        standby = next((grant for grant in grants if after and grant.worker_id == after.pk), None)
        if standby is None or not current.update(**changes):
            transaction.set_rollback(True)
            return False
        offer = RelaySession.objects.values_list("offer_number", flat=True).get(pk=session.pk)
        seats = list(Seat.objects.filter(session=session, revoked_at=None).order_by("pk"))
        seal_for_new_active(session, seats, standby.worker)
        rows_update(
            Seat, (*SEALED[:2], "offer_number"), [(seat.seat_key, seat.connect_token, offer, seat.pk) for seat in seats]
        )
        Grant.objects.filter(pk=grants[0].pk).update(role=GrantRole.LEAVING, leaving_until=until)
        Grant.objects.filter(pk=standby.pk).update(role=GrantRole.ACTIVE)
        record_event(session, EventKind.RELAY_CHANGED, reason=f"from {before} to {after}: planned")
        relay_notify(
            session, before=str(before and before.node), after=str(after and after.node), reason="planned", gap_ms=0
        )
    metrics.relay_changes.labels("planned").inc()
    return True


def moves_finish() -> int:
    """Withdraws sessions from the nodes that all connected players have left, or of which the deadline has passed.
    Returns how many."""
    leaving = Grant.objects.filter(role=GrantRole.LEAVING, wanted=True, session__state=SessionState.READY)
    now, finished = timezone.now(), 0
    rows = leaving.select_related("session__worker", "worker__node").defer("session__placement").order_by("pk")
    for grant in rows[:BATCH]:
        worker = grant.session.worker
        connected = Seat.objects.filter(session=grant.session, revoked_at=None, is_connected=True)
        are_all_there = worker is not None and not connected.exclude(changed_relay_to=worker.node_id).exists()
        if not are_all_there and grant.leaving_until is not None and now < grant.leaving_until:
            continue
        with transaction.atomic():
            if grants_change(grant.session):
                grant_withdraw(grant)
                Seat.objects.filter(session=grant.session).update(standby_token="", offer_number=0)
                finished += 1
    return finished
