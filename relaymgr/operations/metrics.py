"""GET /metrics of the manager: the counters of the web processes, and the state of the fleet in the database.

Every web server reports the same state of the fleet, so queries take the maximum over them. Nodes are labels because
an operator creates each of them; sessions, players, tenants and addresses never are.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Case, Count, F, Max, Min, Q, Sum, When
from django.db.models.functions import Coalesce
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.views import APIView

from observability import exposition
from observability.database import pool_observe
from relaymgr.authentication import refuse
from relaymgr.nodes.models import NodeIncident, RelayNode
from relaymgr.nodes.states import DRAINING, NodeState
from relaymgr.sessions.grants import unconfirmed_by_answering
from relaymgr.sessions.models import LIVE_STATES, EventKind, RelaySession, WebhookDelivery, WebhookEndpoint
from relaymgr.sessions.webhooks.circuits import circuit_is_open
from relaymgr.telemetry.models import NodeEvent, NodeSample
from relaymgr.telemetry.process_exits import recent_restarts
from relaymgr.tenants.models import ApiKey
from web.admin.age import age_s
from web.database.connections import health
from web.errors import NotFound, Unauthorized

SAMPLES_OF = timedelta(seconds=10)  # a few rounds of probes


@extend_schema(exclude=True)
class MetricsApi(APIView):
    """Requires CAUSEWAY_METRICS_KEY as a bearer token. Answers 404 when that is not set."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> HttpResponse:
        if not settings.METRICS_KEY:
            raise NotFound
        if not exposition.may_read(request.headers.get("Authorization", ""), settings.METRICS_KEY):
            refuse(request, Unauthorized())
        pool_observe()
        return HttpResponse(exposition.render([FleetCollector()]), content_type=CONTENT_TYPE_LATEST)


class FleetCollector(Collector):
    """Reads the database, with a fixed number of queries whatever the size of the fleet."""

    def collect(self) -> Iterable[Metric]:
        now = timezone.now()
        families: list[Metric] = []
        try:
            for read in (_nodes, _sessions, _players, _grants, _events, _webhooks, _keys, _restarts, _incidents):
                families += read(now)
        except DatabaseError:
            families = []
        text = "1: the database responds and accepts writes."
        yield GaugeMetricFamily("causeway_database_up", text, 1 if families and health() == "works" else 0)
        yield from families

    def describe(self) -> Iterable[Metric]:
        return []  # no query before the first scrape


def _nodes(now: datetime) -> Iterator[Metric]:
    by_state = dict.fromkeys([*NodeState.values, DRAINING], 0)
    seen = _per_node("last_seen_age_seconds", "Time since the node last responded to a probe.")
    state = _per_node("state", "1 for the current state of the node, 0 for the others.", "state")
    missed = _per_node("missed_probes", "Consecutive probes without a response.")
    clock = _per_node(
        "clock_offset_seconds", "How far its clock is ahead of the manager's. Absent while the node is silent."
    )
    cpu = _per_node("cpu_ratio", "Share of a core that its busiest worker uses. Absent while the node is silent.")
    free = _per_node("seats_free", "Free seats.")
    seats = _per_node("seats", "Capacity in seats.")
    nodes = RelayNode.objects.annotate(free=Sum("workers__free_seats"), seats=Sum("workers__capacity")).order_by()
    newest: datetime | None = None
    for node in nodes.select_related("location"):
        names = [node.name, node.location.slug]
        found = node.status
        by_state[found] += 1
        for each in by_state:
            state.add_metric([*names, each], each == found)
        if node.last_seen_at:
            newest = max(newest or node.last_seen_at, node.last_seen_at)
            seen.add_metric(names, _age(node.last_seen_at, now))
        missed.add_metric(names, node.missed_probes)
        if not node.silent_since(now):
            clock.add_metric(names, node.clock_offset_ms / 1000)
            cpu.add_metric(names, node.cpu)
        free.add_metric(names, node.free or 0)
        seats.add_metric(names, node.seats or 0)
    yield _by("causeway_fleet_nodes", "Nodes by state. draining: ready, but takes no new sessions.", "state", by_state)
    if newest:
        text = "Time since any node responded to a probe. Grows while the worker, beat or all nodes are down."
        yield GaugeMetricFamily("causeway_telemetry_age_seconds", text, _age(newest, now))
    yield from (state, seen, missed, clock, cpu, free, seats)


def _sessions(now: datetime) -> Iterator[Metric]:
    live = RelaySession.objects.filter(state__in=LIVE_STATES).order_by().values_list("state")
    counts = dict.fromkeys([str(state) for state in LIVE_STATES], 0) | dict(live.annotate(count=Count("pk")))
    yield _by("causeway_sessions", "Live sessions.", "state", counts)


