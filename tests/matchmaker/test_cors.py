"""Which browser pages may read answers: per tenant and per profile, and none by default."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from matchmaker.services.profiles import profile_version_create
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.matchmaker.conftest import CONFIG
from tests.support.manager import client_with

pytestmark = pytest.mark.django_db
PAGE, GAME, OTHER = "https://dashboard.example.com", "https://game.example.com", "https://evil.example.com"
BASE = "/matchmaker"


def allowed(answer: Any) -> str | None:
    assert "origin" in answer["Vary"].lower()
    return answer.headers.get("Access-Control-Allow-Origin")


def preflight(path: str, origin: str) -> Any:
    headers = {"HTTP_ORIGIN": origin, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
    answer = APIClient().options(path, **headers, HTTP_ACCESS_CONTROL_REQUEST_HEADERS="authorization,content-type")
    assert answer.status_code == 200
    return answer


@pytest.fixture
def dashboard(tenant: Tenant) -> str:
    Tenant.objects.filter(pk=tenant.pk).update(allowed_cors_origins=[PAGE])
    return PAGE


def make_profile(name: str, *origins: str) -> None:
    config = {**CONFIG, "allowed_cors_origins": list(origins)} if origins else CONFIG
    profile_version_create(tenant="studio", name=name, config=config, activate=True)


def test_by_default_no_origin_is_allowed(api: APIClient) -> None:
    assert allowed(preflight("/v1/relays/sessions", PAGE)) is None
    assert allowed(api.get("/v1/ip", HTTP_ORIGIN=PAGE)) is None


def test_a_tenants_origins_are_its_own(api: APIClient, dashboard: str) -> None:
    asked = preflight("/v1/relays/sessions", dashboard)
    assert allowed(asked) == dashboard
    assert "authorization" in asked["Access-Control-Allow-Headers"] and "PATCH" in asked["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in asked
    seen = api.get("/v1/ip", HTTP_ORIGIN=dashboard)
    assert allowed(seen) == dashboard and "Retry-After" in seen["Access-Control-Expose-Headers"]
    assert allowed(api.get("/v1/ip", HTTP_ORIGIN=OTHER)) is None
    neighbour = Tenant.objects.create(slug="neighbour", name="n")
    stranger = client_with(api_key_create(tenant=neighbour, name="n", scopes=["relay"])[1])
    assert allowed(stranger.get("/v1/ip", HTTP_ORIGIN=dashboard)) is None


def test_errors_can_be_read_by_an_allowed_page(api: APIClient, dashboard: str) -> None:
    refused = client_with("cw_0123456789ab_guessed").get("/v1/ip", HTTP_ORIGIN=dashboard)
    assert (refused.status_code, allowed(refused)) == (401, dashboard)
    assert allowed(api.post("/v1/relays/sessions", {}, format="json", HTTP_ORIGIN=dashboard)) == dashboard
    assert allowed(api.get("/v1/nothing", HTTP_ORIGIN=dashboard)) == dashboard


def test_a_profiles_origins_hold_for_its_own_tickets(api: APIClient) -> None:
    make_profile("open", GAME)
    make_profile("closed")
    assert allowed(preflight(f"{BASE}/tickets", GAME)) == GAME
    assert allowed(preflight("/v1/relays/sessions", GAME)) is None
    assert allowed(api.get(f"{BASE}/locations/beacons", HTTP_ORIGIN=GAME)) == GAME
    for profile, expected in (("open", GAME), ("closed", None)):
        body = {"profile": profile, "attributes": {"elo": 1}}
        made = api.post(f"{BASE}/tickets", body, format="json", HTTP_ORIGIN=GAME)
        assert (made.status_code, allowed(made)) == (201, expected)
        ticket = f"{BASE}/tickets/{made.json()['id']}"
        assert allowed(api.get(ticket, HTTP_ORIGIN=GAME)) == expected
        assert allowed(api.get(f"{ticket}/explanation", HTTP_ORIGIN=GAME)) == expected
        assert allowed(api.get(f"{ticket}/events", HTTP_ORIGIN=GAME)) == expected
        member = api.post(f"{BASE}/groups", body, format="json", HTTP_ORIGIN=GAME)
        assert allowed(member) == expected
        assert allowed(api.get(f"{BASE}/groups/{member.json()['group_id']}", HTTP_ORIGIN=GAME)) == expected


def test_a_profile_with_no_origin_as_its_origin_is_refused(api: APIClient) -> None:
    config = {**CONFIG, "allowed_cors_origins": ["example.com"]}
    answer = api.post(f"{BASE}/profiles:validate", {"config": config}, format="json").json()
    assert [problem["path"] for problem in answer["problems"]] == ["allowed_cors_origins"]


def test_a_backend_sets_the_origins_of_its_tenant(api: APIClient, tenant: Tenant) -> None:
    assert api.get("/v1/tenant").json()["allowed_cors_origins"] == []
    changed = api.patch("/v1/tenant", {"allowed_cors_origins": [PAGE]}, format="json")
    assert (changed.status_code, changed.json()["allowed_cors_origins"]) == (200, [PAGE])
    assert allowed(api.get("/v1/tenant", HTTP_ORIGIN=PAGE)) == PAGE
    wrong = api.patch("/v1/tenant", {"allowed_cors_origins": [f"{PAGE}/path"]}, format="json")
    assert "allowed_cors_origins" in wrong.json()["details"]
    reader = client_with(api_key_create(tenant=tenant, name="r", scopes=["read"])[1])
    assert reader.patch("/v1/tenant", {"allowed_cors_origins": []}, format="json").status_code == 403
