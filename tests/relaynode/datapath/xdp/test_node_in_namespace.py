"""A real node with the XDP path, reached over a wire: both dialects, both families, and its end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from causeway_client.protocol import packets
from tests.relaynode.datapath.xdp.namespaces import NODE_IPS, PLAYER_IPS, Wire, wire, within
from tests.relaynode.datapath.xdp.twins import needs_kernel
from tests.support.grants import grant_document
from tests.support.node_process import NodeProcess
from tests.support.players import EdgegapWire, NativeWire
from tests.support.waiting import wait_until

pytestmark = [needs_kernel(), pytest.mark.flow]


class NodeOverThere(NodeProcess):
    """Its control API is asked from within its namespace."""

    def __init__(self, there: Wire, **settings: str) -> None:
        super().__init__(1, PUBLIC_IP=NODE_IPS[0], XDP_INTERFACES="wire", **settings)
        self.there = there
        self.command = there.in_node(self.command)

    def call(self, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
        return within(self.there.node, lambda: super(NodeOverThere, self).call(method, path, body, key))


@pytest.fixture(scope="module")
def there() -> Iterator[Wire]:
    with wire() as made:
        yield made


@pytest.fixture
def node(there: Wire) -> Iterator[NodeOverThere]:
    with NodeOverThere(there, PACKET_PATH="xdp") as node:
        node.put_grant(grant())
        yield node


def grant(**changes: Any) -> dict[str, Any]:
    return grant_document(**{"expires_at": time.time() + 3600, **changes})


class Player:
    """A socket in the players' namespace."""

    def __init__(self, node: NodeOverThere, port: int, family: int) -> None:
        kind = (socket.AF_INET, socket.AF_INET6)[family]
        self.udp = within(node.there.players, lambda: socket.socket(kind, socket.SOCK_DGRAM))
        self.udp.bind((PLAYER_IPS[family], 0))
        self.udp.settimeout(3)
        self.relay = NODE_IPS[family], port


class EdgegapPlayer(EdgegapWire, Player):
    def __init__(self, node: NodeOverThere, seat: int, family: int = 0) -> None:
        EdgegapWire.__init__(self, seat)
        Player.__init__(self, node, node.client_port if seat else node.server_port, family)

    def send(self, body: bytes) -> None:
        self.udp.sendto(self.tokens + body, self.relay)

    def ask(self, body: bytes) -> bytes:
        self.send(body)
        return self.udp.recv(2048)


def introduced(node: NodeOverThere, family: int) -> tuple[EdgegapPlayer, EdgegapPlayer, bytes]:
    """Host and player whose ways back are known; and what the host calls the player."""
    host, player = EdgegapPlayer(node, 0, family), EdgegapPlayer(node, 1, family)
    assert host.ask(b"\1") == b"\1\2"
    player.send(b"\2hello")
    name = host.udp.recv(2048)[1:5]
    assert player.ask(b"\1") == b"\1\2"
    assert host.ask(b"\1") == b"\1\2"
    return host, player, name


def by_sockets(node: NodeOverThere) -> int:
    """Datagrams that reached a socket of the node so far."""

    def read() -> str:
        with open("/proc/thread-self/net/snmp") as v4, open("/proc/thread-self/net/snmp6") as v6:
            return v4.read() + v6.read()

    lines = [line.split() for line in within(node.there.node, read).splitlines()]
    v4 = next(words[1] for words in lines if words[0] == "Udp:" and words[1].isdigit())
    return int(v4) + int(next(words[1] for words in lines if words[0] == "Udp6InDatagrams"))


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("size", [1, 150, 1187])
def test_edgegap_data_goes_past_the_sockets(node: NodeOverThere, family: int, size: int) -> None:
    host, player, name = introduced(node, family)
    before, payload = by_sockets(node), bytes(range(256)) * 5
    for index in range(20):
        body = bytes((index,)) + payload[: size - 1]
        player.send(b"\2" + body)
        assert host.udp.recv(2048) == b"\2" + name + body
        host.send(b"\2" + name + body)
        assert player.udp.recv(2048) == b"\2" + body
    assert by_sockets(node) == before
    assert node.counters()["forwarded_packets"] == 41


