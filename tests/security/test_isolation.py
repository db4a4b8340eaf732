"""What one studio owns is, for another, not there: same answer as for something that never was, and nothing changes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import Match, ProfileVersion
from relaymgr.nodes.models import RelayNode
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.matchmaker.conftest import CONFIG
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS
from tests.security.routes import SAMPLES, fill
from tests.security.test_access import ACCESS
from tests.support.manager import client_with

SCOPES = ["relay", "read", "matchmaker"]  # all that a studio can have
OWNED = ("session_id", "ticket_id", "group_id", "member_id", "backfill_id", "name", "number")
# A studio makes its own profile by giving a version of it: that another has one of this name is nothing to it.
MAKES_ITS_OWN = {("/matchmaker/profiles/{name}/versions", "POST")}

BY_THE_CLOCK = ("/events", "/explanation")  # a stream, and how long is left

# What makes a call valid, so that nothing but the owner stands in its way.
BODIES = {
    "/matchmaker/groups/{group_id}/members": {
        "profile": "duel",
        "player_ip": "192.0.2.1",
        "attributes": {"elo": 1000},
    },
    "/matchmaker/groups/{group_id}/members/{member_id}": {"is_ready": True},
    "/v1/relays/sessions/{session_id}": {"direct_mode": "relay_only"},
}
QUERIES = {"/matchmaker/profiles/{name}/diff": "?old=1&new=1"}

CASES = [
    (template, method)
    for template, methods in sorted(ACCESS.items())
    for method in methods
    if any(f"{{{name}}}" in template for name in OWNED) and (template, method) not in MAKES_ITS_OWN
]


@pytest.fixture
def owner(tenant: Tenant) -> APIClient:
    return client_with(api_key_create(tenant=tenant, name="all", scopes=SCOPES)[1])


@pytest.fixture
def stranger(db: None) -> APIClient:
    other = Tenant.objects.create(name="Other", slug="other")
    return client_with(api_key_create(tenant=other, name="all", scopes=SCOPES)[1])


@pytest.fixture
def owned(
    owner: APIClient, make_stand_in_node: Callable[..., Any], search: Callable[..., dict[str, Any]]
) -> dict[str, str]:
    """One of everything, by the name its id has in routes."""
    make_stand_in_node()
    session = owner.post(SESSIONS, TWO_USERS, format="json").json()
    body = {"profile": "duel", "player_ip": "192.0.2.1", "attributes": {"elo": 1000}}
    group = owner.post("/matchmaker/groups", body, format="json").json()
    backfill = {"profile": "duel", "attributes": {"assignment": {"request_id": session["session_id"]}, "elo": 1000}}
    return {
        "session_id": session["session_id"],
        "token": str(session["session_users"][0]["authorization_token"]),
        "ticket_id": search()["id"],
        "match_id": Match.objects.create(version=ProfileVersion.objects.get(), teams=[], seats=[]).pk,
        "group_id": group["group_id"],
        "member_id": group["member_id"],
        "backfill_id": owner.post("/matchmaker/backfills", backfill, format="json").json()["id"],
        "name": "duel",
        "number": "1",
    }


def state(owner: APIClient, owned: dict[str, str]) -> dict[str, Any]:
    """All that the owner sees of its own. The node answers meanwhile, however slow the machine is."""
    RelayNode.objects.update(last_seen_at=timezone.now())
    return {
        path: _settled(owner.get(path).json())
        for template, methods in ACCESS.items()
        if "GET" in methods and (path := fill(template, **owned)) != template and not path.endswith(BY_THE_CLOCK)
    }


def _settled(document: Any) -> Any:
    """Without how long somebody waits."""
    if isinstance(document, dict):
        return {key: _settled(value) for key, value in document.items() if "wait" not in key}
    return [_settled(item) for item in document] if isinstance(document, list) else document


@pytest.mark.parametrize(("template", "method"), CASES)
def test_what_is_anothers_is_not_there(
    template: str, method: str, owner: APIClient, stranger: APIClient, owned: dict[str, str]
) -> None:
    before = state(owner, owned)
    body, query = json.dumps(BODIES.get(template, {})), QUERIES.get(template, "")
    paths = [fill(template, **owned), fill(template)]
    answers = [stranger.generic(method, path + query, body, content_type="application/json") for path in paths]
    assert {answer.status_code for answer in answers} == {404}
    said = [answer.content.decode() for answer in answers]
    for name in OWNED:
        said[0] = said[0].replace(owned[name], SAMPLES[name]) if f"{{{name}}}" in template else said[0]
    assert said[0] == said[1]
    assert state(owner, owned) == before


@pytest.mark.parametrize("call", ["authorize-user", "revoke-user"])
def test_seats_of_anothers_session_are_not_there(
    call: str, owner: APIClient, stranger: APIClient, owned: dict[str, str]
) -> None:
    before = state(owner, owned)
    for session_id in (owned["session_id"], SAMPLES["session_id"]):
        body = {"session_id": session_id, "user_ip": "192.0.2.3", "authorization_token": int(owned["token"])}
        answer = stranger.post(f"{SESSIONS}:{call}", body, format="json")
        assert (answer.status_code, answer.json()["code"]) == (404, "session_unknown")
    assert state(owner, owned) == before


def key_of(slug: str, scope: str) -> str:
    return api_key_create(tenant=Tenant.objects.get(slug=slug), name=scope, scopes=[scope])[1]


def test_backfill_of_anothers_session_is_refused(stranger: APIClient, owned: dict[str, str]) -> None:
    body = {"config": CONFIG, "activate": True}
    assert stranger.post("/matchmaker/profiles/duel/versions", body, format="json").status_code == 201
    backfill = {"profile": "duel", "attributes": {"assignment": {"request_id": owned["session_id"]}, "elo": 1000}}
    only_plays = APIClient()
    only_plays.credentials(HTTP_AUTHORIZATION=key_of("other", "matchmaker"))
    answer = only_plays.post("/matchmaker/backfills", backfill, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_the_host")


@pytest.mark.parametrize("template", [path for path, methods in ACCESS.items() if "GET" in methods and "{" not in path])
def test_lists_name_nothing_of_anothers(template: str, stranger: APIClient, owned: dict[str, str]) -> None:
    shown = stranger.get(template).content.decode()
    ids = ("session_id", "token", "ticket_id", "group_id", "member_id", "backfill_id")
    assert not [name for name in ids if owned[name] in shown]
