import dataclasses
import inspect

import pytest

from causeway_client.protocol import events
from tests.docs import pages

EVENTS = [
    each
    for _, each in inspect.getmembers(events, inspect.isclass)
    if issubclass(each, events.Event) and each is not events.Event
]


@pytest.mark.parametrize("event", EVENTS)
def test_events_are_small_and_cannot_be_changed(event: type[events.Event]) -> None:
    assert "__slots__" in vars(event)
    arguments = {field.name: None for field in dataclasses.fields(event)}
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        event(**arguments).seat = 1  # type: ignore[attr-defined]


def test_the_documentation_lists_every_event() -> None:
    rows = pages.table(pages.DOCS / "transports.md", after="## Events")
    assert {word for row in rows for word in pages.words(row[0])} == {event.__name__ for event in EVENTS}
