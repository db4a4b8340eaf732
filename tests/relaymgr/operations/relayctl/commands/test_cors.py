from collections.abc import Callable
from typing import Any

from relaymgr.tenants.models import Tenant
from web.audit.models import AuditEntry

from ..conftest import Relayctl

A, B, C = "https://a.example", "https://b.example", "https://*.c.example"


def test_origins_are_added_and_removed_and_changes_are_audited(
    tenant: Tenant, document: Callable[..., Any], relayctl: Relayctl
) -> None:
    assert document("cors", "studio")["allowed_cors_origins"] == []
    assert not AuditEntry.objects.exists(), "showing the list changes nothing"
    assert document("cors", "studio", "--allow", A, "--allow", B)["allowed_cors_origins"] == [A, B]
    assert document("cors", "studio", "--allow", C, "--allow", A, "--remove", B)["allowed_cors_origins"] == [A, C]
    tenant.refresh_from_db()
    assert tenant.allowed_cors_origins == [A, C]
    assert list(AuditEntry.objects.order_by("pk").values_list("action", "target", "detail")) == [
        ("tenant.cors_origins", "studio", f"{A}, {B}"),
        ("tenant.cors_origins", "studio", f"{A}, {C}"),
    ]
    assert relayctl("cors", "studio").stdout.split() == [A, C]


def test_invalid_origin_and_unknown_tenant_are_refused(tenant: Tenant, relayctl: Relayctl) -> None:
    refused = relayctl("cors", "studio", "--allow", A, "--allow", "a.example/path")
    assert refused.exit_code == 1 and "a.example/path" in refused.stderr
    tenant.refresh_from_db()
    assert tenant.allowed_cors_origins == []
    assert "tenant_unknown" in relayctl("cors", "other", "--allow", A).stderr
