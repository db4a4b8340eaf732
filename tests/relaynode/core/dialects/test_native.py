"""A player's connection in the native dialect, packet by packet (PROTOCOL.md 7 to 11)."""

from dataclasses import replace
from typing import Any

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.packets import EVERYONE, PATH_MOVES, Notice, NoticeCode, PacketType, Ping
from causeway_client.protocol.proofs import RoundTripProof, decode_proof, proof_key
from relaynode.core.path_quality import PING_INTERVAL
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Relay, RelayConfig
from tests.relaynode.players import (
    NOW,
    TOKEN_KEY,
    EdgegapPlayer,
    NativePlayer,
    connected,
    drops,
    events,
    grant_of,
    relay_with,
)


def elsewhere(player: NativePlayer) -> NativePlayer:
    """The same connection, now from another address."""
    moved = NativePlayer(player.relay, player.seat)
    vars(moved).update(vars(player) | {"addr": ("192.0.2.77", 7777)})
    return moved


# -- DATA


def test_data_arrives_with_its_source_seat(host: NativePlayer, player: NativePlayer) -> None:
    assert host.hears(player.send(b"up")) == (PacketType.DATA, 1, b"up")
    assert player.hears(host.send(b"down", 1)) == (PacketType.DATA, 0, b"down")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 1182])
def test_payload_is_untouched_and_overhead_the_same_both_ways(
    host: NativePlayer, player: NativePlayer, size: int
) -> None:
    payload = bytes(index * 5 & 0xFF for index in range(size))
    up = player.data(payload)
    outgoing = player.send_raw(up)
    assert outgoing is not None
    assert len(outgoing[1]) == len(up) == size + 18
    assert host.hears(outgoing) == (PacketType.DATA, 1, payload)


def test_either_port_serves_and_answers_leave_from_the_one_that_was_asked(relay: Relay) -> None:
    host, player = connected(relay, 0, CLIENT_PORT), connected(relay, 1, SERVER_PORT)
    assert host.hears(player.send(b"up")) is not None
    assert player.hears(host.send(b"down", 1)) is not None


def test_everyone_from_the_host_is_a_copy_for_each_in_its_own_dialect(relay: Relay, host: NativePlayer) -> None:
    native, edgegap = connected(relay, 1), EdgegapPlayer(relay, 2)
    edgegap.ping()
    shows_it_was_welcomed(native)
    relay.datagrams_to_send()
    assert host.send(b"world", EVERYONE) is None
    copies = relay.datagrams_to_send()
    assert len(copies) == 2
    assert native.hears(copies[0]) == (PacketType.DATA, 0, b"world")
    assert edgegap.hears(copies[1]) == b"world"
    assert relay.counters.forwarded_packets == 2


@pytest.mark.parametrize("limits", [{"packets": 7, "bytes": 0}, {"packets": 0, "bytes": 7 * 23}])
def test_each_copy_to_everyone_counts_against_the_sessions_limit(limits: dict[str, int]) -> None:
    relay = relay_with(seats=4)
    relay.apply_grant(grant_of(4, revision=2, session_limits=limits), NOW)
    host, *others = [connected(relay, seat) for seat in range(4)]
    for player in others:
        shows_it_was_welcomed(player)
    relay.datagrams_to_send()
    for _ in range(3):
        host.send(b"world", EVERYONE)
    copies = [data for _, data, _ in relay.datagrams_to_send() if data[0] == PacketType.DATA]
    assert len(copies) == 6, "two times three; the third time there is room for one more"
    assert drops(relay) == {"rate_limited": 1}
    assert host.send(b"alone", 1) is not None


def shows_it_was_welcomed(player: NativePlayer) -> None:
    player.send_raw(player.ping_packet())


def test_everyone_from_a_player_is_the_host(host: NativePlayer, player: NativePlayer) -> None:
    assert host.hears(player.send(b"up", EVERYONE)) == (PacketType.DATA, 1, b"up")


def test_everyone_when_alone_is_an_absent_peer(relay: Relay, host: NativePlayer) -> None:
    assert host.send(b"hello?", EVERYONE) is None
    assert drops(relay) == {"peer_absent": 1}


