import logging
from typing import Any

import pytest

from relaymgr.nodes.control_client import ProbeAnswer
from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.probing import answers
from relaymgr.telemetry.probing.answers import Answer, answers_read
from tests.relaymgr.telemetry.documents import telemetry


def node(**fields: Any) -> RelayNode:
    return RelayNode(**{"pk": 1, "name": "fra-1", "boot_id": "6f1c", "last_event": 0} | fields)


def answer_of(node: RelayNode, numbers: list[int], boot_id: str = "6f1c") -> Answer:
    events = [telemetry()["events"][0] | {"number": number} for number in numbers]
    document = telemetry() | {"boot_id": boot_id, "events": events, "last_event": max(numbers)}
    (answer,) = answers_read([node], [ProbeAnswer(node.pk, document, 1.0, 2.0)])
    return answer


def numbers(answer: Answer) -> list[int]:
    return [event.number for event in answer.events()]


def test_only_new_events_are_accepted_each_once_and_oldest_first() -> None:
    assert numbers(answer_of(node(last_event=3), [5, 2, 4, 4, 3])) == [4, 5]


def test_events_beyond_the_limit_are_left_to_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_EVENTS_ACCEPTED", 2)
    assert numbers(answer_of(node(), [3, 2, 1])) == [1, 2]


def test_events_of_a_new_boot_are_refused_if_the_first_ones_may_be_missing() -> None:
    assert numbers(answer_of(node(last_event=3), [4], boot_id="new")) == []
    assert numbers(answer_of(node(last_event=0), [4], boot_id="new")) == [4]


def test_invalid_report_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = node(), node(pk=2, name="fra-2")
    with caplog.at_level(logging.WARNING):
        found = answers_read([bad, good], [ProbeAnswer(1, {}, 1.0, 2.0), ProbeAnswer(2, telemetry(), 1.0, 2.0)])
    assert [answer.node.name for answer in found] == ["fra-2"]
    assert "node fra-1 sent invalid telemetry" in caplog.text
