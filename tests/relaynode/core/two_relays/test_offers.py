"""OFFERs: who receives one, how often, and for how long (PROTOCOL.md 14.6)."""

import base64
import itertools
import json
import os
from typing import Any

import pytest

from causeway_client.protocol.offers import Offer, OfferAck, OfferKind, decode_offer
from causeway_client.protocol.packets import PacketType
from relaynode.core.grants import GrantRefused
from relaynode.core.relay import Relay, RelayConfig
from relaynode.core.two_relays import offers
from relaynode.core.two_relays.offers import BATCH, INTERVAL, MAX_COPIES
from tests.relaynode.players import (
    KEY_ID,
    NOW,
    SESSION,
    TOKEN_KEY,
    NativePlayer,
    connected,
    drops,
    grant_of,
    relay_with,
)

TOKEN = bytes(range(120))
STANDBY: dict[str, Any] = {
    "id": 7,
    "kind": "standby",
    "ip": "203.0.113.9",
    "port": 31001,
    "token": base64.urlsafe_b64encode(TOKEN).decode(),
    "second_ip": "2001:db8::9",
    "deadline_ms": 0,
}
MOVE = STANDBY | {"id": 8, "kind": "move", "second_ip": "", "deadline_ms": 5000}
NATIVE = {"dialects": ["native"], "topology": "mesh"}


@pytest.fixture
def relay() -> Relay:
    return relay_with(3, **NATIVE)


@pytest.fixture
def player(relay: Relay) -> NativePlayer:
    return joined(relay, 1)


def joined(relay: Relay, seat: int, now: float = NOW) -> NativePlayer:
    player = NativePlayer(relay, seat)
    player.timestamp = int(now * 1e6)
    player.connect(now=now)
    player.shows_that_it_reads(now)
    return player


def grant(relay: Relay, offer: dict[str, Any] | None, revision: int = 2, now: float = NOW, seat: int = 1) -> None:
    offered = {} if offer is None else {seat: offer}
    relay.apply_grant(grant_of(3, revision=revision, offers=offered, **NATIVE), now)


def received(relay: Relay, player: NativePlayer, until: float, now: float = NOW) -> list[tuple[float, Offer]]:
    """(seconds after NOW, OFFER) of each one that the player gets; timers run when they are due."""
    found = []
    while True:
        for kind, seat, body in player.collects():
            if kind == PacketType.OFFER:
                assert seat == 0
                found.append((round(now - NOW, 1), decode_offer(body)))
        due = relay.next_timer()
        if due is None or due > until:
            return found
        now = due
        relay.handle_timer(now)


def acknowledge(player: NativePlayer, number: int, now: float = NOW, *, is_accepted: bool = True) -> None:
    assert player.send_raw(player.packet(PacketType.OFFER_ACK, OfferAck(number, is_accepted).encode()), now) is None


def ping(player: NativePlayer, now: float) -> None:
    player.send_raw(player.ping_packet(), now)


def counts(relay: Relay) -> dict[str, int]:
    return {name: count for name, count in relay.counters.as_dict().items() if "offer" in name and count}


def test_a_connected_player_gets_the_offer_of_its_grant(relay: Relay, player: NativePlayer) -> None:
    grant(relay, STANDBY)
    ((at, offer),) = received(relay, player, NOW + 0.3)
    assert at <= 0.1
    assert offer == Offer(7, OfferKind.STANDBY, 0, "203.0.113.9", "2001:db8::9", 31001, TOKEN)
    assert counts(relay) == {"answer_offer": 1}


def test_it_is_repeated_until_it_is_acknowledged(relay: Relay, player: NativePlayer) -> None:
    grant(relay, STANDBY)
    before = received(relay, player, NOW + 1.3)
    assert len(before) == 3
    acknowledge(player, 7, NOW + 1.3)
    assert received(relay, player, NOW + 4, NOW + 1.3) == []
    ping(player, NOW + 4)
    assert received(relay, player, NOW + 6, NOW + 4) == []
    assert counts(relay) == {"answer_offer": 3, "offer_accepted": 1}


