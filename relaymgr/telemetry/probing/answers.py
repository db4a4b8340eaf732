"""A node's answer to a probe, beside the node as it was when the probe was sent."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from relaymgr.nodes.control_client import ProbeAnswer
from relaymgr.telemetry.probing.reports import CheckedEvent, Report, parse_report

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

MAX_EVENTS_ACCEPTED = 1_000  # of one node in one round; the next round asks for the rest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    node: "RelayNode"
    probe: ProbeAnswer
    report: Report

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.probe.answered_at, UTC)

    @property
    def has_all_events(self) -> bool:
        """A node numbers its events from 1 at each boot: if the probe named a number of an earlier boot, the answer may
        lack some."""
        return self.report.boot_id == self.node.boot_id or self.node.last_event == 0

    def events(self) -> list[CheckedEvent]:
        """The events to accept in this round, oldest first."""
        if not self.has_all_events:
            return []
        new = {event.number: event for event in self.report.events if event.number > self.node.last_event}
        return [new[number] for number in sorted(new)[:MAX_EVENTS_ACCEPTED]]


def answers_read(nodes: "Iterable[RelayNode]", received: Iterable[ProbeAnswer]) -> list[Answer]:
    """Leaves out answers that are not valid reports."""
    by_id = {node.pk: node for node in nodes}
    answers = []
    for each in received:
        try:
            answers.append(Answer(by_id[each.node_id], each, parse_report(each.document)))
        except ValueError as error:
            logger.warning("node %s sent invalid telemetry: %s", by_id[each.node_id], error)
    return answers
