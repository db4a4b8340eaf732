"""Sessions begin, change and end: by grant, by the clock, across a restart."""

import json
import os
from typing import Any

import pytest

from causeway_client.protocol import handshake
from causeway_client.protocol.errors import Refusal
from causeway_client.protocol.packets import DirectMode, Notice, NoticeCode, PacketType, decode_notice
from nodeapi.grants import Grant
from relaynode.core.grants import GrantRefused, read_grant
from relaynode.core.relay import Relay, RelayConfig
from tests.relaynode.players import (
    KEY_ID,
    NOW,
    SESSION,
    TOKEN_KEY,
    EdgegapPlayer,
    NativePlayer,
    drops,
    events,
    grant_json,
    grant_of,
    relay_with,
)
from tests.support.grants import SESSION_TOKEN, user_token

OTHER = "00000000000a-S"


@pytest.fixture
def relay() -> Relay:
    return relay_with(seats=3)


def refused(relay: Relay, grant: Grant, now: float = NOW) -> tuple[str, str]:
    with pytest.raises(GrantRefused) as caught:
        relay.apply_grant(grant, now)
    return caught.value.code, caught.value.field


def end_of(relay: Relay, until: float) -> float:
    """When the session ended, driven by the relay's own timer."""
    while relay.stats()["sessions"]:
        at = relay.next_timer()
        assert at is not None
        assert at <= until
        relay.handle_timer(at)
    return at  # type: ignore[return-value]


# -- grants


def test_an_older_or_equal_revision_changes_nothing(relay: Relay) -> None:
    assert relay.apply_grant(grant_of(revision=5), NOW) == 5
    assert relay.apply_grant(grant_of(revision=4, revoked={1}), NOW) == 5
    assert relay.apply_grant(grant_of(revision=5, revoked={1}), NOW) == 5
    assert EdgegapPlayer(relay, 1).ping() == 2


def test_a_newer_revision_adds_seats_and_changes_limits(relay: Relay) -> None:
    EdgegapPlayer(relay, 0).ping()
    assert EdgegapPlayer(relay, 3).ping() == 3
    relay.apply_grant(grant_of(seats=4, revision=2, limits={"packets": 1, "bytes": 0}), NOW)
    late = EdgegapPlayer(relay, 3)
    assert late.send(b"1") is not None
    assert late.send(b"2") is None
    assert drops(relay) == {"rate_limited": 1}


def test_a_revoked_player_is_cut_off_and_told(relay: Relay) -> None:
    host, player = NativePlayer(relay, 0), NativePlayer(relay, 1)
    host.connect()
    host.shows_that_it_reads()
    player.connect()
    relay.datagrams_to_send()
    events(relay)
    relay.apply_grant(grant_of(revision=2, revoked={1}), NOW)
    waiting = relay.datagrams_to_send()
    assert player.hears(waiting[0]) == (PacketType.NOTICE, 1, Notice(NoticeCode.REVOKED).encode())
    heard = host.hears(waiting[1])
    assert heard is not None
    assert heard[:2] == (PacketType.NOTICE, 0)
    roster = decode_notice(heard[2])
    assert (roster.code, roster.generation) == (NoticeCode.ROSTER, player.generation + 1)
    assert (roster.connected, roster.removed) == ({0}, {1})
    assert events(relay) == [(1, "seat_left", "revoked")]
    assert player.send(b"more") is None
    assert host.send(b"to the revoked", 1) is None


def test_a_revoked_seat_stays_revoked(relay: Relay) -> None:
    relay.apply_grant(grant_of(revision=2, revoked={1}), NOW)
    relay.apply_grant(grant_of(revision=3), NOW)
    assert EdgegapPlayer(relay, 1).ping() == 3


def test_a_dialect_switched_off_frees_its_seats(relay: Relay) -> None:
    host, player = EdgegapPlayer(relay, 0), NativePlayer(relay, 1)
    host.ping()
    player.connect()
    relay.apply_grant(grant_of(revision=2, dialects=["edgegap"]), NOW)
    assert relay.stats()["connected"] == 1
    assert player.notices() == [(1, Notice(NoticeCode.REVOKED))]
    assert host.ping() == 2