def test_in_a_mesh_anyone_reaches_anyone() -> None:
    relay = relay_with(seats=3, topology="mesh")
    players = [connected(relay, seat) for seat in range(3)]
    assert players[0].welcome is not None
    assert players[0].welcome.mesh
    assert players[2].hears(players[1].send(b"across", 2)) == (PacketType.DATA, 1, b"across")
    for player in players:
        shows_it_was_welcomed(player)
    relay.datagrams_to_send()
    assert players[1].send(b"all", EVERYONE) is None
    assert [copy[2] for copy in relay.datagrams_to_send()] == [players[0].addr, players[2].addr]


def test_an_edgegap_player_in_a_mesh_hears_its_host_only() -> None:
    relay = relay_with(seats=3, topology="mesh")
    peer, edgegap = connected(relay, 1), EdgegapPlayer(relay, 2)
    edgegap.ping()
    assert peer.send(b"it would take this for the host's", 2) is None
    assert drops(relay) == {"not_allowed": 1}


def test_a_payload_of_an_edgegap_player_may_grow_beyond_1200_bytes(relay: Relay, host: NativePlayer) -> None:
    outgoing = EdgegapPlayer(relay, 2).send(bytes(1191))
    assert outgoing is not None
    assert len(outgoing[1]) == 1209 <= packets.MAX_DATAGRAM
    assert host.hears(outgoing) == (PacketType.DATA, 2, bytes(1191))


# -- sequences


def test_packets_may_arrive_out_of_order_but_once(host: NativePlayer, player: NativePlayer) -> None:
    sent = [player.data(bytes((index,))) for index in range(10)]
    order = [9, 0, 5, 5, 9, 1, 0, 8]
    passed = [player.send_raw(sent[index]) is not None for index in order]
    assert passed == [True, True, True, False, False, True, False, True]


