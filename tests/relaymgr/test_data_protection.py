"""Every table is walked: what is about a player is named in docs/data-protection.md, and gone after its time."""

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.background.cleanup import clean_up
from matchmaker.background.session_assignment import match_fail
from matchmaker.models import Match, ProfileVersion, Ticket
from relaymgr.celery import SCHEDULE, app
from relaymgr.sessions.models import RelaySession, Seat, WebhookDelivery
from relaymgr.sessions.webhooks.dispatch import deliver_due
from relaymgr.telemetry.model_learning import prefix_legs_update
from relaymgr.telemetry.models import LegSample
from relaymgr.tenants.models import Tenant
from tests.matchmaker.conftest import CONFIG
from tests.relaymgr.operations.relayctl.conftest import document, relayctl
from tests.relaymgr.sessions.conftest import make_stand_in_node
from tests.relaymgr.sessions.webhooks.test_deliveries import Receiver
from tests.support.admin_actions import confirm_action
from web.audit.models import AuditEntry

__all__ = ["document", "make_stand_in_node", "relayctl"]

pytestmark = pytest.mark.django_db

PAGE = (Path(__file__).parents[2] / "docs" / "data-protection.md").read_text()

V4, V6 = "198.51.100.77", "2001:db8:aa:bb::77"
EXACT = (V4, V6, "48.13712", "11.57543", "23.4567")  # addresses, coordinates, a measurement
NETWORKS = ("198.51.100.", "2001:db8:aa:")
NAMES = ("ann-4711", "ben-4712")
USERS = [
    {"player_id": "ann-4711", "ip": V4, "latitude": 48.13712, "longitude": 11.57543, "latencies": {"odd-1": 23.4567}},
    {"player_id": "ben-4712", "ip": V6},
]


def rows() -> Iterator[tuple[str, str]]:
    """(Model.field, its value as text), of every row of every table; what is encrypted is opened."""
    models = apps.get_models(include_auto_created=True)
    tables = set(connection.introspection.table_names())
    assert tables - {model._meta.db_table for model in models} <= {"django_migrations"}, "a table without a model"
    for model in models:
        for row in model._base_manager.all():
            for field in model._meta.concrete_fields:
                value = getattr(row, field.attname)
                yield (
                    f"{model.__name__}.{field.name}",
                    value if isinstance(value, str) else json.dumps(value, default=str),
                )


