from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from relaymgr.sessions.models import RelaySession, Seat, WebhookDelivery
from relaymgr.sessions.webhooks.deliveries import delivery_retry
from relaymgr.tenants.models import Tenant
from tests.relaymgr.test_data_protection import V4, V6, later, players, receiver, session

__all__ = ["later", "players", "receiver", "session"]

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("policy", "kept"), [("remove", {None}), ("truncate", {"198.51.100.0", "2001:db8:aa::"}), ("keep", {V4, V6})]
)
def test_a_tenant_chooses_what_is_kept(
    policy: str, kept: set[str | None], session: RelaySession, api: APIClient, later: Callable[..., None]
) -> None:
    Tenant.objects.update(player_addresses=policy)
    later(minutes=1)
    assert set(Seat.objects.values_list("ip", flat=True)) == {V4, V6}, "while it lives nothing changes"
    api.delete(f"/v1/relays/sessions/{session.pk}")
    later(minutes=1)
    assert set(Seat.objects.values_list("ip", flat=True)) == kept


def test_a_webhook_that_was_given_up_can_be_sent_again_for_a_day(
    session: RelaySession, later: Callable[..., None]
) -> None:
    WebhookDelivery.objects.update(next_attempt_at=None)
    later(hours=23)
    assert V4 in WebhookDelivery.objects.get().payload
    later(hours=2)
    assert WebhookDelivery.objects.get().payload == ""
    assert not delivery_retry(delivery=WebhookDelivery.objects.get())