@pytest.mark.parametrize("dialects", [["native"], ["edgegap"], ["edgegap", "native"]])
def test_edgegap_is_admitted_from_the_beginning_or_never(dialects: list[str]) -> None:
    """The players' packets differ (PROTOCOL.md 7.1), so those that are on their way would be read wrongly."""
    relay = relay_with(dialects=dialects)
    for revision, other in enumerate((["native"], ["edgegap"], ["edgegap", "native"]), 2):
        if ("edgegap" in other) == ("edgegap" in dialects):
            assert relay.apply_grant(grant_of(revision=revision, dialects=other), NOW) == revision
        else:
            assert refused(relay, grant_of(revision=revision, dialects=other)) == ("invalid", "dialects")


@pytest.mark.parametrize("admits_edgegap", [False, True])
def test_the_grant_of_a_session_opened_by_a_token_admits_edgegap_as_the_token_does(admits_edgegap: bool) -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    player = NativePlayer(relay, 1)
    terms = player.token(admits_edgegap=admits_edgegap, direct_mode=DirectMode.ASK, direct_grace=45)
    welcome = player.connect(player.connect_packet(terms))
    assert welcome.is_sequenced is not admits_edgegap
    assert welcome.max_payload == (1182 if admits_edgegap else 1210)
    assert welcome.direct_mode is (DirectMode.RELAY_ONLY if admits_edgegap else DirectMode.ASK)
    assert welcome.direct_grace == 45
    with_edgegap, without = grant_of(2), grant_of(2, dialects=["native"])
    right, wrong = (with_edgegap, without) if admits_edgegap else (without, with_edgegap)
    assert refused(relay, wrong) == ("invalid", "dialects")
    assert relay.apply_grant(right, NOW) == 1


def test_seats_may_swap_tokens(relay: Relay) -> None:
    data = grant_json(revision=2)
    data["seats"][1]["token"], data["seats"][2]["token"] = data["seats"][2]["token"], data["seats"][1]["token"]
    relay.apply_grant(read_grant(data), NOW)
    host, player = EdgegapPlayer(relay, 0), EdgegapPlayer(relay, 1)
    host.ping()
    assert player.send(b"as seat 2") is not None
    assert (2, "seat_joined", "") in events(relay)


def test_grants_are_refused_by_code(relay: Relay) -> None:
    assert refused(relay, grant_of(session=OTHER, worker=1)) == ("invalid", "worker")
    assert refused(relay, grant_of(session=OTHER, expires_at=NOW)) == ("invalid", "expires_at")
    assert refused(relay, grant_of(session=OTHER)) == ("invalid", "seats[0].token")
    inherits = grant_json(seats=4, revision=2)
    inherits["seats"] = [{**inherits["seats"][3], "token": user_token(1)}]
    assert refused(relay, read_grant(inherits)) == ("invalid", "seats[0].token")
    relay.set_draining(True, NOW)
    assert refused(relay, grant_of(session=OTHER, token=5)) == ("draining", "")
    assert relay.apply_grant(grant_of(revision=2), NOW) == 2
    relay.end_session(SESSION, "deleted", NOW)
    assert refused(relay, grant_of(revision=3)) == ("session_ended", "")


def test_a_node_that_is_full_says_so() -> None:
    relay = relay_with(seats=3, config=RelayConfig(max_sessions=2, max_seats=5))
    assert refused(relay, grant_of(session=OTHER, token=5, seats=3)) == ("full", "")
    relay.apply_grant(grant_of(session=OTHER, token=5, seats=1), NOW)
    assert refused(relay, grant_of(session="00000000000b-S", token=6, seats=1)) == ("full", "")
    assert refused(relay, grant_of(revision=2, seats=5)) == ("full", "")
    assert relay.apply_grant(grant_of(revision=2, seats=4), NOW) == 2
    relay.end_session(OTHER, "deleted", NOW)
    assert relay.stats() == {"sessions": 1, "seats": 4, "connected": 0}


