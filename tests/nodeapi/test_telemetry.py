from dataclasses import fields

from nodeapi.strict_json import as_builtins, read_document
from nodeapi.telemetry import LegQuality, PathQuality, PeerQuality, SessionEvent, Telemetry, WorkerExit
from relaynode.core.events import Event
from tests.relaymgr.telemetry.documents import telemetry


def test_the_documented_example_has_every_field_and_no_other() -> None:
    document = telemetry()
    read = read_document(document, Telemetry)
    for name, kind in (
        ("legs", LegQuality),
        ("paths", PathQuality),
        ("peers", PeerQuality),
        ("events", SessionEvent),
        ("worker_exits", WorkerExit),
    ):
        setattr(read, name, [read_document(item, kind) for item in getattr(read, name)])
    assert as_builtins(read) == document


def test_an_event_of_the_core_is_reported_with_a_number() -> None:
    assert set(SessionEvent.__struct_fields__) == {"number", *(field.name for field in fields(Event))}
