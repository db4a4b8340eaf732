"""Nodes that misbehave, and several who want the same at once. On real HTTP; on real threads where it is a race."""

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode, RelayWorker
from relaymgr.nodes.states import NodeState
from relaymgr.sessions import reconciler
from relaymgr.sessions.models import EventKind, Grant, RelaySession, Seat, SessionEvent, SessionState
from relaymgr.sessions.placement.allocation import ATTEMPTS_MAX
from relaymgr.sessions.services import seat_authorize
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS, obedient
from tests.relaymgr.sessions.test_compat import create
from tests.support.manager import StandIn, in_threads

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]


def free_seats(node: RelayNode) -> int:
    return RelayWorker.objects.get(node=node).free_seats


def timeline(session_id: str) -> list[str]:
    return list(SessionEvent.objects.filter(session=session_id).values_list("kind", flat=True))


def refuses(code: str, status: int = 409) -> Callable[[str, str, Any], tuple[int, bytes]]:
    return lambda method, path, body: (status, b'{"message": "no", "code": "%s", "details": {}}' % code.encode())


def post(api: APIClient) -> Any:
    return api.post(SESSIONS, TWO_USERS, format="json")


# Creating


def test_silent_node_is_skipped_within_its_budget_and_the_next_one_serves(
    make_stand_in_node: MakeStandIn, api: APIClient, settings: LazySettings
) -> None:
    settings.GRANT_TIMEOUT = 1
    silent, stand_in = make_stand_in_node("a-silent")
    stand_in.hangs()
    good, _ = make_stand_in_node("b-good")
    started = time.monotonic()
    session = create(api)
    assert time.monotonic() - started < 10
    told = api.get(session["placement"]).json()
    assert [(t["node"], t["outcome"]) for t in told["attempts"]] == [("a-silent", "no_answer"), ("b-good", "confirmed")]
    assert told["attempts"][0]["ms"] >= 1000 * settings.GRANT_TIMEOUT
    assert told["chosen"] == "b-good"
    assert (free_seats(silent), free_seats(good)) == (100, 98)
    assert timeline(session["session_id"]) == ["requested", "placed", "skipped", "placed", "ready"]


def test_node_that_is_gone_since_the_fleet_was_looked_at_is_passed_over(
    make_stand_in_node: MakeStandIn, api: APIClient, settings: LazySettings
) -> None:
    gone, _ = make_stand_in_node("a-gone")
    drained, _ = make_stand_in_node("b-drained")
    make_stand_in_node("c-good")
    settings.LOOKUP_CACHE_SECONDS = 600
    assert api.get(create(api)["placement"]).json()["chosen"] == "a-gone"
    Grant.objects.filter(worker__node=gone).delete()
    RelaySession.objects.all().delete()
    gone.delete()
    RelayNode.objects.filter(pk=drained.pk).update(is_draining=True)
    told = api.get(create(api)["placement"]).json()
    assert ([tried["node"] for tried in told["attempts"]], told["chosen"]) == (["c-good"], "c-good")