# -- ends


def test_an_ended_session_forwards_nothing_and_tells_its_players(relay: Relay) -> None:
    host, player = EdgegapPlayer(relay, 0), NativePlayer(relay, 1)
    host.ping()
    player.connect()
    relay.datagrams_to_send()
    events(relay)
    relay.end_session(SESSION, "deleted", NOW)
    assert player.collects() == [(PacketType.NOTICE, 1, Notice(NoticeCode.ENDED, "deleted").encode())]
    assert events(relay) == [(0, "seat_left", "ended"), (1, "seat_left", "ended")]
    assert player.send(b"after") is None
    assert host.send(b"after", 1) is None
    assert relay.stats() == {"sessions": 0, "seats": 0, "connected": 0}
    relay.end_session(SESSION, "deleted", NOW)


def test_ending_an_unknown_session_is_remembered(relay: Relay) -> None:
    relay.end_session(OTHER, "deleted", NOW)
    assert refused(relay, grant_of(session=OTHER, token=5))[0] == "session_ended"
    relay.handle_timer(NOW + 86_401)
    later = grant_of(session=OTHER, token=5, expires_at=NOW + 90_000)
    assert relay.apply_grant(later, NOW + 86_401) == 1


def test_a_session_nobody_plays_ends_as_idle(relay: Relay) -> None:
    assert end_of(relay, NOW + 400) == pytest.approx(NOW + 300, abs=0.11)
    assert events(relay) == [(None, "session_ended", "idle")]


def test_any_right_packet_keeps_a_session(relay: Relay) -> None:
    host = EdgegapPlayer(relay, 0)
    host.ping(NOW + 250)
    assert end_of(relay, NOW + 700) == pytest.approx(NOW + 550, abs=0.11)


def test_a_session_ends_when_its_time_is_up() -> None:
    relay = relay_with(expires_at=NOW + 100.0)
    assert end_of(relay, NOW + 101) == pytest.approx(NOW + 100, abs=0.11)
    assert events(relay) == [(None, "session_ended", "expired")]


def test_a_later_grant_may_put_the_end_off_or_forward(relay: Relay) -> None:
    relay.apply_grant(grant_of(revision=2, idle_timeout=5), NOW)
    assert end_of(relay, NOW + 10) == pytest.approx(NOW + 5, abs=0.11)
    longer = relay_with(expires_at=NOW + 10.0)
    longer.apply_grant(grant_of(revision=2, expires_at=NOW + 50.0), NOW)
    assert end_of(longer, NOW + 51) == pytest.approx(NOW + 50, abs=0.11)


def test_an_ended_session_leaves_no_timers_behind() -> None:
    relay = relay_with(seats=3, expires_at=NOW + 1e6, idle_timeout=1e6)
    for index in range(50):
        name = f"{index:012x}-S"
        relay.apply_grant(grant_of(session=name, token=5 + index, expires_at=NOW + 70.0), NOW)
        relay.end_session(name, "deleted", NOW)
    relay.handle_timer(NOW + 71)
    assert relay.next_timer() == pytest.approx(NOW + 131, abs=0.11)
    checks = relay._forwarder.timers._checks
    assert sum(map(len, checks.values())) == 1


# -- restart


def restart(relay: Relay, *sessions: str, now: float = NOW + 1) -> Relay:
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    for session in sessions or (SESSION,):
        after.restore_session(json.loads(json.dumps(relay.session_state(session))), now)
    return after


def test_what_was_served_is_served_again(relay: Relay) -> None:
    relay.apply_grant(grant_of(revision=7, revoked={2}), NOW)
    after = restart(relay)
    assert after.apply_grant(grant_of(revision=6), NOW + 1) == 7
    assert after.session_state(SESSION) == relay.session_state(SESSION)
    assert EdgegapPlayer(after, 1).ping(NOW + 1) == 2
    assert EdgegapPlayer(after, 2).ping(NOW + 1) == 3


