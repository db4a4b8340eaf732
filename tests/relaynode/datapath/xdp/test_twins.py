"""Both paths do the same with the same packets: the cases by name. The random streams are in test_differential.py."""

import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.packets import PacketType
from causeway_client.protocol.paths.rendezvous import Rendezvous
from relaynode.datapath.xdp import bpf, loader
from relaynode.datapath.xdp.layout import SEAT
from tests.relaynode.datapath.xdp.frames import OUR_MAC, THEIR_MAC, Datagram, Endpoint, checksum, frame
from tests.relaynode.datapath.xdp.players import EdgegapPlayer, NativePlayer, grant, session_name
from tests.relaynode.datapath.xdp.twins import (
    _PASS,
    _TX,
    CLIENT_PORT,
    NOW,
    OUR_PORTS,
    SERVER,
    SERVER_PORT,
    Twins,
    needs_kernel,
)

pytestmark = needs_kernel()


def rendezvous_body() -> bytes:
    return Rendezvous(round=1, acknowledged=0, sequence=1, nonce=bytes(16)).encode(bytes(16), 1, 0)


@pytest.fixture
def make_twins() -> Iterator[Callable[..., Twins]]:
    made: list[Twins] = []

    def make(**options: Any) -> Twins:
        made.append(Twins(**options))
        return made[-1]

    yield make
    for twins in made:
        twins.close()


@pytest.fixture(params=[4, 6])
def twins(request: pytest.FixtureRequest, make_twins: Callable[..., Twins]) -> Twins:
    return make_twins(version=request.param)


def playing_edgegap(twins: Twins, **changes: Any) -> tuple[EdgegapPlayer, EdgegapPlayer]:
    """Host and a player, who have heard of each other, and whose packets the program forwards."""
    twins.grant(grant(**changes))
    host, player = EdgegapPlayer(twins, 0), EdgegapPlayer(twins, 1)
    host.ping()
    ((_, _, data),) = player.send(b"hello")
    player.name = int.from_bytes(data[1:5], "little")
    host.ping(), player.ping()
    return host, player


def playing_native(twins: Twins, **changes: Any) -> tuple[NativePlayer, NativePlayer]:
    twins.grant(grant(**changes))
    mesh = changes.get("topology") == "mesh"
    host, player = NativePlayer(twins, 0, mesh), NativePlayer(twins, 1, mesh)
    for joining in (host, player):
        joining.connect()
    for seat in (host, player):
        seat.send(1 - seat.seat, b"warm")
    return host, player


SIZES = [0, 1, 2, 3, 7, 8, 9, 15, 18, 64, 151, 1000, 1182, 1187]


@pytest.mark.parametrize("size", SIZES)
def test_edgegap_both_ways(twins: Twins, size: int) -> None:
    host, player = playing_edgegap(twins)
    before = twins.xdp.forwarded
    payload = bytes(index % 251 for index in range(size))
    ((_, to, data),) = player.send(payload)
    assert (to, data) == (host.at, b"\x02" + struct.pack("<I", player.name) + payload)
    ((_, to, data),) = host.send(payload, player.name)
    assert (to, data) == (player.at, b"\x02" + payload)
    assert twins.xdp.forwarded == before + 2
    twins.assert_same()


