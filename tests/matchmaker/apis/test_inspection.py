"""What a backend can inspect."""

import base64
import json

import pytest
from rest_framework.test import APIClient

from tests.matchmaker.apis.requests import BASE, Search, problems

pytestmark = pytest.mark.django_db


def _cursor(*values: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def test_inspection_shows_no_ticket_id(api: APIClient, search: Search) -> None:
    ticket = search()
    answer = api.get(f"{BASE}/inspect/tickets", {"profile": "duel"})
    assert answer.json()["count"] == 1
    assert ticket["id"] not in answer.content.decode()


@pytest.mark.parametrize(
    "cursor",
    [
        _cursor("2026-01-01T00:00:00Z", "a\0b"),
        _cursor("2026-01-01T00:00:00Z", "\ud800"),
        _cursor("0001-01-01T00:00:00+23:59", "a"),
        _cursor("9999-12-31T23:59:59-23:59", "a"),
        _cursor("a"),
    ],
)
@pytest.mark.parametrize("path", [f"{BASE}/inspect/tickets", f"{BASE}/inspect/matches", "/v1/relays/sessions"])
def test_a_cursor_that_no_list_gave_is_400(api: APIClient, path: str, cursor: str) -> None:
    assert problems(api.get(path, {"cursor": cursor})).keys() == {"cursor"}