def test_a_connect_from_before_the_restart_is_stale(relay: Relay) -> None:
    player = NativePlayer(relay, 1)
    connect = player.connect_packet()
    player.connect(connect)
    player.relay = restart(relay)
    player.relay.set_token_keys({KEY_ID: TOKEN_KEY})
    answer = player.send_raw(connect.encode(player.seat_key), NOW + 1)
    assert answer is not None
    assert answer[1][0] == PacketType.REFUSED
    player.connect(now=NOW + 1)


def test_an_edgegap_hosts_names_for_its_players_survive(relay: Relay) -> None:
    """Or every running game would break: the host knows a player by its connectionId only."""
    host, running, restarted = (EdgegapPlayer(relay, seat) for seat in range(3))
    host.ping()
    ids = [host.last_connection_id for player in (running, restarted) if host.hears(player.send(b"game"))]
    assert [event for event in events(relay) if event[1] == "seat_changed"] == [
        (1, "seat_changed", ""),
        (2, "seat_changed", ""),
    ]
    after = restart(relay)
    host.relay = running.relay = restarted.relay = after
    host.ping(NOW + 1)
    assert host.hears(running.send(b"game", now=NOW + 1)) == b"game"
    assert host.last_connection_id == ids[0]
    assert running.hears(host.send(b"down", ids[0], NOW + 1)) == b"down"
    assert host.hears(restarted.send(b"\x01" + bytes(4) + b"hello", now=NOW + 1)) is not None
    assert host.last_connection_id not in ids


@pytest.mark.parametrize("admits_edgegap", [False, True])
def test_a_session_admitted_by_token_survives(admits_edgegap: bool) -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    player = NativePlayer(relay, 1)
    terms = {"admits_edgegap": admits_edgegap, "direct_mode": DirectMode.DIRECT, "direct_grace": 30}
    before = player.connect(player.connect_packet(player.token(**terms)))
    after = restart(relay)
    assert after.sessions() == [(SESSION, 0, NOW + 1)]
    after.set_token_keys({KEY_ID: TOKEN_KEY})
    player.relay = after
    again = player.connect(now=NOW + 1)
    for field in ("is_sequenced", "max_payload", "direct_mode", "direct_grace", "expires"):
        assert getattr(again, field) == getattr(before, field), field
    dialects = ["edgegap", "native"] if admits_edgegap else ["native"]
    assert after.apply_grant(grant_of(seats=1, dialects=dialects), NOW + 1) == 1
    # The seat that only its token told of is not taken for one the grant left out.
    player = NativePlayer(after, 1)
    player.timestamp += 10
    player.connect(now=NOW + 2)


def test_an_ended_session_stays_ended(relay: Relay) -> None:
    relay.handle_timer(NOW + 301)
    state = relay.session_state(SESSION)
    assert state is not None
    assert (state["session"], state["ended"], state["reason"]) == (SESSION, True, "idle")
    assert (state["ended_at"], state["forget_at"]) == (NOW + 301, NOW + 3600)
    assert EdgegapPlayer(relay, 1).ping(NOW + 302) == 4
    after = restart(relay, now=NOW + 400)
    assert refused(after, grant_of(revision=9), NOW + 400)[0] == "session_ended"


def test_the_token_pairs_of_an_ended_session_are_kept_for_a_minute_and_not_in_its_state(relay: Relay) -> None:
    relay.end_session(SESSION, "idle", NOW)
    assert EdgegapPlayer(relay, 1).ping(NOW + 59) == 4
    relay.handle_timer(NOW + 61)
    assert EdgegapPlayer(relay, 1).ping(NOW + 61) == 3
    state = relay.session_state(SESSION)
    assert state is not None
    assert state.keys() == {"ended", "session", "reason", "ended_at", "forget_at"}


def test_kept_token_pairs_are_bounded_and_the_oldest_make_room() -> None:
    relay = relay_with(seats=3, config=RelayConfig(max_ended_pairs=3))
    relay.end_session(SESSION, "idle", NOW)
    assert EdgegapPlayer(relay, 1).ping(NOW + 1) == 4
    other = grant_json(session=OTHER, token=77)
    relay.apply_grant(read_grant(other), NOW + 1)
    relay.end_session(OTHER, "idle", NOW + 1)
    assert EdgegapPlayer(relay, 1).ping(NOW + 2) == 3


