"""CONNECT: each check of PROTOCOL.md 6.1, in its order, and what a player hears when it fails."""

import os
import struct

import pytest

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.errors import Refusal
from relaynode.core.admission import CookieJar
from relaynode.core.relay import CLIENT_PORT, Outgoing, Relay, RelayConfig
from tests.relaynode.players import NOW, SESSION, EdgegapPlayer, NativePlayer, drops, events, grant_of, relay_with


@pytest.fixture
def relay() -> Relay:
    return relay_with(seats=3)


@pytest.fixture
def player(relay: Relay) -> NativePlayer:
    return NativePlayer(relay, 1)


def refusal(outgoing: Outgoing | None) -> handshake.Refused:
    assert outgoing is not None
    return handshake.decode_refused(outgoing[1])


def ask(player: NativePlayer, now: float = NOW, **token_changes: object) -> handshake.Refused:
    connect = player.connect_packet(player.token(**token_changes))  # type: ignore[arg-type]
    refused = refusal(player.send_raw(connect.encode(player.seat_key), now))
    assert refused.player_nonce == connect.nonce
    return refused


# -- accepted


def test_welcome_says_all_a_player_must_know(relay: Relay, player: NativePlayer) -> None:
    EdgegapPlayer(relay, 0).ping()
    player.addr = ("::ffff:192.0.2.44", 4444, 0, 0)  # type: ignore[assignment]
    connect = player.connect_packet()
    welcome = player.connect(connect)
    assert welcome.player_nonce == connect.nonce
    assert (welcome.seat, welcome.mesh, welcome.roster) == (1, False, {0, 1})
    assert (welcome.ip, welcome.port) == ("192.0.2.44", 4444)
    assert (welcome.keep_alive_ms, welcome.timeout_ms, welcome.max_payload) == (1000, 10_000, 1182)
    assert events(relay)[-1] == (1, "seat_joined", "")


def test_welcome_tells_the_limits_of_the_grant_not_of_the_token() -> None:
    relay = relay_with(limits={"packets": 70, "bytes": 9000})
    welcome = NativePlayer(relay, 1).connect()
    assert (welcome.packets_per_second, welcome.bytes_per_second) == (70, 9000)


def test_bytes_after_the_mac_are_ignored(player: NativePlayer) -> None:
    data = player.connect_packet().encode(player.seat_key) + b"of a later version"
    assert player.send_raw(data)[1][0] == packets.PacketType.WELCOME  # type: ignore[index]


def test_a_repeated_connect_is_welcomed_again_and_changes_nothing(relay: Relay, player: NativePlayer) -> None:
    data = player.connect_packet().encode(player.seat_key)
    first = player.send_raw(data)
    events(relay)
    assert player.send_raw(data, NOW + 0.25) == first
    assert events(relay) == []
    assert relay.stats()["connected"] == 1


def test_a_new_connect_replaces_the_connection(relay: Relay, player: NativePlayer) -> None:
    NativePlayer(relay, 0).connect()
    player.connect()
    old = player.data(b"old keys")
    player.connect()
    events(relay)
    assert player.send_raw(old) is None
    assert drops(relay) == {"unknown_connection": 1}
    assert player.send(b"new keys") is not None
    assert relay.stats()["connected"] == 2


def test_a_reconnect_is_an_event_for_the_node_alone(relay: Relay, player: NativePlayer) -> None:
    host = NativePlayer(relay, 0)
    host.connect()
    host.shows_that_it_reads()
    events(relay)
    player.connect()
    player.connect()
    assert events(relay) == [(1, "seat_joined", ""), (1, "seat_changed", "")]
    assert [body[0] for _, _, body in host.collects()] == [packets.NoticeCode.JOINED]


def test_a_seat_that_joins_and_leaves_is_let_in_once_a_second(relay: Relay, player: NativePlayer) -> None:
    """34 times a second for 20 s, with a token of its own and a cookie where one is asked for."""
    joined = 0
    for tick in range(20 * 34):
        now = NOW + tick / 34
        player.addr = (f"203.0.113.{tick % 200}", 5000)  # a limit per source would not see it
        welcome = player.send_raw(player.connect_packet().encode(player.seat_key), now)
        if welcome is None:
            continue
        joined += 1
        player.welcome = handshake.decode_welcome(welcome[1], player.seat_key)
        player.sequence = 0
        keys = player.seat_key, player.welcome.player_nonce, player.welcome.node_nonce
        player.up_key, player.down_key = packets.packet_keys(*keys)
        player.send_raw(player.packet(packets.PacketType.CLOSE, packets.Close(0).encode()), now)
    assert 20 <= joined <= 31
    assert drops(relay)["seat_rate_limited"] == 20 * 34 - joined
    assert len(events(relay)) == 2 * joined


