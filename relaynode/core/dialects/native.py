"""The native dialect, node's side: packets of a connection, and probes (PROTOCOL.md 7, 9 and 11)."""

from collections.abc import Callable, Mapping

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.offers import decode_offer_ack, decode_relay_changed
from causeway_client.protocol.packets import (
    CHALLENGE_SIZE,
    EVERYONE,
    HEADER,
    MAX_DATAGRAM_BESIDE_EDGEGAP,
    OVERHEAD,
    PATH_IS_SECOND,
    PATH_MOVES,
    PING_NONCE_SIZE,
    TAG_SIZE,
    DirectMode,
    PacketType,
    Ping,
    Probe,
    ProbeRefused,
    ProbeReply,
    decode_close,
    decode_ping,
    decode_probe,
    is_tag_valid,
    pack_ip,
)
from causeway_client.protocol.paths import rendezvous
from causeway_client.protocol.paths.reports import decode_reports
from causeway_client.protocol.proofs import RoundTripProof, is_answer, proof_key
from causeway_client.protocol.siphash import siphash24

from ..addresses import Address, Outgoing, address_bytes, ip_and_port
from ..admission import Admission
from ..forwarding import Forwarder
from ..limits import SourceLimiter, bucket_after
from ..seats import Seat
from .native_binding import NativeBinding

_DATA = int(PacketType.DATA)
_SIGNAL, _RENDEZVOUS, _PEER = int(PacketType.SIGNAL), int(PacketType.RENDEZVOUS), int(PacketType.PEER)
_BETWEEN_SEATS = (_SIGNAL, _RENDEZVOUS, _PEER)
_TAG = -TAG_SIZE
_U32 = 0xFFFFFFFF

CHALLENGE_INTERVAL = 0.2
ROSTER_INTERVAL = 0.2
REPORTS_PER_SECOND = 5  # of a player, after a burst of ten
CHANGES_PER_SECOND = 1  # RELAY_CHANGEDs of a player, likewise
REFUSED_PROBES = 4  # for each answered one: a source without any answer would count its probes as lost
PROBE_WAIT = 1000  # milliseconds: the limit of a source is per second
LONGEST_ROUND_TRIP = 10_000_000  # microseconds
SHORTEST_CHALLENGED = OVERHEAD + CHALLENGE_SIZE  # bytes of a PATH_CHALLENGE: nothing shorter is answered with one


