"""Every setting, read from the environment. A bad value stops the start with one line that names its variable.

With nothing set: SQLite and a broker made of files under `var/`, for one machine. DATABASE_URL (postgres://) and
BROKER_URL (redis://) make it the real thing. Secrets may come from a file: NAME_FILE instead of NAME.
"""

import ipaddress
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import environ
from csp.constants import NONE, SELF

from observability.log_lines import FORMATS, LEVELS
from web.log_config import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent


# Readers. Each notes what it reads, for docs/settings.md (tools/settings_page.py): below the name stand what it means
# and, where it matters, what is meant by leaving it empty.

env = environ.Env()


class Variable(NamedTuple):
    section: str
    read_by: str
    name: str
    kind: str
    default: str
    help: str
    is_secret: bool = False


VARIABLES: dict[str, Variable] = {}
_section, _read_by = "", ""


def _begin(section: str, read_by: str) -> None:
    """Heads the variables that follow, and says which processes they matter to."""
    global _section, _read_by
    _section, _read_by = section, read_by


def _note(name: str, kind: str, default: object, help: str, is_secret: bool = False) -> None:
    VARIABLES.setdefault(name, Variable(_section, _read_by, name, kind, str(default), help, is_secret))


def _stop(name: str, wanted: str) -> NoReturn:
    # Never the value: it may be a password.
    sys.exit(f"causeway: {name} must be {wanted}")


def _value(name: str, default: str = "") -> str:
    return os.environ.get(name, default).strip()


def _text(name: str, default: str = "", help: str = "") -> str:
    _note(name, "text", default, help)
    return _value(name, default)


def _secret(name: str, help: str = "") -> str:
    _note(name, "text", "", help, is_secret=True)
    file = _value(f"{name}_FILE")
    if not file:
        return _value(name)
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        _stop(f"{name}_FILE", f"a readable file of text ({getattr(error, 'strerror', 'it is not UTF-8')})")


def _flag(name: str, default: bool, help: str = "") -> bool:
    _note(name, "on or off", "on" if default else "off", help)
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    value = _value(name).lower()
    if value and value not in words:
        _stop(name, "one of 1, true, yes, on, 0, false, no, off")
    return words.get(value, default)


def _number(name: str, default: float, low: float, high: float, help: str = "") -> float:
    _note(name, f"number from {low:.15g} to {high:.15g}", f"{default:.15g}", help)
    value = _value(name)
    try:
        number = float(value) if value else default
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        _stop(name, f"a number from {low:.15g} to {high:.15g}")
    return number


def _choice(name: str, default: str, choices: Sequence[str], help: str = "") -> str:
    _note(name, f"one of {', '.join(choices)}", default, help)
    value = _value(name) or default
    by_lower = {choice.lower(): choice for choice in choices}
    if value.lower() not in by_lower:
        _stop(name, f"one of {', '.join(choices)}")
    return by_lower[value.lower()]


def _words(name: str, default: str = "", help: str = "") -> list[str]:
    _note(name, "list, between commas", default, help)
    return [word.strip() for word in _value(name, default).split(",") if word.strip()]


def _networks(name: str, help: str = "") -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    words = _words(name, help=help)
    try:
        return [ipaddress.ip_network(word) for word in words]
    except ValueError:
        _stop(name, "a list of networks such as 10.0.0.0/8,fd00::/8")


def _state_dir() -> Path:
    chosen = _text(
        "CAUSEWAY_STATE_DIR",
        help="the embedded database, the broker made of files, the generated secret key; made with mode 0700. "
        "Empty: `var` beside `manage.py`",
    )
    folder = Path(chosen or BASE_DIR / "var").absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _stop("CAUSEWAY_STATE_DIR", f"a folder we may write to ({error.strerror})")
    return folder


def _generated_secret_key(file: Path) -> str:
    """Made once; `link` settles it when several processes start at the same moment."""
    if not file.exists():
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text().strip()