def test_a_connect_that_was_over_the_seats_limit_is_let_in_when_it_is_repeated(
    relay: Relay, player: NativePlayer
) -> None:
    for _ in range(10):
        player.connect()
    data = player.connect_packet().encode(player.seat_key)
    assert player.send_raw(data) is None
    assert player.send_raw(data, NOW + 1.01)[1][0] == packets.PacketType.WELCOME  # type: ignore[index]


def test_a_session_this_node_was_never_told_of_is_admitted_by_its_token() -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    host, player = NativePlayer(relay, 0), NativePlayer(relay, 1)
    host.connect()
    terms = {"seat_packets": 100, "seat_bytes": 5000, "session_packets": 1000, "session_bytes": 60_000}
    welcome = player.connect(player.connect_packet(player.token(**terms)))
    assert (welcome.packets_per_second, welcome.bytes_per_second) == (100, 5000)
    assert host.hears(player.send(b"up")) is not None
    assert [(it.session, it.revision) for it in relay.sessions()] == [(SESSION, 0)]
    assert EdgegapPlayer(relay, 1).ping() == 3


def test_a_grant_takes_over_a_session_admitted_by_token() -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    player = NativePlayer(relay, 1)
    player.connect()
    newer = NativePlayer(relay, 9)
    newer.connect()
    assert relay.apply_grant(grant_of(seats=2), NOW) == 1
    host = EdgegapPlayer(relay, 0)
    host.ping()
    assert host.hears(player.send(b"still connected")) == b"still connected"
    assert host.hears(newer.send(b"newer than the grant")) == b"newer than the grant"


# -- refused, in the order of the checks


def test_1_shorter_than_60_bytes_is_dropped(relay: Relay, player: NativePlayer) -> None:
    assert player.send_raw(player.connect_packet().encode(player.seat_key)[:59]) is None
    assert drops(relay) == {"too_short": 1}


def test_2_another_version_hears_the_highest_one_spoken(player: NativePlayer) -> None:
    data = bytearray(player.connect_packet().encode(player.seat_key))
    data[1] = 2
    refused = refusal(player.send_raw(bytes(data)))
    assert (refused.code, refused.version, refused.player_nonce) == (Refusal.UNSUPPORTED_VERSION, 1, data[10:26])


@pytest.mark.parametrize("length", [121, 65535])
def test_3_a_token_that_does_not_fit_is_dropped(relay: Relay, player: NativePlayer, length: int) -> None:
    data = bytearray(player.connect_packet().encode(player.seat_key))
    data[42:44] = struct.pack("<H", length)
    assert player.send_raw(bytes(data)) is None
    assert drops(relay) == {"malformed": 1}


def test_5_an_unknown_key_is_the_wrong_node(player: NativePlayer) -> None:
    assert ask(player, key_id=99).code == Refusal.WRONG_NODE


def test_6_a_broken_seal_is_a_bad_token(player: NativePlayer) -> None:
    assert ask(player, key=bytes(32)).code == Refusal.BAD_TOKEN
    token = bytearray(player.token())
    token[60] ^= 1
    for broken in (bytes(token), player.token()[:-1], b""):
        connect = player.connect_packet()
        data = handshake.Connect(connect.timestamp, connect.nonce, broken).encode(player.seat_key)
        assert refusal(player.send_raw(data)).code == Refusal.BAD_TOKEN


def test_6_seat_255_is_nobodys(player: NativePlayer) -> None:
    assert ask(player, seat=255).code == Refusal.BAD_TOKEN


def test_7_an_expired_token(player: NativePlayer) -> None:
    assert ask(player, expires=int(NOW)).code == Refusal.TOKEN_EXPIRED
    player.connect(player.connect_packet(player.token(expires=int(NOW) + 1)))


def test_8_a_mac_under_another_key(player: NativePlayer) -> None:
    data = player.connect_packet().encode(b"\xff" * 32)
    assert refusal(player.send_raw(data)).code == Refusal.BAD_MAC


def test_9_another_worker(player: NativePlayer) -> None:
    assert ask(player, worker=1).code == Refusal.WRONG_WORKER


def test_10_an_ended_session(relay: Relay, player: NativePlayer) -> None:
    relay.end_session(SESSION, "deleted", NOW)
    assert ask(player).code == Refusal.SESSION_ENDED


def test_10_a_session_whose_time_is_up(player: NativePlayer) -> None:
    assert ask(player, session="00000000000a-S", session_expires=int(NOW)).code == Refusal.SESSION_ENDED


def test_10_a_revoked_seat(relay: Relay, player: NativePlayer) -> None:
    relay.apply_grant(grant_of(revision=2, revoked={1}), NOW)
    assert ask(player).code == Refusal.SEAT_REVOKED


