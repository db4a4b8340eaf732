"""Joining, heartbeats, seats, draining, keys."""

import base64
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError
from django.utils import timezone

from nodeapi.membership import WorkerPorts
from relaymgr.nodes.keys import join_key_create, join_key_revoke
from relaymgr.nodes.models import JoinKey, Location, RelayNode, RelayWorker, TokenKey
from relaymgr.nodes.selectors import join_key_get
from relaymgr.nodes.services import (
    ClockSkew,
    Joined,
    JoinKeyInvalid,
    NameTaken,
    NodeInUse,
    node_drain,
    node_heartbeat,
    node_join,
    node_remove,
    node_undrain,
    worker_release,
    worker_reserve,
    worker_reserve_extra,
)
from relaymgr.nodes.states import NodeState
from relaymgr.tenants.selectors import api_key_get
from tests.support.manager import in_threads
from web.errors import Invalid

pytestmark = pytest.mark.django_db

TWO_WORKERS = (WorkerPorts(0, 31000, 31001), WorkerPorts(1, 31002, 31003))


def join(join_key: str, name: str = "fra-1", **changes: Any) -> Joined:
    asked: dict[str, Any] = {
        "public_ip": "203.0.113.7",
        "control_url": "http://10.0.0.7:8900",
        "time": timezone.now().timestamp(),
        "capacity": 101,
        "workers": TWO_WORKERS,
        "version": "0.1.0",
    }
    return node_join(join_key=join_key, name=name, **{**asked, **changes})


def heartbeat(node: RelayNode, **changes: Any) -> RelayNode:
    said: dict[str, Any] = {
        "boot_id": "boot-1",
        "time": timezone.now().timestamp(),
        "version": "0.2.0",
        "key_ids": [],
        "draining": False,
        "control_url": "http://10.0.0.8:8900",
        "capacity": 101,
        "workers": TWO_WORKERS,
    }
    return node_heartbeat(node=node, **{**said, **changes})


def seats(node: RelayNode) -> list[tuple[int, int]]:
    return list(node.workers.values_list("capacity", "free_seats"))


@pytest.fixture
def join_key(location: Location) -> str:
    return join_key_create(location=location)


# Joining


def test_node_joins_at_the_locations_of_its_key(join_key: str, location: Location) -> None:
    joined = join(join_key)
    node = RelayNode.objects.get()
    assert joined.node == node
    assert (node.name, node.location, node.state) == ("fra-1", location, NodeState.JOINING)
    assert (node.public_ip, node.address, node.version) == ("203.0.113.7", "203.0.113.7", "0.1.0")
    assert seats(node) == [(51, 51), (50, 50)]


def test_keys_of_a_joined_node(join_key: str) -> None:
    joined = join(join_key)
    key = api_key_get(presented=joined.node_key)
    assert key is not None and key.relaynode == joined.node and key.scopes == ["node"] and key.tenant is None
    assert len(joined.node.control_key) >= 43
    assert joined.node.control_key == RelayNode.objects.get().control_key
    assert len(base64.b64decode(joined.token_key.key)) == 32
    assert 0 < joined.token_key.key_id < 2**32
    assert joined.node_key not in repr(joined) and joined.token_key.key not in repr(joined)


def test_join_key_works_once(join_key: str) -> None:
    node = join(join_key).node
    used = JoinKey.objects.get()
    assert used.used_by == node and used.used_at is not None
    with pytest.raises(JoinKeyInvalid):
        join(join_key, name="fra-2")
    assert RelayNode.objects.count() == 1


def test_join_key_with_uses_works_so_often(location: Location) -> None:
    key = join_key_create(location=location, uses=2)
    join(key, name="fra-1")
    assert (JoinKey.objects.get().uses_left, JoinKey.objects.get().used_at) == (1, None)
    with pytest.raises(NameTaken):
        join(key, name="fra-1", public_ip="203.0.113.8")
    assert JoinKey.objects.get().uses_left == 1, "a refused join takes no use"
    last = join(key, name="fra-2").node
    used = JoinKey.objects.get()
    assert (used.uses_left, used.used_by) == (0, last) and used.used_at is not None
    with pytest.raises(JoinKeyInvalid):
        join(key, name="fra-3")


