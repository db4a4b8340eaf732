"""Rounds of probes against real HTTP servers in place of nodes."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes import control_client
from relaymgr.nodes.models import RelayNode
from relaymgr.nodes.services import node_heartbeat
from relaymgr.nodes.states import NodeState
from relaymgr.telemetry import signals, tasks
from relaymgr.telemetry.models import Lease, LegSample, NodeEvent, NodeSample
from relaymgr.telemetry.probing import round as probe_rounds
from relaymgr.telemetry.services import probe_round, samples_prune
from tests.relaymgr.telemetry.documents import telemetry
from tests.support.manager import in_threads

pytestmark = pytest.mark.django_db


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    monkeypatch.setattr(signals.events_stored, "send", lambda sender: sent.append(sender.__name__))
    return sent


@pytest.fixture
def heard(make_node: Callable[..., RelayNode], stand_in: Any, announced: list[str]) -> RelayNode:
    """A joined node whose stand-in answers as in docs/node-api.md, from boot 6f1c."""
    stand_in.says(200, telemetry() | {"time": time.time()})
    return make_node(control_url=stand_in.url, state=NodeState.JOINING, last_seen_at=None)


def telemetry_asked(stand_in: Any) -> list[str]:
    """The paths of the calls for telemetry, in order."""
    return [path for method, path, *_ in stand_in.requests if method == "GET"]


def event(number: int, **changes: Any) -> dict[str, Any]:
    return telemetry()["events"][0] | {"number": number} | changes


def test_heard_node_is_ready_and_its_sample_kept(heard: RelayNode, stand_in: Any) -> None:
    assert probe_round() == 1
    heard.refresh_from_db()
    assert (heard.state, heard.missed_probes, heard.cpu, heard.version) == ("ready", 0, 0.07, "0.1.0")
    assert heard.last_seen_at == pytest.approx(timezone.now(), abs=timedelta(seconds=5))
    assert abs(heard.clock_offset_ms) < 1000
    sample = NodeSample.objects.get()
    assert (sample.sessions, sample.seats, sample.connected) == (12, 48, 40)
    assert sample.counters["forwarded_packets"] == 120311
    assert 0 < sample.probe_ms < 1000
    method, path, authorization, _ = stand_in.requests[0]
    assert (method, authorization) == ("GET", f"Bearer {heard.control_key}")
    assert path.startswith("/telemetry?after=0")


def test_clock_that_is_off_is_measured(heard: RelayNode, stand_in: Any) -> None:
    stand_in.says(200, telemetry() | {"time": time.time() + 3})
    probe_round()
    heard.refresh_from_db()
    assert heard.clock_offset_ms == pytest.approx(3000, abs=500)


def test_node_that_drains_by_itself_takes_no_sessions_until_it_says_so_no_more(heard: RelayNode, stand_in: Any) -> None:
    stand_in.says(200, telemetry() | {"draining": True})
    probe_round()
    heard.refresh_from_db()
    assert heard.is_stopping and not heard.is_draining and not heard.takes_sessions
    stand_in.says(200, telemetry())
    probe_round()
    heard.refresh_from_db()
    assert heard.takes_sessions


# Health


def test_silent_node_is_suspected_then_lost_and_comes_back(heard: RelayNode, stand_in: Any) -> None:
    probe_round()
    stand_in.says(500, {})
    states = []
    for _ in range(15):
        probe_round()
        heard.refresh_from_db()
        states.append(heard.state)
    assert states == ["ready"] * 2 + ["suspect"] * 12 + ["lost"]
    assert heard.missed_probes == 15
    stand_in.says(200, telemetry())
    probe_round()
    heard.refresh_from_db()
    assert (heard.state, heard.missed_probes) == ("ready", 0)


@pytest.mark.parametrize(
    "document", [b"garbage", b"[" * 100_000, {}, telemetry() | {"workers": "none"}, telemetry() | {"boot_id": 5}]
)
def test_answer_that_makes_no_sense_is_a_miss(heard: RelayNode, stand_in: Any, document: Any) -> None:
    stand_in.says(200, document)
    assert probe_round() == 0
    heard.refresh_from_db()
    assert (heard.state, heard.missed_probes) == (NodeState.JOINING, 1)
    assert not NodeSample.objects.exists()


def test_node_that_hangs_delays_nobody(
    heard: RelayNode, make_node: Callable[..., RelayNode], make_stand_in: Callable[[], Any], settings: Any
) -> None:
    settings.NODE_PROBE_TIMEOUT = 0.5
    hangs = make_stand_in()
    hangs.hangs()
    for number in range(5):
        make_node(f"hangs-{number}", control_url=hangs.url)
    make_node("gone")
    started = time.monotonic()
    assert probe_round() == 1
    assert time.monotonic() - started < 2
    missed = dict(RelayNode.objects.values_list("name", "missed_probes"))
    assert missed == {"fra-1": 0, "gone": 1} | {f"hangs-{number}": 1 for number in range(5)}


def test_change_of_state_is_logged_without_keys(heard: RelayNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    probe_round()
    assert "node fra-1 is ready, it was joining" in caplog.text
    assert heard.control_key not in caplog.text


# Events


def test_events_are_stored_once_and_announced(heard: RelayNode, stand_in: Any, announced: list[str]) -> None:
    probe_round()
    heard.refresh_from_db()
    assert (heard.boot_id, heard.last_event) == ("6f1c", 8)
    stored = NodeEvent.objects.get()
    assert (stored.node, stored.boot_id, stored.number, stored.kind) == (heard, "6f1c", 8, "seat_joined")
    assert stored.at == pytest.approx(timezone.now() - timedelta(days=1), abs=timedelta(minutes=1)), "of long ago"
    assert announced == ["NodeEvent"]
    probe_round()  # the node, asked after 8, tells of it again all the same
    assert NodeEvent.objects.count() == 1
    assert telemetry_asked(stand_in)[1].startswith("/telemetry?after=8")
    assert len(announced) == 1


def test_round_that_died_before_its_cursor_was_moved_stores_nothing_twice(heard: RelayNode) -> None:
    probe_round()
    RelayNode.objects.update(last_event=0)
    probe_round()
    assert NodeEvent.objects.count() == 1


def test_restarted_node_is_asked_again_from_its_first_event(heard: RelayNode, stand_in: Any) -> None:
    probe_round()
    # Asked after 8, the new boot leaves out its events 1 to 8.
    stand_in.says(200, telemetry() | {"boot_id": "second", "events": [event(9)], "last_event": 9})
    probe_round()
    heard.refresh_from_db()
    assert (heard.boot_id, heard.last_event) == ("second", 0)
    assert NodeEvent.objects.filter(boot_id="second").count() == 0
    stand_in.says(200, telemetry() | {"boot_id": "second", "events": [event(8), event(9)], "last_event": 9})
    probe_round()
    heard.refresh_from_db()
    assert telemetry_asked(stand_in)[-1].startswith("/telemetry?after=0")
    assert heard.last_event == 9
    assert list(NodeEvent.objects.filter(boot_id="second").values_list("number", flat=True)) == [8, 9]


def test_heartbeat_of_a_new_boot_during_the_probe_is_not_overwritten(heard: RelayNode, stand_in: Any) -> None:
    probe_round()
    node = RelayNode.objects.get()

    def restart_meanwhile(document: dict[str, Any]) -> Callable[..., Any]:
        original = probe_rounds.fetch_telemetry

        def fetch(*args: Any) -> Any:
            answers = original(*args)
            node_heartbeat(
                node=node, boot_id="second", time=time.time(), version="", key_ids=[], draining=False,
                control_url=node.control_url, capacity=100, workers=[services_worker()],
            )  # fmt: skip
            return answers

        return fetch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_rounds, "fetch_telemetry", restart_meanwhile(telemetry()))
        patch.setattr(control_client, "boot_id_of", lambda node: "second")
        probe_round()
    node.refresh_from_db()
    assert (node.boot_id, node.last_event) == ("second", 0)


def services_worker() -> Any:
    from nodeapi.membership import WorkerPorts

    return WorkerPorts(0, 31000, 31001)


# Legs


# Rounds


def test_round_never_overlaps_itself(heard: RelayNode) -> None:
    Lease.objects.create(name="probe", owner="another", until=timezone.now() + timedelta(seconds=5))
    assert probe_round() is None
    Lease.objects.update(until=timezone.now())
    assert probe_round() == 1
    assert probe_round() == 1


@pytest.mark.django_db(transaction=True)
def test_of_rounds_at_once_one_runs(make_node: Callable[..., RelayNode], stand_in: Any, settings: Any) -> None:
    settings.NODE_PROBE_TIMEOUT = 0.5
    gate = threading.Event()
    stand_in.answer = lambda method, path, body: (gate.wait(0.3), (500, b""))[1]
    make_node(control_url=stand_in.url)
    assert sorted(str(result) for result in in_threads(*[probe_round] * 4)) == ["0", "None", "None", "None"]
    assert len(stand_in.requests) == 1


def test_lease_is_given_back_when_storing_fails(heard: RelayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(answers: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(probe_rounds, "_node_samples_store", fail)
        with pytest.raises(RuntimeError):
            probe_round()
    assert probe_round() == 1


def test_no_nodes_is_a_round_too(db: None) -> None:
    assert probe_round() == 0


def test_queries_do_not_multiply_with_events_and_legs(
    heard: RelayNode, stand_in: Any, django_assert_max_num_queries: Callable
) -> None:
    legs = [telemetry()["legs"][0] | {"seat": seat} for seat in range(200)]
    events = [event(number) for number in range(1, 500)]
    stand_in.says(200, telemetry() | {"legs": legs, "events": events, "last_event": 499})
    with django_assert_max_num_queries(30):
        probe_round()
    assert (LegSample.objects.count(), NodeEvent.objects.count()) == (200, 499)


# Pruning and tasks


def test_what_is_too_old_is_pruned_and_no_more(heard: RelayNode, settings: Any) -> None:
    probe_round()
    assert samples_prune() == 0
    old = timezone.now() - timedelta(seconds=settings.SAMPLE_RETENTION + 1)
    for model in (NodeSample, LegSample):
        model.objects.update(at=old)
    NodeEvent.objects.update(stored_at=old)
    probe_round()
    assert samples_prune() == 3
    assert NodeSample.objects.count() == 1


def test_tasks_are_one_more_way_in(heard: RelayNode) -> None:
    tasks.probe()
    assert NodeSample.objects.count() == 1
    tasks.samples_prune()
    assert NodeSample.objects.count() == 1
