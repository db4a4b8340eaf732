"""A player's pair with one peer: the exchange of RENDEZVOUS, hole punching, and the paths (PROTOCOL.md 12).

It owns no socket and reads no clock. `Wire` is what it can do with the outside; `now` is in seconds of any clock that
never goes back.
"""

import struct
from collections import deque
from collections.abc import Hashable, Iterable

from .. import packets
from ..errors import DecodeError
from ..packets import HEADER, MAX_DATAGRAM, OVERHEAD, PacketType
from .candidates import IpPort, targets
from .pair_secrets import direct_key
from .path import IDLE_INTERVAL, SENDING_FOR, Path, PathState
from .path_selection import Choice, PathSelection
from .punching import Punching, RoundBudget, guessed_addresses
from .rendezvous import NONCE_SIZE, NatClass, Rendezvous, decode_rendezvous
from .reports import PathInfo, PathKind, PathReason, PathReport
from .wire import DirectSettings, Wire

Address = Hashable

_PROBE = struct.Struct("<8sI")
_NONCE_SIZE = 8
RENDEZVOUS_REPEATS = (0.25, 0.5, 1.0, 2.0)  # seconds after which an unacknowledged RENDEZVOUS is sent again
RENDEZVOUS_CROSSING = 0.1  # seconds in which two RENDEZVOUS may cross each other
RENDEZVOUS_RETRY = 15.0  # seconds after the last repetition, while the game sends
MAX_PATHS = 16
MAX_PAST_NONCES = 256  # of a peer: one for each of its restarts
IN_PLAY_FOR = 2.0  # seconds after the last DATA to or from the peer
MIN_OVERLAP = 0.1  # seconds after a change of the path in which DATA is sent on both
CONSENT_TIMEOUT = 5.0  # seconds without a packet of the pair, after which no payload is sent on a direct path


