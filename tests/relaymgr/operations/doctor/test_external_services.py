import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.operations.doctor import external_services
from relaymgr.sessions.models import RelaySession, WebhookDelivery
from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.services import api_key_create
from tests.support.manager import StandIn
from web.authorization import Scope
from web.diagnostics import Level

pytestmark = pytest.mark.django_db
NOBODY = "http://127.0.0.1:9"


def answering(document: Any) -> Callable[[str, str, Any], tuple[int, bytes]]:
    return lambda method, path, body: (200, json.dumps(document).encode())


def test_web_server_that_answers_is_well(settings: Any, stand_in: StandIn) -> None:
    settings.MATCHMAKER_MANAGER_URL = stand_in.url
    stand_in.answer = answering({"installation_id": external_services.installation_id()})
    (found,) = external_services.check_web()
    assert found.level is Level.OK
    assert stand_in.requests[0][:2] == ("GET", "/monitor")


def test_web_server_of_another_installation_is_a_problem(settings: Any, stand_in: StandIn) -> None:
    settings.MATCHMAKER_MANAGER_URL = stand_in.url
    for body in ({"installation_id": "another"}, {}, []):
        stand_in.answer = answering(body)
        (found,) = external_services.check_web()
        assert found.level is Level.PROBLEM and "not of this installation" in found.message


def test_doctor_asks_where_up_started_its_web_server(settings: Any, stand_in: StandIn, tmp_path: Path) -> None:
    settings.MATCHMAKER_MANAGER_URL, settings.WEB_URL_FILE = NOBODY, tmp_path / "web.url"
    settings.WEB_URL_FILE.write_text(stand_in.url)
    stand_in.answer = answering({"installation_id": external_services.installation_id()})
    (found,) = external_services.check_web()
    assert found.level is Level.OK and stand_in.url in found.message


def test_web_server_that_was_stopped_is_not_seen_alive_through_its_nodes(settings: Any, tmp_path: Path) -> None:
    settings.WEB_URL_FILE = tmp_path / "web.url"
    settings.WEB_URL_FILE.write_text(NOBODY)
    key, _ = api_key_create(tenant=None, name="node fra-1", scopes=[Scope.NODE])
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now())
    (found,) = external_services.check_web()
    assert found.level is Level.PROBLEM


@pytest.mark.parametrize(
    ("age", "level"), [(20, Level.WARNING), (-3600, Level.PROBLEM), (600, Level.PROBLEM), (None, Level.PROBLEM)]
)
def test_web_server_elsewhere_is_known_by_the_nodes_it_answers(settings: Any, age: int | None, level: Level) -> None:
    settings.MATCHMAKER_MANAGER_URL = NOBODY
    key, _ = api_key_create(tenant=None, name="node fra-1", scopes=[Scope.NODE])
    if age is not None:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now() - timedelta(seconds=age))
    (found,) = external_services.check_web()
    assert found.level is level


@pytest.mark.parametrize("url", [NOBODY, "http://[::1", "nonsense", ""])
def test_address_that_makes_no_sense_is_a_problem_too(settings: Any, url: str) -> None:
    settings.MATCHMAKER_MANAGER_URL = url
    (found,) = external_services.check_web()
    assert found.level is Level.PROBLEM and found.hint


@pytest.fixture
def deliver(tenant: Tenant) -> Callable[..., None]:
    session = RelaySession.objects.create(tenant=tenant, token="1", idle_timeout=10, expires_at=timezone.now())

    def make(**fields: Any) -> None:
        WebhookDelivery.objects.create(
            tenant=tenant,
            session=session,
            event="ready",
            url="https://studio.example/?key=secret",
            payload="{}",
            **fields,
        )

    return make


def test_webhooks_that_nobody_sends_are_a_problem(deliver: Callable[..., None]) -> None:
    deliver(next_attempt_at=timezone.now())
    assert [found.level for found in external_services.check_webhooks()] == [Level.OK]
    deliver(next_attempt_at=timezone.now() - timedelta(minutes=6))
    (found,) = external_services.check_webhooks()
    assert found.level is Level.PROBLEM and found.message.startswith("1 of 2")


def test_webhooks_that_were_given_up_name_the_tenant_alone(deliver: Callable[..., None]) -> None:
    deliver(next_attempt_at=None, last_error="The URL answered 500.")
    deliver(next_attempt_at=None, delivered_at=timezone.now())
    _, found = external_services.check_webhooks()
    assert (found.check, found.level) == ("undelivered", Level.WARNING)
    assert "studio" in found.message and "secret" not in found.message


@pytest.mark.parametrize(
    ("free", "level"), [(5_000_000_000, Level.OK), (500_000_000, Level.WARNING), (5_000_000, Level.PROBLEM)]
)
def test_room_on_the_disk(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    settings.STATE_DIR = tmp_path
    usage = external_services.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(external_services.shutil, "disk_usage", lambda folder: usage._replace(free=free))
    (found,) = external_services.check_disk()
    assert found.level is level


def test_folder_that_cannot_be_written_to(settings: Any) -> None:
    settings.STATE_DIR = Path("/proc/self")
    (found,) = external_services.check_disk()
    assert found.level is Level.PROBLEM and "CAUSEWAY_STATE_DIR" in found.hint
