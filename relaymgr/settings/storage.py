"""Where state is kept, and the key that encrypts it: state folder, SECRET_KEY, database, broker, cache."""

import os
import secrets
from pathlib import Path
from typing import Any

import environ

from relaymgr.settings.environment import env

BASE_DIR = Path(__file__).resolve().parent.parent.parent


def _state_dir() -> Path:
    chosen = env.text(
        "CAUSEWAY_STATE_DIR",
        help="folder of the SQLite database, the broker made of files and the generated secret key; created with mode "
        "0700. Empty: `var` beside `manage.py`",
    )
    folder = Path(chosen or BASE_DIR / "var").absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        env.fail("CAUSEWAY_STATE_DIR", f"must be a writable folder ({error.strerror})")
    return folder


def _generated_secret_key(file: Path) -> str:
    """Generated once. `link` decides which key is kept when several processes start at the same moment."""
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
        # IMMEDIATE: a transaction that reads and then writes waits for its turn instead of failing half-way. Every
        # atomic() is therefore a writer, and makes no network call.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }


def _postgresql() -> dict[str, Any]:
    from web.database.connections import PARAMETERS, Connection  # loads the driver, which SQLite does not need

    pool = {"min_size": 1, "max_size": DATABASE_POOL, "timeout": 3, "connection_class": Connection}
    return {**PARAMETERS, "pool": pool}


def _database() -> dict[str, Any]:
    url = env.secret(
        "DATABASE_URL",
        "`postgres://user:password@host:port/name` for production and for more than one machine. Empty: SQLite in the "
        "state folder",
    )
    url = url or f"sqlite:///{STATE_DIR / 'causeway.sqlite3'}"
    try:
        config: dict[str, Any] = dict(environ.Env().db_url_config(url))
    except Exception:  # django-environ raises various exceptions, whose texts contain the password
        config = {}
    options = {"django.db.backends.sqlite3": _sqlite, "django.db.backends.postgresql": _postgresql}
    if config.get("ENGINE") not in options or not config.get("NAME"):
        env.fail("DATABASE_URL", "must be postgres://user:password@host:port/name or sqlite:////folder/file")
    config["OPTIONS"] = options[config["ENGINE"]]() | config.get("OPTIONS", {})
    # A pooled connection may be older than the server's last restart.
    return config | {"CONN_HEALTH_CHECKS": True}


def _cache(url: str) -> dict[str, Any]:
    if not url:
        return {"BACKEND": "web.cache.EmbeddedCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
    if not url.startswith(("redis://", "rediss://")):
        env.fail("CACHE_URL", "must be redis://host:port/number")
    return {"BACKEND": "web.cache.PersistentRedisCache", "LOCATION": url}


env.section("Storage", read_by="web, worker, beat, matchmaker, commands")
STATE_DIR = _state_dir()
SECRET_KEY = env.secret(
    "SECRET_KEY",
    "encrypts secrets in the database and signs logins; every process needs the same one. Empty: generated into the "
    "state folder, for one machine",
)
SECRET_KEY_IS_GENERATED = not SECRET_KEY
SECRET_KEY = SECRET_KEY or _generated_secret_key(STATE_DIR / "secret_key")
SECRET_KEY_FALLBACKS = env.secret(
    "SECRET_KEY_FALLBACKS", "former keys, separated by spaces, with which existing data can still be decrypted"
).split()

DATABASE_POOL = env.whole(
    "CAUSEWAY_DATABASE_POOL",
    10,
    1,
    200,
    "PostgreSQL connections of each process; a web process works on as many requests at once",
)
DATABASE_TIMEOUT = env.number(
    "CAUSEWAY_DATABASE_TIMEOUT",
    10,
    1,
    60,
    "seconds for which one request waits for PostgreSQL in all; then the response is 503 `database_unavailable`",
)
DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# An installation on PostgreSQL counts as production: relaymgr/checks.py then refuses unsafe settings.
IS_PRODUCTION = DATABASES["default"]["ENGINE"].endswith("postgresql")

BROKER_URL = env.secret("BROKER_URL", "`redis://host:port/number` for production. Empty: files in the state folder")
if BROKER_URL and not BROKER_URL.startswith(("redis://", "rediss://", "memory://")):
    env.fail("BROKER_URL", "must be redis://host:port/number, or empty for the broker made of files")
BROKER_IS_REDIS = BROKER_URL.startswith("redis")
CACHE_URL = env.secret(
    "CACHE_URL",
    "`redis://host:port/number`; requests are counted there. Empty: the broker if that is a Redis, else the memory of "
    "each process",
)
CACHES = {"default": _cache(CACHE_URL or (BROKER_URL if BROKER_IS_REDIS else ""))}
