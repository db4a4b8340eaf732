"""One delivery attempt: its result, its deadline and its headers."""

from collections.abc import Callable

import pytest

from relaymgr.sessions.models import WebhookDelivery
from relaymgr.sessions.webhooks import sending
from relaymgr.sessions.webhooks.dispatch import (
    deliver_due,
)
from relaymgr.sessions.webhooks.sending import UNREACHABLE
from tests.relaymgr.sessions.webhooks.test_dispatch import (
    Raw,
    Serve,
    deliver_to,
    drip_body,
    drip_head,
    flood_body,
    flood_head,
    hang,
    raw,
    session_of,
)

__all__ = ["raw"]

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("serve", [hang, drip_head, flood_head])
def test_one_deadline_covers_the_whole_attempt(
    serve: Serve, raw: Callable[[Serve], Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_S", 0.5)
    deliver_to(raw(serve).url, session_of("studio"))
    assert deliver_due() == 1
    assert WebhookDelivery.objects.get().last_error.startswith(f"{UNREACHABLE}: ")


@pytest.mark.parametrize("serve", [drip_body, flood_body])
def test_body_of_an_answer_is_not_waited_for(serve: Serve, raw: Callable[[Serve], Raw]) -> None:
    deliver_to(raw(serve).url, session_of("studio"))
    assert deliver_due() == 1
    assert WebhookDelivery.objects.get().delivered_at
