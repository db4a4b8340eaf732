"""Server-sent events of a ticket: each status when it changes, so that nobody has to poll.

One watcher in a web process asks the database for the statuses of all tickets that are followed, in one query, and for
the tickets whose status changed, in another, for as long as any is followed. A stream starts with the present state: a
client that connects again has missed nothing that still counts.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from django.db import close_old_connections
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from web.database.connections import deadline
from web.openapi import error_responses

from ..models import Status
from ..selectors.tickets import ticket_shown, ticket_statuses, tickets_shown
from .access import FollowThrottle, about_profile, tenant_of
from .players import PlayApi
from .serializers import ticket_data

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.15  # seconds
LOOK_AGAIN = 2.0  # after a failure
READ_AT_ONCE = 100  # tickets
DATABASE_WITHIN = 10.0
KEEP_ALIVE = 15.0  # a comment this often tells proxies that the stream lives
FINAL = {Status.HOST_ASSIGNED, Status.CANCELLED}


class EventStreamRenderer(BaseRenderer):
    """For content negotiation only: what an EventSource accepts."""

    media_type, format = "text/event-stream", "sse"

    def render(self, data: Any, media_type: str | None = None, context: Any = None) -> bytes:
        return JSONRenderer().render(data)  # an error before the stream began


class TicketEventsApi(PlayApi):
    renderer_classes = (EventStreamRenderer, JSONRenderer)
    throttle_classes = (FollowThrottle,)

    @extend_schema(
        operation_id="ticket_events",
        responses={(200, "text/event-stream"): OpenApiTypes.STR, **error_responses(404)},
    )
    def get(self, request: Request, ticket_id: str) -> StreamingHttpResponse:
        """Event `status` with the ticket as data, now and after each change; the stream ends with a final status."""
        ticket = ticket_shown(tenant=tenant_of(request), ticket_id=ticket_id)
        about_profile(request, ticket.version.profile.name)
        response = StreamingHttpResponse(_stream(ticket_data(ticket)), content_type="text/event-stream")
        response["Cache-Control"] = "no-store"
        response["X-Accel-Buffering"] = "no"
        return response


async def _stream(ticket: dict[str, Any]) -> AsyncIterator[bytes]:
    """`ticket`: as it was a moment ago."""
    with Watcher.of_this_loop().following(ticket["id"], ticket["status"]) as follower:
        yield _event("status", ticket)
        while follower.status not in FINAL:
            if not await _within(follower.changed, KEEP_ALIVE):
                yield b": still here\n\n"
                continue
            follower.changed.clear()
            if follower.ticket is None:
                yield _event("removed", {"id": ticket["id"]})
                return
            yield _event("status", follower.ticket)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(data).encode())


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Follower:
    """Of one stream: the newest state of its ticket. `ticket`: None once it is gone, and before the first change."""

    def __init__(self, status: str) -> None:
        self.status: str | None = status
        self.ticket: dict[str, Any] | None = None
        self.changed = asyncio.Event()

    def update(self, ticket: dict[str, Any] | None) -> None:
        status = ticket["status"] if ticket else None
        if status != self.status:
            self.status, self.ticket = status, ticket
            self.changed.set()


class Watcher:
    """Updates the followers of a ticket when its status changes, or the ticket is gone."""

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, "Watcher"]] = WeakKeyDictionary()

    @classmethod
    def of_this_loop(cls) -> "Watcher":
        return cls._of_loop.setdefault(asyncio.get_running_loop(), cls())

    def __init__(self) -> None:
        self._followers: dict[str, set[Follower]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def following(self, ticket_id: str, status: str) -> Iterator[Follower]:
        """While inside. `status`: what the follower knows."""
        follower = Follower(status)
        self._followers.setdefault(ticket_id, set()).add(follower)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())
        try:
            yield follower
        finally:
            self._followers[ticket_id].discard(follower)
            if not self._followers[ticket_id]:
                del self._followers[ticket_id]

    async def _look(self) -> None:
        while self._followers:
            began = time.monotonic()
            try:
                await self._update(list(self._followers))
            except Exception:  # of any kind: all streams of this process depend on this loop
                logger.exception("the statuses could not be read, the events wait")
                await asyncio.sleep(LOOK_AGAIN)
                continue
            await asyncio.sleep(max(LOOK_EVERY, min(time.monotonic() - began, LOOK_AGAIN)))  # half of the time at most

    async def _update(self, ticket_ids: list[str]) -> None:
        found = await asyncio.to_thread(_statuses, ticket_ids)
        changed = [each for each in ticket_ids if any(one.status != found.get(each) for one in self._of(each))]
        for start in range(0, len(changed), READ_AT_ONCE):
            some = changed[start : start + READ_AT_ONCE]
            tickets = await asyncio.to_thread(_read, some)
            for ticket_id in some:
                for follower in self._of(ticket_id):
                    follower.update(tickets.get(ticket_id))

    def _of(self, ticket_id: str) -> set[Follower]:
        return self._followers.get(ticket_id, set())


# In threads of their own, which no request closes the connections of.


def _statuses(ticket_ids: list[str]) -> dict[str, str]:
    try:
        with deadline(DATABASE_WITHIN):
            return ticket_statuses(ticket_ids)
    finally:
        close_old_connections()


def _read(ticket_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Those that there are."""
    try:
        with deadline(DATABASE_WITHIN):
            return {ticket.pk: ticket_data(ticket) for ticket in tickets_shown(ticket_ids)}
    finally:
        close_old_connections()
