"""The native dialect, node's side: packets of a connection, and probes (PROTOCOL.md 7, 9 and 11)."""

from collections.abc import Callable, Mapping

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.packets import (
    EVERYONE,
    HEADER,
    OVERHEAD,
    PING_NONCE_SIZE,
    TAG_SIZE,
    PacketType,
    Ping,
    Probe,
    ProbeRefused,
    ProbeReply,
    decode_close,
    decode_ping,
    decode_probe,
    pack_ip,
    tag_is_right,
)
from causeway_client.protocol.proofs import RoundTripProof, is_answer, proof_key
from causeway_client.protocol.siphash import siphash24

from ..addresses import Address, Outgoing, address_bytes, ip_and_port
from ..admission import Admission, has_rested
from ..forwarding import Exchange
from ..limits import SourceLimiter
from ..seats import Link, Seat

_DATA = int(PacketType.DATA)
_SIGNAL = int(PacketType.SIGNAL)
_TAG = -TAG_SIZE
_U32 = 0xFFFFFFFF

CHALLENGE_INTERVAL = 0.2
REFUSED_PROBES = 4  # for each that is answered: a source that hears nothing at all takes it for loss
PROBE_WAIT = 1000  # milliseconds: a source's allowance is that of a second
LONGEST_ROUND_TRIP = 10_000_000  # microseconds
CHALLENGE_SIZE = 26  # bytes of a PATH_CHALLENGE: nothing shorter is answered with one


