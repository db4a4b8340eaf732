"""The core's part of the acceptance checklist (EDGEGAP.md 8) and the rules of the wire it rests on.

Each test names its item: "item_1", "w12".
"""

import struct
from itertools import pairwise

import pytest

from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Relay, RelayConfig
from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, drops, events, grant_of, relay_with
from tests.support.grants import SESSION_TOKEN, user_token

VALID, INVALID, SESSION_TIMEOUT = 2, 3, 4
COOKIE = b"\xef\xbe\xad\xde"
HELLO = b"\x01" + bytes(4) + b"kcp: hello"  # as a kcp2k client's first datagram: channel reliable, cookie 0
GAME = b"\x01" + COOKIE + b"kcp: game"  # any later one


@pytest.fixture
def relay() -> Relay:
    return relay_with(seats=4)


@pytest.fixture
def host(relay: Relay) -> EdgegapPlayer:
    host = EdgegapPlayer(relay, 0)
    assert host.ping() == VALID
    return host


@pytest.fixture
def client(relay: Relay) -> EdgegapPlayer:
    return EdgegapPlayer(relay, 1)


def play(host: EdgegapPlayer, client: EdgegapPlayer, payload: bytes = GAME, now: float = NOW) -> int:
    """One payload reaches the host; the connectionId it came under."""
    assert host.hears(client.send(payload, now=now)) == payload
    return host.last_connection_id


def restarted(client: EdgegapPlayer) -> EdgegapPlayer:
    """The same token from another local port."""
    return EdgegapPlayer(client.relay, client.seat, (client.addr[0], client.addr[1] + 1000))


# -- item 1, 2: who speaks first


