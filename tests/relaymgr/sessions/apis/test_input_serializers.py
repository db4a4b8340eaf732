"""A webhook URL that can only fail is refused where it is given."""

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from relaymgr.sessions.models import RelaySession
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS

pytestmark = pytest.mark.django_db


def test_a_private_url_is_refused_at_creation_with_a_code(api: APIClient) -> None:
    answer = api.post(SESSIONS, {**TWO_USERS, "webhook_url": "http://10.0.0.7/hook"}, format="json")
    assert answer.status_code == 400
    assert [problem["code"] for problem in answer.json()["details"]["webhook_url"]] == ["webhook_private"]
    assert not RelaySession.objects.exists()


def test_a_tenant_that_may_use_private_ones_is_not_refused(api: APIClient) -> None:
    Tenant.objects.update(private_webhooks=True)
    answer = api.post(SESSIONS, {**TWO_USERS, "webhook_url": "http://10.0.0.7/hook"}, format="json")
    assert "webhook_url" not in answer.json()["details"], "no node is there: it fails for that alone"


@pytest.mark.parametrize(("allowed", "is_saved"), [(False, False), (True, True)])
def test_the_console_refuses_it_for_a_tenant(
    tenant: Tenant, admin_client: Client, allowed: bool, is_saved: bool
) -> None:
    page = reverse("admin:tenants_tenant_change", args=[tenant.pk])
    initial = admin_client.get(page).context["adminform"].form.initial
    form = {name: value for name, value in initial.items() if value not in (None, False, [])}
    form |= {"webhook_url": "http://127.0.0.1/hook", "allowed_cors_origins": "[]"} | (
        {"private_webhooks": "on"} if allowed else {}
    )
    answer = admin_client.post(page, form)
    assert (answer.status_code == 302) is is_saved, answer.content.decode()
    assert (Tenant.objects.get().webhook_url != "") is is_saved
