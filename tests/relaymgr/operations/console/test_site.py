"""The front page, and the page that asks before an act."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.test import Client
from django.urls import reverse

from relaymgr.nodes.models import Location, RelayNode, RelayWorker
from relaymgr.sessions.models import PlacementRule
from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.services import api_key_create
from tests.support.admin_actions import confirm_action
from tests.support.manager import StandIn
from web.admin.base import MAX_ROWS
from web.audit.models import AuditEntry
from web.audit.via import Via

pytestmark = pytest.mark.django_db
DRAIN = reverse("admin:nodes_relaynode_action", args=["drain"])


def test_front_page_has_the_fleet_and_its_live_part_is_the_same(admin_client: Client, node: RelayNode) -> None:
    page = admin_client.get(reverse("admin:index")).content.decode()
    part = admin_client.get(reverse("admin:now")).content.decode()
    for text in ("fra-1", "Frankfurt: 1 ready", "Active problems", f"{DRAIN}?pk={node.pk}"):
        assert text in page and text in part
    assert 'hx-get="/admin/now/"' in page and "<html" not in part


def test_mark_of_one_node_leads_to_it_and_of_several_to_their_list(
    admin_client: Client, make_node: Callable[..., RelayNode]
) -> None:
    node = make_node("fra-1")
    assert f'href="/admin/nodes/relaynode/{node.pk}/change/">' in mark(admin_client)
    make_node("fra-2")
    assert 'href="#marker-frankfurt"' in mark(admin_client)
    assert 'id="marker-frankfurt"' in admin_client.get(reverse("admin:now")).content.decode()


def mark(client: Client) -> str:
    return client.get(reverse("admin:now")).content.decode().partition('id="mark-frankfurt"')[2][:500]


def test_list_of_the_nodes_of_a_place_that_is_too_long_to_show(
    admin_client: Client, make_node: Callable[..., RelayNode], location: Location
) -> None:
    for n in range(10):
        make_node(f"fra-{n}")
    link = f"/admin/nodes/relaynode/?location__id__in={location.pk}"
    assert f'href="{link}">all 10</a>' in admin_client.get(reverse("admin:now")).content.decode()
    assert "10 relay nodes" in admin_client.get(link).content.decode()


def test_every_link_of_an_alert_is_a_page(admin_client: Client, make_node: Callable[..., RelayNode]) -> None:
    make_node("fra-1", state="lost")
    make_node("fra-2", state="suspect")
    page = admin_client.get(reverse("admin:now"))
    alerts = page.context["fleet"].alerts
    assert len(alerts) == 3
    for alert in alerts:
        answer = admin_client.get(f"{reverse(alert.page)}?{alert.query}")
        assert answer.status_code == 200, alert


@pytest.mark.parametrize(
    "path", ["/admin/", "/admin/login/", DRAIN + "?pk={pk}", "/admin/nodes/relaynode/{pk}/change/"]
)
def test_pages_hold_no_inline_script_style_or_handler(admin_client: Client, node: RelayNode, path: str) -> None:
    page = admin_client.get(path.format(pk=node.pk), follow=True).content.decode()
    for forbidden in ("<style", " style=", " onclick=", " onload=", "javascript:", "<script>"):
        assert forbidden not in page
    assert "//" not in page.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1:9", "")


@pytest.mark.parametrize("file", ["htmx", "idiomorph", "uPlot", "world"])
def test_what_is_not_ours_has_its_licence_beside_it(file: str) -> None:
    assert finders.find(f"operations/vendor/{file}.LICENSE")


# Acts


def test_to_ask_does_nothing(admin_client: Client, node: RelayNode) -> None:
    answer = admin_client.get(DRAIN, {"pk": node.pk, "next": "/admin/"})
    page = answer.content.decode()
    assert "No new sessions are placed here" in page and "0 of 100 seats taken" in page
    assert 'name="csrfmiddlewaretoken"' in page
    assert not RelayNode.objects.get().is_draining and not AuditEntry.objects.exists()


def test_act_needs_the_token_of_its_form(node: RelayNode, admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(DRAIN, {"pk": node.pk}).status_code == 403
    assert not RelayNode.objects.get().is_draining


def test_act_is_done_to_what_was_shown_and_leads_back(
    admin_client: Client, make_node: Callable[..., RelayNode], stand_in: StandIn
) -> None:
    one, two, three = (make_node(f"fra-{n}", control_url=stand_in.url) for n in range(3))
    answer = admin_client.post(DRAIN, {"pk": [one.pk, two.pk], "next": "/admin/"})
    assert answer.headers["Location"] == "/admin/"
    assert set(RelayNode.objects.filter(is_draining=True)) == {one, two}
    entries = AuditEntry.objects.order_by("target")
    assert [(entry.via, entry.actor, entry.action, entry.target, entry.succeeded) for entry in entries] == [
        (Via.ADMIN, "admin", "node.drain", "fra-0", True),
        (Via.ADMIN, "admin", "node.drain", "fra-1", True),
    ]
    assert three.pk


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_act_leads_nowhere_else(admin_client: Client, node: RelayNode, elsewhere: str) -> None:
    answer = admin_client.post(DRAIN, {"pk": node.pk, "next": elsewhere})
    assert answer.headers["Location"] == "/admin/nodes/relaynode/"


@pytest.mark.parametrize("pk", ["999", "abc", "", "'"])
def test_act_on_what_is_not_there_is_not_found(admin_client: Client, node: RelayNode, pk: str) -> None:
    assert admin_client.get(DRAIN, {"pk": pk}).status_code == 404
    assert admin_client.post(DRAIN, {"pk": pk}).status_code == 404


@pytest.mark.parametrize("name", ["delete_selected", "get_urls", "nothing"])
def test_only_acts_are_acts(admin_client: Client, node: RelayNode, name: str) -> None:
    assert admin_client.post(f"/admin/nodes/relaynode/actions/{name}", {"pk": node.pk}).status_code == 403


def test_too_many_at_once_are_refused(admin_client: Client, tenant: Tenant) -> None:
    ApiKey.objects.bulk_create(
        ApiKey(tenant=tenant, name="many", prefix=f"p{n}", secret_hash="x") for n in range(MAX_ROWS + 1)
    )
    chosen = {"action": "revoke", "_selected_action": ["1"], "select_across": "1"}
    answer = admin_client.post(reverse("admin:tenants_apikey_changelist"), chosen, follow=True)
    assert [str(message) for message in answer.context["messages"]] == [
        f"Too many rows are selected. Select at most {MAX_ROWS}."
    ]


def test_one_failure_is_told_and_kept_and_does_not_hold_up_the_others(
    admin_client: Client, make_node: Callable[..., RelayNode]
) -> None:
    make_node("fra-1", is_draining=True)
    busy = make_node("fra-2")
    RelayWorker.objects.filter(node=busy).update(free_seats=99)
    told = confirm_action(admin_client, RelayNode, "remove", *RelayNode.objects.all())
    assert told == ["fra-1 is removed.", "fra-2: The node still serves sessions. Drain it and wait, or stop it."]
    kept = AuditEntry.objects.order_by("target").values_list("target", "succeeded", "detail")
    assert list(kept) == [("fra-1", True, told[0]), ("fra-2", False, told[1])]


def test_key_is_shown_once_and_not_kept(admin_client: Client, tenant: Tenant) -> None:
    plain = confirm_action(admin_client, Tenant, "create_key", tenant)[0].split(": ")[1].split(" ")[0]
    assert plain.startswith("cw_")
    entry = AuditEntry.objects.get()
    assert entry.action == "tenant.create_key"
    assert plain not in f"{entry.target} {entry.detail}"


def test_session_page_bans_its_node_for_its_tenant(admin_client: Client, node: RelayNode, tenant: Tenant) -> None:
    from relaymgr.sessions.models import RelaySession

    session = RelaySession.objects.create(
        tenant=tenant, token="1", idle_timeout=60, expires_at=tenant.created_at, worker=node.workers.get()
    )
    for _ in range(2):  # a second time changes nothing
        told = confirm_action(admin_client, RelaySession, "ban_node", session, note="loses packets")
        assert told == ["New sessions of studio avoid fra-1."]
    rule = PlacementRule.objects.get()
    assert (rule.kind, rule.tenant, rule.node, rule.note) == ("ban", tenant, node, "loses packets")


def test_saved_forms_are_kept_with_what_changed(admin_client: Client, tenant: Tenant) -> None:
    key, _ = api_key_create(tenant=tenant, name="test", scopes=["read"])
    form = {"name": "renamed", "expires_at_0": "", "expires_at_1": ""}
    admin_client.post(reverse("admin:tenants_apikey_change", args=[key.pk]), form)
    form = {"kind": "ban", "tenant": tenant.pk, "location": Location.objects.create(
        slug="x", city="X", country="X", country_code="XX", continent="X", latitude=0, longitude=0
    ).pk}  # fmt: skip
    admin_client.post(reverse("admin:relay_sessions_placementrule_add"), form)
    rule = PlacementRule.objects.get()
    admin_client.post(reverse("admin:relay_sessions_placementrule_delete", args=[rule.pk]), {"post": "yes"})
    kept = AuditEntry.objects.order_by("pk").values_list("action", "target", "detail")
    assert list(kept) == [
        ("api_key.change", f"renamed ({key.prefix})", "Changed Name."),
        ("placement_rule.add", "ban x", ""),
        ("placement_rule.delete", "ban x", ""),
    ]


def test_nobody_changes_the_audit_log(admin_client: Client) -> None:
    entry = AuditEntry.objects.create(via=Via.ADMIN, actor="ann", action="node.drain", target="fra-1")
    url: Any = "admin:audit_auditentry_"
    assert admin_client.get(reverse(f"{url}add")).status_code == 403
    assert admin_client.post(reverse(f"{url}change", args=[entry.pk]), {"actor": "x"}).status_code == 403
    assert admin_client.post(reverse(f"{url}delete", args=[entry.pk]), {"post": "yes"}).status_code == 403