def places(*needles: str) -> set[str]:
    return {place for place, text in rows() if any(needle in text for needle in needles)}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Moves the clock that all of the manager reads, and runs everything that the schedule runs."""
    real, passed = timezone.now, dt.timedelta()
    app.loader.import_default_modules()  # as a worker does: all tasks are there

    def move(**by: float) -> None:
        nonlocal passed
        passed += dt.timedelta(**by)
        monkeypatch.setattr(timezone, "now", lambda: real() + passed)
        for task in SCHEDULE:
            if "prune" in task or "minimise" in task:
                app.tasks[task].run()
        clean_up()

    return move


@pytest.fixture
def receiver(tenant: Tenant) -> Iterator[Receiver]:
    started = Receiver()
    Tenant.objects.update(webhook_url=started.url, private_webhooks=True)
    tenant.refresh_from_db()
    yield started
    started.close()


@pytest.fixture
def session(
    receiver: Receiver, tenant: Tenant, api: APIClient, make_stand_in_node: Callable[..., Any], players: APIClient
) -> RelaySession:
    """Everything that is ever kept of two players, of their session, their search and their networks."""
    node, _ = make_stand_in_node(public_ipv6="2001:db8::1")
    answer = api.post("/v1/relays/sessions", {"users": USERS}, format="json", headers={"Idempotency-Key": "ann-4711"})
    assert answer.status_code == 200, answer.content
    made = RelaySession.objects.get()
    now = timezone.now()
    LegSample.objects.create(node=node, session_id=made.pk, seat=0, at=now, rtt_ms=23.4567, jitter_ms=1, loss=0)
    prefix_samples(node.pk, now)

    assert (
        api.post("/matchmaker/profiles/duel/versions", {"config": CONFIG, "activate": True}, format="json").status_code
        == 201
    )
    for elo, user in ((1, USERS[0]), (1000, USERS[1])):
        ticket = {"profile": "duel", "player_ip": user["ip"], "attributes": {"elo": elo}}
        assert players.post("/matchmaker/tickets", ticket, format="json").status_code == 201
    ids = [Ticket.objects.get(player_ip=ip).player_id for ip in (V4, V6)]
    request = {"users": [{"player_id": ids[0], "ip": V4, "latitude": 48.13712}]}
    Match.objects.create(version=ProfileVersion.objects.get(), teams=[ids], seats=ids, request=request)
    return made


def prefix_samples(node: int, now: dt.datetime) -> None:
    from relaymgr.telemetry.estimation.estimates import Sample

    samples = [(prefix, "0000000a", node, Sample(23.0, 1.0, 0.0)) for prefix in ("198.51.100.0/24", "2001:db8:aa::/48")]
    prefix_legs_update(samples, at=now)


@pytest.fixture
def players(tenant: Tenant) -> APIClient:
    from relaymgr.tenants.services import api_key_create
    from tests.support.manager import client_with

    return client_with(api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])[1], word="")


def test_every_place_is_named_in_the_documents(session: RelaySession) -> None:
    """What is found here is also what the tests below would find."""
    found = places(*EXACT, *NETWORKS, *NAMES)
    assert {"Seat.ip", "Seat.measurements", "WebhookDelivery.payload", "Ticket.player_ip", "Match.request"} <= found
    named = set(re.findall(r"`(\w+\.\w+)`", PAGE))
    assert found <= named | {"LegSample.rtt_ms", "RelaySession.placement"}, "name it in docs/data-protection.md"


def test_after_the_end_no_address_is_left_and_after_its_time_nothing_is(
    session: RelaySession, api: APIClient, later: Callable[..., None]
) -> None:
    deliver_due()
    assert api.delete(f"/v1/relays/sessions/{session.pk}").status_code == 204
    deliver_due()
    match_fail(Match.objects.get(), "no_relay")
    later(minutes=1)
    assert places(*EXACT) - {"LegSample.rtt_ms", "RelaySession.placement"} == {"Ticket.player_ip"}
    seats = Seat.objects.order_by("number").values_list("ip", "latitude", "longitude", "measurements")
    assert list(seats) == [("198.51.100.0", 48.0, 12.0, {}), ("2001:db8:aa::", None, None, {})]
    later(minutes=1)  # tickets expire after 60 s, and are removed 30 s later
    later(minutes=2)
    assert places(*EXACT) - {"LegSample.rtt_ms", "RelaySession.placement"} == set()

    later(hours=2)
    assert places(*EXACT) - {"RelaySession.placement"} == set(), "measured legs are kept for an hour"
    later(days=8)
    assert places(*EXACT, *NETWORKS, *NAMES) == set()
    assert not RelaySession.objects.exists() and not Match.objects.exists() and not WebhookDelivery.objects.exists()
    assert AuditEntry.objects.count() == 0 or not later(days=366)
    assert not AuditEntry.objects.exists()


def test_a_session_is_still_found_by_the_whole_address(
    session: RelaySession, api: APIClient, later: Callable[..., None], admin_client: Client
) -> None:
    api.delete(f"/v1/relays/sessions/{session.pk}")
    later(minutes=1)
    found = admin_client.get(reverse("admin:relay_sessions_relaysession_changelist"), {"q": V4}).content.decode()
    assert session.pk in found


# One player


def test_relayctl_and_the_console_do_the_same(session: RelaySession, relayctl: Any, admin_client: Client) -> None:
    exported = json.loads(relayctl("player-export", "studio", "--player-id", "ann-4711").stdout)
    seat = Seat.objects.get(player_id="ann-4711")
    page = admin_client.get(reverse("admin:relay_sessions_seat_change", args=[seat.pk])).content.decode()
    assert "Export the player" in page
    download = admin_client.post(reverse("admin:relay_sessions_seat_export", args=[seat.pk]))
    assert download.headers["Content-Disposition"].startswith("attachment")
    assert download.json()["seats"][0]["ip"] == exported["seats"][0]["ip"] == V4
    assert "is erased: 1 seat, " in confirm_action(admin_client, Seat, "erase_player", seat)[0]
    assert relayctl("player-erase", "studio", "--player-id", "ben-4712", answer="n\n").exit_code == 1
    assert relayctl("player-erase", "studio", "--player-id", "ben-4712", answer="y\n").exit_code == 0
    assert places("ann-4711", "ben-4712") == set()
    actions = AuditEntry.objects.order_by("pk").values_list("via", "action")
    assert [each for each in actions if each[1].startswith("player.")] == [
        ("relayctl", "player.export"),
        ("admin", "player.export"),
        ("admin", "player.erase"),
        ("relayctl", "player.erase"),
    ]
