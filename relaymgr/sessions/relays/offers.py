"""The offers that nodes make to players: credentials for another relay of their session (PROTOCOL.md 14.6).

They are derived from the rows: the active node offers the standby relay, and a node that the session leaves offers the
one to which it moves.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from nodeapi.grants import SeatOffer

from ..models import LIVE_STATES, Grant, GrantRole, Seat

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

Offers = dict[int, SeatOffer]  # by the numbers of the seats

_PLACES = ("node__public_ip", "node__public_ipv6", "client_port")
_COLUMNS = (
    "session_id",
    "number",
    "offer_number",
    "session__grants__role",
    "session__grants__leaving_until",
    "standby_token",
    *(f"session__standby__{name}" for name in _PLACES),
    *(f"session__worker__{name}" for name in _PLACES),
)


def offers_of_grant(grant: Grant) -> Offers:
    """Needs the session joined. No query for a session that never had an offer."""
    if not grant.session.offer_number or grant.role == GrantRole.STANDBY:
        return {}
    return _offers(Q(session__grants=grant.pk)).get(grant.session_id, {})


def offers_of_node(node: RelayNode) -> dict[str, Offers]:
    """{session id: its offers}, of all sessions that the node serves. One query."""
    return _offers(Q(session__grants__worker__node=node, session__grants__wanted=True))


def _offers(grants: Q) -> dict[str, Offers]:
    found: dict[str, Offers] = defaultdict(dict)
    for session, number, offer_number, role, until, token, *places in _seats(grants).values_list(*_COLUMNS):
        if role == GrantRole.ACTIVE:
            offer = _offer(offer_number, "standby", places[:3], token, 0)
        else:
            offer = _offer(offer_number, "move", places[3:], token, _deadline_ms(until))
        if offer:
            found[session][number] = offer
    return found


def _seats(grants: Q) -> QuerySet[Seat]:
    offered = Q(offer_number__gt=0, revoked_at=None, session__state__in=LIVE_STATES)
    roles = Q(session__grants__role__in=(GrantRole.ACTIVE, GrantRole.LEAVING))
    return Seat.objects.filter(offered & roles & grants).order_by()


def _deadline_ms(until: datetime | None) -> int:
    left = (until - timezone.now()).total_seconds() if until else 0.0
    return int(1000 * max(0.0, left))


def _offer(number: int, kind: Any, place: list[Any], token: str, deadline_ms: int) -> SeatOffer | None:
    """None: there is no such relay, or not any more."""
    ip, ipv6, port = place
    if not ip or not token:
        return None
    return SeatOffer(number, kind, ip, port, token, ipv6 or "", deadline_ms)