def test_a_session_without_connect_tokens_is_forgotten_after_a_minute(relay: Relay) -> None:
    relay.apply_grant(grant_of(revision=2, dialects=["edgegap"]), NOW)
    relay.end_session(SESSION, "deleted", NOW)
    state = relay.session_state(SESSION)
    assert state is not None
    assert state["forget_at"] == NOW + 60


def test_ended_sessions_that_are_remembered_are_bounded() -> None:
    relay = relay_with(config=RelayConfig(max_tombstones=2))
    for number in range(3):
        relay.end_session(f"{number:012x}-S", "deleted", NOW + number)
    assert relay.session_state(f"{0:012x}-S") is None
    assert relay.session_state(f"{2:012x}-S") is not None


def connect_answer(player: NativePlayer, now: float, **changes: Any) -> int:
    """The packet type of the answer, or the refusal's code."""
    connect = player.connect_packet(player.token(**changes))
    answer = player.send_raw(connect.encode(player.seat_key), now)
    assert answer is not None
    kind = answer[1][0]
    return handshake.decode_refused(answer[1]).code if kind == PacketType.REFUSED else kind


def test_the_managers_list_confirms_that_no_token_of_an_ended_session_is_valid(relay: Relay) -> None:
    player = NativePlayer(relay, 1)
    relay.end_session(SESSION, "deleted", NOW + 10)
    assert relay.confirm_ended(NOW + 60, NOW, []) == []
    assert relay.confirm_ended(NOW + 120, NOW + 60, [SESSION]) == []
    assert relay.session_state(SESSION) is not None
    assert relay.confirm_ended(NOW + 180, NOW + 120, []) == [SESSION]
    assert relay.session_state(SESSION) is None
    assert connect_answer(player, NOW + 181) == Refusal.SESSION_ENDED
    # After a restart the time of the list is all that is left of it.
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    after.confirm_ended(NOW + 180, 0.0, [])
    assert connect_answer(NativePlayer(after, 1), NOW + 181) == Refusal.SESSION_ENDED
    assert connect_answer(NativePlayer(after, 1), NOW + 181, issued=int(NOW) + 179) == PacketType.WELCOME


def test_a_token_that_expired_with_its_session_says_that_the_session_is_over(relay: Relay) -> None:
    player = NativePlayer(relay, 1)
    expired = {"expires": int(NOW) + 5}
    assert connect_answer(player, NOW + 6, **expired) == Refusal.TOKEN_EXPIRED
    assert connect_answer(player, NOW + 6, **expired, session_expires=int(NOW) + 5) == Refusal.SESSION_ENDED
    relay.end_session(SESSION, "deleted", NOW + 7)
    assert connect_answer(player, NOW + 8, **expired) == Refusal.SESSION_ENDED


# -- before the manager's list was read


def test_unknown_tokens_are_being_checked_until_the_managers_list_was_read() -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    relay.set_grants_known(False)
    player = EdgegapPlayer(relay, 1)
    for attempt in range(30):  # more than are let guess
        assert player.send(b"data", now=NOW + attempt / 100) is None
    assert player.ping(NOW + 1) == 1
    relay.apply_grant(grant_of(), NOW + 1)
    assert player.ping(NOW + 1) == 2, "what was sent before was no guessing"
    assert drops(relay) == {"grants_not_loaded": 30}
    relay.set_grants_known(True)
    stranger = EdgegapPlayer(relay, 4)
    assert stranger.ping(NOW + 2) == 3


def test_pings_that_are_being_checked_are_answered_as_often_as_invalid_ones() -> None:
    relay = Relay(worker=0, config=RelayConfig(bad_tokens_per_source=5), random=os.urandom)
    relay.set_grants_known(False)
    player = EdgegapPlayer(relay, 1)
    answers = [player.ping(NOW) for _ in range(20)]
    assert answers[0] == 1
    assert answers[-1] is None


