"""A relay with a session of four seats, in which a host and a player are connected by the native dialect."""

import pytest

from relaynode.core.relay import Relay
from tests.relaynode.players import NativePlayer, connected, events, relay_with


@pytest.fixture
def relay() -> Relay:
    return relay_with(seats=4)


@pytest.fixture
def host(relay: Relay) -> NativePlayer:
    return connected(relay, 0)


@pytest.fixture
def player(relay: Relay, host: NativePlayer) -> NativePlayer:
    player = connected(relay, 1)
    relay.datagrams_to_send()
    events(relay)
    return player
