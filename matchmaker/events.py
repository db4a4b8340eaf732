"""Server-sent events of a ticket: each status when it changes, so that nobody has to poll.

One watcher in a web process asks the database for the statuses of all tickets that are followed, in one query, for as
long as any is. A stream starts with the present state: who connects again has missed nothing that still counts.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from django.db import close_old_connections
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from web.database import deadline

from . import selectors
from .access import FollowThrottle, about_profile, tenant_of
from .apis import PlayApi
from .errors import NotFound
from .models import Status
from .serializers import TicketSerializer, error_responses

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.15  # seconds
LOOK_AGAIN = 2.0  # after a failure
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
        ticket = selectors.ticket_get(tenant=tenant_of(request), ticket_id=ticket_id)
        about_profile(request, ticket.version.profile.name)
        response = StreamingHttpResponse(_stream(ticket.tenant, ticket.pk), content_type="text/event-stream")
        response["Cache-Control"] = "no-store"
        response["X-Accel-Buffering"] = "no"
        return response


async def _stream(tenant: str, ticket_id: str) -> AsyncIterator[bytes]:
    status = None
    watcher = Watcher.of_this_loop()
    with watcher.watching(ticket_id) as changed:
        while status not in FINAL:
            changed.clear()
            ticket = await asyncio.to_thread(_read, tenant, ticket_id)
            if ticket is None:
                yield _event("removed", {"id": ticket_id})
                return
            if ticket["status"] != status:
                status = ticket["status"]
                yield _event("status", ticket)
            elif not await _within(changed, KEEP_ALIVE):
                yield b": still here\n\n"


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(data).encode())


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Watcher:
    """Sets an event when the status of a followed ticket changes, or the ticket is gone."""

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, "Watcher"]] = WeakKeyDictionary()

    @classmethod
    def of_this_loop(cls) -> "Watcher":
        return cls._of_loop.setdefault(asyncio.get_running_loop(), cls())

    def __init__(self) -> None:
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._seen: dict[str, str | None] = {}
        self._task: asyncio.Task[None] | None = None

    def watching(self, ticket_id: str) -> "_Following":
        return _Following(self, ticket_id)

    def add(self, ticket_id: str, event: asyncio.Event) -> None:
        self._followers.setdefault(ticket_id, set()).add(event)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())

    def remove(self, ticket_id: str, event: asyncio.Event) -> None:
        self._followers[ticket_id].discard(event)
        if not self._followers[ticket_id]:
            del self._followers[ticket_id]
            self._seen.pop(ticket_id, None)

    async def _look(self) -> None:
        while self._followers:
            try:
                found = await asyncio.to_thread(_statuses, list(self._followers))
            except Exception:  # of any kind: all streams of this process depend on this loop
                logger.exception("the statuses could not be read, the events wait")
                await asyncio.sleep(LOOK_AGAIN)
                continue
            for ticket_id, events in self._followers.items():
                status = found.get(ticket_id)
                if self._seen.get(ticket_id, "") != status:
                    self._seen[ticket_id] = status
                    for event in events:
                        event.set()
            await asyncio.sleep(LOOK_EVERY)


class _Following:
    """Context manager: an event that is set on change, while inside."""

    def __init__(self, watcher: Watcher, ticket_id: str) -> None:
        self._watcher, self._ticket_id, self._event = watcher, ticket_id, asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        self._watcher.add(self._ticket_id, self._event)
        return self._event

    def __exit__(self, *error: object) -> None:
        self._watcher.remove(self._ticket_id, self._event)


# In threads of their own, which no request closes the connections of.


def _statuses(ticket_ids: list[str]) -> dict[str, str]:
    try:
        with deadline(DATABASE_WITHIN):
            return selectors.statuses(ticket_ids)
    finally:
        close_old_connections()


def _read(tenant: str, ticket_id: str) -> dict[str, Any] | None:
    try:
        with deadline(DATABASE_WITHIN):
            return dict(TicketSerializer(selectors.ticket_get(tenant=tenant, ticket_id=ticket_id)).data)
    except NotFound:
        return None
    finally:
        close_old_connections()
