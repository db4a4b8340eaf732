import io

import pytest
from django.core.management import CommandError, call_command

from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.selectors import api_key_get

pytestmark = pytest.mark.django_db
LONG = "x" * 255


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def test_tenant_and_key_from_a_script() -> None:
    assert run("tenant_create", "studio", "--name", "The Studio") == "studio"
    assert Tenant.objects.get().name == "The Studio"
    key = api_key_get(presented=run("api_key", "studio"))
    assert key is not None
    assert (key.tenant.slug, key.scopes) == ("studio", ["relay"])


def test_scopes_can_be_chosen(tenant: Tenant) -> None:
    run("api_key", "studio", "--scope", "read", "--scope", "matchmaker", "--name", "grafana")
    assert ApiKey.objects.get().scopes == ["matchmaker", "read"]


def test_second_tenant_of_a_name_is_refused(tenant: Tenant) -> None:
    with pytest.raises(CommandError, match="studio"):
        run("tenant_create", "studio")


def test_key_for_nobody_is_refused_with_what_to_do() -> None:
    with pytest.raises(CommandError, match="--create-tenant"):
        run("api_key", "nobody")
    assert not Tenant.objects.exists()


def test_the_direct_mode_of_a_new_tenant_can_be_chosen() -> None:
    run("tenant_create", "studio", "--direct-mode", "ask")
    run("api_key", "demo", "--create-tenant", "--direct-mode", "direct")
    run("tenant_create", "other")
    modes = dict(Tenant.objects.values_list("slug", "direct_mode"))
    assert modes == {"studio": "ask", "demo": "direct", "other": "relay_only"}


def test_tenant_may_be_made_on_the_way() -> None:
    for _ in range(2):
        assert api_key_get(presented=run("api_key", "studio", "--create-tenant"))
    assert Tenant.objects.get().slug == "studio"


@pytest.mark.parametrize("arguments", [("tenant_create", "Bad Slug!"), ("api_key", "Bad Slug!", "--create-tenant")])
def test_slug_that_is_none_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="slug: Enter a valid"):
        run(*arguments)
    assert not Tenant.objects.exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("tenant_create", ["studio", "--name", LONG]),
        ("tenant_create", [LONG]),
        ("api_key", ["studio", "--create-tenant", "--name", LONG]),
        ("api_key", [LONG, "--create-tenant"]),
        ("service_key", [LONG]),
        ("admin_login", [LONG]),
    ],
)
def test_a_text_that_its_column_cannot_hold_is_refused_by_name(command: str, arguments: list[str]) -> None:
    """PostgreSQL would refuse it with a traceback, and SQLite keep it."""
    with pytest.raises(CommandError, match=r"(slug|name|username): Ensure this value has at most \d+ characters"):
        call_command(command, *arguments, stdout=io.StringIO())
    assert not ApiKey.objects.exists()
