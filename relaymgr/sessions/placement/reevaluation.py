"""Compares sessions in use with all nodes again, by their live legs: another node may be much better by now.

A better node is reported in the session and in its timeline. Sessions are not moved, because players notice a move.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from relaymgr.telemetry.estimation.estimates import LatencyModel, Player, Sample, estimate_legs
from relaymgr.telemetry.selectors import latency_model_current, live_legs

from ..lifecycle import record_event
from ..models import EventKind, RelaySession, SessionState
from ..selectors import with_details
from .filters import Constraints
from .inputs import constraints_joined, group_of, node_snapshots, players_of, rules_of, sites_of
from .ranking import POLICY, NodeSnapshot, Ranking, rank

READY_FOR = timedelta(seconds=60)  # before a session is reevaluated for the first time
INTERVAL = timedelta(seconds=10)
REPORT_AFTER = timedelta(seconds=30)  # of the same node being better, so that short disturbances are not reported
LIVE_MAX_AGE = timedelta(seconds=30)  # of the last sample of a live leg
BATCH = 200  # sessions; a second of work with a thousand nodes
BUDGET_S = 3.0  # of a round, after which no further batch is begun


def sessions_reevaluate() -> int:
    """Reevaluates the sessions that are due, the longest waiting first. Returns how many of them had live legs."""
    deadline = time.monotonic() + BUDGET_S
    with_live_legs = 0
    while batch := _batch_reevaluate(timezone.now()):
        with_live_legs += batch[1]
        if batch[0] < BATCH or time.monotonic() > deadline:
            break
    return with_live_legs


def _batch_reevaluate(now: datetime) -> tuple[int, int] | None:
    """How many sessions were reevaluated, and how many of them had live legs. None: no session is due."""
    due = RelaySession.objects.filter(state=SessionState.READY, ready_at__lte=now - READY_FOR)
    due = due.exclude(reevaluated_at__gt=now - INTERVAL + timedelta(seconds=1)).select_related("tenant")
    sessions = list(with_details(due).order_by(F("reevaluated_at").asc(nulls_first=True), "pk")[:BATCH])
    if not sessions:
        return None
    live = live_legs(sessions=[session.pk for session in sessions], since=now - LIVE_MAX_AGE, now=now)
    nodes, _ = node_snapshots()
    measured = {session for session, _ in live}
    comparable = [each for each in sessions if each.pk in measured and each.worker is not None and each.active_seats]
    rules = {tenant: rules_of(tenant) for tenant in {session.tenant for session in comparable}}
    model, players = latency_model_current(), _players_by_session(comparable, live)
    for session in comparable:
        constraints = constraints_joined(rules[session.tenant], session.constraints)
        _store(session, _better_node(session, nodes, players[session.pk], constraints, model), now)
    # A result without recent samples is not valid any longer, for example where the node is silent.
    outdated = [each.pk for each in sessions if each.better_relay and each not in comparable]
    RelaySession.objects.filter(pk__in=outdated).update(better_relay={})
    RelaySession.objects.filter(pk__in=[session.pk for session in sessions]).update(reevaluated_at=now)
    return len(sessions), len(measured)


def _players_by_session(
    sessions: Sequence[RelaySession], live: Mapping[tuple[str, int], Sample]
) -> dict[str, list[Player]]:
    """Of all sessions at once, so that the histories of all their prefixes take one query."""
    nodes = {session.pk: session.worker.node.name for session in sessions if session.worker}
    legs = {key: {nodes[key[0]]: sample} for key, sample in live.items() if key[0] in nodes}
    seats = [seat for session in sessions for seat in session.active_seats]
    found: dict[str, list[Player]] = {session.pk: [] for session in sessions}
    for seat, player in zip(seats, players_of(seats, live=legs), strict=True):
        found[seat.session_id].append(player)
    return found


def _better_node(
    session: RelaySession,
    nodes: list[NodeSnapshot],
    players: list[Player],
    constraints: Constraints,
    model: LatencyModel,
) -> dict[str, Any] | None:
    """The node that is better by at least POLICY.hysteresis_ms, and by how much."""
    current = session.worker.node.name if session.worker else ""
    group = group_of(session, constraints, current_node=current)
    return _gain(rank(group, nodes, estimate_legs(players, sites_of(nodes), model)), current)


def _gain(ranking: Ranking, current: str) -> dict[str, Any] | None:
    names = [each.node for each in ranking.nodes]
    if not ranking.order or current not in names:
        return None
    best, present = ranking.order[0], names.index(current)
    gain = float(ranking.cost[present] - ranking.cost[best] + ranking.terms["move"][best])
    if best == present or gain < POLICY.hysteresis_ms:
        return None
    return {"node": names[best], "location": ranking.nodes[best].location.slug, "gain_ms": round(gain, 1)}


def _store(session: RelaySession, better: dict[str, Any] | None, now: datetime) -> None:
    """Records since when the same node has been better. Once that has lasted, it is reported in the timeline."""
    before = session.better_relay
    if better is None:
        after: dict[str, Any] = {}
    else:
        is_same = before.get("node") == better["node"]
        since = before["since"] if is_same else now.timestamp()
        is_reported = now.timestamp() - since >= REPORT_AFTER.total_seconds()
        after = {**better, "since": since, "is_reported": is_reported}
        if is_reported and not (is_same and before.get("is_reported")):
            record_event(session, EventKind.BETTER_RELAY, reason=f"{better['node']} by {better['gain_ms']:.0f} ms")
    if after != before:
        RelaySession.objects.filter(pk=session.pk, state=SessionState.READY).update(better_relay=after)