def _sqlite() -> dict[str, Any]:
    return {
        # IMMEDIATE: a transaction that reads and then writes waits for its turn instead of failing half-way.
        # So every atomic() is a writer: no network call inside one.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }


def _postgresql() -> dict[str, Any]:
    from web.database.connections import PARAMETERS, Connection  # not on SQLite: it loads the driver

    # Connections in all: this times the number of processes.
    pool = {"min_size": 1, "max_size": DATABASE_POOL, "timeout": 3, "connection_class": Connection}
    return {**PARAMETERS, "pool": pool}


def _database() -> dict[str, Any]:
    url = _secret(
        "DATABASE_URL",
        "`postgres://user:password@host:port/name` for production and for more than one machine. Empty: SQLite in the "
        "state folder",
    )
    url = url or f"sqlite:///{STATE_DIR / 'causeway.sqlite3'}"
    try:
        config: dict[str, Any] = dict(env.db_url_config(url))
    except Exception:  # what django-environ raises differs, and its text holds the password
        config = {}
    options = {"django.db.backends.sqlite3": _sqlite, "django.db.backends.postgresql": _postgresql}
    if config.get("ENGINE") not in options or not config.get("NAME"):
        _stop("DATABASE_URL", "postgres://user:password@host:port/name or sqlite:////folder/file")
    config["OPTIONS"] = options[config["ENGINE"]]() | config.get("OPTIONS", {})
    # A pooled connection may be older than the server's last restart.
    return config | {"CONN_HEALTH_CHECKS": True}


def _cache(url: str) -> dict[str, Any]:
    if not url:
        return {"BACKEND": "web.cache.EmbeddedCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
    if not url.startswith(("redis://", "rediss://")):
        _stop("CACHE_URL", "redis://host:port/number")
    return {"BACKEND": "web.cache.KeptRedisCache", "LOCATION": url}


# Where state is kept, and the key that seals it

_begin("Where things are kept", "web, worker, beat, matchmaker, commands")
STATE_DIR = _state_dir()
SECRET_KEY = _secret(
    "SECRET_KEY",
    "seals what is secret in the database and signs logins: every process needs the same one. Empty: generated into "
    "the state folder, for one machine",
)
SECRET_KEY_IS_GENERATED = not SECRET_KEY
SECRET_KEY = SECRET_KEY or _generated_secret_key(STATE_DIR / "secret_key")
SECRET_KEY_FALLBACKS = _secret(
    "SECRET_KEY_FALLBACKS", "former keys, separated by spaces, that still open what they sealed"
).split()

DATABASE_POOL = int(
    _number(
        "CAUSEWAY_DATABASE_POOL",
        10,
        1,
        200,
        "PostgreSQL connections of each process, and so the requests that a web process works on at once",
    )
)
REQUEST_SECONDS = _number(
    "CAUSEWAY_REQUEST_SECONDS",
    10,
    1,
    60,
    "seconds for which a request waits for PostgreSQL in all; then the answer is 503 `database_unavailable`",
)
DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# PostgreSQL makes an installation one for production: checks.py then refuses what is unsafe there.
IS_PRODUCTION = DATABASES["default"]["ENGINE"].endswith("postgresql")

BROKER_URL = _secret("BROKER_URL", "`redis://host:port/number` for production. Empty: files in the state folder")
if BROKER_URL and not BROKER_URL.startswith(("redis://", "rediss://", "memory://")):
    _stop("BROKER_URL", "redis://host:port/number, or empty for the broker made of files")
BROKER_IS_REDIS = BROKER_URL.startswith("redis")
CACHE_URL = _secret(
    "CACHE_URL",
    "`redis://host:port/number`; counts requests. Empty: the broker, if that is a Redis, else each process for itself",
)
CACHES = {"default": _cache(CACHE_URL or (BROKER_URL if BROKER_IS_REDIS else ""))}


# Web

_begin("Web", "web")
DEBUG = _flag("CAUSEWAY_DEBUG", False, "Django's debug pages; never where others can see them")
ALLOWED_HOSTS = _words(
    "ALLOWED_HOSTS",
    "localhost,127.0.0.1,[::1]",
    "names and addresses under which games and nodes call the API; under any other the answer is 400 `host_unknown`. "
    "Production must name them",
)
ALLOWED_HOSTS_ARE_NAMED = bool(_value("ALLOWED_HOSTS"))
# Proxies whose X-Forwarded-For and X-Forwarded-Proto we believe (EDGEGAP.md R60).
TRUSTED_PROXIES = _networks(
    "CAUSEWAY_TRUSTED_PROXIES",
    "networks such as `10.0.0.0/8` whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed",
)
HTTPS = _flag(
    "CAUSEWAY_HTTPS",
    False,
    "players and operators come by HTTPS, through a proxy: cookies are for HTTPS only. Behind a public host production "
    "wants it on, or off in so many words",
)
HTTPS_IS_DECIDED = bool(_value("CAUSEWAY_HTTPS"))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = _words(
    "CAUSEWAY_CSRF_TRUSTED_ORIGINS", help="`https://relays.example.com`, when the proxy changes the host name"
)
SESSION_COOKIE_AGE = 12 * 3_600
HSTS_SECONDS = int(
    _number(
        "CAUSEWAY_HSTS_SECONDS",
        31_536_000,
        0,
        63_072_000,
        "seconds for which browsers that have seen the manager by HTTPS refuse anything else",
    )
)
SECURE_HSTS_SECONDS = HSTS_SECONDS if HTTPS else 0
if HTTPS and TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Where a proxy serves us below a path, which it takes off: part of every link, also of those in webhooks.
FORCE_SCRIPT_NAME = (
    _text("CAUSEWAY_ROOT_PATH", help="`/causeway` where a proxy serves us below that path and takes it off").rstrip("/")
    or None
)
if FORCE_SCRIPT_NAME and not FORCE_SCRIPT_NAME.startswith("/"):
    _stop("CAUSEWAY_ROOT_PATH", "a path such as /causeway")
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
# Clients concatenate URLs and drop the body of a redirected POST (EDGEGAP.md R13): we never redirect.
APPEND_SLASH = False
MAX_BODY_BYTES = 1_000_000
MAX_BODY_BYTES_WITHOUT_KEY = 64_000  # the forms of the admin
BODY_TIMEOUT = _number(
    "CAUSEWAY_BODY_TIMEOUT", 15, 0.1, 600, "seconds in which a request's body must arrive; else the answer is 408"
)
CLIENT_TIMEOUT = _number(
    "CAUSEWAY_CLIENT_TIMEOUT",
    20,
    0.1,
    600,
    "seconds in which a client must send a request's headers, and read what it is sent; else its connection is cut",
)
BODY_BYTES_IN_FLIGHT = int(
    _number(
        "CAUSEWAY_BODY_BYTES_IN_FLIGHT",
        64_000_000,
        1_000_000,
        1e11,
        "bytes of bodies, and of responses, that one process holds for slow clients; a quarter of it for one tenant, "
        "an eighth for one address of it, a sixteenth for bodies without a key, and never more than is still free; "
        "beyond that the answer is 503 `busy`",
    )
)
CONNECTIONS_PER_ADDRESS = int(
    _number(
        "CAUSEWAY_CONNECTIONS_PER_ADDRESS",
        1_000,
        10,
        1e6,
        "connections of one address to a web process; those of trusted proxies are not counted",
    )
)
STREAMS_PER_ADDRESS = int(
    _number("CAUSEWAY_STREAMS_PER_ADDRESS", 1_000, 1, 1e6, "tickets that one address of a tenant follows at once")
)
STREAMS_PER_TENANT = int(
    _number("CAUSEWAY_STREAMS_PER_TENANT", 5_000, 1, 1e6, "tickets that the players of one tenant follow at once")
)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES

ROOT_URLCONF = "relaymgr.urls"
ASGI_APPLICATION = "relaymgr.asgi.application"
INSTALLED_APPS = [
    "relaymgr.apps.RelaymgrConfig",  # before the admin: its templates are the ones in use
    "relaymgr.operations.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_structlog",
    "corsheaders",
    "web.audit",
    "relaymgr.tenants",
    "relaymgr.nodes",
    "relaymgr.telemetry",
    "relaymgr.sessions",
    "matchmaker",
    "relaymgr.operations.apps.OperationsConfig",  # last: when it makes the roles, what they may do is there
]
MIDDLEWARE = [
    "web.http.request_middleware.RequestMiddleware",
    "corsheaders.middleware.CorsMiddleware",  # before what answers by itself
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "web.http.headers.security_headers",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "web.http.input_warnings.InputWarningsMiddleware",
    "web.http.throttling.rate_limit_headers",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.cached.Loader", ["web.admin.text_isolation.Loader"])],
            "builtins": ["web.admin.text_isolation"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
] + [{"NAME": "relaymgr.operations.console.sign_in_audit.PasswordAudit"}]

# Static files: collected into CAUSEWAY_STATIC_ROOT and served under hashed names, or straight from the packages.
STATIC_URL = STATIC_PATH = "/static/"
STATIC_ROOT = (
    _text(
        "CAUSEWAY_STATIC_ROOT",
        help="static files are collected here (`manage.py collectstatic`) and served under hashed names. Empty: served "
        "from where they are",
    )
    or None
)
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "web.http.root_path.HashedStorage" if STATIC_ROOT else "web.http.root_path.PlainStorage"
    },
}

TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = ["web.admin.formats"]
LANGUAGE_CODE = "en-us"


# Browser pages of other origins: relaymgr.tenants.cors and matchmaker.cors say which. No cookies: a key is a header.
CORS_URLS_REGEX = r"^/(v1|matchmaker)/"
CORS_ALLOW_METHODS = ("GET", "POST", "PATCH", "DELETE", "OPTIONS")
CORS_ALLOW_HEADERS = ("accept", "authorization", "content-type", "idempotency-key", "last-event-id", "x-request-id")
CORS_EXPOSE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "X-Request-ID")
CORS_PREFLIGHT_MAX_AGE = 600  # seconds


