"""A round of probes: every node is asked for its telemetry, and all answers are stored in a few queries."""

import time
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction

from relaymgr.nodes.control_client import Probe, ProbeAnswer, fetch_telemetry
from relaymgr.nodes.health.probe_results import ProbeResult, probe_results_store
from relaymgr.nodes.selectors import nodes_all
from relaymgr.telemetry.leases import lease_held
from relaymgr.telemetry.models import NodeSample, PeerLegs
from relaymgr.telemetry.probing.answers import Answer, answers_read
from relaymgr.telemetry.probing.events import events_store
from relaymgr.telemetry.probing.leg_samples import leg_samples_store
from relaymgr.telemetry.probing.path_samples import path_samples_store
from relaymgr.telemetry.probing.peer_lists import peer_lists_send
from relaymgr.telemetry.probing.reports import LEG_FIGURES, leg_figures
from relaymgr.telemetry.process_exits import ExitReport, process_exits_record
from web import metrics
from web.database.bulk_sql import rows_insert, rows_upsert

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

ROUND_LEASE_NAME = "probe"
ROUND_LEASE = 15.0  # seconds; a round takes about one
# A report on all peers is long and changes slowly, so each round asks some of the nodes for it.
PEER_REPORT_TURN_S, PEER_REPORT_TURNS = 2.0, 15
REPORTED_FIGURES = ("cpu", "sessions", "seats", "connected", "counters")  # stored as reported


def probe_round() -> int | None:
    """Probes every node and stores the answers; returns how many answered. None: another round is running."""
    with lease_held(ROUND_LEASE_NAME, ROUND_LEASE) as held:
        if not held:
            return None
        with metrics.probe_round_seconds.time():
            nodes = nodes_all()
            received = _ask(nodes)
            answers = answers_read(nodes, received)
            answers_store(nodes, answers)
            peer_lists_send(answers)
        _count_probes(nodes=len(nodes), received=len(received), valid=len(answers))
        return len(answers)


def _ask(nodes: "Iterable[RelayNode]") -> list[ProbeAnswer]:
    turn = int(time.monotonic() // PEER_REPORT_TURN_S)
    probes = [
        Probe(
            node.pk,
            node.control_url,
            node.control_key,
            node.last_event,
            with_peers=(turn + node.pk) % PEER_REPORT_TURNS == 0,
        )
        for node in nodes
    ]
    return fetch_telemetry(probes, settings.NODE_PROBE_TIMEOUT)


def answers_store(nodes: "Collection[RelayNode]", answers: Sequence[Answer]) -> None:
    """Everything that a round brought, in as many queries for a thousand nodes as for one."""
    with transaction.atomic():
        _node_samples_store(answers)
        leg_samples_store(answers)
        path_samples_store(answers)
        _peer_legs_store(answers, {node.name for node in nodes})
        _worker_exits_store(answers)
        last_accepted = events_store(answers)
        results = [_result(answer, last_accepted.get(answer.node.pk)) for answer in answers]
        probe_results_store(nodes, results)


def _node_samples_store(answers: Iterable[Answer]) -> None:
    rows_insert(
        NodeSample,
        ("node", "at", "probe_ms", *REPORTED_FIGURES, *LEG_FIGURES),
        (
            (
                answer.node.pk,
                answer.at,
                (answer.probe.answered_at - answer.probe.sent_at) * 1000,
                *(getattr(answer.report, name) for name in REPORTED_FIGURES),
                *leg_figures(answer.report.legs),
            )
            for answer in answers
        ),
    )


def _peer_legs_store(answers: Iterable[Answer], names: Collection[str]) -> None:
    legs = (
        (
            answer.node.pk,
            answer.at,
            {
                peer.node: (peer.rtt_ms, peer.jitter_ms, peer.loss, peer.loss_large)
                for peer in answer.report.peers
                if peer.node in names
            },
        )
        for answer in answers
        if answer.report.peers
    )
    rows_upsert(PeerLegs, ("node", "at", "legs"), legs, unique=("node",))


def _worker_exits_store(answers: Iterable[Answer]) -> None:
    """A node reports the exits of the last hour with every answer."""
    process_exits_record(
        ExitReport(
            supervisor=answer.node.name,
            process=f"relay worker {exit.worker}",
            boot_id=answer.report.boot_id,
            number=exit.number,
            at=answer.at - timedelta(seconds=exit.age_s),
            status=exit.status,
            uptime_s=exit.uptime_s,
        )
        for answer in answers
        for exit in answer.report.worker_exits
    )


def _result(answer: Answer, last_accepted: int | None) -> ProbeResult:
    report = answer.report
    boot_id, last_event = _cursor(answer, last_accepted)
    return ProbeResult(
        node_id=answer.node.pk,
        at=answer.at,
        cpu=report.cpu,
        clock_offset_ms=(report.time - (answer.probe.sent_at + answer.probe.answered_at) / 2) * 1000,
        is_stopping=report.draining,
        version=report.version,
        packet_path=report.packet_path,
        packet_path_reason=report.packet_path_reason,
        websocket_connections=report.websocket.connections if report.websocket else None,
        websocket_restarts=report.websocket.restarts if report.websocket else 0,
        boot_id=boot_id,
        last_event=last_event,
    )


def _cursor(answer: Answer, last_accepted: int | None) -> tuple[str, int]:
    """The boot, and the number of the event after which the next round asks. `last_accepted`: as in `events_store`;
    None when all events were accepted."""
    if not answer.has_all_events:
        return answer.report.boot_id, 0
    last = answer.report.last_event if last_accepted is None else max(last_accepted, answer.node.last_event)
    return answer.report.boot_id, last


def _count_probes(*, nodes: int, received: int, valid: int) -> None:
    for outcome, count in (("answered", valid), ("invalid", received - valid), ("timeout", nodes - received)):
        metrics.probes.labels(outcome).inc(count)
