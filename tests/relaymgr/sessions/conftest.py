"""A real relay node that sessions are placed on, and stand-ins for nodes that misbehave."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode, TokenKey
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.support.manager import StandIn, client_with
from tests.support.node_process import NodeProcess, node_process

SESSIONS = "/v1/relays/sessions"
TWO_USERS = {"users": [{"ip": "1.1.1.1"}, {"ip": "2.2.2.2"}]}


@pytest.fixture(scope="session")
def process() -> Iterator[NodeProcess]:
    """One for all tests: what they put on it they name by random ids."""
    with node_process() as started:
        yield started


@pytest.fixture
def relay(process: NodeProcess, make_node: Callable[..., RelayNode]) -> RelayNode:
    """The node of `process`, as it is after it has joined."""
    node = make_node("fra-1", public_ip="127.0.0.1", control_url=process.control_url, control_key=process.control_key)
    node.workers.update(server_port=process.server_port, client_port=process.client_port)
    number, key = process.token_key
    TokenKey.objects.create(node=node, key_id=number, key=base64.b64encode(key).decode(), confirmed_at=timezone.now())
    return node


@pytest.fixture
def make_stand_in_node(
    make_node: Callable[..., RelayNode], make_stand_in: Callable[[], StandIn]
) -> Callable[..., tuple[RelayNode, StandIn]]:
    """A node in the database whose control API is a stand-in that grants everything, until it is told otherwise."""

    def make(name: str = "odd-1", **fields: Any) -> tuple[RelayNode, StandIn]:
        stand_in = make_stand_in()
        stand_in.answer = obedient
        node = make_node(name, control_url=stand_in.url, **fields)
        TokenKey.objects.create(node=node, key_id=1, key=base64.b64encode(bytes(32)).decode())
        return node, stand_in

    return make


def obedient(method: str, path: str, body: Any) -> tuple[int, bytes]:
    if method == "PUT":
        return 200, b'{"session": "%s", "revision": %d}' % (body["session"].encode(), body["revision"])
    return 204, b""


@pytest.fixture
def session(relay: RelayNode, api: APIClient) -> dict[str, Any]:
    """A ready session of two users, as the API shows it."""
    response = api.post(SESSIONS, TWO_USERS, format="json")
    assert response.status_code == 200, response.content
    return response.json()


@pytest.fixture
def stranger(db: None) -> APIClient:
    """Speaks with a key of another tenant."""
    other = Tenant.objects.create(name="Other", slug="other")
    return client_with(api_key_create(tenant=other, name="test", scopes=["relay"])[1])


def authorize(api: APIClient, session: dict[str, Any], **user: Any) -> Any:
    return api.post(f"{SESSIONS}:authorize-user", {"session_id": session["session_id"], **user}, format="json")
