import random
import statistics

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.probing import Loss, Measurement, Prober, RoundTrip
from causeway_client.protocol.proofs import decode_proof
from relaynode.core.relay import CLIENT_PORT, Relay, RelayConfig
from tests.support.simnet import Line, Network, PlayerHost


def test_the_first_sample_is_taken_whole_and_later_ones_by_an_eighth():
    estimate = RoundTrip()
    assert estimate.smoothed is None
    estimate.add(0.080)
    assert estimate.smoothed == pytest.approx(0.080)
    estimate.add(0.160)
    assert estimate.smoothed == pytest.approx(0.090)


def test_jitter_follows_the_steps_between_samples():
    estimate = RoundTrip()
    for n in range(400):
        estimate.add(0.050 if n % 2 else 0.060)
    assert estimate.jitter == pytest.approx(0.010, rel=0.01)


def test_loss_is_the_share_that_did_not_arrive():
    loss = Loss()
    assert loss.share == 0.0
    for n in range(1, 11):
        loss.update(sent_total=100 * n, arrived_total=80 * n)
    assert loss.share == pytest.approx(0.2)


def test_loss_forgets_what_is_long_past():
    loss = Loss()
    loss.update(100, 0)
    assert loss.share == 1.0
    for n in range(1, 40):
        loss.update(100 + 100 * n, 100 * n)
    assert loss.share < 0.01


def test_a_report_older_than_the_last_one_changes_nothing():
    loss = Loss()
    loss.update(100, 90)
    loss.update(50, 50)
    loss.update(110, 80)
    assert loss.share == pytest.approx(0.1)


def test_more_arrivals_than_were_sent_is_no_loss():
    loss = Loss()
    loss.update(10, 20)
    assert loss.share == 0.0


class EchoNode:
    """Answers PROBEs as PROTOCOL.md 11 says."""

    nat = None

    def __init__(self, network, ip, line):
        self.network, self.line = network, line
        network.attach(ip, self)

    def receive(self, data, source, destination):
        probe = packets.decode_probe(data)
        self.network.send(packets.ProbeReply(probe.nonce, 1, probe.size).encode(), destination, source)


def probe_over(line, **options):
    network = Network(seed=7)
    EchoNode(network, "198.51.100.1", Line(latency=0))
    prober = Prober(("198.51.100.1", 31001), random=network.random_bytes, **options)
    player = PlayerHost(network, prober, "10.0.0.2", line=line)
    player.call("start")
    network.run_until(lambda: bool(player.events), seconds=20)
    (measured,) = player.events
    return measured, network


def test_a_prober_measures_round_trip_and_jitter():
    measured, _ = probe_over(Line(latency=0.03, jitter=0.004), count=20)
    assert measured.rtt_ms == pytest.approx(64, abs=2)
    assert 0 < measured.jitter_ms < 8
    assert measured.loss == 0.0


def test_a_prober_is_done_as_soon_as_all_were_answered():
    _, network = probe_over(Line(latency=0.03), count=3, interval=0.1, reply_timeout=5)
    assert network.now - 1_795_257_600.0 == pytest.approx(0.26)


def test_a_prober_counts_what_was_lost():
    measured, _ = probe_over(Line(latency=0.03, loss=0.3), count=200, interval=0.05)
    assert measured.loss == pytest.approx(0.51, abs=0.08)  # 0.7 there and 0.7 back


def test_silence_is_a_result():
    measured, _ = probe_over(Line(loss=1.0), count=3)
    assert measured == Measurement(rtt_ms=None, jitter_ms=None, loss=1.0)


def test_a_prober_never_sends_more_than_twenty_a_second_by_default():
    prober = Prober("node", random=random.Random(1).randbytes, count=1000)
    prober.start(0.0)
    sent = []
    while (now := prober.next_timer()) < 10:
        prober.handle_timer(now)
        sent += prober.datagrams_to_send(now)
    assert len(sent) <= 200


def test_bad_replies_are_counted_by_reason():
    prober = Prober("node", random=random.Random(1).randbytes)
    prober.start(0.0)
    prober.receive_datagram(b"", "node", 0.1)
    prober.receive_datagram(b"\xcd" * 10, "node", 0.1)
    prober.receive_datagram(packets.ProbeReply(b"x" * 16, 1).encode(), "node", 0.1)
    assert prober.dropped == {"unknown_type": 1, "too_short": 1, "unknown_nonce": 1}


def test_a_duplicated_reply_counts_once():
    prober = Prober("node", random=random.Random(1).randbytes, count=2, interval=0.1, reply_timeout=1.0)
    prober.start(0.0)
    ((data, _),) = prober.datagrams_to_send(0.0)
    reply = packets.ProbeReply(packets.decode_probe(data).nonce, 1).encode()
    prober.receive_datagram(reply, "node", 0.05)
    prober.receive_datagram(reply, "node", 0.06)
    prober.handle_timer(0.1)
    prober.handle_timer(1.1)
    assert prober.next_event() == Measurement(rtt_ms=pytest.approx(50), jitter_ms=0.0, loss=1.0)  # of large packets


