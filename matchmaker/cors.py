"""Which browser pages may read the responses of the matchmaker: besides the origins that the tenant allows everywhere,
those in `allowed_cors_origins` of the profile that a response is about, or of any active profile when it is about none.
"""

import logging
import time
from typing import Any

from corsheaders.signals import check_request_enabled
from django.conf import settings
from django.db import DatabaseError
from django.db.models import F
from django.dispatch import receiver
from django.http import HttpRequest

from web.http.origins import is_allowed

from .models import ProfileVersion

logger = logging.getLogger(__name__)

_remembered: tuple[float, dict[tuple[str, str], list[str]]] | None = None


def origins_by_profile() -> dict[tuple[str, str], list[str]]:
    """(tenant, profile) -> origins, of the active versions that name any. Cached for LOOKUP_CACHE_SECONDS."""
    global _remembered
    now = time.monotonic()
    if _remembered is None or now >= _remembered[0] + settings.LOOKUP_CACHE_SECONDS:
        active = ProfileVersion.objects.filter(profile__active=F("pk"), config__has_key="allowed_cors_origins")
        rows = active.order_by().values_list("profile__tenant", "profile__name", "config__allowed_cors_origins")
        _remembered = now, {(tenant, name): origins for tenant, name, origins in rows}
    return _remembered[1]


@receiver(check_request_enabled, dispatch_uid="matchmaker.cors")
def profile_allows(sender: Any, request: HttpRequest, **kwargs: Any) -> bool:
    origin = request.headers.get("Origin", "")
    if not origin or not request.path_info.startswith("/matchmaker/"):
        return False
    auth = getattr(request, "auth", None)
    tenant = getattr(getattr(auth, "tenant", None), "slug", None)
    profile = getattr(request, "about_profile", None)
    try:
        return any(
            is_allowed(origin, origins)
            for (owner, name), origins in origins_by_profile().items()
            if (auth is None or owner == tenant) and profile in (None, name)
        )
    except DatabaseError as error:
        logger.warning("no origin is allowed because the database failed: %s", type(error).__name__)
        return False
