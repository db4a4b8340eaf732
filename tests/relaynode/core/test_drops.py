"""Every reason to drop a packet: provoked, counted under its name, answered with nothing."""

import os
import struct

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.packets import PacketType
from relaynode.core.counters import DROPS
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Relay, RelayConfig
from tests.relaynode.players import NOW, SESSION, EdgegapPlayer, NativePlayer, drops, grant_of, relay_with
from tests.support.grants import SESSION_TOKEN

STRANGER = ("192.0.2.99", 999)


@pytest.fixture
def relay() -> Relay:
    return relay_with(seats=3)


@pytest.fixture
def host(relay: Relay) -> EdgegapPlayer:
    host = EdgegapPlayer(relay, 0)
    host.ping()
    return host


@pytest.fixture
def native_host(relay: Relay) -> NativePlayer:
    host = NativePlayer(relay, 0)
    host.connect()
    return host


@pytest.fixture
def native(relay: Relay) -> NativePlayer:
    player = NativePlayer(relay, 1)
    player.connect()
    return player


def receive(relay: Relay, data: bytes, port: int = CLIENT_PORT) -> object:
    return relay.receive_datagram(data, STRANGER, port, NOW)


def test_every_drop_has_a_test_of_its_name() -> None:
    assert [name for name in DROPS if f"test_{name}" not in globals()] == []


@pytest.mark.parametrize("data", [b"", b"\x01" * 8, b"\xc4" + bytes(16), bytes((0xCC, 1)) + bytes(61)])
def test_too_short(relay: Relay, data: bytes) -> None:
    assert receive(relay, data) is None
    assert drops(relay) == {"too_short": 1}


def test_too_long(relay: Relay, host: EdgegapPlayer, native: NativePlayer) -> None:
    client = EdgegapPlayer(relay, 2)
    assert client.send(bytes(1192)) is None
    assert native.send(bytes(1183)) is None
    assert drops(relay) == {"too_long": 2}
    assert client.send(bytes(1191)) is not None
    assert native.send(bytes(1182)) is not None


@pytest.mark.parametrize("first", [0xC1, 0xC2, 0xC3, 0xC7, 0xCA, 0xCD, 0xCE, 0xD0, 0xD3, 0xD6, 0xDF])
def test_unknown_type(relay: Relay, first: int) -> None:
    assert receive(relay, bytes((first,)) + bytes(60)) is None
    assert drops(relay) == {"unknown_type": 1}


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_unknown_type_of_edgegap_binds_nothing(relay: Relay, kind: int) -> None:
    player = EdgegapPlayer(relay, 1)
    assert player.send_raw(player.tokens + bytes((kind,))) is None
    assert drops(relay) == {"unknown_type": 1}
    assert relay.stats()["connected"] == 0
    player.ping()
    assert player.send_raw(player.tokens + bytes((kind,))) is None
    assert drops(relay) == {"unknown_type": 2}


def test_malformed(relay: Relay, native: NativePlayer, host: EdgegapPlayer) -> None:
    connect = bytearray(native.connect_packet().encode(native.seat_key))
    connect[42:44] = struct.pack("<H", 500)
    for data in (
        bytes(connect),
        native.packet(PacketType.PING, b"short"),
        native.packet(PacketType.CLOSE, b""),
        native.packet(PacketType.CLOSE, b"\x00\xff"),
        native.packet(PacketType.PATH_RESPONSE, b"nonsense"),
    ):
        assert native.send_raw(data) is None
    assert host.send_raw(host.tokens + b"\x02\x01\x00\x00") is None
    assert drops(relay) == {"malformed": 6}


def test_unsupported_version(relay: Relay) -> None:
    assert receive(relay, bytes((0xCC, 2)) + bytes(62)) is None
    assert drops(relay) == {"unsupported_version": 1}


def test_source_rate_limited(relay: Relay) -> None:
    """Over its limit a source is answered that its probes are refused, for a while; then not at all."""
    limit = RelayConfig().probes_per_source
    answers = [receive(relay, packets.Probe(bytes(16)).encode()) for _ in range(3 * limit)]
    unanswered = answers.count(None)
    assert unanswered > 0
    assert drops(relay) == {"source_rate_limited": unanswered}


def test_seat_rate_limited(native: NativePlayer, relay: Relay) -> None:
    """A player that connects again and again; the answer to one CONNECT more waits for the next second."""
    answers = [native.send_raw(native.connect_packet().encode(native.seat_key)) for _ in range(20)]
    unanswered = answers.count(None)
    assert 0 < unanswered < 20
    assert drops(relay) == {"seat_rate_limited": unanswered}


def test_grants_not_loaded() -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    relay.set_grants_known(False)
    assert EdgegapPlayer(relay, 1).send(b"data") is None
    assert drops(relay) == {"grants_not_loaded": 1}


def test_unknown_token(relay: Relay) -> None:
    assert receive(relay, struct.pack("<IIB", 1, SESSION_TOKEN, 2) + b"guess") is None
    assert drops(relay) == {"unknown_token": 1}


def test_session_ended(relay: Relay, host: EdgegapPlayer) -> None:
    relay.handle_timer(NOW + 400)
    assert relay.stats()["sessions"] == 0
    player = EdgegapPlayer(relay, 1)
    assert player.send(b"late", now=NOW + 401) is None
    assert drops(relay) == {"session_ended": 1}


