import os

import pytest

from relaynode.core.seat_table import SeatTable
from relaynode.core.seats import Seat, Session
from tests.relaynode.players import NOW, grant_of


@pytest.fixture
def table() -> SeatTable:
    return SeatTable(os.urandom)


@pytest.fixture
def session(table: SeatTable) -> Session:
    return table.put_session(grant_of(), NOW)


@pytest.fixture
def seat(table: SeatTable, session: Session) -> Seat:
    """A player's seat, bound to an address in the edgegap dialect."""
    seat = session.seats[1]
    table.bind(seat, ("192.0.2.1", 1), 1, NOW)
    return seat
