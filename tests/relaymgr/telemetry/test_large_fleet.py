"""Rounds over many nodes: a real HTTP server speaks for all of them, each at a path of its own."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache

from relaymgr.nodes.models import Location, NodeIncident, RelayNode
from relaymgr.nodes.states import IncidentKind, NodeState
from relaymgr.telemetry.models import LegSample, NodeSample, PrefixLeg
from relaymgr.telemetry.services import probe_round
from tests.relaymgr.telemetry.documents import telemetry

pytestmark = pytest.mark.django_db

HANGING = ("n-7", "n-70", "n-133")


class Fleet:
    """An asyncio server on a thread: answers at once, but for the nodes that hang."""

    def __init__(self) -> None:
        self.hanging: tuple[str, ...] = HANGING
        self.loop = asyncio.new_event_loop()
        self.started = threading.Event()
        self.document: dict[str, Any] = telemetry() | {"time": time.time(), "paths": [], "events": [], "last_event": 0}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.started.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)

        async def serve() -> None:
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            self.started.set()
            await server.serve_forever()

        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run_until_complete(serve())

    async def _answer(self, reader: Any, writer: Any) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        name = head.split("/")[1]
        if name in self.hanging:
            await asyncio.sleep(30)
        if head.startswith("PUT"):  # told which peers to measure
            size = int(head.lower().split("content-length:")[1].split()[0])
            self.document["peers_version"] = json.loads(await reader.readexactly(size))["version"]
        body = json.dumps(self.document).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    def stop(self) -> None:
        def cancel() -> None:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()

        self.loop.call_soon_threadsafe(cancel)
        self.thread.join(5)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet()
    yield made
    made.stop()


@pytest.fixture
def patient(fleet: Fleet, settings: Any) -> Fleet:
    """All answer, and are waited for: the machine may be busy with others."""
    fleet.hanging = ()
    settings.NODE_PROBE_TIMEOUT = 30.0
    return fleet


def nodes(fleet: Fleet, location: Location, count: int) -> None:
    RelayNode.objects.bulk_create(
        RelayNode(
            name=f"n-{index}",
            location=location,
            public_ip="203.0.113.7",
            control_url=f"http://127.0.0.1:{fleet.port}/n-{index}",
            control_key="key",
            state=NodeState.READY,
        )
        for index in range(count)
    )


def test_two_hundred_nodes_are_heard_and_those_that_hang_delay_nobody(
    fleet: Fleet, location: Location, settings: Any
) -> None:
    """None waits for the ones that hang: a round lasts as long as a probe may, not as long as they do (30 s). How long
    that is with a quiet machine: docs/placement.md."""
    settings.NODE_PROBE_TIMEOUT = 5.0  # the machine may be busy with others
    nodes(fleet, location, 200)
    probe_round()  # connects, warms up
    NodeSample.objects.all().delete()
    started = time.monotonic()
    assert probe_round() == 197
    assert time.monotonic() - started < 15
    assert NodeSample.objects.count() == 197
    assert set(RelayNode.objects.filter(missed_probes=2).values_list("name", flat=True)) == set(HANGING)


def test_legs_of_many_nodes_are_stored_in_few_queries(
    patient: Fleet, location: Location, django_assert_max_num_queries: Any
) -> None:
    leg, patient.document["legs"] = patient.document["legs"][0], []
    nodes(patient, location, 60)
    assert probe_round() == 60
    patient.document["legs"] = [leg | {"seat": seat, "prefix": f"198.51.{seat}.0/24"} for seat in range(20)]
    with django_assert_max_num_queries(40):
        assert probe_round() == 60
    assert LegSample.objects.count() == 60 * 20
    assert PrefixLeg.objects.count() == 60 * 20


def test_what_many_nodes_were_not_granted_is_recorded_in_few_queries(
    patient: Fleet, location: Location, django_assert_max_num_queries: Any, real_grants: None
) -> None:
    """As after the database was set back to a backup: every node reports on sessions that it no longer knows."""
    patient.document["legs"] = []
    nodes(patient, location, 60)
    with django_assert_max_num_queries(40):  # each node's boot is new
        assert probe_round() == 60
    patient.document["legs"] = telemetry()["legs"][:1]
    for reports in (1, 2):
        cache.clear()  # which spaces the legs of a node
        with django_assert_max_num_queries(40):
            assert probe_round() == 60
        assert set(NodeIncident.objects.values_list("kind", "count")) == {(IncidentKind.NOT_GRANTED, reports)}
        assert NodeIncident.objects.count() == 60
    assert not LegSample.objects.exists()