# REST

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["relaymgr.authentication.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["relaymgr.authentication.MayUseRelays"],
    "DEFAULT_THROTTLE_CLASSES": ["web.http.throttling.KeyThrottle", "web.http.throttling.UnauthenticatedThrottle"],
    "DEFAULT_PARSER_CLASSES": ["web.http.parsers.BoundedJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "web.openapi.Schema",
    "EXCEPTION_HANDLER": "web.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Causeway",
    "DESCRIPTION": "Relay sessions for multiplayer games. Compatible with Edgegap's relay API, version 1.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "DEFAULT_GENERATOR_CLASS": "web.openapi.Generator",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "web.openapi.describe_numbers",
        "web.openapi.describe_warnings",
    ],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": "/v1",  # groups by what follows it
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "defaultModelsExpandDepth": 0},
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "TicketStatusEnum": "matchmaker.models.Status",
        "HealthEnum": ["HEALTHY", "UNHEALTHY"],
    },
}
# Limits of a minute. "One address" is an IPv4 address or the /64 of an IPv6 address (web.http.client_address).
FAILED_AUTHENTICATIONS_PER_MINUTE = int(
    _number(
        "CAUSEWAY_FAILED_AUTHENTICATIONS_PER_MINUTE",
        60,
        1,
        1e6,
        "wrong keys from one address before the answer is 429; a good key is never locked out",
    )
)
FAILED_LOGINS_PER_MINUTE = int(
    _number(
        "CAUSEWAY_FAILED_LOGINS_PER_MINUTE",
        5,
        1,
        1e6,
        "failed logins to the admin from one address; five times as many for one name; a browser that has logged in "
        "with the name before counts for itself alone",
    )
)
UNAUTHENTICATED_REQUESTS_PER_MINUTE = int(
    _number(
        "CAUSEWAY_UNAUTHENTICATED_REQUESTS_PER_MINUTE",
        300,
        1,
        1e6,
        "requests of one address without a key: `/monitor`, the OpenAPI document, the page that shows it",
    )
)


