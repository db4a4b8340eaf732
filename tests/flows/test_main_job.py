"""The main job: a session created over REST, enforced by real nodes, played over real UDP by real processes."""

import asyncio
import time
from typing import Any

import pytest

from tests.flows.game import PAYLOAD_SIZE, Player, answer_everyone, open_host, open_player
from tests.flows.raw import open_stubborn
from tests.flows.stack import Stack
from tests.support.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.flow


def users(count: int) -> list[dict[str, Any]]:
    return [
        {"player_id": f"player-{n}", "ip": f"192.0.2.{n + 1}", "latencies": {"frankfurt": 20 + n, "virginia": 90}}
        for n in range(count)
    ]


def create(stack: Stack, count: int = 4, **extra: Any) -> dict[str, Any]:
    answer = stack.api.post("/v1/relays/sessions", json={"users": users(count), **extra})
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()
    assert session["ready"] is True
    return session


async def play_for(players: list[Player], seconds: float) -> None:
    stop = asyncio.Event()
    streams = [asyncio.create_task(player.stream(stop)) for player in players]
    await asyncio.sleep(seconds)
    stop.set()
    await asyncio.gather(*streams)
    for player in players:
        await player.until_answered()


@pytest.mark.parametrize("host_dialect", ["edgegap", "native"])
async def test_both_dialects_play_in_one_session_without_a_loss(stack: Stack, host_dialect: str) -> None:
    session = create(stack)
    host = await open_host(session, host_dialect)
    players = [await open_player(session, 1, "edgegap")]
    players += [await open_player(session, seat, "native") for seat in (2, 3)]
    tasks = [asyncio.create_task(answer_everyone(host))]
    tasks += [asyncio.create_task(player.collect()) for player in players]

    await play_for(players, 2.0)

    assert [player.lost for player in players] == [[], [], []]
    assert all(player.sent > 30 for player in players)
    for task in tasks:
        task.cancel()


async def test_first_packet_after_the_answer_is_accepted(stack: Stack) -> None:
    """Numbers to reach: always; no Checking state. A client that sends DATA before any PING, at once."""
    for _ in range(10):
        session = create(stack, 2)
        host = await open_host(session, "edgegap")
        answering = asyncio.create_task(answer_everyone(host))
        player = await open_player(session, 1, "edgegap")
        collecting = asyncio.create_task(player.collect())
        player.send_one()
        await player.until_answered(2)
        assert player.lost == []
        answering.cancel()
        collecting.cancel()


def test_the_location_with_the_lowest_latency_for_the_group_is_chosen_and_explained(stack: Stack) -> None:
    group = [
        {"player_id": "a", "latencies": {"frankfurt": 150, "virginia": 20, "singapore": 200}},
        {"player_id": "b", "latencies": {"frankfurt": 140, "virginia": 35, "singapore": 210}},
    ]
    answer = stack.api.post("/v1/relays/sessions", json={"users": group}).json()
    assert answer["location"] == "virginia"
    placement = stack.api.get(answer["placement"]).json()
    assert placement["chosen"] == "virginia-1"
    costs = {candidate["node"]: candidate["cost"] for candidate in placement["considered_nodes"]}
    assert costs["virginia-1"] < costs["frankfurt-1"] < costs["singapore-1"]


@pytest.mark.parametrize("dialect", ["edgegap", "native"])
@pytest.mark.parametrize("act", ["revoke", "delete"])
async def test_nothing_is_forwarded_half_a_second_after_revoke_and_delete(stack: Stack, dialect: str, act: str) -> None:
    session = create(stack, 2)
    host, player = await open_stubborn(session, 0, "edgegap"), await open_stubborn(session, 1, dialect)
    host.send(b"\1\0\0\0")  # makes the host's address known

    async def stream() -> None:
        while True:
            player.send(b"x" * PAYLOAD_SIZE)
            await asyncio.sleep(0.005)

    streaming = asyncio.create_task(stream())
    await wait_until_async(lambda: len(player.arrivals) > 20)
    answered = await asyncio.to_thread(act_on, stack, session, act)
    await asyncio.sleep(1.0)
    streaming.cancel()

    assert max(host.arrivals[-1], player.arrivals[-1]) < answered + 0.5


def act_on(stack: Stack, session: dict[str, Any], act: str) -> float:
    """Revokes seat 1 or deletes the session; the time of the answer."""
    if act == "delete":
        answer = stack.api.delete(f"/v1/relays/sessions/{session['session_id']}")
    else:
        token = session["session_users"][1]["authorization_token"]
        body = {"session_id": session["session_id"], "authorization_token": token}
        answer = stack.api.post("/v1/relays/sessions:revoke-user", json=body)
    answered = time.monotonic()
    assert answer.status_code in (200, 204), answer.text
    return answered


async def test_a_player_added_later_plays_at_once(stack: Stack) -> None:
    session = create(stack, 2)
    host = await open_host(session, "edgegap")
    answering = asyncio.create_task(answer_everyone(host))
    body = {"session_id": session["session_id"], "user_ip": "192.0.2.77"}
    added = stack.api.post("/v1/relays/sessions:authorize-user", json=body)
    assert added.status_code == 200, added.text
    session["session_users"].append(added.json()["session_user"])
    player = await open_player(session, 2, "native")
    collecting = asyncio.create_task(player.collect())
    await play_for([player], 0.3)
    assert player.lost == []
    answering.cancel()
    collecting.cancel()


async def test_an_idle_session_ends_and_its_end_is_written_down(stack: Stack) -> None:
    session = create(stack, 2, idle_timeout=10)
    path = f"/v1/relays/sessions/{session['session_id']}"

    def ended() -> dict[str, Any] | None:
        answer = stack.api.get(path)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown if shown["status"] == "Ended" else None

    shown = await asyncio.to_thread(wait_until, ended, "the idle session ended")
    assert (shown["ready"], shown["error"]) == (False, "Session ended: idle")


def test_every_node_is_probed_again_and_again(stack: Stack) -> None:
    """Beat ticks, the worker probes, and what the nodes say of themselves is written down."""
    count = (
        "from relaymgr.telemetry.models import NodeSample; from django.db.models import Count;"
        "print(*NodeSample.objects.values_list('node').annotate(Count('id')).values_list('id__count', flat=True))"
    )

    def each_probed_thrice() -> bool:
        counts = [int(number) for number in stack.manage("shell", "-v", "0", "-c", count).split()]
        return len(counts) == 3 and min(counts) >= 3

    wait_until(each_probed_thrice, "three samples of each of three nodes")
