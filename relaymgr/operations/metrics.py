"""GET /metrics of the manager: the counters of the web processes, and the state of the fleet in the database.

Every web server reports the same state of the fleet, so queries take the maximum over them. Nodes are labels because
an operator creates each of them; sessions, players, tenants and addresses never are.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.db import DatabaseError
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
from relaymgr.nodes.selectors import incidents_last, nodes_with_seats, token_key_oldest
from relaymgr.nodes.states import DRAINING, NodeState
from relaymgr.sessions.overview import grants_pending_since, live_sessions_by_state, standby_missing_by_reason
from relaymgr.sessions.webhooks.selectors import circuits_open, deliveries_due_since, deliveries_oldest
from relaymgr.telemetry.process_exits import recent_restarts
from relaymgr.telemetry.selectors import events_unapplied, pairs_by_path, players_connected
from relaymgr.tenants.selectors import api_keys_expiring
from web.admin.age import age_s
from web.database.connections import health
from web.errors import NotFound, Unauthorized

SAMPLES_OF = timedelta(seconds=10)  # a few rounds of probes
PATHS_OF = timedelta(seconds=30)  # players report their paths every 10 s


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
            for read in (
                _nodes,
                _sessions,
                _players,
                _paths,
                _grants,
                _events,
                _webhooks,
                _keys,
                _restarts,
                _incidents,
            ):
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
    newest: datetime | None = None
    for node in cast(Iterable[Any], nodes_with_seats()):
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
        free.add_metric(names, node.free_seats or 0)
        seats.add_metric(names, node.capacity or 0)
    yield _by("causeway_fleet_nodes", "Nodes by state. draining: ready, but takes no new sessions.", "state", by_state)
    if newest:
        text = "Time since any node responded to a probe. Grows while the worker, beat or all nodes are down."
        yield GaugeMetricFamily("causeway_telemetry_age_seconds", text, _age(newest, now))
    yield from (state, seen, missed, clock, cpu, free, seats)


def _sessions(now: datetime) -> Iterator[Metric]:
    yield _by("causeway_sessions", "Live sessions.", "state", live_sessions_by_state())
    text = "Ready sessions without a standby relay, by reason."
    yield _by("causeway_sessions_without_standby", text, "reason", standby_missing_by_reason())


def _players(now: datetime) -> Iterator[Metric]:
    text = "Seats whose player is connected, by the last samples of the nodes."
    yield GaugeMetricFamily("causeway_players_connected", text, players_connected(since=now - SAMPLES_OF))


def _paths(now: datetime) -> Iterator[Metric]:
    text = "Ordered pairs of players in sessions that permit direct paths, by the path on which the first one sends."
    yield _by("causeway_direct_pairs", text, "path", pairs_by_path(since=now - PATHS_OF))


def _grants(now: datetime) -> Iterator[Metric]:
    found = grants_pending_since()
    yield GaugeMetricFamily("causeway_grants_pending", "Grants that responding nodes have not confirmed.", len(found))
    yield _oldest("causeway_grants_oldest_pending_seconds", "How long the oldest pending grant has waited.", found, now)


def _events(now: datetime) -> Iterator[Metric]:
    count, oldest = events_unapplied()
    yield GaugeMetricFamily("causeway_events_waiting", "Events of nodes that are not applied yet.", count)
    yield _oldest("causeway_events_oldest_seconds", "Age of the oldest event that is not applied yet.", [oldest], now)


def _webhooks(now: datetime) -> Iterator[Metric]:
    count, oldest = deliveries_oldest()
    yield GaugeMetricFamily("causeway_webhooks_waiting", "Webhooks waiting for delivery or a retry.", count)
    yield _oldest("causeway_webhooks_oldest_seconds", "Age of the oldest waiting webhook.", [oldest], now)
    text = "How long the oldest unattempted webhook has been due, without those of open circuits."
    yield _oldest("causeway_webhooks_overdue_seconds", text, [deliveries_due_since(now=now)], now)
    text = "Webhook endpoints whose circuit breaker is open."
    yield GaugeMetricFamily("causeway_webhook_circuits_open", text, len(circuits_open()))


def _keys(now: datetime) -> Iterator[Metric]:
    expiring = api_keys_expiring(after=now, until=now + timedelta(days=7))
    yield GaugeMetricFamily("causeway_api_keys_expiring", "API keys that expire within a week.", expiring)
    text = "Age of the oldest key that encrypts connect tokens."
    yield _oldest("causeway_token_key_age_seconds", text, [token_key_oldest()], now)
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
    for node, location, kind, last_at in incidents_last():
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
