"""What a node does for direct paths: it forwards RENDEZVOUS and PEER where the topology and the direct modes permit it,
and adds the addresses at which a player has proved to receive (PROTOCOL.md 9 and 12)."""

import ipaddress
import itertools
from dataclasses import replace
from typing import Any

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.packets import EVERYONE, PATH_IS_SECOND, PATH_MOVES, DirectMode, NoticeCode, PacketType
from causeway_client.protocol.paths.rendezvous import Candidate, CandidateKind, Rendezvous, decode_rendezvous
from causeway_client.protocol.paths.reports import PathKind, PathReason, PathReport, encode_reports
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Outgoing, Relay
from tests.relaynode.players import (
    NOW,
    NativePlayer,
    connected,
    drops,
    events,
    grant_of,
    grant_with_modes,
    relay_with,
    relay_with_modes,
)

SECRET = bytes(range(16))
RENDEZVOUS = Rendezvous(
    round=1,
    acknowledged=0,
    sequence=7,
    nonce=b"n" * 16,
    candidates=(Candidate(CandidateKind.HOST, "10.0.0.2", 5000), Candidate(CandidateKind.HOST, "fd00::2", 5000)),
)
IPV6_PLACE = ("2001:db8::7", 7777)


def rendezvous(source: NativePlayer, target: int, made: Rendezvous = RENDEZVOUS, now: float = NOW) -> Outgoing | None:
    body = made.encode(SECRET, source.seat, target)
    return source.send_raw(source.packet(PacketType.RENDEZVOUS, body, target), now)


def peer(source: NativePlayer, target: int) -> Outgoing | None:
    return source.send_raw(source.packet(PacketType.PEER, b"a packet of the pair", target))


def observed(source: NativePlayer, target: NativePlayer, outgoing: Outgoing | None) -> list[tuple[str, int]]:
    """The addresses that the node has added to what `source` sent, which is otherwise unchanged."""
    read = target.hears(outgoing)
    assert read is not None
    kind, seat, body = read
    assert (kind, seat) == (PacketType.RENDEZVOUS, source.seat)
    received, addresses = decode_rendezvous(body, SECRET, source.seat, target.seat)
    assert received == RENDEZVOUS
    return addresses


def at(player: NativePlayer, place: tuple[str, int]) -> NativePlayer:
    """The same connection, now from another address."""
    moved = NativePlayer(player.relay, player.seat)
    vars(moved).update(vars(player) | {"addr": place})
    return moved


def attest(player: NativePlayer, place: tuple[str, int], purpose: bytes, now: float = NOW + 1) -> None:
    """A PING from another address, and the answer to the node's challenge."""
    there = at(player, place)
    there.send_raw(there.ping_packet(), now)
    (challenge,) = [body for kind, _, body in there.collects() if kind == PacketType.PATH_CHALLENGE]
    assert there.send_raw(there.packet(PacketType.PATH_RESPONSE, challenge + purpose), now) is None
    player.sequence = there.sequence


@pytest.fixture
def relay() -> Relay:
    """Everyone permits direct paths. The host and two players are connected."""
    return relay_with_modes("direct", "direct", "direct", "direct")


@pytest.fixture
def other(relay: Relay, player: NativePlayer) -> NativePlayer:
    return connected(relay, 2)


# -- RENDEZVOUS


def test_the_node_adds_where_it_sees_the_sender(host: NativePlayer, player: NativePlayer) -> None:
    assert observed(player, host, rendezvous(player, 0)) == [player.addr]
    assert observed(host, player, rendezvous(host, 1)) == [host.addr]


@pytest.mark.parametrize(
    ("place", "seen"),
    [(("::ffff:192.0.2.44", 4444, 0, 0), ("192.0.2.44", 4444)), (("2001:db8::9", 9, 0, 0), ("2001:db8::9", 9))],
)
def test_an_address_is_added_in_its_own_family(host: NativePlayer, relay: Relay, place: Any, seen: Any) -> None:
    player = NativePlayer(relay, 1, place)
    player.connect()
    assert observed(player, host, rendezvous(player, 0)) == [seen]


