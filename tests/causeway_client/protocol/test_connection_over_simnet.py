"""The client machine against the node's own core over bad networks, in virtual time."""

import dataclasses

import pytest

from causeway_client.protocol import events
from causeway_client.protocol.connection import RelayConnection, State
from causeway_client.protocol.errors import ConnectRefused, ConnectTimeout, SeatRevoked, SessionEnded
from causeway_client.protocol.packets import EVERYONE, PacketType
from causeway_client.protocol.tokens import ConnectToken, seal_token
from relaynode.core.grants import read_grant
from relaynode.core.relay import Relay, RelayConfig
from tests.support.simnat import PORT_RESTRICTED, SYMMETRIC
from tests.support.simnet import GOOD_LINE, Line, Nat, Network, NodeHost, PlayerHost

SESSION = "3960c873aafd-S"
KEY_ID, KEY = 7, b"k" * 32


class World:
    """One node with one session, and players with tokens for it."""

    def __init__(self, seed=1, config=None, topology="host"):
        self.net = Network(seed)
        self.config = config or RelayConfig()
        self.topology = topology
        self.node = NodeHost(self.net, self.new_relay(), "198.51.100.1")
        self.grant(revision=1)

    def new_relay(self):
        relay = Relay(worker=0, config=self.config, random=self.net.random_bytes)
        relay.set_token_keys({KEY_ID: KEY})
        return relay

    def grant(self, revision, revoked=(), dialects=("edgegap", "native"), packets=0):
        seats = [
            {"seat": n, "token": 0x1000 + n, "revoked": n in revoked, "limits": {"packets": packets, "bytes": 0}}
            for n in range(4)
        ]
        grant = read_grant(
            {
                "session": SESSION,
                "revision": revision,
                "worker": 0,
                "token": 0x77777777,
                "topology": self.topology,
                "dialects": list(dialects),
                "idle_timeout": 300,
                "expires_at": self.net.now + 14_400,
                "limits": {"packets": 0, "bytes": 0},
                "seats": seats,
            }
        )
        self.node.relay.apply_grant(grant, self.net.now)
        self.node.pump()

    def token(self, seat, **changes):
        token = ConnectToken(
            session=SESSION,
            worker=0,
            seat=seat,
            mesh=self.topology == "mesh",
            seat_key=bytes([seat]) * 32,
            issued=int(self.net.now),
            expires=int(self.net.now) + 14_400,
            seat_packets=0,
            seat_bytes=0,
            session_packets=0,
            session_bytes=0,
            idle_timeout=300,
            session_expires=int(self.net.now) + 14_400,
        )
        return seal_token(dataclasses.replace(token, **changes), KEY_ID, KEY)

    def player(self, seat, *, line=GOOD_LINE, nat=None, token=None, seat_key=None, clock_offset=0.0, **options):
        machine = RelayConnection(
            self.node.address(0 if seat == 0 else 1),
            connect_token=token or self.token(seat),
            seat_key=seat_key or bytes([seat]) * 32,
            wall_clock=lambda: int((self.net.now + clock_offset) * 1e6),
            random=self.net.random_bytes,
            **options,
        )
        return PlayerHost(self.net, machine, f"10.0.{seat}.{len(self.net.hosts)}", line=line, nat=nat)

    def joined(self, seat, **options):
        player = self.player(seat, **options)
        player.call("connect")
        self.net.run_until(lambda: player.machine.state is State.RELAYED)
        return player

    def play(self, host, players, seconds, rate=30):
        """Everyone sends `rate` packets a second, the host to everyone."""
        for tick in range(int(seconds * rate)):
            host.call("send", EVERYONE, b"state %d" % tick)
            for player in players:
                player.call("send", 0, b"input %d" % tick)
            self.net.run(1 / rate)


def test_players_and_host_hear_each_other():
    world = World()
    host, one, two = world.joined(0), world.joined(1), world.joined(2)
    world.play(host, [one, two], seconds=5)
    world.net.run(1)
    assert len(one.received) == len(two.received) == 150
    assert len(host.received) == 300
    assert {source for source, _ in host.received} == {1, 2}
    assert one.machine.stats().rtt_ms == pytest.approx(40, abs=1)  # 10 ms for each line, there and back
    assert host.machine.peers == {1, 2}


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_network_slows_joining_and_loses_packets_but_no_player(seed):
    world = World(seed)
    bad = Line(latency=0.04, jitter=0.02, loss=0.2, duplicate=0.05, reorder=0.2)
    host, player = world.joined(0), world.joined(1, line=bad)
    world.play(host, [player], seconds=60)
    assert player.machine.state is not State.CLOSED
    assert len(host.received) == pytest.approx(0.8 * 1800, rel=0.1)
    assert len(set(host.received)) == len(host.received), "a duplicate got through"
    assert player.machine.stats().loss_up == pytest.approx(0.2, abs=0.12)
    assert player.machine.stats().loss_down == pytest.approx(0.2, abs=0.12)


