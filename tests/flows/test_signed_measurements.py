"""Where only signed measurements count: what real players measured at real beacons reaches the choice of their relay by
way of their tickets, and what a player merely says does not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from causeway_client.asyncio_udp import as_measurements, measure_beacons
from causeway_client.matchmaking import find_match
from tests.flows.stack import Stack, running_stack
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

PROFILE = {
    "ticket_expiration_period": "60s",
    "rules": {
        "initial": {
            "size": {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1}}
        }
    },
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("stack")
    with running_stack(folder, CAUSEWAY_SIGNED_MEASUREMENTS_ONLY="1") as running:
        yield running


@pytest.fixture(scope="module")
def players(stack: Stack) -> Iterator[httpx.Client]:
    body = {"config": PROFILE, "activate": True}
    assert stack.api.post("/matchmaker/profiles/two/versions", json=body).status_code == 201
    key = stack.manage("api_key", "flows", "--scope", "matchmaker").strip()
    with httpx.Client(base_url=f"{stack.url}/matchmaker", headers={"Authorization": key}) as http:
        wait_until(lambda: http.get("/locations/beacons").json().get("count") == 3, "the beacons are known")
        yield http


def legs_of(stack: Stack, session: str) -> list[dict[str, dict[str, Any]]]:
    """{node: leg} of each seat."""
    candidates = stack.api.get(f"/v1/relays/sessions/{session}/placement").json()["considered_nodes"]
    return [{each["node"]: each["estimates"][seat] for each in candidates} for seat in range(2)]


async def test_what_players_measured_reaches_the_choice_of_their_relay(stack: Stack, players: httpx.Client) -> None:
    key = players.headers["Authorization"]
    found = await asyncio.gather(*(find_match(f"{stack.url}/matchmaker", key, "two") for _ in range(2)))
    for one in found:
        one.connection.close()
    for legs in legs_of(stack, found[0].assignment["request_id"]):
        assert [leg["source"] for leg in legs.values()] == ["measured"] * 3
        assert all(0 < leg["ms"] < 1_000 and leg["age_s"] < 30 for leg in legs.values())


def test_what_a_player_merely_says_does_not(stack: Stack, players: httpx.Client) -> None:
    """One sends what it measured with a shorter round trip written over it, the other makes everything up."""
    beacons = [{**each, "host": each["public_ip"]} for each in players.get("/locations/beacons").json()["beacons"]]
    honest = as_measurements(asyncio.run(measure_beacons(beacons)))
    shortened = [{**each, "rtt_ms": 0.001} for each in honest]
    made_up = [{**each, "rtt_ms": 0.001, "proof": honest[index - 1]["proof"]} for index, each in enumerate(honest)]
    asked = {"profile": "two", "attributes": {}}
    tickets = [
        players.post("/tickets", json={**asked, "measurements": shortened}).json(),
        players.post("/tickets", json={**asked, "measurements": made_up, "latencies": {"frankfurt": 0.001}}).json(),
    ]

    def assignments() -> list[dict[str, Any]]:
        found = [players.get(f"/tickets/{ticket['id']}").json()["assignment"] for ticket in tickets]
        return [each for each in found if each]

    wait_until(lambda: len(assignments()) == 2, "both are assigned")
    first, second = assignments()
    legs = legs_of(stack, first["request_id"])
    assert {leg["source"] for leg in legs[first["seat"]].values()} == {"measured"}
    assert min(leg["ms"] for leg in legs[first["seat"]].values()) > 0.01
    assert "measured" not in {leg["source"] for leg in legs[second["seat"]].values()}