class NativePlayer(NativeWire, Player):
    def __init__(self, node: NodeOverThere, seat: int, family: int = 0) -> None:
        NativeWire.__init__(self, seat, now=time.time(), token_key=node.token_key)
        Player.__init__(self, node, node.client_port, family)
        self.udp.sendto(self.connect_packet().encode(self.seat_key), self.relay)
        self.read_welcome(self.udp.recv(2048))

    def say(self, target: int, body: bytes, kind: int = packets.PacketType.DATA) -> None:
        self.udp.sendto(self.packet(kind, body, target), self.relay)

    def hear(self) -> tuple[int, bytes]:
        """(from which seat, what) of the next DATA, whose tag is right."""
        while True:
            kind, source, payload = self.read(self.udp.recv(2048))
            if kind == packets.PacketType.DATA:
                return source, payload


def exchange(host: NativePlayer, player: NativePlayer, size: int) -> None:
    """Twenty different payloads of `size` bytes in each direction."""
    payload = bytes(range(256)) * 5
    for index in range(20):
        body = bytes((index,)) + payload[: size - 1]
        player.say(0, body)
        assert host.hear() == (1, body)
        host.say(1, body)
        assert player.hear() == (0, body)


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("size", [1, 150, 1182])
def test_native_data_goes_past_the_sockets(node: NodeOverThere, family: int, size: int) -> None:
    host, player = NativePlayer(node, 0, family), NativePlayer(node, 1, family)
    for seat, source in ((1, host), (0, player)):
        source.say(seat, b"warm")
    assert (host.hear(), player.hear()) == ((1, b"warm"), (0, b"warm"))
    before = by_sockets(node)
    exchange(host, player, size)
    assert by_sockets(node) == before
    player.udp.sendto(player.ping_packet(received=21), player.relay)
    assert player.udp.recv(2048)[0] == packets.PacketType.PONG
    assert by_sockets(node) == before + 1


def test_telemetry_and_log_say_which_path(node: NodeOverThere) -> None:
    telemetry = node.telemetry()
    assert (telemetry["packet_path"], telemetry["packet_path_reason"]) == ("xdp", "")
    assert "packet path: xdp" in node.log


def test_a_revoke_is_in_force_when_it_is_answered(node: NodeOverThere) -> None:
    host, player, name = introduced(node, 0)
    node.put_grant(grant(revision=2, revoked=(1,)))
    for _ in range(10):
        player.send(b"\2late")
        host.send(b"\2" + name + b"late")
    assert player.ask(b"\1") == b"\1\3"
    host.udp.settimeout(0.2)
    with pytest.raises(TimeoutError):
        host.udp.recv(2048)


def test_a_session_the_program_forwards_for_is_not_idle(node: NodeOverThere) -> None:
    """Silence is counted from the last packet, whichever path it took: none but DATA for longer than the timeout."""
    host, player, name = introduced(node, 0)
    until = time.monotonic() + 11.5
    while time.monotonic() < until:
        player.send(b"\2x")
        assert host.udp.recv(2048)[5:] == b"x"
        host.send(b"\2" + name + b"y")
        assert player.udp.recv(2048) == b"\2y"
        time.sleep(0.1)
    assert ("seat_left", 1) not in node.events()


def test_when_a_worker_dies_the_sockets_take_over_and_its_successor_the_maps(node: NodeOverThere) -> None:
    host, player, name = introduced(node, 0)
    node.telemetry()
    (worker,) = node.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: node.is_healthy() and node.worker_pids() not in ([], [worker]))
    for _ in range(2):  # through the sockets, until the ways back are known
        player.send(b"\2after")
        assert host.udp.recv(2048) == b"\2" + name + b"after"
        assert host.ask(b"\1") == b"\1\2"
    before = by_sockets(node)
    player.send(b"\2again")
    assert host.udp.recv(2048) == b"\2" + name + b"again"
    assert by_sockets(node) == before


