"""The client machine alone: bytes in, bytes out, against a node's end made from the codec. With a real Relay, over
a bad network: test_connection_over_simnet.py."""

import random

import pytest

from causeway_client.protocol import events, handshake, packets
from causeway_client.protocol.connection import TRANSITIONS, RelayConnection, State
from causeway_client.protocol.errors import (
    ADVICE,
    ClosedByNode,
    ConnectionClosed,
    ConnectRefused,
    ConnectTimeout,
    InvalidTarget,
    PayloadTooLarge,
    Refusal,
    SeatRevoked,
    SessionEnded,
)
from causeway_client.protocol.packets import EVERYONE, NoticeCode, PacketType
from causeway_client.protocol.replay_window import ReplayWindow

NODE = ("198.51.100.1", 31001)
SEAT_KEY = bytes(range(32))
TOKEN = b"t" * 120


class NodeEnd:
    """The other end of one connection."""

    def __init__(self, connect: bytes, **changes):
        self.window = ReplayWindow()
        self.sequence = 0
        self.received = 0
        fields = {
            "player_nonce": handshake.decode_connect(connect).nonce,
            "node_nonce": b"n" * 16,
            "connection": 0xABCD0001,
            "seat": 2,
            "mesh": False,
            "ip": "203.0.113.9",
            "port": 4000,
            "keep_alive_ms": 1000,
            "timeout_ms": 10_000,
            "packets_per_second": 100,
            "bytes_per_second": 0,
            "max_payload": packets.MAX_PAYLOAD_BESIDE_EDGEGAP,
            "roster": frozenset({0, 2}),
        }
        self.welcome = handshake.Welcome(**(fields | changes))
        self.up, self.down = packets.packet_keys(SEAT_KEY, self.welcome.player_nonce, self.welcome.node_nonce)

    def seal(self, kind, seat=0, body=b""):
        self.sequence += 1
        return packets.seal(self.down, kind, self.welcome.connection, self.sequence, seat, body)

    def open(self, data):
        """(type, seat, body) of a packet whose tag and sequence are right."""
        kind, connection, low, seat = packets.HEADER.unpack_from(data)
        sequence = self.window.complete(low)
        assert connection == self.welcome.connection
        assert self.window.is_new(sequence) and packets.is_tag_valid(self.up, data, sequence)
        self.window.mark(sequence)
        self.received += 1
        return kind, seat, data[packets.HEADER.size : -packets.TAG_SIZE]

    def pong(self, ping_body):
        ping = packets.decode_ping(ping_body)
        return self.seal(PacketType.PONG, 0, packets.Ping(ping.nonce, self.received, ping.generation).encode())


class Player:
    """A machine and its adapter, by hand."""

    def __init__(self, **options):
        self.machine = RelayConnection(
            NODE,
            connect_token=TOKEN,
            seat_key=SEAT_KEY,
            wall_clock=lambda: 1_795_257_600_000_000,
            random=random.Random(3).randbytes,
            **options,
        )
        self.node: NodeEnd

    def sent(self, now=0.0):
        return [data for data, address in self.machine.datagrams_to_send(now) if address == NODE]

    def events(self):
        found = []
        while (event := self.machine.next_event()) is not None:
            found.append(event)
        return found

    def receive(self, data, now=0.0):
        return self.machine.receive_datagram(data, NODE, now)

    def join(self, now=0.0, **changes):
        """Connected, with the first PING and all events taken away."""
        if self.machine.state is State.IDLE:
            self.machine.connect(now)
        (connect,) = self.sent(now)
        self.node = NodeEnd(connect, **changes)
        self.receive(self.node.welcome.encode(SEAT_KEY), now)
        self.events()
        (ping,) = self.sent(now)
        assert self.node.open(ping)[0] == PacketType.PING
        return self


@pytest.fixture
def player():
    return Player()


@pytest.fixture
def joined(player):
    return player.join()


# -- connecting ------------------------------------------------------------------------------------