@pytest.mark.django_db(transaction=True)
def test_no_more_nodes_than_uses_join_at_the_same_moment(location: Location) -> None:
    key = join_key_create(location=location, uses=2)
    results = in_threads(*(lambda name=name: join(key, name=name) for name in ("fra-1", "fra-2", "fra-3", "fra-4")))
    assert sum(isinstance(result, Joined) for result in results) == 2, results
    assert sum(isinstance(result, JoinKeyInvalid) for result in results) == 2, results
    assert RelayNode.objects.count() == 2


def test_unknown_wrong_expired_and_revoked_join_keys_are_refused(join_key: str, location: Location) -> None:
    expired = join_key_create(location=location, lifetime=timedelta(seconds=-1))
    revoked = join_key_create(location=location)
    assert join_key_revoke(join_key=JoinKey.objects.get(prefix=revoked.split("_")[1]))
    wrong = join_key[:-1] + ("A" if join_key[-1] != "A" else "B")
    for bad in ("", "cw_000000000000_" + "x" * 43, wrong, expired, revoked):
        with pytest.raises(JoinKeyInvalid):
            join(bad)
    assert not RelayNode.objects.exists()


@pytest.mark.parametrize("skew", [-5.5, 5.5, 3600, -1e9])
def test_wrong_clock_is_refused_with_the_skew_and_the_key_stays_good(join_key: str, skew: float) -> None:
    with pytest.raises(ClockSkew) as refused:
        join(join_key, time=timezone.now().timestamp() + skew)
    assert refused.value.details["skew_seconds"] == pytest.approx(skew, abs=1)
    assert join_key_get(presented=join_key)
    join(join_key, time=timezone.now().timestamp() + 4)


@pytest.mark.parametrize(
    ("workers", "field", "code"),
    [
        ([WorkerPorts(1, 1, 2)], "workers", "indexes"),
        ([WorkerPorts(0, 1, 2), WorkerPorts(0, 3, 4)], "workers", "indexes"),
        ([WorkerPorts(0, 1, 1)], "workers", "ports_not_distinct"),
        ([WorkerPorts(0, 1, 2), WorkerPorts(1, 2, 3)], "workers", "ports_not_distinct"),
        ([WorkerPorts(index, 2 * index + 1, 2 * index + 2) for index in range(102)], "capacity", "min_value"),
    ],
)
def test_workers_that_cannot_be_are_refused_and_the_key_stays_good(
    join_key: str, workers: Sequence[WorkerPorts], field: str, code: str
) -> None:
    with pytest.raises(Invalid) as refused:
        join(join_key, workers=workers)
    assert refused.value.details[field][0]["code"] == code
    assert join_key_get(presented=join_key)


def test_name_of_a_node_that_answers_its_probes_is_taken(join_key: str, node: RelayNode) -> None:
    with pytest.raises(NameTaken):
        join(join_key, name=node.name)
    assert join_key_get(presented=join_key)


def test_name_of_a_node_that_joined_a_moment_ago_is_taken(join_key: str, location: Location) -> None:
    first = join(join_key)
    with pytest.raises(NameTaken):
        join(join_key_create(location=location))
    assert api_key_get(presented=first.node_key)


def passed(**fields: Any) -> None:
    """A while after the join, with these changes since."""
    RelayNode.objects.update(joined_at=timezone.now() - timedelta(hours=1), **fields)


def test_name_of_a_dead_node_is_taken_over_and_its_keys_die(join_key: str, location: Location) -> None:
    dead = join(join_key)
    passed(last_seen_at=timezone.now() - timedelta(minutes=1), state=NodeState.LOST, last_event=7)
    new = join(join_key_create(location=location), public_ip="203.0.113.9")
    assert new.node.pk == dead.node.pk
    node = RelayNode.objects.get()
    assert (node.state, node.last_event, node.boot_id, node.public_ip) == (NodeState.JOINING, 0, "", "203.0.113.9")
    assert api_key_get(presented=dead.node_key) is None
    assert node.control_key == new.node.control_key != dead.node.control_key
    assert list(node.token_keys.all()) == [new.token_key]
    assert new.token_key.key != dead.token_key.key


