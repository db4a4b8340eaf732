"""The real node against the real manager, over HTTP both ways: joins, is heard, drains, gets new keys."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from nodeapi.grants import NO_LIMITS, Grant, SeatGrant
from relaymgr.nodes import control_client
from relaymgr.nodes.keys import join_key_create, token_key_rotate
from relaymgr.nodes.models import Location, RelayNode
from relaymgr.nodes.selectors import token_key_current
from relaymgr.nodes.services import node_drain, node_undrain
from relaymgr.telemetry.models import NodeSample
from relaymgr.telemetry.services import probe_round
from tests.support.node_process import NodeProcess
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.flow]


@pytest.fixture
def process(live_server: Any, location: Location) -> Iterator[NodeProcess]:
    made = NodeProcess(
        MANAGER_URL=live_server.url,
        JOIN_KEY=join_key_create(location=location),
        NAME="fra-1",
        CONTROL_KEY="",
        TOKEN_KEYS="",
        CAPACITY="50",
    )
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def joined(process: NodeProcess) -> RelayNode:
    """The node's row once it has joined, said its first heartbeat and been heard."""
    wait_until(lambda: RelayNode.objects.exclude(boot_id="").exists())
    assert probe_round() == 1
    return RelayNode.objects.get()


def test_joins_and_is_ready_at_the_first_probe(process: NodeProcess, joined: RelayNode) -> None:
    assert joined.takes_sessions
    assert (joined.name, joined.public_ip, joined.control_url) == ("fra-1", "127.0.0.1", process.control_url)
    worker = joined.workers.get()
    assert (worker.server_port, worker.client_port) == (process.server_port, process.client_port)
    assert (worker.capacity, worker.free_seats) == (50, 50)
    assert token_key_current(node=joined).confirmed_at is not None
    assert abs(joined.clock_offset_ms) < 500
    assert NodeSample.objects.get().counters


def test_operator_drains_and_undrains(joined: RelayNode) -> None:
    # Not at the first probe always: an answer to a heartbeat may be on its way that says what was so before.
    def found() -> RelayNode:
        probe_round()
        joined.refresh_from_db()
        return joined

    assert node_drain(node=joined)
    wait_until(lambda: found().is_stopping, within=20)
    assert joined.is_draining
    assert node_undrain(node=joined)
    wait_until(lambda: found().takes_sessions, within=20)


def test_holds_a_rolled_token_key_by_its_next_heartbeat(joined: RelayNode) -> None:
    new = token_key_rotate(node=joined)
    assert token_key_current(node=joined) != new
    wait_until(lambda: token_key_current(node=joined) == new, within=20)


def test_grant_is_confirmed_and_a_bad_one_refused_with_a_code(joined: RelayNode) -> None:
    grant = Grant(
        session="3960c873aafd-S",
        revision=1,
        worker=0,
        token=0x01020304,
        topology="host",
        dialects=("edgegap", "native"),
        idle_timeout=300,
        expires_at=joined.last_seen_at.timestamp() + 3600 if joined.last_seen_at else 0,
        limits=NO_LIMITS,
        seats=(SeatGrant(0, 0x05060708, False, NO_LIMITS),),
    )
    assert control_client.put_session(joined, grant) == 1
    assert control_client.put_session(joined, replace(grant, revision=2)) == 2
    assert control_client.put_session(joined, grant) == 2
    with pytest.raises(control_client.NodeRefused) as refused:
        control_client.put_session(joined, replace(grant, session="nonsense"))
    assert refused.value.code == "invalid"
    control_client.delete_session(joined, "3960c873aafd-S", "deleted")
    control_client.delete_session(joined, "3960c873aafd-S", "deleted")
    with pytest.raises(control_client.NodeRefused) as refused:
        control_client.put_session(joined, replace(grant, revision=3))
    assert refused.value.code == "session_ended"
    joined.control_key = "another"
    with pytest.raises(control_client.NodeRefused) as refused:
        control_client.put_session(joined, grant)
    assert refused.value.code == "unauthorized"


def test_killed_node_is_suspected_and_ready_again_once_it_is_back(process: NodeProcess, joined: RelayNode) -> None:
    process.kill()
    for _ in range(3):
        assert probe_round() == 0
    joined.refresh_from_db()
    assert joined.state == "suspect"
    process.start()  # from its state folder, with the keys it has: no second join
    wait_until(lambda: probe_round() == 1)
    joined.refresh_from_db()
    assert joined.takes_sessions
