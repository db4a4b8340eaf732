"""Which browser pages may read the API's responses: those of the calling tenant's `allowed_cors_origins`. Off by
default.

A preflight request has no key, so it is allowed for an origin that any tenant allows. So is a response without a tenant
(a wrong key, /monitor), which contains no tenant's data. django-cors-headers calls `tenant_allows` and sets the
headers.
"""

import logging
from typing import Any

from corsheaders.signals import check_request_enabled
from django.db import DatabaseError
from django.dispatch import receiver
from django.http import HttpRequest

from relaymgr.tenants.models import Tenant
from web.http.origins import is_allowed
from web.ttl_cache import ttl_cache

logger = logging.getLogger(__name__)


@ttl_cache
def origins_of_any() -> frozenset[str]:
    """The origins that at least one active tenant allows."""
    lists = Tenant.objects.filter(is_active=True).exclude(allowed_cors_origins=[]).order_by()
    return frozenset(origin for origins in lists.values_list("allowed_cors_origins", flat=True) for origin in origins)


@receiver(check_request_enabled, dispatch_uid="tenants.cors")
def tenant_allows(sender: Any, request: HttpRequest, **kwargs: Any) -> bool:
    origin = request.headers.get("Origin", "")
    if not origin:
        return False
    auth = getattr(request, "auth", None)  # set by DRF when the request is authenticated
    if auth is not None:
        tenant = getattr(auth, "tenant", None)
        return tenant is not None and is_allowed(origin, tenant.allowed_cors_origins)
    try:
        return is_allowed(origin, sorted(origins_of_any()))
    except DatabaseError as error:
        logger.warning("no origin is allowed because the database failed: %s", type(error).__name__)
        return False