# Nodes and telemetry. Times in seconds.

_begin("Nodes and telemetry", "web, worker")
NODE_HEARTBEAT_INTERVAL = 5.0
NODE_MAX_CLOCK_SKEW = 5.0
NODE_PROBE_TIMEOUT = _number(
    "CAUSEWAY_PROBE_TIMEOUT", 1.0, 0.01, 10, "seconds a node may take to answer a probe; there is one each 2 s"
)
NODE_DISTRUST_SECONDS = _number(
    "CAUSEWAY_NODE_DISTRUST_SECONDS",
    86_400,
    60,
    31_536_000,
    "seconds for which the measurements of a node are not believed after they contradicted those of players or of most "
    "other nodes",
)
JOIN_KEY_LIFETIME = _number(
    "CAUSEWAY_JOIN_KEY_LIFETIME", 86_400, 60, 31_536_000, "seconds for which a new join key may be used"
)
TOKEN_KEY_LIFETIME = _number(
    "CAUSEWAY_TOKEN_KEY_LIFETIME",
    30 * 86_400,
    3_600,
    365 * 86_400,
    "seconds after which the key that seals a node's connect tokens is rolled",
)
# How long a retired token key still opens: longer than any session, and so any connect token, may live.
TOKEN_KEY_OVERLAP = 25 * 3_600.0
# Long: sessions play on while we cannot hear their node.
NODE_LOST_AFTER = _number(
    "CAUSEWAY_LOST_AFTER", 300, 1, 86_400, "seconds without a word from a node until its sessions are given up"
)
# Samples are kept one by one, then summed up by the minute, then by the hour.
SAMPLE_RETENTION = _number(
    "CAUSEWAY_SAMPLE_RETENTION",
    3_600,
    60,
    31_536_000,
    "seconds for which telemetry is kept sample by sample; then it is summed up by the minute",
)
MINUTE_RETENTION = _number(
    "CAUSEWAY_MINUTE_RETENTION",
    86_400,
    60,
    31_536_000,
    "seconds for which the sums of a minute are kept; then there are those of an hour",
)
HOUR_RETENTION = _number(
    "CAUSEWAY_HOUR_RETENTION", 90 * 86_400, 3_600, 10 * 31_536_000, "seconds for which the sums of an hour are kept"
)
MAX_PREFIX_LEGS = int(
    _number("CAUSEWAY_MAX_PREFIX_LEGS", 500_000, 100, 1e8, "legs of address prefixes that are remembered, the newest")
)
PREFIX_MIN_PLAYERS = int(
    _number(
        "CAUSEWAY_PREFIX_MIN_PLAYERS",
        3,
        1,
        9,
        "players of one address prefix who must have measured a node before others of the prefix are placed by it",
    )
)
GEOIP_FILE = _text(
    "CAUSEWAY_GEOIP_FILE",
    help="a city database in MaxMind's format, your own. Empty: players are where their requests say, nobody's place "
    "is guessed",
)
if GEOIP_FILE and not os.access(GEOIP_FILE, os.R_OK):
    _stop("CAUSEWAY_GEOIP_FILE", "a readable file")