def test_seat_revoked(relay: Relay, host: EdgegapPlayer) -> None:
    player = EdgegapPlayer(relay, 1)
    assert player.send(b"hello") is not None
    relay.apply_grant(grant_of(revision=2, revoked={1}), NOW)
    assert player.send(b"more") is None
    assert drops(relay) == {"seat_revoked": 1}


def test_wrong_port(relay: Relay, host: EdgegapPlayer) -> None:
    player = EdgegapPlayer(relay, 1)
    player.port = SERVER_PORT
    host.port = CLIENT_PORT
    assert player.send(b"I am the host") is None
    assert host.send(b"I am a client", 5) is None
    assert drops(relay) == {"wrong_port": 2}


def test_dialect_off() -> None:
    relay = relay_with(dialects=["native"])
    assert EdgegapPlayer(relay, 1).send(b"hello") is None
    assert drops(relay) == {"dialect_off": 1}


def test_bound_to_native(relay: Relay, host: EdgegapPlayer, native: NativePlayer) -> None:
    same_seat = EdgegapPlayer(relay, 1)
    assert same_seat.ping() is None
    assert same_seat.send(b"hello") is None
    assert drops(relay) == {"bound_to_native": 2}


def test_address_unvalidated(relay: Relay, host: EdgegapPlayer) -> None:
    EdgegapPlayer(relay, 1).send(b"hello")
    thief = EdgegapPlayer(relay, 1, STRANGER)
    assert thief.send(b"mine") is None
    assert drops(relay) == {"address_unvalidated": 1}


def test_unknown_connection_id(relay: Relay, host: EdgegapPlayer) -> None:
    host.hears(EdgegapPlayer(relay, 1).send(b"hello"))
    assert host.send(b"who?", host.last_connection_id ^ 1) is None
    assert drops(relay) == {"unknown_connection_id": 1}


def test_replayed_connect(relay: Relay, native: NativePlayer) -> None:
    connect = native.connect_packet()
    native.connect(connect)
    assert receive(relay, connect.encode(native.seat_key)) is None
    assert drops(relay) == {"replayed_connect": 1}


def test_unknown_connection(relay: Relay, native: NativePlayer) -> None:
    data = bytearray(native.data(b"hello"))
    data[1] ^= 1
    assert native.send_raw(bytes(data)) is None
    assert drops(relay) == {"unknown_connection": 1}


def test_resumed_connection(relay: Relay, native: NativePlayer) -> None:
    after = relay_with()
    after.resume_connection(relay.connection_state(SESSION, native.seat) or {}, NOW)
    native.relay = after
    assert native.send(b"before the answer") is None
    assert drops(after) == {"resumed_connection": 1}


def test_bad_tag(relay: Relay, native_host: NativePlayer, native: NativePlayer) -> None:
    data = native.data(b"hello")
    for index in range(5, len(data)):
        forged = bytearray(data)
        forged[index] ^= 1
        assert native.send_raw(bytes(forged)) is None
    assert drops(relay) == {"bad_tag": len(data) - 5}
    assert native.send_raw(data) is not None


def test_replayed(relay: Relay, native_host: NativePlayer, native: NativePlayer) -> None:
    data = native.data(b"hello")
    assert native.send_raw(data) is not None
    assert native.send_raw(data) is None
    assert receive(relay, data) is None
    assert drops(relay) == {"replayed": 2}


def test_rate_limited() -> None:
    relay = relay_with(limits={"packets": 5, "bytes": 0})
    NativePlayer(relay, 0).connect()
    player, edgegap = NativePlayer(relay, 1), EdgegapPlayer(relay, 2)
    player.connect()
    passed = sum(player.send(b"fast") is not None for _ in range(8))
    assert passed == 5
    assert edgegap.send(b"the session's limit is used up") is None
    assert drops(relay) == {"rate_limited": 4}


def test_not_allowed(relay: Relay, native_host: NativePlayer, native: NativePlayer) -> None:
    other = NativePlayer(relay, 2)
    other.connect()
    assert native.send(b"to another player", 2) is None
    assert native.send(b"to myself", 1) is None
    assert native_host.send(b"to myself", 0) is None
    assert native.send_raw(native.packet(PacketType.SIGNAL, b"to all", packets.EVERYONE)) is None
    assert drops(relay) == {"not_allowed": 4}


def test_peer_absent(relay: Relay, native: NativePlayer) -> None:
    assert EdgegapPlayer(relay, 2).send(b"no host yet") is None
    assert native.send(b"no host yet") is None
    assert native.send_raw(native.packet(PacketType.SIGNAL, b"no native link", 2)) is None
    assert drops(relay) == {"peer_absent": 3}


def test_direct_not_allowed(relay: Relay, native_host: NativePlayer, native: NativePlayer) -> None:
    """The session admits edgegap. The other cases are in dialects/test_native_direct_paths.py."""
    for kind in (PacketType.RENDEZVOUS, PacketType.PEER):
        assert native.send_raw(native.packet(kind, b"body", 0)) is None
    assert drops(relay) == {"direct_not_allowed": 2}


def test_bad_stun(relay: Relay) -> None:
    indication = struct.pack(">HH4s12s", 0x0011, 0, packets.STUN_COOKIE, bytes(12))
    assert receive(relay, indication) is None
    assert drops(relay) == {"bad_stun": 1}