BODY = RENDEZVOUS.encode(SECRET, 1, 0)
CERTIFIED = replace(RENDEZVOUS, certificate=bytes(32)).encode(SECRET, 1, 0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed"),
        (BODY[:40], "malformed"),
        (BODY[:-1], "malformed"),
        (BODY + b"\0", "malformed"),
        (b"\2" + BODY[1:], "unsupported_version"),
        (BODY[:32] + b"\x03" + BODY[33:], "malformed"),
        (BODY[:32] + b"\x0d" + bytes([0x14, *bytes(6)]) * 13 + bytes(8), "malformed"),
        (BODY[:33] + b"\x15" + BODY[34:], "malformed"),
        (CERTIFIED[:-1], "malformed"),
        (BODY[:1] + b"\1" + BODY[2:], "malformed"),
    ],
    ids=[
        "empty",
        "short head",
        "short tag",
        "longer",
        "another version",
        "a candidate too few",
        "13 candidates",
        "unknown family",
        "short certificate",
        "no certificate",
    ],
)
def test_a_rendezvous_of_another_layout_is_dropped(
    relay: Relay, host: NativePlayer, player: NativePlayer, body: bytes, reason: str
) -> None:
    assert player.send_raw(player.packet(PacketType.RENDEZVOUS, body, 0)) is None
    assert drops(relay) == {reason: 1}


@pytest.mark.parametrize("claimed", ["one address", "none"])
def test_a_player_cannot_add_observed_addresses_itself(
    relay: Relay, host: NativePlayer, player: NativePlayer, claimed: str
) -> None:
    forged = bytes((1, 4)) + bytes((192, 0, 2, 66)) + bytes(2) if claimed == "one address" else b"\0"
    assert player.send_raw(player.packet(PacketType.RENDEZVOUS, BODY + forged, 0)) is None
    assert drops(relay) == {"malformed": 1}


@pytest.mark.parametrize("body", [BODY, CERTIFIED])
def test_the_longest_and_the_certified_rendezvous_are_forwarded(
    host: NativePlayer, player: NativePlayer, body: bytes
) -> None:
    outgoing = player.send_raw(player.packet(PacketType.RENDEZVOUS, body, 0))
    assert outgoing is not None
    assert len(outgoing[1]) == len(body) + packets.OVERHEAD + 8


@pytest.mark.parametrize("send", [rendezvous, peer])
def test_it_goes_where_the_topology_lets_data_go(
    relay: Relay, host: NativePlayer, player: NativePlayer, other: NativePlayer, send: Any
) -> None:
    assert host.hears(send(player, 0)) and player.hears(send(host, 1)) and other.hears(send(host, 2))
    for source, target in ((player, 2), (other, 1), (player, 1), (host, 0), (player, EVERYONE), (host, EVERYONE)):
        assert send(source, target) is None
    assert drops(relay) == {"not_allowed": 6}


@pytest.mark.parametrize("send", [rendezvous, peer])
def test_in_a_mesh_it_goes_between_any_two_seats(send: Any) -> None:
    relay = relay_with_modes("direct", "direct", "direct", topology="mesh")
    players = [connected(relay, seat) for seat in range(3)]
    for source, target in itertools.permutations(players, 2):
        assert target.hears(send(source, target.seat))
    assert drops(relay) == {}


@pytest.mark.parametrize("send", [rendezvous, peer])
def test_a_seat_that_is_not_there_is_an_absent_peer(relay: Relay, host: NativePlayer, send: Any) -> None:
    assert send(host, 3) is send(host, 77) is None
    assert drops(relay) == {"peer_absent": 2}


@pytest.mark.parametrize("send", [rendezvous, peer])
def test_it_counts_against_the_limits(send: Any) -> None:
    relay = relay_with_modes("direct", "direct", limits={"packets": 2, "bytes": 0})
    host, player = connected(relay, 0), connected(relay, 1)
    assert [host.hears(send(player, 0)) is not None for _ in range(4)] == [True, True, False, False]
    assert drops(relay) == {"rate_limited": 2}
    assert [notice.code for _, notice in player.notices()] == [NoticeCode.OVER_QUOTA]


def test_a_peer_packet_is_forwarded_unread(host: NativePlayer, player: NativePlayer) -> None:
    assert host.hears(peer(player, 0)) == (PacketType.PEER, 1, b"a packet of the pair")


# -- direct modes

MODES = ("relay_only", "ask", "direct")


