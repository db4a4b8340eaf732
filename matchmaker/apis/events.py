"""Server-sent events of a ticket: its status, now and at each change, so that clients need not poll.

While any ticket is followed, one watcher of a web process reads the statuses of all followed tickets in one query, and
the tickets whose status changed in another. A stream starts with the present state, so a client that reconnects has
missed nothing that still matters.
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

# Seconds between two polls: nine times what a poll takes, within these bounds, and not less than it takes. Few
# followers are notified soon, and many cost a tenth of a thread.
POLL_EVERY_MIN, POLL_EVERY_MAX = 0.03, 0.15
RETRY_AFTER = 2.0  # seconds after a failure
CHUNK = 100  # tickets read in one query
DATABASE_TIMEOUT = 10.0  # seconds
KEEP_ALIVE = 15.0  # seconds between comments, so that no proxy closes an idle stream
FINAL = {Status.HOST_ASSIGNED, Status.CANCELLED}


class EventStreamRenderer(BaseRenderer):
    """For content negotiation: the media type that an EventSource accepts."""

    media_type, format = "text/event-stream", "sse"

    def render(self, data: Any, media_type: str | None = None, context: Any = None) -> bytes:
        return JSONRenderer().render(data)  # of an error before the stream began


class TicketEventsApi(PlayApi):
    renderer_classes = (EventStreamRenderer, JSONRenderer)
    throttle_classes = (FollowThrottle,)

    @extend_schema(
        operation_id="ticket_events",
        responses={(200, "text/event-stream"): OpenApiTypes.STR, **error_responses(404)},
    )
    def get(self, request: Request, ticket_id: str) -> StreamingHttpResponse:
        """Follow a ticket: an event `status` with the ticket, now and at each change. The stream ends with a final
        status."""
        ticket = ticket_shown(tenant=tenant_of(request), ticket_id=ticket_id)
        about_profile(request, ticket.version.profile.name)
        response = StreamingHttpResponse(_stream(ticket_data(ticket)), content_type="text/event-stream")
        response["Cache-Control"] = "no-store"
        response["X-Accel-Buffering"] = "no"
        return response


async def _stream(ticket: dict[str, Any]) -> AsyncIterator[bytes]:
    """`ticket`: as it was read for the response."""
    with Watcher.of_this_loop().following(ticket["id"], ticket["status"]) as follower:
        yield _event("status", ticket)
        while follower.status not in FINAL:
            if not await _within(follower.changed, KEEP_ALIVE):
                yield b": keep-alive\n\n"
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


def pause_after(poll: float) -> float:
    """Seconds until the next poll, after one that took so long."""
    return max(min(poll, RETRY_AFTER), min(max(9 * poll, POLL_EVERY_MIN), POLL_EVERY_MAX))


class Follower:
    """The latest state of the ticket of one stream. `ticket`: None before the first change, and once it is removed."""

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
    """Updates the followers of a ticket when its status changes or the ticket is removed."""

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, "Watcher"]] = WeakKeyDictionary()

    @classmethod
    def of_this_loop(cls) -> "Watcher":
        return cls._of_loop.setdefault(asyncio.get_running_loop(), cls())

    def __init__(self) -> None:
        self._followers: dict[str, set[Follower]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def following(self, ticket_id: str, status: str) -> Iterator[Follower]:
        """Within the context. `status`: the last one that the follower has seen."""
        follower = Follower(status)
        self._followers.setdefault(ticket_id, set()).add(follower)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._poll())
        try:
            yield follower
        finally:
            self._followers[ticket_id].discard(follower)
            if not self._followers[ticket_id]:
                del self._followers[ticket_id]

    async def _poll(self) -> None:
        while self._followers:
            began = time.monotonic()
            try:
                await self._update(list(self._followers))
            except Exception:  # all streams of this process depend on this loop
                logger.exception("the statuses of tickets could not be read; events are delayed")
                await asyncio.sleep(RETRY_AFTER)
                continue
            await asyncio.sleep(pause_after(time.monotonic() - began))

    async def _update(self, ticket_ids: list[str]) -> None:
        found = await asyncio.to_thread(_statuses, ticket_ids)
        changed = [each for each in ticket_ids if any(one.status != found.get(each) for one in self._of(each))]
        for start in range(0, len(changed), CHUNK):
            some = changed[start : start + CHUNK]
            tickets = await asyncio.to_thread(_read, some)
            for ticket_id in some:
                for follower in self._of(ticket_id):
                    follower.update(tickets.get(ticket_id))

    def _of(self, ticket_id: str) -> set[Follower]:
        return self._followers.get(ticket_id, set())


# These run in threads whose connections no request closes.


def _statuses(ticket_ids: list[str]) -> dict[str, str]:
    try:
        with deadline(DATABASE_TIMEOUT):
            return ticket_statuses(ticket_ids)
    finally:
        close_old_connections()


def _read(ticket_ids: list[str]) -> dict[str, dict[str, Any]]:
    """The tickets that exist."""
    try:
        with deadline(DATABASE_TIMEOUT):
            return {ticket.pk: ticket_data(ticket) for ticket in tickets_shown(ticket_ids)}
    finally:
        close_old_connections()