def test_node_that_did_not_answer_is_made_to_forget(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node("a-dies")
    stand_in.answer = lambda method, path, body: (500, b"it took the grant and died before it answered")
    make_stand_in_node("b-good")
    session = create(api)
    grant = Grant.objects.get(worker__node__name="a-dies")
    assert (grant.wanted, grant.confirmed < grant.revision) == (False, True)
    assert reconciler.grants_reconcile() == 0
    stand_in.answer = obedient
    assert reconciler.grants_reconcile() == 1
    assert stand_in.requests[-1][:2] == ("DELETE", f"/sessions/{session['session_id']}?reason=failed")
    assert reconciler.grants_reconcile() == 0


def test_node_that_was_skipped_is_in_nobodys_way(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node("a-dead")
    stand_in.answer = lambda method, path, body: (500, b"")
    make_stand_in_node("b-good")
    session = create(api)
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    added = api.post(f"{SESSIONS}:authorize-user", body, format="json")
    assert added.status_code == 200
    body = {
        "session_id": session["session_id"],
        "authorization_token": added.json()["session_user"]["authorization_token"],
    }
    assert api.post(f"{SESSIONS}:revoke-user", body, format="json").status_code == 200
    assert api.delete(f"{SESSIONS}/{session['session_id']}").status_code == 204
    assert len(stand_in.requests) == 1


def test_failed_session_can_be_deleted_whatever_its_node_does(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    stand_in.answer = lambda method, path, body: (500, b"")
    session_id = post(api).json()["details"]["session_id"]
    assert api.delete(f"{SESSIONS}/{session_id}").status_code == 204
    assert RelaySession.objects.get().state == SessionState.FAILED


@pytest.mark.parametrize("code", ["full", "draining", "invalid"])
def test_refusing_node_is_skipped_and_needs_no_forgetting(
    code: str, make_stand_in_node: MakeStandIn, api: APIClient
) -> None:
    _, stand_in = make_stand_in_node("a-refuses")
    stand_in.answer = refuses(code)
    make_stand_in_node("b-good")
    session = create(api)
    told = api.get(session["placement"]).json()
    assert told["attempts"][0]["outcome"] == f"refused: {code}"
    assert reconciler.grants_reconcile() == 0


def test_connect_tokens_are_for_the_node_that_serves(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    first, stand_in = make_stand_in_node("a-refuses")
    first.token_keys.update(key_id=111)
    stand_in.answer = refuses("full")
    second, _ = make_stand_in_node("b-good")
    second.token_keys.update(key_id=222)
    user = create(api)["session_users"][0]
    assert int.from_bytes(base64.urlsafe_b64decode(user["connect_token"])[1:5], "little") == 222
    assert create(api)["session_users"][1]["connect_token"] != user["connect_token"]


def test_no_node_at_all_is_503_no_relay_with_the_reasons(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node("lost", state=NodeState.LOST)
    make_stand_in_node("draining", is_draining=True)
    make_stand_in_node("small", seats=1)
    response = post(api)
    assert (response.status_code, response.json()["code"]) == (503, "no_relay")
    details = response.json()["details"]
    assert details["attempts"] == []
    assert details["excluded_by"] == {"lost": 1, "draining": 1, "full": 1}
    session = RelaySession.objects.get(pk=details["session_id"])
    assert (session.state, session.end_reason) == (SessionState.FAILED, "no_relay")
    told = api.get(f"{SESSIONS}/{session.pk}/placement").json()
    assert {c["node"]: c["excluded_by"] for c in told["considered_nodes"]} == {
        "lost": ["lost"],
        "draining": ["draining"],
        "small": ["full"],
    }
    shown = api.get(f"{SESSIONS}/{session.pk}").json()
    assert (shown["status"], shown["error"], shown["linked"]) == ("Failed", "Session failed: no_relay", False)


def test_at_most_four_nodes_are_tried(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    nodes = [make_stand_in_node(f"n{index}") for index in range(ATTEMPTS_MAX + 1)]
    for _, stand_in in nodes:
        stand_in.answer = refuses("full")
    response = post(api)
    assert response.status_code == 503
    assert [tried["outcome"] for tried in response.json()["details"]["attempts"]] == ["refused: full"] * 4
    assert [len(stand_in.requests) for _, stand_in in nodes] == [1, 1, 1, 1, 0]
    assert [free_seats(node) for node, _ in nodes] == [100] * 5


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b'{"revision": "1"}', b'{"revision": 0}', b"\xff" * 100])
def test_answer_that_confirms_nothing_is_no_confirmation(
    answer: bytes, make_stand_in_node: MakeStandIn, api: APIClient
) -> None:
    node, stand_in = make_stand_in_node()
    stand_in.answer = lambda method, path, body: (200, answer)
    assert post(api).status_code == 503
    assert free_seats(node) == 100


def test_emptiest_worker_is_taken_and_the_next_when_it_is_full(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    node, stand_in = make_stand_in_node(seats=3)
    RelayWorker.objects.create(node=node, index=1, server_port=1, client_port=2, capacity=4, free_seats=4)
    create(api)
    create(api)
    create(api)
    assert [request[3]["worker"] for request in stand_in.requests] == [1, 0, 1]
    assert post(api).status_code == 503


@pytest.mark.django_db(transaction=True)
def test_session_deleted_while_its_node_is_asked_is_not_given_out(
    make_stand_in_node: MakeStandIn, api: APIClient
) -> None:
    node, stand_in = make_stand_in_node()
    deletions: list[Any] = []

    def deletes_meanwhile(method: str, path: str, body: Any) -> tuple[int, bytes]:
        if method == "PUT":
            deletions.extend(in_threads(lambda: api.delete(f"{SESSIONS}/{body['session']}")))
        return obedient(method, path, body)

    stand_in.answer = deletes_meanwhile
    response = post(api)
    assert [deletion.status_code for deletion in deletions] == [204]
    assert (response.status_code, response.json()["code"]) == (409, "session_not_live")
    assert RelaySession.objects.get().state == SessionState.ENDED
    assert free_seats(node) == 100


# Obedience


def test_delete_is_503_while_the_node_is_silent_and_then_204(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    node, stand_in = make_stand_in_node()
    path = f"{SESSIONS}/{create(api)['session_id']}"
    stand_in.answer = lambda method, path, body: (500, b"")
    for _ in range(2):
        response = api.delete(path)
        assert (response.status_code, response.json()["code"]) == (503, "node_unreachable")
    assert RelaySession.objects.get().state == SessionState.ENDED
    assert free_seats(node) == 100
    stand_in.answer = obedient
    assert api.delete(path).status_code == 204
    assert stand_in.requests[-1][1].endswith("?reason=deleted")
    asked = len(stand_in.requests)
    assert api.delete(path).status_code == 204
    assert len(stand_in.requests) == asked


def test_reconciler_goes_on_with_a_delete(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    path = f"{SESSIONS}/{create(api)['session_id']}"
    stand_in.answer = lambda method, path, body: (500, b"")
    api.delete(path)
    stand_in.answer = obedient
    assert reconciler.grants_reconcile() == 1
    assert api.delete(path).status_code == 204


def test_revoke_is_503_while_the_node_is_silent_and_may_be_repeated(
    make_stand_in_node: MakeStandIn, api: APIClient
) -> None:
    node, stand_in = make_stand_in_node()
    session = create(api)
    body = {
        "session_id": session["session_id"],
        "authorization_token": session["session_users"][1]["authorization_token"],
    }
    stand_in.answer = lambda method, path, body: (500, b"")
    assert api.post(f"{SESSIONS}:revoke-user", body, format="json").status_code == 503
    stand_in.answer = obedient
    answer = api.post(f"{SESSIONS}:revoke-user", body, format="json")
    assert answer.status_code == 200
    assert len(answer.json()["session_users"]) == 1
    grant = stand_in.requests[-1][3]
    assert (grant["revision"], [seat["revoked"] for seat in grant["seats"]]) == (2, [False, True])
    assert free_seats(node) == 99
    assert Grant.objects.get().seats_reserved == 1


def test_authorize_that_the_node_does_not_confirm_leaves_no_seat(
    make_stand_in_node: MakeStandIn, api: APIClient
) -> None:
    node, stand_in = make_stand_in_node()
    session = create(api)
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3", "player_id": "ann"}
    stand_in.answer = lambda method, path, body: (500, b"")
    response = api.post(f"{SESSIONS}:authorize-user", body, format="json")
    assert (response.status_code, response.json()["code"]) == (503, "node_unreachable")
    assert len(api.get(f"{SESSIONS}/{session['session_id']}").json()["session_users"]) == 2
    assert free_seats(node) == 98
    stand_in.answer = obedient
    assert reconciler.grants_reconcile() == 1
    assert [seat["revoked"] for seat in stand_in.requests[-1][3]["seats"]] == [False, False, True]
    assert api.post(f"{SESSIONS}:authorize-user", body, format="json").status_code == 200


@pytest.mark.parametrize(("refusal", "code"), [("full", "node_full"), ("session_ended", "session_not_live")])
def test_authorize_that_the_node_refuses_is_409(
    refusal: str, code: str, make_stand_in_node: MakeStandIn, api: APIClient
) -> None:
    _, stand_in = make_stand_in_node()
    session = create(api)
    stand_in.answer = refuses(refusal)
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    response = api.post(f"{SESSIONS}:authorize-user", body, format="json")
    assert (response.status_code, response.json()["code"]) == (409, code)
    assert Seat.objects.filter(revoked_at=None).count() == 2


def test_seat_that_was_there_survives_a_silent_node(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node()
    session = create(api, users=[{"player_id": "ann"}, {"player_id": "bob"}])
    body = {
        "session_id": session["session_id"],
        "authorization_token": session["session_users"][1]["authorization_token"],
    }
    stand_in.answer = lambda method, path, body: (500, b"")
    api.post(f"{SESSIONS}:revoke-user", body, format="json")
    again = {"session_id": session["session_id"], "player_id": "ann"}
    assert api.post(f"{SESSIONS}:authorize-user", again, format="json").status_code == 503
    assert Seat.objects.get(player_id="ann").revoked_at is None


@pytest.mark.django_db(transaction=True)
def test_one_player_authorized_several_times_at_once_has_one_seat(
    make_stand_in_node: MakeStandIn, api: APIClient, tenant: Tenant
) -> None:
    node, _ = make_stand_in_node()
    session = create(api)["session_id"]
    found = in_threads(*[lambda: seat_authorize(tenant=tenant, session_id=session, user={"player_id": "ann"})] * 5)
    assert {seat.number for _, seat in found} == {2}
    assert free_seats(node) == 97
    assert Grant.objects.get().seats_reserved == 3


def test_refusal_that_no_database_can_hold_is_one_like_any(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    _, stand_in = make_stand_in_node("bad-1")
    stand_in.says(409, {"code": "\0\ud800", "message": "\0"})
    response = post(api)
    assert (response.status_code, response.json()["code"]) == (503, "no_relay")
    assert RelayWorker.objects.get().free_seats == 100


def test_draining_node_lets_its_sessions_grow(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    node, _ = make_stand_in_node()
    session = create(api)
    RelayNode.objects.filter(pk=node.pk).update(is_draining=True)
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    assert api.post(f"{SESSIONS}:authorize-user", body, format="json").status_code == 200
    assert post(api).status_code == 503


def test_timeline_tells_the_whole_life(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    make_stand_in_node()
    session = create(api)
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    token = api.post(f"{SESSIONS}:authorize-user", body, format="json").json()["session_user"]["authorization_token"]
    body = {"session_id": session["session_id"], "authorization_token": token}
    api.post(f"{SESSIONS}:revoke-user", body, format="json")
    api.delete(f"{SESSIONS}/{session['session_id']}")
    assert timeline(session["session_id"]) == [
        EventKind.REQUESTED,
        EventKind.PLACED,
        EventKind.READY,
        EventKind.SEAT_ADDED,
        EventKind.SEAT_REVOKED,
        EventKind.ENDED,
    ]


def test_no_secret_reaches_the_log(
    make_stand_in_node: MakeStandIn, api: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    _, stand_in = make_stand_in_node()
    session = create(api)
    stand_in.answer = lambda method, path, body: (500, b"")
    api.delete(f"{SESSIONS}/{session['session_id']}")
    secrets = [str(session["authorization_token"])]
    for user in session["session_users"]:
        secrets += [str(user["authorization_token"]), user["connect_token"], user["seat_key"]]
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("django.db"))
    assert not [secret for secret in secrets if secret in ours]


# Races


@pytest.mark.django_db(transaction=True)
def test_last_free_seats_go_to_one_of_two(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    node, _ = make_stand_in_node(seats=3)
    answers = in_threads(lambda: post(api), lambda: post(api))
    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert free_seats(node) == 1
    assert sorted(RelaySession.objects.values_list("state", flat=True)) == ["failed", "ready"]


@pytest.mark.django_db(transaction=True)
def test_many_at_once_share_out_every_seat_and_not_one_more(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    nodes = [make_stand_in_node(f"n{index}", seats=5)[0] for index in range(2)]
    answers = in_threads(*[lambda: post(api)] * 8)
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [503] * 4
    assert [free_seats(node) for node in nodes] == [1, 1]


@pytest.mark.django_db(transaction=True)
def test_players_added_at_once_get_seats_of_their_own(make_stand_in_node: MakeStandIn, api: APIClient) -> None:
    node, stand_in = make_stand_in_node()
    session = create(api)
    body = {"session_id": session["session_id"], "user_ip": "3.3.3.3"}
    answers = in_threads(*[lambda: api.post(f"{SESSIONS}:authorize-user", body, format="json")] * 6)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert sorted(answer.json()["session_user"]["seat"] for answer in answers) == [2, 3, 4, 5, 6, 7]
    grant = Grant.objects.get()
    assert (grant.revision, grant.confirmed, grant.seats_reserved) == (7, 7, 8)
    newest = max((request[3] for request in stand_in.requests), key=lambda body: body["revision"])
    assert len(newest["seats"]) == 8
    assert free_seats(node) == 92


@pytest.mark.django_db(transaction=True)
def test_seats_are_given_back_once_however_many_end_the_session(
    make_stand_in_node: MakeStandIn, api: APIClient
) -> None:
    node, _ = make_stand_in_node()
    session = create(api)
    path = f"{SESSIONS}/{session['session_id']}"
    token = session["session_users"][1]["authorization_token"]
    revoke = {"session_id": session["session_id"], "authorization_token": token}
    answers = in_threads(
        *[lambda: api.delete(path)] * 3,
        *[lambda: api.post(f"{SESSIONS}:revoke-user", revoke, format="json")] * 2,
        lambda: api.post(
            f"{SESSIONS}:authorize-user", {"session_id": session["session_id"], "user_ip": "3.3.3.3"}, format="json"
        ),
    )
    assert [answer.status_code for answer in answers[:3]] == [204] * 3
    assert {answer.status_code for answer in answers[3:]} <= {200, 204, 409}
    assert free_seats(node) == 100
    assert SessionEvent.objects.filter(kind=EventKind.ENDED).count() == 1
    assert not Grant.objects.filter(wanted=True).exists()