@pytest.mark.parametrize(("mine", "theirs"), itertools.product(MODES, repeat=2))
def test_the_strictest_mode_of_the_two_holds(mine: str, theirs: str) -> None:
    """Both send two, in turn: a player of mode "ask" receives none before it has sent one itself."""
    relay = relay_with_modes(mine, theirs)
    host, player = connected(relay, 0), connected(relay, 1)
    turns = [(host, player), (player, host)] * 2
    passed = [target.hears(rendezvous(source, target.seat)) is not None for source, target in turns]
    if "relay_only" in (mine, theirs):
        assert passed == [False] * 4
    else:
        assert passed == [theirs != "ask", True, True, True]
    assert drops(relay).get("direct_not_allowed", 0) == passed.count(False)


@pytest.mark.parametrize(("mine", "theirs"), itertools.product(MODES, repeat=2))
def test_peer_packets_pass_where_a_rendezvous_may(mine: str, theirs: str) -> None:
    relay = relay_with_modes(mine, theirs)
    host, player = connected(relay, 0), connected(relay, 1)
    is_allowed = "relay_only" not in (mine, theirs)
    assert (host.hears(peer(player, 0)) is not None) is is_allowed
    assert drops(relay) == ({} if is_allowed else {"direct_not_allowed": 1})


def test_what_a_player_has_agreed_to_holds_for_that_peer_and_for_its_connection(relay: Relay) -> None:
    relay.apply_grant(grant_with_modes("ask", "direct", "direct", "direct", revision=2), NOW)
    host, player, other = (connected(relay, seat) for seat in range(3))
    assert player.hears(rendezvous(host, 1)) is not None
    assert host.hears(rendezvous(player, 0)) is not None
    assert rendezvous(other, 0) is None
    host.connect()
    assert rendezvous(player, 0) is None, "its game has agreed on the connection before"
    assert drops(relay) == {"direct_not_allowed": 2}


def test_a_rendezvous_to_a_player_who_connects_later_is_remembered_as_an_agreement() -> None:
    relay = relay_with_modes("ask", "direct")
    host = connected(relay, 0)
    assert rendezvous(host, 1) is None
    player = connected(relay, 1)
    assert host.hears(rendezvous(player, 0)) is not None
    assert drops(relay) == {"peer_absent": 1}