class Native:
    def __init__(self, forwarder: Forwarder, admission: Admission) -> None:
        self._forwarder = forwarder
        self._counters = forwarder.counters
        self._drop = forwarder.counters.drop
        self._take = forwarder.table.mirror.take
        self._table = forwarder.table
        self._binding_of = forwarder.table.by_connection.get
        self._resumed_binding_of = forwarder.table.resumed.get
        self._admission = admission
        self._proof_keys: dict[int, bytes] = {}
        self._probers = SourceLimiter(forwarder.config.probes_per_source, forwarder.random(16))
        refusals = REFUSED_PROBES * forwarder.config.probes_per_source
        self._refused_probers = SourceLimiter(refusals, forwarder.random(16))
        self._rare: dict[int, Callable[[NativeBinding, bytes, Address, int, float], Outgoing | None]] = {
            PacketType.PING: self._receive_ping,
            PacketType.PONG: self._receive_pong,
            PacketType.CLOSE: self._receive_close,
            PacketType.PATH_RESPONSE: self._receive_path_response,
            PacketType.PATH_REPORT: self._receive_path_report,
            PacketType.OFFER_ACK: self._receive_offer_ack,
            PacketType.RELAY_CHANGED: self._receive_relay_changed,
        }

    def receive(self, data: bytes, size: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """A datagram whose first byte is 0xC0..0xDF. The order of checks is the standard's."""
        kind = data[0]
        if kind != _DATA and kind not in _BETWEEN_SEATS and kind not in self._rare:
            return self._receive_unconnected(kind, data, addr, port, now)
        if size < OVERHEAD:
            return self._drop("too_short")
        _, connection, low, number = HEADER.unpack_from(data)
        binding = self._binding_of(connection)
        if binding is None:
            return self._receive_resumed(kind, connection, low, data, addr, port, now)
        window = binding.window
        sequence = window.complete(low)
        if not is_tag_valid(binding.receive_key, data, sequence):
            return self._drop("bad_tag")
        if not window.is_new(sequence):
            return self._drop("replayed")
        window.mark(sequence)
        binding.received += 1
        seat = binding.seat
        seat.last_received = now
        if seat.addr != addr or seat.port != port:
            self._challenge(binding, size, addr, port, now)
        if size > MAX_DATAGRAM_BESIDE_EDGEGAP and seat.session.admits_edgegap:
            return self._drop("too_long")
        if kind == _DATA:
            return self._receive_data(seat, number, data[10:_TAG], size, now)
        if kind in _BETWEEN_SEATS:
            return self._receive_signal(kind, binding, number, data[10:_TAG], size, now)
        return self._rare[kind](binding, data[10:_TAG], addr, port, now)

    def _receive_resumed(
        self, kind: int, connection: int, low: int, data: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        """A packet of a connection that the table does not have, or that was resumed and is not confirmed yet."""
        binding = self._resumed_binding_of(connection)
        if binding is None:
            return self._drop("unknown_connection")
        if not is_tag_valid(binding.receive_key, data, low):  # no player sends 2^32 packets on a connection
            return self._drop("bad_tag")
        is_answer = kind == PacketType.PATH_RESPONSE and (
            data[10:_TAG] == self._challenge_body(binding, addr) + PATH_MOVES
        )
        seat = binding.seat
        if not is_answer:
            # At the address where the player was, it is challenged whatever its packet's length.
            is_known = (seat.addr, seat.port) == (addr, port)
            self._challenge(binding, SHORTEST_CHALLENGED if is_known else len(data), addr, port, now)
            return self._drop("resumed_connection")
        self._table.confirm(binding, low)
        binding.received += 1
        seat.last_received = now
        if (seat.addr, seat.port) != (addr, port):
            self._forwarder.move(seat, addr, port, now)
        return None

    def _receive_data(self, seat: Seat, number: int, payload: bytes, size: int, now: float) -> Outgoing | None:
        session = seat.session
        if number == EVERYONE:
            if session.mesh or seat.number == 0:
                return self._fan_out(seat, payload, size, now)
            number = 0
        if not self._take(seat, session, size, now):
            return self._forwarder.over_limit(seat, now)
        if number == seat.number or (number and seat.number and not session.mesh):
            return self._drop("not_allowed")
        return self._forwarder.deliver(seat, session.seats.get(number), payload, now)

    def _fan_out(self, seat: Seat, payload: bytes, size: int, now: float) -> Outgoing | None:
        others = self._forwarder.others(seat)
        copies = len(others) or 1  # without receivers it costs as much as a packet to an absent peer
        if not self._take(seat, seat.session, size, now, copies):
            return self._forwarder.over_limit(seat, now)
        return self._forwarder.deliver_to_all(seat, others, payload, now)

    def _receive_signal(
        self, kind: int, binding: NativeBinding, number: int, body: bytes, size: int, now: float
    ) -> Outgoing | None:
        """SIGNAL, RENDEZVOUS and PEER: to one seat."""
        seat = binding.seat
        session = seat.session
        if not self._take(seat, session, size, now):
            return self._forwarder.over_limit(seat, now)
        if number in (EVERYONE, seat.number):
            return self._drop("not_allowed")
        target = session.seats.get(number)
        if target is None:
            return self._drop("peer_absent")
        if kind != _SIGNAL:
            if not session.may_reach(seat, target):
                return self._drop("not_allowed")
            if DirectMode.RELAY_ONLY in (seat.effective_mode, target.effective_mode):
                return self._drop("direct_not_allowed")
        if kind == _RENDEZVOUS:
            try:
                if rendezvous.end_of(body) != len(body):
                    return self._drop("malformed")
            except DecodeError as error:
                return self._drop("unsupported_version" if error.reason == "unsupported_version" else "malformed")
            if seat.effective_mode is DirectMode.ASK and not binding.knows_mode:
                return self._drop("direct_not_allowed")
            if number not in binding.shared_with:
                binding.shared_with.add(number)
                self._forwarder.report_changed(seat, now)
            if target.direct_mode is DirectMode.ASK and not _has_shared(target, seat):
                return self._drop("direct_not_allowed")
            body += rendezvous.pack_observed(self._observed(binding))
        return self._forwarder.deliver_signal(kind, seat, target, body)

    def _observed(self, binding: NativeBinding) -> list[tuple[str, int]]:
        """The addresses at which the player has proved to receive: a packet with a valid tag came from there after a
        WELCOME or a PATH_CHALLENGE had been sent there."""
        addresses = dict.fromkeys((binding.seat.addr, binding.second_addr))
        return [ip_and_port(addr) for addr in addresses if addr is not None]

    def _receive_ping(
        self, binding: NativeBinding, body: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        try:
            ping = decode_ping(body)
        except DecodeError:
            return self._drop("malformed")
        received = self._count(binding, ping)
        self._counters.answers["pong"] += 1
        generation = binding.seat.session.roster_generation
        if ping.generation != generation and now - binding.roster_sent_at >= ROSTER_INTERVAL:
            binding.roster_sent_at = now
            self._forwarder.send_roster(binding.seat)
        pong = self._to_player(binding, PacketType.PONG, Ping(ping.nonce, received & _U32, generation).encode())
        if binding.measured.is_ping_due(now):
            self._ping(binding, received, now)
        if binding.seat.offer is not None:
            self._forwarder.offers.start(binding.seat, now)
        return pong

    def _ping(self, binding: NativeBinding, received: int, now: float) -> None:
        """Queue a PING of the node, sent right after the answer to the player's."""
        nonce = self._forwarder.random(PING_NONCE_SIZE)
        generation = binding.seat.session.roster_generation
        ping = self._to_player(binding, PacketType.PING, Ping(nonce, received & _U32, generation).encode())
        if ping is not None:
            binding.measured.ping_sent(nonce, now)
            self._forwarder.outbox.append(ping)

    def _receive_pong(
        self, binding: NativeBinding, body: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        try:
            pong = decode_ping(body)
        except DecodeError:
            return self._drop("malformed")
        self._count(binding, pong)
        if (binding.seat.addr, binding.seat.port) == (addr, port):
            binding.measured.pong_received(pong.nonce, now)
        return None

    def _count(self, binding: NativeBinding, report: Ping) -> int:
        """Use the player's report; returns the number of packets received from it so far."""
        if report.generation == binding.seat.session.roster_generation:
            binding.knows_mode = True
        sent, received = binding.totals()
        binding.measured.update_loss(sent, report.received, binding.window.highest, received)
        return received

    def _receive_close(
        self, binding: NativeBinding, body: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        try:
            decode_close(body)
        except DecodeError:
            return self._drop("malformed")
        self._forwarder.leave(binding.seat, "closed", now)
        return None

    def _receive_path_response(
        self, binding: NativeBinding, body: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        purpose = body[CHALLENGE_SIZE:]
        if body[:CHALLENGE_SIZE] != self._challenge_body(binding, addr) or purpose not in (PATH_MOVES, PATH_IS_SECOND):
            return self._drop("malformed")
        seat = binding.seat
        if (seat.addr, seat.port) == (addr, port):
            return None
        if purpose == PATH_IS_SECOND:
            if binding.second_addr != addr:
                binding.second_addr = addr
                self._forwarder.report_changed(seat, now)
            return None
        if not seat.may_move(now):
            return self._drop("rate_limited")  # it is challenged again while packets arrive from there
        self._forwarder.move(seat, addr, port, now)
        return None

    def _receive_path_report(
        self, binding: NativeBinding, body: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        reports_at = bucket_after(binding.reports_at, REPORTS_PER_SECOND, now)
        if reports_at is None:
            return self._drop("rate_limited")
        binding.reports_at = reports_at
        try:
            reports = decode_reports(body)
        except DecodeError:
            return self._drop("malformed")
        self._forwarder.path_reports.add(binding.seat, reports)
        return None

    def _receive_offer_ack(
        self, binding: NativeBinding, body: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        if binding.seat.session.admits_edgegap:
            return self._drop("malformed")
        try:
            ack = decode_offer_ack(body)
        except DecodeError:
            return self._drop("malformed")
        self._forwarder.offers.acknowledge(binding.seat, ack, now)
        return None

    def _receive_relay_changed(
        self, binding: NativeBinding, body: bytes, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        if binding.seat.session.admits_edgegap:
            return self._drop("malformed")
        changes_at = bucket_after(binding.changes_at, CHANGES_PER_SECOND, now)
        if changes_at is None:
            return self._drop("rate_limited")
        binding.changes_at = changes_at
        try:
            change = decode_relay_changed(body)
        except DecodeError:
            return self._drop("malformed")
        self._forwarder.relay_changes.received(binding, change, now)
        return None

    def _challenge(self, binding: NativeBinding, size: int, addr: Address, port: int, now: float) -> None:
        """Challenge the player, at the new address, to prove that it receives packets there."""
        if size < SHORTEST_CHALLENGED or now - binding.challenged_at < CHALLENGE_INTERVAL:
            return
        binding.challenged_at = now
        self._counters.answers["path_challenge"] += 1
        challenge = binding.seal(PacketType.PATH_CHALLENGE, 0, self._challenge_body(binding, addr))
        self._forwarder.outbox.append((port, challenge, addr))

    def _challenge_body(self, binding: NativeBinding, addr: Address) -> bytes:
        # Constant for an address: on a long path, the answer arrives after the next challenge was sent.
        return siphash24(binding.path_key, address_bytes(addr))

    def _to_player(self, binding: NativeBinding, kind: int, body: bytes) -> Outgoing | None:
        seat = binding.seat
        return None if seat.addr is None else (seat.port, binding.seal(kind, 0, body), seat.addr)

    def _receive_unconnected(self, kind: int, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        if kind == PacketType.CONNECT:
            return self._admission.receive_connect(data, addr, port, now)
        if kind == PacketType.PROBE:
            return self._receive_probe(data, addr, port, now)
        return self._drop("unknown_type")

    def _receive_probe(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        try:
            probe = decode_probe(data)
        except DecodeError as error:
            return self._drop("too_short" if error.reason == "too_short" else "unsupported_version")
        is_refused = not self._probers.take(addr, now)
        if is_refused and not self._refused_probers.take(addr, now):
            return self._drop("source_rate_limited")
        if not self._forwarder.unauthenticated_replies.take(now):
            return self._drop("source_rate_limited")
        if is_refused:
            self._counters.answers["probe_refused"] += 1
            return port, ProbeRefused(probe.nonce, PROBE_WAIT).encode(), addr
        self._counters.answers["probe_reply"] += 1
        return port, self._prove(probe, pack_ip(ip_and_port(addr)[0]), int(now * 1e6)).encode(), addr

    def _prove(self, probe: Probe, address: bytes, now: int) -> ProbeReply:
        """A signed measurement: the time since the reply that this PROBE answers, which only its receiver knows."""
        keys = self._proof_keys
        if not keys:
            return ProbeReply(probe.nonce, now, probe.size)
        round_trip = 0
        if 0 < now - probe.time < LONGEST_ROUND_TRIP and is_answer(
            probe.nonce, probe.time, address, probe.proof, keys.items()
        ):
            round_trip = now - probe.time
        key_id, key = next(reversed(keys.items()))
        proof = RoundTripProof(probe.nonce, now, round_trip, key_id, address).sign(key)
        return ProbeReply(probe.nonce, now, probe.size, round_trip, key_id, address, proof)

    def set_token_keys(self, keys: Mapping[int, bytes]) -> None:
        self._proof_keys = {key_id: proof_key(key) for key_id, key in keys.items()}


def _has_shared(seat: Seat, peer: Seat) -> bool:
    """Whether the player of `seat` has sent a RENDEZVOUS to `peer` on its connection."""
    return isinstance(seat.binding, NativeBinding) and peer.number in seat.binding.shared_with
