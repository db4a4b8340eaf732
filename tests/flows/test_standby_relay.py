"""Players with the credentials of the REST API, two real nodes at two locations, one of which is killed."""

import asyncio
import base64
from collections.abc import Callable, Iterator

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from causeway_client import asyncio_udp
from causeway_client.rest import connect_arguments
from relaymgr.nodes.models import Location, RelayNode, TokenKey
from relaymgr.sessions.models import EventKind, SessionEvent
from relaymgr.sessions.reconciler import events_apply
from relaymgr.telemetry.services import probe_round
from tests.relaymgr.conftest import api, location, make_node, make_stand_in, tenant, tokyo
from tests.relaymgr.sessions.conftest import SESSIONS
from tests.support.node_process import NodeProcess
from tests.support.waiting import wait_until

__all__ = ["api", "location", "make_node", "make_stand_in", "tenant", "tokyo"]

pytestmark = [pytest.mark.django_db, pytest.mark.flow]


@pytest.fixture
def processes() -> Iterator[list[NodeProcess]]:
    with NodeProcess() as first, NodeProcess() as second:
        yield [first, second]


def join(process: NodeProcess, node: RelayNode) -> None:
    """The node is that of the process, as it is after it has joined."""
    node.workers.update(server_port=process.server_port, client_port=process.client_port)
    number, key = process.token_key
    TokenKey.objects.create(node=node, key_id=number, key=base64.b64encode(key).decode(), confirmed_at=timezone.now())


async def play_until(players: list[asyncio_udp.Connection], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            for seat, player in enumerate(players):
                player.send(b"state", 1 - seat)
            await asyncio.sleep(0.02)


def test_players_go_on_at_the_standby_relay_when_their_node_is_killed(
    processes: list[NodeProcess], make_node: Callable[..., RelayNode], tokyo: Location, api: APIClient
) -> None:
    places: list[dict[str, Location]] = [{}, {"location": tokyo}]
    for name, process, place in zip(["a-fra", "b-tokyo"], processes, places, strict=True):
        control = {"control_url": process.control_url, "control_key": process.control_key}
        join(process, make_node(name, public_ip="127.0.0.1", **control, **place))
    users = [{"latencies": {"a-fra": 20, "b-tokyo": 30}} for _ in range(2)]
    response = api.post(SESSIONS, {"users": users, "dialects": ["native"]}, format="json")
    assert response.status_code == 200, response.content
    session = response.json()
    first, second = (("127.0.0.1", process.client_port) for process in processes)

    async def play() -> None:
        players = [
            await asyncio_udp.connect(**connect_arguments(session, seat=seat), connect_timeout=60) for seat in (0, 1)
        ]
        try:
            await play_until(players, lambda: all(player.standby == second for player in players))
            assert players[1].relay == first
            await asyncio.to_thread(processes[0].kill)
            await play_until(players, lambda: all(player.relay == second for player in players))
            received = [asyncio.create_task(player.receive()) for player in players]
            await play_until(players, lambda: all(task.done() for task in received))
            assert not any(player.is_closed for player in players)
        finally:
            for player in players:
                player.close()

    asyncio.run(play())

    def followed() -> bool:
        probe_round()
        events_apply()
        return bool(SessionEvent.objects.filter(kind=EventKind.RELAY_CHANGED).exists())

    wait_until(followed, "the manager follows the players")
    (changed,) = SessionEvent.objects.filter(kind=EventKind.RELAY_CHANGED)
    assert changed.reason.startswith("from a-fra/0 to b-tokyo/0: ")
    after = api.get(f"{SESSIONS}/{session['session_id']}").json()
    assert after["location"] == "tokyo"
