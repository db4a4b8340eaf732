"""The audit log has every sign-in, and every failed one in a bounded way; new people and passwords by any way."""

from io import StringIO
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from web.audit import services
from web.audit.models import AuditEntry
from web.audit.services import DISTINCT_MAX

pytestmark = pytest.mark.django_db

LOGIN = reverse("admin:login")
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _patient(settings: LazySettings) -> None:
    settings.FAILED_LOGINS_PER_MINUTE = 10**6
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def ann(_patient: None) -> User:
    user = User.objects.create_user("ann", password=PASSWORD, is_staff=True, is_superuser=True)
    AuditEntry.objects.all().delete()
    return user


def log_in(name: str, password: str, **more: Any) -> Client:
    client = Client(**more)
    client.post(LOGIN, {"username": name, "password": password})
    return client


def entries() -> list[tuple[Any, ...]]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", "actor", "succeeded", "count", "detail"))


def test_sign_in_and_out(ann: User) -> None:
    client = log_in("ann", PASSWORD, REMOTE_ADDR="192.0.2.7")
    client.post(reverse("admin:logout"))
    assert entries() == [
        ("user.sign_in", "ann", True, 1, "from 192.0.2.7"),
        ("user.sign_out", "ann", True, 1, "from 127.0.0.1"),
    ] or entries() == [
        ("user.sign_in", "ann", True, 1, "from 192.0.2.7"),
        ("user.sign_out", "ann", True, 1, "from 192.0.2.7"),
    ]


def test_failures_are_counted_and_no_typed_password_is_kept(ann: User) -> None:
    for _ in range(3):
        log_in("ann", "wrong", REMOTE_ADDR="192.0.2.7")
    log_in("s3cret-typed-as-a-name", "wrong", REMOTE_ADDR="192.0.2.7")
    assert entries() == [
        ("user.sign_in", "ann", False, 3, "from 192.0.2.7"),
        ("user.sign_in", "unknown name", False, 1, "from 192.0.2.7"),
    ]


def test_a_person_without_access_has_failed_too() -> None:
    User.objects.create_user("ben", password=PASSWORD)
    AuditEntry.objects.all().delete()
    log_in("ben", PASSWORD)
    assert entries() == [("user.sign_in", "ben", False, 1, "from 127.0.0.1 has no access to the console")]


def test_a_flood_from_many_addresses_stays_bounded(monkeypatch: pytest.MonkeyPatch, ann: User) -> None:
    monkeypatch.setattr(services, "DISTINCT_MAX", 5)
    for n in range(30):
        log_in("ann", "wrong", REMOTE_ADDR=f"192.0.2.{n}")
    assert AuditEntry.objects.count() == 6
    others = AuditEntry.objects.get(actor="others")
    assert (others.count, others.succeeded) == (25, False)
    assert DISTINCT_MAX == 200


def test_ones_own_password_is_an_act(ann: User) -> None:
    client = log_in("ann", PASSWORD)
    new = "another good password"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert client.post(reverse("admin:password_change"), form).status_code == 302
    assert [entry[0] for entry in entries()] == ["user.sign_in", "user.password_change"]
    client.post(reverse("admin:password_change"), form)  # the old one is wrong by now
    assert [entry[0] for entry in entries()].count("user.password_change") == 1


def test_people_and_passwords_made_by_commands_are_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", username="root", email="", interactive=False, stdout=StringIO())
    user = User.objects.get()
    user.set_password("a new one")
    user.save()
    found = AuditEntry.objects.order_by("pk").values_list("via", "action", "target", "detail")
    assert list(found) == [
        ("command", "user.add", "root", "superuser"),
        ("command", "user.password_change", "root", ""),
    ]


def test_a_node_that_joins_is_an_act(location: Any) -> None:
    from nodeapi.membership import WorkerPorts
    from relaymgr.nodes.keys import join_key_create
    from relaymgr.nodes.services import node_join

    key = join_key_create(location=location)
    import time

    ports = [WorkerPorts(0, 1, 2)]
    node_join(
        join_key=key,
        name="fra-9",
        public_ip="203.0.113.9",
        control_url="http://127.0.0.1:1",
        time=time.time(),
        capacity=5,
        workers=ports,
    )
    entry = AuditEntry.objects.get(action="node.join")
    assert (entry.via, entry.actor, entry.target) == ("api", f"join key {key.split('_')[1]}", "fra-9")
    assert key not in f"{entry.detail} {entry.actor}"
