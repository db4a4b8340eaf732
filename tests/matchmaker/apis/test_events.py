"""The stream of a ticket's statuses, without a server: the flow tests read it over HTTP."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from matchmaker.apis import events
from matchmaker.background import matching_pass, session_assignment
from matchmaker.manager_client import Manager
from matchmaker.models import ProfileVersion, Status, Ticket

pytestmark = pytest.mark.django_db(transaction=True)
Search = Callable[..., dict[str, Any]]


def shown(chunk: bytes) -> tuple[str, dict[str, Any]]:
    event, data = chunk.decode().strip().split("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def read(ticket: dict[str, Any], *acts: Callable[[], Any]) -> list[tuple[str, dict[str, Any]]]:
    """All events of the stream; after each of the first ones the next act is done."""
    waiting = list(acts)
    found = []
    async with asyncio.timeout(10):
        async for chunk in events._stream(ticket):
            if chunk.startswith(b":"):
                continue
            found.append(shown(chunk))
            if waiting:
                await asyncio.to_thread(waiting.pop(0))
    return found


async def test_each_change_is_told_and_the_last_ends_the_stream(search: Search, manager: Manager) -> None:
    tickets = [await asyncio.to_thread(search, n) for n in range(4)]
    found = await read(
        tickets[0],
        lambda: matching_pass.version_pass(ProfileVersion.objects.get().pk),
        lambda: session_assignment.match_forward(manager),
    )
    assert [(name, data["status"]) for name, data in found] == [
        ("status", "SEARCHING"),
        ("status", "MATCH_FOUND"),
        ("status", "HOST_ASSIGNED"),
    ]
    assert found[-1][1]["assignment"]["player_id"] == tickets[0]["player_id"]


async def test_late_reader_gets_the_present_state_and_is_done(search: Search) -> None:
    ticket = await asyncio.to_thread(search)
    await asyncio.to_thread(lambda: Ticket.objects.update(status=Status.CANCELLED, reason="expired"))
    [(name, data)] = await read((await asyncio.to_thread(events._read, [ticket["id"]]))[ticket["id"]])
    assert (name, data["status"], data["reason"]) == ("status", "CANCELLED", "expired")


async def test_a_change_between_the_first_read_and_the_stream_is_not_missed(search: Search) -> None:
    ticket = await asyncio.to_thread(search)
    await asyncio.to_thread(lambda: Ticket.objects.update(status=Status.CANCELLED, reason="expired"))
    assert [data["status"] for _, data in await read(ticket)] == ["SEARCHING", "CANCELLED"]


async def test_removed_ticket_ends_the_stream(search: Search) -> None:
    ticket = await asyncio.to_thread(search)
    found = await read(ticket, lambda: Ticket.objects.all().delete())
    assert [name for name, _ in found] == ["status", "removed"]


async def test_comment_keeps_a_quiet_stream_alive(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.05)
    ticket = await asyncio.to_thread(search)
    stream = events._stream(ticket)
    assert [(await anext(stream))[:1] for _ in range(3)] == [b"e", b":", b":"]
    await stream.aclose()


async def test_many_streams_cost_one_query_a_look(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = [await asyncio.to_thread(search, n) for n in range(3)]
    asked: list[list[str]] = []
    reads: list[list[str]] = []
    statuses, tickets_read = events._statuses, events._read
    monkeypatch.setattr(events, "_statuses", lambda ids: asked.append(ids) or statuses(ids))
    monkeypatch.setattr(events, "_read", lambda ids: reads.append(ids) or tickets_read(ids))
    readers = [asyncio.create_task(read(ticket)) for ticket in tickets]
    while not any(len(ids) == 3 for ids in asked):
        await asyncio.sleep(0.01)
    await asyncio.to_thread(lambda: Ticket.objects.update(status=Status.CANCELLED))
    assert [found[-1][1]["status"] for found in await asyncio.gather(*readers)] == ["CANCELLED"] * 3
    assert [len(ids) for ids in reads] == [3]


def test_stream_is_not_cached_and_accepts_event_source(players: APIClient, search: Search) -> None:
    ticket = search()
    answer = players.get(f"/matchmaker/tickets/{ticket['id']}/events", HTTP_ACCEPT="text/event-stream")
    assert (answer.status_code, answer["Content-Type"], answer["Cache-Control"]) == (
        200,
        "text/event-stream",
        "no-store",
    )
    missing = players.get(f"/matchmaker/tickets/{'0' * 20}/events", HTTP_ACCEPT="text/event-stream")
    assert (missing.status_code, json.loads(missing.content)["code"]) == (404, "not_found")


@pytest.mark.parametrize(("poll", "pause"), [(0.0, 0.03), (0.002, 0.03), (0.01, 0.09), (0.1, 0.15), (0.5, 0.5), (9, 2)])
def test_polls_use_a_tenth_of_the_time_until_a_tenth_would_delay_events(poll: float, pause: float) -> None:
    assert events.pause_after(poll) == pytest.approx(pause)
