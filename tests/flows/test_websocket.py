"""A player whose network blocks UDP plays with what the REST API gives it, past a real node. The console shows it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from causeway_client import asyncio_udp
from causeway_client.rest import connect_arguments
from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.services import probe_round
from tests.relaymgr.conftest import api, location, make_node, tenant
from tests.relaymgr.sessions.conftest import relay
from tests.relaymgr.sessions.test_compat import create
from tests.support.node_process import NodeProcess, free_ports, node_process
from tests.support.waiting import wait_until

__all__ = ["api", "location", "make_node", "relay", "tenant"]

pytestmark = [pytest.mark.django_db, pytest.mark.flow]

NOWHERE = {"host": "127.0.0.77", "port": 9}


@pytest.fixture(scope="module")
def websocket_port() -> int:
    return free_ports(1)


@pytest.fixture(scope="module")
def process(websocket_port: int) -> Iterator[NodeProcess]:
    port = str(websocket_port)
    with node_process(WEBSOCKET_PORT=port, WEBSOCKET_URL=f"ws://127.0.0.1:{port}") as started:
        wait_until(lambda: "causeway_node_websocket_restarts_total 0.0" in started.call("GET", "/metrics")[1])
        yield started


@pytest.fixture
def node(relay: RelayNode, websocket_port: int) -> RelayNode:
    """As after the join of `process`, which reports the URL."""
    RelayNode.objects.update(websocket_url=f"ws://127.0.0.1:{websocket_port}")
    relay.refresh_from_db()
    return relay


def test_a_player_without_udp_plays_with_the_arguments_of_the_api(node: RelayNode, api: APIClient) -> None:
    session = create(api, dialects=["native"])
    asyncio.run(_play(session, node))


def test_the_console_shows_the_players_over_websockets(
    node: RelayNode, process: NodeProcess, api: APIClient, admin_client: Client
) -> None:
    session = create(api, dialects=["native"])
    asyncio.run(_connect_until(session, lambda: process.telemetry()["websocket"]["connections"] == 1))
    probe_round()
    node.refresh_from_db()
    assert node.websocket_connections is not None
    page = admin_client.get(reverse("admin:nodes_relaynode_now", args=[node.pk])).content.decode()
    assert f"{node.websocket_url}, 0 restarts" in page


def test_without_a_websocket_port_players_get_no_url(relay: RelayNode, api: APIClient) -> None:
    session = create(api, dialects=["native"])
    assert [user["websocket_url"] for user in session["session_users"]] == [None, None]
    assert connect_arguments(session, seat=0)["websocket_url"] is None


async def _connect_until(session: dict[str, Any], condition: Callable[[], bool]) -> None:
    """Connects seat 1 over a WebSocket until the condition holds."""
    async with await asyncio_udp.connect(**{**connect_arguments(session, seat=1), **NOWHERE}, connect_timeout=60):
        await asyncio.to_thread(wait_until, condition)


async def _play(session: dict[str, Any], node: RelayNode) -> None:
    arguments = connect_arguments(session, seat=1)
    assert arguments["websocket_url"] == f"{node.websocket_url}/relay/{arguments['port']}"
    async with (
        await asyncio_udp.connect(**connect_arguments(session, seat=0)) as host,
        await asyncio_udp.connect(**{**arguments, **NOWHERE}, connect_timeout=60) as blocked,
    ):
        blocked.send(b"over TCP")
        assert await asyncio.wait_for(host.receive(), 60) == (1, b"over TCP")
        host.send(b"and back", 1)
        assert await asyncio.wait_for(blocked.receive(), 60) == (0, b"and back")