@pytest.mark.parametrize("size", [*SIZES, 1207, 1213, 1214])
def test_native_both_ways(twins: Twins, size: int) -> None:
    host, player = playing_native(twins, dialects=["native"])
    before = twins.xdp.forwarded
    payload = bytes(index % 251 for index in range(size))
    assert host.hears(player.send(0, payload)) == [(1, payload)]
    assert player.hears(host.send(1, payload)) == [(0, payload)]
    assert twins.xdp.forwarded == before + 2
    twins.assert_same()


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 150, 1170])
def test_a_native_player_and_an_edgegap_host(twins: Twins, size: int) -> None:
    twins.grant(grant())
    host, player = EdgegapPlayer(twins, 0), NativePlayer(twins, 1)
    host.ping()
    player.connect()
    ((_, _, data),) = player.send(0, b"hello")
    name = int.from_bytes(data[1:5], "little")
    host.ping()
    player.send(0, b"warm")  # of which the next one takes notice: its number is marked by then
    before = twins.xdp.forwarded
    payload = bytes(index % 251 for index in range(size))
    ((_, to, data),) = player.send(0, payload)
    assert (to, data[5:]) == (host.at, payload)
    assert player.hears(host.send(payload, name)) == [(0, payload)]
    assert twins.xdp.forwarded == before + 2
    twins.assert_same()


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 150, 1170])
def test_a_native_host_and_an_edgegap_player(twins: Twins, size: int) -> None:
    twins.grant(grant())
    host, player = NativePlayer(twins, 0), EdgegapPlayer(twins, 1)
    host.connect()
    player.send(b"hello")
    host.send(1, b"warm"), player.send(b"warm")
    before = twins.xdp.forwarded
    payload = bytes(index % 251 for index in range(size))
    sent = player.send(payload)
    assert (1, payload) in host.hears(sent)
    ((_, to, data),) = host.send(1, payload)
    assert (to, data) == (player.at, b"\x02" + payload)
    assert twins.xdp.forwarded == before + 2
    twins.assert_same()


