import ipaddress
from typing import Any

import pytest
from django.core.checks import run_checks

from relaymgr.checks import settings_agree

POSTGRESQL = {"default": {"ENGINE": "django.db.backends.postgresql"}}
SQLITE = {"default": {"ENGINE": "django.db.backends.sqlite3"}}
LOCAL = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
REDIS = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://r"}}

# what contradicts, what it is called
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"DATABASES": POSTGRESQL, "CACHES": REDIS, "BROKER_IS_REDIS": True}, []),
    ({"DATABASES": POSTGRESQL, "CACHES": REDIS, "SECRET_KEY_IS_GENERATED": True}, ["causeway.W001"]),
    ({"DATABASES": POSTGRESQL}, ["causeway.W002"]),
    ({"BROKER_IS_REDIS": True, "CACHES": REDIS}, ["causeway.W003"]),
    ({"TRUSTED_PROXIES": [ipaddress.ip_network("0.0.0.0/0")]}, ["causeway.E001"]),
    ({"TRUSTED_PROXIES": [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::/0")]}, ["causeway.E001"]),
    ({"DEBUG": True, "ALLOWED_HOSTS": ["*"]}, ["causeway.E002"]),
    ({"DEBUG": False, "ALLOWED_HOSTS": ["*"]}, []),
]


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
@pytest.mark.parametrize(("changes", "expected"), CASES)
def test_contradictions_are_named(settings: Any, changes: dict[str, Any], expected: list[str]) -> None:
    agreeing = {"DATABASES": SQLITE, "CACHES": LOCAL, "BROKER_IS_REDIS": False, "SECRET_KEY_IS_GENERATED": False}
    for name, value in ({"TRUSTED_PROXIES": [], "DEBUG": False, "ALLOWED_HOSTS": ["a"]} | agreeing | changes).items():
        setattr(settings, name, value)
    messages = settings_agree(None)
    assert [message.id for message in messages] == expected
    assert all(message.hint for message in messages)


def test_as_it_stands_nothing_is_wrong() -> None:
    assert [message for message in run_checks() if message.is_serious()] == []
