"""Sessions that play are looked at again: is another node much better by now? It is told, not acted on: players would
notice a move."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from relaymgr.telemetry.estimation.estimates import LatencyModel, Player, Sample, estimate_legs
from relaymgr.telemetry.selectors import latency_model_current, live_legs

from ..lifecycle import note
from ..models import EventKind, RelaySession, SessionState
from ..selectors import with_details
from .filters import Constraints, Filter
from .inputs import candidates_now, constraints_joined, rules_of
from .players import families_needed, players_of, sites_of
from .ranking import POLICY, Candidate, Group, Ranking, rank

AFTER = timedelta(seconds=60)  # of play
EVERY = timedelta(seconds=10)
LASTING = timedelta(seconds=30)  # before it is told: what passes by itself is no reason to move
LIVE = timedelta(seconds=30)  # a leg that was heard of before that is not live
BATCH = 200  # sessions, those that waited longest first: a second's work over a thousand nodes
BUDGET = 3.0  # seconds of a round, after which no further batch is begun


def sessions_reevaluate() -> int:
    """Looks at the sessions whose turn it is; how many had live legs to judge by."""
    deadline = time.monotonic() + BUDGET
    known = 0
    while batch := _batch_recheck(timezone.now()):
        known += batch[1]
        if batch[0] < BATCH or time.monotonic() > deadline:
            break
    return known


def _batch_recheck(now: datetime) -> tuple[int, int] | None:
    """How many sessions were looked at, and how many of them had live legs. None: it is nobody's turn."""
    due = RelaySession.objects.filter(state=SessionState.READY, ready_at__lte=now - AFTER)
    due = due.exclude(reevaluated_at__gt=now - EVERY + timedelta(seconds=1)).select_related("tenant")
    sessions = list(with_details(due).order_by(F("reevaluated_at").asc(nulls_first=True), "pk")[:BATCH])
    if not sessions:
        return None
    live = live_legs(sessions=[session.pk for session in sessions], since=now - LIVE, now=now)
    candidates, _ = candidates_now()
    known = {session for session, _ in live}
    playing = [each for each in sessions if each.pk in known and each.worker is not None and each.active_seats]
    rules = {tenant: rules_of(tenant) for tenant in {session.tenant for session in playing}}
    model, players = latency_model_current(), _players_by_session(playing, live)
    for session in playing:
        constraints = constraints_joined(rules[session.tenant], session.constraints)
        _settle(session, _better(session, candidates, players[session.pk], constraints, model), now)
    # Nothing is measured of these, as where their node is silent: what was found before is not so any more.
    unmeasured = [each.pk for each in sessions if each.better_relay and each not in playing]
    RelaySession.objects.filter(pk__in=unmeasured).update(better_relay={})
    RelaySession.objects.filter(pk__in=[session.pk for session in sessions]).update(reevaluated_at=now)
    return len(sessions), len(known)


def _players_by_session(
    sessions: Sequence[RelaySession], live: Mapping[tuple[str, int], Sample]
) -> dict[str, list[Player]]:
    """All in one look at the histories of their prefixes."""
    nodes = {session.pk: session.worker.node.name for session in sessions if session.worker}
    legs = {key: {nodes[key[0]]: sample} for key, sample in live.items() if key[0] in nodes}
    seats = [seat for session in sessions for seat in session.active_seats]
    found: dict[str, list[Player]] = {session.pk: [] for session in sessions}
    for seat, player in zip(seats, players_of(seats, live=legs), strict=True):
        found[seat.session_id].append(player)
    return found


def _better(
    session: RelaySession,
    candidates: list[Candidate],
    players: list[Player],
    constraints: Constraints,
    model: LatencyModel,
) -> dict[str, Any] | None:
    """The node that is better by POLICY.hysteresis at least, and by how much."""
    node = session.worker.node.name if session.worker else ""
    group = Group(
        size=len(session.active_seats),
        topology=session.topology,
        objective=session.objective,
        filters=[Filter(f["field"], tuple(f["values"]), f["filter_type"]) for f in session.filters],
        constraints=constraints,
        current=node,
        families=families_needed(session.active_seats),
    )
    ranking = rank(group, candidates, estimate_legs(players, sites_of(candidates), model))
    return _gain(ranking, node)


def _gain(ranking: Ranking, current: str) -> dict[str, Any] | None:
    names = [candidate.node for candidate in ranking.candidates]
    if not ranking.order or current not in names:
        return None
    best, here = ranking.order[0], names.index(current)
    gain = float(ranking.cost[here] - ranking.cost[best] + ranking.terms["move"][best])
    if best == here or gain < POLICY.hysteresis:
        return None
    return {"node": names[best], "location": ranking.candidates[best].place.slug, "gain_ms": round(gain, 1)}


def _settle(session: RelaySession, better: dict[str, Any] | None, now: datetime) -> None:
    """Keep since when the same node has been better; the first time that has lasted is a line of the timeline."""
    before = session.better_relay
    if better is None:
        after: dict[str, Any] = {}
    else:
        is_same = before.get("node") == better["node"]
        since = before["since"] if is_same else now.timestamp()
        lasts = now.timestamp() - since >= LASTING.total_seconds()
        after = {**better, "since": since, "lasts": lasts}
        if lasts and not (is_same and before.get("lasts")):
            note(session, EventKind.BETTER_RELAY, reason=f"{better['node']} by {better['gain_ms']:.0f} ms")
    if after != before:
        RelaySession.objects.filter(pk=session.pk, state=SessionState.READY).update(better_relay=after)
