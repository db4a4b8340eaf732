"""Replayed, forged and stale packets; a hostile player; and a node that rewrites what it forwards. In each case the
game goes on over the relay or the direct path, and nothing is sent where PROTOCOL.md 12.4 does not permit it."""

from collections import Counter
from typing import Any

import pytest

from causeway_client.protocol import packets
from causeway_client.protocol.events import Left
from causeway_client.protocol.packets import DirectMode, PacketType
from causeway_client.protocol.paths.peer import MAX_PATHS
from causeway_client.protocol.paths.punching import SCHEDULE
from causeway_client.protocol.paths.rendezvous import Rendezvous, pack_observed
from causeway_client.protocol.paths.wire import DirectSettings
from tests.causeway_client.protocol.paths.hostile import LyingNode, Recorder, Rewrite, parts
from tests.causeway_client.protocol.paths.scene import TICK, Scene
from tests.support.simnat import SYMMETRIC
from tests.support.simnet import Line, Nat

FAR = Line(latency=0.005)
HOSTS = {0: "203.0.113.10", 1: "203.0.113.20"}
THIRD_PARTY = ("192.0.2.66", 666)


def two_players(rewrite: Rewrite | None = None) -> Scene:
    scene = Scene(1)
    scene.grant(["direct"] * 2)
    if rewrite is not None:
        scene.node.relay = LyingNode(scene.node.relay, rewrite)
    for seat, ip in HOSTS.items():
        scene.join(seat, ip, line=FAR, settings=DirectSettings(hard_nats=False))
    return scene


def dropped(scene: Scene, seat: int) -> Counter[str]:
    found: Counter[str] = scene.players[seat].machine.dropped
    return found


def paths(scene: Scene) -> tuple[str, str]:
    return scene.path(0, 1), scene.path(1, 0)


def sent_by(scene: Scene, seat: int, since: int = 0) -> list[bytes]:
    return [data for source, _, data in scene.net.sent[since:] if source[0] == HOSTS[seat]]


def is_intact(scene: Scene) -> bool:
    """The game has not lost or received a payload more than once."""
    scene.settle()
    return (scene.missing(), scene.duplicated()) == (0, 0)


# -- a node that rewrites every RENDEZVOUS


def changed(at: int) -> Rewrite:
    def rewrite(source: int, target: int, body: bytes) -> bytes:
        own, added = parts(body)
        spoilt = bytearray(own)
        spoilt[at] ^= 1
        return bytes(spoilt) + added

    return rewrite


def with_another_candidate(source: int, target: int, body: bytes) -> bytes:
    """One more, which the player did not offer."""
    own, added = parts(body)
    candidate = bytes((0x14, *(192, 0, 2, 66))) + (666).to_bytes(2, "little")
    return own[:32] + bytes((own[32] + 1,)) + own[33:-8] + candidate + own[-8:] + added


def as_its_own(source: int, target: int, body: bytes) -> bytes:
    """A RENDEZVOUS of the node, under a secret that it made up."""
    forged = Rendezvous(round=1, acknowledged=1, sequence=1 << 60, nonce=b"n" * 16)
    return forged.encode(bytes(16), source, target) + pack_observed([THIRD_PARTY])


def to_the_wrong_player(source: int, target: int, body: bytes) -> bytes | None:
    """The target's own RENDEZVOUS comes back to it."""
    own, added = parts(body)
    kept[source] = own
    return kept[target] + added if target in kept else None


kept: dict[int, bytes] = {}


@pytest.mark.parametrize(
    "rewrite",
    [
        *(pytest.param(changed(at), id=f"byte {at}") for at in (2, 4, 6, 14, 30, 31, -1)),
        pytest.param(with_another_candidate, id="another candidate"),
        pytest.param(as_its_own, id="its own"),
        pytest.param(to_the_wrong_player, id="reflected"),
    ],
)
def test_a_rewritten_rendezvous_is_dropped_and_the_game_goes_on_over_the_relay(rewrite: Rewrite) -> None:
    kept.clear()
    scene = two_players(rewrite)
    scene.play(4.0)
    assert is_intact(scene)
    assert paths(scene) == ("relay", "relay")
    for seat in HOSTS:
        reasons = dropped(scene, seat)
        assert reasons["bad_tag"] + reasons["malformed"] > 0
        assert not [data for data in sent_by(scene, seat) if data[0] in packets.OF_A_PAIR]


