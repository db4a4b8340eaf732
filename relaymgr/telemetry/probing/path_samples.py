"""The players' reports about their paths to each other: which are accepted, and how they are stored (PROTOCOL.md 12.9).

The current path of each ordered pair of seats is one row, and its history is samples. A player reports every 10 s and
at each change, and a node forwards each report once: none may be skipped, or the packets and bytes in it would be lost.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from relaymgr.nodes.health.incidents import distrusted_ids
from relaymgr.telemetry.models import PathSample, PeerPath
from relaymgr.telemetry.probing import granted_seats
from relaymgr.telemetry.probing.answers import Answer
from relaymgr.telemetry.probing.granted_seats import not_granted_record
from relaymgr.telemetry.probing.path_state import (
    SAMPLE_COLUMNS,
    STATE_COLUMNS,
    PathState,
    sample_values,
    state_values,
)
from relaymgr.telemetry.probing.reports import CheckedPath
from relaymgr.telemetry.signals import paths_changed
from web import metrics
from web.database.bulk_sql import rows_insert, rows_upsert

MAX_PAIRS = 4_096  # of one session that are stored: those of 64 players
MAX_SAMPLES = 400  # of one node in one round; the others are due in the next one
SESSIONS_PER_QUERY = 500
PAIR = ("session_id", "seat", "peer")

Pair = tuple[str, int, int]  # session, seat, peer


@dataclass(frozen=True, slots=True)
class PathChange:
    """The player of `seat` now sends to `peer` on `path`, because of `reason` (`nodeapi.telemetry`). `changes`: how
    many changes it stands for."""

    session: str
    seat: int
    peer: int
    at: datetime
    path: str
    reason: str
    changes: int


def path_samples_store(answers: Sequence[Answer]) -> None:
    """Reports about seats that their node was not granted, and all reports of a distrusted node, are discarded; so are
    those of sessions that permit no direct paths."""
    accepted = _accepted([answer for answer in answers if answer.report.paths])
    states = _stored({report.session for _, report in accepted})
    samples: list[tuple[object, ...]] = []
    changes: list[PathChange] = []
    pairs = Counter(session for session, _, _ in states)
    taken: Counter[int] = Counter()
    reported: set[Pair] = set()
    for answer, report in accepted:
        pair, at = (report.session, report.seat, report.peer), answer.at
        if (state := states.get(pair)) is None:
            if pairs[report.session] >= MAX_PAIRS:
                continue
            pairs[report.session] += 1
            state = states[pair] = PathState(answer.node.pk, at, at)
        if (report.path, report.reason) != (state.path, state.reason):
            metrics.path_changes.labels(report.path, report.reason).inc()
        state.apply(report, answer.node.pk, at)
        reported.add(pair)
        if count := state.announce():
            changes.append(PathChange(*pair, at, state.path, state.reason, count))
        if state.is_sample_due and taken[answer.node.pk] < MAX_SAMPLES:
            taken[answer.node.pk] += 1
            state.note_sample()
            samples.append((*pair, *sample_values(state)))
    rows_insert(PathSample, (*PAIR, *_names(SAMPLE_COLUMNS)), samples)
    rows = ((*pair, *state_values(states[pair])) for pair in sorted(reported))
    rows_upsert(PeerPath, (*PAIR, *_names(STATE_COLUMNS)), rows, unique=PAIR)
    if changes:
        paths_changed.send(sender=PeerPath, changes=changes)


def path_samples_delete(*, session_id: str, seat: int) -> None:
    """Deletes all that is stored of the paths of one player to others, and of theirs to this one."""
    for model in (PathSample, PeerPath):
        model.objects.filter(session_id=session_id, seat=seat).delete()
        model.objects.filter(session_id=session_id, peer=seat).delete()


def _accepted(answers: Sequence[Answer]) -> list[tuple[Answer, CheckedPath]]:
    if not answers:
        return []
    facts = granted_seats.granted(
        {
            (answer.node.pk, path.session, seat)
            for answer in answers
            for path in answer.report.paths
            for seat in (path.seat, path.peer)
        }
    )
    distrusted = distrusted_ids(among=[answer.node.pk for answer in answers])
    accepted: list[tuple[Answer, CheckedPath]] = []
    not_granted = []
    for answer in answers:
        node, paths = answer.node.pk, answer.report.paths
        granted = [
            path
            for path in paths
            if (node, path.session, path.seat) in facts and (node, path.session, path.peer) in facts
        ]
        not_granted.append((node, len(paths) - len(granted)))
        if node not in distrusted:
            accepted += [(answer, path) for path in granted if facts[node, path.session, path.seat].may_be_direct]
    not_granted_record(not_granted, "paths")
    return accepted


def _stored(sessions: Collection[str]) -> dict[Pair, PathState]:
    found: dict[Pair, PathState] = {}
    wanted = sorted(sessions)
    for start in range(0, len(wanted), SESSIONS_PER_QUERY):
        rows = PeerPath.objects.filter(session_id__in=wanted[start : start + SESSIONS_PER_QUERY])
        for session, seat, peer, *values in rows.values_list(*PAIR, *STATE_COLUMNS):
            found[session, seat, peer] = PathState(*values)
    return found


def _names(columns: Sequence[str]) -> list[str]:
    """As fields of the model."""
    return ["node" if name == "node_id" else name for name in columns]