def test_item_1_w11_w12_data_first_client_is_forwarded_without_ping(host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    assert host.hears(client.send(HELLO)) == HELLO


def test_item_1_the_worked_example_of_the_spec(relay: Relay) -> None:
    host = EdgegapPlayer(relay, 0)
    host.ping()
    first = bytes.fromhex("01286bee4dc2a6d0020100000000000000005100001000000000000000000000000001000000") + b"\x01"
    assert len(first) == 39
    outgoing = relay.receive_datagram(first, ("198.51.100.9", 9), CLIENT_PORT, NOW)
    assert host.hears(outgoing) == first[9:]


def test_item_1_w10_host_may_ping_for_ever(host: EdgegapPlayer) -> None:
    assert {host.ping(NOW + tick * 0.5) for tick in range(500)} == {VALID}


def test_item_2_w14_ping_first_client_gets_valid_before_any_data(relay: Relay, client: EdgegapPlayer) -> None:
    assert client.ping() == VALID
    host = EdgegapPlayer(relay, 0)
    host.ping()
    assert host.hears(client.send(GAME)) == GAME


def test_item_2_w13_a_client_by_the_manual_pings_then_sends(host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    assert [client.ping(NOW + 0.5), client.ping(NOW + 1.0)] == [VALID, VALID]
    assert host.hears(client.send(HELLO, now=NOW + 1.1)) == HELLO


def test_item_2_w15_runts_are_ignored_whoever_sends_them(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    assert client.send_raw(client.tokens) is None
    assert drops(relay) == {"too_short": 1}
    assert relay.stats()["connected"] == 1
    assert client.ping() == VALID


def test_w16_pings_may_come_ten_times_a_second(client: EdgegapPlayer) -> None:
    assert {client.ping(NOW + tick * 0.1) for tick in range(100)} == {VALID}


def test_w17_absence_is_the_only_leave_signal(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    play(host, client)
    events(relay)
    host.ping(NOW + 9)
    relay.handle_timer(NOW + 10.2)
    assert events(relay) == [(1, "seat_left", "timeout")]
    play(host, client, now=NOW + 11)
    assert events(relay) == [(1, "seat_joined", "")]


# -- item 3: ping replies


def test_item_3_w40_ping_reply_is_two_bytes_from_the_port_that_was_asked(
    host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    assert host.send_raw(host.tokens + b"\x01") == (SERVER_PORT, b"\x01\x02", host.addr)
    assert client.send_raw(client.tokens + b"\x01") == (CLIENT_PORT, b"\x01\x02", client.addr)


def test_item_3_bytes_after_a_ping_are_ignored(client: EdgegapPlayer) -> None:
    assert client.send_raw(client.tokens + b"\x01" + bytes(100)) == (CLIENT_PORT, b"\x01\x02", client.addr)


def test_w40_data_leaves_from_the_port_its_receiver_speaks_to(host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    up = client.send(GAME)
    assert up is not None
    assert (up[0], up[2]) == (SERVER_PORT, host.addr)
    host.hears(up)
    down = host.send(GAME, host.last_connection_id)
    assert down == (CLIENT_PORT, b"\x02" + GAME, client.addr)


# -- item 4: connectionId


def test_item_4_w30_host_answers_by_the_id_it_was_shown(relay: Relay, host: EdgegapPlayer) -> None:
    one, two = EdgegapPlayer(relay, 1), EdgegapPlayer(relay, 2)
    first, second = play(host, one), play(host, two)
    assert one.hears(host.send(b"for one", first)) == b"for one"
    assert two.hears(host.send(b"for two", second)) == b"for two"
    assert two.hears(host.send(b"for one", first)) is None


def test_item_4_w31_w32_w33_ids_are_unique_and_1_to_2_31() -> None:
    relay = relay_with(seats=255)
    host = EdgegapPlayer(relay, 0)
    host.ping()
    ids = [play(host, EdgegapPlayer(relay, seat)) for seat in range(1, 255)]
    assert len(set(ids)) == 254
    assert all(1 <= connection_id < 2**31 for connection_id in ids)


def test_item_4_w32_an_id_of_zero_or_one_in_use_is_drawn_again() -> None:
    wanted = iter([bytes(4), b"\x05\0\0\0", b"\x05\0\0\x80", b"\x06\0\0\0"])
    relay = Relay(worker=0, config=RelayConfig(), random=lambda n: next(wanted) if n == 4 else bytes(n))
    relay.apply_grant(grant_of(), NOW)
    host = EdgegapPlayer(relay, 0)
    host.ping()
    assert [play(host, EdgegapPlayer(relay, seat)) for seat in (1, 2)] == [5, 6]


def test_item_4_id_is_stable_while_the_address_is(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    first = play(host, client, HELLO)
    # A repeated hello is kcp2k's retransmission, not a new game.
    assert play(host, client, HELLO, NOW + 0.2) == first
    host.ping(NOW + 29)
    relay.handle_timer(NOW + 29)
    assert play(host, client, GAME, NOW + 30) == first


def test_item_4_a_nat_rebinding_plays_on_under_the_same_id(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    first = play(host, client, HELLO)
    events(relay)
    moved = restarted(client)
    assert moved.send(GAME, now=NOW + 0.1) is None
    assert moved.send(GAME, now=NOW + 0.2) is None
    assert play(host, moved, GAME, NOW + 0.3) == first
    assert moved.hears(host.send(b"down", first, NOW + 0.3)) == b"down"
    assert events(relay) == [(1, "seat_moved", "")]


def test_item_4_a_rebinding_after_a_pause_moves_at_once(host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    first = play(host, client)
    assert play(host, restarted(client), GAME, NOW + 0.5) == first


def test_item_4_a_restarted_client_gets_a_new_id_at_once(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    first = play(host, client)
    again = restarted(client)
    second = play(host, again, HELLO, NOW + 0.7)
    assert second != first
    assert again.hears(host.send(b"welcome", second, NOW + 0.7)) == b"welcome"
    # What the host still sends to the old id must not reach the new game: it would adopt the stale cookie.
    assert host.send(b"stale", first, NOW + 0.8) is None
    assert drops(relay)["unknown_connection_id"] == 1


def test_item_4_a_client_restarted_within_moments_gets_in_by_its_retransmissions(
    host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    first = play(host, client)
    again = restarted(client)
    assert [again.send(HELLO, now=NOW + at) for at in (0.01, 0.21)] == [None, None]
    assert play(host, again, HELLO, NOW + 0.41) != first


def test_item_4_a_client_that_pings_first_is_told_apart_by_its_first_data(
    host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    first = play(host, client)
    rebound, again = restarted(client), restarted(restarted(client))
    assert rebound.ping(NOW + 1) == VALID
    assert rebound.hears(host.send(b"down", first, NOW + 1)) == b"down"
    assert play(host, rebound, GAME, NOW + 1.1) == first
    assert again.ping(NOW + 2) == VALID
    assert play(host, again, HELLO, NOW + 2.1) != first


@pytest.mark.parametrize("silence", [10.1, 30.0])
def test_item_4_an_address_change_after_10_s_of_silence_is_a_new_id(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer, silence: float
) -> None:
    first = play(host, client)
    host.ping(NOW + silence)
    assert play(host, restarted(client), GAME, NOW + silence) != first


def test_item_4_a_second_address_is_refused_while_the_first_is_heard(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    first = play(host, client)
    thief = restarted(client)
    for tick in range(1, 100):
        at = NOW + tick * 0.1
        assert thief.send(GAME, now=at) is None
        assert thief.send(GAME, now=at) is None
        assert play(host, client, GAME, at) == first
    assert thief.ping(NOW + 10) == VALID
    assert client.hears(host.send(b"down", first, NOW + 10)) == b"down"


def test_s1_newest_authenticated_host_address_wins_by_the_same_rule(host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    play(host, client)
    again = EdgegapPlayer(host.relay, 0, ("198.51.100.200", 77))
    assert again.ping(NOW + 0.1) == VALID
    assert host.hears(client.send(GAME, now=NOW + 0.1)) == GAME
    assert [again.ping(NOW + at) for at in (0.2, 0.3)] == [VALID, VALID]
    assert again.hears(client.send(GAME, now=NOW + 0.4)) == GAME


# -- EDGEGAP.md W34, W35, W36: what a host may know and do


def test_w34_data_for_an_unknown_id_is_dropped(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    first = play(host, client)
    assert [host.send(b"?", wrong) for wrong in (0, first ^ 1, user_token(1), 2**32 - 1)] == [None] * 4
    assert drops(relay) == {"unknown_connection_id": 4}


def test_w35_w36_host_sees_neither_user_token_nor_address(host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    outgoing = client.send(GAME)
    assert outgoing is not None
    assert outgoing[1][:1] == b"\x02"
    assert outgoing[1][5:] == GAME
    assert outgoing[1][1:5] != client.tokens[:4]


def test_w36_clients_do_not_see_each_other(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    other = EdgegapPlayer(relay, 2)
    play(host, other)
    outgoing = client.send(struct.pack("<I", host.last_connection_id) + b"for the other")
    assert outgoing is not None
    assert outgoing[2] == host.addr


# -- item 5: sizes and payload bytes


@pytest.mark.parametrize("size", [0, 1, 5, 150, 1187])
def test_item_5_payloads_arrive_untouched_both_ways(host: EdgegapPlayer, client: EdgegapPlayer, size: int) -> None:
    payload = bytes(index * 7 & 0xFF for index in range(size))
    connection_id = play(host, client, payload)
    assert client.hears(host.send(payload, connection_id)) == payload


def test_item_5_1200_bytes_pass_and_more_do_not(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    connection_id = play(host, client, bytes(1200 - 9))
    assert client.hears(host.send(bytes(1200 - 13), connection_id)) == bytes(1187)
    assert client.send(bytes(1201 - 9)) is None
    assert host.send(bytes(1201 - 13), connection_id) is None
    assert drops(relay) == {"too_long": 2}


# -- item 6: large tokens


def test_item_6_tokens_above_2_31_work(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    assert user_token(1) > 2**31
    assert SESSION_TOKEN > 2**31
    assert client.ping() == VALID
    play(host, client)


# -- item 7: order of arrival


def test_item_7_client_before_host_gets_through_once_the_host_pinged(relay: Relay, client: EdgegapPlayer) -> None:
    host = EdgegapPlayer(relay, 0)
    assert client.send(HELLO) is None
    assert drops(relay) == {"peer_absent": 1}
    assert client.ping(NOW + 0.1) == VALID
    host.ping(NOW + 0.2)
    play(host, client, HELLO, NOW + 0.3)


def test_item_7_host_gone_silent_is_absent_and_comes_back(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    connection_id = play(host, client)
    client.ping(NOW + 9)
    relay.handle_timer(NOW + 10.5)
    assert client.send(GAME, now=NOW + 10.6) is None
    host.ping(NOW + 11)
    assert play(host, client, GAME, NOW + 11.1) == connection_id


# -- item 8: bad tokens


def test_item_8_w20_w21_unknown_tokens_hear_invalid_for_pings_and_nothing_for_data(relay: Relay) -> None:
    stranger = EdgegapPlayer(relay, 1)
    stranger.tokens = struct.pack("<II", user_token(1), SESSION_TOKEN ^ 1)
    assert stranger.ping() == INVALID
    assert stranger.send(b"data") is None
    assert drops(relay) == {"unknown_token": 1}


def test_item_8_wrong_port_role_hears_invalid(host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    client.port, host.port = SERVER_PORT, CLIENT_PORT
    assert client.ping() == INVALID
    assert host.ping() == INVALID
    assert client.send(b"posing as the host") is None


def test_item_8_revoked_and_deleted_hear_invalid(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    play(host, client)
    relay.apply_grant(grant_of(seats=4, revision=2, revoked={1}), NOW)
    assert client.ping() == INVALID
    assert host.ping() == VALID
    relay.end_session("3960c873aafd-S", "deleted", NOW)
    assert host.ping() == INVALID


def test_item_8_dialect_off_hears_invalid() -> None:
    assert EdgegapPlayer(relay_with(dialects=["native"]), 1).ping() == INVALID


def test_item_8_session_ended_as_idle_hears_session_timeout(relay: Relay, client: EdgegapPlayer) -> None:
    relay.handle_timer(NOW + 301)
    assert client.ping(NOW + 302) == SESSION_TIMEOUT
    relay.handle_timer(NOW + 3700)
    assert client.ping(NOW + 3700) == INVALID


def test_s1_a_player_that_missed_the_end_of_its_session_does_not_lock_its_address_out_of_the_next() -> None:
    late = EdgegapPlayer(relay_with(), 1)
    late.send(GAME)
    late.relay.end_session("3960c873aafd-S", "deleted", NOW)
    for _ in range(500):  # it takes the game a while to notice
        late.send(GAME, now=NOW + 1)
    late.relay.apply_grant(grant_of(session="aaaaaaaaaaaa-S", token=77), NOW + 1)
    player = restarted(late)
    player.tokens = struct.pack("<II", user_token(1), 77)
    assert player.ping(NOW + 1) == VALID
    assert drops(late.relay)["session_ended"] == 500


def test_item_8_w20_host_silent_beyond_the_owner_timeout_is_session_timeout_without_flapping(
    host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    states = [client.ping(NOW + second) for second in range(100)]
    assert states == [VALID] * 61 + [SESSION_TIMEOUT] * 39
    host.ping(NOW + 100)
    assert client.ping(NOW + 100) == VALID


def test_item_8_a_host_never_seen_is_no_timeout(client: EdgegapPlayer) -> None:
    assert {client.ping(NOW + second) for second in range(200)} == {VALID}


def test_item_8_guessing_is_limited_per_source_and_never_told_disconnected(relay: Relay) -> None:
    guesser = ("192.0.2.1", 1)
    states = []
    for guess in range(100):
        data = struct.pack("<IIB", guess + 1, SESSION_TOKEN, 1)
        states.append(relay.receive_datagram(data, guesser, CLIENT_PORT, NOW))
    assert states == [(CLIENT_PORT, b"\x01\x03", guesser)] * 20 + [None] * 80
    assert drops(relay) == {"source_rate_limited": 80}


def test_item_8_strangers_are_not_answered_in_a_flood_and_players_are() -> None:
    relay = relay_with(seats=4, config=RelayConfig(ping_flood_threshold=100))
    host = EdgegapPlayer(relay, 0)
    answers = []
    for stranger in range(300):
        ping = struct.pack("<IIB", stranger << 8 | 1, SESSION_TOKEN, 1)
        answers.append(relay.receive_datagram(ping, (f"192.0.2.{stranger % 250}", stranger), CLIENT_PORT, NOW))
    assert [answer is not None for answer in answers] == [True] * 100 + [False] * 200
    assert host.ping() == VALID
    assert drops(relay) == {"source_rate_limited": 200}


def test_item_8_a_source_that_guesses_cannot_take_a_seat_but_bound_seats_play_on(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    play(host, client)
    for _ in range(30):
        guess = struct.pack("<IIB", 1, SESSION_TOKEN, 2)
        relay.receive_datagram(guess, (client.addr[0], 1), CLIENT_PORT, NOW)
    newcomer = EdgegapPlayer(relay, 2, (client.addr[0], 2))
    assert newcomer.ping() is None
    assert newcomer.send(b"data") is None
    assert restarted(client).send(GAME, now=NOW + 1e-3) is None
    play(host, client)
    assert newcomer.ping(NOW + 2) == VALID


def test_item_8_junk_from_a_shared_or_forged_address_locks_nobody_out(relay: Relay) -> None:
    newcomer = EdgegapPlayer(relay, 1)
    for number in range(1000):
        junk = struct.pack("<IIB", user_token(1), 1 + number % 10, 2)
        relay.receive_datagram(junk, (newcomer.addr[0], 1), CLIENT_PORT, NOW)
    assert newcomer.ping() == VALID


def test_a_player_at_two_addresses_is_not_a_new_one_to_the_host_with_each_hello(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    play(host, client)
    events(relay)
    for turn in range(400):
        client.addr = ("192.0.2.9", 1 + turn // 4 % 2)
        client.send(HELLO, now=NOW + 0.1)
    assert [kind for _, kind, _ in events(relay)] == ["seat_moved", "seat_changed"]


def test_item_8_revoked_players_data_is_no_guessing(relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer) -> None:
    relay.apply_grant(grant_of(seats=4, revision=2, revoked={1}), NOW)
    for _ in range(100):
        assert client.send(GAME) is None
    assert EdgegapPlayer(relay, 2, (client.addr[0], 2)).ping() == VALID


# -- item 12: restart (the core's part)


def test_item_12_a_restarted_node_serves_the_same_session(
    relay: Relay, host: EdgegapPlayer, client: EdgegapPlayer
) -> None:
    play(host, client)
    state = relay.session_state("3960c873aafd-S")
    assert state is not None
    after = relay_with(seats=0, session="000000000000-S")
    after.restore_session(state, NOW + 1)
    host.relay = client.relay = after
    assert client.send(GAME, now=NOW + 1.1) is None
    assert host.ping(NOW + 1.2) == VALID
    play(host, client, GAME, NOW + 1.3)


# -- addresses


def test_w42_two_players_may_share_an_address_and_even_a_socket(relay: Relay, host: EdgegapPlayer) -> None:
    addr = ("198.51.100.50", 1000)
    one, two = EdgegapPlayer(relay, 1, addr), EdgegapPlayer(relay, 2, addr)
    assert play(host, one) != play(host, two)
    assert host.ping() == VALID


def test_w43_the_ip_a_player_registered_is_not_enforced(relay: Relay, host: EdgegapPlayer) -> None:
    for at, ip in enumerate(["198.51.100.1", "2001:db8::1", "::ffff:10.0.0.1"]):
        play(host, EdgegapPlayer(relay, 1, (ip, 1)), now=NOW + at)


# -- mixed sessions


def test_dialects_meet_in_one_session(relay: Relay, host: EdgegapPlayer) -> None:
    native = NativePlayer(relay, 3)
    native.connect()
    assert host.hears(native.send(b"from native")) == b"from native"
    heard = native.hears(host.send(b"from edgegap", host.last_connection_id))
    assert heard is not None
    assert heard[1:] == (0, b"from edgegap")


def test_a_native_player_that_reconnects_keeps_its_name_unless_its_game_is_new(
    relay: Relay, host: EdgegapPlayer
) -> None:
    native = NativePlayer(relay, 3)
    ids = []
    for payload in (HELLO, GAME, HELLO):
        native.connect()
        assert host.hears(native.send(payload)) == payload
        ids.append(host.last_connection_id)
    assert ids[0] == ids[1] != ids[2]


def test_a_native_connect_takes_over_from_edgegap_and_gives_back_when_closed(relay: Relay, host: EdgegapPlayer) -> None:
    client, native = EdgegapPlayer(relay, 1), NativePlayer(relay, 1)
    ids = [play(host, client)]
    native.connect()
    assert client.send(GAME) is None
    assert client.ping() is None
    assert drops(relay) == {"bound_to_native": 2}
    host.hears(native.send(GAME))
    ids.append(host.last_connection_id)
    native.send_raw(native.packet(0xC9, b"\0"))
    ids.append(play(host, client))
    assert all(before != after for before, after in pairwise(ids))
