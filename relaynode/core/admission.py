"""Admission of native players: connect tokens, and cookies during a flood."""

import hashlib
import hmac
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from causeway_client.protocol.errors import BadToken, DecodeError, Refusal, UnknownKey
from causeway_client.protocol.handshake import (
    NO_COOKIE,
    Connect,
    Cookie,
    Refused,
    Welcome,
    decode_connect,
    is_connect_mac_valid,
)
from causeway_client.protocol.packets import (
    MAX_PAYLOAD,
    MAX_PAYLOAD_BESIDE_EDGEGAP,
    MAX_SEATS,
    packet_keys,
)
from causeway_client.protocol.tokens import ConnectToken, open_token
from nodeapi.grants import DIALECTS, MAX_DIRECT_GRACE, TIME_LIMIT, Grant, Limits

from .addresses import Address, Outgoing, address_bytes, ip_and_port
from .dialects.native_binding import NativeBinding
from .forwarding import Forwarder, connected_seats
from .grants import GrantRefused
from .limits import FloodMeter, SourceLimiter, bucket_after
from .seats import Random, Seat, Session
from .sessions import Sessions

_NONCE = slice(10, 26)  # the player's nonce in a CONNECT of any version


class CookieJar:
    """Stateless cookies prove that a source receives packets at its address (PROTOCOL.md 6.3)."""

    LIFETIME = 120.0

    def __init__(self, random: Random) -> None:
        self._random = random
        self._secret = self._secret_before = random(32)
        self._made_at: float | None = None

    def bake(self, addr: Address, now: float) -> bytes:
        self._rotate(now)
        return _baked(self._secret, address_bytes(addr))

    def is_right(self, cookie: bytes, addr: Address, now: float) -> bool:
        self._rotate(now)
        address = address_bytes(addr)
        right = hmac.compare_digest(cookie, _baked(self._secret, address))
        return right | hmac.compare_digest(cookie, _baked(self._secret_before, address))

    def _rotate(self, now: float) -> None:
        if self._made_at is None:
            self._made_at = now
        age = now - self._made_at
        if age >= self.LIFETIME:
            self._secret_before = self._secret if age < 2 * self.LIFETIME else self._random(32)
            self._secret = self._random(32)
            self._made_at = now


def _baked(secret: bytes, address: bytes) -> bytes:
    """BLAKE2s and not HMAC, which takes three times as long: a flood contains many false cookies."""
    return hashlib.blake2s(address, key=secret, digest_size=16).digest()


def _port_of(addr: Address) -> int:
    return int.from_bytes(address_bytes(addr)[16:], "little")


class _RefusedError(Exception):
    def __init__(self, code: Refusal, detail: int = 0) -> None:
        super().__init__(code.name)
        self.code = code
        self.detail = detail


class _NotKnownYetError(Exception):
    """The manager may have issued a key that this node has not read yet. The player repeats its CONNECT."""


