from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import (
    Grant,
    IdempotencyKey,
    RelaySession,
    Seat,
    SessionEvent,
    SessionState,
    WebhookDelivery,
)
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS, obedient
from tests.support.admin_actions import confirm_action
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db

MODELS = [RelaySession, Seat, Grant, SessionEvent, IdempotencyKey, WebhookDelivery]


@pytest.fixture
def stand_in(make_stand_in_node: Callable[..., tuple[RelayNode, StandIn]]) -> StandIn:
    return make_stand_in_node()[1]


@pytest.fixture
def session(stand_in: StandIn, tenant: Tenant, api: APIClient) -> dict[str, Any]:
    """With a row of every kind."""
    Tenant.objects.update(webhook_url="https://studio.example/hook")
    users = {"users": [{"player_id": "ann", "ip": "1.1.1.1"}, *TWO_USERS["users"]]}
    response = api.post(SESSIONS, users, format="json", headers={"Idempotency-Key": "k"})
    return response.json()


def page(model: Any, name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:relay_sessions_{model._meta.model_name}_{name}", args=args)


@pytest.mark.parametrize("model", MODELS)
def test_pages_load_without_a_secret(model: Any, session: dict[str, Any], admin_client: Client) -> None:
    secrets = [session["authorization_token"]]
    for user in session["session_users"]:
        secrets += [user["authorization_token"], user["connect_token"], user["seat_key"]]
    row = model.objects.first()
    for path in (page(model), page(model) + "?q=ann", page(model, "change", row.pk)):
        response = admin_client.get(path)
        assert response.status_code == 200
        html = response.content.decode()
        assert not [secret for secret in secrets if str(secret) in html]
    assert admin_client.get(page(model, "add")).status_code == 403
    assert admin_client.post(page(model, "delete", row.pk), {"post": "yes"}).status_code == 403


def test_sealed_and_hashed_columns_are_in_no_page() -> None:
    for model in MODELS:
        shown = str(admin.site._registry[model].fields or "")
        for column in ("'token'", "seat_key", "connect_token", "payload", "key_hash"):
            assert column not in shown


def test_session_page_shows_seats_timeline_and_placement(session: dict[str, Any], admin_client: Client) -> None:
    html = admin_client.get(page(RelaySession, "change", session["session_id"])).content.decode()
    for text in ("ann", "requested", "ready: its node has confirmed", "the longest path", "confirmed"):
        assert text in html


@pytest.mark.parametrize("query", ["ann", "1.1.1.1", "studio"])
def test_sessions_are_found_by_player_address_and_tenant(
    query: str, session: dict[str, Any], admin_client: Client
) -> None:
    assert session["session_id"] in admin_client.get(page(RelaySession), {"q": query}).content.decode()
    assert session["session_id"] not in admin_client.get(page(RelaySession), {"q": "nobody"}).content.decode()


def test_list_of_sessions_needs_as_many_queries_for_many(
    session: dict[str, Any], api: APIClient, admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(10):
        api.post(SESSIONS, TWO_USERS, format="json")
    with django_assert_max_num_queries(15):
        admin_client.get(page(RelaySession))


def test_delete_action_ends_the_session_and_says_when_the_node_is_silent(
    session: dict[str, Any], stand_in: StandIn, admin_client: Client
) -> None:
    row = RelaySession.objects.get()
    stand_in.answer = lambda method, path, body: (500, b"")
    assert "did not confirm" in confirm_action(admin_client, RelaySession, "delete", row)[0]
    stand_in.answer = obedient
    assert confirm_action(admin_client, RelaySession, "delete", row) == [f"{row} is deleted."]
    row.refresh_from_db()
    assert (row.state, row.end_reason) == (SessionState.ENDED, "deleted")
    assert stand_in.requests[-1][0] == "DELETE"


def test_revoke_action_puts_the_player_out(session: dict[str, Any], stand_in: StandIn, admin_client: Client) -> None:
    seat = Seat.objects.get(player_id="ann")
    assert confirm_action(admin_client, Seat, "revoke", seat) == [f"{seat} is revoked."]
    assert [found["revoked"] for found in stand_in.requests[-1][3]["seats"]] == [True, False, False]


def test_retry_action_makes_a_delivery_due(session: dict[str, Any], admin_client: Client) -> None:
    delivery = WebhookDelivery.objects.get()
    WebhookDelivery.objects.update(next_attempt_at=None)
    assert confirm_action(admin_client, WebhookDelivery, "retry", delivery)[0] == f"{delivery} will be sent again."
    delivery.refresh_from_db()
    assert delivery.next_attempt_at


def test_who_may_only_look_has_no_actions(session: dict[str, Any]) -> None:
    looker = User.objects.create_user("looker", is_staff=True)
    looker.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(looker)
    assert client.get(page(RelaySession)).status_code == 200
    pk = session["session_id"]
    asked = client.post(page(RelaySession), {"action": "delete", "_selected_action": [pk]}, follow=True)
    assert "Delete" not in asked.content.decode()
    assert client.post(page(RelaySession, "action", "delete"), {"pk": pk}).status_code == 403
    assert RelaySession.objects.get().is_ready
