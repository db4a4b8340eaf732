"""What a node answers to sources that have proved nothing, compared with what asked for it: a node must not be worth
reflecting packets off. One table for all of it, and a test that no kind of answer is missing."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.packets import PacketType
from relaynode.core.addresses import Address
from relaynode.core.counters import ANSWERS
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Relay, RelayConfig
from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, relay_with, relay_with_modes

# Only these need keys that a WELCOME brought, or go where a player has shown that it reads.
AUTHENTICATED = {"pong", "notice", "offer", "path_challenge"}
# RFC 8489: a response has a header of 20 bytes as the request, and the address in 12 or 24 bytes more.
STUN_GROWTH = {"198.51.100.7": 12, "2001:db8::7": 24}


@dataclass(frozen=True)
class Case:
    answer: str
    asked: Callable[[Relay], bytes]  # what comes, after whatever has to happen before
    port: int = CLIENT_PORT


def connect(relay: Relay, **changes: object) -> bytes:
    player = NativePlayer(relay, 1)
    return player.connect_packet(**changes).encode(player.seat_key)  # type: ignore[arg-type]


def shortest_connect(version: int) -> bytes:
    return bytes((PacketType.CONNECT, version)) + bytes(58)


def flooded_connect(relay: Relay) -> bytes:
    for index in range(3):
        relay.receive_datagram(shortest_connect(1), (f"192.0.2.{index}", 1), CLIENT_PORT, NOW)
    return shortest_connect(1)


def refused_probe(relay: Relay) -> bytes:
    probe = packets.Probe(bytes(16)).encode()
    for address in STUN_GROWTH:
        relay.receive_datagram(probe, (address, 9), CLIENT_PORT, NOW)
    return probe


def ended(relay: Relay) -> bytes:
    pair = EdgegapPlayer(relay, 1).tokens
    relay.end_session("3960c873aafd-S", "idle", NOW)
    return pair + b"\1"


def before_the_first_pull(relay: Relay) -> bytes:
    relay.set_grants_known(False)
    return bytes(range(1, 9)) + b"\1"


CASES = [
    Case("ping_checking", before_the_first_pull),
    Case("welcome", connect),
    Case("refused", lambda relay: shortest_connect(1)),
    Case("refused", lambda relay: shortest_connect(2)),
    Case("refused", lambda relay: connect(relay, token=bytes(120))),
    Case("cookie", flooded_connect),
    Case("probe_reply", lambda relay: packets.Probe(bytes(16)).encode()),
    Case("probe_refused", refused_probe),
    Case("ping_valid", lambda relay: EdgegapPlayer(relay, 1).tokens + b"\1"),
    Case("ping_invalid", lambda relay: bytes(8) + b"\1"),
    Case("ping_session_timeout", ended),
    Case("stun", lambda relay: b"\0\1\0\0" + packets.STUN_COOKIE + bytes(12)),
]


@pytest.mark.parametrize("address", STUN_GROWTH)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.answer)
def test_no_answer_is_longer_than_what_asked_for_it(case: Case, address: str) -> None:
    relay = relay_with(config=RelayConfig(connect_flood_threshold=2, probes_per_source=1))
    data = case.asked(relay)
    source: Address = (address, 9)
    before = relay.counters.answers[case.answer]  # type: ignore[index]
    outgoing = relay.receive_datagram(data, source, case.port, NOW)
    assert outgoing is not None
    assert relay.counters.answers[case.answer] == before + 1  # type: ignore[index]
    sent = [outgoing, *relay.datagrams_to_send()]
    growth = sum(len(answer) for _, answer, to in sent if to == source) - len(data)
    assert growth <= (STUN_GROWTH[address] if case.answer == "stun" else 0)


def test_every_kind_of_answer_is_here() -> None:
    assert {case.answer for case in CASES} | AUTHENTICATED == set(ANSWERS)


def test_stuns_longer_answers_are_few_for_a_source() -> None:
    relay = relay_with()
    request = b"\0\1\0\0" + packets.STUN_COOKIE + bytes(12)
    answers = [relay.receive_datagram(request, ("198.51.100.7", port), SERVER_PORT, NOW) for port in range(1000)]
    assert len([answer for answer in answers if answer]) == RelayConfig().stun_per_source


def test_connects_with_anothers_address_have_no_more_sent_there_than_they_are_long() -> None:
    """With tokens for every seat: each joins in its turn, at the address of a third party that asked for nothing."""
    relay, victim = relay_with(seats=200), ("192.0.2.66", 53)
    came = sent = 0
    for seat in range(200):
        player = NativePlayer(relay, seat, victim)
        data = player.connect_packet().encode(player.seat_key)
        outgoing = relay.receive_datagram(data, victim, CLIENT_PORT, NOW + seat / 1000)
        answers = [outgoing] if outgoing else []
        came += len(data)
        sent += sum(len(answer) for _, answer, to in [*answers, *relay.datagrams_to_send()] if to == victim)
    assert sent <= came


@pytest.mark.parametrize("kind", sorted(packets.OF_A_CONNECTION))
def test_a_valid_packet_from_a_forged_address_has_no_more_sent_there_than_it_is_long(kind: PacketType) -> None:
    """A host on the way keeps a packet back, and sends it first, from the address of a third party."""
    relay = relay_with_modes("direct", "direct", topology="mesh")
    player, other = NativePlayer(relay, 0), NativePlayer(relay, 1)
    for each in (player, other):
        each.connect()
        each.shows_that_it_reads()
    victim: Address = ("192.0.2.66", 53)
    for body in (b"", bytes(7), bytes(8), bytes(16), bytes(60), bytes(1000)):
        data = player.packet(kind, body, 1)
        outgoing = relay.receive_datagram(data, victim, CLIENT_PORT, NOW + len(body))
        sent = [*([outgoing] if outgoing else []), *relay.datagrams_to_send()]
        assert sum(len(answer) for _, answer, to in sent if to == victim) <= len(data)


def test_who_joined_while_a_player_had_only_sent_its_connect_is_reported_with_its_first_ping() -> None:
    relay = relay_with(seats=6)
    first = NativePlayer(relay, 0)
    first.connect()
    for seat in range(1, 6):
        NativePlayer(relay, seat).connect()
    assert first.collects() == []
    first.send_raw(first.ping_packet(), NOW)
    ((_, notice),) = first.notices()
    assert (notice.code, notice.connected) == (packets.NoticeCode.ROSTER, set(range(6)))
