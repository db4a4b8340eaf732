"""Queries across all tenants, for the console, `relayctl` and metrics."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db.models import Case, Count, F, Max, Q, QuerySet, When
from django.db.models.functions import Coalesce

from .grants import unconfirmed, unconfirmed_on_responsive_nodes
from .models import LIVE_STATES, SEAT_SECRETS, EventKind, Grant, RelaySession, Seat, SessionEvent, SessionState
from .selectors import sessions_wanted

__all__ = [
    "EventKind",
    "SessionState",
    "events_matching",
    "events_newest",
    "grants_lagging_by_node",
    "grants_pending_since",
    "live_sessions_by_state",
    "live_sessions_by_tenant",
    "live_sessions_by_worker",
    "live_sessions_of_node",
    "placement_document",
    "seats_without_secrets",
    "session_exists",
    "session_find",
    "session_grants",
    "session_ids",
    "sessions_all",
]

SECRETS = ("token", "peer_root", "tenant__webhook_secret", "worker__node__control_key")


def sessions_all() -> QuerySet[RelaySession]:
    """Every session with its tenant and node, `seats_held` and `seats_connected`; without secrets and placement."""
    held = Count("seats", filter=Q(seats__revoked_at=None))
    connected = Count("seats", filter=Q(seats__is_connected=True, seats__revoked_at=None))
    found = RelaySession.objects.select_related("tenant", "worker__node__location").defer("placement", *SECRETS)
    return found.annotate(seats_held=held, seats_connected=connected)


def session_ids(
    *, state: str, tenant: str, location: str, node: str, metadata: Collection[tuple[str, str]], at_most: int
) -> list[str]:
    """The newest sessions in that state, or the newest live ones; an empty filter matches all."""
    wanted = sessions_wanted(state=state, location=location, metadata=metadata)
    if tenant:
        wanted &= Q(tenant__slug=tenant)
    if node:
        wanted &= Q(worker__node__name=node)
    return list(RelaySession.objects.filter(wanted).values_list("pk", flat=True)[:at_most])


def session_exists(*, session_id: str) -> bool:
    return RelaySession.objects.filter(pk=session_id).exists()


def session_find(*, session_id: str) -> Any | None:
    return sessions_all().filter(pk=session_id).first()


def placement_document(*, session_id: str) -> Any:
    """As it is stored."""
    return RelaySession.objects.values_list("placement", flat=True).get(pk=session_id)


def live_sessions_of_node(*, node_id: int, at_most: int) -> list[RelaySession]:
    """The newest ones, with their tenants."""
    live = RelaySession.objects.filter(worker__node=node_id, state__in=LIVE_STATES)
    return list(live.select_related("tenant").defer("placement").order_by("-created_at")[:at_most])


def live_sessions_by_state() -> dict[str, int]:
    live = RelaySession.objects.filter(state__in=LIVE_STATES).order_by().values_list("state")
    return dict.fromkeys((str(state) for state in LIVE_STATES), 0) | dict(live.annotate(count=Count("pk")))


def standby_missing_by_reason() -> dict[str, int]:
    """How many ready sessions have no standby relay, by the reason (placement/standby.py)."""
    without = RelaySession.objects.filter(state=SessionState.READY, standby=None).order_by()
    return dict(without.exclude(standby_reason="").values_list("standby_reason").annotate(count=Count("pk")))


def live_sessions_by_tenant() -> dict[int, int]:
    live = RelaySession.objects.filter(state__in=LIVE_STATES).order_by().values_list("tenant")
    return dict(live.annotate(count=Count("pk")))


def live_sessions_by_worker(*, node_id: int) -> dict[int, int]:
    live = RelaySession.objects.filter(worker__node=node_id, state__in=LIVE_STATES).order_by().values_list("worker")
    return dict(live.annotate(count=Count("pk")))


def seats_without_secrets(session: RelaySession) -> QuerySet[Seat]:
    return session.seats.defer(*SEAT_SECRETS)


def session_grants(session: RelaySession) -> QuerySet[Grant]:
    """The grants of a session with their nodes."""
    return session.grants.select_related("worker__node").defer("worker__node__control_key")


def events_newest(*, at_most: int) -> list[SessionEvent]:
    return list(SessionEvent.objects.order_by("-pk")[:at_most])


def events_matching(
    *, kinds: Collection[str], session: str, tenant: str, node: str, location: str
) -> QuerySet[SessionEvent]:
    """With tenant and node. An empty filter matches all."""
    wanted = Q(kind__in=kinds) if kinds else Q()
    if session:
        wanted &= Q(session=session)
    if tenant:
        wanted &= Q(session__tenant__slug=tenant)
    if node:
        wanted &= Q(session__worker__node__name=node)
    if location:
        wanted &= Q(session__worker__node__location__slug=location)
    joined = SessionEvent.objects.select_related("session__tenant", "session__worker__node__location")
    return joined.filter(wanted).defer("session__placement", *(f"session__{name}" for name in SECRETS))


def grants_lagging_by_node(*, created_before: datetime, node_id: int | None = None) -> dict[str, int]:
    """{node: its grants of before then that it has not confirmed}, the highest count first. Of all nodes, or of one."""
    lagging = unconfirmed().filter(created_at__lt=created_before).order_by()
    if node_id is not None:
        lagging = lagging.filter(worker__node=node_id)
    counts = lagging.values_list("worker__node__name").annotate(count=Count("pk")).order_by("-count")
    return dict(counts)


def grants_pending_since() -> list[datetime]:
    """For each grant that a responding node has not confirmed, since when. A wanted grant has waited since the last
    change of its seats, an unwanted one since the end of its session."""
    changes = Q(session__events__kind__in=(EventKind.SEAT_ADDED, EventKind.SEAT_REVOKED))
    since = Case(
        When(wanted=True, then=Coalesce(Max("session__events__at", filter=changes), F("created_at"))),
        default=Coalesce("session__ended_at", F("created_at")),
    )
    return list(unconfirmed_on_responsive_nodes().order_by().annotate(since=since).values_list("since", flat=True))
