"""Direct modes that change while players are connected: what the node forwards and announces (PROTOCOL.md 12.6)."""

import pytest

from causeway_client.protocol.packets import NoticeCode, PacketType
from relaynode.core.relay import Relay
from tests.relaynode.core.dialects.test_native_direct_paths import peer, rendezvous
from tests.relaynode.players import (
    NOW,
    NativePlayer,
    connected,
    drops,
    events,
    grant_of,
    grant_with_modes,
    relay_with_modes,
)


@pytest.fixture
def relay() -> Relay:
    return relay_with_modes("direct", "direct", "direct")


@pytest.fixture
def host(relay: Relay) -> NativePlayer:
    return connected(relay, 0)


@pytest.fixture
def player(relay: Relay, host: NativePlayer) -> NativePlayer:
    player = connected(relay, 1)
    for each in (host, player):
        each.shows_that_it_reads()
    return player


def change(relay: Relay, *modes: str, revision: int = 2) -> None:
    relay.apply_grant(grant_with_modes(*modes, revision=revision), NOW)


def test_all_players_are_notified_of_the_modes_of_all_seats(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    change(relay, "ask", "relay_only", "direct")
    sent = relay.datagrams_to_send()
    for each in (host, player):
        (heard,) = [each.read(data) for _, data, addr in sent if addr == each.addr]
        kind, seat, _ = heard
        assert (kind, seat) == (PacketType.NOTICE, each.seat)
    change(relay, "ask", "relay_only", "direct", revision=3)
    assert relay.datagrams_to_send() == [], "nothing has changed"


def test_a_less_strict_mode_is_announced_too(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    change(relay, "relay_only", "direct", "direct")
    ((_, roster),) = host.notices()
    assert (roster.code, roster.relayed, roster.asking) == (NoticeCode.ROSTER, {0}, frozenset())
    change(relay, "direct", "direct", "direct", revision=3)
    relay.handle_timer(NOW + 0.1)
    ((_, roster),) = host.notices()
    assert (roster.code, roster.relayed, roster.asking) == (NoticeCode.ROSTER, frozenset(), frozenset())
    assert player.hears(rendezvous(host, 1)) is not None


def test_a_player_of_mode_ask_has_to_agree_again(relay: Relay, host: NativePlayer, player: NativePlayer) -> None:
    assert player.hears(rendezvous(host, 1)) is not None
    change(relay, "ask", "direct", "direct")
    assert rendezvous(player, 0) is None
    assert drops(relay) == {"direct_not_allowed": 1}


def test_its_rendezvous_count_once_the_player_knows_that_it_is_asked(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    """A RENDEZVOUS that it sent before it learned of its mode is no answer of its game."""
    change(relay, "ask", "direct", "direct")
    assert rendezvous(host, 1) is None
    host.send_raw(host.ping_packet(), NOW)
    assert rendezvous(host, 1) is None, "it has not received the roster yet"
    assert [notice.code for _, notice in host.notices()] == [NoticeCode.ROSTER]
    host.send_raw(host.ping_packet(), NOW)
    assert player.hears(rendezvous(host, 1)) is not None
    assert host.hears(rendezvous(player, 0)) is not None
    assert drops(relay) == {"direct_not_allowed": 2}


def test_a_new_connection_knows_its_mode_from_the_welcome(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    change(relay, "ask", "direct", "direct")
    host.connect()
    assert player.hears(rendezvous(host, 1)) is not None


def test_a_stricter_mode_stops_rendezvous_and_peer_both_ways(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    change(relay, "direct", "relay_only", "direct")
    for send in (rendezvous, peer):
        assert send(host, 1) is send(player, 0) is None
    assert drops(relay) == {"direct_not_allowed": 4}


def test_beside_edgegap_no_mode_is_announced() -> None:
    """Its seats are relay_only, whatever the grant says."""
    relay = Relay(worker=0, config=relay_with_modes("direct").forwarder.config, random=bytes)
    relay.apply_grant(grant_of(2, direct_mode="direct"), NOW)
    relay.apply_grant(grant_of(2, direct_mode="ask", revision=2), NOW)
    assert relay.datagrams_to_send() == []
    assert relay.forwarder.table.sessions[grant_of(2).session].roster_announced is None


def test_the_next_process_of_the_node_waits_for_the_same_confirmation(
    relay: Relay, host: NativePlayer, player: NativePlayer
) -> None:
    """Its answer to a RENDEZVOUS must not depend on when a process was replaced."""
    assert player.hears(rendezvous(host, 1)) is not None
    events(relay)
    change(relay, "ask", "direct", "direct")
    assert (0, "seat_changed", "") in events(relay), "the state of the connection is stored again"
    state = relay.connection_state(host.session, 0)
    assert state is not None
    assert (state["knows_mode"], state["shared_with"]) == (False, [])