@pytest.mark.parametrize("kind", [PORT_RESTRICTED, SYMMETRIC])
def test_a_nat_that_rebinds_mid_game_is_followed_by_path_validation(kind):
    world = World()
    nat = Nat(world.net, "203.0.113.9", kind)
    host, player = world.joined(0), world.joined(1, nat=nat)
    world.play(host, [player], seconds=2)
    nat.rebind()
    world.play(host, [player], seconds=5)
    world.net.run(1)
    (moved,) = player.events_of(events.Moved)
    assert moved.address[0] == "203.0.113.9"
    assert not player.events_of(events.ReconnectStarted)
    assert len(host.received) == 210, "what the player sent was passed on all along"
    assert len(player.received) >= 210 - 9, "down packets are lost for no more than the validation takes"


def test_a_nat_that_rebinds_while_joining_does_not_shut_the_player_out():
    world = World()
    nat = Nat(world.net, "203.0.113.9")
    player = world.player(1, nat=nat, line=Line(latency=0.05))
    player.call("connect")
    world.net.run(0.06)  # the CONNECT is at the node, the WELCOME on its way to the old mapping
    nat.rebind()
    world.net.run_until(lambda: player.machine.state is State.RELAYED, seconds=10)


def test_keep_alives_hold_a_nat_open_in_a_quiet_game():
    world = World()
    nat = Nat(world.net, "203.0.113.9", lifetime=5)
    host, player = world.joined(0), world.joined(1, nat=nat)
    world.net.run(120)
    host.call("send", 1, b"still there?")
    world.net.run(1)
    assert player.received == [(0, b"still there?")]


def test_a_restarted_node_is_joined_again_with_the_same_token():
    world = World()
    host, player = world.joined(0), world.joined(1)
    state = world.node.relay.session_state(SESSION)
    world.node.relay = None
    world.net.run(8)
    world.node.relay = world.new_relay()
    world.node.relay.restore_session(state, world.net.now)
    world.net.run_until(lambda: host.machine.state is State.RELAYED and player.machine.state is State.RELAYED)
    world.play(host, [player], seconds=1)
    world.net.run(1)
    assert len(player.received) == len(host.received) == 30
    assert player.machine.stats().reconnects == 1


def test_a_node_that_forgot_everything_admits_the_token_alone():
    world = World()
    player = world.joined(1)
    world.node.relay = world.new_relay()
    world.net.run_until(lambda: player.machine.state is State.RECONNECTING)
    world.net.run_until(lambda: player.machine.state is State.RELAYED)


def test_a_node_that_is_gone_for_good_is_a_timeout():
    world = World()
    player = world.joined(1, reconnect_timeout=20)
    world.node.relay = None
    world.net.run(30)
    assert isinstance(player.machine.error, ConnectTimeout)


def test_a_flooded_node_asks_for_a_cookie_and_gets_it():
    world = World(config=RelayConfig(connect_flood_threshold=1))
    players = [world.player(seat) for seat in range(4)]
    for player in players:
        player.call("connect")
    world.net.run_until(lambda: all(player.machine.state is State.RELAYED for player in players), seconds=2)
    cookies = [
        data for source, _, data in world.net.sent if source[0] == world.node.ip and data[0] == PacketType.COOKIE
    ]
    assert cookies


def test_a_revoked_player_is_notified_at_once_and_refused_afterwards():
    world = World()
    host, player = world.joined(0), world.joined(1)
    world.grant(revision=2, revoked=[1])
    world.net.run(0.1)
    assert isinstance(player.machine.error, SeatRevoked)
    assert host.events_of(events.Left)[0].seat == 1
    again = world.player(1)
    again.call("connect")
    world.net.run(0.1)
    assert isinstance(again.machine.error, SeatRevoked)


