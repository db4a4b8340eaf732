"""System checks for settings that are unsafe or contradict each other.

Every management command runs these checks and stops at an error; web, worker, beat and matchmaker run them during their
start (web/startup.py). An installation on PostgreSQL counts as production (settings.IS_PRODUCTION). With nothing set,
on SQLite, every process starts.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from relaymgr.tenants.keys import split_key

MIN_LENGTH, MIN_DISTINCT_CHARACTERS = 32, 10  # of SECRET_KEY
GENERATE_KEY = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
_LOCAL_NAME = re.compile(r"[^.]+|.+\.(localhost|local|internal|lan|home\.arpa|test)")


@register(Tags.security)
def settings_agree(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    production = (
        (_secret_key, _debug, _hosts, _https, _broker, _passwords, _cache, _matchmaker)
        if settings.IS_PRODUCTION
        else ()
    )
    return [message for check in (*production, _proxies, _debug_hosts, _database) for message in check()]


# In production


def _secret_key() -> Iterator[CheckMessage]:
    if settings.SECRET_KEY_IS_GENERATED:
        yield Error(
            "SECRET_KEY is not set: it was generated on this machine, and processes on others cannot decrypt what it "
            "encrypts.",
            hint=f"Set SECRET_KEY or SECRET_KEY_FILE, the same for every process, to what this prints: {GENERATE_KEY}",
            id="causeway.E003",
        )
    elif _is_weak(settings.SECRET_KEY):
        yield Error(
            f"SECRET_KEY can be guessed: it has fewer than {MIN_LENGTH} characters, or few different ones.",
            hint=f"Set it to what this prints: {GENERATE_KEY} (and put the former key into SECRET_KEY_FALLBACKS).",
            id="causeway.E004",
        )


def _is_weak(key: str) -> bool:
    has_few_characters = len(key) < MIN_LENGTH or len(set(key)) < MIN_DISTINCT_CHARACTERS
    return has_few_characters or key.startswith("django-insecure-")


def _debug() -> Iterator[CheckMessage]:
    if settings.DEBUG:
        hint = "Turn it off: any client that causes an error sees settings and sessions."
        yield Error("CAUSEWAY_DEBUG is on in production.", hint=hint, id="causeway.E005")


def _hosts() -> Iterator[CheckMessage]:
    hint = "Set it to the names and addresses under which games and nodes call the manager, separated by commas."
    if not settings.ALLOWED_HOSTS_ARE_NAMED:
        yield Error("ALLOWED_HOSTS is not set in production.", hint=hint, id="causeway.E006")
    elif any(host in ("*", ".") for host in settings.ALLOWED_HOSTS):
        yield Error("ALLOWED_HOSTS allows every host.", hint=hint, id="causeway.E007")


def _https() -> Iterator[CheckMessage]:
    public = [host for host in settings.ALLOWED_HOSTS if _is_public(host)]
    if public and not settings.HTTPS and not settings.HTTPS_IS_DECIDED:
        yield Error(
            f"CAUSEWAY_HTTPS is not set, and ALLOWED_HOSTS names {public[0]}: keys and passwords would cross the "
            "internet unencrypted.",
            hint="Put a proxy with a certificate in front of the manager and set it to on, or to off for plain HTTP.",
            id="causeway.E008",
        )
    url = urlsplit(settings.MATCHMAKER_MANAGER_URL)
    if settings.MATCHMAKER_KEY and url.scheme == "http" and _is_public(url.hostname or ""):
        yield Error(
            f"CAUSEWAY_MATCHMAKER_MANAGER_URL is http:// to {url.hostname}: the matchmaker's key would cross the "
            "internet unencrypted.",
            hint="Use https://, or a name or address of a private network.",
            id="causeway.E009",
        )


def _is_public(host: str) -> bool:
    """Whether the host is reached over the internet, as far as its name shows."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return not _LOCAL_NAME.fullmatch(host.lower().rstrip("."))


def _broker() -> Iterator[CheckMessage]:
    if not settings.BROKER_IS_REDIS:
        hint = (
            "Set BROKER_URL to redis://host:port/number: the broker made of files is for one machine, for evaluation."
        )
        yield Error("BROKER_URL is not a Redis in production.", hint=hint, id="causeway.E010")


def _passwords() -> Iterator[CheckMessage]:
    """Anyone who can reach the broker can send tasks to the workers, so it requires a password like the database."""
    for name, url in {"BROKER_URL": settings.BROKER_URL, "CACHE_URL": settings.CACHE_URL}.items():
        parts = urlsplit(url)
        if parts.hostname and not parts.password and not _is_this_machine(parts.hostname):
            hint = f"Give the server a password, and write {parts.scheme}://user:password@host:port/number."
            yield Error(f"{name} has no password for a server on the network.", hint=hint, id="causeway.E013")
    database = settings.DATABASES["default"]
    if database.get("HOST") and not database.get("PASSWORD") and not _is_this_machine(database["HOST"]):
        hint = "Write postgres://user:password@host:port/name."
        yield Error("DATABASE_URL has no password for a server on the network.", hint=hint, id="causeway.E014")


def _is_this_machine(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _cache() -> Iterator[CheckMessage]:
    if settings.CACHES["default"]["BACKEND"].endswith("EmbeddedCache"):
        hint = "Set CACHE_URL or BROKER_URL to a Redis."
        yield Error(
            "CACHE_URL is not a Redis: each process would count requests separately.", hint=hint, id="causeway.E011"
        )


def _matchmaker() -> Iterator[CheckMessage]:
    if settings.MATCHMAKER_KEY and split_key(settings.MATCHMAKER_KEY) is None:
        hint = "Create one with: manage.py service_key matchmaker"
        yield Error("CAUSEWAY_MATCHMAKER_KEY does not have the format of a key.", hint=hint, id="causeway.E012")


# In every installation


def _proxies() -> Iterator[CheckMessage]:
    if not all(network.prefixlen for network in settings.TRUSTED_PROXIES):
        hint = "Set it to the networks of your proxies: with /0 every client can forge its address."
        yield Error("CAUSEWAY_TRUSTED_PROXIES trusts every address.", hint=hint, id="causeway.E001")


def _debug_hosts() -> Iterator[CheckMessage]:
    if settings.DEBUG and "*" in settings.ALLOWED_HOSTS:
        hint = "Debug pages show settings and sessions: name the hosts in ALLOWED_HOSTS, or turn CAUSEWAY_DEBUG off."
        yield Error("CAUSEWAY_DEBUG is on for every host.", hint=hint, id="causeway.E002")


def _database() -> Iterator[CheckMessage]:
    if settings.BROKER_IS_REDIS and not settings.IS_PRODUCTION:
        hint = "SQLite serves one machine. Set DATABASE_URL before a second one runs workers."
        yield Warning("A Redis broker with a SQLite database.", hint=hint, id="causeway.W003")
