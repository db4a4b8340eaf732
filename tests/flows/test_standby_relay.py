"""Players with the credentials of the REST API and two real nodes at two locations: one is killed, or drained."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from causeway_client import asyncio_udp
from causeway_client.protocol.events import Event, RelayChanged
from causeway_client.rest import connect_arguments
from relaymgr.nodes.models import Location, RelayNode, TokenKey
from relaymgr.sessions.models import EventKind, Grant, SessionEvent
from relaymgr.sessions.reconciler import events_apply, grants_reconcile
from relaymgr.sessions.relays.moves import moves_finish, node_sessions_move
from relaymgr.telemetry.services import probe_round
from tests.relaymgr.conftest import api, location, make_node, make_stand_in, tenant, tokyo
from tests.relaymgr.sessions.conftest import SESSIONS
from tests.support.node_process import NodeProcess
from tests.support.waiting import wait_until

__all__ = ["api", "location", "make_node", "make_stand_in", "tenant", "tokyo"]

pytestmark = [pytest.mark.django_db, pytest.mark.flow]


class Game:
    """Two players, each of whom sends numbered packets to the other one, in a thread of its own."""

    def __init__(self, session: dict[str, Any]) -> None:
        self.session = session
        self.sent = 0
        self.received: list[list[int]] = [[], []]
        self.events: list[list[Event]] = [[], []]
        self.players: list[asyncio_udp.Connection] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "Game":
        self._playing = self._pool.submit(lambda: asyncio.run(self._play()))
        wait_until(lambda: self._playing.done() or self.relays("standby") is not None, "both have a standby relay")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._playing.result()
        self._pool.shutdown()

    def relays(self, which: str) -> object | None:
        """The address of both players' `relay` or `standby`; None: they differ, or there is none."""
        found = {getattr(player, which) for player in self.players}
        return found.pop() if len(found) == 1 and len(self.players) == 2 else None

    async def _play(self) -> None:
        for seat in (0, 1):
            arguments = connect_arguments(self.session, seat=seat)
            self.players.append(await asyncio_udp.connect(**arguments, connect_timeout=60))
        tasks = [asyncio.create_task(self._receive(seat)) for seat in (0, 1)]
        tasks += [asyncio.create_task(self._collect(seat)) for seat in (0, 1)]
        while not all(len(player.peers) for player in self.players):
            await asyncio.sleep(0.02)
        while not self._stop.is_set():
            self.sent += 1
            for seat, player in enumerate(self.players):
                player.send(self.sent.to_bytes(4, "little"), 1 - seat)
            await asyncio.sleep(0.02)
        await asyncio.sleep(1.0)
        for player in self.players:
            player.close()
        await asyncio.gather(*tasks)

    async def _receive(self, seat: int) -> None:
        async for _, payload in self.players[seat]:
            self.received[seat].append(int.from_bytes(payload, "little"))

    async def _collect(self, seat: int) -> None:
        async for event in self.players[seat].events():
            self.events[seat].append(event)


@pytest.fixture
def processes() -> Iterator[list[NodeProcess]]:
    with NodeProcess() as first, NodeProcess() as second:
        yield [first, second]


@pytest.fixture
def session(
    processes: list[NodeProcess], make_node: Callable[..., RelayNode], tokyo: Location, api: APIClient
) -> dict[str, Any]:
    """Of two players, at the first node and with the second one as its standby relay."""
    places: list[dict[str, Location]] = [{}, {"location": tokyo}]
    for name, process, place in zip(["a-fra", "b-tokyo"], processes, places, strict=True):
        control = {"control_url": process.control_url, "control_key": process.control_key}
        node = make_node(name, public_ip="127.0.0.1", **control, **place)
        node.workers.update(server_port=process.server_port, client_port=process.client_port)
        number, key = process.token_key
        text = base64.b64encode(key).decode()
        TokenKey.objects.create(node=node, key_id=number, key=text, confirmed_at=timezone.now())
    users = [{"latencies": {"a-fra": 20, "b-tokyo": 30}} for _ in range(2)]
    response = api.post(SESSIONS, {"users": users, "dialects": ["native"]}, format="json")
    assert response.status_code == 200, response.content
    return dict(response.json())


def address(process: NodeProcess) -> tuple[str, int]:
    return "127.0.0.1", process.client_port


def test_players_go_on_at_the_standby_relay_when_their_node_is_killed(
    processes: list[NodeProcess], session: dict[str, Any], api: APIClient
) -> None:
    with Game(session) as game:
        assert game.relays("standby") == address(processes[1])
        processes[0].kill()
        wait_until(lambda: game.relays("relay") == address(processes[1]), "both have changed")

        def followed() -> bool:
            probe_round()
            events_apply()
            return SessionEvent.objects.filter(kind=EventKind.RELAY_CHANGED).exists()

        wait_until(followed, "the manager follows the players")
        assert not any(player.is_closed for player in game.players)
    (changed,) = SessionEvent.objects.filter(kind=EventKind.RELAY_CHANGED)
    assert changed.reason.startswith("from a-fra/0 to b-tokyo/0: ")
    assert api.get(f"{SESSIONS}/{session['session_id']}").json()["location"] == "tokyo"


def test_a_drain_moves_the_players_without_a_lost_or_duplicated_packet(
    processes: list[NodeProcess], session: dict[str, Any], api: APIClient
) -> None:
    with Game(session) as game:
        probe_round()
        events_apply()
        (moved,) = node_sessions_move(RelayNode.objects.get(name="a-fra"), deadline_s=60)
        assert moved.reason == ""
        wait_until(lambda: game.relays("relay") == address(processes[1]), "both have changed")

        def finished() -> int:
            probe_round()
            events_apply()
            return moves_finish()

        wait_until(finished, "all players have left the old node")
        grants_reconcile()
        (left,) = Grant.objects.filter(wanted=False)
        assert left.confirmed == left.revision
        before = game.sent
        wait_until(lambda: game.sent > before + 25, "they play on")
    assert [sorted(found) for found in game.received] == [list(range(1, game.sent + 1))] * 2
    for events in game.events:
        assert [event.reason for event in events if isinstance(event, RelayChanged)] == ["planned"]
    assert api.get(f"{SESSIONS}/{session['session_id']}").json()["location"] == "tokyo"