def test_takeover_leaves_the_seats_of_live_sessions_reserved(join_key: str, location: Location) -> None:
    node = join(join_key).node
    assert worker_reserve_any_state(node, 10)
    passed(last_seen_at=None)
    join(join_key_create(location=location), capacity=202)
    assert seats(node) == [(101, 91), (101, 101)]


def worker_reserve_any_state(node: RelayNode, seats: int) -> bool:
    return worker_reserve_extra(worker_id=node.workers.all()[0].pk, seats=seats)


@pytest.mark.django_db(transaction=True)
def test_same_join_key_twice_at_once_lets_one_in(join_key: str) -> None:
    results = in_threads(*(lambda name=name: join(join_key, name=name) for name in ("fra-1", "fra-2", "fra-3")))
    assert sorted(type(result).__name__ for result in results) == ["JoinKeyInvalid", "JoinKeyInvalid", "Joined"]
    assert RelayNode.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_one_new_name_twice_at_once_is_one_node_and_the_other_key_stays_good(location: Location) -> None:
    keys = [join_key_create(location=location) for _ in range(3)]
    results = in_threads(*(lambda key=key: join(key) for key in keys))
    assert sorted(type(result).__name__ for result in results) == ["Joined", "NameTaken", "NameTaken"]
    assert RelayNode.objects.count() == 1
    assert sum(join_key_get(presented=key) is not None for key in keys) == 2


# Heartbeat


def test_heartbeat_is_noted(node: RelayNode) -> None:
    after = heartbeat(node, packet_path="userspace", packet_path_reason="no CAP_BPF", draining=True)
    assert after == RelayNode.objects.get()
    assert (after.boot_id, after.version, after.control_url) == ("boot-1", "0.2.0", "http://10.0.0.8:8900")
    assert (after.packet_path, after.packet_path_reason) == ("userspace", "no CAP_BPF")
    assert after.is_stopping and not after.is_draining
    assert not after.takes_sessions


def test_heartbeat_moves_no_state_and_is_no_probe(make_node: Callable[..., RelayNode]) -> None:
    node = make_node(state=NodeState.LOST, last_seen_at=None)
    assert (heartbeat(node).state, heartbeat(node).last_seen_at) == (NodeState.LOST, None)


def test_heartbeat_with_a_wrong_clock_is_refused(node: RelayNode) -> None:
    with pytest.raises(ClockSkew):
        heartbeat(node, time=timezone.now().timestamp() + 10)


def test_new_boot_sets_the_cursor_of_events_back(make_node: Callable[..., RelayNode]) -> None:
    node = make_node(boot_id="boot-1", last_event=7)
    assert heartbeat(node).last_event == 7
    assert heartbeat(node, boot_id="boot-2").last_event == 0


def test_capacity_and_ports_follow_the_heartbeat(make_node: Callable[..., RelayNode]) -> None:
    node = make_node(seats=100)
    assert worker_reserve(worker_id=node.workers.get().pk, seats=30)
    heartbeat(node, capacity=100)
    assert seats(node) == [(50, 20), (50, 50)]
    heartbeat(node, capacity=40)  # fewer than are taken: no room, and none invented
    assert seats(node) == [(30, 0), (20, 20)]
    heartbeat(node, capacity=100, workers=[WorkerPorts(0, 5000, 5001)])
    assert seats(node) == [(100, 70), (0, 0)]  # the row stays for the sessions that name it
    assert (node.workers.all()[0].server_port, node.workers.all()[0].client_port) == (5000, 5001)