def _players(now: datetime) -> Iterator[Metric]:
    samples = NodeSample.objects.filter(at__gte=now - SAMPLES_OF).order_by("at")
    connected = dict(samples.values_list("node_id", "connected"))  # the last of each node
    text = "Seats whose player is connected, by the last samples of the nodes."
    yield GaugeMetricFamily("causeway_players_connected", text, sum(connected.values()))


def _grants(now: datetime) -> Iterator[Metric]:
    """A wanted grant has waited since the last change of its seats, an unwanted one since the end of its session."""
    changes = Q(session__events__kind__in=(EventKind.SEAT_ADDED, EventKind.SEAT_REVOKED))
    pending = (
        unconfirmed_by_answering()
        .order_by()
        .annotate(
            since=Case(
                When(wanted=True, then=Coalesce(Max("session__events__at", filter=changes), F("created_at"))),
                default=Coalesce("session__ended_at", F("created_at")),
            )
        )
    )
    found = list(pending.values_list("since", flat=True))
    yield GaugeMetricFamily("causeway_grants_pending", "Grants that responding nodes have not confirmed.", len(found))
    yield _oldest("causeway_grants_oldest_pending_seconds", "How long the oldest pending grant has waited.", found, now)


def _events(now: datetime) -> Iterator[Metric]:
    waiting = NodeEvent.objects.aggregate(count=Count("pk"), oldest=Min("at"))
    yield GaugeMetricFamily("causeway_events_waiting", "Events of nodes that are not applied yet.", waiting["count"])
    yield _oldest(
        "causeway_events_oldest_seconds", "Age of the oldest event that is not applied yet.", [waiting["oldest"]], now
    )


def _webhooks(now: datetime) -> Iterator[Metric]:
    waiting = WebhookDelivery.objects.exclude(next_attempt_at=None).aggregate(
        count=Count("pk"), oldest=Min("created_at")
    )
    yield GaugeMetricFamily("causeway_webhooks_waiting", "Webhooks waiting for delivery or a retry.", waiting["count"])
    yield _oldest("causeway_webhooks_oldest_seconds", "Age of the oldest waiting webhook.", [waiting["oldest"]], now)
    late = WebhookDelivery.objects.filter(next_attempt_at__lte=now, attempts=0).exclude(circuit_is_open(now))
    text = "How long the oldest unattempted webhook has been due, without those of open circuits."
    yield _oldest("causeway_webhooks_overdue_seconds", text, [late.aggregate(due=Min("next_attempt_at"))["due"]], now)
    circuits = WebhookEndpoint.objects.filter(retry_at__isnull=False).count()
    yield GaugeMetricFamily(
        "causeway_webhook_circuits_open", "Webhook endpoints whose circuit breaker is open.", circuits
    )


def _keys(now: datetime) -> Iterator[Metric]:
    week = Q(revoked_at=None, expires_at__gt=now, expires_at__lte=now + timedelta(days=7))
    yield GaugeMetricFamily(
        "causeway_api_keys_expiring", "API keys that expire within a week.", ApiKey.objects.filter(week).count()
    )
    newest = RelayNode.objects.annotate(newest=Max("token_keys__created_at", filter=Q(token_keys__retired_at=None)))
    oldest = newest.aggregate(oldest=Min("newest"))["oldest"]
    yield _oldest(
        "causeway_token_key_age_seconds", "Age of the oldest key that encrypts connect tokens.", [oldest], now
    )
    text = "Age at which a token key is rotated."
    yield GaugeMetricFamily("causeway_token_key_lifetime_seconds", text, settings.TOKEN_KEY_LIFETIME)


def _restarts(now: datetime) -> Iterator[Metric]:
    text = "Unexpected exits of a supervised process within the last hour, each followed by a restart."
    family = GaugeMetricFamily("causeway_process_restarts", text, labels=["supervisor", "process"])
    for each in recent_restarts(now):
        family.add_metric([each.supervisor, each.process], each.count)
    yield family


def _incidents(now: datetime) -> Iterator[Metric]:
    age = _per_node("incident_age_seconds", "Time since the last incident of this kind on the node.", "kind")
    rows = NodeIncident.objects.order_by().values_list("node__name", "node__location__slug", "kind", "last_at")
    for node, location, kind, last_at in rows:
        age.add_metric([node, location, kind], _age(last_at, now))
    yield age


def _per_node(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"causeway_fleet_node_{name}", text, labels=["node", "location", *more])


def _by(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _oldest(name: str, text: str, times: Iterable[datetime | None], now: datetime) -> Metric:
    """0 when there is none."""
    return GaugeMetricFamily(name, text, max((_age(time, now) for time in times if time), default=0.0))


def _age(time: datetime, now: datetime) -> float:
    return age_s(time, now)
