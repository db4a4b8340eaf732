"""Queries for tenants and keys."""

from datetime import datetime

from django.db.models import Max, QuerySet

from relaymgr.tenants.keys import hashes_match, split_key
from relaymgr.tenants.models import ApiKey, Tenant
from web.authorization import Scope
from web.ttl_cache import ttl_cache_if


def tenant_active(*, slug: str) -> Tenant | None:
    return Tenant.objects.filter(slug=slug, is_active=True).first()


def api_key_get(*, presented: str) -> ApiKey | None:
    """The key, with its tenant; None: the key is unknown or not usable. At most one query: a key for players, which
    thousands of players may use at the same moment, is cached for LOOKUP_CACHE_SECONDS."""
    parts = split_key(presented)
    key = _key(*parts) if parts else None
    return key if key is not None and key.is_usable else None


def _is_for_players(key: ApiKey | None) -> bool:
    return key is not None and set(key.scopes) == {Scope.MATCHMAKER} and key.is_usable


@ttl_cache_if(_is_for_players)
def _key(prefix: str, secret_hash: str) -> ApiKey | None:
    key = ApiKey.objects.select_related("tenant").filter(prefix=prefix).first()
    return key if key is not None and hashes_match(key.secret_hash, secret_hash) else None


def tenants_all() -> QuerySet[Tenant]:
    """Without their webhook secrets."""
    return Tenant.objects.order_by("slug").defer("webhook_secret")


def tenant_find(*, slug: str) -> Tenant | None:
    return tenants_all().filter(slug=slug).first()


def api_keys(*, tenant: str = "") -> QuerySet[ApiKey]:
    """All keys, or those of the tenant of this slug, with their tenants."""
    found = ApiKey.objects.select_related("tenant").order_by("tenant__slug", "name", "-created_at")
    return found.filter(tenant__slug=tenant) if tenant else found


def api_key_find(*, prefix: str) -> ApiKey | None:
    return ApiKey.objects.select_related("tenant").filter(prefix=prefix).first()


def api_keys_expiring(*, after: datetime, until: datetime) -> int:
    """The number of keys that expire in that period."""
    return ApiKey.objects.filter(revoked_at=None, expires_at__gt=after, expires_at__lte=until).count()


def node_key_last_used_at() -> datetime | None:
    """The time of the last authenticated request of any node."""
    keys = ApiKey.objects.filter(scopes=[Scope.NODE.value])
    found: datetime | None = keys.aggregate(last=Max("last_used_at"))["last"]
    return found