class Peer:
    def __init__(self, seat: int, secret: bytes, wire: Wire, settings: DirectSettings, now: float) -> None:
        self.seat = seat
        self.nonce = wire.random(NONCE_SIZE)
        self.id = int.from_bytes(self.nonce[:4], "little")  # the connection id of its packets to us
        self.receive_key = b""
        self.has_left_node = False  # it is only reached directly
        self.relay = Path(None, PathKind.RELAY, now)
        self.paths: dict[Address, Path] = {}
        self.traffic_at = now  # of the last DATA to or from the peer
        self._secret = secret
        self._wire = wire
        self._settings = settings
        self._send_key = b""
        self._their_nonce = b""
        self._past_nonces: deque[bytes] = deque(maxlen=MAX_PAST_NONCES)
        self._their_id = self._their_round = 0
        self._rounds = RoundBudget(now)
        self._their_nat, self._their_step = NatClass.UNKNOWN, 0
        self._kinds: dict[Address, PathKind] = {}  # the addresses of the peer that may be probed
        self._round = 0  # of our last RENDEZVOUS; 0: none was sent
        self._sent_content: tuple[object, ...] = ()
        self._sent_at = -RENDEZVOUS_CROSSING
        self._is_acknowledged = False
        self._repeat_at: float | None = None
        self._repeats = 0
        self._punching = Punching()
        self._selection = PathSelection(self.relay, settings.relay_bias_ms / 1000, now)
        self._overlap_until = 0.0
        self._direct_packets = self._direct_bytes = 0  # since the last report
        self._last_packet_at = now  # when the last packet of the pair arrived

    # -- RENDEZVOUS

    def rendezvous(self, now: float) -> None:
        """Sends our candidates, again if they have changed. The first time, they wait for the NAT class, without which
        the peer could not predict ports."""
        if not self._round and (expected := self._wire.nat_expected_until(now)) is not None:
            self._repeat_at = expected
            return
        content = self._wire.candidates(), self._wire.nat(), self._wire.awaits_second_address
        if not self._round or content != self._sent_content:
            self._round = self._round % 0xFFFF + 1
            self._sent_content = content
            self._is_acknowledged, self._repeats = False, 0
        self._send_rendezvous(now)

    def _send_rendezvous(self, now: float) -> None:
        nat_class, step = self._wire.nat()
        body = Rendezvous(
            round=self._round,
            acknowledged=self._their_round,
            sequence=self._wire.numbers.sent,
            nonce=self.nonce,
            nat_class=nat_class,
            port_step=step,
            candidates=self._wire.candidates(),
        ).encode(self._secret, self._wire.seat, self.seat)
        self._wire.relay(PacketType.RENDEZVOUS, self.seat, body)
        self._sent_at = now
        last = self._repeats >= len(RENDEZVOUS_REPEATS)
        self._repeat_at = now + (RENDEZVOUS_RETRY if last else RENDEZVOUS_REPEATS[self._repeats])
        self._repeats += 1

    def receive_rendezvous(self, body: bytes, now: float) -> None:
        """Raises DecodeError."""
        theirs, observed = decode_rendezvous(body, self._secret, self.seat, self._wire.seat)
        if theirs.nonce in self._past_nonces:
            raise DecodeError("stale_nonce")  # a replay: with its nonce, recorded packets would be valid again
        if theirs.nonce != self._their_nonce:
            self._new_keys(theirs, now)
        elif theirs.round < self._their_round:
            raise DecodeError("stale_round")
        is_new = theirs.round > self._their_round or not self._kinds
        self._acknowledged(theirs.acknowledged >= self._round > 0)
        is_handled = is_new and self._rounds.take(now)
        if is_handled:
            self._their_round, self._their_nat, self._their_step = theirs.round, theirs.nat_class, theirs.port_step
            found = targets(theirs.candidates, observed, self._wire.own_observed())
            self._kinds = {(it.ip, it.port): it.kind for it in found}
            for address, path in self.paths.items():  # one that a packet made known may be an offered one
                path.kind = self._kind_of(address)
            self._punch(observed, now)
        # Ours may be on its way. A packet of the pair acknowledges the first round only, so a later one is answered.
        is_missing = not self._is_acknowledged and now - self._sent_at >= RENDEZVOUS_CROSSING
        if is_missing or (is_handled and theirs.round > 1):
            self.rendezvous(now)

    def _acknowledged(self, is_acknowledged: bool) -> None:
        if is_acknowledged:
            self._is_acknowledged, self._repeat_at = True, None

    def _new_keys(self, theirs: Rendezvous, now: float) -> None:
        mine = self._wire.seat
        self._past_nonces.append(self._their_nonce)
        self._their_nonce = theirs.nonce
        self._their_id, self._their_round = int.from_bytes(theirs.nonce[:4], "little"), 0
        self._send_key = direct_key(self._secret, mine, self.seat, self.nonce, theirs.nonce)
        self.receive_key = direct_key(self._secret, self.seat, mine, theirs.nonce, self.nonce)
        self._wire.numbers.begin(self.seat, theirs.sequence)
        self._is_acknowledged, self._repeats = False, 0
        self.paths.clear()
        self._kinds = {}
        self.start_over(now)

    # -- hole punching

    def _punch(self, observed: Iterable[IpPort], now: float) -> None:
        self._punching.start(list(self._kinds), now)
        self._probe(self.relay, now)
        if self._settings.hard_nats:
            wire, step = self._wire, self._their_step
            guesses = guessed_addresses(wire.nat()[0], self._their_nat, step, observed, wire.random, wire.extra_sockets)
            if guesses:
                self._punching.guess(guesses, now)

    def start_over(self, now: float) -> None:
        """Back to the relay; the first direct path is taken at once again."""
        self.leave_direct(PathReason.PATH_FAILED, now)
        self._selection = PathSelection(self.relay, self._settings.relay_bias_ms / 1000, now)

    def restart(self, now: float) -> None:
        """Our own addresses have changed: every direct path has to be found again."""
        for path in self.paths.values():
            path.reset()
            path.state, path.rest_until = PathState.PROBING, 0.0
        self.start_over(now)
        if self.receive_key:
            self._punching.start([*self.paths, *self._kinds], now)
        self.rendezvous(now)

    # -- packets of the pair

    def receive(self, kind: int, body: bytes, is_new: bool, address: Address | None, now: float) -> bytes | None:
        """A packet of the pair whose tag is valid, from a direct address or over the relay (None). The payload of a
        DATA that is new. Raises DecodeError."""
        path = self.relay if address is None else self.paths.get(address)
        if path is not None:
            path.received += 1
        if not is_new:
            raise DecodeError("replayed")
        self._acknowledged(self._round == 1)  # it is under keys that need our nonce, which that round contains
        self._last_packet_at = now
        if self.relay.is_without_answer(now):
            self._probe(self.relay, now)  # the first one may have arrived before the peer had our keys
        if path is None:
            path = self._add_path(address, now)
            path.made_known_by_packet(is_offered=address in self._kinds)
        if path.arrived(len(body) + OVERHEAD, now):
            self._punching.probe_at_once(path.address, now)
        if kind == PacketType.DIRECT_DATA:
            self.traffic_at = now
            return body
        if len(body) < _PROBE.size:
            raise DecodeError("malformed")
        nonce, received = _PROBE.unpack_from(body)
        if kind == PacketType.DIRECT_PING:
            if path.answers_ping(OVERHEAD + _PROBE.size):
                self._send(PacketType.DIRECT_PONG, _PROBE.pack(nonce, path.received & 0xFFFFFFFF), path)
            if path.state is PathState.PROBING:
                self._punching.probe_at_once(path.address, now)
        elif path.receive_answer(nonce, received, now):
            self._answered(path, now)
        else:
            raise DecodeError("unknown_nonce")
        return None

    def _answered(self, path: Path, now: float) -> None:
        if path.address is not None:
            self._punching.finish(now)
            if path.largest < MAX_DATAGRAM and not path.full_probed_at:
                self._probe(path, now, MAX_DATAGRAM)
            selected = self._selection.choice.path
            if selected.address is not None and path.is_from_peer and selected.last_received < path.since:
                # The peer sends from an address that it did not offer, and no longer from the other one: it has moved.
                selected.state = PathState.SUSPECT
        self._update_selection(now)

    def _add_path(self, address: Address | None, now: float) -> Path:
        if len(self.paths) >= MAX_PATHS:
            dead = [it for it, path in self.paths.items() if path.state in (PathState.DEAD, PathState.PROBING)]
            if not dead:
                raise DecodeError("too_many_paths")
            del self.paths[dead[0]]
        return self.paths.setdefault(address, Path(address, self._kind_of(address), now))

    def _kind_of(self, address: Address | None) -> PathKind:
        is_ipv6 = isinstance(address, tuple) and ":" in str(address[0])
        return self._kinds.get(address, PathKind.IPV6 if is_ipv6 else PathKind.IPV4)

    def _probe(self, path: Path, now: float, size: int = 0) -> None:
        nonce = self._wire.random(_NONCE_SIZE)
        body = _PROBE.pack(nonce, path.received & 0xFFFFFFFF)
        if self._send(PacketType.DIRECT_PING, body.ljust(max(size - OVERHEAD, 0), b"\0"), path):
            path.probe_sent(nonce, size, now)

    def _send(self, kind: int, body: bytes, path: Path) -> bool:
        """Whether it was sent. Nothing is sent without keys, nor more to an address that may be forged than arrived."""
        if not self._send_key or not path.spend(len(body) + OVERHEAD):
            return False
        number = self._wire.numbers.next()
        packet = packets.seal(self._send_key, kind, self._their_id, number, self._wire.seat, body)
        path.sent += 1
        if path.address is None:
            self._wire.relay(PacketType.PEER, self.seat, packet)
        else:
            self._wire.direct(packet, path.address)
        return True

    # -- DATA

    def send_data(self, number: int, payload: bytes, now: float) -> bool:
        """Sends DATA on the selected direct path, if there is one. Whether it has to be sent over the relay as well."""
        self.traffic_at = now
        path = self._selection.choice.path
        if path.address is None or HEADER.size + len(payload) + packets.TAG_SIZE > path.largest:
            if now < self._overlap_until or self.relay.state in (PathState.SUSPECT, PathState.DEAD):
                self._send_on_others(number, payload)
            self.relay.sent += 1
            return True
        self._send_data_on(path, number, payload)
        if path.state is PathState.VALID and now >= self._overlap_until:
            return False
        self.relay.sent += 1
        return True

    def _send_data_on(self, path: Path, number: int, payload: bytes) -> None:
        path.sent += 1
        self._direct_packets += 1
        self._direct_bytes += len(payload) + OVERHEAD
        kind, seat = PacketType.DIRECT_DATA, self._wire.seat
        self._wire.direct(packets.seal(self._send_key, kind, self._their_id, number, seat, payload), path.address or 0)

    def _send_on_others(self, number: int, payload: bytes) -> None:
        """After a return to the relay, or while the relay does not answer: a direct path that may work."""
        for path in self.paths.values():
            if path.is_alive and not path.is_narrow and len(payload) + OVERHEAD <= path.largest:
                self._send_data_on(path, number, payload)
                return

    @property
    def is_direct(self) -> bool:
        return self._selection.choice.path.address is not None

    @property
    def choice(self) -> Choice:
        return self._selection.choice

    def close(self, body: bytes) -> None:
        """Notifies the peer on the direct path that this player leaves."""
        if self.is_direct:
            self._send(PacketType.DIRECT_CLOSE, body, self._selection.choice.path)

    def leave_direct(self, reason: PathReason, now: float) -> None:
        """Back to the relay at once."""
        self._punching.stop()
        if self._selection.leave(reason, now):
            self._wire.path_changed(self, self._selection.choice)

    def end(self, reason: PathReason, now: float) -> None:
        """The pair is no longer permitted; the object is not used any more."""
        self._punching.stop()
        if self._selection.end(reason, now):
            self._wire.path_changed(self, self._selection.choice)

    # -- time

    def handle_timer(self, now: float) -> None:
        if self._repeat_at is not None and now >= self._repeat_at:
            if not self._round:
                self.rendezvous(now)
            elif self._repeats <= len(RENDEZVOUS_REPEATS) or now - self.traffic_at < IN_PLAY_FOR:
                self._send_rendezvous(now)
            else:
                self._repeat_at = now + RENDEZVOUS_RETRY
        if not self.receive_key:
            return
        if self._punching.is_round_due(now) and now - self.traffic_at < IDLE_INTERVAL:
            self._selection.none_found(now)
            self._punching.start(list(self._kinds), now)
        for address in self._punching.take_due(now):
            path = self.paths.get(address)
            if path is None or path.state is PathState.PROBING:
                self._probe(path or self._probing_path(address, now), now)
        changed = self._check_paths(now)
        if self.is_direct and now - self._last_packet_at >= CONSENT_TIMEOUT:
            self.leave_direct(PathReason.PATH_FAILED, now)
        if changed or ((check := self._selection.next_check()) is not None and now >= check):
            self._update_selection(now)

    def _probing_path(self, address: Address, now: float) -> Path:
        """Guessed addresses are not kept as paths: there are a thousand of them. A packet from one makes it a path."""
        if address in self._kinds and len(self.paths) < MAX_PATHS:
            return self._add_path(address, now)
        return Path(address, self._kind_of(address), now)

    def _check_paths(self, now: float) -> bool:
        changed, is_in_play = False, self._is_in_play(now, SENDING_FOR)
        for path in (self.relay, *self.paths.values()):
            changed = path.check(now, is_in_play=is_in_play) or changed
            rest = self._rest_until(path, now)
            if rest is not None and now >= rest:
                path.revive(now)
                self._punching.probe_at_once(path.address, now)
            due = self._next_probe(path, now)
            if due is not None and now >= due:
                self._probe(path, now)
            full = self._next_full_probe(path, now)
            if full is not None and now >= full:
                self._probe(path, now, MAX_DATAGRAM)
        return changed

    def _is_in_play(self, now: float, seconds: float = IN_PLAY_FOR) -> bool:
        return now - self.traffic_at < seconds

    def _rest_until(self, path: Path, now: float) -> float | None:
        """When a direct path that has died is to be probed again. Not during a long pause of the game."""
        is_due = path.is_resting and path.address is not None and now - self.traffic_at < IDLE_INTERVAL
        return path.rest_until if is_due else None

    def _next_probe(self, path: Path, now: float) -> float | None:
        is_failed = path.state in (PathState.SUSPECT, PathState.DEAD)
        if path.address is None and not is_failed and not any(it.is_alive for it in self.paths.values()):
            return None  # the relay is measured only to compare it
        # In a pause, the path to return to is kept open like the one in use.
        is_selected = path is self.choice.path or (path is self._selection.left and not self._is_in_play(now))
        return path.next_probe(is_selected=is_selected, is_in_play=self._is_in_play(now))

    def _next_full_probe(self, path: Path, now: float) -> float | None:
        return path.next_full_probe(is_selected=path is self.choice.path, is_in_play=self._is_in_play(now))

    def next_timer(self, now: float) -> float:
        """At the latest when `handle_timer` is to be called."""
        due = [now + IDLE_INTERVAL, self._repeat_at]
        if self.receive_key:
            due.append(self._punching.next_timer(with_rounds=now - self.traffic_at < IDLE_INTERVAL))
            if not self._wire.is_suspended:
                due.append(self._selection.next_check())
            if self.is_direct:
                due.append(self._last_packet_at + CONSENT_TIMEOUT)
            for path in (self.relay, *self.paths.values()):
                due += [path.next_check(is_in_play=self._is_in_play(now, SENDING_FOR)), self._rest_until(path, now)]
                due += [self._next_probe(path, now), self._next_full_probe(path, now)]
        return min(at for at in due if at is not None)

    def _update_selection(self, now: float) -> None:
        if self._wire.is_suspended:
            return
        if self._selection.update(list(self.paths.values()), now, is_in_play=self._is_in_play(now)):
            relay_rtt = self.relay.round_trip.smoothed or 0.0
            self._overlap_until = now + max(MIN_OVERLAP, relay_rtt)
            self._wire.path_changed(self, self._selection.choice)
            if self._selection.choice.reason is PathReason.PATH_FAILED and not self.is_direct:
                self._punching.start([*self._kinds], now)

    # -- reports

    def info(self) -> PathInfo:
        return self.choice.info(self.seat, self.relay)

    def report(self) -> PathReport:
        """For PATH_REPORT; the packets and bytes are counted anew."""
        sent, octets, self._direct_packets, self._direct_bytes = self._direct_packets, self._direct_bytes, 0, 0
        return self.choice.report(self.seat, self.relay, sent, octets)
