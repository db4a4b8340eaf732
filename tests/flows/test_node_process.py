"""A node as real processes, played over real UDP: it is restarted, its workers are killed, its sessions are ended."""

import os
import secrets
import select
import signal
import socket
import threading
import time

import pytest

from causeway_client.protocol import handshake, packets
from causeway_client.protocol.errors import Refusal
from causeway_client.protocol.packets import NoticeCode, PacketType
from relaynode.datapath.sockets import has_ipv6
from tests.support.grants import grant_document, session_name
from tests.support.node_process import NodeProcess, node_process
from tests.support.players import EdgegapWire, NativeWire
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

SESSION = session_name()
SESSION_TOKEN = 3500589645
VALID, INVALID = b"\x01\x02", b"\x01\x03"
KCP_HELLO = b"\x01\x00\x00\x00\x00" + bytes(24) + b"\x01"
KCP_DATA = b"\x01\x12\x34\x56\x78" + bytes(24) + b"\x02"


def grant(seats=3, **changes):
    return grant_document(seats, **{"expires_at": time.time() + 3600, **changes})


class Player:
    """A connected UDP socket, as games have: it hears only the address and port it speaks to (EDGEGAP.md W40)."""

    def __init__(self, ip: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.connect((ip, port))

    def asks(self, data: bytes) -> bytes:
        """What is answered; asks again twice a second, as games do."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.socket.send(data)
            if select.select([self.socket], [], [], 0.5)[0]:
                return self.socket.recv(2048)
        raise AssertionError("no answer")

    def hears(self) -> bytes:
        return self.socket.recv(2048)

    def hears_nothing(self) -> bool:
        return not select.select([self.socket], [], [], 0.1)[0]


class EdgegapPlayer(EdgegapWire, Player):
    def __init__(self, node: NodeProcess, seat: int, ip: str = "127.0.0.1") -> None:
        EdgegapWire.__init__(self, seat)
        Player.__init__(self, ip, node.client_port if seat else node.server_port)

    def ping(self) -> bytes:
        return self.asks(self.ping_packet)

    def send(self, payload: bytes) -> None:
        """A host's payload begins with the connection id."""
        self.socket.send(self.tokens + b"\x02" + payload)


class NativePlayer(NativeWire, Player):
    """It can also play a recorded CONNECT again."""

    def __init__(self, node: NodeProcess, seat: int, session: str = SESSION) -> None:
        key = secrets.token_bytes(32)
        NativeWire.__init__(self, seat, now=time.time(), token_key=node.token_key, seat_key=key, session=session)
        Player.__init__(self, "127.0.0.1", node.client_port)
        self.own_token = self.token()
        self.introduction = b""

    def connect(self) -> None:
        """With a new CONNECT, as after a silence."""
        answer = self._introduce()
        assert answer[0] == PacketType.WELCOME, answer
        self.read_welcome(answer)

    def refusal(self) -> int:
        """Its code."""
        return handshake.decode_refused(self._introduce()).code

    def _introduce(self) -> bytes:
        connect = self.connect_packet(self.own_token, timestamp=time.time_ns() // 1000)
        self.introduction = connect.encode(self.seat_key)
        answer = self.asks(self.introduction)
        while answer[0] not in (PacketType.WELCOME, PacketType.REFUSED):
            answer = self.hears()
        return answer

    def hears_notices(self) -> list[int]:
        """The codes of those that come until it is quiet."""
        codes = []
        while not self.hears_nothing():
            data = self.hears()
            if data[0] == PacketType.NOTICE:
                codes.append(data[packets.HEADER.size])
        return codes


@pytest.fixture
def node():
    with node_process(DRAIN_TIMEOUT="600") as started:
        started.put_grant(grant())
        yield started


def meet(host: EdgegapPlayer, player: EdgegapPlayer, payload: bytes = KCP_HELLO) -> bytes:
    """The player reaches its host and is answered; the connection id the host knows it by."""
    assert host.ping() == VALID
    player.send(payload)
    heard = host.hears()
    assert (heard[0], heard[5:]) == (2, payload)
    host.send(heard[1:5] + b"welcome")
    answer = player.hears()
    while answer == VALID:  # to a ping of before, that came late
        answer = player.hears()
    assert answer == b"\x02welcome"
    return heard[1:5]


def goes_on(host: EdgegapPlayer, player: EdgegapPlayer) -> bytes:
    """Both ping until they are bound again, then play; the connection id."""
    assert player.ping() == VALID
    return meet(host, player, KCP_DATA)


IPS = ["127.0.0.1", "127.0.0.2", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"))]


@pytest.mark.parametrize("host_ip", IPS)
@pytest.mark.parametrize("player_ip", IPS)
def test_a_session_is_played_over_any_address_of_the_node(node, host_ip, player_ip):
    meet(EdgegapPlayer(node, 0, host_ip), EdgegapPlayer(node, 1, player_ip))


def test_the_manager_is_told_who_came(node):
    meet(EdgegapPlayer(node, 0), EdgegapPlayer(node, 1))
    assert sorted(node.events()) == [("seat_joined", 0), ("seat_joined", 1)]
    document = node.telemetry(after=1)
    assert [event["number"] for event in document["events"]] == [2]
    assert document["last_event"] == 2
    assert document["workers"][0]["connected"] == 2
    assert document["workers"][0]["counters"]["forwarded_packets"] == 2


def test_a_native_players_leg_is_measured(node):
    player = NativePlayer(node, 1)
    player.connect()
    player.socket.send(player.ping_packet())
    heard = {data[0]: data for data in (player.hears(), player.hears())}
    assert heard.keys() == {PacketType.PONG, PacketType.PING}
    nonce = packets.decode_ping(heard[PacketType.PING][packets.HEADER.size : -packets.TAG_SIZE]).nonce
    player.socket.send(player.pong_packet(nonce, 2))
    wait_until(lambda: bool(node.telemetry()["legs"]))
    (leg,) = node.telemetry()["legs"]
    assert (leg["session"], leg["seat"], leg["dialect"]) == (SESSION, 1, "native")
    assert 0 < leg["rtt_ms"] < 1000


def test_a_player_that_joins_and_leaves_all_the_time_fills_no_log(node):
    """With a token of its own. The manager reads of it what it would of a player that came once."""
    player, welcomed = NativePlayer(node, 1), 0
    for _ in range(25):
        nonce = os.urandom(16)
        connect = handshake.Connect(time.time_ns() // 1000, nonce, player.own_token)
        player.socket.send(connect.encode(player.seat_key))
        while select.select([player.socket], [], [], 0.05)[0]:
            answer = player.hears()
            if answer[0] == PacketType.COOKIE:
                connect = handshake.Connect(
                    connect.timestamp, nonce, player.own_token, handshake.decode_cookie(answer).cookie
                )
                player.socket.send(connect.encode(player.seat_key))
            if answer[0] == PacketType.WELCOME and answer[2:18] == nonce:
                welcome = handshake.decode_welcome(answer, player.seat_key)
                key, _ = packets.packet_keys(player.seat_key, nonce, welcome.node_nonce)
                close = packets.seal(key, PacketType.CLOSE, welcome.connection, 1, 0, packets.Close(0).encode())
                player.socket.send(close)
                welcomed += 1
    assert EdgegapPlayer(node, 2).ping() == VALID
    wait_until(lambda: ("seat_joined", 2) in node.events())
    assert sorted(kind for kind, seat in node.events() if seat == 1) == ["seat_joined", "seat_left"]
    assert node.telemetry()["last_event"] >= 2 * welcomed
    assert node.telemetry()["workers"][0]["counters"]["drop_seat_rate_limited"] > 0


def test_after_a_restart_the_same_session_plays_on_with_nobody_to_ask(node):
    host, player = EdgegapPlayer(node, 0), EdgegapPlayer(node, 1)
    known_as = meet(host, player)
    boot = node.telemetry()["boot_id"]
    node.restart()
    assert node.telemetry()["boot_id"] != boot
    assert goes_on(host, player) == known_as  # else a kcp2k host would not know its player any more (EDGEGAP.md 1.5)


def test_after_a_crash_the_snapshot_is_served(node):
    player = EdgegapPlayer(node, 1)
    wait_until(lambda: SESSION in saved(node))
    node.kill()
    node.start()
    assert player.ping() == VALID


def test_an_unreadable_snapshot_does_not_keep_the_node_down(node):
    node.kill()
    (node.state_dir / "sessions.jsonl").write_text("{")
    node.start()
    assert "set aside" in node.log
    assert EdgegapPlayer(node, 1).ping() == INVALID


def test_what_was_ended_stays_ended_after_a_restart(node):
    node.delete_session(SESSION)
    node.restart()
    assert NativePlayer(node, 1).refusal() == Refusal.SESSION_ENDED
    assert node.call("PUT", f"/sessions/{SESSION}", grant(revision=2))[1]["code"] == "session_ended"


def test_a_worker_that_is_killed_is_replaced_and_its_session_plays_on(node):
    host, player = EdgegapPlayer(node, 0), EdgegapPlayer(node, 1)
    known_as = meet(host, player)
    node.telemetry()
    kill_worker(node)
    assert node.call("GET", "/healthz")[1]["status"] == "worker_down"
    assert goes_on(host, player) == known_as
    assert node.call("GET", "/healthz")[0] == 200


def test_native_players_stay_connected_when_their_worker_is_killed(node):
    """They only answer its successor's challenges: these players know no second CONNECT."""
    host, player = NativePlayer(node, 0), NativePlayer(node, 1)
    for each in (host, player):
        each.connect()
    plays(host, player, b"before")
    node.telemetry()
    kill_worker(node)
    plays(player, host, b"up after")
    plays(host, player, b"down after")
    assert node.counters()["drop_resumed_connection"] > 0


def test_a_hot_restart_is_noticed_by_no_player(node):
    """SIGHUP replaces the worker: every packet of both dialects arrives, and nothing has to be confirmed."""
    native = [NativePlayer(node, seat, session="00000000beef-S") for seat in (0, 1)]
    for each in native:
        each.connect()
    host, player = EdgegapPlayer(node, 0), EdgegapPlayer(node, 1)
    known_as = meet(host, player)
    plays(*native, b"before")
    (before,) = node.worker_pids()
    sent = 0
    os.kill(node.pid, signal.SIGHUP)
    while node.worker_pids() == [before] or not sent:
        sent += 1
        native[0].socket.send(native[0].data(b"packet %d" % sent, 1))
        time.sleep(0.005)
    wait_until(lambda: "was replaced" in node.log)
    arrived = set()
    wait_until(lambda: arrived.update(received(native[1])) or len(arrived) == sent, "every packet arrives")
    plays(native[1], native[0], b"back")
    assert goes_on(host, player) == known_as
    assert node.counters()["drop_resumed_connection"] == 0
    assert node.counters()["answer_path_challenge"] == 0
    assert ("seat_left", 1) not in node.events()


def received(player):
    """The payloads that wait in the player's socket."""
    while select.select([player.socket], [], [], 0)[0]:
        kind, _, body = player.read(player.hears())
        if kind == PacketType.DATA:
            yield body


def plays(sender, receiver, payload):
    """Sends until the other has the payload; both answer the node's challenges."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        sender.socket.send(sender.data(payload, receiver.seat))
        receiver.socket.send(receiver.ping_packet())
        for each in (sender, receiver):
            while select.select([each.socket], [], [], 0.05)[0]:
                kind, _, body = each.read(each.hears())
                if kind == PacketType.PATH_CHALLENGE:
                    each.socket.send(each.packet(PacketType.PATH_RESPONSE, body + packets.PATH_MOVES))
                if each is receiver and body == payload:
                    return
    raise AssertionError("nothing arrived")


def test_nobody_is_told_that_a_port_is_closed_while_a_worker_is_replaced(node):
    """ICMP port unreachable makes edgegap's clients hang up (EDGEGAP.md 1.6)."""
    player = EdgegapPlayer(node, 1)
    player.ping()
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    for is_healthy in (False, True):
        while node.is_healthy() != is_healthy:
            player.socket.send(player.tokens + b"\x01")  # raises ConnectionRefusedError after an ICMP
    assert player.ping() == VALID


def test_a_grant_sent_while_the_worker_is_replaced_is_obeyed(node):
    player = EdgegapPlayer(node, 1)
    player.ping()
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    assert node.put_grant(grant(revision=2, revoked={1})) == 2
    assert player.ping() == INVALID


def test_a_recorded_connect_stays_worthless_after_a_worker_was_replaced(node):
    player = NativePlayer(node, 1)
    player.connect()
    node.telemetry()  # by now the worker has told its parent
    kill_worker(node)
    wait_until(node.is_healthy)
    thief = Player("127.0.0.1", node.client_port)
    refused = handshake.decode_refused(thief.asks(player.introduction))
    assert refused.code == Refusal.STALE_TIMESTAMP
    player.connect()


def test_a_session_admitted_by_token_alone_survives_a_restart(node):
    node.delete_session(SESSION)
    player = NativePlayer(node, 1, session="00000000beef-S")
    player.connect()
    node.restart()
    assert node.telemetry()["workers"][0]["sessions"] == 1
    player.connect()


# -- ending things


def test_a_drain_tells_native_players_and_waits_for_their_sessions(node):
    player = NativePlayer(node, 1)
    player.connect()
    node.start_to_drain()
    assert NoticeCode.DRAINING in player.hears_notices()
    assert (
        node.call("PUT", "/sessions/00000000beef-S", grant(session="00000000beef-S", token=5))[1]["code"] == "draining"
    )
    assert NativePlayer(node, 1, session="00000000beef-S").refusal() == Refusal.DRAINING
    assert node.call("POST", "/undrain") == (200, {"draining": True})
    assert EdgegapPlayer(node, 2).ping() == VALID
    node.delete_session(SESSION)
    assert node.wait() == 0


def test_a_second_signal_stops_at_once(node):
    node.start_to_drain()
    assert node.signal(signal.SIGTERM) == 0


class Stream:
    """A host that sends to one player, hundreds of packets a second, until it is stopped."""

    def __init__(self, host: EdgegapPlayer, player: EdgegapPlayer, connection_id: bytes) -> None:
        self.arrivals: list[float] = []
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(host, connection_id)),
            threading.Thread(target=self._receive, args=(player,)),
        ]

    def __enter__(self) -> "Stream":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _send(self, host: EdgegapPlayer, connection_id: bytes) -> None:
        while not self._stopped.wait(0.002):
            host.send(connection_id + b"state")

    def _receive(self, player: EdgegapPlayer) -> None:
        while not self._stopped.is_set():
            if select.select([player.socket], [], [], 0.05)[0] and player.hears() == b"\x02state":
                self.arrivals.append(time.monotonic())


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda node: node.put_grant(grant(revision=2, revoked={1})), id="revoke"),
        pytest.param(lambda node: node.delete_session(SESSION), id="delete"),
    ],
)
def test_when_the_call_returns_the_last_packet_was_forwarded(node, end):
    host, player = EdgegapPlayer(node, 0), EdgegapPlayer(node, 1)
    with Stream(host, player, meet(host, player)) as stream:
        wait_until(lambda: len(stream.arrivals) > 20)
        end(node)
        forwarded = node.counters()["forwarded_packets"]
        returned = time.monotonic()
        wait_until(lambda: time.monotonic() > returned + 0.6)
        assert node.counters()["forwarded_packets"] == forwarded
    # What lay in the player's own socket may still be read; nothing 0.5 s later.
    assert not [at for at in stream.arrivals if at > returned + 0.5]
    assert player.ping() == INVALID


