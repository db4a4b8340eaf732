import random

import pytest

from causeway_client.protocol import packets
from relaynode.supervision.peer_meter import LARGE, MAX_OUTCOMES, PROBE_TIMEOUT, Peer, PeerMeter

AMS, TYO = Peer("ams-1", "192.0.2.1", 31001), Peer("tyo-1", "2001:db8::1", 31001)


@pytest.fixture
def meter() -> PeerMeter:
    meter = PeerMeter(random.Random(1).randbytes)
    meter.set_peers([AMS, TYO])
    return meter


def exchange(meter: PeerMeter, peer: Peer, now: float, ms: float, *, loses: int = 0) -> None:
    """One round: both probes are answered after so long, but those of size `loses`."""
    for datagram in meter.probe(peer, now):
        probe = packets.decode_probe(datagram)
        if probe.size != loses:
            meter.receive_datagram(packets.ProbeReply(probe.nonce, 1, probe.size).encode(), now + ms / 1000)


def test_round_trip_is_the_median_and_jitter_the_mean_step(meter: PeerMeter) -> None:
    for turn, ms in enumerate((10.0, 12.0, 300.0)):
        exchange(meter, AMS, turn * 2.0, ms)
    (figures,) = meter.figures(5.0)
    assert (figures.node, figures.rtt_ms) == ("ams-1", 12.0)
    assert figures.jitter_ms > 10
    assert figures.loss == figures.loss_large == 0
    assert figures.age_s == 0.7


def test_a_network_that_loses_only_large_packets_is_seen(meter: PeerMeter) -> None:
    for turn in range(10):
        exchange(meter, AMS, turn * 2.0, 10.0, loses=LARGE)
    meter.give_up(20.0 + PROBE_TIMEOUT)
    (figures,) = meter.figures(22.0)
    assert (figures.loss, figures.loss_large) == (0.0, 1.0)


def test_peer_that_never_answered_is_not_told_of(meter: PeerMeter) -> None:
    meter.probe(TYO, 0.0)
    meter.give_up(PROBE_TIMEOUT)
    assert meter.figures(5.0) == []


def test_old_outcomes_make_room(meter: PeerMeter) -> None:
    for turn in range(2 * MAX_OUTCOMES):
        exchange(meter, AMS, turn * 2.0, 10.0 if turn < MAX_OUTCOMES else 50.0)
    assert meter.figures(100.0)[0].rtt_ms == pytest.approx(50)


def test_peers_that_go_are_forgotten_and_those_that_stay_are_not(meter: PeerMeter) -> None:
    exchange(meter, AMS, 0.0, 10.0)
    exchange(meter, TYO, 0.0, 200.0)
    meter.set_peers([TYO])
    assert [figures.node for figures in meter.figures(1.0)] == ["tyo-1"]


@pytest.mark.parametrize("data", [b"", b"\xcd", b"\xcd" + bytes(63), b"\xcd\x01" + bytes(62), bytes(64)])
def test_answers_to_nothing_change_nothing(meter: PeerMeter, data: bytes) -> None:
    meter.probe(AMS, 0.0)
    meter.receive_datagram(data, 0.1)
    assert meter.figures(0.2) == []