def test_a_later_grant_changes_the_mode_at_once(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    assert host.hears(rendezvous(player, 0)) is not None
    relay.apply_grant(grant_with_modes("direct", "relay_only", "direct", "direct", revision=2), NOW)
    assert rendezvous(player, 0) is rendezvous(host, 1) is peer(player, 0) is None
    assert drops(relay) == {"direct_not_allowed": 3}


@pytest.mark.parametrize("mode", MODES)
def test_a_welcome_has_the_mode_of_the_seat(mode: str) -> None:
    welcome = connected(relay_with_modes("direct", mode), 1).welcome
    assert welcome is not None and welcome.is_sequenced
    assert welcome.direct_mode.name.lower() == mode


def test_in_a_session_that_admits_edgegap_there_are_no_direct_paths() -> None:
    relay = relay_with(direct_mode="direct")
    host, player = connected(relay, 0), connected(relay, 1)
    assert player.welcome is not None and not player.welcome.is_sequenced
    assert player.welcome.direct_mode is DirectMode.RELAY_ONLY
    assert rendezvous(player, 0) is rendezvous(host, 1) is peer(player, 0) is None
    assert drops(relay) == {"direct_not_allowed": 3}


def test_a_player_of_mode_relay_only_receives_no_byte_of_an_address_of_another() -> None:
    """The others exchange all that they can, move, attest second addresses, leave, and report their paths."""
    relay = relay_with_modes("relay_only", "direct", "ask", "direct", topology="mesh")
    places = [("203.0.113.9", 40_009), ("198.51.100.81", 40_081), ("192.0.2.201", 40_201), ("2001:db8:5::5", 40_005)]
    players = [NativePlayer(relay, seat, place) for seat, place in enumerate(places)]
    received: list[bytes] = []

    def collect(outgoing: Outgoing | None) -> None:
        sent = [*([outgoing] if outgoing else []), *relay.datagrams_to_send()]
        received.extend(data for _, data, addr in sent if addr == places[0])

    for player in players:
        player.connect()
    for step, (source, target) in enumerate(list(itertools.permutations(players, 2)) * 2):
        now = NOW + step
        collect(source.send_raw(source.ping_packet(), now))
        collect(rendezvous(source, target.seat, now=now))
        collect(peer(source, target.seat))
        collect(source.send(b"data", EVERYONE, now))
        collect(source.send_raw(source.packet(PacketType.SIGNAL, b"signal", target.seat), now))
        reports = [PathReport(target.seat, PathKind.IPV4, PathReason.BETTER, 0.0, 1, 2, 3, 4)]
        collect(source.send_raw(source.packet(PacketType.PATH_REPORT, encode_reports(reports)), now))
    attest(players[1], IPV6_PLACE, PATH_IS_SECOND, NOW + 30)
    attest(players[3], ("198.51.100.99", 9), PATH_MOVES, NOW + 31)
    collect(None)
    collect(rendezvous(players[1], 0, now=NOW + 32))
    relay.handle_timer(NOW + 60)
    collect(None)
    kinds = {data[0] for data in received}
    assert {PacketType.DATA, PacketType.SIGNAL, PacketType.PONG, PacketType.NOTICE} <= kinds
    assert not kinds & {PacketType.RENDEZVOUS, PacketType.PEER}
    everything = b"".join(received)
    for ip, port in [*places[1:], IPV6_PLACE, ("198.51.100.99", 9), ("10.0.0.2", 5000)]:
        assert ipaddress.ip_address(ip).packed not in everything, f"{ip}:{port}"


# -- a second address


def test_a_second_address_is_added_once_it_is_attested_and_nothing_is_sent_there(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    attest(player, IPV6_PLACE, PATH_IS_SECOND)
    assert events(relay) == [(1, "seat_changed", "")]  # for the state that a successor needs
    assert observed(player, host, rendezvous(player, 0)) == [player.addr, IPV6_PLACE]
    assert player.hears(host.send(b"down", 1)) == (PacketType.DATA, 0, b"down")


def test_an_address_from_which_a_player_only_sends_is_not_added(host: NativePlayer, player: NativePlayer) -> None:
    elsewhere = at(player, IPV6_PLACE)
    assert observed(player, host, rendezvous(elsewhere, 0, now=NOW + 1)) == [player.addr]


@pytest.mark.parametrize("purpose", [b"", b"\2", b"\1\0"])
def test_a_response_without_a_known_purpose_proves_nothing(
    relay: Relay, host: NativePlayer, player: NativePlayer, purpose: bytes
) -> None:
    attest(player, IPV6_PLACE, purpose)
    assert drops(relay) == {"malformed": 1}
    assert events(relay) == []
    assert observed(player, host, rendezvous(player, 0)) == [player.addr]


def test_another_second_address_replaces_the_first(host: NativePlayer, player: NativePlayer) -> None:
    attest(player, ("2001:db8::6", 6666), PATH_IS_SECOND)
    attest(player, IPV6_PLACE, PATH_IS_SECOND, NOW + 2)
    assert observed(player, host, rendezvous(player, 0)) == [player.addr, IPV6_PLACE]


def test_a_player_who_moves_to_its_second_address_has_one_address(host: NativePlayer, player: NativePlayer) -> None:
    attest(player, IPV6_PLACE, PATH_IS_SECOND)
    attest(player, IPV6_PLACE, PATH_MOVES, NOW + 2)
    assert observed(player, host, rendezvous(player, 0)) == [IPV6_PLACE]


def test_a_new_connection_has_no_second_address(host: NativePlayer, player: NativePlayer) -> None:
    attest(player, IPV6_PLACE, PATH_IS_SECOND)
    player.connect(now=NOW + 2)
    assert observed(player, host, rendezvous(player, 0)) == [player.addr]


# -- PATH_REPORT


def report(seat: int, **changes: Any) -> PathReport:
    return replace(PathReport(seat, PathKind.IPV4, PathReason.FIRST_PATH, 0.2, 25_000, 40_500, 100, 20_000), **changes)


def send_reports(player: NativePlayer, *reports: PathReport, now: float = NOW) -> None:
    assert player.send_raw(player.packet(PacketType.PATH_REPORT, encode_reports(reports)), now) is None


def test_reports_wait_for_the_manager_and_are_given_to_it_once(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    send_reports(player, report(0))
    (quality,) = relay.paths(10)
    assert (quality.session, quality.seat, quality.peer) == ("3960c873aafd-S", 1, 0)
    assert (quality.path, quality.reason, quality.rtt_ms, quality.relay_rtt_ms) == ("ipv4", "first_path", 25.0, 40.5)
    assert (quality.loss, quality.packets, quality.bytes) == (0.2, 100, 20_000)
    assert relay.paths(10) == []


def test_reports_about_other_seats_than_those_of_the_session_are_ignored(relay: Relay, player: NativePlayer) -> None:
    send_reports(player, report(1), report(77), report(254), report(3))
    assert [quality.peer for quality in relay.paths(10)] == [3]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1" + bytes(19),
        b"\1" + bytes(21),
        b"\x21" + bytes(20) * 33,
        b"\1\xff" + bytes(19),
        b"\1\0\5" + bytes(18),
        b"\1\0\0\x09" + bytes(17),
    ],
    ids=["empty", "short", "long", "33 reports", "seat 255", "unknown path", "unknown reason"],
)
def test_a_report_of_another_layout_is_dropped(relay: Relay, player: NativePlayer, body: bytes) -> None:
    player.send_raw(player.packet(PacketType.PATH_REPORT, body))
    assert drops(relay) == {"malformed": 1}
    assert relay.paths(10) == []


def test_reports_are_limited_to_five_per_second_after_a_burst_of_ten(relay: Relay, player: NativePlayer) -> None:
    for step in range(100):
        send_reports(player, report(0, packets=1), now=NOW + 1 + step / 100)
    accepted = relay.paths(10)[0].packets
    assert 14 <= accepted <= 15
    assert drops(relay) == {"rate_limited": 100 - accepted}


def test_reports_keep_a_session_whose_players_use_direct_paths_only(relay: Relay, player: NativePlayer) -> None:
    for second in range(0, 600, 5):
        send_reports(player, report(0), now=NOW + second)
        relay.handle_timer(NOW + second)
    assert relay.stats() == {"sessions": 1, "seats": 4, "connected": 1}


# -- sequenced DATA, and sizes


def test_the_end_to_end_sequence_is_forwarded_unread(host: NativePlayer, player: NativePlayer) -> None:
    body = b"\xff\xff\xff\xff" + b"payload"
    assert host.hears(player.send(body)) == (PacketType.DATA, 1, body)


@pytest.mark.parametrize("kind", [PacketType.DATA, PacketType.SIGNAL, PacketType.PEER])
def test_datagrams_of_1232_bytes_pass_in_a_session_without_edgegap(
    relay: Relay, host: NativePlayer, player: NativePlayer, kind: PacketType
) -> None:
    body = bytes(packets.MAX_DATAGRAM - packets.OVERHEAD)
    outgoing = player.send_raw(player.packet(kind, body, 0))
    assert outgoing is not None and len(outgoing[1]) == 1232
    assert host.hears(outgoing) == (kind, 1, body)
    assert player.send_raw(player.packet(kind, body + b"x", 0)) is None
    assert drops(relay) == {"too_long": 1}


@pytest.mark.parametrize("kind", [PacketType.DATA, PacketType.SIGNAL])
def test_datagrams_of_1200_bytes_pass_where_edgegap_is_admitted(kind: PacketType) -> None:
    relay = relay_with()
    host, player = connected(relay, 0), connected(relay, 1)
    body = bytes(packets.MAX_DATAGRAM_BESIDE_EDGEGAP - packets.OVERHEAD)
    assert host.hears(player.send_raw(player.packet(kind, body, 0))) == (kind, 1, body)
    too_long = player.packet(kind, body + b"x", 0)
    assert player.send_raw(too_long) is player.send_raw(too_long) is None
    assert drops(relay) == {"too_long": 1, "replayed": 1}


def test_a_welcome_has_all_that_direct_paths_need() -> None:
    relay = relay_with_modes("direct", "direct", direct_grace=90)
    player = NativePlayer(relay, 1)
    for player.port, second in ((SERVER_PORT, 31_001), (CLIENT_PORT, 31_000)):
        welcome = player.connect()
        assert (welcome.second_port, welcome.direct_grace, welcome.max_payload) == (second, 90, 1210)
        assert (welcome.expires, welcome.epoch, welcome.is_standby) == (int(NOW + 3600), 0, False)
    other = connected(relay, 0)
    assert other.welcome is not None and player.welcome is not None
    assert other.welcome.roster_generation == player.welcome.roster_generation + 1


def test_the_grant_of_a_session_with_edgegap_has_no_mode_for_a_player(relay: Relay) -> None:
    relay.apply_grant(grant_of(2, session="00000000000a-S", token=5, tokens=[7, 9]), NOW)
    player = NativePlayer(relay, 1)
    welcome = player.connect(player.connect_packet(player.token(session="00000000000a-S")))
    assert (welcome.max_payload, welcome.is_sequenced) == (1182, False)
