import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import PlacementRule
from relaymgr.tenants.models import Tenant
from tests.support.admin_actions import confirm_action

pytestmark = pytest.mark.django_db

PARTS = ["now", "summary", "series", "latency"]


def part(node: RelayNode, name: str) -> str:
    return reverse(f"admin:nodes_relaynode_{name}", args=[node.pk])


def test_chart_data_has_the_requested_span_and_an_unknown_one_is_refused(node: RelayNode, admin_client: Client) -> None:
    assert admin_client.get(part(node, "series"), {"span": "1h"}).status_code == 200
    refused = admin_client.get(part(node, "series"), {"span": "1y"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert "1h" in refused.json()["message"]


def test_page_and_summary_use_the_default_span_for_an_unknown_one(node: RelayNode, admin_client: Client) -> None:
    page = reverse("admin:nodes_relaynode_change", args=[node.pk])
    for path in (page, part(node, "summary")):
        answer = admin_client.get(path, {"span": "1y"})
        assert (answer.status_code, answer.context["span"]) == (200, "1h")


@pytest.mark.parametrize("name", PARTS)
def test_parts_need_the_permission_to_view_and_an_existing_node(
    name: str, node: RelayNode, admin_client: Client
) -> None:
    assert admin_client.get(part(node, name)).status_code == 200
    assert admin_client.get(part(RelayNode(pk=node.pk + 1), name)).status_code == 404
    client = Client()
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(part(node, name)).status_code == 403


def test_latency_page_lists_the_nodes(node: RelayNode, admin_client: Client) -> None:
    answer = admin_client.get(reverse("admin:nodes_latency"))
    assert answer.status_code == 200 and "Latency between nodes" in answer.content.decode()


def test_ban_creates_a_rule_for_the_chosen_tenant(node: RelayNode, tenant: Tenant, admin_client: Client) -> None:
    (message,) = confirm_action(admin_client, RelayNode, "ban", node, tenant=tenant.pk, note="lag")
    assert message == f"New sessions of {tenant} are no longer placed on {node}."
    rule = PlacementRule.objects.get()
    assert (rule.kind, rule.tenant, rule.node, rule.note) == ("ban", tenant, node, "lag")
