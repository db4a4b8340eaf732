"""The edgegap dialect, node's side (EDGEGAP.md 1).

Up: user token u32, session token u32, type u8, then (in DATA from the host) connectionId u32, then the payload.
Down: type u8, then (in DATA to the host) connectionId u32, then the payload; or type u8 and state u8.
All little-endian.
"""

from ..addresses import Address, Outgoing
from ..admission import may_move
from ..counters import Answer, Drop
from ..forwarding import Exchange
from ..limits import FloodMeter, SourceLimiter
from ..path_quality import PingSpacing
from ..seats import Seat
from ..sessions import Sessions

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
    def __init__(self, exchange: Exchange, sessions: Sessions) -> None:
        self._exchange = exchange
        self._sessions = sessions
        self._counters = exchange.counters
        self._drop = exchange.counters.drop
        self._take = exchange.table.mirror.take
        bad_tokens = exchange.config.bad_tokens_per_source
        self._strangers = SourceLimiter(bad_tokens, exchange.random(16))  # whose pings are told that they are invalid
        self._flood = FloodMeter(exchange.config.ping_flood_threshold)
        # By session token as well: guessing is hopeless without a true one, so who has none cannot use up what is let
        # in from a source, be it shared with others or forged.
        self._guessers = SourceLimiter(bad_tokens, exchange.random(16))

    def receive(self, seat: Seat, data: bytes, size: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """A datagram of at least 9 bytes that begins with the token pair of `seat`."""
        kind = data[8]
        if seat.addr != addr or seat.port != port or seat.link is not None:
            hindrance = self._let_in(seat, kind, addr, port, now)
            if hindrance is not None:
                return self._turn_away(hindrance, seat, kind, addr, port, now)
        elif seat.candidate is not None:
            seat.candidate = None
        if kind == _DATA:
            seat.last_heard = now
            session = seat.session
            if not self._take(seat, session, size, now):
                return self._exchange.over_limit(seat, now)
            if seat.number:
                return self._exchange.deliver(seat, session.seats.get(0), data[_HEAD:], now)
            if size < _HOST_HEAD:
                return self._drop("malformed")
            target = session.by_connection_id.get(_int(data[_HEAD:_HOST_HEAD], "little"))
            if target is None:
                return self._drop("unknown_connection_id")
            return self._exchange.deliver(seat, target, data[_HOST_HEAD:], now)
        if kind == _PING:
            seat.last_heard = now
            if seat.pings is None:
                seat.pings = PingSpacing()
            seat.pings.heard(now)
            return self._answer(self._state(seat, now), addr, port)
        return self._drop("unknown_type")

    def receive_unknown(self, pair: int, kind: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """Tokens that are not in the table: a guess, or a player whose session is over."""
        reason = self._sessions.why_ended(pair)
        if reason is not None:
            if kind != _PING:
                return self._drop("session_ended")
            return self._answer("ping_session_timeout" if reason == "idle" else "ping_invalid", addr, port)
        is_known = self._sessions.grants_known  # else the manager may list the session: nobody can be said to guess
        if is_known:
            self._guessers.take(addr, now, pair >> 32)
        if kind != _PING:
            return self._drop("unknown_token" if is_known else "grants_not_loaded")
        allowed = not self._flood.count(now) and self._strangers.take(addr, now)
        if not allowed:
            return self._drop("source_rate_limited")
        return self._answer("ping_invalid" if is_known else "ping_checking", addr, port)

    def _let_in(self, seat: Seat, kind: int, addr: Address, port: int, now: float) -> Drop | None:
        """Bind or move the seat to `addr`, from where tokens of its own came; or what stands against it."""
        self._exchange.table.mirror.refresh(seat)
        if seat.revoked:
            return "seat_revoked"
        if port != seat.role_port:
            return "wrong_port"
        if not seat.session.edgegap:
            return "dialect_off"
        if seat.link is not None:
            return "bound_to_native"
        if kind not in (_PING, _DATA):
            return "unknown_type"
        if self._guessers.is_over(addr, now, seat.session.token or 0):
            return "source_rate_limited"
        if seat.addr is None:
            self._exchange.join(seat, addr, port, now)
        elif may_move(seat, addr, now):
            self._exchange.move(seat, addr, port, now)
        else:
            return "address_unvalidated"
        return None

    def _turn_away(
        self, hindrance: Drop, seat: Seat, kind: int, addr: Address, port: int, now: float
    ) -> Outgoing | None:
        """Nothing is forwarded; a ping is told what its tokens are worth."""
        if kind == _PING and hindrance in _INVALID_FOR:
            return self._answer("ping_invalid", addr, port)
        if kind == _PING and hindrance == "address_unvalidated":
            return self._answer(self._state(seat, now), addr, port)
        return self._drop(hindrance)

    def _state(self, seat: Seat, now: float) -> Answer:
        host = seat.session.seats.get(0)
        if host is None or host is seat or not host.last_heard:
            return "ping_valid"
        self._exchange.table.mirror.refresh(host)
        silent = now - host.last_heard > self._exchange.config.owner_timeout
        return "ping_session_timeout" if silent else "ping_valid"

    def _answer(self, state: Answer, addr: Address, port: int) -> Outgoing:
        self._counters.answers[state] += 1
        return port, _STATES[state], addr
