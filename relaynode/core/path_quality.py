"""Measuring the quality of the leg between a player and the node, in either dialect."""

from causeway_client.protocol.probing import Loss

PING_INTERVAL = 2.0  # seconds between two PINGs of the node; a later answer is ignored
_DECAY = 0.9  # of the packets counted for the loss, from one PING to the next


class NativeQuality:
    """A native leg (PROTOCOL.md 7.2). Round trip and jitter in milliseconds, smoothed as in RFC 6298 and RFC 3550; loss
    of both directions, 0 to 1.

    The round trip is measured with the node's own PINGs and clock. It influences the placement of other players, so it
    must not depend on anything that the player reports."""

    __slots__ = ("_arrived", "_due", "_last_arrived", "_last_due", "_nonce", "_pinged_at", "jitter_ms", "rtt_ms")

    def __init__(self) -> None:
        self.rtt_ms: float | None = None
        self.jitter_ms = 0.0
        self._nonce = b""  # of the outstanding PING; empty: there is none
        self._pinged_at = 0.0
        self._due = self._arrived = 0.0
        self._last_due = self._last_arrived = 0

    @property
    def loss(self) -> float:
        return min(max(1.0 - self._arrived / self._due, 0.0), 1.0) if self._due else 0.0

    def is_ping_due(self, now: float) -> bool:
        return now - self._pinged_at >= PING_INTERVAL

    def ping_sent(self, nonce: bytes, now: float) -> None:
        """A PING with this nonce was sent. The answer to an earlier one is ignored from now on."""
        self._nonce, self._pinged_at = nonce, now

    def pong_received(self, nonce: bytes, now: float) -> None:
        """A PONG arrived from the address to which the PING was sent."""
        if not self._nonce or nonce != self._nonce:
            return
        self._nonce = b""
        rtt_ms = (now - self._pinged_at) * 1000
        if not 0 <= rtt_ms <= PING_INTERVAL * 1000:
            return
        if self.rtt_ms is None:
            self.rtt_ms = rtt_ms
        else:
            self.jitter_ms += (abs(rtt_ms - self.rtt_ms) - self.jitter_ms) / 16
            self.rtt_ms += (rtt_ms - self.rtt_ms) / 8

    def update_loss(self, sent: int, reported: int, due: int, received: int) -> None:
        """Totals so far: packets sent to the player, packets that the player reports to have received of them, packets
        that the player sent, and those of them that arrived. `reported` is capped at `sent`, so that a false report
        cannot hide the loss of the player's own packets."""
        due, arrived = sent + due, min(reported, sent) + received
        if due - self._last_due <= Loss.LONGEST:
            self._due = self._due * _DECAY + max(due - self._last_due, 0)
            self._arrived = self._arrived * _DECAY + max(arrived - self._last_arrived, 0)
        self._last_due, self._last_arrived = due, arrived


class EdgegapQuality:
    """An edgegap leg. The dialect has no answer to a ping reply, so there is no round trip. A client sends pings at
    even intervals (EDGEGAP.md W16): the unevenness with which they arrive is the jitter in milliseconds, and a gap of
    several intervals is loss, 0 to 1."""

    __slots__ = ("_interval", "_last", "_missed", "_received", "jitter_ms")

    _LONGEST = 5.0  # seconds; a client that pauses longer was not there

    def __init__(self) -> None:
        self.jitter_ms = 0.0
        self._last: float | None = None
        self._interval = 0.0
        self._received = self._missed = 0.0

    @property
    def is_known(self) -> bool:
        return self._received >= 3

    @property
    def loss(self) -> float:
        return self._missed / (self._received + self._missed) if self._received else 0.0

    def ping_received(self, now: float) -> None:
        """A ping arrived at `now`."""
        gap, self._last = (0.0 if self._last is None else now - self._last), now
        if not 0 < gap < self._LONGEST:
            return
        if not self._interval:
            self._interval = gap
        missed = max(round(gap / self._interval) - 1, 0)
        if not missed:
            self.jitter_ms += (abs(gap - self._interval) * 1000 - self.jitter_ms) / 16
            self._interval += (gap - self._interval) / 8
        elif self._received < 3:
            self._interval = min(self._interval, gap)
        self._received = self._received * _DECAY + 1
        self._missed = self._missed * _DECAY + missed
