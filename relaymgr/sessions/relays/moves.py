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
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from causeway_client.protocol.offers import MAX_DEADLINE
from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable
from relaymgr.nodes.selectors import nodes_responsive

from ..grants import grant_withdraw, grants_change, session_push_grants
from ..models import Grant, GrantRole, RelaySession, Seat, SessionState
from ..placement.standby import STANDBY_TEXTS, StandbyRule
from .promotion import standby_promote

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

logger = logging.getLogger(__name__)

MOVES_PER_SECOND = 50  # of a node: its players connect elsewhere at the same time
MAX_DEADLINE_S = MAX_DEADLINE // 1000
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
    until = timezone.now() + timedelta(seconds=min(deadline_s, MAX_DEADLINE_S))
    if not standby_promote(session, reason="planned", leaving_until=until):
        return CHANGED
    try:
        session_push_grants(RelaySession.objects.select_related("worker__node").get(pk=session.pk))
    except (NodeUnreachable, NodeRefused) as error:
        logger.warning("the reconciler repeats the move of %s: %s", session, error)
    return ""


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