def test_a_key_that_may_not_have_been_read_yet_is_not_the_wrong_node() -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    relay.set_grants_known(False)
    player = NativePlayer(relay, 1)
    connect = player.connect_packet(player.token(key_id=99))
    assert player.send_raw(connect.encode(player.seat_key)) is None
    assert drops(relay) == {"grants_not_loaded": 1}
    relay.set_grants_known(True)
    assert connect_answer(player, NOW, key_id=99) == Refusal.WRONG_NODE


def test_what_is_past_is_not_restored(relay: Relay) -> None:
    late = NOW + 4000
    state = relay.session_state(SESSION)
    assert state is not None
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    with pytest.raises(GrantRefused):
        after.restore_session(state, late)
    relay.end_session(SESSION, "deleted", NOW)
    tomb = relay.session_state(SESSION)
    assert tomb is not None
    after.restore_session(tomb, late)
    assert after.session_state(SESSION) is None


def test_an_unknown_session_has_no_state(relay: Relay) -> None:
    assert relay.session_state(OTHER) is None


def good_state() -> dict[str, Any]:
    relay = relay_with()
    NativePlayer(relay, 1).connect()
    state = relay.session_state(SESSION)
    assert state is not None
    return json.loads(json.dumps(state))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "text",
        {},
        {"ended": True},
        {"ended": True, "session": SESSION, "reason": "x", "ended_at": NOW, "forget_at": "soon"},
        {"ended": True, "session": SESSION, "reason": "x", "ended_at": float("nan"), "forget_at": NOW + 5},
        {"ended": True, "session": SESSION, "reason": "x", "ended_at": NOW, "forget_at": 10**400},
        good_state() | {"grant": None},
        good_state() | {"connects": []},
        good_state() | {"connects": {"1": -1}},
        good_state() | {"connects": {"1": 2**64}},
        good_state() | {"connection_ids": {"1": 0}},
        good_state() | {"connection_ids": {"1": 2**31}},
        good_state() | {"connection_ids": {"1": 5, "2": 5}},
        good_state() | {"granted": 5},
    ],
)
def test_a_broken_state_is_refused_whole(broken: Any) -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    with pytest.raises(GrantRefused):
        relay.restore_session(broken, NOW)
    assert relay.stats()["sessions"] == 0


def test_a_state_does_not_replace_what_is_served(relay: Relay) -> None:
    with pytest.raises(GrantRefused):
        relay.restore_session(good_state(), NOW)
    assert relay.stats()["sessions"] == 1


# -- the process was stopped


def test_time_in_which_the_node_did_not_run_is_nobodys_silence(relay: Relay) -> None:
    host, player = EdgegapPlayer(relay, 0), NativePlayer(relay, 1)
    host.ping(NOW)
    player.connect(now=NOW)
    events(relay)
    relay.extend_timers(400, NOW + 405)
    relay.handle_timer(NOW + 405)
    assert relay.stats()["connected"] == 2
    assert not events(relay)
    relay.handle_timer(NOW + 411)
    assert relay.stats()["connected"] == 0
    assert relay.stats()["sessions"] == 1
    relay.handle_timer(NOW + 702)
    assert events(relay)[-1] == (None, "session_ended", "idle")


def test_an_extension_lets_no_moment_lie_in_the_future(relay: Relay) -> None:
    host = EdgegapPlayer(relay, 0)
    host.ping(NOW)
    relay.extend_timers(1000, NOW + 1)
    relay.handle_timer(NOW + 12)
    assert relay.stats()["connected"] == 0


@pytest.mark.parametrize("token", [SESSION_TOKEN, SESSION_TOKEN + 1])
def test_a_grant_gives_no_seat_the_token_of_one_that_it_lists_no_more(token: int) -> None:
    """Both would be in the session's state, which could then not be restored."""
    relay = relay_with(seats=2)
    document = grant_json(1, revision=2, token=token)
    document["seats"][0] |= {"seat": 5, "token": user_token(1)}
    with pytest.raises(GrantRefused, match="another seat"):
        relay.apply_grant(read_grant(document), NOW)
