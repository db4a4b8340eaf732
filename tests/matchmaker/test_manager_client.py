"""What the manager's answers are taken for: done, refused for good, or unknown."""

import json
from typing import Any

import pytest

from matchmaker.manager_client import Manager, ManagerRefused, ManagerUnreachable
from tests.matchmaker.conftest import ManagerStandIn


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (400, "invalid", ManagerRefused),
        (401, "unauthorized", ManagerRefused),
        (403, "tenant_unknown", ManagerRefused),
        (404, "session_unknown", ManagerRefused),
        (409, "session_full", ManagerRefused),
        (503, "no_relay", ManagerRefused),
        (409, "idempotency_in_progress", ManagerUnreachable),
        (429, "throttled", ManagerUnreachable),
        (500, "error", ManagerUnreachable),
        (503, "database_unavailable", ManagerUnreachable),
    ],
)
def test_error(manager: Manager, manager_stand_in: ManagerStandIn, status: int, code: str, raised: Any) -> None:
    manager_stand_in.fails = [(status, {"code": code})]
    with pytest.raises(raised, match=code):
        manager.session_create("studio", {"metadata": {"match": "m"}, "users": []}, "m")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'"x"'])
def test_success_that_is_no_object_is_unknown(
    manager: Manager, manager_stand_in: ManagerStandIn, content: bytes
) -> None:
    manager_stand_in.server.answer = lambda method, path, body: (200, content)
    with pytest.raises(ManagerUnreachable):
        manager.session_get("studio", "x-S")


def test_outcome_without_a_manager_is_unknown() -> None:
    manager = Manager("http://127.0.0.1:9", "secret-key")
    with pytest.raises(ManagerUnreachable) as raised:
        manager.locations()
    assert "secret-key" not in str(raised.value)
    manager.close()


def test_key_and_session_id_go_where_they_belong(manager: Manager, manager_stand_in: ManagerStandIn) -> None:
    manager_stand_in.server.says(200, {})
    manager.session_get("studio", "../../x")
    [(method, path, authorization, body)] = manager_stand_in.server.requests
    assert (method, path, authorization, body) == ("GET", "/v1/relays/sessions/..%2F..%2Fx", "token key", None)
    assert "key" not in json.dumps([path, body])
