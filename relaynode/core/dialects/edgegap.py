"""The edgegap dialect, node's side (EDGEGAP.md 1).

Up: user token u32, session token u32, type u8, then (in DATA from the host) connectionId u32, then the payload.
Down: type u8, then (in DATA to the host) connectionId u32, then the payload; or type u8 and state u8.
All little-endian.
"""

from causeway_client.protocol.packets import MAX_DATAGRAM_BESIDE_EDGEGAP

from .. import stun
from ..addresses import Address, Outgoing
from ..counters import Answer, Drop
from ..forwarding import Forwarder
from ..limits import FloodMeter, SourceLimiter
from ..path_quality import EdgegapQuality
from ..seats import Seat
from ..sessions import Sessions
from .edgegap_binding import EdgegapBinding

_PING, _DATA = 1, 2
# Never Disconnected (0): some clients stop for good when they read it (EDGEGAP.md W20).
_STATES: dict[Answer, bytes] = {
    "ping_checking": b"\x01\x01",
    "ping_valid": b"\x01\x02",
    "ping_invalid": b"\x01\x03",
    "ping_session_timeout": b"\x01\x04",
}
_INVALID_FOR: tuple[Drop, ...] = ("seat_revoked", "wrong_port", "dialect_off")

_HEAD = 9
_HOST_HEAD = 13
_int = int.from_bytes


class Edgegap:
    def __init__(self, forwarder: Forwarder, sessions: Sessions) -> None:
        self._forwarder = forwarder
        self._sessions = sessions
        self._counters = forwarder.counters
        self._drop = forwarder.counters.drop
        self._binding_of = forwarder.table.by_pair.get
        self._take = forwarder.table.mirror.take
        self._stun = stun.StunServer(forwarder)
        bad_tokens = forwarder.config.bad_tokens_per_source
        self._unknown_sources = SourceLimiter(bad_tokens, forwarder.random(16))  # answered with "invalid"
        self._flood = FloodMeter(forwarder.config.ping_flood_threshold)
        # By session token as well. Guessing is hopeless without a valid session token, so a source without one cannot
        # use up the limit of an address that it shares or forges.
        self._guessing_sources = SourceLimiter(bad_tokens, forwarder.random(16))

    def receive(self, data: bytes, size: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """A datagram of at least 9 bytes."""
        if size > MAX_DATAGRAM_BESIDE_EDGEGAP:
            return self._drop("too_long")
        # No pair in the table begins as another protocol does (PROTOCOL.md 2), so the table may be asked first.
        pair = _int(data[:8], "little")
        binding = self._binding_of(pair)
        if binding is None:
            if stun.looks_like_stun(data):
                return self._stun.receive(data, addr, port, now)
            return self._receive_unknown(pair, data[8], addr, port, now)
        seat = binding.seat
        kind = data[8]
        if seat.addr != addr or seat.port != port or seat.binding is not binding:
            obstacle = self._admit(binding, kind, addr, port, now)
            if obstacle is not None:
                return self._reject(obstacle, seat, kind, addr, port, now)
        elif binding.candidate is not None:
            binding.candidate = None
        if kind == _DATA:
            seat.last_received = now
            session = seat.session
            if not self._take(seat, session, size, now):
                return self._forwarder.over_limit(seat, now)
            if seat.number:
                return self._forwarder.deliver(seat, session.seats.get(0), data[_HEAD:], now)
            if size < _HOST_HEAD:
                return self._drop("malformed")
            target = session.by_connection_id.get(_int(data[_HEAD:_HOST_HEAD], "little"))
            if target is None:
                return self._drop("unknown_connection_id")
            return self._forwarder.deliver(seat, target, data[_HOST_HEAD:], now)
        if kind == _PING:
            seat.last_received = now
            if binding.measured is None:
                binding.measured = EdgegapQuality()
            binding.measured.ping_received(now)
            return self._answer(self._state(seat, now), addr, port)
        return self._drop("unknown_type")

    def _receive_unknown(self, pair: int, kind: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """Tokens that are not in the table: a guess, or a player whose session is over."""
        reason = self._sessions.why_ended(pair)
        if reason is not None:
            if kind != _PING:
                return self._drop("session_ended")
            return self._answer("ping_session_timeout" if reason == "idle" else "ping_invalid", addr, port)
        # While the manager's list is not loaded, it may contain the session: no source can be said to guess.
        is_unknown = self._sessions.grants_known
        if is_unknown:
            self._guessing_sources.take(addr, now, pair >> 32)
        if kind != _PING:
            return self._drop("unknown_token" if is_unknown else "grants_not_loaded")
        allowed = not self._flood.count(now) and self._unknown_sources.take(addr, now)
        if not allowed:
            return self._drop("source_rate_limited")
        return self._answer("ping_invalid" if is_unknown else "ping_checking", addr, port)

    def _admit(self, binding: EdgegapBinding, kind: int, addr: Address, port: int, now: float) -> Drop | None:
        """Bind or move the seat to `addr`, from which its valid tokens came. The result is what prevents that."""
        seat = binding.seat
        self._forwarder.table.mirror.refresh(seat)
        if seat.revoked:
            return "seat_revoked"
        if port != seat.role_port:
            return "wrong_port"
        if binding.dialect not in seat.session.dialects:
            return "dialect_off"
        if seat.binding is not binding:
            return "bound_to_native"
        if kind not in (_PING, _DATA):
            return "unknown_type"
        if self._guessing_sources.is_over(addr, now, seat.session.token or 0):
            return "source_rate_limited"
        if seat.addr is None:
            self._forwarder.join(seat, addr, port, now)
        elif binding.may_move(addr, now):
            self._forwarder.move(seat, addr, port, now)
        else:
            return "address_unvalidated"
        return None

    def _reject(self, obstacle: Drop, seat: Seat, kind: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """Nothing is forwarded; a ping is answered with the state of its tokens."""
        if kind == _PING and obstacle in _INVALID_FOR:
            return self._answer("ping_invalid", addr, port)
        if kind == _PING and obstacle == "address_unvalidated":
            return self._answer(self._state(seat, now), addr, port)
        return self._drop(obstacle)

    def _state(self, seat: Seat, now: float) -> Answer:
        host = seat.session.seats.get(0)
        if host is None or host is seat or not host.last_received:
            return "ping_valid"
        self._forwarder.table.mirror.refresh(host)
        silent = now - host.last_received > self._forwarder.config.owner_timeout
        return "ping_session_timeout" if silent else "ping_valid"

    def _answer(self, state: Answer, addr: Address, port: int) -> Outgoing:
        self._counters.answers[state] += 1
        return port, _STATES[state], addr
