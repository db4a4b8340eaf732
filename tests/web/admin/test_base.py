"""Every model's pages load, no secret stands in them, and the actions do what they say."""

import html
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from relaymgr.nodes.keys import join_key_create, node_key_rotate, token_key_rotate
from relaymgr.nodes.models import JoinKey, Location, RelayNode, RelayWorker, TokenKey
from relaymgr.nodes.selectors import join_key_get
from relaymgr.nodes.states import NodeState
from relaymgr.telemetry.models import Lease, LegSample, NodeEvent, NodeSample
from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.selectors import api_key_get
from relaymgr.tenants.services import api_key_create
from tests.support import admin_actions
from web.database.encryption import EncryptedTextField

MODELS = [
    Tenant,
    ApiKey,
    Location,
    RelayNode,
    RelayWorker,
    TokenKey,
    JoinKey,
    NodeSample,
    LegSample,
    NodeEvent,
    Lease,
]


@pytest.fixture
def rows(tenant: Tenant, node: RelayNode) -> None:
    now = timezone.now()
    api_key_create(tenant=tenant, name="test", scopes=["relay"])
    join_key_create(location=node.location)
    node_key_rotate(node=node)
    token_key_rotate(node=node)
    NodeSample.objects.create(node=node, at=now, probe_ms=1, cpu=0.1, sessions=1, seats=2, connected=2)
    LegSample.objects.create(node=node, session_id="0" * 12 + "-S", seat=1, at=now, rtt_ms=1, jitter_ms=1, loss=0)
    NodeEvent.objects.create(
        node=node, boot_id="b", number=1, at=now, session_id="0" * 12 + "-S", seat=1, kind="seat_joined"
    )
    Lease.objects.create(name="probe", until=now)


def secrets_of(model: type[Model]) -> set[str]:
    """All that must not be shown: hashes, and what is sealed (plain, as Python has it)."""
    fields = [
        field.attname
        for field in model._meta.fields
        if isinstance(field, EncryptedTextField) or field.name == "secret_hash"
    ]
    return {str(getattr(row, name)) for row in model._default_manager.all() for name in fields}


def test_every_model_of_ours_is_registered() -> None:
    assert [model for model in MODELS if model not in admin.site._registry] == []


@pytest.mark.parametrize("model", MODELS)
def test_pages_load_and_hold_no_secret(admin_client: Client, rows: None, model: type[Model]) -> None:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    row = model._default_manager.all()[0]
    pages = [
        admin_client.get(reverse(f"{name}_changelist")),
        admin_client.get(reverse(f"{name}_changelist"), {"q": "a"}),
        admin_client.get(reverse(f"{name}_change", args=[row.pk])),
        admin_client.get(reverse(f"{name}_history", args=[row.pk])),
        admin_client.get(reverse(f"{name}_add")),
    ]
    may_add = admin.site._registry[model].has_add_permission(pages[0].wsgi_request)
    assert [page.status_code for page in pages] == [200, 200, 200, 200, 200 if may_add else 403]
    for page in pages:
        assert not [secret for secret in secrets_of(model) if secret in html.unescape(page.content.decode())]


