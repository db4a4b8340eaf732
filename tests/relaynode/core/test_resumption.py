"""Players stay connected when the process that serves them is replaced, and no recorded packet is accepted again."""

import json
import os
from typing import Any

import pytest

from causeway_client.protocol.packets import DirectMode, PacketType
from relaynode.core.grants import GrantRefused
from relaynode.core.relay import Relay, RelayConfig
from relaynode.core.resumption import SKIPPED
from tests.relaynode.players import (
    KEY_ID,
    NOW,
    SESSION,
    TOKEN_KEY,
    EdgegapPlayer,
    NativePlayer,
    connected,
    drops,
    events,
    relay_with,
    relay_with_modes,
)

LATER = NOW + 1.0


def successor(relay: Relay, *players: NativePlayer | EdgegapPlayer, now: float = LATER) -> Relay:
    """A Relay that has what the one before reported, as JSON; the players' packets go to it from now on."""
    after = Relay(worker=0, config=RelayConfig(ports=(31_000, 31_001)), random=os.urandom)
    after.set_token_keys({KEY_ID: TOKEN_KEY})
    after.restore_session(as_json(relay.session_state(SESSION)), now)
    for seat in range(4):
        if (state := relay.connection_state(SESSION, seat)) is not None:
            after.resume_connection(as_json(state), now)
    for player in players:
        player.relay = after
    return after


def as_json(state: Any) -> Any:
    return json.loads(json.dumps(state))


def confirm(player: NativePlayer, now: float = LATER) -> None:
    """The player sends, is challenged, and answers."""
    assert player.send(b"is lost and challenged", now=now) is None
    ((kind, _, body),) = player.collects()
    assert kind == PacketType.PATH_CHALLENGE
    assert player.send_raw(player.packet(PacketType.PATH_RESPONSE, body + b"\0"), now) is None