def test_a_welcome_connects_and_its_contents_are_reported(player):
    player.machine.connect(0.0)
    (connect,) = player.sent()
    player.receive(NodeEnd(connect).welcome.encode(SEAT_KEY), 0.03)
    assert player.machine.state is State.RELAYED
    assert player.events() == [
        events.ConnectStarted(),
        events.Welcomed(
            seat=2,
            mesh=False,
            address=("203.0.113.9", 4000),
            peers=frozenset({0}),
            max_payload=1182,
            packets_per_second=100,
            bytes_per_second=0,
        ),
    ]


def test_a_second_connect_is_an_error(joined):
    with pytest.raises(KeyError):
        joined.machine.connect(1.0)


@pytest.mark.parametrize(("token", "key"), [(b"", SEAT_KEY), (b"t" * 1200, SEAT_KEY), (TOKEN, b"short")])
def test_what_cannot_be_credentials_is_refused_without_showing_it(token, key):
    with pytest.raises(ValueError, match="32 bytes") as caught:
        RelayConnection(NODE, connect_token=token, seat_key=key, wall_clock=lambda: 0, random=bytes)
    assert "short" not in str(caught.value)


def test_silence_ends_in_a_typed_failure_at_the_deadline():
    player = Player(connect_timeout=5.0)
    player.machine.connect(0.0)
    while (now := player.machine.next_timer()) is not None:
        assert now <= 5.0
        player.machine.handle_timer(now)
    closed = player.events()[-1]
    assert isinstance(closed.error, ConnectTimeout)
    assert player.machine.state is State.CLOSED


@pytest.mark.parametrize("code", [code for code in Refusal if code is not Refusal.STALE_TIMESTAMP])
def test_each_refusal_is_a_typed_error_at_once(player, code):
    player.machine.connect(0.0)
    nonce = handshake.decode_connect(player.sent()[0]).nonce
    player.receive(handshake.Refused(nonce, code).encode(), 0.01)
    error = player.events()[-1].error
    expected = {Refusal.SESSION_ENDED: SessionEnded, Refusal.SEAT_REVOKED: SeatRevoked}.get(code, ConnectRefused)
    assert type(error) is expected
    assert (error.code, error.advice) == (code.name.lower(), ADVICE[code])
    assert player.machine.next_timer() is None


def test_a_refusal_this_version_does_not_know_is_named_by_its_number(player):
    player.machine.connect(0.0)
    nonce = handshake.decode_connect(player.sent()[0]).nonce
    player.receive(handshake.Refused(nonce, 77).encode(), 0.01)
    assert player.events()[-1].error.code == "code_77"


def test_a_stale_timestamp_is_overtaken(player):
    player.machine.connect(0.0)
    nonce = handshake.decode_connect(player.sent()[0]).nonce
    later = 2_000_000_000_000_000
    player.receive(handshake.Refused(nonce, Refusal.STALE_TIMESTAMP, later).encode(), 0.01)
    assert handshake.decode_connect(player.sent()[0]).timestamp == later + 1
    assert player.machine.state is State.JOINING


def test_a_forged_welcome_is_dropped(player):
    player.machine.connect(0.0)
    (connect,) = player.sent()
    player.receive(NodeEnd(connect).welcome.encode(b"another key of thirty-two bytes!"))
    assert player.machine.state is State.JOINING
    assert player.machine.dropped["bad_mac"] == 1


def test_a_recorded_welcome_is_dropped(player):
    player.machine.connect(0.0)
    (connect,) = player.sent()
    welcome = NodeEnd(connect, player_nonce=b"o" * 16).welcome.encode(SEAT_KEY)
    player.receive(welcome)
    assert player.machine.dropped["unknown_nonce"] == 1


def test_a_duplicated_welcome_changes_nothing(joined):
    joined.receive(joined.node.welcome.encode(SEAT_KEY), 1.0)
    assert joined.events() == []
    assert joined.machine.dropped["unknown_nonce"] == 1


# -- data ------------------------------------------------------------------------------------------


def test_a_payload_is_returned_with_its_source(joined):
    assert joined.receive(joined.node.seal(PacketType.DATA, 0, b"state")) == (0, b"state")
    assert joined.machine.stats().received == 1


