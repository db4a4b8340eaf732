"""Reads."""

from relaymgr.tenants.keys import hashes_match, split_key
from relaymgr.tenants.models import ApiKey, Tenant


def tenant_active(*, slug: str) -> Tenant | None:
    return Tenant.objects.filter(slug=slug, is_active=True).first()


def api_key_get(*, presented: str) -> ApiKey | None:
    """The usable key that was presented, with its tenant; None for any other. One query, or none."""
    parts = split_key(presented)
    if parts is None:
        return None
    prefix, secret_hash = parts
    key = ApiKey.objects.select_related("tenant").filter(prefix=prefix).first()
    if key is None or not hashes_match(key.secret_hash, secret_hash) or not key.is_usable:
        return None
    return key
