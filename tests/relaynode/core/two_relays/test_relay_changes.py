"""RELAY_CHANGED: who is notified, and what the manager learns (PROTOCOL.md 14.3 and 14.4)."""

import json
import os

import pytest

from causeway_client.protocol.offers import ChangeReason, RelayChanged
from causeway_client.protocol.packets import NoticeCode, PacketType
from nodeapi.telemetry import EVENT_KINDS, MAX_COUNT
from relaynode.core.counters import RELAY_CHANGE_REASONS
from relaynode.core.events import Event
from relaynode.core.relay import Relay, RelayConfig
from relaynode.core.two_relays import relay_changes
from tests.relaynode.players import KEY_ID, NOW, SESSION, TOKEN_KEY, NativePlayer, connected, drops, relay_with

NATIVE = {"dialects": ["native"], "topology": "mesh"}


@pytest.fixture
def relay() -> Relay:
    return relay_with(4, **NATIVE)


@pytest.fixture
def players(relay: Relay) -> list[NativePlayer]:
    """Of seats 0 to 2; the address of the last one is not verified."""
    return joined(relay, 2) + [connected(relay, 2)]


def joined(relay: Relay, seats: int) -> list[NativePlayer]:
    players = [connected(relay, seat) for seat in range(seats)]
    for player in players:
        player.shows_that_it_reads()
    relay_events(relay)
    return players


def change(
    player: NativePlayer,
    number: int,
    now: float = NOW,
    reason: ChangeReason = ChangeReason.SILENT,
    gap: int = 519,
) -> None:
    body = RelayChanged(number, reason, gap).encode()
    assert player.send_raw(player.packet(PacketType.RELAY_CHANGED, body), now) is None


def relay_events(relay: Relay) -> list[Event]:
    return [event for event in iter(relay.next_event, None) if event.kind == "relay_changed"]


def is_notified(player: NativePlayer) -> list[int]:
    return [seat for seat, notice in player.notices() if notice.code == NoticeCode.CHANGED_RELAY]


def test_the_others_are_notified_for_each_copy_and_the_manager_once(relay: Relay, players: list[NativePlayer]) -> None:
    for delay in (0.0, 0.1, 0.3):
        change(players[1], 1, NOW + delay)
        assert is_notified(players[0]) == [1]
    (event,) = relay_events(relay)
    assert event == Event(NOW, SESSION, 1, "relay_changed", "native", "silent", 519)
    assert event.kind in EVENT_KINDS
    assert relay.counters.relay_changes["silent"] == 1


def test_neither_the_player_itself_nor_an_unverified_address_is_notified(
    relay: Relay, players: list[NativePlayer]
) -> None:
    relay.datagrams_to_send()
    change(players[1], 1)
    sent = relay.datagrams_to_send()
    assert [addr for _, _, addr in sent] == [players[0].addr]


def test_numbers_increase_and_wrap(relay: Relay, players: list[NativePlayer]) -> None:
    for index, (number, is_new) in enumerate(
        [(40_000, True), (40_000, False), (39_999, False), (65_535, True), (0, True), (65_535, False), (32_767, True)]
    ):
        change(players[1], number, NOW + index)
        assert bool(relay_events(relay)) is is_new, number


def test_an_older_number_notifies_no_player(relay: Relay, players: list[NativePlayer]) -> None:
    change(players[1], 5)
    relay.datagrams_to_send()
    change(players[1], 4)
    assert relay.datagrams_to_send() == []


@pytest.mark.parametrize("reason", ChangeReason)
def test_each_reason_has_its_word(relay: Relay, players: list[NativePlayer], reason: ChangeReason) -> None:
    change(players[0], 1, reason=reason, gap=2**32 - 1)
    (event,) = relay_events(relay)
    assert (event.reason, event.gap_ms) == (reason.name.lower(), MAX_COUNT)
    assert event.reason in RELAY_CHANGE_REASONS
    assert relay.counters.as_dict()[f"relay_change_{event.reason}"] == 1


