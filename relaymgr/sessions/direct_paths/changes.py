"""Changes of the direct modes of a running session (docs/direct-paths.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from django.db import transaction

from web.errors import Invalid
from web.log_config import about_session

from ..errors import SeatUnknown, SessionNotLive
from ..grants import grants_change
from ..lifecycle import record_event
from ..models import EventKind, Grant, RelaySession, Seat
from ..relays.sealing import SEALED, seats_seal
from ..selectors import session_get
from ..services import push_or_fail
from .modes import NEEDS_NATIVE, NEEDS_NATIVE_TEXT, RELAY_ONLY, session_mode, strictest
from .peer_keys import new_peer_root

if TYPE_CHECKING:
    from relaymgr.tenants.models import Tenant


def direct_modes_change(
    *, tenant: Tenant, session_id: str, direct_mode: str = "", seats: Mapping[int, str] | None = None
) -> RelaySession:
    """Changes the direct mode of a session ("": it stays), and those that are requested for single seats, by number.
    The strictest of tenant, session and seat applies, as in a new session. Returns the session as `session_get` reads
    it; its node has applied the modes, and notified the players.

    Raises SessionUnknown, SessionNotLive, SeatUnknown, NodeSilent, and Invalid if the session admits the edgegap
    dialect and a mode permits direct paths.
    """
    about_session(session_id)
    seats = seats or {}
    session = session_get(tenant=tenant, session_id=session_id)
    if not session.is_ready:
        raise SessionNotLive
    if "edgegap" in session.dialects and {direct_mode or RELAY_ONLY, *seats.values()} != {RELAY_ONLY}:
        raise Invalid.field("direct_mode", NEEDS_NATIVE_TEXT, NEEDS_NATIVE)
    with transaction.atomic():
        grants = grants_change(session)
        if not grants:
            raise SessionNotLive
        # With the grant locked: concurrent changes of one session follow each other.
        session.refresh_from_db(fields=["direct_mode", "peer_root"])
        is_changed = _session_change(session, direct_mode)
        if not _seats_change(session, grants, seats, all_seats=bool(direct_mode)) and not is_changed:
            transaction.set_rollback(True)
    push_or_fail(session)
    return session_get(tenant=tenant, session_id=session_id)


def _session_change(session: RelaySession, requested: str) -> bool:
    before = session.direct_mode
    if requested:
        session.direct_mode = session_mode(
            tenant=session.tenant.direct_mode, requested=requested, dialects=session.dialects
        )
    if session.direct_mode == before:
        return False
    if session.direct_mode != RELAY_ONLY and not session.peer_root:
        session.peer_root = new_peer_root()
    session.save(update_fields=["direct_mode", "peer_root"])
    record_event(session, EventKind.DIRECT_MODE_CHANGED, reason=f"from {before} to {session.direct_mode}")
    return True


def _seats_change(
    session: RelaySession, grants: Sequence[Grant], requested: Mapping[int, str], *, all_seats: bool
) -> bool:
    """Whether a requested or effective mode has changed. `all_seats`: the session's mode may have changed."""
    present = {seat.number: seat for seat in Seat.objects.filter(session=session, revoked_at=None)}
    if unknown := sorted(requested.keys() - present.keys()):
        raise SeatUnknown(details={"seats": unknown})
    changed = []
    for seat in present.values() if all_seats else (present[number] for number in requested):
        before = seat.requested_direct_mode, seat.direct_mode
        seat.requested_direct_mode = requested.get(seat.number, seat.requested_direct_mode)
        modes = session.tenant.direct_mode, session.direct_mode, seat.requested_direct_mode
        seat.direct_mode = strictest(*modes)
        if before != (seat.requested_direct_mode, seat.direct_mode):
            changed.append(seat)
        if seat.number in requested and before[1] != seat.direct_mode:
            reason = f"from {before[1]} to {seat.direct_mode}"
            record_event(session, EventKind.DIRECT_MODE_CHANGED, seat=seat.number, reason=reason)
    if changed and "native" in session.dialects:
        # The token that the player has stays valid. A node knows the mode from the grant; it reads that of a token
        # only while it does not have the grant.
        seats_seal(session, changed, grants)
    Seat.objects.bulk_update(changed, ["requested_direct_mode", "direct_mode", *SEALED])
    return bool(changed)