class Native:
    def __init__(self, exchange: Exchange, admission: Admission) -> None:
        self._exchange = exchange
        self._counters = exchange.counters
        self._drop = exchange.counters.drop
        self._take = exchange.table.mirror.take
        self._links = exchange.table.by_connection
        self._admission = admission
        self._proof_keys: dict[int, bytes] = {}
        self._probers = SourceLimiter(exchange.config.probes_per_source, exchange.random(16))
        refusals = REFUSED_PROBES * exchange.config.probes_per_source
        self._refused_probers = SourceLimiter(refusals, exchange.random(16))
        self._rare: dict[int, Callable[[Link, bytes, Address, int, float], Outgoing | None]] = {
            PacketType.PING: self._receive_ping,
            PacketType.PONG: self._receive_pong,
            PacketType.CLOSE: self._receive_close,
            PacketType.PATH_RESPONSE: self._receive_path_response,
        }

    def receive(self, data: bytes, size: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """A datagram whose first byte is 0xC0..0xCF. The order of checks is the standard's."""
        kind = data[0]
        if kind != _DATA and kind != _SIGNAL and kind not in self._rare:
            return self._receive_unconnected(kind, data, addr, port, now)
        if size < OVERHEAD:
            return self._drop("too_short")
        _, connection, low, number = HEADER.unpack_from(data)
        link = self._links.get(connection)
        if link is None:
            return self._drop("unknown_connection")
        window = link.window
        sequence = window.complete(low)
        if not tag_is_right(link.receive_key, data, sequence):
            return self._drop("bad_tag")
        if not window.is_new(sequence):
            return self._drop("replayed")
        window.mark(sequence)
        link.received += 1
        seat = link.seat
        seat.last_heard = now
        if seat.addr != addr or seat.port != port:
            self._challenge(link, size, addr, port, now)
        if kind == _DATA:
            return self._receive_data(seat, number, data[10:_TAG], size, now)
        if kind == _SIGNAL:
            return self._receive_signal(seat, number, data[10:_TAG], size, now)
        return self._rare[kind](link, data[10:_TAG], addr, port, now)

    def _receive_data(self, seat: Seat, number: int, payload: bytes, size: int, now: float) -> Outgoing | None:
        session = seat.session
        if number == EVERYONE:
            if session.mesh or seat.number == 0:
                return self._fan_out(seat, payload, size, now)
            number = 0
        if not self._take(seat, session, size, now):
            return self._exchange.over_limit(seat, now)
        if number == seat.number or (number and seat.number and not session.mesh):
            return self._drop("not_allowed")
        return self._exchange.deliver(seat, session.seats.get(number), payload, now)

    def _fan_out(self, seat: Seat, payload: bytes, size: int, now: float) -> Outgoing | None:
        others = self._exchange.others(seat)
        copies = len(others) or 1  # to nobody costs what a packet to an absent peer does
        if not self._take(seat, seat.session, size, now, copies):
            return self._exchange.over_limit(seat, now)
        return self._exchange.deliver_to_all(seat, others, payload, now)

    def _receive_signal(self, seat: Seat, number: int, body: bytes, size: int, now: float) -> Outgoing | None:
        session = seat.session
        if not self._take(seat, session, size, now):
            return self._exchange.over_limit(seat, now)
        if number in (EVERYONE, seat.number):
            return self._drop("not_allowed")
        target = session.seats.get(number)
        if target is None or target.link is None or target.addr is None:
            return self._drop("peer_absent")
        datagram = target.link.seal(_SIGNAL, seat.number, body)
        self._counters.forwarded_packets += 1
        self._counters.forwarded_bytes += len(datagram)
        return target.port, datagram, target.addr

    def _receive_ping(self, link: Link, body: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        try:
            ping = decode_ping(body)
        except DecodeError:
            return self._drop("malformed")
        received = self._count(link, ping)
        if link.missed:
            self._exchange.notify_missed(link)
        self._counters.answers["pong"] += 1
        pong = self._to_player(link, PacketType.PONG, Ping(ping.nonce, received & _U32).encode())
        if link.leg.is_ping_due(now):
            self._ping(link, received, now)
        return pong

    def _ping(self, link: Link, received: int, now: float) -> None:
        """Queue our own PING, to go out right behind the answer to the player's."""
        nonce = self._exchange.random(PING_NONCE_SIZE)
        ping = self._to_player(link, PacketType.PING, Ping(nonce, received & _U32).encode())
        if ping is not None:
            link.leg.pinged(nonce, now)
            self._exchange.outbox.append(ping)

    def _receive_pong(self, link: Link, body: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        try:
            pong = decode_ping(body)
        except DecodeError:
            return self._drop("malformed")
        self._count(link, pong)
        if (link.seat.addr, link.seat.port) == (addr, port):
            link.leg.answered(pong.nonce, now)
        return None

    def _count(self, link: Link, report: Ping) -> int:
        """Take in what the player reports; how many packets came from it so far."""
        sent, received = link.totals()
        link.leg.counted(sent, report.received, link.window.highest, received)
        return received

    def _receive_close(self, link: Link, body: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        try:
            decode_close(body)
        except DecodeError:
            return self._drop("malformed")
        self._exchange.leave(link.seat, "closed", now)
        return None

    def _receive_path_response(self, link: Link, body: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        if body != self._challenge_body(link, addr):
            return self._drop("malformed")
        seat = link.seat
        if (seat.addr, seat.port) == (addr, port):
            return None
        if not has_rested(seat, now):
            return self._drop("rate_limited")  # challenged again, as long as packets come from there
        self._exchange.move(seat, addr, port, now)
        return None

    def _challenge(self, link: Link, size: int, addr: Address, port: int, now: float) -> None:
        """Ask the player, at the address its packet came from, to prove that it gets what is sent there."""
        if size < CHALLENGE_SIZE or now - link.challenged_at < CHALLENGE_INTERVAL:
            return
        link.challenged_at = now
        self._counters.answers["path_challenge"] += 1
        challenge = link.seal(PacketType.PATH_CHALLENGE, 0, self._challenge_body(link, addr))
        self._exchange.outbox.append((port, challenge, addr))

    def _challenge_body(self, link: Link, addr: Address) -> bytes:
        # The same for an address each time: on a long path the answer comes after the next challenge went out.
        return siphash24(link.path_key, address_bytes(addr))

    def _to_player(self, link: Link, kind: int, body: bytes) -> Outgoing | None:
        seat = link.seat
        return None if seat.addr is None else (seat.port, link.seal(kind, 0, body), seat.addr)

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
        if not self._exchange.unauthenticated_replies.take(now):
            return self._drop("source_rate_limited")
        if is_refused:
            self._counters.answers["probe_refused"] += 1
            return port, ProbeRefused(probe.nonce, PROBE_WAIT).encode(), addr
        self._counters.answers["probe_reply"] += 1
        return port, self._prove(probe, pack_ip(ip_and_port(addr)[0]), int(now * 1e6)).encode(), addr

    def _prove(self, probe: Probe, address: bytes, now: int) -> ProbeReply:
        """What we measured, signed: the time since the reply that this PROBE answers, which nobody else has seen."""
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