@pytest.mark.parametrize("family", [0, 1])
def test_native_players_go_on_in_the_maps_of_a_successor(node: NodeOverThere, family: int) -> None:
    """They answer a challenge, and then the program counts their packets again."""
    host, player = NativePlayer(node, 0, family), NativePlayer(node, 1, family)
    player.say(0, b"warm")
    assert host.hear() == (1, b"warm")
    recorded = player.packet(packets.PacketType.DATA, b"recorded", 0)
    player.udp.sendto(recorded, player.relay)
    assert host.hear() == (1, b"recorded")
    node.telemetry()
    (worker,) = node.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: node.is_healthy() and node.worker_pids() not in ([], [worker]))
    for each in (host, player):
        each.say(1 - each.seat, b"is lost and challenged")
        kind, _, challenge = each.read(each.udp.recv(2048))
        assert kind == packets.PacketType.PATH_CHALLENGE
        each.udp.sendto(each.packet(packets.PacketType.PATH_RESPONSE, challenge + packets.PATH_MOVES), each.relay)
    for _ in range(2):  # through the sockets, until the ways back are known
        for seat, source in ((1, host), (0, player)):
            source.say(seat, b"warm again")
        assert (host.hear(), player.hear()) == ((1, b"warm again"), (0, b"warm again"))
    before = by_sockets(node)
    player.udp.sendto(recorded, player.relay)
    exchange(host, player, 100)
    assert by_sockets(node) <= before + 1, "only the recorded packet reaches a socket, and no player"
    assert node.counters()["drop_replayed"] <= 1


@pytest.mark.parametrize("family", [0, 1])
def test_a_hot_restart_loses_nothing_and_the_program_goes_on_at_once(node: NodeOverThere, family: int) -> None:
    host, player = NativePlayer(node, 0, family), NativePlayer(node, 1, family)
    for seat, source in ((1, host), (0, player)):
        source.say(seat, b"warm")
    assert (host.hear(), player.hear()) == ((1, b"warm"), (0, b"warm"))
    recorded = player.packet(packets.PacketType.DATA, b"recorded", 0)
    player.udp.sendto(recorded, player.relay)
    assert host.hear() == (1, b"recorded")
    (worker,) = node.worker_pids()
    os.kill(node.pid, signal.SIGHUP)
    number = 0
    while "was replaced" not in node.log:
        number += 1
        player.say(0, b"packet %d" % number)
        assert host.hear() == (1, b"packet %d" % number)
    assert node.worker_pids() != [worker]
    before = by_sockets(node)
    player.udp.sendto(recorded, player.relay)
    exchange(host, player, 100)
    # The program is faster than the process, which may not have read the recorded packet yet.
    wait_until(lambda: by_sockets(node) > before)
    assert by_sockets(node) == before + 1, "only the recorded packet, which it does not judge"
    assert node.counters()["drop_resumed_connection"] == 0


def test_the_program_goes_with_the_process(there: Wire) -> None:
    def attached() -> bool:
        shown = subprocess.run(["ip", "-n", there.node, "link", "show", "wire"], capture_output=True, text=True).stdout
        return "xdp" in shown

    assert not attached()
    node = NodeOverThere(there, PACKET_PATH="xdp").start()
    assert attached()
    node.kill()
    wait_until(lambda: not attached())
    node.close()


def test_without_its_rights_the_node_says_so_and_uses_sockets(there: Wire) -> None:
    node = NodeOverThere(there)
    node.command = there.in_node(
        [
            "capsh",
            "--drop=cap_sys_admin,cap_bpf,cap_net_admin,cap_perfmon",
            "--",
            "-c",
            f"exec {sys.executable} -m relaynode",
        ]
    )
    with node:
        telemetry = node.telemetry()
    assert telemetry["packet_path"] == "userspace"
    assert "CAP_BPF" in telemetry["packet_path_reason"]


def test_a_path_that_was_asked_for_and_is_not_to_be_had_is_an_error(there: Wire) -> None:
    node = NodeOverThere(there, PACKET_PATH="xdp")
    node._settings["XDP_INTERFACES"] = "nowhere"
    node.start(wait=False)
    assert node.wait() == 2
    assert "CAUSEWAY_NODE_PACKET_PATH is xdp, but" in node.log
    node.close()
