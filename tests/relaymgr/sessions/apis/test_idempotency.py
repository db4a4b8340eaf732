from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.states import NodeState
from relaymgr.sessions import tasks
from relaymgr.sessions.apis.idempotency import ABANDONED
from relaymgr.sessions.models import IdempotencyKey, RelaySession, SessionState
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS
from tests.relaymgr.sessions.test_compat import problems
from tests.support.manager import StandIn, in_threads

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def node(make_stand_in_node: Callable[..., tuple[RelayNode, StandIn]], db: None) -> RelayNode:
    return make_stand_in_node()[0]


def post(api: APIClient, key: str = "first", **changes: Any) -> Any:
    return api.post(SESSIONS, {**TWO_USERS, **changes}, format="json", headers={"Idempotency-Key": key})


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_same_key_and_body_get_the_same_session(api: APIClient) -> None:
    first, again = post(api), post(api)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert RelaySession.objects.count() == 1


def test_order_of_the_bodys_fields_does_not_matter(api: APIClient) -> None:
    bodies = ['{"users": [{"ip": "1.1.1.1"}], "topology": "mesh"}', '{"topology":"mesh","users":[{"ip":"1.1.1.1"}]}']
    ids = [
        api.post(SESSIONS, body, content_type="application/json", headers={"Idempotency-Key": "k"}).json()["session_id"]
        for body in bodies
    ]
    assert ids[0] == ids[1]


def test_session_that_has_ended_since_is_answered_too(api: APIClient) -> None:
    session_id = post(api).json()["session_id"]
    api.delete(f"{SESSIONS}/{session_id}")
    assert post(api).json()["status"] == "Ended"


def test_another_key_makes_another_session(api: APIClient) -> None:
    assert post(api, "a").json()["session_id"] != post(api, "b").json()["session_id"]


def test_no_key_or_an_empty_one_is_no_key(api: APIClient) -> None:
    assert post(api, " ").json()["session_id"] != post(api, " ").json()["session_id"]
    assert not IdempotencyKey.objects.exists()


def test_same_key_with_another_body_is_422(api: APIClient) -> None:
    post(api)
    assert code(post(api, topology="mesh")) == (422, "idempotency_mismatch")


def test_key_belongs_to_its_tenant(api: APIClient, stranger: APIClient) -> None:
    assert post(api).json()["session_id"] != post(stranger).json()["session_id"]


def test_long_key_is_400(api: APIClient) -> None:
    response = post(api, "k" * 256)
    assert (response.status_code, problems(response)) == (400, {"Idempotency-Key": ["max_length"]})


def test_bad_request_uses_no_key_up(api: APIClient) -> None:
    assert post(api, topology="star").status_code == 400
    assert post(api).status_code == 200


def test_failed_first_attempt_is_tried_again(api: APIClient, node: RelayNode) -> None:
    RelayNode.objects.update(state=NodeState.LOST)
    assert code(post(api)) == (503, "no_relay")
    RelayNode.objects.update(state=NodeState.READY)
    second = post(api)
    assert second.status_code == 200
    assert post(api).json() == second.json()
    assert sorted(RelaySession.objects.values_list("state", flat=True)) == ["failed", "ready"]


def test_request_over_quota_leaves_the_key_free(api: APIClient, tenant: Any) -> None:
    tenant.max_sessions = 0
    tenant.save()
    assert code(post(api)) == (429, "session_quota")
    assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize("state", [None, SessionState.REQUESTED, SessionState.PLACED])
def test_first_request_still_at_work_is_409(state: SessionState | None, api: APIClient) -> None:
    post(api)
    if state is None:
        IdempotencyKey.objects.update(session=None)
    else:
        RelaySession.objects.update(state=state)
    assert code(post(api)) == (409, "idempotency_in_progress")


def test_first_request_that_died_is_taken_over(api: APIClient) -> None:
    post(api)
    IdempotencyKey.objects.update(session=None, created_at=timezone.now() - ABANDONED)
    assert post(api).status_code == 200
    assert RelaySession.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_at_once_one_makes_the_session_and_the_others_wait_or_get_it(api: APIClient) -> None:
    answers = in_threads(*[lambda: post(api)] * 5)
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert RelaySession.objects.count() == 1
    assert post(api).json()["session_id"] == RelaySession.objects.get().pk


def test_keys_are_forgotten_after_a_day(api: APIClient) -> None:
    post(api, "old")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(days=1) - timedelta(seconds=1))
    post(api, "new")
    tasks.idempotency_prune()
    assert IdempotencyKey.objects.count() == 1


def test_only_hashes_of_keys_are_kept(api: APIClient) -> None:
    post(api, "secret-looking")
    row = IdempotencyKey.objects.get()
    assert "secret" not in row.key_hash
    assert len(row.key_hash) == len(row.request_hash) == 64
