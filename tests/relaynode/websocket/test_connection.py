"""One WebSocket, without sockets: a client of the library on the other side, and hostile bytes."""

from collections import Counter
from http import HTTPStatus

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from causeway_client.protocol.packets import MAX_DATAGRAM, PacketType
from relaynode.websocket import connection
from relaynode.websocket.connection import PlayerConnection, Refusal

PONG, COOKIE = bytes([PacketType.PONG, 1]), bytes([PacketType.COOKIE, 1])


class Pair:
    """Both sides of a connection; `now` is the time."""

    def __init__(self, refusal=None):
        self.now = 1000.0
        self.counters = Counter()
        self.server = PlayerConnection(self.now, lambda request: refusal, self.counters)
        self.client = ClientProtocol(parse_uri("ws://localhost/relay/31001"))

    def open(self):
        self.client.send_request(self.client.connect())
        self.exchange()
        return self

    def exchange(self):
        """The packets that the server received."""
        packets = self.server.receive(b"".join(self.client.data_to_send()), self.now)
        if data := self.server.data_to_send():
            self.client.receive_data(data)
        return packets

    def after(self, seconds):
        self.now += seconds
        self.server.handle_timer(self.now)
        if data := self.server.data_to_send():
            self.client.receive_data(data)

    def send_frames(self, *frames):
        for opcode, data, fin in frames:
            self.client.writes.append(Frame(opcode, data, fin).serialize(mask=True))
        return self.exchange()


@pytest.fixture
def pair():
    return Pair().open()


@pytest.fixture
def player(pair):
    """The node has accepted it."""
    pair.server.send(PONG)
    pair.exchange()
    return pair


def test_messages_are_packets_in_both_directions(pair):
    assert pair.server.is_open
    pair.client.send_binary(b"one")
    pair.client.send_binary(bytes(MAX_DATAGRAM))
    assert pair.exchange() == [b"one", bytes(MAX_DATAGRAM)]
    assert pair.server.send(PONG)
    pair.exchange()
    assert pair.client.events_received()[-1].data == PONG


def test_a_refused_request_gets_its_status():
    pair = Pair(Refusal(HTTPStatus.NOT_FOUND, "no_such_port", "There is no such relay port.")).open()
    assert pair.server.is_over and not pair.server.is_open
    assert pair.client.handshake_exc.response.status_code == 404


def test_a_slow_handshake_ends(pair):
    slow = Pair()
    slow.server.receive(b"GET /relay/31001 HTTP/1.1\r\n", slow.now)
    slow.after(connection.HANDSHAKE_TIMEOUT - 1)
    assert not slow.server.is_over
    slow.server.receive(b"X-More: 1\r\n", slow.now)  # gains no time
    slow.after(1)
    assert slow.server.is_over
    assert slow.counters == {"closed_handshake_timeout": 1}


@pytest.mark.parametrize("line", [b"X-Header: " + bytes(1000).hex().encode() + b"\r\n", b"X" * 1000])
def test_an_endless_request_ends(line):
    pair = Pair()
    pair.server.receive(b"GET /relay/31001 HTTP/1.1\r\n", pair.now)
    sent = 0
    while not pair.server.is_over:
        pair.server.receive(line, pair.now)
        sent += len(line)
        assert sent <= connection.MAX_REQUEST + len(line)


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01" + bytes(200), b"SSH-2.0-x\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\r\n\r\n"]
)
def test_another_protocol_ends(data):
    pair = Pair()
    pair.server.receive(data, pair.now)
    pair.after(connection.HANDSHAKE_TIMEOUT)
    assert pair.server.is_over


def test_without_a_player_the_connection_ends(pair):
    """What the node sends to any address, as cookies, does not show that there is one."""
    pair.server.send(COOKIE)
    pair.after(connection.ADMISSION_TIMEOUT - 1)
    pair.client.send_binary(b"more")
    pair.exchange()
    assert pair.server.is_open
    pair.after(1)
    assert pair.counters == {"closed_no_player": 1}
    assert pair.client.close_rcvd.code == 1008


def test_a_silent_player_is_disconnected(player):
    player.after(connection.IDLE_TIMEOUT - 1)
    player.client.send_binary(b"ping")
    player.exchange()
    player.after(connection.IDLE_TIMEOUT - 1)
    assert player.server.is_open
    player.client.send_ping(b"")  # not a packet
    player.exchange()
    player.after(1)
    assert player.counters == {"closed_idle": 1}


@pytest.mark.parametrize(
    "frames",
    [
        [(Opcode.TEXT, b"text", True)],
        [(Opcode.BINARY, b"part", False)],
        [(Opcode.BINARY, b"", False), *[(Opcode.CONT, b"", False)] * 1000],
    ],
)
def test_what_is_no_packet_ends_the_connection(player, frames):
    assert player.send_frames(*frames) == []
    assert player.counters == {"closed_not_a_packet": 1}
    assert player.client.close_rcvd.code == 1003


def test_a_longer_message_ends_the_connection(player):
    player.client.send_binary(b"one")
    player.client.send_binary(bytes(MAX_DATAGRAM + 1))
    assert player.exchange() == [b"one"]
    assert player.client.close_rcvd.code == 1009


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_a_flood_of_control_frames_ends_the_connection(player, opcode):
    allowed = int(connection.CONTROL_FRAMES_PER_SECOND * connection.MAX_PAUSE)
    player.send_frames(*[(opcode, b"", True)] * (allowed - 1))
    assert player.server.is_open
    player.send_frames(*[(opcode, b"", True)] * 2)
    assert player.counters == {"closed_flood": 1}


def test_reading_pauses_while_more_arrives_than_a_player_sends(player):
    per_second = connection.PACKETS_PER_SECOND
    player.send_frames(*[(Opcode.BINARY, b"x", True)] * per_second)
    assert player.server.pause(player.now) == pytest.approx(0, abs=1e-6)
    player.send_frames(*[(Opcode.BINARY, b"x", True)] * per_second)
    assert player.server.pause(player.now) == pytest.approx(1)
    assert player.server.pause(player.now + 1) == pytest.approx(0, abs=1e-6)
    assert player.server.is_open


def test_a_flood_ends_the_connection(pair):
    allowed = int(connection.PACKETS_BEFORE_ADMISSION * (1 + connection.MAX_PAUSE))
    pair.send_frames(*[(Opcode.BINARY, b"x", True)] * (allowed + 1))
    assert pair.counters == {"closed_flood": 1}


def test_a_client_that_closes_is_answered(player):
    player.client.send_close(1000)
    player.exchange()
    assert player.server.is_over
    assert not player.server.send(PONG)
    assert player.client.close_rcvd.code == 1000
