from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import Location, RelayNode, RelayWorker
from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.sessions.serializers import SeatSerializer, SessionSerializer, relay_ip, seats_show_relay

V4, V6 = "203.0.113.7", "2001:db8::7"


def make(*families: str, **fields: Any) -> RelaySession:
    """A ready session on a node of both families, with one seat for each of the needed `families`. Not stored."""
    node = RelayNode(
        name="fra-1", public_ip=V4, public_ipv6=V6, last_seen_at=timezone.now(), location=Location(slug="frankfurt")
    )
    worker = RelayWorker(node=node, index=0, server_port=31000, client_port=31001)
    now = timezone.now()
    session = RelaySession(
        **{"id": "0123456789ab-S", "state": "ready", "token": "7", "worker": worker, "created_at": now,
           "expires_at": now, "dialects": ["native"]} | fields
    )  # fmt: skip
    seats: Any = [
        Seat(
            session=session, number=number, token=str(number + 2), seat_key="key", connect_token="token",
            address_family=family, is_connected=True,
        )
        for number, family in enumerate(families)
    ]  # fmt: skip
    session.active_seats = seats  # type: ignore[attr-defined]
    return session


@pytest.mark.parametrize(
    ("families", "ip"), [(("ipv6", "ipv6"), V6), (("ipv4", "any"), V4), (("ipv4", "ipv6"), V4), ((), V4)]
)
def test_relay_ip_is_the_address_that_all_players_reach(families: tuple[str, ...], ip: str) -> None:
    session = make(*families)
    assert relay_ip(session, session.worker) == ip
    assert relay_ip(make(*families, worker=None), None) == ""


def test_each_player_gets_the_addresses_of_its_family() -> None:
    session: Any = make("ipv6", "ipv4", "any")
    seats_show_relay(session, session.active_seats)
    assert [seat.relay_ips for seat in session.active_seats] == [[V6], [V4], [V4, V6]]


def test_each_player_gets_the_websocket_of_its_port() -> None:
    session: Any = make("ipv4", "ipv4")
    session.worker.node.websocket_url = "wss://fra-1.example.com"
    users = SessionSerializer(session).data["session_users"]
    found = [user["websocket_url"] for user in users]
    assert found == ["wss://fra-1.example.com/relay/31000", "wss://fra-1.example.com/relay/31001"]
    session.active_seats[0].connect_token = ""  # the session admits the edgegap dialect only
    assert SessionSerializer(session).data["session_users"][0]["websocket_url"] is None
    session.worker.node.websocket_url = ""
    assert SessionSerializer(session).data["session_users"][1]["websocket_url"] is None


def test_link_has_brackets_around_an_ipv6_address() -> None:
    relay = SessionSerializer(make("ipv6")).data["relay"]
    assert (relay["ip"], relay["ports"]["client"]["link"]) == (V6, f"[{V6}]:31001")


def test_secrets_are_null_for_keys_that_may_only_read() -> None:
    shown = SessionSerializer(make("ipv4"), context={"tokens": True}).data
    hidden = SessionSerializer(make("ipv4"), context={"tokens": False}).data
    (user,), (masked,) = shown["session_users"], hidden["session_users"]
    names = ("authorization_token", "connect_token", "seat_key")
    assert [user[name] for name in names] == [2, "token", "key"] and shown["authorization_token"] == 7
    assert [masked[name] for name in names] == [None] * 3 and hidden["authorization_token"] is None


def test_seat_key_is_null_without_the_native_dialect() -> None:
    session: Any = make("ipv4")
    (seat,) = session.active_seats
    seat.connect_token, seat.relay_ips, seat.standby = "", [V4], None
    found = SeatSerializer(seat).data
    assert (found["connect_token"], found["seat_key"]) == (None, None)


def test_connection_of_players_is_null_while_the_node_is_silent() -> None:
    session: Any = make("ipv4")
    assert SessionSerializer(session).data["session_users"][0]["connected"] is True
    session.worker.node.last_seen_at -= timedelta(minutes=1)
    found = SessionSerializer(session).data
    assert found["session_users"][0]["connected"] is None
    assert found["unknown_since"] == session.worker.node.last_seen_at.isoformat()


@pytest.mark.parametrize(
    ("state", "status", "error"),
    [
        ("requested", "Initializing", None),
        ("ready", "READY", None),
        ("ended", "Ended", "Session ended: deleted"),
        ("failed", "Failed", "Session failed: deleted"),
    ],
)
def test_state_has_edgegaps_word_and_an_error_at_the_end(state: str, status: str, error: str | None) -> None:
    found = SessionSerializer(make(state=state, end_reason="deleted")).data
    assert (found["status"], found["error"], found["ready"]) == (status, error, state == "ready")
