"""Changes of tenants and keys. A plain key is returned by the function that creates it and is stored nowhere."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from relaymgr.tenants.choices import DirectMode
from relaymgr.tenants.keys import new_key
from relaymgr.tenants.models import ApiKey, Tenant, new_webhook_secret
from web.authorization import Scope
from web.database.model_checks import check_fields
from web.errors import Invalid
from web.http.origins import origins_problem

TENANT_SCOPES = (Scope.RELAY, Scope.READ, Scope.MATCHMAKER)
OWN_SCOPES = (Scope.NODE, Scope.SERVICE)  # of keys of the installation, one scope each
USED_RESOLUTION = timedelta(minutes=1)


def tenant_create(*, slug: str, name: str = "", direct_mode: str = DirectMode.RELAY_ONLY) -> Tenant:
    """Raises Invalid if the slug is taken or malformed, or there is no such mode."""
    fields = {"name": name or slug, "direct_mode": direct_mode}
    check_fields(Tenant(slug=slug, **fields))
    tenant, created = Tenant.objects.get_or_create(slug=slug, defaults=fields)
    if not created:
        raise Invalid.field("slug", f"A tenant {slug} already exists.", "unique")
    return tenant


def cors_origins_set(*, tenant: Tenant, origins: Sequence[str]) -> None:
    """Raises Invalid."""
    if problem := origins_problem(list(origins)):
        raise Invalid.field("allowed_cors_origins", problem, "origins")
    tenant.allowed_cors_origins = list(origins)
    tenant.save(update_fields=["allowed_cors_origins"])


def webhook_secret_rotate(*, tenant: Tenant) -> str:
    """Creates and returns a new secret, which signs all webhooks from now on, retries included."""
    tenant.webhook_secret = new_webhook_secret()
    tenant.save(update_fields=["webhook_secret"])
    return tenant.webhook_secret


def api_key_create(
    *, tenant: Tenant | None, name: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Returns the row and the plain key. Without a tenant, the key belongs to a node or a service and has that one
    scope."""
    allowed = {scope.value for scope in (OWN_SCOPES if tenant is None else TENANT_SCOPES)}
    if not scopes or not set(scopes) <= allowed or (tenant is None and len(set(scopes)) > 1):
        raise Invalid.field("scopes", f"Choose from: {', '.join(sorted(allowed))}.", "invalid_choice")
    new = new_key()
    key = ApiKey(
        tenant=tenant,
        name=name,
        prefix=new.prefix,
        secret_hash=new.secret_hash,
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    check_fields(key)
    key.save(force_insert=True)
    return key, new.plain


def service_key_create(*, name: str) -> str:
    """Creates and returns a plain key that is valid for every tenant. Earlier keys of this name are revoked."""
    earlier = ApiKey.objects.filter(tenant=None, name=name, revoked_at=None, scopes=[Scope.SERVICE.value])
    with transaction.atomic():
        earlier.update(revoked_at=timezone.now())
        _, plain = api_key_create(tenant=None, name=name, scopes=[Scope.SERVICE.value])
    return plain


def api_key_revoke(*, key: ApiKey) -> bool:
    """Takes effect immediately and cannot be undone. False: the key was already revoked."""
    now = timezone.now()
    revoked = ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now) == 1
    key.refresh_from_db(fields=["revoked_at"])
    return revoked


def api_key_rotate(*, key: ApiKey, overlap: timedelta = timedelta(hours=24)) -> tuple[ApiKey, str]:
    """Creates a key with the same name, scopes and expiry. The old key remains valid for `overlap`, so that its users
    can change over without an interruption."""
    if not key.is_usable:
        raise Invalid("A key that is revoked or expired cannot be rotated. Create a new one.", code="key_not_usable")
    end = timezone.now() + overlap
    with transaction.atomic():
        new = api_key_create(tenant=key.tenant, name=key.name, scopes=key.scopes, expires_at=key.expires_at)
        sooner = Q(expires_at=None) | Q(expires_at__gt=end)
        ApiKey.objects.filter(sooner, pk=key.pk).update(expires_at=end)
    return new


def api_key_used(*, key: ApiKey) -> None:
    """Records the use at most once a minute, so that a request rarely costs a write."""
    now = timezone.now()
    before = now - USED_RESOLUTION
    if key.last_used_at is None or key.last_used_at < before:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=before)
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
        key.last_used_at = now