def test_sent_data_opens_at_the_node(joined):
    assert joined.machine.send(0, b"input", 1.0)
    assert joined.node.open(joined.sent()[0]) == (PacketType.DATA, 0, b"input")


def test_a_replayed_packet_is_dropped(joined):
    data = joined.node.seal(PacketType.DATA, 0, b"once")
    assert joined.receive(data) is not None
    assert joined.receive(data) is None
    assert joined.machine.dropped["replayed"] == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too_short"),
        (b"\xc4" * 17, "too_short"),
        (b"\xc4" * 40, "unknown_connection"),
        (b"\xc4" * 1233, "too_long"),
        (b"\x01\x02", "unknown_type"),
        (b"\xcb" + bytes(40), "unknown_type"),
        (b"\xce" + bytes(40), "unknown_type"),
    ],
)
def test_a_bad_packet_is_counted_by_its_reason(joined, data, reason):
    assert joined.receive(data) is None
    assert joined.machine.dropped == {reason: 1}
    assert joined.events() == [] and joined.sent() == []


def test_a_changed_byte_anywhere_is_a_drop(joined):
    data = joined.node.seal(PacketType.DATA, 0, b"state")
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1
        assert joined.receive(bytes(changed)) is None
    assert joined.receive(data) == (0, b"state")


def test_a_packet_from_another_address_is_dropped(joined):
    data = joined.node.seal(PacketType.DATA, 0, b"state")
    assert joined.machine.receive_datagram(data, ("192.0.2.66", 31001), 0.0) is None
    assert joined.machine.dropped["wrong_address"] == 1


def test_a_payload_too_large_is_refused(joined):
    joined.machine.send(0, bytes(1182), 0.0)
    with pytest.raises(PayloadTooLarge):
        joined.machine.send(0, bytes(1183), 0.0)


@pytest.mark.parametrize("target", [-1, 256, 1])
def test_a_target_that_cannot_be_reached_is_refused(joined, target):
    with pytest.raises(InvalidTarget):
        joined.machine.send(target, b"x", 0.0)


@pytest.mark.parametrize("changes", [{"mesh": True}, {"seat": 0}])
def test_in_a_mesh_and_as_the_host_every_seat_can_be_reached(player, changes):
    player.join(**changes)
    assert player.machine.send(7, b"x", 0.0)
    assert player.machine.send(EVERYONE, b"x", 0.0)


def test_signals_reach_any_seat_but_not_everyone(joined):
    assert joined.machine.signal(7, b"candidate", 0.0)
    assert joined.node.open(joined.sent()[0]) == (PacketType.SIGNAL, 7, b"candidate")
    with pytest.raises(InvalidTarget):
        joined.machine.signal(EVERYONE, b"x", 0.0)
    joined.receive(joined.node.seal(PacketType.SIGNAL, 7, b"answer"))
    assert joined.events() == [events.Signaled(7, b"answer")]


def test_what_is_sent_before_the_welcome_is_dropped_and_counted(player):
    player.machine.connect(0.0)
    assert player.machine.send(0, b"early", 0.0) is False
    assert player.machine.dropped["not_connected"] == 1


# -- a session without edgegap: an end-to-end sequence before each payload, and direct paths ------------


SEQUENCED = {"is_sequenced": True, "max_payload": packets.MAX_PAYLOAD, "expires": 1_795_300_000}
START = 1_795_257_600_000_000 // 16  # by the clock of the fixtures


def test_each_payload_has_the_next_end_to_end_sequence(player):
    player.join(**SEQUENCED, mesh=True)
    for number, target in enumerate((0, 7, EVERYONE), start=1):
        assert player.machine.send(target, b"input", 1.0)
        sequence = (START + number).to_bytes(8, "little")[:4]
        assert player.node.open(player.sent()[0]) == (PacketType.DATA, target, sequence + b"input")


def test_a_payload_is_delivered_once_whatever_packet_it_comes_in(player):
    player.join(**SEQUENCED)
    bodies = [b"\1\0\0\0state", b"\2\0\0\0next"] * 2
    received = [player.receive(player.node.seal(PacketType.DATA, 0, body)) for body in bodies]
    assert received == [(0, b"state"), (0, b"next"), None, None]
    assert player.machine.dropped == {"duplicate": 2}
    assert player.machine.stats().received == 2


