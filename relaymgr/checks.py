"""Settings that contradict each other, or what they are used for. Run by every management command."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


@register()
def settings_agree(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    return [message for check in (_secret_key, _cache, _database, _proxies, _hosts) for message in check()]


def _is_postgresql() -> bool:
    return settings.DATABASES["default"]["ENGINE"].endswith("postgresql")


def _secret_key() -> list[CheckMessage]:
    if not (_is_postgresql() and settings.SECRET_KEY_IS_GENERATED):
        return []
    hint = "Set SECRET_KEY or SECRET_KEY_FILE: every process that uses the database needs the same key to open it."
    return [Warning("The secret key was generated on this machine alone.", hint=hint, id="causeway.W001")]


def _cache() -> list[CheckMessage]:
    is_local = settings.CACHES["default"]["BACKEND"].endswith("LocMemCache")
    if not (_is_postgresql() and is_local):
        return []
    hint = "Set CACHE_URL or BROKER_URL to a Redis: else each process counts requests for itself."
    return [Warning("Rate limits multiply by the number of web processes.", hint=hint, id="causeway.W002")]


def _database() -> list[CheckMessage]:
    if _is_postgresql() or not settings.BROKER_IS_REDIS:
        return []
    hint = "SQLite serves one machine. Set DATABASE_URL before a second one runs workers."
    return [Warning("A Redis broker with a SQLite database.", hint=hint, id="causeway.W003")]


def _proxies() -> list[CheckMessage]:
    if all(network.prefixlen for network in settings.TRUSTED_PROXIES):
        return []
    hint = "Name your proxies' own networks: with /0 each client chooses the address it is seen with."
    return [Error("CAUSEWAY_TRUSTED_PROXIES trusts everybody.", hint=hint, id="causeway.E001")]


def _hosts() -> list[CheckMessage]:
    if not (settings.DEBUG and "*" in settings.ALLOWED_HOSTS):
        return []
    hint = "Debug pages show settings and sessions: name the hosts, or switch CAUSEWAY_DEBUG off."
    return [Error("CAUSEWAY_DEBUG is on for every host.", hint=hint, id="causeway.E002")]
