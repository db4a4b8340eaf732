"""A seat limits its moves, and a session can be written as its grant."""

import os

from relaynode.core.seat_table import SeatTable
from relaynode.core.seats import MOVE_INTERVAL
from tests.relaynode.players import NOW, grant_of


def test_a_session_is_told_as_the_grant_it_came_from() -> None:
    direct = {"direct_mode": "ask", "direct_grace": 60}
    grant = grant_of(4, limits={"packets": 1, "bytes": 2}, revoked={3}, topology="mesh", revision=9, **direct)
    assert SeatTable(os.urandom).put_session(grant, NOW).as_grant(0) == grant


def test_a_seat_moves_at_most_once_per_interval() -> None:
    seat = SeatTable(os.urandom).put_session(grant_of(), NOW).seats[1]
    assert seat.may_move(NOW)
    seat.moved_at = NOW
    assert not seat.may_move(NOW + MOVE_INTERVAL / 2)
    assert seat.may_move(NOW + MOVE_INTERVAL)
