"""Sessions that play are looked at again: is another node much better by now? It is told, not acted on: players would
notice a move."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from relaymgr.telemetry.estimation import Sample, estimate_legs
from relaymgr.telemetry.selectors import knowledge_now, live_legs

from .candidates import candidates_now, wishes_of
from .filters import Filter
from .life import note
from .models import EventKind, RelaySession, SessionState
from .placement import POLICY, Candidate, Group, Ranking, rank
from .players import players_of, sites_of
from .selectors import with_details

AFTER = timedelta(seconds=60)  # of play
EVERY = timedelta(seconds=10)
LASTING = timedelta(seconds=30)  # before it is told: what passes by itself is no reason to move
LIVE = timedelta(seconds=30)  # a leg that was heard of before that is not live
BATCH = 200  # sessions a round, those that waited longest first: a second's work over a thousand nodes


def sessions_recheck() -> int:
    """Looks at the sessions whose turn it is; how many had live legs to judge by."""
    now = timezone.now()
    due = RelaySession.objects.filter(state=SessionState.READY, ready_at__lte=now - AFTER)
    due = due.exclude(rechecked_at__gt=now - EVERY + timedelta(seconds=1)).select_related("tenant")
    sessions = list(with_details(due).order_by(F("rechecked_at").asc(nulls_first=True), "pk")[:BATCH])
    if not sessions:
        return 0
    live = live_legs(sessions=[session.pk for session in sessions], since=now - LIVE, now=now)
    candidates, _ = candidates_now()
    known = {session for session, _ in live}
    for session in sessions:
        if session.pk in known and session.worker is not None and session.active_seats:
            _settle(session, _better(session, candidates, live), now)
    RelaySession.objects.filter(pk__in=[session.pk for session in sessions]).update(rechecked_at=now)
    return len(known)


def _better(
    session: RelaySession, candidates: list[Candidate], live: Mapping[tuple[str, int], Sample]
) -> dict[str, Any] | None:
    """The node that is better by POLICY.hysteresis at least, and by how much."""
    node = session.worker.node.name if session.worker else ""
    group = Group(
        size=len(session.active_seats),
        topology=session.topology,
        objective=session.objective,
        filters=[Filter(f["field"], tuple(f["values"]), f["filter_type"]) for f in session.filters],
        wishes=wishes_of(session.tenant, session.wishes),
        current=node,
    )
    players = players_of(session.active_seats, live={key: {node: sample} for key, sample in live.items()})
    ranking = rank(group, candidates, estimate_legs(players, sites_of(candidates), knowledge_now()))
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
    before = session.better
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
        RelaySession.objects.filter(pk=session.pk, state=SessionState.READY).update(better=after)
