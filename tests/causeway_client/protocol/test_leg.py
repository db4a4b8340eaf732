import random

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.handshake import Welcome
from causeway_client.protocol.leg import Leg, PlayerLeg
from causeway_client.protocol.packets import PacketType

SEAT_KEY = bytes(range(32))
WELCOME = Welcome(bytes(16), bytes(16), 77, 5, True, "203.0.113.9", 40001, 1000, 10000, 0, 0, 1210, frozenset({0, 5}))


def both_ends() -> tuple[PlayerLeg, Leg]:
    up_key, down_key = packets.packet_keys(SEAT_KEY, WELCOME.player_nonce, WELCOME.node_nonce)
    node = Leg(WELCOME.connection, send_key=down_key, receive_key=up_key)
    return PlayerLeg(WELCOME, SEAT_KEY, random.Random(1).randbytes), node


def test_both_ends_use_the_same_keys() -> None:
    player, node = both_ends()
    assert (player.send_key, player.receive_key) == (node.receive_key, node.send_key)
    assert player.open(node.seal(PacketType.DATA, 0, b"state")) == (PacketType.DATA, 0, b"state")
    assert (node.sent, player.received) == (1, 1)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (lambda node: node.seal(PacketType.DATA, 0, b"")[:-1], "too_short"),
        (lambda node: Leg(78, node.send_key, b"").seal(PacketType.DATA, 0, b""), "unknown_connection"),
        (lambda node: Leg(77, bytes(16), b"").seal(PacketType.DATA, 0, b""), "bad_tag"),
    ],
)
def test_invalid_packets_are_refused_with_a_reason(packet, reason) -> None:  # type: ignore[no-untyped-def]
    player, node = both_ends()
    with pytest.raises(DecodeError, match=reason):
        player.open(packet(node))
    assert player.received == 0


def test_a_replayed_packet_is_refused() -> None:
    player, node = both_ends()
    packet = node.seal(PacketType.DATA, 0, b"once")
    player.open(packet)
    with pytest.raises(DecodeError, match="replayed"):
        player.open(packet)


def test_a_pong_is_measured_once_and_only_if_its_ping_is_outstanding() -> None:
    player, _ = both_ends()
    ping = player.ping(3, 10.0)
    nonce = ping[packets.HEADER.size :][: packets.PING_NONCE_SIZE]
    pong = packets.Ping(nonce, received=1, generation=0).encode()
    player.receive_pong(packets.Ping(bytes(8), received=1, generation=0).encode(), 10.01)
    assert player.round_trip.smoothed is None
    player.receive_pong(pong, 10.04)
    player.receive_pong(pong, 19.0)
    assert player.round_trip.smoothed == pytest.approx(0.04)


def test_a_ping_is_answered_with_its_nonce_and_the_count_of_received_packets() -> None:
    player, node = both_ends()
    _, _, body = player.open(node.seal(PacketType.PING, 0, packets.Ping(b"12345678", 0, 3).encode()))
    pong = player.receive_ping(body, 4)
    assert pong[0] == PacketType.PONG
    assert packets.decode_ping(pong[packets.HEADER.size : -packets.TAG_SIZE]) == packets.Ping(
        b"12345678", received=1, generation=4
    )
