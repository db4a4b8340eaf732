"""Constraints of requests and of the operator, host choice, GeoIP, prefix memory: through the API, to the node."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.sessions.models import PlacementRule, RelaySession
from relaymgr.sessions.placement.explanation import ranking_again
from relaymgr.sessions.placement.record import record_read
from relaymgr.telemetry.models import PrefixLeg
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, Any]]
NEAR_FRANKFURT = [{"latencies": {"frankfurt": 10, "tokyo": 200}}, {"latencies": {"frankfurt": 20, "tokyo": 210}}]


@pytest.fixture(autouse=True)
def fleet(make_stand_in_node: MakeStandIn, tokyo: Location) -> None:
    make_stand_in_node("fra-1")
    make_stand_in_node("tyo-1", location=tokyo)


def placed(api: APIClient, **body: Any) -> str:
    response = api.post(SESSIONS, {"users": NEAR_FRANKFURT, **body}, format="json")
    assert response.status_code == 200, response.content
    return str(response.json()["location"])


@pytest.mark.parametrize(
    ("constraints", "where"),
    [
        ({}, "frankfurt"),
        ({"ban": ["fra-1"]}, "tokyo"),
        ({"pin": ["tokyo"]}, "tokyo"),
        ({"prefer": ["tokyo"]}, "frankfurt"),  # 190 ms are too much
        (None, "frankfurt"),
    ],
)
def test_request_constraints(api: APIClient, constraints: Any, where: str) -> None:
    assert placed(api, constraints=constraints) == where


def test_pinned_to_what_is_not_there_is_refused_with_the_reason(api: APIClient) -> None:
    response = api.post(SESSIONS, {"users": NEAR_FRANKFURT, "constraints": {"pin": ["mars"]}}, format="json")
    assert response.status_code == 503
    assert response.json()["details"]["excluded_by"] == {"not_pinned": 2}


@pytest.mark.parametrize("constraints", [{"pin": "fra-1"}, {"ban": ["no slug!"]}, "fra-1"])
def test_bad_constraints_name_the_field(api: APIClient, constraints: Any) -> None:
    response = api.post(SESSIONS, {"users": NEAR_FRANKFURT, "constraints": constraints}, format="json")
    assert response.status_code == 400
    assert all(field.startswith("constraints") for field in response.json()["details"])


def test_operator_rules_are_for_all_or_for_one_tenant(api: APIClient, tenant: Tenant) -> None:
    other = Tenant.objects.create(name="Other", slug="another")
    rule = PlacementRule.objects.create(kind="ban", location=Location.objects.get(slug="frankfurt"), tenant=other)
    assert placed(api) == "frankfurt"
    rule.tenant = None
    rule.save()
    assert placed(api) == "tokyo"
    rule.tenant, rule.kind = tenant, "pin"
    rule.save()
    assert placed(api, constraints={"pin": ["tokyo"]}) == "frankfurt"


def test_a_rule_names_a_node_or_a_location() -> None:
    with pytest.raises(ValidationError, match="not both"):
        PlacementRule(kind="ban").full_clean()


def test_best_host_gets_seat_0_and_the_others_follow(api: APIClient) -> None:
    users = [
        {"player_id": "far", "latencies": {"frankfurt": 90}},
        {"player_id": "near", "latencies": {"frankfurt": 5}},
        {"player_id": "also far", "latencies": {"frankfurt": 90}},
    ]
    body = {"users": users, "choose_host": True, "constraints": {"pin": ["frankfurt"]}}
    seats = api.post(SESSIONS, body, format="json").json()["session_users"]
    assert [(seat["seat"], seat["player_id"]) for seat in seats] == [(0, "near"), (1, "far"), (2, "also far")]


def test_neighbours_legs_are_remembered(api: APIClient) -> None:
    now = timezone.now()
    for node, ms in (("fra-1", 250.0), ("tyo-1", 20.0)):
        PrefixLeg.objects.create(
            prefix="203.0.113.0/24",
            node=RelayNode.objects.get(name=node),
            at=now - timedelta(hours=1),
            ms=ms,
            jitter_ms=1,
            loss=0,
            players=3,
        )
    assert placed(api, users=[{"ip": "203.0.113.9"}, {"ip": "203.0.113.77"}]) == "tokyo"
    explained = RelaySession.objects.get().placement
    assert {leg["source"] for leg in explained["considered_nodes"][0]["estimates"]} == {"history"}


def test_stored_record_gives_the_same_choice_again(api: APIClient) -> None:
    placed(api)
    record = record_read(RelaySession.objects.get().placement)
    assert record is not None
    again = ranking_again(record)
    assert again is not None
    assert again.usable[0].node == record.chosen == "fra-1"


def test_operator_reads_the_placement_as_a_table(api: APIClient, client: Client) -> None:
    placed(api)
    client.force_login(User.objects.create_superuser("operator"))
    page = client.get(f"/admin/relay_sessions/relaysession/{RelaySession.objects.get().pk}/change/").content.decode()
    assert "Its cost is the lowest, by" in page
    assert "the longest path: seat 0 (10.0 ms) to seat 1 (20.0 ms)" in page