def test_a_payload_without_a_whole_sequence_is_malformed(player):
    player.join(**SEQUENCED)
    assert player.receive(player.node.seal(PacketType.DATA, 0, b"123")) is None
    assert player.machine.dropped == {"malformed": 1}
    assert player.receive(player.node.seal(PacketType.DATA, 0, b"1234")) == (0, b"")


def test_the_largest_payload_makes_a_datagram_of_1232_bytes(player):
    player.join(**SEQUENCED)
    player.machine.send(0, bytes(1210), 0.0)
    assert len(player.sent()[0]) == packets.MAX_DATAGRAM
    with pytest.raises(PayloadTooLarge):
        player.machine.send(0, bytes(1211), 0.0)


def test_signals_have_no_end_to_end_sequence(player):
    player.join(**SEQUENCED)
    player.machine.signal(7, b"candidate", 0.0)
    assert player.node.open(player.sent()[0]) == (PacketType.SIGNAL, 7, b"candidate")


@pytest.mark.parametrize("kind", [PacketType.RENDEZVOUS, PacketType.PEER])
@pytest.mark.parametrize("changes", [{}, SEQUENCED, SEQUENCED | {"direct_mode": packets.DirectMode.DIRECT}])
def test_without_peer_keys_there_are_no_direct_paths(player, changes, kind):
    player.join(**changes)
    player.receive(player.node.seal(kind, 0, bytes(60)), 1.0)
    assert player.machine.dropped == {{PacketType.RENDEZVOUS: "not_allowed", PacketType.PEER: "unknown_pair"}[kind]: 1}
    player.machine.send(0, b"input", 1.0)
    assert [data[0] for data in player.sent()] == [PacketType.DATA]
    assert player.machine.direct.paths() == []


@pytest.mark.parametrize("kind", packets.OF_A_PAIR)
def test_packets_of_a_pair_come_from_elsewhere_than_the_node(player, kind):
    player.join(**SEQUENCED)
    data = bytes((kind,)) + bytes(40)
    player.receive(data)
    player.machine.receive_datagram(data, ("192.0.2.66", 666), 0.0)
    assert player.machine.dropped == {"unknown_type": 1, "unknown_pair": 1}


@pytest.mark.parametrize("kind", sorted({*PacketType} - packets.OF_A_PAIR))
def test_packets_of_the_node_come_from_the_node(player, kind):
    player.join(**SEQUENCED)
    player.machine.receive_datagram(bytes((kind,)) + bytes(40), ("192.0.2.66", 666), 0.0)
    assert player.machine.dropped == {"wrong_address": 1}


def test_peer_keys_of_another_seat_are_not_used():
    player = Player(peer_keys=bytes(32)).join(**SEQUENCED, direct_mode=packets.DirectMode.DIRECT)
    assert player.machine.dropped == {"wrong_peer_keys": 1}
    player.machine.send(0, b"input", 1.0)
    assert [data[0] for data in player.sent()] == [PacketType.DATA]


def test_peer_keys_of_an_impossible_length_are_refused():
    with pytest.raises(ValueError, match="32 bytes, and 16 for each lower seat"):
        Player(peer_keys=bytes(33))


# -- keep-alive and measurements ---------------------------------------------------------------------


def test_a_ping_each_keep_alive_measures_the_round_trip(joined):
    for n in range(1, 6):
        now = joined.machine.next_timer()
        assert now == pytest.approx(float(n))
        joined.machine.handle_timer(now)
        kind, _, body = joined.node.open(joined.sent()[0])
        assert kind == PacketType.PING
        joined.receive(joined.node.pong(body), now + 0.040)
    stats = joined.machine.stats()
    assert stats.rtt_ms == pytest.approx(40, abs=0.1)
    assert stats.jitter_ms == pytest.approx(0, abs=0.1)
    assert (stats.loss_up, stats.loss_down) == (0.0, 0.0)