def test_without_a_udp_checksum(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    host, player = playing_edgegap(twins)
    assert player.send(b"x", with_checksum=False)
    assert host.send(b"x", player.name, with_checksum=False)
    twins.assert_same()


def test_rate_limited(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    host, player = playing_native(twins, limits={"packets": 20, "bytes": 0})
    sent = sum(len(host.hears(player.send(0, b"x"))) for _ in range(60))
    assert sent == 19, "a second's worth, and one went before"
    twins.assert_same()
    assert twins.userspace.counters()["drop_rate_limited"] == 41
    twins.at(NOW + 0.5)
    assert sum(len(host.hears(player.send(0, b"x"))) for _ in range(60)) == 10
    twins.assert_same()


def test_rate_limited_by_bytes_and_by_session(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    host, player = playing_edgegap(twins, session_limits={"packets": 0, "bytes": 10_000})
    sent = [len(player.send(bytes(91)) + host.send(bytes(87), player.name)) for _ in range(80)]
    assert 90 <= sum(sent) <= 100
    twins.assert_same()


def test_replayed(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    _, player = playing_native(twins)
    packet = player.data(b"once", 0)
    assert twins.send(player.at, packet, CLIENT_PORT)
    assert not twins.send(player.at, packet, CLIENT_PORT)
    for sequence in (3000, 2999, 1977, 1976, 3000, 5000, 4999, 3977, 3976, 2**31 + 4000, 2**32 + 5):
        twins.send(player.at, player.packet(PacketType.DATA, b"x", 0, sequence), CLIENT_PORT)
    twins.assert_same()
    assert twins.userspace.counters()["drop_replayed"] == 4


def test_bad_tag(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    _, player = playing_native(twins)
    packet = player.data(bytes(30), 0)
    for at in (0, 9, 10, 20, len(packet) - 1):
        spoilt = bytearray(packet)
        spoilt[at] ^= 1
        assert not [sent for sent in twins.send(player.at, bytes(spoilt), CLIENT_PORT) if sent[2][0] == 0xC4]
    twins.assert_same()


def test_a_moved_player_is_seen_to_by_the_core(twins: Twins) -> None:
    host, player = playing_edgegap(twins)
    player.at = Endpoint(player.at.ip, 5999)
    assert not player.send(b"x"), "address_unvalidated"
    twins.at(NOW + 0.6)
    ((_, to, _),) = player.send(b"x")
    assert to == host.at
    ((_, to, _),) = host.send(b"x", player.name)
    assert to == player.at
    twins.assert_same()


def test_a_packet_from_the_old_address_clears_the_new_one(twins: Twins) -> None:
    _, player = playing_edgegap(twins)
    old = player.at
    new = Endpoint(old.ip, 5999)
    for step in range(6):
        twins.at(NOW + 0.01 * step)
        player.at = new if step % 3 < 2 else old
        player.send(b"x")
    twins.assert_same()


def test_fan_out_and_the_packets_after_it_share_a_sequence(twins: Twins) -> None:
    host, player = playing_native(twins)
    third = NativePlayer(twins, 2)
    third.connect()
    third.send(0, b"warm")
    for _ in range(3):
        sent = host.send(255, b"all")
        assert [player.hears(sent), third.hears(sent)] == [[(0, b"all")], [(0, b"all")]]
        assert player.hears(host.send(1, b"one")) == [(0, b"one")]
    twins.assert_same()


def test_each_copy_of_a_fan_out_counts_against_the_sessions_limit(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    host, _ = playing_native(twins)
    third = NativePlayer(twins, 2)
    third.connect()
    third.send(0, b"warm")
    before = twins.userspace.counters()["forwarded_packets"]
    for revision, limits in enumerate(({"packets": 5, "bytes": 0}, {"packets": 0, "bytes": 5 * 21}), 2):
        twins.grant(grant(session_limits=limits, revision=revision))
        twins.at(twins.now + 2)
        assert [len(host.send(255, b"all")) for _ in range(3)] == [2, 2, 1], "two copies each; then the notice"
        assert host.send(1, b"one")
        assert not host.send(1, b"two")
    twins.assert_same()
    counters = twins.userspace.counters()
    assert (counters["forwarded_packets"] - before, counters["drop_rate_limited"]) == (10, 4)


def test_mesh_reaches_anyone(twins: Twins) -> None:
    playing_native(twins, topology="mesh")
    second = NativePlayer(twins, 2, mesh=True)
    second.connect()
    for target in (0, 1, 2, 3, 255):
        second.send(target, b"x")
    twins.assert_same()
    assert twins.userspace.counters()["drop_not_allowed"] == 1
    assert twins.userspace.counters()["drop_peer_absent"] == 1


def test_not_allowed_between_players(twins: Twins) -> None:
    _, player = playing_native(twins)
    assert not [sent for sent in player.send(2, b"x") if sent[2][0] == 0xC4]
    twins.assert_same()
    assert twins.userspace.counters()["drop_not_allowed"] == 1


def test_pings_are_answered_with_true_counts(twins: Twins) -> None:
    host, player = playing_native(twins)
    for index in range(5):
        player.send(0, b"x"), host.send(1, b"y")
        ping = packets.Ping(index.to_bytes(8, "little"), index, player.generation)
        sent = player.send(0, ping.encode(), PacketType.PING)
        assert any(data[0] == PacketType.PONG for _, _, data in sent)
    twins.assert_same()


@pytest.mark.parametrize("dialect", ["edgegap", "native"])
def test_revoked_is_out_of_the_maps_when_the_core_answers(twins: Twins, dialect: str) -> None:
    host, player = (playing_edgegap if dialect == "edgegap" else playing_native)(twins)
    twins.grant(grant(revision=2, revoked={1}))
    forwarded = twins.xdp.forwarded
    if dialect == "edgegap":
        assert not player.send(b"x") and not host.send(b"x", player.name)
    else:
        assert not player.send(0, b"x") and not host.send(1, b"x")
    assert twins.xdp.forwarded == forwarded
    twins.assert_same()


def test_an_ended_session_is_out_of_the_maps(twins: Twins) -> None:
    host, player = playing_edgegap(twins)
    twins.each(lambda relay: relay.end_session(session_name(), "deleted", twins.now))
    twins.drain()
    assert not player.send(b"x") and not host.send(b"x", player.name)
    twins.assert_same()


def test_silence_is_counted_from_what_the_program_forwarded(twins: Twins) -> None:
    host, player = playing_edgegap(twins)
    for step in range(1, 30):
        twins.at(NOW + step)
        assert player.send(b"x") and host.send(b"x", player.name), "still there"
    twins.at(NOW + 45)
    assert twins.each(lambda relay: relay.stats()["connected"]) == 0
    twins.assert_same()


def test_native_takes_over_from_edgegap(twins: Twins) -> None:
    host, old = playing_edgegap(twins)
    player = NativePlayer(twins, 1)
    player.connect()
    assert not old.send(b"x"), "bound_to_native"
    sent = player.send(0, b"y")
    assert any(to == host.at for _, to, _ in sent)
    twins.assert_same()


def test_a_dialect_that_is_switched_off_stops(twins: Twins) -> None:
    host, player = playing_native(twins)
    twins.grant(grant(revision=2, dialects=["edgegap"]))
    forwarded = twins.xdp.forwarded
    assert not player.send(0, b"x") and not host.send(1, b"x")
    assert twins.xdp.forwarded == forwarded
    twins.assert_same()


# -- frames that a socket would refuse, or take: the program must pass them up, whatever they are


def spoil(at: int, value: int) -> Any:
    return lambda data: data[:at] + bytes((value,)) + data[at + 1 :]


def with_ip_options(data: bytes) -> bytes:
    header = bytearray(b"\x46" + data[15:34] + bytes(4))
    header[2:4] = (int.from_bytes(header[2:4], "big") + 4).to_bytes(2, "big")
    header[10:12] = bytes(2)
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return data[:14] + bytes(header) + data[34:]


def as_fragment(data: bytes) -> bytes:
    header = bytearray(data[14:34])
    header[6:8], header[10:12] = b"\x20\x00", bytes(2)
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return data[:14] + bytes(header) + data[34:]


def with_vlan(data: bytes) -> bytes:
    return data[:12] + b"\x81\x00\x00\x05" + data[12:]


def with_ipv6_extension(data: bytes) -> bytes:
    payload = int.from_bytes(data[18:20], "big") + 8
    return data[:18] + payload.to_bytes(2, "big") + b"\x3c" + data[21:54] + b"\x11" + bytes(7) + data[54:]


STRANGE: dict[str, Any] = {
    "ip_options": with_ip_options,
    "fragment": as_fragment,
    "vlan": with_vlan,
    "truncated": lambda data: data[:60],
    "cut_in_the_header": lambda data: data[:30],
    "wrong_ip_checksum": spoil(24, 0xEE),
    "wrong_ip_version": spoil(14, 0x55),
    "not_udp": spoil(23, 6),
    "udp_length_too_long": spoil(39, 0xF0),
    "udp_length_too_short": spoil(39, 9),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_frame_is_passed_up(name: str, make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    _, player = playing_edgegap(twins)
    passed = twins.xdp.passed
    player.send(bytes(100), raw=STRANGE[name])
    assert twins.xdp.passed == passed + 1


@pytest.mark.parametrize("raw", [with_ipv6_extension, spoil(20, 6), lambda data: data[:70]])
def test_a_strange_ipv6_frame_is_passed_up(raw: Any, make_twins: Callable[..., Twins]) -> None:
    twins = make_twins(version=6)
    _, player = playing_edgegap(twins)
    passed = twins.xdp.passed
    player.send(bytes(100), raw=raw)
    assert twins.xdp.passed == passed + 1


@pytest.mark.parametrize("size", range(1, 12))
def test_a_wrong_checksum_is_the_stacks_to_drop(twins: Twins, size: int) -> None:
    _, player = playing_edgegap(twins)
    at = 41 if twins.version == 4 else 61
    passed = twins.xdp.passed
    player.send(bytes(size + 20), raw=lambda data: data[: at + size] + b"\xff" + data[at + size + 1 :])
    assert twins.xdp.passed == passed + 1


def test_too_long_and_too_short(twins: Twins) -> None:
    host, player = playing_edgegap(twins)
    for size in (1191, 1192, 1400):
        player.send(bytes(size))
    twins.send(player.at, player.tokens, CLIENT_PORT)
    twins.send(host.at, host.tokens + b"\x02\x01\x02", SERVER_PORT)
    twins.assert_same()
    counters = twins.userspace.counters()
    assert (counters["drop_too_long"], counters["drop_too_short"], counters["drop_malformed"]) == (2, 1, 1)


def test_native_datagrams_may_be_longer_in_a_session_without_edgegap(make_twins: Callable[..., Twins]) -> None:
    for dialects, longest in ((["native"], 1232), (["edgegap", "native"], 1200)):
        twins = make_twins()
        host, player = playing_native(twins, dialects=dialects)
        forwarded = twins.xdp.forwarded
        payload = bytes(longest - packets.OVERHEAD)
        assert host.hears(player.send(0, payload)) == [(1, payload)]
        assert player.hears(host.send(1, payload)) == [(0, payload)]
        assert twins.xdp.forwarded == forwarded + 2
        assert player.send(0, payload + b"x") == player.send(0, payload + bytes(40)) == []
        assert twins.xdp.forwarded == forwarded + 2
        twins.assert_same()
        assert twins.userspace.counters()["drop_too_long"] == 2


def test_an_edgegap_payload_grows_on_its_way_to_a_native_player(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    twins.grant(grant())
    host, player = NativePlayer(twins, 0), EdgegapPlayer(twins, 1)
    host.connect()
    player.send(b"hello"), host.send(1, b"warm"), player.send(b"warm")
    forwarded = twins.xdp.forwarded
    assert host.hears(player.send(bytes(1191))) == [(1, bytes(1191))]
    assert twins.xdp.forwarded == forwarded + 1
    twins.assert_same()


@pytest.mark.parametrize("kind", [PacketType.RENDEZVOUS, PacketType.PEER, PacketType.PATH_REPORT])
def test_packets_about_direct_paths_are_left_to_the_core(twins: Twins, kind: PacketType) -> None:
    host, player = playing_native(twins, dialects=["native"], direct_mode="direct")
    passed, forwarded = twins.xdp.passed, twins.xdp.forwarded
    body = {PacketType.RENDEZVOUS: rendezvous_body(), PacketType.PEER: bytes(18), PacketType.PATH_REPORT: b"\0"}[kind]
    sent = player.send(0, body, kind)
    assert len(sent) == (kind != PacketType.PATH_REPORT)
    assert host.hears(player.send(0, b"x")) == [(1, b"x")]
    assert (twins.xdp.passed, twins.xdp.forwarded) == (passed + 1, forwarded + 1)
    twins.assert_same()


@pytest.mark.parametrize(
    ("kind", "body"), [(PacketType.OFFER_ACK, b"\1\0\0\0\0"), (PacketType.RELAY_CHANGED, b"\1\0\2\7\2\0\0")]
)
def test_packets_about_two_relays_are_left_to_the_core(twins: Twins, kind: PacketType, body: bytes) -> None:
    host, player = playing_native(twins, dialects=["native"])
    passed, forwarded = twins.xdp.passed, twins.xdp.forwarded
    sent = player.send(0, body, kind)
    assert len(sent) == (kind == PacketType.RELAY_CHANGED)
    assert host.hears(player.send(0, b"x")) == [(1, b"x")]
    assert (twins.xdp.passed, twins.xdp.forwarded) == (passed + 1, forwarded + 1)
    twins.assert_same()


def test_a_player_whose_way_is_not_known_is_left_to_the_stack(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins()
    host, player = playing_edgegap(twins)
    twins.grant(grant(revision=2, topology="mesh"))  # changes every rule, and so every way back is to be learnt anew
    passed = twins.xdp.passed
    assert player.send(b"x")
    assert twins.xdp.passed == passed + 1
    host.ping()
    forwarded = twins.xdp.forwarded
    assert player.send(b"x")
    assert twins.xdp.forwarded == forwarded + 1
    twins.assert_same()


def test_a_target_of_the_other_family_is_left_to_the_stack(make_twins: Callable[..., Twins]) -> None:
    twins = make_twins(version=4)
    twins.grant(grant())
    host, player = EdgegapPlayer(twins, 0), EdgegapPlayer(twins, 1)
    player.at = Endpoint("2001:db8::2", 4001)
    host.ping(), player.ping()
    for _ in range(3):
        ((_, to, _),) = player.send(b"x")
        assert to == host.at
    assert twins.xdp.forwarded == 0
    twins.assert_same()


ATTACKER_MAC = bytes.fromhex("0200000000aa")


def hop_of(twins: Twins, player: NativePlayer) -> bytes:
    """The neighbour to whom the program sends what is for the player."""
    mirror = twins.xdp.mirror
    seat = twins.xdp.relay._forwarder.table.sessions[session_name()].seats[player.seat]
    value = mirror._maps["seats"].get(struct.pack("<I", mirror._kept[seat].slot))
    assert value is not None
    return value[SEAT.size + 4 : SEAT.size + 10]


def from_mac(mac: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:6] + mac + data[12:]


@pytest.mark.parametrize("kind", [PacketType.DATA, PacketType.PING, PacketType.PONG])
def test_a_replayed_packet_from_another_neighbour_turns_no_traffic(twins: Twins, kind: PacketType) -> None:
    """The attacker is in the same network and has recorded packets whose tags are right."""
    host, player = playing_native(twins)
    assert hop_of(twins, host) == THEIR_MAC
    recorded = []
    for index in range(4):
        recorded.append(host.packet(kind, packets.Ping(bytes(8), index, host.generation).encode(), 1))
        twins.send(host.at, recorded[-1], CLIENT_PORT)
        for data in recorded:
            twins.send(host.at, data, CLIENT_PORT, raw=from_mac(ATTACKER_MAC))
        assert hop_of(twins, host) == THEIR_MAC
    player.send(0, b"still to the host")
    twins.assert_same()
    assert twins.userspace.counters()["drop_replayed"] >= 10


@pytest.mark.parametrize("kind", [PacketType.DATA, PacketType.PING])
def test_a_player_behind_another_router_is_followed(twins: Twins, kind: PacketType) -> None:
    host, _ = playing_native(twins)
    for _ in range(2):
        data = host.packet(kind, packets.Ping(bytes(8), 0, host.generation).encode(), 1)
        twins.send(host.at, data, CLIENT_PORT, raw=from_mac(ATTACKER_MAC))
    assert hop_of(twins, host) == ATTACKER_MAC


def test_a_frame_for_another_machine_is_left_to_the_stack(twins: Twins) -> None:
    """As a switch that floods brings it; the stack throws away what is not for us."""
    _, player = playing_native(twins)
    file = loader.read_object()
    maps = loader.make_maps(file, file.maps_of("front"), 1)
    program = loader.load(file, "front", maps)
    try:
        loopback = 1  # where a test run's packets come from
        maps["macs"].put(struct.pack("<I", loopback), OUR_MAC.ljust(8, b"\0"))
        loader.PortTable(maps["ports"].fd).put(OUR_PORTS[CLIENT_PORT], twins.xdp._programs.relay)
        runner = bpf.Runner(program, 2048)

        def verdict(mac: bytes) -> int:
            sent = Datagram(player.at, Endpoint(SERVER[twins.version], OUR_PORTS[CLIENT_PORT]), player.data(b"x"))
            return runner.run(mac + frame(sent)[6:])[0]

        assert verdict(OUR_MAC) == _TX
        for other in (ATTACKER_MAC, b"\xff" * 6, bytes.fromhex("01005e000001")):
            assert verdict(other) == _PASS
    finally:
        for descriptor in (program, *(it.fd for it in maps.values())):
            os.close(descriptor)
