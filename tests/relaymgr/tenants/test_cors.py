import pytest
from django.db import DatabaseError
from django.test import Client
from rest_framework.test import APIClient

from relaymgr.tenants import cors
from relaymgr.tenants.models import Tenant

ORIGIN = "https://play.example.com"
ALLOW = "Access-Control-Allow-Origin"

pytestmark = pytest.mark.django_db


@pytest.fixture
def other() -> Tenant:
    """Another tenant, which allows the origin."""
    return Tenant.objects.create(name="Other", slug="other", allowed_cors_origins=[ORIGIN])


def preflight(client: Client) -> str | None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    return client.options("/v1/tenant", headers=headers).headers.get(ALLOW)


def test_response_is_readable_for_the_origins_of_the_calling_tenant_only(
    tenant: Tenant, other: Tenant, api: APIClient
) -> None:
    assert ALLOW not in api.get("/v1/tenant", headers={"Origin": ORIGIN}).headers
    Tenant.objects.filter(pk=tenant.pk).update(allowed_cors_origins=["https://*.example.com"])
    assert api.get("/v1/tenant", headers={"Origin": ORIGIN}).headers[ALLOW] == ORIGIN
    assert ALLOW not in api.get("/v1/tenant", headers={"Origin": "https://example.org"}).headers


def test_preflight_is_allowed_for_the_origins_of_any_active_tenant(tenant: Tenant, client: Client) -> None:
    assert preflight(client) is None
    Tenant.objects.update(allowed_cors_origins=[ORIGIN])
    assert preflight(client) == ORIGIN
    Tenant.objects.update(is_active=False)
    assert preflight(client) is None


def test_no_origin_is_allowed_while_the_database_fails(
    other: Tenant, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> frozenset[str]:
        raise DatabaseError("connection to 10.0.0.1 refused")

    monkeypatch.setattr(cors, "origins_of_any", fail)
    assert preflight(client) is None
    assert "no origin is allowed because the database failed: DatabaseError" in caplog.text