def test_losses_in_each_direction_are_distinguished(joined):
    for n in range(1, 30):
        now = float(n)
        for k in range(10):
            joined.machine.send(0, b"x", now)
            if k % 2:  # half get through
                joined.node.open(joined.sent()[0])
            joined.sent()
            down = joined.node.seal(PacketType.DATA, 0, b"y")
            if k % 4:  # three in four
                joined.receive(down, now)
        joined.machine.handle_timer(now)
        _, _, body = joined.node.open(joined.sent()[0])
        joined.receive(joined.node.pong(body), now + 0.02)
    stats = joined.machine.stats()
    assert stats.loss_up == pytest.approx(5 / 11, abs=0.03)
    assert stats.loss_down == pytest.approx(3 / 11, abs=0.03)


def test_a_ping_is_answered_at_once_by_a_pong_with_its_nonce(joined):
    joined.receive(joined.node.seal(PacketType.PING, 0, packets.Ping(b"8 random", 0, 0).encode()), 0.5)
    kind, _, body = joined.node.open(joined.sent()[0])
    assert kind == PacketType.PONG
    assert packets.decode_ping(body).nonce == b"8 random"


def test_a_pong_that_answers_no_ping_of_ours_measures_nothing(joined):
    joined.receive(joined.node.seal(PacketType.PONG, 0, packets.Ping(b"8 random", 7, 0).encode()), 0.5)
    assert joined.machine.stats().rtt_ms is None


def test_a_keep_alive_of_nothing_does_not_make_the_player_spin(player):
    player.join(keep_alive_ms=0)
    assert player.machine.next_timer() >= 0.1


# -- silence and reconnecting --------------------------------------------------------------------------


def fall_silent(player, now=0.0):
    while player.machine.state is State.RELAYED:
        now = player.machine.next_timer()
        player.sent(now)
        player.machine.handle_timer(now)
    return now


def test_three_keep_alives_of_silence_after_a_ping_reconnect(joined):
    now = fall_silent(joined)
    assert now == pytest.approx(3.0)
    assert joined.machine.state is State.RECONNECTING
    assert joined.events() == [events.ReconnectStarted()]


def test_a_reconnect_uses_the_same_token_and_a_later_timestamp(joined):
    first = joined.node.welcome.player_nonce
    now = fall_silent(joined)
    connect = handshake.decode_connect(joined.sent(now)[0])
    assert connect.token == TOKEN and connect.nonce != first
    assert connect.timestamp == 1_795_257_600_000_001  # the clock stood still


def test_packets_of_the_old_connection_are_dropped_from_then_on(joined):
    old = joined.node
    now = fall_silent(joined)
    joined.join(now, connection=0xABCD0002, node_nonce=b"m" * 16)
    assert joined.machine.state is State.RELAYED
    assert joined.receive(old.seal(PacketType.DATA, 0, b"old")) is None
    assert joined.receive(joined.node.seal(PacketType.DATA, 0, b"new")) == (0, b"new")
    assert joined.machine.stats().reconnects == 1


def test_a_path_challenge_is_answered_but_does_not_count_as_an_answer(joined):
    for now in (0.5, 1.5, 2.5):
        joined.machine.handle_timer(now)
        joined.sent(now)
        joined.receive(joined.node.seal(PacketType.PATH_CHALLENGE, 0, b"8 bytes!"), now)
        assert joined.node.open(joined.sent(now)[0]) == (PacketType.PATH_RESPONSE, 0, b"8 bytes!\0")
    joined.machine.handle_timer(3.0)
    assert joined.machine.state is State.RECONNECTING


def test_any_other_packet_counts_as_an_answer(joined):
    for n in range(1, 60):
        joined.receive(joined.node.seal(PacketType.DATA, 0, b"x"), n / 2)
        joined.machine.handle_timer(n / 2)
    assert joined.machine.state is State.RELAYED


def test_a_reconnect_without_an_answer_ends_in_a_typed_failure():
    player = Player(reconnect_timeout=20.0).join()
    start = fall_silent(player)
    while (now := player.machine.next_timer()) is not None:
        player.machine.handle_timer(now)
        assert now <= start + 20.0
    assert isinstance(player.events()[-1].error, ConnectTimeout)
    with pytest.raises(ConnectTimeout):
        player.machine.send(0, b"x", now or 99.0)


