from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.telemetry.models import LegSample
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS
from tests.support.node_process import NodeProcess
from web.audit.models import AuditEntry

from ..conftest import Relayctl


def make(api: APIClient, **extra: Any) -> str:
    response = api.post(SESSIONS, TWO_USERS | extra, format="json")
    assert response.status_code == 200, response.content
    return str(response.json()["session_id"])


def test_sessions_are_found_by_what_they_are(
    relay: RelayNode,
    api: APIClient,
    make_node: Callable[..., RelayNode],
    tokyo: Location,
    document: Callable[..., Any],
    relayctl: Relayctl,
) -> None:
    ranked, quick = make(api, metadata={"mode": "ranked", "round": 2}), make(api, metadata={"mode": "quick"})

    def ids(*arguments: str) -> set[str]:
        return {session["id"] for session in document("sessions", *arguments)["sessions"]}

    assert ids() == ids("--tenant", "studio", "--node", "fra-1", "--location", "frankfurt") == {ranked, quick}
    assert ids("--metadata", "mode=ranked") == ids("--metadata", "mode=ranked", "--metadata", "round=2") == {ranked}
    Tenant.objects.create(name="Other", slug="other")
    make_node("tok-1", location=tokyo)
    assert ids("--tenant", "other") == ids("--node", "tok-1") == ids("--location", "tokyo") == set()
    assert ids("--state", "ended") == ids("--metadata", "mode=") == set()
    for filter, code in (("tenant", "tenant_unknown"), ("node", "node_unknown"), ("location", "location_unknown")):
        refused = relayctl("sessions", f"--{filter}", "x")
        assert (refused.exit_code, refused.stderr.split(": ")[1]) == (1, code)


def test_newest_come_first_and_more_are_announced(
    relay: RelayNode, api: APIClient, document: Callable[..., Any], relayctl: Relayctl
) -> None:
    make(api)
    newest = make(api)
    found = document("sessions", "--limit", "1")
    assert ([session["id"] for session in found["sessions"]], found["has_more"]) == ([newest], True)
    assert "--limit" in relayctl("sessions", "--limit", "1").stdout
    assert document("sessions", "--limit", "2")["has_more"] is False


def test_one_session_with_players_quality_and_timeline(
    session: dict[str, Any], document: Callable[..., Any], relayctl: Relayctl
) -> None:
    session_id = session["session_id"]
    node = RelayNode.objects.get()
    LegSample.objects.create(
        node=node, session_id=session_id, seat=1, at=timezone.now(), rtt_ms=21.5, jitter_ms=0.8, loss=0.01
    )
    found = document("session", session_id)
    assert [event["kind"] for event in found["timeline"]] == ["requested", "placed", "ready"]
    assert [player["seat"] for player in found["players"]] == [0, 1]
    assert found["players"][0]["quality"] is None
    assert found["players"][1]["quality"]["rtt_ms"] == 21.5
    assert found["grants"][0]["confirmed"] == found["grants"][0]["revision"]
    shown = relayctl("session", session_id).stdout
    assert "fra-1/0 at frankfurt" in shown and "21.5" in shown and "requested" in shown


def test_no_token_or_key_is_ever_shown(session: dict[str, Any], relayctl: Relayctl) -> None:
    row = RelaySession.objects.get()
    secrets = [row.token, *(value for seat in row.seats.all() for value in (seat.token, seat.seat_key))]
    secrets += [seat.connect_token for seat in row.seats.all()]
    for arguments in (("session", row.pk), ("sessions",), ("explain", row.pk), ("revoke", row.pk, "1", "--yes")):
        for extra in ((), ("--json",)):
            output = relayctl(*arguments, *extra).output
            assert not any(secret in output for secret in secrets), arguments


def test_direct_mode_of_a_session_and_of_a_seat(session: dict[str, Any], document: Callable[..., Any]) -> None:
    session_id = session["session_id"]
    found = document("direct-mode", session_id, "relay_only", "--yes")
    assert found == {"session": session_id, "seat": None, "direct_mode": "relay_only"}
    found = document("direct-mode", session_id, "relay_only", "--seat", "1", "--yes")
    assert found == {"session": session_id, "seat": 1, "direct_mode": "relay_only"}
    entries = [(entry.action, entry.target, entry.detail) for entry in AuditEntry.objects.order_by("pk")]
    assert entries == [
        ("session.direct_mode", session_id, "relay_only"),
        ("session.direct_mode", f"{session_id}/1", "relay_only"),
    ]


def test_direct_mode_is_refused_for_an_unknown_seat_and_beside_edgegap(
    session: dict[str, Any], relayctl: Relayctl
) -> None:
    session_id = session["session_id"]
    assert "seat_unknown" in relayctl("direct-mode", session_id, "relay_only", "--seat", "7", "--yes").stderr
    assert "native dialect" in relayctl("direct-mode", session_id, "ask", "--yes").stderr


def test_revoke_reaches_the_node_and_the_audit_log(
    session: dict[str, Any], process: NodeProcess, relayctl: Relayctl
) -> None:
    session_id = session["session_id"]
    assert "not_confirmed" in relayctl("revoke", session_id, "1").stderr
    assert Seat.objects.get(number=1).revoked_at is None

    result = relayctl("revoke", session_id, "1", answer="y\n")

    assert result.exit_code == 0, result.output
    assert Seat.objects.get(number=1).revoked_at is not None
    entry = AuditEntry.objects.get()
    assert (entry.via, entry.action, entry.target) == ("relayctl", "seat.revoke", f"{session_id}/1")


def test_seat_that_is_none_is_refused(session: dict[str, Any], relayctl: Relayctl) -> None:
    assert "seat_unknown" in relayctl("revoke", session["session_id"], "7", "--yes").stderr


def test_delete_ends_the_session(session: dict[str, Any], document: Callable[..., Any], relayctl: Relayctl) -> None:
    session_id = session["session_id"]
    assert "not_confirmed" in relayctl("delete", session_id, answer="no\n").stderr
    assert document("delete", session_id, "--yes") == {"session": session_id, "deleted": True}
    found = document("session", session_id)
    assert (found["state"], found["end_reason"]) == ("ended", "deleted")
    assert AuditEntry.objects.get().action == "session.delete"


def test_node_that_does_not_confirm_is_told_and_kept(session: dict[str, Any], relayctl: Relayctl) -> None:
    RelayNode.objects.update(control_url="http://127.0.0.1:9")
    result = relayctl("delete", session["session_id"], "--yes")
    assert result.exit_code == 1
    assert "node_unreachable" in result.stderr
    assert AuditEntry.objects.get().succeeded is False


@pytest.mark.parametrize("arguments", [("session",), ("explain",), ("delete", "--yes"), ("revoke", "--yes")])
@pytest.mark.parametrize("session_id", ["3960c873aafd-S", "x", "' OR 1=1"])
def test_unknown_session_is_refused(relayctl: Relayctl, arguments: tuple[str, ...], session_id: str) -> None:
    command, *options = arguments
    seat = ["0"] if command == "revoke" else []
    assert "session_unknown" in relayctl(command, session_id, *seat, *options).stderr
