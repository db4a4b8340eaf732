"""Failed logins to the admin are counted; the rest of logging in is Django's."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from relaymgr.operations.console.login import DEVICE_COOKIE
from tests.support.manager import Clock, in_threads

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def clock(embedded_clock: Clock, settings: Any) -> Clock:
    settings.FAILED_LOGINS_PER_MINUTE = 2
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # cheap
    return embedded_clock


@pytest.fixture(autouse=True)
def root(db: None, clock: Clock) -> User:
    return User.objects.create_superuser("root", password="right horse")


def login(password: str, address: str = "192.0.2.1", name: str = "root") -> str:
    """ "in", "wrong" or "throttled"."""
    answer = Client(REMOTE_ADDR=address).post(LOGIN, {"username": name, "password": password})
    if answer.status_code == 302:
        return "in"
    return "throttled" if "Too many failed attempts" in answer.content.decode() else "wrong"


def test_right_password_lets_in() -> None:
    assert login("right horse") == "in"


def test_beyond_the_limit_not_even_the_right_password_counts_until_the_minute_is_over(clock: Clock) -> None:
    tried = [login(password) for password in ("wrong", "wrong", "wrong", "right horse")]
    assert tried == ["wrong", "wrong", "throttled", "throttled"]
    clock.now += 60
    assert login("right horse") == "in"


def test_other_addresses_are_not_concerned() -> None:
    assert [login("wrong") for _ in range(2)] == ["wrong", "wrong"]
    assert login("right horse", "192.0.2.2") == "in"


def test_many_addresses_that_try_one_name_are_stopped_together() -> None:
    assert {login("wrong", f"198.51.100.{i}", "Root" if i % 2 else "root") for i in range(10)} == {"wrong"}
    assert login("right horse", "192.0.2.3") == "throttled"
    assert login("x", "192.0.2.3", "somebody else") == "wrong"


def test_one_v6_network_is_one_address(clock: Clock) -> None:
    assert [login("wrong", f"2001:db8::{number}") for number in range(1, 4)] == ["wrong", "wrong", "throttled"]


def test_a_browser_that_logged_in_before_is_not_locked_out_by_others() -> None:
    """Not by failures for its name, nor by those from its own address; with another name it is like any other."""
    known = Client(REMOTE_ADDR="192.0.2.1")

    def try_known(password: str, name: str = "root") -> int:
        return known.post(LOGIN, {"username": name, "password": password}).status_code

    assert try_known("right horse") == 302
    known.post("/admin/logout/")
    for number in range(10):
        login("wrong", f"198.51.100.{number}")
    assert [login("wrong") for _ in range(3)] == ["throttled"] * 3
    assert login("right horse", "192.0.2.9") == "throttled", "a browser that is not known has to wait"
    assert try_known("right horse") == 302
    known.post("/admin/logout/")
    # Its own failures count, and stealing the cookie gives no more tries than that.
    assert [try_known("wrong") for _ in range(3)] == [200, 200, 200]
    assert try_known("right horse") == 200


def test_the_cookie_of_a_known_browser_is_signed_and_for_one_name() -> None:
    User.objects.create_superuser("other", password="battery staple")
    known = Client(REMOTE_ADDR="192.0.2.1")
    known.post(LOGIN, {"username": "other", "password": "battery staple"})
    cookie = known.cookies[DEVICE_COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", LOGIN)
    for number in range(10):
        login("wrong", f"198.51.100.{number}")
    for value in (cookie.value, "forged", ""):
        thief = Client(REMOTE_ADDR="192.0.2.2")
        thief.cookies[DEVICE_COOKIE] = value
        answer = thief.post(LOGIN, {"username": "root", "password": "right horse"})
        assert "Too many failed attempts" in answer.content.decode()


@pytest.mark.django_db(transaction=True)  # the threads write to the audit log
def test_as_many_tries_at_once_are_no_more_than_the_limit(clock: Clock) -> None:
    tried = in_threads(*(lambda: login("wrong") for _ in range(12)))
    assert sorted(tried) == ["throttled"] * 10 + ["wrong"] * 2


def test_successes_are_not_counted() -> None:
    assert {login("right horse") for _ in range(5)} == {"in"}


@pytest.mark.parametrize("name", ["", "\0", "x" * 500, "ünïcode näme with blanks"])
def test_any_name_is_just_wrong(name: str) -> None:
    assert login("x", name=name) == "wrong"


def test_cache_that_is_down_locks_nobody_out(settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "web.cache.PersistentRedisCache",
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
