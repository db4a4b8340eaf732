"""Reads."""

from relaymgr.tenants.keys import hashes_match, split_key
from relaymgr.tenants.models import ApiKey, Tenant
from web.authorization import Scope
from web.ttl_cache import remembered_where


def tenant_active(*, slug: str) -> Tenant | None:
    return Tenant.objects.filter(slug=slug, is_active=True).first()


def api_key_get(*, presented: str) -> ApiKey | None:
    """The usable key that was presented, with its tenant; None for any other. One query, or none: a key of players,
    which thousands of them present at the same moment, is remembered for LOOKUP_CACHE_SECONDS seconds."""
    parts = split_key(presented)
    key = _key(*parts) if parts else None
    return key if key is not None and key.is_usable else None


def _is_for_players(key: ApiKey | None) -> bool:
    return key is not None and set(key.scopes) == {Scope.MATCHMAKER} and key.is_usable


@remembered_where(_is_for_players)
def _key(prefix: str, secret_hash: str) -> ApiKey | None:
    key = ApiKey.objects.select_related("tenant").filter(prefix=prefix).first()
    return key if key is not None and hashes_match(key.secret_hash, secret_hash) else None