# Sessions

# Seconds for which a creation may see nodes, rules and keys, and a player's call its key, as an earlier one found them.
LOOKUP_CACHE_SECONDS = 1.0

_begin("Sessions", "web, worker")
GRANT_TIMEOUT = _number(
    "CAUSEWAY_GRANT_TIMEOUT",
    1,
    0.01,
    10,
    "seconds a node may take to confirm a session before the next one is asked",
)
SIGNED_MEASUREMENTS_ONLY = _flag(
    "CAUSEWAY_SIGNED_MEASUREMENTS_ONLY",
    False,
    "believe only round trips that nodes have signed (PROTOCOL.md 11.1), not what players or games say",
)
SEAT_LIMITS = {
    "packets": int(
        _number(
            "CAUSEWAY_SEAT_PACKETS_PER_SECOND",
            2_000,
            0,
            2**31,
            "packets a second of one player, default and ceiling; 0: no limit",
        )
    ),
    "bytes": int(
        _number(
            "CAUSEWAY_SEAT_BYTES_PER_SECOND",
            1_000_000,
            0,
            2**31,
            "bytes a second of one player, default and ceiling; 0: no limit",
        )
    ),
}
SESSION_LIMITS = {
    "packets": int(
        _number(
            "CAUSEWAY_SESSION_PACKETS_PER_SECOND", 20_000, 0, 2**31, "packets a second of a whole session; 0: no limit"
        )
    ),
    "bytes": int(
        _number(
            "CAUSEWAY_SESSION_BYTES_PER_SECOND", 8_000_000, 0, 2**31, "bytes a second of a whole session; 0: no limit"
        )
    ),
}
SESSION_RETENTION_DAYS = _number(
    "CAUSEWAY_SESSION_RETENTION_DAYS", 7, 0.01, 3_650, "days for which ended sessions can be looked at"
)


# How long what may be about a player or an operator is kept (docs/data-protection.md)