@pytest.mark.parametrize("body", [b"", b"\1", b"\xff" * 300])
def test_a_rendezvous_without_any_meaning_is_dropped(body: bytes) -> None:
    scene = two_players(lambda source, target, _: body)
    scene.play(2.0)
    assert is_intact(scene) and paths(scene) == ("relay", "relay")


def test_a_node_that_keeps_every_rendezvous_leaves_the_game_on_the_relay() -> None:
    scene = two_players(lambda source, target, body: None)
    scene.play(30.0)
    assert is_intact(scene) and paths(scene) == ("relay", "relay")
    sent = [data for data in sent_by(scene, 0) if data[0] == PacketType.RENDEZVOUS]
    assert 5 <= len(sent) <= 7, "repeated four times, then each 15 s"


def test_a_node_that_observes_a_third_party_causes_a_few_small_probes_and_no_data() -> None:
    """This is all that a lying node can do: what it observes counts as attested."""
    scene = two_players(lambda source, target, body: parts(body)[0] + pack_observed([THIRD_PARTY]))
    recorder = Recorder(scene.net)
    scene.play(30.0)
    assert is_intact(scene) and paths(scene) == ("relay", "relay")
    assert {data[0] for data in recorder.received} == {PacketType.DIRECT_PING}
    assert max(map(len, recorder.received)) <= 32
    rounds = 3  # at once, after 5 s and after another 15 s
    assert len(recorder.received) <= 2 * rounds * len(SCHEDULE)


def test_a_node_that_repeats_the_rendezvous_of_a_former_process_changes_nothing() -> None:
    """With the nonce of that process, recorded packets would be valid again."""
    recorded: dict[int, list[bytes]] = {0: [], 1: []}

    def record(source: int, target: int, body: bytes) -> bytes:
        recorded[source].append(body)
        return body

    scene = two_players(record)
    recorder = Recorder(scene.net)
    scene.net.interfere = recorder.watch
    scene.play(2.0)
    old_rendezvous, old_packets = list(recorded[1]), list(recorder.seen)
    scene.players[1].machine = None
    scene.join(1, "203.0.113.21", line=FAR)
    scene.play(5.0)
    assert paths(scene) == ("ipv4", "ipv4")
    arrived = len(scene.arrivals(0, 1))
    for body in old_rendezvous:
        scene.node._send(*scene.node.relay.inject(0, PacketType.RENDEZVOUS, 1, body))
    scene.net.run(0.1)
    for destination, data in old_packets:
        recorder.send(data, destination)
    scene.net.run(0.5)
    assert paths(scene) == ("ipv4", "ipv4")
    assert dropped(scene, 0)["stale_nonce"] == len(old_rendezvous)
    assert len(scene.arrivals(0, 1)) == arrived
    scene.play(1.0)
    scene.settle()
    assert len(scene.arrivals(0, 1)) >= arrived + 55


def test_an_older_round_is_refused_and_the_same_one_changes_nothing() -> None:
    recorded: list[bytes] = []

    def record(source: int, target: int, body: bytes) -> bytes:
        if source == 1:
            recorded.append(body)
        return body

    scene = two_players(record)
    scene.play(1.0)
    player = scene.players[1]
    player.machine.direct.set_addresses([player.address], [("203.0.113.20", 7777)], scene.net.now)
    scene.play(2.0)
    first, *_, last = recorded
    for body in (first, last, last):
        scene.node._send(*scene.node.relay.inject(0, PacketType.RENDEZVOUS, 1, body))
    before = len(scene.net.sent)
    scene.net.run(0.05)
    assert dropped(scene, 0)["stale_round"] == 1
    assert paths(scene) == ("ipv4", "ipv4")
    assert ("203.0.113.20", 7777) not in [to for _, to, _ in scene.net.sent[before:]]


