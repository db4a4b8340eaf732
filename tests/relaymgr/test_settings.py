"""The settings, imported again with other environments."""

import importlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.utils.module_loading import import_string

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "relaymgr" / "settings"


class Load:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path):
        self.monkeypatch = monkeypatch
        for name in os.environ:
            if name.startswith("CAUSEWAY_") or name.endswith("_URL") or name in ("SECRET_KEY", "ALLOWED_HOSTS"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("CAUSEWAY_STATE_DIR", str(folder))

    def __call__(self, **environment: str) -> dict[str, Any]:
        for name, value in environment.items():
            self.monkeypatch.setenv(name, value)
        loaded = {name: module for name, module in sys.modules.items() if name.startswith("relaymgr.settings")}
        for name in loaded:
            del sys.modules[name]
        try:
            return vars(importlib.import_module("relaymgr.settings"))
        finally:
            sys.modules.update(loaded)

    def refused(self, **environment: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            self(**environment)
        return str(stopped.value)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    return Load(monkeypatch, tmp_path / "state")


def test_with_nothing_set_it_is_embedded(load: Load, tmp_path: Path) -> None:
    settings = load()
    state = tmp_path / "state"
    assert settings["DATABASES"]["default"]["NAME"] == str(state / "causeway.sqlite3")
    assert settings["DATABASES"]["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert settings["CELERY_BROKER_URL"] == "filesystem://"
    assert settings["CELERY_BROKER_TRANSPORT_OPTIONS"]["folder"] == str(state / "broker")
    assert settings["CACHES"]["default"]["BACKEND"].endswith("EmbeddedCache")
    assert settings["DEBUG"] is False
    assert settings["TIME_ZONE"] == "UTC"


def test_secret_key_is_generated_once_and_private(load: Load, tmp_path: Path) -> None:
    first, second = load()["SECRET_KEY"], load()["SECRET_KEY"]
    file = tmp_path / "state" / "secret_key"
    assert first == second == file.read_text()
    assert len(first) >= 50
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.glob("secret_key*")] == ["secret_key"]


def test_secret_key_of_the_environment_wins(load: Load, tmp_path: Path) -> None:
    settings = load(SECRET_KEY="given")
    assert settings["SECRET_KEY"] == "given"
    assert not settings["SECRET_KEY_IS_GENERATED"]
    assert not (tmp_path / "state" / "secret_key").exists()


def test_secrets_come_from_files_too(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    (tmp_path / "database").write_text("postgres://me:pass@db:5433/causeway\n")
    settings = load(SECRET_KEY_FILE=str(tmp_path / "key"), DATABASE_URL_FILE=str(tmp_path / "database"))
    assert settings["SECRET_KEY"] == "from a file"
    assert settings["DATABASES"]["default"]["HOST"] == "db"


def test_postgresql_has_a_pool_and_no_persistent_connections(load: Load) -> None:
    config = load(DATABASE_URL="postgres://me:pass@db:5433/causeway", CAUSEWAY_DATABASE_POOL="4")["DATABASES"][
        "default"
    ]
    assert config["ENGINE"] == "django.db.backends.postgresql"
    assert config["OPTIONS"]["pool"]["max_size"] == 4
    assert config.get("CONN_MAX_AGE", 0) == 0


def test_redis_broker_brings_a_redis_cache(load: Load) -> None:
    settings = load(BROKER_URL="redis://r:6379/0")
    assert settings["CELERY_BROKER_URL"] == "redis://r:6379/0"
    assert settings["CACHES"]["default"]["LOCATION"] == "redis://r:6379/0"
    assert settings["CELERY_BROKER_TRANSPORT_OPTIONS"]["visibility_timeout"] > settings["CELERY_TASK_TIME_LIMIT"]


def test_cache_may_be_another_redis(load: Load) -> None:
    settings = load(BROKER_URL="redis://r:6379/0", CACHE_URL="redis://c:6379/1")
    assert settings["CACHES"]["default"]["LOCATION"] == "redis://c:6379/1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://me:hunter2@db/causeway"),
        ("DATABASE_URL", "nonsense:hunter2"),
        ("DATABASE_URL", "postgres://me:hunter2@db:port/causeway"),
        ("DATABASE_URL", "postgres://me:hunter2@db"),
        ("BROKER_URL", "amqp://me:hunter2@mq"),
        ("CACHE_URL", "memcached://hunter2"),
        ("CAUSEWAY_DEBUG", "hunter2"),
        ("CAUSEWAY_HTTPS", "maybe"),
        ("CAUSEWAY_TRUSTED_PROXIES", "10.0.0.0/8,hunter2"),
        ("CAUSEWAY_GRANT_TIMEOUT", "nan"),
        ("CAUSEWAY_GRANT_TIMEOUT", "0"),
        ("CAUSEWAY_SEAT_PACKETS_PER_SECOND", "-1"),
        ("CAUSEWAY_DATABASE_POOL", "many"),
    ],
)
def test_bad_value_stops_with_one_line_that_names_it(load: Load, name: str, value: str) -> None:
    environment = {name: value} | ({"DATABASE_URL": "postgres://a:b@c/d"} if name == "CAUSEWAY_DATABASE_POOL" else {})
    line = load.refused(**environment)
    assert line.startswith(f"causeway: {name} must be ")
    assert "\n" not in line
    assert "hunter2" not in line


def test_unreadable_secret_file_stops(load: Load, tmp_path: Path) -> None:
    assert "SECRET_KEY_FILE" in load.refused(SECRET_KEY_FILE=str(tmp_path / "nothing"))


def test_state_folder_that_cannot_be_made_stops(load: Load, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "CAUSEWAY_STATE_DIR" in load.refused(CAUSEWAY_STATE_DIR=str(tmp_path / "file" / "state"))


def test_https_makes_cookies_secure_and_believes_proxies_only_when_there_are_some(load: Load) -> None:
    alone = load(CAUSEWAY_HTTPS="1")
    assert alone["SESSION_COOKIE_SECURE"] and alone["CSRF_COOKIE_SECURE"]
    assert "SECURE_PROXY_SSL_HEADER" not in alone
    assert "SECURE_PROXY_SSL_HEADER" in load(CAUSEWAY_TRUSTED_PROXIES="10.0.0.0/8")


def test_static_files_are_hashed_when_a_folder_is_named(load: Load) -> None:
    assert load()["WHITENOISE_USE_FINDERS"]
    collected = load(CAUSEWAY_STATIC_ROOT="/srv/static")
    assert not collected["WHITENOISE_USE_FINDERS"]
    backend = import_string(collected["STORAGES"]["staticfiles"]["BACKEND"])
    assert issubclass(backend, ManifestStaticFilesStorage)


def test_every_variable_is_recorded_and_has_a_help_text(load: Load) -> None:
    """The page is generated from the recorded variables; a reader inside an `if` would leave its variable out."""
    source = "".join(file.read_text() for file in SETTINGS.glob("*.py"))
    read = set(re.findall(r'env\.(?:text|secret|flag|whole|number|choice|words|networks)\(\s*"([A-Z_]+)"', source))
    recorded = load()["VARIABLES"]
    assert recorded.keys() == read
    assert [name for name, variable in recorded.items() if not variable.help] == []


def test_the_document_is_what_the_code_generates() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/settings_page.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs/settings.md").read_text() == done.stdout, "run: make settings-page"