def test_it_is_sent_a_limited_number_of_times_on_a_connection(relay: Relay, player: NativePlayer) -> None:
    grant(relay, STANDBY)
    found = []
    for second in range(1, 31):
        found += received(relay, player, NOW + second, NOW + second - 1)
        ping(player, NOW + second)
    times = [at for at, _ in found]
    assert len(times) == MAX_COPIES
    assert all(INTERVAL - 0.01 <= later - at <= INTERVAL + 0.11 for at, later in itertools.pairwise(times))


def test_a_player_that_connects_later_gets_what_is_left_of_the_deadline(relay: Relay) -> None:
    grant(relay, MOVE)
    late = joined(relay, 1, NOW + 2)
    ping(late, NOW + 2)
    ((_, first), (_, second)) = received(relay, late, NOW + 2.7, NOW + 2)
    assert (first.id, first.kind, first.second_ip) == (8, OfferKind.MOVE, "")
    assert 2800 <= first.deadline <= 3000
    assert second.deadline < first.deadline
    received(relay, late, NOW + 9)
    again = joined(relay, 1, NOW + 9)
    assert {offer.deadline for _, offer in received(relay, again, NOW + 10, NOW + 9)} == {0}


def test_a_new_connection_begins_again_and_an_acknowledged_offer_does_not(relay: Relay, player: NativePlayer) -> None:
    grant(relay, STANDBY)
    assert len(received(relay, player, NOW + 0.2)) == 1
    again = joined(relay, 1, NOW + 0.3)
    ping(again, NOW + 0.3)
    assert len(received(relay, again, NOW + 10.2, NOW + 0.3)) == MAX_COPIES
    acknowledge(again, 7, NOW + 10.2, is_accepted=False)
    last = joined(relay, 1, NOW + 12)
    ping(last, NOW + 12)
    assert received(relay, last, NOW + 14, NOW + 12) == []
    assert counts(relay)["offer_not_accepted"] == 1


def test_nothing_is_sent_to_an_address_that_is_not_verified(relay: Relay) -> None:
    """The source address of a CONNECT may be forged."""
    player = connected(relay, 1)
    grant(relay, STANDBY)
    assert received(relay, player, NOW + 3) == []
    ping(player, NOW + 3)
    assert len(received(relay, player, NOW + 3.2, NOW + 3)) == 1


def test_a_later_offer_replaces_the_earlier_one(relay: Relay, player: NativePlayer) -> None:
    grant(relay, STANDBY)
    received(relay, player, NOW + 0.2)
    grant(relay, MOVE, revision=3, now=NOW + 0.2)
    assert {offer.id for _, offer in received(relay, player, NOW + 2, NOW + 0.2)} == {8}
    acknowledge(player, 7, NOW + 2)
    assert received(relay, player, NOW + 2.7, NOW + 2), "the earlier one was acknowledged"
    acknowledge(player, 8, NOW + 2.7)
    assert received(relay, player, NOW + 5, NOW + 2.7) == []


def test_a_withdrawn_offer_is_not_sent_any_more(relay: Relay, player: NativePlayer) -> None:
    grant(relay, STANDBY)
    assert len(received(relay, player, NOW + 0.2)) == 1
    grant(relay, None, revision=3, now=NOW + 0.2)
    assert received(relay, player, NOW + 3, NOW + 0.2) == []


def test_a_revision_with_the_same_offer_changes_nothing(relay: Relay, player: NativePlayer) -> None:
    grant(relay, MOVE)
    received(relay, player, NOW + 3)
    grant(relay, MOVE, revision=3, now=NOW + 3)
    assert all(offer.deadline <= 2000 for _, offer in received(relay, player, NOW + 4, NOW + 3))
    acknowledge(player, 8, NOW + 4)
    grant(relay, MOVE, revision=4, now=NOW + 4)
    assert received(relay, player, NOW + 6, NOW + 4) == []
    assert counts(relay)["offer_accepted"] == 1


