"""The sources of tail. That it follows, as a process, is in tests/flows/test_relayctl.py."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.operations.relayctl.commands import tail
from relaymgr.sessions.models import EventKind, RelaySession, SessionEvent
from relaymgr.tenants.models import Tenant
from web.audit.services import action_record
from web.audit.via import Via


@pytest.fixture
def session_row(tenant: Tenant, node: RelayNode) -> RelaySession:
    return RelaySession.objects.create(
        tenant=tenant, worker=node.workers.get(), token="1", idle_timeout=10, expires_at=timezone.now()
    )


def happen(session: RelaySession, kind: EventKind, **fields: Any) -> SessionEvent:
    return SessionEvent.objects.create(session=session, at=timezone.now(), kind=kind, **fields)


def source(
    kinds: tuple[EventKind, ...] = (), session: str = "", tenant: str = "", node: str = "", location: str = ""
) -> Any:
    rows = tail.session_events(kinds=kinds, session=session, tenant=tenant, node=node, location=location)
    next(rows)
    return rows


def test_only_what_is_new_is_told_and_once(session_row: RelaySession) -> None:
    happen(session_row, EventKind.REQUESTED)
    rows = source()
    assert next(rows) == []
    happen(session_row, EventKind.SEAT_JOINED, seat=1, reason="x")
    (told,) = next(rows)
    assert (told["type"], told["event"], told["session"], told["seat"]) == ("session", "seat_joined", session_row.pk, 1)
    assert (told["tenant"], told["node"], told["location"]) == ("studio", "fra-1", "frankfurt")
    assert next(rows) == []


def test_row_that_becomes_visible_after_a_later_one_is_told(session_row: RelaySession) -> None:
    """PostgreSQL numbers rows when they are written, and shows them when they are committed."""
    late = happen(session_row, EventKind.READY)
    number = late.pk
    late.delete()
    rows = source()
    happen(session_row, EventKind.ENDED)
    SessionEvent.objects.filter(kind=EventKind.ENDED).update(id=number + 5)
    assert [told["event"] for told in next(rows)] == ["ended"]
    late.pk = number + 2
    late.save(force_insert=True)
    assert [told["event"] for told in next(rows)] == ["ready"]
    assert next(rows) == []


def test_memory_is_of_the_last_seconds_alone(session_row: RelaySession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "LONGEST_TRANSACTION_S", 0.0)
    rows = source()
    for _ in range(5):
        happen(session_row, EventKind.SEAT_JOINED)
        assert len(next(rows)) == 1
    assert next(rows) == next(rows) == []
    assert not rows.seen and len(rows.marks) <= 2


@pytest.mark.parametrize(
    "wanted",
    [
        {"kinds": (EventKind.ENDED,)},
        {"session": "000000000000-S"},
        {"tenant": "other"},
        {"node": "tok-1"},
        {"location": "tokyo"},
    ],
)
def test_filters_leave_out(session_row: RelaySession, wanted: dict[str, Any]) -> None:
    rows = source(**wanted)
    happen(session_row, EventKind.SEAT_JOINED, seat=1)
    assert next(rows) == []


def test_filters_let_through(session_row: RelaySession) -> None:
    rows = source((EventKind.SEAT_JOINED,), session_row.pk, "studio", "fra-1", "frankfurt")
    happen(session_row, EventKind.SEAT_JOINED, seat=1)
    assert len(next(rows)) == 1


def test_changes_of_nodes_are_told(make_node: Callable[..., RelayNode], location: Location) -> None:
    make_node("fra-1")
    nodes = tail.NodeChanges("", "")
    assert next(nodes) == [], "what is so already is no news"
    RelayNode.objects.filter(name="fra-1").update(state="lost", is_draining=True)
    make_node("fra-2", state="joining")
    told = {(change["node"], change["change"]): (change["from"], change["to"]) for change in next(nodes)}
    assert told == {
        ("fra-1", "state"): ("ready", "lost"),
        ("fra-1", "draining"): (False, True),
        ("fra-2", "joined"): (None, "joining"),
    }
    RelayNode.objects.filter(name="fra-2").delete()
    assert [(change["node"], change["change"]) for change in next(nodes)] == [("fra-2", "removed")]


@pytest.mark.parametrize(("node", "place"), [("fra-2", ""), ("", "tokyo")])
def test_nodes_are_filtered(make_node: Callable[..., RelayNode], node: str, place: str) -> None:
    make_node("fra-1")
    nodes = tail.NodeChanges(node, place)
    next(nodes)
    RelayNode.objects.update(state="lost")
    assert next(nodes) == []


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (
            {"type": "session", "event": "seat_joined", "session": "3960c873aafd-S", "seat": 1, "tenant": "studio"}
            | {"node": "fra-1", "reason": "a\x1bb"},
            "seat_joined   3960c873aafd-S seat 1 of studio on fra-1: a\\x1bb",
        ),
        (
            {
                "type": "node",
                "node": "fra-1",
                "location": "frankfurt",
                "change": "state",
                "from": "ready",
                "to": "lost",
            },
            "lost          node fra-1 at frankfurt: state changed from ready to lost",
        ),
    ],
)
def test_lines_for_people(document: dict[str, Any], line: str) -> None:
    shown = tail.line({"at": timezone.now(), **document}).plain
    assert shown.split("  ", 1)[1] == line


def test_audit_entries_are_followed(db: None) -> None:
    acts = tail.audit_entries()
    next(acts)
    action_record(via=Via.ADMIN, actor="ana", action="node.drain", target="fra-1", succeeded=False, detail="no")
    (told,) = next(acts)
    assert (told["type"], told["actor"], told["action"]) == ("audit", "ana", "node.drain")
    assert tail.line(told).plain.endswith("audit         ana via admin: node.drain fra-1 failed: no")