def test_the_end_of_a_session_is_reported_at_once_and_players_are_refused_afterwards():
    world = World()
    player = world.joined(1)
    world.node.relay.end_session(SESSION, "deleted", world.net.now)
    world.node.pump()
    world.net.run(0.1)
    assert isinstance(player.machine.error, SessionEnded)
    again = world.player(1)
    again.call("connect")
    world.net.run(0.1)
    assert isinstance(again.machine.error, SessionEnded)


def refuse(world, player):
    player.call("connect")
    world.net.run(0.2)
    assert isinstance(player.machine.error, ConnectRefused)
    return player.machine.error.code


def test_each_refusal_of_a_real_node_arrives_as_its_code():
    world = World()
    now = int(world.net.now)
    broken = bytearray(world.token(1))
    broken[-1] ^= 1
    assert refuse(world, world.player(1, token=bytes(broken))) == "bad_token"
    assert refuse(world, world.player(1, token=world.token(1, expires=now - 1))) == "token_expired"
    assert refuse(world, world.player(1, token=world.token(1, worker=5))) == "wrong_worker"
    assert refuse(world, world.player(1, seat_key=b"z" * 32)) == "bad_mac"
    alien = bytearray(world.token(1))
    alien[1:5] = b"\xff" * 4
    assert refuse(world, world.player(1, token=bytes(alien))) == "wrong_node"
    world.grant(revision=2, dialects=("edgegap",))
    assert refuse(world, world.player(1)) == "dialect_off"


def test_a_draining_node_refuses_a_session_it_does_not_know():
    world = World()
    world.node.relay.set_draining(True, world.net.now)
    other = world.token(1, session="0123456789ab-S")
    assert refuse(world, world.player(1, token=other)) == "draining"


def test_a_full_node_refuses_with_that_reason():
    world = World(config=RelayConfig(max_sessions=1))
    other = world.token(1, session="0123456789ab-S")
    assert refuse(world, world.player(1, token=other)) == "full"


def test_a_player_whose_clock_was_set_back_gets_in():
    world = World()
    world.joined(1)
    restarted = world.joined(1, clock_offset=-86_400)
    assert restarted.machine.state is State.RELAYED


def test_a_restarted_player_replaces_its_old_connection():
    world = World()
    host, old = world.joined(0), world.joined(1)
    world.net.run(1)
    new = world.joined(1)
    host.call("send", 1, b"hello")
    world.net.run(0.5)
    assert new.received == [(0, b"hello")] and old.received == []


def test_a_player_over_its_limit_is_notified_and_stays_connected():
    world = World()
    world.grant(revision=2, packets=20)
    host, player = world.joined(0), world.joined(1)
    for _ in range(100):
        player.call("send", 0, b"x")
    world.net.run(2)
    assert player.events_of(events.OverQuota)
    assert 20 <= len(host.received) < 40
    player.call("send", 0, b"again")
    world.net.run(1)
    assert host.received[-1] == (1, b"again")


def test_a_draining_node_notifies_the_players():
    world = World()
    player = world.joined(1)
    world.node.relay.notify_shutdown(world.net.now)
    world.node.pump()
    world.net.run(0.1)
    assert player.events_of(events.Draining)


def test_the_others_are_notified_of_a_leave_and_of_a_timeout():
    world = World()
    host, one, two = world.joined(0), world.joined(1), world.joined(2)
    one.call("send", 0, b"x")
    one.machine.close(world.net.now)
    one.pump()
    world.net.run(1)
    assert [left.seat for left in host.events_of(events.Left)] == [1]
    two.line = Line(loss=1.0)
    world.net.run(15)
    assert [left.seat for left in host.events_of(events.Left)] == [1, 2]
    assert host.machine.peers == set()


def test_a_mesh_lets_players_reach_each_other():
    world = World(topology="mesh")
    one, two = world.joined(1), world.joined(2)
    one.call("send", 2, b"hello")
    one.call("signal", 2, b"candidate")
    world.net.run(1)
    assert two.received == [(1, b"hello")]
    assert two.events_of(events.Signaled) == [events.Signaled(1, b"candidate")]


def test_no_answer_to_an_unproved_source_is_longer_than_what_it_sent():
    world = World(seed=3, config=RelayConfig(connect_flood_threshold=2))
    for seat in (0, 1, 2, 3, 1, 2):
        world.player(seat).call("connect")
    world.net.run(3)
    longest_up = max(len(data) for source, _, data in world.net.sent if source[0].startswith("10."))
    down = [len(data) for source, _, data in world.net.sent if source[0] == world.node.ip and data[0] <= 0xC3]
    assert down and max(down) < longest_up