def kill_worker(node: NodeProcess) -> None:
    """As a crash; returns when its parent has seen it."""
    os.kill(node.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: not node.is_healthy())


def saved(node: NodeProcess) -> str:
    """The snapshot on disk."""
    path = node.state_dir / "sessions.jsonl"
    return path.read_text() if path.exists() else ""


def test_a_node_that_was_stopped_as_a_whole_ends_nothing_when_it_goes_on(node):
    """As by the migration of its virtual machine. Players sent all the time, and a moment before it goes on, too."""
    node.put_grant(grant(idle_timeout=2))
    host, player = EdgegapPlayer(node, 0), EdgegapPlayer(node, 1)
    assert (host.ping(), player.ping()) == (VALID, VALID)
    processes = [node.pid, *node.worker_pids()]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(8):  # 4 s
            time.sleep(0.5)
            host.socket.send(host.tokens + b"\x01")
            player.socket.send(player.tokens + b"\x01")
    finally:
        for pid in reversed(processes):
            os.kill(pid, signal.SIGCONT)
    assert host.hears() == player.hears() == VALID
    assert ("session_ended", None) not in node.events()
    assert [kind for kind, _ in node.events()] == ["seat_joined", "seat_joined"]
    assert node.worker_pids() == processes[1:], "a worker that was stopped with its parent does not hang"


def test_a_session_whose_players_could_not_be_heard_is_not_idle_by_a_pause(node):
    """Nothing waits in the sockets: the gap itself is no silence."""
    node.put_grant(grant(idle_timeout=2))
    host = EdgegapPlayer(node, 0)
    assert host.ping() == VALID
    processes = [node.pid, *node.worker_pids()]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in reversed(processes):
        os.kill(pid, signal.SIGCONT)
    assert host.ping() == VALID
    assert ("session_ended", None) not in node.events()
