"""The form of a backfill."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from tests.matchmaker.apis.requests import BASE, problems

pytestmark = pytest.mark.django_db


def test_backfill_round(api: APIClient, players: APIClient, profile: str) -> None:
    attributes = {"assignment": {"request_id": "000000000001-S"}}
    body = {"profile": profile, "attributes": attributes, "tickets": {"a": {"attributes": {"elo": 1000}}}}
    refused = players.post(f"{BASE}/backfills", body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_the_host")
    made = api.post(f"{BASE}/backfills", body, format="json")
    assert made.status_code == 201, made.content
    path = f"{BASE}/backfills/{made.json()['id']}"
    assert players.get(path).json()["status"] == "SEARCHING"
    assert players.get(path).json()["assigned_ticket"] is None
    assert players.delete(path).status_code == 204
    assert players.get(path).status_code == 404


@pytest.mark.parametrize(
    ("attributes", "tickets", "path"),
    [
        ({}, {"a": {"attributes": {"elo": 1}}}, "attributes.assignment.request_id"),
        ({"assignment": {"request_id": 7}}, {"a": {"attributes": {"elo": 1}}}, "attributes.assignment.request_id"),
        ({"assignment": {"request_id": "x-S"}}, {}, "attributes.elo"),
        ({"assignment": {"request_id": "x-S"}}, {"a": {"attributes": {"elo": "x"}}}, "attributes.elo"),
        ({"assignment": {"request_id": "x-S"}}, {"a": {"attributes": 3}}, "tickets"),
    ],
)
def test_bad_backfill_is_400(api: APIClient, profile: str, attributes: Any, tickets: Any, path: str) -> None:
    body = {"profile": profile, "attributes": attributes, "tickets": tickets}
    assert path in problems(api.post(f"{BASE}/backfills", body, format="json"))
