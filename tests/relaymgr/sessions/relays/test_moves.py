from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import NodeState
from relaymgr.sessions import reconciler
from relaymgr.sessions.models import Grant, GrantRole, Seat, SessionEvent
from relaymgr.sessions.relays.moves import Moved, moves_finish, node_sessions_move
from relaymgr.sessions.relays.providing import standbys_check
from tests.relaymgr.sessions.conftest import SESSIONS
from tests.relaymgr.sessions.relays.conftest import create, free_seats, got
from tests.support.manager import StandIn

pytestmark = pytest.mark.django_db

Node = tuple[RelayNode, StandIn]


def move(node: RelayNode, deadline_s: int = 60) -> list[Moved]:
    return list(node_sessions_move(node, deadline_s=deadline_s, pause=lambda seconds: None))


def last_put(stand_in: StandIn) -> dict[str, Any]:
    return [body for method, _, _, body in stand_in.requests if method == "PUT"][-1]


def test_a_session_moves_to_its_standby_relay(first: Node, second: Node, api: APIClient) -> None:
    session = create(api)
    assert move(first[0]) == [Moved(session["session_id"])]
    shown = got(api, session)
    assert (shown["location"], shown["session_users"][0]["standby"]) == ("tokyo", None)
    left, entered = last_put(first[1]), last_put(second[1])
    assert (left["role"], entered["role"], entered["epoch"]) == ("standby", "active", 1)
    assert [seat["offer"] for seat in entered["seats"]] == [None, None]
    for seat, user in zip(left["seats"], session["session_users"], strict=True):
        offer = seat["offer"]
        assert (offer["kind"], offer["ip"], offer["token"]) == (
            "move",
            "203.0.113.9",
            user["standby"]["connect_token"],
        )
        assert 0 < offer["deadline_ms"] <= 60_000
    (event,) = SessionEvent.objects.filter(kind="relay_changed")
    assert event.reason == "from a-fra/0 to c-tokyo/0: planned"


def test_the_old_node_keeps_the_session_until_all_players_have_changed(
    first: Node, second: Node, third: Node, api: APIClient
) -> None:
    session = create(api)
    Seat.objects.update(is_connected=True)
    move(first[0])
    Seat.objects.filter(number=0).update(changed_relay_to=second[0])
    assert moves_finish() == 0
    assert standbys_check() == 0  # not before the players have left the old node
    assert Grant.objects.filter(role=GrantRole.LEAVING, wanted=True).count() == 1
    Seat.objects.update(changed_relay_to=second[0])
    assert moves_finish() == 1
    reconciler.grants_reconcile()
    method, path, *_ = first[1].requests[-1]
    assert (method, path.endswith("reason=migrated")) == ("DELETE", True)
    assert (free_seats(first[0]), free_seats(second[0])) == (100, 98)
    assert got(api, session)["state"] == "ready"


def test_after_the_deadline_the_old_node_ends_the_session(first: Node, second: Node, api: APIClient) -> None:
    create(api)
    Seat.objects.update(is_connected=True)
    move(first[0], deadline_s=5)
    assert moves_finish() == 0
    Grant.objects.filter(role=GrantRole.LEAVING).update(leaving_until=timezone.now() - timedelta(seconds=1))
    assert moves_finish() == 1


def test_a_session_that_ends_during_its_move_is_deleted_on_both_nodes(
    first: Node, second: Node, api: APIClient
) -> None:
    session = create(api)
    move(first[0])
    assert api.delete(f"{SESSIONS}/{session['session_id']}").status_code == 204
    assert [stand_in.requests[-1][0] for _, stand_in in (first, second)] == ["DELETE", "DELETE"]
    assert (free_seats(first[0]), free_seats(second[0])) == (100, 100)


def test_what_cannot_move_stays_with_its_reason(first: Node, second: Node, api: APIClient) -> None:
    mixed = create(api, dialects=["edgegap", "native"])
    alone = create(api, standby=False)
    silent = create(api)
    RelayNode.objects.filter(pk=second[0].pk).update(state=NodeState.LOST)
    assert {each.session: each.reason for each in move(first[0])} == {
        mixed["session_id"]: "edgegap_dialect",
        alone["session_id"]: "not_wanted",
        silent["session_id"]: "standby_not_responding",
    }
    assert all(each.text for each in move(first[0]))
    assert got(api, silent)["location"] == "frankfurt"


def test_a_silent_old_node_is_left_as_well(first: Node, second: Node, api: APIClient) -> None:
    session = create(api)
    first[1].answer = lambda method, path, body: (500, b"")
    assert move(first[0]) == [Moved(session["session_id"])]
    assert got(api, session)["location"] == "tokyo"
