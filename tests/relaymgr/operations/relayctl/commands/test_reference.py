"""docs/relayctl.md says what the commands do and print."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import NodeStateChange, RelayNode
from relaymgr.operations.doctor import database
from relaymgr.operations.relayctl.app import app
from relaymgr.operations.relayctl.commands import tail
from relaymgr.sessions.models import EventKind, RelaySession, SessionEvent
from relaymgr.telemetry.models import LegSample, NodeSample, PeerLegs, ProcessExit
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from web.audit.services import action_record
from web.audit.via import Via

from ..conftest import Relayctl

DOCUMENT = (Path(__file__).parents[5] / "docs/relayctl.md").read_text()
OPEN = {"drops_per_second", "counters", "peers", "metadata", "constraints"}  # objects whose names are not ours to fix


def examples(heading: str) -> list[Any]:
    """The JSON below the paragraph that begins with this."""
    (found,) = re.findall(
        rf"^`{re.escape(heading)}`(?:(?!```|\n\n).)*\n((?:```json\n.*?```\n)+)", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", found, re.DOTALL)]


def shape(value: Any) -> Any:
    """Its names, down to the last; lists by their first."""
    if isinstance(value, dict):
        return {name: {} if name in OPEN else shape(item) for name, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else "value"


def test_reference_is_that_of_the_code(relayctl: Relayctl) -> None:
    printed = relayctl("reference").stdout
    assert DOCUMENT.endswith(printed), "put what `manage.py relayctl reference` prints at the end of docs/relayctl.md"


def test_every_command_named_in_the_guide_is_there() -> None:
    known = {command.name for command in app.registered_commands}
    named = set(re.findall(r"`relayctl ([a-z][a-z-]*)", DOCUMENT))
    assert named <= known
    assert known - named == {"reference"}


@pytest.fixture
def lively(session: dict[str, Any]) -> str:
    """A fleet in which everything has happened once; the session's id."""
    node, session_id, now = RelayNode.objects.get(), session["session_id"], timezone.now()
    counts = {"probe_ms": 3.0, "cpu": 0.1, "sessions": 1, "seats": 2, "connected": 2, "counters": {}}
    NodeSample.objects.create(node=node, at=now, **counts)
    PeerLegs.objects.create(node=node, at=now, legs={})
    NodeStateChange.objects.create(node=node, at=now, before="suspect", after="ready")
    for seat in (0, 1):
        LegSample.objects.create(
            node=node, session_id=session_id, seat=seat, at=now, rtt_ms=21.5, jitter_ms=0.8, loss=0.0
        )
    action_record(via=Via.ADMIN, actor="ana", action="node.drain", target="fra-1")
    api_key_create(tenant=Tenant.objects.get(), name="game", scopes=["relay"])
    ProcessExit.objects.create(
        supervisor="fra-1", process="worker", boot_id="b", number=1, at=now, status=1, uptime_s=1
    )
    RelayNode.objects.update(state="suspect")  # so that there is an alert
    return str(session_id)


@pytest.mark.parametrize("command", ["audit", "nodes", "locations", "sessions", "tenants", "keys"])
def test_shape_is_the_documented_one(lively: str, document: Callable[..., Any], command: str) -> None:
    (example,) = examples(f"relayctl {command} --json")
    assert shape(document(command)) == shape(example)


def test_status_has_the_documented_shape(lively: str, document: Callable[..., Any]) -> None:
    (example,) = examples("relayctl status --json")
    found = document("status")
    assert found.pop("nodes") == {"suspect": 1}
    del example["nodes"]
    assert shape(found) == shape(example)


@pytest.mark.parametrize(("one", "many", "name"), [("nodes fra-1", "nodes", "fra-1"), ("session ID", "sessions", "")])
def test_details_add_what_is_documented(
    lively: str, document: Callable[..., Any], one: str, many: str, name: str
) -> None:
    (added,), (listed,) = examples(f"relayctl {one} --json"), examples(f"relayctl {many} --json")
    found = document(one.split()[0], name or lively)
    assert shape(found) == shape(listed[many][0] | added)


def test_doctor_has_the_documented_shape(relayctl: Relayctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "check", lambda: iter([database.unreachable("OperationalError")]))
    (example,) = examples("relayctl doctor --json")
    assert shape(json.loads(relayctl("doctor", "--json").stdout)) == shape(example)


def test_tail_has_the_documented_shapes(lively: str) -> None:
    events, nodes, acts = (
        tail.session_events(kinds=(), session="", tenant="", node="", location=""),
        tail.NodeChanges("", ""),
        tail.audit_entries(),
    )
    for source in (events, nodes, acts):
        next(source)
    session = RelaySession.objects.get()
    SessionEvent.objects.create(session=session, at=timezone.now(), kind=EventKind.SEAT_MOVED, seat=1)
    RelayNode.objects.update(state="lost")
    action_record(via=Via.ADMIN, actor="ana", action="node.drain", target="fra-1")
    told = [document for source in (events, nodes, acts) for document in next(source)]
    assert [shape(document) for document in told] == [shape(example) for example in examples("relayctl tail --json")]
    assert [document["type"] for document in told] == ["session", "node", "audit"]
