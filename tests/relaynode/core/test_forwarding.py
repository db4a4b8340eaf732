"""Forwarding between seats, and the notices about players who join and leave."""

from typing import Any

import pytest

from causeway_client.protocol.packets import EVERYONE, Notice, NoticeCode, PacketType, decode_notice
from relaynode.core.relay import Relay
from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, connected, drops, grant_of, relay_with


def roster_of(seats: int, **fields: Any) -> Notice:
    """Of a session without direct paths."""
    return Notice(NoticeCode.ROSTER, relayed=frozenset(range(seats)), **fields)


def shows_it_was_welcomed(player: NativePlayer, now: float = NOW) -> None:
    player.send_raw(player.ping_packet(), now)


def test_a_payload_is_delivered_in_the_dialect_of_its_receiver(relay: Relay, host: NativePlayer) -> None:
    source, native, edgegap = (relay.forwarder.table.sessions[host.session].seats[number] for number in (0, 1, 2))
    player, other = connected(relay, 1), EdgegapPlayer(relay, 2)
    other.ping()
    assert player.hears(relay.forwarder.deliver(source, native, b"down", NOW)) == (PacketType.DATA, 0, b"down")
    assert other.hears(relay.forwarder.deliver(source, edgegap, b"down", NOW)) == b"down"


def test_a_seat_without_a_player_is_an_absent_peer(relay: Relay, host: NativePlayer) -> None:
    seats = relay.forwarder.table.sessions[host.session].seats
    assert relay.forwarder.deliver(seats[0], seats[3], b"down", NOW) is None
    assert relay.forwarder.deliver_signal(PacketType.SIGNAL, seats[0], seats[3], b"signal") is None
    assert relay.forwarder.deliver_to_all(seats[0], [], b"down", NOW) is None
    assert drops(relay) == {"peer_absent": 3}
    assert relay.counters.forwarded_packets == 0


def test_a_first_ping_is_answered_with_the_roster_if_it_has_changed_since_the_welcome(
    relay: Relay, host: NativePlayer
) -> None:
    """The host has only sent its CONNECT when seat 1 joins and leaves, and when seat 2 joins."""
    joined, _ = connected(relay, 1), connected(relay, 2)
    joined.send_raw(joined.packet(PacketType.CLOSE, b"\0bye"))
    assert host.collects() == []
    shows_it_was_welcomed(host)
    roster = roster_of(4, generation=host.generation + 3, connected=frozenset({0, 2}))
    assert host.notices() == [(0, roster)]
    shows_it_was_welcomed(host, NOW + 1)
    assert host.notices() == []


def test_a_packet_to_everyone_counts_once_against_the_seats_limit() -> None:
    relay = relay_with(seats=4, limits={"packets": 2, "bytes": 0}, session_limits={"packets": 0, "bytes": 0})
    host, *others = [connected(relay, seat) for seat in range(4)]
    for player in others:
        shows_it_was_welcomed(player)
    for _ in range(3):
        host.send(b"world", EVERYONE)
    assert relay.counters.forwarded_packets == 6
    assert drops(relay) == {"rate_limited": 1}


def test_a_packet_to_everyone_that_nobody_gets_counts_as_one(relay: Relay) -> None:
    relay.apply_grant(grant_of(4, revision=2, limits={"packets": 2, "bytes": 0}), NOW)
    host = connected(relay, 0)
    for _ in range(3):
        host.send(b"anyone?", EVERYONE)
    assert drops(relay) == {"peer_absent": 2, "rate_limited": 1}


def test_an_address_that_only_a_connect_named_gets_no_copies(relay: Relay, host: NativePlayer) -> None:
    """Who holds tokens could name a stranger's address in the CONNECT of each, and have one packet sent there often."""
    for seat in (1, 2):
        NativePlayer(relay, seat, ("203.0.113.9", 53)).connect()
    relay.datagrams_to_send()
    assert host.send(b"x" * 1000, EVERYONE) is None
    assert relay.datagrams_to_send() == []
    assert drops(relay) == {"peer_absent": 1}