@pytest.mark.django_db(transaction=True)
def test_heartbeats_and_reservations_at_once_lose_no_seat(make_node: Callable[..., RelayNode]) -> None:
    node = make_node(seats=100)
    worker_id = node.workers.get().pk

    def beat(capacity: int) -> None:
        for _ in range(10):
            heartbeat(RelayNode.objects.get(pk=node.pk), capacity=capacity, workers=TWO_WORKERS[:1])

    def reserve() -> int:
        return sum(worker_reserve(worker_id=worker_id, seats=1) for _ in range(20))

    results = in_threads(lambda: beat(80), lambda: beat(120), reserve, reserve)
    assert results == [None, None, 20, 20]
    heartbeat(node, capacity=100, workers=TWO_WORKERS[:1])
    assert seats(node) == [(100, 60)]


# Seats


def test_seats_are_taken_and_given_back(node: RelayNode) -> None:
    worker_id = node.workers.get().pk
    assert worker_reserve(worker_id=worker_id, seats=60)
    assert not worker_reserve(worker_id=worker_id, seats=41)
    assert worker_reserve(worker_id=worker_id, seats=40)
    assert not worker_reserve_extra(worker_id=worker_id)
    worker_release(worker_id=worker_id, seats=1)
    assert worker_reserve_extra(worker_id=worker_id)
    worker_release(worker_id=worker_id, seats=100)
    assert seats(node) == [(100, 100)]


def test_more_seats_given_back_than_taken_are_not_invented(node: RelayNode) -> None:
    worker_release(worker_id=node.workers.get().pk, seats=5)
    assert seats(node) == [(100, 100)]


@pytest.mark.parametrize(
    "fields",
    [{"is_draining": True}, {"is_stopping": True}, {"state": "lost"}, {"state": "joining"}],
)
def test_node_that_takes_no_sessions_reserves_nothing_but_lets_its_own_grow(
    make_node: Callable[..., RelayNode], fields: dict[str, Any]
) -> None:
    node = make_node(**fields)
    assert not node.takes_sessions
    assert not worker_reserve(worker_id=node.workers.get().pk, seats=1)
    assert worker_reserve_extra(worker_id=node.workers.get().pk)


@pytest.mark.django_db(transaction=True)
def test_last_seats_go_to_one_of_many(make_node: Callable[..., RelayNode]) -> None:
    worker_id = make_node(seats=10).workers.get().pk
    results = in_threads(*[lambda: sum(worker_reserve(worker_id=worker_id, seats=2) for _ in range(3))] * 4)
    assert sum(results) == 5
    assert RelayWorker.objects.get().free_seats == 0


def test_database_itself_refuses_impossible_seats(node: RelayNode) -> None:
    from django.db import transaction

    for wrong in (-1, 101):
        with pytest.raises(IntegrityError), transaction.atomic():
            RelayWorker.objects.update(free_seats=wrong)


# Draining and removing


def test_drain_and_undrain_reach_the_node(make_node: Callable[..., RelayNode], stand_in: Any) -> None:
    node = make_node(control_url=stand_in.url, control_key="control")
    assert node_drain(node=node)
    assert RelayNode.objects.get().is_draining
    assert node_undrain(node=node)
    assert not RelayNode.objects.get().is_draining
    assert stand_in.requests == [
        ("POST", "/drain", "Bearer control", None),
        ("POST", "/undrain", "Bearer control", None),
    ]


def test_deaf_node_is_drained_all_the_same(node: RelayNode) -> None:
    assert not node_drain(node=node)
    assert RelayNode.objects.get().is_draining


def test_node_is_removed_with_its_keys(join_key: str) -> None:
    joined = join(join_key)
    node_remove(node=joined.node)
    assert not RelayNode.objects.exists() and not TokenKey.objects.exists()
    assert api_key_get(presented=joined.node_key) is None


def test_node_that_serves_is_not_removed(node: RelayNode) -> None:
    worker_reserve(worker_id=node.workers.get().pk, seats=1)
    with pytest.raises(NodeInUse):
        node_remove(node=node)
    assert RelayNode.objects.exists()


# Keys


def test_every_refusal_has_its_own_code() -> None:
    codes = {error.code for error in (JoinKeyInvalid, ClockSkew, NameTaken, NodeInUse)}
    assert codes == {"join_key_invalid", "clock_skew", "name_taken", "node_in_use"}
