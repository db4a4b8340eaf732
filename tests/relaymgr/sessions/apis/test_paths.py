"""GET /v1/relays/sessions/{id}/paths."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.direct_paths import selectors
from relaymgr.sessions.models import RelaySession
from relaymgr.telemetry.models import PathSample, PeerPath
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS
from tests.relaymgr.sessions.test_compat import problems

pytestmark = pytest.mark.django_db

FIGURES = {"rtt_ms": 18.0, "relay_rtt_ms": None, "loss": 0.25, "packets": 9, "bytes": 90_000}


@pytest.fixture
def session(node: RelayNode, tenant: Tenant) -> RelaySession:
    return RelaySession.objects.create(
        tenant=tenant,
        worker=node.workers.get(),
        state="ready",
        direct_mode="ask",
        token="1",
        idle_timeout=60,
        ready_at=timezone.now(),
        expires_at=timezone.now() + timedelta(hours=1),
    )


def add(session: RelaySession, seat: int, peer: int, samples: int = 0) -> None:
    now = timezone.now()
    row = {"node": RelayNode.objects.get(), "session_id": session.pk, "seat": seat, "peer": peer, **FIGURES}
    state = {"since": now, "changes": 2, "unannounced": 0, "sampled": ""}
    PeerPath.objects.create(**row, **state, at=now, path="ipv4", reason="better")
    for minutes in range(samples, 0, -1):
        PathSample.objects.create(**row, at=now - timedelta(minutes=minutes), path="relay", reason="none")


def paths(api: APIClient, session: RelaySession, query: str = "") -> Any:
    response = api.get(f"{SESSIONS}/{session.pk}/paths{query}")
    assert response.status_code == 200, response.content
    return response.json()


def test_each_pair_has_its_path_reason_figures_and_history(session: RelaySession, api: APIClient) -> None:
    add(session, 0, 1, samples=2)
    add(session, 1, 0)
    found = paths(api, session)
    assert {name: found[name] for name in ("session_id", "direct_mode", "direct_packets", "direct_bytes")} == {
        "session_id": session.pk,
        "direct_mode": "ask",
        "direct_packets": 18,
        "direct_bytes": 180_000,
    }
    first, second = found["paths"]
    assert {name: first[name] for name in ("seat", "peer", "path", "reason", "changes", *FIGURES)} == {
        "seat": 0,
        "peer": 1,
        "path": "ipv4",
        "reason": "better",
        "changes": 2,
        **FIGURES,
    }
    assert "it measures better than the path before" in first["explanation"]
    assert [(sample["path"], sample["bytes"]) for sample in first["history"]] == [("relay", 90_000)] * 2
    assert first["history"][0]["at"] < first["history"][1]["at"] < first["since"]
    assert (second["seat"], second["history"], found["has_more"]) == (1, [], False)


def test_one_seats_paths_are_those_from_and_to_it(session: RelaySession, api: APIClient) -> None:
    for pair in ((0, 1), (1, 2), (2, 0)):
        add(session, *pair)
    assert [(each["seat"], each["peer"]) for each in paths(api, session, "?seat=1")["paths"]] == [(0, 1), (1, 2)]
    refused = api.get(f"{SESSIONS}/{session.pk}/paths?seat=255")
    assert (refused.status_code, problems(refused)) == (400, {"seat": ["max_value"]})


def test_pairs_and_history_are_bounded(session: RelaySession, api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "MAX_HISTORY", 3)
    monkeypatch.setattr(selectors.session_paths, "__kwdefaults__", {"seat": None, "at_most": 2})
    for peer in (1, 2, 3):
        add(session, 0, peer, samples=5)
    found = paths(api, session)
    assert (len(found["paths"]), found["has_more"]) == (2, True)
    assert [len(each["history"]) for each in found["paths"]] == [3, 3]
    assert found["direct_bytes"] == 270_000  # of all pairs


def test_a_session_without_direct_paths_has_none(session: RelaySession, api: APIClient) -> None:
    assert paths(api, session)["paths"] == []


def test_the_paths_of_another_tenant_do_not_exist(session: RelaySession, api: APIClient) -> None:
    RelaySession.objects.update(tenant=Tenant.objects.create(slug="other"))
    assert api.get(f"{SESSIONS}/{session.pk}/paths").status_code == 404
    assert api.get(f"{SESSIONS}/nothing/paths").status_code == 404
