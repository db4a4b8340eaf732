"""The grants that a node pulls."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.relaymgr.sessions.conftest import SESSIONS
from tests.relaymgr.sessions.test_compat import create
from tests.support.manager import StandIn, client_with

pytestmark = pytest.mark.django_db

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]


def test_node_pulls_all_it_is_to_serve(
    session: dict[str, Any], relay: RelayNode, tenant: Tenant, api: APIClient
) -> None:
    gone = create(api)
    api.delete(f"{SESSIONS}/{gone['session_id']}")
    relay.key, plain = api_key_create(tenant=None, name="node", scopes=["node"])
    relay.save()
    token = session["session_users"][1]["authorization_token"]
    api.post(
        f"{SESSIONS}:revoke-user", {"session_id": session["session_id"], "authorization_token": token}, format="json"
    )
    answer = client_with(plain, "Bearer ").get("/v1/nodes/self/grants").json()
    assert [key["id"] for key in answer["token_keys"]] == [7]
    (grant,) = answer["sessions"]
    assert (grant["session"], grant["revision"], grant["worker"]) == (session["session_id"], 2, 0)
    assert grant["token"] == session["authorization_token"]
    assert [(seat["seat"], seat["revoked"]) for seat in grant["seats"]] == [(0, False), (1, True)]
    assert [seat["token"] for seat in grant["seats"]] == [
        user["authorization_token"] for user in session["session_users"]
    ]


def test_tenants_may_not_pull_grants(api: APIClient) -> None:
    assert api.get("/v1/nodes/self/grants").status_code == 403
    assert APIClient().get("/v1/nodes/self/grants").status_code == 401