def test_a_network_that_loses_large_packets_is_as_bad_as_one_that_loses_all():
    prober = Prober("node", random=random.Random(1).randbytes, count=4)
    prober.start(0.0)
    now = 0.0
    while prober.next_timer() is not None:
        for data, _ in prober.datagrams_to_send(now):
            probe = packets.decode_probe(data)
            if probe.size < 1000:
                prober.receive_datagram(packets.ProbeReply(probe.nonce, 1, probe.size).encode(), "node", now + 0.02)
        now = prober.next_timer()
        prober.handle_timer(now)
    assert prober.next_event().loss == 1.0


def test_shortest_round_trip_is_proved():
    prober = Prober("node", random=random.Random(1).randbytes, count=2)
    prober.start(0.0)
    ((first, _),) = prober.datagrams_to_send(0.0)
    nonce = packets.decode_probe(first).nonce
    reply = packets.ProbeReply(nonce, 123, proof=b"12345678")
    prober.receive_datagram(reply.encode(), "node", 0.03)
    ((shown, _),) = prober.datagrams_to_send(0.03)
    assert packets.decode_probe(shown) == packets.Probe(nonce, time=123, proof=b"12345678")
    signed = packets.ProbeReply(nonce, 456, round_trip=30_000, key_id=7, proof=b"abcdefgh")
    prober.receive_datagram(signed.encode(), "node", 0.06)
    while prober.next_timer() is not None:
        prober.handle_timer(prober.next_timer())
    proof = decode_proof(prober.next_event().proof)
    assert (proof.nonce, proof.round_trip, proof.key_id, proof.proof) == (nonce, 30_000, 7, b"abcdefgh")


class CrowdedNode:
    """Answers so many probes a second for one address, refuses as many more and ignores the rest, as a node does."""

    nat = None

    def __init__(self, network, ip, per_second):
        self.network, self.line = network, Line(latency=0)
        self.relay = Relay(worker=0, config=RelayConfig(probes_per_source=per_second), random=network.random_bytes)
        self.relay.set_token_keys({1: bytes(32)})
        network.attach(ip, self)

    def receive(self, data, source, destination):
        answer = self.relay.receive_datagram(data, ("203.0.113.9", source[1]), CLIENT_PORT, 1e9 + self.network.now)
        if answer is not None:
            self.network.send(answer[1], destination, source)


@pytest.mark.parametrize("players", [40, 100])
def test_many_players_of_one_address_measure_no_loss(players):
    """At an allowance of which they want four times as much at once."""
    network = Network(seed=7)
    node = CrowdedNode(network, "198.51.100.1", per_second=players * 5 // 2)
    crowd = []
    for number in range(players):
        prober = Prober(("198.51.100.1", 31001), random=network.random_bytes)
        crowd.append(PlayerHost(network, prober, f"10.0.{number}.2", line=Line(latency=0.02)))
        crowd[-1].call("start")
    network.run_until(lambda: all(player.events for player in crowd), seconds=60)
    measured = [player.events[0] for player in crowd]
    assert {each.loss for each in measured} == {0.0}
    known = [each for each in measured if each.rtt_ms is not None]
    assert len(known) > 0.9 * players
    assert all(each.rtt_ms == pytest.approx(40, abs=1) for each in known)
    assert node.relay.counters.answers["probe_refused"] > 0


def test_a_network_that_loses_is_still_seen_to_lose_by_many_players_of_one_address():
    network = Network(seed=7)
    CrowdedNode(network, "198.51.100.1", per_second=200)
    crowd = []
    for number in range(40):
        prober = Prober(("198.51.100.1", 31001), random=network.random_bytes, count=20)
        crowd.append(PlayerHost(network, prober, f"10.0.{number}.2", line=Line(latency=0.02, loss=0.3)))
        crowd[-1].call("start")
    network.run_until(lambda: all(player.events for player in crowd), seconds=60)
    assert statistics.median(player.events[0].loss for player in crowd) > 0.2


def test_a_prober_ends_in_time_whatever_the_node_does():
    prober = Prober("node", random=random.Random(1).randbytes, timeout=2.0)
    prober.start(0.0)
    while (now := prober.next_timer()) is not None:
        assert now <= 2.0
        for data, _ in prober.datagrams_to_send(now):
            refused = packets.ProbeRefused(packets.decode_probe(data).nonce, 0xFFFF)
            prober.receive_datagram(refused.encode(), "node", now)
        prober.handle_timer(now)
    assert prober.next_event() == Measurement(rtt_ms=None, jitter_ms=None, loss=0.0)


def test_a_refusal_that_answers_no_probe_of_ours_changes_nothing():
    prober = Prober("node", random=random.Random(1).randbytes)
    prober.start(0.0)
    before = prober.next_timer()
    prober.receive_datagram(packets.ProbeRefused(bytes(16), 60_000).encode(), "node", 0.01)
    assert prober.next_timer() == before
    assert prober.dropped == {"unknown_nonce": 1}
