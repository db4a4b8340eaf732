"""The role and the epoch of a session, in WELCOME (PROTOCOL.md 14.2)."""

import json
import os

import pytest

from causeway_client.protocol.packets import Notice, NoticeCode, PacketType
from relaynode.core.relay import Relay, RelayConfig
from tests.relaynode.players import KEY_ID, NOW, SESSION, TOKEN_KEY, NativePlayer, connected, grant_of, relay_with

NATIVE = {"dialects": ["native"]}


def terms(relay: Relay, *, token_is_standby: bool, now: float = NOW) -> tuple[bool, int]:
    player = NativePlayer(relay, 1)
    player.timestamp = int(now * 1e6)
    token = player.token(is_standby=token_is_standby, admits_edgegap=False)
    welcome = player.connect(player.connect_packet(token))
    return welcome.is_standby, welcome.epoch


@pytest.mark.parametrize("role", ["active", "standby"])
@pytest.mark.parametrize("token_is_standby", [False, True])
def test_the_grant_decides_and_not_the_older_token(role: str, token_is_standby: bool) -> None:
    relay = relay_with(role=role, epoch=3, **NATIVE)
    assert terms(relay, token_is_standby=token_is_standby) == (role == "standby", 3)


@pytest.mark.parametrize("token_is_standby", [False, True])
def test_without_a_grant_the_token_decides(token_is_standby: bool) -> None:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    assert terms(relay, token_is_standby=token_is_standby) == (token_is_standby, 0)


def test_a_changed_role_holds_for_the_next_connection_and_after_a_restart() -> None:
    relay = relay_with(role="standby", epoch=3, **NATIVE)
    assert terms(relay, token_is_standby=True) == (True, 3)
    relay.apply_grant(grant_of(revision=2, role="active", epoch=4, **NATIVE), NOW)
    after = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    after.set_token_keys({KEY_ID: TOKEN_KEY})
    after.restore_session(json.loads(json.dumps(relay.session_state(SESSION))), NOW)
    assert terms(after, token_is_standby=True, now=NOW + 1) == (False, 4)


def test_a_repeated_welcome_is_the_same() -> None:
    relay = relay_with(role="standby", epoch=3, **NATIVE)
    player = NativePlayer(relay, 1)
    packet = player.connect_packet().encode(player.seat_key)
    first = player.send_raw(packet)
    relay.apply_grant(grant_of(revision=2, role="active", epoch=4, **NATIVE), NOW)
    assert player.send_raw(packet) == first


def test_players_learn_that_their_session_has_moved() -> None:
    relay = relay_with(**NATIVE)
    player = connected(relay, 1)
    relay.datagrams_to_send()
    relay.end_session(SESSION, "migrated", NOW)
    assert player.collects() == [(PacketType.NOTICE, 1, Notice(NoticeCode.ENDED, "migrated").encode())]