@pytest.mark.parametrize("kind", [PacketType.PEER, PacketType.RENDEZVOUS])
def test_a_node_cannot_make_up_packets_of_a_pair(kind: PacketType) -> None:
    scene = two_players(lambda source, target, body: body)
    scene.play(3.0)
    ids = {data[1:5] for _, _, data in scene.net.sent if data[0] in packets.OF_A_PAIR}
    before = dropped(scene, 0).total()
    for pair in ids:
        for inner in packets.OF_A_PAIR:
            forged = bytes((inner,)) + pair + bytes(4) + b"\1" + bytes(20)
            scene.node._send(*scene.node.relay.inject(0, kind, 1, forged))
    scene.net.run(0.5)
    assert dropped(scene, 0).total() >= before + 4 * len(ids)
    scene.play(1.0)
    assert is_intact(scene) and paths(scene) == ("ipv4", "ipv4")


def test_a_node_that_forges_the_numbers_of_data_delays_no_packet_of_the_pair() -> None:
    """The node sends DATA in the name of seat 1, with numbers far ahead."""
    scene = two_players(lambda source, target, body: body)
    scene.play(3.0)
    base = int(scene.net.now * 62_500)
    for lead in range(0, 1 << 31, 1 << 26):
        number = (base + 10_000 + lead & 0xFFFFFFFF).to_bytes(4, "little")
        scene.node._send(*scene.node.relay.inject(0, PacketType.DATA, 1, number + bytes(24)))
    scene.net.run(0.1)
    scene.play(2.0)
    scene.settle()
    forged = scene.arrivals(0, 1).pop(0)
    assert forged == 32, "over its own path, a node can always make up DATA"
    assert scene.missing() == -1  # number 0, which seat 1 has not sent
    assert paths(scene) == ("ipv4", "ipv4")


# -- hosts that record and send again


def test_replayed_packets_of_a_pair_are_dropped_whoever_sends_them() -> None:
    scene = two_players()
    recorder = Recorder(scene.net)
    scene.play(1.0)
    scene.net.interfere = recorder.watch
    scene.play(2.0)
    recorded, recorder.seen = list(recorder.seen), []
    before = {seat: dropped(scene, seat)["replayed"] for seat in HOSTS}
    for destination, data in recorded:
        recorder.send(data, destination)
    scene.net.run(0.5)
    assert sum(dropped(scene, seat)["replayed"] - before[seat] for seat in HOSTS) == len(recorded)
    assert recorder.received == [], "nothing is sent to the source of a replay"
    assert is_intact(scene)
    for seat in HOSTS:
        (peer,) = scene.players[seat].machine.direct._peers.values()
        assert recorder.address not in peer.paths


@pytest.mark.parametrize("kinds", [(PacketType.DIRECT_PING,), (PacketType.DIRECT_DATA,), tuple(packets.OF_A_PAIR)])
def test_valid_packets_from_a_forged_address_have_no_more_sent_there_than_they_are_long(
    kinds: tuple[PacketType, ...],
) -> None:
    """A host on the way keeps the packets back, and sends them first, from the address of a third party."""
    scene = two_players()
    scene.play(3.0)
    recorder = Recorder(scene.net)
    held: list[tuple[tuple[str, int], bytes]] = []

    def hold(data, source, destination):
        if data[0] not in packets.OF_A_PAIR or source == recorder.address or destination[0] != HOSTS[0]:
            return 0.0
        if data[0] in kinds:
            held.append((destination, data))
        return None

    scene.net.interfere = hold
    spent = 0
    for _ in range(120):
        scene.play(TICK)
        for destination, data in held:
            recorder.send(data, destination)
            spent += len(data)
        held.clear()
        assert sum(map(len, recorder.received)) <= spent
    assert spent > 0
    assert {len(data) for data in recorder.received} <= {30, 1232}