def test_a_session_that_admits_edgegap_has_no_offers() -> None:
    relay = relay_with(3, topology="mesh")
    player = joined(relay, 1)
    relay.apply_grant(grant_of(3, revision=2, topology="mesh", offers={1: STANDBY}), NOW)
    assert received(relay, player, NOW + 2) == []
    acknowledge(player, 7)
    assert drops(relay) == {"malformed": 1}


def test_other_bodies_are_malformed(relay: Relay, player: NativePlayer) -> None:
    for body in (b"", bytes(4), bytes(4) + b"\2", bytes(6)):
        assert player.send_raw(player.packet(PacketType.OFFER_ACK, body)) is None
    assert drops(relay) == {"malformed": 4}


def test_no_player_sends_an_offer(relay: Relay, player: NativePlayer) -> None:
    player.send_raw(player.packet(PacketType.OFFER, bytes(163)))
    assert drops(relay) == {"unknown_type": 1}


def test_an_offer_ends_with_its_connection_and_its_session(relay: Relay, player: NativePlayer) -> None:
    grant(relay, STANDBY)
    received(relay, player, NOW + 0.2)
    player.send_raw(player.packet(PacketType.CLOSE, b"\0"), NOW + 0.3)
    assert received(relay, player, NOW + 3, NOW + 0.3) == []
    again = joined(relay, 1, NOW + 4)
    ping(again, NOW + 4)
    assert received(relay, again, NOW + 4.2, NOW + 4)
    relay.end_session(SESSION, "migrated", NOW + 4.3)
    while (due := relay.next_timer()) is not None and due < NOW + 9:
        relay.handle_timer(due)
    assert {data[0] for _, data, _ in relay.datagrams_to_send()} == {PacketType.NOTICE}


def test_thousands_of_offers_are_spread_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "BATCH", 25)
    relay = relay_with(200, **NATIVE)
    players = [joined(relay, seat) for seat in range(200)]
    relay.datagrams_to_send()
    relay.apply_grant(grant_of(200, revision=2, offers=dict.fromkeys(range(200), STANDBY), **NATIVE), NOW)
    first: dict[object, float] = {}
    batches = []
    while (due := relay.next_timer()) is not None and due < NOW + 3:
        relay.handle_timer(due)
        sent = relay.datagrams_to_send()
        batches.append(len(sent))
        for _, _, addr in sent:
            first.setdefault(addr, due)
    assert max(batches) == 25
    assert set(first) == {player.addr for player in players}
    assert max(first.values()) <= NOW + 0.1 * 200 / 25 + 0.1, "repetitions came before first copies"
    assert BATCH * 10 >= 2_000  # a second


def restored(relay: Relay, now: float) -> Relay:
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    after.set_token_keys({KEY_ID: TOKEN_KEY})
    after.restore_session(json.loads(json.dumps(relay.session_state(SESSION))), now)
    return after


def test_offers_survive_a_restart_with_what_is_left_of_the_deadline(relay: Relay, player: NativePlayer) -> None:
    grant(relay, MOVE)
    after = restored(relay, NOW + 2)
    player = joined(after, 1, NOW + 2)
    ping(player, NOW + 2)
    ((_, offer),) = received(after, player, NOW + 2.2, NOW + 2)
    assert 2800 <= offer.deadline <= 3000
    acknowledge(player, 8, NOW + 2.2)
    grant(after, MOVE, revision=3, now=NOW + 2.2)
    again = restored(after, NOW + 3)
    grant(again, MOVE, revision=4, now=NOW + 3)
    last = joined(again, 1, NOW + 3)
    ping(last, NOW + 3)
    assert received(again, last, NOW + 5, NOW + 3) == []


@pytest.mark.parametrize("name", ["offer_deadlines", "acknowledged_offers"])
@pytest.mark.parametrize("broken", [None, 5, {"1": None}, {"1": [1]}, {"1": float("nan")}, {"x": 1}])
def test_a_broken_state_is_refused(relay: Relay, name: str, broken: Any) -> None:
    grant(relay, MOVE)
    state = relay.session_state(SESSION)
    assert state is not None
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    with pytest.raises(GrantRefused):
        after.restore_session(state | {name: broken}, NOW)
