"""What only the blocking adapter has; what all adapters do is in test_adapters.py."""

import select
import socket
import time

import pytest

from causeway_client import blocking_udp
from causeway_client.protocol.connection import State
from causeway_client.protocol.errors import ConnectionClosed, ConnectTimeout
from causeway_client.protocol.events import Closed, ConnectStarted, Joined, Moved, Received, Signaled, Welcomed
from causeway_client.protocol.packets import EVERYONE

SILENT = {"connect_token": b"t" * 120, "seat_key": b"k" * 32}


@pytest.fixture
def host(session):
    with blocking_udp.connect("127.0.0.1", session.port(0), **session.native(0)) as connection:
        yield connection


@pytest.fixture
def player(session):
    with blocking_udp.connect("127.0.0.1", session.port(1), **session.native(1)) as connection:
        yield connection


def until(connection, kind, *others, before=None):
    """Polls until an event of that kind comes, the other connections too, as their games would. `before`: the kinds
    of all events that are to come before it."""
    deadline = time.monotonic() + 5
    seen = []
    while time.monotonic() < deadline:
        for other in others:
            other.poll()
        for event in connection.poll(timeout=0.02):
            if isinstance(event, kind):
                assert before is None or seen == before
                return event
            seen.append(type(event))
    raise AssertionError(f"no {kind.__name__}")


def test_a_new_connection_does_not_block_and_reports_its_progress(session):
    with blocking_udp.Connection("localhost", session.port(1), **session.native(1)) as connection:
        assert connection.state is State.JOINING
        assert connection.seat is None
        assert until(connection, Welcomed, before=[ConnectStarted]).seat == connection.seat == 1


def test_connect_keeps_its_events_for_the_first_poll(host):
    assert [type(event) for event in host.poll()][:2] == [ConnectStarted, Welcomed]


def test_payloads_joins_and_signals_come_in_one_list(host, session):
    with blocking_udp.connect("127.0.0.1", session.port(1), **session.native(1)) as player:
        assert until(host, Joined) == Joined(1)
        player.send(b"input")
        assert until(host, Received) == Received(1, b"input")
        player.signal(b"candidate", 0)
        assert until(host, Signaled) == Signaled(1, b"candidate")
        host.send(b"state", EVERYONE)
        assert until(player, Received) == Received(0, b"state")


def test_a_poll_without_a_timeout_returns_at_once(player):
    player.poll()
    start = time.monotonic()
    for _ in range(20):
        player.poll()
    assert time.monotonic() - start < 0.5


def test_a_poll_waits_for_the_first_event_only_and_no_longer_than_asked(host, player):
    until(host, Joined)
    start = time.monotonic()
    assert host.poll(timeout=0.2) == []
    assert time.monotonic() - start == pytest.approx(0.2, abs=0.15)
    player.send(b"x")
    start = time.monotonic()
    assert Received(1, b"x") in host.poll(timeout=5)
    assert time.monotonic() - start < 2


def test_it_can_be_selected_on(host, player):
    until(host, Joined)
    player.send(b"x")
    assert select.select([host], [], [], 5)[0] == [host]
    assert until(host, Received).payload == b"x"


def test_a_migration_moves_the_address_and_play_goes_on(host, player):
    player.rebind()
    assert until(player, Moved, host)
    player.send(b"moved")
    assert until(host, Received) == Received(1, b"moved")
    host.send(b"received", 1)
    assert until(player, Received) == Received(0, b"received")


def test_closing_notifies_the_others_and_ends_in_closed(host, session):
    player = blocking_udp.connect("127.0.0.1", session.port(1), **session.native(1))
    until(host, Joined)
    player.close()
    assert player.poll()[-1] == Closed(None)
    assert player.fileno() == -1
    assert player.poll(timeout=1) == []
    with pytest.raises(ConnectionClosed):
        player.send(b"x")
    player.close()


def test_an_address_that_does_not_answer_is_a_timeout_not_a_hang():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectTimeout):
            blocking_udp.connect("127.0.0.1", silent.getsockname()[1], connect_timeout=0.5, **SILENT)


def test_a_closed_port_is_a_timeout_too_and_counted():
    connection = blocking_udp.Connection("127.0.0.1", 9, connect_timeout=0.5, **SILENT)
    closed = until(connection, Closed)
    assert isinstance(closed.error, ConnectTimeout)
    assert connection.stats.dropped["socket_error"] >= 1
    assert connection.error is closed.error
