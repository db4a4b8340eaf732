import pytest

from relaymgr.sessions.selectors import seats_granted
from relaymgr.telemetry.probing import granted_seats
from relaymgr.telemetry.probing.granted_seats import SeatFacts, granted_by


@pytest.fixture(autouse=True)
def _everything_is_granted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests make up sessions that no node was granted; test_rogue_node.py looks at what that means."""
    if "real_grants" not in request.fixturenames:
        monkeypatch.setattr(granted_seats, "granted", lambda seats: dict.fromkeys(seats, SeatFacts(1, "", {})))


@pytest.fixture
def real_grants() -> None:
    granted_by(seats_granted)  # forgets those of other tests
