"""Seals the connect tokens of a session's seats for the nodes that serve it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from django.utils import timezone

from relaymgr.nodes.selectors import token_key_current

from ..models import Grant, GrantRole, RelaySession, Seat
from ..tokens import seal_connect_token, seal_standby_token, seat_key_of_standby

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayWorker

SEALED = ("seat_key", "connect_token", "standby_token")  # the columns of a seat that are set here


def seats_seal(session: RelaySession, seats: Sequence[Seat], grants: Iterable[Grant]) -> None:
    """Sets the tokens for the active node and for the standby relay; not in the database. A token is valid on one node
    only. Raises TokenKey.DoesNotExist for a node that never joined."""
    for grant in grants:
        if grant.role == GrantRole.ACTIVE:
            seal_for_active(session, seats, grant.worker)
        elif grant.role == GrantRole.STANDBY:
            seal_for_standby(session, seats, grant.worker)


def seal_for_active(session: RelaySession, seats: Iterable[Seat], worker: RelayWorker) -> None:
    key, now = token_key_current(node=worker.node), timezone.now()
    for seat in seats:
        seat.connect_token = seal_connect_token(session, seat, worker_index=worker.index, key=key, now=now)


def seal_for_standby(session: RelaySession, seats: Iterable[Seat], worker: RelayWorker) -> None:
    key, now = token_key_current(node=worker.node), timezone.now()
    for seat in seats:
        seat.standby_token = seal_standby_token(session, seat, worker_index=worker.index, key=key, now=now)


def seal_for_new_active(session: RelaySession, seats: Sequence[Seat], worker: RelayWorker) -> None:
    """The same for the standby relay, or the target of a move, that becomes the active node. Players that have a leg to
    it keep their seat key, which the previous node does not know."""
    for seat in seats:
        if seat.standby_token:
            seat.seat_key = seat_key_of_standby(seat)
    seal_for_active(session, seats, worker)
