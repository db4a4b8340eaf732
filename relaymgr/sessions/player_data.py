"""The personal data of players in sessions: minimised when a session has ended, exported and erased on request.

docs/data-protection.md lists every place, for how long data is kept there, and by which setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from relaymgr.telemetry.estimation.prefixes import first_address, prefix_of
from relaymgr.telemetry.selectors import leg_samples, paths_of_player
from relaymgr.telemetry.services import leg_samples_delete, path_samples_delete
from relaymgr.tenants.choices import PlayerAddresses

from .models import ENDED_STATES, LIVE_STATES, SEAT_SECRETS, RelaySession, Seat, SessionEvent, WebhookDelivery

if TYPE_CHECKING:
    from relaymgr.tenants.models import Tenant

BATCH = 200  # sessions
SEATS_MAX = 1_000  # the newest ones, in one export
LEGS_MAX = 1_000  # samples of one seat, of its leg and of its paths
PERSONAL = ("player_id", "ip", "latitude", "longitude", "latencies", "measurements")


@dataclass(frozen=True)
class Player:
    """Identifies a player by a tenant's `player_id` or by an address. One of them is empty."""

    player_id: str = ""
    ip: str = ""

    @property
    def seats(self) -> Q:
        return Q(player_id=self.player_id) if self.player_id else Q(ip=self.ip)

    def is_in(self, document: Mapping[str, Any]) -> bool:
        """Whether a user in a webhook's body is this player."""
        if self.player_id:
            return bool(document.get("player_id") == self.player_id)
        return self.ip in (document.get("ip_address"), document.get("ip"), document.get("player_ip"))


# When a session has ended


def players_minimise() -> int:
    """Reduces the data of players in ended sessions to what their tenants allow. Returns how many sessions."""
    done = 0
    ended = RelaySession.objects.filter(state__in=ENDED_STATES, minimised_at=None).order_by("ended_at")
    while batch := list(ended.values_list("pk", "tenant__player_addresses")[:BATCH]):
        policies: dict[str, str] = dict(batch)
        with transaction.atomic():
            seats = list(Seat.objects.filter(session__in=policies).only("session", *PERSONAL))
            changed = [seat for seat in seats if _minimise(seat, policies[seat.session_id])]
            Seat.objects.bulk_update(changed, PERSONAL, batch_size=500)
            RelaySession.objects.filter(pk__in=policies).update(minimised_at=timezone.now())
        done += len(batch)
    return done


def _minimise(seat: Seat, policy: str) -> bool:
    """Whether the seat was changed."""
    if policy == PlayerAddresses.KEEP:
        return False
    is_truncated = policy == PlayerAddresses.TRUNCATE
    seat.ip = truncated(seat.ip) if is_truncated else None
    seat.latitude = _coarse(seat.latitude) if is_truncated else None
    seat.longitude = _coarse(seat.longitude) if is_truncated else None
    seat.latencies, seat.measurements = {}, {}
    return True


def truncated(address: str | None) -> str | None:
    """The first address of its /24 or /48, which many players share. None if there is no such network."""
    return first_address(prefix_of(address)) or None if address else None


def _coarse(degrees: float | None) -> float | None:
    """To a whole degree, which is about 100 km."""
    return None if degrees is None else float(round(degrees))


def payloads_prune() -> int:
    """Deletes the bodies of webhooks that are delivered, or were given up long enough ago. Returns how many."""
    given_up = Q(next_attempt_at=None, created_at__lt=timezone.now() - _payload_age())
    unneeded = WebhookDelivery.objects.filter(Q(delivered_at__isnull=False) | given_up, payload_deleted_at=None)
    pruned = 0
    while batch := list(unneeded.order_by().values_list("pk", flat=True)[:BATCH]):
        rows = WebhookDelivery.objects.filter(pk__in=batch)
        pruned += rows.update(payload="", payload_deleted_at=timezone.now())
    return pruned


def _payload_age() -> timedelta:
    return timedelta(hours=settings.WEBHOOK_PAYLOAD_RETENTION_HOURS)


# One player


def seats_of(*, tenant: Tenant, player: Player) -> QuerySet[Seat]:
    return Seat.objects.filter(player.seats, session__tenant=tenant)


