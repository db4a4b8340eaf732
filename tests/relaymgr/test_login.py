"""Failed logins to the admin are counted; the rest of logging in is Django's."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from relaymgr import throttling

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[float]:
    settings.FAILED_LOGINS_PER_MINUTE = 2
    now = [1_795_257_600.0]
    monkeypatch.setattr(throttling.time, "time", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="right horse")


def login(password: str, address: str = "192.0.2.1", name: str = "root") -> str:
    """ "in", "wrong" or "throttled"."""
    answer = Client(REMOTE_ADDR=address).post(LOGIN, {"username": name, "password": password})
    if answer.status_code == 302:
        return "in"
    return "throttled" if "Too many failed logins" in answer.content.decode() else "wrong"


def test_right_password_lets_in() -> None:
    assert login("right horse") == "in"


def test_beyond_the_limit_not_even_the_right_password_counts_until_the_minute_is_over(clock: list[float]) -> None:
    tried = [login(password) for password in ("wrong", "wrong", "wrong", "right horse")]
    assert tried == ["wrong", "wrong", "throttled", "throttled"]
    clock[0] += 60
    assert login("right horse") == "in"


def test_other_addresses_are_not_concerned() -> None:
    assert [login("wrong") for _ in range(2)] == ["wrong", "wrong"]
    assert login("right horse", "192.0.2.2") == "in"


def test_many_addresses_that_try_one_name_are_stopped_together() -> None:
    assert {login("wrong", f"198.51.100.{i}", "Root" if i % 2 else "root") for i in range(10)} == {"wrong"}
    assert login("right horse", "192.0.2.3") == "throttled"
    assert login("x", "192.0.2.3", "somebody else") == "wrong"


def test_successes_are_not_counted() -> None:
    assert {login("right horse") for _ in range(5)} == {"in"}


@pytest.mark.parametrize("name", ["", "\0", "x" * 500, "ünïcode näme with blanks"])
def test_any_name_is_just_wrong(name: str) -> None:
    assert login("x", name=name) == "wrong"


def test_cache_that_is_down_locks_nobody_out(settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "relaymgr.cache.KeptRedisCache",
            "LOCATION": "redis://127.0.0.1:9/0",  # nobody listens there
        }
    }
    assert [login("wrong") for _ in range(3)] == ["wrong"] * 3
    assert login("right horse") == "in"


def test_login_form_carries_a_token_against_forgery() -> None:
    strict = Client(enforce_csrf_checks=True)
    answer = strict.post(LOGIN, {"username": "root", "password": "right horse"})
    assert answer.status_code == 403
    strict.get(LOGIN)
    token = strict.cookies["csrftoken"].value
    form = {"username": "root", "password": "right horse", "csrfmiddlewaretoken": token}
    assert strict.post(LOGIN, form).status_code == 302