def test_two_native_players_go_on_without_a_new_connect(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    host.shows_that_it_reads()
    player.shows_that_it_reads()
    after = successor(relay, host, player)
    assert after.stats() == {"sessions": 1, "seats": 4, "connected": 2}
    confirm(player)
    assert host.hears(player.send(b"up", now=LATER)) == (PacketType.DATA, 1, b"up")
    confirm(host)
    assert player.hears(host.send(b"down", 1, now=LATER)) == (PacketType.DATA, 0, b"down")
    assert events(after) == []
    assert drops(after) == {"resumed_connection": 2}


def test_what_is_sent_to_a_player_that_has_not_answered_yet_arrives(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    after = successor(relay, host, player)
    confirm(host)
    assert player.hears(host.send(b"down", 1, now=LATER)) == (PacketType.DATA, 0, b"down")
    assert drops(after) == {"resumed_connection": 1}


def test_recorded_packets_are_not_accepted_again(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    recorded = [player.data(b"shot %d" % number) for number in range(3)]
    for packet in recorded:
        assert host.hears(player.send_raw(packet)) is not None
    after = successor(relay, host, player)
    for packet in recorded:
        assert player.send_raw(packet, LATER) is None
    assert player.collects()[0][0] == PacketType.PATH_CHALLENGE
    assert drops(after) == {"resumed_connection": 3}
    confirm(player, LATER + 1)
    for packet in recorded:
        assert player.send_raw(packet, LATER + 1) is None
    assert drops(after) == {"resumed_connection": 4, "replayed": 3}
    assert host.hears(player.send(b"new", now=LATER + 1)) == (PacketType.DATA, 1, b"new")


def test_the_answer_to_an_earlier_process_confirms_nothing(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    home, player.addr = player.addr, ("203.0.113.77", 5077)
    player.send(b"moves to another place")
    ((_, _, challenge),) = player.collects()
    recorded = player.packet(PacketType.PATH_RESPONSE, challenge + b"\0")
    player.addr = home
    after = successor(relay, host, player)
    assert player.send_raw(recorded, LATER) is None
    assert drops(after) == {"resumed_connection": 1}


def test_a_forged_packet_draws_no_challenge(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    forged = player.data(b"x" * 30)[:-1] + b"\0"
    after = successor(relay, host, player)
    assert player.send_raw(forged, LATER) is None
    assert after.datagrams_to_send() == []
    assert drops(after) == {"bad_tag": 1}


def test_a_player_that_moved_meanwhile_is_found_at_its_new_address(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    after = successor(relay, host, player)
    player.addr = ("203.0.113.77", 5077)
    confirm(player)
    confirm(host)
    player.collects()
    assert player.hears(host.send(b"down", 1, now=LATER)) == (PacketType.DATA, 0, b"down")
    assert events(after) == [(1, "seat_moved", "")]


def test_sequence_numbers_go_on_over_several_processes(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    after = relay
    for generation in range(1, 5):
        after = successor(after, host, player, now=NOW + generation)
        confirm(host, NOW + generation)
        assert player.hears(host.send(b"down", 1, now=NOW + generation)) == (PacketType.DATA, 0, b"down")
        assert generation * SKIPPED < player.received.highest < generation * SKIPPED + 100


def test_a_new_connect_replaces_a_resumed_connection(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    after = successor(relay, host, player)
    player.connect(now=LATER)
    player.shows_that_it_reads(LATER)
    confirm(host)
    assert player.hears(host.send(b"down", 1, now=LATER)) == (PacketType.DATA, 0, b"down")
    assert after.stats()["connected"] == 2


def test_connections_of_a_successor_have_ids_of_their_own(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    after = successor(relay, host, player)
    others = [connected(after, seat) for seat in (2, 3)]
    ids = {it.welcome.connection & 0xFFFFF for it in (host, player, *others) if it.welcome}
    assert len(ids) == 4


def test_a_player_that_stays_silent_leaves(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    after = successor(relay, host, player)
    confirm(host)
    due = after.next_timer()
    assert due is not None
    host.shows_that_it_reads(NOW + 9)
    after.handle_timer(NOW + 12)
    assert events(after) == [(1, "seat_left", "timeout")]


def test_edgegap_players_are_reached_where_they_were() -> None:
    relay = relay_with(seats=4)
    host, player = EdgegapPlayer(relay, 0), EdgegapPlayer(relay, 1)
    assert (host.ping(), player.ping()) == (2, 2)
    assert host.hears(player.send(b"hello")) == b"hello"
    name = host.last_connection_id
    after = successor(relay, host, player)
    assert player.hears(host.send(b"first", name, now=LATER)) == b"first"
    assert host.hears(player.send(b"second", now=LATER)) == b"second"
    assert host.last_connection_id == name
    assert events(after) == []


def test_a_revoked_player_is_not_resumed(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    state = as_json(relay.connection_state(SESSION, 1))
    relay.end_session("another", "deleted", NOW)
    session = as_json(relay.session_state(SESSION))
    session["grant"]["seats"][1]["revoked"] = True
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    after.restore_session(session, LATER)
    after.resume_connection(state, LATER)
    assert after.stats()["connected"] == 0


def test_a_player_of_the_mode_ask_is_still_known_to_have_shared_its_addresses() -> None:
    relay = relay_with_modes("ask", "direct")
    assert relay.connection_state(SESSION, 0) is not None
    one = connected(relay, 0)
    binding = relay.forwarder.table.sessions[SESSION].seats[0].binding
    binding.shared_with.add(1)
    after = successor(relay, one)
    seat = after.forwarder.table.sessions[SESSION].seats[0]
    assert seat.binding.shared_with == {1}
    assert seat.direct_mode is DirectMode.ASK


@pytest.mark.parametrize(
    "change",
    [
        {"addr": 5},
        {"addr": "no base64"},
        {"port": 7},
        {"dialect": "another"},
        {"id": 0},
        {"id": 1 << 32},
        {"up_key": ""},
        {"down_key": "AAAA"},
        {"sent": -SKIPPED},
        {"sent": 1 << 63},
        {"sent": "many"},
        {"welcome": "A" * 2000},
        {"shared_with": [None]},
    ],
    ids=str,
)
def test_a_broken_state_is_refused_and_changes_nothing(
    relay: Relay, host: NativePlayer, player: NativePlayer, change: dict[str, Any]
) -> None:
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    after.restore_session(as_json(relay.session_state(SESSION)), LATER)
    with pytest.raises(GrantRefused):
        after.resume_connection(as_json(relay.connection_state(SESSION, 1)) | change, LATER)
    assert after.stats()["connected"] == 0
    assert after.forwarder.table.resumed == {}


def test_a_state_of_no_known_seat_is_ignored(relay: Relay, player: NativePlayer) -> None:
    state = as_json(relay.connection_state(SESSION, 1))
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    after.resume_connection(state, LATER)
    after.resume_connection({}, LATER)
    assert after.stats()["connected"] == 0


# A planned change of the process: the frozen one hands over its progress


def swapped(relay: Relay, *players: NativePlayer | EdgegapPlayer) -> Relay:
    after = successor(relay, *players)
    for part in relay.progress():
        after.set_progress(part)
    return after


def test_nothing_is_lost_and_nothing_has_to_be_confirmed(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    recorded = [player.data(b"shot %d" % number) for number in range(3)]
    for packet in (recorded[0], recorded[2]):
        assert host.hears(player.send_raw(packet)) is not None
    expected = host.received.highest + 1
    after = swapped(relay, host, player)
    assert host.hears(player.send_raw(recorded[1], LATER)) == (PacketType.DATA, 1, b"shot 1")
    assert host.received.highest == expected
    for packet in recorded:
        assert player.send_raw(packet, LATER) is None
    assert drops(after) == {"replayed": 3}
    assert player.hears(host.send(b"down", 1, now=LATER)) == (PacketType.DATA, 0, b"down")
    assert player.collects() == []
    assert events(after) == []


def test_a_challenge_of_the_frozen_process_is_answered_to_its_successor(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    player.addr = ("203.0.113.77", 5077)
    player.send(b"moves to another place")
    ((_, _, challenge),) = player.collects()
    after = swapped(relay, host, player)
    player.send_raw(player.packet(PacketType.PATH_RESPONSE, challenge + b"\0"), LATER)
    assert player.hears(host.send(b"down", 1, now=LATER)) == (PacketType.DATA, 0, b"down")
    assert events(after) == [(1, "seat_moved", "")]


def test_a_connection_that_is_not_confirmed_yet_still_has_to_be(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    between = successor(relay, host, player)
    after = swapped(between, host, player)
    confirm(player)
    confirm(host)
    assert host.hears(player.send(b"up", now=LATER)) == (PacketType.DATA, 1, b"up")
    assert host.received.highest < SKIPPED + 100, "it skips once"
    assert drops(after) == {"resumed_connection": 2}


def test_a_session_that_changed_meanwhile_is_restored_again(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    after = successor(relay)
    late = connected(relay, 2)
    after.forget_session(SESSION)
    assert after.stats() == {"sessions": 0, "seats": 0, "connected": 0}
    after.restore_session(as_json(relay.session_state(SESSION)), LATER)
    for seat in range(4):
        after.resume_connection(as_json(relay.connection_state(SESSION, seat)), LATER)
    for part in relay.progress():
        after.set_progress(part)
    for each in (host, player, late):
        each.relay = after
    assert host.hears(late.send(b"up", now=LATER)) == (PacketType.DATA, 2, b"up")
    assert events(after) == []


@pytest.mark.parametrize("spoil", [lambda it: it[:-1], lambda it: b"\xff" * 4 + it[4:], lambda it: b"\0" + it])
def test_progress_that_does_not_fit_is_refused(relay: Relay, player: NativePlayer, spoil: Any) -> None:
    after = successor(relay)
    (part,) = relay.progress()
    with pytest.raises(GrantRefused):
        after.set_progress(spoil(part))
