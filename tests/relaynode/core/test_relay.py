"""The core as its driver sees it."""

import tracemalloc

import pytest

from causeway_client.protocol.packets import STUN_COOKIE
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, RelayConfig
from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, drops, relay_with


def test_what_is_queued_is_handed_over_once() -> None:
    relay = relay_with()
    players = [NativePlayer(relay, seat) for seat in range(3)]
    players[0].connect()
    players[0].shows_that_it_reads()
    players[1].connect()
    assert len(relay.datagrams_to_send()) == 1
    assert relay.datagrams_to_send() == []
    players[1].shows_that_it_reads()
    players[2].connect()
    assert len(relay.datagrams_to_send()) == 2


def test_counters_count_what_is_sent_on() -> None:
    relay = relay_with()
    host, player = EdgegapPlayer(relay, 0), EdgegapPlayer(relay, 1)
    host.ping()
    host.hears(player.send(bytes(100)))
    host.send(bytes(200), host.last_connection_id)
    counted = relay.counters.as_dict()
    assert counted["forwarded_packets"] == 2
    assert counted["forwarded_bytes"] == 105 + 201
    assert counted["answer_ping_valid"] == 1


def test_stats_follow_the_seats() -> None:
    relay = relay_with(seats=4)
    assert relay.stats() == {"sessions": 1, "seats": 4, "connected": 0}
    EdgegapPlayer(relay, 0).ping()
    NativePlayer(relay, 1).connect()
    NativePlayer(relay, 9).connect()
    assert relay.stats() == {"sessions": 1, "seats": 5, "connected": 3}
    relay.handle_timer(NOW + 11)
    assert relay.stats() == {"sessions": 1, "seats": 5, "connected": 0}


def test_timers_are_set_by_what_is_there() -> None:
    relay = relay_with(idle_timeout=40)
    assert relay.next_timer() == pytest.approx(NOW + 40, abs=0.11)
    EdgegapPlayer(relay, 0).ping()
    assert relay.next_timer() == pytest.approx(NOW + 10, abs=0.11)


def test_a_busy_seat_costs_one_look_in_a_timeout() -> None:
    relay = relay_with()
    host = EdgegapPlayer(relay, 0)
    looks = 0
    for tick in range(1000):
        now = NOW + tick * 0.1
        host.ping(now)
        at = relay.next_timer()
        assert at is not None
        if at <= now:
            relay.handle_timer(now)
            looks += 1
    assert looks <= 100 / 10 + 100 / 60 + 1


def test_dispatch_is_by_the_bytes_whoever_sends_them() -> None:
    """A token pair cannot look like STUN or native, so the order of the look-ups does not show."""
    relay = relay_with()
    addr = ("192.0.2.1", 1)
    assert relay.receive_datagram(bytes(4) + STUN_COOKIE + bytes(11), addr, CLIENT_PORT, NOW) is None
    assert drops(relay) == {"unknown_token": 1}
    assert relay.receive_datagram(b"\x40" + bytes(3) + STUN_COOKIE + bytes(12), addr, CLIENT_PORT, NOW) is None
    assert drops(relay) == {"unknown_token": 2}
    assert relay.receive_datagram(bytes(4) + STUN_COOKIE + bytes(12), addr, CLIENT_PORT, NOW) is None
    assert drops(relay) == {"unknown_token": 2, "bad_stun": 1}


def test_spoofed_packets_leave_nothing_behind_and_others_play_on() -> None:
    relay = relay_with(config=RelayConfig(connect_flood_threshold=100))
    host, player = EdgegapPlayer(relay, 0), EdgegapPlayer(relay, 1)
    host.ping()
    player.send(b"before")
    kinds = [
        bytes(8) + b"\x01",
        bytes(8) + b"\x02guess",
        b"\xc0\x01" + bytes(176),
        b"\xc4" + bytes(30),
        b"\xcc\x01" + bytes(62),
        b"\x00\x01\x00\x00" + STUN_COOKIE + bytes(12),
    ]
    tracemalloc.start()
    for number in range(30_000):
        addr = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
        relay.receive_datagram(kinds[number % len(kinds)], addr, number & 1, NOW + number * 2e-5)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
    assert relay.datagrams_to_send() == []
    assert relay.stats()["connected"] == 2
    assert host.hears(player.send(b"after", now=NOW + 1)) == b"after"
    newcomer = EdgegapPlayer(relay, 2)
    assert newcomer.ping(NOW + 1) == 2


def test_both_ports_take_both_dialects_of_their_role() -> None:
    relay = relay_with()
    host, player = NativePlayer(relay, 0, port=SERVER_PORT), EdgegapPlayer(relay, 1)
    host.connect()
    assert host.hears(player.send(b"hello")) is not None
