import pytest
from rest_framework.test import APIClient

from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.support.manager import client_with
from web.audit.models import AuditEntry

TENANT = "/v1/tenant"


def test_tenant_reads_its_own_settings_without_its_secret(tenant: Tenant, api: APIClient) -> None:
    Tenant.objects.create(name="Other", slug="other")
    answer = api.get(TENANT)
    assert (answer.status_code, answer.json()["slug"]) == (200, "studio")
    assert tenant.webhook_secret not in answer.content.decode()


def test_origins_are_replaced_and_the_change_is_audited(tenant: Tenant, api: APIClient) -> None:
    for origins in (["https://a.example"], ["https://b.example", "https://*.b.example"]):
        answer = api.patch(TENANT, {"allowed_cors_origins": origins}, format="json")
        assert (answer.status_code, answer.json()["allowed_cors_origins"]) == (200, origins)
    tenant.refresh_from_db()
    assert tenant.allowed_cors_origins == ["https://b.example", "https://*.b.example"]
    entry = AuditEntry.objects.filter(action="tenant.cors_origins").last()
    assert entry and (entry.via, entry.target) == ("api", "studio")
    assert entry.actor == tenant.keys.get().prefix


@pytest.mark.parametrize("origins", [["https://a.example/path"], ["ftp://a.example"], "https://a.example", ["x"] * 51])
def test_invalid_origins_are_refused_and_nothing_changes(origins: object, tenant: Tenant, api: APIClient) -> None:
    answer = api.patch(TENANT, {"allowed_cors_origins": origins}, format="json")
    assert (answer.status_code, list(answer.json()["details"])) == (400, ["allowed_cors_origins"])
    tenant.refresh_from_db()
    assert tenant.allowed_cors_origins == []


def test_key_for_players_may_neither_read_nor_change(tenant: Tenant) -> None:
    players = client_with(api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])[1])
    assert players.get(TENANT).status_code == 403
    assert players.patch(TENANT, {"allowed_cors_origins": ["*"]}, format="json").status_code == 403
