"""What the outermost middleware does for each request."""

import json
import logging
import uuid
from typing import Any

import pytest
from prometheus_client import REGISTRY
from rest_framework.test import APIClient

from tests.web.test_log_config import Lines, lines  # noqa: F401 - a fixture

UNKNOWN = "/v1/relays/sessions/0123456789ab-S"


def counted(**labels: str) -> float:
    return REGISTRY.get_sample_value("causeway_http_request_seconds_count", labels) or 0.0


def finished(lines: Lines) -> dict[str, Any]:  # noqa: F811
    found = [json.loads(line) for line in lines.text.splitlines()]
    return [line for line in found if line["event"].startswith("request_f")][-1]


def test_an_answer_has_the_id_that_was_sent(api: APIClient) -> None:
    assert api.get(UNKNOWN, HTTP_X_REQUEST_ID="a-b.c_1")["X-Request-ID"] == "a-b.c_1"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "<script>", "cw key", "a\r\nSet-Cookie: x=1"])
def test_an_id_that_is_not_well_formed_was_never_sent(sent: str, api: APIClient) -> None:
    assert uuid.UUID(api.get(UNKNOWN, HTTP_X_REQUEST_ID=sent)["X-Request-ID"])


def test_each_request_has_one_line_with_route_session_and_id(api: APIClient, lines: Lines) -> None:  # noqa: F811
    answer = api.get(f"{UNKNOWN}?page=hunter2")
    line = finished(lines)
    assert line["request"] == "GET /v1/relays/sessions/<str:session_id>"
    assert (line["code"], line["level"]) == (404, "info")
    assert line["session_id"] == "0123456789ab-S"
    assert line["request_id"] == answer["X-Request-ID"]
    assert line["duration_ms"] > 0
    assert "hunter2" not in lines.text
    assert len([line for line in lines.text.splitlines() if "request_finished" in line]) == 1


def test_a_tickets_id_is_not_in_the_line(client: Any, db: None, lines: Lines) -> None:  # noqa: F811
    client.get("/matchmaker/tickets/0123456789abcdefghij")
    client.get("/nowhere/0123456789abcdefghij?q=0123456789abcdefghij")
    assert finished(lines)["request"] == "GET unmatched"
    above_debug = [line for line in lines.text.splitlines() if json.loads(line)["level"] != "debug"]
    assert "0123456789abcdefghij" not in "\n".join(above_debug)


def test_a_failure_is_told_once_with_its_traceback(
    client: Any,
    db: None,
    lines: Lines,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("token=hunter2 of 192.0.2.7")

    monkeypatch.setattr("relaymgr.monitor._nodes_ready", fail)
    client.raise_request_exception = False
    answer = client.get("/monitor")
    assert (answer.status_code, bool(answer["X-Request-ID"])) == (500, True)
    assert lines.text.count("Traceback") == 1
    line = finished(lines)
    assert (line["event"], line["code"], line["level"]) == ("request_failed", 500, "error")
    assert "hunter2" not in lines.text and "192.0.2.7" not in lines.text


def test_nothing_of_a_request_is_left_for_the_next(api: APIClient, lines: Lines) -> None:  # noqa: F811
    api.get(UNKNOWN)
    logging.getLogger("x").info("afterwards")
    assert "request_id" not in lines.last and "session_id" not in lines.last


def test_requests_are_measured_by_route_method_and_status(api: APIClient) -> None:
    labels = {"route": "/v1/relays/sessions/<str:session_id>", "method": "GET", "status": "404"}
    before = counted(**labels)
    for number in range(3):
        api.get(f"/v1/relays/sessions/00000000000{number}-S")
    assert counted(**labels) == before + 3


def test_paths_and_methods_that_clients_make_up_are_one_label(client: Any, db: None) -> None:
    def label_sets() -> set[tuple[str, ...]]:
        found = next(f for f in REGISTRY.collect() if f.name == "causeway_http_request_seconds").samples
        return {(sample.labels["route"], sample.labels["method"], sample.labels["status"]) for sample in found}

    client.generic("BREW", "/coffee")
    before = label_sets()
    for number in range(20):
        client.generic(f"BREW{number}", f"/coffee/{number}")
    assert label_sets() == before
    assert ("unmatched", "other", "404") in before