class Admission:
    """Answers CONNECT: the checks of PROTOCOL.md 6.1, in its order."""

    def __init__(self, worker: int, forwarder: Forwarder, sessions: Sessions) -> None:
        config, random = forwarder.config, forwarder.random
        self._worker = worker
        self._forwarder = forwarder
        self._drop = forwarder.counters.drop
        self._sessions = sessions
        self._keys: Mapping[int, AESGCM] = {}
        self._cookies = CookieJar(random)
        self._flood = FloodMeter(config.connect_flood_threshold)
        self._sources = SourceLimiter(config.connects_per_source, random(16))
        self._refused = SourceLimiter(config.refused_connects_per_source, random(16))
        self._refused_at_port = SourceLimiter(config.connects_per_source, random(16))

    def set_token_keys(self, keys: Mapping[int, bytes]) -> None:
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}

    def receive_connect(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        try:
            connect = decode_connect(data)
        except DecodeError as error:
            if error.reason == "unsupported_version":
                if not self._forwarder.unauthenticated_replies.take(now):
                    return self._drop("source_rate_limited")
                return self._refuse(data[_NONCE], Refusal.UNSUPPORTED_VERSION, 0, addr, port)
            return self._drop("too_short" if error.reason == "too_short" else "malformed")
        if self._flood.count(now) or not self._sources.take(addr, now):
            if connect.cookie == NO_COOKIE or not self._cookies.is_right(connect.cookie, addr, now):
                return self._give_cookie(connect.nonce, addr, port, now)
            # Only CONNECTs that connect no player count: many players may share an address, and one of them that
            # guesses has a port of its own.
            if self._refused.is_over(addr, now) or self._refused_at_port.is_over(addr, now, _port_of(addr)):
                return self._drop("source_rate_limited")
        try:
            token = self._open(data, connect, now)
            return self._admit(connect, token, addr, port, now)
        except _NotKnownYetError:
            return self._drop("grants_not_loaded")
        except _RefusedError as refused:
            self._count_refused(addr, now)
            return self._refuse(connect.nonce, refused.code, refused.detail, addr, port)

    def _count_refused(self, addr: Address, now: float) -> None:
        """Count a CONNECT from `addr` that was processed but connected no player."""
        self._refused.take(addr, now)
        self._refused_at_port.take(addr, now, _port_of(addr))

    def _give_cookie(self, nonce: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        if not self._forwarder.unauthenticated_replies.take(now):
            return self._drop("source_rate_limited")
        self._forwarder.counters.answers["cookie"] += 1
        return port, Cookie(nonce, self._cookies.bake(addr, now)).encode(), addr

    def _open(self, data: bytes, connect: Connect, now: float) -> ConnectToken:
        try:
            token = open_token(connect.token, self._keys)
        except UnknownKey:
            if not self._sessions.grants_known:
                raise _NotKnownYetError from None
            raise _RefusedError(Refusal.WRONG_NODE) from None
        except BadToken:
            raise _RefusedError(Refusal.BAD_TOKEN) from None
        if token.seat >= MAX_SEATS:
            raise _RefusedError(Refusal.BAD_TOKEN)
        if token.expires <= now:
            # The player learns whether it needs a new token or the session is over.
            is_over = token.session_expires <= now or self._sessions.is_over(token.session, token.issued)
            raise _RefusedError(Refusal.SESSION_ENDED if is_over else Refusal.TOKEN_EXPIRED)
        if not is_connect_mac_valid(data, connect, token.seat_key):
            raise _RefusedError(Refusal.BAD_MAC)
        if token.worker != self._worker:
            raise _RefusedError(Refusal.WRONG_WORKER)
        return token

    def _admit(self, connect: Connect, token: ConnectToken, addr: Address, port: int, now: float) -> Outgoing | None:
        session = self._forwarder.table.sessions.get(token.session)
        if self._sessions.is_over(token.session, token.issued) or token.session_expires <= now:
            raise _RefusedError(Refusal.SESSION_ENDED)
        seat = session.seats.get(token.seat) if session else None
        if seat and seat.revoked:
            raise _RefusedError(Refusal.SEAT_REVOKED)
        if session and NativeBinding.dialect not in session.dialects:
            raise _RefusedError(Refusal.DIALECT_OFF)
        if seat and connect.timestamp <= seat.last_connect:
            return self._seen_before(seat, connect, addr, port, now)
        if seat is None:
            seat = self._take_seat(session, token, now)
        connects_at = bucket_after(seat.connects_at, self._forwarder.config.connects_per_seat, now)
        if connects_at is None:
            self._count_refused(addr, now)
            return self._drop("seat_rate_limited")  # its player repeats the CONNECT, and a later one is admitted
        seat.connects_at = connects_at
        seat.last_connect = connect.timestamp
        node_nonce = self._forwarder.random(16)
        binding = self._new_binding(seat, connect.nonce, node_nonce, token.seat_key)
        self._forwarder.join_native(seat, binding, addr, port, now)
        binding.welcome = self._welcome(binding, node_nonce, addr, token).encode(token.seat_key)
        return self._answer_welcome(binding, addr, port)

    def _seen_before(self, seat: Seat, connect: Connect, addr: Address, port: int, now: float) -> Outgoing | None:
        binding = seat.binding
        if (
            not isinstance(binding, NativeBinding)
            or connect.timestamp != seat.last_connect
            or connect.nonce != binding.player_nonce
        ):
            raise _RefusedError(Refusal.STALE_TIMESTAMP, seat.last_connect)
        if (seat.addr, seat.port) != (addr, port):
            self._count_refused(addr, now)
            return self._drop("replayed_connect")
        # The WELCOME was lost or is on its way. The number of repetitions is limited.
        self._refused_at_port.take(addr, now, _port_of(addr))
        return self._answer_welcome(binding, addr, port)

    def _take_seat(self, session: Session | None, token: ConnectToken, now: float) -> Seat:
        """Add a seat that was not granted to this node, and perhaps its session: the token has all the terms."""
        try:
            self._sessions.check_room(session, 1)
        except GrantRefused as error:
            raise _RefusedError(Refusal.DRAINING if error.code == "draining" else Refusal.FULL) from None
        if session is None:
            session = self._sessions.open(self._terms(token), now)
        limits = Limits(token.seat_packets, token.seat_bytes)
        return self._forwarder.table.add_seat(session, token.seat, limits, token.direct_mode)

    def _terms(self, token: ConnectToken) -> Grant:
        return Grant(
            session=token.session,
            revision=0,
            worker=self._worker,
            token=None,
            topology="mesh" if token.mesh else "host",
            dialects=DIALECTS if token.admits_edgegap else (NativeBinding.dialect,),
            idle_timeout=max(token.idle_timeout, 1),
            expires_at=min(token.session_expires, TIME_LIMIT - 1),  # later ones could not be restored after a restart
            limits=Limits(token.session_packets, token.session_bytes),
            seats=(),
            direct_grace=min(token.direct_grace, MAX_DIRECT_GRACE),
        )

    def _new_binding(self, seat: Seat, player_nonce: bytes, node_nonce: bytes, seat_key: bytes) -> NativeBinding:
        up_key, down_key = packet_keys(seat_key, player_nonce, node_nonce)
        connection = self._forwarder.table.new_connection()
        path_key = self._forwarder.random(16)
        mirror = self._forwarder.table.mirror
        return mirror.make_native_binding(connection, seat, up_key, down_key, player_nonce, path_key)

    def _welcome(self, binding: NativeBinding, node_nonce: bytes, addr: Address, token: ConnectToken) -> Welcome:
        seat, config = binding.seat, self._forwarder.config
        session = seat.session
        ip, port = ip_and_port(addr)
        return Welcome(
            player_nonce=binding.player_nonce,
            node_nonce=node_nonce,
            connection=binding.id,
            seat=seat.number,
            mesh=session.mesh,
            ip=ip,
            port=port,
            keep_alive_ms=config.keep_alive_ms,
            timeout_ms=int(config.timeout * 1000),
            packets_per_second=seat.limits.packets,
            bytes_per_second=seat.limits.bytes,
            max_payload=MAX_PAYLOAD_BESIDE_EDGEGAP if session.admits_edgegap else MAX_PAYLOAD,
            roster=connected_seats(session),
            is_sequenced=not session.admits_edgegap,
            direct_mode=seat.effective_mode,
            # The grant is newer than the token: the session may have moved since.
            is_standby=session.role == "standby" if session.revision else token.is_standby,
            epoch=session.epoch,
            roster_generation=session.roster_generation,
            expires=int(session.expires_at),
            direct_grace=session.direct_grace,
            second_port=config.ports[1 - seat.port],
        )

    def _answer_welcome(self, binding: NativeBinding, addr: Address, port: int) -> Outgoing:
        self._forwarder.counters.answers["welcome"] += 1
        return port, binding.welcome, addr

    def _refuse(self, nonce: bytes, code: Refusal, detail: int, addr: Address, port: int) -> Outgoing:
        self._forwarder.counters.answers["refused"] += 1
        return port, Refused(nonce, code, detail).encode(), addr