@pytest.mark.parametrize("model", [RelayNode, TokenKey, RelayWorker, NodeSample, LegSample, NodeEvent, Lease])
def test_what_the_system_writes_nobody_adds(admin_client: Client, rows: None, model: type[Model]) -> None:
    assert admin_client.get(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")).status_code == 403


@pytest.mark.parametrize("model", [Tenant, ApiKey, RelayNode, TokenKey])
def test_what_others_stand_on_is_not_deleted(admin_client: Client, rows: None, model: type[Model]) -> None:
    row = model._default_manager.all()[0]
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_delete", args=[row.pk])
    assert admin_client.post(url, {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(("model", "name"), [(ApiKey, "tenant"), (JoinKey, "location"), (RelayNode, "location")])
def test_big_tables_are_searched_not_listed(admin_client: Client, rows: None, model: type[Model], name: str) -> None:
    assert name in admin.site._registry[model].autocomplete_fields


# Actions and forms


def act(client: Client, model: type[Model], name: str, *rows: Model) -> str:
    return " | ".join(admin_actions.confirm_action(client, model, name, *rows))


def messages(response: Any) -> str:
    assert response.status_code == 200
    return " | ".join(str(message) for message in response.context["messages"])


def key_in(text: str) -> str:
    found = re.search(r"cw_\S+", text)
    assert found, text
    return found[0]


def test_tenant_gets_a_key_that_is_shown_once(admin_client: Client, tenant: Tenant) -> None:
    plain = key_in(act(admin_client, Tenant, "create_key", tenant))
    key = api_key_get(presented=plain)
    assert key is not None and key.tenant == tenant and key.scopes == ["relay"]
    for page in ("changelist",):
        assert plain not in admin_client.get(reverse(f"admin:tenants_apikey_{page}")).content.decode()


def test_webhook_secret_is_shown_once(admin_client: Client, tenant: Tenant) -> None:
    old = tenant.webhook_secret
    text = act(admin_client, Tenant, "rotate_webhook_secret", tenant)
    tenant.refresh_from_db()
    assert tenant.webhook_secret != old and f"Webhook secret of studio: {tenant.webhook_secret} " in text


def test_key_form_makes_a_key_and_shows_it_once(admin_client: Client, tenant: Tenant) -> None:
    data = {"tenant": tenant.pk, "name": "grafana", "scopes": ["read"], "expires_at_0": "", "expires_at_1": ""}
    text = messages(admin_client.post(reverse("admin:tenants_apikey_add"), data, follow=True))
    key = api_key_get(presented=key_in(text))
    assert key is not None and (key.name, key.scopes) == ("grafana", ["read"])


@pytest.mark.parametrize("wrong", [{"tenant": ""}, {"scopes": []}, {"scopes": ["node"]}])
def test_key_form_refuses(admin_client: Client, tenant: Tenant, wrong: dict[str, Any]) -> None:
    data = {"tenant": tenant.pk, "name": "grafana", "scopes": ["read"], **wrong}
    assert admin_client.post(reverse("admin:tenants_apikey_add"), data).status_code == 200  # the form again
    assert not ApiKey.objects.exists()


def test_key_form_changes_name_and_expiry_only(admin_client: Client, tenant: Tenant) -> None:
    key, _ = api_key_create(tenant=tenant, name="test", scopes=["read"])
    data = {"name": "renamed", "scopes": ["relay"], "secret_hash": "x", "expires_at_0": "", "expires_at_1": ""}
    assert admin_client.post(reverse("admin:tenants_apikey_change", args=[key.pk]), data).status_code == 302
    before, after = key.secret_hash, ApiKey.objects.get()
    assert (after.name, after.scopes, after.secret_hash) == ("renamed", ["read"], before)


def test_keys_are_revoked_and_rolled(admin_client: Client, tenant: Tenant, node: RelayNode) -> None:
    key, plain = api_key_create(tenant=tenant, name="test", scopes=["relay"])
    new = key_in(act(admin_client, ApiKey, "rotate", key))
    assert api_key_get(presented=plain) and api_key_get(presented=new)
    assert act(admin_client, ApiKey, "revoke", key) == f"{key} is revoked."
    assert api_key_get(presented=plain) is None
    assert "cannot be rotated" in act(admin_client, ApiKey, "rotate", key)
    node_key_rotate(node=node)
    assert "on the page of the node" in act(admin_client, ApiKey, "rotate", node.key)


def test_join_key_is_made_by_form_and_by_action(admin_client: Client, location: Location) -> None:
    by_action = key_in(act(admin_client, Location, "create_join_key", location))
    data = {"location": location.pk, "uses_left": 5}
    by_form = key_in(messages(admin_client.post(reverse("admin:nodes_joinkey_add"), data, follow=True)))
    assert join_key_get(presented=by_action) and join_key_get(presented=by_form)
    assert sorted(JoinKey.objects.values_list("uses_left", flat=True)) == [1, 5]
    assert act(admin_client, JoinKey, "revoke", *JoinKey.objects.all()).count("is revoked.") == 2
    assert join_key_get(presented=by_action) is None


def test_drain_tells_the_node(admin_client: Client, make_node: Callable[..., RelayNode], stand_in: Any) -> None:
    node = make_node(control_url=stand_in.url)
    assert act(admin_client, RelayNode, "drain", node) == "fra-1 drains."
    assert act(admin_client, RelayNode, "undrain", node) == "fra-1 accepts sessions again."
    assert [path for _, path, *_ in stand_in.requests] == ["/drain", "/undrain"]


def test_drain_of_a_deaf_node_says_so(admin_client: Client, node: RelayNode) -> None:
    assert "does not respond" in act(admin_client, RelayNode, "drain", node)
    node.refresh_from_db()
    assert node.is_draining


def test_nodes_keys_are_rolled(admin_client: Client, node: RelayNode) -> None:
    plain = key_in(act(admin_client, RelayNode, "rotate_node_key", node))
    key = api_key_get(presented=plain)
    assert key is not None and key.relaynode == node
    text = act(admin_client, RelayNode, "rotate_token_key", node)
    assert str(node.token_keys.get().key_id) in text
    assert node.token_keys.get().key not in text


def test_node_is_removed_unless_it_serves(admin_client: Client, node: RelayNode) -> None:
    RelayWorker.objects.update(free_seats=99)
    assert "still serves" in act(admin_client, RelayNode, "remove", node)
    RelayWorker.objects.update(free_seats=100)
    assert "Drain it first" in act(admin_client, RelayNode, "remove", node)
    RelayNode.objects.update(is_draining=True)
    assert act(admin_client, RelayNode, "remove", node) == "fra-1 is removed."
    assert not RelayNode.objects.exists()


def test_node_form_leaves_what_the_node_says_alone(admin_client: Client, node: RelayNode, location: Location) -> None:
    data = {"location": location.pk, "public_ip": "203.0.113.8", "host": "", "price": "2.5", "state": "lost"}
    data |= {f"workers-{name}": "0" for name in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS", "MAX_NUM_FORMS")}
    assert admin_client.post(reverse("admin:nodes_relaynode_change", args=[node.pk]), data).status_code == 302
    node.refresh_from_db()
    assert (node.public_ip, node.price, node.state) == ("203.0.113.7", 2.5, NodeState.READY)


@pytest.mark.parametrize("tags", ['{"a": 1}', '["a", 1]', '"a"', '[""]'])
def test_tags_are_a_list_of_words(admin_client: Client, location: Location, tags: str) -> None:
    page = admin_client.get(reverse("admin:nodes_location_change", args=[location.pk]))
    data = {name: value for name, value in page.context["adminform"].form.initial.items() if value is not None}
    response = admin_client.post(
        reverse("admin:nodes_location_change", args=[location.pk]), data | {"tags": tags}, follow=True
    )
    assert "list of words" in html.unescape(response.content.decode())


@pytest.mark.parametrize("tags", ["", "null"])
def test_emptied_json_is_the_default(admin_client: Client, location: Location, tags: str) -> None:
    page = admin_client.get(reverse("admin:nodes_location_change", args=[location.pk]))
    data = {name: value for name, value in page.context["adminform"].form.initial.items() if value is not None}
    response = admin_client.post(reverse("admin:nodes_location_change", args=[location.pk]), data | {"tags": tags})
    assert response.status_code == 302
    location.refresh_from_db()
    assert location.tags == []


SESSIONS = "admin:relay_sessions_relaysession_changelist"
MALFORMED = ("a\0b", "9" * 400, str(2**63), "0001-01-01T00:00:00+23:59")


@pytest.mark.django_db(transaction=True)
def test_malformed_queries_and_ids_are_no_server_error(admin_client: Client, location: Location) -> None:
    """Whatever a link or a form holds: also what only PostgreSQL refuses, such as a NUL."""
    for rows, key in ((reverse("admin:nodes_location_changelist"), "slug"), (reverse(SESSIONS), "id")):
        for value in MALFORMED:
            queries = [{"q": value}, {"p": value}, {"o": value}]
            queries += [{key + lookup: value} for lookup in ("", "__in", "__range", "__isnull", "__year", "__nothing")]
            answers = [admin_client.get(rows, query) for query in queries]
            answers += [admin_client.get(f"{rows}{quote(value)}/{page}/") for page in ("change", "history")]
            answers += [admin_client.post(rows, {"action": "delete_selected", "_selected_action": value})]
            answers += [admin_client.get(f"{rows}actions/create_join_key", {"pk": value})]
            assert [answer.status_code for answer in answers if answer.status_code >= 500] == [], (rows, value)


@pytest.mark.parametrize("value", MALFORMED, ids=["nul", "long", "int64", "year"])
def test_form_with_a_choice_that_no_row_can_be_is_shown_again(admin_client: Client, value: str) -> None:
    form = reverse("admin:tenants_apikey_add")
    assert admin_client.get(form, {"tenant": value}).status_code == 200
    assert admin_client.post(form, {"tenant": value, "name": "x", "scopes": "relay"}).status_code == 200
