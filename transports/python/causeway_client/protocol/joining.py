"""The outstanding CONNECT of a player: its creation, repetition and answers (PROTOCOL.md 6)."""

from collections.abc import Callable

from . import handshake
from .errors import DecodeError, Refusal

# Seconds after which one CONNECT is repeated. After the last, a new one is created: the player's address may have
# changed, and a node drops a CONNECT that it has received from another address.
REPEAT_AFTER = (0.25, 0.5, 1.0, 2.0, 2.0)
# A COOKIE, or a REFUSED with a later timestamp, is answered at once, but only this many times for each CONNECT, so that
# forged packets cannot cause an endless exchange.
MAX_IMMEDIATE_ANSWERS = 3
# Microseconds that a REFUSED may advance the timestamp beyond the player's clock. A clock may have been reset to 1970,
# but a REFUSED is not authenticated: without a limit, one forged packet could use up all timestamps of the seat.
MAX_CLOCK_LEAD = 100 * 365 * 86_400 * 10**6


class Joining:
    """Creates CONNECTs for one token, each with a later timestamp than the one before, and handles the answers.

    `wall_clock` returns microseconds since 1970, `random(n)` n bytes of a cryptographic generator. The `receive_*`
    methods raise DecodeError, with "unknown_nonce" for an answer to no outstanding CONNECT."""

    def __init__(
        self, token: bytes, seat_key: bytes, wall_clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self.repeat_at: float | None = None  # None if no CONNECT is outstanding
        self._token = token
        self._seat_key = seat_key
        self._wall_clock = wall_clock
        self._random = random
        self._connect: handshake.Connect | None = None
        self._last_timestamp = 0
        self._repeats = 0
        self._immediate_answers = 0

    def start(self, now: float) -> bytes:
        """A new CONNECT."""
        self._immediate_answers = 0
        return self._renew(now)

    def renew(self, token: bytes, seat_key: bytes) -> None:
        """Another token of the same seat, for CONNECTs from now on."""
        self._token, self._seat_key = token, seat_key

    def stop(self) -> None:
        self._connect = self.repeat_at = None

    def repeat(self, now: float) -> bytes:
        """The same CONNECT again, or a new one after the last repetition."""
        if self._connect is None or self._repeats == len(REPEAT_AFTER):
            return self.start(now)
        return self._send(self._connect, now)

    def receive_welcome(self, data: bytes) -> handshake.Welcome:
        welcome = handshake.decode_welcome(data, self._seat_key)
        self._check_nonce(welcome.player_nonce)
        return welcome

    def receive_cookie(self, data: bytes, now: float) -> bytes | None:
        """The CONNECT with the cookie, to be sent at once, or None to wait for the timer."""
        cookie = handshake.decode_cookie(data)
        connect = self._check_nonce(cookie.player_nonce)
        self._connect = handshake.Connect(connect.timestamp, connect.nonce, self._token, cookie.cookie)
        return self._send(self._connect, now) if self._may_answer_at_once() else None

    def receive_refused(self, data: bytes, now: float) -> bytes | handshake.Refused:
        """A CONNECT with a later timestamp, to be sent at once, or the refusal."""
        refused = handshake.decode_refused(data)
        self._check_nonce(refused.player_nonce)
        is_stale = refused.code == Refusal.STALE_TIMESTAMP and refused.detail <= self._wall_clock() + MAX_CLOCK_LEAD
        if not is_stale or not self._may_answer_at_once():
            return refused
        self._last_timestamp = max(self._last_timestamp, refused.detail)
        return self._renew(now)

    def _check_nonce(self, nonce: bytes) -> handshake.Connect:
        if self._connect is None or self._connect.nonce != nonce:
            raise DecodeError("unknown_nonce")
        return self._connect

    def _may_answer_at_once(self) -> bool:
        self._immediate_answers += 1
        return self._immediate_answers <= MAX_IMMEDIATE_ANSWERS

    def _renew(self, now: float) -> bytes:
        self._last_timestamp = max(self._wall_clock(), self._last_timestamp + 1)
        self._repeats = 0
        return self._send(handshake.Connect(self._last_timestamp, self._random(16), self._token), now)

    def _send(self, connect: handshake.Connect, now: float) -> bytes:
        self._connect = connect
        self.repeat_at = now + REPEAT_AFTER[min(self._repeats, len(REPEAT_AFTER) - 1)]
        self._repeats += 1
        return connect.encode(self._seat_key)
