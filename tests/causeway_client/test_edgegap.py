"""The edgegap machines: bytes by the table of the dialect, and over a simulated network against the node's core."""

import pytest

from causeway_client.edgegap import MAX_PAYLOAD, ClientMachine, EdgegapState, HostMachine, StateChanged
from causeway_client.protocol.errors import InvalidTarget, PayloadTooLarge
from relaynode.core.grants import read_grant
from relaynode.core.relay import Relay, RelayConfig
from tests.support.simnet import Line, Network, NodeHost, PlayerHost

NODE = ("198.51.100.1", 31001)
SESSION_TOKEN = 3_500_589_645


@pytest.fixture
def client():
    return ClientMachine(NODE, user_token=4_000_000_001, session_token=SESSION_TOKEN)


@pytest.fixture
def host():
    return HostMachine(NODE, user_token=21_986_334, session_token=SESSION_TOKEN)


def sent(machine):
    return [data for data, _ in machine.datagrams_to_send(0.0)]


def test_a_ping_is_nine_bytes_user_token_first(client):
    client.connect(0.0)
    assert sent(client) == [bytes.fromhex("01286bee 4dc2a6d0 01")]


def test_pings_come_each_half_second(client):
    client.connect(0.0)
    for _ in range(4):
        client.handle_timer(client.next_timer())
    assert len(sent(client)) == 5
    assert client.next_timer() == pytest.approx(2.5)


def test_a_clients_data_has_a_header_of_nine_bytes_down_one(client):
    client.send(0, b"hello", 0.0)
    assert sent(client) == [bytes.fromhex("01286bee 4dc2a6d0 02") + b"hello"]
    assert client.receive_datagram(b"\x02world", NODE, 0.0) == (0, b"world")


def test_a_hosts_data_has_the_connection_id_both_ways(host):
    host.send(5, b"state", 0.0)
    assert sent(host)[0][8:] == bytes.fromhex("02 05000000") + b"state"
    assert host.receive_datagram(bytes.fromhex("02 01020304") + b"x", NODE, 0.0) == (0x04030201, b"x")


def test_connection_ids_are_unsigned(host):
    host.send(4_000_000_000, b"x", 0.0)
    assert host.receive_datagram(sent(host)[0][8:], NODE, 0.0) == (4_000_000_000, b"x")


def test_the_largest_payload_makes_1200_bytes(host):
    host.send(1, bytes(MAX_PAYLOAD), 0.0)
    assert len(sent(host)[0]) == 1200
    with pytest.raises(PayloadTooLarge):
        host.send(1, bytes(MAX_PAYLOAD + 1), 0.0)


@pytest.mark.parametrize("target", [0, -1, 2**32])
def test_what_is_no_connection_id_is_refused(host, target):
    with pytest.raises(InvalidTarget):
        host.send(target, b"x", 0.0)


def test_a_client_reaches_the_host_only(client):
    with pytest.raises(InvalidTarget):
        client.send(1, b"x", 0.0)


def test_a_change_of_state_is_reported_once(client):
    for value in (1, 1, 2, 2, 3):
        client.receive_datagram(bytes((1, value)), NODE, 0.0)
    found = [client.next_event() for _ in range(4)]
    assert found == [*map(StateChanged, (EdgegapState.CHECKING, EdgegapState.VALID, EdgegapState.INVALID)), None]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "too_short"), (b"\x01", "too_short"), (b"\x03xx", "unknown_type"), (b"\x01\x09", "unknown_state")],
)
def test_a_bad_frame_is_ignored_and_counted(client, data, reason):
    assert client.receive_datagram(data, NODE, 0.0) is None
    assert client.dropped == {reason: 1}
    assert client.next_event() is None


def test_a_host_drops_data_without_a_payload(host):
    assert host.receive_datagram(bytes.fromhex("02 01000000"), NODE, 0.0) is None
    assert host.dropped == {"too_short": 1}


def test_a_frame_from_elsewhere_is_dropped(client):
    assert client.receive_datagram(b"\x02x", ("192.0.2.1", 1), 0.0) is None
    assert client.dropped == {"wrong_address": 1}


def world():
    net = Network(2)
    relay = Relay(worker=0, config=RelayConfig(), random=net.random_bytes)
    node = NodeHost(net, relay, "198.51.100.1")
    seats = [{"seat": n, "token": 0x1000 + n, "revoked": False, "limits": {"packets": 0, "bytes": 0}} for n in range(3)]
    grant = {
        "session": "3960c873aafd-S",
        "revision": 1,
        "worker": 0,
        "token": SESSION_TOKEN,
        "topology": "host",
        "dialects": ["edgegap"],
        "idle_timeout": 300,
        "expires_at": net.now + 14_400,
        "limits": {"packets": 0, "bytes": 0},
        "seats": seats,
    }
    relay.apply_grant(read_grant(grant), net.now)
    return net, node


def test_host_and_clients_play_through_a_relay():
    net, node = world()
    host = PlayerHost(
        net, HostMachine(node.address(0), user_token=0x1000, session_token=SESSION_TOKEN), "10.0.0.1", line=Line(0.02)
    )
    clients = [
        PlayerHost(
            net, ClientMachine(node.address(1), user_token=0x1000 + n, session_token=SESSION_TOKEN), f"10.0.0.{n + 1}"
        )
        for n in (1, 2)
    ]
    for player in (host, *clients):
        player.call("connect")
    net.run(1)
    assert all(player.events == [StateChanged(EdgegapState.VALID)] for player in (host, *clients))
    for client in clients:
        client.call("send", 0, b"hello from " + client.address[0].encode())
    net.run(1)
    assert len({connection_id for connection_id, _ in host.received}) == 2
    for connection_id, payload in host.received:
        host.call("send", connection_id, b"re: " + payload)
    net.run(1)
    for client in clients:
        assert client.received == [(0, b"re: hello from " + client.address[0].encode())]


def test_wrong_tokens_and_the_wrong_port_are_invalid():
    net, node = world()
    wrong = PlayerHost(net, ClientMachine(node.address(1), user_token=0x9999, session_token=1), "10.0.0.1")
    swapped = PlayerHost(
        net, ClientMachine(node.address(0), user_token=0x1001, session_token=SESSION_TOKEN), "10.0.0.2"
    )
    for player in (wrong, swapped):
        player.call("connect")
    net.run(1)
    assert wrong.machine.state is swapped.machine.state is EdgegapState.INVALID