_begin("Data protection", "web, worker, matchmaker")
AUDIT_RETENTION_DAYS = _number("CAUSEWAY_AUDIT_RETENTION_DAYS", 365, 1, 36_500, "days for which the audit log is kept")
NODE_CHANGE_RETENTION_DAYS = _number(
    "CAUSEWAY_NODE_CHANGE_RETENTION_DAYS", 30, 0.01, 3_650, "days for which state changes of nodes are kept"
)
PREFIX_RETENTION_DAYS = _number(
    "CAUSEWAY_PREFIX_RETENTION_DAYS",
    7,
    0.01,
    7,
    "days for which round trips of address prefixes (/24, /48) are kept; placement uses none that are older than 7",
)
WEBHOOK_PAYLOAD_RETENTION_HOURS = _number(
    "CAUSEWAY_WEBHOOK_PAYLOAD_RETENTION_HOURS",
    24,
    1,
    24 * 365,
    "hours for which the body of a webhook that was given up is kept, so that it can be sent again; that of a "
    "delivered one is deleted with the next round of housekeeping",
)
IDEMPOTENCY_RETENTION_HOURS = _number(
    "CAUSEWAY_IDEMPOTENCY_RETENTION_HOURS", 24, 1, 24 * 30, "hours for which an `Idempotency-Key` gets the same answer"
)
MATCH_RETENTION_HOURS = max(
    IDEMPOTENCY_RETENTION_HOURS,
    _number(
        "CAUSEWAY_MATCH_RETENTION_HOURS",
        24,
        1,
        24 * 365,
        "hours for which the matchmaker keeps matches that are over; at least `CAUSEWAY_IDEMPOTENCY_RETENTION_HOURS`",
    ),
)


# Webhooks

_begin("Webhooks", "worker")
WEBHOOK_CONCURRENCY = int(
    _number("CAUSEWAY_WEBHOOK_CONCURRENCY", 128, 4, 1_000, "attempts that one worker process has in flight at most")
)
WEBHOOK_CONCURRENCY_PER_TENANT = int(
    _number(
        "CAUSEWAY_WEBHOOK_CONCURRENCY_PER_TENANT",
        16,
        1,
        1_000,
        "of those, for one tenant at most; never more than a quarter of what is free",
    )
)
WEBHOOK_CONCURRENCY_PER_HOST = int(
    _number("CAUSEWAY_WEBHOOK_CONCURRENCY_PER_HOST", 8, 1, 1_000, "of those, to one host of a tenant at most")
)
WEBHOOK_QUEUE_MAX = int(
    _number(
        "CAUSEWAY_WEBHOOK_QUEUE_MAX",
        10_000,
        10,
        1e7,
        "deliveries of one tenant that may wait; beyond that, players' joins and leaves are dropped first",
    )
)


# The matchmaker

_begin("The matchmaker's processes", "matchmaker")
MATCHMAKER_MANAGER_URL_IS_SET = bool(_value("CAUSEWAY_MATCHMAKER_MANAGER_URL"))
WEB_URL_FILE = STATE_DIR / "web.url"  # where `manage.py up` started its web server
MATCHMAKER_MANAGER_URL = _text(
    "CAUSEWAY_MATCHMAKER_MANAGER_URL", "http://127.0.0.1:8000", "where they reach the manager"
)
MATCHMAKER_KEY = _secret(
    "CAUSEWAY_MATCHMAKER_KEY",
    "what they show to the manager: a service key (`manage.py service_key matchmaker`), with which they act for every "
    "tenant, or the `relay` key of one tenant, for a matchmaker of that one alone",
)
_begin("The matchmaker's API", "web")
# All players of a studio share a key.
MATCHMAKER_REQUESTS_PER_MINUTE = int(
    _number("CAUSEWAY_MATCHMAKER_REQUESTS_PER_MINUTE", 600, 1, 1e6, "requests to it from each address")
)
MATCHMAKER_TICKETS_PER_MINUTE = int(
    _number(
        "CAUSEWAY_MATCHMAKER_TICKETS_PER_MINUTE",
        1_200,
        1,
        1e6,
        "tickets that players of one address may make; each of them may be followed by two streams",
    )
)
MATCHMAKER_MAX_TICKETS_PER_TENANT = int(
    _number("CAUSEWAY_MATCHMAKER_MAX_TICKETS_PER_TENANT", 50_000, 1, 1e7, "active tickets of a tenant at one time")
)
MATCHMAKER_MAX_TICKETS_PER_ADDRESS = int(
    _number(
        "CAUSEWAY_MATCHMAKER_MAX_TICKETS_PER_ADDRESS",
        1_000,
        1,
        1e7,
        "active tickets that came from one address at one time, of a tenant; a backend's are not counted",
    )
)
MATCHMAKER_PLAYER_TICKET_SCOPE = _choice(
    "CAUSEWAY_MATCHMAKER_PLAYER_TICKET_SCOPE",
    "tenant",
    ("tenant", "profile"),
    "within what a player_id may have one active ticket",
)


