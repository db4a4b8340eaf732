"""What kind of NAT a player is behind (RFC 5780, section 4.3), and the ports that it may assign next."""

import random

import pytest

from causeway_client.protocol.paths.nat import MAX_STEP, PREDICTED_PORTS, Observation, classify, predicted_ports
from causeway_client.protocol.paths.rendezvous import NatClass

NODE, OTHER = "198.51.100.1", "198.51.100.2"
OURS = "203.0.113.9"
SERVERS = [(NODE, 31000), (NODE, 31001), (OTHER, 31000)]


def seen(ports: list[int], servers: list[tuple[str, int]] = SERVERS) -> list[Observation]:
    """The requests to the servers were sent in this order, and came from these ports of one address."""
    return [Observation(*server, OURS, port) for server, port in zip(servers, ports, strict=False)]


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], (NatClass.UNKNOWN, 0)),
        ([5000], (NatClass.UNKNOWN, 0)),
        ([5000, 5000], (NatClass.ENDPOINT_INDEPENDENT, 0)),
        ([5000, 5000, 5000], (NatClass.ENDPOINT_INDEPENDENT, 0)),
        ([5000, 5000, 5001], (NatClass.ADDRESS_DEPENDENT, 0)),
        ([5000, 5000, 61234], (NatClass.ADDRESS_DEPENDENT, 0)),
        ([5000, 5001], (NatClass.PORT_DEPENDENT, 1)),
        ([5000, 5001, 5002], (NatClass.PORT_DEPENDENT, 1)),
        ([5000, 5002, 5006], (NatClass.PORT_DEPENDENT, 2)),
        ([5000, 4998, 4996], (NatClass.PORT_DEPENDENT, -2)),
        ([5000, 5000 + MAX_STEP], (NatClass.PORT_DEPENDENT, MAX_STEP)),
        ([5000, 5001 + MAX_STEP], (NatClass.RANDOM_PORTS, 0)),
        ([5000, 61234, 33333], (NatClass.RANDOM_PORTS, 0)),
        ([5000, 5002, 5000], (NatClass.PORT_DEPENDENT, 2)),
        ([5000, 5003, 4999], (NatClass.RANDOM_PORTS, 0)),
    ],
)
def test_classes_and_steps(ports: list[int], expected: tuple[NatClass, int]) -> None:
    assert classify(seen(ports)) == expected


def test_two_servers_at_one_port_each_do_not_show_on_what_the_port_depends() -> None:
    """Both of a NAT for each address and of one for each port, the mappings differ: the harder one is assumed."""
    assert classify(seen([5000, 5001], [(NODE, 31000), (OTHER, 31000)])) == (NatClass.PORT_DEPENDENT, 1)


def test_a_second_request_to_the_same_server_adds_nothing() -> None:
    assert classify(seen([5000, 5000], [(NODE, 31000)] * 2)) == (NatClass.UNKNOWN, 0)


def test_two_public_addresses_are_not_one_mapping() -> None:
    """As behind a NAT that takes one of several addresses for each connection."""
    observations = [Observation(NODE, 31000, OURS, 5000), Observation(NODE, 31001, "203.0.113.10", 5000)]
    assert classify(observations)[0] is not NatClass.ENDPOINT_INDEPENDENT


def test_a_node_that_lies_about_the_address_breaks_nothing() -> None:
    draw = random.Random(1)
    for _ in range(500):
        servers = [(draw.choice((NODE, OTHER)), draw.randrange(3)) for _ in range(draw.randrange(8))]
        observations = [Observation(*server, draw.choice((OURS, "::1")), draw.randrange(70_000)) for server in servers]
        nat_class, step = classify(observations)
        assert nat_class in NatClass
        assert -MAX_STEP <= step <= MAX_STEP
        assert (step != 0) == (nat_class is NatClass.PORT_DEPENDENT)


def test_the_next_ports_are_those_at_the_step_nearest_first() -> None:
    assert predicted_ports(5000, 2) == [5002, 5004, 5006, 5008, 5010, 5012, 5014, 5016]
    assert predicted_ports(5000, -1) == [4999, 4998, 4997, 4996, 4995, 4994, 4993, 4992]
    assert predicted_ports(5000, 0) == []


@pytest.mark.parametrize(("port", "step"), [(65_530, 1), (65_530, 127), (1028, -1), (1, -128), (0, 1), (65_535, -1)])
def test_no_port_outside_those_of_players_is_predicted(port: int, step: int) -> None:
    """A hostile peer states the step, and a node the port."""
    ports = predicted_ports(port, step)
    assert len(ports) <= PREDICTED_PORTS
    assert all(1024 <= guess <= 65_535 for guess in ports)