def test_a_packet_1024_behind_is_too_old(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    sent = [player.data(b"") for _ in range(1025)]
    assert player.send_raw(sent[1024]) is not None
    assert player.send_raw(sent[1]) is not None
    assert player.send_raw(sent[0]) is None
    assert drops(relay) == {"replayed": 1}


def test_sequences_go_on_beyond_32_bits(host: NativePlayer, player: NativePlayer) -> None:
    """Half the numbers are skipped twice, as a receiver takes the nearest number with the low bits it sees."""
    for jump in (2**31 - 10, 2**32 - 20, 2**32 + 1):
        player.sequence = jump
        assert host.hears(player.send(b"on")) == (PacketType.DATA, 1, b"on")


# -- PING


def test_a_ping_is_answered_by_a_pong_of_its_size(player: NativePlayer) -> None:
    ping = player.ping_packet(b"8 random")
    answer = player.send_raw(ping, NOW + 1)
    assert answer is not None
    assert len(answer[1]) == len(ping)
    kind, seat, body = player.read(answer[1])
    pong = packets.decode_ping(body)
    assert (kind, seat) == (PacketType.PONG, 0)
    assert (pong.nonce, pong.received) == (b"8 random", 1)


def measured_by(player: NativePlayer, now: float) -> Ping:
    """The node's own PING, which comes right behind its answer to the player's."""
    answer = player.send_raw(player.ping_packet(received=player.received.highest), now)
    assert answer is not None and player.read(answer[1])[0] == PacketType.PONG
    (ping,) = [body for kind, _, body in player.collects() if kind == PacketType.PING]
    return packets.decode_ping(ping)


def answer(player: NativePlayer, nonce: bytes, now: float) -> None:
    pong = player.pong_packet(nonce, player.received.highest)
    assert player.send_raw(pong, now) is None


def test_the_node_measures_the_round_trip_by_its_own_pings(relay: Relay, player: NativePlayer) -> None:
    assert relay.legs(10) == []
    for turn in range(50):
        now = NOW + 1 + turn * PING_INTERVAL
        answer(player, measured_by(player, now).nonce, now + 0.030)
    (leg,) = relay.legs(10)
    assert (leg.session, leg.seat, leg.dialect) == ("3960c873aafd-S", 1, "native")
    assert leg.rtt_ms == pytest.approx(30, abs=0.1)
    assert leg.jitter_ms < 0.5
    assert leg.loss < 0.05


def test_no_body_of_a_players_makes_it_seem_nearer_than_it_is(relay: Relay, player: NativePlayer) -> None:
    """It is 80 ms away. What it can choose is which bytes it sends, and when; not to have the nonce sooner."""
    now = NOW + 1
    nonce = measured_by(player, now).nonce
    for guess in (bytes(8), b"\xff" * 8, nonce[::-1], (int.from_bytes(nonce, "little") ^ 1).to_bytes(8, "little")):
        answer(player, guess, now + 0.001)
    assert relay.legs(10) == []
    answer(player, nonce, now + 0.080)
    for late in (nonce, bytes(8)):  # one answer for each PING
        answer(player, late, now + 0.0801)
    (leg,) = relay.legs(10)
    assert leg.rtt_ms == pytest.approx(80, abs=0.1)


def test_an_answer_from_elsewhere_measures_nothing(relay: Relay, player: NativePlayer) -> None:
    """A machine close to the node that the player handed its keys would answer for the player's address."""
    nonce = measured_by(player, NOW + 1).nonce
    answer(elsewhere(player), nonce, NOW + 1.002)
    assert relay.legs(10) == []


def test_an_answer_that_waited_for_the_next_ping_measures_nothing(relay: Relay, player: NativePlayer) -> None:
    nonce = measured_by(player, NOW + 1).nonce
    answer(player, nonce, NOW + 1 + PING_INTERVAL + 0.001)
    assert relay.legs(10) == []


def test_the_node_pings_no_more_often_than_its_interval(player: NativePlayer) -> None:
    pings = 0
    for tick in range(40):
        player.send_raw(player.ping_packet(), NOW + 1 + tick * 0.1)
        pings += sum(kind == PacketType.PING for kind, _, _ in player.collects())
    assert pings == 2


def test_a_player_that_reports_more_than_was_sent_hides_none_of_its_losses(relay: Relay, player: NativePlayer) -> None:
    """Half of what it sends is lost; it reports four billion packets received."""
    for turn in range(40):
        now = NOW + 1 + turn * PING_INTERVAL
        for _ in range(20):
            player.data(b"lost")
            player.send(b"arrives", now=now)
        nonce = measured_by(player, now).nonce
        player.send_raw(player.pong_packet(nonce, 0xFFFFFFFF), now + 0.03)
    (leg,) = relay.legs(10)
    assert leg.loss > 0.3


def test_legs_are_told_in_turn() -> None:
    relay = relay_with(seats=5)
    for seat in range(5):
        player = connected(relay, seat)
        answer(player, measured_by(player, NOW).nonce, NOW + 0.01)
    told = [[leg.seat for leg in relay.legs(2)] for _ in range(4)]
    assert told == [[0, 1], [2, 3], [4], [0, 1]]


def test_a_pong_is_taken_as_a_sign_of_life(relay: Relay, player: NativePlayer) -> None:
    assert player.send_raw(player.pong_packet(bytes(8)), NOW + 9) is None
    relay.handle_timer(NOW + 11)
    assert (1, "seat_left", "timeout") not in events(relay)


# -- SIGNAL, NOTICE, CLOSE


def test_signal_passes_between_any_two_seats(relay: Relay, player: NativePlayer) -> None:
    other = connected(relay, 2)
    outgoing = player.send_raw(player.packet(PacketType.SIGNAL, b"candidate", 2))
    assert other.hears(outgoing) == (PacketType.SIGNAL, 1, b"candidate")


def test_close_ends_the_connection_at_once(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    assert player.send_raw(player.packet(PacketType.CLOSE, b"\x80done")) is None
    assert events(relay) == [(1, "seat_left", "closed")]
    assert player.send(b"after") is None
    assert host.send(b"after", 1) is None
    assert drops(relay) == {"unknown_connection": 1, "peer_absent": 1}


def test_shutdown_is_told_to_native_players(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    relay.notify_shutdown(NOW)
    waiting = relay.datagrams_to_send()
    assert host.hears(waiting[0]) == (PacketType.NOTICE, 0, Notice(NoticeCode.DRAINING).encode())
    assert player.hears(waiting[1]) == (PacketType.NOTICE, 1, Notice(NoticeCode.DRAINING).encode())


# -- silence


def test_a_silent_player_times_out_and_its_old_keys_are_dead(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    host.send(b"still here", 1, NOW + 9.5)
    relay.handle_timer(NOW + 10.2)
    assert events(relay) == [(1, "seat_left", "timeout")]
    assert host.notices() == [(1, Notice(NoticeCode.LEFT, generation=player.generation + 1))]
    assert player.send(b"back", now=NOW + 11) is None
    player.connect(now=NOW + 11)
    assert events(relay) == [(1, "seat_joined", "")]


# -- a new address


def test_a_new_address_is_proved_before_traffic_moves_there(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    moved = elsewhere(player)
    assert host.hears(moved.send(b"from elsewhere", now=NOW + 1)) == (PacketType.DATA, 1, b"from elsewhere")
    kind, _, challenge = moved.collects()[0]
    assert kind == PacketType.PATH_CHALLENGE
    assert host.send(b"to the old one", 1, NOW + 1)[2] == player.addr  # type: ignore[index]
    assert moved.send_raw(moved.packet(PacketType.PATH_RESPONSE, challenge + PATH_MOVES), NOW + 1.1) is None
    assert host.send(b"to the new one", 1, NOW + 1.2)[2] == moved.addr  # type: ignore[index]
    assert events(relay) == [(1, "seat_moved", "")]
    (kind, seat, body) = moved.collects()[0]
    assert (kind, seat) == (PacketType.NOTICE, 1)
    assert packets.decode_notice(body) == Notice(NoticeCode.MOVED, address=moved.addr)


def test_a_challenge_comes_once_in_a_fifth_of_a_second_and_its_answer_may_be_late(
    relay: Relay, player: NativePlayer
) -> None:
    moved = elsewhere(player)
    challenges = []
    for tick in range(60):
        moved.send(b"12345678", now=NOW + 1 + tick / 60)
        challenges += moved.collects()
    assert len(challenges) == 5
    assert {kind for kind, _, _ in challenges} == {PacketType.PATH_CHALLENGE}
    moved.send_raw(moved.packet(PacketType.PATH_RESPONSE, challenges[0][2] + PATH_MOVES), NOW + 3)
    assert events(relay) == [(1, "seat_moved", "")]


def test_a_packet_shorter_than_a_challenge_is_not_answered_with_one(relay: Relay, player: NativePlayer) -> None:
    moved = elsewhere(player)
    moved.send(b"1234567", now=NOW + 1)
    assert relay.datagrams_to_send() == []
    moved.send(b"12345678", now=NOW + 1)
    assert [len(data) for _, data, _ in relay.datagrams_to_send()] == [26]


def test_an_answer_from_another_address_proves_nothing(relay: Relay, player: NativePlayer) -> None:
    moved = elsewhere(player)
    moved.send(b"12345678", now=NOW + 1)
    challenge = moved.collects()[0][2]
    response = moved.packet(PacketType.PATH_RESPONSE, challenge + PATH_MOVES)
    assert relay.receive_datagram(response, ("192.0.2.200", 1), CLIENT_PORT, NOW + 1) is None
    assert drops(relay) == {"malformed": 1}
    assert events(relay) == []


def test_racing_a_players_packets_does_not_turn_its_stream(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    """Copies from the path that arrive first pass as the player's, but bring their sender nothing but challenges."""
    for tick in range(20):
        at = NOW + 1 + tick * 0.1
        copy = player.data(b"12345678")
        assert relay.receive_datagram(copy, ("192.0.2.200", 1), CLIENT_PORT, at) is not None
        assert player.send_raw(copy, at) is None
        assert host.send(b"down", 1, at)[2] == player.addr  # type: ignore[index]
    assert events(relay) == []


def test_a_ping_from_a_new_address_is_answered_at_the_old_one(player: NativePlayer) -> None:
    moved = elsewhere(player)
    answer = moved.send_raw(moved.ping_packet(), NOW + 1)
    assert answer is not None
    assert answer[2] == player.addr


def test_moving_to_our_other_port_is_a_move_too(relay: Relay, player: NativePlayer) -> None:
    moved = elsewhere(player)
    moved.addr, moved.port = player.addr, SERVER_PORT
    moved.send(b"12345678", now=NOW + 1)
    challenge = moved.collects()[0][2]
    moved.send_raw(moved.packet(PacketType.PATH_RESPONSE, challenge + PATH_MOVES), NOW + 1)
    assert events(relay) == [(1, "seat_moved", "")]


def test_a_player_at_two_addresses_moves_once_a_second(relay: Relay, player: NativePlayer) -> None:
    """Each move is an event for the manager: nobody may make thousands of them."""
    places = (player.addr, elsewhere(player).addr)
    challenges = {}
    for turn in (1, 2):
        player.addr = places[turn % 2]
        player.send(b"12345678", now=NOW + turn)
        challenges[player.addr] = player.collects()[-1][2]
        player.send_raw(player.packet(PacketType.PATH_RESPONSE, challenges[player.addr] + PATH_MOVES), NOW + turn)
    assert events(relay) == [(1, "seat_moved", "")] * 2
    player.collects()
    for turn in range(100):
        player.addr = places[turn % 2]
        player.send_raw(player.packet(PacketType.PATH_RESPONSE, challenges[player.addr] + PATH_MOVES), NOW + 3)
    assert events(relay) == [(1, "seat_moved", "")]
    assert drops(relay) == {"rate_limited": 49}


# -- connection ids


def test_a_freed_connection_id_is_not_used_again_soon(relay: Relay, host: NativePlayer) -> None:
    player = NativePlayer(relay, 1)
    indexes = [player.connect(now=NOW + second).connection & 0xFFFFF for second in range(20)]
    assert len(set(indexes)) == 20


# -- PROBE


@pytest.mark.parametrize("size", [64, 65, 1200])
def test_a_probe_is_answered_with_as_many_bytes(relay: Relay, size: int) -> None:
    nonce = bytes(range(16))
    addr = ("192.0.2.5", 5)
    answer = relay.receive_datagram(packets.Probe(nonce, size).encode(), addr, SERVER_PORT, NOW)
    assert answer is not None
    assert (answer[0], answer[2], len(answer[1])) == (SERVER_PORT, addr, size)
    reply = packets.decode_probe_reply(answer[1])
    assert (reply.nonce, reply.time, reply.size, reply.round_trip) == (nonce, int(NOW * 1e6), size, 0)


def probed(relay: Relay, probe: packets.Probe, now: float, ip: str = "192.0.2.5") -> packets.ProbeReply:
    answer = relay.receive_datagram(probe.encode(), (ip, 5), CLIENT_PORT, now)
    assert answer is not None
    return packets.decode_probe_reply(answer[1])


def test_a_reply_answered_at_once_gets_the_round_trip_signed(relay: Relay) -> None:
    first = probed(relay, packets.Probe(bytes(16)), NOW)
    second = probed(relay, packets.Probe(bytes(16), time=first.time, proof=first.proof), NOW + 0.025)
    assert second.round_trip == pytest.approx(25_000, abs=2)
    assert packets.unpack_ip(second.address) == "192.0.2.5"
    proof = RoundTripProof(second.nonce, second.time, second.round_trip, second.key_id, second.address, second.proof)
    assert proof.is_signed_by(proof_key(TOKEN_KEY))
    assert decode_proof(proof.encode()) == proof


@pytest.mark.parametrize(
    ("changes", "ip", "later"),
    [
        ({"proof": bytes(8)}, "192.0.2.5", 0.025),
        ({"nonce": bytes(15) + b"x"}, "192.0.2.5", 0.025),
        ({"time": int(NOW * 1e6) + 20_000}, "192.0.2.5", 0.025),  # to seem nearer
        ({}, "192.0.2.6", 0.025),  # somebody else's
        ({}, "192.0.2.5", 11.0),  # long ago
        ({}, "192.0.2.5", -0.01),  # a clock that went back
    ],
)
def test_what_was_not_measured_is_not_signed(relay: Relay, changes: dict[str, Any], ip: str, later: float) -> None:
    first = probed(relay, packets.Probe(bytes(16)), NOW)
    shown = replace(packets.Probe(bytes(16), time=first.time, proof=first.proof), **changes)
    assert probed(relay, shown, NOW + later, ip).round_trip == 0


def test_a_source_that_probes_more_than_is_answered_is_refused_and_then_ignored() -> None:
    """Each in its turn: an answer, a refusal that says so, nothing."""
    relay = relay_with(config=RelayConfig(probes_per_source=5))
    probe = packets.Probe(bytes(range(16))).encode()
    answers = [relay.receive_datagram(probe, ("192.0.2.5", port), CLIENT_PORT, NOW) for port in range(27)]
    kinds = [answer[1][0] if answer else None for answer in answers]
    assert kinds == [PacketType.PROBE_REPLY] * 5 + [PacketType.PROBE_REFUSED] * 20 + [None] * 2
    refused = packets.decode_probe_refused(answers[5][1])  # type: ignore[index]
    assert (refused.nonce, refused.wait) == (bytes(range(16)), 1000)
    assert relay.receive_datagram(probe, ("192.0.2.6", 5), CLIENT_PORT, NOW)[1][0] == PacketType.PROBE_REPLY  # type: ignore[index]
    assert drops(relay) == {"source_rate_limited": 2}


def test_a_node_without_keys_signs_nothing(relay: Relay) -> None:
    relay.set_token_keys({})
    assert not any(probed(relay, packets.Probe(bytes(16)), NOW).proof)
