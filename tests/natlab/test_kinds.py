"""Each kind of NAT maps and filters as it is meant to: asked with plain sockets, from both sides."""

import contextlib
import itertools
import socket
from collections.abc import Iterator

import pytest

from natlab import kinds
from natlab.kinds import Filter, Mapping, NatKind
from natlab.lab import Host, Lab
from tests.natlab.conftest import Udp
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

WITH_HAIRPIN = [kind for kind in kinds.KINDS if kind.mapping is Mapping.ENDPOINT_INDEPENDENT]


@pytest.fixture(scope="module")
def servers(internet: Lab) -> list[Host]:
    return [internet.server("server"), internet.server("other")]


@pytest.fixture
def scene(internet: Lab) -> Iterator[Lab]:
    with internet.scene():
        yield internet


@contextlib.contextmanager
def all_delivered(lab: Lab, count: int) -> Iterator[None]:
    """At the end, the wire has delivered as many packets as are sent while it is entered."""
    before = lab.wire.carried.total()
    yield
    wait_until(lambda: lab.wire.carried.total() >= before + count and not lab.wire.on_its_way)


def by_name(kind: NatKind) -> str:
    return kind.name


@pytest.mark.parametrize("kind", kinds.KINDS, ids=by_name)
def test_mapping_and_filter_are_those_of_the_kind(scene: Lab, servers: list[Host], kind: NatKind) -> None:
    inside = Udp(scene.router("home", kind).host("alice"), 5000)
    outside = [Udp(servers[0], 7001), Udp(servers[0], 7002), Udp(servers[1], 7001), Udp(servers[1], 7002)]
    addresses = [(server.address, port) for server in servers for port in (7001, 7002)]
    mapped = []
    for opened, address in list(zip(outside, addresses, strict=True))[:2]:
        inside.send(b"out", address)
        mapped.append(opened.receive()[1])
    assert_ports(kind, [port for _, port in mapped])
    with all_delivered(scene, 2):
        outside[1].send(b"other port", mapped[0])
        outside[2].send(b"other address", mapped[0])
    outside[0].send(b"last", mapped[0])
    expected = {
        Filter.ENDPOINT_INDEPENDENT: [b"other port", b"other address"],
        Filter.ADDRESS_DEPENDENT: [b"other port"],
        Filter.ADDRESS_AND_PORT_DEPENDENT: [] if kind.is_symmetric else [b"other port"],  # it was sent to as well
    }[kind.filter]
    assert inside.received_before(b"last") == expected
    for opened in (inside, *outside):
        opened.close()


def assert_ports(kind: NatKind, ports: list[int]) -> None:
    match kind.mapping:
        case Mapping.ENDPOINT_INDEPENDENT | Mapping.PRESERVING:
            assert ports == [5000, 5000]
        case Mapping.SEQUENTIAL:
            assert ports[1] == ports[0] + 1
        case Mapping.RANDOM:
            assert len({5000, *ports}) == 3


@pytest.mark.parametrize("kind", kinds.KINDS, ids=by_name)
def test_a_packet_that_arrives_early_takes_no_port(scene: Lab, servers: list[Host], kind: NatKind) -> None:
    home = scene.router("home", kind)
    inside, outside = Udp(home.host("alice"), 5000), Udp(servers[0], 7003)
    with all_delivered(scene, 1):
        outside.send(b"early", (home.address, 5000))
    inside.send(b"out", (servers[0].address, 7003))
    _, (_, port) = outside.receive()
    assert port == 5000 or kind.is_symmetric
    outside.send(b"answer", (home.address, port))
    assert inside.receive()[0] == b"answer"
    inside.close()
    outside.close()


@pytest.mark.parametrize("hairpin", [False, True])
@pytest.mark.parametrize("kind", WITH_HAIRPIN, ids=by_name)
def test_hosts_of_one_home_reach_each_other_by_its_outer_address_with_hairpinning_only(
    scene: Lab, servers: list[Host], kind: NatKind, hairpin: bool
) -> None:
    home = scene.router("home", kind, hairpin=hairpin)
    hosts = [home.host("alice"), home.host("bob")]
    alice, bob = (Udp(host, 5000 + index) for index, host in enumerate(hosts))
    server = Udp(servers[0], 7004)
    for host in (alice, bob):
        host.send(b"out", (servers[0].address, 7004))
        server.receive()
    alice.send(b"hairpin", (home.address, 5001))
    alice.send(b"last", (hosts[1].address, 5001))
    assert bob.received_before(b"last") == ([b"hairpin"] if hairpin else [])
    for opened in (alice, bob, server):
        opened.close()


def test_a_kind_that_maps_by_destination_has_no_hairpinning(scene: Lab) -> None:
    with pytest.raises(ValueError, match="cannot hairpin"):
        scene.router("home", kinds.RANDOM, hairpin=True)


def test_a_mapping_ends_after_its_lifetime_and_after_a_flush(scene: Lab, servers: list[Host]) -> None:
    home = scene.router("home", kinds.RANDOM, lifetime=1)
    inside, outside = Udp(home.host("alice"), 5000), Udp(servers[0], 7005)

    def mapped() -> int:
        inside.send(b"out", (servers[0].address, 7005))
        return outside.receive()[1][1]

    first = mapped()
    assert mapped() == first
    home.flush()
    second = mapped()
    assert second != first
    assert outside.is_silent(1.5)
    assert mapped() != second
    inside.close()
    outside.close()


def test_a_router_that_blocks_udp_and_one_with_ipv6(scene: Lab, servers: list[Host]) -> None:
    blocked = Udp(scene.router("work", kinds.PLAIN_LINUX, blocks_udp=True).host("bob"))
    home = scene.router("home", None, ipv6=True)
    host = home.host("alice")
    assert [":" in address for address in host.addresses] == [True]
    inside, outside = Udp(host, 5000, socket.AF_INET6), Udp(servers[0], 7006, socket.AF_INET6)
    blocked.send(b"blocked", (servers[0].address, 7006))
    with all_delivered(scene, 1):
        outside.send(b"unsolicited", (host.address, 5000))
    inside.send(b"out", (servers[0].addresses[1], 7006))
    data, address = outside.receive()
    assert (data, address) == (b"out", (host.address, 5000))
    outside.send(b"answer", (host.address, 5000))
    assert inside.receive()[0] == b"answer"
    for opened in (blocked, inside, outside):
        opened.close()


def test_pairs_that_can_punch_are_fourteen_of_twenty_one() -> None:
    pairs = list(itertools.combinations_with_replacement(kinds.KINDS, 2))
    assert len(pairs) == 21
    assert sum(kinds.can_punch(*pair) for pair in pairs) == 14