def test_rebinding_sends_something_from_the_new_address_at_once(joined):
    joined.machine.rebind(0.4)
    assert joined.node.open(joined.sent()[0])[0] == PacketType.PING


def test_rebinding_while_joining_makes_a_new_connect(player):
    player.machine.connect(0.0)
    first = handshake.decode_connect(player.sent()[0])
    player.machine.rebind(0.1)
    assert handshake.decode_connect(player.sent()[0]).nonce != first.nonce


# -- notices and the end -------------------------------------------------------------------------------


def notice(player, code, seat=0, **content):
    player.receive(player.node.seal(PacketType.NOTICE, seat, packets.Notice(code, **content).encode()), 0.1)
    return player.events()


def test_joins_and_leaves_are_reported_and_kept(joined):
    assert notice(joined, NoticeCode.JOINED, 5) == [events.Joined(5)]
    assert joined.machine.peers == {0, 5}
    assert notice(joined, NoticeCode.LEFT, 0, text="timeout") == [events.Left(0, "timeout")]
    assert joined.machine.peers == {5}


def test_the_other_notices_are_reported(joined):
    assert notice(joined, NoticeCode.MOVED, address=("192.0.2.1", 5)) == [events.Moved(("192.0.2.1", 5))]
    assert notice(joined, NoticeCode.OVER_QUOTA, text="packets") == [events.OverQuota("packets")]
    assert notice(joined, NoticeCode.DRAINING) == [events.Draining("")]
    assert joined.machine.state is State.RELAYED


def test_a_notice_of_an_unknown_code_is_ignored(joined):
    assert notice(joined, 99) == []
    assert joined.machine.state is State.RELAYED


@pytest.mark.parametrize(("code", "error"), [(NoticeCode.REVOKED, SeatRevoked), (NoticeCode.ENDED, SessionEnded)])
def test_revoked_and_ended_close_with_their_error(joined, code, error):
    (closed,) = notice(joined, code)
    assert type(closed.error) is error
    with pytest.raises(error):
        joined.machine.send(0, b"x", 1.0)
    assert joined.machine.next_timer() is None


def test_a_close_from_the_node_is_reported_with_its_code(joined):
    joined.receive(joined.node.seal(PacketType.CLOSE, 0, packets.Close(7, "maintenance").encode()))
    (closed,) = joined.events()
    assert isinstance(closed.error, ClosedByNode)
    assert (closed.error.number, closed.error.advice) == (7, "maintenance")


def test_a_close_is_sent_to_the_node_three_times(joined):
    joined.machine.close(1.0, 200, "bye")
    opened = [joined.node.open(data) for data in joined.sent()]
    assert opened == [(PacketType.CLOSE, 0, packets.Close(200, "bye").encode())] * 3
    assert joined.events() == [events.Closed(None)]
    with pytest.raises(ConnectionClosed):
        joined.machine.send(0, b"x", 1.0)


def test_a_second_close_and_packets_after_it_have_no_effect(joined):
    joined.machine.close(1.0)
    joined.sent()
    joined.events()
    joined.machine.close(1.1)
    joined.receive(joined.node.seal(PacketType.DATA, 0, b"late"), 1.2)
    joined.machine.rebind(1.3)
    joined.machine.handle_timer(99.0)
    assert joined.sent() == [] and joined.events() == []


def test_a_malformed_body_is_a_drop_and_no_error(joined):
    for kind in (PacketType.PING, PacketType.PONG, PacketType.NOTICE, PacketType.CLOSE, PacketType.PATH_CHALLENGE):
        joined.receive(joined.node.seal(kind, 0, b""), 0.1)
    assert joined.machine.dropped == {"malformed": 5}
    assert joined.sent() == [] and joined.events() == []


def test_every_state_can_be_closed_and_none_can_be_left_after():
    assert {state for state, event in TRANSITIONS if event is events.Closed} == set(State) - {State.CLOSED}