def test_10_a_seat_that_a_later_grant_leaves_out_is_revoked(relay: Relay, player: NativePlayer) -> None:
    relay.apply_grant(grant_of(seats=1, revision=2), NOW)
    assert ask(player).code == Refusal.SEAT_REVOKED


def test_11_a_session_without_this_dialect() -> None:
    assert ask(NativePlayer(relay_with(dialects=["edgegap"]), 1)).code == Refusal.DIALECT_OFF


def test_12_an_older_timestamp_is_told_the_last_one(player: NativePlayer) -> None:
    player.connect()
    last = player.timestamp
    player.timestamp -= 1000
    refused = ask(player)
    assert (refused.code, refused.detail) == (Refusal.STALE_TIMESTAMP, last)
    player.timestamp = refused.detail
    player.connect()


def test_12_the_same_timestamp_with_another_nonce_is_stale(player: NativePlayer) -> None:
    player.connect()
    player.timestamp -= 1
    assert ask(player).code == Refusal.STALE_TIMESTAMP


def test_12_the_same_connect_after_the_connection_ended_is_stale(relay: Relay, player: NativePlayer) -> None:
    connect = player.connect_packet()
    player.connect(connect)
    relay.handle_timer(NOW + 11)
    refused = refusal(player.send_raw(connect.encode(player.seat_key), NOW + 12))
    assert (refused.code, refused.detail) == (Refusal.STALE_TIMESTAMP, connect.timestamp)


def test_13_no_room(player: NativePlayer) -> None:
    for config in (RelayConfig(max_sessions=1), RelayConfig(max_seats=3)):
        other = NativePlayer(relay_with(seats=3, config=config), 1)
        assert ask(other, session="00000000000a-S").code == Refusal.FULL
        other.connect()


def test_13_draining_refuses_new_sessions_only(relay: Relay, player: NativePlayer) -> None:
    relay.set_draining(True, NOW)
    assert ask(player, session="00000000000a-S").code == Refusal.DRAINING
    player.connect()
    NativePlayer(relay, 7).connect()
    relay.set_draining(False, NOW)
    NativePlayer(relay, 1).connect(player.connect_packet(player.token(session="00000000000a-S")))


def test_answers_are_shorter_than_what_asked_for_them(relay: Relay, player: NativePlayer) -> None:
    data = player.connect_packet().encode(player.seat_key)
    answer = player.send_raw(data)
    assert answer is not None
    assert (len(data), len(answer[1])) == (180, 138)
    assert relay.datagrams_to_send() == []


# -- floods


def flooded(per_second: int = 10) -> Relay:
    relay = relay_with(seats=3, config=RelayConfig(connect_flood_threshold=per_second))
    for index in range(per_second + 1):
        relay.receive_datagram(b"\xc0\x01" + bytes(176), (f"192.0.2.{index}", 1), CLIENT_PORT, NOW)
    return relay


def test_4_a_flooded_node_answers_with_a_cookie_and_keeps_nothing() -> None:
    relay = flooded()
    player = NativePlayer(relay, 1)
    connect = player.connect_packet()
    answer = player.send_raw(connect.encode(player.seat_key))
    assert answer is not None
    cookie = handshake.decode_cookie(answer[1])
    assert cookie.player_nonce == connect.nonce
    assert relay.stats()["connected"] == 0
    player.connect(handshake.Connect(connect.timestamp, connect.nonce, connect.token, cookie.cookie))


def test_4_a_cookie_is_good_for_its_address_only() -> None:
    relay = flooded()
    player = NativePlayer(relay, 1)
    connect = player.connect_packet()
    cookie = handshake.decode_cookie(player.send_raw(connect.encode(player.seat_key))[1])  # type: ignore[index]
    player.addr = (player.addr[0], player.addr[1] + 1)
    again = handshake.Connect(connect.timestamp, connect.nonce, connect.token, cookie.cookie)
    answer = player.send_raw(again.encode(player.seat_key))
    assert answer is not None
    assert answer[1][0] == packets.PacketType.COOKIE


def test_4_the_flood_is_over_two_seconds_later() -> None:
    NativePlayer(flooded(), 1).connect(now=NOW + 2)


def test_4_one_source_that_asks_often_needs_a_cookie_and_others_do_not(relay: Relay, player: NativePlayer) -> None:
    limit = RelayConfig().connects_per_source
    kinds = [player.send_raw(b"\xc0\x01" + bytes(176))[1][0] for _ in range(limit + 1)]  # type: ignore[index]
    assert kinds == [packets.PacketType.REFUSED] * limit + [packets.PacketType.COOKIE]
    NativePlayer(relay, 2).connect()


