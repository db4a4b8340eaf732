import pytest

from tests.support.simnet import FULL_CONE, GOOD_LINE, PORT_RESTRICTED, START, SYMMETRIC, Line, Nat, Network


class Sink:
    def __init__(self, network, ip, line=GOOD_LINE, nat=None):
        self.line, self.nat, self.ip = line, nat, ip
        self.got = []
        self.network = network
        network.attach(ip, self)

    def receive(self, data, source, destination):
        self.got.append((round(self.network.now - START, 6), data, source))


def test_latency_is_the_sum_of_both_lines():
    net = Network()
    Sink(net, "10.0.0.1", Line(latency=0.03))
    b = Sink(net, "10.0.0.2", Line(latency=0.02))
    net.send(b"x", ("10.0.0.1", 1), ("10.0.0.2", 2))
    net.run(1)
    assert b.got == [(0.05, b"x", ("10.0.0.1", 1))]


def test_the_same_seed_is_the_same_run():
    def run(seed):
        net = Network(seed)
        Sink(net, "10.0.0.1", Line(loss=0.3, jitter=0.05, duplicate=0.1, reorder=0.1))
        b = Sink(net, "10.0.0.2")
        for n in range(200):
            net.send(bytes([n]), ("10.0.0.1", 1), ("10.0.0.2", 2))
        net.run(1)
        return b.got

    assert run(1) == run(1) != run(2)


def test_loss_duplication_and_reordering_happen_about_as_often_as_asked():
    net = Network(5)
    Sink(net, "10.0.0.1", Line(loss=0.25, duplicate=0.1))
    b = Sink(net, "10.0.0.2")
    for _ in range(4000):
        net.send(b"x", ("10.0.0.1", 1), ("10.0.0.2", 2))
    net.run(1)
    assert len(b.got) == pytest.approx(4000 * 1.1 * 0.75, rel=0.05)


def outside(kind):
    """What of three packets from outside gets in: from the peer, its other port, and a stranger."""
    net = Network()
    nat = Nat(net, "203.0.113.1", kind)
    inside = Sink(net, "10.0.0.1", nat=nat)
    peer, stranger = Sink(net, "198.51.100.1"), Sink(net, "198.51.100.2")
    net.send(b"out", ("10.0.0.1", 5000), ("198.51.100.1", 1))
    net.run(1)
    mapped = peer.got[0][2]
    net.send(b"peer", ("198.51.100.1", 1), mapped)
    net.send(b"other port", ("198.51.100.1", 2), mapped)
    net.send(b"stranger", (stranger.ip, 1), mapped)
    net.run(1)
    return {data for _, data, _ in inside.got}


def test_filtering_is_that_of_the_kind():
    assert outside(FULL_CONE) == {b"peer", b"other port", b"stranger"}
    assert outside(PORT_RESTRICTED) == outside(SYMMETRIC) == {b"peer"}


@pytest.mark.parametrize(("kind", "ports"), [(PORT_RESTRICTED, 1), (SYMMETRIC, 2)])
def test_mapping_is_that_of_the_kind(kind, ports):
    net = Network()
    Sink(net, "10.0.0.1", nat=Nat(net, "203.0.113.1", kind))
    sinks = [Sink(net, "198.51.100.1"), Sink(net, "198.51.100.2")]
    for sink in sinks:
        net.send(b"x", ("10.0.0.1", 5000), (sink.ip, 1))
    net.run(1)
    assert len({sink.got[0][2] for sink in sinks}) == ports


def test_a_rebound_or_expired_mapping_lets_nothing_in():
    net = Network()
    nat = Nat(net, "203.0.113.1", lifetime=30)
    inside = Sink(net, "10.0.0.1", nat=nat)
    peer = Sink(net, "198.51.100.1")
    for forget in (nat.rebind, lambda: net.run(31)):
        net.send(b"out", ("10.0.0.1", 5000), ("198.51.100.1", 1))
        net.run(1)
        forget()
        net.send(b"in", ("198.51.100.1", 1), peer.got[-1][2])
        net.run(1)
    assert inside.got == []
    assert peer.got[0][2] != peer.got[1][2]


def test_waiting_for_what_never_happens_fails():
    with pytest.raises(AssertionError, match="virtual seconds"):
        Network().run_until(lambda: False, seconds=5)
