"""The standby relay of a session that is being created.

Its seats are reserved in the same transaction as those on the node that will serve the session, and both nodes are
asked at the same time. A standby relay that does not confirm neither fails nor delays the session by more than
STANDBY_WAIT: the reconciler continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction

from relaymgr.nodes.control_client import NodeRefused, NodeUnreachable, StartedPut
from relaymgr.nodes.services import worker_reserve

from ..grants import grant_start, grant_withdraw
from ..models import Grant, GrantRole, RelaySession
from ..placement import record
from ..placement.ranking import Ranking
from ..placement.standby import StandbyRule, choose_standby
from .sealing import seal_for_standby

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayWorker


def with_room(workers: Sequence[RelayWorker], seats: int) -> list[RelayWorker]:
    """Those that have room, the emptiest first."""
    found = [worker for worker in workers if worker.free_seats >= seats]
    return sorted(found, key=lambda worker: (-worker.free_seats, worker.index))


class Standby:
    """Of a session that the node `active` is asked to serve. A session that wants none has a `standby_reason`."""

    def __init__(
        self, session: RelaySession, ranking: Ranking, active: str, workers: Mapping[int, Sequence[RelayWorker]]
    ):
        self._session = session
        self._grant: Grant | None = None
        self._started: StartedPut | None = None
        self._candidate: RelayWorker | None = None
        for seat in session.active_seats:
            seat.standby_token = ""
        if not session.wants_standby:
            self._rule = StandbyRule(session.standby_reason)
            return
        choice = choose_standby(ranking, active)
        self._rule = choice.rule
        seats = len(session.active_seats)
        found = (worker for node in choice.nodes for worker in with_room(workers[node.node_id], seats))
        self._candidate = next(found, None)

    def reserve(self, *, before: int = 0, after: int = 0) -> None:
        """Reserves the seats on a worker whose id is before, or after, that of the active one. Call it in the
        transaction that records the session, before its seats are stored."""
        if before:
            self._grant = None  # an earlier worker of the same node had no room
        worker, seats = self._candidate, len(self._session.active_seats)
        if worker and (worker.pk < before if before else worker.pk > after) and self._reserved(worker):
            self._grant = Grant(session=self._session, worker=worker, role=GrantRole.STANDBY, seats_reserved=seats)

    def _reserved(self, worker: RelayWorker) -> bool:
        seats = self._session.active_seats
        try:
            seal_for_standby(self._session, seats, worker)
        except ObjectDoesNotExist:
            return False  # its node was removed after the ranking
        return worker_reserve(worker_id=worker.pk, seats=len(seats))

    def grants(self) -> list[Grant]:
        return [self._grant] if self._grant else []

    def start(self) -> None:
        """Starts to ask the node. Call it after the transaction."""
        if self._grant:
            timeout_s = settings.GRANT_TIMEOUT
            self._started = grant_start(self._grant, self._session.active_seats, timeout_s=timeout_s)

    def withdraw(self) -> None:
        """The session goes to another node, with another standby relay."""
        if self._grant:
            grant_withdraw(self._grant)

    def finish(self) -> list[Grant]:
        """Waits for the answer, sets the session's standby relay or the reason why there is none yet, and returns the
        grant if it is confirmed. Call it when the active node has confirmed."""
        session, grant = self._session, self._grant
        if grant is None or self._started is None:
            if self._rule == StandbyRule.CHOSEN:
                self._rule = StandbyRule.NO_ROOM
            session.standby_reason = self._rule.value
            return []
        try:
            is_confirmed = self._started.revision(settings.STANDBY_WAIT) >= grant.revision
        except NodeUnreachable:
            is_confirmed = False  # the reconciler pushes it again
        except NodeRefused as refusal:
            is_confirmed = False
            with transaction.atomic():
                grant_withdraw(grant, node_never_had_it=True)
            self._grant = None
            self._rule = StandbyRule.NO_ROOM if refusal.code == "full" else StandbyRule.NOT_CONFIRMED
        if not is_confirmed:
            if self._rule == StandbyRule.CHOSEN:
                self._rule = StandbyRule.NOT_CONFIRMED
            session.standby_reason = self._rule.value
            return []
        session.standby, session.standby_reason = grant.worker, ""
        return [grant]

    @property
    def record(self) -> record.Standby:
        return record.Standby(str(self._grant.worker.node) if self._grant else None, self._rule.value)
