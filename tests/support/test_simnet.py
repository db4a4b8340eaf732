import itertools

import pytest

from tests.support.simnat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PLAIN_LINUX,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_SEQUENTIAL,
)
from tests.support.simnet import GOOD_LINE, LAN_LATENCY, START, Line, Nat, Network


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
    assert outside(ADDRESS_RESTRICTED) == {b"peer", b"other port"}
    assert outside(PORT_RESTRICTED) == outside(PLAIN_LINUX) == outside(SYMMETRIC) == {b"peer"}


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


def ports_of(kind, count=5):
    """The outer ports of a socket with port 5000 towards `count` servers."""
    net = Network()
    Sink(net, "10.0.0.1", nat=Nat(net, "203.0.113.1", kind))
    sinks = [Sink(net, f"198.51.100.{n}") for n in range(count)]
    for sink in sinks:
        net.send(b"x", ("10.0.0.1", 5000), (sink.ip, 1))
    net.run(1)
    return [sink.got[0][2][1] for sink in sinks]


def test_ports_are_those_of_the_kind():
    assert set(ports_of(PLAIN_LINUX)) == {5000}
    first, *others = ports_of(SYMMETRIC_SEQUENTIAL)
    assert others == [first + n for n in range(1, 5)]
    ports = ports_of(SYMMETRIC, count=40)
    steps = {after - before for before, after in itertools.pairwise(ports)}
    assert len(set(ports)) == 40 and len(steps) > 30, "the next port cannot be predicted"


def test_two_hosts_never_share_an_outer_port():
    net = Network()
    nat = Nat(net, "203.0.113.1", PLAIN_LINUX)
    one, two = Sink(net, "10.0.0.1", nat=nat), Sink(net, "10.0.0.2", nat=nat)
    server = Sink(net, "198.51.100.1")
    for sink in (one, two):
        net.send(b"x", (sink.ip, 5000), (server.ip, 1))
    net.run(1)
    assert len({source for _, _, source in server.got}) == 2


def test_a_private_address_behind_another_nat_is_not_reached():
    net = Network()
    here = Sink(net, "10.0.0.1", nat=Nat(net, "203.0.113.1", FULL_CONE))
    there = Sink(net, "10.0.0.2", nat=Nat(net, "203.0.113.2", FULL_CONE))
    public = Sink(net, "10.0.0.3")
    for sink in (there, public):
        net.send(b"x", ("10.0.0.1", 1), (sink.ip, 2), here)
    net.run(1)
    assert there.got == public.got == []


def test_the_same_private_address_behind_two_nats_is_two_hosts():
    net = Network()
    hosts = [Sink(net, "10.0.0.1", nat=Nat(net, f"203.0.113.{n}", FULL_CONE)) for n in (1, 2)]
    server = Sink(net, "198.51.100.1")
    for host in hosts:
        net.send(b"x", ("10.0.0.1", 1), ("198.51.100.1", 2), host)
    net.run(1)
    sources = [source for _, _, source in server.got]
    assert [ip for ip, _ in sources] == ["203.0.113.1", "203.0.113.2"]
    net.send(b"for the second", ("198.51.100.1", 2), sources[1])
    net.run(1)
    assert [host.got for host in hosts] == [[], [(1.02, b"for the second", ("198.51.100.1", 2))]]


def test_hosts_behind_the_same_nat_reach_each_other_without_it():
    net = Network()
    nat = Nat(net, "203.0.113.1", SYMMETRIC)
    Sink(net, "10.0.0.1", nat=nat)
    two = Sink(net, "10.0.0.2", nat=nat)
    net.send(b"x", ("10.0.0.1", 1), ("10.0.0.2", 2))
    net.run(1)
    assert two.got == [(LAN_LATENCY, b"x", ("10.0.0.1", 1))]


@pytest.mark.parametrize("hairpin", [False, True])
def test_the_outer_address_is_reached_from_inside_only_with_hairpinning(hairpin):
    net = Network()
    nat = Nat(net, "203.0.113.1", FULL_CONE, hairpin=hairpin)
    one, two = Sink(net, "10.0.0.1", nat=nat), Sink(net, "10.0.0.2", nat=nat)
    server = Sink(net, "198.51.100.1")
    for sink in (one, two):
        net.send(b"x", (sink.ip, 5000), (server.ip, 1))
    net.run(1)
    outer_one, outer_two = (source for _, _, source in server.got)
    net.send(b"hairpin", ("10.0.0.1", 5000), outer_two)
    net.run(1)
    assert [got[1:] for got in two.got] == ([(b"hairpin", outer_one)] if hairpin else [])


def test_a_nat_behind_a_nat_translates_once_more_and_filters_at_both():
    net = Network()
    carrier = Nat(net, "203.0.113.1", SYMMETRIC)
    homes = [Nat(net, f"100.64.0.{n}", FULL_CONE, behind=carrier) for n in (1, 2)]
    one, two = (Sink(net, "192.168.1.2", nat=home) for home in homes)
    server = Sink(net, "198.51.100.1")
    net.send(b"out", ("192.168.1.2", 5000), ("198.51.100.1", 1), one)
    net.run(1)
    ((_, _, source),) = server.got
    assert source[0] == "203.0.113.1"
    net.send(b"answer", ("198.51.100.1", 1), source)
    net.send(b"other port", ("198.51.100.1", 2), source)
    net.run(1)
    assert [data for _, data, _ in one.got] == [b"answer"]
    assert two.got == []


def test_homes_behind_one_carrier_reach_each_others_outer_address():
    net = Network()
    carrier = Nat(net, "203.0.113.1", SYMMETRIC)
    homes = [Nat(net, f"100.64.0.{n}", PLAIN_LINUX, behind=carrier) for n in (1, 2)]
    one, two = (Sink(net, "192.168.1.2", nat=home) for home in homes)
    net.send(b"filtered", ("192.168.1.2", 5000), ("100.64.0.2", 5000), one)
    net.run(1)
    net.send(b"opened", ("192.168.1.2", 5000), ("100.64.0.1", 5000), two)
    net.run(1)
    assert [data for _, data, _ in one.got + two.got] == [b"opened"]


def test_an_ipv6_address_is_on_the_internet_also_for_a_host_behind_a_nat():
    net = Network()
    host = Sink(net, "10.0.0.1", nat=Nat(net, "203.0.113.1"))
    net.attach("2001:db8::1", host)
    Sink(net, "2001:db8::2")
    net.send(b"x", ("2001:db8::2", 1), ("2001:db8::1", 2))
    net.run(1)
    assert [data for _, data, _ in host.got] == [b"x"]
