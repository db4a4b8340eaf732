"""admin_login; and every command that makes a key or a tenant writes so, and not the key, into the audit log."""

import io

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from web.audit.models import AuditEntry
from web.audit.services import machine_user
from web.audit.via import Via

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def groups(user: User) -> list[str]:
    return [group.name for group in user.groups.all()]


def test_who_is_new_becomes_an_administrator() -> None:
    name, password = run("admin_login").split()
    user = User.objects.get(username=name)
    assert (name, groups(user), user.is_staff, user.is_superuser) == ("admin", ["administrator"], True, False)
    assert user.check_password(password)


def test_role_is_given_and_kept_with_a_new_password() -> None:
    run("admin_login", "nina", "--role", "viewer")
    before = User.objects.get().password
    run("admin_login", "nina")
    user = User.objects.get()
    assert groups(user) == ["viewer"] and user.password != before
    run("admin_login", "nina", "--role", "operator")
    assert groups(User.objects.get()) == ["operator"]


def test_superuser_stays_one_unless_given_a_role() -> None:
    User.objects.create_superuser("root")
    run("admin_login", "root")
    assert User.objects.get().is_superuser
    run("admin_login", "root", "--role", "viewer")
    assert not User.objects.get().is_superuser


def test_unknown_role_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice"):
        run("admin_login", "nina", "--role", "emperor")


def test_commands_write_what_they_did_and_no_secret() -> None:
    place = ["--city", "X", "--country", "X", "--country-code", "XX", "--continent", "X"]
    run("location_create", "x", *place, "--latitude", "1", "--longitude", "2")
    run("tenant_create", "other")
    made = [run("api_key", "studio", "--create-tenant"), run("join_key", "x"), run("service_key", "matchmaker")]
    made.append(run("admin_login").split()[1])
    entries = AuditEntry.objects.order_by("pk")
    assert [(entry.action, entry.target.split(" ")[0]) for entry in entries] == [
        ("location.create", "x"),
        ("tenant.create", "other"),
        ("tenant.create", "studio"),
        ("api_key.create", "relay,"),
        ("join_key.create", "x"),
        ("service_key.create", "matchmaker"),
        ("user.add", "admin"),
        ("user.password_change", "admin"),
        ("user.role_grant", "admin"),
    ]
    assert {(entry.via, entry.actor) for entry in entries} == {(Via.COMMAND, machine_user())}
    kept = " ".join(f"{entry.target} {entry.detail}" for entry in entries)
    assert not [secret for secret in made if secret in kept]