def test_a_burst_of_ten_and_one_a_second(relay: Relay, players: list[NativePlayer]) -> None:
    for number in range(1, 13):
        change(players[1], number)
    assert len(relay_events(relay)) == 10
    assert drops(relay) == {"rate_limited": 2}
    change(players[1], 20, NOW + 1.0)
    change(players[1], 21, NOW + 1.0)
    assert len(relay_events(relay)) == 1


def test_on_a_new_connection_any_number_is_the_first(relay: Relay, players: list[NativePlayer]) -> None:
    change(players[1], 9)
    players[1].connect()
    change(players[1], 1)
    assert [event.seat for event in relay_events(relay)] == [1, 1]


def test_a_session_that_admits_edgegap_has_one_relay() -> None:
    relay = relay_with(4)
    first, second = joined(relay, 2)
    change(second, 1)
    assert relay.datagrams_to_send() == [] and relay_events(relay) == []
    assert drops(relay) == {"malformed": 1}
    assert first.seat == 0


def test_other_bodies_are_malformed(relay: Relay, players: list[NativePlayer]) -> None:
    for body in (b"", bytes(7), b"\1\0\6" + bytes(4), b"\1\0\1" + bytes(5)):
        assert players[0].send_raw(players[0].packet(PacketType.RELAY_CHANGED, body)) is None
    assert drops(relay) == {"malformed": 4}
    assert relay_events(relay) == []


def test_the_number_is_known_to_the_next_process(relay: Relay, players: list[NativePlayer]) -> None:
    change(players[1], 3)
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    after.set_token_keys({KEY_ID: TOKEN_KEY})
    after.restore_session(json.loads(json.dumps(relay.session_state(SESSION))), NOW)
    for seat in (0, 1):
        after.resume_connection(json.loads(json.dumps(relay.connection_state(SESSION, seat))), NOW)
    for part in relay.progress():
        after_only = b"".join(_of(part, players[:2]))
        after.set_progress(after_only)
    players[1].relay = after
    change(players[1], 3, NOW + 0.1)
    assert relay_events(after) == []
    change(players[1], 4, NOW + 10)
    assert [event.seat for event in relay_events(after)] == [1]


def _of(part: bytes, players: list[NativePlayer]) -> list[bytes]:
    """The progress of the connections of these players."""
    from relaynode.core.resumption import _HEAD

    ids = {player.welcome.connection for player in players if player.welcome}
    found, at = [], 0
    while at < len(part):
        connection, _, _, size = _HEAD.unpack_from(part, at)
        if connection in ids:
            found.append(part[at : at + _HEAD.size + size])
        at += _HEAD.size + size
    return found


def test_a_session_whose_players_all_change_causes_a_bounded_number_of_packets_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_changes, "BATCH", 100)
    relay = relay_with(40, **NATIVE)
    players = joined(relay, 40)
    relay.datagrams_to_send()
    for player in players:
        change(player, 1)
        change(player, 1)
    sent = [relay.datagrams_to_send()]
    assert len(sent[0]) <= 100 + 39
    while (due := relay.next_timer()) is not None and due < NOW + 5:
        relay.handle_timer(due)
        sent.append(relay.datagrams_to_send())
        assert len(sent[-1]) <= 100 + 39
    pairs = {(addr, read[1]) for batch in sent for addr, read in reads(players, batch)}
    assert len(pairs) == 40 * 39, "a player was not notified"
    assert len(relay_events(relay)) == 40


def reads(players: list[NativePlayer], batch: list[tuple[int, bytes, object]]) -> list[tuple[object, tuple[int, int]]]:
    by_addr = {player.addr: player for player in players}
    return [(addr, by_addr[addr].read(data)[:2]) for _, data, addr in batch]  # type: ignore[index]


def test_the_notices_end_with_the_session(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_changes, "BATCH", 1)
    players = joined(relay, 3)
    for player in players:
        change(player, 1)
    relay.end_session(SESSION, "migrated", NOW)
    relay.datagrams_to_send()
    while (due := relay.next_timer()) is not None and due < NOW + 2:
        relay.handle_timer(due)
        assert {packet[1][0] for packet in relay.datagrams_to_send()} <= {PacketType.NOTICE}
    assert relay.stats()["sessions"] == 0
