from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.selectors import (
    api_key_get,
    api_keys,
    api_keys_expiring,
    node_key_last_used_at,
    tenant_active,
    tenants_all,
)
from relaymgr.tenants.services import api_key_create

pytestmark = pytest.mark.django_db


def test_inactive_tenant_is_not_found(tenant: Tenant) -> None:
    assert tenant_active(slug="studio") == tenant
    Tenant.objects.update(is_active=False)
    assert tenant_active(slug="studio") is None


def test_webhook_secrets_are_not_loaded(tenant: Tenant) -> None:
    assert "webhook_secret" in tenants_all().get().get_deferred_fields()


def test_only_keys_for_players_are_cached(
    tenant: Tenant, settings: Any, django_assert_num_queries: Callable[..., Any]
) -> None:
    settings.LOOKUP_CACHE_SECONDS = 60
    for scope, queries in (("matchmaker", 0), ("relay", 1)):
        plain = api_key_create(tenant=tenant, name="k", scopes=[scope])[1]
        assert api_key_get(presented=plain)
        with django_assert_num_queries(queries):
            assert api_key_get(presented=plain)


def test_cached_key_is_refused_once_it_has_expired(tenant: Tenant, settings: Any) -> None:
    settings.LOOKUP_CACHE_SECONDS = 60
    end = timezone.now() + timedelta(seconds=0.2)
    plain = api_key_create(tenant=tenant, name="k", scopes=["matchmaker"], expires_at=end)[1]
    assert api_key_get(presented=plain)
    while timezone.now() < end:
        pass
    assert api_key_get(presented=plain) is None


def test_keys_are_listed_by_tenant(tenant: Tenant) -> None:
    other = Tenant.objects.create(name="Other", slug="other")
    keys = [api_key_create(tenant=owner, name="k", scopes=["relay"])[0] for owner in (other, tenant)]
    assert list(api_keys()) == keys
    assert list(api_keys(tenant="studio")) == keys[1:]


def test_expiring_keys_are_counted_without_revoked_ones(tenant: Tenant) -> None:
    now = timezone.now()
    for days in (1, 2, 30):
        api_key_create(tenant=tenant, name="k", scopes=["relay"], expires_at=now + timedelta(days=days))
    until = now + timedelta(days=7)
    assert api_keys_expiring(after=now, until=until) == 2
    ApiKey.objects.filter(expires_at=now + timedelta(days=1)).update(revoked_at=now)
    assert api_keys_expiring(after=now, until=until) == 1


def test_last_use_counts_keys_of_nodes_only(tenant: Tenant) -> None:
    used_at = timezone.now()
    node_key = api_key_create(tenant=None, name="node", scopes=["node"])[0]
    other = api_key_create(tenant=tenant, name="k", scopes=["relay"])[0]
    ApiKey.objects.filter(pk=other.pk).update(last_used_at=used_at)
    assert node_key_last_used_at() is None
    ApiKey.objects.filter(pk=node_key.pk).update(last_used_at=used_at)
    assert node_key_last_used_at() == used_at
