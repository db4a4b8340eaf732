from collections.abc import Callable
from typing import Any

from relaymgr.tenants.models import Tenant
from relaymgr.tenants.selectors import api_key_get
from relaymgr.tenants.services import api_key_create
from web.audit.models import AuditEntry

from ..conftest import Relayctl


def test_keys_are_listed_without_their_secret(tenant: Tenant, relayctl: Relayctl, document: Callable[..., Any]) -> None:
    key, plain = api_key_create(tenant=tenant, name="game", scopes=["relay"])
    (found,) = document("keys")["keys"]
    assert (found["prefix"], found["tenant"], found["scopes"]) == (key.prefix, "studio", ["relay"])
    for output in (relayctl("keys", "--json").output, relayctl("keys").output):
        assert plain.split("_", 2)[2] not in output
        assert key.secret_hash not in output
    Tenant.objects.create(name="Other", slug="other")
    assert document("keys", "--tenant", "other") == {"keys": []}
    assert document("keys", "--tenant", "studio")["keys"] == [found]
    refused = relayctl("keys", "--tenant", "nobody")
    assert (refused.exit_code, refused.stderr.split(": ")[1]) == (1, "tenant_unknown")


def test_revoked_key_is_dead_and_shown_on_request(
    tenant: Tenant, relayctl: Relayctl, document: Callable[..., Any]
) -> None:
    key, plain = api_key_create(tenant=tenant, name="game", scopes=["relay"])
    assert relayctl("key-revoke", key.prefix).exit_code == 1, "it asks first"
    assert api_key_get(presented=plain)

    assert document("key-revoke", key.prefix, "--yes") == {"key": key.prefix, "revoked": True}

    assert api_key_get(presented=plain) is None
    assert document("keys") == {"keys": []}
    assert document("keys", "--all")["keys"][0]["usable"] is False
    assert AuditEntry.objects.get().action == "api_key.revoke"
    assert "key_revoked" in relayctl("key-revoke", key.prefix, "--yes").stderr


def test_unknown_key_is_refused(relayctl: Relayctl) -> None:
    assert "key_unknown" in relayctl("key-revoke", "000000000000", "--yes").stderr
