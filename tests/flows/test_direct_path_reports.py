"""Two players with the credentials of the REST API find a direct path past a real node, and the manager shows it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from rest_framework.test import APIClient

from causeway_client import asyncio_udp
from causeway_client.rest import connect_arguments
from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import EventKind, Grant, SessionEvent
from relaymgr.telemetry.services import probe_round
from relaymgr.tenants.models import Tenant
from tests.causeway_client.granted import ALONE
from tests.relaymgr.conftest import api, location, make_node, make_stand_in, tenant
from tests.relaymgr.sessions.conftest import SESSIONS, process, relay
from tests.relaymgr.sessions.test_compat import create
from tests.support.leaks import LogWatch
from tests.support.waiting import wait_until

__all__ = ["api", "location", "make_node", "make_stand_in", "process", "relay", "tenant"]

pytestmark = [pytest.mark.django_db, pytest.mark.flow]


@dataclass
class Player:
    connection: asyncio_udp.Connection
    received: int = 0

    @property
    def is_direct(self) -> bool:
        return any(info.path for info in self.connection.paths())

    async def receive(self) -> None:
        async for _ in self.connection:
            self.received += 1


async def play(session: dict[str, Any], until: Callable[[Player], bool]) -> list[Player]:
    """Seats 0 and 1 send to each other until the condition holds for both."""
    connections = [await asyncio_udp.connect(**connect_arguments(session, seat=seat), direct=ALONE) for seat in (0, 1)]
    players = [Player(connection) for connection in connections]
    receiving = [asyncio.create_task(player.receive()) for player in players]
    try:
        async with asyncio.timeout(60):
            while not all(list(map(until, players))):  # each is asked every time
                for seat, player in enumerate(players):
                    player.connection.send(b"state", 1 - seat)
                await asyncio.sleep(0.02)
        return players
    finally:
        for task, player in zip(receiving, players, strict=True):
            task.cancel()
            player.connection.close()


@pytest.fixture(autouse=True)
def _permissive(tenant: Tenant) -> None:
    Tenant.objects.update(direct_mode="direct")


def test_a_direct_path_is_found_with_the_keys_of_the_api_and_reported_to_it(
    relay: RelayNode, api: APIClient, log_watch: LogWatch
) -> None:
    session = create(api, dialects=["native"])
    for user in session["session_users"]:
        log_watch.note(user["peer_keys"], user["peer_keys"].rstrip("="))
    asyncio.run(play(session, until=lambda player: player.is_direct))

    def paths() -> list[dict[str, Any]]:
        probe_round()
        found: list[dict[str, Any]] = api.get(f"{SESSIONS}/{session['session_id']}/paths").json()["paths"]
        return found

    wait_until(lambda: [each["path"] for each in paths()].count("local_network") == 2)
    first, second = paths()
    assert (first["seat"], first["peer"], second["seat"], second["peer"]) == (0, 1, 1, 0)
    assert "directly in the local network" in first["explanation"]
    timeline = SessionEvent.objects.filter(kind=EventKind.PATH_CHANGED)
    assert set(timeline.values_list("seat", flat=True)) == {0, 1}


def test_with_a_player_who_is_relay_only_there_is_no_direct_path(relay: RelayNode, api: APIClient) -> None:
    users = [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "direct_mode": "relay_only"}]
    session = create(api, users=users, dialects=["native"])
    players = asyncio.run(play(session, until=lambda player: player.received >= 100))
    assert not any(player.is_direct for player in players)
    probe_round()
    found = api.get(f"{SESSIONS}/{session['session_id']}/paths").json()
    assert {each["path"] for each in found["paths"]} <= {"relay"}
    assert found["direct_bytes"] == 0


def test_a_mode_that_becomes_stricter_ends_the_direct_path_at_both_ends(relay: RelayNode, api: APIClient) -> None:
    session = create(api, dialects=["native"])
    were_direct: set[int] = set()
    both_direct = threading.Event()

    def is_relayed_again(player: Player) -> bool:
        if player.is_direct:
            were_direct.add(id(player))
        if len(were_direct) == 2:
            both_direct.set()
        return both_direct.is_set() and not player.is_direct

    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(lambda: asyncio.run(play(session, until=is_relayed_again)))
        assert both_direct.wait(60)
        users = [{"seat": 1, "direct_mode": "relay_only"}]
        changed = api.patch(f"{SESSIONS}/{session['session_id']}", {"users": users}, format="json")
        assert changed.status_code == 200, changed.content
        players = playing.result()
    for player in players:
        assert player.connection.paths() == []


def test_the_same_mode_again_is_no_change_for_a_real_node(relay: RelayNode, api: APIClient) -> None:
    session = create(api, dialects=["native"])
    path = f"{SESSIONS}/{session['session_id']}"
    for _ in range(2):
        assert api.patch(path, {"direct_mode": "ask"}, format="json").json()["direct_mode"] == "ask"
    assert Grant.objects.get().confirmed == Grant.objects.get().revision == 2
