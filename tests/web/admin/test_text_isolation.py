"""No text from outside changes the order of what stands beside it: in a page, at a terminal, in a log."""

import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from django.template import engines
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from observability.log_config import line_formatter
from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import PlacementRule, RelaySession, Seat, SessionEvent, WebhookDelivery
from relaymgr.tenants.models import Tenant
from tests.relaymgr.operations.relayctl.conftest import document, relayctl
from web.admin.text_isolation import rewritten

__all__ = ["document", "relayctl"]

EVIL = "x\u202egnp.exe"
HEBREW = "\u05d0\u05d1\u05d2"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<td>{{ a }}</td>", "<td>{{ a|bdi }}</td>"),
        ('<td title="{{ a }}">{{ b|date:"H:i" }}</td>', '<td title="{{ a }}">{{ b|date:"H:i"|bdi }}</td>'),
        ("<title>{{ a }}</title>{{ b }}", "<title>{{ a|bdi_plain }}</title>{{ b|bdi }}"),
        ("<script>{{ a }}</script>", "<script>{{ a }}</script>"),
        (
            '<a {% if x > 1 %}href="{{ a }}"{% endif %}>{{ b }}',
            '<a {% if x > 1 %}href="{{ a }}"{% endif %}>{{ b|bdi }}',
        ),
        ("{% comment %}<td{% endcomment %}{{ a }}", "{% comment %}<td{% endcomment %}{{ a|bdi }}"),
        ("{% blocktranslate %}{{ a }}{% endblocktranslate %}", "{% blocktranslate %}{{ a }}{% endblocktranslate %}"),
        ("<!-- <td --> {{ a }}", "<!-- <td --> {{ a|bdi }}"),
    ],
)
def test_variables_in_text_are_isolated_and_others_left_alone(source: str, expected: str) -> None:
    assert rewritten(source) == expected


def rendered(value: Any, source: str = "<p>{{ value }}</p>") -> str:
    return engines["django"].from_string(rewritten(source)).render({"value": value})  # type: ignore[attr-defined]


def test_only_what_could_reorder_is_changed() -> None:
    assert rendered(EVIL) == "<p><bdi>x\\u202egnp.exe</bdi></p>"
    assert rendered(f"{HEBREW}<b>") == f"<p><bdi>{HEBREW}&lt;b&gt;</bdi></p>"
    assert (rendered("Anna"), rendered("Zoë 日本"), rendered(1234)) == ("<p>Anna</p>", "<p>Zoë 日本</p>", "<p>1234</p>")
    assert rendered(EVIL, "<title>{{ value }}</title>") == "<title>x\\u202egnp.exe</title>"
    assert rendered(HEBREW, "<title>{{ value }}</title>") == f"<title>\u2068{HEBREW}\u2069</title>"


@pytest.fixture
def hostile(node: RelayNode, tenant: Tenant) -> RelaySession:
    """Hostile text wherever a player or a studio may put some."""
    now = timezone.now()
    session = RelaySession.objects.create(
        tenant=tenant,
        worker=node.workers.get(),
        state="ready",
        token="1",
        limits={"seat": {"packets": 0, "bytes": 0}, "session": {"packets": 0, "bytes": 0}},
        metadata={"mode": EVIL},
        idle_timeout=60,
        ready_at=now,
        expires_at=now + timedelta(hours=1),
    )
    for number, name in enumerate((EVIL, HEBREW)):
        Seat.objects.create(
            session=session, number=number, player_id=name, ip="192.0.2.7", token=str(number), seat_key="k"
        )
    SessionEvent.objects.create(session=session, at=now, kind="seat_left", seat=0, reason=EVIL)
    WebhookDelivery.objects.create(
        tenant=tenant, session=session, event="ready", url="https://x.example", payload="{}", last_error=EVIL
    )
    PlacementRule.objects.create(kind="ban", node=node, note=EVIL)
    Tenant.objects.update(name=EVIL)
    return session


@pytest.mark.django_db
def test_no_page_has_a_bidirectional_control_and_names_are_isolated(
    hostile: RelaySession, admin_client: Client
) -> None:
    seat = hostile.seats.get(number=0)
    paths = [
        "/admin/",
        reverse("admin:relay_sessions_relaysession_changelist"),
        reverse("admin:relay_sessions_relaysession_change", args=[hostile.pk]),
        reverse("admin:relay_sessions_relaysession_now", args=[hostile.pk]),
        reverse("admin:relay_sessions_seat_changelist"),
        reverse("admin:relay_sessions_seat_change", args=[seat.pk]),
        reverse("admin:relay_sessions_seat_action", args=["revoke"]) + f"?pk={seat.pk}",
        reverse("admin:relay_sessions_sessionevent_changelist"),
        reverse("admin:relay_sessions_webhookdelivery_changelist"),
        reverse("admin:relay_sessions_placementrule_changelist"),
        reverse("admin:tenants_tenant_changelist"),
    ]
    pages = {path: admin_client.get(path).content.decode() for path in paths}
    assert not [path for path, page in pages.items() if "\u202e" in page]
    shown = pages[reverse("admin:relay_sessions_relaysession_now", args=[hostile.pk])]
    assert "<bdi>x\\u202egnp.exe</bdi>" in shown and f"<bdi>{HEBREW}</bdi>" in shown
    assert "<bdi>player x\\u202egnp.exe, " in pages[paths[6]]


@pytest.mark.django_db
def test_what_a_form_shows_is_what_it_sends_back(hostile: RelaySession, admin_client: Client) -> None:
    tenant = Tenant.objects.get()
    page = admin_client.get(reverse("admin:tenants_tenant_change", args=[tenant.pk])).content.decode()
    assert re.search(f'name="name" value="{EVIL}"', page)


@pytest.mark.django_db
def test_a_terminal_is_told_what_is_there(hostile: RelaySession, relayctl: Any) -> None:
    found = relayctl("session", hostile.pk).stdout
    assert "x\\u202egnp.exe" in found and "\u202e" not in found
    assert f"\u2068{HEBREW}\u2069" in found
    asked = relayctl("revoke", hostile.pk, "0", answer="n\n").stderr
    assert "x\\u202egnp.exe" in asked and "\u202e" not in asked


def test_a_line_of_a_log_is_one_line() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 1, "player %s", ("ann\n2026 INFO forged \x1b[2J\u202e",), None)
    line = line_formatter("text").format(record)
    assert ("player ann\\x0a2026 INFO forged \\x1b[2J\\u202e" in line) and "\n" not in line