STRANGERS = {
    "cookie": b"\xc0\x01" + bytes(176),
    "refused": b"\xc0\x02" + bytes(176),
    "probe_reply": packets.Probe(bytes(16)).encode(),
    "stun": b"\0\1\0\0" + packets.STUN_COOKIE + bytes(12),
}


@pytest.mark.parametrize("answer", STRANGERS)
def test_strangers_are_answered_so_often_in_all(answer: str) -> None:
    """From a source each: a spoofed flood must not keep the relay from what it is there for."""
    relay = relay_with(seats=1, config=RelayConfig(connect_flood_threshold=1, unauthenticated_replies=100))
    relay.receive_datagram(STRANGERS["cookie"], ("192.0.2.9", 1), CLIENT_PORT, NOW)  # 1 a second is no flood
    for index in range(200):
        relay.receive_datagram(STRANGERS[answer], (f"198.51.100.{index}", 1), CLIENT_PORT, NOW)
    assert relay.counters.answers[answer] == 6 + (answer == "refused")
    assert drops(relay) == {"source_rate_limited": 194}


def guess(player: NativePlayer, times: int) -> list[int | None]:
    """CONNECTs that open nothing, with the cookie once there is one; the types of what is answered."""
    data, kinds = b"\xc0\x01" + bytes(176), []
    for _ in range(times):
        answer = player.send_raw(data)
        kinds.append(answer[1][0] if answer else None)
        if answer and answer[1][0] == packets.PacketType.COOKIE:
            data = b"\xc0\x01" + bytes(24) + handshake.decode_cookie(answer[1]).cookie + bytes(136)
    return kinds


def test_4_a_port_that_goes_on_guessing_is_answered_no_more(relay: Relay, player: NativePlayer) -> None:
    kinds = guess(player, 30)
    assert kinds == [packets.PacketType.REFUSED] * 20 + [packets.PacketType.COOKIE] + [None] * 9
    assert drops(relay) == {"source_rate_limited": 9}


def with_cookie(player: NativePlayer, connect: handshake.Connect, now: float = NOW) -> int | None:
    """The type of the last answer to a CONNECT of a player who brings the cookie it is asked for."""
    answer = player.send_raw(connect.encode(player.seat_key), now)
    if answer and answer[1][0] == packets.PacketType.COOKIE:
        cookie = handshake.decode_cookie(answer[1]).cookie
        again = handshake.Connect(connect.timestamp, connect.nonce, connect.token, cookie)
        answer = player.send_raw(again.encode(player.seat_key), now)
    return answer[1][0] if answer else None


def test_4_guessing_keeps_no_player_of_the_same_address_out(relay: Relay, player: NativePlayer) -> None:
    guess(player, 30)
    neighbour = NativePlayer(relay, 2, (player.addr[0], 6000))
    assert with_cookie(neighbour, neighbour.connect_packet()) == packets.PacketType.WELCOME


def test_4_a_source_that_guesses_from_many_ports_is_limited_as_a_whole() -> None:
    relay = relay_with(config=RelayConfig(refused_connects_per_source=100))
    read = 0
    for port in range(60):
        read += guess(NativePlayer(relay, 1, ("203.0.113.2", 6000 + port)), 25).count(packets.PacketType.REFUSED)
    assert read == 100


def test_two_thousand_players_of_one_address_connect_in_one_second() -> None:
    """After a restart of the node, or at a LAN event. A token that is right counts against no limit of its source."""
    relay = relay_with(seats=250)
    for seat in range(250):
        for port in range(8):  # each seat eight times: the limit of a seat is another
            player = NativePlayer(relay, seat, ("203.0.113.2", 6000 + 8 * seat + port))
            player.timestamp += port
            now = NOW + (8 * seat + port) / 2000
            assert with_cookie(player, player.connect_packet(), now) == packets.PacketType.WELCOME
    assert drops(relay) == {}


def test_cookies_live_for_one_to_two_lifetimes() -> None:
    jar = CookieJar(os.urandom)
    addr = ("192.0.2.1", 1)
    cookie = jar.bake(addr, NOW)
    assert jar.is_right(cookie, addr, NOW + 119)
    assert jar.is_right(cookie, addr, NOW + 239)
    assert not jar.is_right(cookie, addr, NOW + 359)
    assert not CookieJar(os.urandom).is_right(cookie, addr, NOW)


def test_cookies_are_forgotten_after_a_long_silence() -> None:
    jar = CookieJar(os.urandom)
    cookie = jar.bake(("192.0.2.1", 1), NOW)
    assert not jar.is_right(cookie, ("192.0.2.1", 1), NOW + 1000)