def test_forged_packets_of_a_pair_leave_no_state_and_are_not_answered() -> None:
    scene = two_players()
    recorder = Recorder(scene.net)
    scene.net.interfere = recorder.watch
    scene.play(2.0)
    forged = []
    for destination, data in recorder.seen[-50:]:
        for at in (0, 3, 7, 9, 12, len(data) - 1):
            spoilt = bytearray(data)
            spoilt[at] ^= 1
            forged.append((destination, bytes(spoilt)))
    forged += [((HOSTS[0], 5000), bytes((kind,)) + bytes(size)) for kind in packets.OF_A_PAIR for size in (0, 16, 60)]
    before = sum(dropped(scene, seat).total() for seat in HOSTS)
    for destination, data in forged:
        recorder.send(data, destination)
    scene.net.run(0.5)
    assert sum(dropped(scene, seat).total() for seat in HOSTS) >= before + len(forged)
    assert recorder.received == []
    assert is_intact(scene) and paths(scene) == ("ipv4", "ipv4")


def test_a_packet_that_arrives_first_from_elsewhere_brings_small_probes_and_no_payload() -> None:
    """An attacker on the way sends each packet from its own address, before the original arrives."""
    scene = two_players()
    scene.play(2.0)
    recorder = Recorder(scene.net)
    recorder.line = Line(latency=0.0)

    def race(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> float:
        if source == recorder.address or data[0] not in packets.OF_A_PAIR or "198" in source[0] + destination[0]:
            return 0.0
        if destination != recorder.address:
            scene.net.at(scene.net.now, lambda: recorder.send(data, destination))
        return 0.02

    scene.net.interfere = race
    scene.play(3.0)
    scene.net.interfere = None
    sent = Counter(data[0] for data in recorder.received)
    assert set(sent) <= {PacketType.DIRECT_PING, PacketType.DIRECT_PONG}
    assert sum(map(len, recorder.received)) <= 40_000, "less than a quarter of what it sent"
    assert is_intact(scene)
    assert [it.address for it in scene.players[0].machine.direct.paths()] != [recorder.address]


# -- a hostile player


def test_a_hostile_peer_that_makes_new_nonces_is_handled_at_the_pace_of_rounds() -> None:
    """It has the secret of the pair, and sends 100 RENDEZVOUS per second, each with another nonce."""
    scene = two_players()
    victim, hostile = scene.players[0], scene.players[1].machine
    secret = hostile.direct._keys.secret(0)
    scene.tick()
    scene.net.run(0.5)
    before = len(scene.net.sent)
    for number in range(500):
        body = Rendezvous(round=1, acknowledged=0, sequence=1 << 50, nonce=number.to_bytes(16, "big"))
        hostile._relay(PacketType.RENDEZVOUS, 0, body.encode(secret, 1, 0))
        scene.players[1].pump()
        scene.net.run(0.01)
    sent = [(to, data[0]) for source, to, data in scene.net.sent[before:] if source == victim.address]
    probes = [to for to, kind in sent if kind == PacketType.DIRECT_PING]
    assert len(probes) <= (3 + 5) * len(SCHEDULE) + 10
    assert set(probes) <= {scene.players[1].address}
    assert len(sent) <= 250


def test_a_hostile_peer_that_sends_from_many_addresses_makes_few_paths() -> None:
    scene = two_players()
    scene.play(2.0)
    victim, hostile = scene.players[0], scene.players[1].machine
    (ours,) = hostile.direct._peers.values()
    for number in range(300):
        sequence = hostile.direct.numbers.next()
        ping = packets.seal(ours._send_key, PacketType.DIRECT_PING, ours._their_id, sequence, 1, bytes(12))
        victim.receive(ping, ("192.0.2.99", 1024 + number), victim.address)
    (peer,) = victim.machine.direct._peers.values()
    assert len(peer.paths) <= MAX_PATHS
    scene.play(1.0)
    assert is_intact(scene) and scene.path(0, 1) == "ipv4"


# -- what ends a direct path


def test_a_seat_that_was_removed_while_a_player_reconnected_is_cut_off() -> None:
    """It missed the NOTICE `removed`; the WELCOME does not list removed seats."""
    scene = two_players()
    scene.play(3.0)
    unreachable = set(HOSTS.values())
    scene.net.interfere = lambda data, source, destination: (
        None if source[0] == "198.51.100.1" and destination[0] in unreachable else 0.0
    )
    scene.play(1.0)
    scene.grant(["direct"] * 2, revision=2, revoked=[1])
    scene.play(6.0)
    assert scene.path(0, 1) == "ipv4", "the node cannot reach it"
    unreachable.discard(HOSTS[0])
    reached_at = scene.net.now
    while scene.players[0].machine.direct.direct_seats:
        scene.play(TICK)
        assert scene.net.now - reached_at < 5.0
    arrived = len(scene.arrivals(0, 1))
    scene.play(1.0)
    assert len(scene.arrivals(0, 1)) == arrived


def test_repeated_notices_change_nothing() -> None:
    scene = two_players()
    scene.play(1.0)
    scene.grant(["direct"] * 2, revision=2, revoked=[1])
    scene.net.run(1.0)
    assert [it.seat for it in scene.players[0].events_of(Left)] == [1]
    assert dropped(scene, 1)["not_connected"] == 2


def test_a_player_whose_mode_forbids_direct_paths_when_it_connects_again_drops_them() -> None:
    scene = two_players()
    scene.play(3.0)
    assert scene.path(0, 1) == "ipv4"
    scene.grant(["direct", "relay_only"], revision=2)
    machine = scene.players[1].machine
    scene.net.interfere = lambda data, source, destination: (
        None if (source[0], destination[0]) == ("198.51.100.1", HOSTS[1]) else 0.0
    )
    scene.play(6.0)
    scene.net.interfere = None
    scene.play(6.0)
    assert machine.welcome.direct_mode is DirectMode.RELAY_ONLY
    assert paths(scene) == ("relay", "relay")
    before = len(scene.net.sent)
    scene.play(1.0)
    assert not [data for _, _, data in scene.net.sent[before:] if data[0] == PacketType.DIRECT_DATA]


# -- silence


def count_timers(machine: Any) -> list[float]:
    """When the machine's timer fires from now on."""
    fired: list[float] = []
    handle_timer = machine.handle_timer

    def count(now: float) -> None:
        fired.append(now)
        handle_timer(now)

    machine.handle_timer = count
    return fired


def busiest_second(fired: list[float]) -> int:
    return max(Counter(map(int, fired)).values(), default=0)


@pytest.mark.parametrize("opened", [True, False])
def test_players_who_are_silent_cost_next_to_nothing(opened: bool) -> None:
    """Whether hole punching has opened a path or not."""
    scene, settings = Scene(6), DirectSettings(hard_nats=False)
    scene.grant(["direct"] * 2)
    for seat in range(2):
        nat = None if opened else Nat(scene.net, f"203.0.113.{9 + seat}", SYMMETRIC)
        scene.join(seat, "10.0.0.2" if nat else HOSTS[seat], line=FAR, nat=nat, settings=settings)
    scene.play(3.0)
    expected = "ipv4" if opened else "relay"
    assert scene.path(0, 1) == expected
    fired, changes = count_timers(scene.players[0].machine), len(scene.changes(0))
    scene.net.run(120.0)
    assert len(fired) <= 120 * 5
    assert (scene.path(0, 1), len(scene.changes(0))) == (expected, changes)


def test_no_timer_spins_while_the_node_is_gone() -> None:
    """Also if a better path would have been taken by now."""
    scene = two_players()
    scene.play(3.0)
    direct = scene.players[0].machine.direct
    direct.leave_direct(scene.net.now)
    direct.is_suspended = False
    scene.play(1.0)
    direct.leave_direct(scene.net.now)
    fired = count_timers(scene.players[0].machine)
    scene.net.run(20.0)
    assert scene.path(0, 1) == "relay"
    assert busiest_second(fired) <= 40
