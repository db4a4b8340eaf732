from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.selectors import api_key_get
from relaymgr.tenants.services import api_key_create, api_key_revoke, api_key_rotate, tenant_create
from web.errors import Invalid

pytestmark = pytest.mark.django_db


def test_plain_key_is_nowhere_in_the_database(tenant: Tenant) -> None:
    _, plain = api_key_create(tenant=tenant, name="test", scopes=["relay"])
    secret = plain.split("_", 2)[2]
    assert all(secret not in str(value) for value in ApiKey.objects.values().get().values())


def test_created_key_is_found_with_its_tenant(tenant: Tenant) -> None:
    key, plain = api_key_create(tenant=tenant, name="test", scopes=["read", "relay", "read"])
    found = api_key_get(presented=plain)
    assert found == key
    assert found.tenant == tenant
    assert found.scopes == ["read", "relay"]


@pytest.mark.parametrize("scopes", [[], ["node"], ["relay", "everything"]])
def test_tenants_key_has_tenants_scopes(tenant: Tenant, scopes: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        api_key_create(tenant=tenant, name="test", scopes=scopes)
    assert list(refused.value.details) == ["scopes"]


def test_key_without_tenant_is_a_nodes() -> None:
    with pytest.raises(Invalid):
        api_key_create(tenant=None, name="test", scopes=["relay"])
    assert api_key_create(tenant=None, name="test", scopes=["node"])


def test_revoked_key_is_gone_at_once_and_stays_so(tenant: Tenant) -> None:
    key, plain = api_key_create(tenant=tenant, name="test", scopes=["relay"])
    assert api_key_revoke(key=key)
    first = key.revoked_at
    assert api_key_get(presented=plain) is None
    assert not api_key_revoke(key=key)
    assert key.revoked_at == first


def test_rolled_key_works_on_beside_the_new_one_for_the_overlap(tenant: Tenant) -> None:
    old, old_plain = api_key_create(tenant=tenant, name="build server", scopes=["read"])
    new, new_plain = api_key_rotate(key=old, overlap=timedelta(hours=1))
    assert (new.name, new.scopes, new.tenant, new.expires_at) == ("build server", ["read"], tenant, None)
    assert api_key_get(presented=old_plain) == old
    assert api_key_get(presented=new_plain) == new
    ApiKey.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert api_key_get(presented=old_plain) is None


def test_rolling_lengthens_no_keys_life(tenant: Tenant) -> None:
    soon = timezone.now() + timedelta(minutes=1)
    old, _ = api_key_create(tenant=tenant, name="test", scopes=["read"], expires_at=soon)
    new, _ = api_key_rotate(key=old)
    old.refresh_from_db()
    assert old.expires_at == new.expires_at == soon


def test_revoked_key_cannot_be_rolled(tenant: Tenant) -> None:
    key, _ = api_key_create(tenant=tenant, name="test", scopes=["relay"])
    api_key_revoke(key=key)
    with pytest.raises(Invalid) as refused:
        api_key_rotate(key=key)
    assert refused.value.code == "key_not_usable"


def test_tenant_slug_is_taken_once() -> None:
    assert tenant_create(slug="studio").name == "studio"
    with pytest.raises(Invalid) as refused:
        tenant_create(slug="studio", name="Another")
    assert refused.value.details["slug"][0]["code"] == "unique"