# Celery. A message is a hint, never the record: state is a row, and the schedule looks at the rows anyway.

# A queue for each kind of work: one that is slow must not hold up another. (Celery takes
# CELERY_QUEUES for an old name of a setting of its own.)
WORK_QUEUES = ("probe", "session", "webhook", "housekeeping")
CELERY_TASK_DEFAULT_QUEUE = "housekeeping"
CELERY_BROKER_URL = BROKER_URL or "filesystem://"  # relaymgr/task_queue/broker.py
BROKER_DIR = STATE_DIR / "broker"
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    # visibility_timeout: longer than any task may run, else redis gives a running task to a second worker.
    # max_retries: who sends a hint does not wait for a broker that is down; workers wait by a setting of their own.
    {"visibility_timeout": 300, "socket_connect_timeout": 1, "socket_timeout": 5, "max_retries": 0}
    if BROKER_IS_REDIS
    else {"polling_interval": 0.02}
    if BROKER_URL
    else {"folder": str(BROKER_DIR), "polling_interval": 0.05}
)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_POOL_LIMIT = 10
CELERY_TASK_IGNORE_RESULT = True
# Early: a lost hint costs nothing, and a worker that holds a message it has yet to acknowledge does not survive its
# broker's death (kombu 5.7 fails while it gives the message back; seen 3 of 3 times, and 0 of 2 this way).
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_TIME_LIMIT = 60
CELERY_TASK_SOFT_TIME_LIMIT = 50
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "relaymgr.task_queue.beat:Scheduler"
# The broker made of files shares queues between processes, and nothing else.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = bool(BROKER_URL)


# What the processes tell of themselves (docs/observability.md)

_begin("What the processes tell", "web, worker, beat, matchmaker")
LOG_LEVEL = _choice("CAUSEWAY_LOG_LEVEL", "INFO", LEVELS, "how much they tell; players' addresses at `DEBUG` only")
LOG_FORMAT = _choice("CAUSEWAY_LOG_FORMAT", "auto", FORMATS, "`auto`: text at a terminal, JSON elsewhere")
LOGGING = logging_config(LOG_LEVEL, LOG_FORMAT)
# A request's line when it is over, in which a refusal is the caller's affair; no address, no user.
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_STATUS_4XX_LOG_LEVEL = logging.INFO
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
DJANGO_STRUCTLOG_USER_ID_FIELD = None
DJANGO_STRUCTLOG_CELERY_ENABLED = True
# Tasks are run several times a second.
DJANGO_STRUCTLOG_CELERY_DEFAULT_LOG_LEVEL = logging.DEBUG
DJANGO_STRUCTLOG_CELERY_TASK_RETRY_LOG_LEVEL = logging.INFO

METRICS_KEY = _secret(
    "CAUSEWAY_METRICS_KEY",
    "who shows it as `Authorization: Bearer <key>` reads metrics; without one, the manager has no `/metrics`",
)
METRICS_HOST = (
    _text("CAUSEWAY_METRICS_HOST", "127.0.0.1", "where worker, beat and matchmaker serve theirs") or "127.0.0.1"
)
WORKER_METRICS_PORT = int(_number("CAUSEWAY_WORKER_METRICS_PORT", 0, 0, 65535, "the worker's, for metrics; 0: none"))
BEAT_METRICS_PORT = int(_number("CAUSEWAY_BEAT_METRICS_PORT", 0, 0, 65535, "beat's, for metrics; 0: none"))
MATCHMAKER_METRICS_PORT = int(
    _number("CAUSEWAY_MATCHMAKER_METRICS_PORT", 0, 0, 65535, "a matchmaker's, for metrics; 0: none")
)