def player_export(*, tenant: Tenant, player: Player) -> dict[str, Any]:
    """All data of the player in sessions of the tenant, without tokens. `more_seats`: only the newest are listed."""
    seats = seats_of(tenant=tenant, player=player).select_related("session__worker__node__location")
    seats = seats.defer(
        *SEAT_SECRETS,
        "session__placement",
        "session__token",
        "session__peer_root",
    )
    found = list(seats.order_by("-created_at")[: SEATS_MAX + 1])
    return {
        "seats": [_seat_document(seat) for seat in found[:SEATS_MAX]],
        "more_seats": len(found) > SEATS_MAX,
        "webhooks": list(_webhook_documents(found[:SEATS_MAX], player)),
    }


def _seat_document(seat: Seat) -> dict[str, Any]:
    session = seat.session
    legs = leg_samples(session_id=session.pk, seat=seat.number, limit=LEGS_MAX)
    return {
        "session": session.pk,
        "session_state": session.state,
        "session_created_at": session.created_at,
        "session_ended_at": session.ended_at,
        "location": session.worker.node.location.slug if session.worker else None,
        "seat": seat.number,
        **{name: getattr(seat, name) for name in PERSONAL},
        "dialect": seat.dialect,
        "created_at": seat.created_at,
        "revoked_at": seat.revoked_at,
        "events": [
            {"at": event.at, "kind": event.kind, "reason": event.reason}
            for event in SessionEvent.objects.filter(session=session, seat=seat.number)
        ],
        "paths": [
            {"at": path.at, "peer": path.peer, "path": path.path, "reason": path.reason, "rtt_ms": path.rtt_ms}
            for path in paths_of_player(session_id=session.pk, seat=seat.number, limit=LEGS_MAX)
        ],
        "legs": [{"at": leg.at, "rtt_ms": leg.rtt_ms, "jitter_ms": leg.jitter_ms, "loss": leg.loss} for leg in legs],
    }


def _webhook_documents(seats: Iterable[Seat], player: Player) -> Iterator[dict[str, Any]]:
    for delivery in _deliveries({seat.session_id for seat in seats}):
        for user in _users_in(json.loads(delivery.payload)):
            if player.is_in(user):
                kept = {name: value for name, value in user.items() if not _is_secret(name)}
                yield {"session": delivery.session_id, "event": delivery.event, "at": delivery.created_at, "user": kept}


def _is_secret(name: str) -> bool:
    return name.endswith(("token", "seat_key", "peer_keys", "offer_key", "standby"))


def player_erase(*, tenant: Tenant, player: Player) -> int:
    """Deletes the player's data from all sessions of the tenant. In live ones the player stays connected. Returns how
    many seats were changed."""
    erased = 0
    seats = seats_of(tenant=tenant, player=player).order_by("pk")
    while batch := list(seats.only("session", "number", *PERSONAL)[:BATCH]):
        with transaction.atomic():
            for delivery in _deliveries({seat.session_id for seat in batch}):
                _delivery_scrub(delivery, player)
            for seat in batch:
                seat.player_id, seat.ip, seat.latitude, seat.longitude = "", None, None, None
                seat.latencies, seat.measurements = {}, {}
                leg_samples_delete(session_id=seat.session_id, seat=seat.number)
                path_samples_delete(session_id=seat.session_id, seat=seat.number)
            Seat.objects.bulk_update(batch, PERSONAL)
        erased += len(batch)
    return erased


def _deliveries(sessions: set[str]) -> QuerySet[WebhookDelivery]:
    return WebhookDelivery.objects.filter(session__in=sessions, payload_deleted_at=None).order_by("pk")


def _delivery_scrub(delivery: WebhookDelivery, player: Player) -> None:
    """A delivery that is still to be sent keeps its other data."""
    document = json.loads(delivery.payload)
    found = [user for user in _users_in(document) if player.is_in(user)]
    for user in found:
        _user_scrub(user)
    if found:
        delivery.payload = json.dumps(document, separators=(",", ":"))
        delivery.save(update_fields=["payload"])


def _user_scrub(user: dict[str, Any]) -> None:
    blank = {"player_id": "", "ip_address": None, "ip": None, "latitude": 0.0, "longitude": 0.0}
    user |= {name: value for name, value in blank.items() if name in user}


def _users_in(document: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document that may be a user, of a session or of an event of one player."""
    if isinstance(document, dict):
        yield document
        for value in document.values():
            yield from _users_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from _users_in(value)


def sessions_live_with(*, tenant: Tenant, player: Player) -> int:
    """The number of live sessions in which the player has a seat."""
    live = seats_of(tenant=tenant, player=player).filter(session__state__in=LIVE_STATES, revoked_at=None)
    return live.values("session").distinct().count()