def test_others_are_told_of_joins_and_leaves(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    host.shows_that_it_reads()
    player.shows_that_it_reads()
    other = NativePlayer(relay, 2)
    assert other.connect().roster == {0, 1, 2}
    notices = relay.datagrams_to_send()
    joined = Notice(NoticeCode.JOINED, generation=other.generation)
    assert host.hears(notices[0]) == (PacketType.NOTICE, 2, joined.encode())
    assert player.hears(notices[1]) == (PacketType.NOTICE, 2, joined.encode())
    EdgegapPlayer(relay, 3).ping()
    assert host.notices() == [(3, Notice(NoticeCode.JOINED, generation=other.generation + 1))]
    other.send_raw(other.packet(PacketType.CLOSE, b"\0bye"))
    assert host.notices() == [(2, Notice(NoticeCode.LEFT, generation=other.generation + 2))]
    assert host.generation == other.generation + 2


def test_over_quota_is_said_once_a_second() -> None:
    relay = relay_with(limits={"packets": 10, "bytes": 0})
    connected(relay, 0)
    player = connected(relay, 1)
    relay.datagrams_to_send()
    for index in range(150):
        player.send(b"fast", now=NOW + 1 + index * 0.011)
    assert player.collects() == [(PacketType.NOTICE, 1, Notice(NoticeCode.OVER_QUOTA).encode())] * 2


# -- the roster


def ping(player: NativePlayer, now: float) -> None:
    assert player.send_raw(player.ping_packet(), now) is not None


def test_a_lost_notice_is_repaired_at_the_next_ping(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    """The host receives none of the notices that seat 2 joined, that seat 1 left, and that seat 3 was removed."""
    host.shows_that_it_reads()
    connected(relay, 2)
    player.send_raw(player.packet(PacketType.CLOSE, b"\0bye"))
    relay.apply_grant(grant_of(4, revision=2, revoked={3}), NOW)
    relay.datagrams_to_send()
    before = host.generation
    ping(host, NOW + 1)
    generation = (before + 3) & 0xFFFFFFFF
    roster = roster_of(4, generation=generation, connected=frozenset({0, 2}), removed=frozenset({3}))
    assert host.notices() == [(0, roster)]
    ping(host, NOW + 2)
    assert host.notices() == []


def test_the_roster_is_sent_at_most_once_in_a_fifth_of_a_second(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    sent = []
    for tick in range(100):
        host.generation = 5
        ping(host, NOW + 1 + tick / 100)
        sent += [notice.code for _, notice in host.notices()]
    assert sent == [NoticeCode.ROSTER] * 5


def test_every_change_of_the_roster_is_one_generation(relay: Relay, host: NativePlayer) -> None:
    host.shows_that_it_reads()
    session = relay.forwarder.table.sessions[host.session]
    session.roster_generation = host.generation = 0xFFFFFFFE
    generations = []
    for seat in (1, 2, 1):  # the last one connects again: nothing changes
        connected_again = NativePlayer(relay, seat)
        connected_again.timestamp += len(generations)
        generations.append(connected_again.connect().roster_generation)
    connected_again.send_raw(connected_again.packet(PacketType.CLOSE, b"\0bye"))
    generations.append(session.roster_generation)
    relay.apply_grant(grant_of(4, revision=2, revoked={2}), NOW)
    generations.append(session.roster_generation)
    assert generations == [0xFFFFFFFF, 0, 0, 1, 2]
    assert host.generation == 0xFFFFFFFE
    host.collects()
    assert host.generation == 2


def copies(relay: Relay, player: NativePlayer, until: float) -> list[tuple[float, bytes]]:
    """(when, datagram) of the notices that the relay sends to a player from NOW on, driven by its own timer."""
    sent, now = [], NOW
    while now <= until:
        relay.handle_timer(now)
        mine = [data for _, data, addr in relay.datagrams_to_send() if addr == player.addr]
        sent += [(round(now - NOW, 1), data) for data in mine if data[0] == PacketType.NOTICE]
        at = relay.next_timer()
        assert at is not None
        now = max(at, now + 0.001)
    return sent


def rosters(relay: Relay, player: NativePlayer, until: float) -> list[tuple[float, Notice]]:
    """(when, roster) of each one that the relay sends to a player; `read` refuses a copy of the same packet."""
    read = [(at, decode_notice(player.read(data)[2])) for at, data in copies(relay, player, until)]
    return [(at, notice) for at, notice in read if notice.code == NoticeCode.ROSTER]


def test_a_removal_is_announced_three_times_by_the_roster(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    host.shows_that_it_reads()
    relay.apply_grant(grant_of(4, revision=2, revoked={1}), NOW)
    roster = roster_of(4, generation=host.generation + 1, connected=frozenset({0}), removed=frozenset({1}))
    assert rosters(relay, host, NOW + 1) == [(0.0, roster), (0.1, roster), (0.3, roster)]


def test_a_seat_without_a_player_is_removed_as_well(relay: Relay, host: NativePlayer) -> None:
    """Its player may have lost the node only, and be on a direct path to the host."""
    host.shows_that_it_reads()
    relay.apply_grant(grant_of(4, revision=2, revoked={3}), NOW)
    assert [(notice.code, notice.removed) for _, notice in host.notices()] == [(NoticeCode.ROSTER, {3})]
    relay.apply_grant(grant_of(4, revision=3, revoked={3}), NOW)
    assert host.notices() == []


@pytest.mark.parametrize("grants", [1, 100])
def test_the_removal_of_many_players_costs_the_others_a_bounded_number_of_packets(grants: int) -> None:
    """100 of 200 players, removed by one grant or by one each, within half a second."""
    relay = relay_with(seats=200)
    players = [connected(relay, seat) for seat in range(200)]
    for player in players:
        player.shows_that_it_reads()
    sent: dict[object, int] = {}
    for index in range(100):
        now, removed = NOW + index / 200, 100 if grants == 1 else index + 1
        if index < grants:
            relay.apply_grant(grant_of(200, revision=index + 2, revoked=set(range(removed))), now)
        relay.handle_timer(now)
        count(relay, sent)
    for tick in range(10):
        relay.handle_timer(NOW + 0.5 + tick / 10)
        count(relay, sent)
    remaining = [sent[player.addr] for player in players[100:]]
    assert max(remaining) == 3 if grants == 1 else max(remaining) <= 8
    assert {sent[player.addr] for player in players[:100]} <= set(range(3, 12))
    assert relay.forwarder.table.sessions[players[0].session].roster_announced is None


def count(relay: Relay, sent: dict[object, int]) -> None:
    for _, _, addr in relay.datagrams_to_send():
        sent[addr] = sent.get(addr, 0) + 1


def test_a_change_during_an_announcement_is_announced_three_times_too(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    host.shows_that_it_reads()
    relay.apply_grant(grant_of(4, revision=2, revoked={1}), NOW)
    relay.apply_grant(grant_of(4, revision=3, revoked={1, 2}), NOW + 0.01)
    found = [(at, notice.removed) for at, notice in rosters(relay, host, NOW + 1)]
    assert found == [(0.0, {1}), (0.1, {1, 2}), (0.2, {1, 2}), (0.4, {1, 2})]


def test_an_announcement_ends_with_its_session(relay: Relay, host: NativePlayer) -> None:
    host.shows_that_it_reads()
    relay.apply_grant(grant_of(4, revision=2, revoked={1}), NOW)
    relay.datagrams_to_send()
    relay.end_session(host.session, "deleted", NOW)
    assert {decode_notice(host.read(data)[2]).code for _, data in copies(relay, host, NOW + 1)[:1]} == {
        NoticeCode.ENDED
    }


@pytest.mark.parametrize("code", [NoticeCode.REVOKED, NoticeCode.ENDED])
def test_the_last_notice_of_a_connection_is_sent_three_times(
    relay: Relay, host: NativePlayer, player: NativePlayer, code: NoticeCode
) -> None:
    if code is NoticeCode.REVOKED:
        relay.apply_grant(grant_of(4, revision=2, revoked={1}), NOW)
    else:
        relay.end_session(player.session, "deleted", NOW)
    sent = copies(relay, player, NOW + 1)
    assert [at for at, _ in sent] == [0.0, 0.1, 0.3]
    assert len({data for _, data in sent}) == 1
    text = "deleted" if code is NoticeCode.ENDED else ""
    assert player.read(sent[0][1]) == (PacketType.NOTICE, 1, Notice(code, text).encode())


def test_other_notices_are_sent_once(relay: Relay, host: NativePlayer) -> None:
    host.shows_that_it_reads()
    joined = connected(relay, 1)
    joined.send_raw(joined.packet(PacketType.CLOSE, b"\0bye"))
    assert [at for at, _ in copies(relay, host, NOW + 1)] == [0.0, 0.0]
